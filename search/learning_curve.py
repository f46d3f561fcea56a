"""What top-1 networks will have after further epochs, with an honest error.

A step of a learning curve is predicted by its start: the gain from one rung to the next is
quadratic in the top-1 so far and linear in the logarithm of the latency, since larger networks gain
for longer. Each step is fitted on all networks that took it. Without further objectives and limits
who takes it is chosen by these two numbers alone, so the choice does not distort the fit; a curve
from the first rung to the last in one step would be fitted on those that turned out well. Below all
that took a step, and beyond the target, it is extrapolated. Steps are then joined, and their errors
with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["expected_top1"]

Floats = npt.NDArray[np.float64]
_NOISE = 0.02  # standard deviation of a gain before any is seen, counted as two networks
# Of the mean gain, of its slope in top-1 and in log latency, and of its bend in top-1: so those far
# from all that went on have a wide error.
_DOUBT = (0.3, 0.5, 0.05, 3.0)
_SEEN = 1.0  # half the networks that _NOISE counts as


def expected_top1(top1: Floats, latency_ms: Floats) -> tuple[Floats, Floats]:
    """Top-1 at the last rung of all networks, where it is not known from those that got there.

    Args:
        top1: At each rung, (n, rungs), in [0, 1]; NaN where a network did not get.
        latency_ms: (n,), > 0.
    Returns:
        Expected top-1 at the last rung, in [0, 1], and its standard error, (n,) each; 0 where it
        is known, NaN for a network without any.
    Source: Bayesian linear regression with a normal-inverse-gamma prior: Gelman et al., Bayesian
        Data Analysis, 3rd edition, 2013, section 14.8.
    """
    n, rungs = top1.shape
    open_ = np.isnan(top1[:, -1])
    mean, error = np.full(n, np.nan), np.full(n, np.nan)
    size = np.log(latency_ms)
    for rung in range(rungs - 1):
        start, end = top1[:, rung], top1[:, rung + 1]
        # Who is here now: at this rung, and brought here from the rungs before.
        here = ~np.isnan(start)
        mean[here], error[here] = start[here], 0.0
        going = ~np.isnan(mean)
        gain, slope, spread = _step(start, end, size, mean[going], size[going])
        mean[going] = mean[going] + gain
        error[going] = np.sqrt(((1 + slope) * error[going]) ** 2 + spread)
    expected = np.clip(np.where(open_, mean, top1[:, -1]), 0.0, 1.0)
    return expected, np.where(open_, error, 0.0)


def _step(
    start: Floats, end: Floats, size: Floats, of: Floats, of_size: Floats
) -> tuple[Floats, Floats, Floats]:
    """Gains of networks over one step, ≥ 0, their slope in top-1, ≥ -1, and their variance, (m,).

    Who did not go on lies mostly below those who did. So no gain is expected that is larger than
    all that were seen, and nobody to overtake those who are ahead with the same latency. The
    variance is multiplied by how much larger the errors of the lowest third of these are than a fit
    on the others expects.

    Args:
        start, end, size: Of all networks, (n,); NaN where they are not known.
        of, of_size: Top-1 before the step and log latency of those whose gain is asked for, (m,).
    """
    here, took = ~np.isnan(start), np.flatnonzero(~np.isnan(start) & ~np.isnan(end))
    centre = (start[here].mean(), size[here].mean()) if here.any() else (0.0, 0.0)

    def columns(a: Floats, b: Floats) -> Floats:
        off = a - centre[0]
        return np.column_stack([np.ones(len(a)), off, b - centre[1], off**2])

    took = took[np.argsort(start[took], kind="stable")]
    x, gains = columns(start[took], size[took]), end[took] - start[took]
    low = len(took) // 3
    expected, _, variance = _predicted(x[low:], gains[low:], x[:low])
    off = (gains[:low] - expected) ** 2 / variance
    larger = max(1.0, (2 * _SEEN + float(off.sum())) / (2 * _SEEN + low))
    gained, slope, variance = _predicted(x, gains, columns(of, of_size))
    return gained, slope, variance * larger


def _predicted(x: Floats, y: Floats, asked: Floats) -> tuple[Floats, Floats, Floats]:
    """Gains, their slope in top-1 and their variance, (m,) each, of columns asked for, (m, k)."""
    weights, variance = _fitted(x, y, asked)
    _, slope, _, bend = weights
    off = asked[:, 1]
    # Beyond the turn of the parabola who is ahead would end behind: there all end level.
    turn = np.inf if not bend else -(1 + slope) / (2 * bend)
    level = np.maximum(off, turn) if bend > 0 else np.minimum(off, turn)
    at = np.column_stack([asked[:, :1], level, asked[:, 2:3], level**2])
    gained = at @ weights + level - off
    limited = np.clip(gained, 0.0, max(y.max(initial=0.0), 0.0))
    slopes = np.where(level == off, slope + 2 * bend * off, -1.0)
    return limited, np.where(limited == gained, slopes, 0.0), variance


def _fitted(x: Floats, y: Floats, asked: Floats) -> tuple[Floats, Floats]:
    """Weights of columns, (k,), and the variance of new observations, (m,).

    Args:
        x, y: Columns, (n, k), and what was observed, (n,).
        asked: Columns of the new ones, (m, k).
    """
    precision = x.T @ x + np.diag([(_NOISE / d) ** 2 for d in _DOUBT])
    weights: Floats = np.linalg.solve(precision, x.T @ y).astype(np.float64)
    rest = float(y @ y - weights @ precision @ weights)
    shape = _SEEN + len(y) / 2
    noise = (_SEEN * _NOISE**2 + max(rest, 0.0) / 2) / shape
    far = np.einsum("ij,ij->i", asked, np.linalg.solve(precision, asked.T).T)
    # Student's t of 2 `shape` degrees of freedom; its variance is infinite up to 2.
    variance: Floats = noise * (1 + far) * shape / max(shape - 1, 0.5)
    return weights, variance
