"""Operator: one layer of a network with its shapes, the unit that is measured.

An operator is what a lookup table lists: a stem, a regular convolution, a depthwise-separable
or MBConv layer with its squeeze-and-excite and skip, or the head. What it is made of
(`convolutions`) is said here once; counts, ONNX and torch forms all follow from it.

Conventions (official MnasNet code): squeeze width is taken from the layer's *input* channels;
squeeze convolutions have biases, the others BatchNorm; projections are linear; padding is
symmetric, k // 2; an odd map under stride 2 rounds up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from .errors import InvalidArgument

__all__ = ["Convolution", "Kind", "Operator", "Skip"]

Kind = Literal["stem", "conv", "proj", "dsconv", "mbconv", "head"]
Skip = Literal["identity", "pool", "none"]
_KEY = re.compile(
    r"(?:head(?P<features>\d+)|(?:mbconv(?P<expansion>\d+)|(?P<kind>stem|conv|proj|dsconv))"
    r"_k(?P<kernel>\d+)_s(?P<stride>[12])(?:_se(?P<se>\d+))?(?P<skip>_skip|_pool)?)"
    r"_(?P<px>\d+)x(?P<px2>\d+)x(?P<cin>\d+)_(?P<cout>\d+)",
    re.ASCII,
)
Activation = Literal["relu", "sigmoid", "none"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution inside an operator, or the head's classifier (a 1×1 on a 1×1 map).

    `out_px` is the side of the output map in pixels. `normalised` convolutions have BatchNorm
    and no bias; the others have a bias.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    out_px: int
    normalised: bool
    activation: Activation

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight, (out, in / groups, k, k)."""
        return (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image; 0 for squeeze convolutions (see `Operator.macs`)."""
        if self.name.startswith("se_"):
            return 0
        out, per_group, k, _ = self.weight_shape
        return out * per_group * k * k * self.out_px * self.out_px

    @property
    def params(self) -> int:
        """Trainable numbers: weight, and scale with shift (BatchNorm) or bias."""
        out, per_group, k, _ = self.weight_shape
        return out * per_group * k * k + out * (2 if self.normalised else 1)


@dataclass(frozen=True)
class Operator:
    """One layer with its shapes.

    Args:
        kind: "stem" (3×3, BatchNorm, ReLU), "conv" (regular), "proj" (regular without an
            activation, as a shortcut that changes shape has), "dsconv" (depthwise-separable,
            the same as an MBConv of expansion 1), "mbconv", or "head" (1×1, pool, classifier).
        in_channels, out_channels: Channels in and out (for a head: classes out), ≥ 1.
        in_px: Side of the square input map in pixels, ≥ 1.
        kernel: Side of the kernel, odd.
        stride: 1 or 2.
        expansion: Middle channels over input channels; 1 but for mbconv.
        se_channels: Squeeze width of squeeze-and-excite; 0 for none.
        skip: "identity" adds the input (stride 1, equal channels only), "pool" adds a 3×3
            average pooling of the input at the layer's stride, channels cut or zero-padded.
        features: Width of a head's 1×1 convolution; 0 otherwise.
    Raises:
        InvalidArgument: A value out of its range, or an identity skip between unequal shapes.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    in_px: int
    kernel: int = 1
    stride: int = 1
    expansion: int = 1
    se_channels: int = 0
    skip: Skip = "none"
    features: int = 0

    def __post_init__(self) -> None:
        positive = (self.in_channels, self.out_channels, self.in_px, self.expansion)
        if (
            min(positive) < 1
            or self.kernel % 2 == 0
            or self.stride not in (1, 2)
            or self.se_channels < 0
            or (self.kind == "head") != (self.features > 0)
        ):
            raise InvalidArgument(f"no such operator: {self!r}")
        if self.skip == "identity" and (self.stride != 1 or self.in_channels != self.out_channels):
            raise InvalidArgument(
                f"an identity skip needs stride 1 and equal channels, got stride {self.stride} "
                f"and {self.in_channels}→{self.out_channels}"
            )

    @cached_property
    def _hash(self) -> int:
        return hash(
            (self.kind, self.in_channels, self.out_channels, self.in_px, self.kernel,
             self.stride, self.expansion, self.se_channels, self.skip, self.features)
        )  # fmt: skip

    def __hash__(self) -> int:
        # Tables of whole spaces hash each operator thousands of times.
        return self._hash

    @property
    def out_px(self) -> int:
        """Side of the output map in pixels (1 for a head)."""
        return 1 if self.kind == "head" else -(-self.in_px // self.stride)

    @property
    def mid_channels(self) -> int:
        """Channels of the depthwise convolution; a head's features; 0 for stem and conv."""
        if self.kind == "head":
            return self.features
        return self.in_channels * self.expansion if self.kind in ("dsconv", "mbconv") else 0

    @cached_property
    def label(self) -> str:
        """Kind, kernel, stride and extras, for people: `mbconv6_k5_s2_se20`."""
        if self.kind == "head":
            return f"head{self.features}"
        name = f"mbconv{self.expansion}" if self.kind == "mbconv" else self.kind
        se = f"_se{self.se_channels}" if self.se_channels else ""
        skip = {"identity": "_skip", "pool": "_pool", "none": ""}[self.skip]
        return f"{name}_k{self.kernel}_s{self.stride}{se}{skip}"

    @cached_property
    def key(self) -> str:
        """The name in every table, unique: `mbconv6_k5_s2_se20_14x14x80_112`."""
        return f"{self.label}_{self.in_px}x{self.in_px}x{self.in_channels}_{self.out_channels}"

    @classmethod
    def parse(cls, key: str) -> Operator:
        """Inverse of `key`.

        Raises:
            InvalidArgument: Not the key of an operator.
        """
        match = _KEY.fullmatch(key)
        if not match or match["px"] != match["px2"]:
            raise InvalidArgument(f"{key!r} is no operator's key, as mbconv6_k3_s1_14x14x80_80 is")
        in_px, cin, cout = int(match["px"]), int(match["cin"]), int(match["cout"])
        if match["features"]:
            return cls("head", cin, cout, in_px, features=int(match["features"]))
        skip: Skip = {"_skip": "identity", "_pool": "pool"}.get(match["skip"] or "", "none")  # type: ignore[assignment]
        return cls(
            kind="mbconv" if match["expansion"] else match["kind"],  # type: ignore[arg-type]
            in_channels=cin,
            out_channels=cout,
            in_px=in_px,
            kernel=int(match["kernel"]),
            stride=int(match["stride"]),
            expansion=int(match["expansion"] or 1),
            se_channels=int(match["se"] or 0),
            skip=skip,
        )

    def __str__(self) -> str:
        shape = f"{self.in_px}×{self.in_px}×{self.in_channels}→{self.out_channels}"
        return f"{self.label} at {shape}"

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """What it computes, in order; skip and pooling add no weights."""
        px, out_px = self.in_px, self.out_px
        cin, cout, mid = self.in_channels, self.out_channels, self.mid_channels
        k, s = self.kernel, self.stride
        if self.kind == "head":
            return (
                Convolution("features", cin, mid, 1, 1, 1, px, True, "relu"),
                Convolution("classifier", mid, cout, 1, 1, 1, 1, False, "none"),
            )
        found: list[Convolution] = []
        if self.kind in ("stem", "conv", "proj"):
            act: Activation = "none" if self.kind == "proj" else "relu"
            found.append(Convolution("conv", cin, cout, k, s, 1, out_px, True, act))
            se_width = cout
        else:
            if self.expansion > 1:
                found.append(Convolution("expand", cin, mid, 1, 1, 1, px, True, "relu"))
            found.append(Convolution("depthwise", mid, mid, k, s, mid, out_px, True, "relu"))
            se_width = mid
        if self.se_channels:
            se = self.se_channels
            found.append(Convolution("se_reduce", se_width, se, 1, 1, 1, 1, False, "relu"))
            found.append(Convolution("se_expand", se, se_width, 1, 1, 1, 1, False, "sigmoid"))
        if self.kind in ("dsconv", "mbconv"):
            found.append(Convolution("project", mid, cout, 1, 1, 1, out_px, True, "none"))
        return tuple(found)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image: convolutions over the map, and the classifier.

        As in the published counts, squeeze-and-excite's two products of vectors are left out
        (0.08 % of MnasNet-A1).
        """
        return sum(c.macs for c in self.convolutions)

    @cached_property
    def params(self) -> int:
        """Trainable parameters (running means and variances are not counted)."""
        return sum(c.params for c in self.convolutions)

    @cached_property
    def peak_activations(self) -> int:
        """Numbers held at once while it runs, at most: a convolution's maps in and out, and the skip's.

        Activations, scaling and BatchNorm work in place; squeezed vectors are left out.
        """
        held = self.in_channels * self.in_px**2
        px, most = self.in_px, 0
        for place, c in enumerate(self.convolutions):
            if c.name.startswith("se_"):
                continue
            px = 1 if c.name == "classifier" else px
            maps = c.in_channels * px**2 + c.out_channels * c.out_px**2
            most = max(most, maps + (held if place and self.skip != "none" else 0))
            px = c.out_px
        return most
