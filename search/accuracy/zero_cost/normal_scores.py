"""Normal scores: proxy scores of any unit on one scale, by a reference, and from there to a share.

A normal score is the quantile of the standard normal distribution at the share of the reference
that lies below: 0 in its middle, 1 where 84 % of it lie below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Scale", "Scales", "share"]

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
        return cls(single, Scale.of(_each(single, reference).mean(axis=1)))

    def __call__(self, scores: Floats) -> Floats:
        """Normal scores, (n,), of scores (n, proxies)."""
        return self.whole(self.each(scores).mean(axis=1))

    def each(self, scores: Floats) -> Floats:
        """Normal scores by each proxy, (n, proxies), of scores (n, proxies)."""
        return _each(self.single, scores)


def _each(scales: Sequence[Scale], scores: Floats) -> Floats:
    return np.column_stack([scale(c) for scale, c in zip(scales, scores.T, strict=True)])


def share(normal: Floats) -> Floats:
    """The share of the reference below, (n,), in (0, 1), rising with normal scores (n,)."""
    values: Floats = 1 / (1 + np.exp(-np.clip(_STEEP * normal, -_FAR, _FAR)))
    return values
