"""Ledger: what a measuring job has, what it lacks, and what it gave up; kept in the store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, get_args

from ..data.measurement import Conditions, Round, SubjectKind
from ..data.measurement import spread as spread_between
from ..data.store import MeasurementStore
from .device import Reading
from .first_inference import FirstInferences
from .plan import Subject
from .timing import Protocol

__all__ = ["Ledger"]

log = logging.getLogger("phonenas")

_FAILURES = 3  # of one subject in a row, before it is given up


class Ledger:
    """The books of one job.

    Attributes:
        open: Subjects that still lack rounds, by text.
        taken: Rounds of each subject that was open at some time.
        finished: Subjects measured by this job.
        reused: How many the store already held.
        rejected: Readings that were not recorded.
        unstable: Subjects given up, now or earlier, with the reason.
        reference_ms: Speed at which rounds are compared; None for as they came.
    """

    def __init__(
        self,
        store: MeasurementStore,
        conditions: Conditions,
        protocol: Protocol,
        purpose: str,
    ) -> None:
        self.store, self.conditions, self.protocol = store, conditions, protocol
        self.purpose = purpose
        self.first = FirstInferences(store, conditions, purpose)
        self.open: dict[str, Subject] = {}
        self.taken: dict[str, list[Round]] = {}
        self.finished: set[str] = set()
        self.unstable: dict[str, str] = {}
        self.reused = self.rejected = 0
        self.reference_ms: float | None = None
        self._subjects: dict[str, Subject] = {}
        self._ids: dict[str, int] = {}
        self._before: dict[str, int] = {}  # rounds that an earlier job took
        self._failures: dict[str, int] = {}
        self._accepted: list[tuple[int, int, Round]] = []
        self._refused: list[tuple[str, str]] = []

    def begin(self, subjects: Sequence[Subject], again: bool, retry: bool) -> None:
        """Look into the store for what is there; with `retry` take up what was given up."""
        for kind in get_args(SubjectKind):
            chosen = {s.text: s for s in subjects if s.kind == kind}
            if not chosen:
                continue
            found = self.store.pending(
                self.conditions, kind, list(chosen), purpose=self.purpose, again=again
            )
            for text, pending in found.items():
                if pending.given_up and not retry:
                    self.unstable[text] = pending.given_up
                    continue
                # What a quicker protocol called complete gets the rounds that this one asks for.
                if pending.complete and len(pending.rounds) >= self.protocol.rounds(kind):
                    self.reused += 1
                    continue
                self.open[text] = self._subjects[text] = chosen[text]
                self._ids[text] = pending.id
                self.taken[text] = list(pending.rounds)
                self._before[text] = len(pending.rounds)
        self.first.plan([t for t, s in self.open.items() if s.kind == "network"], again)

    def missing(self, text: str) -> int:
        """Rounds that an open subject still lacks."""
        return max(0, self.protocol.rounds(self.open[text].kind) - len(self.taken[text]))

    @property
    def done(self) -> int:
        """Rounds taken, those of earlier jobs with them."""
        return sum(len(r) for r in self.taken.values())

    @property
    def due(self) -> int:
        """Rounds that are missing, one more for each subject whose rounds disagree."""
        return sum(max(1, self.missing(t)) for t in self.open)

    # -- writing ------------------------------------------------------------------------------

    def accept(self, text: str, reading: Reading, circumstances: Mapping[str, Any]) -> None:
        """Take a reading for a round; written with the next `commit`."""
        clock = {"clock_mhz": reading.clock_mhz} if reading.clock_mhz else {}
        taken = Round(
            reading.samples_ms,
            reading.sentinel_ms,
            reading.preempted,
            circumstances={**circumstances, **clock},
        )
        self._accepted.append((self._ids[text], len(self.taken[text]), taken))
        self.first.take(text, reading, circumstances)
        self.taken[text].append(taken)
        self._failures.pop(text, None)

    def refuse(self, text: str, reason: str, *, failure: bool) -> None:
        """Note why a reading is not believed.

        Args:
            failure: Whether the subject itself may be at fault: some in a row, and it is given up.
        """
        self._refused.append((text, reason))
        if failure:
            self._failures[text] = self._failures.get(text, 0) + 1

    @property
    def suspects(self) -> list[str]:
        """Open subjects whose last reading failed: the first to try again, to know for sure."""
        return [t for t in self._failures if t in self.open]

    def commit(self) -> list[tuple[str, str]]:
        """Write what was accepted and refused since the last time; the latter is returned."""
        accepted, self._accepted = self._accepted, []
        refused, self._refused = self._refused, []
        if accepted:
            self.store.add_rounds(accepted)
            self.first.commit()
        if refused:
            self.rejected += len(refused)
            self.store.reject(self.conditions, refused)
        for text, reason in refused:
            if self._failures.get(text, 0) >= _FAILURES:
                self._give_up(text, f"{_FAILURES} times: {reason}")
        log.debug("%d rounds committed, %d readings refused", len(accepted), len(refused))
        return refused

    def close(self, texts: Iterable[str]) -> None:
        """Complete the subjects whose rounds agree, and give up those that never do."""
        agreed = []
        for text in texts:
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
                self._give_up(
                    text,
                    f"{len(medians)} rounds from {min(medians):.3f} to {max(medians):.3f} ms stand "
                    f"±{apart:.0%} apart; the limit is ±{limit:.0%}",
                )
        if agreed:
            self.store.complete([self._ids[t] for t in agreed])
            self.first.complete(agreed)
            self.finished.update(agreed)
            for text in agreed:
                del self.open[text]

    def _give_up(self, text: str, reason: str) -> None:
        if text in self.open:
            log.info("gave up %s: %s", text, reason)
            self.store.discard(self._ids[text], self.conditions, text, reason)
            self.first.forget(text)
            self.unstable[text] = reason
            self.rejected += 1
            del self.open[text]

    def reopen(self, slower_than_ms: float) -> int:
        """Forget what this job measured while the sentinel took longer than this; how many subjects.

        A device that was slow from the start is only found out when it comes to its speed.
        """
        slow = [
            text
            for text, rounds in self.taken.items()
            if any(
                r.sentinel_ms and median(r.sentinel_ms) > slower_than_ms
                for r in rounds[self._before[text] :]
            )
        ]
        self.store.reopen([(self._ids[t], self._before[t]) for t in slow])
        for text in slow:
            self.first.forget(text)
            del self.taken[text][self._before[text] :]
            self.open[text] = self._subjects[text]
            self.finished.discard(text)
            self.unstable.pop(text, None)
        return len(slow)
