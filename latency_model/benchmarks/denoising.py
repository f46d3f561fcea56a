"""Profiles of several devices over all networks of a space, from the networks that each measured.

Each device's log latency becomes a smooth profile over all networks, in two steps:

- *alone*: a sum over genes, a ridge on one-hot genes whose strength is chosen by generalised
  cross-validation, with outliers clipped;
- *together*: each device again, as a ridge on the principal components of the others' profiles,
  plus a sum over genes of the residual. A device with a coarse clock or large scatter thus uses
  what it has in common with the steady ones.

Source: Golub, Heath and Wahba, Generalized Cross-Validation as a Method for Choosing a Good Ridge
Parameter, Technometrics 1979; Huber, Robust Statistics, 1981, pseudo-values (clipped outliers).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["denoise_together"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

_RIDGES = 10.0 ** np.arange(-1, 5.1, 0.5)
_OUTLIER = 1.5  # robust standard deviations at which a residual is clipped
_ROUNDS = 3  # of clipping outliers, alone
_PASSES = 2  # over all devices, together
_SMALL = 1e-3  # share of the others' variance below which a component is left out


class _Ridge:
    """A ridge on some rows of a matrix, for many right-hand sides; strength by cross-validation.

    Args:
        features: Of every network, (n, features).
        known: Rows that were measured, (k,).
    """

    def __init__(self, features: Floats, known: Rows) -> None:
        here = features[known]
        middle = here.mean(axis=0)
        left, sizes, right = np.linalg.svd(here - middle, full_matrices=False)
        keep = sizes > 1e-8 * max(float(sizes[0]), 1e-300)
        self._left, self._sizes = left[:, keep], sizes[keep]
        self._features, self._middle, self._right = features, middle, right[keep]
        squares = self._sizes**2
        self._shrunk = squares / (squares + _RIDGES[:, None])

    def __call__(self, y: Floats, spent: float = 0.0) -> tuple[Floats, float]:
        """Fit of every network, (n,), to the known rows' y, (k,), and its degrees of freedom.

        `spent` degrees of freedom went into y before.
        """
        mean = float(y.mean())
        turned = self._left.T @ (y - mean)
        outside = float(np.sum((y - mean) ** 2) - np.sum(turned**2))
        lost = outside + np.sum(((1 - self._shrunk) * turned) ** 2, axis=1)
        freedom = self._shrunk.sum(axis=1) + 1
        best = int(np.argmin(lost / np.maximum(1 - (freedom + spent) / len(y), 1e-3) ** 2))
        slopes = (self._shrunk[best] / self._sizes * turned) @ self._right
        fit: Floats = mean - float(self._middle @ slopes) + self._features @ slopes
        return fit, float(freedom[best])


def _clipped(fitted: Floats, measured: Floats) -> Floats:
    """Measurements, those far from the fit moved to where outliers begin, (k,)."""
    off = measured - fitted
    limit = _OUTLIER * 1.4826 * float(np.median(np.abs(off)))
    moved: Floats = fitted + np.clip(off, -limit, limit)
    return moved


def _alone(ridge: _Ridge, known: Rows, log_ms: Floats) -> Floats:
    y = log_ms
    for _ in range(_ROUNDS):
        profile, _ = ridge(y)
        y = _clipped(profile[known], log_ms)
    return profile


def denoise_together(genes: Floats, known: Sequence[Rows], log_ms: Sequence[Floats]) -> Floats:
    """Log latency of every network on every device, (n, devices), from some on each.

    Args:
        genes: One-hot, (n, values), columns of mean 0.
        known: Of each device, the rows that were measured.
        log_ms: Of each device, their logarithms of ms.
    """
    ridges: dict[bytes, _Ridge] = {}
    for rows in known:  # mostly the same rows of all
        if rows.tobytes() not in ridges:
            ridges[rows.tobytes()] = _Ridge(genes, rows)
    each = [(ridges[rows.tobytes()], rows, ms) for rows, ms in zip(known, log_ms, strict=True)]
    profiles = np.column_stack([_alone(*one) for one in each])
    for _ in range(_PASSES):
        before = profiles.copy()
        for device, (ridge, rows, measured) in enumerate(each):
            shared = _components(np.delete(before, device, axis=1))
            if not shared.shape[1]:
                continue
            common, mine = _Ridge(shared, rows), before[:, device]
            for _ in range(2):
                y = _clipped(mine[rows], measured)
                of_others, spent = common(y)
                own, _ = ridge(y - of_others[rows], spent)
                mine = of_others + own
            profiles[:, device] = mine
    return profiles


def _components(log_ms: Floats) -> Floats:
    """Principal components of devices' profiles, each device at variance one, (n, components)."""
    centred = log_ms - log_ms.mean(axis=0)
    spread = centred.std(axis=0)
    scaled: Floats = centred[:, spread > 1e-9] / spread[spread > 1e-9]
    if not scaled.shape[1]:
        return scaled
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    components: Floats = scaled @ vectors[:, values > _SMALL * values[-1]]
    return components
