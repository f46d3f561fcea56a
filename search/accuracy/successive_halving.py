"""SuccessiveHalving: many networks trained for few epochs, and the best of them for all.

It says which accuracies there are to ask for; who goes on is decided by the search
(`search.rungs`), since it depends on the other networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument

from .cache import Cached
from .estimator import Accuracy, AccuracyEstimator
from .quantisation.quantised import InPrecisions, Quantised

__all__ = ["SuccessiveHalving", "rungs_of"]


def rungs_of(epochs: int, factor: int, least: int = 1) -> tuple[int, ...]:
    """After how many epochs trainings pause, rising, `least` or more, and all epochs at last.

    >>> rungs_of(9, 3), rungs_of(30, 3), rungs_of(5, 2), rungs_of(30, 3, least=4)
    ((1, 3, 9), (1, 3, 10, 30), (1, 2, 5), (10, 30))
    """
    rungs = [epochs]
    while rungs[0] // factor >= least:
        rungs.insert(0, rungs[0] // factor)
    return tuple(rungs)


class SuccessiveHalving(AccuracyEstimator):
    """Accuracies after some epochs of one training, each about `factor` times as long.

    A search asks for the first of each network, and for the next of one network in `factor` (see
    `search.rungs`). Asked by itself, it estimates as the whole training does.

    Args:
        estimator: Of the whole training; one whose trainings can pause.
        factor: One network in so many goes on, for so many times as many epochs; ≥ 2.
        least: Epochs of each network before any goes on, at least, ≥ 1.
        folder: Where paused trainings and answers are kept; None: nowhere.
    Attributes:
        rungs: Epochs of the first answer, of the next, and of all, rising.
        steps: The estimator of each.
    Raises:
        InvalidArgument: A factor below 2, trainings too short to pause, or an estimator that does
            not train.
    Source: Jamieson and Talwalkar, AISTATS 2016; Li et al., A System for Massively Parallel
        Hyperparameter Tuning (ASHA), MLSys 2020.
    """

    def __init__(
        self,
        estimator: AccuracyEstimator,
        factor: int = 3,
        least: int = 1,
        folder: Path | None = None,
    ) -> None:
        if factor < 2 or least < 1:
            raise InvalidArgument(
                "one network in 2 or more goes on, after 1 epoch or more; got one in "
                f"{factor}, after {least}"
            )
        if not estimator.epochs:
            estimator.after(1)  # says what it is that it cannot
        self.estimator, self.factor, self.least = estimator, factor, least
        self.name, self.note, self.slow = estimator.name, estimator.note, estimator.slow
        self.quantity, self.schedule = estimator.quantity, estimator.schedule
        self.options, self.epochs = estimator.options, estimator.epochs
        self.ancestry = estimator.ancestry
        self.rungs = rungs_of(estimator.epochs, factor, least)
        if len(self.rungs) < 2:
            raise InvalidArgument(
                f"a training of {estimator.epochs} epochs cannot pause for one network in "
                f"{factor} to go on: give {factor * least} epochs or more, or a smaller factor"
            )
        trainings = None if folder is None else folder / "trainings"
        steps = [estimator.after(epochs, trainings) for epochs in self.rungs]
        if folder is not None:
            steps = [_kept(step, folder / "accuracy.db") for step in steps]
        self.steps: tuple[AccuracyEstimator, ...] = tuple(steps)

    def within(self, folder: Path) -> SuccessiveHalving:
        """The same, with what it does kept in the folder of a run."""
        return SuccessiveHalving(self.estimator, self.factor, self.least, folder)

    def of(self, precision: str) -> SuccessiveHalving:
        """The same in one of the precisions that its estimator is of."""
        assert isinstance(self.estimator, InPrecisions)
        return SuccessiveHalving(self.estimator.of(precision), self.factor, self.least)

    @property
    def caches(self) -> tuple[Cached, ...]:
        """Those of its steps that keep their answers."""
        steps = [s.base if isinstance(s, Quantised | InPrecisions) else s for s in self.steps]
        return tuple(step for step in steps if isinstance(step, Cached))

    def networks(self, first: int) -> tuple[int, ...]:
        """About how many networks reach each rung, of so many at the first."""
        return tuple(first // self.factor**rung for rung in range(len(self.rungs)))

    def epochs_in_all(self, first: int) -> int:
        """Epochs of training that so many networks at the first rung take, about."""
        before = (0, *self.rungs)
        counts = self.networks(first)
        return sum(n * (self.rungs[i] - before[i]) for i, n in enumerate(counts))

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.estimator.settings, "halving": self.factor, "min_epochs": self.least}

    @property
    def digest(self) -> str:
        parts = [self.factor, *(step.digest for step in self.steps)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def epoch_s(self, architectures: Sequence[Architecture]) -> float:
        return self.estimator.epoch_s(architectures)

    @property
    def cost_s(self) -> float:
        return self.steps[-1].cost_s

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        """Of the whole training."""
        return self.steps[-1].estimate(architectures)


def _kept(step: AccuracyEstimator, path: Path) -> AccuracyEstimator:
    """A step with its answers in a file; one in int8, or in several precisions, keeps those of
    float32.

    Also those of a quick step: a run that stopped goes on by them.
    """
    if isinstance(step, Quantised | InPrecisions):
        return step.cached(path)
    return step if isinstance(step, Cached) else Cached(step, path)
