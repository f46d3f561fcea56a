"""validate(): the best of a front, measured whole on the device, beside what was promised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data import Conditions, MeasurementStore
from ..data.documents import Document
from ..devices import Device, Subject, measure
from ..devices.plan import Event
from ..devices.timing import Protocol, Verdict
from ..latency_model import LatencyModel, Score, score
from ..space.errors import InvalidArgument, PhonenasError, SettingsChanged, UnstableDevice
from .choosing import worth_measuring
from .pareto import Candidate, ParetoFront
from .run_folder import Loaded

__all__ = ["DOCUMENT", "Validated", "Validation", "document", "earlier", "validate"]

log = logging.getLogger("phonenas")

DOCUMENT = Document("phonenas-validation", 1, "validation")
_ROUNDS = 12  # a promise is kept or broken by these: more than a profile takes


@dataclass(frozen=True)
class Validated:
    """One network: promised and measured.

    Args:
        candidate: As the search found it.
        predicted_ms, low_ms, high_ms: The promise and its 90 % interval, ms.
        measured_ms: Pseudo-median over the rounds' medians, ms.
        spread: How far its rounds stand apart, ± relative.
        error: (predicted - measured) / measured.
        inside: Whether the measurement lies in the interval.
        meets_target: Whether it is at or below the target; None without one.
        rounds: How many the measurement has.
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
    rounds: int

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
            "rounds": self.rounds,
        }


@dataclass(frozen=True)
class Validation:
    """The device's final word on a front.

    `score` holds the predictions against the measurements; `reused` counts networks that the
    store already held under the same conditions, `rejected` readings that were taken again.
    """

    networks: tuple[Validated, ...]
    score: Score
    target_ms: float | None
    verdict: Verdict
    reused: int
    rejected: int
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
    known: Collection[str] = (),
    expected: Conditions | None = None,
    again: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Validation:
    """Measure the best networks of a front whole.

    Args:
        front: Of a search.
        on: An entered device.
        into: The store; a network that it holds with 12 rounds or more is not measured again,
            one with fewer gets those that lack.
        top: How many, ≥ 1; see `worth_measuring`.
        known: Networks that were measured already and are not chosen again, by block string.
        expected: Conditions of the model that promised; other ones are refused. None to
            measure under any.
        again: Measure anew what the store already holds.
        on_event: As for `devices.profile`.
    Raises:
        InvalidArgument: top < 1.
        SettingsChanged: The device runs under other conditions than `expected`.
        UnstableDevice: A network's rounds would not agree.
    """
    if top < 1:
        raise InvalidArgument(f"top: 1 or more, got {top}")
    if expected is not None and on.conditions != expected:
        raise SettingsChanged(
            f"{on.name} is not as it was when the promises were made: "
            f"{'; '.join(expected.differences(on.conditions))} (then / now). Profile and fit anew:  "
            f"phonenas profile --device {on.name}"
        )
    chosen = worth_measuring(front, top, known)
    outcome = measure(
        [Subject("network", c.architecture) for c in chosen],
        on=on,
        into=into,
        protocol=Protocol(network_rounds=_ROUNDS),
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
                rounds=len(taken.rounds),
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
        outcome.rejected,
        outcome.seconds,
    )


def earlier(path: Path, run: Loaded, conditions: Conditions) -> dict[str, Any]:
    """What an earlier validation of the same promises wrote; empty where there is none.

    What it says of networks that the run's front does not hold, or promised otherwise, is left
    out, and all of it if it was measured under other conditions.

    Args:
        path: `validation.json` of the run.
        run: Whose promises.
        conditions: Under which is measured now.
    """
    try:
        found = DOCUMENT.read(path, "")
        if found is None or Conditions.from_dict(found["conditions"]) != conditions:
            return {}
        promised = {c.id: (c.block_args, c.latency_ms) for c in run.front}
        same = [
            v
            for v in found["networks"]
            if promised.get(v["id"]) == (v["block_args"], v["predicted_ms"])
        ]
        if same:
            _score(same)  # all of it are numbers
    except (PhonenasError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is left aside, and written anew: %s", path, error)
        return {}
    return {**found, "networks": same}


def _score(rows: list[dict[str, Any]]) -> Score:
    columns = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
    return score(*([float(row[name]) for row in rows] for name in columns))


def document(
    validation: Validation,
    run: Loaded,
    latency: LatencyModel,
    conditions: Conditions,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that a report says of a validation, ready for JSON.

    Args:
        validation: What the device said.
        run: Whose promises they were; its own account of the model that promised is taken.
        latency: The model at hand. If it is the one that promised, each network comes with
            where its predicted milliseconds go.
        conditions: What the networks were measured under.
        before: What was written earlier, as `earlier` gives it: networks that were not measured
            this time stay, and count in the score.
    """
    shares = latency.digest == run.settings["latency_model"]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    networks = []
    for v in validation.networks:
        told = latency.explain(v.candidate.architecture) if shares else []
        networks.append(
            {
                **v.to_dict(),
                "top1_error": v.candidate.top1_error,
                "outside": v.candidate.outside,
                "macs": v.candidate.macs,
                "params": v.candidate.params,
                "at": at,
                "constant_ms": sum(e.ms for e in told if e.operator is None),
                "operators": [
                    {
                        "label": e.operator.label,
                        "in_px": e.operator.in_px,
                        "key": e.operator.key,
                        "ms": e.ms,
                        "measured": e.measured,
                    }
                    for e in told
                    if e.operator is not None
                ],
            }
        )
    held = dict(before or {})
    now = {v["id"] for v in networks}
    networks += [v for v in held.get("networks", ()) if v["id"] not in now]
    networks.sort(key=lambda v: int(v["id"]))
    return {
        **{name: held[name] for name in ("rounds", "best", "stopped") if name in held},
        "format": DOCUMENT.format,
        "version": DOCUMENT.version,
        "device": latency.device,
        "target_ms": run.front.target_ms,
        "target": run.front.target,
        "verdict": {"stable": validation.verdict.stable, "text": validation.verdict.text},
        "rejected": validation.rejected,
        "reused": validation.reused,
        "at": at,
        "conditions": conditions.to_dict(),
        "networks": networks,
        "score": _score(networks).to_dict(),
        "model": run.model,
    }
