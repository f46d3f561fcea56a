"""validate(): the best of a front, measured whole on the device, beside their predictions."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any

from phonenas.data import Conditions, MeasurementStore
from phonenas.devices import Device, Outcome, Subject, measure
from phonenas.devices.measuring.events import Event
from phonenas.devices.measuring.protocol import Protocol, Verdict
from phonenas.latency_model import Score, score
from phonenas.latency_model.metrics import Z90
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnstableDevice

from ..candidate_selection import select_candidates
from ..exported_file import ExportedFile, FileLatency
from ..pareto import Candidate, ParetoFront
from .file_latency import file_jobs, subjects_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SAID",
    "Unmeasured",
    "Validated",
    "Validation",
    "counted",
    "measure_file",
    "score_of",
    "target_verdict",
    "unmeasured_words",
    "validate",
]

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
        file: Its exported file, measured in the same job; None where none was exported.
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
    file: FileLatency | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        own = [f.name for f in fields(self) if f.name not in ("candidate", "figures", "file")]
        return {
            **{name: getattr(self.candidate, name) for name in ("id", "block_args", "top1")},
            **{name: getattr(self, name) for name in own},
            **self.figures,
            "file": None if self.file is None else asdict(self.file),
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
            told = f"\n      {v.file}" if v.file and str(v.file) else ""
            lines.append(
                f"{v.candidate.id:>4}  ○ {v.predicted_ms:.2f} ms ({v.low_ms:.2f} to "
                f"{v.high_ms:.2f})  {self.conditions.mark} {v.measured_ms:.2f} ms ±{v.spread:.1%}  "
                f"{v.error:+z.1%}, {where}  {meets}{told}"
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
        front: Of a search. A file that a network was exported to is measured in the same job.
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
    with_file = [c.block_args for c in chosen if c.block_args in front.exported]
    jobs = dict(zip(with_file, file_jobs([front.exported[b] for b in with_file], on), strict=True))
    files = subjects_of(list(jobs.values()), on, into)
    beside = {s.text for s in files}
    subjects = [Subject("network", c.architecture) for c in chosen if c.block_args not in beside]
    before = {m.subject: m.entry for m in into.measurements(on.conditions, "network")}
    outcome = _measured([*subjects, *files], on, into, again, on_event)
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
    taken_of = {
        c.block_args: outcome.results[c.block_args]
        for c in chosen
        if c.block_args not in outcome.unstable
    }
    networks = []
    for candidate in chosen:
        taken = taken_of.get(candidate.block_args)
        if taken is None:
            continue
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
                file=jobs[candidate.block_args].latency(outcome, on)
                if candidate.block_args in jobs
                else None,
            )
        )
    return Validation(
        tuple(networks),
        score_of([v.to_dict() for v in networks]),
        front.target_ms,
        outcome.verdict,
        outcome.conditions,
        sum(m.entry == before.get(m.subject) for m in taken_of.values()),
        outcome.rejected,
        outcome.seconds,
        unmeasured,
    )


def measure_file(
    exported: ExportedFile,
    *,
    on: Device,
    into: MeasurementStore,
    again: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> FileLatency:
    """Measure an exported file, and beside it its architecture with random weights.

    Args:
        exported: The file.
        on: An entered device.
        into: The store; what it holds is not measured again.
        again: Measure it again all the same.
        on_event: As for `devices.profile`.
    Raises:
        UnstableDevice, DeviceUnavailable, StoreError: As `devices.measure`.
    """
    (job,) = file_jobs([exported], on)
    subjects = subjects_of([job], on, into)
    if not subjects:
        return FileLatency(unmeasured=job.unmeasured)
    return job.latency(_measured(subjects, on, into, again, on_event), on)


def _measured(
    subjects: Sequence[Subject],
    on: Device,
    into: MeasurementStore,
    again: bool,
    on_event: Callable[[Event], None] | None,
) -> Outcome:
    """Measure whole networks as precisely as a decision on them needs."""
    return measure(
        subjects,
        on=on,
        into=into,
        protocol=Protocol(network_rounds=_ROUNDS, startups=_STARTUPS),
        purpose="validation",
        again=again,
        on_event=on_event,
    )


def score_of(rows: Sequence[Mapping[str, Any]]) -> Score:
    """Predictions of `Validated.to_dict` rows compared with their measurements."""
    columns = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
    bars = [float(row["spread"]) for row in rows if row.get("spread")]
    known = [bar / Z90 for bar in bars if bar == bar]
    noise = median(known) if known else 0.0
    return score(*([float(row[name]) for row in rows] for name in columns), noise=noise)
