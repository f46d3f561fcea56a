"""The layer-by-layer space of FBNet, without its two blocks whose 1×1 are grouped.

Source: Wu et al., FBNet, CVPR 2019, tables 1 and 2: 22 layers, kernel 3 or 5, expansion 1, 3 or 6
(at 1 with the first 1×1, too), and a skip, which is a stage of fewer layers here; the head is that
of the published FBNet-C.
"""

from __future__ import annotations

from .layered import LayeredSpace, Stage

__all__ = ["FBNet"]

_DEPTHS = (1, 2, 3, 4)


class FBNet(LayeredSpace):
    """Six choices for each of 22 layers, and one to four layers in each of five stages.

    >>> len(FBNet().operators())
    74
    """

    name = "fbnet"
    stem_channels = 16
    stages = (
        Stage(16, 1, (1,)),
        *(Stage(c, s, _DEPTHS) for c, s in ((24, 2), (32, 2), (64, 2), (112, 1), (184, 2))),
        Stage(352, 1, (1,)),
    )
    choices = tuple(f"k{k}_{e}" for e in ("m", "e3", "e6") for k in (3, 5))
    head_channels = 1984
