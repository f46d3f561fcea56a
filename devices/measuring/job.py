"""MeasuringJob: rounds of many subjects in random order; rejected ones are repeated."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from phonenas.data.measurement import WHOLE
from phonenas.data.store import MeasurementStore
from phonenas.space.errors import (
    DeviceError,
    DeviceUnavailable,
    InvalidArgument,
    UnstableDevice,
    UnsupportedFormat,
)

from ..device import Device, Job, LostInRun
from ..runtimes.runtime import ENERGY_S
from .events import Measured, OnEvent, Planned, Rejected, Subject, Warned
from .models import Models
from .progress import JobProgress
from .protocol import SENTINEL, Protocol
from .rejection import rejection_reason
from .supervisor import Supervisor

__all__ = ["MeasuringJob"]

# Seconds between two commits. Each batch needs one warm-up by time, so short ones cost; a job that
# is killed loses its batch, so long ones cost too.
_BATCH_S = 3.0
_PATIENCE = 200  # readings rejected in a row before the device is called unstable
_DRIFTING = 10  # readings in a row rejected for drift, before the batch is stopped
_LEAST_PAUSE_S = 0.01
NO_ENERGY = (
    "no energy is known of an inference: no battery that is discharging tells its power, and no "
    "counter of the processor's packages can be read (/sys/class/powercap/*/energy_uj, often for "
    "root alone; benchmark programs are read by the battery only). Take the device off its charger "
    "(adb over Wi-Fi), or set  energy = false"
)
_STARTUP_S = 1.0  # of a process of its own, before one was timed
# Time of a job over the estimates of the rounds that it accepts, before it is known; it weighs as
# much as so many seconds of work. Readings rejected (7 and 18 % of two jobs on a shared computer)
# and waits are in it. Where programs wait for a core all of the time, half of the readings are
# rejected.
_WORK_RATIO, _PRESSED, _WORK_S = 1.4, 0.7, 10.0


class MeasuringJob:
    """The loop that measures what the store lacks.

    Lifetime: made, `plan`ned once, `run` once; then its `progress` is read.

    Attributes:
        progress: What was measured, reused and given up.
        busy_s: Seconds of computing on the device, warm-up and sentinel included.
    """

    def __init__(
        self,
        device: Device,
        store: MeasurementStore,
        protocol: Protocol,
        purpose: str,
        tell: OnEvent,
        precision: str | None = None,
    ) -> None:
        self.device, self.store, self.protocol, self.tell = device, store, protocol, tell
        self.order = random.Random(protocol.seed)
        self.supervisor = Supervisor(device, protocol, tell)
        self.conditions = self.supervisor.conditions
        if precision is not None:  # of the files, where it is not the device's
            self.conditions = replace(self.conditions, precision=precision)
        self.progress = JobProgress(store, self.conditions, protocol, purpose)
        self.before_ms: float | None = None  # usual time of the sentinel in earlier jobs
        self.sentinels_ms: list[float] = []  # beside each accepted round
        self.last_s: dict[str, float] = {}
        self.partly: set[str] = set()  # subjects of which a delegate leaves nodes
        self.rejected_in_a_row = 0
        self.work_s = self.worked_estimate_s = self.busy_s = 0.0
        self.startups_s: list[float] = []
        self.startups = protocol.startups if self.conditions.mode == "steady" else 0
        self.not_started: set[str] = set()  # subjects whose process failed
        self.no_energy = False  # told that the device gives none

    def plan(self, subjects: Sequence[Subject], again: bool, retry: bool) -> None:
        """Read from the store what is measured; with `retry`, repeat what was given up."""
        self.progress.begin(subjects, again, retry)

    def startups_due(self, text: str) -> int:
        """Processes of its own that an open subject still lacks."""
        if self.progress.open[text].kind not in WHOLE or text in self.not_started:
            return 0
        done = sum(r.startup is not None for r in self.progress.rounds[text])
        return max(0, self.startups - done)

    @property
    def slowdown(self) -> float | None:
        """Time of the sentinel in this job over that in earlier ones; None if either is missing."""
        if self.before_ms is None or self.conditions.mode != "steady":
            return None
        now_ms = median(self.sentinels_ms) if self.sentinels_ms else self.supervisor.drift.usual_ms
        return now_ms / self.before_ms

    def estimate_s(self, text: str, ms_per_mac: float) -> float:
        """Seconds of one round of an open subject: building, loading, warm-up, samples.

        Args:
            text: The subject.
            ms_per_mac: The supervisor's, which is a median: asked for once, for many subjects.
        """
        subject = self.progress.open[text]
        runs = self.protocol.runs(subject.kind) + self.protocol.warmup_runs + 1
        load_s = 0.1 if subject.kind in WHOLE else 0.008
        # Between samples the sentinel runs twice for every 2 ms.
        return load_s + 1.3 * runs * subject.model.macs * ms_per_mac / 1e3

    def left_s(self) -> float:
        """Seconds left: of work, or of pauses between a subject's rounds if those are longer."""
        missing = {t: self.progress.expected(t) for t in self.progress.open}
        ms_per_mac = self.supervisor.ms_per_mac
        planned = sum(self.estimate_s(t, ms_per_mac) * n for t, n in missing.items())
        before = _WORK_RATIO * (1 + _PRESSED * self.supervisor.pressure)
        ratio = (before * _WORK_S + self.work_s) / (_WORK_S + self.worked_estimate_s)
        most = self.progress.expected_most()
        each_s = _STARTUP_S + (ENERGY_S if self.device.energy else 0.0)
        each_s = fmean(self.startups_s) if self.startups_s else each_s
        startups_s = each_s * sum(map(self.startups_due, missing))
        return max(planned * ratio + startups_s, (most - 1) * self.protocol.apart_s)

    # -- run ----------------------------------------------------------------------------------

    def run(self, folder: Path) -> None:
        """Measure until nothing is missing.

        Raises:
            UnstableDevice, DeviceUnavailable, DeviceError, StoreError: What was accepted until
                then is in the store.
        """
        progress = self.progress
        # What decides on a target is of the device as it is now, though it was measured before.
        looks = progress.purpose == "validation" and self.conditions.mode == "steady"
        if not progress.open and not looks:
            self.tell(Planned(0, progress.reused, 0, 0.0))
            return
        self.models = Models(self.device, progress.open, folder, self.conditions.precision)
        sentinel = self.device.lower(SENTINEL, folder / "sentinel")
        self.before_ms = self.store.sentinel_ms(self.conditions) or progress.sentinel_ms()
        self.supervisor.settle(sentinel, self.before_ms)
        if looks:
            progress.begin_again(self.supervisor.drift.usual_ms, self.protocol.drift_limit)
        rounds = sum(progress.missing(t) for t in progress.open)
        self.tell(Planned(len(progress.open), progress.reused, rounds, self.left_s()))
        progress.close(list(progress.open))
        while progress.open:
            for batch in self.batches(self.schedule()):
                began, before_s = self.device.now_s(), sum(self.startups_s)
                accepted_s = self.batch(batch, sentinel)
                # Rejected readings, waits and losses count: more of them are to be expected.
                self.work_s += self.device.now_s() - began - (sum(self.startups_s) - before_s)
                self.worked_estimate_s += accepted_s

    def schedule(self) -> list[str]:
        """The missing rounds in their order; one more of each subject whose rounds disagree.

        Each subject's rounds are spread evenly over the job, each at a random place of its
        share, so that they lie apart and between those of all others.
        """
        slots = []
        for text, subject in self.progress.open.items():
            rounds = self.protocol.rounds(subject.kind)
            done = len(self.progress.rounds[text])
            if done >= rounds:
                slots.append((self.order.random(), text))
            for number in range(done, rounds):
                slots.append(((number + self.order.random()) / rounds, text))
        return [text for _, text in sorted(slots)]

    def batches(self, due: list[str]) -> Iterable[list[str]]:
        """What is due in batches of some seconds; each subject at most once in each.

        A subject whose last round is too recent waits while others are measured; there is a pause
        only if all must wait. One that failed goes first: if it ends the connection, no other
        subject's round is lost with it.
        """
        open_ = self.progress.open
        while due := [t for t in due if t in open_]:
            now = self.device.now_s()
            batch: list[str] = []
            later: list[str] = []
            size_s, ms_per_mac = 0.0, self.supervisor.ms_per_mac
            full = False
            for text in [*self.progress.suspects, *due]:
                # A second round of one subject ends the batch: later it would come too late.
                full = full or size_s > _BATCH_S or text in batch
                if full or self.rest_s(text, now) > 0:
                    later.append(text)
                else:
                    batch.append(text)
                    size_s += self.estimate_s(text, ms_per_mac)
            if batch:
                yield batch
                later = self.put_back(batch, later)
            else:
                self.device.pause(max(_LEAST_PAUSE_S, min(self.rest_s(t, now) for t in later)))
            due = later

    def put_back(self, batch: list[str], due: list[str]) -> list[str]:
        """Insert the further rounds that a batch's subjects need, at random places."""
        for text in batch:
            if text in self.progress.open:
                lacking = max(1, self.progress.missing(text)) - due.count(text)
                for _ in range(lacking):
                    due.insert(self.order.randrange(len(due) + 1), text)
        return due

    def rest_s(self, text: str, now: float) -> float:
        """Seconds until a subject's next round may be taken."""
        if text not in self.last_s or self.conditions.mode != "steady":
            return 0.0
        return self.protocol.apart_s - (now - self.last_s[text])

    def lowered(self, batch: list[str]) -> dict[str, Path]:
        """The files of a batch; subjects that this device's format cannot hold are rejected."""
        files: dict[str, Path] = {}
        for text in batch:
            try:
                files[text] = self.models.file(text)
            except (InvalidArgument, UnsupportedFormat) as error:
                self.progress.reject(text, f"it cannot be built: {error}", failure=True)
        return files

    def batch(self, batch: list[str], sentinel: Path) -> float:
        """Measure a batch in one request; commit what is accepted; reconnect the device if lost.

        Returns:
            What the accepted rounds were estimated to take, in s.
        """
        files = self.lowered(batch)
        batch = list(files)
        if not batch:
            self.commit(())
            return 0.0
        ms_per_mac = self.supervisor.ms_per_mac
        estimates_s = {t: self.estimate_s(t, ms_per_mac) for t in batch}
        subjects = {t: self.progress.open[t] for t in batch}
        partly = {t: bool(getattr(s.model, "partly", False)) for t, s in subjects.items()}
        jobs = [Job(files[t], self.protocol.runs(subjects[t].kind), partly[t]) for t in batch]
        lost: DeviceUnavailable | DeviceError | None = None
        accepted: list[str] = []
        drifted = answered = 0
        try:
            self.supervisor.refresh()
            telemetry = self.supervisor.ready()
            in_a_row = 0
            readings = self.supervisor.run(jobs, sentinel)
            for text, reading in zip(batch, readings, strict=True):
                answered += 1
                self.busy_s += reading.busy_s
                provider = self.supervisor.base.provider
                if reason := rejection_reason(reading, provider, partly[text]):
                    self.progress.reject(text, reason, failure=True)
                elif reason := self.supervisor.drift_reason(reading):
                    self.progress.reject(text, reason, failure=False)
                    drifted += self.supervisor.drift.off_speed
                    in_a_row += self.supervisor.drift.off_speed
                else:
                    self.told_parts(text, reading.provider)
                    self.progress.accept(text, reading, telemetry)
                    self.sentinels_ms.append(median(reading.sentinel_ms))
                    accepted.append(text)
                    self.rejected_in_a_row = self.supervisor.fruitless = in_a_row = 0
                    continue
                self.rejected_in_a_row += 1
                if in_a_row >= _DRIFTING:
                    readings.close()  # the rest of the batch would be rejected, too
                    break
        except UnstableDevice:
            self.commit(accepted)
            raise
        except (DeviceUnavailable, DeviceError) as error:
            lost = error
            if isinstance(error, LostInRun) and answered < len(batch):
                # This very model may be the cause.
                reason = f"the device was lost: {error}"
                self.progress.reject(batch[answered], reason, failure=True)
        if lost is None:
            try:
                self.start_up({text: files[text] for text in accepted})
            except BaseException:  # Ctrl-C above all: it may take a while
                self.commit(accepted)
                raise
        self.models.tidy()
        reason = self.commit(accepted)
        accepted_s = sum(estimates_s[t] for t in accepted)
        if lost is not None:
            self.supervisor.recover(lost)
        if self.conditions.mode != "steady":
            return accepted_s
        drift = self.supervisor.drift
        if not drift.moved and 2 * drifted > max(answered, 1) and self.progress.open:
            self.supervisor.cool_down(reason, sentinel)
        if drift.moved:
            self.start_over()
        return accepted_s

    def start_up(self, files: Mapping[str, Path]) -> None:
        """Bring each of these up in a process of its own, where that is still wanted.

        What a process cannot give is told, and lacks; no round is lost for it.
        """
        for text, path in files.items():
            if not self.startups_due(text):
                continue
            began = self.device.now_s()
            try:
                startup = self.device.startup(path)
            except (DeviceUnavailable, DeviceError) as error:
                self.not_started.add(text)
                self.tell(Warned(f"no memory and no time to load is known of {text}: {error}"))
                continue
            if startup is None:  # nor of any other
                self.startups = 0
                return
            self.startups_s.append(self.device.now_s() - began)
            if self.device.energy and startup.energy_mj is None and not self.no_energy:
                self.no_energy = True
                self.tell(Warned(f"{self.device.name}: {NO_ENERGY}"))
            self.progress.started(text, startup)

    def told_parts(self, text: str, provider: str) -> None:
        """Tell once that a delegate left nodes of a model to other kernels."""
        if "," in provider and text not in self.partly:
            self.partly.add(text)
            self.tell(Warned(f"{text} ran on {provider}"))

    def start_over(self) -> None:
        """The state at the start was an unusual one: drop what was measured in it."""
        drift = self.supervisor.drift
        drift.moved = False
        self.progress.reopen(*drift.belongs_ms)

    def commit(self, accepted: Sequence[str]) -> str:
        """Store a batch; the last reason to reject a reading, or "".

        Only a subject that got a round has to wait for its next one.
        """
        rejected = self.progress.commit()
        now = self.device.now_s()
        for text in accepted:
            self.last_s[text] = now
        if rejected:
            self.tell(Rejected(tuple(t for t, _ in rejected), rejected[0][1]))
        self.progress.close(accepted)
        done = self.progress.done
        self.tell(Measured(done, done + self.progress.due, self.left_s()))
        reason = rejected[-1][1] if rejected else ""
        if self.rejected_in_a_row > _PATIENCE:
            raise UnstableDevice(
                f"{self.device.name}: {self.rejected_in_a_row} readings in a row were "
                f"rejected, the last because {reason}. {len(self.progress.finished)} subjects are "
                "in the store. Close other programs or let the device cool, then give the same "
                "command again."
            )
        return reason
