"""The space of NAS-Bench-Macro: all its 6,561 networks were trained on CIFAR-10 and published.

A stem of stride 1 to 32 channels, three stages of 2, 3 and 3 layers to 64, 128 and 256 channels,
a head of 1,280. Each layer chooses an identity, an MBConv of expansion 3 and kernel 3, or one of
expansion 6 and kernel 5. The first layer of a stage halves the map and doubles the channels, so
there the identity is a 1×1 convolution of stride 2 with BatchNorm and no activation.

The place of an identity in its stage makes no difference to the network: 3,969 are different. Genes
have the names and the option numbers of the published table, `l0` to `l7`, and parameters and
MACs are those of its columns `params` and `flops`.

Source: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021, and
its code (xiusu/NAS-Bench-Macro).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from ..architecture import Block
from ..search_space import Part, SearchSpace

__all__ = ["NASBenchMacro"]

STEM_CHANNELS = 32
STAGES = ((64, 2), (128, 3), (256, 3))  # channels, layers
IDENTITY = "identity"
CHOICES: dict[str, tuple[int, int]] = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}  # expansion, kernel


class NASBenchMacro(SearchSpace):
    """Identity, MBConv3 3×3 or MBConv6 5×5 in each of eight layers, for ten classes at 32 px.

    >>> space = NASBenchMacro()
    >>> network = space.decode([0] * 8)
    >>> space.size, len(space.operators()), network.params, network.macs
    (6561, 17, 387882, 7713280)
    """

    name = "nasbench-macro"
    stem_channels = STEM_CHANNELS
    stem_stride = 1
    classes = 10

    def __init__(self, resolution: int = 32) -> None:
        super().__init__(resolution)

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        layers = sum(n for _, n in STAGES)
        return {f"l{i}": (IDENTITY, *CHOICES) for i in range(layers)}

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        px, before, layer = self.stem.out_px, STEM_CHANNELS, 0
        parts = []
        for number, (channels, layers) in enumerate(STAGES):
            # One part a stage, not a layer: that identities may change places shows only in it.
            own = tuple(f"l{layer + i}" for i in range(layers))
            build = partial(_stage, before, channels)
            parts.append(Part(f"stage {number + 1}", own, px, build))
            px, before, layer = -(-px // 2), channels, layer + layers
        parts.append(Part("head", (), px, partial(self.head, px, STAGES[-1][0])))
        return tuple(parts)


def _stage(before: int, channels: int, first: str, *others: str) -> tuple[Block, ...]:
    if first == IDENTITY:
        blocks = [Block(1, 1, 2, 0, before, channels, linear=True)]
    else:
        expansion, kernel = CHOICES[first]
        blocks = [Block(1, kernel, 2, expansion, before, channels)]
    for choice in others:
        if choice != IDENTITY:
            expansion, kernel = CHOICES[choice]
            blocks.append(Block(1, kernel, 1, expansion, channels, channels))
    return tuple(blocks)
