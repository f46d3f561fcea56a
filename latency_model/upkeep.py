"""Upkeep: whether a model still holds, by what was measured after it was fitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.measurement import Measurement
from ..space import Architecture, Operator
from ..space.errors import UncoveredOperator
from .drift import Drift, between
from .model import LatencyModel

__all__ = ["Upkeep", "upkeep"]

_RARE = 0.05  # chance of an honest model below which it is doubted
_BIAS = 0.02  # a mean error that is worth a fit
_MORE = 0.1  # share of new measurements that is worth a fit


@dataclass(frozen=True)
class Upkeep:
    """What newer measurements say of a model.

    Args:
        newer: Measurements made after those that the model was fitted on.
        networks: Whole networks among them that it can predict.
        inside: How many of these lie in their 90 % interval.
        bias: Mean (predicted - measured) / measured over them; NaN without any.
        drift: How operators that taught it were measured since; None without any.
        reasons: Why it should be fitted again, each a sentence; none: it holds.
        outdated: Whether operators drifted: what was not measured again is as old as it was, so
            a fit alone does not help.
    """

    newer: int
    networks: int
    inside: int
    bias: float
    drift: Drift | None
    reasons: tuple[str, ...]
    outdated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "newer": self.newer,
            "networks": self.networks,
            "inside": self.inside,
            "bias": None if self.bias != self.bias else self.bias,
            "drift": None if self.drift is None else self.drift.to_dict(),
            "refit": bool(self.reasons),
            "reasons": list(self.reasons),
            "measure_again": self.outdated,
        }


def upkeep(model: LatencyModel, measurements: Iterable[Measurement]) -> Upkeep:
    """Hold a model against what was measured since, under its own conditions.

    Args:
        model: Fitted earlier.
        measurements: Of the store, the latest series of each subject; those that are no newer
            than the model's own are passed over.
    """
    # Kernels and ONNX files are another model's.
    newer = [m for m in measurements if m.at > model.until and m.kind in ("operator", "network")]
    pairs = []
    for m in newer:
        if m.kind == "network":
            try:
                told = model.predict([Architecture.parse(m.subject)])
            except UncoveredOperator:
                continue
            pairs.append(
                (float(told.ms[0]), float(told.low_ms[0]), float(told.high_ms[0]), m.latency_ms)
            )
    inside = sum(low <= ms <= high for _, low, high, ms in pairs)
    errors = np.array([(p - ms) / ms for p, _, _, ms in pairs])
    bias = float(errors.mean()) if len(errors) else float("nan")
    drift = _drift(model, newer)
    reasons = []
    if pairs and _chance(inside, len(pairs)) < _RARE:
        reasons.append(f"{inside} of {len(pairs)} newer networks lie in their 90 % interval")
    if len(errors) > 2:
        doubt = 2 * float(errors.std(ddof=1)) / np.sqrt(len(errors))
        if abs(bias) > max(_BIAS, doubt):
            low = "low" if bias < 0 else "high"
            reasons.append(
                f"its predictions stand {abs(bias):.1%} too {low} on {len(errors)} newer networks"
            )
    outdated = drift is not None and drift.changed
    if drift is not None and drift.changed:
        reasons.append(str(drift))
    known = {o.key for o in model.table.ms} | {e.network for e in model.examined}
    fresh = sum(m.subject not in known for m in newer)
    if fresh > _MORE * max(model.measurements, 1):
        reasons.append(f"{fresh} subjects came new, beside {model.measurements} that taught it")
    return Upkeep(len(newer), len(pairs), inside, bias, drift, tuple(reasons), outdated)


def _drift(model: LatencyModel, newer: list[Measurement]) -> Drift | None:
    from ..data.measurement import Round

    old = []
    for m in newer:
        if m.kind == "operator" and (ms := model.table.ms.get(Operator.parse(m.subject))):
            old.append(
                Measurement(m.kind, m.subject, m.conditions, (Round((ms,), at=model.table.date),))
            )
    found = between(old, newer)
    return found[0] if found else None


def _chance(inside: int, networks: int) -> float:
    """Chance that an honest 90 % interval holds so few."""
    from scipy import stats

    return float(stats.binom.cdf(inside, networks, 0.9))
