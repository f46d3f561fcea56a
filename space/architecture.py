"""Architecture: a whole network as a frozen value, and the line of text that names it.

The text is that of the official MnasNet code, one word per block::

    r3_k5_s22_e3_i24_o40_se0.25      3 layers, 5×5, first stride 2, expansion 3, 24→40, SE
    r1_k3_s11_e1_i32_o16_noskip      expansion 1 is the depthwise-separable convolution
    r2_k3_s22_conv_i16_o24_pool      a regular convolution; pool skip      (our own words)
    r1_k1_s22_proj_i32_o64           one without an activation: a shortcut that changes shape

The default skip is the identity, in each layer where shapes allow it. Words that are not blocks
set what is not the default: `stem8` (else the first block's input), `stemstride2`, `head1280`,
`classes1000`, `res224`. Words are parted by blanks, commas or `·`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from .errors import InvalidArchitecture, InvalidArgument
from .operator import Operator, Skip

__all__ = ["CLASSES", "HEAD_CHANNELS", "RESOLUTION_PX", "Architecture", "Block", "round_channels"]

HEAD_CHANNELS = 1280
CLASSES = 1000
RESOLUTION_PX = 224
STEM_STRIDE = 2
_MAX_PX = 2048  # a typing error beyond this would ask for gigabytes of activations
_MAX_LAYERS = 1000  # and these bounds keep one from asking for gigabytes of layers or weights
_MAX_PARAMS = 10**9
_MAX_WORD = 120
_MIN_SE_RATIO = 1e-4  # smaller ones are written with an exponent, which no block string has


def round_channels(wish: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never below 0.9 of the wish, at least `divisor`.

    Source: the official MnasNet and MobileNet code.

    >>> [round_channels(c) for c in (12, 18, 20, 112 * 1.4)]
    [16, 24, 24, 160]
    """
    rounded = max(divisor, int(wish + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wish else rounded


@dataclass(frozen=True, slots=True)
class Block:
    """`repeats` layers alike; the first carries the stride and the change of channels.

    `expansion` 0 means a regular convolution, 1 a depthwise-separable one, 2 and more an MBConv.
    `linear` leaves a regular convolution's activation out. `se_ratio` is the squeeze over the
    layer's input channels, 0 or in [0.0001, 1].
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

    def __str__(self) -> str:
        regular = "proj" if self.linear else "conv"
        kind = f"e{self.expansion}" if self.expansion else regular
        # All digits, so that the text is the value: `:g` would round a third.
        se = f"_se{float(self.se_ratio)!r}".removesuffix(".0") if self.se_ratio else ""
        skip = {"identity": "", "pool": "_pool", "none": "_noskip"}[self.skip]
        return (
            f"r{self.repeats}_k{self.kernel}_s{self.stride}{self.stride}_{kind}"
            f"_i{self.in_channels}_o{self.out_channels}{se}{skip}"
        )

    def operators(self, in_px: int) -> tuple[Operator, ...]:
        """Its layers on an input map of `in_px` pixels a side."""
        return _block_operators(self, in_px)

    def canonical(self) -> Block:
        """The same layers under their shortest text: no `noskip` where none could be anyway."""
        could = self.repeats > 1 or (self.stride == 1 and self.in_channels == self.out_channels)
        return replace(self, skip="identity") if self.skip == "none" and not could else self


def _block_operators(block: Block, in_px: int) -> tuple[Operator, ...]:
    kind = {0: "proj" if block.linear else "conv", 1: "dsconv"}.get(block.expansion, "mbconv")
    layers: list[Operator] = []
    for index in range(block.repeats):
        first = index == 0
        stride = block.stride if first else 1
        channels = block.in_channels if first else block.out_channels
        skip = block.skip
        if skip == "identity" and (stride != 1 or channels != block.out_channels):
            skip = "none"
        layer = Operator(
            kind=kind,  # type: ignore[arg-type]
            in_channels=channels,
            out_channels=block.out_channels,
            in_px=in_px,
            kernel=block.kernel,
            stride=stride,
            expansion=max(block.expansion, 1),
            # Squeeze width from the input channels: the official code's, and what the
            # published parameter counts need.
            se_channels=max(1, int(channels * block.se_ratio)) if block.se_ratio else 0,
            skip=skip,
        )
        layers.append(layer)
        in_px = layer.out_px
    return tuple(layers)


@dataclass(frozen=True)
class Architecture:
    """A whole network: stem, blocks, head.

    Args:
        blocks: In order; each block's input channels are its forerunner's output.
        stem_channels: Output of the 3×3 stem.
        head_channels: Output of the head's 1×1 convolution.
        classes: Outputs of the classifier.
        resolution_px: Side of the square RGB input, in pixels.
        stem_stride: 2, or 1 as for small images.
    Raises:
        InvalidArchitecture: Channels do not meet, there is no block, one without layers, linear
            though no regular convolution, or with a squeeze ratio out of range, a stem stride
            other than 1 and 2, or more than 1,000 layers.
        InvalidArgument: A resolution that the network cannot take: below its total stride, so
            that a map would be strided away to nothing, or above 2,048 px.

    >>> a = Architecture.parse("r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24")
    >>> str(a), a.macs, a.params
    ('r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24', 173433856, 1330072)
    """

    blocks: tuple[Block, ...]
    stem_channels: int
    head_channels: int = HEAD_CHANNELS
    classes: int = CLASSES
    resolution_px: int = RESOLUTION_PX
    stem_stride: int = STEM_STRIDE

    def __post_init__(self) -> None:
        if not self.blocks:
            raise InvalidArchitecture(
                "a network needs at least one block, as in r2_k3_s22_e6_i16_o24"
            )
        if sum(block.repeats for block in self.blocks) > _MAX_LAYERS:
            raise InvalidArchitecture(
                f"a network has at most {_MAX_LAYERS} layers, and these r tokens add up to more"
            )
        if self.stem_stride not in (1, 2):
            raise InvalidArchitecture(f"a stem's stride is 1 or 2, got {self.stem_stride}")
        channels = self.stem_channels
        for number, block in enumerate(self.blocks):
            if block.repeats < 1:
                raise InvalidArchitecture(
                    f"block {number}: repeats is 1 or more, got {block.repeats}"
                )
            if block.se_ratio and not _MIN_SE_RATIO <= block.se_ratio <= 1:
                raise InvalidArchitecture(
                    f"block {number}: se_ratio is 0 or in [{_MIN_SE_RATIO:g}, 1], "
                    f"got {block.se_ratio:g}"
                )
            if block.linear and block.expansion:
                raise InvalidArchitecture(
                    f"block {number}: only a regular convolution (expansion 0) can be linear, and "
                    f"this one has expansion {block.expansion}"
                )
            if block.in_channels != channels:
                before = f"block {number - 1} gives" if number else "the stem gives"
                raise InvalidArchitecture(
                    f"block {number} '{block}': token 'i{block.in_channels}' takes "
                    f"{block.in_channels} channels, but {before} {channels}. Write i{channels}."
                )
            channels = block.out_channels
        if not self.total_stride <= self.resolution_px <= _MAX_PX:
            raise InvalidArgument(
                f"a resolution of {self.resolution_px} px cannot be taken: this network's strides "
                f"multiply to {self.total_stride}, so it takes {self.total_stride} to {_MAX_PX} px."
            )

    @property
    def total_stride(self) -> int:
        """Input side over the side of the last map, stem included."""
        stride = self.stem_stride
        for block in self.blocks:
            stride *= block.stride
        return stride

    @cached_property
    def _operators(self) -> tuple[Operator, ...]:
        stem = stem_operator(self.stem_channels, self.resolution_px, self.stem_stride)
        found, px = [stem], stem.out_px
        for block in self.blocks:
            found.extend(block.operators(px))
            px = found[-1].out_px
        found.append(
            Operator("head", found[-1].out_channels, self.classes, px, features=self.head_channels)
        )
        return tuple(found)

    def operators(self) -> tuple[Operator, ...]:
        """Stem, layers and head in order. Two networks are the same when these are equal."""
        return self._operators

    @property
    def macs(self) -> int:
        """Multiply-adds of one image (FLOPs are twice that)."""
        return sum(o.macs for o in self.operators())

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(o.params for o in self.operators())

    def with_resolution(self, resolution_px: int) -> Architecture:
        """The same network on another input size, in pixels a side."""
        return replace(self, resolution_px=resolution_px)

    def scaled(self, width: float) -> Architecture:
        """Every block and the stem `width` times as wide, the head as it was.

        Raises:
            InvalidArgument: A width outside (0, 10].
        """
        if not 0 < width <= 10:
            raise InvalidArgument(f"a width multiplier lies in (0, 10], got {width:g}")
        if width == 1:
            return self
        blocks = tuple(
            replace(
                b,
                in_channels=round_channels(b.in_channels * width),
                out_channels=round_channels(b.out_channels * width),
            )
            for b in self.blocks
        )
        return replace(self, blocks=blocks, stem_channels=blocks[0].in_channels)

    def __str__(self) -> str:
        words = [str(b) for b in self.blocks]
        if self.stem_channels != self.blocks[0].in_channels:  # pragma: no cover - barred above
            words.insert(0, f"stem{self.stem_channels}")
        if self.head_channels != HEAD_CHANNELS:
            words.append(f"head{self.head_channels}")
        if self.classes != CLASSES:
            words.append(f"classes{self.classes}")
        if self.stem_stride != STEM_STRIDE:
            words.append(f"stemstride{self.stem_stride}")
        if self.resolution_px != RESOLUTION_PX:
            words.append(f"res{self.resolution_px}")
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the line of text that `str` writes.

        Raises:
            InvalidArchitecture: A word or token that is none, named with its block.
        """
        return _parse(text)


def stem_operator(channels: int, resolution_px: int, stride: int = STEM_STRIDE) -> Operator:
    """The stem of every network here: 3×3, from RGB."""
    return Operator("stem", 3, channels, resolution_px, kernel=3, stride=stride)


_SETTING = re.compile(r"(stem|stemstride|head|classes|res)([0-9]{1,6})")
_TOKENS: dict[str, tuple[re.Pattern[str], str]] = {
    "repeats": (re.compile(r"r([0-9]{1,3})"), "r and a number of layers, as in r3"),
    "kernel": (re.compile(r"k([0-9]{1,2})"), "k and an odd kernel, as in k5"),
    "stride": (re.compile(r"s([12])\1?"), "s11 or s22"),
    "expansion": (re.compile(r"e([0-9]{1,2})"), "e and an expansion, as in e6"),
    "regular": (re.compile(r"(conv|proj)"), "conv, or proj for one without an activation"),
    "in_channels": (re.compile(r"i([0-9]{1,5})"), "i and input channels, as in i24"),
    "out_channels": (re.compile(r"o([0-9]{1,5})"), "o and output channels, as in o40"),
    "se_ratio": (re.compile(r"se(0?\.[0-9]{1,20}|0|1|1\.0)"), "se and a ratio in [0, 1], as in se0.25"),
    "skip": (re.compile(r"(noskip|pool)"), "noskip or pool"),
}  # fmt: skip


def _parse(text: str) -> Architecture:
    words = [w for w in re.split(r"[\s,·;]+", text.strip()) if w]
    settings: dict[str, int] = {}
    blocks: list[Block] = []
    for word in words:
        if len(word) > _MAX_WORD:
            raise InvalidArchitecture(
                f"'{word[:40]}…' has {len(word)} characters, and no block needs so many. "
                "Part blocks with blanks, commas or ·."
            )
        setting = _SETTING.fullmatch(word)
        if setting:
            name, value = setting[1], int(setting[2])
            if name in settings or value < 1:
                raise InvalidArchitecture(
                    f"'{word}': {name} is given once, with a value of 1 or more"
                )
            settings[name] = value
        else:
            blocks.append(_parse_block(word, len(blocks)))
    if not blocks:
        raise InvalidArchitecture(
            f"{text.strip()[:_MAX_WORD]!r} holds no block. "
            "A block reads like r3_k5_s22_e3_i24_o40_se0.25."
        )
    stem = settings.get("stem", blocks[0].in_channels)
    if blocks[0].expansion == 1 and not blocks[0].se_ratio and blocks[0].repeats == 1:
        # MnasNet-small's published first block says i16 behind a stem of 8; at expansion 1
        # and without squeeze the number has no effect in the official code.
        blocks[0] = replace(blocks[0], in_channels=stem)
    found = Architecture(
        blocks=tuple(blocks),
        stem_channels=stem,
        head_channels=settings.get("head", HEAD_CHANNELS),
        classes=settings.get("classes", CLASSES),
        resolution_px=settings.get("res", RESOLUTION_PX),
        stem_stride=settings.get("stemstride", STEM_STRIDE),
    )
    if found.params > _MAX_PARAMS:
        largest = max(blocks, key=lambda b: sum(o.params for o in b.operators(1)))
        raise InvalidArchitecture(
            f"these words ask for {found.params:.2g} parameters, and {_MAX_PARAMS:.0e} is the "
            f"limit; of the blocks, '{largest}' has the most. Is a number in it or in head or "
            "classes mistyped?"
        )
    return found


def _parse_block(word: str, number: int) -> Block:
    found: dict[str, str] = {}
    for token in word.split("_"):
        name, match = next(
            ((n, m) for n, (p, _) in _TOKENS.items() if (m := p.fullmatch(token))), ("", None)
        )
        if match is None:
            raise InvalidArchitecture(
                f"block {number} '{word}': token '{token}' is unknown. {_hint(token)}"
            )
        if name in found:
            raise InvalidArchitecture(f"block {number} '{word}': token '{token}' is given twice")
        found[name] = match[1]
    if ("expansion" in found) == ("regular" in found):
        raise InvalidArchitecture(
            f"block {number} '{word}': needs one of e<expansion> and conv, as in e6"
        )
    for name in ("repeats", "kernel", "stride", "in_channels", "out_channels"):
        if name not in found:
            raise InvalidArchitecture(f"block {number} '{word}': lacks {_TOKENS[name][1]}")
    block = Block(
        repeats=int(found["repeats"]),
        kernel=int(found["kernel"]),
        stride=int(found["stride"]),
        expansion=0 if "regular" in found else int(found["expansion"]),
        in_channels=int(found["in_channels"]),
        out_channels=int(found["out_channels"]),
        se_ratio=float(found.get("se_ratio", 0)),
        skip={"noskip": "none", "pool": "pool"}.get(found.get("skip", ""), "identity"),  # type: ignore[arg-type]
        linear=found.get("regular") == "proj",
    )
    wrong = {
        f"r{block.repeats}": block.repeats < 1,
        f"k{block.kernel}": block.kernel % 2 == 0,
        f"e{block.expansion}": "expansion" in found and block.expansion < 1,
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
        ("se", "se_ratio"), ("r", "repeats"), ("k", "kernel"), ("s", "stride"),
        ("e", "expansion"), ("i", "in_channels"), ("o", "out_channels"),
    )  # fmt: skip
    for prefix, name in starts:
        if start == prefix or (len(prefix) > 1 and start.startswith(prefix)):
            return f"Here stands {_TOKENS[name][1]}."
    return "A block reads like r3_k5_s22_e3_i24_o40_se0.25, with noskip or pool at its end."
