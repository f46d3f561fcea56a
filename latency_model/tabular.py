"""A table of genomes and one number each: a Gaussian process that knows how genes are grouped.

Genes that share a name up to its last underscore (`block0_e`, `block0_k`) form a group. The
covariance of two networks is a sum over groups of products over the group's genes, for what a
block adds by itself, and one product over all genes, for how blocks act on each other. How genes
are read (as ordered numbers, as their logarithms, or as mere names), how the target is bent
(logarithm, or an exponential of its standard score), and every strength follow from the marginal
likelihood of the training rows alone.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 4, 5;
Snelson et al., Warped Gaussian Processes, NIPS 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument, NotEnoughData

__all__ = ["MINIMUM", "TabularRegressor", "booster", "groups_of", "line", "one_hot", "ridge"]

Floats = npt.NDArray[np.float64]

MINIMUM = 20  # rows; fewer settle no strength
CAPACITY = 2500  # rows that teach; the cost grows with their cube
_CHOOSING = 200  # rows that choose between readings and bends
_REFINING = 1200  # rows up to which the strengths are refined on all
_LENGTH = 4.0  # standard deviations of a gene: products of groups are nearly linear in it
_CONSTANT = 10.0  # variance of the mean, in variances of the target
_JITTER = 1e-6  # variances of the target, for a stable factor
_PRIOR = 2.0  # standard deviation of each strength's logarithm about its start
_STARTS = {"gene": 1.0, "group": 0.05, "whole": 0.3, "reach": 0.02, "noise": 0.02}
_BOOSTER: dict[str, Any] = {
    "num_leaves": 4, "learning_rate": 0.05, "min_data_in_leaf": 5, "bagging_fraction": 0.9,
    "bagging_freq": 1, "feature_fraction": 0.5, "num_threads": 1, "verbosity": -1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
_BENDS = (-0.5, 0.25, 0.5, float("-inf"))


def groups_of(names: Sequence[str]) -> list[int]:
    """The group of each gene: names that agree up to their last underscore belong together.

    >>> groups_of(["block0_e", "block0_k", "block1_e", "op3"])
    [0, 0, 1, 2]
    """
    stems = [n.rsplit("_", 1)[0] for n in names]
    known = list(dict.fromkeys(stems))
    return [known.index(s) for s in stems]


def one_hot(codes: Floats) -> Floats:
    """One column for each gene and each value that it takes, (n, values), each of mean 0."""
    columns = [codes[:, [g]] == np.unique(codes[:, g]) for g in range(codes.shape[1])]
    hot = np.concatenate(columns, axis=1).astype(np.float64)
    found: Floats = hot - hot.mean(axis=0)
    return found


class _Reading:
    """Genes as they are compared: as numbers, their logarithms, or mere names."""

    def __init__(self, kind: str, x: Floats) -> None:
        self.kind, self._positive = kind, x.min(axis=0) > 0
        values = self._values(x)
        self._mean, self._spread = values.mean(axis=0), values.std(axis=0) + 1e-9

    def _values(self, x: Floats) -> Floats:
        if self.kind != "logarithms":
            return x
        return np.where(self._positive, np.log(np.maximum(x, 1e-9)), x)

    def __call__(self, x: Floats) -> Floats:
        """Standard scores of the rows that taught, or codes, (n, genes)."""
        return x if self.kind == "names" else (self._values(x) - self._mean) / self._spread

    def squares(self, a: Floats, b: Floats) -> Floats:
        """Squared distances of one gene, (n, m)."""
        apart = np.subtract.outer(a, b)
        return (apart != 0) * _LENGTH**2 if self.kind == "names" else apart**2


@dataclass(frozen=True)
class _Bend:
    """The target bent: (e^(λz) - 1) / λ of its standard score z, or its logarithm (λ = -∞)."""

    amount: float
    mean: float
    spread: float

    def forth(self, y: Floats) -> tuple[Floats, float]:
        """The bent target, (n,), and the summed logarithm of the slope."""
        if self.amount == float("-inf"):
            return np.log(y), float(-np.log(y).sum())
        z = (y - self.mean) / self.spread
        if self.amount == 0:
            return z, -len(y) * float(np.log(self.spread))
        slope = float(np.sum(self.amount * z - np.log(self.spread)))
        return np.expm1(self.amount * z) / self.amount, slope

    def back(self, bent: Floats) -> tuple[Floats, Floats]:
        """The target, (n,), and its slope against the bent one, (n,)."""
        if self.amount == float("-inf"):
            return np.exp(bent), np.exp(bent)
        if self.amount == 0:
            return self.mean + self.spread * bent, np.full(len(bent), self.spread)
        inside = np.maximum(1 + self.amount * bent, 1e-3)
        return self.mean + self.spread * np.log(inside) / self.amount, self.spread / inside


class _Process:
    """Covariance of networks under strengths, and how well they explain some rows."""

    def __init__(self, groups: npt.NDArray[np.intp], reading: _Reading) -> None:
        self.groups, self.reading = groups, reading
        self.genes, self.count = len(groups), int(groups.max()) + 1
        s = _STARTS
        parts = [s["gene"]] * self.genes + [s["group"]] * self.count + [s["whole"]]
        self.start: Floats = np.log([*parts, *[s["reach"]] * self.genes, s["noise"]])

    def covariance(self, a: Floats, b: Floats, p: Floats) -> tuple[Floats, Floats, list[Floats]]:
        """Of rows read, (n, m), without noise; its part over all genes, and the groups' products."""
        g, k, strength = self.genes, self.count, np.exp(p)
        groups = [np.ones((len(a), len(b))) for _ in range(k)]
        far = np.zeros((len(a), len(b)))
        for i, group in enumerate(self.groups):
            squares = self.reading.squares(a[:, i], b[:, i])
            groups[group] *= 1 + strength[i] * np.exp(squares / (-2 * _LENGTH**2))
            far += strength[g + k + 1 + i] * squares
        whole = strength[g + k] * np.exp(far / -2)
        total = whole + _CONSTANT
        for v, product in zip(strength[g : g + k], groups, strict=True):
            total = total + v * product
        return total, whole, groups

    def loss(self, p: Floats, z: Floats, t: Floats) -> tuple[float, Floats]:
        """Negative logarithm of the posterior of strengths, up to a constant, and its slopes."""
        from scipy import linalg

        g, k, n, strength = self.genes, self.count, len(t), np.exp(p)
        total, whole, groups = self.covariance(z, z, p)
        total[np.diag_indices(n)] += strength[-1] + _JITTER
        try:
            lower = linalg.cholesky(total, lower=True, check_finite=False)
        except linalg.LinAlgError:
            return 1e10, np.zeros_like(p)
        weights = linalg.cho_solve((lower, True), t, check_finite=False)
        inverse = np.tril(linalg.lapack.dpotri(lower, lower=1)[0])
        inverse = inverse + np.tril(inverse, -1).T - np.outer(weights, weights)
        slopes = np.zeros_like(p)
        pulls = [inverse * product for product in groups]
        pull = inverse * whole
        for i, group in enumerate(self.groups):
            squares = self.reading.squares(z[:, i], z[:, i])
            alike = strength[i] * np.exp(squares / (-2 * _LENGTH**2))
            slopes[i] = strength[g + group] * np.sum(pulls[group] * (alike / (1 + alike))) / 2
            slopes[g + k + 1 + i] = -strength[g + k + 1 + i] * np.sum(pull * squares) / 4
        slopes[g : g + k] = strength[g : g + k] * np.array([q.sum() for q in pulls]) / 2
        slopes[g + k], slopes[-1] = pull.sum() / 2, strength[-1] * np.trace(inverse) / 2
        value = t @ weights / 2 + float(np.log(np.diag(lower)).sum())
        off = (p - self.start) / _PRIOR
        return float(value + off @ off / 2), slopes + off / _PRIOR

    def settle(self, z: Floats, t: Floats, p: Floats, steps: int) -> tuple[float, Floats]:
        """The least loss found in so many steps, and its strengths."""
        from scipy import optimize

        bounds = [(s - 12, s + 12) for s in self.start]
        found = optimize.minimize(
            self.loss, p, (z, t), "L-BFGS-B", True, bounds=bounds, options={"maxiter": steps}
        )
        return float(found.fun), found.x


