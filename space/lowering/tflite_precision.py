"""write_in_precision(): a TFLite graph under construction as a file in its precision.

float16: weights are stored as float16, which runtimes make float32 as they load them; or compute
with, where they have it.

int8: weights and feature maps are 8 bits wide. Weights: −127 to 127, zero point 0, one scale for
each output channel, or one for the whole of a constant that is added or multiplied. Biases: 32
bits, their scale the input's times the weight's. Feature maps: −128 to 127, their scales from
calibrated ranges. The same numbers as in `onnx_precision.static_int8`, whose bytes run from 0.
Source: the specification of 8 bits of TFLite, ai.google.dev/edge/litert/models/quantization_spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from .calibration import scale_and_zero_point

if TYPE_CHECKING:
    from .tflite_nodes import Graph

__all__ = ["write_in_precision"]

# The first version of each kind that has 8 bits, a scale for each channel of a weight included.
_VERSIONS_OF_BYTES = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "PADV2": 2,
    "QUANTIZE": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "SLICE": 2,
    "TRANSPOSE": 2,
}
_VERSIONS_OF_HALF = {"DEQUANTIZE": 3}
_HALF_MARK = "fp16accfp16"  # by which XNNPACK computes in 16 bits where the processor can
_HALF = ("float16", "float16-weights")
# The axis of the output channels in each kind's weight.
_WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
# What moves values: what it gives has the scale of what it reads.
_MOVES = ("MAX_POOL_2D", "PAD", "PADV2", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "TRANSPOSE")
_COMPUTES = ("ADD", "CONCATENATION", "LOGISTIC", "MEAN", "MUL", "QUANTIZE")
_LEAST, _MOST_OF_WEIGHT, _MOST_OF_BIAS = -128, 127, 2**31 - 1
_QUARTER = 0.25  # the factors of a border are multiples of it, and so exact


def write_in_precision(
    graph: Graph, name: str, *outputs: int, bytes_in: bool = False, bytes_out: bool = False
) -> bytes:
    """The model in the graph's precision.

    Args:
        graph: In float32; it is changed in place.
        name: Of the graph.
        outputs: Values that it gives.
        bytes_in, bytes_out: In int8, whether the input, the outputs are bytes, as within a
            network; else they are float32.
    Raises:
        InvalidArgument: The ranges lack a value, or a node has no kernel of 8 bits; it is named.
    """
    if graph.ranges is not None:
        outputs = _made_bytes(graph, outputs, bytes_in=bytes_in, bytes_out=bytes_out)
        return graph.packed(name, *outputs, versions=_VERSIONS_OF_BYTES)
    if graph.precision not in _HALF:
        return graph.packed(name, *outputs)
    _made_half(graph)
    mark = _HALF_MARK if graph.precision == "float16" else ""
    return graph.packed(name, *outputs, versions=_VERSIONS_OF_HALF, mark=mark)


def _made_bytes(
    graph: Graph, outputs: Sequence[int], *, bytes_in: bool, bytes_out: bool
) -> tuple[int, ...]:
    """Make the tensors of a graph 8 bits wide, in place; the values that it gives then."""
    tensors, kinds = _Tensors(graph, outputs), list(graph.kinds)
    nodes, graph.nodes = graph.nodes, []
    entry = graph.entry
    tensors.scale(entry, *tensors.ranged(entry))
    if not bytes_in:
        graph.entry = tensors.float_beside(entry)
        tensors.converted("QUANTIZE", graph.entry, entry)
    for node in nodes:
        tensors.node(kinds[node.opcodeIndex], node)
    if bytes_out:
        return tuple(outputs)
    taken = []
    for value in outputs:
        taken.append(tensors.float_beside(value))
        tensors.converted("DEQUANTIZE", value, taken[-1])
    return tuple(taken)


def _made_half(graph: Graph) -> None:
    """Store the weights and biases of a graph as float16, each behind a DEQUANTIZE, in place."""
    kinds = list(graph.kinds)
    nodes, graph.nodes = graph.nodes, []
    for node in nodes:
        if kinds[node.opcodeIndex] in _WEIGHTED:
            node.inputs = [node.inputs[0], *(_halved(graph, v) for v in node.inputs[1:])]
        graph.nodes.append(node)


def _halved(graph: Graph, value: int) -> int:
    tensor = graph.tensors[value]
    constant = graph.buffers[tensor.buffer].buffer
    constant.data = constant.data.view(np.float32).astype(np.float16).view(np.uint8)
    tensor.type = graph.schema.TensorType.FLOAT16
    return graph.node("DEQUANTIZE", f"{tensor.name}_float32", [value], tensor.shape)


class _Tensors:
    """The tensors of a graph, and their scales and zero points."""

    def __init__(self, graph: Graph, outputs: Sequence[int]) -> None:
        self.graph, self.outputs = graph, outputs
        assert graph.ranges is not None
        self.ranges = graph.ranges

    def node(self, kind: str, node: Any) -> None:
        """Make what a node reads and gives 8 bits wide, and append it."""
        graph, given = self.graph, node.outputs[0]
        if kind in _WEIGHTED:
            value, weight, bias = node.inputs
            scale, zero_point = self.ranged(given)
            scales = self._weight(weight, _WEIGHTED[kind])
            self._bias(bias, scales * np.float32(self.pair(value)[0]))
        elif kind in _MOVES:
            scale, zero_point = self.pair(node.inputs[0])
            if kind == "PADV2":  # with what a maximum never takes
                self._constant(node.inputs[2], np.int8(_LEAST), [scale], [zero_point])
        elif kind in _COMPUTES:
            for value in node.inputs:
                self._operand(value)
            scale, zero_point = self.ranged(given, node)
            if kind == "CONCATENATION":
                node.inputs = [self._rescaled(v, scale, zero_point) for v in node.inputs]
        else:
            name = graph.tensors[given].name
            raise InvalidArgument(f"int8: {name}, a {kind} of TFLite, has no kernel of 8 bits here")
        self.scale(given, scale, zero_point)
        graph.nodes.append(node)

    def ranged(self, value: int, node: Any = None) -> tuple[float, int]:
        """Scale and zero point by the range of a value."""
        tensor, source = self.graph.tensors[value], self.graph.sources.get(value)
        if isinstance(source, tuple):
            return scale_and_zero_point(*source)
        # What is given bears the name of the output in the ONNX form, too.
        name = tensor.name if source is None or value in self.outputs else source
        if name in self.ranges:
            return scale_and_zero_point(*self.ranges[name])
        if node is not None and source is None and len(node.inputs) == 2:
            # A partial sum, which the ONNX form does not have.
            ends = [self._ends(v) for v in node.inputs]
            return scale_and_zero_point(sum(e[0] for e in ends), sum(e[1] for e in ends))
        raise InvalidArgument(f"the calibrated ranges lack {name}")

    def pair(self, value: int) -> tuple[float, int]:
        """Scale and zero point that a feature map has."""
        quantization = self.graph.tensors[value].quantization
        return quantization.scale[0], quantization.zeroPoint[0]

    def scale(self, value: int, scale: float, zero_point: int) -> None:
        tensor = self.graph.tensors[value]
        tensor.type = self.graph.schema.TensorType.INT8
        tensor.quantization = self._parameters([scale], [zero_point])

    def float_beside(self, value: int) -> int:
        """A float32 tensor that takes the name of one of bytes."""
        tensor = self.graph.tensors[value]
        name, tensor.name = tensor.name, f"{tensor.name}_bytes"
        return self.graph.tensor(name, tensor.shape)

    def converted(self, kind: str, read: int, given: int) -> None:
        """Append a node between two tensors that there are."""
        graph = self.graph
        graph.node(kind, "", [read], [])
        graph.tensors.pop()
        graph.nodes[-1].outputs = [given]

    def _ends(self, value: int) -> tuple[float, float]:
        scale, zero_point = self.pair(value)
        return (_LEAST - zero_point) * scale, (_MOST_OF_WEIGHT - zero_point) * scale

    def _rescaled(self, value: int, scale: float, zero_point: int) -> int:
        if self.pair(value) == (scale, zero_point):
            return value
        tensor = self.graph.tensors[value]
        made = self.graph.node("QUANTIZE", f"{tensor.name}_rescaled", [value], tensor.shape)
        self.scale(made, scale, zero_point)
        return made

    def _parameters(self, scales: list[float], zero_points: list[int], axis: int = 0) -> Any:
        return self.graph.schema.QuantizationParametersT(
            scale=scales, zeroPoint=zero_points, quantizedDimension=axis
        )

    def _values(self, value: int) -> npt.NDArray[np.float32]:
        tensor = self.graph.tensors[value]
        data = self.graph.buffers[tensor.buffer].buffer.data
        floats: npt.NDArray[np.float32] = data.view(np.float32).reshape(tensor.shape)
        return floats

    def _constant(
        self,
        value: int,
        stored: npt.NDArray[Any] | np.int8,
        scales: list[float],
        zero_points: list[int],
        axis: int = 0,
    ) -> None:
        tensor = self.graph.tensors[value]
        array = np.ascontiguousarray(stored).reshape(-1)
        self.graph.buffers[tensor.buffer].buffer.data = array.view(np.uint8)
        tensor.type = getattr(self.graph.schema.TensorType, array.dtype.name.upper())
        tensor.quantization = self._parameters(scales, zero_points, axis)

    def _weight(self, value: int, axis: int) -> npt.NDArray[np.float32]:
        """Make a weight 8 bits wide; its scales, (out,)."""
        weight = self._values(value)
        others = tuple(i for i in range(weight.ndim) if i != axis)
        largest = np.abs(weight).max(axis=others).astype(np.float64)
        scales: npt.NDArray[np.float32] = (largest / _MOST_OF_WEIGHT).astype(np.float32)
        scales[scales < np.finfo(np.float32).tiny] = 1  # of zeros alone
        each = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        stored = np.rint(weight / each).clip(-_MOST_OF_WEIGHT, _MOST_OF_WEIGHT).astype(np.int8)
        self._constant(value, stored, scales.tolist(), [0] * len(scales), axis)
        return scales

    def _bias(self, value: int, scales: npt.NDArray[np.float32]) -> None:
        bias = self._values(value).astype(np.float64) / scales
        stored = np.rint(bias).clip(-_MOST_OF_BIAS, _MOST_OF_BIAS).astype(np.int32)
        self._constant(value, stored, scales.tolist(), [0] * len(scales))

    def _operand(self, value: int) -> None:
        """Make what a sum or product reads 8 bits wide, where it is a constant."""
        tensor = self.graph.tensors[value]
        if not tensor.buffer or tensor.type != self.graph.schema.TensorType.FLOAT32:
            return
        floats = self._values(value)
        quarters = floats / _QUARTER
        scale = float(np.abs(floats).max() / _MOST_OF_WEIGHT)
        if np.abs(quarters).max() <= _MOST_OF_WEIGHT and (quarters == np.rint(quarters)).all():
            scale = _QUARTER
        self._constant(value, np.rint(floats / scale).astype(np.int8), [scale], [0])
