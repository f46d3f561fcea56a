"""`make bench`, search: shares of exact fronts and rates, with random beside. Printed, not asserted."""

from __future__ import annotations

import importlib.util
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from phonenas import search, space
from phonenas.latency_model import LatencyModel
from phonenas.search import benchmark

__all__ = ["bench_rates", "bench_search"]

Say = Callable[..., None]
SHARED = Path(__file__).parents[2] / "shared" / "data"
TABLES = (
    ("nasbench_macro.csv", "l*", "mean_acc", "flops"),
    ("accel_nasbench.csv", "block*", "val_top1", "latency_zcu102_mean"),
    ("accel_nasbench.csv", "block*", "val_top1", "latency_vck190_mean"),
)
GOALS = {
    ("surrogate", 200): ">= 0.995", ("nsga2", 200): ">= 0.985", ("nsga2", 500): ">= 0.999",
    ("surrogate", 500): ">= 0.999", ("weighted", 500): ">= 0.97", ("rl", 200): "above random",
    ("rl", 500): "above random",
}  # fmt: skip


def bench_search(say: Say, seeds: int = 10) -> None:
    """Share of the exact front's hypervolume after 200 and 500 distinct evaluations."""
    names = [n for n in search.names() if n != "rl" or importlib.util.find_spec("torch")]
    for file, genes, quality, cost in TABLES:
        if not (SHARED / file).is_file():
            say(f"{file}, share of the exact front", "not measured", "the table is not there")
            continue
        found = benchmark.strategies(
            pd.read_csv(SHARED / file), genes=[genes], maximize=quality, minimize=cost,
            names=names, evaluations=[200, 500], seeds=seeds,
        )  # fmt: skip
        for m in found["means"]:
            goal = GOALS.get((m["strategy"], m["evaluations"]), "")
            say(
                f"{file}, {cost}: {m['strategy']} after {m['evaluations']}, mean of {seeds}",
                f"{m['hypervolume_ratio']:.4f}",
                f"{goal if file.startswith('nasbench') else ''}  worst {m['worst']:.4f}",
            )


def bench_rates(say: Say, mnas: space.MnasNet, model: LatencyModel) -> None:
    """Seconds of whole searches, models included."""
    accuracy = search.accuracy.Surrogate()
    jobs = [
        ("nsga2", 8000, "<= 1.5 s"), ("weighted", 8000, "<= 1.5 s"), ("rl", 8000, "<= 30 s"),
        ("surrogate", 300, ""), ("nsga2", 1_000_000, "<= 90 s, 2 GB"),
    ]  # fmt: skip
    for name, evaluations, goal in jobs:
        if name == "rl" and not importlib.util.find_spec("torch"):
            continue
        began = time.perf_counter()
        search.run(
            mnas, latency=model, accuracy=accuracy, strategy=search.get(name), target_ms=12.0,
            evaluations=evaluations,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        say(
            f"{evaluations:,} evaluations, {name}",
            f"{seconds:.2f} s",
            f"{goal}  peak {np.round(peak, 2)} GB",
        )


if __name__ == "__main__":
    from benchmarks import made_up_model, say

    whole = space.MnasNet()
    bench_rates(say, whole, made_up_model(whole))
    bench_search(say)
