"""A search space: three blocks, each of which chooses its kernel and its expansion."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from phonenas.space import Block, Operator, Part, SearchSpace

__all__ = ["SmallSpace"]

CHANNELS, STRIDES = (24, 48, 96), (2, 2, 2)


class SmallSpace(SearchSpace):
    """216 networks."""

    name = "example-small"
    stem_channels = 16
    head_channels = 640

    def __init__(self, resolution: int = 64) -> None:
        super().__init__(resolution)

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        options = {"kernel": (3, 5), "expansion": (2, 3, 6)}
        return {f"block{b}_{name}": o for b in (1, 2, 3) for name, o in options.items()}

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        parts, px, before = [], self.stem.out_px, self.stem_channels
        for number, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1):
            decisions = (f"block{number}_kernel", f"block{number}_expansion")
            build = partial(_block, before, channels, stride)
            parts.append(Part(f"block {number}", decisions, px, build))
            px, before = -(-px // stride), channels
        head = Operator("head", before, self.classes, px, features=self.head_channels)
        parts.append(Part("head", (), px, partial(_same, head)))
        return tuple(parts)


def _block(before: int, channels: int, stride: int, kernel: int, expansion: int) -> tuple[Block]:
    return (Block(2, kernel, stride, expansion, before, channels),)


def _same(head: Operator) -> Operator:
    return head
