"""Recorded: all that a run evaluated, judged again under another latency model.

Top-1 and further objectives are those that the run holds; only latency is told anew. So a costly
estimator is not asked again, and no user's function is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import space as spaces
from ..latency_model import LatencyModel
from ..space import Architecture, Genomes, SearchSpace
from ..space.errors import InvalidArgument, NotInSpace, UnsupportedFormat
from .accuracy import Accuracy, AccuracyEstimator
from .aims import Aims
from .limits import Limit
from .loop import search
from .objectives import Objective
from .pareto import ParetoFront
from .run_folder import Loaded, RunFolder
from .strategy import Objectives, Strategy

__all__ = ["Recorded"]

Array = npt.NDArray[np.float64]


class Recorded:
    """Every network that a run evaluated, with its numbers; what is not among them it cannot tell.

    Args:
        run: Finished.
        space: Of the run; by its name by default.
        also, limits: As the search was given them.
    Raises:
        InvalidArgument: Another space, objectives or limits than the run's.
        UnsupportedFormat: What the run evaluated is not of its space, or damaged.
    """

    def __init__(
        self,
        run: Loaded,
        space: SearchSpace | None = None,
        also: Sequence[Objective] = (),
        limits: Sequence[Limit] = (),
    ) -> None:
        s = run.settings
        if space is None:
            space = spaces.get(s["space"], s["resolution_px"])
        if (space.name, space.resolution_px) != (s["space"], s["resolution_px"]):
            raise InvalidArgument(
                f"{run.path} was searched in {s['space']} at {s['resolution_px']} px, not in "
                f"{space.name} at {space.resolution_px} px"
            )
        given = Aims(s["target_ms"], also=tuple(also), limits=tuple(limits)).settings
        for name in ("also", "limits"):
            if given.get(name) != s.get(name):
                raise InvalidArgument(
                    f"{run.path} was searched with {name} {s.get(name)}, not with {given.get(name)}: "
                    "a second round needs the same"
                )
        stopped = RunFolder(run.path, run.settings).checkpoint()
        wrong = f"{run.path} does not hold what it evaluated in {run.settings['space']}"
        again = f"Search anew:  phonenas search --out NEW --space {run.settings['space']} ..."
        if stopped is None:
            raise UnsupportedFormat(f"{wrong}: there is no checkpoint.npz. {again}")
        try:
            self.genomes = space.check(stopped.genomes)
            self.rows = {key: i for i, key in enumerate(space.keys(self.genomes))}
            encoded = [space.encode(c.architecture) for c in run.front]
        except (InvalidArgument, NotInSpace) as error:
            raise UnsupportedFormat(f"{wrong}: {error}. {again}") from error
        if not all(key in self.rows for key in space.keys(np.array(encoded))):
            raise UnsupportedFormat(f"{wrong}: its front is not among them. {again}")
        self.run, self.space, self.also, self.limits = run, space, also, limits
        self.columns = list(RunFolder(run.path, run.settings).columns)
        self.numbers, self.failed = stopped.numbers, stopped.failed

    def __call__(self, name: str) -> Callable[[Genomes], Array]:
        """One column for genomes."""
        column = self.columns.index(name)
        return lambda genomes: self.numbers[self.places(genomes), column]

    def places(self, genomes: Genomes) -> list[int]:
        """Where genomes stand in the order of the run."""
        return [self.rows[k] for k in self.space.keys(genomes)]

    def ranked(self, latency: LatencyModel, into: Path) -> ParetoFront:
        """The front of all of them under a latency model, written as a run in a folder of its own.

        Raises:
            Infeasible: None meets the target.
            SettingsChanged: The folder holds another run.
            UncoveredOperator, StoreError: As `search`.
        """
        s = self.run.settings
        return search(
            self.space,
            latency=latency,
            accuracy=_Accuracy(self),
            strategy=_Again(self),
            target_ms=s["target_ms"],
            target=s["target"],
            evaluations=len(self.genomes),
            into=into,
            soft=bool(s.get("soft")),
            chance=s.get("chance"),
            also=[_Objective(o, self) for o in self.also],
            limits=[replace(q, objective=_Objective(q.objective, self)) for q in self.limits],
        ).front


class _Objective(Objective):
    """An objective whose numbers the run holds."""

    def __init__(self, of: Objective, known: Recorded) -> None:
        self.name, self.unit, self.maximise = of.name, of.unit, of.maximise
        self._digest, self._known = of.digest, known

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def cheap(self) -> bool:
        return False

    def on(self, space: SearchSpace) -> Callable[[Genomes], Array]:
        return self._known(self.name)


class _Accuracy(AccuracyEstimator):
    """The estimates that the run holds."""

    name = "recorded"

    def __init__(self, known: Recorded) -> None:
        self._known = known

    @property
    def digest(self) -> str:
        return str(self._known.run.settings["accuracy"])

    @property
    def cost_s(self) -> float:
        return 0.0

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        space = self._known.space
        return self.on(space)(np.array([space.encode(a) for a in architectures]))

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        columns = [self._known(name) for name in ("top1", "top1_error", "outside")]

        def of(genomes: Genomes) -> Accuracy:
            top1, error, outside = (column(genomes) for column in columns)
            failed = tuple(self._known.failed.get(i, "") for i in self._known.places(genomes))
            return Accuracy(top1, error, outside.astype(bool), failed)

        return of


class _Again(Strategy):
    """Asks for what a run evaluated, in its order, once."""

    name = "again"

    def __init__(self, known: Recorded) -> None:
        super().__init__(int(known.run.settings.get("seed", 0)))
        self._known, self._told = known, 0

    @property
    def settings(self) -> dict[str, Any]:
        again = {"strategy": self.name, "again": str(self._known.run.settings["strategy"])}
        return {**again, "seed": self.seed}

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self._told = 0

    def ask(self, n: int) -> Genomes:
        return self._known.genomes[self._told : self._told + n]

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self._told += len(genomes)

    def restore(self, state: dict[str, Any], seen: Genomes) -> None:
        self._told = len(seen)
