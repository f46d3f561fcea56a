"""NSGA-II by pymoo, with operators fit for categorical genes."""

from __future__ import annotations

from typing import Any

import numpy as np

from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument

from .base import Objectives, State, Strategy

__all__ = ["NSGA2"]

_FIRST = 10  # networks before the first selection
_CHILDREN, _SURVIVORS = 10, 20  # one child a generation for so many networks observed; one survivor


class NSGA2(Strategy):
    """Elitist evolution by non-dominated rank and crowding distance.

    Genes are categories, so crossover exchanges them between parents (uniform) and mutation
    draws another option of one gene; nothing is averaged. Networks seen before are never asked
    again. Networks that overstep the constraint rank behind all that do not.

    The population grows with the networks observed, so that no budget need be known: 10 networks
    first, then a tenth as many children a generation as networks were observed (4 at least), and a
    twentieth as many survivors (10 at least), until both reach `population`. A few hundred
    evaluations then see dozens of generations instead of two, of the best alone.

    Args:
        seed: Of all chance.
        population: Survivors, and children a generation, in the end; ≥ 4.
        crossover: Share of children that mix two parents before they mutate, in [0, 1]. Few are
            best for few evaluations: a child of two good networks is mostly far from both.
    Raises:
        InvalidArgument: A population below 4, or a share outside [0, 1].
    Source: Deb et al., IEEE TEC 6(2), 2002; pymoo (Blank and Deb, 2020). Growth, one-gene
        mutants and the share are ours, compared on tables by `phonenas benchmark search`.
    """

    name = "nsga2"
    kept: tuple[str, ...] = ("X", "F", "G", "rank", "crowding")  # of each survivor, in a state

    def __init__(self, seed: int = 0, population: int = 100, crossover: float = 0.2) -> None:
        super().__init__(seed)
        if population < 4:
            raise InvalidArgument(f"a population of NSGA-II is 4 or more, got {population}")
        if not 0 <= crossover <= 1:
            raise InvalidArgument(f"a share of crossover lies in [0, 1], got {crossover:g}")
        self.population, self.crossover = int(population), float(crossover)
        self._asked: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "population": self.population, "crossover": self.crossover}

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        from .pymoo_nsga2 import Memory

        self.space, self.target = space, target
        self._memory = Memory(space)
        self._algorithm = self.make_algorithm(objectives, min(_FIRST, self.population))

    def make_algorithm(self, objectives: int, first: int) -> Any:
        """pymoo's algorithm before its first generation, of so many networks."""
        from .pymoo_nsga2 import algorithm_for

        return algorithm_for(self._memory, objectives, first, self.crossover, self.seed)

    def ask(self, n: int) -> Genomes:
        algorithm, self._memory.matings = self._algorithm, 0
        if algorithm.is_initialized:
            algorithm.n_offsprings = self._size(_CHILDREN, 4)
            algorithm.pop_size = self._size(_SURVIVORS, _FIRST)
        self._asked = algorithm.ask()
        if self._asked is None or not len(self._asked):
            return np.empty((0, len(self.space.option_counts)), np.int8)
        self._asked = self._asked[:n]
        return np.asarray(self._asked.get("X")).astype(np.int8)

    def _size(self, share: int, least: int) -> int:
        return min(max(self._memory.observed // share, least), self.population)

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self._memory.observed += len(genomes)
        self._memory.seen.update(self.space.keys(genomes))
        self._asked = self._asked[: len(genomes)]
        if self.target is not None:
            violation = np.maximum(violation, losses[:, 1] / self.target - 1)
        # What pymoo's evaluator would set, one look-up by name for each number left out.
        over = np.maximum(violation, 0.0)
        for row, individual in enumerate(self._asked):
            individual.X, individual.F = genomes[row].copy(), losses[row].copy()
            individual.G, individual.CV = violation[[row]], over[[row]]
            individual.evaluated = {"F", "G", "H"}
        self._algorithm.tell(infills=self._asked)

    def state(self) -> State:
        algorithm = self._algorithm
        state: State = {
            "rng": algorithm.random_state.bit_generator.state,
            "iteration": algorithm.n_iter,
            "told": self._memory.observed,
        }
        if algorithm.pop is not None and len(algorithm.pop):
            # Networks that overstep the constraint have no rank and no crowding: NaN stands for it.
            state |= {name: np.asarray(algorithm.pop.get(name), float) for name in self.kept}
            state["X"] = state["X"].astype(np.int8)
        return state

    def restore(self, state: State, seen: Genomes) -> None:
        from pymoo.core.population import Population

        algorithm, self._memory.observed = self._algorithm, int(state["told"])
        self._memory.seen = set(self.space.keys(seen)) if len(seen) else set()
        if "X" in state:
            arrays = {name: np.asarray(state[name]) for name in self.kept}
            survivors = Population.new(X=arrays["X"])
            survivors.set("F", arrays["F"], "G", arrays["G"])
            for survivor in survivors:
                survivor.evaluated = {"F", "G", "H"}
            none = np.empty(0)
            ranks, crowding = arrays.get("rank", none), arrays.get("crowding", none)
            if not np.array_equal(np.isnan(ranks), np.isnan(crowding)):
                raise ValueError("networks have a rank and no crowding, or the reverse")
            for i, rank in enumerate(ranks):
                ranked = not np.isnan(rank)
                survivors[i].set("rank", int(rank) if ranked else None)
                survivors[i].set("crowding", float(crowding[i]) if ranked else None)
            algorithm._initialize()
            algorithm.pop = survivors
            algorithm.is_initialized = True
            algorithm.n_iter = int(state["iteration"])
            algorithm._set_optimum()
        algorithm.random_state.bit_generator.state = state["rng"]
