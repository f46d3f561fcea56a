"""Measurements that nothing explains: one wrong row must not bend a model unnamed.

A time is compared with what the other times say: first with a line in the logarithms of shape and
work whose few large errors do not count (Huber), then, by a model fitted on what that leaves, with
its prediction from the others. A row that stands farther off than a factor, and than several times
the usual error, is named and left out of the fit.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import WHOLE, Conditions, Measurement, SubjectKind
from phonenas.space import Architecture, Operator

from .units.parts import Parts
from .units.parts_process import EXPECTED, roofline
from .units.regressor import MINIMUM, OperatorRegressor

__all__ = [
    "Outlier",
    "apart",
    "by_speed",
    "contradicted",
    "doubtful_unit",
    "fitted",
    "odd_networks",
]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_FACTOR = 1.8  # by which a row must differ, at least
_SPREADS = 8.0  # and in usual errors, of which a heavy tail holds a few
_LINE_FACTOR, _LINE_SPREADS = 2.5, 4.0  # of the line, whose suspicions are looked at again
_TO_DEVIATION = 1.4826  # from a median absolute error to a standard deviation
_MOST_SHARE = 0.1  # of rows that are called odd; beyond it the model is what is wrong
_FITS = 3
_SURE = 4.0  # standard errors of the prediction by the others
# The slowest little core and the fastest GPU of the shared tables lie within 60 of the expected
# roofline; seconds taken as ms lie 1,000 off.
_UNIT_FACTOR = 100.0
_SPEED = 0.05  # of the sentinel: a difference that makes two jobs two speeds
_ASKED = 200  # readings that a unit is judged by, of more


@dataclass(frozen=True)
class Outlier:
    """A measurement that the others contradict.

    Args:
        kind, subject: What was measured.
        ms: Its time.
        expected_ms: What the others say.
    """

    kind: SubjectKind
    subject: str
    ms: float
    expected_ms: float

    @property
    def ratio(self) -> float:
        """Measured over expected."""
        return self.ms / self.expected_ms

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "ratio": self.ratio}

    def told(self, conditions: Conditions) -> str:
        """A line that names it, with the command that measures it again."""
        text = (
            f"left out of the fit: {self.subject} took {self.ms:.4g} ms; by all others it takes "
            f"{self.expected_ms:.4g} ms ({self.ratio:.3g} times)"
        )
        if conditions.origin == "imported":
            return f"{text}. Look at it in its file"
        if self.kind == "onnx":
            return f"{text}. To measure it again, give the command of its profile with --again"
        return (
            f"{text}. Measure it again:  phonenas profile --device "
            f"{shlex.quote(conditions.device)} --{self.kind} {shlex.quote(self.subject)} --again"
        )


def by_speed(measurements: Sequence[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """What a model is fitted on; and whole networks that are of a former speed of the device.

    When a device has changed, and its operators or kernels were measured again, what earlier
    validations measured is as it was. So a network that is older than most of them, and beside
    which the sentinel took 5 % more or less time, takes no part.
    """
    parts = [m for m in measurements if m.kind not in WHOLE]
    times = [ms for m in parts if (ms := m.sentinel_ms)]
    if not times:
        return list(measurements), []
    now_ms, middle = float(np.median(times)), sorted(m.entry for m in parts)[len(parts) // 2]

    def former(m: Measurement) -> bool:
        ms = m.sentinel_ms if m.kind in WHOLE and middle.after(m.entry) else None
        return ms is not None and abs(ms / now_ms - 1) >= _SPEED

    old = [m for m in measurements if former(m)]
    subjects = {m.subject for m in old}
    return [m for m in measurements if m.kind not in WHOLE or m.subject not in subjects], old


def apart(error: Floats, factor: float = _FACTOR, spreads: float = _SPREADS) -> Flags:
    """Which errors of logarithms, (n,), stand apart from the others, about their median."""
    off = np.abs(error - np.median(error))
    limit = max(np.log(factor), spreads * _TO_DEVIATION * float(np.median(off)))
    return np.asarray(off > limit)


def fitted(table: Mapping[Operator, float]) -> tuple[OperatorRegressor, list[Outlier]]:
    """A regressor of operators' times, ms, and the operators that it contradicts, left out of it.

    Raises:
        NotEnoughData: Fewer than 20 operators.
    """
    operators = list(table)
    ms = np.array([table[o] for o in operators])
    kept = ~_suspected(operators, ms)
    for _ in range(_FITS):
        regressor = OperatorRegressor.fit({o: table[o] for o in _where(operators, kept)})
        expected, error = regressor.by_others(operators)
        off = np.log(ms / expected)
        # One of a kind is not contradicted by others: they say little of it.
        odd = apart(off) & (np.abs(off) > _SURE * error)
        if odd.sum() > max(1, len(ms) * _MOST_SHARE):
            # So many are no errors: it is the regressor that does not follow the device.
            return (regressor if kept.all() else OperatorRegressor.fit(table)), []
        if not odd[kept].any():
            break
        kept = ~odd  # they bent what they were compared with
    return regressor, [
        Outlier("operator", operators[i].key, float(ms[i]), float(expected[i]))
        for i in np.flatnonzero(odd).tolist()
    ]


def _where(operators: Sequence[Operator], kept: Flags) -> list[Operator]:
    return [operators[i] for i in np.flatnonzero(kept).tolist()]


def _suspected(operators: Sequence[Operator], ms: Floats) -> Flags:
    """Operators that stand apart from a line in shape and work, (n,); none of fewer than 20."""
    from sklearn.linear_model import HuberRegressor

    none, times = np.zeros(len(ms), bool), np.log(ms)
    if len(ms) <= MINIMUM:
        return none
    rows = np.array([_line_features(o) for o in operators])
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
    line = HuberRegressor(alpha=1e-2, max_iter=1000).fit(rows, times)
    suspected = apart(times - line.predict(rows), _LINE_FACTOR, _LINE_SPREADS)
    return suspected if suspected.sum() <= min(len(ms) // 4, len(ms) - MINIMUM) else none


def _line_features(o: Operator) -> list[float]:
    log = np.log2
    pool, squeeze = o.skip == "pool", o.se_channels > 0
    return [
        log(o.macs),
        log(o.params),
        log(o.in_channels * o.in_px**2),
        log(max(o.mid_channels, o.out_channels) * o.in_px**2),
        log(o.out_channels * o.out_px**2),
        *(float(o.kind == kind) for kind in ("stem", "conv", "dsconv", "head", "proj")),
        float(pool),
        float(squeeze),
        float(o.kernel),
    ]


def odd_networks(
    names: Sequence[str], ms: Floats, sums_ms: Floats, kind: SubjectKind = "network"
) -> list[Outlier]:
    """Networks whose times, (n,) ms, stand to the sums of their parts, (n,) ms, as no other's."""
    if len(ms) < 5:
        return []
    ratio = ms / sums_ms
    expected = sums_ms * np.exp(np.median(np.log(ratio)))
    odd = apart(np.log(ratio))
    return [
        Outlier(kind, names[i], float(ms[i]), float(expected[i]))
        for i in np.flatnonzero(odd).tolist()
    ]


