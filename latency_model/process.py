"""A Gaussian process over the parts of operators: a curve that learns from few.

A part's time is its roofline time (multiply-adds, numbers moved and launches, each at a rate) times
a factor that changes smoothly with the part's shape; an operator is the sum of its parts. What
was measured of operators is thus a weighted sum of factors, and says something of every operator
that shares a part or holds one alike. Rates, and how smoothly factors change, follow from the
measurements by marginal likelihood under wide priors.

Everything is relative: an operator's time over its roofline time, or over its time on another
device where that is known better.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5
(Matérn 3/2); sums of parts: Duvenaud et al., Additive Gaussian Processes, NIPS 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .parts import KINDS, Parts

__all__ = [
    "NAMES", "PRIOR", "PartsProcess", "Strengths", "covariance", "roofline", "settle", "variances",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Strengths = Floats

# Natural logarithms of what the process is built from, and how far each may lie off.
# Rates in ms per multiply-add, number or launch; deviations relative; lengths in units of `Parts`.
_PRIORS = {
    "pointwise": (1 / 40e6, 1.0), "depthwise": (1 / 10e6, 1.0), "dense": (1 / 30e6, 1.0),
    "pool": (1 / 5e6, 1.0), "numbers": (1 / 4e6, 1.0), "launch": (2e-3, 1.0),
    "edges": (1 / 4e6, 1.5),
    "all": (0.5, 0.5), "kind": (0.5, 0.7), "of_pointwise": (0.4, 0.7), "of_depthwise": (0.4, 0.7),
    "of_dense": (0.4, 0.7), "of_others": (0.6, 0.7),
    "channels": (2.5, 0.5), "pixels": (3.0, 0.5), "window": (2.0, 0.7), "waste": (1.5, 0.7),
    "whole": (0.08, 0.7), "traits": (3.0, 0.5), "noise": (0.02, 0.7),
}  # fmt: skip
NAMES = tuple(_PRIORS)
PRIOR: Strengths = np.log([v for v, _ in _PRIORS.values()])
_SPREAD: Floats = np.array([s for _, s in _PRIORS.values()])
_RATES = 7
_AT = {name: i for i, name in enumerate(NAMES)}
_LENGTHS = [
    _AT[n] for n in ("channels", "channels", "pixels", "window", "window", "waste", "waste")
]
_OWN = [_AT[n] for n in ("of_pointwise", "of_depthwise", "of_dense", *["of_others"] * 5)]
_SETTLING = 150  # operators that settle the strengths, of more
_STEPS = 25
_LEAST = 0.05  # of its roofline time an operator takes at least
_JITTER = 1e-8


def roofline(parts: Parts, strengths: Strengths) -> tuple[Floats, Any]:
    """Roofline time of each operator, (n,), ms, and its parts' shares of it, sparse (n, u)."""
    rate = np.exp(strengths[:_RATES])
    # A squeeze's and a classifier's products read each weight once, which makes them slower.
    per_mac = np.array([rate[0], rate[1], rate[2], 3 * rate[0], rate[3], 0.0, 6 * rate[0], 0.0])
    per_number = np.array([rate[4]] * (len(KINDS) - 1) + [rate[6]])
    w = parts.work
    ms = per_mac[parts.kinds] * w[:, 0] + per_number[parts.kinds] * w[:, 1] + rate[5] * w[:, 2]
    total = parts.holds @ ms
    return total, parts.holds.multiply(ms).multiply(1 / total[:, None]).tocsr()


def _matern(a: Floats, b: Floats) -> Floats:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    r = np.sqrt(3 * np.maximum(squares, 0))
    found: Floats = (1 + r) * np.exp(-r)
    return found


def _inner(a: Parts, b: Parts, strengths: Strengths) -> Floats:
    """Covariance of parts' factors, (u, v)."""
    s = np.exp(strengths)
    found = np.full((len(a.kinds), len(b.kinds)), s[_AT["all"]] ** 2)
    lengths = s[_LENGTHS]
    for kind, (at, bt) in enumerate(zip(a.by_kind, b.by_kind, strict=True)):
        if len(at) and len(bt):
            alike = _matern(a.shapes[at] / lengths, b.shapes[bt] / lengths)
            found[np.ix_(at, bt)] += s[_AT["kind"]] ** 2 + s[_OWN[kind]] ** 2 * alike
    return found


def covariance(a: Parts, of_a: Any, b: Parts, of_b: Any, strengths: Strengths) -> Floats:
    """Covariance of operators' factors before any was measured, (n, m).

    Args:
        a, b: The operators' parts.
        of_a, of_b: Shares of parts in each operator, from `roofline`.
        strengths: (20,), logarithms in the order of `NAMES`.
    """
    length, whole = np.exp(strengths[_AT["traits"]]), np.exp(2 * strengths[_AT["whole"]])
    found: Floats = (of_b @ (of_a @ _inner(a, b, strengths)).T).T
    found += whole * _matern(a.traits / length, b.traits / length)
    return found


