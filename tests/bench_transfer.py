"""`make bench`: a new device from a few measurements, on help_fbnet.csv, beside the goals.

All 21 measured devices are targets in turn, 900 rows known of each source, and of a family (the
cards of one name, the two Golds, the two Silvers) no other member is a source.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

TABLE = Path(__file__).parents[2] / "shared" / "data" / "help_fbnet.csv"
SUMS = ["lat_ms_pixel3", "lat_ms_raspi4", "lat_ms_fpga", "lat_ms_eyeriss"]  # no measurements
CARDS = ["1080ti", "2080ti", "titan_rtx", "titanx", "titanxp"]
FAMILIES = [f"lat_ms_{name}_*" for name in [*CARDS, "gold", "silver"]]
ALL_CPUS = [f"lat_ms_{name}_*" for name in CARDS] + ["lat_ms_[gs][oi]l[dv]*"]
GOALS = {"pixel2": 0.79, "samsung_a50": 0.86}
MEANS = {10: 0.955, 30: 0.965}

Say = Callable[..., None]


def carried(frame: Any, target: str, samples: int, draws: int, families: list[str]) -> Any:
    from phonenas.latency_model import benchmark

    return benchmark.transfer(
        frame, genes=["op*"], sources=["lat_ms_*"], target=target, samples=samples,
        source_samples=900, draws=draws, exclude=SUMS, family=families,
    )  # fmt: skip


def bench_transfer(
    say: Say, draws: int = 20, samples: Sequence[int] = (10, 30), all_cpus: bool = False
) -> None:
    """Print the figures of the goals; `draws` draws each.

    `say` takes a line's subject, its figure and its goal. `all_cpus` also prints the means with
    the four processors as one family.
    """
    import pandas as pd

    if not TABLE.is_file():
        say("transfer", "not measured", f"{TABLE.name} is not there")
        return
    frame = pd.read_csv(TABLE)
    targets = [str(c) for c in frame if str(c).startswith("lat_ms_") and c not in SUMS]
    for n in samples:
        found = {}
        for target in targets:
            found[target] = one = carried(frame, target, n, draws, FAMILIES)
            device = target.removeprefix("lat_ms_")
            if device in GOALS:
                goal = f">= {GOALS[device]}  " if n == 10 else ""
                say(
                    f"{device} from {n} samples, Spearman, mean of {draws} draws",
                    f"{one['mean']['spearman']:.4f}",
                    goal + beside([one]),
                )
        means(say, list(found.values()), n, draws, "family left out", f">= {MEANS.get(n, '')}  ")
        worst = min(found, key=lambda t: float(found[t]["mean"]["coverage90"]))
        say(
            f"90 % intervals of {len(targets)} devices from {n} samples: mean coverage",
            f"{mean(list(found.values()), 'coverage90'):.1%}",
            "85 to 95 %  least "
            f"{found[worst]['mean']['coverage90']:.1%} ({worst.removeprefix('lat_ms_')})",
        )
        rows = [r for one in found.values() for r in one["rows"]]
        ratios = sorted(r["expected_mape"] / r["mape"] for r in rows)
        apart = [abs(r["expected_spearman"] - r["spearman"]) for r in rows]
        low, high = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
        say(
            f"error that the model tells over the true one, {n} samples, median",
            f"{statistics.median(ratios):.2f}",
            f"nine in ten {low:.2f} to {high:.2f}; Spearman off by {statistics.median(apart):.3f}",
        )
        if all_cpus:
            cpus = [t for t in targets if "gold" in t or "silver" in t]
            for target in cpus:
                found[target] = carried(frame, target, n, draws, ALL_CPUS)
            means(say, list(found.values()), n, draws, "all processors one family", "")


def means(say: Say, found: list[Any], samples: int, draws: int, how: str, goal: str) -> None:
    say(
        f"{len(found)} devices from {samples} samples, {how}, {draws} draws: Spearman",
        f"{mean(found, 'spearman'):.4f}",
        goal + beside(found),
    )


def mean(found: list[Any], what: str) -> float:
    return statistics.mean(one["mean"][what] for one in found)


def beside(found: list[Any]) -> str:
    """Other scores, and the baselines' Spearman."""
    others = ", ".join(
        f"{name} {statistics.mean(one['baselines'][name]['spearman'] for one in found):.4f}"
        for name in found[0]["baselines"]
    )
    scores = f"MAPE {mean(found, 'mape'):.2%} (told {mean(found, 'expected_mape'):.2%})"
    return f"{scores}, acc10 {mean(found, 'acc10'):.1%}; {others}"


def say_plain(what: str, figure: str, goal: str = "") -> None:
    print(f"{what:<66} {figure:>10}   {goal}", flush=True)


if __name__ == "__main__":
    bench_transfer(say_plain, draws=int(sys.argv[1]) if len(sys.argv) > 1 else 20, all_cpus=True)
