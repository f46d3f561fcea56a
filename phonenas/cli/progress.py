"""Progress of long work: events in, rich bars out, on stderr.

On a terminal a bar; elsewhere (a log file, a pipe) plain lines, one for each tenth of the work
or each ten seconds. stdout is never touched.
"""

from __future__ import annotations

import csv
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from phonenas.devices.measuring.events import (
    Event,
    Lost,
    Measured,
    Planned,
    Rejected,
    Waiting,
    Warned,
)
from phonenas.search.loop import Estimated, Evaluated
from phonenas.search.training.result import Began, Epoch, Stepped
from phonenas.search.training.result import Event as TrainingEvent
from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from phonenas.data import Conditions
    from phonenas.search import Budget, Searched

__all__ = [
    "Bars",
    "duration",
    "ended_lines",
    "following",
    "seconds_of",
    "shortened",
    "subjects_by_reason",
]

_LINE_S = 10.0  # without a terminal: a line as often as this, or for each tenth of the work
_LEAST_S = 1.0  # and never more often than this
_POLL_S = 2.0  # how often the curve of a training elsewhere is read
_SURE_S = 2.0  # how long a training runs before the time that it takes is estimated
_TIME = re.compile(
    r"(?:(\d{1,9}(?:\.\d{1,9})?)h)?(?:(\d{1,9}(?:\.\d{1,9})?)m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?"
)


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


def seconds_of(text: str, option: str) -> float:
    """A time as a user writes it, in seconds.

    >>> seconds_of("90s", "--time"), seconds_of("30m", "--time"), seconds_of("1h30m", "--budget")
    (90.0, 1800.0, 5400.0)
    """
    match = _TIME.fullmatch(text.replace(" ", ""))
    if match is None or not any(match.groups()):
        raise InvalidArgument(
            f"{option} takes hours, minutes or seconds, as 1h30m or 90s: {text!r}"
        )
    return float(sum(float(n or 0) * s for n, s in zip(match.groups(), (3600, 60, 1), strict=True)))


def _planned(event: Planned, clock: str) -> str:
    words = f"{event.subjects:,} subject{'s' * (event.subjects != 1)} to measure"
    if event.reused:
        words += f", {event.reused:,} in the store already"
    return words + (f", about {duration(event.seconds)}{clock}" if event.subjects else "")


def ended_lines(found: Searched, budget: Budget) -> list[str]:
    """Why a search ended before it had evaluated all networks, and how it goes on."""
    if found.evaluations >= budget.evaluations:
        return []
    why, more = "no further network was found in the space", ""
    if found.ended == "patience" and budget.patience is not None:
        why = f"the last {counted(budget.patience, 'network')} added 0.1 % or less to the "
        why, more = f"{why}hypervolume", "--patience"
    elif found.ended == "time" and budget.time_s is not None:
        why, more = f"{duration(budget.time_s)} are over", "--time"
    elif found.ended == "training" and budget.training_s is not None:
        why, more = f"{duration(budget.training_s)} of training are over", "--budget"
    elif found.ended:  # by a rule of an earlier command, and this one's is spent already
        why, more = f"its {found.ended} was over before", "--time, --budget or --evaluations"
    goes_on = f"; the same command with more {more}, or without, goes on" if more else ""
    return [f"ended before {counted(budget.evaluations, 'evaluation')}: {why}{goes_on}"]