def variances(parts: Parts, shares: Any, strengths: Strengths) -> Floats:
    """The diagonal of `covariance` of operators with themselves, (n,)."""
    inner = shares @ _inner(parts, parts, strengths)
    own = np.asarray(shares.multiply(inner).sum(axis=1)).ravel()
    found: Floats = own + np.exp(2 * strengths[_AT["whole"]])
    return found


def _noise(strengths: Strengths, factor: Floats) -> Floats:
    found: Floats = np.exp(2 * strengths[_AT["noise"]]) * factor**2 + _JITTER
    return found


def settle(parts: Parts, ms: Floats) -> Strengths:
    """Strengths that make some operators' times, (n,) ms, most likely, (20,)."""
    from scipy import linalg, optimize

    start = PRIOR.copy()
    start[:_RATES] += np.median(np.log(ms / roofline(parts, start)[0]))

    def loss(strengths: Strengths) -> float:
        base, shares = roofline(parts, strengths)
        factor = ms / base
        total = covariance(parts, shares, parts, shares, strengths)
        total[np.diag_indices(len(ms))] += _noise(strengths, factor)
        try:
            lower = linalg.cholesky(total, lower=True)
        except linalg.LinAlgError:
            return 1e10
        off = linalg.solve_triangular(lower, factor - 1, lower=True)
        far = (strengths - start) / _SPREAD
        # The density is that of log ms: a roofline that is too low must not win by its scale.
        return float(
            off @ off / 2 + np.log(np.diag(lower)).sum() - np.log(factor).sum() + far @ far / 2
        )

    bounds = list(zip(start - 3 * _SPREAD, start + 3 * _SPREAD, strict=True))
    found = optimize.minimize(
        loss, start, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": _STEPS, "maxfun": _STEPS * (len(start) + 2)},
    )  # fmt: skip
    return np.asarray(found.x, np.float64)


class PartsProcess:
    """Factors of operators, given some that were measured.

    Args:
        parts: Of the operators measured, n.
        ms: Their times, (n,), ms.
        strengths: From `settle`.
    """

    def __init__(self, parts: Parts, ms: Floats, strengths: Strengths) -> None:
        from scipy import linalg

        self.parts, self.strengths = parts, strengths
        base, self._shares = roofline(parts, strengths)
        factor = ms / base
        total = covariance(parts, self._shares, parts, self._shares, strengths)
        total[np.diag_indices(len(ms))] += _noise(strengths, factor)
        self._lower: Floats = linalg.cholesky(total, lower=True)
        self._weights: Floats = linalg.cho_solve((self._lower, True), factor - 1)

    @classmethod
    def of(cls, parts: Parts, ms: Floats, seed: int = 0) -> PartsProcess:
        """With strengths settled on the measurements, or on 150 of them."""
        few, times = parts, ms
        if len(ms) > _SETTLING:
            rows = np.sort(np.random.default_rng(seed).permutation(len(ms))[:_SETTLING])
            few, times = Parts([parts.operators[r] for r in rows]), ms[rows]
        return cls(parts, ms, settle(few, times))

    def predict(self, asked: Parts) -> tuple[Floats, Floats]:
        """Time of each operator, (m,), ms, and its relative standard error, (m,)."""
        base, shares, across = self._across(asked)
        factor = np.maximum(1 + across @ self._weights, _LEAST)
        left = variances(asked, shares, self.strengths)
        known = self._known(across)
        doubt = np.sqrt(np.maximum(left - np.sum(known**2, axis=0), 0)) / factor
        return base * factor, doubt

    def predict_ms(self, asked: Parts) -> Floats:
        """Time of each operator, (m,), ms."""
        base, _, across = self._across(asked)
        found: Floats = base * np.maximum(1 + across @ self._weights, _LEAST)
        return found

    def errors(self, asked: Parts) -> Floats:
        """Covariance of the errors of `predict_ms`, (m, m), ms²."""
        base, shares, across = self._across(asked)
        known = self._known(across)
        left = covariance(asked, shares, asked, shares, self.strengths) - known.T @ known
        found: Floats = left * np.outer(base, base)
        return found

    def left_out(self) -> tuple[Floats, Floats]:
        """Each measured operator as the others predict it: ratio to its time, and doubt, (n,)."""
        from scipy import linalg

        inverse = linalg.cho_solve((self._lower, True), np.eye(len(self._weights)))
        own = np.diag(inverse)
        factor = 1 + self._lower @ (self._lower.T @ self._weights)
        told = np.maximum(factor - self._weights / own, _LEAST)
        return told / factor, np.sqrt(1 / own) / told

    def _across(self, asked: Parts) -> tuple[Floats, Any, Floats]:
        base, shares = roofline(asked, self.strengths)
        return base, shares, covariance(asked, shares, self.parts, self._shares, self.strengths)

    def _known(self, across: Floats) -> Floats:
        from scipy import linalg

        found: Floats = linalg.solve_triangular(self._lower, across.T, lower=True)
        return found
