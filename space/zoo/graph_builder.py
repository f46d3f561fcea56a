"""GraphBuilder: a `NetworkGraph` built node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from ..errors import InvalidArgument
from ..graph import IMAGE, Function, NetworkGraph, Node, Op, Pair

__all__ = ["GraphBuilder"]

_MAX_PX = 2048


class GraphBuilder:
    """A graph under construction; a value is the index of the node that gives it.

    Args:
        resolution_px: Side of the input.
        activation: What `conv` puts behind a convolution where nothing else is said.
        channels: Of the input.
    Raises:
        InvalidArgument: A map becomes smaller than a window, or channels do not fit.
    """

    def __init__(
        self, resolution_px: int, activation: Function = "relu", channels: int = 3
    ) -> None:
        if not 1 <= resolution_px <= _MAX_PX:
            raise InvalidArgument(
                f"a resolution of {resolution_px} px cannot be taken: 1 to {_MAX_PX} px can"
            )
        self.nodes: list[Node] = []
        self.resolution_px, self.in_channels = resolution_px, channels
        self.default: Function = activation
        self.gating: tuple[Function, Function] = ("relu", "sigmoid")  # of a gate's convolutions

    def channels(self, x: int) -> int:
        return self.in_channels if x == IMAGE else self.nodes[x].channels

    def px(self, x: int) -> int:
        return self.resolution_px if x == IMAGE else self.nodes[x].px

    def _node(self, op: Op, inputs: Sequence[int], **fields: object) -> int:
        x = inputs[0]
        given = {
            "in_channels": self.channels(x),
            "in_px": self.px(x),
            "channels": self.channels(x),
            "px": self.px(x),
        }
        node = Node(op, tuple(inputs), **{**given, **fields})  # type: ignore[arg-type]
        if node.channels < 1:
            raise InvalidArgument("this width leaves a layer without channels. Take a larger one.")
        if node.px < 1:
            raise InvalidArgument(
                f"a resolution of {self.resolution_px} px cannot be taken: "
                f"a {node.kernel[0]}×{node.kernel[1]} window meets a map of {node.in_px} px"
            )
        self.nodes.append(node)
        return len(self.nodes) - 1

    def conv(
        self,
        x: int,
        out: int,
        kernel: int | Pair = 1,
        stride: int = 1,
        *,
        act: Function | None = None,
        groups: int = 1,
        pad: int | Pair | None = None,
        **flags: bool,
    ) -> int:
        """A convolution with BatchNorm (unless `normalised` is False) and an activation.

        `groups` 0 is a depthwise one. Padding is half the kernel unless given. `bias` is False
        where there is BatchNorm, else True.
        """
        pair = (kernel, kernel) if isinstance(kernel, int) else kernel
        inside = self.channels(x)
        groups = groups or inside
        if inside % groups or out % groups:
            raise InvalidArgument(f"{groups} groups do not divide {inside}→{out} channels")
        ph, pw = (pair[0] // 2, pair[1] // 2) if pad is None else _pair(pad)
        normalised = flags.get("normalised", True)
        y = self._node(
            "conv",
            [x],
            channels=out,
            px=(self.px(x) + 2 * ph - pair[0]) // stride + 1,
            kernel=pair,
            stride=stride,
            pads=(ph, pw, ph, pw),
            groups=groups,
            normalised=normalised,
            bias=flags.get("bias", not normalised),
            squeeze=flags.get("squeeze", False),
        )
        return self.act(y, act)

    def depthwise(
        self, x: int, kernel: int = 3, stride: int = 1, act: Function | None = None
    ) -> int:
        return self.conv(x, self.channels(x), kernel, stride, groups=0, act=act)

    def act(self, x: int, function: Function | None = None) -> int:
        function = self.default if function is None else function
        if function not in get_args(Function):
            raise InvalidArgument(f"no activation is called {function!r}")
        return x if function == "none" else self._node("activation", [x], function=function)

    def norm(self, x: int, act: Function | None = None) -> int:
        """BatchNorm alone and an activation, as before a convolution."""
        return self.act(self._node("batch_norm", [x]), act)

    def pool(
        self,
        x: int,
        kernel: int = 3,
        stride: int = 2,
        pad: int | None = None,
        *,
        kind: Op = "max_pool",
        ceil: bool = False,
    ) -> int:
        """A pooling; `ceil` pads below and on the right until the last window fits."""
        before = kernel // 2 if pad is None else pad
        px = self.px(x)
        out = (px + 2 * before - kernel) // stride + 1
        after = before
        if ceil and (px + 2 * before - kernel) % stride and out * stride < px + before:
            after += stride - (px + 2 * before - kernel) % stride
            out += 1
        pads = (before, before, after, after)
        return self._node(kind, [x], px=out, kernel=(kernel, kernel), stride=stride, pads=pads)

    def mean(self, x: int) -> int:
        """The mean over the map."""
        return self._node("global_pool", [x], px=1)

    def linear(self, x: int, out: int, bias: bool = True) -> int:
        """The whole map, as one vector, times a matrix."""
        return self._node("linear", [x], channels=out, px=1, bias=bias)

    def add(self, *xs: int, act: Function = "none") -> int:
        """A sum of maps of one shape."""
        if len({(self.channels(x), self.px(x)) for x in xs}) != 1:
            raise InvalidArgument(f"maps of other shapes cannot be added: {self._shapes(xs)}")
        return self.act(self._node("add", xs), act)

    def scale(self, x: int, gate: int) -> int:
        """A map times a vector of channels."""
        return self._node("mul", [x, gate], squeeze=True)

    def gate(self, x: int, squeeze: int) -> int:
        """Squeeze-and-excite: two 1×1 convolutions with biases behind the mean."""
        act, gate = self.gating
        flags = {"normalised": False, "squeeze": True}
        y = self.conv(self.mean(x), squeeze, act=act, **flags)
        return self.scale(x, self.conv(y, self.channels(x), act=gate, **flags))

    def concat(self, xs: Sequence[int]) -> int:
        if len({self.px(x) for x in xs}) != 1:
            raise InvalidArgument(f"maps of other sides cannot be joined: {self._shapes(xs)}")
        if len(xs) == 1:
            return xs[0]
        total = sum(self.channels(x) for x in xs)
        return self._node("concat", xs, in_channels=total, channels=total)

    def slice(self, x: int, start: int, channels: int) -> int:
        if not 0 <= start < start + channels <= self.channels(x):
            raise InvalidArgument(
                f"no channels {start} to {start + channels} of {self.channels(x)}"
            )
        return self._node("slice", [x], channels=channels, start=start)

    def pad(self, x: int, channels: int) -> int:
        return self._node("pad", [x], channels=channels)

    def crop(self, x: int, px: int) -> int:
        """The upper left part of a map."""
        return x if self.px(x) == px else self._node("slice", [x], px=px)

    def shuffle(self, x: int, groups: int) -> int:
        if self.channels(x) % groups:
            raise InvalidArgument(f"{groups} groups do not divide {self.channels(x)} channels")
        return self._node("shuffle", [x], groups=groups)

    def resize(self, x: int, factor: int) -> int:
        return self._node("resize", [x], px=self.px(x) * factor)

    def _shapes(self, xs: Sequence[int]) -> str:
        shapes = ", ".join(f"{self.px(x)}×{self.px(x)}×{self.channels(x)}" for x in xs)
        return f"{shapes}. Does a resolution of {self.resolution_px} px suit this network?"

    def built(self, name: str, **fields: object) -> NetworkGraph:
        """The network; its last node gives the output."""
        nodes = _joined(self.nodes)
        return NetworkGraph(name, nodes, self.resolution_px, **fields)  # type: ignore[arg-type]


def _joined(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, each BatchNorm that alone reads a convolution made a part of it."""
    users = Counter(i for node in nodes for i in node.inputs)
    kept: list[Node] = []
    place = {IMAGE: IMAGE}
    for index, node in enumerate(nodes):
        before = place[node.inputs[0]]
        if node.op == "batch_norm" and before == len(kept) - 1 and users[node.inputs[0]] == 1:
            conv = kept[before]
            if conv.op == "conv" and not conv.normalised:
                kept[before] = replace(conv, normalised=True)
                place[index] = before
                continue
        kept.append(replace(node, inputs=tuple(place[i] for i in node.inputs)))
        place[index] = len(kept) - 1
    return tuple(kept)


def _pair(pad: int | Pair) -> Pair:
    return (pad, pad) if isinstance(pad, int) else pad
