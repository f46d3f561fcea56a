"""Fit the shipped model of top-1 on ImageNet after a full schedule.

    python tools/fit_imagenet.py ../shared/data

Reads `published_networks.csv`, `timm_imagenet.csv` and `accel_nasbench.csv`, and writes
`data/tables/imagenet_top1.json`: coefficients and means of clusters, no row of a table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from phonenas.data.files import write_atomic
from phonenas.search.accuracy.imagenet.fit import REACH, fit, left_out, rows_of
from phonenas.search.accuracy.imagenet.model import described
from phonenas.search.accuracy.imagenet.published import read_published

OUT = Path(__file__).parents[1] / "data" / "tables" / "imagenet_top1.json"
TABLES = ("published_networks.csv", "timm_imagenet.csv")
SHORT = "accel_nasbench.csv"
SOURCES = (
    "top-1 of published networks: tensorflow/tpu, tensorflow/models, tensorflow/tflite, "
    "mit-han-lab/proxylessnas, dstamoulis/single-path-nas (Apache-2.0, MIT)",
    "huggingface/pytorch-image-models, results-imagenet.csv (Apache-2.0)",
    "pytorch/vision, weights IMAGENET1K_V1 (BSD-3-Clause)",
    "afzalxo/Accel-NASBench (Apache-2.0)",
)


def main(folder: Path) -> None:
    """Fit to the tables of a folder and write the file."""
    tables, short = [folder / name for name in TABLES], folder / SHORT
    content = fit(tables, short, SOURCES)
    rows = rows_of(read_published(tables), short)
    top1, error = left_out(rows, described(content))
    full = ~rows.short
    off = np.abs(top1 - rows.top1)[full]
    content["score"] = {
        "n": int(full.sum()),
        "mean_error_points": round(float(off.mean()), 3),
        "coverage90": round(float((off <= REACH * error[full]).mean()), 3),
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    write_atomic(OUT, text.replace(',"', ',\n"') + "\n")
    print(OUT, content["score"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