class Bars:
    """Shows the events of long work.

    Lifetime: a context manager around the work; hand `profiling`, `searching` or `training` to
    its `on_event`. One `Bars` may see several jobs after each other, each with its own bar.

    Args:
        quiet: Show nothing at all.
        stream: Where to; stderr by default.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = sys.stderr if stream is None else stream
        self._bar: Progress | None = None
        self._task: Any = None
        self._rejected = 0
        self._line_s = self._line_share = 0.0
        self._noted_s = -_LINE_S
        self._lock = threading.Lock()
        self._pool: dict[str, Measured] = {}
        self._since: Evaluated | None = None
        self.quantity = "top-1"  # what a search estimates
        self._began_s = self._epoch_s = 0.0
        self._estimated = False
        self._epochs = 0
        self._simulated: dict[str, bool] = {}

    def __enter__(self) -> Self:
        if not self.quiet and self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[words]}", markup=False),
                console=Console(file=self.stream),
                expand=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def timed_by(self, conditions: Conditions) -> None:
        """Say that durations are of a simulated clock, where the device of coming events has one.

        A simulated phone's clock does not wait: an hour of it may pass in a second.
        """
        self._simulated[conditions.device] = conditions.origin == "simulated"

    def _clock(self, name: str = "") -> str:
        """Words behind the durations of a device; without a name, of all devices together."""
        known = [self._simulated.get(name, False)] if name else list(self._simulated.values())
        return " of simulated time" if known and all(known) else ""

    def profiling(self, event: Event) -> None:
        """Show an event of `devices.profile`, `devices.measure` or `search.validate`."""
        if isinstance(event, Planned):
            self._rejected = 0
            self.line(_planned(event, self._clock()))
            if event.subjects:
                self._start("measuring", event.rounds)
        elif isinstance(event, Rejected):
            self._rejected += len(event.subjects)
        elif isinstance(event, Waiting):
            pause = duration(event.seconds) if event.seconds >= 1 else f"{event.seconds:g} s"
            self._note(f"waiting {pause}{self._clock()}: {event.reason}")
        elif isinstance(event, Lost):
            self.line(f"{event.reason}; trying again in {event.seconds:g} s")
        elif isinstance(event, Warned):
            self.line(f"warning: {event.reason}")
        elif isinstance(event, Measured):
            left = f"{duration(event.seconds_left)}{self._clock()} left"
            words = f"{event.done:,} of {event.total:,} rounds, {left}"
            if self._rejected:
                readings = "reading" if self._rejected == 1 else "readings"
                words += f", {self._rejected:,} {readings} rejected"
            self._show("measuring", event.done, event.total, words)

    def of_device(self, name: str, event: Event) -> None:
        """Show an event of one device among several; called from several threads."""
        with self._lock:
            if isinstance(event, Planned):
                self.line(f"{name}: {_planned(event, self._clock(name))}")
            elif isinstance(event, Lost | Waiting | Warned):
                self.profiling(event)
            elif isinstance(event, Measured):
                self._pool[name] = event
                done = sum(e.done for e in self._pool.values())
                total = sum(e.total for e in self._pool.values())
                left_s = max(e.seconds_left for e in self._pool.values())
                words = f"{len(self._pool)} devices, {done:,} of {total:,} rounds, "
                self._show(
                    "measuring", done, total, f"{words}{duration(left_s)}{self._clock()} left"
                )

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
        words += (
            f"; fastest ○ {event.fastest_ms:.2f} ms, best {self.quantity} ○ {event.best_top1:.1%}"
        )
        self._show("searching", event.evaluations, event.budget, words)

    def estimating(
        self, done: int, networks: int, mean_s: float, of: str = "", left: int = 0
    ) -> None:
        """Show how far a slow estimator is.

        Args:
            done, networks: Number of networks that are estimated, and of all.
            mean_s: Mean time of one so far, in seconds.
            of: What they belong to, for example " of this generation".
            left: Number of networks that the whole search still estimates, at most.
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

    def training(self, event: TrainingEvent) -> None:
        """Show an event of `train`."""
        if self.quiet:
            return
        now = time.monotonic()
        if isinstance(event, Began):
            self._began_s, self._estimated, self._epochs = now, False, event.epochs
            goes_on = f", going on from step {event.resumed_from:,}" if event.resumed_from else ""
            what = "fine-tuning for int8: " if event.fine_tuning else ""
            self.line(
                f"{what}{event.images:,} images in batches of {event.batch:,}, {event.epochs} "
                f"epoch{'s' * (event.epochs != 1)}, {event.steps:,} steps on {event.device} in "
                f"{event.precision}{goes_on}"
            )
            self._start("training", event.steps)
            if self._bar is not None:
                self._bar.update(self._task, completed=event.resumed_from)
        elif isinstance(event, Stepped):
            self._step(event, now)
        elif isinstance(event, Epoch):
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=event.step)
            # Epochs of a fraction of a second would fill the screen.
            if event.epoch == self._epochs or now - self._epoch_s >= _LEAST_S:
                self._epoch_s = self._line_s = now
                top1 = "" if event.top1 != event.top1 else f", top-1 ● {event.top1:.2%}"
                self.line(f"epoch {event.epoch}: loss {event.loss:.4f}{top1}")

    def _step(self, event: Stepped, now: float) -> None:
        speed = f"{event.images_per_s:,.0f} images/s"
        if not self._estimated and now - self._began_s >= _SURE_S:
            self._estimated = True
            self.line(f"about {duration(event.seconds_left)} to go at {speed}")
            self._line_s = now
        words = (
            f"epoch {event.epoch} of {self._epochs}, step {event.step:,} of {event.steps:,}, "
            f"{speed}, {duration(event.seconds_left)} left"
        )
        self._show("training", event.step, event.steps, words)

    def training_elsewhere(self, epochs: int, folder: Path | None) -> None:
        """Say that a training begins of which only the epochs will be shown."""
        self._epochs = epochs
        curve = (
            ""
            if folder is None
            else f"; {folder / 'curve.csv'} grows where its node sees that folder"
        )
        self.line(f"training on the cluster, {epochs} epoch{'s' * (epochs != 1)}{curve}")

    def line(self, text: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def _note(self, text: str) -> None:
        """A line, unless one of its kind stood a moment ago: waiting comes in many small pauses."""
        now = time.monotonic()
        if now - self._noted_s >= _LINE_S:
            self._noted_s = now
            self.line(text)

    def _start(self, name: str, total: int) -> None:
        self._line_s, self._line_share = time.monotonic(), 0.0
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=total, words="")

    def _show(self, name: str, done: int, total: int, words: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            if self._task is None or self._bar.tasks[-1].description != name:
                self._start(name, total)
            self._bar.update(self._task, completed=done, total=total, words=words)
            return
        share, now = done / max(total, 1), time.monotonic()
        if share < self._line_share:  # another job began
            self._line_share = 0.0
        since = now - self._line_s
        tenth = since >= _LEAST_S and share - self._line_share >= 0.1
        if since >= _LINE_S or tenth or (share >= 1 and self._line_share < 1):
            self._line_s, self._line_share = now, share
            self.line(f"{name}: {words}")


@contextmanager
def following(folder: Path | None, bars: Bars, epochs: int) -> Iterator[None]:
    """Meanwhile show the epochs of a training elsewhere, where its folder is seen from here.

    Args:
        folder: Folder of the training, in which its `curve.csv` grows; None if it has none.
        bars: Where they are shown.
        epochs: Number of epochs of the training.
    """
    if bars.quiet:
        yield
        return
    bars.training_elsewhere(epochs, folder)
    over = threading.Event()
    earlier = _epochs_of(folder)[-1:]  # of an earlier call: read before the training goes on

    def poll() -> None:
        last = earlier[0].epoch if earlier else 0
        while not over.wait(_POLL_S):
            for epoch in _epochs_of(folder):
                if epoch.epoch > last:
                    last = epoch.epoch
                    bars.training(epoch)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_POLL_S)


