"""Regularised evolution on the weighted product of accuracy and latency."""

from __future__ import annotations

from typing import Any

import numpy as np

from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument

from ..pareto import non_dominated
from .base import ONE_GENE, Objectives, State, table_of
from .reward import HARD, RewardStrategy, penalised, rewards_of, spans_of, targets_of

__all__ = ["WeightedProduct"]

_CHILDREN = 20  # one child a turn for so many networks observed
_FIRST = 10  # networks before the first tournament
_ALIVE = 5  # one alive for so many
_TRIES = 8  # further steps of a mutant that was seen before


class WeightedProduct(RewardStrategy):
    """Evolution regularised by age, on the reward of MnasNet.

    Of a sample of the youngest networks the one of the best reward has a child, with another
    option in one gene; the oldest network is removed, however good it is. Without a target each
    tournament has its own, evenly spread over the latencies of the front so far. Soft exponents
    that are equal, as the paper's, give networks the same order at any target; so the hard ones
    are the default here, and `exponents=SOFT` asks for the soft ones.

    Args:
        seed: Of all chance.
        population: Networks alive in the end, ≥ 2; before, a fifth of the networks observed.
        tournament: How many of the living a parent is the best of, ≥ 1.
        exponents: Of latency over target, at or below, and above it; ≤ 0.
    Raises:
        InvalidArgument: A number outside its range.
    Source: Real et al., Regularized Evolution, AAAI 2019 (100 alive, samples of 25); Tan et al.,
        MnasNet, CVPR 2019, for the reward.
    """

    name = "weighted"

    def __init__(
        self,
        seed: int = 0,
        population: int = 100,
        tournament: int = 25,
        exponents: tuple[float, float] = HARD,
    ) -> None:
        super().__init__(seed, exponents=exponents)
        if population < 2:
            raise InvalidArgument(f"a population is 2 or more, got {population}")
        if tournament < 1:
            raise InvalidArgument(f"a tournament takes 1 or more, got {tournament}")
        self.population, self.tournament = int(population), int(tournament)

    @property
    def settings(self) -> dict[str, Any]:
        own = {"population": self.population, "tournament": self.tournament}
        return {**super().settings, **own, "exponents": list(self.exponents)}

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self.target = space, target
        self._alive: Genomes = np.empty((0, len(space.option_counts)), np.int8)
        self._losses: Objectives = np.empty((0, objectives))
        self._front = self._losses
        self._observed = 0
        self._seen: set[bytes] = set()
        self._tournaments = 0

    def sizes(self) -> tuple[int, int, int]:
        """Networks before the first tournament, children of the next turn, and networks alive."""
        alive = min(max(self._observed // _ALIVE, _FIRST), self.population)
        children = max(1, min(self._observed // _CHILDREN, self.population // 10))
        return min(_FIRST, self.population), children, alive

    def ask(self, n: int) -> Genomes:
        first, count, _ = self.sizes()
        if self._observed < first:
            return self.space.sample(self.rng, min(n, first - self._observed))
        targets = targets_of(self._front, self.target, self._tournaments, count)[0][:, None]
        self._tournaments += count
        sampled = self.rng.integers(0, len(self._alive), (count, self.tournament))
        rewards = rewards_of(self._losses[sampled], targets, self.exponents, spans_of(self._losses))
        best = rewards.argmax(axis=1)
        children = self.space.mutate(
            self._alive[sampled[np.arange(count), best]], self.rng, ONE_GENE
        )
        for _ in range(_TRIES):
            known = [k in self._seen for k in self.space.keys(children)]
            if not any(known):
                break
            children[known] = self.space.mutate(children[known], self.rng, ONE_GENE)
        return children[:n]

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self._observed += len(genomes)
        self._seen.update(self.space.keys(genomes))
        alive = self.sizes()[2]
        self._alive = np.concatenate([self._alive, genomes])[-alive:]
        losses = penalised(losses, violation)
        self._losses = np.concatenate([self._losses, losses])[-alive:]
        # Of all, not of the living: they age away from its ends.
        front = np.concatenate([self._front, losses])
        self._front = front[non_dominated(front)]

    def state(self) -> State:
        return {
            **super().state(),
            "alive": self._alive,
            "losses": self._losses,
            "front": self._front,
            "told": self._observed,
            "tournaments": self._tournaments,
        }

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        self._alive = table_of(state, "alive", len(self.space.decisions), np.int8)
        self._losses = table_of(state, "losses", self._losses.shape[1])
        if len(self._alive) != len(self._losses):
            raise ValueError(f"{len(self._alive)} networks and {len(self._losses)} losses")
        self._front = table_of(state, "front", self._losses.shape[1])
        self._observed, self._tournaments = int(state["told"]), int(state["tournaments"])
        self._seen = set(self.space.keys(seen)) if len(seen) else set()
