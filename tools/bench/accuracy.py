"""`make bench`: estimators of accuracy on nasbench_macro.csv, beside the goals and baselines.

    python -m tools.bench.accuracy [DRAWS]

A draw is 100 of its 6,561 networks; two to four minutes on one core. The members of the ensemble
were chosen with a look at draws 0 and 5, so the draws start at 6.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TABLE, IMAGES = DATA / "nasbench_macro.csv", DATA / "cifar10_12k.npz"
PROXIES = ("rank", "naswot", "sensitivity", "grad_norm", "synflow", "zen")
FIRST_DRAW = 6
GOALS = {"zero_cost:rank": ">= 0.72"}


def bench_accuracy(say: Callable[..., None], draws: int = 2) -> None:
    """Print the mean over `draws`; `say` takes a subject, a figure and the goal."""
    import pandas as pd

    from phonenas import space
    from phonenas.data.images import read_images
    from phonenas.search.accuracy.zero_cost.zero_cost import ZeroCost
    from phonenas.search.benchmarks.accuracy import benchmark, read

    if not (TABLE.is_file() and IMAGES.is_file()):
        say("zero-cost proxies", "not measured", f"{TABLE.name} or {IMAGES.name} is not there")
        return
    macro, images = space.NASBenchMacro(), read_images(IMAGES)
    found = benchmark(
        read(pd.read_csv(TABLE), macro, genes=["l*"], target="mean_acc"),
        {f"zero_cost:{p}": ZeroCost(images, proxies=(p,), space=macro) for p in PROXIES},
        seed=FIRST_DRAW,
        draws=draws,
    )
    for name, mean in found["mean"].items():
        spread = f", {mean['lowest']:.3f} to {mean['highest']:.3f}" if draws > 1 else ""
        seconds = (
            "" if mean["seconds_per_network"] < 1e-3 else f"{mean['seconds_per_network']:.2f} s"
        )
        say(
            f"{name} against trained accuracy, Kendall, {draws} x 100 networks",
            f"{mean['kendall_tau']:.3f}",
            f"{GOALS.get(name, '')}  {seconds} a network{spread}"
            if seconds
            else f"baseline{spread}",
        )


if __name__ == "__main__":

    def say_plain(what: str, figure: str, goal: str = "") -> None:
        print(f"{what:<76} {figure:>8}   {goal}", flush=True)

    bench_accuracy(say_plain, int(sys.argv[1]) if len(sys.argv) > 1 else 1)
