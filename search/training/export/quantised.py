"""Quantisation: a trained network in another precision, beside its float32 file.

No weight is trained again, unless a fine-tuning is asked for (`finetuning`). In int8 the ranges of
the feature maps are those over calibration images, which are to be training images: test images
would flatter the result. The runtime of each format runs the file and the float32 file on the same
test images.

    network_int8.onnx, network_int8.tflite, network_float16.onnx

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.data.documents import Count, Number, Share, Text
from phonenas.data.images import read_images
from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument
from phonenas.space.lowering.calibration import Ranges, calibrated
from phonenas.space.precision import FLOAT32, PRECISIONS, checked_precision

from ..finetuning.settings import FineTuning, refuse_untunable
from .check import evenly, inputs_of
from .formats import Logits

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = [
    "Quantisation",
    "QuantisedModel",
    "beside_float",
    "change_error",
    "of_run",
    "quantisation",
    "ranges_of",
]

_OTHERS = tuple(name for name in PRECISIONS if name != FLOAT32)
_CALIBRATED = "int8"  # the others need no ranges


@dataclass(frozen=True)
class Quantisation:
    """How a trained network is quantised.

    Args:
        images: Of int8, to calibrate on: training images. For the others they are not used.
        precision: Any but float32.
        most_images: Of them at most so many, evenly spaced, ≥ 1.
        finetune: Whether and how its weights are fine-tuned for int8; None: not.
    Raises:
        UnknownName, InvalidArgument: Another precision, no image, a number below 1, or a
            fine-tuning for another precision.
    """

    images: ImageSet
    precision: str = _CALIBRATED
    most_images: int = 256
    finetune: FineTuning | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the images are used."""
        return self.precision == _CALIBRATED

    def inputs(self, resolution_px: int) -> Iterator[Logits]:
        """The images as a network of this side takes them, each (1, 3, px, px)."""
        return inputs_of(evenly(self.images, self.most_images), resolution_px)

    @property
    def settings(self) -> dict[str, Any]:
        """What the files follow from, ready for JSON."""
        if not self.calibrated:
            return {"precision": self.precision}
        own = {"precision": self.precision, "most_images": self.most_images}
        tuning = {} if self.finetune is None else {"finetune": self.finetune.settings}
        return {**own, "images": self.images.digest, **tuning}

    def refuse_untunable(self, network: Classifier) -> None:
        """Refuse a network that is to be fine-tuned and cannot be, before it is trained.

        Raises:
            InvalidArgument: As its name says.
        """
        if self.finetune is not None:
            refuse_untunable(network)

    def __post_init__(self) -> None:
        checked_precision(self.precision, "--quantise", _OTHERS)
        if self.most_images < 1:
            raise InvalidArgument(f"most_images: 1 or more, got {self.most_images}")
        if self.calibrated and not len(self.images):
            raise InvalidArgument(f"{self.images.source} has no image to calibrate on")
        if self.finetune is not None and not self.calibrated:
            raise InvalidArgument(f"fine-tuning is for int8, not for {self.precision}")


@dataclass(frozen=True)
class QuantisedModel:
    """A quantised file beside the float32 file of its format, as its runtime runs both.

    Args:
        name: "onnx" or "tflite".
        file: Its name.
        precision: As of `Quantisation`.
        top1, float_top1: Share of the images that it, and the float32 file, names correctly.
        change_error: Standard error of the difference of both, which are on the same images. One
            image more counts as differing: none that differs among n is no certainty.
        agreeing: Share of the images for which both name the same class, in [0, 1].
        size, float_size: Of the files, in bytes.
        images, calibrated_on: How many they were evaluated, calibrated on; 0 of what was not.
        sha256: Of the file as it was written, 64 hexadecimal digits.
        not_run: Why this computer's runtime does not run it; then `top1` is that of the float32
            file. "" where it ran.
    """

    name: Text
    file: Text
    precision: Text
    top1: Share
    float_top1: Share
    change_error: Number
    agreeing: Share
    size: Count
    float_size: Count
    images: Count
    calibrated_on: Count
    sha256: Text
    not_run: Text = ""

    @property
    def change(self) -> float:
        """Of the top-1, in [-1, 1]; below 0 where it is worse than in float32."""
        return self.top1 - self.float_top1

    def __str__(self) -> str:
        sizes = f"{self.size / 1e6:.2f} MB, of the float32 file {self.float_size / 1e6:.2f} MB"
        if self.not_run:
            return f"{self.name} in {self.precision}: not evaluated here ({self.not_run}); {sizes}"
        on = f"; calibrated on {self.calibrated_on:,} images" if self.calibrated_on else ""
        return (
            f"{self.name} in {self.precision}: top-1 {self.top1:.2%}, of the float32 file "
            f"{self.float_top1:.2%}: {self.change:+z.2%} ±{self.change_error:.2%} on "
            f"{self.images:,} images, {self.agreeing:.2%} of the decisions equal; {sizes}{on}"
        )


