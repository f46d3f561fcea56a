"""Architecture: a whole network as a frozen value, and the line of text that names it.

The text is that of the official MnasNet code, one word per block::

    r3_k5_s22_e3_i24_o40_se0.25      3 layers, 5×5, first stride 2, expansion 3, 24→40, SE
    r1_k3_s11_e1_i32_o16_noskip      expansion 1 is the depthwise-separable convolution
    r2_k3_s22_conv_i16_o24_pool      a regular convolution; pool skip      (our own words)
    r1_k1_s22_proj_i32_o64           one without an activation: a shortcut that changes shape
    r2_k3_s11_m184_i80_o80           an MBConv with 184 channels in the middle, in each layer
    r1_k3_s22_fused_e4_i32_o48       fused MBConv: k×k and 1×1; `edge` has the stride at the 1×1
    r1_a3_k5_s22_e4_i48_o80          MobileNetV4's universal block: a depthwise 3×3 ahead
    r2_a0_k0_s11_e4_i80_o80          the same without any; `k0` has none between the two 1×1

Behind these, `hswish`, `swish` (or `silu`) and `relu6` are the block's activation, else ReLU.
`se0.25` is the squeeze over the layer's input, `sem0.25` over its middle, rounded to 8; with an h
before it (`hsem0.25`) the gate is a hard sigmoid.

The default skip is the identity, in each layer where shapes allow it. Words that are not blocks
set what is not the default: `stem8` (else the first block's input), `stemstride2`, `head1280`,
`classes1000`, `res224`; `hswish` and its like for stem and head; `hidden1280`, a convolution
between pool and classifier with a bias, `hiddennorm1280` with BatchNorm, `hiddenplain1280` with
neither. Words are parted by blanks, commas or `·`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from .block import ACT_TOKENS, FUNCTIONS, MAX_WORD, MIN_SE_RATIO, Block, parse_block, round_channels
from .drawing import Row, drawing
from .errors import InvalidArchitecture, InvalidArgument
from .operator import MIXERS, Activation, Mixer, Operator

__all__ = ["CLASSES", "HEAD_CHANNELS", "RESOLUTION_PX", "Architecture", "Block", "round_channels"]

HEAD_CHANNELS = 1280
CLASSES = 1000
RESOLUTION_PX = 224
STEM_STRIDE = 2
_MAX_PX = 2048  # a typing error beyond this would ask for gigabytes of activations
_MAX_LAYERS = 1000  # and these bounds keep one from asking for gigabytes of layers or weights
_MAX_PARAMS = 10**9


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
        activation: Of stem and head.
        hidden_channels: Output of the head's second convolution, behind the pool; 0 for none.
        mixer: What that one has: "bias", "norm" or "plain".
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
    activation: Activation = "relu"
    hidden_channels: int = 0
    mixer: Mixer = "bias"

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
            if block.se_ratio and not MIN_SE_RATIO <= block.se_ratio <= 1:
                raise InvalidArchitecture(
                    f"block {number}: se_ratio is 0 or in [{MIN_SE_RATIO:g}, 1], "
                    f"got {block.se_ratio:g}"
                )
            if block.linear and block.kind != "proj":
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
        stem = stem_operator(
            self.stem_channels, self.resolution_px, self.stem_stride, self.activation
        )
        layers, px = [stem], stem.out_px
        for block in self.blocks:
            layers.extend(block.operators(px))
            px = layers[-1].out_px
        own = (self.head_channels, self.activation, self.hidden_channels, self.mixer)
        return (*layers, _head(layers[-1].out_channels, self.classes, px, *own))

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

    def with_classes(self, classes: int) -> Architecture:
        """The same network with another number of outputs, ≥ 1."""
        return replace(self, classes=classes)

    def scaled(self, width: float) -> Architecture:
        """Every block and the stem `width` times as wide, the head as it was.

        Raises:
            InvalidArgument: A width outside (0, 10].
        """
        if not 0 < width <= 10:
            raise InvalidArgument(f"a width multiplier lies in (0, 10], got {width:g}")
        if width == 1:
            return self
        blocks = tuple(b.scaled(width) for b in self.blocks)
        return replace(self, blocks=blocks, stem_channels=blocks[0].in_channels)

    def __str__(self) -> str:
        words = [str(b) for b in self.blocks]
        if self.stem_channels != self.blocks[0].in_channels:  # pragma: no cover - barred above
            words.insert(0, f"stem{self.stem_channels}")
        if self.head_channels != HEAD_CHANNELS:
            words.append(f"head{self.head_channels}")
        if self.hidden_channels:
            words.append(f"{_MIXER_WORDS[self.mixer]}{self.hidden_channels}")
        if self.activation != "relu":
            words.append(ACT_TOKENS[self.activation][1:])
        if self.classes != CLASSES:
            words.append(f"classes{self.classes}")
        if self.stem_stride != STEM_STRIDE:
            words.append(f"stemstride{self.stem_stride}")
        if self.resolution_px != RESOLUTION_PX:
            words.append(f"res{self.resolution_px}")
        return " ".join(words)

    def rows(self) -> list[Row]:
        """Stem, blocks and head as a drawing shows them."""
        operators = iter(self._operators)
        stem, head = self._operators[0], self._operators[-1]
        text = f"stem, 3×3, stride {stem.stride}, {stem.out_channels} channels"
        found = [Row(text, 1, 3, next(operators).in_px, stem.out_channels, stem.macs)]
        for block in self.blocks:
            layers = [next(operators) for _ in range(block.repeats)]
            kernel, macs = max(block.kernel, block.ahead, 1), sum(o.macs for o in layers)
            side, channels = layers[0].in_px, block.out_channels
            found.append(Row(block.words, len(layers), kernel, side, channels, macs))
        text = f"head, 1×1 to {head.features} channels, {head.out_channels} classes"
        return [*found, Row(text, 1, 1, head.in_px, head.features, head.macs)]

    def _repr_html_(self) -> str:
        """Its drawing, in a notebook."""
        return drawing(self.rows())

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the line of text that `str` writes.

        Raises:
            InvalidArchitecture: A word or token that is none, named with its block.
        """
        return _parse(text)


