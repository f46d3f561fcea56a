"""Gaussian processes: what is common to all that this package fits.

Each user gives a covariance and takes its mean off the targets; here are the factorisation, the
posterior, leave-one-out errors, the likelihood and its gradient, and the search for
hyperparameters.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, algorithm 2.1
(posterior and likelihood), equation 5.9 (gradient), equation 5.12 (leave-one-out).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "Posterior",
    "Prior",
    "misfit",
    "misfit_and_slopes",
    "one_thread",
    "optimise",
    "squared_distances",
]

Floats = npt.NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")

_IMPOSSIBLE = 1e10  # misfit of hyperparameters whose covariance has no Cholesky factor


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with one thread in all numerical libraries.

    Small matrices gain nothing from more. With several threads the order of additions, and so the
    last digits of a fitted model, depends on the computer; and on a busy one the threads wait for
    each other, four times as long in all.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        import scipy.linalg  # noqa: F401 - only libraries that are loaded by now are limited

        with _libraries(len(sys.modules)).limit(limits=1):
            return function(*args, **kwargs)

    return limited


@lru_cache(maxsize=1)
def _libraries(modules: int) -> Any:
    """The numerical libraries that are loaded, looked for again after imports alone."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Squared Euclidean distance of each row of a (n, d) to each of b (m, d): (n, m), ≥ 0."""
    squares: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0, out=squares)


class Posterior:
    """A Gaussian process, given some noisy observations.

    Args:
        covariance: Of the observations, noise included, (n, n).
        targets: What was observed, less the prior mean, (n,).
    Raises:
        numpy.linalg.LinAlgError: The covariance is not positive definite.
    """

    def __init__(self, covariance: Floats, targets: Floats) -> None:
        from scipy import linalg

        self.lower: Floats = linalg.cholesky(covariance, lower=True, check_finite=False)
        self.weights: Floats = linalg.cho_solve((self.lower, True), targets, check_finite=False)

    def mean(self, across: Floats) -> Floats:
        """Expected deviation from the prior mean, (m,); `across` is as in `variance`."""
        expected: Floats = across @ self.weights
        return expected

    def variance(self, prior: Floats | float, across: Floats) -> Floats:
        """Variance of each predicted point, (m,), noise not included.

        Args:
            prior: Variance of each point before anything was observed, (m,) or one for all.
            across: Covariance of the points with the observations, (m, n).
        """
        left: Floats = prior - np.sum(self._whitened(across) ** 2, axis=0)
        return left

    def covariance(self, prior: Floats, across: Floats) -> Floats:
        """Covariance of predicted points, (m, m), from their prior one, (m, m), and `across`."""
        known = self._whitened(across)
        left: Floats = prior - known.T @ known
        return left

    def leave_one_out(self) -> tuple[Floats, Floats]:
        """Observation less its prediction by all others, and that prediction's deviation, (n,)."""
        from scipy import linalg

        own = np.diag(linalg.cho_solve((self.lower, True), np.eye(len(self.weights))))
        return self.weights / own, np.sqrt(1 / own)

    def _whitened(self, across: Floats) -> Floats:
        from scipy import linalg

        known: Floats = linalg.solve_triangular(
            self.lower, across.T, lower=True, check_finite=False
        )
        return known


def misfit(covariance: Floats, targets: Floats) -> float:
    """Negative logarithm of the marginal likelihood, up to a constant; arguments as `Posterior`."""
    from scipy import linalg

    lower = linalg.cholesky(covariance, lower=True, check_finite=False)
    white = linalg.solve_triangular(lower, targets, lower=True, check_finite=False)
    return float(white @ white / 2 + np.log(np.diag(lower)).sum())


def misfit_and_slopes(covariance: Floats, targets: Floats) -> tuple[float, Floats]:
    """`misfit`, and the matrix S that gives its slopes, (n, n).

    The slope in a hyperparameter θ is half the sum of S · ∂covariance/∂θ, element by element.
    """
    from scipy import linalg

    posterior = Posterior(covariance, targets)
    inverse = np.tril(linalg.lapack.dpotri(posterior.lower, lower=1)[0])
    inverse = inverse + np.tril(inverse, -1).T
    value = targets @ posterior.weights / 2 + float(np.log(np.diag(posterior.lower)).sum())
    return float(value), inverse - np.outer(posterior.weights, posterior.weights)


@dataclass(frozen=True)
class Prior:
    """Normal priors of hyperparameters, which are logarithms.

    Args:
        mean: Of each, (k,).
        deviation: Standard deviation of each, (k,), or one for all.
        bounds: How many deviations the search may leave the mean.
    """

    mean: Floats
    deviation: Floats | float
    bounds: float


def optimise(
    misfit_of: Callable[[Floats], Any],
    prior: Prior,
    *,
    steps: int,
    slopes: bool = False,
    calls: int = 15_000,
    start: Floats | None = None,
) -> tuple[float, Floats]:
    """The most likely hyperparameters by L-BFGS-B: least misfit, prior included, and (k,).

    Args:
        misfit_of: Hyperparameters, (k,) → misfit; with `slopes` → misfit and its slopes, (k,). It
            may raise LinAlgError where the covariance has no factor.
        prior: Of the hyperparameters.
        steps, calls: Bounds on iterations and on evaluations of the misfit.
        slopes: Whether `misfit_of` gives slopes; else they are differences.
        start: Where the search begins, (k,); by default at the prior's mean.
    """
    from scipy import optimize

    def loss(p: Floats) -> Any:
        off = (p - prior.mean) / prior.deviation
        try:
            value = misfit_of(p)
        except np.linalg.LinAlgError:
            return (_IMPOSSIBLE, np.zeros_like(p)) if slopes else _IMPOSSIBLE
        if slopes:
            return float(value[0] + off @ off / 2), value[1] + off / prior.deviation
        return float(value + off @ off / 2)

    reach = np.broadcast_to(prior.bounds * np.asarray(prior.deviation), prior.mean.shape)
    done = optimize.minimize(
        loss,
        prior.mean if start is None else start,
        method="L-BFGS-B",
        jac=slopes,
        bounds=list(zip(prior.mean - reach, prior.mean + reach, strict=True)),
        options={"maxiter": steps, "maxfun": calls},
    )
    return float(done.fun), np.asarray(done.x, np.float64)
