"""Bars of a training: its events in, a rich bar or plain lines out, on stderr."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .bar import Bar
from .progress import duration
from .search.training.trained import Began, Epoch, Event, Stepped

__all__ = ["TrainingBar", "following"]

_LINE_S = 10.0  # without a terminal: a line as often as this, and one an epoch
_LOOK_S = 2.0  # how often a curve that grows elsewhere is looked at
_SURE_S = 2.0  # how long it runs before it says how long it will take


class TrainingBar(Bar):
    """Shows the events of `train`.

    Lifetime: a context manager around the training; hand `show` to its `on_event`. It may see
    several trainings after each other.

    Args:
        quiet: Show nothing at all.
        stream: Where to; stderr by default.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        super().__init__(quiet, stream)
        self._began_s = self._told_s = self._epoch_s = 0.0
        self._promised = False
        self._epochs = 0

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

    def begin_elsewhere(self, words: str, epochs: int) -> None:
        """Say that a training begins of which only epochs will be told."""
        self._epochs = epochs
        self._line(words)

    def _begin(self, event: Began) -> None:
        self._began_s = self._told_s = time.monotonic()
        self._promised, self._epochs = False, event.epochs
        goes_on = f", going on from step {event.resumed_from:,}" if event.resumed_from else ""
        self._line(
            f"{event.images:,} images in batches of {event.batch:,}, {event.epochs} epoch{'s' * (event.epochs != 1)}, "
            f"{event.steps:,} steps on {event.device} in {event.precision}{goes_on}"
        )
        self._task_of("training", event.steps)
        if self._bar is not None:
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
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=event.step)
        now = time.monotonic()
        last = event.epoch == self._epochs
        # Epochs of a fraction of a second would fill the screen.
        if last or now - self._epoch_s >= 1.0:
            self._epoch_s = self._told_s = now
            judged = "" if event.top1 != event.top1 else f", top-1 ● {event.top1:.2%}"
            self._line(f"epoch {event.epoch}: loss {event.loss:.4f}{judged}")


@contextmanager
def following(folder: Path | None, bar: TrainingBar, epochs: int) -> Iterator[None]:
    """Meanwhile tell the epochs of a training elsewhere, where its folder is seen from here.

    Args:
        folder: Of the training, in which its `curve.csv` grows; None if it has none.
        bar: What tells them.
        epochs: Of the training.
    """
    if bar.quiet:
        yield
        return
    seen = (
        "" if folder is None else f"; {folder / 'curve.csv'} grows where its node sees that folder"
    )
    bar.begin_elsewhere(
        f"training on the cluster, {epochs} epoch{'s' * (epochs != 1)}{seen}", epochs
    )
    over = threading.Event()

    def look() -> None:
        told = _epochs_of(folder)[-1:] if folder is not None else []  # of an earlier call
        last = told[0].epoch if told else 0
        while not over.wait(_LOOK_S):
            for epoch in _epochs_of(folder) if folder is not None else ():
                if epoch.epoch > last:
                    last = epoch.epoch
                    bar.show(epoch)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LOOK_S)


def _epochs_of(folder: Path) -> list[Epoch]:
    """The rows of a curve.csv; none where it is not there, or is being looked at too early."""
    try:
        with (folder / "curve.csv").open(newline="", encoding="utf-8") as file:
            return [
                Epoch.from_dict({k: float(v) if v else None for k, v in row.items()})
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
