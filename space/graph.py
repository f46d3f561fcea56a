"""NetworkGraph: a whole network as a graph of plain operations.

An `Architecture` is a line of equal blocks. Networks that are not (residual networks, dense ones,
those that split and join maps) are a tuple of nodes, each after the nodes that it reads. Kernels,
counts, ONNX, TFLite and torch forms follow from it; `zoo.graph_builder.GraphBuilder` builds one.

Conventions: maps are square; an average pooling leaves padding out of its mean; BatchNorm counts
two parameters a channel; the convolutions of a gate (squeeze-and-excite) have parameters and, as in
the published counts and in `Operator.macs`, no MACs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

from .architecture import Architecture
from .drawing import Row, drawing
from .kernels.kernel import Kernel

__all__ = [
    "IMAGE",
    "Classifier",
    "Function",
    "NetworkGraph",
    "Node",
    "Op",
    "Pads",
    "Pair",
    "Runtime",
]

Op = Literal[
    "conv",  # 2-D convolution, in groups
    "linear",  # the whole map as one vector times a matrix
    "max_pool",
    "average_pool",
    "global_pool",  # mean over the map
    "add",
    "mul",  # of two maps, or of a map and a vector of channels
    "activation",
    "batch_norm",  # alone: before a convolution, or behind a sum
    "concat",
    "slice",  # channels `start` to `start + channels`, or the upper left part of the map
    "pad",  # channels of zeros behind those that there are
    "shuffle",  # channels of `groups` groups in turn
    "resize",  # nearest neighbour, by a whole factor
]
Function = Literal[
    "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid", "clip", "none"
]
Runtime = Literal["tflite", "onnx"]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # above, left, below, right

IMAGE = -1  # the index of the input
# What a runtime folds into the operation before it. TFLite's converter clamps; ONNX Runtime knows
# more behind a convolution (see `latency_model.graphs`) and nothing behind a sum.
_CLAMPS = frozenset(("relu", "relu6"))
_FOLDED: dict[str, dict[str, frozenset[str]]] = {
    "tflite": dict.fromkeys(("conv", "linear", "add", "mul", "batch_norm"), _CLAMPS),
    "onnx": {
        "conv": _CLAMPS | {"sigmoid", "hard_sigmoid", "hard_swish", "clip"},
        "linear": frozenset(("relu", "sigmoid")),
    },
}
_MOVES = ("slice", "pad", "shuffle")


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Args:
        op: What it computes.
        inputs: Indices of the nodes that it reads, each smaller than its own; -1 is the image.
        in_channels, in_px: Channels and side in pixels of its first input, of a concat of all.
        channels, px: What it gives.
        kernel, stride, pads: Of a convolution or pooling; pads above, left, below, right.
        groups: Of a convolution or a shuffle.
        normalised: A convolution with BatchNorm behind it.
        bias: A convolution or linear with a bias.
        squeeze: A convolution of a gate.
        function: Of an activation.
        start: First channel of a slice.
    """

    op: Op
    inputs: tuple[int, ...]
    in_channels: int
    in_px: int
    channels: int
    px: int
    kernel: Pair = (1, 1)
    stride: int = 1
    pads: Pads = (0, 0, 0, 0)
    groups: int = 1
    normalised: bool = False
    bias: bool = False
    squeeze: bool = False
    function: Function = "none"
    start: int = 0

    # `name`, `weight_shape` and `out_channels` are what `lowering.weights.folded` asks of a
    # convolution.
    @property
    def name(self) -> str:
        """Of its weights."""
        return self.op

    @property
    def out_channels(self) -> int:
        """Channels that it gives."""
        return self.channels

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight, (out, in / groups, k, k); of a linear (out, in, 1, 1)."""
        if self.op == "linear":
            return (self.channels, self.in_channels * self.in_px**2, 1, 1)
        return (self.channels, self.in_channels // self.groups, *self.kernel)

    @property
    def weighted(self) -> bool:
        """Whether it has a weight."""
        return self.op in ("conv", "linear")

    @property
    def words(self) -> str:
        """What it is in words, without its shape: "3×3 depthwise"; of a node with a weight."""
        if self.op == "linear":
            return "linear"
        kind = " depthwise" if self.groups == self.in_channels else " in groups"
        return f"{self.kernel[0]}×{self.kernel[1]}{kind if self.groups > 1 else ''}"

    @property
    def params(self) -> int:
        """Trainable numbers."""
        if self.op == "batch_norm":
            return 2 * self.channels
        if not self.weighted:
            return 0
        out, inside, kh, kw = self.weight_shape
        return out * (inside * kh * kw + 2 * self.normalised + self.bias)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        if not self.weighted or self.squeeze:
            return 0
        out, inside, kh, kw = self.weight_shape
        return out * inside * kh * kw * self.px**2


def _shape(node: Node) -> tuple[object, ...]:
    """What equal neighbours of a drawing share."""
    return (node.words, node.stride, node.in_px, node.channels)


@dataclass(frozen=True)
class NetworkGraph:
    """A network by its name, and what it computes.

    Args:
        name: As `zoo.names()` lists it.
        nodes: In an order in which they can run; the last gives the output, (classes,).
        resolution_px: Side of the square RGB input, in pixels.
        width: Width multiplier that it was built with.
        classes: Outputs of the classifier.
        default_px: Resolution that its text leaves out.
    """

    name: str
    nodes: tuple[Node, ...]
    resolution_px: int
    width: float = 1.0
    classes: int = 1000
    default_px: int = 224

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image (FLOPs are twice that)."""
        return sum(n.macs for n in self.nodes)

    @cached_property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(n.params for n in self.nodes)

    @cached_property
    def users(self) -> dict[int, list[int]]:
        """Of each node, the nodes that read it."""
        users: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for i in node.inputs:
                users.setdefault(i, []).append(index)
        return users

    def rows(self) -> list[Row]:
        """Its nodes with weights as a drawing shows them, equal neighbours as one row."""
        found = []
        for _, run in groupby((n for n in self.nodes if n.weighted), _shape):
            nodes = list(run)
            first, macs = nodes[0], sum(n.macs for n in nodes)
            words = [first.words + (f", {len(nodes)} layers" if len(nodes) > 1 else "")]
            words += [f"stride {first.stride}"] * (first.stride > 1)
            words.append(f"{first.channels} {'outputs' if first.op == 'linear' else 'channels'}")
            side, text = max(first.kernel), ", ".join(words)
            found.append(Row(text, len(nodes), side, first.in_px, first.channels, macs))
        return found

    def _repr_html_(self) -> str:
        """Its drawing, in a notebook."""
        return drawing(self.rows())

    @property
    def key(self) -> str:
        """Its name in the store: its text."""
        return str(self)

    def __str__(self) -> str:
        words = [self.name]
        if self.width != 1:
            words.append(f"width{self.width!r}".removesuffix(".0"))
        if self.resolution_px != self.default_px:
            words.append(f"res{self.resolution_px}")
        if self.classes != 1000:
            words.append(f"classes{self.classes}")
        return " ".join(words)

    def folded(self, index: int, runtime: Runtime) -> int | None:
        """The activation that a runtime folds into a node; None for none."""
        names, users = _FOLDED[runtime].get(self.nodes[index].op, ()), self.users.get(index, [])
        if len(users) != 1 or self.nodes[users[0]].op != "activation":
            return None
        return users[0] if self.nodes[users[0]].function in names else None

    def kernels(self, runtime: Runtime = "tflite") -> tuple[Kernel, ...]:
        """What a runtime launches, in order.

        Args:
            runtime: "tflite" folds ReLU and ReLU6; "onnx" what ONNX Runtime folds, as
                `phonenas.latency_model.graphs` cuts the ONNX form.
        """
        taken: set[int] = set()
        kernels = []
        for index, node in enumerate(self.nodes):
            if index in taken:
                continue
            after = self.folded(index, runtime)
            if after is not None:
                taken.add(after)
            kernels.append(_kernel(node, None if after is None else self.nodes[after].function))
        return tuple(kernels)

    def with_classes(self, classes: int) -> NetworkGraph:
        """The same network with another number of outputs, ≥ 1."""
        last = max(i for i, n in enumerate(self.nodes) if n.weighted)
        ends = [replace(self.nodes[last], channels=classes)]
        ends += [replace(n, in_channels=classes, channels=classes) for n in self.nodes[last + 1 :]]
        return replace(self, nodes=(*self.nodes[:last], *ends), classes=classes)

    def operators(self) -> tuple[Kernel, ...]:
        """Its kernels: what a table lists of it."""
        return self.kernels("onnx")


#: A network that gives each class a number.
Classifier = Architecture | NetworkGraph


def _kernel(node: Node, function: str | None) -> Kernel:
    fused = () if function is None else (function,)
    in_px, px, channels = node.in_px, node.px, node.in_channels
    operands, groups = 1, 1
    if node.op == "activation" or node.op in _MOVES:
        fused = (node.function if node.op == "activation" else node.op,)
    if node.op == "linear":
        channels, in_px = channels * in_px**2, 1
    if node.op in ("conv", "shuffle"):
        groups = node.groups
    if node.op in ("add", "concat") or (node.op == "mul" and not node.squeeze):
        operands = len(node.inputs)
    return Kernel(
        "move" if node.op in _MOVES else node.op,  # type: ignore[arg-type]
        channels,
        node.channels,
        (in_px, in_px),
        (px, px),
        node.kernel,
        (node.stride, node.stride),
        groups,
        operands,
        fused,
    )
