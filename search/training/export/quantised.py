"""Post-training quantisation: a trained network in int8, beside its float32 file.

No weight is trained again. The ranges of the feature maps are those over calibration images, which
are to be training images: test images would flatter the result. The runtime of each format runs
the int8 file and the float32 file on the same test images.

    network_int8.onnx, network_int8.tflite

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.data.documents import Count, Number, Share, Text
from phonenas.data.images import read_images
from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument
from phonenas.space.lowering.calibration import Ranges, calibrated
from phonenas.space.precision import checked_precision

from .check import evenly, inputs_of
from .formats import Logits

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = ["Quantisation", "QuantisedModel", "beside_float", "quantisation", "ranges_of"]


@dataclass(frozen=True)
class Quantisation:
    """How a trained network is quantised.

    Args:
        images: To calibrate on: training images.
        precision: "int8".
        most_images: Of them at most so many, evenly spaced, ≥ 1.
    Raises:
        UnknownName, InvalidArgument: Another precision, no image, or a number below 1.
    """

    images: ImageSet
    precision: str = "int8"
    most_images: int = 256

    def inputs(self, resolution_px: int) -> Iterator[Logits]:
        """The images as a network of this side takes them, each (1, 3, px, px)."""
        return inputs_of(evenly(self.images, self.most_images), resolution_px)

    @property
    def settings(self) -> dict[str, Any]:
        """What the files follow from, ready for JSON."""
        own = {"precision": self.precision, "most_images": self.most_images}
        return {**own, "images": self.images.digest}

    def __post_init__(self) -> None:
        checked_precision(self.precision, "--quantise", ("int8",))
        if self.most_images < 1:
            raise InvalidArgument(f"most_images: 1 or more, got {self.most_images}")
        if not len(self.images):
            raise InvalidArgument(f"{self.images.source} has no image to calibrate on")


@dataclass(frozen=True)
class QuantisedModel:
    """A quantised file beside the float32 file of its format, as its runtime runs both.

    Args:
        name: "onnx" or "tflite".
        file: Its name.
        precision: "int8".
        top1, float_top1: Share of the images that it, and the float32 file, names correctly.
        change_error: Standard error of the difference of both, which are on the same images. One
            image more counts as differing: none that differs among n is no certainty.
        agreeing: Share of the images for which both name the same class, in [0, 1].
        size, float_size: Of the files, in bytes.
        images, calibrated_on: How many they were evaluated, calibrated on.
        sha256: Of the file as it was written, 64 hexadecimal digits.
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

    @property
    def change(self) -> float:
        """Of the top-1, in [-1, 1]; below 0 where int8 is worse."""
        return self.top1 - self.float_top1

    def __str__(self) -> str:
        return (
            f"{self.name} in {self.precision}: top-1 {self.top1:.2%}, of the float32 file "
            f"{self.float_top1:.2%}: {self.change:+z.2%} ±{self.change_error:.2%} on "
            f"{self.images:,} images, {self.agreeing:.2%} of the decisions equal; "
            f"{self.size / 1e6:.2f} MB, of the float32 file {self.float_size / 1e6:.2f} MB; "
            f"calibrated on {self.calibrated_on:,} images"
        )


def quantisation(
    precision: str | None, images: ImageSet, folder: Path | None = None, *, broken: str = "stop"
) -> Quantisation | None:
    """How a network that was trained on `images` is quantised; None for no precision.

    Args:
        precision: "int8".
        images: The training images.
        folder: Of other images to calibrate on, as `read_images` takes it.
        broken: As for `read_images`.
    Raises:
        UnknownName, InvalidArgument: As `Quantisation`, and `read_images`.
    """
    if precision is None:
        return None
    if folder is not None:
        images = read_images(folder, broken=broken)
    return Quantisation(images, precision)


def ranges_of(
    network: Classifier, weights: Mapping[str, Any], how: Quantisation
) -> tuple[Ranges, int]:
    """The ranges of a network's values over the calibration images, and how many these were."""
    count = min(len(how.images), how.most_images)
    return calibrated(network, how.inputs(network.resolution_px), weights=weights), count


def beside_float(
    written: tuple[Path, str],
    logits: tuple[Logits, Logits],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    sizes: tuple[int, int],
    calibrated_on: int,
) -> QuantisedModel:
    """An int8 file beside its float32 file.

    Args:
        written: The int8 file, whose ending names its format, and its SHA-256.
        logits: Of the int8 file and the float32 file on the same images, each (n, classes).
        labels: (n,).
        sizes: Of both files, in bytes.
        calibrated_on: Images.
    """
    path, sha256 = written
    small, whole = (rows.argmax(1) for rows in logits)
    gained = (small == labels).astype(np.float64) - (whole == labels)
    n = len(labels)
    return QuantisedModel(
        path.suffix[1:],
        path.name,
        "int8",
        float(np.mean(small == labels)),
        float(np.mean(whole == labels)),
        sqrt((float(np.var(gained)) + 1 / n) / n),
        float(np.mean(small == whole)),
        *sizes,
        n,
        calibrated_on,
        sha256,
    )
