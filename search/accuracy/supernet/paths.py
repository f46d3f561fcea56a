"""Paths: which networks of a space each step of a supernet's training takes.

Each step draws a few networks and sums their gradients. Of each decision every option is drawn once
before any is drawn a second time, so all options are trained equally often, within one (strict
fairness, Chu et al., FairNAS, ICCV 2021); each single draw is still uniform over options, as in Guo
et al., Single Path One-Shot NAS, 2019. With the sandwich rule (Yu and Huang, ICCV 2019) the largest
and the smallest network join each step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phonenas.space import AdditiveTable, Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument

__all__ = ["Paths", "extremes"]

_SWEEPS = 20  # over all genes, at most; it ends after two or three


def extremes(space: SearchSpace) -> tuple[Genomes, Genomes]:
    """The genomes of the largest and the smallest network by MACs, each (genes,).

    Gene after gene takes the option with the most (fewest) MACs until none changes; at equal
    MACs parameters decide, then the earlier option. Where decisions are independent of each
    other, as in our spaces, that is the largest (smallest).
    """
    table = AdditiveTable(space, lambda o: [float(o.macs), float(o.params)])
    ends = []
    for sign in (1.0, -1.0):
        here = np.zeros(len(space.option_counts), np.int8)
        for _ in range(_SWEEPS):
            before = here.copy()
            for gene, count in enumerate(space.option_counts.tolist()):
                options = np.repeat(here[None], count, axis=0)
                options[:, gene] = np.arange(count)
                macs, params = (table(options) * sign).T
                here = options[np.lexsort((np.arange(count), -params, -macs))[0]]
            if (before == here).all():
                break
        ends.append(here)
    return ends[0], ends[1]


class Paths:
    """Draws the networks of one step after another.

    Args:
        space: Whose networks.
        random: Networks drawn a step, ≥ 1.
        sandwich: Add the largest and the smallest to each step.
        seed: Of all chance.
    Raises:
        InvalidArgument: Fewer than one network a step.
    """

    def __init__(
        self, space: SearchSpace, *, random: int = 2, sandwich: bool = True, seed: int = 0
    ) -> None:
        if random < 1:
            raise InvalidArgument(f"a step trains 1 random network or more, got {random}")
        self.space, self.random = space, random
        self._always = list(extremes(space)) if sandwich else []
        self._rng = np.random.default_rng(seed)
        self._left: list[list[int]] = [[] for _ in space.option_counts]

    def next(self) -> Genomes:
        """Genomes of one step, (networks, genes); the largest first, the smallest second."""
        drawn = [
            [self._option(gene) for gene in range(len(self._left))] for _ in range(self.random)
        ]
        return np.array([*self._always, *drawn], np.int8)

    def _option(self, gene: int) -> int:
        left = self._left[gene]
        if not left:
            left.extend(self._rng.permutation(int(self.space.option_counts[gene])).tolist())
        return left.pop()

    def state(self) -> dict[str, Any]:
        """All that changes, as plain values for JSON."""
        return {"rng": self._rng.bit_generator.state, "decks": [list(d) for d in self._left]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of equal paths."""
        self._rng.bit_generator.state = state["rng"]
        self._left = [list(map(int, d)) for d in state["decks"]]
