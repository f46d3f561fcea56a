"""A Gaussian process over the parts of operators, which predicts from few measurements.

A part's time is its roofline time (multiply-adds, numbers moved and launches, each at a rate) times
a factor that changes smoothly with the part's shape; an operator is the sum of its parts. The
measured time of an operator is thus a weighted sum of factors, and informs about every operator
with the same or similar parts. Rates, and how smoothly factors change, follow from the measurements
by marginal likelihood under wide priors.

Everything is relative: an operator's time over its roofline time, or over its time on another
device where that is known.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5
(Matérn 3/2); sums of parts: Duvenaud et al., Additive Gaussian Processes, NIPS 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..gaussian_process import Posterior, Prior, misfit, optimise, squared_distances
from .parts import KINDS, Parts

__all__ = [
    "EXPECTED",
    "NAMES",
    "PartsProcess",
    "covariance",
    "hyperparameters_of",
    "roofline",
    "variances",
]

Floats = npt.NDArray[np.float64]

# Hyperparameters: expected value, and standard deviation of the logarithm. Rates in ms per
# multiply-add, number or launch; deviations relative; lengths in units of `Parts`.
_PRIORS = {
    "pointwise": (1 / 40e6, 1.0),
    "depthwise": (1 / 10e6, 1.0),
    "dense": (1 / 30e6, 1.0),
    "pool": (1 / 5e6, 1.0),
    "numbers": (1 / 4e6, 1.0),
    "launch": (2e-3, 1.0),
    "edges": (1 / 4e6, 1.5),
    "all": (0.5, 0.5),
    "kind": (0.5, 0.7),
    "of_pointwise": (0.4, 0.7),
    "of_depthwise": (0.4, 0.7),
    "of_dense": (0.4, 0.7),
    "of_others": (0.6, 0.7),
    "channels": (2.5, 0.5),
    "pixels": (3.0, 0.5),
    "window": (2.0, 0.7),
    "waste": (1.5, 0.7),
    "whole": (0.08, 0.7),
    "traits": (3.0, 0.5),
    "noise": (0.02, 0.7),
}
NAMES = tuple(_PRIORS)
EXPECTED: Floats = np.log([v for v, _ in _PRIORS.values()])
_DEVIATIONS: Floats = np.array([s for _, s in _PRIORS.values()])
_RATES = 7
_AT = {name: i for i, name in enumerate(NAMES)}
_LENGTHS = [
    _AT[n] for n in ("channels", "channels", "pixels", "window", "window", "waste", "waste")
]
_OWN = [_AT[n] for n in ("of_pointwise", "of_depthwise", "of_dense", *["of_others"] * 5)]
_SUBSET = 150  # operators on which hyperparameters are optimised, of more
_STEPS = 25
_LEAST = 0.05  # of its roofline time an operator takes at least
_JITTER = 1e-8


def roofline(parts: Parts, hyperparameters: Floats) -> tuple[Floats, Any]:
    """Roofline time of each operator, (n,), ms, and its parts' shares of it, sparse (n, u)."""
    rate = np.exp(hyperparameters[:_RATES])
    # A squeeze's and a classifier's products read each weight once, which makes them slower.
    per_mac = np.array([rate[0], rate[1], rate[2], 3 * rate[0], rate[3], 0.0, 6 * rate[0], 0.0])
    per_number = np.array([rate[4]] * (len(KINDS) - 1) + [rate[6]])
    w = parts.work
    ms = per_mac[parts.kinds] * w[:, 0] + per_number[parts.kinds] * w[:, 1] + rate[5] * w[:, 2]
    holds = parts.holds
    total = holds @ ms
    # By its arrays, as an optimisation asks for it hundreds of times.
    shares = holds.data * ms[holds.indices] * np.repeat(1 / total, np.diff(holds.indptr))
    return total, type(holds)((shares, holds.indices, holds.indptr), holds.shape)


def _matern(a: Floats, b: Floats) -> Floats:
    r = np.sqrt(3 * squared_distances(a, b))
    correlation: Floats = (1 + r) * np.exp(-r)
    return correlation


def _inner(a: Parts, b: Parts, hyperparameters: Floats) -> Floats:
    """Covariance of parts' factors, (u, v)."""
    s = np.exp(hyperparameters)
    total = np.full((len(a.kinds), len(b.kinds)), s[_AT["all"]] ** 2)
    lengths = s[_LENGTHS]
    for kind, (at, bt) in enumerate(zip(a.by_kind, b.by_kind, strict=True)):
        if len(at) and len(bt):
            near = _matern(a.shapes[at] / lengths, b.shapes[bt] / lengths)
            total[np.ix_(at, bt)] += s[_AT["kind"]] ** 2 + s[_OWN[kind]] ** 2 * near
    return total