def _epochs_of(folder: Path | None) -> list[Epoch]:
    """The rows of a curve.csv; none where it is not there, or a row is not whole yet."""
    if folder is None:
        return []
    try:
        with (folder / "curve.csv").open(newline="", encoding="utf-8") as file:
            return [
                Epoch.from_dict({k: float(v) if v else None for k, v in row.items()})
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def shortened(name: str) -> str:
    """A name of at most 60 characters: what is longer, as a block string is, without its end."""
    return name if len(name) <= 60 else f"{name[:59]}…"


def subjects_by_reason(
    title: str, listed: Mapping[str, str], names: Mapping[str, str], most: int
) -> list[str]:
    """A line for each reason, with up to three of its subjects, and how many more there are.

    Args:
        title: How each line begins.
        listed: The reason of each subject.
        names: What the user called subjects; others have their own names.
        most: Lines at most; a last one counts the subjects of further reasons.
    """
    by_reason: dict[str, list[str]] = {}
    for name, why in listed.items():
        by_reason.setdefault(why, []).append(shortened(names.get(name, name)))
    lines = []
    for why, of in list(by_reason.items())[:most]:
        more = f", and {len(of) - 3} more, which --json lists" if len(of) > 3 else ""
        count = "" if len(of) == 1 else f"{len(of)} subjects ({why}): "
        reason = f": {why}" if len(of) == 1 else ""
        lines.append(f"{title}: {count}{', '.join(of[:3])}{more}{reason}")
    if rest := sum(map(len, list(by_reason.values())[most:])):
        lines.append(f"{title}: {rest} more, which --json lists")
    return lines
