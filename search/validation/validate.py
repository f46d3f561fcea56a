"""validate(): the best of a front, measured whole on the device, beside their predictions."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from phonenas.data import Conditions, MeasurementStore
from phonenas.data.documents import Document
from phonenas.devices import Device, Subject, measure
from phonenas.devices.measuring.events import Event
from phonenas.devices.measuring.protocol import Protocol, Verdict
from phonenas.latency_model import LatencyModel, Score, score
from phonenas.latency_model.metrics import Z90
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnstableDevice

from ..candidate_selection import select_candidates
from ..checkpoint import of_this_run, run_digest
from ..pareto import Candidate, ParetoFront
from ..run_folder import Loaded
from .validation_file import checked_validation

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DOCUMENT",
    "SAID",
    "Unmeasured",
    "Validated",
    "Validation",
    "counted",
    "document",
    "earlier",
    "score_of",
    "target_verdict",
    "unmeasured_words",
    "validate",
]

log = logging.getLogger("phonenas")

DOCUMENT = Document("phonenas-validation", 2, "validation")
_ROUNDS = 12  # of each network: more than a profile takes, since these decide
_STARTUPS = 3  # the time to load varies by some 10 %
#: What a measurement says of a target, from the best to the worst, in the words of a table.
SAID = {
    "meets": "meets it",
    "likely": "likely meets it",
    "unclear": "unclear",
    "misses": "misses it",
}
_LIKELY = 0.41  # of half a normal's 90 % interval: three in four lie below


def target_verdict(measured_ms: float, spread: float | None, target_ms: float | None) -> str | None:
    """What a measurement with its error bar says of a target.

    "meets": the whole 90 % interval lies at or below it; "misses": all of it above; "likely": the
    true value lies at or below it in three of four cases or more; "unclear": anything else, as a
    single round, which has no error bar. None without a target.

    Args:
        measured_ms: Value in ms, > 0.
        spread: Half its 90 % interval, relative; None or NaN where it is unknown.
        target_ms: In ms, > 0.
    """
    if target_ms is None:
        return None
    if spread is None or spread != spread:
        return "unclear"
    half_ms, left_ms = spread * measured_ms, target_ms - measured_ms
    if abs(left_ms) >= half_ms:
        return "meets" if left_ms >= 0 else "misses"
    return "likely" if left_ms >= _LIKELY * half_ms else "unclear"


def counted(verdicts: Sequence[str | None], target_ms: float) -> str:
    """How many say what of a target: "3 meet the target of 26.200 ms, 1 likely, 1 miss it"."""
    words = {"likely": "likely", "unclear": "unclear", "misses": "miss it"}
    counts = {name: sum(v == name for v in verdicts) for name in SAID}
    others = "".join(f", {counts[name]} {said}" for name, said in words.items() if counts[name])
    return f"{counts['meets']} meet the target of {target_ms:.3f} ms{others}"


@dataclass(frozen=True)
class Validated:
    """One network: predicted latency with its 90 % interval, and measured latency, in ms.

    Args:
        candidate: As the search found it, with its measurement.
        measured_ms: Value of its `rounds`.
        spread: Its error bar: half its own 90 % interval, relative.
        error: (predicted - measured) / measured.
        inside: Whether the measurement lies in the interval of the prediction.
        meets_target: Whether `measured_ms` alone is at or below the target; None without one.
        verdict: `target_verdict`, which takes the error bar into account.
        figures: `Measurement.figures` of it: single runs, memory, time to load, size.
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
    verdict: str | None = None
    figures: Mapping[str, float | int | None] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        own = [f.name for f in fields(self) if f.name not in ("candidate", "figures")]
        return {
            **{name: getattr(self.candidate, name) for name in ("id", "block_args", "top1")},
            **{name: getattr(self, name) for name in own},
            **self.figures,
        }


@dataclass(frozen=True)
class Unmeasured:
    """A network that gave no stable measurement, and why."""

    candidate: Candidate
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        own = {name: getattr(self.candidate, name) for name in ("id", "block_args")}
        return {**own, "predicted_ms": self.candidate.latency_ms, "reason": self.reason}


def unmeasured_words(unmeasured: Sequence[Unmeasured], asked: int) -> str:
    """A sentence that names the networks without a measurement, and why."""
    names = "; ".join(f"network {u.candidate.id}: {u.reason}" for u in unmeasured)
    return f"{len(unmeasured)} of {asked} networks gave no stable measurement ({names})"


