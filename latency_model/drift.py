"""Drift of a device between two measurements, and whether a model still fits what is newer.

A subject that is measured twice shows how a device changed in between: after an update, in a hot
summer, with a new runtime. Ratios are new over old, by the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import hypot
from typing import Any

import numpy as np

from phonenas.data.measurement import Measurement, Round, SubjectKind
from phonenas.space import Architecture
from phonenas.space.errors import UncoveredOperator
from phonenas.space.naming import counted

from .metrics import Z90
from .model import LatencyModel

__all__ = [
    "TOLD",
    "Drift",
    "LatencyChange",
    "Upkeep",
    "between",
    "over_time",
    "since",
    "slowdown",
    "upkeep",
]

_LEAST = 5  # subjects whose median has a 90 % interval
_MAD = 1.4826  # from a median absolute deviation to a normal's standard deviation
_FAR = 4.0  # standard deviations; one in 16,000 by chance
_SMALL = 0.05  # a subject that moved less than this changes no decision
_RARE = 0.05  # probability, if the model holds, below which its intervals are wrong
#: A change of speed that is told; jobs of a computer differ by some 3 % without it.
TOLD = 0.05
_BIAS = 0.02  # a mean error that is worth a fit
_MORE = 0.1  # share of new measurements that is worth a fit


@dataclass(frozen=True)
class LatencyChange:
    """A subject that changed by more than the others' change and the scatter explain."""

    subject: str
    old_ms: float
    new_ms: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new_ms / self.old_ms


