"""What a kernel costs by what it does, and by what factor measurements stand off that.

The *baseline* of a family of kernels is a launch, multiply-adds, numbers moved and weights, each
at a cost that is never negative: it holds beyond what was measured. The factor is learned twice
over the same features, smooth by a Gaussian process and in steps by boosted trees, and the mean
of both is taken.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 4, 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..space.errors import UnsupportedFormat
from .kernel_features import FEATURES, WORK, View

if TYPE_CHECKING:
    import lightgbm

__all__ = ["COUNT", "Process", "per_output", "settle"]

Floats = npt.NDArray[np.float64]

_SETTLING = 320  # kernels that settle the strengths; the cost grows with their cube
_STEPS = 40
_JITTER = 1e-6
_OWN = 5.0  # ridge of a family's costs: what its kernels do not tell apart stays with the work
_ROUNDS = 250
_BOOSTER: dict[str, Any] = {
    "objective": "regression", "learning_rate": 0.08, "num_leaves": 8, "min_data_in_leaf": 4,
    "lambda_l2": 0.5, "feature_fraction": 0.6, "bagging_fraction": 0.9, "bagging_freq": 1,
    "seed": 0, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
}  # fmt: skip
# Strengths, as logarithms: variance, noise, then one length a feature.
COUNT = 2 + len(FEATURES)
_START = np.log([0.1, 1e-3, *[4.0] * len(FEATURES)])
_WIDTH = 1.0  # standard deviation of each strength's logarithm about its start


class _Baseline:
    """Costs of each family, never negative, drawn towards those of all families together."""

    def __init__(self, view: View, ms: Floats) -> None:
        columns = view.work / ms[:, None]
        common = _nonnegative(columns, np.zeros(len(WORK)), 1e-6)
        self._common, self._own = common, {}
        for code in np.unique(view.family):
            own = columns[view.family == code]
            prior = np.zeros(len(WORK))
            prior[:2] = _nonnegative(own[:, :2], common[:2], 1e-3)
            self._own[int(code)] = _nonnegative(own, prior, _OWN)

    def log_ms(self, view: View) -> Floats:
        costs = np.array([self._own.get(int(code), self._common) for code in view.family])
        found: Floats = np.log(np.maximum(np.sum(view.work * costs, axis=1), 1e-9))
        return found


def _nonnegative(columns: Floats, prior: Floats, ridge: float) -> Floats:
    """Costs by relative least squares with a ridge towards a prior, each at its own scale."""
    from scipy.optimize import nnls

    scale = np.sqrt(np.mean(columns**2, axis=0)) + 1e-12
    pull = np.diag(np.full(len(scale), np.sqrt(ridge)))
    stacked = np.concatenate([columns / scale, pull])
    target = np.concatenate([np.ones(len(columns)), pull @ (prior * scale)])
    found: Floats = nnls(stacked, target)[0] / scale
    return found


def per_output(view: View, ms: Floats) -> float:
    """Time a million outputs of one family's kernels, ms, beyond the launch."""
    columns = view.work[:, [0, WORK.index("writes")]] / ms[:, None]
    return float(_nonnegative(columns, np.zeros(2), 1e-6)[1])


def _covariance(a: View, b: View, p: Floats) -> Floats:
    """Covariance of the factors' logarithms, (n, m); what two families stand off by is unrelated."""
    lengths = np.exp(p[2:])
    x, y = a.rows / lengths, b.rows / lengths
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    found: Floats = np.exp(p[0] - np.maximum(squares, 0) / 2)
    found[a.family[:, None] != b.family] = 0.0
    return found


def _noise(p: Floats, repeats: Floats) -> Floats:
    # What repeats agree on is still one shape: beyond four they teach nothing new.
    found: Floats = np.exp(p[1]) / np.minimum(repeats, 4)
    return found


