"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from phonenas.space.errors import InvalidArgument

from .recipe import Recipe

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a recipe as a function of the step.

    Step s is the update after s updates. While s is below W = ⌊warmup_epochs · steps_per_epoch⌋ it
    is peak · s / W: the very first rate is 0. From then on "steps" gives
    peak · factor^⌊s / (decay_epochs · steps_per_epoch)⌋, counted from the start of the training
    and not from the end of the warm-up, so the paper's rate falls to 0.97² of its peak when the
    warm-up of 5 epochs is over; "cosine" gives peak · (1 + cos(π s / steps)) / 2.

    Args:
        recipe: Epochs, rate and form.
        steps_per_epoch: Steps of one pass over the images, > 0; it may be broken, where an epoch
            does not end with a step.
        batch: Images a step in truth; None for the recipe's.
    Raises:
        InvalidArgument: `steps_per_epoch` or `batch` is not positive.
    Source: build_learning_rate in the official MnasNet code (models/official/mnasnet in
        github.com/tensorflow/tpu), `staircase=True`.

    >>> from phonenas.search.training.recipe import PAPER
    >>> paper = Schedule(PAPER, 312)
    >>> [round(paper(s), 9) for s in (0, 312, 1560, 2247)]
    [0.0, 0.0512, 0.2408704, 0.233644288]
    """

    recipe: Recipe
    steps_per_epoch: float
    batch: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.steps_per_epoch < math.inf:
            raise InvalidArgument(f"steps_per_epoch is above 0, got {self.steps_per_epoch!r}")
        if self.batch is not None and self.batch < 1:
            raise InvalidArgument(f"batch is 1 or more, got {self.batch}")

    @property
    def peak(self) -> float:
        """The rate before any decay: the recipe's, for the batch."""
        return self.recipe.learning_rate * (self.batch or self.recipe.batch) / 256

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return max(1, round(self.recipe.epochs * self.steps_per_epoch))

    def __call__(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        r = self.recipe
        warmup = int(r.warmup_epochs * self.steps_per_epoch)
        if step < warmup:
            return self.peak * step / warmup
        if r.schedule == "cosine":
            return self.peak * (1 + math.cos(math.pi * min(step / self.steps, 1.0))) / 2
        # A product like 2.4 · 625 falls a hair beside the whole number that it stands for.
        falls = math.floor(step / (r.decay_epochs * self.steps_per_epoch) + 1e-9)
        return float(self.peak * r.decay_factor**falls)
