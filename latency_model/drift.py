"""Drift: whether what was measured before still holds.

The same subject measured twice tells what a device's numbers are worth later: after an update, a
hot summer, a new runtime. Ratios are new over old, each at its conditions' reference speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from ..data.measurement import Measurement, SubjectKind

__all__ = ["Drift", "Moved", "between", "over_time"]

_LEAST = 5  # subjects whose median has a 90 % interval
_MAD = 1.4826  # from a median absolute deviation to a normal's standard deviation
_FAR = 4.0  # standard deviations; one in 16,000 by chance
_SMALL = 0.05  # a subject that moved less than this changes no decision


@dataclass(frozen=True)
class Moved:
    """A subject that changed by more than its own scatter and the others' change explain."""

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
        moved: Those that changed otherwise than the rest, the farthest first.
        since, until: When the old and the new were last measured, ISO 8601.
    """

    kind: SubjectKind
    subjects: int
    ratio: float
    low: float
    high: float
    scatter: float
    moved: tuple[Moved, ...]
    since: str
    until: str

    @property
    def changed(self) -> bool:
        """Whether the change as a whole is real and more than 2 %."""
        return abs(self.ratio - 1) > 0.02 and not self.low <= 1 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; an interval without an end is None."""
        return {
            "kind": self.kind,
            "subjects": self.subjects,
            "ratio": self.ratio,
            "low": self.low if self.low > 0 else None,
            "high": self.high if self.high < float("inf") else None,
            "scatter": self.scatter,
            "changed": self.changed,
            "moved": [
                {"subject": m.subject, "old_ms": m.old_ms, "new_ms": m.new_ms} for m in self.moved
            ],
            "since": self.since,
            "until": self.until,
        }

    def __str__(self) -> str:
        slower = f"{abs(self.ratio - 1):.1%} {'slower' if self.ratio > 1 else 'faster'}"
        some = self.moved[0] if self.moved else None
        # The median of one or two has no interval, and needs none.
        known = self.low > 0 and self.high < float("inf")
        interval = f" (90 %: {self.low - 1:+.1%} to {self.high - 1:+.1%})" if known else ""
        return (
            f"{self.subjects} {self.kind}s measured on {self.since[:10]} and again on "
            f"{self.until[:10]}: {slower} in the middle"
            + interval
            + (
                f"; {len(self.moved)} moved otherwise, as {some.subject}: {some.old_ms:.3f} to "
                f"{some.new_ms:.3f} ms"
                if some
                else ""
            )
        )


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
    twice = [found[-2:] for found in series.values() if len(found) > 1]
    return between((a for a, _ in twice), (b for _, b in twice))


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
        own = hypot(*(0.0 if m.spread != m.spread else m.spread for m in (old, new)))
        off = abs(float(log) - middle)
        if len(logs) > 2 and off > max(_FAR * hypot(scatter, own), _SMALL):
            moved.append((off, Moved(old.subject, old.latency_ms, new.latency_ms)))
    return Drift(
        kind=pairs[0][0].kind,
        subjects=len(pairs),
        ratio=float(np.exp(middle)),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        scatter=scatter,
        moved=tuple(m for _, m in sorted(moved, key=lambda found: -found[0])),
        since=max(old.at for old, _ in pairs),
        until=max(new.at for _, new in pairs),
    )
