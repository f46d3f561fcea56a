"""Published networks, each at any width and resolution.

Sources: block strings of the official MnasNet code (A1, B1, small); Sandler et al.,
MobileNetV2, CVPR 2018. All are built with ReLU; MobileNetV2's own clips it at 6, which changes
no count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from .architecture import (
    HEAD_CHANNELS,
    RESOLUTION_PX,
    Architecture,
    round_channels,
)
from .errors import UnknownName, nearest

__all__ = ["find", "names", "network"]

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
_MOBILENET_V2 = """
    r1_k3_s11_e1_i32_o16 r2_k3_s22_e6_i16_o24 r3_k3_s22_e6_i24_o32 r4_k3_s22_e6_i32_o64
    r3_k3_s11_e6_i64_o96 r3_k3_s22_e6_i96_o160 r1_k3_s11_e6_i160_o320"""


def _mobilenet_v2(width: float) -> Architecture:
    scaled = Architecture.parse(_MOBILENET_V2).scaled(width)
    # Unlike MnasNet's, this head widens above width 1 (Sandler et al., section 5).
    return replace(scaled, head_channels=round_channels(HEAD_CHANNELS * max(1.0, width)))


_ZOO: dict[str, Callable[[float], Architecture]] = {
    "mnasnet-a1": lambda width: Architecture.parse(_MNASNET_A1).scaled(width),
    "mnasnet-b1": lambda width: Architecture.parse(_MNASNET_B1).scaled(width),
    "mnasnet-small": lambda width: Architecture.parse(_MNASNET_SMALL).scaled(width),
    "mobilenet-v2": _mobilenet_v2,
}


def names() -> list[str]:
    """Every network of the zoo."""
    return sorted(_ZOO)


def network(name: str, width: float = 1.0, resolution: int = RESOLUTION_PX) -> Architecture:
    """A published network.

    Args:
        name: As `names` lists it.
        width: Width multiplier in (0, 10].
        resolution: Side of the input in pixels.
    Raises:
        UnknownName: No such network; the message offers the nearest.
        InvalidArgument: A width or resolution out of range.

    >>> network("mnasnet-a1").params
    3887038
    """
    if name not in _ZOO:
        raise UnknownName(f"no network is called {name!r}. {nearest(name, _ZOO)}")
    return _ZOO[name](width).with_resolution(resolution)


def find(text: str, width: float = 1.0, resolution: int | None = None) -> Architecture:
    """A zoo name or a block string.

    `resolution` replaces the text's own where it is given.

    Raises:
        UnknownName, InvalidArchitecture, InvalidArgument: As `network` and `Architecture.parse`.
    """
    # A block has its tokens joined by underscores; a name misspelt with one has none of them.
    if not re.search(r"_[kiosre]\d|_conv|[\s,·;]", text):
        return network(text, width, RESOLUTION_PX if resolution is None else resolution)
    found = Architecture.parse(text).scaled(width)
    return found if resolution is None else found.with_resolution(resolution)
