"""Many guesses at how a few measurements came about, and how likely each is.

Source: Lange, Little and Taylor, Robust Statistical Modeling Using the t Distribution, JASA 1989.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NOISE_ABSOLUTE", "NOISE_VARIANCE", "Guesses", "guesses"]

Floats = npt.NDArray[np.float64]

_FREEDOM = 4  # degrees of freedom of the noise, Student's
NOISE_VARIANCE = _FREEDOM / (_FREEDOM - 2)  # of that noise at scale one
NOISE_ABSOLUTE = np.pi / 2  # variance of the Gauss whose mean absolute value is Student's, one
_ROUNDS = 6  # of reweighting


@dataclass(frozen=True)
class Guesses:
    """Of each guess at the nearest source, the deviation and the noise: what follows.

    Args:
        share: How likely it is, (guesses,); sums to 1.
        middles: Level and coefficients to expect, (guesses, 1 + components).
        spreads: Their covariance, (guesses, 1 + components, 1 + components).
    """

    share: Floats
    middles: Floats
    spreads: Floats


def guesses(
    at: Floats, y: Floats, lines: Floats, prior: Floats, noise: Floats, likely: Floats
) -> Guesses:
    """Bayesian linear regression with a free level, for many priors at once.

    The noise is Student's: measurements far off are given less weight, in rounds, and the
    evidence pays for it.

    Args:
        at: Components of the measured rows, (k, components).
        y: Their log latency, (k,).
        lines, prior: Mean and covariance of the coefficients, (guesses, ...).
        noise: Scale of the noise, (guesses,).
        likely: Of each guess before anything was measured, (guesses,).
    """
    reach = at @ prior
    shared, rest = reach @ at.T, y - lines @ at.T
    weights, diagonal = np.ones_like(rest), np.arange(len(y))
    for again in range(_ROUNDS):
        noisy = shared.copy()
        noisy[:, diagonal, diagonal] += noise[:, None] ** 2 / weights
        inverse = np.linalg.inv(noisy)
        summed = inverse.sum(axis=2)
        free = summed.sum(axis=1)
        level = np.sum(summed * rest, axis=1) / free
        left = rest - level[:, None]
        pull = np.einsum("cij,cj->ci", inverse, left)
        if again < _ROUNDS - 1:
            off = noise[:, None] / weights * pull
            weights = (_FREEDOM + 1) / (_FREEDOM + off**2)
    value = np.linalg.slogdet(inverse)[1] - np.sum(left * pull, axis=1) - np.log(free)
    value = value / 2 + _FREEDOM / 2 * np.sum(np.log(weights) + 1 - weights, axis=1)
    share = np.exp(value - value.max()) * likely
    middles = np.column_stack([level, lines + np.einsum("ckq,ck->cq", reach, pull)])
    # The level's own doubt moves the coefficients against it.
    lever = np.column_stack([np.ones(len(lines)), -np.einsum("ckq,ck->cq", reach, summed)])
    spreads = lever[:, :, None] * lever[:, None, :] / free[:, None, None]
    spreads[:, 1:, 1:] += prior - np.swapaxes(reach, 1, 2) @ inverse @ reach
    return Guesses(share / share.sum(), middles, spreads)