@lru_cache(maxsize=1024)
def _head(
    in_channels: int,
    classes: int,
    px: int,
    features: int,
    activation: Activation,
    hidden: int,
    mixer: Mixer,
) -> Operator:
    """The last operator: networks of one space share it, with what it has counted."""
    return Operator(
        "head",
        in_channels,
        classes,
        px,
        features=features,
        activation=activation,
        hidden=hidden,
        mixer=mixer,
    )


@lru_cache(maxsize=1024)
def stem_operator(
    channels: int, resolution_px: int, stride: int = STEM_STRIDE, activation: Activation = "relu"
) -> Operator:
    """The stem of every network here: 3×3, from RGB."""
    return Operator(
        "stem", 3, channels, resolution_px, kernel=3, stride=stride, activation=activation
    )


_MIXER_WORDS = {form: name for name, form in MIXERS.items()}
_SETTING = re.compile(
    r"(stem|stemstride|head|hidden|hiddennorm|hiddenplain|classes|res)([0-9]{1,6})"
)


def _parse(text: str) -> Architecture:
    words = [w for w in re.split(r"[\s,·;]+", text.strip()) if w]
    settings: dict[str, int] = {}
    activations: list[Activation] = []
    blocks: list[Block] = []
    for word in words:
        if len(word) > MAX_WORD:
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
        elif word in FUNCTIONS:
            activations.append(FUNCTIONS[word])
        else:
            blocks.append(parse_block(word, len(blocks)))
    if not blocks:
        raise InvalidArchitecture(
            f"{text.strip()[:MAX_WORD]!r} holds no block. "
            "A block reads like r3_k5_s22_e3_i24_o40_se0.25."
        )
    mixers = [name for name in MIXERS if name in settings]
    if len(mixers) > 1 or len(activations) > 1:
        twice = f"{mixers[0]} and {mixers[1]}" if len(mixers) > 1 else "two activations"
        raise InvalidArchitecture(f"a network has one at most, and the text gives {twice}")
    stem = settings.get("stem", blocks[0].in_channels)
    if blocks[0].kind == "dsconv" and not blocks[0].se_ratio and blocks[0].repeats == 1:
        # MnasNet-small's published first block says i16 behind a stem of 8; at expansion 1
        # and without squeeze the number has no effect in the official code.
        blocks[0] = replace(blocks[0], in_channels=stem)
    network = Architecture(
        blocks=tuple(blocks),
        stem_channels=stem,
        head_channels=settings.get("head", HEAD_CHANNELS),
        classes=settings.get("classes", CLASSES),
        resolution_px=settings.get("res", RESOLUTION_PX),
        stem_stride=settings.get("stemstride", STEM_STRIDE),
        activation=activations[0] if activations else "relu",
        hidden_channels=settings[mixers[0]] if mixers else 0,
        mixer=MIXERS[mixers[0]] if mixers else "bias",
    )
    if network.params > _MAX_PARAMS:
        largest = max(blocks, key=lambda b: sum(o.params for o in b.operators(1)))
        raise InvalidArchitecture(
            f"these words ask for {network.params:.2g} parameters, and {_MAX_PARAMS:.0e} is the "
            f"limit; of the blocks, '{largest}' has the most. Is a number in it or in head or "
            "classes mistyped?"
        )
    return network
