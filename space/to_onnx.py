"""Lower an operator or a whole network to ONNX, by hand and without torch.

BatchNorm is folded into the convolution before it; nodes are named `{index}.{what}` after the
operator's place in the network, and keep these names through a runtime's fusion. Without given
weights the values come from a short random sequence that repeats: what a runtime computes
takes as long as with trained ones, and hundreds of models can be built in a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from .architecture import Architecture
from .operator import Convolution, Operator
from .weights import Arrays, folded

if TYPE_CHECKING:
    from .head_layer import HeadLayer

__all__ = ["INPUT", "OUTPUT", "Graph", "to_onnx"]

INPUT, OUTPUT = "input", "output"
# Old enough for the runtimes that phones carry, new enough for Pad and Slice with inputs.
_OPSET, _IR_VERSION = 13, 7


def to_onnx(
    subject: Architecture | Operator, *, weights: Arrays | None = None, seed: int = 0
) -> onnx.ModelProto:
    """Build an inference model for one image.

    Args:
        subject: A network, or a single operator with its own shapes.
        weights: Arrays by the names that `to_torch` modules use in their state:
            `{index}.{convolution}.weight` (out, in / groups, k, k), `.bias` (out,), and
            `{index}.{convolution}_bn.weight`, `.bias`, `.running_mean`, `.running_var` (out,);
            index 0 for a single operator. None fills in random values.
        seed: Of the random values.
    Returns:
        A float32 model with input `input` (1, channels, px, px) and output `output`,
        (1, classes) for a network or head, (1, channels, px, px) otherwise.
    Raises:
        InvalidArgument: Weights lack an array, or one has another shape; it is named.
    """
    operators = subject.operators() if isinstance(subject, Architecture) else (subject,)
    graph = Graph(weights, seed)
    value = INPUT
    for index, operator in enumerate(operators):
        value = graph.operator(f"{index}.", operator, value)
    first, last = operators[0], operators[-1]
    out_shape = [1, last.out_channels]
    if last.kind != "head":
        out_shape += [last.out_px, last.out_px]
    return graph.packed(
        "network" if isinstance(subject, Architecture) else subject.key,
        [1, first.in_channels, first.in_px, first.in_px],
        {OUTPUT: (value, out_shape)},
    )


class Graph:
    """Nodes and weights under construction; a value goes by the name of the node that gives it.

    Args:
        weights, seed: As for `to_onnx`.
    """

    def __init__(self, weights: Arrays | None, seed: int) -> None:
        self.weights = weights
        self.seed = seed
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        tensor = TensorProto(
            name=name,
            data_type=TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT,
            dims=array.shape,
            raw_data=array.tobytes(),
        )
        self.initializers.append(tensor)
        return name

    def operator(self, prefix: str, operator: Operator | HeadLayer, value: str) -> str:
        """The nodes of one layer; what they give."""
        source = value
        if operator.kind == "head":
            features, classifier = operator.convolutions
            value = self.convolution(prefix, features, value)
            value = self.node("GlobalAveragePool", f"{prefix}pool", [value])
            value = self.node("Flatten", f"{prefix}flatten", [value])
            weight, bias = folded(self.weights, self.seed, prefix, classifier)
            name = f"{prefix}{classifier.name}"
            inputs = [value, self.constant(f"{name}.w", weight.reshape(weight.shape[:2]))]
            return self.node("Gemm", name, [*inputs, self.constant(f"{name}.b", bias)], transB=1)
        gate = ""
        for convolution in operator.convolutions:
            if convolution.name == "se_reduce":
                gate = self.node("GlobalAveragePool", f"{prefix}se_pool", [value])
            if convolution.name.startswith("se_"):
                gate = self.convolution(prefix, convolution, gate)
                if convolution.name == "se_expand":
                    value = self.node("Mul", f"{prefix}se_scale", [value, gate])
            else:
                value = self.convolution(prefix, convolution, value)
        if isinstance(operator, Operator) and operator.skip == "pool":
            source = self.pooled(prefix, operator, source)
        if operator.skip != "none":
            value = self.node("Add", f"{prefix}skip", [value, source])
        return value

    def pooled(self, prefix: str, operator: Operator, value: str) -> str:
        """The pool skip: 3×3 average at the layer's stride, channels cut or zero-padded."""
        value = self.node(
            "AveragePool", f"{prefix}skip_pool", [value],
            kernel_shape=[3, 3], strides=[operator.stride] * 2, pads=[1, 1, 1, 1],
        )  # fmt: skip
        more = operator.out_channels - operator.in_channels
        if more > 0:
            pads = np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64)
            return self.node(
                "Pad", f"{prefix}skip_pad", [value, self.constant(f"{prefix}skip_pads", pads)]
            )
        if more < 0:
            bounds = {"start": 0, "end": operator.out_channels, "axis": 1}
            names = [
                self.constant(f"{prefix}skip_{n}", np.array([v], np.int64))
                for n, v in bounds.items()
            ]
            return self.node("Slice", f"{prefix}skip_cut", [value, *names])
        return value

    def convolution(self, prefix: str, convolution: Convolution, value: str) -> str:
        name = f"{prefix}{convolution.name}"
        weight, bias = folded(self.weights, self.seed, prefix, convolution)
        pad, k, s = convolution.kernel // 2, convolution.kernel, convolution.stride
        value = self.node(
            "Conv", name,
            [value, self.constant(f"{name}.w", weight), self.constant(f"{name}.b", bias)],
            kernel_shape=[k, k], strides=[s, s], pads=[pad] * 4, group=convolution.groups,
        )  # fmt: skip
        if convolution.activation == "none":
            return value
        kind = {"relu": "Relu", "sigmoid": "Sigmoid"}[convolution.activation]
        return self.node(kind, f"{name}_{convolution.activation}", [value])

    def packed(
        self, name: str, in_shape: list[int], outputs: dict[str, tuple[str, list[int]]]
    ) -> onnx.ModelProto:
        """The model.

        Args:
            name: Of the graph.
            in_shape: Of the one input.
            outputs: Value and shape of each, by the name that it is to have.
        """
        given = {value: name for name, (value, _) in outputs.items()}
        for node in self.nodes:
            node.input[:] = [given.get(i, i) for i in node.input]
            node.output[:] = [given.get(o, o) for o in node.output]
        infos = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, (_, s) in outputs.items()
        ]
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                name,
                [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, in_shape)],
                infos,
                self.initializers,
            ),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            producer_name="phonenas",
        )
        model.ir_version = _IR_VERSION
        return model
