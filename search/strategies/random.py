"""RandomSearch: the smallest strategy, and the baseline."""

from __future__ import annotations

from phonenas.space import Genomes, SearchSpace

from .base import Objectives, State, Strategy

__all__ = ["RandomSearch"]

_FIRST, _SHARE, _MOST = 10, 10, 1000  # networks of a turn: first; later one for so many; at most


class RandomSearch(Strategy):
    """Uniform over options: the baseline that any strategy must beat."""

    name = "random"

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self._observed = space, 0

    def ask(self, n: int) -> Genomes:
        count = min(max(self._observed // _SHARE, _FIRST), _MOST)
        return self.space.sample(self.rng, min(n, count))

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self._observed += len(genomes)

    def state(self) -> State:
        return {**super().state(), "told": self._observed}

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        self._observed = int(state.get("told", len(seen)))
