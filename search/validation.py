"""validate(): the best of a front, measured whole on the device, beside what was promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..data import MeasurementStore
from ..devices import Device, Subject, measure
from ..devices.profiling import Event
from ..devices.timing import Protocol, Verdict
from ..latency_model import LatencyModel, Score, score
from ..space.errors import InvalidArgument, UnstableDevice
from .pareto import Candidate, ParetoFront

__all__ = ["Validated", "Validation", "validate"]


@dataclass(frozen=True)
class Validated:
    """One network: promised and measured.

    Args:
        candidate: As the search found it.
        predicted_ms, low_ms, high_ms: The promise and its 90 % interval, ms.
        measured_ms: Median over the rounds' medians, ms.
        spread: How far its rounds stand apart, ± relative.
        error: (predicted - measured) / measured.
        inside: Whether the measurement lies in the interval.
        meets_target: Whether it is at or below the target; None without one.
    """

    candidate: Candidate
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    spread: float
    error: float
    inside: bool
    meets_target: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "id": self.candidate.id,
            "block_args": self.candidate.block_args,
            "top1": self.candidate.top1,
            "predicted_ms": self.predicted_ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "measured_ms": self.measured_ms,
            "spread": self.spread,
            "error": self.error,
            "inside": self.inside,
            "meets_target": self.meets_target,
        }


@dataclass(frozen=True)
class Validation:
    """The device's final word on a front.

    `score` holds the predictions against the measurements; `reused` counts networks that the
    store already held under the same conditions.
    """

    networks: tuple[Validated, ...]
    score: Score
    target_ms: float | None
    verdict: Verdict
    reused: int
    seconds: float

    def __str__(self) -> str:
        lines = []
        for v in self.networks:
            meets = {True: "meets the target", False: "misses the target", None: ""}[v.meets_target]
            where = "inside" if v.inside else "OUTSIDE"
            lines.append(
                f"{v.candidate.id:>4}  ○ {v.predicted_ms:.2f} ms ({v.low_ms:.2f} to "
                f"{v.high_ms:.2f})  ● {v.measured_ms:.2f} ms  {v.error:+.1%}, {where}  {meets}"
            )
        return "\n".join(lines)


def validate(
    front: ParetoFront,
    *,
    on: Device,
    into: MeasurementStore,
    top: int = 5,
    latency: LatencyModel | None = None,
    again: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Validation:
    """Measure the best networks of a front whole.

    Args:
        front: Of a search.
        on: An entered device.
        into: The store; what it already holds of these networks is not measured again.
        top: How many, ≥ 1; see `ParetoFront.best`.
        latency: Predicts anew; by default the front's own promises stand.
        again: Measure anew what the store already holds.
        on_event: As for `devices.profile`.
    Raises:
        InvalidArgument: top < 1.
        UnstableDevice: A network's rounds would not agree.
    """
    if top < 1:
        raise InvalidArgument(f"top: 1 or more, got {top}")
    chosen = front.best(top)
    outcome = measure(
        [Subject("network", c.architecture) for c in chosen],
        on=on,
        into=into,
        protocol=Protocol(network_rounds=7),
        purpose="validation",
        again=again,
        on_event=on_event,
    )
    if outcome.unstable:
        name, reason = next(iter(outcome.unstable.items()))
        raise UnstableDevice(
            f"{len(outcome.unstable)} of {len(chosen)} networks gave no stable measurement, as "
            f"{name}: {reason}. Close other programs, then give the same command again."
        )
    networks = []
    for candidate in chosen:
        taken = outcome.results[candidate.block_args]
        ms, low, high = candidate.latency_ms, candidate.low_ms, candidate.high_ms
        if latency is not None:
            told = latency.predict([candidate.architecture])
            ms, low, high = float(told.ms[0]), float(told.low_ms[0]), float(told.high_ms[0])
        measured = taken.latency_ms
        networks.append(
            Validated(
                candidate=candidate.with_measured(measured),
                predicted_ms=ms,
                low_ms=low,
                high_ms=high,
                measured_ms=measured,
                spread=taken.spread,
                error=(ms - measured) / measured,
                inside=low <= measured <= high,
                meets_target=None if front.target_ms is None else measured <= front.target_ms,
            )
        )
    return Validation(
        tuple(networks),
        score(
            [v.predicted_ms for v in networks],
            [v.measured_ms for v in networks],
            [v.low_ms for v in networks],
            [v.high_ms for v in networks],
        ),
        front.target_ms,
        outcome.verdict,
        outcome.reused,
        outcome.seconds,
    )
