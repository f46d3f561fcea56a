"""Families of networks of blocks, each from the rows of its paper at any width.

Where implementations differ, the counts of torchvision and timm decide.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..architecture import HEAD_CHANNELS, Architecture, Block, round_channels
from .mobile import rows

__all__ = [
    "efficientnet",
    "efficientnet_edge",
    "fbnet_c",
    "mobilenet_v2",
    "mobilenet_v3",
    "mobilenet_v4",
    "of_layers",
    "scaled",
]


def scaled(width: float, text: str) -> Architecture:
    """A block string `width` times as wide."""
    return Architecture.parse(text).scaled(width)


def mobilenet_v2(width: float) -> Architecture:
    """Sandler et al., 2018; unlike MnasNet's, this head widens above width 1 (section 5)."""
    text = """
        r1_k3_s11_e1_i32_o16 r2_k3_s22_e6_i16_o24 r3_k3_s22_e6_i24_o32 r4_k3_s22_e6_i32_o64
        r3_k3_s11_e6_i64_o96 r3_k3_s22_e6_i96_o160 r1_k3_s11_e6_i160_o320"""
    head = round_channels(HEAD_CHANNELS * max(1.0, width))
    return replace(scaled(width, text), head_channels=head)


def of_layers(width: float, stem: int, head: int, layers: str, act: str = "") -> Architecture:
    """From one `out:kernel,expansion,stride` a layer; the skip is the identity where it can be."""
    blocks, channels = [], stem
    for layer in layers.split():
        out, rest = layer.split(":")
        kernel, expansion, stride = rest.split(",")
        wide = expansion if expansion.startswith("m") else f"e{expansion}"
        blocks.append(f"r1_k{kernel}_s{stride}{stride}_{wide}_i{channels}_o{out}{act}")
        channels = int(out)
    return scaled(width, " ".join([*blocks, f"head{head}", act.strip("_")]))


# Kernel, middle, out, squeeze-and-excite, h-swish, stride (Howard et al., 2019, tables 1 and 2).
_V3_LARGE = (
    "3,16,16,0,0,1 3,64,24,0,0,2 3,72,24,0,0,1 5,72,40,1,0,2 5,120,40,1,0,1 "
    "5,120,40,1,0,1 3,240,80,0,1,2 3,200,80,0,1,1 3,184,80,0,1,1 3,184,80,0,1,1 "
    "3,480,112,1,1,1 3,672,112,1,1,1 5,672,160,1,1,2 5,960,160,1,1,1 5,960,160,1,1,1"
)
_V3_SMALL = (
    "3,16,16,1,0,2 3,72,24,0,0,2 3,88,24,0,0,1 5,96,40,1,1,2 5,240,40,1,1,1 "
    "5,240,40,1,1,1 5,120,48,1,1,1 5,144,48,1,1,1 5,288,96,1,1,2 5,576,96,1,1,1 "
    "5,576,96,1,1,1"
)


def mobilenet_v3(
    width: float, *, small: bool = False, minimalistic: bool = False, edge: bool = False
) -> Architecture:
    """MobileNetV3. `minimalistic` has 3×3 kernels, ReLU and no gates; `edge` is pytorchcv's: 1280
    features in both, a 1×1 without bias before the classifier, other roundings of narrow widths."""
    channels = round_channels(16 * width)
    before, blocks = 16, []  # channels that come in at width 1
    for kernel, middle, out, gated, swished, stride in rows(_V3_SMALL if small else _V3_LARGE):
        # The official widths follow the block's input, pytorchcv's (and torchvision's) the table.
        wide = round_channels(middle * width if edge else middle / before * channels)
        before, out = out, round_channels(out * width)
        # Without an expansion where the paper has none; pytorchcv compares with the output.
        expanded = wide != (out if edge else channels)
        block = Block(
            repeats=1,
            kernel=3 if minimalistic else kernel,
            stride=stride,
            expansion=1,
            in_channels=channels,
            out_channels=out,
            se_ratio=0.25 if gated and not minimalistic else 0.0,
            middle=wide if expanded else 0,
            activation="hard_swish" if swished and not minimalistic else "relu",
            gate="hard_sigmoid",
            of_middle=True,
        )
        blocks.append(block.canonical())
        channels = out
    head = round_channels((576 if small else 960) * max(1.0, width)) if edge else 6 * channels
    hidden = 1024 if small and not edge else 1280
    return Architecture(
        tuple(blocks),
        blocks[0].in_channels,
        head_channels=head,
        activation="relu" if minimalistic else "hard_swish",
        hidden_channels=hidden if edge else round_channels(hidden * max(1.0, width)),
        mixer="plain" if edge else "bias",
    )


# Repeats, kernel, stride, expansion, out of EfficientNet (Tan and Le, 2019).
_EFFICIENT = "1,3,1,1,16 2,3,2,6,24 2,5,2,6,40 3,3,2,6,80 3,5,1,6,112 4,5,2,6,192 1,3,1,6,320"


