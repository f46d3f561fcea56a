"""pymoo's NSGA-III for genes that are categories; imported only when it runs."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga3 import NSGA3, ReferenceDirectionSurvival
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.util.ref_dirs import get_reference_directions

from .pymoo_nsga2 import Memory, Within, set_up

__all__ = ["algorithm_for", "directions"]

Floats = npt.NDArray[np.float64]


def directions(objectives: int, most: int) -> Floats:
    """Evenly spaced directions, (m, objectives), each ≥ 0 with sum 1; m ≤ `most` where it can be.

    With fewer gaps along an edge than objectives none lies within, so that a second layer does,
    half as far from the middle.

    Source: Das and Dennis, SIAM J. Optim. 8(3), 1998; two layers: Deb and Jain, 2014.

    >>> directions(3, 10).shape, directions(5, 60).shape
    ((10, 3), (50, 5))
    """

    def count(gaps: int) -> int:
        inner = comb(gaps - 1 + objectives - 1, objectives - 1) if 1 < gaps < objectives else 0
        return comb(gaps + objectives - 1, objectives - 1) + inner

    gaps = 1
    while count(gaps + 1) <= most:
        gaps += 1
    outer = get_reference_directions("das-dennis", objectives, n_partitions=gaps)
    if not 1 < gaps < objectives:
        return np.asarray(outer, np.float64)
    inner = get_reference_directions("das-dennis", objectives, n_partitions=gaps - 1)
    return np.concatenate([outer, inner / 2 + 0.5 / objectives])


class WithinDirections(Within, ReferenceDirectionSurvival):  # type: ignore[misc]
    """Survivors spread over reference directions, those within the constraint first."""


def parents(pop: Any, P: Any, random_state: Any, **kw: Any) -> Any:
    """Of each pair of places, (n, 2), the network that oversteps the constraint less, else either.

    pymoo's own settles a tie by a generator that no seed reaches.
    """
    over = np.array([individual.CV[0] for individual in pop])[P]
    either = random_state.integers(0, 2, len(P))
    chosen = np.where(over[:, 0] == over[:, 1], either, over.argmin(axis=1))
    return P[np.arange(len(P)), chosen][:, None]


class CategoricalNSGA3(NSGA3):  # type: ignore[misc]
    """NSGA-III that keeps no optimum of its own: the loop keeps the front."""

    def _set_optimum(self, **kw: Any) -> None:
        pass


def algorithm_for(
    memory: Memory, objectives: int, first: int, crossover: float, seed: int, most: int
) -> Any:
    """NSGA-III over the genomes of a space, before its first generation.

    Args:
        memory, objectives, first, crossover, seed: As for NSGA-II.
        most: Directions at most.
    """
    towards = directions(objectives, most)
    made = {"ref_dirs": towards, "survival": WithinDirections(towards)}
    made["selection"] = TournamentSelection(func_comp=parents)
    # pymoo wants no fewer networks than directions; here they grow to that number.
    algorithm = set_up(CategoricalNSGA3, memory, objectives, len(towards), crossover, seed, made)
    algorithm.pop_size = algorithm.n_offsprings = first
    return algorithm
