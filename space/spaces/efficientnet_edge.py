"""A space of fused and depthwise MBConv on the skeleton of EfficientNet-EdgeTPU-S.

Source: Gupta and Akin, Accelerator-aware Neural Network Design using AutoML, 2020, and the official
EfficientNet-EdgeTPU code: fused blocks with their stride at the projection, MBConv of kernel 3 or
5, expansion 4 or 8. EfficientNet-EdgeTPU-S is one of its networks.
"""

from __future__ import annotations

from .layered import LayeredSpace, Stage

__all__ = ["EfficientNetEdge"]


class EfficientNetEdge(LayeredSpace):
    """Six choices for each of 22 layers.

    >>> len(EfficientNetEdge().operators())
    63
    """

    name = "efficientnet-edge"
    stem_channels = 32
    first = ("r1_k3_s11_edge_m96_i32_o24_noskip",)
    stages = (
        Stage(32, 2, (1, 2, 3)),
        Stage(48, 2, (2, 3, 4, 5)),
        Stage(96, 2, (3, 4, 5, 6)),
        Stage(144, 1, (2, 3, 4, 5)),
        Stage(192, 2, (1, 2, 3)),
    )
    choices = tuple(f"{form}_e{e}" for form in ("edge_k3", "k3", "k5") for e in (4, 8))
