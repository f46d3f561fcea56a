"""Bars: events in, rich bars out, on stderr.

On a terminal a bar; elsewhere (a log file, a pipe) plain lines, one for each tenth of the work
or each ten seconds. stdout is never touched.
"""

from __future__ import annotations

import threading
import time
from typing import TextIO

from .bar import Bar
from .devices.plan import Doubted, Event, Lost, Measured, Planned, Rejected, Waiting
from .search.loop import Estimated, Evaluated

__all__ = ["Bars", "duration"]

_LINE_S = 10.0  # without a terminal: a line as often as this, or for each tenth of the work
_LEAST_S = 1.0  # and never more often than this


def duration(seconds: float) -> str:
    """A time for people, to about two digits.

    >>> duration(7.2), duration(200), duration(3 * 3600 + 300)
    ('7 s', '3 min 20 s', '3 h 5 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


class Bars(Bar):
    """Shows the events of long work.

    Lifetime: a context manager around the work; hand `profiling` or `searching` to its
    `on_event`. One `Bars` may see several jobs after each other, each with its own bar.

    Args:
        quiet: Show nothing at all.
        stream: Where to; stderr by default.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        super().__init__(quiet, stream)
        self._rejected = 0
        self._told_s = self._told_share = 0.0
        self._noted_s = -_LINE_S
        self._lock = threading.Lock()
        self._shelf: dict[str, Measured] = {}
        self._since: Evaluated | None = None

    def profiling(self, event: Event) -> None:
        """Show an event of `devices.profile`, `devices.measure` or `search.validate`."""
        if isinstance(event, Planned):
            self._rejected = 0
            words = f"{event.subjects:,} subject{'' if event.subjects == 1 else 's'} to measure, "
            words += f"{event.reused:,} in the store already"
            self._line(words + (f", about {duration(event.seconds)}" if event.subjects else ""))
            if event.subjects:
                self._start("measuring", event.rounds)
        elif isinstance(event, Rejected):
            self._rejected += len(event.subjects)
        elif isinstance(event, Waiting):
            told = duration(event.seconds) if event.seconds >= 1 else f"{event.seconds:g} s"
            self._note(f"waiting {told}: {event.reason}")
        elif isinstance(event, Lost):
            self._line(f"{event.reason}; trying again in {event.seconds:g} s")
        elif isinstance(event, Doubted):
            self._line(f"beware: {event.reason}")
        elif isinstance(event, Measured):
            words = f"{event.done:,} of {event.total:,} rounds, {duration(event.seconds_left)} left"
            if self._rejected:
                readings = "reading" if self._rejected == 1 else "readings"
                words += f", {self._rejected:,} {readings} rejected"
            self._show("measuring", event.done, event.total, words)

    def of_device(self, name: str, event: Event) -> None:
        """Show an event of one device among several; called from several threads."""
        with self._lock:
            if isinstance(event, Planned):
                self._line(f"{name}: {event.subjects:,} subjects to measure, {event.reused:,} in the "
                           f"store already, about {duration(event.seconds)}")  # fmt: skip
            elif isinstance(event, Lost | Doubted | Waiting):
                self.profiling(event)
            elif isinstance(event, Measured):
                self._shelf[name] = event
                done = sum(e.done for e in self._shelf.values())
                total = sum(e.total for e in self._shelf.values())
                left_s = max(e.seconds_left for e in self._shelf.values())
                words = f"{len(self._shelf)} devices, {done:,} of {total:,} rounds, "
                self._show("measuring", done, total, f"{words}{duration(left_s)} left")

    def searching(self, event: Evaluated | Estimated) -> None:
        """Show an event of `search.search`."""
        if isinstance(event, Estimated):
            self.estimating(
                event.done, event.networks, event.mean_s, " of this generation", event.left
            )
            return
        words = f"{event.evaluations:,} of {event.budget:,} networks"
        if event.repeats:
            words += f", {event.repeats:,} known already"
        if event.hypervolume is not None:
            words += f", hypervolume {event.hypervolume:.4g}"
        if self._since is None or event.evaluations < self._since.evaluations:
            self._since = event  # the first, or of another search: what came before was setting up
        done, left = event.evaluations - self._since.evaluations, event.budget - event.evaluations
        if done > 0 and left > 0:
            seconds = (event.seconds - self._since.seconds) * left / done
            words += f", {duration(seconds)} left"
        words += f"; fastest ○ {event.fastest_ms:.2f} ms, best top-1 ○ {event.best_top1:.1%}"
        self._show("searching", event.evaluations, event.budget, words)

    def estimating(
        self, done: int, networks: int, mean_s: float, of: str = "", left: int = 0
    ) -> None:
        """Show how far a slow estimator is.

        Args:
            done, networks: Judged, and in all.
            mean_s: What one took so far, in seconds.
            of: What they all are, " of this generation" for instance.
            left: In the whole search, at most.
        """
        words = f"{done} of {networks} networks{of}"
        if done:
            words += f", {mean_s:.2g} s each"
        if 0 < done < networks:
            words += f", {duration(mean_s * (networks - done))} left"
        if left > networks - done:
            words += f"; the whole search at most {duration(mean_s * left)} more"
        if self._bar is not None:
            self._show("accuracy", done, networks, words)
        else:
            self._note(f"accuracy: {words}")

    def _note(self, text: str) -> None:
        """A line, unless one of its kind stood a moment ago: waiting comes in many small pauses."""
        now = time.monotonic()
        if now - self._noted_s >= _LINE_S:
            self._noted_s = now
            self._line(text)

    def _start(self, name: str, total: int) -> None:
        self._told_s, self._told_share = time.monotonic(), 0.0
        self._task_of(name, total)

    def _show(self, name: str, done: int, total: int, words: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            if self._task is None or self._bar.tasks[-1].description != name:
                self._start(name, total)
            self._bar.update(self._task, completed=done, total=total, words=words)
            return
        share, now = done / max(total, 1), time.monotonic()
        if share < self._told_share:  # another job began
            self._told_share = 0.0
        since = now - self._told_s
        tenth = since >= _LEAST_S and share - self._told_share >= 0.1
        if since >= _LINE_S or tenth or (share >= 1 and self._told_share < 1):
            self._told_s, self._told_share = now, share
            self._line(f"{name}: {words}")
