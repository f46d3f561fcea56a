"""Block: equal layers of a network, and the word that names them; see `architecture`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from .errors import InvalidArchitecture
from .operator import ACTIVATIONS, Activation, Gate, Kind, Operator, Skip

__all__ = [
    "ACT_TOKENS",
    "FUNCTIONS",
    "MAX_WORD",
    "MIN_SE_RATIO",
    "Block",
    "parse_block",
    "round_channels",
]

MAX_WORD = 120
_MOST_CACHED = 1 << 14  # blocks of many networks are few: each is read and built once
MIN_SE_RATIO = 1e-4  # smaller ones are written with an exponent, which no block string has
ACT_TOKENS = {"relu": "", **{function: f"_{name}" for name, function in ACTIVATIONS.items()}}
FUNCTIONS: dict[str, Activation] = {"relu": "relu", "silu": "swish", **ACTIVATIONS}


def round_channels(wish: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never below 0.9 of the wish, at least `divisor`.

    Source: the official MnasNet and MobileNet code.

    >>> [round_channels(c) for c in (12, 18, 20, 112 * 1.4)]
    [16, 24, 24, 160]
    """
    rounded = max(divisor, int(wish + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wish else rounded


_NAMES = {
    "conv": "convolution",
    "proj": "linear convolution",
    "dsconv": "separable convolution",
    "fused": "fused MBConv",
    "edge": "edge MBConv",
}


@dataclass(frozen=True, slots=True)
class Block:
    """`repeats` equal layers; the first has the stride and the change of channels.

    Args:
        repeats, kernel, stride: Kernel 0 is an MBConv without a depthwise convolution.
        expansion: 0 means a regular convolution, 1 a depthwise-separable one, 2 and more an
            MBConv; of no account where there is a `middle`.
        in_channels, out_channels: Of the block.
        se_ratio: The squeeze over the layer's input channels, 0 or in [0.0001, 1].
        skip: "identity" where shapes allow it, "pool" or "none".
        linear: A regular convolution without an activation.
        middle: Channels in the middle of an MBConv, the same in each layer; 0: by `expansion`.
        ahead: Kernel of a depthwise convolution ahead of an MBConv; 0 for none.
        form: "fused" or "edge" MBConv; else "".
        activation: Of each convolution that has one.
        gate: Of the squeeze.
        of_middle: Whether `se_ratio` is over the middle channels, rounded to a multiple of 8.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    in_channels: int
    out_channels: int
    se_ratio: float = 0.0
    skip: Skip = "identity"
    linear: bool = False
    middle: int = 0
    ahead: int = 0
    form: Literal["", "fused", "edge"] = ""
    activation: Activation = "relu"
    gate: Gate = "sigmoid"
    of_middle: bool = False

    def __post_init__(self) -> None:
        # What has no effect is not said: equal layers have one text.
        if self.middle:
            object.__setattr__(self, "expansion", 0)
        if not self.se_ratio:
            object.__setattr__(self, "gate", "sigmoid")
            object.__setattr__(self, "of_middle", False)
            if self.linear:
                object.__setattr__(self, "activation", "relu")

    @property
    def kind(self) -> Kind:
        """Of its layers."""
        if self.form:
            return self.form
        if self.middle or (self.expansion and (self.ahead or not self.kernel)):
            return "mbconv"
        if not self.expansion:
            return "proj" if self.linear else "conv"
        return "dsconv" if self.expansion == 1 else "mbconv"

    def __str__(self) -> str:
        width = f"m{self.middle}" if self.middle else f"e{self.expansion}"
        kind = f"{self.form}_{width}" if self.form else width
        if self.kind in ("conv", "proj"):
            kind = self.kind
        # All digits, so that the text is the value: `:g` would round a third.
        ratio = f"{float(self.se_ratio)!r}".removesuffix(".0")
        gate = ("h" if self.gate == "hard_sigmoid" else "") + ("sem" if self.of_middle else "se")
        se = f"_{gate}{ratio}" if self.se_ratio else ""
        skip = {"identity": "", "pool": "_pool", "none": "_noskip"}[self.skip]
        ahead = f"_a{self.ahead}" if self.ahead or not self.kernel else ""
        return (
            f"r{self.repeats}{ahead}_k{self.kernel}_s{self.stride}{self.stride}_{kind}"
            f"_i{self.in_channels}_o{self.out_channels}{se}{ACT_TOKENS[self.activation]}{skip}"
        )

    @property
    def words(self) -> str:
        """What it is in words, as "MBConv3 5×5, 3 layers, stride 2, 40 channels"."""
        if self.kind == "mbconv" and self.expansion:
            name = f"MBConv{self.expansion}"
        elif self.kind == "mbconv":
            name = f"MBConv of {self.middle}"
        else:
            name = _NAMES[self.kind]
            if self.form:
                name += str(self.expansion) if self.expansion else f" of {self.middle}"
        sides = [side for side in (self.ahead, self.kernel) if side]
        words = [" ".join([name, " and ".join(f"{s}×{s}" for s in sides)]).strip()]
        if self.repeats > 1:
            words[0] += f", {self.repeats} layers"
        if self.stride > 1:
            words.append(f"stride {self.stride}")
        if self.se_ratio:
            words.append(f"squeeze {float(self.se_ratio):.3g}")
        if self.skip == "pool":
            words.append("pool skip")
        words.append(f"{self.out_channels} channels")
        return ", ".join(words)

    def operators(self, in_px: int) -> tuple[Operator, ...]:
        """Its layers on an input map of `in_px` pixels a side."""
        return _block_operators(self, in_px)

    def scaled(self, width: float) -> Block:
        """The same block `width` times as wide."""
        before = round_channels(self.in_channels * width)
        middle = round_channels(self.middle / self.in_channels * before) if self.middle else 0
        after = round_channels(self.out_channels * width)
        return replace(self, in_channels=before, middle=middle, out_channels=after)

    def canonical(self) -> Block:
        """The same layers under their shortest text.

        No `noskip` where none could be anyway, and `e6` for a middle of six times the input.
        """
        could = self.repeats > 1 or (self.stride == 1 and self.in_channels == self.out_channels)
        block = replace(self, skip="identity") if self.skip == "none" and not could else self
        times, rest = divmod(self.middle, self.in_channels)
        alike = self.repeats == 1 or self.in_channels == self.out_channels
        if times and not rest and alike:
            shorter = replace(block, middle=0, expansion=times)
            if shorter.kind == block.kind:
                return shorter
        return block


@lru_cache(maxsize=_MOST_CACHED)
def _block_operators(block: Block, in_px: int) -> tuple[Operator, ...]:
    layers: list[Operator] = []
    for index in range(block.repeats):
        first = index == 0
        stride = block.stride if first else 1
        channels = block.in_channels if first else block.out_channels
        skip = block.skip
        if skip == "identity" and (stride != 1 or channels != block.out_channels):
            skip = "none"
        squeeze = 0
        if block.of_middle:
            regular = block.kind in ("conv", "proj")
            wide = block.out_channels if regular else block.middle or channels * block.expansion
            squeeze = round_channels(wide * block.se_ratio)
        elif block.se_ratio:
            # From the input channels: the official code's, and what published counts need.
            squeeze = max(1, int(channels * block.se_ratio))
        layer = Operator(
            kind=block.kind,
            in_channels=channels,
            out_channels=block.out_channels,
            in_px=in_px,
            kernel=block.kernel,
            stride=stride,
            expansion=block.middle / channels if block.middle else max(block.expansion, 1),
            se_channels=squeeze,
            skip=skip,
            ahead=block.ahead,
            activation=block.activation,
            gate=block.gate,
        )
        layers.append(layer)
        in_px = layer.out_px
    return tuple(layers)


_RATIO = r"(0?\.[0-9]{1,20}|0|1|1\.0)"
_TOKENS: dict[str, tuple[re.Pattern[str], str]] = {
    "repeats": (re.compile(r"r([0-9]{1,3})"), "r and a number of layers, as in r3"),
    "kernel": (re.compile(r"k([0-9]{1,2})"), "k and an odd kernel, as in k5"),
    "stride": (re.compile(r"s([12])\1?"), "s11 or s22"),
    "expansion": (re.compile(r"e([0-9]{1,2})"), "e and an expansion, as in e6"),
    "middle": (re.compile(r"m([0-9]{1,5})"), "m and channels in the middle, as in m184"),
    "ahead": (re.compile(r"a([0-9]{1,2})"), "a and a kernel ahead, as in a3, or a0 for none"),
    "regular": (re.compile(r"(conv|proj)"), "conv, or proj for one without an activation"),
    "form": (re.compile(r"(fused|edge)"), "fused, or edge with the stride at the projection"),
    "activation": (re.compile(r"(relu6?|hswish|swish|silu)"), "relu6, hswish or swish"),
    "in_channels": (re.compile(r"i([0-9]{1,5})"), "i and input channels, as in i24"),
    "out_channels": (re.compile(r"o([0-9]{1,5})"), "o and output channels, as in o40"),
    "se_ratio": (re.compile(r"(?:h?sem?)" + _RATIO), "se and a ratio in [0, 1], as in se0.25"),
    "skip": (re.compile(r"(noskip|pool)"), "noskip or pool"),
}


_SKIPS: dict[str, Skip] = {"": "identity", "noskip": "none", "pool": "pool"}


@lru_cache(maxsize=_MOST_CACHED)
def parse_block(word: str, number: int) -> Block:
    """The block that a word names; `number` is its place, for messages.

    Raises:
        InvalidArchitecture: A token that is none, is missing, or out of range; it is named.
    """
    tokens: dict[str, str] = {}
    squeeze = ""
    for token in word.split("_"):
        name, match = next(
            ((n, m) for n, (p, _) in _TOKENS.items() if (m := p.fullmatch(token))), ("", None)
        )
        if match is None:
            raise InvalidArchitecture(
                f"block {number} '{word}': token '{token}' is unknown. {_hint(token)}"
            )
        if name in tokens:
            raise InvalidArchitecture(f"block {number} '{word}': token '{token}' is given twice")
        tokens[name] = match[1]
        squeeze = token if name == "se_ratio" else squeeze
    if sum(name in tokens for name in ("expansion", "regular", "middle")) != 1:
        raise InvalidArchitecture(
            f"block {number} '{word}': needs one of e<expansion> and conv, as in e6, or a middle "
            "of its own, as in m184"
        )
    for name in ("repeats", "kernel", "stride", "in_channels", "out_channels"):
        if name not in tokens:
            raise InvalidArchitecture(f"block {number} '{word}': lacks {_TOKENS[name][1]}")
    ahead, kernel = int(tokens.get("ahead", 0)), int(tokens["kernel"])
    block = Block(
        repeats=int(tokens["repeats"]),
        kernel=kernel,
        stride=int(tokens["stride"]),
        expansion=int(tokens.get("expansion", 0)),
        in_channels=int(tokens["in_channels"]),
        out_channels=int(tokens["out_channels"]),
        se_ratio=float(tokens.get("se_ratio", 0)),
        skip=_SKIPS[tokens.get("skip", "")],
        linear=tokens.get("regular") == "proj",
        middle=int(tokens.get("middle", 0)),
        ahead=ahead,
        form=tokens.get("form", ""),  # type: ignore[arg-type]
        activation=FUNCTIONS[tokens.get("activation", "relu")],
        gate="hard_sigmoid" if squeeze.startswith("h") else "sigmoid",
        of_middle="m" in squeeze,
    )
    plain = "regular" in tokens or "form" in tokens
    wrong = {
        f"r{block.repeats}": block.repeats < 1,
        f"k{kernel}": kernel % 2 == 0 and (kernel > 0 or plain or "ahead" not in tokens),
        f"a{ahead}": "ahead" in tokens and (plain or (ahead > 0 and ahead % 2 == 0)),
        f"s{block.stride}{block.stride}": block.stride > 1 and not kernel and not ahead,
        f"e{block.expansion}": "expansion" in tokens and block.expansion < 1,
        f"m{block.middle}": "middle" in tokens and block.middle < 1,
        block.form: bool(block.form) and "regular" in tokens,
        f"i{block.in_channels}": block.in_channels < 1,
        f"o{block.out_channels}": block.out_channels < 1,
    }
    for token, is_wrong in wrong.items():
        if is_wrong:
            raise InvalidArchitecture(
                f"block {number} '{word}': token '{token}' is out of range. {_hint(token)}"
            )
    return block


def _hint(token: str) -> str:
    letters = re.match(r"[a-z]*", token)
    start = letters[0] if letters else ""
    starts: Iterable[tuple[str, str]] = (
        ("se", "se_ratio"),
        ("hse", "se_ratio"),
        ("m", "middle"),
        ("a", "ahead"),
        ("r", "repeats"),
        ("k", "kernel"),
        ("s", "stride"),
        ("e", "expansion"),
        ("i", "in_channels"),
        ("o", "out_channels"),
    )
    for prefix, name in starts:
        if start == prefix or (len(prefix) > 1 and start.startswith(prefix)):
            return f"Here stands {_TOKENS[name][1]}."
    return "A block reads like r3_k5_s22_e3_i24_o40_se0.25, with noskip or pool at its end."
