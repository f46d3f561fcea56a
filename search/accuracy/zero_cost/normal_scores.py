"""Normal scores: proxy scores of any unit on one scale, by a reference, and from there to a top-1.

A normal score is the quantile of the standard normal distribution at the share of the reference
that lies below: 0 in its middle, 1 where 84 % of it lie below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import NotEnoughData

__all__ = ["Line", "Scale", "Scales", "share"]

Floats = npt.NDArray[np.float64]

_STEEP = 1.702  # a logistic curve of this slope is within 0.01 of the normal's
_FAR = 20.0  # beyond it a share would be 1 to the last digit


@dataclass(frozen=True)
class Scale:
    """From scores to normal scores: linear between the scores of the reference and beyond them.

    Args:
        scores: Of the reference, (k,), ascending, different.
        normal_scores: Of these, (k,).
    """

    scores: Floats
    normal_scores: Floats

    @classmethod
    def of(cls, reference: Floats) -> Scale:
        """The scale of a reference's scores, (n,); equal ones share their mean rank."""
        from scipy import stats

        shares = (stats.rankdata(reference) - 0.5) / len(reference)
        scores, first = np.unique(reference, return_index=True)
        return cls(scores, np.asarray(stats.norm.ppf(shares[first]), np.float64))

    def __call__(self, scores: Floats) -> Floats:
        """Normal scores, (n,), of scores (n,); NaN for NaN."""
        values: Floats = np.interp(scores, self.scores, self.normal_scores)
        low, high = self.scores[0], self.scores[-1]
        if high > low:
            slope = (self.normal_scores[-1] - self.normal_scores[0]) / (high - low)
            values += slope * (np.maximum(scores - high, 0) - np.maximum(low - scores, 0))
        return values


@dataclass(frozen=True)
class Scales:
    """From several scores of a network to one normal score: that of their mean normal score."""

    single: tuple[Scale, ...]
    whole: Scale

    @classmethod
    def of(cls, reference: Floats) -> Scales:
        """From the scores of the reference networks, (n, proxies)."""
        single = tuple(Scale.of(column) for column in reference.T)
        return cls(single, Scale.of(_mean(single, reference)))

    def __call__(self, scores: Floats) -> Floats:
        """Normal scores, (n,), of scores (n, proxies)."""
        return self.whole(_mean(self.single, scores))


def _mean(scales: Sequence[Scale], scores: Floats) -> Floats:
    values: Floats = np.mean([s(c) for s, c in zip(scales, scores.T, strict=True)], axis=0)
    return values


def share(normal: Floats) -> Floats:
    """The share of the reference below, (n,), in (0, 1), rising with normal scores (n,)."""
    return _logistic(_STEEP * normal)


def _logistic(x: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.clip(x, -_FAR, _FAR)))
    return values


@dataclass(frozen=True)
class Line:
    """Logits of accuracies as a line in normal scores, by least squares."""

    start: float
    slope: float
    deviation: float  # of the residuals, in logits
    n: int
    centre: float
    variance: float

    @classmethod
    def fit(cls, normal: Floats, top1: Floats) -> Line:
        """From networks whose top-1 is known, (n,), in (0, 1).

        Raises:
            NotEnoughData: The accuracies do not rise with the normal scores.
        """
        logits = np.log(top1 / (1 - top1))
        centre, variance = float(normal.mean()), float(np.var(normal))
        covariance = float(np.mean((normal - centre) * (logits - logits.mean())))
        if covariance <= 0:  # also where all normal scores are equal
            raise NotEnoughData(
                f"the accuracies of {len(top1)} known networks do not rise with their zero-cost "
                "scores. Give more networks that differ, or another proxy."
            )
        slope = covariance / variance
        start = float(logits.mean()) - slope * centre
        rest = logits - start - slope * normal
        deviation = float(np.sqrt((rest**2).sum() / (len(top1) - 2)))
        return cls(start, slope, max(deviation, 1e-6), len(top1), centre, variance)

    def __call__(self, normal: Floats) -> tuple[Floats, Floats]:
        """Top-1 and the standard error of a single network's, (n,) each."""
        top1 = _logistic(self.start + self.slope * normal)
        distance = (normal - self.centre) ** 2 / (self.n * self.variance)
        error = self.deviation * np.sqrt(1 + 1 / self.n + distance)
        return top1, error * np.maximum(top1 * (1 - top1), 1e-12)
