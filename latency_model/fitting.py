"""fit(): a latency model from one device's measurements, scored on networks left out of the fit."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from phonenas.data.measurement import Conditions, Measurement, SubjectKind
from phonenas.data.store import MeasurementStore
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, NotEnoughData
from phonenas.space.precision import FLOAT32

from .additive.fitting import fit_networks, known_networks
from .calibration import FEATURES, MINIMUM, UNCALIBRATED, calibrate, calibrate_any, folds
from .gaussian_process import one_thread
from .kernel_fitting import fit_kernels
from .lookup_table import LookupTable
from .metrics import noise_of, score
from .model import Examined, LatencyModel, OperatorTimes
from .outliers import Outlier, by_speed, fitted, odd_networks
from .tabular import line

__all__ = ["choose_conditions", "fit", "fit_any", "fit_measurements", "with_kernels"]

FITTED: tuple[SubjectKind, ...] = ("operator", "kernel", "network")


def choose_conditions(
    store: MeasurementStore,
    device: str,
    digest: str | None = None,
    precision: str | None = None,
    *,
    usual: str = FLOAT32,
) -> tuple[Conditions, list[Conditions]]:
    """The conditions to fit under, and those left out.

    With several, the latest measured of one precision, unless a digest (or its start) names one.

    Args:
        store: Where the measurements are.
        device: Whose.
        digest: Of the conditions, or its start.
        precision: Of the conditions; None for the usual one where it is measured, else the only
            one.
        usual: See there.
    Raises:
        NotEnoughData: The store holds nothing measured for the device, or nothing under that
            digest or of that precision.
        InvalidArgument: It holds several precisions, not the usual one among them, and none is
            named.
    """
    known = [c for c in store.conditions(device) if c.mode == "steady"]
    # Measured before imported before emulated before simulated, unless a digest names one.
    for origin in ("measured", "imported", "emulated") if digest is None else ():
        if any(c.origin == origin for c in known):
            known = [c for c in known if c.origin == origin]
    chosen = [c for c in known if digest is None or c.digest.startswith(digest)]
    if not chosen:
        raise NotEnoughData(
            f"{store.location} holds no measurement of {device!r}"
            + (f" under conditions {digest}" if digest else "")
            + f". Measure:  phonenas profile --device {shlex.quote(device)} --space mnasnet"
        )
    if precision is not None or digest is None:
        of = precision or _of_several(store, device, chosen, usual)
        if not any(c.precision == of for c in chosen):
            there = ", ".join(dict.fromkeys(c.precision for c in chosen))
            raise NotEnoughData(
                f"{store.location} holds no measurement of {device!r} in {of}; it holds {there}. "
                f"Measure:  phonenas profile --device {shlex.quote(device)} --space mnasnet "
                f"--precision {shlex.quote(of)}"
            )
        chosen = [c for c in chosen if c.precision == of]
    latest = chosen[-1]
    return latest, [c for c in known if c != latest and c.origin == latest.origin]


def _of_several(
    store: MeasurementStore, device: str, known: Sequence[Conditions], usual: str
) -> str:
    """The precision to fit where none is named: single files make no model."""
    fitted = [c for kind in FITTED for c in store.conditions(device, kind) if c in known]
    there = dict.fromkeys(c.precision for c in fitted or known)
    if usual in there or len(there) == 1:
        return usual if usual in there else next(iter(there))
    command = f"phonenas fit --device {shlex.quote(device)} --precision"
    raise InvalidArgument(
        f"{device} is measured in {' and '.join(there)}, and a model is of one precision. Name it:"
        f"  {command} {shlex.quote(next(iter(there)))}"
    )


def fit(
    store: MeasurementStore,
    device: str = "local",
    *,
    conditions: str | None = None,
    precision: str | None = None,
) -> LatencyModel:
    """Fit a model on one device's measurements, and score it.

    The score is by ten-fold cross-validation: every whole network of a profile is predicted,
    interval included, by a model that was fitted on the other folds. The model returned is fitted
    on all of them, and on those that validations measured.

    Args:
        store: Where the measurements are.
        device: Whose.
        conditions: Digest of the conditions, or its start; by default the latest measured.
        precision: Of the conditions; by default float32 where it is measured, else the only one.
    Raises:
        InvalidArgument: Several precisions are measured, and not float32.
        NotEnoughData: No measurement, no operators, or fewer than 10 whole networks. An imported
            table without them gives a model that says that it is not calibrated.
        UncoveredOperator: Neither table nor regressor covers an operator of so many networks that
            fewer than 10 are left. A few such networks are left out (`networks_uncovered`).
    """
    chosen, _ = choose_conditions(store, device, conditions, precision)
    return fit_any(chosen, store.measurements(chosen))


def networks_uncovered(model: LatencyModel, measurements: Iterable[Measurement]) -> list[str]:
    """Measured whole networks that took no part in a fit by operators: it lacks one of theirs."""
    times = model.times
    if not isinstance(times, OperatorTimes):
        return []
    networks = [m.subject for m in measurements if m.kind == "network"]
    return [n for n in networks if not times.covers(Architecture.parse(n))]


def fit_any(conditions: Conditions, measurements: Sequence[Measurement]) -> LatencyModel:
    """`fit` on measurements in hand: of kernels alone where no operator is measured."""
    if all(m.kind != "operator" for m in measurements):
        with contextlib.suppress(NotEnoughData):
            return fit_kernels(conditions, measurements)
    return with_kernels(fit_measurements(conditions, measurements), measurements)


def with_kernels(model: LatencyModel, measurements: Sequence[Measurement]) -> LatencyModel:
    """The same model, with that of the kernels which were measured beside its operators."""
    if not model.by_operators:
        return model
    try:
        return replace(model, kernels=fit_kernels(model.conditions, measurements))
    except NotEnoughData:
        return model


@one_thread
def fit_measurements(conditions: Conditions, measurements: Sequence[Measurement]) -> LatencyModel:
    """`fit` on measurements in hand, all made under the same conditions; without kernels."""
    measurements, _ = by_speed(measurements)
    table = LookupTable.of(measurements)
    networks = [m for m in measurements if m.kind == "network"]
    if not table.ms:
        known, _ = known_networks(measurements)
        if len(known) >= MINIMUM:
            return fit_networks(conditions, known)
        raise NotEnoughData(
            f"no operator of {conditions.device} is measured. Measure a space:  phonenas profile "
            f"--device {shlex.quote(conditions.device)} --space mnasnet"
        )
    architectures = [Architecture.parse(m.subject) for m in networks]
    times, odd = _times(conditions, table, architectures)
    covered = [times.covers(a) for a in architectures]
    if sum(covered) < min(MINIMUM, len(covered)):
        times.check(architectures)
    networks = [m for m, known in zip(networks, covered, strict=True) if known]
    architectures = [a for a, known in zip(architectures, covered, strict=True) if known]
    sums = times.rows(architectures)[:, 0]
    whole_ms = np.array([m.latency_ms for m in networks])
    odd_ones = odd_networks([m.subject for m in networks], whole_ms, sums)
    if odd_ones:
        odd += odd_ones
        names = {o.subject for o in odd_ones}
        networks = [m for m in networks if m.subject not in names]
        architectures = [Architecture.parse(m.subject) for m in networks]
    measured = np.array([m.latency_ms for m in networks])
    count, last = len(measurements), max(measurements, key=lambda m: m.entry)
    if conditions.origin == "imported" and len(networks) < MINIMUM:
        # Nothing more can be measured on another's phone: the bare sum, with a wide interval.
        bare = LatencyModel(
            times=times,
            calibration=UNCALIBRATED,
            measurements=count,
            until=last.at,
            last=last.entry,
            outliers=tuple(odd),
        )
        return bare.scored(architectures, measured, noise_of(networks))
    rows = times.rows(architectures)
    calibration = times.attributed(calibrate(rows[:, : len(FEATURES)], measured), rows)
    macs = np.array([a.macs for a in architectures], float)
    predicted = np.empty((4, len(networks)))  # ms, low, high, and the MACs baseline
    fold = folds(len(networks))
    for k in range(fold.max() + 1):
        rest = fold != k
        inner = calibrate_any(rows[rest, : len(FEATURES)], measured[rest])
        inner = times.attributed(inner, rows[rest])
        # The bare sum stands for a line that falls below 0: it must not end the fit of the others.
        sound = inner.line_ms(rows[:, : len(FEATURES)]) > 0
        for some, by in ((~rest & sound, inner), (~rest & ~sound, UNCALIBRATED)):
            whole = times.whole(rows[some], by)
            predicted[:3, some] = whole.ms, whole.low_ms, whole.high_ms
        predicted[3, ~rest] = line(macs[rest], measured[rest], macs[~rest])
    # Networks that a search chose lie near each other: the model is fitted on them, and scored on
    # the profile's random ones. Without a profile it is scored on all.
    random = np.array([m.purpose == "profile" for m in networks])
    if random.sum() < MINIMUM:
        random[:] = True
    columns = np.vstack([predicted[:3], measured])
    examined = tuple(
        Examined(networks[i].subject, *map(float, columns[:, i])) for i in np.flatnonzero(random)
    )
    ms, low, high, by_macs = predicted[:, random]
    baseline = score(by_macs, measured[random])
    noise = noise_of(networks)
    scores = {
        "model": score(ms, measured[random], low, high, noise=noise, macs_mape=baseline.mape),
        "lookup_table": score(rows[random, 0], measured[random], noise=noise),
        "macs": baseline,
    }
    return LatencyModel(
        times=times,
        calibration=calibration,
        examined=examined,
        scores=scores,
        measurements=count,
        until=last.at,
        last=last.entry,
        outliers=tuple(odd),
    )


def _times(
    conditions: Conditions, table: LookupTable, networks: Sequence[Architecture]
) -> tuple[OperatorTimes, list[Outlier]]:
    """Operators' times, whose errors are correlated as they are within these networks.

    Second, what the others contradict: it is in no table, so the regressor predicts it.
    """
    regressor, odd = None, list[Outlier]()
    with contextlib.suppress(NotEnoughData):
        regressor, odd = fitted(table.ms)
    table = table.without({o.subject for o in odd})
    times = OperatorTimes(conditions=conditions, table=table, regressor=regressor)
    operators = [a.operators() for a in networks if times.covers(a)]
    if regressor is not None:
        share = regressor.error_correlation(operators, table.ms)
        times = replace(times, error_correlation=share)
    return times, odd
