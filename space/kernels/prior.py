"""Kernels that networks for images use: what a kernel model learns from, before any network is
seen.

Channels, maps, windows and strides are drawn as published networks have them, from MobileNet to
VGG and DenseNet, evenly over the orders of magnitude of their cost; none costs more than a bound.
`sample` spreads its choice over kinds and shapes; `near` draws relatives of a kernel, to look
more closely where a model errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InvalidArgument
from .kernel import Kernel, Pair

__all__ = ["features", "near", "sample"]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


# A number that is listed twice is drawn twice as often.
_PX = _numbers(
    "7 7 7 8 10 12 13 14 14 14 16 20 24 26 28 28 28 32 40 48 54 56 56 56 64 80 96 110 112 112 "
    "112 128 160 224"
)
_CHANNELS = _numbers(
    "8 12 16 24 32 32 40 48 58 64 64 72 80 96 112 116 120 128 128 144 160 192 200 232 240 256 "
    "256 288 320 336 384 400 464 480 512 512 576 640 672 768 816 960 1024 1024 1152 1280 1536 "
    "2048"
)
_WIDTHS = _numbers(
    "256 320 512 576 768 960 1000 1024 1280 1536 1664 2048 2560 4096 4096 6400 9216 18432 25088"
)
_LEAST_NUMBERS, _MOST_NUMBERS = 500, 4 << 20  # of one map
# How often each kind is drawn: by what it costs in networks, and how unlike its kernels are.
_KINDS = {
    "pointwise": 0.24,
    "spatial": 0.22,
    "depthwise": 0.14,
    "stem": 0.04,
    "grouped": 0.05,
    "narrow": 0.04,
    "linear": 0.05,
    "max_pool": 0.03,
    "average_pool": 0.03,
    "global_pool": 0.02,
    "add": 0.03,
    "mul": 0.02,
    "activation": 0.04,
    "batch_norm": 0.015,
    "lrn": 0.02,
    "softmax": 0.015,
    "concat": 0.02,
    "move": 0.01,
    "resize": 0.01,
}
_ACTIVATIONS = (
    *("relu", "relu", "relu6", "leaky_relu", "prelu", "prelu", "prelu", "tanh"),
    *("sigmoid", "swish", "swish", "hard_sigmoid", "hard_swish"),
)
_MOVES = ("shuffle", "shuffle", "transpose", "slice", "pad", "split")
_MOST_LRN = 1 << 20  # numbers: each takes some 25 ns
_MOST_MACS = 4_000_000_000
_TRIES = 1000


def sample(n: int, seed: int = 0, most_macs: int = _MOST_MACS) -> list[Kernel]:
    """Draw distinct kernels, spread over kinds and shapes.

    Of four candidates of a kind, the one is taken that lies farthest from those that were
    taken before (Mitchell's best candidate), in the logarithms of shape and cost.

    Args:
        n: How many, ≥ 0.
        seed: Of all chance; a longer draw with the same seed begins with the shorter one.
        most_macs: Bound on the multiply-adds of each.
    """
    if n < 0 or seed < 0:
        raise InvalidArgument(f"kernels and seed: 0 or more, got {n} and {seed}")
    rng = np.random.default_rng([seed, 4])
    kinds, shares = list(_KINDS), np.array(list(_KINDS.values()))
    debts = np.zeros(len(kinds))
    kernels: dict[str, Kernel] = {}
    taken: dict[str, list[np.ndarray]] = {k: [] for k in kinds}
    while len(kernels) < n:
        debts += shares / shares.sum()
        kind = kinds[int(np.argmax(debts))]
        debts[kinds.index(kind)] -= 1
        candidates = [
            k for k in (_drawn(kind, rng, most_macs) for _ in range(4)) if k.key not in kernels
        ]
        if not candidates:
            continue
        points = [features(k) for k in candidates]
        apart = [
            min((float(np.abs(p - q).sum()) for q in taken[kind]), default=1e9) for p in points
        ]
        best = int(np.argmax(apart))
        kernels[candidates[best].key] = candidates[best]
        taken[kind].append(points[best])
    return list(kernels.values())


def near(kernel: Kernel, rng: np.random.Generator) -> Kernel:
    """A relative of a kernel: its channels and map moved by up to half, all else the same."""
    for _ in range(_TRIES):
        into, out, size = (float(f) for f in np.exp(rng.uniform(-0.45, 0.45, 3)))
        px = max(1, round(kernel.in_px[0] * size)), max(1, round(kernel.in_px[1] * size))
        step = 8 if kernel.in_channels > 16 else 1
        c_in = max(step, step * round(kernel.in_channels * into / step))
        c_out = max(8, 8 * round(kernel.out_channels * out / 8))
        if kernel.kind == "linear":
            changed = replace(kernel, in_channels=c_in, out_channels=c_out)
        elif kernel.kind == "conv" and kernel.groups == 1:
            changed = _moved(
                kernel, c_in if kernel.in_channels > 4 else kernel.in_channels, c_out, px
            )
        elif kernel.depthwise:
            changed = replace(_moved(replace(kernel, groups=1), c_in, c_in, px), groups=c_in)
        elif kernel.fused == ("transpose",):
            changed = Kernel("move", c_in, px[0], px, (px[1], c_in), fused=kernel.fused)
        elif kernel.kind in ("conv", "move", "concat", "resize"):
            g = kernel.groups
            c_in, c_out = g * max(1, round(c_in / g)), g * max(1, round(c_out / g))
            if kernel.kind == "move":  # cut off, or padded, in the same proportion
                c_out = max(1, round(c_in * kernel.out_channels / kernel.in_channels))
            same = kernel.in_channels == kernel.out_channels
            c_in = max(c_in, kernel.operands)
            changed = _moved(kernel, c_in, c_in if same else c_out, px)
        else:
            changed = _moved(kernel, c_in, c_in, px)
        if _fits(changed, 2 * _MOST_MACS) and changed.key != kernel.key:
            return changed
    return kernel


def features(kernel: Kernel) -> np.ndarray:
    """Features of a kernel among others of its kind, (8,): logarithms of shape and cost."""
    return np.log2(
        [
            kernel.in_channels,
            kernel.out_channels,
            kernel.out_px[0],
            kernel.kernel[0] ** 2,
            kernel.stride[0] ** 2,
            1 + kernel.macs / 1e4,
            1 + kernel.reads / 1e3,
            kernel.groups,
        ]
    )


def _moved(kernel: Kernel, c_in: int, c_out: int, px: Pair) -> Kernel:
    """The same kernel at another map: as many pixels out as its stride and padding give."""
    out = []
    for new, old, was, k, s in zip(
        px, kernel.in_px, kernel.out_px, kernel.kernel, kernel.stride, strict=True
    ):
        padding = max(0, (was - 1) * s + k - old)
        out.append(1 if was == 1 and old > 1 and k == 1 else max(1, (new + padding - k) // s + 1))
    return replace(kernel, in_channels=c_in, out_channels=c_out, in_px=px, out_px=(out[0], out[1]))


def _drawn(kind: str, rng: np.random.Generator, most_macs: int) -> Kernel:
    for _ in range(_TRIES):
        kernel = _any(kind, rng)
        if _fits(kernel, most_macs):
            return kernel
    raise InvalidArgument(f"no {kind} kernel of {most_macs:,} multiply-adds or fewer")


def _fits(kernel: Kernel, most_macs: int) -> bool:
    most = max(kernel.writes, kernel.in_channels * math.prod(kernel.in_px))
    small = kernel.kind in ("linear", "softmax") or most >= _LEAST_NUMBERS
    bound = _MOST_LRN if kernel.kind == "lrn" else _MOST_NUMBERS
    return small and most <= bound and kernel.macs <= most_macs and kernel.params <= 120_000_000


def _any(kind: str, rng: np.random.Generator) -> Kernel:
    def one(options: Sequence[int]) -> int:
        return int(options[int(rng.integers(len(options)))])

    def channels() -> int:
        # A third of them between the usual: growth rates and cut channels give any multiple of 8.
        if rng.random() < 0.35:
            return 8 * max(1, round(float(np.exp(rng.uniform(np.log(8), np.log(1600)))) / 8))
        return one(_CHANNELS)

    px = one(_PX) if rng.random() < 0.8 else int(rng.integers(7, 113))
    size = (px, px)
    fused: tuple[str, ...] = ("relu",) if rng.random() < 0.6 else ()
    if kind == "pointwise":
        stride = 2 if rng.random() < 0.06 else 1
        if rng.random() < 0.1:  # squeeze and excite: vectors
            wide, squeezed = channels(), one((4, 6, 8, 10, 16, 20, 28, 40, 64, 120))
            if rng.random() < 0.5:
                return Kernel("conv", wide, squeezed, fused=("relu",))
            return Kernel("conv", squeezed, wide, fused=("sigmoid",))
        out = -(-px // stride)
        return Kernel(
            "conv", channels(), channels(), size, (out, out), stride=(stride,) * 2, fused=fused
        )
    if kind in ("spatial", "depthwise", "grouped", "stem", "narrow"):
        k = one((3, 3, 3, 3, 5, 5, 7)) if kind != "depthwise" else one((3, 3, 3, 5, 5, 7))
        stride = 2 if rng.random() < 0.25 else 1
        c_in = c_out = channels()
        groups = 1
        if kind == "spatial":
            k = one((3, 3, 3, 3, 3, 3, 5, 5, 7))
            stride = 2 if rng.random() < 0.12 else 1
            c_out = channels()
        elif kind == "stem":
            c_in, c_out, px = (
                one((1, 3, 3, 3, 3)),
                one((8, 16, 24, 32, 32, 64, 64, 96)),
                one((96, 128, 160, 192, 224, 224, 224, 224)),
            )
            k, stride = one((3, 3, 3, 5, 7, 7, 11)), one((1, 2, 2, 2, 4))
        elif kind == "narrow":  # long windows, or channels that come in no blocks
            if rng.random() < 0.5:
                long = (1, one((3, 7))) if rng.random() < 0.5 else (one((3, 7)), 1)
                return Kernel("conv", c_in, channels(), size, size, long, fused=fused)
            c_out, stride = one((30, 50, 58, 72, 100, 116, 174, 232)), 1
            k = one((1, 1, 3))
        elif kind == "depthwise":
            groups = c_in
        else:
            groups = one((2, 2, 3, 4, 4, 8, 8, 16, 32))
            unit = one((2, 4, 4, 8, 16, 24, 34, 48, 64, 96, 128))
            c_in = groups * unit
            c_out = c_in if rng.random() < 0.5 else groups * one((2, 4, 8, 16, 34, 48, 64, 96, 128))
            k = one((1, 1, 3, 3, 5))
        out = (px - 1) // stride + 1
        return Kernel(
            "conv", c_in, c_out, (px, px), (out, out), (k, k), (stride, stride), groups, fused=fused
        )
    if kind == "linear":
        return Kernel(
            "linear", one(_WIDTHS), one((10, 100, 1000, 1000, *_WIDTHS[:16])), fused=fused
        )
    c = channels()
    if kind in ("max_pool", "average_pool"):
        k, stride = one((2, 3, 3, 3, 5, 7)), one((1, 2, 2))
        if kind == "average_pool" and rng.random() < 0.15:  # over the whole map, as some heads do
            return Kernel("average_pool", c, c, (k + 4, k + 4), kernel=(k + 4, k + 4))
        px = max(px, k)
        pad = (k - 1) // 2 * (stride == 1 or rng.random() < 0.5)
        out = max(1, (px + 2 * pad - k) // stride + 1)
        return Kernel(kind, c, c, (px, px), (out, out), (k, k), (stride, stride))  # type: ignore
    if kind == "global_pool":
        return Kernel("global_pool", c, c, size)
    if kind in ("add", "mul"):
        operands = 1 if rng.random() < 0.4 else 2
        return Kernel(kind, c, c, size, size, operands=operands)  # type: ignore[arg-type]
    if kind == "activation":
        named = _ACTIVATIONS[int(rng.integers(len(_ACTIVATIONS)))]
        return Kernel("activation", c, c, size, size, fused=(named,))
    if kind == "batch_norm":
        return Kernel("batch_norm", c, c, size, size)
    if kind == "lrn":
        return Kernel("lrn", c, c, size, size, (5, 1))
    if kind == "softmax" and rng.random() < 0.6:  # of every pixel, as detectors have it
        classes = one((2, 2, 4, 16, 21))
        return Kernel("softmax", classes, classes, size, size)
    if kind == "softmax":
        classes = one((10, 21, 100, 1000, 1000, 2000, 5000))
        return Kernel("softmax", classes, classes)
    if kind == "concat":
        operands = one((2, 2, 3, 4, 4))
        each = 4 * max(1, c // operands // 4) * operands
        return Kernel("concat", each, each, size, size, operands=operands)
    if kind == "resize":  # the nearest number, as in pyramids of features
        small = max(1, px // 2)
        return Kernel("resize", c, c, (small, small), (2 * small, 2 * small))
    what = _MOVES[int(rng.integers(len(_MOVES)))]
    if what == "shuffle":
        groups = one((2, 2, 3, 4, 8))
        c = groups * max(1, c // groups)
        return Kernel("move", c, c, size, size, groups=groups, fused=("shuffle",))
    if what == "transpose":
        return Kernel("move", c, px, size, (px, c), fused=("transpose",))
    out_c = {"slice": max(1, c // 2), "pad": c + max(1, c // 2), "split": 2 * max(1, c // 2)}[what]
    c = 2 * max(1, c // 2) if what == "split" else c
    return Kernel("move", c, out_c, size, size, fused=(what,))
