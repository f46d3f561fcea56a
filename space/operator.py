"""Operator: one layer of a network with its shapes, the unit that is measured.

An operator is what a lookup table lists: a stem, a regular convolution, a depthwise-separable
or MBConv layer with its squeeze-and-excite and skip, or the head. What it is made of
(`convolutions`) is said here once; counts, ONNX and torch forms all follow from it.

Conventions (official MnasNet code): squeeze convolutions have biases, the others BatchNorm;
projections are linear; padding is symmetric, k // 2; an odd map under stride 2 rounds up. The
first convolution of a squeeze has the layer's activation, and ReLU where the gate is a hard
sigmoid, as in EfficientNet and MobileNetV3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from .errors import InvalidArgument

__all__ = [
    "ACTIVATIONS",
    "MIXERS",
    "Activation",
    "Convolution",
    "Kind",
    "Mixer",
    "Operator",
    "Skip",
]

Kind = Literal["stem", "conv", "proj", "dsconv", "mbconv", "fused", "edge", "head"]
Skip = Literal["identity", "pool", "none"]
Activation = Literal["relu", "relu6", "hard_swish", "swish"]
Function = Literal["relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid", "none"]
Gate = Literal["sigmoid", "hard_sigmoid"]
Mixer = Literal["bias", "norm", "plain"]
#: What an activation other than ReLU is called in keys and block strings.
ACTIVATIONS: dict[str, Activation] = {"relu6": "relu6", "hswish": "hard_swish", "swish": "swish"}
#: What the head's second convolution is called in keys and block strings.
MIXERS: dict[str, Mixer] = {"hidden": "bias", "hiddennorm": "norm", "hiddenplain": "plain"}
_NAMES = {"relu": "", **{function: f"_{name}" for name, function in ACTIVATIONS.items()}}
_MIXER_NAMES = {form: name for name, form in MIXERS.items()}
_EXPANDED = ("mbconv", "fused", "edge")
_KEY = re.compile(
    r"(?:head(?P<features>\d+)(?:_(?P<mixer>hidden(?:norm|plain)?)(?P<hidden>\d+))?"
    r"|(?:(?P<expanded>mbconv|fused|edge)(?:(?P<expansion>\d+)|m(?P<middle>\d+))"
    r"|(?P<kind>stem|conv|proj|dsconv))(?:_a(?P<ahead>\d+))?"
    r"_k(?P<kernel>\d+)_s(?P<stride>[12])(?:_(?P<hard>h?)se(?P<se>\d+))?)"
    r"(?:_(?P<activation>relu6|hswish|swish))?(?P<skip>_skip|_pool)?"
    r"_(?P<px>\d+)x(?P<px2>\d+)x(?P<cin>\d+)_(?P<cout>\d+)",
    re.ASCII,
)
_SKIPS: dict[str | None, Skip] = {None: "none", "_skip": "identity", "_pool": "pool"}


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution inside an operator, or the head's classifier (a 1×1 on a 1×1 map).

    `out_px` is the side of the output map in pixels. `normalised` convolutions have BatchNorm
    and no bias; the others have a bias, unless they are `plain`.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    out_px: int
    normalised: bool
    activation: Function
    plain: bool = False

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight, (out, in / groups, k, k)."""
        return (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)

    @property
    def bias(self) -> bool:
        """Whether it has a bias of its own."""
        return not (self.normalised or self.plain)

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
        return out * (per_group * k * k + 2 * self.normalised + self.bias)


