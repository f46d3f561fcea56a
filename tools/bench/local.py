"""Held-out whole networks of the mnasnet space on this computer, predicted and then measured.

    python -m tools.bench.local --db runs/bench.db [--threads 2]

measures every operator and 60 networks, on which the model is fitted, and in a later job 45 other
networks, on which it is scored; what the store holds is not measured again. Then the same from few
operators. It takes minutes, on a quiet computer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonenas import data, devices, latency_model, space
from phonenas.cli.progress import Bars
from phonenas.devices.measuring.events import Subject
from phonenas.devices.measuring.profiling import Selection
from phonenas.latency_model.fitting import fit_measurements
from phonenas.latency_model.units.selection import choose_operators
from phonenas.space import Architecture
from phonenas.space.errors import UncoveredOperator

FIT, TEST = (60, 0), (45, 7)  # networks and seed
FEW = (30, 60, 100, 200)
CALIBRATE = 20  # networks beside few operators, as `profile --networks` has by default


def networks(drawn: tuple[int, int]) -> list[Subject]:
    """Random networks of the space, as a profile draws them."""
    subjects = Selection().subjects(space.MnasNet(), *drawn)
    return [s for s in subjects if s.kind == "network"]


def bench_local(
    say: Callable[..., None], db: Path, threads: int = 1, device: str = "local"
) -> None:
    """Measure what the store lacks, and print scores with their baselines.

    Args:
        say: Prints a subject, a figure and a goal.
        db: The store.
        threads: Threads that compute.
        device: A name in devices.toml.
    """
    mnas = space.MnasNet()
    with (
        data.MeasurementStore(db) as store,
        devices.connect(device, threads=threads) as here,
        Bars(quiet=True) as bars,
    ):
        devices.profile(mnas, on=here, into=store, networks=FIT[0], on_event=bars.profiling)
        later = networks(TEST)
        devices.measure(later, on=here, into=store, on_event=bars.profiling)
        measurements = store.measurements(here.conditions)
        conditions = here.conditions
    fit = {s.text for s in networks(FIT)}
    test = {s.text for s in later} - fit
    operators = [m for m in measurements if m.kind == "operator"]
    fitted_on = [m for m in measurements if m.subject in fit]
    left_out = [m for m in measurements if m.subject in test]
    architectures = [Architecture.parse(m.subject) for m in left_out]
    measured = np.array([m.latency_ms for m in left_out])

    def line(name: str, model: latency_model.LatencyModel, goal: str) -> None:
        predicted = model.predict(architectures)
        ends = predicted.low_ms, predicted.high_ms
        s = latency_model.score(predicted.ms, measured, *ends)
        say(
            f"{threads} thread{'s' * (threads > 1)}, {name}, n {s.n}: MAPE {s.mape:.2%}, acc5 "
            f"{s.acc5:.2f}, acc10 {s.acc10:.2f}, bias {s.bias:+.2%}, Spearman {s.spearman:.4f}",
            f"covers {s.coverage90:.0%}",
            goal,
        )

    full = fit_measurements(conditions, operators + fitted_on)
    inner = full.scores
    say(
        f"{threads} thread{'s' * (threads > 1)}, the {inner['model'].n} of the fit, each left out "
        f"once: MAPE {inner['model'].mape:.2%} (raw sum {inner['lookup_table'].mape:.2%}, MACs "
        f"{inner['macs'].mape:.2%}), acc5 {inner['model'].acc5:.2f}, bias "
        f"{inner['model'].bias:+.2%}",
        f"covers {inner['model'].coverage90:.0%}",
    )
    line("measured in a later job", full, "MAPE <= 2 %, acc5 >= 0.90, |bias| <= 0.5 %")
    raw = np.array([sum(full.table.ms[o] for o in a.operators()) for a in architectures])
    macs = np.array([a.macs for a in architectures], float)
    known = [Architecture.parse(m.subject) for m in fitted_on]
    slope, start = np.polyfit([a.macs for a in known], [m.latency_ms for m in fitted_on], 1)
    for name, p in (("raw sum", raw), ("line in MACs", slope * macs + start)):
        s = latency_model.score(p, measured)
        say(f"  beside it: {name}: MAPE {s.mape:.2%}, bias {s.bias:+.2%}", f"{s.spearman:.4f}")
    order = choose_operators(mnas, max(FEW))
    calibrating = fitted_on[:CALIBRATE]
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
    wanted = {o for a in [*architectures, *known] for o in a.operators()}
    try:
        line(
            f"60 operators at random, {CALIBRATE} networks",
            fit_measurements(conditions, random + calibrating),
            "",
        )
    except UncoveredOperator as error:
        say(f"  60 operators at random do not cover all {len(wanted)}", str(error)[:60])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.db.parent.mkdir(parents=True, exist_ok=True)

    def say(what: str, figure: str, goal: str = "") -> None:
        print(f"{what}; {figure}" + (f"   [{goal}]" if goal else ""), flush=True)

    bench_local(say, arguments.db, arguments.threads)


if __name__ == "__main__":
    main()
