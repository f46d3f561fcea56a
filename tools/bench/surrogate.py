"""`make bench`: a column from genes, on accel_nasbench.csv, beside the goals and baselines."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[3] / "shared" / "data" / "accel_nasbench.csv"
GOALS: dict[str, tuple[str, dict[int, str]]] = {
    "latency_zcu102_mean": ("mape", {300: "<= 2 %", 1000: "<= 0.8 %"}),
    "val_top1": ("kendall_tau", {200: ">= 0.87", 1000: ">= 0.90"}),
}


def bench_surrogate(say: Callable[..., None], seeds: int = 3) -> None:
    """Print the median over `seeds` shuffles; `say` takes a subject, a figure and the goal."""
    import pandas as pd

    from phonenas.latency_model.benchmarks import columns

    if not TABLE.is_file():
        say("surrogate", "not measured", f"there is no {TABLE}")
        return
    frame = pd.read_csv(TABLE)
    for target, (score, goals) in GOALS.items():
        result = columns.surrogate(
            frame, genes=["block*"], target=target, train=list(goals), seeds=seeds
        )
        if result["left_out"]:
            say(f"{target}: rows without a value, left out", str(result["left_out"]))
        shown = "{:.2%}" if score == "mape" else "{:.4f}"
        for row in result["median"]:
            beside = ", ".join(
                f"{name} {shown.format(_median(rows, row['train'], score))}"
                for name, rows in result["baselines"].items()
            )
            name = "MAPE" if score == "mape" else "Kendall"
            say(
                f"{target} from {row['train']:,} rows, {name}, median of {seeds}",
                shown.format(row[score]),
                f"{goals[row['train']]}  {beside}",
            )


def _median(rows: list[Any], train: int, score: str) -> float:
    return statistics.median(float(r[score]) for r in rows if r["train"] == train)


if __name__ == "__main__":

    def say_plain(what: str, figure: str, goal: str = "") -> None:
        print(f"{what:<66} {figure:>10}   {goal}", flush=True)

    bench_surrogate(say_plain)