@dataclass(frozen=True)
class Validation:
    """Networks of a front with their measurements, and the score of their predictions.

    Args:
        conditions: Under which they were measured; `conditions.origin` is that of `measured_ms`.
        reused: How many networks the store already held under the same conditions.
        rejected: Readings that were taken again.
        unmeasured: Networks that gave no stable measurement; they count in no number here.
    """

    networks: tuple[Validated, ...]
    score: Score
    target_ms: float | None
    verdict: Verdict
    conditions: Conditions
    reused: int
    rejected: int
    seconds: float
    unmeasured: tuple[Unmeasured, ...] = ()

    def __repr__(self) -> str:
        inside = sum(v.inside for v in self.networks)
        verdicts = [v.verdict for v in self.networks]
        target = "" if self.target_ms is None else f", {counted(verdicts, self.target_ms)}"
        lacking = f", {len(self.unmeasured)} not measured" if self.unmeasured else ""
        return (
            f"Validation({len(self.networks)} networks {self.conditions.origin}, {inside} inside "
            f"their interval{target}, mean error {self.score.mape:.1%}{lacking})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a network: the fields of `Validated.to_dict`, the block string as `network`, and
        the `origin` of `measured_ms`. Networks without a measurement come last, with the
        `reason`."""
        import pandas as pd

        rows: list[dict[str, Any]] = [{**v.to_dict(), "reason": ""} for v in self.networks]
        rows += [u.to_dict() for u in self.unmeasured]
        frame = pd.DataFrame(rows).rename(columns={"block_args": "network"})
        return frame.assign(origin=self.conditions.origin)

    def __str__(self) -> str:
        lines = []
        for v in self.networks:
            meets = "" if v.verdict is None else f"target: {SAID[v.verdict]}"
            where = "inside" if v.inside else "OUTSIDE"
            lines.append(
                f"{v.candidate.id:>4}  ○ {v.predicted_ms:.2f} ms ({v.low_ms:.2f} to "
                f"{v.high_ms:.2f})  {self.conditions.mark} {v.measured_ms:.2f} ms ±{v.spread:.1%}  "
                f"{v.error:+.1%}, {where}  {meets}"
            )
        lines += [f"{u.candidate.id:>4}  not measured: {u.reason}" for u in self.unmeasured]
        return "\n".join([*lines, *filter(None, [self.conditions.origin_note])])


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
        into: The store; of a network that it holds only those of 12 rounds are measured that
            lack, unless `again`, or the device's speed is another now (by the sentinel, 10 %).
        top: How many, ≥ 1; see `select_candidates`.
        known: Networks that were measured already and are not chosen again, by block string.
        expected: Conditions of the model that predicted; others are refused. None: any.
        again: See `into`.
        on_event: As for `devices.profile`.
    Raises:
        InvalidArgument: top < 1.
        SettingsChanged: The device runs under other conditions than `expected`.
        UnstableDevice: No network gave a stable measurement. Where some did, the others are in
            `Validation.unmeasured`.
    """
    if top < 1:
        raise InvalidArgument(f"top: 1 or more, got {top}")
    if expected is not None and on.conditions != expected:
        raise SettingsChanged(
            f"{on.name} is not as it was when the predictions were made: "
            f"{'; '.join(expected.differences(on.conditions))} (then / now). Profile and fit it "
            f"again:  phonenas profile --device {shlex.quote(on.name)}"
        )
    chosen = select_candidates(front, top, known)
    outcome = measure(
        [Subject("network", c.architecture) for c in chosen],
        on=on,
        into=into,
        protocol=Protocol(network_rounds=_ROUNDS, startups=_STARTUPS),
        purpose="validation",
        again=again,
        on_event=on_event,
    )
    unmeasured = tuple(
        Unmeasured(c, outcome.unstable[c.block_args])
        for c in chosen
        if c.block_args in outcome.unstable
    )
    if unmeasured and len(unmeasured) == len(chosen):
        raise UnstableDevice(
            f"{unmeasured_words(unmeasured, len(chosen))}. Close other programs, then give the "
            "same command again."
        )
    networks = []
    for candidate in chosen:
        if candidate.block_args in outcome.unstable:
            continue
        taken = outcome.results[candidate.block_args]
        ms, measured = candidate.latency_ms, taken.latency_ms
        networks.append(
            Validated(
                candidate=candidate.with_measured(measured),
                predicted_ms=ms,
                low_ms=candidate.low_ms,
                high_ms=candidate.high_ms,
                measured_ms=measured,
                spread=taken.spread,
                error=(ms - measured) / measured,
                inside=candidate.low_ms <= measured <= candidate.high_ms,
                meets_target=None if front.target_ms is None else measured <= front.target_ms,
                rounds=len(taken.rounds),
                verdict=target_verdict(measured, taken.spread, front.target_ms),
                figures=taken.figures,
            )
        )
    return Validation(
        tuple(networks),
        score_of([v.to_dict() for v in networks]),
        front.target_ms,
        outcome.verdict,
        outcome.conditions,
        outcome.reused,
        outcome.rejected,
        outcome.seconds,
        unmeasured,
    )


def earlier(path: Path, run: Loaded, conditions: Conditions) -> dict[str, Any]:
    """The document of an earlier validation of the same predictions; empty where there is none.

    Networks that the run's front does not hold, or that were predicted otherwise, are left out,
    and all of them if they were measured under other conditions.

    Args:
        path: `validation.json` of the run.
        run: Whose predictions.
        conditions: Under which is measured now.
    Raises:
        UnsupportedFormat: The file is damaged, or no validation.
        StoreError: It cannot be read.
    """
    advice = "Remove it, then give the same command again: the store holds what was measured."
    document = DOCUMENT.read(path, advice)
    if document is None:
        return {}
    of_this_run(path, document.get("run"), run.settings, advice)
    with DOCUMENT.checking(path, advice):
        checked_validation(document)
        predicted = {c.id: (c.block_args, c.latency_ms) for c in run.front}
        same = [
            v
            for v in document["networks"]
            if predicted.get(v["id"]) == (v["block_args"], v["predicted_ms"])
        ]
        if same:
            score_of(same)  # all of it are numbers
        lacking = [
            {**u, "reason": str(u["reason"])}
            for u in document.get("unmeasured", ())
            if predicted.get(u["id"]) == (u["block_args"], u["predicted_ms"])
        ]
        before = Conditions.from_dict(document["conditions"])
    if before != conditions:
        changed = "; ".join(before.differences(conditions))
        log.info("%s was measured under other conditions: %s (then / now)", path, changed)
        return {}
    return {**document, "networks": same, "unmeasured": lacking}


def score_of(rows: Sequence[Mapping[str, Any]]) -> Score:
    """Predictions of `Validated.to_dict` rows compared with their measurements."""
    columns = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
    bars = [float(row["spread"]) for row in rows if row.get("spread")]
    known = [bar / Z90 for bar in bars if bar == bar]
    noise = median(known) if known else 0.0
    return score(*([float(row[name]) for row in rows] for name in columns), noise=noise)


def document(
    validation: Validation,
    run: Loaded,
    conditions: Conditions,
    *,
    latency: LatencyModel | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that a report says of a validation, ready for JSON.

    Args:
        validation: What was measured.
        run: Whose predictions they were; its own account of the model that predicted is taken.
        conditions: Under which the networks were measured.
        latency: The model that predicted, for where the milliseconds go; None: not at hand.
        before: An earlier document, as `earlier` gives it: its networks that were not measured
            this time stay, and count in the score; so do those without a measurement, until they
            have one.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    networks = []
    for v in validation.networks:
        shares = [] if latency is None else latency.explain(v.candidate.architecture)
        networks.append(
            {
                **v.to_dict(),
                **{n: getattr(v.candidate, n) for n in ("top1_error", "outside", "macs", "params")},
                "at": at,
                "constant_ms": sum(e.ms for e in shares if e.operator is None),
                "operators": [
                    {n: getattr(e.operator, n) for n in ("label", "in_px", "key")}
                    | {"ms": e.ms, "measured": e.measured}
                    for e in shares
                    if e.operator is not None
                ],
            }
        )
    kept = dict(before or {})
    now = {v["id"] for v in networks}
    networks += [v for v in kept.get("networks", ()) if v["id"] not in now]
    networks.sort(key=lambda v: int(v["id"]))
    lacking = [{**u.to_dict(), "at": at} for u in validation.unmeasured]
    known = {v["id"] for v in networks} | {u["id"] for u in lacking}
    lacking += [u for u in kept.get("unmeasured", ()) if u["id"] not in known]
    return {
        **{name: kept[name] for name in ("rounds", "best", "stopped") if name in kept},
        "format": DOCUMENT.format,
        "version": DOCUMENT.version,
        "run": run_digest(run.settings),
        "device": run.settings["device"],
        "target_ms": run.front.target_ms,
        "target": run.front.target,
        "verdict": {"stable": validation.verdict.stable, "text": validation.verdict.text},
        "rejected": validation.rejected,
        "reused": validation.reused,
        "at": at,
        "conditions": conditions.to_dict(),
        "networks": networks,
        "unmeasured": lacking,
        "score": score_of(networks).to_dict(),
        "model": run.model,
    }