def efficientnet(width: float, *, scale: float, deep: float, lite: bool = False) -> Architecture:
    """EfficientNet, and its Lite form: ReLU6, no gates, stem, head and the ends unscaled."""
    act, se = ("relu6", "") if lite else ("swish", "_se0.25")
    scale *= width
    channels = 32 if lite else round_channels(32 * scale)
    words = []
    for place, (n, kernel, stride, expansion, out) in enumerate(rows(_EFFICIENT)):
        n = n if lite and place in (0, 6) else math.ceil(n * deep)
        out = round_channels(out * scale)
        words.append(f"r{n}_k{kernel}_s{stride}_e{expansion}_i{channels}_o{out}{se}_{act}")
        channels = out
    head = HEAD_CHANNELS if lite else round_channels(HEAD_CHANNELS * scale)
    return Architecture.parse(" ".join([*words, f"head{head}", act]))


def efficientnet_edge(width: float, *, scale: float, deep: float) -> Architecture:
    """EfficientNet-EdgeTPU (Gupta and Akin, 2020): fused blocks first."""
    scale *= width
    channels = round_channels(32 * scale)
    words = []
    for place, (n, kernel, stride, expansion, out) in enumerate(
        rows("1,3,1,4,24 2,3,2,8,32 4,3,2,8,48 5,5,2,8,96 4,5,1,8,144 2,5,2,8,192")
    ):
        out = round_channels(out * scale)
        # The first block's width follows its output, and it has no skip.
        wide = f"e{expansion}" if place else f"m{expansion * out}"
        form, skip = ("edge_" if place < 3 else ""), ("" if place else "_noskip")
        repeats = math.ceil(n * deep)
        words.append(f"r{repeats}_k{kernel}_s{stride}_{form}{wide}_i{channels}_o{out}{skip}")
        channels = out
    head = round_channels(HEAD_CHANNELS * max(1.0, scale))
    return Architecture.parse(" ".join([*words, f"head{head}"]))


def fbnet_c(width: float) -> Architecture:
    """FBNet-C (Wu et al., 2019) as in pytorchcv and timm, whose blocks all begin with a 1×1."""
    layers = (
        "16:3,m16,1 24:3,6,2 24:3,m24,1 24:3,m24,1 32:5,6,2 32:5,3,1 32:5,6,1 32:3,6,1 64:5,6,2 "
        "64:5,3,1 64:5,6,1 64:5,6,1 112:5,6,1 112:5,6,1 112:5,6,1 112:5,3,1 184:5,6,2 184:5,6,1 "
        "184:5,6,1 184:5,6,1 352:3,6,1"
    )
    return of_layers(width, 16, 1984, layers)


# Repeats, depthwise kernels ahead and inside, stride, expansion and channels out.
_V4_SMALL = (
    "1,5,5,2,3,96 4,0,3,1,2,96 1,3,0,1,4,96 1,3,3,2,6,128 1,5,5,1,4,128 1,0,5,1,4,128 "
    "1,0,5,1,3,128 2,0,3,1,4,128"
)
_V4_MEDIUM = (
    "1,3,5,2,4,80 1,3,3,1,2,80 1,3,5,2,6,160 2,3,3,1,4,160 1,3,5,1,4,160 1,3,3,1,4,160 "
    "1,3,0,1,4,160 1,0,0,1,2,160 1,3,0,1,4,160 1,5,5,2,6,256 1,5,5,1,4,256 2,3,5,1,4,256 "
    "1,0,0,1,4,256 1,3,0,1,4,256 1,3,5,1,2,256 1,5,5,1,4,256 2,0,0,1,4,256 1,5,0,1,2,256"
)


def mobilenet_v4(width: float, *, medium: bool = False) -> Architecture:
    """MobileNetV4 conv small and medium (Qin et al., 2024), with ReLU as in timm, which never
    narrows the stem and widens the first of the head's two convolutions alone."""
    text, channels = "r1_k3_s22_fused_e4_i32_o48", 48
    if not medium:
        text = (
            "r1_k3_s22_conv_i32_o32_noskip r1_k1_s11_conv_i32_o32_noskip "
            "r1_k3_s22_conv_i32_o96 r1_k1_s11_conv_i96_o64"
        )
        channels = 64
    words = [text]
    for n, ahead, kernel, stride, expansion, out in rows(_V4_MEDIUM if medium else _V4_SMALL):
        first = f"a{ahead}_" if ahead or not kernel else ""
        words.append(f"r{n}_{first}k{kernel}_s{stride}_e{expansion}_i{channels}_o{out}")
        channels = out
    network = scaled(width, " ".join([*words, "head960 hiddennorm1280"]))
    stem = round_channels(32 * max(1.0, width))
    widened = replace(network.blocks[0], in_channels=stem)
    return replace(
        network,
        blocks=(widened, *network.blocks[1:]),
        stem_channels=stem,
        head_channels=round_channels(960 * width),
    )
