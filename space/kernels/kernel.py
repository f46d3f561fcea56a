"""Kernel: one launch of a runtime, a primitive operation with what is folded into it.

An `Operator` is a layer of a network that we build; a kernel is what a runtime makes of any
graph: a convolution with its activation and the addition behind it, a pooling, a product with a
matrix. Kernels describe any ONNX file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from ..errors import InvalidArgument

__all__ = ["Kernel", "KernelKind"]

KernelKind = Literal[
    "conv",  # 2-D convolution, in groups; depthwise where groups equal the input channels
    "linear",  # a vector times a matrix
    "max_pool",
    "average_pool",
    "global_pool",  # mean over the map
    "add",
    "mul",
    "activation",  # standing alone; `fused` names which
    "batch_norm",  # standing alone: a scale and a shift a channel
    "lrn",  # local response normalisation
    "softmax",
    "concat",
    "move",  # a copy of other order: transpose, channel shuffle, slice, pad
    "resize",
    "node",  # of a file, that is none of these; `fused` holds its type and its graph's digest
]
_KEY = re.compile(
    r"(?P<kind>[a-z_]+?)(?P<operands>\d*)_k(?P<kh>\d+)x(?P<kw>\d+)_s(?P<sh>\d+)x(?P<sw>\d+)"
    r"_g(?P<groups>\d+)"
    r"_(?P<ih>\d+)x(?P<iw>\d+)x(?P<cin>\d+)_(?P<oh>\d+)x(?P<ow>\d+)x(?P<cout>\d+)"
    r"(?P<fused>(?:\+[a-z0-9_]+)*)",
    re.ASCII,
)
Pair = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """One launch of a runtime at batch 1.

    Args:
        kind: What it computes.
        in_channels, out_channels: Channels in (of all operands of a concat) and out; features of
            a linear, ≥ 1.
        in_px, out_px: Height and width of the maps, pixels, ≥ 1; (1, 1) for vectors. Padding is
            not counted.
        kernel, stride: Height and width of the window and of its steps; of a "node", (1, its
            multiply-adds for each number that it writes, or 1).
        groups: Of a convolution; ≥ 1, a divisor of both channel counts.
        operands: Maps that it reads; of an add 2, of a concat as many as it joins.
        fused: What the runtime folds into it, in order: "relu", "relu6", "hard_swish", "swish",
            "sigmoid", "add", "mul", ...; of an "activation" its own name.
    Raises:
        InvalidArgument: A value out of its range.

    Example:
        >>> k = Kernel("conv", 16, 96, (56, 56), (56, 56), fused=("relu",))
        >>> k.key, k.macs
        ('conv_k1x1_s1x1_g1_56x56x16_56x56x96+relu', 4816896)
        >>> Kernel.parse(k.key) == k
        True
    """

    kind: KernelKind
    in_channels: int
    out_channels: int
    in_px: Pair = (1, 1)
    out_px: Pair = (1, 1)
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    groups: int = 1
    operands: int = 1
    fused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = (
            self.in_channels,
            self.out_channels,
            self.groups,
            self.operands,
            *self.in_px,
            *self.out_px,
            *self.kernel,
            *self.stride,
        )
        if self.kind not in get_args(KernelKind) or min(numbers) < 1:
            raise InvalidArgument(f"no such kernel: {self!r}")
        if self.kind == "conv" and (
            self.in_channels % self.groups or self.out_channels % self.groups
        ):
            raise InvalidArgument(
                f"{self.groups} groups do not divide {self.in_channels}→{self.out_channels} "
                f"channels"
            )

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution of each channel by itself."""
        return self.kind == "conv" and 1 < self.groups == self.in_channels

    @property
    def macs(self) -> int:
        """Multiply-adds of one image; 0 for what has no weights."""
        if self.kind == "node" and self.kernel[1] > 1:
            return self.writes * self.kernel[1]
        return self.params * self.out_px[0] * self.out_px[1]

    @property
    def params(self) -> int:
        """Weights, biases aside."""
        if self.kind not in ("conv", "linear"):
            return 0
        per_group = self.in_channels // self.groups
        return self.out_channels * per_group * self.kernel[0] * self.kernel[1]

    @property
    def reads(self) -> int:
        """Numbers read from maps; the folded operations' own operands included."""
        maps = 1 if self.kind == "concat" else self.operands
        own = self.in_channels * self.in_px[0] * self.in_px[1] * maps
        return own + self.writes * sum(f in ("add", "mul") for f in self.fused)

    @property
    def writes(self) -> int:
        """Numbers written."""
        return self.out_channels * self.out_px[0] * self.out_px[1]

    @cached_property
    def key(self) -> str:
        """The name in every table, unique."""
        many = str(self.operands) if self.operands > 1 else ""
        (kh, kw), (sh, sw), (ih, iw), (oh, ow) = self.kernel, self.stride, self.in_px, self.out_px
        return (
            f"{self.kind}{many}_k{kh}x{kw}_s{sh}x{sw}_g{self.groups}"
            f"_{ih}x{iw}x{self.in_channels}_{oh}x{ow}x{self.out_channels}"
            + "".join(f"+{name}" for name in self.fused)
        )

    @classmethod
    def parse(cls, key: str) -> Kernel:
        """Inverse of `key`.

        Raises:
            InvalidArgument: Not the key of a kernel.
        """
        m = _KEY.fullmatch(key)
        if not m:
            raise InvalidArgument(
                f"{key!r} is not a kernel's key, as conv_k1x1_s1x1_g1_56x56x16_56x56x96+relu is"
            )

        def pair(a: str, b: str) -> Pair:
            return int(m[a]), int(m[b])

        return cls(
            m["kind"],  # type: ignore[arg-type]
            int(m["cin"]),
            int(m["cout"]),
            pair("ih", "iw"),
            pair("oh", "ow"),
            pair("kh", "kw"),
            pair("sh", "sw"),
            int(m["groups"]),
            int(m["operands"] or 1),
            tuple(m["fused"].split("+")[1:]),
        )

    def __str__(self) -> str:
        (kh, kw), (ih, iw) = self.kernel, self.in_px
        if self.kind == "node":
            numbers = f"{self.in_channels:,}→{self.out_channels:,} numbers"
            return f"{'+'.join(self.fused[:1])} of {numbers} ({' '.join(self.fused[1:])})"
        what = (
            f"{self.kind} {kh}×{kw}"
            if self.kind in ("conv", "max_pool", "average_pool")
            else self.kind
        )
        if self.depthwise:
            what = f"depthwise {kh}×{kw}"
        elif self.groups > 1:
            what += f" in {self.groups} groups"
        stride = f" stride {self.stride[0]}" if max(self.stride) > 1 else ""
        tail = f" with {', '.join(self.fused)}" if self.fused else ""
        return f"{what}{stride} at {ih}×{iw}×{self.in_channels}→{self.out_channels}{tail}"
