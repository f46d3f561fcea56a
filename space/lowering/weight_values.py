"""WeightValues: what numbers the weights of a network's file are, as far as its time may depend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UnknownName, UnsupportedFormat, reading

__all__ = ["WeightValues", "weight_values"]

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class WeightValues:
    """The floating-point weights of a file, and its nodes.

    Args:
        numbers: How many, ≥ 0.
        denormal: Of them, those that are denormal: in float32 below 1.2e-38, and not 0. Some
            processors compute with such numbers far more slowly.
        zero: Of them, those that are exactly 0; a runtime may skip them.
        nodes: Nodes of the graph that compute, ≥ 0: constants are weights.
    """

    numbers: int
    denormal: int
    zero: int
    nodes: int


def weight_values(path: Path) -> WeightValues:
    """Of an ONNX or a TFLite file; a weight that is stored in integers does not count.

    Raises:
        UnsupportedFormat: Another file, or a damaged one.
        UnknownName, InvalidArgument, MissingExtra: As `whole_model` and `read_tflite`.
    """
    readers = {".onnx": _of_onnx, ".tflite": _of_tflite}
    if path.suffix not in readers:
        raise UnsupportedFormat(f"{path}: weights are read of {' and '.join(readers)} files")
    if not path.is_file():
        raise UnknownName(f"there is no file {path}")
    with reading(str(path), "Export the network again."):
        return _counted(*readers[path.suffix](path))


def _counted(arrays: Iterable[npt.NDArray[Any]], nodes: int) -> WeightValues:
    numbers = denormal = zero = 0
    for array in arrays:
        magnitudes = np.abs(array)
        none = int((magnitudes == 0).sum())
        numbers += array.size
        zero += none
        denormal += int((magnitudes < np.finfo(array.dtype).tiny).sum()) - none
    return WeightValues(numbers, denormal, zero, nodes)


def _of_onnx(path: Path) -> tuple[Iterator[npt.NDArray[Any]], int]:
    from onnx import numpy_helper

    from ..onnx_bytes import whole_model

    graph = whole_model(path).graph
    constants = [n for n in graph.node if n.op_type == "Constant"]
    tensors = [
        *graph.initializer,
        *(a.t for n in constants for a in n.attribute if a.HasField("t")),
    ]
    arrays = map(numpy_helper.to_array, tensors)
    return (a for a in arrays if a.dtype.name in _FLOATS), len(graph.node) - len(constants)


def _of_tflite(path: Path) -> tuple[Iterator[npt.NDArray[Any]], int]:
    from ..tflite_file import constants_of, read_tflite

    nodes = len(read_tflite(path).nodes)  # refuses a damaged file in words
    return (a for a in constants_of(path) if a.dtype.name in _FLOATS), nodes
