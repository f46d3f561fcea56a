"""A space of MobileNetV4's universal inverted bottlenecks, on the skeleton of its conv medium.

Each layer chooses whether a depthwise convolution stands ahead of its expansion, between expansion
and projection, at both places or at none, the kernels 3 or 5, and the expansion 2, 4 or 6.

Source: Qin et al., MobileNetV4, ECCV 2024, figure 4 and the table of MNv4-Conv-M, which is one of
its networks.
"""

from __future__ import annotations

from .layered import LayeredSpace, Stage

__all__ = ["MobileNetV4"]

_KERNELS = tuple(f"k{k}" for k in (3, 5))
_PLACES = (
    "a0_k0",
    *_KERNELS,
    *(f"a{a}_k0" for a in (3, 5)),
    *(f"a{a}_{k}" for a in (3, 5) for k in _KERNELS),
)


class MobileNetV4(LayeredSpace):
    """27 choices for each of 22 layers, 24 for those with a stride.

    >>> len(MobileNetV4().operators())
    156
    """

    name = "mobilenet-v4"
    stem_channels = 32
    first = ("r1_k3_s22_fused_e4_i32_o48",)
    stages = (
        Stage(80, 2, (1, 2, 3)),
        Stage(160, 2, (3, 4, 5, 6, 7, 8)),
        Stage(256, 2, (3, 5, 7, 9, 11)),
    )
    choices = tuple(f"{place}_e{e}" for e in (2, 4, 6) for place in _PLACES)
    head_channels = 960
    hidden_channels = 1280
    mixer = "norm"
