"""onnx_bytes(): how large the ONNX file of a network of blocks is, exactly, without its weights.

The bytes of a layer in the file depend on the layer, and on how long the names of its place and of
its input are. So each is counted once, and a network costs a look-up a layer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from ..architecture import Architecture
from ..operator import Convolution, Operator
from .onnx_nodes import INPUT, OUTPUT, Graph

__all__ = ["onnx_bytes"]


class _Counted(Graph):
    """A graph whose weights take no memory; how many bytes each takes in a file is kept.

    Attributes:
        raw: Bytes of each initializer's values, in their order.
    """

    def __init__(self) -> None:
        super().__init__(None, 0)
        self.raw: list[int] = []

    def arrays(
        self, prefix: str, convolution: Convolution
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        zero = np.float32(0)
        return (
            np.broadcast_to(zero, convolution.weight_shape),
            np.broadcast_to(zero, (convolution.out_channels,)),
        )

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        kind = TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT
        self.initializers.append(TensorProto(name=name, data_type=kind, dims=array.shape))
        self.raw.append(array.nbytes)
        return name

    @property
    def size(self) -> int:
        """Bytes of its nodes and initializers in a file."""
        tensors = zip(self.initializers, self.raw, strict=True)
        return sum(_field(n.ByteSize()) for n in self.nodes) + sum(
            _field(tensor.ByteSize() + _field(raw)) for tensor, raw in tensors
        )


def onnx_bytes(network: Architecture) -> int:
    """Size of the file that `export-network` writes of a network, in bytes, > 0."""
    operators = network.operators()
    content, name, last = 0, INPUT, len(operators) - 1
    for index, operator in enumerate(operators):
        size, name_length = _layer(operator, len(str(index)), len(name), index == last)
        content += size
        name = "x" * name_length
    first, end = operators[0], operators[-1]
    shape = (first.in_channels, first.in_px, first.in_px)
    rest, graph = _around(shape, end.out_channels, end.out_px if end.kind != "head" else 0)
    return rest + _field(graph + content)


@lru_cache(maxsize=1 << 16)
def _layer(operator: Operator, digits: int, name_length: int, last: bool) -> tuple[int, int]:
    """Bytes of a layer in a file, and how long the name is of what it gives.

    Args:
        operator: The layer.
        digits: Of the number of its place.
        name_length: Of its input's name.
        last: Whether its output is the network's.
    """
    graph = _Counted()
    value = graph.operator("0" * digits + ".", operator, "x" * name_length)
    if last:
        graph.packed("", [], {OUTPUT: (value, [])})  # gives the output its name
    return graph.size, len(value)


@lru_cache(maxsize=256)
def _around(shape: tuple[int, int, int], out_channels: int, out_px: int) -> tuple[int, int]:
    """Bytes of the file around its graph, and of the graph around its layers."""
    out_shape = [1, out_channels, *([out_px] * 2 if out_px else [])]
    model: ModelProto = _Counted().packed("network", [1, *shape], {OUTPUT: ("", out_shape)})
    graph = int(model.graph.ByteSize())
    return int(model.ByteSize()) - _field(graph), graph


def _field(size: int) -> int:
    """Bytes of a field of so many bytes: with its tag, and its length in groups of seven bits."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size
