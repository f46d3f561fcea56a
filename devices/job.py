"""MeasuringJob: rounds of many subjects, taken in random order, believed or taken again."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..data.measurement import WHOLE, Mode
from ..data.store import MeasurementStore
from ..space.errors import (
    DeviceError,
    DeviceUnavailable,
    InvalidArgument,
    UnstableDevice,
    UnsupportedFormat,
)
from .device import Device, Job, LostInRun
from .keeper import Keeper
from .ledger import Ledger
from .models import Models
from .plan import Measured, OnEvent, Planned, Rejected, Subject
from .timing import SENTINEL, Protocol, reading_objection

__all__ = ["MeasuringJob"]

# Between two commits. Each batch pays the warm-up by time once, so short ones cost; what is
# under way is lost when a job is killed, so long ones cost too.
_BATCH_S = 3.0
_PATIENCE = 200  # readings refused in a row before the device is called unstable
_DRIFTING = 10  # readings in a row beside which the sentinel was off, before a batch is broken off
_LEAST_PAUSE_S = 0.01


class MeasuringJob:
    """The loop that measures what a ledger lacks.

    Lifetime: made, `plan`ned once, `run` once; then its `ledger` is read.

    Attributes:
        ledger: What was measured, found and given up.
        busy_s: Seconds of computing on the device, warm-up and sentinel included.
    """

    def __init__(
        self,
        device: Device,
        store: MeasurementStore,
        protocol: Protocol,
        purpose: str,
        seed: int,
        tell: OnEvent,
        mode: Mode = "steady",
    ) -> None:
        self.device, self.store, self.protocol, self.tell = device, store, protocol, tell
        self.order = random.Random(seed)
        self.keeper = Keeper(device, protocol, mode, tell)
        self.conditions = self.keeper.conditions
        self.ledger = Ledger(store, self.conditions, protocol, purpose)
        self.last_s: dict[str, float] = {}
        self.refused_in_a_row = 0
        self.work_s = self.worked_estimate_s = self.busy_s = 0.0

    def plan(self, subjects: Sequence[Subject], again: bool, retry: bool) -> None:
        """Look into the store for what is there; with `retry` take up what was given up."""
        self.ledger.begin(subjects, again, retry)

    def estimate_s(self, text: str) -> float:
        """Seconds of one round of an open subject: building, loading, warm-up, samples."""
        subject = self.ledger.open[text]
        runs = self.protocol.runs(subject.kind) + self.protocol.warmup_runs + 1
        load_s = 0.1 if subject.kind in WHOLE else 0.008
        # Between samples the sentinel runs twice for every 2 ms.
        return load_s + 1.3 * runs * subject.model.macs * self.keeper.ms_per_mac / 1e3

    def left_s(self) -> float:
        """Seconds left: the work, or the pauses between one subject's rounds if they are longer."""
        missing = {t: max(1, self.ledger.missing(t)) for t in self.ledger.open}
        planned = sum(self.estimate_s(t) * n for t, n in missing.items())
        pace = self.work_s / self.worked_estimate_s if self.worked_estimate_s > 5 else 1.15
        most = max(missing.values(), default=1)
        return max(planned * pace, (most - 1) * self.protocol.apart_s)

    # -- run ----------------------------------------------------------------------------------

    def run(self, folder: Path) -> None:
        """Measure until nothing is missing.

        Raises:
            UnstableDevice, DeviceUnavailable, DeviceError, StoreError: What was accepted until
                then is in the store.
        """
        ledger = self.ledger
        if not ledger.open:
            self.tell(Planned(0, ledger.reused, 0, 0.0))
            return
        self.models = Models(self.device, ledger.open, folder)
        sentinel = self.device.lower(SENTINEL, folder / "sentinel")
        stated_ms = self.store.reference_ms(self.conditions)
        self.keeper.settle(sentinel, stated_ms)
        if self.conditions.mode == "steady":  # under lasting load times stand as they came
            ledger.reference_ms = stated_ms or self.keeper.gate.usual_ms
        rounds = sum(ledger.missing(t) for t in ledger.open)
        self.tell(Planned(len(ledger.open), ledger.reused, rounds, self.left_s()))
        ledger.close(list(ledger.open))
        while ledger.open:
            for batch in self.batches(self.schedule()):
                self.batch(batch, sentinel)

    def schedule(self) -> list[str]:
        """The rounds that are missing, in order of taking; one more of those that disagree.

        Each subject's rounds are strewn evenly over the job, each at a random place of its
        share, so that they lie apart and between those of all others, few rounds or many.
        """
        slots = []
        for text, subject in self.ledger.open.items():
            rounds = self.protocol.rounds(subject.kind)
            done = len(self.ledger.taken[text])
            if done >= rounds:
                slots.append((self.order.random(), text))
            for number in range(done, rounds):
                slots.append(((number + self.order.random()) / rounds, text))
        return [text for _, text in sorted(slots)]

    def batches(self, due: list[str]) -> Iterable[list[str]]:
        """What is due in portions of some seconds, each subject once in each and well rested.

        One that was measured a moment ago lets others go before; only where none is rested is
        there a pause. One that failed goes first: if it is the one that takes the device down,
        it should not take others with it.
        """
        open_ = self.ledger.open
        while due := [t for t in due if t in open_]:
            now = self.device.now_s()
            batch: list[str] = []
            later: list[str] = []
            size_s = 0.0
            full = False
            for text in [*self.ledger.suspects, *due]:
                # A second round of one subject ends the batch: put off, it would come too late.
                full = full or size_s > _BATCH_S or text in batch
                if full or self.rest_s(text, now) > 0:
                    later.append(text)
                else:
                    batch.append(text)
                    size_s += self.estimate_s(text)
            if batch:
                yield batch
                later = self.put_back(batch, later)
            else:
                self.device.pause(max(_LEAST_PAUSE_S, min(self.rest_s(t, now) for t in later)))
            due = later

    def put_back(self, batch: list[str], due: list[str]) -> list[str]:
        """Give those of a batch that need a further round a random place among what is due."""
        for text in batch:
            if text in self.ledger.open:
                lacking = max(1, self.ledger.missing(text)) - due.count(text)
                for _ in range(lacking):
                    due.insert(self.order.randrange(len(due) + 1), text)
        return due

    def rest_s(self, text: str, now: float) -> float:
        """Seconds that a subject should still rest before its next round."""
        if text not in self.last_s or self.conditions.mode != "steady":
            return 0.0
        return self.protocol.apart_s - (now - self.last_s[text])

    def lowered(self, batch: list[str]) -> dict[str, Path]:
        """The files of a batch; what has no form for this device is refused, and the rest goes on."""
        found: dict[str, Path] = {}
        for text in batch:
            try:
                found[text] = self.models.file(text)
            except (InvalidArgument, UnsupportedFormat) as error:
                self.ledger.refuse(text, f"it cannot be built: {error}", failure=True)
        return found

    def batch(self, batch: list[str], sentinel: Path) -> None:
        """Measure a batch in one go; commit what is believed; bring the device back if lost."""
        began = self.device.now_s()
        files = self.lowered(batch)
        batch = list(files)
        if not batch:
            self.commit(())
            return
        estimate_s = sum(self.estimate_s(t) for t in batch)
        jobs = [Job(files[t], self.protocol.runs(self.ledger.open[t].kind)) for t in batch]
        lost: DeviceUnavailable | DeviceError | None = None
        accepted: list[str] = []
        drifted = told = 0
        try:
            circumstances = self.keeper.ready()
            in_a_row = 0
            readings = self.keeper.run(jobs, sentinel)
            for text, reading in zip(batch, readings, strict=True):
                told += 1
                self.busy_s += reading.busy_s
                if objection := reading_objection(reading, self.keeper.base.provider):
                    self.ledger.refuse(text, objection, failure=True)
                elif objection := self.keeper.objection(reading):
                    self.ledger.refuse(text, objection, failure=False)
                    drifted += self.keeper.gate.off_speed
                    in_a_row += self.keeper.gate.off_speed
                else:
                    self.ledger.accept(text, reading, circumstances)
                    accepted.append(text)
                    self.refused_in_a_row = self.keeper.fruitless = in_a_row = 0
                    continue
                self.refused_in_a_row += 1
                if in_a_row >= _DRIFTING:
                    readings.close()  # the rest of the batch would fare no better
                    break
        except UnstableDevice:
            self.commit(accepted)
            raise
        except (DeviceUnavailable, DeviceError) as error:
            lost = error
            if isinstance(error, LostInRun) and told < len(batch):
                # It may be this very model that takes the device down.
                self.ledger.refuse(batch[told], f"the device was lost: {error}", failure=True)
        self.models.tidy()
        if lost is None:
            self.work_s += self.device.now_s() - began
            self.worked_estimate_s += estimate_s * told / len(batch)
        reason = self.commit(accepted)
        if lost is not None:
            self.keeper.recover(lost)
        if self.conditions.mode != "steady":
            return
        if self.keeper.gate.sped_up:
            self.start_over()
        elif 2 * drifted > max(told, 1):
            self.keeper.cool_down(reason, sentinel)

    def start_over(self) -> None:
        """The device was slow from the start, and is no longer: what it gave then does not count."""
        gate = self.keeper.gate
        gate.sped_up = False
        self.keeper.check_reference(self.store.reference_ms(self.conditions))
        self.ledger.reopen(gate.usual_ms * (1 + gate.limit))
        if self.ledger.reference_ms is not None and not self.store.reference_settled(
            self.conditions
        ):
            self.ledger.reference_ms = gate.usual_ms

    def commit(self, accepted: Sequence[str]) -> str:
        """Write down a batch; the last reason why a reading was refused, or "".

        Only what gave a round has to rest before its next one.
        """
        refused = self.ledger.commit()
        now = self.device.now_s()
        for text in accepted:
            self.last_s[text] = now
        if refused:
            self.tell(Rejected(tuple(t for t, _ in refused), refused[0][1]))
        self.ledger.close(accepted)
        done = self.ledger.done
        self.tell(Measured(done, done + self.ledger.due, self.left_s()))
        reason = refused[-1][1] if refused else ""
        if self.refused_in_a_row > _PATIENCE:
            raise UnstableDevice(
                f"{self.device.name}: {self.refused_in_a_row} readings in a row were not "
                f"believed, the last because {reason}. {len(self.ledger.finished)} subjects are "
                "in the store. Close other programs or let the device cool, then give the same "
                "command again."
            )
        return reason
