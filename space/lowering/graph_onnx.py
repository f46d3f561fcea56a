"""Lower a `NetworkGraph` to ONNX, BatchNorm folded into the convolutions before it."""

from __future__ import annotations

import numpy as np
import onnx

from ..graph import NetworkGraph, Node
from .onnx_nodes import INPUT, OUTPUT, Graph
from .weights import Arrays, folded, scale_and_shift

__all__ = ["graph_to_onnx"]


def graph_to_onnx(
    network: NetworkGraph, *, weights: Arrays | None = None, seed: int = 0
) -> onnx.ModelProto:
    """Build an inference model for one image.

    Args:
        network: A network of the zoo.
        weights: Arrays by the names that `graph_to_torch` modules use in their state:
            `{index}.conv.weight`, `{index}.linear.weight` and `.bias`, `{index}.conv_bn.weight` and
            so on, `{index}.batch_norm.weight` and so on. None fills in random values.
        seed: Of the random values.
    Returns:
        A float32 model with input `input` (1, 3, px, px) and output `output` (1, classes).
    Raises:
        InvalidArgument: Weights lack an array, or one has another shape; it is named.
    """
    graph = _Graph(weights, seed)
    values: list[str] = []
    for index, node in enumerate(network.nodes):
        inputs = [INPUT if i < 0 else values[i] for i in node.inputs]
        values.append(graph.lowered(f"{index}.", node, inputs))
    out = values[-1]
    last = network.nodes[-1]
    if last.op != "linear":
        out = graph.node("Flatten", "flatten", [out])
    px = network.resolution_px
    return graph.packed(network.name, [1, 3, px, px], {OUTPUT: (out, [1, last.channels])})


class _Graph(Graph):
    """One node of a network is one or a few of ONNX."""

    def lowered(self, prefix: str, node: Node, inputs: list[str]) -> str:
        name = f"{prefix}{node.op}"
        match node.op:
            case "conv" | "linear":
                return self._weighted(prefix, node, inputs[0])
            case "max_pool" | "average_pool":
                kind = "MaxPool" if node.op == "max_pool" else "AveragePool"
                return self.node(
                    kind,
                    name,
                    inputs,
                    kernel_shape=list(node.kernel),
                    strides=[node.stride] * 2,
                    pads=list(node.pads),
                )
            case "activation":
                return self.activation(prefix, node.function, inputs[0])
            case "batch_norm":
                return self._normalised(prefix, node, inputs[0])
            case "concat":
                return self.node("Concat", name, inputs, axis=1)
            case "slice":
                axes = [1, 2, 3]
                ends = [node.start + node.channels, node.px, node.px]
                bounds = {"starts": [node.start, 0, 0], "ends": ends, "axes": axes}
                if node.px == node.in_px:
                    bounds = {k: v[:1] for k, v in bounds.items()}
                elif node.channels == node.in_channels:
                    bounds = {k: v[1:] for k, v in bounds.items()}
                return self.node("Slice", name, [inputs[0], *self._constants(prefix, bounds)])
            case "pad":
                more = node.channels - node.in_channels
                pads = {"pads": [0, 0, 0, 0, 0, more, 0, 0]}
                return self.node("Pad", name, [inputs[0], *self._constants(prefix, pads)])
            case "shuffle":
                return self._shuffled(prefix, node, inputs[0])
            case "resize":
                factor = node.px / node.in_px
                scales = self.constant(
                    f"{prefix}scales", np.array([1, 1, factor, factor], np.float32)
                )
                return self.node(
                    "Resize",
                    name,
                    [inputs[0], "", scales],
                    mode="nearest",
                    coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor",
                )
            case _:
                kind = {"global_pool": "GlobalAveragePool", "add": "Add", "mul": "Mul"}[node.op]
                return self.node("Sum" if len(inputs) > 2 else kind, name, inputs)

    def _constants(self, prefix: str, values: dict[str, list[int]]) -> list[str]:
        return [self.constant(f"{prefix}{k}", np.array(v, np.int64)) for k, v in values.items()]

    def _weighted(self, prefix: str, node: Node, value: str) -> str:
        weight, bias = folded(self.weights, self.seed, prefix, node)
        name = f"{prefix}{node.op}"
        if node.op == "linear":
            value = self.node("Flatten", f"{prefix}flatten", [value])
            weight = weight.reshape(weight.shape[:2])
        inputs = [value, self.constant(f"{name}.w", weight)]
        if node.bias or node.normalised:
            inputs.append(self.constant(f"{name}.b", bias))
        if node.op == "linear":
            return self.node("Gemm", name, inputs, transB=1)
        return self.node(
            "Conv",
            name,
            inputs,
            kernel_shape=list(node.kernel),
            strides=[node.stride] * 2,
            pads=list(node.pads),
            group=node.groups,
        )

    def _normalised(self, prefix: str, node: Node, value: str) -> str:
        name = f"{prefix}batch_norm"
        scale, shift = scale_and_shift(self.weights, name, node.channels)
        arrays = {"w": scale, "b": shift, "mean": 0 * scale, "var": np.ones_like(scale)}
        inputs = [self.constant(f"{name}.{k}", a.astype(np.float32)) for k, a in arrays.items()]
        return self.node("BatchNormalization", name, [value, *inputs], epsilon=0.0)

    def _shuffled(self, prefix: str, node: Node, value: str) -> str:
        each, px = node.channels // node.groups, node.px
        split = np.array([1, node.groups, each, px, px], np.int64)
        whole = np.array([1, node.channels, px, px], np.int64)
        value = self.node("Reshape", f"{prefix}split", [value, self.constant(f"{prefix}to", split)])
        value = self.node("Transpose", f"{prefix}turn", [value], perm=[0, 2, 1, 3, 4])
        joined = self.constant(f"{prefix}back", whole)
        return self.node("Reshape", f"{prefix}join", [value, joined])
