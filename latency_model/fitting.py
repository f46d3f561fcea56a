"""fit(): a latency model from one device's measurements, examined on networks it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..data.measurement import Conditions, Measurement
from ..data.store import MeasurementStore
from ..space import Architecture
from ..space.errors import NotEnoughData
from .calibration import (
    FEATURES,
    MINIMUM,
    UNCALIBRATED,
    Calibration,
    calibrate,
    calibrate_any,
    folds,
)
from .lookup_table import LookupTable
from .metrics import score
from .model import Examined, LatencyModel
from .regressor import OperatorRegressor
from .threads import one_thread

__all__ = ["choose_conditions", "fit", "fit_measurements"]


def choose_conditions(
    store: MeasurementStore, device: str, digest: str | None = None
) -> tuple[Conditions, list[Conditions]]:
    """The conditions to fit under, and those left out.

    With several, the latest measured unless a digest (or its start) names one.

    Raises:
        NotEnoughData: The store holds nothing measured for the device, or nothing under that digest.
    """
    known = [c for c in store.conditions(device) if c.mode == "steady"]
    # What was measured goes before what was imported, and that before what was simulated, which
    # says so everywhere; unless a digest names one.
    for origin in ("measured", "imported") if digest is None else ():
        if any(c.origin == origin for c in known):
            known = [c for c in known if c.origin == origin]
    chosen = [c for c in known if digest is None or c.digest.startswith(digest)]
    if not chosen:
        raise NotEnoughData(
            f"{store.location} holds no measurement of {device!r}"
            + (f" under conditions {digest}" if digest else "")
            + f". Make some:  phonenas profile --device {device} --space mnasnet"
        )
    latest = chosen[-1]
    return latest, [c for c in known if c != latest and c.origin == latest.origin]


def fit(
    store: MeasurementStore, device: str = "local", *, conditions: str | None = None
) -> LatencyModel:
    """Fit a model on one device's measurements, and examine it.

    Every whole network of a profile is predicted, interval included, by a model that neither it
    nor its fold took part in (10-fold cross-validation); the model returned has seen all, those
    that validations measured too.

    Args:
        store: Where the measurements are.
        device: Whose.
        conditions: Digest of the conditions, or its start; by default the latest measured.
    Raises:
        NotEnoughData: No measurement, no operators, or fewer than 10 whole networks. An imported
            table without them gives a model that says that it is not calibrated.
        UncoveredOperator: A measured network holds an operator that neither table nor curve has.
    """
    chosen, _ = choose_conditions(store, device, conditions)
    return fit_measurements(chosen, store.measurements(chosen))


@one_thread
def fit_measurements(conditions: Conditions, measurements: Sequence[Measurement]) -> LatencyModel:
    """`fit` on measurements in hand, all made under the same conditions."""
    table = LookupTable.of(measurements)
    networks = [m for m in measurements if m.kind == "network"]
    if not table.ms:
        raise NotEnoughData(
            f"no operator of {conditions.device} is measured. Measure a space:  phonenas profile "
            f"--device {conditions.device} --space mnasnet"
        )
    try:
        regressor: OperatorRegressor | None = OperatorRegressor.fit(table.ms)
    except NotEnoughData:
        regressor = None
    architectures = [Architecture.parse(m.subject) for m in networks]
    measured = np.array([m.latency_ms for m in networks])
    until = max(m.at for m in measurements)
    bare = LatencyModel(
        conditions, table, regressor, UNCALIBRATED, (), {}, len(measurements), until
    )
    bare.operator_ms(list({o for a in architectures for o in a.operators()}))
    if regressor is not None:
        bare.alike = regressor.alike([a.operators() for a in architectures], table.ms)
    rows = bare.rows(architectures)
    if conditions.origin == "imported" and len(networks) < MINIMUM:
        # Nobody can measure more of another's phone: the bare sum, and an interval that says so.
        return bare.examine(architectures, measured)
    calibration = _calibrated(bare, rows, calibrate(rows[:, : len(FEATURES)], measured))
    macs = np.array([a.macs for a in architectures], float)
    told = np.empty((4, len(networks)))  # predicted, low, high, and the MACs baseline
    fold = folds(len(networks))
    for held in range(fold.max() + 1):
        seen = fold != held
        inside = calibrate_any(rows[seen, : len(FEATURES)], measured[seen])
        inner = LatencyModel(conditions, table, regressor, inside, (), {}, alike=bare.alike)
        inner.calibration = _calibrated(inner, rows[seen], inside)
        predicted = inner._predicted(rows[~seen])
        told[0, ~seen], told[1, ~seen], told[2, ~seen] = (
            predicted.ms, predicted.low_ms, predicted.high_ms,
        )  # fmt: skip
        slope, start = np.polyfit(macs[seen], measured[seen], 1)
        told[3, ~seen] = slope * macs[~seen] + start
    # Networks that a search chose stand near each other: they teach, and the profile's random
    # ones examine. Without a profile all do.
    drawn = np.array([m.purpose == "profile" for m in networks])
    if drawn.sum() < MINIMUM:
        drawn[:] = True
    examined = [
        Examined(
            m.subject, float(told[0, i]), float(told[1, i]), float(told[2, i]), float(measured[i])
        )
        for i, m in enumerate(networks)
        if drawn[i]
    ]
    told, measured = told[:, drawn], measured[drawn]
    scores = {
        "model": score(told[0], measured, told[1], told[2]),
        "lookup_table": score(rows[drawn, 0], measured),
        "macs": score(told[3], measured),
    }
    return LatencyModel(
        conditions, table, regressor, calibration, examined, scores, len(measurements), until,
        bare.alike,
    )  # fmt: skip


def _calibrated(
    model: LatencyModel, rows: npt.NDArray[np.float64], found: Calibration
) -> Calibration:
    """A calibration that knows how much of its half-width its networks' unmeasured operators are."""
    model.calibration = found
    return replace(found, holes=float(np.sqrt(np.mean(model.hole_widths(rows) ** 2))))