def contradicted(
    measurements: Sequence[Measurement], by_others_ms: Floats, deviation: Floats, least: int
) -> list[Outlier]:
    """Networks whose times are not what a fit on the others says, (n,) ms, ± `deviation`, relative.

    None where so many are that the fit is what is wrong, or fewer than `least` would remain.
    """
    ms = np.array([m.latency_ms for m in measurements])
    off = np.log(ms / by_others_ms)
    odd = np.flatnonzero(apart(off) & (np.abs(off) > _SURE * deviation)).tolist()
    if len(odd) > max(1, len(ms) * _MOST_SHARE) or len(ms) - len(odd) < least:
        return []
    return [
        Outlier(measurements[i].kind, measurements[i].subject, float(ms[i]), float(by_others_ms[i]))
        for i in odd
    ]


def doubtful_unit(readings: Sequence[tuple[SubjectKind, str, float]]) -> str:
    """A sentence where times taken as ms are far from what any device takes; "" elsewhere.

    Args:
        readings: Kind, subject and time in ms; kinds other than operators and networks are passed.
    """
    taken = [
        ((Operator.parse(text),) if kind == "operator" else Architecture.parse(text).operators(), t)
        for kind, text, t in readings[:: 1 + len(readings) // _ASKED]
        if kind in ("operator", "network")
    ]
    if not taken:
        return ""
    every = list(dict.fromkeys(o for operators, _ in taken for o in operators))
    usual = dict(zip(every, roofline(Parts(every), EXPECTED)[0].tolist(), strict=True))
    ratio = float(np.median([t / sum(usual[o] for o in operators) for operators, t in taken]))
    if 1 / _UNIT_FACTOR < ratio < _UNIT_FACTOR:
        return ""
    return (
        f"DOUBTFUL: are these times in ms? In the median they are {ratio:.2g} times what a usual "
        f"phone's core takes, as {'seconds' if ratio < 1 else 'microseconds'} would be. They are "
        "taken as ms: give them in ms, and import them under another --device"
    )
