"""Any ONNX network as the kernels that a runtime launches.

What is folded is what ONNX Runtime folds on every computer (its level "extended"): BatchNorm,
factors and shifts into the convolution before them, then an activation; padding with zeros into the
convolution behind it; a bias into a product with a matrix. What more it folds where it lays maps
out in blocks of channels, additions above all, is written beside each kernel by `layout`, and
weighed by the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..space import Kernel
from ..space.errors import InvalidArgument, UncoveredOperator
from ..space.onnx_file import OnnxFile, graph_bytes, without_weights
from .onnx_graph import Graph, Node, Shape, read_graph
from .onnx_layout import Step, laid_out

__all__ = ["OnnxNetwork", "cut"]

ACTIVATIONS = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "LeakyRelu": "leaky_relu",
    "HardSigmoid": "hard_sigmoid", "HardSwish": "hard_swish", "Elu": "elu", "PRelu": "prelu",
}  # fmt: skip
_FOLDED = {"relu", "relu6", "clip", "sigmoid", "tanh", "leaky_relu", "hard_sigmoid", "hard_swish"}
_FREE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"}


@dataclass(frozen=True)
class OnnxNetwork:
    """A network that somebody else wrote, cut.

    Args:
        name: Of the file.
        digest: Of its graph; see `OnnxFile`.
        steps: Its kernels in order, with what the runtime's layout of maps makes of them.
        notes: What was assumed, as a batch of 1.
    """

    name: str
    digest: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Launches in order."""
        return tuple(s.kernel for s in self.steps)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return sum(k.macs for k in self.kernels)

    def __str__(self) -> str:
        return f"{self.name}#{self.digest}"


def cut(model: Path | Any) -> OnnxNetwork:
    """Cut a network into its kernels.

    Args:
        model: Path of an ONNX file, or an `onnx.ModelProto`.
    Raises:
        UnknownName, InvalidArgument: No such file.
        UnsupportedFormat: Not a sound ONNX model, or its shapes are not fixed.
        UncoveredOperator: A node that no kernel stands for; it is named.
    """
    if isinstance(model, Path):
        data, path = graph_bytes(model), model
    else:
        data = without_weights(model.SerializeToString())
        path = Path(model.graph.name or "network")
    file = OnnxFile.of(data, path)
    graph = read_graph(data, str(path), {*_MAKERS, *ACTIVATIONS})
    return OnnxNetwork(file.name, file.digest, laid_out(graph, _Cutter(graph).steps()), graph.notes)


