"""profile(): a space's operators and some whole networks, measured on a device into a store.

Every accepted round is committed at once and what is in the store is not measured again, so a
job that stops, by Ctrl-C, SIGKILL or a lost device, goes on with the same call.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ..data.measurement import Conditions, Measurement, Round, SubjectKind
from ..data.measurement import spread as spread_between
from ..data.store import MeasurementStore
from ..space import Architecture, Operator, SearchSpace
from ..space.errors import DeviceError, InvalidArgument, UnstableDevice
from ..space.to_onnx import to_onnx
from .device import Device, Job, Reading
from .timing import SENTINEL, Gate, Protocol, Verdict, reading_objection, verdict

__all__ = [
    "Measured",
    "Outcome",
    "Planned",
    "Rejected",
    "Subject",
    "measure",
    "profile",
    "subjects_of",
]

_BATCH_S = 1.5  # between two commits
_WATCH = 10  # readings of the sentinel before the first subject
_WATCH_RUNS = 30
_PATIENCE = 200  # readings refused in a row before the device is called unstable
_MAX_COOL_DOWN_S = 2.0


@dataclass(frozen=True)
class Subject:
    """Something to measure: an operator or a whole network."""

    kind: SubjectKind
    model: Operator | Architecture

    @property
    def text(self) -> str:
        """Its name in the store."""
        return self.model.key if isinstance(self.model, Operator) else str(self.model)


@dataclass(frozen=True)
class Planned:
    """Event: what will be measured, and about how long it takes."""

    subjects: int
    reused: int
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """Event: rounds accepted so far, of all; about how many seconds are left."""

    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class Rejected:
    """Event: readings that were not recorded and are taken again, and why."""

    subjects: tuple[str, ...]
    reason: str


Event = Planned | Measured | Rejected
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """What a measuring job did.

    Args:
        measured: Subjects measured now.
        reused: Subjects that the store already held.
        rejected: Readings that were not recorded and taken again.
        unstable: Subjects given up, with the reason; they are not in the store.
        seconds: Wall time.
        conditions: What they were measured under.
        verdict: Whether the whole is to be believed.
        results: Measurement by subject text.
    """

    measured: int
    reused: int
    rejected: int
    unstable: Mapping[str, str]
    seconds: float
    conditions: Conditions
    verdict: Verdict
    results: Mapping[str, Measurement]


def subjects_of(
    space: SearchSpace | None, networks: int, seed: int, named: Sequence[Architecture] = ()
) -> list[Subject]:
    """Every operator of a space, `networks` random distinct networks of it, and named ones."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, Architecture] = {str(a): a for a in named}
    for _ in range(100 if space is not None else 0):
        assert space is not None
        if len(drawn) >= networks + len(named):
            break
        for genome in space.sample(rng, networks):
            architecture = space.decode(genome)
            if len(drawn) < networks + len(named):
                drawn.setdefault(str(architecture), architecture)
    operators = dict.fromkeys(space.operators() if space is not None else ())
    for architecture in named:
        operators.update(dict.fromkeys(architecture.operators()))
    return [Subject("operator", o) for o in operators] + [
        Subject("network", a) for a in drawn.values()
    ]


def profile(
    space: SearchSpace | None,
    *,
    on: Device,
    into: MeasurementStore,
    networks: int = 20,
    named: Sequence[Architecture] = (),
    quick: bool = False,
    again: bool = False,
    seed: int = 0,
    on_event: OnEvent | None = None,
) -> Outcome:
    """Measure every operator of a space, and random whole networks to hold the sum against.

    Args:
        space: Whose operators; its networks are drawn uniformly. None for the named alone.
        on: An entered device.
        into: The store; what it already holds under the same conditions is not repeated.
        networks: Random networks to measure whole, ≥ 0; a calibrated model needs 10.
        named: Further networks, measured whole, and their operators.
        quick: One round of operators and two of networks: a first look, with wider errors.
        again: Measure anew what is complete, as a new series.
        seed: Of the drawn networks and the order.
        on_event: Called with `Planned`, `Measured` and `Rejected`.
    Raises:
        InvalidArgument: networks < 0.
        UnstableDevice: The sentinel would not settle; what was accepted stays in the store.
        DeviceUnavailable, StoreError: As their names say; the same call goes on from there.
    """
    if networks < 0:
        raise InvalidArgument(f"networks: 0 or more, got {networks}")
    protocol = Protocol()
    if quick:
        protocol = replace(protocol, operator_rounds=1, network_rounds=2)
    subjects = subjects_of(space, networks, seed, named)
    return measure(
        subjects, on=on, into=into, protocol=protocol, again=again, seed=seed, on_event=on_event
    )


