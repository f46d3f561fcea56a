"""FineTuning: for how many epochs, when, and on which images its result is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phonenas.data.images import held_out
from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument
from phonenas.space.graph import NetworkGraph

from ..recipe import Recipe

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = [
    "LOSS",
    "NEVER",
    "WHEN",
    "FineTuning",
    "checked_request",
    "fine_tuning",
    "refuse_untunable",
    "tuned_by",
]

#: When a network is fine-tuned: where quantisation after training loses more than `LOSS`; always.
WHEN = ("auto", "always")
NEVER = "never"
#: Of top-1, on the held-out images.
LOSS = 0.01
# Of the training images, and at most so many: their standard error is then below half a point.
_SHARE, _MOST = 0.1, 10_000
_EPOCHS_SHARE, _RATE_SHARE = 0.1, 0.01
_MOST_EPOCHS = 10_000


@dataclass(frozen=True)
class FineTuning:
    """Whether and how a network is fine-tuned for int8.

    Args:
        held: Images that the network was neither trained nor calibrated on, and that it is not
            tested on: by these it is decided whether it is fine-tuned, and which weights are kept.
        epochs: Of the fine-tuning, ≥ 1.
        when: Of `WHEN`.
    Raises:
        InvalidArgument: A number out of range, no image, or another word.
    """

    held: ImageSet
    epochs: int
    when: str = "auto"

    def __post_init__(self) -> None:
        checked_request(self.when, self.epochs, "int8")
        if not len(self.held):
            raise InvalidArgument(f"{self.held.source} has no image to compare int8 files on")

    @property
    def settings(self) -> dict[str, Any]:
        """What the result follows from, ready for JSON."""
        return {"epochs": self.epochs, "when": self.when, "held": self.held.digest}


def checked_request(when: str | None, epochs: int | None, precision: str | None) -> bool:
    """Whether a fine-tuning is asked for, before any image is read.

    Args:
        when: Of `WHEN`, or "never"; None: "auto" where epochs are given, else "never".
        epochs: Of the fine-tuning, ≥ 0; 0 is "never". None: a tenth of the recipe's.
        precision: In which files are written besides float32; None: in none.
    Raises:
        InvalidArgument: A word, a number or a precision that cannot be, or two that contradict
            each other.
    """
    words = (*WHEN, NEVER)
    if when is not None and when not in words:
        raise InvalidArgument(f"--finetune is one of {', '.join(words)}, got {when!r}")
    if epochs is not None and not 0 <= epochs <= _MOST_EPOCHS:
        raise InvalidArgument(f"--finetune-epochs: from 0 to {_MOST_EPOCHS:,}, got {epochs}")
    if when == NEVER and epochs:
        raise InvalidArgument("--finetune never does no epochs: leave --finetune-epochs out")
    if when in WHEN and epochs == 0:
        raise InvalidArgument(f"--finetune {when} needs one or more --finetune-epochs, got 0")
    if when is None and epochs is None:
        return False
    if precision is None:
        raise InvalidArgument("fine-tuning is for int8 files: give --quantise int8, too")
    if precision != "int8":
        raise InvalidArgument(
            f"fine-tuning is for int8, and {precision} was asked for: leave --finetune and "
            "--finetune-epochs out"
        )
    return when in WHEN or bool(epochs)


def fine_tuning(
    when: str | None, epochs: int | None, images: ImageSet, recipe: Recipe, seed: int
) -> tuple[ImageSet, FineTuning]:
    """How networks trained by a recipe are fine-tuned, and what remains to train on.

    Args:
        when, epochs: As for `checked_request`, which said yes.
        images: All training images. A tenth of each class, at most 10,000 images, is held out.
        recipe: Of the training.
        seed: Of the choice of images.
    Returns:
        The images to train, calibrate and fine-tune on; and the fine-tuning.
    Raises:
        InvalidArgument: Too few images to hold any out.
    """
    rest, held = held_out(images, min(_SHARE, _MOST / max(len(images), 1)), seed)
    epochs = epochs or max(1, round(_EPOCHS_SHARE * recipe.epochs))
    return rest, FineTuning(held, epochs, when or "auto")


def tuned_by(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe of a fine-tuning: float32, a hundredth of the training's rate, falling to 0 as a
    cosine. BatchNorm's statistics, which stay, are not averaged, and nothing is dropped out.

    Source: Wu et al., Integer Quantization for Deep Learning Inference, 2020, section 5.3, for the
        rate, the schedule, and a tenth of the training's epochs.
    """
    return recipe.changed(
        name=f"{recipe.name}, fine-tuned",
        epochs=epochs,
        learning_rate=_RATE_SHARE * recipe.learning_rate,
        schedule="cosine",
        warmup_epochs=0.0,
        dropout=0.0,
        average=0.0,
        precision="float32",
    )


def refuse_untunable(network: Classifier) -> None:
    """Refuse a network whose int8 form cannot be trained here.

    Raises:
        InvalidArgument: It has a BatchNorm that no convolution takes in, whose factors int8
            rounds, too.
    """
    if isinstance(network, NetworkGraph) and any(n.op == "batch_norm" for n in network.nodes):
        raise InvalidArgument(
            f"{network.name} has a BatchNorm that is part of no convolution, and no fine-tuning "
            "for int8: leave --finetune and --finetune-epochs out"
        )
