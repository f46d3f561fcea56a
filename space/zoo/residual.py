"""Residual networks: ResNet and its kin, preactivation, squeeze-and-excite, RegNet, DiracNet."""

from __future__ import annotations

import math

from ..architecture import round_channels
from ..graph import IMAGE, Function
from .graph_builder import GraphBuilder as Builder

__all__ = [
    "LAYERS",
    "LAYERS_OF_BOTTLENECKS",
    "bagnet9",
    "basic_unit",
    "bottleneck_unit",
    "diracnet18",
    "preresnet",
    "regnet",
    "resnet",
    "stem",
]

#: Units a stage by the number in the name: of two convolutions, and of three (`bc`).
LAYERS = {
    "10": (1, 1, 1, 1),
    "12": (2, 1, 1, 1),
    "14": (2, 2, 1, 1),
    "16": (2, 2, 2, 1),
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
}
LAYERS_OF_BOTTLENECKS = {"14": (1, 1, 1, 1), "26": (2, 2, 2, 2), "50": (3, 4, 6, 3)}


def stem(g: Builder, width: int, act: Function = "relu") -> int:
    """7×7 and a pooling, each at stride 2."""
    return g.pool(g.conv(IMAGE, width, 7, 2, act=act))


def resnet(
    g: Builder,
    width: float,
    classes: int,
    *,
    layers: tuple[int, ...],
    bottleneck: bool = False,
    gated: bool = False,
    groups: int = 1,
    inner: float = 1.0,
) -> None:
    """ResNet (He et al., 2015), ResNeXt (`groups`), Wide ResNet (`inner` times as wide inside),
    SE-ResNet (`gated`). The 3×3 of a bottleneck has the stride. A width multiplier leaves the last
    unit's channels as they are, as in the edge benchmark."""
    x = stem(g, int(64 * width))
    for stage, n in enumerate(layers):
        for i in range(n):
            out = 64 * 2**stage * (4 if bottleneck else 1)
            if (stage, i) != (len(layers) - 1, n - 1):
                out = int(out * width)
            stride = 2 if stage and not i else 1
            if bottleneck:
                middle = int(out // 4 * inner)
                y = g.conv(x, middle)
                y = g.conv(y, middle, 3, stride, groups=groups)
                y = g.conv(y, out, act="none")
            else:
                y = g.conv(g.conv(x, out, 3, stride), out, 3, act="none")
            if gated:
                y = g.gate(y, out // 16)
            if stride > 1 or g.channels(x) != out:
                x = g.conv(x, out, 1, stride, act="none")
            x = g.add(y, x, act="relu")
    g.linear(g.mean(x), classes)


def preresnet(
    g: Builder,
    width: float,
    classes: int,
    *,
    layers: tuple[int, ...],
    bottleneck: bool = False,
    gated: bool = False,
) -> None:
    """Preactivation ResNet (He et al., 2016); the 3×3 of a bottleneck has the stride."""

    def bare(x: int, out: int, kernel: int = 1, stride: int = 1) -> int:
        return g.conv(x, out, kernel, stride, act="none", normalised=False, bias=False)

    def normed(x: int, out: int, kernel: int, stride: int = 1) -> int:
        return bare(g.norm(x), out, kernel, stride)

    x = stem(g, int(64 * width))
    for stage, n in enumerate(layers):
        for i in range(n):
            out = 64 * 2**stage * (4 if bottleneck else 1)
            if (stage, i) != (len(layers) - 1, n - 1):
                out = int(out * width)
            stride = 2 if stage and not i else 1
            active = g.norm(x)
            if bottleneck:
                y = normed(bare(active, out // 4), out // 4, 3, stride)
                y = normed(y, out, 1)
            else:
                y = normed(bare(active, out, 3, stride), out, 3)
            if gated:
                y = g.gate(y, out // 16)
            if stride > 1 or g.channels(x) != out:
                x = bare(active, out, 1, stride)
            x = g.add(y, x)
    g.linear(g.mean(g.norm(x)), classes)


def regnet(
    g: Builder,
    width: float,
    classes: int,
    *,
    shape: tuple[int, float, float, int, int],
    gated: bool = False,
    divisible: bool = False,
) -> None:
    """RegNet (Radosavovic et al., 2020); with squeeze-and-excite it is Y, else X.

    `shape` is first width, slope, quantisation, depth, channels a group. A width that its groups do
    not divide is rounded to the nearest that they do; `divisible` never rounds down by more than a
    tenth, as torchvision.
    """
    first, slope, step, depth, group = shape
    widths = []
    for i in range(depth):
        power = round(math.log((first + slope * i) / first) / math.log(step))
        wide = round(first * step**power / 8) * 8
        size = min(group, wide)
        widths.append(round_channels(wide, size) if divisible else int(round(wide / size) * size))
    x = g.conv(IMAGE, 32, 3, 2)
    for i, out in enumerate(widths):
        stride, inside = 2 if not i or out != widths[i - 1] else 1, g.channels(x)
        y = g.conv(g.conv(x, out), out, 3, stride, groups=out // min(group, out))
        if gated:
            y = g.gate(y, inside // 4)
        y = g.conv(y, out, act="none")
        if stride > 1 or inside != out:
            x = g.conv(x, out, 1, stride, act="none")
        x = g.add(y, x, act="relu")
    g.linear(g.mean(x), classes)


def basic_unit(g: Builder, x: int, out: int, stride: int = 1) -> int:
    """Two 3×3 convolutions and a shortcut."""
    y = g.conv(g.conv(x, out, 3, stride), out, 3, act="none")
    if stride > 1 or g.channels(x) != out:
        x = g.conv(x, out, 1, stride, act="none")
    return g.add(y, x, act="relu")


def bottleneck_unit(g: Builder, x: int, out: int) -> int:
    """1×1, 3×3, 1×1 and a shortcut, a quarter as wide inside."""
    y = g.conv(g.conv(g.conv(x, out // 4), out // 4, 3), out, act="none")
    if g.channels(x) != out:
        x = g.conv(x, out, act="none")
    return g.add(y, x, act="relu")


def diracnet18(g: Builder, width: float, classes: int) -> None:
    """DiracNet-18 v2 (Zagoruyko and Komodakis, 2017): ReLU ahead of each convolution."""
    x = g.pool(g.conv(IMAGE, 64, 7, 2, act="none", normalised=False))
    for stage, out in enumerate((64, 128, 256, 512)):
        if stage:
            x = g.pool(x, 2, 2, 0)
        for _ in range(4):
            x = g.conv(g.act(x, "relu"), out, 3, act="none", normalised=False)
    g.linear(g.mean(g.act(x, "relu")), classes)


def bagnet9(g: Builder, width: float, classes: int) -> None:
    """BagNet-9 (Brendel and Bethge, 2019): a ResNet of small windows, without padding."""
    x = g.conv(IMAGE, 64, act="none", normalised=False, bias=False)
    x = g.conv(x, 64, 3, pad=0)
    for stage, (n, wide) in enumerate(((3, 1), (4, 1), (6, 0), (3, 0))):
        out = 256 * 2**stage
        for i in range(n):
            stride = 2 if not i and stage < 3 else 1
            kernel = 3 if not i and wide else 1
            y = g.conv(g.conv(x, out // 4), out // 4, kernel, stride, pad=0)
            y = g.conv(y, out, act="none")
            if stride > 1 or g.channels(x) != out:
                x = g.conv(x, out, 1, stride, act="none")
            x = g.add(y, g.crop(x, g.px(y)), act="relu")
    g.linear(g.mean(x), classes)
