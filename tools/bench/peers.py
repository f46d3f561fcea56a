"""Other libraries' searches behind the ask and tell of our strategies, to compare with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from phonenas import search, space

__all__ = ["PEERS", "Peer"]


class _Optuna(search.Strategy):
    """A study of Optuna in memory, one categorical parameter a gene, all else as it comes.

    Args:
        sampler: Name of the sampler's class.
        seed: Of the sampler.
    """

    name = "optuna"

    def __init__(self, sampler: str, seed: int = 0) -> None:
        super().__init__(seed)
        self._sampler = sampler

    def start(
        self, space: space.SearchSpace, target: float | None = None, objectives: int = 2
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            directions=["minimize"] * objectives,
            sampler=getattr(optuna.samplers, self._sampler)(seed=self.seed),
        )
        self._genes = {
            f"g{i}": optuna.distributions.CategoricalDistribution(range(int(count)))
            for i, count in enumerate(space.option_counts)
        }

    def ask(self, n: int) -> space.Genomes:
        self._trial = self._study.ask(self._genes)
        return np.array([[self._trial.params[g] for g in self._genes]], np.int8)

    def tell(self, genomes: space.Genomes, losses: Any, violation: Any) -> None:
        if len(genomes):
            self._study.tell(self._trial, losses[0].tolist())


class _Pymoo(search.Strategy):
    """pymoo's NSGA-II with the integer operators of its documentation.

    Args:
        population: 100 as it comes.
        seed: Of all chance.
    """

    name = "pymoo"

    def __init__(self, population: int, seed: int = 0) -> None:
        super().__init__(seed)
        self._population = population

    def start(
        self, space: space.SearchSpace, target: float | None = None, objectives: int = 2
    ) -> None:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

        counts = space.option_counts
        how: dict[str, Any] = {"prob": 1.0, "eta": 3.0, "vtype": float, "repair": RoundingRepair()}
        self._algorithm = NSGA2(
            self._population,
            sampling=IntegerRandomSampling(),
            crossover=SBX(**how),
            mutation=PM(**how),
            eliminate_duplicates=True,
            seed=self.seed,
        )
        problem = Problem(n_var=len(counts), n_obj=objectives, xl=0, xu=counts - 1, vtype=int)
        self._algorithm.setup(problem, termination=NoTermination(), verbose=False)
        self._empty = np.empty((0, len(counts)), np.int8)

    def ask(self, n: int) -> space.Genomes:
        self._asked = self._algorithm.ask()
        if self._asked is None:
            return self._empty
        return np.asarray(self._asked.get("X")).astype(np.int8)

    def tell(self, genomes: space.Genomes, losses: Any, violation: Any) -> None:
        asked = self._asked[: len(genomes)]
        asked.set("F", losses)
        for individual in asked:
            individual.evaluated = {"F", "G", "H"}
        self._algorithm.tell(infills=asked)


Peer = Callable[[int], search.Strategy]
PEERS: dict[str, Peer] = {
    "Optuna TPE": partial(_Optuna, "TPESampler"),
    "Optuna NSGA-II": partial(_Optuna, "NSGAIISampler"),
    "pymoo NSGA-II": partial(_Pymoo, 100),
    "pymoo, 20 alive": partial(_Pymoo, 20),
}
