"""One function a kind of node: what kernel it is, with what is folded into it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from phonenas.space import Kernel
from phonenas.space.errors import InvalidArgument

from .onnx_graph import Node
from .onnx_kernel_builder import ACTIVATIONS, FREE, KernelBuilder, chw
from .onnx_layout import Step

__all__ = ["MAKERS"]

_FOLDED = {"relu", "relu6", "clip", "sigmoid", "tanh", "leaky_relu", "hard_sigmoid", "hard_swish"}


def _conv(c: KernelBuilder, node: Node) -> Step | None:
    weight = c.shape(node.inputs[1])
    _one_image(c, node)
    if max(_pair(node, "dilations")) > 1:
        raise c.refused(node, "its window is spread (dilations), which no kernel stands for")
    if len(weight) != 4 or not c.constant(node.inputs[1]):
        raise c.refused(node, "its weights are not a constant of four dimensions")
    out = node.outputs[0]
    while (user := c.graph.only_user(out)) is not None:
        if user.op == "BatchNormalization" or c.per_channel(user, out):
            out = c.fold_into(user, out)
        else:
            break
    out, fused = c.activation_behind(out, _FOLDED)
    source = c.entry.get(node.inputs[0], node.inputs[0])
    if source != node.inputs[0]:
        c.parts.insert(0, c.maker[node.inputs[0]])
    _, *px = chw(c.shape(source))
    kernel = c.kernel(
        "conv",
        node,
        out,
        in_px=(px[0], px[1]),
        kernel=(weight[2], weight[3]),
        stride=_pair(node, "strides"),
        groups=int(node.attributes.get("group", 1)),
        fused=fused,
    )
    return c.step(kernel, node, out, [source])


def _one_image(c: KernelBuilder, node: Node) -> None:
    shape = c.shape(c.maps(node)[0])
    if len(shape) != 4 or shape[0] != 1:
        raise c.refused(node, "not one map of two dimensions")


def _cast(c: KernelBuilder, node: Node) -> Step | None:
    types = c.graph.types
    if types.get(node.inputs[0]) == types.get(node.outputs[0]):
        return None
    raise c.refused(node, "another type")


def _pad(c: KernelBuilder, node: Node) -> Step | None:
    user = c.graph.only_user(node.outputs[0])
    mode = node.attributes.get("mode", b"constant")
    value = c.graph.values.get(node.inputs[2]) if len(node.inputs) > 2 else None
    zero = (value is None or not np.any(value)) and not node.attributes.get("value", 0.0)
    before, after = c.shape(node.inputs[0]), c.shape(node.outputs[0])
    if user and user.op == "Conv" and mode == b"constant" and zero and before[:2] == after[:2]:
        c.entry[node.outputs[0]] = node.inputs[0]
        return None
    return c.step(c.kernel("move", node, node.outputs[0], fused=("pad",)), node, node.outputs[0])


def _linear(c: KernelBuilder, node: Node) -> Step | None:
    constants = [i for i in node.inputs[:2] if c.constant(i)]
    if len(constants) != 1 or len(c.shape(constants[0])) != 2:
        raise c.refused(node, "it multiplies two maps with each other")
    out = node.outputs[0]
    user = c.graph.only_user(out)
    if node.op == "MatMul" and user is not None and user.op == "Add":
        other = [i for i in user.inputs if i != out]
        if len(other) == 1 and c.constant(other[0]):
            out = c.fold_into(user, out)
    out, fused = c.activation_behind(out, {"relu", "sigmoid", "tanh", "leaky_relu"})
    features, rows, _ = chw(c.shape(out))
    came = chw(c.shape(c.maps(node)[0]))
    inside = math.prod(came) // max(rows, 1)
    kernel = Kernel("linear", inside, features, (rows, 1), (rows, 1), fused=fused)
    return c.step(kernel, node, out)


def _pool(c: KernelBuilder, node: Node) -> Step | None:
    kind = "max_pool" if "Max" in node.op else "average_pool"
    _one_image(c, node)
    shape = c.shape(node.inputs[0])
    if node.op == "GlobalAveragePool":
        return c.step(c.kernel("global_pool", node, node.outputs[0]), node, node.outputs[0])
    window = (shape[2], shape[3]) if node.op == "GlobalMaxPool" else _pair(node, "kernel_shape")
    kernel = c.kernel(kind, node, node.outputs[0], kernel=window, stride=_pair(node, "strides"))
    return c.step(kernel, node, node.outputs[0])


def _mean(c: KernelBuilder, node: Node) -> Step | None:
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1:
        value = c.graph.values.get(node.inputs[1])
        axes = None if value is None else value.reshape(-1).tolist()
    rank = len(c.shape(node.inputs[0]))
    if rank != 4 or axes is None or sorted(a % rank for a in axes) != [2, 3]:
        raise c.refused(node, "a mean over something else than the map")
    channels, *px = chw(c.shape(node.inputs[0]))
    kernel = Kernel("global_pool", channels, channels, (px[0], px[1]))
    return c.step(kernel, node, node.outputs[0])


def _binary(c: KernelBuilder, node: Node) -> Step | None:
    kind: Literal["mul", "add"] = "mul" if node.op in ("Mul", "Div") else "add"
    out, maps = node.outputs[0], c.maps(node)
    gate = _swish_gate(c, node)
    if gate is not None:
        c.parts.insert(0, gate)
        return c.step(
            c.kernel("activation", gate, out, fused=("swish",)), node, out, [gate.inputs[0]]
        )
    whole = c.shape(out)
    full = [m for m in maps if c.shape(m) == whole]
    if not full:
        raise c.refused(node, "no operand has the shape of the result")
    channels, *px = chw(whole)
    size = (px[0], px[1])
    kernel = Kernel(kind, channels, channels, size, size, operands=max(1, len(full)))
    return c.step(kernel, node, out, maps)


def _swish_gate(c: KernelBuilder, node: Node) -> Node | None:
    """The sigmoid s in x · s(x), where a runtime makes one kernel of both."""
    if node.op != "Mul" or len(node.inputs) != 2:
        return None
    for x, y in (node.inputs, node.inputs[::-1]):
        for user in c.graph.users.get(x, []):
            if user.op == "Sigmoid" and user.outputs[0] == y and c.graph.only_user(y) is node:
                return user
    return None


def _activation(c: KernelBuilder, node: Node) -> Step | None:
    if node.op == "Sigmoid":
        user = c.graph.only_user(node.outputs[0])
        if user is not None and _swish_gate(c, user) is node:
            return None
    name = c.activation_name(node)
    if not name:
        raise c.refused(node)
    out = node.outputs[0]
    return c.step(c.kernel("activation", node, out, fused=(name,)), node, out)


def _plain(kind: str) -> Callable[[KernelBuilder, Node], Step | None]:
    def make(c: KernelBuilder, node: Node) -> Step | None:
        return c.step(c.kernel(kind, node, node.outputs[0]), node, node.outputs[0])

    return make


def _resize(c: KernelBuilder, node: Node) -> Step | None:
    mode = node.attributes.get("mode", b"nearest")
    if mode != b"nearest":
        raise c.refused(node, f"mode {mode.decode(errors='replace')}; only nearest is known")
    return c.step(c.kernel("resize", node, node.outputs[0]), node, node.outputs[0])


def _lrn(c: KernelBuilder, node: Node) -> Step | None:
    size = int(node.attributes.get("size", 1))
    return c.step(c.kernel("lrn", node, node.outputs[0], kernel=(size, 1)), node, node.outputs[0])


def _concat(c: KernelBuilder, node: Node) -> Step | None:
    shape = c.shape(node.outputs[0])
    if len(shape) == 3 and int(node.attributes.get("axis", 0)) % 3 == 1:
        shape = (*shape, 1)  # rows behind rows, as a detector's boxes: they are what is joined
    channels, *px = chw(shape)
    size = (px[0], px[1])
    kernel = Kernel("concat", channels, channels, size, size, operands=max(2, len(c.maps(node))))
    return c.step(kernel, node, node.outputs[0])


def _transpose(c: KernelBuilder, node: Node) -> Step | None:
    shape = c.shape(node.inputs[0])
    perm = node.attributes.get("perm") or list(range(len(shape)))[::-1]
    if [p for p in perm if shape[p] > 1] == [i for i, n in enumerate(shape) if n > 1]:
        return None  # only sides of 1 move: a new name for the same numbers
    if len(shape) == 5 and list(perm) == [0, 2, 1, 3, 4]:
        channels, size = shape[1] * shape[2], (shape[3], shape[4])
        kernel = Kernel("move", channels, channels, size, size, groups=shape[1], fused=("shuffle",))
    else:
        kernel = c.kernel("move", node, node.outputs[0], fused=("transpose",))
    return c.step(kernel, node, node.outputs[0])


def _slice(c: KernelBuilder, node: Node) -> Step | None:
    kernel = c.kernel("move", node, node.outputs[0], fused=("slice",))
    return c.step(kernel, node, node.outputs[0])


def _split(c: KernelBuilder, node: Node) -> Step | None:
    kernel = c.kernel("move", node, node.inputs[0], fused=("split",))
    return Step(kernel, node.name, tuple(c.maps(node)), node.outputs[0], node.outputs[1:])


def _free(c: KernelBuilder, node: Node) -> Step | None:
    return None


def _pair(node: Node, name: str) -> tuple[int, int]:
    pair = node.attributes.get(name) or [1, 1]
    if len(pair) != 2:
        raise InvalidArgument(f"{name} {pair} are not for maps of two dimensions")
    return int(pair[0]), int(pair[1])


MAKERS: dict[str, Callable[[KernelBuilder, Node], Step | None]] = {
    "Conv": _conv,
    "Gemm": _linear,
    "MatMul": _linear,
    "Pad": _pad,
    "Cast": _cast,
    "Transpose": _transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "ReduceMean": _mean,
    "Clip": _activation,
    "Concat": _concat,
    "LRN": _lrn,
    "Slice": _slice,
    "Split": _split,
    "BatchNormalization": _plain("batch_norm"),
    "Softmax": _plain("softmax"),
    "LogSoftmax": _plain("softmax"),
    "Resize": _resize,
    "Upsample": _resize,
    **dict.fromkeys(("Add", "Sum", "Mul", "Sub", "Div"), _binary),
    **dict.fromkeys(FREE, _free),
    **dict.fromkeys(ACTIVATIONS, _activation),
}
