"""`make bench`: a new device from a few measurements, on two tables of HELP, beside the goals.

All 21 measured devices of help_fbnet.csv and all 15 of nb201_latency.csv are targets in turn, 900
rows known of each source, and of a family (the cards of one name, the two Golds, the two Silvers)
no other member is a source. The constants (`averaging.py`, `benchmarks/few_samples.py`)
are one set; those that one table alone prefers give the figures on the other.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[3] / "shared" / "data" / "help_fbnet.csv"
CELLS = TABLE.with_name("nb201_latency.csv")
SUMS = ["lat_ms_pixel3", "lat_ms_raspi4", "lat_ms_fpga", "lat_ms_eyeriss"]  # no measurements
CARDS = ["1080ti", "2080ti", "titan_rtx", "titanx", "titanxp"]
FAMILIES = [f"lat_ms_{name}_*" for name in [*CARDS, "gold", "silver"]]
ALL_CPUS = [f"lat_ms_{name}_*" for name in CARDS] + ["lat_ms_[gs][oi]l[dv]*"]
GOALS = {"pixel2": 0.79, "samsung_a50": 0.86}
MEANS = {10: 0.966, 30: 0.965}
CELLS_MEAN = 0.975  # from 10 samples

Say = Callable[..., None]


def transferred(frame: Any, target: str, samples: int, draws: int, families: list[str]) -> Any:
    from phonenas.latency_model.benchmarks import columns

    return columns.transfer(
        frame,
        columns.DeviceColumns(target, ["lat_ms_*"], SUMS, families),
        genes=["edge*" if "edge0" in frame else "op*"],
        samples=samples,
        source_samples=900,
        draws=draws,
    )


def bench_transfer(
    say: Say, draws: int = 20, samples: Sequence[int] = (10, 30), all_cpus: bool = False
) -> None:
    """Print the figures of the goals; `draws` draws each.

    `say` takes a line's subject, its figure and its goal. `all_cpus` also prints the means with
    the four processors as one family.
    """
    import pandas as pd

    if not TABLE.is_file():
        say("transfer", "not measured", f"there is no {TABLE}")
        return
    frame = pd.read_csv(TABLE)
    targets = [str(c) for c in frame if str(c).startswith("lat_ms_") and c not in SUMS]
    for n in samples:
        results = {}
        for target in targets:
            results[target] = one = transferred(frame, target, n, draws, FAMILIES)
            device = target.removeprefix("lat_ms_")
            if device in GOALS:
                goal = f">= {GOALS[device]}  " if n == 10 else ""
                say(
                    f"{device} from {n} samples, Spearman, mean of {draws} draws",
                    f"{one['mean']['spearman']:.4f}",
                    goal + beside([one]),
                )
        means(say, list(results.values()), n, draws, "family left out", f">= {MEANS.get(n, '')}  ")
        worst = min(results, key=lambda t: float(results[t]["mean"]["coverage90"]))
        say(
            f"90 % intervals of {len(targets)} devices from {n} samples: mean coverage",
            f"{mean(list(results.values()), 'coverage90'):.1%}",
            f"85 to 95 %  least {results[worst]['mean']['coverage90']:.1%} "
            f"({worst.removeprefix('lat_ms_')})",
        )
        rows = [r for one in results.values() for r in one["rows"]]
        ratios = sorted(r["expected_mape"] / r["mape"] for r in rows)
        apart = [abs(r["expected_spearman"] - r["spearman"]) for r in rows]
        low, high = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
        say(
            f"expected error over the true one, {n} samples, median",
            f"{statistics.median(ratios):.2f}",
            f"nine in ten {low:.2f} to {high:.2f}; Spearman off by {statistics.median(apart):.3f}",
        )
        if all_cpus:
            cpus = [t for t in targets if "gold" in t or "silver" in t]
            for target in cpus:
                results[target] = transferred(frame, target, n, draws, ALL_CPUS)
            means(say, list(results.values()), n, draws, "all processors one family", "")
    if CELLS.is_file():
        frame = pd.read_csv(CELLS)
        every = [str(c) for c in frame if str(c).startswith("lat_ms_")]
        cells = [transferred(frame, target, 10, draws, FAMILIES) for target in every]
        goal = f">= {CELLS_MEAN}  "
        means(say, cells, 10, draws, "NAS-Bench-201, family left out", goal)
        say("90 % intervals of these: mean coverage", f"{mean(cells, 'coverage90'):.1%}", "")


def means(say: Say, results: list[Any], samples: int, draws: int, how: str, goal: str) -> None:
    say(
        f"{len(results)} devices from {samples} samples, {how}, {draws} draws: Spearman",
        f"{mean(results, 'spearman'):.4f}",
        goal + beside(results),
    )


def mean(results: list[Any], what: str) -> float:
    return statistics.mean(one["mean"][what] for one in results)


def beside(results: list[Any]) -> str:
    """Other scores, and the baselines' Spearman."""
    others = ", ".join(
        f"{name} {statistics.mean(one['baselines'][name]['spearman'] for one in results):.4f}"
        for name in results[0]["baselines"]
    )
    scores = f"MAPE {mean(results, 'mape'):.2%} (expected {mean(results, 'expected_mape'):.2%})"
    return f"{scores}, acc10 {mean(results, 'acc10'):.1%}; {others}"


def say_plain(what: str, figure: str, goal: str = "") -> None:
    print(f"{what:<66} {figure:>10}   {goal}", flush=True)


if __name__ == "__main__":
    bench_transfer(say_plain, draws=int(sys.argv[1]) if len(sys.argv) > 1 else 20, all_cpus=True)
