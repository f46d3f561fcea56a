"""The search space of MnasNet: seven blocks, each with its own sub-space of 432 choices.

Source: Tan et al., MnasNet, CVPR 2019, section 4.1. What the paper leaves open is decided so:

- "relative to MobileNetV2": its seven blocks (filters 16 24 32 64 96 160 320, layers 1 2 3 4 3
  3 1, strides 1 2 2 2 1 2 1), stem 32, head 1280;
- filters are rounded to multiples of 8 as in the official code, so 0.75 and 1.0 of 16 and of 24
  are the same width; a block keeps at least one layer, so one less than one is one;
- squeeze-and-excite comes after the depthwise convolution, or after a regular one;
- *identity* adds the input in each layer where shapes agree, and elsewhere means none;
- *pool* adds a 3×3 average pooling of the layer's input, at the layer's stride, its channels cut
  or zero-padded to the output's, in every layer of the block;
- a depthwise-separable convolution is the MBConv of expansion 1, with a linear projection.

Genomes of the same network have equal `identities` and are evaluated once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from ..architecture import Block, round_channels
from ..operator import Operator
from ..search_space import Part, SearchSpace

__all__ = ["BLOCK_DECISIONS", "FILTERS", "LAYERS", "STRIDES", "MnasNet"]

FILTERS = (16, 24, 32, 64, 96, 160, 320)
LAYERS = (1, 2, 3, 4, 3, 3, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
STEM_CHANNELS = 32

EXPANSIONS = {"conv": 0, "dsconv": 1, "mbconv3": 3, "mbconv6": 6}
BLOCK_DECISIONS: dict[str, tuple[Any, ...]] = {
    "op": tuple(EXPANSIONS),
    "kernel": (3, 5),
    "se": (0.0, 0.25),
    "skip": ("pool", "identity", "none"),
    "filters": (0.75, 1.0, 1.25),
    "layers": (-1, 0, 1),
}


def width(block: int, factor: float) -> int:
    """Output channels of a block (0 to 6) at a factor of MobileNetV2's filters."""
    return round_channels(FILTERS[block] * factor)


def layer_count(block: int, delta: int) -> int:
    """Layers of a block (0 to 6) at a difference to MobileNetV2's; at least one."""
    return max(1, LAYERS[block] + delta)


class MnasNet(SearchSpace):
    """All 432 choices in each of 7 blocks: 432^7 = 2.8e18 genomes.

    >>> space = MnasNet(resolution=224)
    >>> len(space.decisions), f"{space.size:.1e}"
    (42, '2.8e+18')
    """

    name = "mnasnet"
    stem_channels = STEM_CHANNELS

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {
            f"block{b + 1}_{name}": options
            for b in range(len(FILTERS))
            for name, options in BLOCK_DECISIONS.items()
        }

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        parts, px = [], self.stem.out_px
        for b, stride in enumerate(STRIDES):
            own = tuple(f"block{b + 1}_{name}" for name in BLOCK_DECISIONS)
            before = (f"block{b}_filters",) if b else ()
            parts.append(Part(f"block {b + 1}", before + own, px, partial(_block, b)))
            px = -(-px // stride)
        last = f"block{len(FILTERS)}_filters"
        parts.append(Part("head", (last,), px, partial(self._head, px)))
        return tuple(parts)

    def _head(self, px: int, filters: float) -> Operator:
        return self.head(px, width(len(FILTERS) - 1, filters))


def _block(b: int, *values: Any) -> tuple[Block, ...]:
    before = values[0] if b else None
    op, kernel, se, skip, filters, layers = values[-6:]
    return (
        Block(
            repeats=layer_count(b, layers),
            kernel=kernel,
            stride=STRIDES[b],
            expansion=EXPANSIONS[op],
            in_channels=width(b - 1, before) if before is not None else STEM_CHANNELS,
            out_channels=width(b, filters),
            se_ratio=se,
            skip=skip,
        ),
    )
