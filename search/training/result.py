"""The events of a training while it runs, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Classifier
from phonenas.space.naming import counted

if TYPE_CHECKING:
    import pandas as pd

    from .finetuning.tuned import Tuned

__all__ = ["Began", "Epoch", "Event", "Stepped", "Trained"]


@dataclass(frozen=True)
class Began:
    """Event: the first step is about to be done.

    Args:
        images, images_held: To train on, and to evaluate on.
        steps, epochs: Of the whole training.
        batch: Images a step.
        resumed_from: Steps that an earlier run had done already; 0 for a new training.
        device, precision: As torch calls them.
        fine_tuning: Whether it is a fine-tuning for int8; `images_held` are then those held out.
    """

    images: int
    images_held: int
    steps: int
    epochs: int
    batch: int
    resumed_from: int
    device: str
    precision: str
    fine_tuning: bool = False


@dataclass(frozen=True)
class Stepped:
    """Event: some steps were done; at most about two a second.

    Args:
        step, steps: Done, and in all.
        epoch: The present one, from 1.
        images_per_s: Throughput since this run began, evaluation left out.
        seconds_left: Estimated, evaluation included.
    """

    step: int
    steps: int
    epoch: int
    images_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Epoch:
    """Event, and a row of the learning curve: an epoch was done.

    Args:
        epoch: From 1.
        step: Updates done.
        learning_rate: Of the last update.
        loss: Mean over the epoch's images, label smoothing included, weight decay not.
        top1, top5: On the test images after the epoch, in [0, 1]; NaN where not evaluated.
        seconds: Since the training began, stops left out.
    """

    epoch: int
    step: int
    learning_rate: float
    loss: float
    top1: float
    top5: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: None for NaN."""
        return {k: None if v != v else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Epoch:
        """What `to_dict` gave."""
        return cls(
            int(row["epoch"]),
            int(row["step"]),
            *(
                float("nan") if row[k] is None else float(row[k])
                for k in ("learning_rate", "loss", "top1", "top5", "seconds")
            ),
        )


Event = Began | Stepped | Epoch


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Args:
        network: The network, its classes those of the images.
        weights: The arrays of `space.to_torch.state_arrays`, the moving average where the recipe
            has one; `to_onnx` and `to_tflite` take them.
        top1, top5: On the test images, in [0, 1]; NaN without such, or where it diverged.
        images_held: How many these are.
        curve: A row an epoch.
        seconds: Duration, stops left out.
        diverged: "" or why the training ended: its loss or its weights became NaN.
        images: How many it was trained on.
        classes: Names of the classes, in the order of the outputs.
        steps: Updates done.
        resumed_from: Steps that an earlier run had done already.
        recipe: Settings of the recipe.
        tuned: A fine-tuning for int8 of these weights; None where none was asked for.
    """

    network: Classifier
    weights: dict[str, npt.NDArray[np.float32]] = field(repr=False, compare=False)
    top1: float
    top5: float
    images_held: int
    curve: tuple[Epoch, ...]
    seconds: float
    diverged: str = ""
    images: int = 0
    classes: tuple[str, ...] = ()
    steps: int = 0
    resumed_from: int = 0
    recipe: dict[str, Any] = field(default_factory=dict, compare=False)
    tuned: Tuned | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        what = f"diverged: {self.diverged}" if self.diverged else f"top-1 {self.top1:.2%}"
        return f"Trained({what}, {counted(len(self.curve), 'epoch')}, {self.network})"

    def to_frame(self) -> pd.DataFrame:
        """The learning curve, one row an epoch: the fields of `Epoch`."""
        import pandas as pd

        return pd.DataFrame(
            [asdict(e) for e in self.curve], columns=[f.name for f in fields(Epoch)]
        )

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, as JSON takes it."""
        return {
            "network": str(self.network),
            "top1": None if self.top1 != self.top1 else self.top1,
            "top5": None if self.top5 != self.top5 else self.top5,
            "images_held": self.images_held,
            "images": self.images,
            "classes": list(self.classes),
            "steps": self.steps,
            "seconds": self.seconds,
            "diverged": self.diverged,
            "resumed_from": self.resumed_from,
            "recipe": self.recipe,
            "curve": [e.to_dict() for e in self.curve],
        }
