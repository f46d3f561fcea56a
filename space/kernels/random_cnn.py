"""RandomCNN: random networks, to measure how kernels add up to a whole.

The search spaces hold mobile networks alone. These hold what else image networks are built of:
plain stacks, residual blocks, joined branches, dense concatenation, channel shuffles, inverted
bottlenecks, local response normalisation, wide classifiers. The small ones, of 0.02 to some 30
million multiply-adds, show what a run and a launch cost. Each follows from its number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InvalidArgument
from ..lowering.weights import sequence

if TYPE_CHECKING:
    import onnx

__all__ = ["RandomCNN"]

INPUT, OUTPUT = "input", "output"  # as `to_onnx` names them; it is imported where it is used
_OPSET, _IR_VERSION = 13, 7
_FILLED = 1 << 16  # weights; beyond it they are filled in at loading
_STYLES = ("plain", "residual", "bottleneck", "branches", "dense", "shuffle", "inverted", "mixed")
_TRIES = 200


class _Sizes(NamedTuple):
    """What networks of one class are drawn from; `step` divides all widths."""

    macs: tuple[int, int]
    px: tuple[int, ...]
    inputs: tuple[int, ...]
    step: int
    windows: tuple[int, ...]  # of the stem, its strides and its channels
    strides: tuple[int, ...]
    stem: tuple[int, ...]
    body: tuple[int, ...]
    most: int  # channels
    least_px: int
    hidden: tuple[int, ...]
    classes: tuple[int, ...]
    activations: tuple[str, ...]


_LARGE = _Sizes(
    macs=(30_000_000, 4_000_000_000),
    px=(96, 128, 160, 192, 224, 224, 224),
    inputs=(3,),
    step=8,
    windows=(3, 3, 5, 7, 11),
    strides=(1, 2, 2, 2, 4),
    stem=(16, 32, 64),
    body=(24, 32, 64),
    most=768,
    least_px=10,
    hidden=(512, 1024, 2048, 4096),
    classes=(100, 1000, 1000),
    activations=("Relu",),
)
_SMALL = _Sizes(
    macs=(20_000, 30_000_000),
    px=(10, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96),
    inputs=(1, 3, 3),
    step=2,
    windows=(3, 3, 5),
    strides=(1, 1, 2),
    stem=(8, 12, 16, 24),
    body=(8, 10, 16, 24, 32),
    most=128,
    least_px=5,
    hidden=(32, 64, 128, 256),
    classes=(2, 4, 10, 10, 12, 100),
    activations=("Relu", "Relu", "PRelu", "LeakyRelu", "Clip"),
)


@dataclass(frozen=True)
class RandomCNN:
    """A network by its number.

    Args:
        number: ≥ 0; equal numbers give equal networks. Styles follow each other in turn.
        small: Whether it is one of the small networks, which are numbered by themselves.

    Example:
        >>> RandomCNN(3).key
        'random-cnn-3'
    """

    number: int
    small: bool = False

    def __post_init__(self) -> None:
        if self.number < 0:
            raise InvalidArgument(f"a random network's number is 0 or more, got {self.number}")

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"{'small' if self.small else 'random'}-cnn-{self.number}"

    @classmethod
    def parse(cls, key: str) -> RandomCNN:
        """Inverse of `key`.

        Raises:
            InvalidArgument: Not the key of one.
        """
        match = re.fullmatch(r"(random|small)-cnn-([0-9]{1,9})", key)
        if match is None:
            raise InvalidArgument(f"{key!r} is not a random network, as random-cnn-3 is")
        return cls(int(match[2]), match[1] == "small")

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return self._built.macs

    @property
    def params(self) -> int:
        """Weights, biases aside."""
        return self._built.params

    def to_onnx(self) -> onnx.ModelProto:
        """A float32 model for one image, input `input` (1, 3 or 1, px, px), output `output`."""
        return self._built.model()

    @cached_property
    def _built(self) -> _Builder:
        """The first draw whose cost is near a number drawn evenly on a logarithmic scale."""
        sizes = _SMALL if self.small else _LARGE
        rng = np.random.default_rng([self.number, 13 if self.small else 9])
        aim = np.exp(rng.uniform(*np.log(sizes.macs)))
        best: _Builder | None = None
        for _ in range(_TRIES):
            builder = _Builder(rng, _STYLES[self.number % len(_STYLES)], sizes)
            if best is None or abs(np.log(builder.macs / aim)) < abs(np.log(best.macs / aim)):
                best = builder
            if abs(np.log(best.macs / aim)) < 0.15:
                break
        assert best is not None
        return best

    def __str__(self) -> str:
        return self.key


class _Builder:
    """A network under construction; `x` are names of maps, with channels and side in `shape`."""

    def __init__(self, rng: np.random.Generator, style: str, sizes: _Sizes) -> None:
        self.rng, self.sizes = rng, sizes
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.weights: dict[str, tuple[int, ...]] = {}
        self.shape: dict[str, tuple[int, int]] = {}
        self.macs = self.params = 0
        self.px = self.one(sizes.px)
        self.inputs, self.nonlinear = sizes.inputs[0], sizes.activations[0]
        if len(sizes.activations) > 1:
            self.inputs = self.one(sizes.inputs)
            self.nonlinear = sizes.activations[int(rng.integers(len(sizes.activations)))]
        self.shape[INPUT] = (self.inputs, self.px)
        self.norm = style in ("dense", "mixed") and rng.random() < 0.5
        width = float(np.exp(rng.uniform(np.log(0.4), np.log(2.2))))
        self.finish(self.body(self.stem(width), style, width))

    def one(self, options: tuple[int, ...]) -> int:
        return int(options[int(self.rng.integers(len(options)))])

    def wide(self, channels: float) -> int:
        return max(self.sizes.step, self.sizes.step * round(channels / self.sizes.step))

    # -- nodes --------------------------------------------------------------------------------

    def node(self, op: str, inputs: list[str], shape: tuple[int, int], **attributes: Any) -> str:
        name = f"{len(self.nodes)}.{op.lower()}"
        self.nodes.append((op, inputs, name, attributes))
        self.shape[name] = shape
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = shape
        return name

    def conv(self, x: str, out: int, k: int, s: int = 1, groups: int = 1, relu: bool = True) -> str:
        c, px = self.shape[x]
        new = (px - 1) // s + 1
        self.params += out * c // groups * k * k
        self.macs += out * c // groups * k * k * new * new
        x = self.node(
            "Conv",
            [x, self.weight(out, c // groups, k, k), self.weight(out)],
            (out, new),
            kernel_shape=[k, k],
            strides=[s, s],
            pads=[k // 2] * 4,
            group=groups,
        )
        return self.relu(x) if relu else x

    def relu(self, x: str) -> str:
        more: list[str] = []
        if self.nonlinear == "PRelu":
            more = [self.weight(self.shape[x][0], 1, 1)]
        elif self.nonlinear == "Clip":
            more = ["f0", "f6"]
        return self.node(self.nonlinear, [x, *more], self.shape[x])

    def pool(self, x: str, op: str = "MaxPool", k: int = 3, s: int = 2) -> str:
        c, px = self.shape[x]
        return self.node(
            op,
            [x],
            (c, (px + 2 * (k // 2) - k) // s + 1),
            kernel_shape=[k, k],
            strides=[s, s],
            pads=[k // 2] * 4,
        )

    def concat(self, maps: list[str]) -> str:
        px = self.shape[maps[0]][1]
        return self.node("Concat", maps, (sum(self.shape[m][0] for m in maps), px), axis=1)

    def batch_norm(self, x: str) -> str:
        c = self.shape[x][0]
        return self.node(
            "BatchNormalization", [x, *(self.weight(c) for _ in range(4))], self.shape[x]
        )

    # -- parts --------------------------------------------------------------------------------

    def stem(self, width: float) -> str:
        k, s = self.one(self.sizes.windows), self.one(self.sizes.strides)
        x = self.conv(INPUT, self.wide(self.one(self.sizes.stem) * width), k, s)
        if s == 2 and self.rng.random() < 0.6:
            x = self.pool(x)
        if self.rng.random() < 0.25 and self.shape[x][1] < 60:
            x = self.node("LRN", [x], self.shape[x], size=5)
        return x

    def body(self, x: str, style: str, width: float) -> str:
        channels, least = self.wide(self.one(self.sizes.body) * width), self.sizes.least_px
        while self.shape[x][1] > least:
            mixed = style == "mixed"
            part = _STYLES[int(self.rng.integers(len(_STYLES) - 1))] if mixed else style
            for i in range(int(self.rng.integers(1, 5))):
                x = getattr(self, part)(x, channels, i == 0)
            if self.shape[x][1] > least:
                before = self.shape[x][1]
                x = self.pool(
                    x, "MaxPool" if self.rng.random() < 0.7 else "AveragePool", self.one((2, 3))
                )
                if self.shape[x][1] == before:
                    break
            channels = min(self.wide(channels * self.one((15, 20)) / 10), self.sizes.most)
        return x

    def finish(self, x: str) -> None:
        c, px = self.shape[x]
        if self.rng.random() < 0.65:
            x = self.node("GlobalAveragePool", [x], (c, 1))
            px = 1
        x = self.node("Flatten", [x], (c * px * px, 1))
        hidden = (self.one(self.sizes.hidden),) if self.rng.random() < 0.4 else ()
        for out in (*hidden, self.one(self.sizes.classes)):
            features = self.shape[x][0]
            self.params += features * out
            self.macs += features * out
            x = self.node(
                "Gemm", [x, self.weight(out, features), self.weight(out)], (out, 1), transB=1
            )
            if out in hidden:
                x = self.relu(x)
        if self.rng.random() < 0.5:
            self.node("Softmax", [x], self.shape[x], axis=1)

    def plain(self, x: str, channels: int, first: bool) -> str:
        return self.conv(x, channels, self.one((1, 3, 3, 3, 5)))

    def added(self, x: str, y: str) -> str:
        return self.relu(self.node("Add", [x, y], self.shape[x]))

    def residual(self, x: str, channels: int, first: bool) -> str:
        y = self.conv(self.conv(x, channels, 3), channels, 3, relu=False)
        return self.added(
            y, x if self.shape[x][0] == channels else self.conv(x, channels, 1, relu=False)
        )

    def bottleneck(self, x: str, channels: int, first: bool) -> str:
        out = 4 * channels
        y = self.conv(self.conv(self.conv(x, channels, 1), channels, 3), out, 1, relu=False)
        return self.added(y, x if self.shape[x][0] == out else self.conv(x, out, 1, relu=False))

    def branches(self, x: str, channels: int, first: bool) -> str:
        part = self.wide(channels / 3)
        count = int(self.rng.integers(2, 5))
        maps = [self.conv(x, 2 * part, 1), self.conv(self.conv(x, part, 1), 2 * part, 3)]
        if count > 2:
            maps.append(self.conv(self.conv(x, self.wide(part / 2), 1), part, 5))
        if count > 3:
            maps.append(self.conv(self.pool(x, "MaxPool", 3, 1), part, 1))
        return self.concat(maps)

    def dense(self, x: str, channels: int, first: bool) -> str:
        if first and self.shape[x][0] > 2 * channels:
            x = self.conv(x, channels, 1)
        growth = self.wide(channels / 3)
        for _ in range(3):
            y = self.relu(self.batch_norm(x)) if self.norm else x
            x = self.concat([x, self.conv(self.conv(y, 3 * growth, 1), growth, 3)])
        return x

    def shuffle(self, x: str, channels: int, first: bool) -> str:
        groups = self.one((2, 4))
        out = groups * self.wide(channels / groups)
        x = x if self.shape[x][0] == out else self.conv(x, out, 1)
        y = self.conv(x, out, 1, groups=groups)
        _, px = self.shape[y]
        split = self.node("Reshape", [y, f"[1,{groups},{out // groups},{px},{px}]"], (out, px))
        turned = self.node("Transpose", [split], (out, px), perm=[0, 2, 1, 3, 4])
        y = self.node("Reshape", [turned, f"[1,{out},{px},{px}]"], (out, px))
        y = self.conv(
            self.conv(y, out, 3, groups=out, relu=False), out, 1, groups=groups, relu=False
        )
        return self.added(y, x)

    def inverted(self, x: str, channels: int, first: bool) -> str:
        c = self.shape[x][0]
        middle = c * self.one((2, 3, 4, 6))
        out = self.wide(channels / 2)
        y = self.conv(self.conv(x, middle, 1), middle, self.one((3, 5)), groups=middle)
        y = self.conv(y, out, 1, relu=False)
        return self.node("Add", [y, x], self.shape[y]) if out == c else y

    # -- the model ----------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        from onnx import TensorProto, helper

        made: dict[str, onnx.TensorProto] = {}
        fills: list[onnx.NodeProto] = []
        for name, shape in self.weights.items():
            size = int(np.prod(shape))
            scale = (
                np.float32((2 / max(1, size // shape[0])) ** 0.5)
                if len(shape) > 1
                else np.float32(1)
            )
            if size > _FILLED:
                made[name] = _tensor(f"{name}.shape", np.array(shape, np.int64))
                value = helper.make_tensor("v", TensorProto.FLOAT, [1], [float(scale) / 8])
                fills.append(
                    helper.make_node("ConstantOfShape", [f"{name}.shape"], [name], value=value)
                )
            else:
                values = np.abs(sequence(0)) if len(shape) == 1 else sequence(0)
                made[name] = _tensor(name, np.resize(values * scale, shape))
        nodes = list(fills)
        last = self.nodes[-1][2]
        for op, inputs, name, attributes in self.nodes:
            read = []
            for i in inputs:
                if i.startswith("["):
                    made[i] = _tensor(i, np.array([int(n) for n in i[1:-1].split(",")], np.int64))
                elif i in ("f0", "f6"):
                    made[i] = _tensor(i, np.float32(i[1:]).reshape(()))
                read.append(i)
            output = OUTPUT if name == last else name
            nodes.append(helper.make_node(op, read, [output], name=name, **attributes))
        info = helper.make_tensor_value_info
        model = helper.make_model(
            helper.make_graph(
                nodes,
                "random-cnn",
                [info(INPUT, TensorProto.FLOAT, [1, self.inputs, self.px, self.px])],
                [info(OUTPUT, TensorProto.FLOAT, [1, self.shape[last][0]])],
                list(made.values()),
            ),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            producer_name="phonenas",
        )
        model.ir_version = _IR_VERSION
        return model


def _tensor(name: str, array: Any) -> onnx.TensorProto:
    from onnx import TensorProto

    kind = TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT
    if kind == TensorProto.FLOAT:
        array = array.astype(np.float32)
    return TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())
