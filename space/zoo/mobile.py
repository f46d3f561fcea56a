"""Mobile networks: inverted bottlenecks and what they came from, each family as a short builder.

Sources are named at each family. Where implementations differ, the counts of torchvision and timm
decide, and a comment says what the edge benchmark's (pytorchcv's) networks have instead.
"""

from __future__ import annotations

import math

from ..architecture import round_channels
from ..graph import IMAGE, Function
from .graph_builder import GraphBuilder as Builder

__all__ = ["ghostnet", "mixnet_s", "mobilenet_v1", "mobilenet_v2_plain", "rows", "shufflenet_v2"]


def rows(text: str) -> list[tuple[int, ...]]:
    """Whole numbers: rows parted by blanks, columns by commas."""
    return [tuple(map(int, row.split(","))) for row in text.split()]


def head(g: Builder, x: int, features: int, classes: int) -> None:
    """1×1 convolution, mean, classifier."""
    g.linear(g.mean(g.conv(x, features)), classes)


def separable(g: Builder, x: int, out: int, stride: int, act: Function | None = None) -> int:
    """Depthwise 3×3, then 1×1, as in MobileNetV1; `act` behind the 1×1."""
    return g.conv(g.depthwise(x, 3, stride), out, act=act)


def bottleneck(
    g: Builder,
    x: int,
    middle: int,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    squeeze: int = 0,
    expand: bool | None = None,
) -> int:
    """MBConv: 1×1 to `middle`, depthwise, squeeze-and-excite, 1×1 without an activation, skip.

    `expand` None leaves the first 1×1 out where `middle` is what comes in.
    """
    wide = middle != g.channels(x) if expand is None else expand
    y = g.conv(x, middle) if wide else x
    y = g.depthwise(y, kernel, stride)
    if squeeze:
        y = g.gate(y, squeeze)
    y = g.conv(y, out, act="none")
    return g.add(y, x) if stride == 1 and g.channels(x) == out else y


def mobilenet_v1(
    g: Builder, width: float, classes: int, *, fast: bool = False, bare: bool = False
) -> None:
    """Howard et al., 2017. `fast` is FD-MobileNet (Qin et al., 2018), `bare` has neither BatchNorm
    nor activation behind a depthwise convolution (the edge benchmark's mobilenetb)."""
    layers = "64,1 128,2 128,1 256,2 256,1 512,2" + 5 * " 512,1" + " 1024,2 1024,1"
    if fast:
        layers = "64,2 128,2 128,1 256,2 256,1 512,2" + 4 * " 512,1" + " 1024,1"
    x = g.conv(IMAGE, int(32 * width), 3, 2)
    for out, stride in rows(layers):
        if bare:
            y = g.conv(
                x, g.channels(x), 3, stride, groups=0, act="none", normalised=False, bias=False
            )
            x = g.conv(y, int(out * width))
        else:
            x = separable(g, x, int(out * width), stride)
    g.linear(g.mean(x), classes)


def mobilenet_v2_plain(g: Builder, width: float, classes: int) -> None:
    """MobileNetV2 as in pytorchcv: a 1×1 ahead of its first depthwise convolution, too, widths cut
    to whole channels, a classifier without bias."""
    g.default = "relu6"
    x = g.conv(IMAGE, int(32 * width), 3, 2)
    for n, stride, expansion, out in rows(
        "1,1,1,16 2,2,6,24 3,2,6,32 4,2,6,64 3,1,6,96 3,2,6,160 1,1,6,320"
    ):
        for i in range(n):
            middle = g.channels(x) * expansion
            x = bottleneck(g, x, middle, int(out * width), 3, stride if i == 0 else 1, expand=True)
    x = g.mean(g.conv(x, int(1280 * max(1.0, width))))
    g.conv(x, classes, act="none", normalised=False, bias=False)


def ghost(g: Builder, x: int, out: int, act: Function) -> int:
    """Half of the channels from a 1×1, the others from a depthwise 3×3 on these."""
    main = g.conv(x, math.ceil(out / 2), act=act)
    cheap = g.conv(main, out - g.channels(main), 3, groups=g.channels(main), act=act)
    return g.concat([main, cheap])


