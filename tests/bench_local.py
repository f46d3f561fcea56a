"""Held-out whole networks of the mnasnet space on this computer, predicted and then measured.

    python -m tests.bench_local --db runs/bench.db [--threads 2]

measures every operator and 60 networks, which teach, and in a later job 45 others, which examine; what the
store holds is not measured again. Then the same from few operators. Minutes, on a quiet computer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonenas import data, devices, latency_model, space
from phonenas.devices.plan import Subject
from phonenas.devices.profiling import subjects_of
from phonenas.latency_model.fitting import fit_measurements
from phonenas.latency_model.selection import choose_operators
from phonenas.progress import Bars
from phonenas.space import Architecture
from phonenas.space.errors import UncoveredOperator

TEACH, EXAMINE = (60, 0), (45, 7)  # networks and seed
FEW = (30, 60, 100, 200)
CALIBRATE = 20  # networks beside few operators, as `profile --networks` has by default


def networks(drawn: tuple[int, int]) -> list[Subject]:
    """Random networks of the space, as a profile draws them."""
    found = subjects_of(space.MnasNet(), *drawn)
    return [s for s in found if s.kind == "network"]


def bench_local(
    say: Callable[..., None], db: Path, threads: int = 1, device: str = "local"
) -> None:
    """Measure what the store lacks, and print scores with their baselines.

    Args:
        say: Prints what, figure and goal.
        db: The store.
        threads: That compute.
        device: Of devices.toml.
    """
    mnas = space.MnasNet()
    with (
        data.MeasurementStore(db) as store,
        devices.connect(device, threads=threads) as here,
        Bars(quiet=True) as bars,
    ):
        devices.profile(mnas, on=here, into=store, networks=TEACH[0], on_event=bars.profiling)
        later = networks(EXAMINE)
        devices.measure(later, on=here, into=store, on_event=bars.profiling)
        measurements = store.measurements(here.conditions)
        conditions = here.conditions
    teach = {s.text for s in networks(TEACH)}
    examine = {s.text for s in later} - teach
    operators = [m for m in measurements if m.kind == "operator"]
    taught = [m for m in measurements if m.subject in teach]
    held = [m for m in measurements if m.subject in examine]
    architectures = [Architecture.parse(m.subject) for m in held]
    measured = np.array([m.latency_ms for m in held])

    def line(name: str, model: latency_model.LatencyModel, goal: str) -> None:
        told = model.predict(architectures)
        s = latency_model.score(told.ms, measured, told.low_ms, told.high_ms)
        say(
            f"{threads} thread{'s' * (threads > 1)}, {name}, n {s.n}: MAPE {s.mape:.2%}, acc5 {s.acc5:.2f}, "
            f"acc10 {s.acc10:.2f}, bias {s.bias:+.2%}, Spearman {s.spearman:.4f}",
            f"covers {s.coverage90:.0%}",
            goal,
        )

    full = fit_measurements(conditions, operators + taught)
    inner = full.scores
    say(
        f"{threads} thread{'s' * (threads > 1)}, the {inner['model'].n} that teach, each left out: MAPE "
        f"{inner['model'].mape:.2%} (raw sum {inner['lookup_table'].mape:.2%}, MACs {inner['macs'].mape:.2%}), "
        f"acc5 {inner['model'].acc5:.2f}, bias {inner['model'].bias:+.2%}",
        f"covers {inner['model'].coverage90:.0%}",
    )
    line("measured in a later job", full, "MAPE <= 2 %, acc5 >= 0.90, |bias| <= 0.5 %")
    raw = np.array([sum(full.table.ms[o] for o in a.operators()) for a in architectures])
    macs = np.array([a.macs for a in architectures], float)
    of = [Architecture.parse(m.subject) for m in taught]
    slope, start = np.polyfit([a.macs for a in of], [m.latency_ms for m in taught], 1)
    for name, p in (("raw sum", raw), ("line in MACs", slope * macs + start)):
        s = latency_model.score(p, measured)
        say(f"  beside it: {name}: MAPE {s.mape:.2%}, bias {s.bias:+.2%}", f"{s.spearman:.4f}")
    order = choose_operators(mnas, max(FEW))
    calibrating = taught[:CALIBRATE]
    for count in FEW:
        some = {o.key for o in order[:count]}
        few = [m for m in operators if m.subject in some]
        goal = "MAPE <= 4 %" if count == 60 else ""
        line(
            f"{count} operators, {CALIBRATE} networks",
            fit_measurements(conditions, few + calibrating),
            goal,
        )
    drawn = np.random.default_rng(0).permutation(len(operators))[:60]
    random = [operators[i] for i in drawn]
    wanted = {o for a in [*architectures, *of] for o in a.operators()}
    try:
        line(
            f"60 operators at random, {CALIBRATE} networks",
            fit_measurements(conditions, random + calibrating),
            "",
        )
    except UncoveredOperator as error:
        say(f"  60 operators at random do not reach all {len(wanted)}", str(error)[:60])


def main() -> None:
    """Read the words, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    words.db.parent.mkdir(parents=True, exist_ok=True)

    def say(what: str, figure: str, goal: str = "") -> None:
        print(f"{what}; {figure}" + (f"   [{goal}]" if goal else ""), flush=True)

    bench_local(say, words.db, words.threads)


if __name__ == "__main__":
    main()
