"""Several models of one number of networks, each trusted by the errors that it showed.

A model is a Gaussian process over genes (`gene_process`) of the number under one of three scales:
as it is, by its logarithm, or by its normal scores, which know order alone. What a model predicts
comes back to the number's own unit, so that all can be compared and mixed.

Source: Snelson et al., Warped Gaussian Processes, NIPS 2003; the pinball loss of predicted
quantiles as score: Gneiting and Raftery, JASA 102(477), 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .gene_process import GeneProcess

__all__ = ["Mixture", "Portfolio"]

Floats = npt.NDArray[np.float64]
_SHIFT = 0.3  # of the logarithm's origin below the least, in distances from there to the median
_TAIL = 10  # one in so many distinct values lies in a tail, whose slope goes on beyond the last
_NODES = np.linspace(-3.6, 3.6, 19)
_SHARES = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
_QUANTILES = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
_SCORES = np.array([-1.2815515655446004, -0.6744897501960817, 0.0])
_SCORES = np.concatenate([_SCORES, -_SCORES[1::-1]])  # of these quantiles
_POWER = 8.0  # by which a model's weight falls with its error
_WORST = 3.0  # error of one prediction at most, in normal scores
_PRIOR = 100.0  # predictions made ahead that weigh as much as all that leave one out
_MEMORY = 50  # latest predictions made ahead that count
_LEAST = 0.02  # weight below which a model is left out
_STEPS = 30  # of optimising hyperparameters


@dataclass(frozen=True)
class Mixture:
    """What a number of n networks may be: values, (n, q), and their probabilities, (q,)."""

    values: Floats
    shares: Floats

    def mean(self) -> Floats:
        """Expected values, (n,)."""
        expected: Floats = self.values @ self.shares
        return expected

    def below(self, edges: Floats) -> Floats:
        """By how much each is expected to lie below each edge, (n, k); above it counts as 0."""
        short = [np.maximum(edge - self.values, 0) @ self.shares for edge in edges]
        return np.stack(short, axis=1)

    def take(self, rows: npt.NDArray[np.intp]) -> Mixture:
        return Mixture(self.values[rows], self.shares)

    @classmethod
    def concat(cls, parts: list[Mixture]) -> Mixture:
        """Several of the same models, after each other."""
        return cls(np.concatenate([p.values for p in parts]), parts[0].shares)


class _AsItIs:
    """The number itself; the others replace both ways."""

    def __init__(self, y: Floats) -> None:
        pass

    def forth(self, y: Floats) -> Floats:
        return y

    def back(self, z: Floats) -> Floats:
        return z


class _Logarithm(_AsItIs):
    """Of the distance from an origin somewhat below the least value."""

    def __init__(self, y: Floats) -> None:
        least = float(y.min())
        self._origin = least - _SHIFT * (float(np.median(y)) - least) - 1e-12

    def forth(self, y: Floats) -> Floats:
        return np.asarray(np.log(np.maximum(y - self._origin, 1e-12)))

    def back(self, z: Floats) -> Floats:
        return np.asarray(self._origin + np.exp(np.minimum(z, 50.0)))


class _Order(_AsItIs):
    """Normal scores of ranks, equal for equal values; straight beyond least and greatest."""

    def __init__(self, y: Floats) -> None:
        from scipy.special import ndtri
        from scipy.stats import rankdata

        self._y, at = np.unique(y, return_inverse=True)
        self._z = np.empty(len(self._y))
        self._z[at] = ndtri((rankdata(y) - 0.5) / len(y))
        u, z, last = self._y, self._z, len(self._y) - 1
        tail = min(max(2, len(u) // _TAIL), last)
        self._low = max((u[tail] - u[0]) / (z[tail] - z[0] + 1e-12), 1e-12)
        self._high = max((u[-1] - u[last - tail]) / (z[-1] - z[last - tail] + 1e-12), 1e-12)

    def forth(self, y: Floats) -> Floats:
        beyond = (
            np.minimum(y - self._y[0], 0) / self._low + np.maximum(y - self._y[-1], 0) / self._high
        )
        return np.asarray(np.interp(y, self._y, self._z) + beyond)

    def back(self, z: Floats) -> Floats:
        beyond = (
            np.minimum(z - self._z[0], 0) * self._low + np.maximum(z - self._z[-1], 0) * self._high
        )
        return np.asarray(np.interp(z, self._z, self._y) + beyond)


_MEMBERS = tuple((scale, own) for scale in (_AsItIs, _Logarithm, _Order) for own in (False, True))


class Portfolio:
    """All models of one number.

    Args:
        counts: Options of each gene, (genes,).
    """

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        self._models = [GeneProcess(counts, per_option=own) for _, own in _MEMBERS]
        # Errors of predictions made ahead, (n, models), the latest last.
        self.ahead: Floats = np.empty((0, len(_MEMBERS)))

    @property
    def hyperparameters(self) -> Floats:
        """Of all models after each other."""
        return np.concatenate([m.hyperparameters for m in self._models])

    def restore(self, hyperparameters: Floats, ahead: Floats) -> None:
        """Go on from these.

        Raises:
            ValueError: Of another number of models or weights.
        """
        sizes = [len(m.hyperparameters) for m in self._models]
        if len(hyperparameters) != sum(sizes) or ahead.shape[1:] != (len(sizes),):
            raise ValueError(f"{len(hyperparameters)} hyperparameters of a model, not {sum(sizes)}")
        for model, own in zip(
            self._models, np.split(hyperparameters, np.cumsum(sizes)[:-1]), strict=True
        ):
            model.hyperparameters = own
        self.ahead = ahead

    def learn(self, hot: Floats, y: Floats, optimise: bool) -> None:
        """Rest on these rows: genes, (n, options), and the number, (n,)."""
        self._order = _Order(y)
        self._scales = [scale(y) for scale, _ in _MEMBERS]
        errors = []
        for model, scale in zip(self._models, self._scales, strict=True):
            target = scale.forth(y)
            model.learn(hot, target, _STEPS if optimise else 0)
            expected, deviation = model.leave_one_out(target)
            errors.append(self._errors(scale, expected, deviation, y).mean())
        left, ahead = np.array(errors), self.ahead[-_MEMORY:]
        error = (_PRIOR * left + ahead.sum(axis=0)) / (_PRIOR + len(ahead)) + 1e-12
        weights = (error / error.min()) ** -_POWER
        self.weights: Floats = weights / weights.sum()
        self._used = [i for i, w in enumerate(self.weights) if w >= _LEAST]

    def observe(self, hot: Floats, y: Floats) -> None:
        """Learn how well these rows, which are new, would have been predicted."""
        errors = []
        for model, scale in zip(self._models, self._scales, strict=True):
            errors.append(self._errors(scale, *model.predict(hot), y))
        self.ahead = np.concatenate([self.ahead, np.column_stack(errors)])[-_MEMORY:]

    def predict(self, hot: Floats) -> Mixture:
        """What the number of networks may be."""
        values, shares = [], []
        for i in self._used:
            expected, deviation = self._models[i].predict(hot)
            values.append(self._scales[i].back(expected[:, None] + deviation[:, None] * _NODES))
            shares.append(self.weights[i] * _SHARES)
        each = np.concatenate(shares)
        return Mixture(np.concatenate(values, axis=1), each / each.sum())

    def at_most(self, hot: Floats, bound: float) -> Floats:
        """Chance that the number is at most a bound, (n,)."""
        from scipy.special import ndtr

        chance, total = np.zeros(len(hot)), 0.0
        for i in self._used:
            expected, deviation = self._models[i].predict(hot)
            score = (self._scales[i].forth(np.array([bound])) - expected) / deviation
            chance, total = chance + self.weights[i] * ndtr(score), total + self.weights[i]
        return np.asarray(chance / total)

    def _errors(self, scale: _AsItIs, expected: Floats, deviation: Floats, y: Floats) -> Floats:
        """Mean pinball loss of five predicted quantiles, in normal scores, (n,)."""
        quantiles = scale.back(expected[:, None] + deviation[:, None] * _SCORES)
        short = self._order.forth(y)[:, None] - self._order.forth(quantiles)
        loss = np.maximum(_QUANTILES * short, (_QUANTILES - 1) * short).mean(axis=1)
        return np.asarray(np.minimum(loss, _WORST), np.float64)
