"""LayeredSpace: stages of layers, each of which chooses a block; a stage chooses how many it has.

Which of a stage's layers drop out makes no difference to the network, so a stage decides its depth.
A choice is a block's tokens (`k5_e6`, `a3_k0_e4`), a middle without a number (`k3_m`) is as wide as
the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar

from ..block import Block, parse_block
from ..search_space import Part, SearchSpace

__all__ = ["LayeredSpace", "Stage"]


@dataclass(frozen=True)
class Stage:
    """Layers of one width.

    Args:
        channels: Of each.
        stride: Of the first.
        depths: How many layers it may have.
        tokens: What each block has besides, as `_hsem0.25_hswish`.
    """

    channels: int
    stride: int
    depths: tuple[int, ...]
    tokens: str = ""


class LayeredSpace(SearchSpace):
    """What a subclass says of itself beside the names and widths of every space.

    Attributes:
        first: Words of the blocks behind the stem that are not chosen.
        stages: In order.
        choices: Of a layer, by name and as tokens.
    """

    first: ClassVar[tuple[str, ...]] = ()
    stages: ClassVar[tuple[Stage, ...]]
    choices: ClassVar[tuple[str, ...]]

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        options_by_name: dict[str, tuple[Any, ...]] = {}
        for s, stage in enumerate(self.stages, 1):
            if len(stage.depths) > 1:
                options_by_name[f"stage{s}_layers"] = stage.depths
            for n in range(max(stage.depths)):
                options_by_name[f"stage{s}_layer{n + 1}"] = self._choices_of(stage, n)
        return options_by_name

    def _choices_of(self, stage: Stage, n: int) -> tuple[str, ...]:
        strided = n == 0 and stage.stride > 1  # which takes a depthwise convolution
        return tuple(c for c in self.choices if not (strided and c.startswith("a0_k0")))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        px, before = self.stem.out_px, self.stem_channels
        fixed = tuple(parse_block(word, i) for i, word in enumerate(self.first))
        parts = [Part("first", (), px, lambda: fixed)] if fixed else []
        for block in fixed:
            px, before = -(-px // block.stride), block.out_channels
        for s, stage in enumerate(self.stages, 1):
            for n in range(max(stage.depths)):
                name, own = f"stage {s} layer {n + 1}", f"stage{s}_layer{n + 1}"
                stride = 1 if n else stage.stride
                build = partial(_layer, n, before, stage, stride)
                depth = (f"stage{s}_layers",) if n >= min(stage.depths) else ()
                parts.append(Part(name, (*depth, own), px, build))
                px, before = -(-px // stride), stage.channels
        parts.append(Part("head", (), px, partial(self.head, px, before)))
        return tuple(parts)


def _layer(n: int, before: int, stage: Stage, stride: int, *values: Any) -> tuple[Block, ...]:
    *layers, choice = values  # the stage's depth, where this layer may drop out
    return () if layers and n >= layers[0] else (_block(choice, before, stage, stride),)


@lru_cache(maxsize=4096)
def _block(choice: str, before: int, stage: Stage, stride: int) -> Block:
    tokens = f"{choice}{before}" if choice.endswith("m") else choice
    word = f"r1_{tokens}_s{stride}_i{before}_o{stage.channels}{stage.tokens}"
    return parse_block(word, 0)
