"""JobProgress: what a measuring job has done, what it lacks, and what it gave up."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, get_args

from phonenas.data.measurement import WHOLE, Conditions, Round, Startup, SubjectKind, centre, spread
from phonenas.data.store import MeasurementStore

from ..device import Reading
from .events import Subject
from .first_inference import FirstInferences
from .protocol import Protocol

__all__ = ["JobProgress", "is_disturbed", "is_failure"]

log = logging.getLogger("phonenas")

_FAILURES = 3  # of one subject in a row, before it is given up
_FAILED = f"{_FAILURES} times: "  # how the reason then begins, in the store too
_DISTURBED = f"{_FAILED}no undisturbed run"  # as workers say it of a model
_ALL_DISTURBED = 1 / 2000  # chance that is accepted: rounds that agree because each is disturbed
_ROUNDS_TO_JUDGE = 30
# Before subjects had all of their rounds, the time left is told for so large a share of subjects
# that need further ones, as for so many subjects seen; and for so many further rounds of each. Two
# jobs on a shared computer took 1.1 and 2.4 further rounds a subject, one on a calm one took none.
_AGAIN, _JUDGED, _FURTHER = 0.5, 50, 3
_FREE = 100  # further rounds of operators that a job may take in any case


class JobProgress:
    """The state of one job, kept in the store.

    Attributes:
        open: Subjects that still lack rounds, by text.
        rounds: Rounds of each subject that was open at some time.
        finished: Subjects measured by this job.
        reused: Number of subjects that the store already held.
        rejected: Number of readings that were not recorded.
        unstable: Subjects given up, now or earlier, with the reason.
    """

    def __init__(
        self, store: MeasurementStore, conditions: Conditions, protocol: Protocol, purpose: str
    ) -> None:
        self.store, self.conditions, self.protocol = store, conditions, protocol
        self.purpose = purpose
        self.first = FirstInferences(store, conditions, purpose)
        self.open: dict[str, Subject] = {}
        self.rounds: dict[str, list[Round]] = {}
        self.finished: set[str] = set()
        self.unstable: dict[str, str] = {}
        self.reused = self.rejected = 0
        self._subjects: dict[str, Subject] = {}
        self._reused: list[tuple[Subject, Sequence[Round]]] = []
        self._ids: dict[str, int] = {}
        self._before: dict[str, int] = {}  # rounds that an earlier job took
        self._failures: dict[str, int] = {}
        self._apart: dict[str, tuple[int, int]] = {}  # rounds that stand apart, and all
        self._judged: list[bool] = []  # whether a subject's first rounds were enough
        self._accepted: list[tuple[int, int, Round]] = []
        self._rejected: list[tuple[str, str]] = []

    def begin(self, subjects: Sequence[Subject], again: bool, retry: bool) -> None:
        """Read from the store what is measured; with `retry`, repeat what was given up.

        What other programs disturbed is repeated in any case: that says nothing of it.
        """
        for kind, anew in itertools.product(get_args(SubjectKind), (False, True)):
            chosen = {s.text: s for s in subjects if (s.kind, again or s.again) == (kind, anew)}
            if not chosen:
                continue
            known = self.store.pending(
                self.conditions, kind, list(chosen), purpose=self.purpose, again=anew
            )
            for text, pending in known.items():
                if pending.given_up and not retry and not is_disturbed(pending.given_up):
                    self.unstable[text] = pending.given_up
                    continue
                # A quicker protocol may have called it complete with fewer rounds.
                if pending.complete and len(pending.rounds) >= self.protocol.rounds(kind):
                    first = tuple(r.median_ms() for r in pending.rounds)
                    first = first[: self.protocol.rounds(kind)]
                    limit, bar = self.protocol.limit(kind), spread(first)
                    small = bar <= limit or bar * centre(first) <= self.protocol.negligible_ms
                    self._judged.append(len(first) == 1 or small)
                    self.reused += 1
                    self._reused.append((chosen[text], pending.rounds))
                    continue
                self.open[text] = self._subjects[text] = chosen[text]
                self._ids[text] = pending.id
                self.rounds[text] = list(pending.rounds)
                self._before[text] = len(pending.rounds)
        for anew in (False, True):
            networks = [t for t, s in self.open.items() if s.kind == "network"]
            self.first.begin(
                [t for t in networks if (again or self.open[t].again) == anew], again=anew
            )

    def sentinel_ms(self) -> float | None:
        """Usual time of the sentinel beside the rounds of open subjects, in ms; None without."""
        return _sentinel_ms(r for rounds in self.rounds.values() for r in rounds)

    def begin_again(self, now_ms: float, limit: float) -> None:
        """Open what the store holds of another speed of the device, as a new series.

        Args:
            now_ms: Time of the sentinel now, in ms, > 0.
            limit: Relative difference from that beside its rounds at which it counts no more.
        """
        before = {s.text: (s, _sentinel_ms(rounds)) for s, rounds in self._reused}
        outdated = [s for s, ms in before.values() if ms and abs(now_ms / ms - 1) >= limit]
        self._reused.clear()
        if outdated:
            self.reused -= len(outdated)
            self.begin(outdated, again=True, retry=True)

    def missing(self, text: str) -> int:
        """Rounds that an open subject still lacks."""
        return max(0, self.protocol.rounds(self.open[text].kind) - len(self.rounds[text]))

    def most_rounds(self, kind: str) -> int:
        """Rounds that a subject of this kind may have now, further ones included."""
        planned, extra = self.protocol.rounds(kind), self.protocol.extra_rounds
        if kind not in WHOLE:
            parts = [t for t, s in self._subjects.items() if s.kind not in WHOLE]
            most = max(_FREE, self.protocol.further_share * planned * len(parts))
            if sum(max(0, len(self.rounds[t]) - planned) for t in parts) >= most:
                extra = min(extra, self.protocol.few_extra_rounds)
        return planned + extra

    def expected(self, text: str) -> float:
        """Rounds that an open subject will need, with the further ones that others needed."""
        missing = self.missing(text)
        if not missing:  # its rounds disagree
            return 1.0
        return missing + self._again() * _FURTHER

    def expected_most(self) -> float:
        """Rounds that the open subject with the most of them will need."""
        most = max((self.missing(t) for t in self.open), default=0)
        # The greatest of as many geometric numbers of the mean `_FURTHER`.
        further = math.log(max(1.0, self._again() * len(self.open))) / -math.log(1 - 1 / _FURTHER)
        each = max(map(self.expected, self.open), default=1.0)
        return max(each, most + min(further, self.protocol.extra_rounds))

    def _again(self) -> float:
        """Share of subjects that need further rounds."""
        return (_AGAIN * _JUDGED + self._judged.count(False)) / (_JUDGED + len(self._judged))

    @property
    def done(self) -> int:
        """Rounds taken, those of earlier jobs included."""
        return sum(len(r) for r in self.rounds.values())

    @property
    def due(self) -> int:
        """Rounds that are missing, one more for each subject whose rounds disagree."""
        return sum(max(1, self.missing(t)) for t in self.open)

    # -- writing ------------------------------------------------------------------------------

    def accept(self, text: str, reading: Reading, telemetry: Mapping[str, Any]) -> None:
        """Accept a reading as a round; written with the next `commit`."""
        clock = {"clock_mhz": reading.clock_mhz} if reading.clock_mhz else {}
        accepted = Round(
            reading.samples_ms,
            reading.sentinel_ms,
            reading.preempted,
            telemetry={**telemetry, **clock},
        )
        self._accepted.append((self._ids[text], len(self.rounds[text]), accepted))
        self.first.accept(text, reading, telemetry)
        self.rounds[text].append(accepted)
        self._failures.pop(text, None)

    def started(self, text: str, startup: Startup) -> None:
        """Add a startup to the round that was accepted last of a subject, before its `commit`."""
        id, number, taken = next(a for a in reversed(self._accepted) if a[0] == self._ids[text])
        place = self._accepted.index((id, number, taken))
        taken = replace(taken, startup=startup)
        self._accepted[place] = (id, number, taken)
        self.rounds[text][number] = taken

    def reject(self, text: str, reason: str, *, failure: bool) -> None:
        """Record why a reading is rejected.

        Args:
            failure: Whether the subject itself may be the cause: after three in a row it is given
                up.
        """
        self._rejected.append((text, reason))
        if failure:
            self._failures[text] = self._failures.get(text, 0) + 1

    @property
    def suspects(self) -> list[str]:
        """Open subjects whose last reading failed: they are repeated first."""
        return [t for t in self._failures if t in self.open]

    def commit(self) -> list[tuple[str, str]]:
        """Write what was accepted and rejected since the last time; the latter is returned."""
        accepted, self._accepted = self._accepted, []
        rejected, self._rejected = self._rejected, []
        if accepted:
            self.store.add_rounds(accepted)
            self.first.commit()
        if rejected:
            self.rejected += len(rejected)
            self.store.reject(self.conditions, rejected)
        for text, reason in rejected:
            if self._failures.get(text, 0) >= _FAILURES:
                self._give_up(text, f"{_FAILED}{reason}")
        log.debug("%d rounds committed, %d readings rejected", len(accepted), len(rejected))
        return rejected

    def close(self, texts: Iterable[str]) -> None:
        """Complete the subjects whose error bar is small; give up those with a wide one to the end.

        Where many rounds of the job stand apart, rounds of one subject may agree because all are
        disturbed: then more of them are asked for.
        """
        agreed, most_rounds = [], {k: self.most_rounds(k) for k in get_args(SubjectKind)}
        for text in texts:
            if text not in self.open or self.missing(text):
                continue
            medians = tuple(r.median_ms() for r in self.rounds[text])
            value, bar = centre(medians), spread(medians)
            kind = self.open[text].kind
            last = len(medians) >= most_rounds[kind]
            limit, negligible_ms = (
                (self.protocol.last_limit, self.protocol.last_negligible_ms)
                if last
                else (self.protocol.limit(kind), self.protocol.negligible_ms)
            )
            if len(medians) > 2:
                far = max(self.protocol.limit(kind) * value, self.protocol.negligible_ms)
                self._apart[text] = (sum(abs(m - value) > far for m in medians), len(medians))
            # A single round (a quick look) has nothing to disagree with.
            small = len(medians) == 1 or bar <= limit or bar * value <= negligible_ms
            if len(medians) == self.protocol.rounds(kind):
                self._judged.append(small)
            if small and (last or len(medians) >= self._enough()):
                agreed.append(text)
            elif last and kind not in WHOLE:
                agreed.append(text)  # a rough time of a part is better than none
            elif last:
                self._give_up(
                    text,
                    f"{len(medians)} rounds, {min(medians):.3f} to {max(medians):.3f} ms, give "
                    f"{value:.3f} ms ±{bar:.0%}; the limit is ±{limit:.0%}",
                )
        if agreed:
            self.store.complete([self._ids[t] for t in agreed])
            self.first.complete(agreed)
            self.finished.update(agreed)
            for text in agreed:
                del self.open[text]

    def _enough(self) -> int:
        """Rounds of which hardly ever all are disturbed, by the share that stands apart so far."""
        apart, rounds = (sum(pair[i] for pair in self._apart.values()) for i in (0, 1))
        if rounds < _ROUNDS_TO_JUDGE or not apart:
            return 0
        return math.ceil(math.log(_ALL_DISTURBED) / math.log(min(0.5, apart / rounds)))

    def _give_up(self, text: str, reason: str) -> None:
        if text in self.open:
            log.info("gave up %s: %s", text, reason)
            self.store.discard(self._ids[text], self.conditions, text, reason)
            self.first.forget(text)
            self.unstable[text] = reason
            self.rejected += 1
            del self.open[text]

    def reopen(self, least_ms: float, most_ms: float) -> int:
        """Drop what this job measured in another state; the number of subjects.

        Args:
            least_ms, most_ms: Times of the sentinel that belong to the usual state, in ms.
        """
        dropped = [
            text
            for text, rounds in self.rounds.items()
            if any(
                r.sentinel_ms and not least_ms <= median(r.sentinel_ms) <= most_ms
                for r in rounds[self._before[text] :]
            )
        ]
        self.store.reopen([(self._ids[t], self._before[t]) for t in dropped])
        for text in dropped:
            self.first.forget(text)
            del self.rounds[text][self._before[text] :]
            self.open[text] = self._subjects[text]
            self.finished.discard(text)
            self.unstable.pop(text, None)
        return len(dropped)


def is_failure(reason: str) -> bool:
    """Whether a subject was given up because it failed, not because its times differ."""
    return reason.startswith(_FAILED) and not is_disturbed(reason)


def is_disturbed(reason: str) -> bool:
    """Whether a subject was given up because other programs took the core from all of its runs."""
    return reason.startswith(_DISTURBED)


def _sentinel_ms(rounds: Iterable[Round]) -> float | None:
    """Time of the sentinel beside rounds (median of their medians), in ms; None without."""
    times = [median(r.sentinel_ms) for r in rounds if r.sentinel_ms]
    return median(times) if times else None
