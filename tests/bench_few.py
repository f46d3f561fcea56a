"""`bench_few`: networks predicted from a few measured operators, from a full profile's store.

Operators are chosen without a look at their times; the others of the store are held back. Twenty
whole networks calibrate, all others are predicted, then others calibrate and those twenty are
predicted, so each network is held out; medians over several such splits.
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
from phonenas.latency_model.regressor import MINIMUM, OperatorRegressor
from phonenas.latency_model.selection import choose_operators
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
        say: Prints what, figure and floor.
        db: Store with a full profile of the device.
        device: Whose.
        space: That was profiled; by default MnasNet at 224 px.
        counts: Of operators.
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
    found: dict[str, float] = {}

    def line(name: str, table: Mapping[Operator, float], floor: str = "") -> None:
        curve = OperatorRegressor.fit(table) if len(table) >= MINIMUM else None
        wanted = list(dict.fromkeys(o for a, _ in networks for o in a.operators()))
        holes = [o for o in wanted if o not in table]
        ms = dict(table)
        if curve is not None:
            ms.update(zip(holes, curve.predict_ms(holes).tolist(), strict=True))
        rows = np.array(
            [
                np.sum([operator_features(o, ms[o]) for o in a.operators()], axis=0)
                for a, _ in networks
            ]
        )
        told = _split_scores(rows, np.array([t for _, t in networks]))
        found[name] = told[0]
        apart = [o for o in full if o not in table]
        off = np.nan
        if apart and curve is not None:
            off = float(np.mean(np.abs(curve.predict_ms(apart) / [full[o] for o in apart] - 1)))
        each = "" if np.isnan(off) else f", the other operators {off:.1%}"
        say(
            f"{device}, {name}: MAPE, acc10, coverage{each}",
            f"{told[0]:.2%}  {told[1]:.2f}  {told[2]:.2f}",
            floor,
        )

    say(f"{len(networks)} whole networks, each held out; {len(full)} operators in the store", "")
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
    told = _split_line(macs[:, 0], np.array([t for _, t in networks]))
    found["a line in MACs"] = told
    say(f"{device}, a line in MACs: MAPE", f"{told:.2%}")
    return found


def _splits(count: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """For each split, who calibrates and who is held out, twice, so that all are held out."""
    size = min(_CALIBRATING, count // 2)
    found = []
    for seed in range(_SPLITS):
        order = np.random.default_rng(seed).permutation(count)
        first, second = order[:size], order[size : 2 * size]
        found.append([(first, order[size:]), (second, first)])
    return found


def _split_scores(rows: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """MAPE, acc10 and coverage, medians over splits."""
    scores = []
    for split in _splits(len(measured)):
        told = np.empty((3, len(measured)))
        for seen, held in split:
            calibration = calibrate_any(rows[seen], measured[seen])
            whole = calibration.whole_ms(rows[held])
            half = calibration.half_widths(whole)
            told[:, held] = whole, whole / (1 + half), whole * (1 + half)
        s = score(told[0], measured, told[1], told[2])
        scores.append((s.mape, s.acc10, s.coverage90))
    mape, acc10, coverage = np.median(scores, axis=0)
    return float(mape), float(acc10), float(coverage)


def _split_line(column: np.ndarray, measured: np.ndarray) -> float:
    mapes = []
    for split in _splits(len(measured)):
        told = np.empty(len(measured))
        for seen, held in split:
            slope, start = np.polyfit(column[seen], measured[seen], 1)
            told[held] = slope * column[held] + start
        mapes.append(float(np.mean(np.abs(told / measured - 1))))
    return float(np.median(mapes))


if __name__ == "__main__":

    def printed(what: str, figure: str, floor: str = "") -> None:
        print(f"{what:<82} {figure:>22}   {floor}", flush=True)

    bench_few(printed, sys.argv[1], *sys.argv[2:3])
