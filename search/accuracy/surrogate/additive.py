"""Additive: top-1 as a sum over a network's operators, fitted to another estimator.

An additive accuracy is less exact, but with it and table latency the exact Pareto front of a whole
space can be computed (`search.exact_front`), to compare strategies with.

It is a ridge on sums over operators, fitted to another estimator's answers for random networks of
our spaces. Its standard error combines that estimator's and its own difference from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from math import log2

import numpy as np
import numpy.typing as npt

from phonenas.space import AdditiveTable, Architecture, Genomes, Operator, SearchSpace, get

from ..estimator import Accuracy, AccuracyEstimator
from .surrogate import STAGES, Surrogate, sums

__all__ = ["Additive"]

Floats = npt.NDArray[np.float64]
_SPACES = (("mnasnet", 6000), ("accel-nasbench", 3000))  # and how many networks it is fitted on
_VALIDATED = 2000  # further networks of each, on which the distance is computed
_RIDGES = np.logspace(-4, 2, 13)


def _row(operator: Operator, resolution_px: int) -> list[float]:
    """What an operator adds: the surrogate's sums, and saturating terms of its size."""
    raw = sums(operator, resolution_px)
    size = [0.0] * (2 * STAGES)
    if operator.kind not in ("stem", "head"):
        stage = min(max(round(log2(resolution_px / operator.out_px)), 1), STAGES) - 1
        size[2 * stage] = log2(operator.macs)
        size[2 * stage + 1] = log2(operator.params)
    return [*raw, *size]


class Additive(AccuracyEstimator):
    """Top-1 as a sum over operators, on the scale of the estimator that it was fitted to.

    Sums may leave [0, 1] far from the networks it was fitted on. `estimate` and `on` clip them;
    `table` does not, because a clipped sum is not a sum.

    Args:
        teacher: The estimator that is approximated; the shipped surrogate by default.
    Attributes:
        distance: Root mean square difference to the teacher on networks that it was not fitted on,
            by space; in [0, 1].
    """

    name = "additive"

    def __init__(self, teacher: AccuracyEstimator | None = None) -> None:
        self.teacher = teacher or Surrogate()
        self.schedule, self.note = self.teacher.schedule, self.teacher.note

    @cached_property
    def digest(self) -> str:
        parts = repr((self.teacher.digest, _SPACES, [round(float(w), 12) for w in self._line[0]]))
        return hashlib.sha256(parts.encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        return self.teacher.cost_s

    @cached_property
    def _line(self) -> tuple[Floats, float, dict[str, float]]:
        """Weights, intercept, and distances."""
        from sklearn.linear_model import RidgeCV

        rows, tops, held = [], [], {}
        for number, (name, count) in enumerate(_SPACES):
            space = get(name)
            genomes = space.sample(np.random.default_rng(number), count + _VALIDATED)
            x, y = _table(space)(genomes), self.teacher.on(space)(genomes).top1
            rows.append(x[:count])
            tops.append(y[:count])
            held[name] = (x[count:], y[count:])
        x, y = np.concatenate(rows), np.concatenate(tops)
        scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        fitted = RidgeCV(_RIDGES).fit(x / scale, y)
        weights: Floats = fitted.coef_ / scale
        start = float(fitted.intercept_)
        distance = {
            name: float(np.sqrt(np.mean((a @ weights + start - b) ** 2)))
            for name, (a, b) in held.items()
        }
        return weights, start, distance

    @property
    def distance(self) -> dict[str, float]:
        return self._line[2]

    def table(self, space: SearchSpace) -> AdditiveTable:
        """Top-1 by genome, (n,), as the sum that an exact front takes."""
        weights, start, _ = self._line
        return AdditiveTable(
            space, lambda o: float(np.dot(_row(o, space.resolution_px), weights)), start
        )

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        weights, start, _ = self._line
        rows = [
            np.sum([_row(o, a.resolution_px) for o in a.operators()], axis=0) for a in architectures
        ]
        top1 = np.array([float(r @ weights) + start for r in rows])
        return self._answer(top1, self.teacher.estimate(architectures))

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        table, teacher = self.table(space), self.teacher.on(space)
        return lambda genomes: self._answer(table(genomes), teacher(genomes))

    def _answer(self, top1: Floats, teacher: Accuracy) -> Accuracy:
        error = np.hypot(teacher.standard_error, top1 - teacher.top1)
        return Accuracy(np.clip(top1, 0.0, 1.0), error, teacher.outside)


def _table(space: SearchSpace) -> AdditiveTable:
    return AdditiveTable(space, lambda o: _row(o, space.resolution_px))
