"""What every kernel of an ONNX graph is made with: shapes, constants, what stands behind it."""

from __future__ import annotations

import math
import re
from typing import Any

from phonenas.space import Kernel

from .onnx_graph import Graph, Node, Shape
from .onnx_layout import Step
from .onnx_lift import lift

__all__ = ["ACTIVATIONS", "FREE", "KernelBuilder", "Refused", "chw"]

ACTIVATIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "LeakyRelu": "leaky_relu",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Elu": "elu",
    "PRelu": "prelu",
}
FREE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_FLOATS = {1, 10, 11, 16}  # of onnx.TensorProto
_NUMBER_BYTES = 4  # sizes of a kernel of its own count as many numbers of float32


class Refused(Exception):
    """No kind of kernel stands for a node."""


class KernelBuilder:
    """Takes nodes of a graph together as kernels."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.taken: set[str] = set()  # first outputs of nodes that are part of an earlier kernel
        self.entry: dict[str, str] = {}  # a convolution's padded input → before the padding
        self.parts: list[Node] = []  # of the present kernel
        self.maker = {o: n for n in graph.nodes for o in n.outputs}

    def floats(self, node: Node) -> bool:
        """Whether a node reads and gives maps in floating point, of one image."""
        maps = [*self.maps(node), node.outputs[0]]
        return node.op in FREE or all(self.graph.types.get(m, 1) in _FLOATS for m in maps)

    def alone(self, nodes: list[Node], node: Node) -> Step:
        """A kernel of the file's own: some nodes, named by the node that computes."""
        _, digest = lift(self.graph, nodes)
        inside = {o for n in nodes for o in n.outputs}
        read = dict.fromkeys(i for n in nodes for i in n.inputs if i and i not in inside)
        given = [o for o in nodes[-1].outputs if o]
        writes = max(1, sum(map(self.numbers, given)))
        window = max(1, round(_macs(self, node) / writes))
        name = re.sub(r"[^a-z0-9]+", "_", node.op.lower()).strip("_") or "node"
        kernel = Kernel(
            "node",
            max(1, sum(map(self.numbers, read))),
            writes,
            kernel=(1, window),
            fused=(name, f"d{digest}"),
        )
        maps = tuple(i for i in read if not self.constant(i))
        return Step(kernel, node.name, maps, given[0], tuple(given[1:]), nodes=tuple(nodes))

    def numbers(self, tensor: str) -> int:
        """Size of a tensor in numbers of four bytes."""
        from onnx import helper

        shape = self.graph.shapes.get(tensor)
        if shape is None:
            return 0
        try:
            size = helper.tensor_dtype_to_np_dtype(self.graph.types.get(tensor, 1)).itemsize
        except KeyError:
            size = _NUMBER_BYTES
        return -(-math.prod(shape) * size // _NUMBER_BYTES)

    def refused(self, node: Node, why: str = "") -> Refused:
        return Refused(why)

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
        self.parts.append(node)
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


def _macs(c: KernelBuilder, node: Node) -> int:
    """Multiply-adds of a node where they are known, else 0."""
    shapes = [c.shape(i) for i in node.inputs]
    out = math.prod(c.shape(node.outputs[0]))
    op = node.op
    if op in ("Conv", "ConvInteger", "QLinearConv"):
        return out * math.prod(shapes[3 if op == "QLinearConv" else 1][1:])
    if op == "ConvTranspose":
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return out * (shapes[0][-1] if shapes[0] else 1)
    if op == "Gemm":
        return out * shapes[0][0 if node.attributes.get("transA") else 1]
    if op in ("LSTM", "GRU", "RNN"):
        steps = math.prod(shapes[0][:2])
        return steps * sum(math.prod(s) for s in shapes[1:3])
    return 0
