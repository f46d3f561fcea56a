"""Lower a `NetworkGraph` to a TFLite flatbuffer; see `tflite` for the form."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import NetworkGraph, Node
from .calibration import Ranges
from .tflite_nodes import CLAMPS, INPUT, OUTPUT, Graph
from .tflite_precision import write_in_precision
from .weights import Arrays, folded, scale_and_shift

__all__ = ["graph_to_tflite"]

_LEAST = np.finfo(np.float32).min  # what a maximum never takes


def graph_to_tflite(
    network: NetworkGraph,
    *,
    weights: Arrays | None = None,
    seed: int = 0,
    precision: str = "float32",
    ranges: Ranges | None = None,
) -> bytes:
    """Build an inference model for one image.

    Args:
        network: A network of the zoo.
        weights, seed: As for `graph_to_onnx`.
        precision, ranges: As for `to_tflite`; int8 with its ranges.
    Returns:
        A model with input `input` (1, px, px, 3) and output `output` (1, classes), float32 both.
    Raises:
        MissingExtra: ai-edge-litert is not installed.
        InvalidArgument: Weights lack an array, or one has another shape; it is named.
    """
    graph = _Graph(weights, seed, precision, ranges)
    px = network.resolution_px
    image = graph.tensor(INPUT, (1, px, px, 3))
    values: list[int] = []
    merged: dict[int, str] = {}  # index of an activation → of what it is folded into
    for index, node in enumerate(network.nodes):
        inputs = [image if i < 0 else values[i] for i in node.inputs]
        if index in merged:
            values.append(inputs[0])
            continue
        after = network.folded(index, "tflite")
        function = None if after is None else network.nodes[after].function
        if after is not None:
            merged[after] = f"{index}"
        value = graph.lowered(f"{index}.", node, inputs, function)
        if after is not None:
            graph.sources[value] = f"{after}.{function}"
        elif node.op in ("add", "mul"):
            graph.sources[value] = f"{index}.{node.op}"
        values.append(value)
    out = values[-1]
    if len(graph.tensors[out].shape) == 4:
        classes = network.nodes[-1].channels
        out = graph.reshaped("flatten", out, (1, classes))
    graph.tensors[out].name = OUTPUT
    return write_in_precision(graph, network.name, out)


class _Graph(Graph):
    """One node of a network is one or a few of TFLite; a value is the index of its tensor."""

    def lowered(self, prefix: str, node: Node, inputs: list[int], function: str | None) -> int:
        name, shape = f"{prefix}{node.op}", (1, node.px, node.px, node.channels)
        clamp = getattr(self.schema.ActivationFunctionType, CLAMPS[function])
        fused = {"fusedActivationFunction": clamp}
        match node.op:
            case "conv":
                return self._convolved(prefix, node, inputs[0], fused)
            case "linear":
                return self._multiplied(prefix, node, inputs[0], fused)
            case "max_pool" | "average_pool":
                return self._pooled(name, node, inputs[0])
            case "global_pool":
                return self.mean(name, inputs[0])
            case "activation":
                return self.activation(prefix, node.function, inputs[0])
            case "batch_norm" if self.ranges is not None:
                pair = scale_and_shift(self.weights, name, node.channels)
                return self.scaled(name, inputs[0], *pair, **fused)
            case "batch_norm":
                pair = scale_and_shift(self.weights, name, node.channels)
                scale, shift = (
                    self.constant(f"{name}.{k}", a.astype(np.float32))
                    for k, a in zip(("w", "b"), pair, strict=True)
                )
                value = self.node("MUL", f"{name}_scale", [inputs[0], scale], shape)
                return self.node("ADD", name, [value, shift], shape, **fused)
            case "add" | "mul":
                value = inputs[0]
                for place, other in enumerate(inputs[1:], start=1):
                    more = fused if place == len(inputs) - 1 else {}
                    value = self.node(
                        node.op.upper(), f"{name}{place}", [value, other], shape, **more
                    )
                return value
            case "concat":
                return self.node("CONCATENATION", name, inputs, shape, axis=3)
            case "slice":
                begin = np.array([0, 0, 0, node.start], np.int32)
                bounds = [self.constant(f"{name}.begin", begin)]
                bounds.append(self.constant(f"{name}.size", np.array(shape, np.int32)))
                return self.node("SLICE", name, [inputs[0], *bounds], shape)
            case "pad":
                more_channels = node.channels - node.in_channels
                return self._zeros(name, inputs[0], (0, 0, 0, 0), more_channels)
            case "shuffle":
                each, px = node.channels // node.groups, node.px
                value = self.reshaped(f"{name}.split", inputs[0], (px, px, node.groups, each))
                turn = self.constant(f"{name}.turn", np.array([0, 1, 3, 2], np.int32))
                value = self.node("TRANSPOSE", name, [value, turn], (px, px, each, node.groups))
                return self.reshaped(f"{name}.join", value, shape)
            case _:
                size = self.constant(f"{name}.size", np.array([node.px] * 2, np.int32))
                return self.node("RESIZE_NEAREST_NEIGHBOR", name, [inputs[0], size], shape)

    def _zeros(
        self, name: str, value: int, pads: tuple[int, int, int, int], channels: int = 0
    ) -> int:
        top, left, below, right = pads
        _, height, width, inside = self.shape(value)
        table = np.array([[0, 0], [top, below], [left, right], [0, channels]], np.int32)
        shape = (1, height + top + below, width + left + right, inside + channels)
        return self.node("PAD", f"{name}_pad", [value, self.constant(f"{name}.pads", table)], shape)

    def _steps(self, node: Node) -> dict[str, Any]:
        return {"strideW": node.stride, "strideH": node.stride}

    def _same(self, node: Node) -> bool:
        """Whether TFLite's SAME pads as the node does."""
        pads = []
        for side in (0, 1):
            total = max(
                0,
                (-(-node.in_px // node.stride) - 1) * node.stride + node.kernel[side] - node.in_px,
            )
            pads.append((total // 2, total - total // 2))
        (top, below), (left, right) = pads
        return node.px == -(-node.in_px // node.stride) and node.pads == (top, left, below, right)

    def _convolved(self, prefix: str, node: Node, value: int, fused: dict[str, Any]) -> int:
        name = f"{prefix}conv"
        weight, bias = folded(self.weights, self.seed, prefix, node)
        padding = self.schema.Padding.SAME
        if not self._same(node):
            padding = self.schema.Padding.VALID
            value = self._zeros(name, value, node.pads) if any(node.pads) else value
        options = {"padding": padding, **self._steps(node), **fused}
        depthwise = 1 < node.groups == node.in_channels
        if depthwise:
            options["depthMultiplier"] = node.channels // node.in_channels
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        turned = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        inputs = [value, self.constant(f"{name}.w", turned), self.constant(f"{name}.b", bias)]
        return self.node(kind, name, inputs, (1, node.px, node.px, node.channels), **options)

    def _multiplied(self, prefix: str, node: Node, value: int, fused: dict[str, Any]) -> int:
        weight, bias = folded(self.weights, self.seed, prefix, node)
        out, c, px = node.channels, node.in_channels, node.in_px
        # Maps are flattened with their channels last here.
        weight = weight.reshape(out, c, px, px).transpose(0, 2, 3, 1).reshape(out, -1)
        name = f"{prefix}linear"
        if px > 1:
            value = self.reshaped(f"{prefix}flatten", value, (1, c * px * px))
        inputs = [value, self.constant(f"{name}.w", weight), self.constant(f"{name}.b", bias)]
        return self.node("FULLY_CONNECTED", name, inputs, (1, out), **fused)

    def _pooled(self, name: str, node: Node, value: int) -> int:
        shape = (1, node.px, node.px, node.channels)
        kind = node.op.upper() + "_2D"
        kh, kw = node.kernel
        if node.op == "average_pool" and self.ranges is not None:
            return self._averaged_bytes(name, node, value, shape)
        options = {"filterHeight": kh, "filterWidth": kw, **self._steps(node)}
        if self._same(node) or not any(node.pads):
            padding = self.schema.Padding.SAME if self._same(node) else self.schema.Padding.VALID
            return self.node(kind, name, [value], shape, padding=padding, **options)
        padding = self.schema.Padding.VALID
        top, left, below, right = node.pads
        side = node.in_px + top + below
        table = np.array([[0, 0], [top, below], [left, right], [0, 0]], np.int32)
        wide = (1, side, side, node.channels)
        if node.op == "max_pool" and self._positive(value):
            # Zeros are the least, too. XNNPACK has a padding with another value in float32 alone.
            value = self._zeros(name, value, node.pads)
            return self.node(kind, name, [value], shape, padding=padding, **options)
        if node.op == "max_pool":
            least = np.array([_LEAST], np.float32)
            inputs = [value, self.constant(f"{name}.pads", table)]
            inputs.append(self.constant(f"{name}.least", least))
            value = self.node("PADV2", f"{name}_pad", inputs, wide)
            return self.node(kind, name, [value], shape, padding=padding, **options)
        # The mean over zeros, too, times the share of each window that is no padding.
        value = self._zeros(name, value, node.pads)
        value = self.node(kind, f"{name}_sum", [value], shape, padding=padding, **options)
        inside = self._inside(node)
        factors = (kh * kw / np.outer(inside, inside)).reshape(1, node.px, node.px, 1)
        border = self.constant(f"{name}.border", factors.astype(np.float32))
        return self.node("MUL", name, [value, border], shape)

    def _inside(self, node: Node) -> list[int]:
        """Of the rows of each window of a pooling, how many are no padding."""
        starts = (i * node.stride - node.pads[0] for i in range(node.px))
        return [min(s + node.kernel[0], node.in_px) - max(s, 0) for s in starts]

    def _averaged_bytes(
        self, name: str, node: Node, value: int, shape: tuple[int, int, int, int]
    ) -> int:
        same = self._same(node)
        if not same and any(node.pads):
            value = self._zeros(name, value, node.pads)
        padding = self.schema.Padding.SAME if same else self.schema.Padding.VALID
        window = (node.kernel, node.stride, padding)
        return self.averaged(name, value, shape, window, self._inside(node))

    def _positive(self, value: int) -> bool:
        """Whether a feature map of 8 bits is at least 0 everywhere."""
        source = self.sources.get(value, self.tensors[value].name)
        if self.ranges is None or isinstance(source, tuple) or source not in self.ranges:
            return False
        return self.ranges[source][0] >= 0
