"""Published networks of blocks, each at any width and resolution.

Sources: block strings of the official MnasNet code (A1, B1, small); Cai et al., ProxylessNAS, ICLR
2019; Stamoulis et al., Single-Path NAS, 2019; the others are in `families`. MobileNetV2 and
ProxylessNAS are built with ReLU; they clip it at 6, which changes no count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..architecture import RESOLUTION_PX, Architecture
from ..errors import InvalidArgument
from . import families
from .families import of_layers, scaled

__all__ = ["BLOCKS", "Family", "block_network"]


@dataclass(frozen=True)
class Family:
    """A network of the zoo: what builds it at a width, and the side of its input in pixels."""

    build: Callable[[float], Architecture]
    resolution_px: int = RESOLUTION_PX


_MNASNET_A1 = """
    r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24 r3_k5_s22_e3_i24_o40_se0.25
    r4_k3_s22_e6_i40_o80 r2_k3_s11_e6_i80_o112_se0.25 r3_k5_s22_e6_i112_o160_se0.25
    r1_k3_s11_e6_i160_o320"""
_MNASNET_B1 = """
    r1_k3_s11_e1_i32_o16_noskip r3_k3_s22_e3_i16_o24 r3_k5_s22_e3_i24_o40
    r3_k5_s22_e6_i40_o80 r2_k3_s11_e6_i80_o96 r4_k5_s22_e6_i96_o192
    r1_k3_s11_e6_i192_o320_noskip"""
_MNASNET_SMALL = """
    stem8 r1_k3_s11_e1_i16_o8 r1_k3_s22_e3_i8_o16 r2_k3_s22_e6_i16_o16
    r4_k5_s22_e6_i16_o32_se0.25 r3_k3_s11_e6_i32_o32_se0.25 r3_k5_s22_e6_i32_o88_se0.25
    r1_k3_s11_e6_i88_o144"""
_SINGLE_PATH_NAS = (
    "r1_k3_s11_e1_i32_o16 r3_k3_s22_e3_i16_o24 r1_k5_s22_e6_i24_o40 r3_k3_s11_e3_i40_o40 "
    "r1_k5_s22_e6_i40_o80 r3_k3_s11_e3_i80_o80 r1_k5_s11_e6_i80_o96 r3_k5_s11_e3_i96_o96 "
    "r4_k5_s22_e6_i96_o192 r1_k3_s11_e6_i192_o320"
)
# Stem, head, and one `out:kernel,expansion,stride` a layer.
_PROXYLESSNAS = {
    "mobile": (
        32,
        1280,
        "16:3,1,1 32:5,3,2 32:3,3,1 40:7,3,2 40:3,3,1 40:5,3,1 40:5,3,1 80:7,6,2 80:5,3,1 80:5,3,1 "
        "80:5,3,1 96:5,6,1 96:5,3,1 96:5,3,1 96:5,3,1 192:7,6,2 192:7,6,1 192:7,3,1 192:7,3,1 "
        "320:7,6,1",
    ),
    "mobile-1.4": (
        48,
        1792,
        "24:3,1,1 40:5,3,2 40:3,3,1 56:7,3,2 56:3,3,1 56:5,3,1 56:5,3,1 112:7,6,2 112:5,3,1 "
        "112:5,3,1 112:5,3,1 136:5,6,1 136:5,3,1 136:5,3,1 136:5,3,1 256:7,6,2 256:7,6,1 "
        "256:7,3,1 256:7,3,1 448:7,6,1",
    ),
    "cpu": (
        40,
        1432,
        "24:3,1,1 32:3,6,2 32:3,3,1 32:3,3,1 32:3,3,1 48:3,6,2 48:3,3,1 48:3,3,1 48:5,3,1 "
        "88:3,6,2 88:3,3,1 104:5,6,1 104:3,3,1 104:3,3,1 104:3,3,1 216:5,6,2 216:5,3,1 216:5,3,1 "
        "216:3,3,1 360:5,6,1",
    ),
    "gpu": (
        40,
        1728,
        "24:3,1,1 32:5,3,2 56:7,3,2 56:3,3,1 112:7,6,2 112:5,3,1 128:5,6,1 128:3,3,1 128:5,3,1 "
        "256:7,6,2 256:7,6,1 256:7,6,1 256:5,6,1 432:7,6,1",
    ),
}


# Specialised networks of Once-for-all whose configurations are public, by the phone or processor
# and its milliseconds: those of MobileNetV3's space, and those of ProxylessNAS's, with ReLU6.
_OFA = {
    "note8-22": (
        140,
        """r1_k3_s11_e1_i16_o16 r1_k3_s22_e3_i16_o24 r1_k3_s11_e3_i24_o24
        r1_k5_s22_e3_i24_o40_hsem0.25 r1_k5_s11_e3_i40_o40_hsem0.25 r1_k7_s22_e4_i40_o80_hswish
        r1_k3_s11_e3_i80_o80_hswish r1_k5_s11_e3_i80_o112_hsem0.25_hswish
        r1_k3_s11_e4_i112_o112_hsem0.25_hswish r1_k3_s22_e6_i112_o160_hsem0.25_hswish
        r1_k7_s11_e6_i160_o160_hsem0.25_hswish head960 hiddenplain1280 hswish""",
    ),
    "note8-31": (
        152,
        """r1_k3_s11_e1_i16_o16 r1_k5_s22_e3_i16_o24 r1_k3_s11_e3_i24_o24
        r1_k5_s22_e4_i24_o40_hsem0.25 r1_k5_s11_e3_i40_o40_hsem0.25 r1_k3_s22_e4_i40_o80_hswish
        r1_k3_s11_e4_i80_o80_hswish r1_k5_s11_e4_i80_o80_hswish
        r1_k3_s11_e4_i80_o112_hsem0.25_hswish r1_k5_s11_e3_i112_o112_hsem0.25_hswish
        r1_k7_s11_e4_i112_o112_hsem0.25_hswish r1_k3_s22_e6_i112_o160_hsem0.25_hswish
        r1_k3_s11_e3_i160_o160_hsem0.25_hswish r1_k5_s11_e3_i160_o160_hsem0.25_hswish
        r1_k5_s11_e3_i160_o160_hsem0.25_hswish head960 hiddenplain1280 hswish""",
    ),
}
_OFA_CPU = {
    "cpu-11": (
        144,
        "24:3,1,1 32:5,4,2 32:5,3,1 56:3,3,2 56:7,3,1 104:5,4,2 104:3,4,1 104:7,3,1 128:5,4,1 "
        "128:7,4,1 248:3,6,2 248:3,4,1 416:5,4,1",
    ),
    "cpu-15": (
        188,
        "24:3,1,1 32:3,3,2 32:3,3,1 56:3,4,2 56:3,6,1 104:7,6,2 104:3,4,1 128:5,4,1 128:3,6,1 "
        "128:3,6,1 248:5,6,2 248:3,3,1 416:7,6,1",
    ),
}


def _ofa_cpu(width: float, layers: str) -> Architecture:
    return of_layers(width, 40, 1664, layers, "_relu6")


def _proxylessnas(width: float, name: str) -> Architecture:
    return of_layers(width, *_PROXYLESSNAS[name])


def _compound(build: Callable[..., Architecture], px: int, scale: float, deep: float) -> Family:
    return Family(partial(build, scale=scale, deep=deep), px)


_B, _EDGE, _V3 = families.efficientnet, families.efficientnet_edge, families.mobilenet_v3
_LITE = partial(_B, lite=True)
BLOCKS: dict[str, Family] = {
    "mnasnet-a1": Family(partial(scaled, text=_MNASNET_A1)),
    "mnasnet-b1": Family(partial(scaled, text=_MNASNET_B1)),
    "mnasnet-small": Family(partial(scaled, text=_MNASNET_SMALL)),
    "mobilenet-v2": Family(families.mobilenet_v2),
    "single-path-nas": Family(partial(scaled, text=_SINGLE_PATH_NAS)),
    **{f"proxylessnas-{n}": Family(partial(_proxylessnas, name=n)) for n in _PROXYLESSNAS},
    "mobilenet-v3-large": Family(_V3),
    "mobilenet-v3-small": Family(partial(_V3, small=True)),
    "mobilenet-v3-large-minimalistic": Family(partial(_V3, minimalistic=True)),
    "mobilenet-v3-small-minimalistic": Family(partial(_V3, small=True, minimalistic=True)),
    "mobilenet-v3-large-1280": Family(partial(_V3, edge=True)),
    "mobilenet-v3-small-1280": Family(partial(_V3, small=True, edge=True)),
    "efficientnet-b0": _compound(_B, 224, 1.0, 1.0),
    "efficientnet-b1": _compound(_B, 240, 1.0, 1.1),
    "efficientnet-b2": _compound(_B, 260, 1.1, 1.2),
    "efficientnet-b3": _compound(_B, 300, 1.2, 1.4),
    "efficientnet-lite0": _compound(_LITE, 224, 1.0, 1.0),
    "efficientnet-lite1": _compound(_LITE, 240, 1.0, 1.1),
    "efficientnet-lite2": _compound(_LITE, 260, 1.1, 1.2),
    "efficientnet-lite3": _compound(_LITE, 280, 1.2, 1.4),
    "efficientnet-lite4": _compound(_LITE, 300, 1.4, 1.8),
    "efficientnet-edge-s": _compound(_EDGE, 224, 1.0, 1.0),
    "efficientnet-edge-m": _compound(_EDGE, 240, 1.0, 1.1),
    "efficientnet-edge-l": _compound(_EDGE, 300, 1.2, 1.4),
    "fbnet-c": Family(families.fbnet_c),
    **{f"ofa-{n}": Family(partial(scaled, text=text), px) for n, (px, text) in _OFA.items()},
    **{f"ofa-{n}": Family(partial(_ofa_cpu, layers=t), px) for n, (px, t) in _OFA_CPU.items()},
    "mobilenet-v4-conv-small": Family(families.mobilenet_v4),
    "mobilenet-v4-conv-medium": Family(partial(families.mobilenet_v4, medium=True)),
}


def block_network(name: str, width: float = 1.0, resolution: int | None = None) -> Architecture:
    """A network of `BLOCKS` by its name there.

    Raises:
        InvalidArgument: A width or resolution out of range.
    """
    if not 0 < width <= 10:
        raise InvalidArgument(f"{name} takes width multipliers in (0, 10], got {width:g}")
    family = BLOCKS[name]
    px = family.resolution_px if resolution is None else resolution
    return family.build(width).with_resolution(px)