@dataclass(frozen=True)
class Operator:
    """One layer with its shapes.

    Args:
        kind: "stem" (3×3, BatchNorm, ReLU), "conv" (regular), "proj" (regular without an
            activation, as a shortcut that changes shape has), "dsconv" (depthwise-separable: an
            MBConv without its first 1×1), "mbconv", "fused" (one convolution in place of an
            MBConv's first two), "edge" (the same with the stride at the projection, as in
            EfficientNet-EdgeTPU), or "head" (1×1, pool, classifier).
        in_channels, out_channels: Channels in and out (for a head: classes out), ≥ 1.
        in_px: Side of the square input map in pixels, ≥ 1.
        kernel: Side of the kernel, odd; 0 for an mbconv without a depthwise convolution.
        stride: 1 or 2.
        expansion: Middle channels over input channels, > 0; rounded to whole channels.
        se_channels: Squeeze width of squeeze-and-excite; 0 for none.
        skip: "identity" adds the input (stride 1, equal channels only), "pool" adds a 3×3
            average pooling of the input at the layer's stride, channels cut or zero-padded.
        features: Width of a head's 1×1 convolution; 0 otherwise.
        ahead: Kernel of a depthwise convolution ahead of an mbconv's first 1×1, odd; 0 for none.
            With it, an mbconv is MobileNetV4's universal block.
        activation: Of all convolutions that have one, but for a squeeze.
        gate: Of a squeeze.
        hidden: Width of a head's second convolution, behind the pool; 0 for none.
        mixer: What the second one has: "bias", "norm" (BatchNorm), or "plain" (neither).
    Raises:
        InvalidArgument: A value out of its range, or an identity skip between unequal shapes.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    in_px: int
    kernel: int = 1
    stride: int = 1
    expansion: float = 1
    se_channels: int = 0
    skip: Skip = "none"
    features: int = 0
    ahead: int = 0
    activation: Activation = "relu"
    gate: Gate = "sigmoid"
    hidden: int = 0
    mixer: Mixer = "bias"

    def __post_init__(self) -> None:
        sizes = min(self.in_channels, self.out_channels, self.in_px)
        middle = round(self.in_channels * self.expansion) if sizes >= 1 else 0
        head, mbconv = self.kind == "head", self.kind == "mbconv"
        bare = mbconv and not self.kernel and (self.ahead or self.stride == 1)
        if (
            min(sizes, middle) < 1
            or self.kernel < 0
            or (self.kernel % 2 == 0 and not bare)
            or self.ahead < 0
            or (self.ahead and not (mbconv and self.ahead % 2))
            or self.stride not in (1, 2)
            or self.se_channels < 0
            or head != (self.features > 0)
            or self.hidden < 0
            or (self.hidden and not head)
            or self.activation not in _NAMES
            or self.gate not in get_args(Gate)
            or self.mixer not in get_args(Mixer)
        ):
            raise InvalidArgument(f"no such operator: {self!r}")
        # Of several ways to say one thing there is one value: its key tells it.
        whole = middle % self.in_channels == 0
        self._set("expansion", middle // self.in_channels if whole else middle / self.in_channels)
        if not self.se_channels:
            self._set("gate", "sigmoid")
            if self.kind == "proj":
                self._set("activation", "relu")
        if not self.hidden:
            self._set("mixer", "bias")
        if self.skip == "identity" and (self.stride != 1 or self.in_channels != self.out_channels):
            raise InvalidArgument(
                f"an identity skip needs stride 1 and equal channels, got stride {self.stride} "
                f"and {self.in_channels}→{self.out_channels}"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__dataclass_fields__))

    def __hash__(self) -> int:
        # Tables of whole spaces hash each operator thousands of times.
        return self._hash

    @property
    def out_px(self) -> int:
        """Side of the output map in pixels (1 for a head)."""
        return 1 if self.kind == "head" else -(-self.in_px // self.stride)

    @property
    def mid_channels(self) -> int:
        """Channels between expansion and projection; a head's features; 0 for stem and conv."""
        if self.kind == "head":
            return self.features
        inner = self.kind == "dsconv" or self.kind in _EXPANDED
        return round(self.in_channels * self.expansion) if inner else 0

    @cached_property
    def label(self) -> str:
        """Kind, kernel, stride and extras, for people: `mbconv6_k5_s2_se20`."""
        act = _NAMES[self.activation]
        if self.kind == "head":
            hidden = f"_{_MIXER_NAMES[self.mixer]}{self.hidden}" if self.hidden else ""
            return f"head{self.features}{hidden}{act}"
        name: str = self.kind
        if name in _EXPANDED:
            whole = isinstance(self.expansion, int)
            name += f"{self.expansion}" if whole else f"m{self.mid_channels}"
        ahead = f"_a{self.ahead}" if self.ahead else ""
        hard = "h" if self.gate == "hard_sigmoid" else ""
        se = f"_{hard}se{self.se_channels}" if self.se_channels else ""
        skip = {"identity": "_skip", "pool": "_pool", "none": ""}[self.skip]
        return f"{name}{ahead}_k{self.kernel}_s{self.stride}{se}{act}{skip}"

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
            raise InvalidArgument(
                f"{key!r} is not an operator's key, as mbconv6_k3_s1_14x14x80_80 is"
            )
        in_px, cin, cout = int(match["px"]), int(match["cin"]), int(match["cout"])
        activation: Activation = ACTIVATIONS.get(match["activation"], "relu")
        if match["features"]:
            return cls(
                "head",
                cin,
                cout,
                in_px,
                features=int(match["features"]),
                activation=activation,
                hidden=int(match["hidden"] or 0),
                mixer=MIXERS.get(match["mixer"], "bias"),
            )
        return cls(
            kind=match["expanded"] or match["kind"],  # type: ignore[arg-type]
            in_channels=cin,
            out_channels=cout,
            in_px=in_px,
            kernel=int(match["kernel"]),
            stride=int(match["stride"]),
            expansion=int(match["middle"]) / cin
            if match["middle"] and cin
            else int(match["expansion"] or 1),
            se_channels=int(match["se"] or 0),
            skip=_SKIPS[match["skip"]],
            ahead=int(match["ahead"] or 0),
            activation=activation,
            gate="hard_sigmoid" if match["hard"] else "sigmoid",
        )

    def __str__(self) -> str:
        shape = f"{self.in_px}×{self.in_px}×{self.in_channels}→{self.out_channels}"
        return f"{self.label} at {shape}"

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """What it computes, in order; skip and pooling add no weights."""
        px, out_px, act = self.in_px, self.out_px, self.activation
        cin, cout, mid = self.in_channels, self.out_channels, self.mid_channels
        k, s = self.kernel, self.stride
        conv = Convolution
        layers: list[Convolution] = []
        if self.kind == "head":
            layers.append(conv("features", cin, mid, 1, 1, 1, px, True, act))
            if self.hidden:
                form, plain = self.mixer == "norm", self.mixer == "plain"
                layers.append(conv("hidden", mid, self.hidden, 1, 1, 1, 1, form, act, plain))
            last = self.hidden or mid
            return (*layers, conv("classifier", last, cout, 1, 1, 1, 1, False, "none"))
        width = mid or cout
        if self.kind in ("stem", "conv", "proj"):
            function: Function = "none" if self.kind == "proj" else act
            layers.append(conv("conv", cin, cout, k, s, 1, out_px, True, function))
        elif self.kind == "fused":
            layers.append(conv("fused", cin, mid, k, s, 1, out_px, True, act))
        elif self.kind == "edge":
            layers.append(conv("fused", cin, mid, k, 1, 1, px, True, act))
        else:
            if self.ahead:
                step = 1 if k else s
                px = px if k else out_px
                layers.append(conv("ahead", cin, cin, self.ahead, step, cin, px, True, "none"))
            if self.kind == "mbconv" or mid != cin:
                layers.append(conv("expand", cin, mid, 1, 1, 1, px, True, act))
            if k:
                layers.append(conv("depthwise", mid, mid, k, s, mid, out_px, True, act))
        if self.se_channels:
            se, inner = self.se_channels, "relu" if self.gate == "hard_sigmoid" else act
            layers.append(conv("se_reduce", width, se, 1, 1, 1, 1, False, inner))
            layers.append(conv("se_expand", se, width, 1, 1, 1, 1, False, self.gate))
        if mid:
            step = s if self.kind == "edge" else 1
            layers.append(conv("project", mid, cout, 1, step, 1, out_px, True, "none"))
        return tuple(layers)

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
        """Most numbers in memory at once while it runs: a convolution's maps in and out, and the
        skip's.

        Activations, scaling and BatchNorm work in place; squeezed vectors are left out.
        """
        input_size = self.in_channels * self.in_px**2
        px, most = self.in_px, 0
        for place, c in enumerate(self.convolutions):
            if c.name.startswith("se_"):
                continue
            px = 1 if c.name in ("hidden", "classifier") else px
            maps = c.in_channels * px**2 + c.out_channels * c.out_px**2
            most = max(most, maps + (input_size if place and self.skip != "none" else 0))
            px = c.out_px
        return most
