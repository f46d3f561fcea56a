"""Places among a reference: scores of any unit on one scale, and from there to a top-1.

A place is a normal deviation: 0 in the middle of the reference, 1 where 84 % of it lie below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...space.errors import NotEnoughData

__all__ = ["Line", "Scale", "Scales", "share"]

Floats = npt.NDArray[np.float64]

_STEEP = 1.702  # a logistic curve of this slope is within 0.01 of the normal's
_FAR = 20.0  # where a share would be 1 to the last digit


@dataclass(frozen=True)
class Scale:
    """Scores to places: the share of the reference below, and straight on beyond it.

    Between two scores of the reference it is a line, so that no two scores share a place.
    """

    scores: Floats  # ascending, different
    places: Floats

    @classmethod
    def of(cls, reference: Floats) -> Scale:
        """The scale of a reference's scores, (n,); equal ones share their mean rank."""
        from scipy import stats

        shares = (stats.rankdata(reference) - 0.5) / len(reference)
        scores, first = np.unique(reference, return_index=True)
        return cls(scores, np.asarray(stats.norm.ppf(shares[first]), np.float64))

    def __call__(self, scores: Floats) -> Floats:
        """Places, (n,); NaN for a score that is none."""
        found: Floats = np.interp(scores, self.scores, self.places)
        low, high = self.scores[0], self.scores[-1]
        if high > low:
            slope = (self.places[-1] - self.places[0]) / (high - low)
            found += slope * (np.maximum(scores - high, 0) - np.maximum(low - scores, 0))
        return found


@dataclass(frozen=True)
class Scales:
    """Several scores of a network to one place: the place of the mean of their places."""

    single: tuple[Scale, ...]
    whole: Scale

    @classmethod
    def of(cls, reference: Floats) -> Scales:
        """From the scores of the reference networks, (n, scores)."""
        single = tuple(Scale.of(column) for column in reference.T)
        return cls(single, Scale.of(_mean(single, reference)))

    def __call__(self, scores: Floats) -> Floats:
        """Places, (n,), of scores (n, scores)."""
        return self.whole(_mean(self.single, scores))


def _mean(scales: Sequence[Scale], scores: Floats) -> Floats:
    found: Floats = np.mean([s(c) for s, c in zip(scales, scores.T, strict=True)], axis=0)
    return found


def share(places: Floats) -> Floats:
    """The share of the reference that lies below, (n,), in (0, 1): it rises all the way."""
    return _logistic(_STEEP * places)


def _logistic(x: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(x, -_FAR, _FAR)))
    return found


@dataclass(frozen=True)
class Line:
    """Logits of accuracies as a line in places, by least squares."""

    start: float
    slope: float
    deviation: float  # of what the line leaves, in logits
    n: int
    centre: float
    spread: float

    @classmethod
    def fit(cls, places: Floats, top1: Floats) -> Line:
        """From networks whose top-1 is known, (n,), in (0, 1).

        Raises:
            NotEnoughData: The accuracies do not rise with the places.
        """
        logits = np.log(top1 / (1 - top1))
        centre, spread = float(places.mean()), float(np.var(places))
        covariance = float(np.mean((places - centre) * (logits - logits.mean())))
        if covariance <= 0:  # also where all places are one
            raise NotEnoughData(
                f"the accuracies of {len(top1)} known networks do not rise with their zero-cost "
                "scores. Give more networks that differ, or another proxy."
            )
        slope = covariance / spread
        start = float(logits.mean()) - slope * centre
        rest = logits - start - slope * places
        deviation = float(np.sqrt((rest**2).sum() / (len(top1) - 2)))
        return cls(start, slope, max(deviation, 1e-6), len(top1), centre, spread)

    def __call__(self, places: Floats) -> tuple[Floats, Floats]:
        """Top-1 and the standard error of a single network's, (n,) each."""
        top1 = _logistic(self.start + self.slope * places)
        apart = (places - self.centre) ** 2 / (self.n * self.spread)
        error = self.deviation * np.sqrt(1 + 1 / self.n + apart)
        return top1, error * np.maximum(top1 * (1 - top1), 1e-12)
