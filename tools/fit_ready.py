"""Fit the ready phones of `latency_model/ready/models` from tables that others published.

    python tools/fit_ready.py ../shared/data [--only 'pixel4/*']
    python tools/fit_ready.py --summary [--only 's10/tflite/*']

Each step is a user's command: `phonenas import edge-networks FILE --setting SETTING --device NAME`
(of the Pixel 1, `phonenas import csv`), then `phonenas fit --device NAME`. What is written is what
fit gives, with the source named; no measurement is written.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from phonenas.data import MeasurementStore, importers
from phonenas.latency_model import LatencyModel, fit
from phonenas.latency_model.additive.times import KernelTimes
from phonenas.latency_model.ready import file_of, load, names
from phonenas.space import zoo

MOBILE = (*("mobilenet", "mobilenetv2", "mobilenetv3", "proxyless", "mnasnet"), "efficientnet_edge")
COLUMNS = ("mape", "acc10", "coverage90")
OUT = Path(__file__).parents[1] / "latency_model" / "ready" / "models"
_TABLES = {"edge_tflite_cnn_e2e.csv": "tflite", "edge_torch_cnn_e2e.csv": "torch"}
_EDGE = {"source": "qed-usc/mobile-ml-benchmark (EdgeSys 2024)", "licence": "MIT", "date": "2024"}
_PIXEL1 = {
    "source": "tables of tensorflow/tpu and tensorflow/models, and the MnasNet paper",
    "licence": "Apache-2.0",
    "date": "2019",
}
# FACTS of the MnasNet paper and of its official code: latency on a Pixel 1 at 224 px, ms.
_MNASNETS = (
    ("mnasnet-a1", 1.4, 135.0),
    ("mnasnet-a1", 1.0, 78.0),
    ("mnasnet-a1", 0.75, 61.0),
    ("mnasnet-a1", 0.5, 32.0),
    ("mnasnet-a1", 0.35, 22.8),
    ("mnasnet-b1", 1.0, 77.0),
    ("mnasnet-small", 1.0, 23.2),
    ("mobilenet-v1", 1.0, 113.0),
)


@dataclass(frozen=True)
class Job:
    """One ready phone.

    Args:
        name: PHONE/RUNTIME/UNIT/PRECISION.
        form, file, setting: As `phonenas import` takes them.
        source: What is said of its measurements.
    """

    name: str
    form: str
    file: Path
    setting: str | None
    source: dict[str, str]


def edge_jobs(folder: Path) -> Iterator[Job]:
    """A job for each setting of the edge tables that are there."""
    for file, runtime in _TABLES.items():
        path = folder / file
        if not path.exists():
            continue
        with path.open(encoding="utf-8", newline="") as opened:
            header = next(csv.reader(opened))
        for column in header:
            if not column.endswith("|mean"):
                continue
            phone, cores, kind = column.removesuffix("|mean").split("|")
            unit = cores if cores == "gpu" else f"cpu-{cores}"
            precision = "int8" if kind == "quant" else "float32"
            name = f"{phone}/{runtime}/{unit}/{precision}"
            yield Job(name, "edge-networks", path, column.removesuffix("|mean"), _EDGE)


def pixel1_rows(folder: Path) -> list[tuple[str, float]]:
    """Networks of the Pixel 1 by their text in the zoo, and their times in ms; no A1 below 224."""
    rows = [(_text(name, width, 224), ms) for name, width, ms in _MNASNETS]
    path = folder / "published_networks.csv"
    with path.open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            if (row["device"], row["precision"]) != ("Pixel 1", "fp32"):
                continue
            if row["family"] == "MobileNetV2":
                width, px = float(row["width"]), int(float(row["resolution"]))
                rows.append((_text("mobilenet-v2", width, px), float(row["latency_ms"])))
    return rows


def _text(name: str, width: float, resolution_px: int) -> str:
    graph = zoo.find_graph(name, width, resolution_px)
    return str(zoo.find(name, width, resolution_px) if graph is None else graph)


def pixel1_job(folder: Path, scratch: Path) -> Job:
    """The Pixel 1's job, its table written for `phonenas import csv`."""
    path = scratch / "pixel1.csv"
    columns = "kind subject latency_ms model runtime provider threads cores precision statistic"
    with path.open("w", encoding="utf-8", newline="") as opened:
        out = csv.writer(opened)
        out.writerow(columns.split())
        for text, ms in pixel1_rows(folder):
            conditions = ("Pixel 1", "tflite", "cpu", 1, "big", "float32", "published")
            out.writerow(["network", text, ms, *conditions])
    return Job("pixel1/tflite/cpu-1big/float32", "csv", path, None, _PIXEL1)


def fitted(job: Job) -> LatencyModel:
    """What `phonenas import` and `phonenas fit` make of a job, marked as public."""
    with tempfile.TemporaryDirectory() as folder:
        with MeasurementStore(Path(folder) / "store.db", create=True) as store:
            setting = {} if job.setting is None else {"setting": job.setting}
            device = job.name.replace("/", "-")
            importers.import_tables(importers.read(job.form, job.file, device, **setting), store)
            model = fit(store, device)
    assert isinstance(model.times, KernelTimes)
    conditions = replace(model.conditions, origin="public", device=job.name)
    times = replace(model.times, conditions=conditions)
    return replace(model, times=times, examined=(), until="", source=job.source)


def summarise(pattern: str) -> None:
    """Mean scores over settings, of six families of mobile networks and of all networks."""
    groups: dict[tuple[str, str], list[LatencyModel]] = {}
    for name in names():
        phone, runtime, unit, precision = name.split("/")
        if phone != "pixel1" and fnmatchcase(name, pattern):
            groups.setdefault((runtime, "gpu" if unit == "gpu" else precision), []).append(
                load(name)
            )
    print(
        f"{'runtime, kind':>16} settings  MAPE acc10 covered | " + " ".join(MOBILE) + " | all: rho"
    )
    for (runtime, kind), models in groups.items():
        families = {f: [m.by_family[f] for m in models if f in m.by_family] for f in MOBILE}
        alone = [s for each in families.values() for s in each]
        count = sum(s.n for s in alone)
        columns = [sum(s.n * getattr(s, c) for s in alone) / count for c in COLUMNS]
        by_family = " ".join(
            f"{sum(s.mape for s in each) / max(len(each), 1):.3f}".rjust(len(f))
            for f, each in families.items()
        )
        rho = sum(m.scores["model"].spearman for m in models) / len(models)
        mape, acc10, coverage = columns
        numbers = f"{mape:5.3f} {acc10:5.3f} {coverage:7.3f} | {by_family} | {rho:.4f}"
        print(f"{runtime + ' ' + kind:>16} {len(models):8} {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="Folder of the published tables.")
    parser.add_argument("--summary", action="store_true", help="Scores of what is shipped.")
    parser.add_argument("--only", default="*", help="Shell pattern of the names to fit.")
    options = parser.parse_args()
    if options.summary:
        summarise(options.only)
        return
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [*edge_jobs(options.data), pixel1_job(options.data, Path(scratch))]
        for job in jobs:
            if not fnmatchcase(job.name, options.only):
                continue
            model = fitted(job)
            path = model.save(file_of(job.name, OUT))
            score = model.scores["model"]
            print(
                f"{job.name}: {model.measurements} networks, MAPE {score.mape:.1%}, acc10 "
                f"{score.acc10:.0%}, Spearman {score.spearman:.4f}, {path.stat().st_size:,} bytes",
                flush=True,
            )


if __name__ == "__main__":
    main()
