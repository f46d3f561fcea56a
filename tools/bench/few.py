"""`bench_few`: networks predicted from a few measured operators, with a full profile's store.

Operators are chosen without their times; the others of the store are left out. The calibration is
fitted on twenty whole networks and predicts all others, then it is fitted on others and predicts
those twenty, so each network is left out once; medians over several such splits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from phonenas.data import MeasurementStore
from phonenas.latency_model.calibration import calibrate_any, operator_features
from phonenas.latency_model.fitting import choose_conditions
from phonenas.latency_model.lookup_table import LookupTable
from phonenas.latency_model.metrics import score
from phonenas.latency_model.units.regressor import MINIMUM, OperatorRegressor
from phonenas.latency_model.units.selection import choose_operators
from phonenas.space import Architecture, MnasNet, Operator, SearchSpace

_CALIBRATING = 20
_SPLITS = 10


def bench_few(
    say: Callable[..., None],
    db: str | Path,
    device: str = "local",
    space: SearchSpace | None = None,
    counts: Sequence[int] = (30, 60, 100, 200),
) -> dict[str, float]:
    """Print MAPE, acc10 and coverage by number of operators; returns MAPE by line.

    Args:
        say: Prints a subject, a figure and a goal.
        db: Store with a full profile of the device.
        device: Name of the device.
        space: The space of the profile; by default MnasNet at 224 px.
        counts: Numbers of operators.
    """
    space = space or MnasNet(resolution=224)
    store = MeasurementStore(db)
    conditions, _ = choose_conditions(store, device)
    measurements = store.measurements(conditions)
    full = LookupTable.of(measurements).ms
    networks = [
        (Architecture.parse(m.subject), m.latency_ms)
        for m in measurements
        if m.kind == "network" and m.purpose == "profile"
    ]
    order = [o for o in choose_operators(space, max(counts)) if o in full]
    mapes: dict[str, float] = {}

    def line(name: str, table: Mapping[Operator, float], goal: str = "") -> None:
        regressor = OperatorRegressor.fit(table) if len(table) >= MINIMUM else None
        wanted = list(dict.fromkeys(o for a, _ in networks for o in a.operators()))
        unmeasured = [o for o in wanted if o not in table]
        ms = dict(table)
        if regressor is not None:
            ms.update(zip(unmeasured, regressor.predict_ms(unmeasured).tolist(), strict=True))
        rows = np.array(
            [
                np.sum([operator_features(o, ms[o]) for o in a.operators()], axis=0)
                for a, _ in networks
            ]
        )
        scores = _split_scores(rows, np.array([t for _, t in networks]))
        mapes[name] = scores[0]
        apart = [o for o in full if o not in table]
        each = ""
        if apart and regressor is not None:
            ratios = regressor.predict_ms(apart) / [full[o] for o in apart]
            each = f", the other operators {np.mean(np.abs(ratios - 1)):.1%}"
        say(
            f"{device}, {name}: MAPE, acc10, coverage{each}",
            "{:.2%}  {:.2f}  {:.2f}".format(*scores),
            goal,
        )

    say(
        f"{len(networks)} whole networks, each left out once; {len(full)} operators in the store",
        "",
    )
    for count in counts:
        line(
            f"{count} operators chosen",
            {o: full[o] for o in order[:count]},
            "≤ 4 %" * (count == 60),
        )
        rng = np.random.default_rng(count)
        drawn = [list(full)[i] for i in rng.permutation(len(full))[:count]]
        line(f"{count} operators at random", {o: full[o] for o in drawn})
    line("all operators", full)
    macs = np.array([[a.macs / 1e8] for a, _ in networks])
    by_macs = _split_line(macs[:, 0], np.array([t for _, t in networks]))
    mapes["a line in MACs"] = by_macs
    say(f"{device}, a line in MACs: MAPE", f"{by_macs:.2%}")
    return mapes


def _splits(count: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """For each split, rows to fit on and rows left out, twice, so that all are left out once."""
    size = min(_CALIBRATING, count // 2)
    splits = []
    for seed in range(_SPLITS):
        order = np.random.default_rng(seed).permutation(count)
        first, second = order[:size], order[size : 2 * size]
        splits.append([(first, order[size:]), (second, first)])
    return splits


def _split_scores(rows: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """MAPE, acc10 and coverage, medians over splits."""
    scores = []
    for split in _splits(len(measured)):
        predicted = np.empty((3, len(measured)))  # ms, low, high
        for fit, out in split:
            calibration = calibrate_any(rows[fit], measured[fit])
            whole = calibration.whole_ms(rows[out])
            half = calibration.half_widths(whole)
            predicted[:, out] = whole, whole / (1 + half), whole * (1 + half)
        s = score(predicted[0], measured, predicted[1], predicted[2])
        scores.append((s.mape, s.acc10, s.coverage90))
    mape, acc10, coverage = np.median(scores, axis=0)
    return float(mape), float(acc10), float(coverage)


def _split_line(column: np.ndarray, measured: np.ndarray) -> float:
    mapes = []
    for split in _splits(len(measured)):
        predicted = np.empty(len(measured))
        for fit, out in split:
            slope, start = np.polyfit(column[fit], measured[fit], 1)
            predicted[out] = slope * column[out] + start
        mapes.append(float(np.mean(np.abs(predicted / measured - 1))))
    return float(np.median(mapes))


if __name__ == "__main__":

    def printed(what: str, figure: str, goal: str = "") -> None:
        print(f"{what:<82} {figure:>22}   {goal}", flush=True)

    bench_few(printed, sys.argv[1], *sys.argv[2:3])
