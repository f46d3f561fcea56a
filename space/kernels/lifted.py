"""LiftedKernel: a kernel of somebody else's file, measured as it stands there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..lowering.weights import sequence
from .kernel import Kernel

__all__ = ["LiftedKernel", "filled"]

_FLOATS = (1, 10, 11, 16)  # of onnx.TensorProto
_BYTES = (2, 3, 9)


@dataclass(frozen=True)
class LiftedKernel:
    """A kernel with the small graph that computes it.

    Args:
        kernel: What it is, and its name in every table.
        graph: A serialised ONNX model of its nodes; large constants have no numbers.
        precision: What the file computes in.
    """

    kernel: Kernel
    graph: bytes = field(repr=False)
    precision: str = "float32"

    @property
    def key(self) -> str:
        """Its name in the store."""
        return self.kernel.key

    @property
    def macs(self) -> int:
        """Multiply-adds, where known."""
        return self.kernel.macs

    def to_onnx(self) -> Any:
        """The graph, its constants filled: as `kernel_to_onnx`, no time depends on the values."""
        import onnx

        model = onnx.ModelProto.FromString(self.graph)
        for tensor in model.graph.initializer:
            filled(tensor)
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    filled(attribute.t)
        return model


def filled(tensor: Any) -> None:
    """Give a tensor without numbers some: floats at random, bytes any, other integers 0."""
    from onnx import helper

    kinds = ("raw", "float", "int64", "int32", "double", "uint64", "string")
    if not math.prod(tensor.dims) or any(getattr(tensor, f"{k}_data") for k in kinds):
        return
    shape, kind = tuple(tensor.dims), tensor.data_type
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if kind in _FLOATS:
        scale = (2 / max(1, math.prod(shape[1:]))) ** 0.5
        tensor.raw_data = np.resize(sequence(0) * np.float32(scale), shape).astype(dtype).tobytes()
    elif kind in _BYTES:
        values = np.resize(np.abs(sequence(0) * 100) % (2 if kind == 9 else 100), shape)
        tensor.raw_data = values.astype(dtype).tobytes()
    else:
        bits = 4 if kind in (21, 22, 23) else 8 * dtype.itemsize
        tensor.raw_data = bytes(-(-math.prod(shape) * bits // 8))