class _Cutter:
    """Goes through a graph in order and takes each node with what is folded into it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.taken: set[str] = set()  # first outputs of nodes that are part of an earlier kernel
        self.entry: dict[str, str] = {}  # a convolution's padded input → before the padding

    def steps(self) -> list[Step]:
        found: list[Step] = []
        for node in self.graph.nodes:
            if node.outputs[0] in self.taken:
                continue
            make = _MAKERS.get(node.op) or (_activation if node.op in ACTIVATIONS else None)
            try:
                step = make(self, node) if make else None
            except InvalidArgument as error:
                raise self.refused(node, str(error)) from error
            if step is not None:
                found.append(step)
            elif make is None:
                raise self.refused(node)
        return found

    def refused(self, node: Node, why: str = "") -> UncoveredOperator:
        return UncoveredOperator(
            f"{self.graph.name}: node {node.name!r} of type {node.op} is no kernel that phonenas "
            f"knows{': ' + why if why else ''}. It can be measured whole:  phonenas profile --device DEVICE "
            f"--network {self.graph.name}"
        )

    # -- helpers ------------------------------------------------------------------------------

    def shape(self, tensor: str) -> Shape:
        return self.graph.shapes.get(tensor, ())

    def constant(self, tensor: str) -> bool:
        return tensor in self.graph.constants

    def maps(self, node: Node) -> list[str]:
        return [i for i in node.inputs if i and not self.constant(i)]

    def fold_into(self, node: Node, out: str) -> str:
        """Take a node as part of the kernel that gives `out`; what the whole gives."""
        self.taken.add(node.outputs[0])
        return node.outputs[0]

    def kernel(self, kind: Any, node: Node, out: str, **more: Any) -> Kernel:
        """A kernel from the first map that a node reads to the tensor `out`."""
        maps = self.maps(node)
        (c, *px), (oc, *opx) = chw(self.shape(maps[0])), chw(self.shape(out))
        given: dict[str, Any] = {"in_px": (px[0], px[1]), "out_px": (opx[0], opx[1]), **more}
        return Kernel(kind, given.pop("in_channels", c), given.pop("out_channels", oc), **given)

    def step(self, kernel: Kernel, node: Node, out: str, maps: list[str] | None = None) -> Step:
        return Step(kernel, node.name, tuple(maps or self.maps(node)), out)

    def activation_behind(self, out: str, allowed: set[str]) -> tuple[str, tuple[str, ...]]:
        """What follows a kernel and is folded into it: the tensor then given, and the names."""
        user = self.graph.only_user(out)
        if user is not None and (name := self.activation_name(user)) in allowed:
            return self.fold_into(user, out), (name,)
        users = self.graph.users.get(out, [])
        if len(users) == 2 and "hard_swish" in allowed and out not in self.graph.outputs:
            gate, product = users
            if (
                gate.op == "HardSigmoid"
                and product.op == "Mul"
                and set(product.inputs) == {out, gate.outputs[0]}
                and self.graph.only_user(gate.outputs[0]) is product
            ):
                self.fold_into(gate, out)
                return self.fold_into(product, out), ("hard_swish",)
        return out, ()

    def activation_name(self, node: Node) -> str:
        """Name of an activation; "" for another node."""
        if node.op != "Clip":
            return ACTIVATIONS.get(node.op, "")
        bounds = [node.attributes.get("min"), node.attributes.get("max")]
        for i, tensor in enumerate(node.inputs[1:3]):
            if tensor and not self.constant(tensor):
                return ""
            value = self.graph.values.get(tensor)
            if value is not None and value.size == 1:
                bounds[i] = float(value.reshape(-1)[0])
        return "relu6" if bounds == [0.0, 6.0] else "clip"

    def per_channel(self, node: Node, out: str) -> bool:
        """Whether a node adds or multiplies one constant a channel (or one in all) to `out`."""
        others = [i for i in node.inputs if i != out]
        if node.op not in ("Mul", "Add") or len(others) != 1 or not self.constant(others[0]):
            return False
        shape, whole = self.shape(others[0]), self.shape(out)
        if len(whole) != 4 or math.prod(shape) == 1:
            return len(whole) == 4
        wide = (1,) * (4 - len(shape)) + shape
        return len(wide) == 4 and wide == (1, whole[1], 1, 1)


def chw(shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width of a tensor of one image.

    >>> chw((1, 64, 56, 56)), chw((1, 1000)), chw((1, 2, 29, 28, 28)), chw((1, 50, 64))
    ((64, 56, 56), (1000, 1, 1), (58, 28, 28), (64, 50, 1))
    """
    if len(shape) >= 5:
        return math.prod(shape[1:-2]), shape[-2], shape[-1]
    if len(shape) == 4:
        return shape[0] * shape[1], shape[2], shape[3]
    if len(shape) in (2, 3):  # rows of features
        return shape[-1], math.prod(shape[:-1]), 1
    return (shape[0] if shape else 1), 1, 1


# -- one function a kind of node ----------------------------------------------------------------


