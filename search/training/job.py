"""TrainingJob: what a training learns from, what it is tested on, how, and from which seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument, NotEnoughData

from .finetuning.start import QuantisedStart
from .recipe import Recipe
from .teacher import Teacher

if TYPE_CHECKING:
    from torch import nn

    from phonenas.data.images import ImageSet

__all__ = ["FirstWeights", "TrainingJob"]


@dataclass(frozen=True)
class FirstWeights:
    """Weights that a training begins with, instead of those of its seed.

    Args:
        arrays: float32, by the names and with the shapes of the network's `state_arrays`.
        dropout: Of the network, in [0, 1).
        digest: Of where they come from; in the settings of the training.
    """

    arrays: Mapping[str, npt.NDArray[np.float32]]
    dropout: float
    digest: str

    @property
    def settings(self) -> dict[str, Any]:
        """What decides them, ready for JSON."""
        return {"start": self.digest}

    def module(self, network: Classifier) -> nn.Module:
        """The network with these weights."""
        from phonenas.space.lowering.torch import to_torch

        from .evaluation import set_weights

        module = to_torch(network, dropout=self.dropout, seed=0)
        set_weights(module, self.arrays)
        return module


@dataclass(frozen=True)
class TrainingJob:
    """All that decides the weights of a network beside the network itself.

    Args:
        images: To train on, at least 2; a network gets their classes.
        test: To evaluate on after epochs and at the end, of the same classes; no choice is made
            by them. None: no accuracy. Of a share held out, what `data.held_out` gives.
        recipe: See `recipe`.
        seed: Of first weights, order, augmentation and dropout, in [0, 2^63).
        evaluate_each: Epochs between evaluations; 0 evaluates at the end alone.
        checkpoint_s: Seconds between checkpoints within an epoch, ≥ 0.
        teacher: Whose outputs are learned beside the labels; None: the labels alone.
        pause_after: Epochs of the recipe's after which it pauses, with a checkpoint and the
            accuracy then, ≥ 1; it goes on as if it had not. None: it does not pause.
        start: Whose weights it begins with, as those of a fine-tuning for int8; None: the seed's.
    Raises:
        InvalidArgument: A value out of range, or test images of other classes.
        NotEnoughData: Fewer than two images, or no test image.
    """

    images: ImageSet
    test: ImageSet | None
    recipe: Recipe
    seed: int = 0
    evaluate_each: int = 1
    checkpoint_s: float = 60.0
    teacher: Teacher | None = None
    pause_after: int | None = None
    start: QuantisedStart | FirstWeights | None = None

    def __post_init__(self) -> None:
        images, test = self.images, self.test
        if not 0 <= self.seed < 2**63:
            raise InvalidArgument(f"seed: from 0 to below 2^63, got {self.seed}")
        if not self.checkpoint_s >= 0:
            raise InvalidArgument(f"checkpoint_s: 0 or more seconds, got {self.checkpoint_s}")
        if self.evaluate_each < 0:
            raise InvalidArgument(f"evaluate_each: 0 or more epochs, got {self.evaluate_each}")
        if self.pause_after is not None and not 1 <= self.pause_after <= self.recipe.epochs:
            raise InvalidArgument(
                f"a training pauses after 1 to {self.recipe.epochs} epochs, those of its recipe, "
                f"got {self.pause_after}"
            )
        if len(images) < 2:
            # BatchNorm has no variance of one value.
            raise NotEnoughData(f"{images.source} has {len(images)} images; a training needs two")
        if test is not None and test.classes != images.classes:
            differ = sorted(set(test.classes) ^ set(images.classes)) or ["their order"]
            raise InvalidArgument(
                f"the images to train on and those to test on have different classes: {differ[0]} "
                f"is not in both ({images.source}, {test.source})"
            )
        if test is not None and not len(test):
            raise NotEnoughData(f"{test.source} has no images to test on")

    @property
    def test_images(self) -> int:
        """How many there are to test on."""
        return 0 if self.test is None else len(self.test)

    def settings(self, network: Classifier) -> dict[str, Any]:
        """All that decides the weights of a network, ready for JSON; the precision as the recipe
        has it, perhaps "auto"."""
        return {
            "network": str(network),
            "images": self.images.digest,
            "held": None if self.test is None else self.test.digest,
            "seed": self.seed,
            **self.recipe.settings,
            **({} if self.teacher is None else self.teacher.settings),
            **({} if self.start is None else self.start.settings),
        }