def covariance(a: Parts, of_a: Any, b: Parts, of_b: Any, hyperparameters: Floats) -> Floats:
    """Covariance of operators' factors before any was measured, (n, m).

    Args:
        a, b: The operators' parts.
        of_a, of_b: Shares of parts in each operator, from `roofline`.
        hyperparameters: (20,), logarithms in the order of `NAMES`.
    """
    length, whole = (
        np.exp(hyperparameters[_AT["traits"]]),
        np.exp(2 * hyperparameters[_AT["whole"]]),
    )
    total: Floats = (of_b @ (of_a @ _inner(a, b, hyperparameters)).T).T
    total += whole * _matern(a.traits / length, b.traits / length)
    return total


def variances(parts: Parts, shares: Any, hyperparameters: Floats) -> Floats:
    """The diagonal of `covariance` of operators with themselves, (n,)."""
    inner = shares @ _inner(parts, parts, hyperparameters)
    own = np.asarray(shares.multiply(inner).sum(axis=1)).ravel()
    diagonal: Floats = own + np.exp(2 * hyperparameters[_AT["whole"]])
    return diagonal


def _noise(hyperparameters: Floats, factor: Floats) -> Floats:
    variance: Floats = np.exp(2 * hyperparameters[_AT["noise"]]) * factor**2 + _JITTER
    return variance


def hyperparameters_of(parts: Parts, ms: Floats) -> Floats:
    """Hyperparameters, (20,), that make the times of some operators, (n,) ms, most likely."""
    start = EXPECTED.copy()
    start[:_RATES] += np.median(np.log(ms / roofline(parts, start)[0]))

    def misfit_of(hyperparameters: Floats) -> float:
        base, shares = roofline(parts, hyperparameters)
        factor = ms / base
        total = covariance(parts, shares, parts, shares, hyperparameters)
        total[np.diag_indices(len(ms))] += _noise(hyperparameters, factor)
        # The density is that of log ms: a roofline that is too low must not win by its scale.
        return float(misfit(total, factor - 1) - np.log(factor).sum())

    prior = Prior(start, _DEVIATIONS, bounds=3)
    return optimise(misfit_of, prior, steps=_STEPS, calls=_STEPS * (len(start) + 2))[1]


class PartsProcess:
    """Factors of operators, given some that were measured.

    Args:
        parts: Of the n operators measured.
        ms: Their times, (n,), ms.
        hyperparameters: From `hyperparameters_of`, (20,).
    Raises:
        numpy.linalg.LinAlgError: The covariance has no factor: the numbers are damaged.
    """

    def __init__(self, parts: Parts, ms: Floats, hyperparameters: Floats) -> None:
        self.parts, self.hyperparameters = parts, hyperparameters
        base, self._shares = roofline(parts, hyperparameters)
        self._factor = ms / base
        total = covariance(parts, self._shares, parts, self._shares, hyperparameters)
        total[np.diag_indices(len(ms))] += _noise(hyperparameters, self._factor)
        self._posterior = Posterior(total, self._factor - 1)

    @classmethod
    def of(cls, parts: Parts, ms: Floats, seed: int = 0) -> PartsProcess:
        """With hyperparameters optimised on the measurements, or on 150 of them."""
        few, times = parts, ms
        if len(ms) > _SUBSET:
            rows = np.sort(np.random.default_rng(seed).permutation(len(ms))[:_SUBSET])
            few, times = Parts([parts.operators[r] for r in rows]), ms[rows]
        return cls(parts, ms, hyperparameters_of(few, times))

    def predict(self, parts: Parts) -> tuple[Floats, Floats]:
        """Time of each operator, (m,), ms, and its relative standard error, (m,)."""
        base, shares, across = self._across(parts)
        expected = 1 + self._posterior.mean(across)
        factor = np.maximum(expected, _LEAST)
        left = self._posterior.variance(variances(parts, shares, self.hyperparameters), across)
        # What was cut off is error too; rounding may leave a variance just below 0.
        return base * factor, np.hypot(np.sqrt(np.maximum(left, 0)), factor - expected) / factor

    def predict_ms(self, parts: Parts) -> Floats:
        """Time of each operator, (m,), ms."""
        base, _, across = self._across(parts)
        ms: Floats = base * np.maximum(1 + self._posterior.mean(across), _LEAST)
        return ms

    def errors(self, parts: Parts) -> Floats:
        """Covariance of the errors of `predict_ms`, (m, m), ms²."""
        base, shares, across = self._across(parts)
        prior = covariance(parts, shares, parts, shares, self.hyperparameters)
        errors: Floats = self._posterior.covariance(prior, across) * np.outer(base, base)
        return errors

    def left_out(self) -> tuple[Floats, Floats]:
        """Each measured operator predicted by the others.

        Returns:
            Prediction over measurement, (n,), and relative standard error, (n,).
        """
        error, deviation = self._posterior.leave_one_out()
        predicted = np.maximum(self._factor - error, _LEAST)
        return predicted / self._factor, deviation / predicted

    def _across(self, parts: Parts) -> tuple[Floats, Any, Floats]:
        base, shares = roofline(parts, self.hyperparameters)
        own = (self.parts, self._shares)
        return base, shares, covariance(parts, shares, *own, self.hyperparameters)
