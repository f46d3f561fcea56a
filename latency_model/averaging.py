"""Few measurements of a new device, explained by several hypotheses that are averaged.

A hypothesis says what is expected of each measurement before it is made: an offset, how far
features of the network may deviate from it, and how much a measurement scatters. A level common to
all is free. Hypotheses are averaged by their evidence; the noise is Student's, so a measurement far
from the others counts less.

`phonenas fit --like` with a ready phone as source and `phonenas benchmark transfer` both use it:
there features are the shares of kinds of kernels in a network's time, here other devices and genes.

Source: Hoeting et al., Bayesian Model Averaging, 1999; Lange, Little and Taylor, Robust Statistical
Modeling Using the t Distribution, JASA 1989 (noise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NOISES", "NOISE_ABSOLUTE", "NOISE_VARIANCE", "SHARED", "OWN", "Averaged", "Hypotheses"]

Floats = npt.NDArray[np.float64]

#: Variances, relative: of what a kind of parts (an operation, a sort of kernel) shares, and of
#: each part for itself.
SHARED, OWN = (0.0, 0.01, 0.1, 0.3), (0.0, 0.003, 0.03, 0.3)
#: Scale of a measurement's noise, relative.
NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_FREEDOM = 4  # degrees of freedom of the noise, Student's
NOISE_VARIANCE = _FREEDOM / (_FREEDOM - 2)  # of that noise at scale one
NOISE_ABSOLUTE = np.pi / 2  # variance of the normal with the mean absolute value of Student's
_ROUNDS = 6  # of reweighting
_SMALL = 1e-3  # share below which a hypothesis is left out of the average


@dataclass(frozen=True)
class Hypotheses:
    """What is expected of k measurements, by h hypotheses.

    Args:
        offsets: Expected, up to a common level, (h, k).
        features: Of each kind of deviation, (k, any).
        variances: Of each kind's coefficients, (h, kinds).
        noise: Scale of each measurement's noise, in the measurements' unit, (h, k).
        shares: Probability before anything was measured, (h,), up to a factor.
    """

    offsets: Floats
    features: Sequence[Floats]
    variances: Floats
    noise: Floats
    shares: Floats


@dataclass(frozen=True)
class Averaged:
    """What measurements leave of hypotheses, m of them.

    Args:
        at: Which of the hypotheses, (m,).
        shares: Probability of each, (m,); sums to 1.
        levels: The free level of each, (m,).
        pulls: Covariance⁻¹ · what level and offset leave, (m, k).
        inverses: Of the covariance, (m, k, k).
        variances: Of the kinds' coefficients, (m, kinds).
    """

    at: npt.NDArray[np.intp]
    shares: Floats
    levels: Floats
    pulls: Floats
    inverses: Floats
    variances: Floats

    @classmethod
    def of(cls, measured: Floats, h: Hypotheses) -> Averaged:
        """From measurements, (k,)."""
        kernels = np.array([f @ f.T for f in h.features])
        shared = np.einsum("hj,jkl->hkl", h.variances, kernels)
        rest, places = measured - h.offsets, np.arange(len(measured))
        weights = np.ones_like(rest)
        for i in range(_ROUNDS):
            noisy = shared.copy()
            noisy[:, places, places] += h.noise**2 / weights
            inverse = np.linalg.inv(noisy)
            summed = inverse.sum(axis=2)
            free = summed.sum(axis=1)
            level = np.sum(summed * rest, axis=1) / free
            left = rest - level[:, None]
            pull = np.einsum("hij,hj->hi", inverse, left)
            if i < _ROUNDS - 1:
                off = h.noise / weights * pull
                weights = (_FREEDOM + 1) / (_FREEDOM + off**2)
        value = np.linalg.slogdet(inverse)[1] - np.sum(left * pull, axis=1) - np.log(free)
        value = value / 2 + _FREEDOM / 2 * np.sum(np.log(weights) + 1 - weights, axis=1)
        share = np.exp(value - value.max()) * h.shares
        share /= share.sum()
        at = np.flatnonzero(share > _SMALL)
        kept = share[at] / share[at].sum()
        return cls(at, kept, level[at], pull[at], inverse[at], h.variances[at])

    def coefficients(self, features: Sequence[Floats]) -> list[Floats]:
        """Expected coefficient of each feature by kind, from the features measured, (k, any)."""
        weighed = np.einsum("m,mj,mk->jk", self.shares, self.variances, self.pulls)
        return [f.T @ w for f, w in zip(features, weighed, strict=True)]

    def variance(self, across: Sequence[Floats], own: Sequence[Floats], offsets: Floats) -> Floats:
        """Of n predictions, (n,), without noise: of each hypothesis, and of their means.

        Args:
            across: Of each kind, features of predictions times those of measurements, (n, k).
            own: Of each kind, squared length of the predictions' features, (n,).
            offsets: Of the hypotheses kept, (m, n).
        """
        total, first, second = np.zeros((3, len(own[0])))
        for i, share in enumerate(self.shares):
            inverse, some = self.inverses[i], np.flatnonzero(self.variances[i])
            pairs = [(self.variances[i, j], across[int(j)], own[int(j)]) for j in some]
            reach = sum((v * a for v, a, _ in pairs), np.zeros((len(total), len(inverse))))
            prior = sum((v * o for v, _, o in pairs), np.zeros(len(total)))
            turned = reach @ inverse
            summed = inverse.sum(axis=1)
            lever = (1 - reach @ summed) ** 2 / summed.sum()
            total += share * (prior - np.einsum("nk,nk->n", turned, reach) + lever)
            mean = self.levels[i] + offsets[i] + reach @ self.pulls[i]
            first += share * mean
            second += share * mean**2
        variance: Floats = np.maximum(total, 0) + np.maximum(second - first**2, 0)
        return variance

    def left_out(self) -> tuple[Floats, Floats]:
        """Of each measurement, (k,): how far it is from what the others predict, and the standard
        deviation of that."""
        free = self.inverses.sum(axis=2)
        pinned = (
            self.inverses - free[:, :, None] * free[:, None, :] / free.sum(axis=1)[:, None, None]
        )
        own = np.einsum("mkk->mk", pinned)
        off = self.pulls / own
        mean = self.shares @ off
        variance = self.shares @ (1 / own + off**2) - mean**2
        return mean, np.sqrt(variance)
