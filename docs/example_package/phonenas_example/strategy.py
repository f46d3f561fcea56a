"""A strategy: change one decision of the best network so far, and keep what is better."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.search.strategies.base import Strategy
from phonenas.space import Genomes, SearchSpace

__all__ = ["HillClimbing"]

Floats = npt.NDArray[np.float64]
_AT_ONCE = 50


class HillClimbing(Strategy):
    """Mutants of the best network, 50 at a time; the first 50 are drawn at random."""

    name = "hill-climbing"

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self.target = space, target
        self.best: Genomes | None = None  # (1, genes)
        self.best_score = 0.0

    def ask(self, n: int) -> Genomes:
        if self.best is None:
            return self.space.sample(self.rng, _AT_ONCE)[:n]
        return self.space.mutate(np.repeat(self.best, _AT_ONCE, axis=0), self.rng)[:n]

    def tell(self, genomes: Genomes, losses: Floats, violation: Floats) -> None:
        """Keep the best of (m, genes) by losses (m, k) and violation of limits (m,)."""
        error, cost = losses[:, 0], losses[:, 1]
        if self.target is None:
            scores = (1 - error) * np.maximum(cost, 1e-9) ** -0.07
        else:
            scores = 1 - error - np.maximum(cost / self.target - 1, 0)
        scores -= 10 * np.maximum(violation, 0)
        row = int(scores.argmax())
        if self.best is None or scores[row] > self.best_score:
            self.best, self.best_score = genomes[row : row + 1].copy(), float(scores[row])

    def state(self) -> dict[str, Any]:
        found = {**super().state(), "best_score": self.best_score}
        return found if self.best is None else {**found, "best": self.best}

    def restore(self, state: dict[str, Any], seen: Genomes) -> None:
        super().restore(state, seen)
        self.best, self.best_score = state.get("best"), state["best_score"]
