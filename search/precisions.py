"""A search over precisions: a latency model for each, and afterwards a run of each.

Precision is a gene of the whole network (`PrecisionChoice`). The front of the search is that of all
precisions together. What is measured and trained is of one: its networks are a complete run of
their own, in a folder of the run's, RUN/int8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data import Conditions
from phonenas.latency_model import LatencyModel
from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import Infeasible, InvalidArgument, NotEnoughData
from phonenas.space.narrowed import PrecisionChoice

from .accuracy.quantisation.quantised import InPrecisions
from .accuracy.successive_halving import SuccessiveHalving
from .checkpoint import BUDGET, RULES
from .evaluations import Evaluations
from .history import History, Intervals
from .run_folder import Checkpoint, RunFolder
from .spec import Spec

__all__ = ["PrecisionModels", "write_runs"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PrecisionModels:
    """The latency models of one device, by precision.

    Args:
        models: Two or more, each of conditions in its precision, and otherwise of the same; those
            of ready phones are of the same phone.
    Raises:
        InvalidArgument: Fewer, a model of another precision or of other conditions, or one that
            whole networks calibrated beside one that none did.
    """

    models: Mapping[str, LatencyModel]

    def __post_init__(self) -> None:
        if len(self.models) < 2:
            raise InvalidArgument("a search over precisions takes the models of two or more")
        first = self.first.conditions
        for precision, model in self.models.items():
            own = model.conditions
            if own.precision != precision:
                raise InvalidArgument(f"the model of {precision} is in {own.precision}")
            same = replace(own, precision=first.precision)
            if own.origin != "public" and same != first:
                raise InvalidArgument(
                    f"the models of {own.device} in {first.precision} and {precision} are of other "
                    f"conditions: {'; '.join(first.differences(same))}. Measure both under the same"
                )

        bare = [p for p, model in self.models.items() if not model.calibrated]
        if 0 < len(bare) < len(self.models):
            raise InvalidArgument(
                f"the model of {first.device} in {' and '.join(bare)} is of operators alone, and "
                "their sums compare with no times of whole networks. Measure ten networks or more "
                "in it, and fit it again"
            )

    @property
    def first(self) -> LatencyModel:
        """That of the first precision."""
        return next(iter(self.models.values()))

    @property
    def device(self) -> str:
        """Its name."""
        return self.first.device

    @property
    def conditions(self) -> Conditions:
        """Of all: their precision is "float32 or int8"."""
        return replace(self.first.conditions, precision=" or ".join(self.models))

    @property
    def digest(self) -> str:
        """Of all that they predict."""
        text = " ".join(f"{name} {model.digest}" for name, model in self.models.items())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def summary(self) -> dict[str, Any]:
        """What a run keeps of them, as `LatencyModel.summary`; their scores are in the run of
        each precision."""
        own = self.first.summary()
        kept = {name: own[name] for name in ("version", "date")}
        return {**kept, "digest": self.digest, "conditions": self.conditions.to_dict()}

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        """Latency in ms, (n,), by genome, (n, genes), whose last gene is the precision."""
        space = _choice(space)
        tables = {p: model.on(space.base) for p, model in self.models.items()}

        def of(genomes: Genomes) -> Floats:
            ms = np.empty(len(genomes))
            for precision, table in tables.items():
                rows = space.rows_in(precision, genomes)
                ms[rows] = table(genomes[rows, :-1])
            return ms

        return of

    def intervals(self, space: SearchSpace) -> Intervals:
        """Both ends of the 90 % interval in ms, and whether all was measured, likewise."""
        space = _choice(space)
        ends = {p: model.intervals(space.base) for p, model in self.models.items()}

        def of(genomes: Genomes) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
            low, high = np.empty((2, len(genomes)))
            covered = np.zeros(len(genomes), bool)
            for precision, own in ends.items():
                rows = space.rows_in(precision, genomes)
                low[rows], high[rows], covered[rows] = own(genomes[rows, :-1])
            return low, high, covered

        return of


def write_runs(
    run: RunFolder,
    space: PrecisionChoice,
    models: PrecisionModels,
    accuracy: InPrecisions | SuccessiveHalving,
    evaluated: Evaluations,
    spec: Spec,
) -> dict[str, Path]:
    """The networks of each precision as a complete run, in a folder of the run's.

    Args:
        run: Finished.
        space, models, accuracy, spec: Of the search.
        evaluated: All that it evaluated.
    Returns:
        The folder of each precision; none of one without a network that meets the constraints.
    """
    folders = {}
    for precision, model in models.models.items():
        rows = space.rows_in(precision, evaluated.genomes)
        part = evaluated.take(rows)
        part = replace(part, genomes=part.genomes[:, :-1])
        history = History(space.base, spec, model.device, model.conditions.origin)
        history.remember(part)
        try:
            front = history.front(model.intervals(space.base))
        except (Infeasible, NotEnoughData):
            continue
        estimator = accuracy.of(precision)
        others = {*RULES, *accuracy.settings}
        settings = {
            **{name: v for name, v in run.settings.items() if name not in others},
            **estimator.settings,
            "space": space.base.name,
            "precision": precision,
            "device": model.device,
            "latency_model": model.digest,
            "accuracy": estimator.digest,
            BUDGET: len(part),
            "strategy": "again",
            "again": str(run.settings["strategy"]),
        }
        path = run.path / precision
        # They have the lock of the run, which was not taken if it was finished before.
        summary, free = model.summary(), not run.locked
        with RunFolder(path, settings, summary, run.objectives, lock=free) as own:
            if not own.finished():
                own.keep_model(model)
                done = Checkpoint({}, part, 0, 0.0, (history.note(0.0),))
                own.save(done)
                own.finish(front, space.base, done)
        folders[precision] = path
    return folders


def _choice(space: SearchSpace) -> PrecisionChoice:
    if not isinstance(space, PrecisionChoice):
        raise InvalidArgument(f"{space.name} has no choice of a precision")
    return space