@dataclass(frozen=True)
class Drift:
    """How subjects of one kind changed between two measurements.

    Args:
        kind: Of the subjects.
        subjects: How many were measured both times, ≥ 1.
        ratio: Median of new over old.
        low, high: 90 % interval of that median; from 0 to infinity below five subjects.
        scatter: Robust standard deviation of a single subject's ratio, relative.
        moved: Those that changed differently from the rest, the farthest first.
        since, until: When the old and the new were last measured, ISO 8601.
    """

    kind: SubjectKind
    subjects: int
    ratio: float
    low: float
    high: float
    scatter: float
    moved: tuple[LatencyChange, ...]
    since: str
    until: str

    @property
    def changed(self) -> bool:
        """Whether the change as a whole is real and 5 % or more."""
        return abs(self.ratio - 1) >= TOLD and not self.low <= 1 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; an interval without an end is None."""
        return asdict(self) | {
            "low": self.low if self.low > 0 else None,
            "high": self.high if self.high < float("inf") else None,
            "changed": self.changed,
            "moved": [asdict(m) for m in self.moved],
        }

    def __str__(self) -> str:
        length = 16 if self.since[:10] == self.until[:10] else 10  # of one day the minute, too
        since, until = (t[:length].replace("T", " ") for t in (self.since, self.until))
        text = (
            f"{self.subjects} {self.kind}s measured on {since} and again on {until}: the median "
            f"time changed by {self.ratio - 1:+z.1%}"
        )
        # The median of fewer than five has no interval.
        if self.low > 0 and self.high < float("inf"):
            text += f" (90 %: {self.low - 1:+z.1%} to {self.high - 1:+z.1%})"
        if self.moved:
            first = self.moved[0]
            text += (
                f"; {len(self.moved)} changed differently, such as {first.subject}: "
                f"{first.old_ms:.3f} to {first.new_ms:.3f} ms"
            )
        return text


def between(old: Iterable[Measurement], new: Iterable[Measurement]) -> list[Drift]:
    """What changed from old measurements to new ones, by kind; none without a common subject."""
    before = {(m.kind, m.subject): m for m in old}
    pairs = [(before[m.kind, m.subject], m) for m in new if (m.kind, m.subject) in before]
    kinds = dict.fromkeys(m.kind for m, _ in pairs)
    return [_drift([p for p in pairs if p[0].kind == kind]) for kind in kinds]


def over_time(measurements: Iterable[Measurement]) -> list[Drift]:
    """What changed within one set of conditions: the two latest series of each subject.

    Args:
        measurements: Of one device under one set of conditions, all series.
    """
    series: dict[tuple[str, str], list[Measurement]] = {}
    for m in sorted(measurements, key=lambda m: m.series):
        series.setdefault((m.kind, m.subject), []).append(m)
    latest = [each[-2:] for each in series.values() if len(each) > 1]
    return between((a for a, _ in latest), (b for _, b in latest))


def _drift(pairs: Sequence[tuple[Measurement, Measurement]]) -> Drift:
    from scipy import stats

    logs = np.log([new.latency_ms / old.latency_ms for old, new in pairs])
    middle = float(np.median(logs))
    scatter = _MAD * float(np.median(np.abs(logs - middle)))
    ordered = np.sort(logs)
    low, high = -np.inf, np.inf
    # The order statistics that hold the median in 90 % of cases or more; none do below five.
    rank = int(stats.binom.ppf(0.05, len(logs), 0.5))
    if len(logs) >= _LEAST:
        low, high = ordered[rank - 1], ordered[len(logs) - rank]
    moved = []
    for (old, new), log in zip(pairs, logs, strict=True):
        own = hypot(*(0.0 if m.spread != m.spread else m.spread for m in (old, new))) / Z90
        off = abs(float(log) - middle)
        if len(logs) > 2 and off > max(_FAR * hypot(scatter, own), _SMALL):
            moved.append((off, LatencyChange(old.subject, old.latency_ms, new.latency_ms)))
    return Drift(
        kind=pairs[0][0].kind,
        subjects=len(pairs),
        ratio=float(np.exp(middle)),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        scatter=scatter,
        moved=tuple(m for _, m in sorted(moved, key=lambda each: -each[0])),
        since=max(pairs, key=lambda pair: pair[0].entry)[0].at,
        until=max(pairs, key=lambda pair: pair[1].entry)[1].at,
    )


@dataclass(frozen=True)
class Upkeep:
    """What newer measurements say of a model.

    Args:
        newer: Measurements made after those that the model was fitted on.
        networks: Whole networks among them that it can predict.
        inside: How many of these lie in their 90 % interval.
        bias: Mean (predicted - measured) / measured over them; NaN without any.
        drift: How the operators that it was fitted on changed since; None without any measured.
        reasons: Why it should be fitted again, each a sentence; none: it holds.
        outdated: Whether operators drifted, or the device has another speed: what was not measured
            again is as old as before, so a fit alone does not help.
        uncovered: Newer networks that it cannot predict, as block strings; they take no part.
    """

    newer: int
    networks: int
    inside: int
    bias: float
    drift: Drift | None
    reasons: tuple[str, ...]
    outdated: bool = False
    uncovered: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        values = {
            **vars(self),
            "bias": None if self.bias != self.bias else self.bias,
            "drift": None if self.drift is None else self.drift.to_dict(),
            "refit": bool(self.reasons),
            "reasons": list(self.reasons),
            "uncovered": list(self.uncovered),
        }
        values["measure_again"] = values.pop("outdated")
        return values


def upkeep(model: LatencyModel, measurements: Iterable[Measurement]) -> Upkeep:
    """Compare a model with what was measured since, under its own conditions.

    Args:
        model: Fitted earlier.
        measurements: Of the store, the latest series of each subject; those that the store
            entered before the last of the model's own are passed over.
    """
    # Kernels and ONNX files are the kernel model's.
    own = [m for m in measurements if m.kind in ("operator", "network")]
    newer = [m for m in own if m.entry.after(model.last)]
    rows, uncovered = [], []
    for m in (m for m in newer if m.kind == "network"):
        try:
            predicted = model.predict([Architecture.parse(m.subject)])
        except UncoveredOperator:
            uncovered.append(m.subject)
        else:
            ends = predicted.ms, predicted.low_ms, predicted.high_ms
            rows.append([*(float(v[0]) for v in ends), m.latency_ms])
    ms, low, high, measured = np.array(rows, float).reshape(-1, 4).T
    inside, n = int(np.sum((low <= measured) & (measured <= high))), len(rows)
    errors = (ms - measured) / measured
    bias = float(errors.mean()) if n else float("nan")
    drift = next((d for d in since(model, newer) if d.kind == "operator"), None)
    reasons = []
    if n and _probability(inside, n) < _RARE:
        reasons.append(f"{inside} of {n} newer networks lie in their 90 % interval")
    if n > 2 and abs(bias) > max(_BIAS, 2 * float(errors.std(ddof=1)) / np.sqrt(n)):
        low_or_high = "low" if bias < 0 else "high"
        reasons.append(
            f"its predictions are {abs(bias):.1%} too {low_or_high} on {n} newer networks"
        )
    if drift is not None and drift.changed:
        reasons.append(str(drift))
    older = [m for m in own if not m.entry.after(model.last)]
    ratio = _speed([m for m in newer if m.kind == "network"], older)
    off = float(np.exp(np.mean(np.log(measured / ms)))) if n else 1.0
    slower = ratio >= 1 + TOLD and off >= 1 + TOLD
    moved = slower or (ratio <= 1 - TOLD and off <= 1 - TOLD)
    if moved:
        reasons.append(
            f"the device has another speed: newer networks take {off:.2f} times as long as "
            f"predicted, and the sentinel {ratio:.2f} times as long as when it was measured for it"
        )
    known = {o.key for o in model.table.ms} | {e.network for e in model.examined}
    new = sum(m.subject not in known for m in newer)
    if new > _MORE * max(model.measurements, 1):
        reasons.append(
            f"{counted(new, 'subject')} new; it was fitted on "
            f"{counted(model.measurements, 'measurement')}"
        )
    return Upkeep(
        newer=len(newer),
        networks=n,
        inside=inside,
        bias=bias,
        drift=drift,
        reasons=tuple(reasons),
        outdated=moved or (drift is not None and drift.changed),
        uncovered=tuple(uncovered),
    )


def since(model: LatencyModel, newer: Iterable[Measurement]) -> list[Drift]:
    """How operators and networks changed since the model was fitted on them, by kind.

    Args:
        model: Fitted earlier.
        newer: Measured since; subjects that the model does not hold are passed over.
    """
    times: dict[tuple[str, str], float] = {
        **{("operator", o.key): ms for o, ms in model.table.ms.items()},
        **{("network", e.network): e.measured_ms for e in model.examined},
    }
    newer = list(newer)
    old = [
        Measurement(m.kind, m.subject, m.conditions, (Round((ms,)),))
        for m in newer
        if (ms := times.get((m.kind, m.subject))) is not None
    ]
    return [replace(d, since=model.table.date) for d in between(old, newer)]


def slowdown(drifts: Sequence[Drift]) -> float | None:
    """Time of all subjects now over that before; the kinds by their numbers; None for none."""
    if not drifts:
        return None
    logs, counts = [np.log(d.ratio) for d in drifts], [d.subjects for d in drifts]
    return float(np.exp(np.average(logs, weights=counts)))


def _speed(now: Sequence[Measurement], before: Sequence[Measurement]) -> float:
    """Time of the sentinel beside some measurements over that beside earlier ones; 1 if unknown."""
    times = [[ms for m in each if (ms := m.sentinel_ms)] for each in (now, before)]
    return float(np.median(times[0]) / np.median(times[1])) if all(times) else 1.0


def _probability(inside: int, networks: int) -> float:
    """Probability that 90 % intervals hold so few networks or fewer, if they are right."""
    from scipy import stats

    return float(stats.binom.cdf(inside, networks, 0.9))
