"""The layer-by-layer space of ProxylessNAS, for which phone tables are published.

Every layer after the first chooses its kernel and expansion; the paper lets a layer that keeps its
shape drop out. Which of a stage's layers drop makes no difference to the network, so here a stage
decides how many layers it has. FBNet and Single-Path NAS search much the same skeleton. The table that ProxylessNAS
published for a Pixel 1 covers all of it at 224 px.

Source: Cai, Zhu and Han, ProxylessNAS, ICLR 2019: MobileNetV2 layers of kernel 3, 5, 7 and
expansion 3, 6; stage widths 24 40 80 96 192 320 as in the published table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from .architecture import Block
from .operator import Operator
from .search_space import Part, SearchSpace

__all__ = ["ProxylessNAS"]

STEM_CHANNELS = 32
FIRST_CHANNELS = 16  # of a depthwise-separable layer, kernel 3, that is not chosen
STAGES = ((24, 2, 4), (40, 2, 4), (80, 2, 4), (96, 1, 4), (192, 2, 4), (320, 1, 1))
_CHOICES = tuple(f"k{k}_e{e}" for e in (3, 6) for k in (3, 5, 7))


class ProxylessNAS(SearchSpace):
    """Six choices for each of 21 layers, and one to four layers in each of five stages.

    >>> len(ProxylessNAS().operators())
    69
    """

    name = "proxylessnas"
    stem_channels = STEM_CHANNELS

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for s, (_, _, layers) in enumerate(STAGES):
            if layers > 1:
                found[f"stage{s + 1}_layers"] = tuple(range(1, layers + 1))
            found |= {f"stage{s + 1}_layer{n + 1}": _CHOICES for n in range(layers)}
        return found

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        px = self.stem.out_px
        first = Block(1, 3, 1, 1, STEM_CHANNELS, FIRST_CHANNELS)
        parts, before = [Part("first", (), px, lambda: (first,))], FIRST_CHANNELS
        for s, (channels, stride, layers) in enumerate(STAGES):
            for n in range(layers):
                name, own = f"stage {s + 1} layer {n + 1}", f"stage{s + 1}_layer{n + 1}"
                if n:
                    later = partial(_later_layer, n, channels)
                    parts.append(Part(name, (f"stage{s + 1}_layers", own), px, later))
                else:
                    first_of = partial(_layer, before, channels, stride)
                    parts.append(Part(name, (own,), px, first_of))
                if n == 0:
                    px, before = -(-px // stride), channels
        parts.append(Part("head", (), px, partial(self._head, px)))
        return tuple(parts)

    def _head(self, px: int) -> Operator:
        return Operator("head", STAGES[-1][0], self.classes, px, features=self.head_channels)


def _layer(before: int, channels: int, stride: int, choice: str) -> tuple[Block, ...]:
    return (Block(1, int(choice[1]), stride, int(choice[4]), before, channels),)


def _later_layer(n: int, channels: int, layers: int, choice: str) -> tuple[Block, ...]:
    return _layer(channels, channels, 1, choice) if n < layers else ()
