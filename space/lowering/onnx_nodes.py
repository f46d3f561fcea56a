"""Nodes and weights of an ONNX model under construction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from ..operator import Convolution, Operator
from .weights import Arrays, folded

if TYPE_CHECKING:
    from ..detection.head_layer import HeadLayer

__all__ = ["INPUT", "OUTPUT", "Graph"]

INPUT, OUTPUT = "input", "output"
# Old enough for the runtimes that phones carry, new enough for Pad and Slice with inputs.
_OPSET, _IR_VERSION = 13, 7


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

    def arrays(
        self, prefix: str, convolution: Convolution
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weight and bias of a convolution of the layer at `prefix`."""
        return folded(self.weights, self.seed, prefix, convolution)

    def operator(self, prefix: str, operator: Operator | HeadLayer, value: str) -> str:
        """The nodes of one layer; what they give."""
        source = value
        if operator.kind == "head":
            features, *hidden, classifier = operator.convolutions
            value = self.convolution(prefix, features, value)
            value = self.node("GlobalAveragePool", f"{prefix}pool", [value])
            for convolution in hidden:
                value = self.convolution(prefix, convolution, value)
            value = self.node("Flatten", f"{prefix}flatten", [value])
            weight, bias = self.arrays(prefix, classifier)
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
            "AveragePool",
            f"{prefix}skip_pool",
            [value],
            kernel_shape=[3, 3],
            strides=[operator.stride] * 2,
            pads=[1, 1, 1, 1],
        )
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
        weight, bias = self.arrays(prefix, convolution)
        pad, k, s = convolution.kernel // 2, convolution.kernel, convolution.stride
        inputs = [value, self.constant(f"{name}.w", weight)]
        if not convolution.plain:
            inputs.append(self.constant(f"{name}.b", bias))
        value = self.node(
            "Conv",
            name,
            inputs,
            kernel_shape=[k, k],
            strides=[s, s],
            pads=[pad] * 4,
            group=convolution.groups,
        )
        if convolution.activation == "none":
            return value
        return self.activation(f"{name}_", convolution.activation, value)

    def activation(self, prefix: str, function: str, value: str) -> str:
        """The nodes of an activation, named after `prefix` and it."""
        name = f"{prefix}{function}"
        match function:
            case "relu6" | "clip":
                high = 6.0 if function == "relu6" else 1.0
                bounds = [
                    self.constant(f"{prefix}{k}", np.array(v, np.float32))
                    for k, v in (("low", 0.0), ("high", high))
                ]
                return self.node("Clip", name, [value, *bounds])
            case "swish":
                gate = self.node("Sigmoid", f"{prefix}sigmoid", [value])
                return self.node("Mul", name, [value, gate])
            case "hard_swish":  # of its own operator only from a later opset on
                gate = self.node("HardSigmoid", f"{prefix}gate", [value], alpha=1 / 6, beta=0.5)
                return self.node("Mul", name, [value, gate])
            case "hard_sigmoid":
                return self.node("HardSigmoid", name, [value], alpha=1 / 6, beta=0.5)
            case _:
                return self.node({"relu": "Relu", "sigmoid": "Sigmoid"}[function], name, [value])

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