def _loss(p: Floats, view: View, t: Floats, repeats: Floats) -> tuple[float, Floats]:
    """Negative logarithm of the posterior of strengths, up to a constant, and its slopes."""
    from scipy import linalg

    total = _covariance(view, view, p)
    smooth, noise = total.copy(), _noise(p, repeats)
    total[np.diag_indices(len(t))] += noise + _JITTER
    try:
        lower = linalg.cholesky(total, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return 1e10, np.zeros_like(p)
    weights = linalg.cho_solve((lower, True), t, check_finite=False)
    inverse = np.tril(linalg.lapack.dpotri(lower, lower=1)[0])
    inverse = inverse + np.tril(inverse, -1).T - np.outer(weights, weights)
    pull = inverse * smooth
    slopes = np.empty_like(p)
    slopes[0] = pull.sum() / 2
    slopes[1] = np.diag(inverse) @ noise / 2
    around = pull.sum(axis=1)
    for i, length in enumerate(np.exp(p[2:])):
        x = view.rows[:, i] / length
        slopes[2 + i] = x**2 @ around - x @ pull @ x
    value = t @ weights / 2 + float(np.log(np.diag(lower)).sum())
    off = (p - _START) / _WIDTH
    return float(value + off @ off / 2), slopes + off / _WIDTH


def settle(view: View, ms: Floats, repeats: Floats) -> Floats:
    """Strengths that explain some of the kernels best."""
    from scipy import optimize

    some = np.sort(np.random.default_rng(0).permutation(len(ms))[:_SETTLING])
    t = np.log(ms) - _Baseline(view, ms).log_ms(view)
    bounds = [(s - 6, s + 6) for s in _START]
    arguments = (view[some], t[some], repeats[some])
    found = optimize.minimize(
        _loss, _START, arguments, "L-BFGS-B", True, bounds=bounds, options={"maxiter": _STEPS}
    )
    strengths: Floats = found.x
    return strengths


class Process:
    """Baseline, process and trees, ready to predict."""

    def __init__(
        self, view: View, ms: Floats, repeats: Floats, strengths: Floats, trees: str | None = None
    ) -> None:
        from scipy import linalg

        self._view, self._strengths = view, strengths
        self._baseline = _Baseline(view, ms)
        total = _covariance(view, view, strengths)
        total[np.diag_indices(len(ms))] += _noise(strengths, repeats) + _JITTER
        self._lower = linalg.cholesky(total, lower=True, check_finite=False)
        t = np.log(ms) - self._baseline.log_ms(view)
        self._weights = linalg.cho_solve((self._lower, True), t, check_finite=False)
        self._booster = _grown(view, t) if trees is None else _planted(trees)

    @property
    def trees(self) -> str:
        """The boosted trees as text."""
        return str(self._booster.model_to_string())

    def predict(self, view: View) -> tuple[Floats, Floats]:
        """Logarithm of ms, and its standard deviation, each (n,)."""
        from scipy import linalg

        across = _covariance(view, self._view, self._strengths)
        known = linalg.solve_triangular(self._lower, across.T, lower=True, check_finite=False)
        left = np.exp(self._strengths[0]) - np.sum(known**2, axis=0)
        smooth = across @ self._weights
        stepped = np.asarray(self._booster.predict(_columns(view), num_threads=1))
        # Smooth and stepped err differently, so their mean errs less than either; where they
        # disagree, neither is sure.
        deviation = np.sqrt(
            np.maximum(left, 0.0) + np.exp(self._strengths[1]) + (smooth - stepped) ** 2 / 4
        )
        return self._baseline.log_ms(view) + (smooth + stepped) / 2, deviation


def _columns(view: View) -> Floats:
    return np.column_stack([view.family, view.rows])


def _grown(view: View, t: Floats) -> lightgbm.Booster:
    import lightgbm

    about = {"verbosity": -1, "num_threads": 1}
    data = lightgbm.Dataset(_columns(view), t, categorical_feature=[0], params=about)
    return lightgbm.train(_BOOSTER, data, num_boost_round=_ROUNDS)


def _planted(text: str) -> lightgbm.Booster:
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise UnsupportedFormat(f"the kernel model's trees are damaged: {error}") from error