def measure(
    subjects: Sequence[Subject],
    *,
    on: Device,
    into: MeasurementStore,
    protocol: Protocol | None = None,
    purpose: str = "profile",
    again: bool = False,
    seed: int = 0,
    on_event: OnEvent | None = None,
) -> Outcome:
    """Measure subjects by the house's rules; see `profile` for arguments and errors."""
    started = time.monotonic()
    job = _Job(on, into, protocol or Protocol(), purpose, seed, on_event or _ignore)
    job.plan(subjects, again)
    with tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
        job.run(Path(folder))
    _fix_reference(into, on.conditions)
    wanted = {s.text for s in subjects}
    results = {m.subject: m for m in into.measurements(on.conditions) if m.subject in wanted}
    return Outcome(
        measured=len(job.finished),
        reused=job.reused,
        rejected=job.rejected,
        unstable=job.unstable,
        seconds=time.monotonic() - started,
        conditions=on.conditions,
        verdict=verdict(list(results.values()), job.rejected, job.protocol.spread_limit),
        results=results,
    )


def _fix_reference(store: MeasurementStore, conditions: Conditions) -> None:
    """At the end of a device's first job: the sentinel's median over all of it."""
    if store.reference_ms(conditions) is None:
        times = [s for m in store.measurements(conditions) for r in m.rounds for s in r.sentinel_ms]
        if times:
            store.set_reference(conditions, median(times))


def _ignore(event: Event) -> None:
    pass


