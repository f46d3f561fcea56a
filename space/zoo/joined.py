"""Networks that join maps: SqueezeNet, Inception, DenseNet, PeleeNet, HarDNet, VoVNet, DLA, HRNet;
and the plain AlexNet."""

from __future__ import annotations

from ..graph import IMAGE
from .graph_builder import GraphBuilder as Builder
from .mobile import rows
from .residual import basic_unit, bottleneck_unit, stem

__all__ = [
    "alexnet",
    "bn_inception",
    "condensenet74",
    "densenet",
    "dla46c",
    "googlenet",
    "hardnet",
    "hrnet",
    "inception_v3",
    "peleenet",
    "squeezenet",
    "vovnet27_slim",
]


def bare(
    g: Builder, x: int, out: int, kernel: int = 1, stride: int = 1, pad: int | None = None
) -> int:
    """A convolution with a bias and ReLU, without BatchNorm."""
    return g.conv(x, out, kernel, stride, pad=pad, normalised=False)


def squeezenet(
    g: Builder, width: float, classes: int, *, version: str = "1.0", skips: bool = False
) -> None:
    """SqueezeNet (Iandola et al., 2016); `skips` adds each fire module of unchanged width."""
    first, kernel, stages = {
        "1.0": (96, 7, "128,128,256 256,384,384,512 512"),
        "1.1": (64, 3, "128,128 256,256 384,384,512,512"),
    }[version]
    x = bare(g, IMAGE, first, kernel, 2, 0)
    for stage in rows(stages):
        x = g.pool(x, 3, 2, 0, ceil=True)
        for out in stage:
            inside = x
            x = bare(g, x, out // 8)
            x = g.concat([bare(g, x, out // 2), bare(g, x, out // 2, 3)])
            if skips and g.channels(inside) == out:
                x = g.add(x, inside)
    g.mean(bare(g, x, classes))


def alexnet(g: Builder, width: float, classes: int) -> None:
    """AlexNet as in torchvision (Krizhevsky, One weird trick, 2014); 224 px only."""
    x = g.pool(bare(g, IMAGE, 64, 11, 4, 2), 3, 2, 0)
    x = g.pool(bare(g, x, 192, 5), 3, 2, 0)
    for out in (384, 256, 256):
        x = bare(g, x, out, 3)
    x = g.pool(x, 3, 2, 0)
    for out in (4096, 4096):
        x = g.act(g.linear(x, out), "relu")
    g.linear(x, classes)


def _inception(g: Builder, x: int, out: tuple[int, ...], small: bool) -> int:
    """GoogLeNet's module: 1×1; 1×1, 3×3; 1×1, 3×3 for its 5×5; pooling, 1×1."""
    a, b_in, b, c_in, c, d = out
    size = 3 if small else 5
    branches = [g.conv(x, a), g.conv(g.conv(x, b_in), b, 3), g.conv(g.conv(x, c_in), c, size)]
    return g.concat([*branches, g.conv(g.pool(x, 3, 1, 1, ceil=True), d)])


def googlenet(g: Builder, width: float, classes: int) -> None:
    """GoogLeNet with BatchNorm, as in torchvision: 3×3 where the paper has 5×5."""
    x = g.pool(g.conv(IMAGE, 64, 7, 2), 3, 2, 0, ceil=True)
    x = g.pool(g.conv(g.conv(x, 64), 192, 3), 3, 2, 0, ceil=True)
    for stage, pool in (
        ("64,96,128,16,32,32 128,128,192,32,96,64", 3),
        (
            "192,96,208,16,48,64 160,112,224,24,64,64 128,128,256,24,64,64 112,144,288,32,64,64 "
            "256,160,320,32,128,128",
            2,
        ),
        ("256,160,320,32,128,128 384,192,384,48,128,128", 0),
    ):
        for module in rows(stage):
            x = _inception(g, x, module, True)
        if pool:
            x = g.pool(x, pool, 2, 0, ceil=True)
    g.linear(g.mean(x), classes)


def bn_inception(g: Builder, width: float, classes: int) -> None:
    """BN-Inception (Ioffe and Szegedy, 2015); convolutions have biases besides BatchNorm."""

    def conv(x: int, out: int, kernel: int = 1, stride: int = 1) -> int:
        return g.conv(x, out, kernel, stride, bias=True)

    x = g.pool(conv(IMAGE, 64, 7, 2), 3, 2, 0, ceil=True)
    # pytorchcv's second block leaves its biases on, too.
    x = g.pool(conv(conv(x, 64), 192, 3), 3, 2, 0, ceil=True)
    modules = rows(
        "64,64,64,64,96,32 64,64,96,64,96,64 0,128,160,64,96,0 224,64,96,96,128,128 "
        "192,96,128,96,128,128 160,128,160,128,160,128 96,128,192,160,192,128 0,128,192,192,256,0 "
        "352,192,320,160,224,128 352,192,320,192,224,128"
    )
    for number, (a, b_in, b, c_in, c, d) in enumerate(modules):
        stride = 1 if a else 2
        second = conv(conv(x, b_in), b, 3, stride)
        third = conv(conv(conv(x, c_in), c, 3), c, 3, stride)
        if not a:
            x = g.concat([second, third, g.pool(x, 3, 2, 0, ceil=True)])
            continue
        last = number == len(modules) - 1
        pooled = g.pool(x, 3, 1, 1, kind="max_pool" if last else "average_pool", ceil=True)
        x = g.concat([conv(x, a), second, third, conv(pooled, d)])
    g.linear(g.mean(x), classes)


def inception_v3(g: Builder, width: float, classes: int) -> None:
    """Inception v3 without its auxiliary head, as in torchvision; 299 px."""
    x = g.conv(g.conv(g.conv(IMAGE, 32, 3, 2, pad=0), 32, 3, pad=0), 64, 3)
    x = g.conv(g.conv(g.pool(x, 3, 2, 0), 80), 192, 3, pad=0)
    x = g.pool(x, 3, 2, 0)

    def pooled(x: int, out: int) -> int:
        return g.conv(g.pool(x, 3, 1, 1, kind="average_pool"), out)

    def line(x: int, *steps: tuple[int, int | tuple[int, int]]) -> int:
        for out, kernel in steps:
            x = g.conv(x, out, kernel)
        return x

    for out in (32, 64, 64):
        a = [g.conv(x, 64), line(x, (48, 1), (64, 5)), line(x, (64, 1), (96, 3), (96, 3))]
        x = g.concat([*a, pooled(x, out)])
    b = line(x, (64, 1), (96, 3))
    x = g.concat([g.conv(x, 384, 3, 2, pad=0), g.conv(b, 96, 3, 2, pad=0), g.pool(x, 3, 2, 0)])
    wide, tall = (1, 7), (7, 1)
    for c in (128, 160, 160, 192):
        x = g.concat(
            [
                g.conv(x, 192),
                line(x, (c, 1), (c, wide), (192, tall)),
                line(x, (c, 1), (c, tall), (c, wide), (c, tall), (192, wide)),
                pooled(x, 192),
            ]
        )
    b = line(x, (192, 1), (192, wide), (192, tall))
    x = g.concat(
        [g.conv(g.conv(x, 192), 320, 3, 2, pad=0), g.conv(b, 192, 3, 2, pad=0), g.pool(x, 3, 2, 0)]
    )
    for _ in range(2):
        b, c = g.conv(x, 384), line(x, (448, 1), (384, 3))
        parts = [g.conv(y, 384, kernel) for y in (b, c) for kernel in ((1, 3), (3, 1))]
        x = g.concat([g.conv(x, 320), *parts, pooled(x, 192)])
    g.linear(g.mean(x), classes)


def densenet(g: Builder, width: float, classes: int, *, layers: tuple[int, ...]) -> None:
    """DenseNet (Huang et al., 2017) of growth 32."""

    def normed(x: int, out: int, kernel: int = 1) -> int:
        return g.conv(g.norm(x), out, kernel, act="none", normalised=False, bias=False)

    x = stem(g, 64)
    for stage, n in enumerate(layers):
        if stage:
            x = g.pool(normed(x, g.channels(x) // 2), 2, 2, 0, kind="average_pool")
        for _ in range(n):
            x = g.concat([x, normed(normed(x, 128), 32, 3)])
    g.linear(g.mean(g.norm(x)), classes)


def peleenet(g: Builder, width: float, classes: int) -> None:
    """PeleeNet (Wang et al., 2018)."""
    x = g.conv(IMAGE, 32, 3, 2)
    x = g.concat([g.conv(g.conv(x, 16), 32, 3, 2), g.pool(x, 2, 2, 0)])
    x = g.conv(x, 32)
    for stage, (n, size) in enumerate(((3, 1), (4, 2), (8, 4), (6, 4))):
        if stage:
            x = g.pool(g.conv(x, g.channels(x)), 2, 2, 0, kind="average_pool")
        for _ in range(n):
            one = g.conv(g.conv(x, 16 * size), 16, 3)
            two = g.conv(g.conv(g.conv(x, 16 * size), 16, 3), 16, 3)
            x = g.concat([x, one, two])
    g.linear(g.mean(g.conv(x, g.channels(x))), classes)


def hardnet(
    g: Builder, width: float, classes: int, *, first: int, stages: str, growth: float
) -> None:
    """HarDNet with depthwise convolutions (Chao et al., 2019).

    `stages` are rows of layers, growth rate, channels, and whether a stage ends in stride 2.
    """
    x = g.conv(g.conv(IMAGE, first // 2, 3, 2, act="relu6"), first, act="relu6")
    x = g.depthwise(x, 3, 2, "none")
    for n, rate, out, down in rows(stages):
        maps = [x]
        for layer in range(1, n + 1):
            links = [layer - 2**k for k in range(10) if layer % 2**k == 0]
            channels = int(int(rate * growth ** (len(links) - 1) + 1) / 2) * 2
            joined = g.concat([maps[i] for i in links])
            maps.append(g.depthwise(g.conv(joined, channels, act="relu6"), 3, 1, "none"))
        ends = [m for i, m in enumerate(maps) if i == n or i % 2 == 1]
        x = g.conv(g.concat(ends), out, act="relu6")
        if down:
            x = g.depthwise(x, 3, 2, "none")
    g.linear(g.mean(x), classes)


def vovnet27_slim(g: Builder, width: float, classes: int) -> None:
    """VoVNet-27-slim (Lee et al., 2019)."""
    x = g.conv(g.conv(g.conv(IMAGE, 64, 3, 2), 64, 3), 128, 3, 2)
    for stage, (inside, out) in enumerate(((64, 128), (80, 256), (96, 384), (112, 512))):
        if stage:
            x = g.pool(x, 3, 2, 0, ceil=True)
        maps = [x]
        for _ in range(5):
            maps.append(g.conv(maps[-1], inside, 3))
        x = g.conv(g.concat(maps), out)
    g.linear(g.mean(x), classes)


def dla46c(g: Builder, width: float, classes: int) -> None:
    """DLA-46-C (Yu et al., 2018): trees of residual blocks, joined at their roots."""

    def block(x: int, down: int, out: int, stride: int) -> int:
        shortcut = down if g.channels(x) == out else g.conv(down, out, act="none")
        y = g.conv(g.conv(g.conv(x, out // 2), out // 2, 3, stride), out, act="none")
        return g.add(y, shortcut, act="relu")

    def tree(x: int, down: int, out: int, levels: int, stride: int, extra: list[int]) -> int:
        if levels == 1:
            one = block(x, down, out, stride)
            two = block(one, one, out, 1)
            return g.conv(g.concat([two, one, *extra]), out)
        one = tree(x, down, out, levels - 1, stride, [])
        return tree(one, one, out, levels - 1, 1, [*extra, one])

    x = g.conv(g.conv(g.conv(IMAGE, 16, 7), 16, 3), 32, 3, 2)
    for stage, (levels, out) in enumerate(((1, 64), (2, 64), (2, 128), (1, 256))):
        down = g.pool(x, 2, 2, 0)
        x = tree(x, down, out, levels, 2, [down] if stage else [])
    g.conv(g.mean(x), classes, act="none", normalised=False)


def hrnet(
    g: Builder, width: float, classes: int, *, first: int, units: int, base: int, modules: str
) -> None:
    """HRNet-W18-Small (Wang et al., 2019): maps at several scales, mixed again and again."""
    x = g.conv(g.conv(IMAGE, 64, 3, 2), 64, 3, 2)
    for _ in range(units):
        x = bottleneck_unit(g, x, first)
    maps = [x]
    for branches, (n,) in enumerate(rows(modules), start=2):
        widths = [base * 2**i for i in range(branches)]
        fresh = []
        for i, out in enumerate(widths):
            y = maps[i] if i < len(maps) else maps[-1]
            if i >= len(maps) or g.channels(y) != out:
                y = g.conv(y, out, 3, 1 if i < len(maps) else 2)
            fresh.append(y)
        maps = fresh
        for _ in range(n):
            maps = _mixed(g, maps, max(2, units))
    outs = [128, 256, 512, 1024]
    y = bottleneck_unit(g, maps[0], outs[0])
    for m, out in zip(maps[1:], outs[1:], strict=True):
        side = bottleneck_unit(g, m, out)
        y = g.add(side, g.conv(y, out, 3, 2, bias=True))
    g.linear(g.mean(g.conv(y, 2048, bias=True)), classes)


def _mixed(g: Builder, maps: list[int], units: int) -> list[int]:
    for _ in range(units):
        maps = [basic_unit(g, m, g.channels(m)) for m in maps]
    mixed = []
    for i, target in enumerate(maps):
        total = None
        for j, y in enumerate(maps):
            if j > i:
                y = g.resize(g.conv(y, g.channels(target), act="none"), 2 ** (j - i))
            for k in range(i - j):
                last = k == i - j - 1
                out = g.channels(target) if last else g.channels(y)
                y = g.conv(y, out, 3, 2, act="none" if last else "relu")
            total = y if total is None else g.add(total, y)
        assert total is not None
        mixed.append(g.act(total, "relu"))
    return mixed


def condensenet74(g: Builder, width: float, classes: int) -> None:
    """CondenseNet-74 of four groups (Huang et al., 2018), as it is run: the channels that were
    learned for each group are taken by a shuffle here, of the same cost."""

    def grouped(x: int, out: int, kernel: int) -> int:
        y = g.norm(x)
        return g.conv(y, out, kernel, groups=4, act="none", normalised=False, bias=False)

    x = g.conv(IMAGE, 16, 3, 2, act="none", normalised=False, bias=False)
    for stage, (n, growth) in enumerate(rows("4,8 6,16 8,32 10,64 8,128")):
        if stage:
            x = g.pool(x, 2, 2, 0, kind="average_pool")
        for _ in range(n):
            y = g.shuffle(grouped(g.shuffle(x, 4), 4 * growth, 1), 4)
            x = g.concat([x, grouped(y, growth, 3)])
    x = g.mean(g.norm(x))
    g.linear(g.slice(x, 0, g.channels(x) // 2), classes)
