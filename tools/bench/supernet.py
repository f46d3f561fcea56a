"""A supernet and short trainings compared with the trained networks of NAS-Bench-Macro.

    python -m tools.bench.supernet supernet --epochs 30 --no-sandwich --random 3 --device cuda
    python -m tools.bench.supernet short --networks 40 --epochs 10 --device cuda
    python -m tools.bench.supernet noise --networks 6 --repeats 3

On one core of a CPU, twenty minutes of training and three of reading:

    python -m tools.bench.supernet supernet --epochs 10 --batch 32 --learning-rate 0.016 \\
        --warmup 0.5 --resolution 16 --random 3 --no-sandwich

Kendall's tau-b against the published mean top-1 of three full trainings, on networks drawn from
the table by `--draw`; MACs and parameters of the same networks beside it. Only the training
images of cifar10_12k.npz are used. The budget is what the arguments say: on a GPU give
`--device cuda`, more epochs and 32 px.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from phonenas import space as spaces
from phonenas.data.images import ImageSet, held_out, read_images
from phonenas.search.training.recipe import SMALL
from phonenas.search.training.resources import Resources

SHARED = Path(__file__).parents[3] / "shared" / "data"


def drawn(n: int, draw: int) -> Any:
    """Rows of the table, without repeats."""
    import pandas as pd

    frame = pd.read_csv(SHARED / "nasbench_macro.csv")
    rows = np.random.default_rng(draw).choice(len(frame), n, replace=False)
    return frame.iloc[rows].reset_index(drop=True)


def taus(frame: Any, **told: Any) -> dict[str, float]:
    """Kendall's tau-b of each row of numbers with the published top-1."""
    from scipy.stats import kendalltau

    told |= {"MACs": frame["flops"], "parameters": frame["params"]}
    return {
        name: float(kendalltau(np.asarray(row), frame["mean_acc"]).statistic)
        for name, row in told.items()
    }


def some_images(asked: argparse.Namespace) -> ImageSet:
    images = read_images(SHARED / "cifar10_12k.npz")
    if asked.images and asked.images < len(images):
        images = held_out(images, asked.images / len(images), 0)[1]
    return images


def say(**told: Any) -> None:
    print(json.dumps(told), flush=True)


def supernet(asked: argparse.Namespace) -> None:
    from phonenas.search.accuracy.supernet.supernet import Supernet
    from phonenas.search.accuracy.supernet.train import RECIPE, Sharing, train_supernet

    space = spaces.get("nasbench-macro", asked.resolution)
    images = some_images(asked)
    recipe = RECIPE.changed(
        epochs=asked.epochs,
        batch=asked.batch,
        learning_rate=asked.learning_rate,
        warmup_epochs=asked.warmup,
        label_smoothing=asked.smoothing,
        weight_decay=asked.weight_decay,
    )
    folder = Path(asked.out or tempfile.mkdtemp(prefix="supernet"))
    found = train_supernet(
        space,
        images,
        into=folder,
        recipe=recipe,
        sharing=Sharing(asked.held_out, asked.random, asked.sandwich, asked.distil),
        seed=asked.seed,
        resources=Resources(asked.device, asked.threads),
        on_event=lambda e: say(epoch=e.epoch, loss=round(e.loss, 3), seconds=round(e.seconds)),
    )
    net = Supernet(folder, images, space=space, threads=asked.threads, device=asked.device)
    frame = drawn(asked.networks, asked.draw)
    genes = [c for c in frame.columns if c.startswith("l")]
    began = time.perf_counter()
    read = [net.evaluate(space.decode(row)) for row in frame[genes].to_numpy(np.int8)]
    say(
        what="supernet",
        networks=len(frame),
        draw=asked.draw,
        images=found["images"],
        images_held=found["images_held"],
        steps=found["steps"],
        train_s=round(found["seconds"]),
        read_s=round((time.perf_counter() - began) / len(frame), 2),
        largest=found["largest"]["top1"],
        smallest=found["smallest"]["top1"],
        spread=round(found["spread"], 4),
        settings=found["settings"]["recipe"],
        random=asked.random,
        sandwich=asked.sandwich,
        distil=asked.distil,
        seed=asked.seed,
        tau=taus(
            frame,
            probability=[r.probability for r in read],
            top1=[r.top1 for r in read],
            loss=[-r.loss for r in read],
        ),
    )


def short(asked: argparse.Namespace) -> None:
    from phonenas.search.accuracy.short_training import ShortTraining

    space = spaces.get("nasbench-macro", asked.resolution)
    images = some_images(asked)
    recipe = SMALL.changed(
        epochs=asked.epochs,
        batch=asked.batch,
        learning_rate=asked.learning_rate,
        warmup_epochs=asked.warmup,
        label_smoothing=asked.smoothing,
    )
    noise = asked.what == "noise"
    frame = drawn(asked.networks, asked.draw)
    genes = [c for c in frame.columns if c.startswith("l")]
    networks = [space.decode(row) for row in frame[genes].to_numpy(np.int8)]
    tops, seconds = [], []
    for seed in range(asked.seed, asked.seed + (asked.repeats if noise else 1)):
        # The same held-out images for every seed: what differs is the training alone.
        estimator = ShortTraining(
            images,
            recipe=recipe,
            hold_out=asked.held_out,
            seed=asked.seed,
            resources=Resources(asked.device, asked.threads),
        )
        estimator.seed = seed
        row: list[float] = []

        def told(i: int, one: Any, row: list[float] = row) -> None:
            row.append(float(one.top1[0]))
            seconds.append(one.seconds[0])
            print(f"{i}: {one.top1[0]:.4f} {one.seconds[0]:.1f} s", file=sys.stderr, flush=True)

        estimator.estimate_each(networks, told)
        tops.append(row)
    say(
        what=asked.what,
        networks=len(frame),
        draw=asked.draw,
        images=len(estimator._train),
        images_held=len(estimator._held),
        seconds=round(sum(seconds)),
        each_s=round(float(np.mean(seconds)), 2),
        settings=recipe.settings,
        top1=tops,
        tau=[taus(frame, top1=row) for row in tops],
        seed_noise=float(np.sqrt(np.var(tops, axis=0, ddof=1).mean())) if noise else None,
        spread=float(np.std(tops[0], ddof=1)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("supernet", "short", "noise"))
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--draw", type=int, default=0, help="seed of the draw from the table")
    parser.add_argument("--images", type=int, default=0, help="training images used; 0 for all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--warmup", type=float)
    parser.add_argument("--smoothing", type=float)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--random", type=int, default=2)
    parser.add_argument("--sandwich", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--distil", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="", help="folder of the supernet")
    asked = parser.parse_args()
    (supernet if asked.what == "supernet" else short)(asked)


if __name__ == "__main__":
    main()