def quantisation(
    precision: str | None,
    images: ImageSet,
    folder: Path | None = None,
    *,
    broken: str = "stop",
    finetune: FineTuning | None = None,
) -> Quantisation | None:
    """How a network that was trained on `images` is quantised; None for no precision.

    Args:
        precision: As `Quantisation` takes it.
        images: The training images.
        folder: Of other images to calibrate on, as `read_images` takes it.
        broken: As for `read_images`.
        finetune: As `Quantisation` takes it.
    Raises:
        UnknownName, InvalidArgument: As `Quantisation`, and `read_images`; or a folder where
            nothing is calibrated.
    """
    if precision is None:
        return None
    how = Quantisation(images, precision, finetune=finetune)
    if folder is None:
        return how
    if not how.calibrated:
        raise InvalidArgument(
            f"--calibrate is of int8, and {precision} needs no images: leave it out"
        )
    return replace(how, images=read_images(folder, broken=broken))


def of_run(precision: str, given: Quantisation | None, images: ImageSet) -> Quantisation | None:
    """How the networks of a run are quantised: in another precision than float32 always in that.

    Args:
        precision: Of the run.
        given: What was asked for; None for nothing.
        images: To calibrate on, where nothing was.
    Raises:
        InvalidArgument: Another precision was asked for.
    """
    if precision not in _OTHERS:
        return given
    if given is not None and given.precision != precision:
        raise InvalidArgument(
            f"the run was searched in {precision}, and its files are written in that, not in "
            f"{given.precision}: leave --quantise out"
        )
    return given or Quantisation(images, precision)


def ranges_of(
    network: Classifier, weights: Mapping[str, Any], how: Quantisation
) -> tuple[Ranges | None, int]:
    """The ranges of a network's values over the calibration images, and how many these were; none
    of a precision that needs none."""
    if not how.calibrated:
        return None, 0
    count = min(len(how.images), how.most_images)
    return calibrated(network, how.inputs(network.resolution_px), weights=weights), count


def change_error(
    small: np.ndarray[Any, np.dtype[np.bool_]], whole: np.ndarray[Any, np.dtype[np.bool_]]
) -> float:
    """Standard error of the difference of two files' top-1 on the same images, as a share.

    Args:
        small, whole: Which of the images each names correctly, (n,), n ≥ 1. One image more counts
            as differing: none that differs among n is no certainty.
    """
    gained, n = small.astype(np.float64) - whole, len(small)
    return sqrt((float(np.var(gained)) + 1 / n) / n)


def beside_float(
    written: tuple[Path, str, str],
    logits: tuple[Logits | None, Logits],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    sizes: tuple[int, int],
    calibrated_on: int,
    not_run: str = "",
) -> QuantisedModel:
    """A file in another precision beside its float32 file.

    Args:
        written: The file, whose ending names its format, its SHA-256, and its precision.
        logits: Of it and of the float32 file on the same images, each (n, classes); None of one
            that does not run here.
        labels: (n,).
        sizes: Of both files, in bytes.
        calibrated_on: Images.
        not_run: Why it does not.
    """
    path, sha256, precision = written
    own, of_float = logits
    whole = of_float.argmax(1)
    small = whole if own is None else own.argmax(1)
    n = len(labels)
    return QuantisedModel(
        path.suffix[1:],
        path.name,
        precision,
        float(np.mean(small == labels)),
        float(np.mean(whole == labels)),
        change_error(small == labels, whole == labels),
        float(np.mean(small == whole)),
        *sizes,
        0 if own is None else n,
        calibrated_on,
        sha256,
        not_run,
    )
