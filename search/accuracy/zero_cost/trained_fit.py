"""TrainedFit: top-1 by zero-cost scores and descriptions, fitted on a few trained networks.

Logits of top-1 are a level, a multiple of the mean normal score, and further multiples of each
proxy's normal score, of a network's description (size, depth, kernels, gates) and of how often it
has each operator. How large each kind of effect is, and the noise, is not known from ten networks:
all settings of a grid are averaged by their evidence. So what tells nothing of the trained ones
hardly counts.

Source: Hoeting et al., Bayesian Model Averaging, 1999; the averaging is that of the latency model
(`latency_model.averaging`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.averaging import NOISE_VARIANCE, Averaged, Hypotheses
from phonenas.space import Architecture, Operator

from ..imagenet.features import features, sums

__all__ = ["Description", "TrainedFit"]

Floats = npt.NDArray[np.float64]
# Variances of the effects of each kind together, and deviations of the noise; in the standard
# deviation of the trained networks' logits.
_EFFECTS = (0.0, 0.3, 1.0)
_NOISES = (0.15, 0.3, 0.6)


@dataclass(frozen=True)
class Description:
    """Networks as columns of four kinds, each of mean square length 1 over a reference.

    Args:
        operators: That are counted; all others are counted together.
        centres, lengths: Of the columns of each kind, over the reference.
    """

    operators: tuple[Operator, ...]
    centres: tuple[Floats, ...]
    lengths: tuple[Floats, ...]

    @classmethod
    def of(
        cls, reference: Sequence[Architecture], normal: Floats, known: Sequence[Architecture]
    ) -> Description:
        """By a reference, with the operators of the known networks, too.

        Args:
            reference: n networks.
            normal: Their normal scores by each proxy, (n, proxies).
            known: Networks to fit on.
        """
        both = [o for a in (*reference, *known) for o in a.operators()]
        operators = tuple(dict.fromkeys(both))
        kinds = _kinds(reference, normal, operators)
        centres = tuple(kind.mean(axis=0) for kind in kinds)
        lengths = []
        for place, (kind, centre) in enumerate(zip(kinds, centres, strict=True)):
            spread = np.ones(kind.shape[1])
            if place == _WHOLE:  # of different units
                spread = kind.std(axis=0)
                spread[spread < 1e-9] = np.inf
            square = (((kind - centre) / spread) ** 2).sum(axis=1).mean()
            lengths.append(spread * (np.sqrt(square) if square > 0 else 1.0))
        return cls(operators, centres, tuple(lengths))

    def __call__(self, networks: Sequence[Architecture], normal: Floats) -> tuple[Floats, ...]:
        """Columns of each kind, (n, any), of networks and normal scores as of `of`."""
        kinds = _kinds(networks, normal, self.operators)
        return tuple(
            (kind - centre) / length
            for kind, centre, length in zip(kinds, self.centres, self.lengths, strict=True)
        )


_WHOLE = 2  # the place of the kind that describes a network as a whole


def _kinds(
    networks: Sequence[Architecture], normal: Floats, operators: Sequence[Operator]
) -> tuple[Floats, ...]:
    """The mean normal score, that of each proxy, the description, and counts of operators."""
    raw = np.array([np.sum([sums(o) for o in a.operators()], axis=0) for a in networks])
    sides = np.array([a.resolution_px for a in networks], np.float64)
    at = {operator: place for place, operator in enumerate(operators)}
    counts = np.zeros((len(networks), len(operators) + 1))
    for row, network in zip(counts, networks, strict=True):
        for operator, count in Counter(network.operators()).items():
            row[at.get(operator, -1)] += count
    return normal.mean(axis=1, keepdims=True), normal, features(raw, sides), counts


@dataclass(frozen=True)
class TrainedFit:
    """A fit on k networks.

    Args:
        averaged: Of the standardised logits.
        columns: Of the k networks, by kind.
        centre, spread: Mean and deviation of the logits.
        noise: Deviation of a network's standardised logit that no column explains.
    """

    averaged: Averaged
    columns: tuple[Floats, ...]
    centre: float
    spread: float
    noise: float

    @classmethod
    def of(cls, columns: tuple[Floats, ...], top1: Floats) -> TrainedFit:
        """Fit.

        Args:
            columns: Of each kind, (k, any), as a `Description` gives them.
            top1: (k,), in (0, 1).
        """
        logits = np.log(top1 / (1 - top1))
        centre, spread = float(logits.mean()), float(logits.std()) or 1.0
        grid = np.array([*product(*(_EFFECTS for _ in columns), _NOISES)])
        h, k = len(grid), len(top1)
        noise = np.repeat(grid[:, -1:], k, axis=1)
        hypotheses = Hypotheses(np.zeros((h, k)), columns, grid[:, :-1], noise, np.ones(h))
        averaged = Averaged.of((logits - centre) / spread, hypotheses)
        left = float(averaged.shares @ grid[averaged.at, -1] ** 2)
        return cls(averaged, columns, centre, spread, float(np.sqrt(NOISE_VARIANCE * left)))

    def __call__(self, columns: tuple[Floats, ...]) -> tuple[Floats, Floats]:
        """Top-1, in (0, 1), and the standard error of a single network's, (n,) each."""
        weights = self.averaged.coefficients(self.columns)
        level = float(self.averaged.shares @ self.averaged.levels)
        scaled = level + sum(c @ w for c, w in zip(columns, weights, strict=True))
        across = [c @ known.T for c, known in zip(columns, self.columns, strict=True)]
        own = [(c**2).sum(axis=1) for c in columns]
        none = np.zeros((len(self.averaged.at), len(own[0])))
        variance = self.averaged.variance(across, own, none) + self.noise**2
        top1 = 1 / (1 + np.exp(-(self.centre + self.spread * scaled)))
        error = self.spread * np.sqrt(variance)
        return top1, error * np.maximum(top1 * (1 - top1), 1e-12)
