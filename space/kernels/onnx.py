"""Lower one kernel to ONNX: what it computes and what is folded into it, nothing else.

Weights are short random sequences that repeat (see `weights`); a matrix of millions is one value
filled in at loading, so that its file stays small. No time depends on either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import InvalidArgument
from ..lowering.onnx_nodes import INPUT, OUTPUT
from ..lowering.weights import sequence
from .kernel import Kernel

__all__ = ["kernel_to_onnx"]

_OPSET, _IR_VERSION = 14, 7
_FILLED = 1 << 20  # weights; beyond it they are filled in at loading
_OPERATORS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "elu": "Elu",
    "leaky_relu": "LeakyRelu",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
}


def kernel_to_onnx(kernel: Kernel, *, seed: int = 0) -> onnx.ModelProto:
    """Build a model of one kernel for one image.

    Args:
        kernel: What is launched; "add" and "mul" folded into it read an input of their own.
        seed: Of the random values.
    Returns:
        A float32 model with inputs `input`, `input1`, ... (1, channels, height, width), of a
        linear (1, features), and output `output`.
    Raises:
        InvalidArgument: Shapes that no padding makes agree, or a folded operation without a form.
    """
    if kernel.kind == "node":
        raise InvalidArgument(
            f"{kernel.key} can only be measured with the file that it is of:  phonenas profile "
            "--kernels-of FILE"
        )
    graph = _Graph(seed)
    value = _BODIES[kernel.kind](graph, kernel)
    shape = _out_shape(kernel)
    for name in kernel.fused if kernel.kind not in ("activation", "move") else ():
        if name in ("add", "mul"):
            value = graph.node(name.title(), [value, graph.given(shape)])
        else:
            value = graph.activation(name, value, kernel.out_channels)
    graph.nodes[-1].output[0] = OUTPUT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            kernel.key,
            graph.inputs,
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="phonenas",
    )
    model.ir_version = _IR_VERSION
    return model


def _out_shape(kernel: Kernel) -> list[int]:
    if kernel.kind == "linear":
        rows = kernel.out_px[0] * kernel.out_px[1]
        return [rows, kernel.out_channels]
    if kernel.kind == "softmax" and kernel.out_px == (1, 1):
        return [1, kernel.out_channels]
    return [1, kernel.out_channels, *kernel.out_px]


class _Graph:
    """Nodes and weights under construction."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def given(self, shape: list[int]) -> str:
        name = INPUT + (str(len(self.inputs)) if self.inputs else "")
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{len(self.nodes)}.{kind.lower()}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def tensor(self, array: Any) -> str:
        array = np.asarray(array)
        name = f"w{len(self.initializers)}"
        kind = TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT
        if kind == TensorProto.FLOAT:
            array = array.astype(np.float32)
        self.initializers.append(
            TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())
        )
        return name

    def weights(self, shape: tuple[int, ...], fan_in: int) -> str:
        scale = np.float32((2 / fan_in) ** 0.5)
        if int(np.prod(shape)) > _FILLED:
            value = TensorProto(
                name="v", data_type=TensorProto.FLOAT, dims=[1], float_data=[float(scale)]
            )
            return self.node(
                "ConstantOfShape", [self.tensor(np.array(shape, np.int64))], value=value
            )
        return self.tensor(np.resize(sequence(self.seed) * scale, shape))

    def activation(self, name: str, value: str, channels: int) -> str:
        if name in ("relu6", "clip"):
            high = 6.0 if name == "relu6" else 4.0
            return self.node("Clip", [value, self.tensor(0.0), self.tensor(high)])
        if name == "swish":
            return self.node("Mul", [value, self.node("Sigmoid", [value])])
        if name == "prelu":
            return self.node("PRelu", [value, self.tensor(np.full((channels, 1, 1), 0.25))])
        if name not in _OPERATORS:
            raise InvalidArgument(f"no ONNX form of {name!r} folded into a kernel")
        return self.node(_OPERATORS[name], [value])


