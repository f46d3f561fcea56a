"""The flat counterpart of the MnasNet space: the same choices, layer by layer.

The paper compares its factorised space (S^B) with a flat one in which every layer chooses for
itself (S^(B·N)). Here each layer slot has its own operator, kernel, squeeze, skip and filters;
how many of a block's slots are used stays one decision a block, relative to MobileNetV2.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from ..architecture import Block
from ..operator import Operator
from ..search_space import Part, SearchSpace
from .mnasnet import (
    BLOCK_DECISIONS,
    EXPANSIONS,
    FILTERS,
    LAYERS,
    STEM_CHANNELS,
    STRIDES,
    layer_count,
    width,
)

__all__ = ["MnasNetFlat"]

_LAYER_DECISIONS = {n: o for n, o in BLOCK_DECISIONS.items() if n != "layers"}
_DELTAS = BLOCK_DECISIONS["layers"]


def _slots(block: int) -> int:
    return layer_count(block, max(_DELTAS))


class MnasNetFlat(SearchSpace):
    """144 choices in each of 24 layer slots, and 3 depths in each of 7 blocks.

    >>> len(MnasNetFlat().decisions)
    127
    """

    name = "mnasnet-flat"
    stem_channels = STEM_CHANNELS

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        options_by_name: dict[str, tuple[Any, ...]] = {}
        for b in range(len(LAYERS)):
            options_by_name[f"block{b + 1}_layers"] = _DELTAS
            for slot in range(_slots(b)):
                for name, options in _LAYER_DECISIONS.items():
                    options_by_name[f"block{b + 1}_layer{slot + 1}_{name}"] = options
        return options_by_name

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        parts, px = [], self.stem.out_px
        for b, stride in enumerate(STRIDES):
            for slot in range(_slots(b)):
                own = tuple(f"block{b + 1}_layer{slot + 1}_{name}" for name in _LAYER_DECISIONS)
                if slot:
                    before: tuple[str, ...] = (
                        f"block{b + 1}_layers",
                        f"block{b + 1}_layer{slot}_filters",
                    )
                    build = partial(_later_layer, b, slot)
                else:
                    before = _last_layer_decisions(b - 1)
                    build = partial(_first_layer, b)
                parts.append(Part(f"block {b + 1} layer {slot + 1}", before + own, px, build))
                if slot == 0:
                    px = -(-px // stride)
        last = _last_layer_decisions(len(FILTERS) - 1)
        parts.append(Part("head", last, px, partial(self._head, px)))
        return tuple(parts)

    def _head(self, px: int, *before: Any) -> Operator:
        return self.head(px, _last_width(len(FILTERS) - 1, *before))


def _candidate_slots(block: int) -> list[int]:
    """Slots that can be a block's last one, ascending."""
    return sorted({layer_count(block, d) - 1 for d in _DELTAS})


def _last_layer_decisions(block: int) -> tuple[str, ...]:
    """The decisions that settle how wide a block ends."""
    if block < 0:
        return ()
    slots = _candidate_slots(block)
    return (f"block{block + 1}_layers", *(f"block{block + 1}_layer{s + 1}_filters" for s in slots))


def _last_width(block: int, *before: Any) -> int:
    if block < 0:
        return STEM_CHANNELS
    delta, *filters = before
    slot = _candidate_slots(block).index(layer_count(block, delta) - 1)
    return width(block, filters[slot])


def _first_layer(b: int, *values: Any) -> tuple[Block, ...]:
    return (_layer(b, STRIDES[b], _last_width(b - 1, *values[:-5]), *values[-5:]),)


def _later_layer(b: int, slot: int, delta: int, before: float, *own: Any) -> tuple[Block, ...]:
    if slot >= layer_count(b, delta):
        return ()
    return (_layer(b, 1, width(b, before), *own),)


def _layer(
    b: int, stride: int, channels: int, op: str, kernel: int, se: float, skip: Any, filters: float
) -> Block:
    return Block(1, kernel, stride, EXPANSIONS[op], channels, width(b, filters), se, skip)
