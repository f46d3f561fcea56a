"""RandomSearch: the smallest strategy, and the baseline."""

from __future__ import annotations

from phonenas.space import Genomes, SearchSpace

from .base import Objectives, Strategy

__all__ = ["RandomSearch"]

_AT_ONCE = 1000


class RandomSearch(Strategy):
    """Uniform over options: the baseline that any strategy must beat."""

    name = "random"

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space = space

    def ask(self, n: int) -> Genomes:
        return self.space.sample(self.rng, min(n, _AT_ONCE))

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        pass
