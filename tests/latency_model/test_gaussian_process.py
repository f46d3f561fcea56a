"""The algebra that all Gaussian processes share, against textbook formulas without a Cholesky."""

from __future__ import annotations

import numpy as np
import pytest

from phonenas.latency_model.gaussian_process import (
    Posterior,
    Prior,
    misfit,
    misfit_and_slopes,
    optimise,
    squared_distances,
)

RNG = np.random.default_rng(0)
X, NEW = RNG.normal(size=(30, 2)), RNG.normal(size=(7, 2))
Y = np.sin(X[:, 0]) + X[:, 1] / 2


def kernel(a: np.ndarray, b: np.ndarray, log_length: float = 0.0) -> np.ndarray:
    squares = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return np.exp(-squares / (2 * np.exp(2 * log_length)))


def noisy(log_length: float = 0.0) -> np.ndarray:
    return kernel(X, X, log_length) + 0.01 * np.eye(30)


def test_distances_are_those_of_each_pair() -> None:
    pairs = ((X[:, None] - NEW[None]) ** 2).sum(axis=2)
    assert np.allclose(squared_distances(X, NEW), pairs)
    assert (squared_distances(X, X) >= 0).all()


def test_posterior_is_the_conditional_normal() -> None:
    posterior, across, inverse = Posterior(noisy(), Y), kernel(NEW, X), np.linalg.inv(noisy())
    assert np.allclose(posterior.mean(across), across @ inverse @ Y)
    covariance = kernel(NEW, NEW) - across @ inverse @ across.T
    assert np.allclose(posterior.covariance(kernel(NEW, NEW), across), covariance)
    assert np.allclose(posterior.variance(1.0, across), np.diag(covariance))


def test_leave_one_out_is_a_fit_on_all_others() -> None:
    errors, deviations = Posterior(noisy(), Y).leave_one_out()
    for i in (0, 11, 29):
        others = np.delete(np.arange(30), i)
        rest = Posterior(noisy()[np.ix_(others, others)], Y[others])
        across = kernel(X[[i]], X[others])
        assert errors[i] == pytest.approx(Y[i] - rest.mean(across)[0])
        assert deviations[i] ** 2 == pytest.approx(rest.variance(1.0, across)[0] + 0.01)


def test_misfit_is_the_negative_log_likelihood_and_its_slope() -> None:
    sign, log_determinant = np.linalg.slogdet(noisy())
    expected = Y @ np.linalg.inv(noisy()) @ Y / 2 + log_determinant / 2
    assert sign == 1 and misfit(noisy(), Y) == pytest.approx(expected)
    value, slopes = misfit_and_slopes(noisy(), Y)
    assert value == pytest.approx(expected)
    step = 1e-6
    change = (kernel(X, X, step) - kernel(X, X, -step)) / (2 * step)
    numeric = (misfit(noisy(step), Y) - misfit(noisy(-step), Y)) / (2 * step)
    assert np.sum(slopes * change) / 2 == pytest.approx(numeric, rel=1e-4)


def test_hyperparameters_are_the_most_likely_within_their_bounds() -> None:
    prior = Prior(np.zeros(1), deviation=1.0, bounds=2)
    least, best = optimise(lambda p: misfit(noisy(p[0]), Y), prior, steps=50)
    grid = np.linspace(-2, 2, 401)
    losses = [misfit(noisy(p), Y) + p**2 / 2 for p in grid]
    assert best[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.02)
    assert least == pytest.approx(min(losses), abs=1e-3)
    # The data pull to a longer length than these bounds admit: -1.5 + 0.03 * 10.
    near = Prior(np.array([-1.5]), deviation=10.0, bounds=0.03)
    assert optimise(lambda p: misfit(noisy(p[0]), Y), near, steps=50)[1][0] == pytest.approx(-1.2)


def test_a_covariance_without_a_factor_is_no_candidate() -> None:
    prior = Prior(np.zeros(1), deviation=1.0, bounds=3)

    def of(p: np.ndarray) -> float:
        return misfit(noisy(p[0]) - (p[0] > 0.5) * 2 * np.eye(30), Y)

    assert optimise(of, prior, steps=20)[1][0] <= 0.5
    with pytest.raises(np.linalg.LinAlgError):
        Posterior(-np.eye(3), np.ones(3))