class TabularRegressor:
    """Learns one number of a network from its genes.

    Args:
        groups: Group of each gene, (genes,), from 0; by default each stands alone.
        names: Whether codes are mere names, without order.

    Example:
        >>> genomes = np.random.default_rng(0).integers(0, 3, (60, 4)).astype(float)
        >>> model = TabularRegressor().fit(genomes, 5 + genomes.sum(axis=1))
        >>> expected, deviation = model.predict(np.array([[1.0, 1.0, 1.0, 1.0]]))
        >>> bool(abs(expected[0] - 9) < 0.2)
        True
    """

    def __init__(self, groups: Sequence[int] | None = None, *, names: bool = False) -> None:
        self._groups, self._names = groups, names

    def fit(self, codes: npt.ArrayLike, target: npt.ArrayLike, seed: int = 0) -> TabularRegressor:
        """Learn from rows.

        Args:
            codes: Genes, (n, genes), small numbers.
            target: What to learn, (n,), in any unit, finite.
            seed: Which 200 rows choose reading and bend, and which 2,500 teach, of more.
        Raises:
            InvalidArgument: Shapes differ, or a number is not finite.
            NotEnoughData: Fewer than 20 rows, or a target that never changes.
        """
        x, y = np.asarray(codes, np.float64), np.asarray(target, np.float64)
        if x.ndim != 2 or y.shape != x.shape[:1] or not np.isfinite(x).all():
            raise InvalidArgument(f"genes (n, genes) and target (n,) fit not: {x.shape}, {y.shape}")
        if not np.isfinite(y).all():
            raise InvalidArgument("a target to learn must be finite in every row")
        if len(y) < MINIMUM or np.ptp(y) == 0:
            raise NotEnoughData(f"{len(y)} rows do not teach; it takes {MINIMUM} that differ")
        order = np.random.default_rng(seed).permutation(len(y))[:CAPACITY]
        x, y = x[order], y[order]
        groups = np.asarray(self._groups if self._groups is not None else np.arange(x.shape[1]))
        few = slice(0, _CHOOSING)

        def tried(process: _Process, amount: float, p: Floats) -> tuple[float, float, Floats]:
            bent, slope = _Bend(amount, float(y.mean()), float(y.std())).forth(y[few])
            mean, scale = bent.mean(), max(bent.std(), 1e-12)
            z = process.reading(x[few])
            loss, p = process.settle(z, (bent - mean) / scale, p, 18)
            return loss + len(bent) * float(np.log(scale)) - slope, amount, p

        kinds = ("names",) if self._names else ("numbers", "logarithms", "names")
        processes = [_Process(groups, _Reading(kind, x)) for kind in kinds]
        firsts = [tried(process, 0.0, process.start) for process in processes]
        chosen = min(range(len(firsts)), key=lambda i: firsts[i][0])
        self._process, first = processes[chosen], firsts[chosen]
        bends = [b for b in _BENDS if b != float("-inf") or y.min() > 0]
        seconds = [tried(self._process, b, first[2]) for b in bends]
        _, amount, p = min([first, *seconds], key=lambda found: found[0])

        self.reading, self._bend = kinds[chosen], _Bend(amount, float(y.mean()), float(y.std()))
        bent, _ = self._bend.forth(y)
        self._mean, self._scale = float(bent.mean()), float(bent.std())
        t = (bent - self._mean) / self._scale
        self._z = self._process.reading(x)
        if len(y) <= _REFINING:
            p = self._process.settle(self._z, t, p, 20 if len(y) < 2 * _CHOOSING else 10)[1]
        self._strengths = p
        self._solve(t)
        return self

    def _solve(self, t: Floats) -> None:
        from scipy import linalg

        total = self._process.covariance(self._z, self._z, self._strengths)[0]
        total[np.diag_indices(len(t))] += np.exp(self._strengths[-1]) + _JITTER
        self._lower: Floats = linalg.cholesky(total, lower=True, check_finite=False)
        self._weights: Floats = linalg.cho_solve((self._lower, True), t, check_finite=False)

    def predict(self, codes: npt.ArrayLike) -> tuple[Floats, Floats]:
        """The number and its standard deviation, noise included, each (n,), in the target's unit."""
        from scipy import linalg

        z = self._process.reading(np.asarray(codes, np.float64))
        p = self._strengths
        own = float(self._process.covariance(self._z[:1], self._z[:1], p)[0][0, 0] + np.exp(p[-1]))
        expected, deviation = np.empty(len(z)), np.empty(len(z))
        for start in range(0, len(z), 1000):
            part = slice(start, start + 1000)
            across = self._process.covariance(z[part], self._z, p)[0]
            known = linalg.solve_triangular(self._lower, across.T, lower=True, check_finite=False)
            left = np.maximum(own - np.sum(known**2, axis=0), np.exp(p[-1]))
            bent = across @ self._weights * self._scale + self._mean
            expected[part], slope = self._bend.back(bent)
            deviation[part] = np.sqrt(left) * self._scale * slope
        return expected, deviation


def ridge(hot: Floats, target: Floats, asked: Floats) -> Floats:
    """Baseline: a ridge on one-hot genes, its strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    found: Floats = RidgeCV(np.logspace(-2, 3, 11)).fit(hot, target).predict(asked)
    return found


def booster(codes: Floats, target: Floats, asked: Floats, seed: int) -> Floats:
    """Baseline: gradient-boosted trees on the codes."""
    import lightgbm

    data = lightgbm.Dataset(codes, target, params={"verbosity": -1, "num_threads": 1})
    found = lightgbm.train(_BOOSTER | {"seed": seed}, data, num_boost_round=1000).predict(asked)
    return np.asarray(found, np.float64)


def line(column: Floats, target: Floats, asked: Floats) -> Floats:
    """Baseline: a straight line in one column."""
    if np.ptp(column) == 0:
        return np.full(len(asked), target.mean())
    slope, start = np.polyfit(column, target, 1)
    found: Floats = slope * asked + start
    return found
