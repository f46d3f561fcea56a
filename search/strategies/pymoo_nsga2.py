"""pymoo's NSGA-II and operators for genes that are categories; imported only when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from phonenas.space import SearchSpace

from .base import ONE_GENE, unseen

__all__ = ["CategoricalNSGA2", "Memory", "Within", "algorithm_for", "set_up"]

_MATINGS = 3  # rounds of mating a generation before mutants take further steps
_HURRY = 5000  # networks observed from which on there is one round
_FURTHER = 8  # steps that a mutant may take to a network that was not seen


@dataclass
class Memory:
    """What the operators know of the search: the networks seen, and the matings of this turn."""

    space: SearchSpace
    seen: set[bytes] = field(default_factory=set)
    observed: int = 0
    matings: int = 0


class _Remembering:
    """An operator that shares the memory of the search."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory


class Uniform(_Remembering, Sampling):  # type: ignore[misc]
    """Genomes uniform over options."""

    def _do(self, problem: Any, n_samples: int, *args: Any, random_state: Any, **kw: Any) -> Any:
        return self.memory.space.sample(random_state, n_samples)


class OtherOption(_Remembering, Mutation):  # type: ignore[misc]
    """Another option of one gene; further steps for what was seen before."""

    def _do(self, problem: Any, X: Any, *args: Any, random_state: Any, **kw: Any) -> Any:
        memory, space = self.memory, self.memory.space
        mutants = space.mutate(X.astype(np.int8), random_state, ONE_GENE)
        memory.matings += 1
        # Other parents are better than a longer way, as long as there are enough, and cost time.
        rounds = _MATINGS if memory.observed < _HURRY else 0
        for _ in range(_FURTHER if memory.matings > rounds else 0):
            stale = np.flatnonzero(~unseen(space, mutants, memory.seen))
            if not len(stale):
                break
            mutants[stale] = space.mutate(mutants[stale], random_state, ONE_GENE)
        return mutants


class Unseen(_Remembering, DuplicateElimination):  # type: ignore[misc]
    """Keeps networks that were neither seen nor chosen in this turn."""

    def do(self, pop: Any, *others: Any, to_itself: bool = True, **kw: Any) -> Any:
        if not len(pop):
            return pop
        space = self.memory.space
        genomes = pop.get("X").astype(np.int8)
        new = unseen(space, genomes, self.memory.seen)
        # The first of `others` are the parents, which were seen; then children of this turn.
        chosen = {k for o in others[1:] if len(o) for k in space.keys(o.get("X").astype(np.int8))}
        if chosen:
            new &= [k not in chosen for k in space.keys(genomes)]
        return pop[new]


class Within:
    """Of a survival: those within the constraint, filled up with those that overstep it the least.

    As pymoo's own does, which asks each network by name for all that it has: a fifth of a
    search's time.
    """

    _do: Callable[..., Any]

    def do(self, problem: Any, pop: Any, *args: Any, n_survive: int, **kw: Any) -> Any:
        over = np.array([individual.CV[0] for individual in pop])
        within, beyond = np.flatnonzero(over <= 0), np.flatnonzero(over > 0)
        n = min(n_survive, len(pop))
        alive = Population()
        if len(within):
            alive = self._do(problem, pop[within], n_survive=min(len(within), n), **kw)
        beyond = beyond[np.argsort(over[beyond])][: n - len(alive)]
        return Population.merge(alive, pop[beyond])


class WithinCrowding(Within, RankAndCrowding):  # type: ignore[misc]
    """Survivors by rank and crowding distance, those within the constraint first."""


class CategoricalNSGA2(NSGA2):  # type: ignore[misc]
    """NSGA-II that keeps no optimum of its own: the loop keeps the front."""

    def _set_optimum(self, **kw: Any) -> None:
        pass


def algorithm_for(memory: Memory, objectives: int, first: int, crossover: float, seed: int) -> Any:
    """NSGA-II over the genomes of a space, before its first generation.

    Args:
        memory: Shared with whoever tells it what was evaluated.
        objectives: How many losses, ≥ 2.
        first: Networks of the first generation.
        crossover: Share of children that mix two parents, in [0, 1].
        seed: Of all chance.
    """
    own = {"survival": WithinCrowding()}
    return set_up(CategoricalNSGA2, memory, objectives, first, crossover, seed, own)


def set_up(
    kind: Callable[..., Any],
    memory: Memory,
    objectives: int,
    first: int,
    crossover: float,
    seed: int,
    own: Mapping[str, Any],
) -> Any:
    """An algorithm of pymoo with operators for categorical genes; see `algorithm_for`.

    Args:
        kind: Its class, of genetic algorithms.
        own: What this class alone takes.
    """
    algorithm = kind(
        pop_size=first,
        sampling=Uniform(memory),
        crossover=UniformCrossover(prob=crossover),
        mutation=OtherOption(memory),
        eliminate_duplicates=Unseen(memory),
        seed=seed,
        **own,
    )
    counts = memory.space.option_counts
    problem = Problem(n_var=len(counts), n_obj=objectives, n_ieq_constr=1, xl=0, xu=counts - 1)
    algorithm.setup(problem, termination=NoTermination(), verbose=False)
    return algorithm
