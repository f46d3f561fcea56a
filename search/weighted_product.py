"""Regularised evolution on the weighted product of accuracy and latency."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..space import Genomes, SearchSpace
from ..space.errors import InvalidArgument
from .pareto import non_dominated
from .reward import HARD, aims_of, check_exponents, penalised, rewards_of, spans_of
from .strategy import ONE_GENE, Objectives, State, Strategy

__all__ = ["WeightedProduct"]

_CHILDREN = 20  # one child a turn for so many networks told
_FIRST = 10  # networks before the first tournament
_ALIVE = 5  # one alive for so many
_TRIES = 8  # further steps of a mutant that was seen before


class WeightedProduct(Strategy):
    """Evolution regularised by age, on the reward of MnasNet.

    Of a sample of the youngest networks the one of the best reward has a child, another option
    in one gene; the eldest dies, however good it is.

    Without a target each tournament has its own, evenly spread over the latencies of the front
    seen so far: one population serves them all, and their union is the front. Soft exponents
    that are equal, as the paper's, give networks the same order at any target; so the hard ones
    are the default here, and the soft ones are asked for by `exponents=SOFT`.

    Args:
        seed: Of all chance.
        population: Networks alive, ≥ 2. It grows with what was told (a fifth of it, 10 at
            least) until it is so large, since few evaluations leave no time for many alive.
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
        super().__init__(seed)
        if population < 2:
            raise InvalidArgument(f"a population is 2 or more, got {population}")
        if tournament < 1:
            raise InvalidArgument(f"a tournament takes 1 or more, got {tournament}")
        self.population, self.tournament = int(population), int(tournament)
        self.exponents = check_exponents(exponents)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "population": self.population,
            "tournament": self.tournament,
            "exponents": list(self.exponents),
        }

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self.target = space, target
        self._alive: Genomes = np.empty((0, len(space.option_counts)), np.int8)
        self._losses: Objectives = np.empty((0, objectives))
        self._front = self._losses
        self._told = 0
        self._seen: set[bytes] = set()
        self._tournaments = 0

    def ask(self, n: int) -> Genomes:
        if self._told < min(_FIRST, self.population):
            return self.space.sample(self.rng, min(n, min(_FIRST, self.population) - self._told))
        count = max(1, min(self._told // _CHILDREN, self.population // 10))
        aims = aims_of(self._front, self.target, self._tournaments, count)[0][:, None]
        self._tournaments += count
        sampled = self.rng.integers(0, len(self._alive), (count, self.tournament))
        rewards = rewards_of(self._losses[sampled], aims, self.exponents, spans_of(self._losses))
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
        self._told += len(genomes)
        self._seen.update(self.space.keys(genomes))
        alive = min(max(self._told // _ALIVE, _FIRST), self.population)
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
            "told": self._told,
            "tournaments": self._tournaments,
        }

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        self._alive = np.asarray(state["alive"], np.int8)
        self._losses = np.asarray(state["losses"], np.float64)
        self._front = np.asarray(state["front"], np.float64)
        self._told, self._tournaments = int(state["told"]), int(state["tournaments"])
        self._seen = set(self.space.keys(seen)) if len(seen) else set()
