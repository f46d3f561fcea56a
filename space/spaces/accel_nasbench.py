"""The space of the Accel-NASBench table: expansion, kernel, depth and squeeze in 7 blocks.

Source: afzalxo/Accel-NASBench (Apache-2.0): strides 1 2 2 2 1 2 1, outputs 16 24 40 80 112 192
320, stem 32. Decision names are that table's columns, so its rows are genomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from ..architecture import Block
from ..search_space import Part, SearchSpace

__all__ = ["AccelNASBench"]

CHANNELS = (16, 24, 40, 80, 112, 192, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
STEM_CHANNELS = 32
_BLOCK_DECISIONS: dict[str, tuple[Any, ...]] = {
    "e": (1, 4, 6),
    "k": (3, 5),
    "l": (1, 2, 3),
    "se": (False, True),
}
_LAYERS = {5: (1, 2, 3, 4)}  # the table's rows have a fourth layer in block 5, and only there


class AccelNASBench(SearchSpace):
    """Expansion 1, 4 or 6, kernel 3 or 5, 1 to 3 layers, squeeze or none, in each block.

    Block 5 takes up to 4 layers.
    """

    name = "accel-nasbench"
    stem_channels = STEM_CHANNELS

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {
            f"block{b}_{name}": _LAYERS.get(b, options) if name == "l" else options
            for b in range(len(CHANNELS))
            for name, options in _BLOCK_DECISIONS.items()
        }

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        parts, px = [], self.stem.out_px
        for b, stride in enumerate(STRIDES):
            own = tuple(f"block{b}_{name}" for name in _BLOCK_DECISIONS)
            parts.append(Part(f"block {b}", own, px, partial(_block, b)))
            px = -(-px // stride)
        parts.append(Part("head", (), px, partial(self.head, px, CHANNELS[-1])))
        return tuple(parts)


def _block(b: int, e: int, k: int, layers: int, se: bool) -> tuple[Block, ...]:
    before = CHANNELS[b - 1] if b else STEM_CHANNELS
    return (Block(layers, k, STRIDES[b], e, before, CHANNELS[b], 0.25 if se else 0.0),)
