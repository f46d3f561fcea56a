"""Recipes: all that decides how a network is trained, as one value.

`paper` is the full training of the MnasNet paper as its official code has it, `proxy` the few
epochs by which its search estimated each network, `small` a short training for small images.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from phonenas.space.errors import InvalidArgument, UnknownName, nearest

__all__ = ["PAPER", "PROXY", "SMALL", "Recipe", "recipe"]

_CHOICES = {
    "optimizer": ("rmsprop", "sgd"),
    "schedule": ("steps", "cosine"),
    "augment": ("imagenet", "small", "shift", "none"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}
# Least and most value, both allowed; after "above" the least is not.
_RANGES = {
    "epochs": (1, 10_000, ""),
    "batch": (1, 1 << 20, ""),
    "learning_rate": (0, 100, "above"),
    "warmup_epochs": (0, 10_000, ""),
    "decay_factor": (0, 1, "above"),
    "decay_epochs": (0, 10_000, "above"),
    "rms_decay": (0, 0.999999, ""),
    "momentum": (0, 0.999999, ""),
    "epsilon": (0, 1, "above"),
    "weight_decay": (0, 1, ""),
    "dropout": (0, 0.99, ""),
    "label_smoothing": (0, 0.99, ""),
    "average": (0, 0.999999999, ""),
    "norm_momentum": (0, 1, "above"),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        name: For messages; it decides nothing.
        epochs: Passes over the images, ≥ 1.
        batch: Images a step, over all processes together, ≥ 1. A set with fewer images than this
            is one batch.
        learning_rate: Peak, for a batch of 256 images: a step uses `learning_rate · batch / 256`.
        optimizer: "rmsprop", as TensorFlow has it (see `optimizer`), or "sgd", with Nesterov's
            momentum.
        schedule: "steps", falling by `decay_factor` every `decay_epochs`, counted from the start;
            or "cosine", falling to 0 at the end.
        warmup_epochs: Epochs in which the rate rises evenly from 0.
        decay_factor, decay_epochs: Of "steps"; without effect for "cosine".
        rms_decay, epsilon: Of "rmsprop"; epsilon is added inside the root.
        momentum: Of either optimizer, in [0, 1).
        weight_decay: Each step's gradient gains `weight_decay · weight`, since the loss gains
            half the sum of squares times it. All weights and biases but BatchNorm's.
        dropout: Share of the head's features set to 0 before the classifier, in [0, 1).
        label_smoothing: Share of the target that is spread over all classes.
        average: Decay of the moving average of weights and BatchNorm statistics that is the
            result; 0 for none. See `average` for its first updates.
        norm_momentum: Of BatchNorm's statistics, as torch defines it: 0.01 is a decay of 0.99.
        augment: Of the training images: "imagenet" (random crops, flips), "small" (shifts by up
            to an eighth, flips), "shift" (without the flips, for digits) or "none".
        precision: "float32"; "bfloat16" or "float16" for autocast, weights staying float32;
            "auto": float32 on a CPU, bfloat16 on a GPU that has it, else float16.
    Raises:
        InvalidArgument: A value outside its range; the message names it.
    """

    name: str
    epochs: int
    batch: int
    learning_rate: float
    optimizer: str = "rmsprop"
    schedule: str = "steps"
    warmup_epochs: float = 5.0
    decay_factor: float = 0.97
    decay_epochs: float = 2.4
    rms_decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3
    weight_decay: float = 1e-5
    dropout: float = 0.2
    label_smoothing: float = 0.1
    average: float = 0.9999
    norm_momentum: float = 0.01
    augment: str = "imagenet"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            choice = getattr(self, name)
            if choice not in choices:
                raise InvalidArgument(
                    f"recipe {self.name}: {name} is one of {', '.join(choices)}, got {choice!r}"
                )
        for name, (least, most, above) in _RANGES.items():
            value = getattr(self, name)
            whole = name in ("epochs", "batch")
            valid = isinstance(value, int if whole else (int, float)) and value is not True
            # NaN is in no range.
            if not (valid and least <= value <= most and not (above and value == least)):
                kind = "a whole number " if whole else ""
                low = f"above {least:g}" if above else f"{least:g}"
                raise InvalidArgument(
                    f"recipe {self.name}: {name} is {kind}from {low} to {most:,}, got {value!r}"
                )
        if self.warmup_epochs > self.epochs:
            raise InvalidArgument(
                f"recipe {self.name}: {self.warmup_epochs:g} epochs of warm-up are more than its "
                f"{self.epochs} epochs. Give more epochs, or fewer of warm-up."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Twelve hex digits of all that decides the weights: the name is left out."""
        text = json.dumps({k: v for k, v in self.settings.items() if k != "name"}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def changed(self, **changes: Any) -> Recipe:
        """The recipe with other values; those that are None stay as they are.

        Another number of epochs stretches the warm-up and the steps of the schedule with it, so
        that the rate follows the same curve; unless these are given too.

        Raises:
            InvalidArgument: No such field, or a value outside its range.

        >>> PAPER.changed(epochs=35).warmup_epochs, PAPER.changed(batch=256, epochs=None).batch
        (0.5, 256)
        """
        values = {k: v for k, v in changes.items() if v is not None}
        unknown = sorted(set(values) - set(asdict(self)))
        if unknown:
            raise InvalidArgument(
                f"a recipe has no {unknown[0]}. {nearest(unknown[0], asdict(self))}"
            )
        epochs = values.get("epochs", self.epochs)
        if isinstance(epochs, int) and epochs >= 1 and epochs != self.epochs:
            for name in ("warmup_epochs", "decay_epochs"):
                # To nine digits: 5 / 350 · 35 is to be 0.5.
                stretched = float(f"{getattr(self, name) * epochs / self.epochs:.9g}")
                values.setdefault(name, stretched)
        return replace(self, **values)


PAPER = Recipe("paper", epochs=350, batch=4096, learning_rate=0.016)
"""The paper's full training: every default of `Recipe` is its value."""

PROXY = Recipe(
    "proxy",
    epochs=5,
    batch=256,
    learning_rate=0.016,
    warmup_epochs=0.5,
    decay_epochs=0.04,
    average=0.0,
    norm_momentum=0.1,
)
"""The paper's proxy: 5 epochs, same optimizer and loss. The paper does not print their schedule;
here the rate rises for half an epoch and then falls to about 2 % of its peak, as in the full
training to 1 %. No average, which would lag behind, and faster BatchNorm statistics."""

SMALL = Recipe(
    "small",
    epochs=30,
    batch=128,
    learning_rate=0.1,
    optimizer="sgd",
    schedule="cosine",
    warmup_epochs=1.0,
    weight_decay=5e-4,
    dropout=0.0,
    label_smoothing=0.1,
    average=0.0,
    norm_momentum=0.1,
    augment="small",
)
"""For images of about 32 px: SGD with Nesterov's momentum and a cosine schedule."""

_KNOWN = {r.name: r for r in (PAPER, PROXY, SMALL)}


def recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with some values changed.

    Args:
        name: `paper`, `proxy` or `small`.
        changes: Fields of `Recipe`; None leaves the recipe's own. See `Recipe.changed`.
    Raises:
        UnknownName: No such recipe.
        InvalidArgument: A value outside its range.

    >>> recipe("small", epochs=3, batch=None).epochs
    3
    """
    if name not in _KNOWN:
        raise UnknownName(f"no recipe is called {name!r}. {nearest(name, _KNOWN)}")
    return _KNOWN[name].changed(**changes)