def _conv(c: _Cutter, node: Node) -> Step | None:
    weight = c.shape(node.inputs[1])
    if max(_pair(node, "dilations")) > 1:
        raise c.refused(node, "its window is spread (dilations), which no kernel stands for")
    if len(weight) != 4 or not c.constant(node.inputs[1]):
        raise c.refused(node, "its weights are no constant of four dimensions")
    out = node.outputs[0]
    while (user := c.graph.only_user(out)) is not None:
        if user.op == "BatchNormalization" or c.per_channel(user, out):
            out = c.fold_into(user, out)
        else:
            break
    out, fused = c.activation_behind(out, _FOLDED)
    source = c.entry.get(node.inputs[0], node.inputs[0])
    _, *px = chw(c.shape(source))
    kernel = c.kernel(
        "conv", node, out, in_px=(px[0], px[1]), kernel=(weight[2], weight[3]), stride=_pair(node, "strides"),
        groups=int(node.attributes.get("group", 1)), fused=fused,
    )  # fmt: skip
    return c.step(kernel, node, out, [source])


def _pad(c: _Cutter, node: Node) -> Step | None:
    user = c.graph.only_user(node.outputs[0])
    mode = node.attributes.get("mode", b"constant")
    value = c.graph.values.get(node.inputs[2]) if len(node.inputs) > 2 else None
    zero = (value is None or not np.any(value)) and not node.attributes.get("value", 0.0)
    before, after = c.shape(node.inputs[0]), c.shape(node.outputs[0])
    if user and user.op == "Conv" and mode == b"constant" and zero and before[:2] == after[:2]:
        c.entry[node.outputs[0]] = node.inputs[0]
        return None
    return c.step(c.kernel("move", node, node.outputs[0], fused=("pad",)), node, node.outputs[0])


def _linear(c: _Cutter, node: Node) -> Step | None:
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


def _pool(c: _Cutter, node: Node) -> Step | None:
    kind = "max_pool" if "Max" in node.op else "average_pool"
    shape = c.shape(node.inputs[0])
    if len(shape) != 4:
        raise c.refused(node, "maps of two dimensions only")
    if node.op == "GlobalAveragePool":
        return c.step(c.kernel("global_pool", node, node.outputs[0]), node, node.outputs[0])
    window = (
        (shape[2], shape[3]) if node.op == "GlobalMaxPool" else _pair(node, "kernel_shape")
    )  # fmt: skip
    kernel = c.kernel(kind, node, node.outputs[0], kernel=window, stride=_pair(node, "strides"))
    return c.step(kernel, node, node.outputs[0])


def _mean(c: _Cutter, node: Node) -> Step | None:
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


def _binary(c: _Cutter, node: Node) -> Step | None:
    kind = "mul" if node.op in ("Mul", "Div") else "add"
    out, maps = node.outputs[0], c.maps(node)
    gate = _swish_gate(c, node)
    if gate is not None:
        return c.step(
            c.kernel("activation", gate, out, fused=("swish",)), node, out, [gate.inputs[0]]
        )
    whole = c.shape(out)
    full = [m for m in maps if c.shape(m) == whole]
    if not full:
        raise c.refused(node, "no operand has the shape of the result")
    channels, *px = chw(whole)
    size = (px[0], px[1])
    kernel = Kernel(kind, channels, channels, size, size, operands=max(1, len(full)))  # type: ignore[arg-type]
    return c.step(kernel, node, out, maps)


def _swish_gate(c: _Cutter, node: Node) -> Node | None:
    """The sigmoid s in x · s(x), where a runtime makes one kernel of both."""
    if node.op != "Mul" or len(node.inputs) != 2:
        return None
    for x, y in (node.inputs, node.inputs[::-1]):
        for user in c.graph.users.get(x, []):
            if user.op == "Sigmoid" and user.outputs[0] == y and c.graph.only_user(y) is node:
                return user
    return None


def _activation(c: _Cutter, node: Node) -> Step | None:
    if node.op == "Sigmoid":
        user = c.graph.only_user(node.outputs[0])
        if user is not None and _swish_gate(c, user) is node:
            return None
    name = c.activation_name(node)
    if not name:
        raise c.refused(node)
    out = node.outputs[0]
    return c.step(c.kernel("activation", node, out, fused=(name,)), node, out)


