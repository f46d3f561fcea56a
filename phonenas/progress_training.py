"""Bars of a training: its events in, a rich bar or plain lines out, on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from .progress import duration
from .search.training.trained import Began, Epoch, Event, Stepped

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["TrainingBar"]

_LINE_S = 10.0  # without a terminal: a line as often as this, and one an epoch
_SURE_S = 2.0  # how long it runs before it says how long it will take


class TrainingBar:
    """Shows the events of `train`.

    Lifetime: a context manager around the training; hand `show` to its `on_event`. It may see
    several trainings after each other.

    Args:
        quiet: Show nothing at all.
        stream: Where to; stderr by default.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = sys.stderr if stream is None else stream
        self._bar: Progress | None = None
        self._task: Any = None
        self._began_s = self._told_s = self._epoch_s = 0.0
        self._promised = False
        self._epochs = 0

    def __enter__(self) -> TrainingBar:
        if not self.quiet and self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("training", markup=False),
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

    def show(self, event: Event) -> None:
        """Show one event."""
        if self.quiet:
            return
        if isinstance(event, Began):
            self._begin(event)
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Epoch):
            self._epoch(event)

    def _begin(self, event: Began) -> None:
        self._began_s = self._told_s = time.monotonic()
        self._promised, self._epochs = False, event.epochs
        goes_on = f", going on from step {event.resumed_from:,}" if event.resumed_from else ""
        self._line(
            f"{event.images:,} images in batches of {event.batch:,}, {event.epochs} epoch{'s' * (event.epochs != 1)}, "
            f"{event.steps:,} steps on {event.device} in {event.precision}{goes_on}"
        )
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task("", total=event.steps, words="")
            self._bar.update(self._task, completed=event.resumed_from)

    def _step(self, event: Stepped) -> None:
        now = time.monotonic()
        speed = f"{event.images_per_s:,.0f} images/s"
        if not self._promised and now - self._began_s >= _SURE_S:
            self._promised = True
            self._line(f"about {duration(event.seconds_left)} to go at {speed}")
            self._told_s = now
        words = (
            f"epoch {event.epoch} of {self._epochs}, step {event.step:,} of {event.steps:,}, "
            f"{speed}, {duration(event.seconds_left)} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step, words=words)
        elif now - self._told_s >= _LINE_S:
            self._told_s = now
            self._line(f"training: {words}")

    def _epoch(self, event: Epoch) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step)
        now = time.monotonic()
        last = event.epoch == self._epochs
        # Epochs of a fraction of a second would fill the screen.
        if last or now - self._epoch_s >= 1.0:
            self._epoch_s = self._told_s = now
            judged = "" if event.top1 != event.top1 else f", top-1 ● {event.top1:.2%}"
            self._line(f"epoch {event.epoch}: loss {event.loss:.4f}{judged}")

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)
