"""calibration: the ranges of a float network's values, from which 8-bit forms take their scales.

ONNX Runtime's calibrator finds the ranges once, on the float ONNX form. Both 8-bit forms, ONNX and
TFLite, take the scale and the zero point of each value from this one table.

    real = scale · (stored − zero point)

Stored values of feature maps are bytes: 0 to 255 in ONNX, −128 to 127 in TFLite, with the zero
point lower by 128, too. 0 is always exact, since padding is 0.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..architecture import Architecture
from ..errors import InvalidArgument
from ..graph import NetworkGraph
from ..operator import Operator

if TYPE_CHECKING:
    import onnx

    from .weights import Arrays

__all__ = [
    "SIGMOID_BOUNDS",
    "Images",
    "Ranges",
    "calibrated",
    "least_and_most",
    "normal_images",
    "scale_and_zero_point",
    "settled_ranges",
]

#: Least and most of each value of a network, by its name in the ONNX form.
Ranges = Mapping[str, tuple[float, float]]
#: Of one image each, (1, channels, px, px) as the network takes it.
Images = Iterable[npt.NDArray[np.float32]]
#: Of a sigmoid: they give the scale that TFLite prescribes for one, 1/256, zero point −128.
SIGMOID_BOUNDS = (0.0, 255 / 256)
_IMAGES, _LEVELS = 4, 255
_BOUNDS = {"Sigmoid": SIGMOID_BOUNDS, "HardSigmoid": (0.0, 1.0)}


def normal_images(
    subject: Architecture | NetworkGraph | Operator, seed: int = 0, count: int = _IMAGES
) -> Iterator[npt.NDArray[np.float32]]:
    """Random images, for ranges that serve to measure times: normal values of unit scale.

    Args:
        subject: Whose input they are.
        seed: Of the values.
        count: How many, ≥ 1.
    """
    rng = np.random.default_rng(seed)
    shape = _input_shape(subject)
    for _ in range(count):
        yield rng.standard_normal(shape, np.float32)


def calibrated(
    subject: Architecture | NetworkGraph | Operator,
    images: Images | None = None,
    *,
    weights: Arrays | None = None,
    seed: int = 0,
) -> Ranges:
    """The range of each value of a network over some images.

    Args:
        subject: A network, or a single operator.
        images: Each (1, channels, px, px), prepared as the network takes it; None: random ones.
        weights, seed: As for `to_onnx`.
    Returns:
        Least and most of each value by its name in the ONNX form. That of a sigmoid is
        (0, 255/256), of a hard sigmoid (0, 1), whatever the images.
    Raises:
        InvalidArgument: No image, one of another size, one with values that are no numbers, or a
            value of the network that is none; the first is named.
    """
    from .onnx_floats import float_model

    given = normal_images(subject, seed) if images is None else images
    shape = _input_shape(subject)
    return least_and_most(
        float_model(subject, weights=weights, seed=seed),
        (_checked(image, place, shape) for place, image in enumerate(given)),
    )


def settled_ranges(
    subject: Architecture | NetworkGraph | Operator,
    precision: str,
    ranges: Ranges | None,
    *,
    weights: Arrays | None,
    seed: int,
) -> Ranges | None:
    """The ranges that a lowering needs: for int8 those given, or over random images; else None.

    Raises:
        InvalidArgument: Ranges with another precision.
    """
    if precision != "int8":
        if ranges is not None:
            raise InvalidArgument(f"ranges are of int8, and {precision} was asked for")
        return None
    return calibrated(subject, weights=weights, seed=seed) if ranges is None else ranges


def least_and_most(model: onnx.ModelProto, images: Images) -> Ranges:
    """`calibrated`, of a float model with one input."""
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    name = model.graph.input[0].name
    rows = iter(images)
    first = next(rows, None)
    if first is None:
        raise InvalidArgument("no image was given to calibrate on. Give at least one.")
    rows = chain([first], rows)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            image = next(rows, None)
            return None if image is None else {name: image}

    with tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            str(path),
            None,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader())
        found = calibrator.compute_data()
    ranges: dict[str, tuple[float, float]] = {}
    for value in found.data:
        low, high = (float(np.min(end)) for end in found[value].range_value)
        ranges[value] = low, high
    for node in model.graph.node:
        if node.op_type in _BOUNDS:
            ranges[node.output[0]] = _BOUNDS[node.op_type]
    for value, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InvalidArgument(
                f"calibration: {value} of {model.graph.name} is not a number on these images"
            )
    return ranges


def scale_and_zero_point(low: float, high: float) -> tuple[float, int]:
    """Of a range, widened to hold 0.

    Args:
        low, high: Least and most of the value.
    Returns:
        The scale, > 0, a float32; and the zero point of bytes from −128 to 127.
    Source: `onnxruntime.quantization.quant_utils.compute_scale_zp`, whose bytes run from 0.

    >>> scale_and_zero_point(0.0, 255.0), scale_and_zero_point(-1.0, 1.55)
    ((1.0, -128), (0.009999999776482582, -28))
    """
    low, high = min(float(np.float32(low)), 0.0), max(float(np.float32(high)), 0.0)
    scale = (high - low) / _LEVELS
    if scale < np.finfo(np.float32).tiny:
        return 1.0, -128
    return float(np.float32(scale)), int(np.round(-low / scale)) - 128


def _input_shape(subject: Architecture | NetworkGraph | Operator) -> tuple[int, int, int, int]:
    if isinstance(subject, NetworkGraph):
        return 1, 3, subject.resolution_px, subject.resolution_px
    first = subject.operators()[0] if isinstance(subject, Architecture) else subject
    return 1, first.in_channels, first.in_px, first.in_px


def _checked(image: npt.NDArray[Any], place: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if image.shape != shape:
        sides, wanted = ("×".join(map(str, s)) for s in (image.shape, shape))
        raise InvalidArgument(
            f"calibration image {place} is {sides}, and the network takes {wanted}"
        )
    if not np.isfinite(image).all():
        raise InvalidArgument(f"calibration image {place} has values that are no numbers")
    return image.astype(np.float32, copy=False)
