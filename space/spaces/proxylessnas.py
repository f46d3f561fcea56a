"""The layer-by-layer space of ProxylessNAS, for which phone tables are published.

Every layer after the first chooses its kernel and expansion; the paper lets a layer that keeps its
shape drop out. Single-Path NAS searches much the same skeleton. The table that ProxylessNAS
published for a Pixel 1 covers all of it at 224 px.

Source: Cai, Zhu and Han, ProxylessNAS, ICLR 2019: MobileNetV2 layers of kernel 3, 5, 7 and
expansion 3, 6; stage widths 24 40 80 96 192 320 as in the published table.
"""

from __future__ import annotations

from .layered import LayeredSpace, Stage

__all__ = ["ProxylessNAS"]

_DEPTHS = (1, 2, 3, 4)


class ProxylessNAS(LayeredSpace):
    """Six choices for each of 21 layers, and one to four layers in each of five stages.

    >>> len(ProxylessNAS().operators())
    69
    """

    name = "proxylessnas"
    stem_channels = 32
    first = ("r1_k3_s11_e1_i32_o16",)  # a depthwise-separable layer that is not chosen
    stages = (
        *(Stage(c, s, _DEPTHS) for c, s in ((24, 2), (40, 2), (80, 2), (96, 1), (192, 2))),
        Stage(320, 1, (1,)),
    )
    choices = tuple(f"k{k}_e{e}" for e in (3, 6) for k in (3, 5, 7))