def ghostnet(g: Builder, width: float, classes: int, *, edge: bool = False) -> None:
    """GhostNet (Han et al., 2020). `edge` is pytorchcv's: other middles, an activation in the
    shortcut, no BatchNorm missing before the classifier."""
    layers = rows(
        "3,16,16,0,1 3,48,24,0,2 3,72,24,0,1 5,72,40,1,2 5,120,40,1,1 3,240,80,0,2 "
        "3,200,80,0,1 3,184,80,0,1 3,184,80,0,1 3,480,112,1,1 3,672,112,1,1 5,672,160,1,2 "
        "5,960,160,0,1 5,960,160,1,1 5,960,160,0,1 5,960,160,1,1"
    )

    def wide(channels: float) -> int:
        return round_channels(channels * width, 4)

    g.gating = ("relu", "clip" if edge else "hard_sigmoid")
    x = g.conv(IMAGE, wide(16), 3, 2)
    for kernel, middle, out, gated, stride in layers:
        middle, out = wide(middle), wide(out)
        y = ghost(g, x, middle, "relu")
        if stride > 1:
            y = g.depthwise(y, kernel, stride, "none")
        if gated:
            y = g.gate(y, middle // 4 if edge else round_channels(middle / 4, 4))
        y = ghost(g, y, out, "none")
        if stride > 1 or g.channels(x) != out:
            act: Function = "relu" if edge else "none"
            size = 3 if edge else kernel
            x = g.conv(g.depthwise(x, size, stride, act), out, act="none")
        x = g.add(y, x)
    x = g.mean(g.conv(x, wide(960)))
    x = g.conv(x, 1280, normalised=edge)
    g.conv(x, classes, act="none", normalised=False)


def shufflenet_v2(g: Builder, width: float, classes: int, *, channels: tuple[int, ...]) -> None:
    """ShuffleNet V2 (Ma et al., 2018), as in torchvision."""
    *stages, last = channels
    x = g.pool(g.conv(IMAGE, 24, 3, 2))
    for n, out in zip((4, 8, 4), stages, strict=True):
        half = out // 2
        for i in range(n):
            stride = 1 if i else 2
            left, right = (g.slice(x, 0, half), g.slice(x, half, half)) if i else (x, x)
            if stride == 2:
                left = g.conv(g.depthwise(left, 3, 2, "none"), half)
            right = g.depthwise(g.conv(right, half), 3, stride, "none")
            x = g.shuffle(g.concat([left, g.conv(right, half)]), 2)
    head(g, x, last, classes)


def split(g: Builder, x: int, outs: list[int], kernels: list[int], stride: int, act: str) -> int:
    """Channels in equal parts, one convolution each, joined; depthwise where `outs` is empty."""
    inside, n = g.channels(x), len(kernels)
    parts = [inside // n + (inside % n if i == 0 else 0) for i in range(n)]
    maps, start = [], 0
    for i, (part, kernel) in enumerate(zip(parts, kernels, strict=True)):
        y = g.slice(x, start, part) if n > 1 else x
        start += part
        out, groups = (outs[i], 1) if outs else (part, 0)
        maps.append(g.conv(y, out, kernel, stride, groups=groups, act="none"))
    return g.act(g.concat(maps), "none" if act == "none" else g.default)


# Repeats, kernels, groups of the first and of the last 1×1, stride, expansion, out, gate in
# hundredths of the input.
_MIXNET_S = (
    "1:3:2:2:2:6:24:0 1:3:2:2:1:3:24:0 1:3.5.7:1:1:2:6:40:50 3:3.5:2:2:1:6:40:50 "
    "1:3.5.7:1:2:2:6:80:25 2:3.5:1:2:1:6:80:25 1:3.5.7:2:2:1:6:120:50 2:3.5.7.9:2:2:1:3:120:50 "
    "1:3.5.7.9.11:1:1:2:6:200:50 2:3.5.7.9:1:2:1:6:200:50"
)


def mixnet_s(g: Builder, width: float, classes: int) -> None:
    """MixNet-S (Tan and Le, 2019): depthwise convolutions of several kernels side by side."""

    def parts(channels: int, n: int) -> list[int]:
        return [channels // n + (channels % n if i == 0 else 0) for i in range(n)]

    x = g.conv(IMAGE, 16, 3, 2)
    x = g.add(separable(g, x, 16, 1, "none"), x)
    for row in _MIXNET_S.split():
        repeats, sizes, first, last, stride, expansion, out, gated = row.split(":")
        kernels = [int(k) for k in sizes.split(".")]
        g.default = "swish" if int(gated) else "relu"
        g.gating = ("swish", "sigmoid")
        for i in range(int(repeats)):
            inside, s = g.channels(x), int(stride) if i == 0 else 1
            middle = inside * int(expansion)
            y = split(g, x, parts(middle, int(first)), [1] * int(first), 1, "")
            y = split(g, y, [], kernels, s, "")
            if int(gated):
                y = g.gate(y, inside * int(gated) // 100)
            y = split(g, y, parts(int(out), int(last)), [1] * int(last), 1, "none")
            x = g.add(y, x) if s == 1 and inside == int(out) else y
    g.default = "relu"
    head(g, x, 1536, classes)
