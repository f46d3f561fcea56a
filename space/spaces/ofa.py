"""The space of Once-for-all's MobileNetV3, for which tables of a Note 10 are published.

Five stages of two to four layers, each with kernel 3, 5 or 7 and expansion 3, 4 or 6; h-swish from
the third stage on, squeeze-and-excite with a hard sigmoid in the second, fourth and fifth, and a
second convolution without BatchNorm or bias between pool and classifier.

Source: Cai et al., Once-for-All, ICLR 2020, and its code (`OFAMobileNetV3`, width multipliers 1.0
and 1.2). The published tables are of 1.2, with which the networks of 75 epochs were made.
"""

from __future__ import annotations

from .layered import LayeredSpace, Stage

__all__ = ["OnceForAll", "OnceForAllNarrow"]

_GATED = "_hsem0.25"
_TOKENS = (2, ""), (2, _GATED), (2, "_hswish"), (1, f"{_GATED}_hswish"), (2, f"{_GATED}_hswish")


def _stages(*channels: int) -> tuple[Stage, ...]:
    rows = zip(channels, _TOKENS, strict=True)
    return tuple(Stage(c, stride, (2, 3, 4), tokens) for c, (stride, tokens) in rows)


class OnceForAll(LayeredSpace):
    """Width 1.2: nine choices for each of 20 layers, two to four layers in each of five stages.

    >>> len(OnceForAll().operators())
    93
    """

    name = "ofa-mbv3"
    stem_channels = 24
    first = ("r1_k3_s11_e1_i24_o24",)
    stages = _stages(32, 48, 96, 136, 192)
    choices = tuple(f"k{k}_e{e}" for e in (3, 4, 6) for k in (3, 5, 7))
    activation = "hard_swish"
    head_channels = 1152
    hidden_channels = 1536
    mixer = "plain"


class OnceForAllNarrow(OnceForAll):
    """Width 1.0: MobileNetV3's own widths."""

    name = "ofa-mbv3-w1.0"
    stem_channels = 16
    first = ("r1_k3_s11_e1_i16_o16",)
    stages = _stages(24, 40, 80, 112, 160)
    head_channels = 960
    hidden_channels = 1280