class _Job:
    """The state of one measuring job: who still lacks which round."""

    def __init__(
        self,
        device: Device,
        store: MeasurementStore,
        protocol: Protocol,
        purpose: str,
        seed: int,
        tell: OnEvent,
    ) -> None:
        self.device, self.store, self.protocol = device, store, protocol
        self.purpose, self.tell = purpose, tell
        self.order = random.Random(seed)
        self.gate = Gate(protocol.drift_limit)
        self.open: dict[str, Subject] = {}
        self.ids: dict[str, int] = {}
        self.taken: dict[str, list[Round]] = {}
        self.last_s: dict[str, float] = {}
        self.failures: dict[str, int] = {}
        self.unstable: dict[str, str] = {}
        self.finished: set[str] = set()
        self.reused = self.rejected = self.refused_in_a_row = 0
        self.ms_per_mac = 0.0
        self.reference_ms = 1.0
        self.work_s = self.worked_estimate_s = 0.0

    # -- plan ---------------------------------------------------------------------------------

    def plan(self, subjects: Sequence[Subject], again: bool) -> None:
        conditions = self.device.conditions
        for kind in ("operator", "network"):
            chosen = {s.text: s for s in subjects if s.kind == kind}
            if not chosen:
                continue
            found = self.store.pending(
                conditions, kind, list(chosen), purpose=self.purpose, again=again
            )
            for text, pending in found.items():
                if pending.complete:
                    self.reused += 1
                else:
                    self.open[text] = chosen[text]
                    self.ids[text] = pending.id
                    self.taken[text] = list(pending.rounds)

    def missing(self, text: str) -> int:
        """Rounds that a subject still lacks."""
        return max(0, self.protocol.rounds(self.open[text].kind) - len(self.taken[text]))

    def estimate_s(self, subject: Subject) -> float:
        """Seconds of one round of a subject: building, loading, warm-up, samples."""
        runs = self.protocol.runs(subject.kind) + self.protocol.warmup_runs + 1
        load_s = 0.008 if subject.kind == "operator" else 0.1
        # Between samples the sentinel runs twice for every 2 ms.
        return load_s + 1.3 * runs * subject.model.macs * self.ms_per_mac / 1e3

    # -- run ----------------------------------------------------------------------------------

    def run(self, folder: Path) -> None:
        if not self.open:
            self.tell(Planned(0, self.reused, 0, 0.0))
            return
        sentinel = folder / "sentinel.onnx"
        sentinel.write_bytes(to_onnx(SENTINEL).SerializeToString())
        self.settle(sentinel)
        self.reference_ms = self.store.reference_ms(self.device.conditions) or self.gate.usual_ms
        rounds = sum(self.missing(t) for t in self.open)
        left_s = self.left_s()
        self.tell(Planned(len(self.open), self.reused, rounds, left_s))
        self.close_complete(list(self.open))
        while self.open:
            # Round by round over all subjects: rounds of one subject lie far apart.
            fewest = min(len(self.taken[t]) for t in self.open)
            due = [t for t in self.open if len(self.taken[t]) == fewest]
            self.order.shuffle(due)
            for batch in self.batches(due):
                self.wait_apart(batch)
                self.batch(batch, folder, sentinel)

    def left_s(self) -> float:
        planned = sum(self.estimate_s(self.open[t]) * max(1, self.missing(t)) for t in self.open)
        pace = self.work_s / self.worked_estimate_s if self.worked_estimate_s > 5 else 1.15
        return planned * pace

    def settle(self, sentinel: Path) -> None:
        """Watch the sentinel for a while, to know where it mostly stands."""
        for reading in self.run_jobs([Job(sentinel, _WATCH_RUNS)] * _WATCH, sentinel):
            objection = reading_objection(reading, self.device.conditions.provider)
            if objection:
                raise DeviceError(f"{self.device.name} cannot run the sentinel: {objection}")
            self.gate.objection(median(reading.sentinel_ms))
        self.ms_per_mac = self.gate.usual_ms / SENTINEL.macs

    def run_jobs(self, jobs: Sequence[Job], sentinel: Path) -> Iterable[Reading]:
        return self.device.run_ms(
            jobs,
            sentinel=sentinel,
            warmup_runs=self.protocol.warmup_runs,
            warmup_s=self.protocol.warmup_s,
        )

    def batches(self, due: list[str]) -> Iterable[list[str]]:
        batch: list[str] = []
        size_s = 0.0
        for text in due:
            batch.append(text)
            size_s += self.estimate_s(self.open[text])
            if size_s > _BATCH_S:
                yield batch
                batch, size_s = [], 0.0
        if batch:
            yield batch

    def wait_apart(self, batch: list[str]) -> None:
        latest = max((self.last_s.get(t, 0.0) for t in batch), default=0.0)
        pause = self.protocol.apart_s - (time.monotonic() - latest)
        if latest and pause > 0:
            time.sleep(pause)

    def batch(self, batch: list[str], folder: Path, sentinel: Path) -> None:
        """Measure a batch in one go; commit what is believed."""
        began = time.monotonic()
        estimate_s = sum(self.estimate_s(self.open[t]) for t in batch)
        jobs = []
        for number, text in enumerate(batch):
            subject = self.open[text]
            path = folder / f"{number}.onnx"
            path.write_bytes(to_onnx(subject.model).SerializeToString())
            jobs.append(Job(path, self.protocol.runs(subject.kind)))
        circumstances = self.device.circumstances()
        accepted: list[tuple[int, int, Round]] = []
        refused: list[tuple[str, str]] = []
        for text, reading in zip(batch, self.run_jobs(jobs, sentinel), strict=True):
            objection = reading_objection(reading, self.device.conditions.provider)
            objection = objection or self.gate.objection(median(reading.sentinel_ms))
            if objection:
                refused.append((text, objection))
                self.refused_in_a_row += 1
                continue
            self.refused_in_a_row = 0
            taken = Round(
                reading.samples_ms,
                reading.sentinel_ms,
                reading.preempted,
                circumstances=circumstances,
            )
            accepted.append((self.ids[text], len(self.taken[text]), taken))
            self.taken[text].append(taken)
        for job in jobs:
            job.model.unlink()
        self.work_s += time.monotonic() - began
        self.worked_estimate_s += estimate_s
        self.commit(batch, accepted, refused)

    def commit(
        self,
        batch: list[str],
        accepted: list[tuple[int, int, Round]],
        refused: list[tuple[str, str]],
    ) -> None:
        if accepted:
            self.store.add_rounds(accepted)
        now = time.monotonic()
        for text in batch:
            self.last_s[text] = now
        if refused:
            self.rejected += len(refused)
            self.store.reject(self.device.conditions, refused)
            self.tell(Rejected(tuple(t for t, _ in refused), refused[0][1]))
        for text, reason in refused:
            self.failures[text] = self.failures.get(text, 0) + 1
            if self.failures[text] > _PATIENCE:
                self.give_up(text, reason)
        self.close_complete(batch)
        done = sum(len(r) for r in self.taken.values())
        self.tell(
            Measured(done, done + sum(max(1, self.missing(t)) for t in self.open), self.left_s())
        )
        if self.refused_in_a_row > _PATIENCE:
            raise UnstableDevice(
                f"{self.device.name}: {self.refused_in_a_row} readings in a row were not "
                f"believed, the last because {refused[-1][1]}. {len(self.finished)} subjects are "
                "in the store. Close other programs or let the device cool, then give the same "
                "command again."
            )
        if self.refused_in_a_row:
            time.sleep(min(_MAX_COOL_DOWN_S, 0.02 * self.refused_in_a_row))

    def close_complete(self, batch: list[str]) -> None:
        """Complete the subjects whose rounds agree, and give up those that never do."""
        agreed = []
        for text in batch:
            if text not in self.open or self.missing(text):
                continue
            # Any one reference serves to compare rounds with each other.
            medians = tuple(r.median_ms(self.reference_ms) for r in self.taken[text])
            apart = spread_between(medians)
            most = self.protocol.rounds(self.open[text].kind) + self.protocol.extra_rounds
            last = len(medians) >= most
            limit, negligible_ms = (
                (self.protocol.last_limit, self.protocol.last_negligible_ms)
                if last
                else (self.protocol.spread_limit, self.protocol.negligible_ms)
            )
            if apart <= limit or apart * median(medians) <= negligible_ms:
                agreed.append(text)
            elif last:
                self.give_up(
                    text,
                    f"{len(medians)} rounds from {min(medians):.3f} to {max(medians):.3f} ms stand "
                    f"±{apart:.0%} apart; the limit is ±{limit:.0%}",
                )
        if agreed:
            self.store.complete([self.ids[t] for t in agreed])
            self.finished.update(agreed)
            for text in agreed:
                del self.open[text]

    def give_up(self, text: str, reason: str) -> None:
        if text in self.open:
            self.store.discard(self.ids[text], self.device.conditions, text, reason)
            self.unstable[text] = reason
            self.rejected += 1
            del self.open[text]
