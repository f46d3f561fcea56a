"""NSGA-II by pymoo, with operators fit for categorical genes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..space import Genomes, SearchSpace
from ..space.errors import InvalidArgument
from .strategy import ONE_GENE, Objectives, State, Strategy, unseen

__all__ = ["NSGA2"]

_ARRAYS = ("X", "F", "G", "rank", "crowding")
_FIRST = 10  # networks before the first selection
_CHILDREN, _SURVIVORS = 10, 5  # one child a generation for so many networks told; one survivor
_MATINGS = 3  # rounds of mating a generation before mutants take further steps
_HURRY = 5000  # networks told from which on there is one round
_FURTHER = 8  # that a mutant may take to what was not seen


class NSGA2(Strategy):
    """Elitist evolution by non-dominated rank and crowding distance.

    Genes are categories, so crossover exchanges them between parents (uniform) and mutation
    draws another option of one gene; nothing is averaged. Networks seen before are never asked
    again. Solutions that overstep the constraint rank behind all that do not.

    The population grows with what was told, so that no budget need be known: 10 networks first,
    then a tenth as many children a generation as networks were told (4 at least), and a fifth as
    many survivors (10 at least), until both reach `population`. Few hundred evaluations then see
    dozens of generations instead of two.

    Args:
        seed: Of all chance.
        population: Survivors, and children a generation, in the end; ≥ 4.
        crossover: Share of children that mix two parents before they mutate, in [0, 1]. Few are
            best for few evaluations: a child of two good networks is mostly far from both.
    Raises:
        InvalidArgument: A population below 4, or a share outside [0, 1].
    Source: Deb et al., IEEE TEC 6(2), 2002; pymoo (Blank and Deb, 2020). Growth, one-gene
        mutants and the share are ours, held against tables by `phonenas benchmark search`.
    """

    name = "nsga2"

    def __init__(self, seed: int = 0, population: int = 100, crossover: float = 0.2) -> None:
        super().__init__(seed)
        if population < 4:
            raise InvalidArgument(f"a population of NSGA-II is 4 or more, got {population}")
        if not 0 <= crossover <= 1:
            raise InvalidArgument(f"a share of crossover lies in [0, 1], got {crossover:g}")
        self.population, self.crossover = int(population), float(crossover)
        self.told = 0
        self._seen: set[bytes] = set()
        self._asked: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "population": self.population, "crossover": self.crossover}

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self.target = space, target
        self._algorithm = _algorithm(self, objectives)

    def ask(self, n: int) -> Genomes:
        algorithm, self.matings = self._algorithm, 0
        if algorithm.is_initialized:
            algorithm.n_offsprings = self._size(_CHILDREN, 4)
            algorithm.pop_size = self._size(_SURVIVORS, _FIRST)
        self._asked = algorithm.ask()
        if self._asked is None or not len(self._asked):
            return np.empty((0, len(self.space.option_counts)), np.int8)
        self._asked = self._asked[:n]
        return np.asarray(self._asked.get("X")).astype(np.int8)

    def _size(self, share: int, least: int) -> int:
        return min(max(self.told // share, least), self.population)

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self.told += len(genomes)
        self._seen.update(self.space.keys(genomes))
        self._asked = self._asked[: len(genomes)]
        if self.target is not None:
            violation = np.maximum(violation, losses[:, 1] / self.target - 1)
        # What pymoo's evaluator would set, one look-up by name for each number left out.
        over = np.maximum(violation, 0.0)
        for row, individual in enumerate(self._asked):
            individual.X, individual.F = genomes[row].copy(), losses[row].copy()
            individual.G, individual.CV = (
                violation[row : row + 1].copy(),
                over[row : row + 1].copy(),
            )
            individual.evaluated = {"F", "G", "H"}
        self._algorithm.tell(infills=self._asked)

    def state(self) -> State:
        algorithm = self._algorithm
        found: State = {
            "rng": algorithm.random_state.bit_generator.state,
            "iteration": algorithm.n_iter,
            "told": self.told,
        }
        if algorithm.pop is not None and len(algorithm.pop):
            # Those that overstep the constraint bear no rank and no crowding: NaN stands for it.
            found |= {name: np.asarray(algorithm.pop.get(name), float) for name in _ARRAYS}
            found["X"] = found["X"].astype(np.int8)
        return found

    def restore(self, state: State, seen: Genomes) -> None:
        from pymoo.core.population import Population

        algorithm, self.told = self._algorithm, int(state["told"])
        self._seen = set(self.space.keys(seen)) if len(seen) else set()
        if "X" in state:
            arrays = {name: np.asarray(state[name]) for name in _ARRAYS}
            survivors = Population.new(X=arrays["X"])
            survivors.set("F", arrays["F"], "G", arrays["G"])
            ranked = ~np.isnan(arrays["rank"])
            for individual, rank, crowding, has in zip(
                survivors, arrays["rank"], arrays["crowding"], ranked, strict=True
            ):
                individual.evaluated = {"F", "G", "H"}
                individual.set("rank", int(rank) if has else None)
                individual.set("crowding", float(crowding) if has else None)
            algorithm._initialize()
            algorithm.pop = survivors
            algorithm.is_initialized = True
            algorithm.n_iter = int(state["iteration"])
            algorithm._set_optimum()
        algorithm.random_state.bit_generator.state = state["rng"]


def _algorithm(strategy: NSGA2, objectives: int) -> Any:
    """pymoo's NSGA-II over a space's genomes."""
    from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2
    from pymoo.core.duplicate import DuplicateElimination
    from pymoo.core.mutation import Mutation
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem
    from pymoo.core.sampling import Sampling
    from pymoo.core.termination import NoTermination
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

    space = strategy.space

    class Uniform(Sampling):  # type: ignore[misc]
        def _do(
            self, problem: Any, n_samples: int, *args: Any, random_state: Any, **kw: Any
        ) -> Any:
            return space.sample(random_state, n_samples)

    class OtherOption(Mutation):  # type: ignore[misc]
        def _do(self, problem: Any, X: Any, *args: Any, random_state: Any, **kw: Any) -> Any:
            mutants = space.mutate(X.astype(np.int8), random_state, ONE_GENE)
            strategy.matings += 1
            # Other parents are better than a longer way, as long as there are enough, and cost time.
            rounds = _MATINGS if strategy.told < _HURRY else 0
            for _ in range(_FURTHER if strategy.matings > rounds else 0):
                stale = np.flatnonzero(~unseen(space, mutants, strategy._seen))
                if not len(stale):
                    break
                mutants[stale] = space.mutate(mutants[stale], random_state, ONE_GENE)
            return mutants

    class Unseen(DuplicateElimination):  # type: ignore[misc]
        def do(self, pop: Any, *others: Any, to_itself: bool = True, **kw: Any) -> Any:
            if not len(pop):
                return pop
            genomes = pop.get("X").astype(np.int8)
            fresh = unseen(space, genomes, strategy._seen)
            # The first of `others` are the parents, which were told; then children of this turn.
            chosen = {
                k for o in others[1:] if len(o) for k in space.keys(o.get("X").astype(np.int8))
            }
            if chosen:
                fresh &= [k not in chosen for k in space.keys(genomes)]
            return pop[fresh]

    class Within(RankAndCrowding):  # type: ignore[misc]
        """Ranks those within the constraint; fills up with those that overstep it the least.

        As pymoo's own does, which asks each network by name for all that it has: a fifth of a
        search's time.
        """

        def do(self, problem: Any, pop: Any, *args: Any, n_survive: int, **kw: Any) -> Any:
            over = np.array([individual.CV[0] for individual in pop])
            within, beyond = np.flatnonzero(over <= 0), np.flatnonzero(over > 0)
            n = min(n_survive, len(pop))
            alive = Population()
            if len(within):
                alive = self._do(problem, pop[within], n_survive=min(len(within), n), **kw)
            beyond = beyond[np.argsort(over[beyond])][: n - len(alive)]
            return Population.merge(alive, pop[beyond])

    algorithm = PymooNSGA2(
        pop_size=min(_FIRST, strategy.population),
        sampling=Uniform(),
        crossover=UniformCrossover(prob=strategy.crossover),
        mutation=OtherOption(),
        eliminate_duplicates=Unseen(),
        survival=Within(),
        seed=strategy.seed,
    )
    problem = Problem(
        n_var=len(space.option_counts), n_obj=objectives, n_ieq_constr=1,
        xl=0, xu=space.option_counts - 1,
    )  # fmt: skip
    algorithm._set_optimum = lambda **kw: None  # nobody asks for it; the loop keeps the front
    algorithm.setup(problem, termination=NoTermination(), verbose=False)
    return algorithm
