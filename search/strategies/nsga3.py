"""NSGA-III by pymoo, with the operators for categorical genes of `nsga2`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import State
from .nsga2 import NSGA2

__all__ = ["NSGA3"]

_POINTS = ("ideal_point", "worst_point", "extreme_points")


class NSGA3(NSGA2):
    """Elitist evolution by non-dominated rank and reference directions, for many objectives.

    With four objectives or more nearly all networks are non-dominated, and crowding distance tells
    little. Here the survivors are spread over directions from the best of all objectives: the
    fewest survivors that a direction has, the sooner it gets another, the one nearest to it.
    Directions are evenly spaced (Das and Dennis); where all of them lie on the edge a second layer
    lies within. Parents are drawn at random; first those that keep the constraint.

    The population grows as that of `NSGA2`; so do its children, mutation and crossover.

    Args:
        seed: Of all chance.
        population: Survivors, and children a generation, in the end, and directions at most; ≥ 4.
        crossover: Share of children that mix two parents before they mutate, in [0, 1].
    Raises:
        InvalidArgument: A population below 4, or a share outside [0, 1].
    Source: Deb and Jain, IEEE TEC 18(4), 2014; pymoo (Blank and Deb, 2020). Growth, mutants and the
        share are those of `NSGA2`.
    """

    name = "nsga3"
    kept = ("X", "F", "G")

    def __init__(self, seed: int = 0, population: int = 200, crossover: float = 0.2) -> None:
        super().__init__(seed, population, crossover)

    def make_algorithm(self, objectives: int, first: int) -> Any:
        from .pymoo_nsga3 import algorithm_for

        directions = self.population
        return algorithm_for(self._memory, objectives, first, self.crossover, self.seed, directions)

    def state(self) -> State:
        norm = self._algorithm.survival.norm
        points = {name: getattr(norm, name) for name in _POINTS}
        return {**super().state(), **{n: p for n, p in points.items() if p is not None}}

    def restore(self, state: State, seen: Any) -> None:
        super().restore(state, seen)
        norm = self._algorithm.survival.norm
        for name in _POINTS:
            if name in state:
                setattr(norm, name, np.array(state[name], np.float64))