def _plain(kind: str) -> Callable[[_Cutter, Node], Step | None]:
    def make(c: _Cutter, node: Node) -> Step | None:
        return c.step(c.kernel(kind, node, node.outputs[0]), node, node.outputs[0])

    return make


def _resize(c: _Cutter, node: Node) -> Step | None:
    mode = node.attributes.get("mode", b"nearest")
    if mode != b"nearest":
        raise c.refused(node, f"mode {mode.decode(errors='replace')}; only nearest is known")
    return c.step(c.kernel("resize", node, node.outputs[0]), node, node.outputs[0])


def _lrn(c: _Cutter, node: Node) -> Step | None:
    size = int(node.attributes.get("size", 1))
    return c.step(c.kernel("lrn", node, node.outputs[0], kernel=(size, 1)), node, node.outputs[0])


def _concat(c: _Cutter, node: Node) -> Step | None:
    shape = c.shape(node.outputs[0])
    if len(shape) == 3 and int(node.attributes.get("axis", 0)) % 3 == 1:
        shape = (*shape, 1)  # rows behind rows, as a detector's boxes: they are what is joined
    channels, *px = chw(shape)
    size = (px[0], px[1])
    kernel = Kernel("concat", channels, channels, size, size, operands=max(2, len(c.maps(node))))
    return c.step(kernel, node, node.outputs[0])


def _transpose(c: _Cutter, node: Node) -> Step | None:
    shape = c.shape(node.inputs[0])
    perm = node.attributes.get("perm") or list(range(len(shape)))[::-1]
    if [p for p in perm if shape[p] > 1] == [i for i, n in enumerate(shape) if n > 1]:
        return None  # only sides of 1 move: a new name for the same numbers
    if len(shape) == 5 and list(perm) == [0, 2, 1, 3, 4]:
        channels, size = shape[1] * shape[2], (shape[3], shape[4])
        kernel = Kernel(
            "move", channels, channels, size, size, groups=shape[1], fused=("shuffle",)
        )  # fmt: skip
    else:
        kernel = c.kernel("move", node, node.outputs[0], fused=("transpose",))
    return c.step(kernel, node, node.outputs[0])


def _slice(c: _Cutter, node: Node) -> Step | None:
    kernel = c.kernel("move", node, node.outputs[0], fused=("slice",))
    return c.step(kernel, node, node.outputs[0])


def _split(c: _Cutter, node: Node) -> Step | None:
    kernel = c.kernel("move", node, node.inputs[0], fused=("split",))
    return Step(kernel, node.name, tuple(c.maps(node)), node.outputs[0], node.outputs[1:])


def _free(c: _Cutter, node: Node) -> Step | None:
    return None


def _pair(node: Node, name: str) -> tuple[int, int]:
    found = node.attributes.get(name) or [1, 1]
    if len(found) != 2:
        raise InvalidArgument(f"{name} {found} are not for maps of two dimensions")
    return int(found[0]), int(found[1])


_MAKERS: dict[str, Callable[[_Cutter, Node], Step | None]] = {
    "Conv": _conv, "Gemm": _linear, "MatMul": _linear, "Pad": _pad, "Transpose": _transpose,
    "MaxPool": _pool, "AveragePool": _pool, "GlobalAveragePool": _pool, "GlobalMaxPool": _pool,
    "ReduceMean": _mean, "Clip": _activation, "Concat": _concat, "LRN": _lrn, "Slice": _slice,
    "Split": _split, "BatchNormalization": _plain("batch_norm"), "Softmax": _plain("softmax"),
    "LogSoftmax": _plain("softmax"), "Resize": _resize, "Upsample": _resize,
    **dict.fromkeys(("Add", "Sum", "Mul", "Sub", "Div"), _binary), **dict.fromkeys(_FREE, _free),
}  # fmt: skip
