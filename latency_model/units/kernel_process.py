"""What a kernel costs by its work, and the factor between that baseline and measurements.

The *baseline* of a family of kernels is a launch, multiply-adds, numbers moved and weights, each
at a cost that is never negative, so it extrapolates. The factor is fitted twice over the same
features, smooth by a Gaussian process and in steps by boosted trees, and their mean is taken.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 4, 5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gaussian_process import Posterior, Prior, misfit_and_slopes, optimise, squared_distances
from ..trees import grown, loaded
from .kernel_features import FEATURES, WORK, View

__all__ = ["COUNT", "Process", "hyperparameters_of", "per_output"]

Floats = npt.NDArray[np.float64]

_SUBSET = 320  # kernels on which hyperparameters are optimised; the cost is cubic
_STEPS = 40
_JITTER = 1e-6
_FASTER = 0.5  # than the fastest kernel measured none is by more
_OWN = 5.0  # ridge of a family's costs towards their prior
_ROUNDS = 250
_TREES = {
    "seed": 0,
    "learning_rate": 0.08,
    "num_leaves": 8,
    "min_data_in_leaf": 4,
    "lambda_l2": 0.5,
    "feature_fraction": 0.6,
}
# Hyperparameters, as logarithms: variance, noise, then one length a feature.
COUNT = 2 + len(FEATURES)
_PRIOR = Prior(np.log([0.1, 1e-3, *[4.0] * len(FEATURES)]), deviation=1.0, bounds=6)


class _Baseline:
    """Costs of each family, never negative, with a ridge towards those of all families."""

    def __init__(self, view: View, ms: Floats) -> None:
        columns = view.work / ms[:, None]
        common = _nonnegative(columns, np.zeros(len(WORK)), 1e-6)
        self._common, self._own = common, {}
        self._least_ms = _FASTER * float(ms.min())
        for code in np.unique(view.family):
            own = columns[view.family == code]
            prior = np.zeros(len(WORK))
            prior[:2] = _nonnegative(own[:, :2], common[:2], 1e-3, launch_ms=common[0])
            self._own[int(code)] = _nonnegative(own, prior, _OWN, launch_ms=common[0])

    def log_ms(self, view: View) -> Floats:
        costs = np.array([self._own.get(int(code), self._common) for code in view.family])
        logs: Floats = np.log(np.maximum(np.sum(view.work * costs, axis=1), self._least_ms))
        return logs


def _nonnegative(columns: Floats, prior: Floats, ridge: float, launch_ms: float = 0.0) -> Floats:
    """Costs by relative least squares with a ridge towards a prior, each at its own scale.

    With `launch_ms`, the launch is drawn as if some kernels took nothing else: a family of which
    only large kernels were measured does not show what its small ones cost.
    """
    from scipy.optimize import nnls

    scale = np.sqrt(np.mean(columns**2, axis=0)) + 1e-12
    pull = np.diag(np.full(len(scale), np.sqrt(ridge)))
    if launch_ms > 0:
        prior = np.array([launch_ms, *prior[1:]])
        pull[0, 0] = np.sqrt(_OWN) * max(1.0, 1 / (launch_ms * scale[0]))
    stacked = np.concatenate([columns / scale, pull])
    target = np.concatenate([np.ones(len(columns)), pull @ (prior * scale)])
    costs: Floats = nnls(stacked, target)[0] / scale
    return costs


def per_output(view: View, ms: Floats) -> float:
    """Time a million outputs of one family's kernels, ms, beyond the launch."""
    columns = view.work[:, [0, WORK.index("writes")]] / ms[:, None]
    return float(_nonnegative(columns, np.zeros(2), 1e-6)[1])


def _covariance(a: View, b: View, p: Floats) -> Floats:
    """Covariance of the factors' logarithms, (n, m); factors of two families are independent."""
    lengths = np.exp(p[2:])
    total: Floats = np.exp(p[0] - squared_distances(a.rows / lengths, b.rows / lengths) / 2)
    total[a.family[:, None] != b.family] = 0.0
    return total


def _noise(p: Floats, repeats: Floats) -> Floats:
    # Repeats share the error of their one shape: beyond four they add nothing.
    variance: Floats = np.exp(p[1]) / np.minimum(repeats, 4)
    return variance


def _with_noise(total: Floats, p: Floats, repeats: Floats) -> Floats:
    total[np.diag_indices(len(total))] += _noise(p, repeats) + _JITTER
    return total


def hyperparameters_of(view: View, ms: Floats, repeats: Floats) -> Floats:
    """The most likely hyperparameters, (COUNT,), for some of the kernels.

    Args:
        view: n kernels.
        ms, repeats: Time of each, ms, and how often it was measured, (n,).
    """
    some = np.sort(np.random.default_rng(0).permutation(len(ms))[:_SUBSET])
    t = (np.log(ms) - _Baseline(view, ms).log_ms(view))[some]
    view, repeats = view[some], repeats[some]

    def misfit_of(p: Floats) -> tuple[float, Floats]:
        smooth = _covariance(view, view, p)
        value, pull = misfit_and_slopes(_with_noise(smooth.copy(), p, repeats), t)
        slopes = np.empty_like(p)
        slopes[1] = np.diag(pull) @ _noise(p, repeats) / 2
        pull *= smooth
        slopes[0] = pull.sum() / 2
        around = pull.sum(axis=1)
        for i, length in enumerate(np.exp(p[2:])):
            x = view.rows[:, i] / length
            slopes[2 + i] = x**2 @ around - x @ pull @ x
        return value, slopes

    return optimise(misfit_of, _PRIOR, steps=_STEPS, slopes=True)[1]


class Process:
    """Baseline, process and trees, ready to predict.

    Args:
        view: n kernels measured.
        ms, repeats: Time of each, ms, and how often it was measured, (n,).
        hyperparameters: From `hyperparameters_of`, (COUNT,).
        trees: The boosted trees as text; by default they are grown.
    Raises:
        UnsupportedFormat: The text of the trees is damaged.
    """

    def __init__(
        self,
        view: View,
        ms: Floats,
        repeats: Floats,
        hyperparameters: Floats,
        trees: str | None = None,
    ) -> None:
        self._view, self._hyperparameters = view, hyperparameters
        self._baseline = _Baseline(view, ms)
        t = np.log(ms) - self._baseline.log_ms(view)
        total = _covariance(view, view, hyperparameters)
        self._posterior = Posterior(_with_noise(total, hyperparameters, repeats), t)
        self._booster = (
            grown(_columns(view), t, _ROUNDS, _TREES, categorical_feature=[0])
            if trees is None
            else loaded(trees, "the kernel model's trees")
        )

    @property
    def trees(self) -> str:
        """The boosted trees as text."""
        return str(self._booster.model_to_string())

    def predict(self, view: View) -> tuple[Floats, Floats]:
        """Logarithm of ms, and its standard deviation, each (n,)."""
        p = self._hyperparameters
        across = _covariance(view, self._view, p)
        left = self._posterior.variance(np.exp(p[0]), across)
        smooth = self._posterior.mean(across)
        stepped = np.asarray(self._booster.predict(_columns(view), num_threads=1))
        # Smooth and stepped err differently, so their mean errs less than either; where they
        # disagree, the prediction is less certain.
        deviation = np.sqrt(np.maximum(left, 0.0) + np.exp(p[1]) + (smooth - stepped) ** 2 / 4)
        return self._baseline.log_ms(view) + (smooth + stepped) / 2, deviation


def _columns(view: View) -> Floats:
    return np.column_stack([view.family, view.rows])