def pads(kernel: Kernel) -> list[int]:
    """Padding before and after, height and width, that leads from `in_px` to `out_px`.

    Raises:
        InvalidArgument: None does.
    """
    sizes = []
    for i, o, k, s in zip(kernel.in_px, kernel.out_px, kernel.kernel, kernel.stride, strict=True):
        total = (o - 1) * s + k - i
        if total >= 2 * k or -total >= s + k:
            raise InvalidArgument(f"{kernel.key}: no padding leads from {i} to {o} pixels")
        total = max(total, 0)
        sizes.append((total // 2, total - total // 2))
    return [p[0] for p in sizes] + [p[1] for p in sizes]


def _map(graph: _Graph, k: Kernel) -> str:
    return graph.given([1, k.in_channels, *k.in_px])


def _conv(graph: _Graph, k: Kernel) -> str:
    per_group = k.in_channels // k.groups
    shape = (k.out_channels, per_group, *k.kernel)
    weight = graph.weights(shape, per_group * k.kernel[0] * k.kernel[1])
    bias = graph.tensor(
        sequence(graph.seed)[: k.out_channels]
        if k.out_channels < 65_537
        else np.zeros(k.out_channels)
    )
    return graph.node(
        "Conv",
        [_map(graph, k), weight, bias],
        kernel_shape=list(k.kernel),
        strides=list(k.stride),
        pads=pads(k),
        group=k.groups,
    )


def _linear(graph: _Graph, k: Kernel) -> str:
    value = graph.given([k.in_px[0] * k.in_px[1], k.in_channels])
    weight = graph.weights((k.out_channels, k.in_channels), k.in_channels)
    return graph.node("Gemm", [value, weight, graph.tensor(np.zeros(k.out_channels))], transB=1)


def _pool(graph: _Graph, k: Kernel) -> str:
    kind = "MaxPool" if k.kind == "max_pool" else "AveragePool"
    return graph.node(
        kind, [_map(graph, k)], kernel_shape=list(k.kernel), strides=list(k.stride), pads=pads(k)
    )


def _global(graph: _Graph, k: Kernel) -> str:
    return graph.node("GlobalAveragePool", [_map(graph, k)])


def _binary(graph: _Graph, k: Kernel) -> str:
    kind = "Add" if k.kind == "add" else "Mul"
    first = _map(graph, k)
    if k.operands == 1:  # a vector of channels: constant when added, a gate when multiplied
        vector = [1, k.in_channels, 1, 1]
        other = graph.tensor(np.ones(vector)) if kind == "Add" else graph.given(vector)
        return graph.node(kind, [first, other])
    others = [_map(graph, k) for _ in range(k.operands - 1)]
    return graph.node(kind if k.operands == 2 else "Sum", [first, *others])


def _activation(graph: _Graph, k: Kernel) -> str:
    if len(k.fused) != 1:
        raise InvalidArgument(f"{k.key} names no one activation")
    return graph.activation(k.fused[0], _map(graph, k), k.in_channels)


def _batch_norm(graph: _Graph, k: Kernel) -> str:
    vectors = [graph.tensor(np.full(k.in_channels, v)) for v in (1.1, 0.1, 0.1, 0.9)]
    return graph.node("BatchNormalization", [_map(graph, k), *vectors])


def _lrn(graph: _Graph, k: Kernel) -> str:
    return graph.node("LRN", [_map(graph, k)], size=k.kernel[0], alpha=1e-4, beta=0.75)


def _softmax(graph: _Graph, k: Kernel) -> str:
    vector = k.in_px == (1, 1)
    value = graph.given([1, k.in_channels]) if vector else _map(graph, k)
    return graph.node("Softmax", [value], axis=1)


def _concat(graph: _Graph, k: Kernel) -> str:
    each, more = divmod(k.in_channels, k.operands)
    if not each:
        raise InvalidArgument(f"{k.key} joins more maps than it has channels")
    sizes = [each + (i < more) for i in range(k.operands)]
    return graph.node("Concat", [graph.given([1, c, *k.in_px]) for c in sizes], axis=1)


def _move(graph: _Graph, k: Kernel) -> str:
    value, what = _map(graph, k), "".join(k.fused)
    if what == "shuffle":
        if k.in_channels % k.groups:
            raise InvalidArgument(f"{k.key}: its channels do not divide into its groups")
        h, w = k.in_px
        split = np.array([1, k.groups, k.in_channels // k.groups, h, w], np.int64)
        value = graph.node("Reshape", [value, graph.tensor(split)])
        value = graph.node("Transpose", [value], perm=[0, 2, 1, 3, 4])
        return graph.node(
            "Reshape", [value, graph.tensor(np.array([1, k.in_channels, h, w], np.int64))]
        )
    if what == "transpose":
        # To the channels last; the numbers are the same in any order.
        value = graph.node("Transpose", [value], perm=[0, 2, 3, 1])
        shape = np.array([1, k.out_channels, *k.out_px], np.int64)
        return graph.node("Reshape", [value, graph.tensor(shape)])
    grows = [
        o - i for i, o in zip((k.in_channels, *k.in_px), (k.out_channels, *k.out_px), strict=True)
    ]
    if what == "pad" and min(grows) >= 0:
        amounts = np.array(
            [0, 0, *(g // 2 for g in grows[1:]), 0, grows[0], *(g - g // 2 for g in grows[1:])],
            np.int64,
        )
        return graph.node("Pad", [value, graph.tensor(amounts)])
    if what in ("slice", "split") and max(grows) <= 0:
        ends = np.array([k.out_channels, *k.out_px], np.int64)
        axes = np.array([1, 2, 3], np.int64)
        starts = np.zeros(3, np.int64)
        if what == "slice":
            return graph.node(
                "Slice", [value, graph.tensor(starts), graph.tensor(ends), graph.tensor(axes)]
            )
        half = k.in_channels // 2
        if half:
            sizes = graph.tensor(np.array([half, k.in_channels - half], np.int64))
            graph.nodes.append(
                helper.make_node("Split", [value, sizes], ["half", "rest"], name="split", axis=1)
            )
            return graph.node("Concat", ["rest", "half"], axis=1)
    raise InvalidArgument(f"no ONNX form of a move called {what!r} in {k.key}")


def _resize(graph: _Graph, k: Kernel) -> str:
    sizes = graph.tensor(np.array([1, k.out_channels, *k.out_px], np.int64))
    return graph.node(
        "Resize",
        [_map(graph, k), "", "", sizes],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


_BODIES = {
    "conv": _conv,
    "linear": _linear,
    "max_pool": _pool,
    "average_pool": _pool,
    "global_pool": _global,
    "add": _binary,
    "mul": _binary,
    "activation": _activation,
    "batch_norm": _batch_norm,
    "lrn": _lrn,
    "softmax": _softmax,
    "concat": _concat,
    "move": _move,
    "resize": _resize,
}
