"""MeasuringJob: rounds of many subjects, taken in random order, believed or taken again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from ..data.measurement import Round
from ..data.measurement import spread as spread_between
from ..data.store import MeasurementStore
from ..space.errors import DeviceError, UnstableDevice
from .device import Device, Job, Reading
from .plan import Measured, OnEvent, Planned, Rejected, Subject
from .timing import SENTINEL, Gate, Protocol, reading_objection

__all__ = ["MeasuringJob"]

log = logging.getLogger("phonenas")

# Between two commits. Each batch pays the warm-up by time once, so short ones cost; what is
# under way is lost when a job is killed, so long ones cost too.
_BATCH_S = 3.0
_WATCH = 10  # readings of the sentinel before the first subject
_WATCH_RUNS = 30
_PATIENCE = 200  # readings refused in a row before the device is called unstable
_FAILURES = 3  # of one subject that the device cannot run, before it is given up
_MAX_COOL_DOWN_S = 2.0


class MeasuringJob:
    """Who still lacks which round, and the loop that takes them.

    Lifetime: made, `plan`ned once, `run` once; then its counts are read.

    Attributes:
        finished: Subjects measured by this job.
        reused: How many the store already held.
        rejected: Readings that were not recorded.
        unstable: Subjects given up, now or earlier, with the reason.
    """

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

    def plan(self, subjects: Sequence[Subject], again: bool, retry: bool) -> None:
        """Look into the store for what is there; with `retry` take up what was given up."""
        conditions = self.device.conditions
        for kind in ("operator", "network"):
            chosen = {s.text: s for s in subjects if s.kind == kind}
            if not chosen:
                continue
            found = self.store.pending(
                conditions, kind, list(chosen), purpose=self.purpose, again=again
            )
            for text, pending in found.items():
                if pending.given_up and not retry:
                    self.unstable[text] = pending.given_up
                    continue
                # What a quicker protocol called complete gets the rounds that this one asks for.
                if pending.complete and len(pending.rounds) >= self.protocol.rounds(kind):
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
        sentinel = self.device.lower(SENTINEL, folder / "sentinel")
        self.settle(sentinel)
        self.reference_ms = self.store.reference_ms(self.device.conditions) or self.gate.usual_ms
        rounds = sum(self.missing(t) for t in self.open)
        left_s = self.left_s()
        self.tell(Planned(len(self.open), self.reused, rounds, left_s))
        self.close_complete(list(self.open))
        while self.open:
            for batch in self.batches(self.schedule()):
                still = [t for t in batch if t in self.open]
                if still:
                    self.wait_apart(still)
                    self.batch(still, folder, sentinel)

    def schedule(self) -> list[str]:
        """The rounds that are missing, in order of taking; one more of those that disagree.

        Each subject's rounds are strewn evenly over the job, each at a random place of its
        share, so that they lie apart and between those of all others, few rounds or many.
        """
        slots = []
        for text, subject in self.open.items():
            rounds = self.protocol.rounds(subject.kind)
            done = len(self.taken[text])
            if done >= rounds:
                slots.append((self.order.random(), text))
            for number in range(done, rounds):
                slots.append(((number + self.order.random()) / rounds, text))
        return [text for _, text in sorted(slots)]

    def left_s(self) -> float:
        """Seconds left: the work, or the pauses between one subject's rounds if they are longer."""
        planned = sum(self.estimate_s(self.open[t]) * max(1, self.missing(t)) for t in self.open)
        pace = self.work_s / self.worked_estimate_s if self.worked_estimate_s > 5 else 1.15
        most = max((max(1, self.missing(t)) for t in self.open), default=1)
        return max(planned * pace, (most - 1) * self.protocol.apart_s)

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
            if text not in self.open:
                continue
            if text in batch:  # two rounds of one subject never share a batch
                yield batch
                batch, size_s = [], 0.0
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
            path = self.device.lower(subject.model, folder / str(number))
            jobs.append(Job(path, self.protocol.runs(subject.kind)))
        circumstances = self.device.circumstances()
        accepted: list[tuple[int, int, Round]] = []
        refused: list[tuple[str, str]] = []
        for text, reading in zip(batch, self.run_jobs(jobs, sentinel), strict=True):
            objection = reading_objection(reading, self.device.conditions.provider)
            if objection:
                self.failures[text] = self.failures.get(text, 0) + 1
            else:
                objection = self.gate.objection(median(reading.sentinel_ms))
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
            if self.failures.get(text, 0) >= _FAILURES:
                self.give_up(text, f"{_FAILURES} times: {reason}")
        log.debug(
            "%s: %d rounds committed, %d refused", self.device.name, len(accepted), len(refused)
        )
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
            # A single round (a quick look) has nothing to disagree with.
            if len(medians) == 1 or apart <= limit or apart * median(medians) <= negligible_ms:
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
            log.info("%s: gave up %s: %s", self.device.name, text, reason)
            self.store.discard(self.ids[text], self.device.conditions, text, reason)
            self.unstable[text] = reason
            self.rejected += 1
            del self.open[text]
