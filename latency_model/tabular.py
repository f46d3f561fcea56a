"""A table of genomes and one number each: a Gaussian process that knows how genes are grouped.

Genes that share a name up to its last underscore (`block0_e`, `block0_k`) form a group. The
covariance of two networks is a sum over groups of products over the group's genes, for what a
block adds by itself, and one product over all genes, for interactions between blocks. How genes
are compared (as ordered numbers, as their logarithms, or as mere names), how the target is warped
(logarithm, or an exponential of its standard score), and all hyperparameters follow from the
marginal likelihood of the training rows alone.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 4, 5;
Snelson et al., Warped Gaussian Processes, NIPS 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, NotEnoughData

from .gaussian_process import Posterior, Prior, misfit_and_slopes, optimise
from .trees import grown

__all__ = [
    "MINIMUM",
    "TabularRegressor",
    "booster",
    "groups_of",
    "line",
    "one_hot",
    "relative_line",
    "ridge",
]

Floats = npt.NDArray[np.float64]

MINIMUM = 20  # rows; fewer determine no hyperparameter
CAPACITY = 2500  # rows that it is fitted on at most; the cost grows with their cube
_CHOOSING = 200  # rows on which scales and warps are compared
_REFINING = 1200  # rows up to which the hyperparameters are refined on all
_LENGTH = 4.0  # standard deviations of a gene: products of groups are nearly linear in it
_CONSTANT = 10.0  # variance of the mean, in variances of the target
_JITTER = 1e-6  # variances of the target, for a stable factor
_EXPECTED = {"gene": 1.0, "group": 0.05, "whole": 0.3, "reach": 0.02, "noise": 0.02}
_DEVIATION = 2.0  # of each hyperparameter's logarithm about its expected value
_BOUNDS = 6  # such deviations
_TREES = {"num_leaves": 4, "learning_rate": 0.05, "min_data_in_leaf": 5, "feature_fraction": 0.5}
_WARPS = (-0.5, 0.25, 0.5, float("-inf"))


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
    centred: Floats = hot - hot.mean(axis=0)
    return centred


class _Scale:
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
        """Standard scores by the rows it was fitted on, or codes, (n, genes)."""
        return x if self.kind == "names" else (self._values(x) - self._mean) / self._spread

    def squares(self, a: Floats, b: Floats) -> Floats:
        """Squared distances of one gene, (n, m)."""
        apart = np.subtract.outer(a, b)
        return (apart != 0) * _LENGTH**2 if self.kind == "names" else apart**2


@dataclass(frozen=True)
class _Warp:
    """The target warped: (e^(λz) - 1) / λ of its standard score z, or its logarithm (λ = -∞)."""

    amount: float
    mean: float
    spread: float

    def forth(self, y: Floats) -> tuple[Floats, float]:
        """The warped target, (n,), and the summed logarithm of the slope."""
        if self.amount == float("-inf"):
            return np.log(y), float(-np.log(y).sum())
        z = (y - self.mean) / self.spread
        if self.amount == 0:
            return z, -len(y) * float(np.log(self.spread))
        slope = float(np.sum(self.amount * z - np.log(self.spread)))
        return np.expm1(self.amount * z) / self.amount, slope

    def back(self, warped: Floats) -> tuple[Floats, Floats]:
        """The target, (n,), and its slope against the warped one, (n,)."""
        if self.amount == float("-inf"):
            return np.exp(warped), np.exp(warped)
        if self.amount == 0:
            return self.mean + self.spread * warped, np.full(len(warped), self.spread)
        inside = np.maximum(1 + self.amount * warped, 1e-3)
        return self.mean + self.spread * np.log(inside) / self.amount, self.spread / inside


class _Covariance:
    """Covariance of networks under hyperparameters, and how well these explain some rows.

    Hyperparameters are logarithms: one a gene within its group, one a group, one of the product
    over all genes, one a gene in that product, and the noise.
    """

    def __init__(self, groups: npt.NDArray[np.intp], scale: _Scale) -> None:
        self.groups, self.scale = groups, scale
        self.genes, self.count = len(groups), int(groups.max()) + 1
        e = _EXPECTED
        parts = [e["gene"]] * self.genes + [e["group"]] * self.count + [e["whole"]]
        expected = np.log([*parts, *[e["reach"]] * self.genes, e["noise"]])
        self.prior = Prior(expected, _DEVIATION, _BOUNDS)

    def __call__(self, a: Floats, b: Floats, p: Floats) -> tuple[Floats, Floats, list[Floats]]:
        """Of scaled rows, (n, m), without noise; its part over all genes; the groups' products."""
        g, k, strength = self.genes, self.count, np.exp(p)
        groups = [np.ones((len(a), len(b))) for _ in range(k)]
        far = np.zeros((len(a), len(b)))
        for i, group in enumerate(self.groups):
            squares = self.scale.squares(a[:, i], b[:, i])
            groups[group] *= 1 + strength[i] * np.exp(squares / (-2 * _LENGTH**2))
            far += strength[g + k + 1 + i] * squares
        whole = strength[g + k] * np.exp(far / -2)
        total = whole + _CONSTANT
        for v, product in zip(strength[g : g + k], groups, strict=True):
            total = total + v * product
        return total, whole, groups

    def noisy(self, z: Floats, p: Floats) -> Floats:
        """Of scaled rows with themselves, (n, n), noise included."""
        return self._with_noise(self(z, z, p)[0], p)

    def _with_noise(self, total: Floats, p: Floats) -> Floats:
        total[np.diag_indices(len(total))] += np.exp(p[-1]) + _JITTER
        return total

    def _misfit(self, p: Floats, z: Floats, t: Floats) -> tuple[float, Floats]:
        g, k, strength = self.genes, self.count, np.exp(p)
        total, whole, groups = self(z, z, p)
        value, pull = misfit_and_slopes(self._with_noise(total, p), t)
        slopes = np.zeros_like(p)
        pulls = [pull * product for product in groups]
        pull_whole = pull * whole
        for i, group in enumerate(self.groups):
            squares = self.scale.squares(z[:, i], z[:, i])
            near = strength[i] * np.exp(squares / (-2 * _LENGTH**2))
            slopes[i] = strength[g + group] * np.sum(pulls[group] * (near / (1 + near))) / 2
            slopes[g + k + 1 + i] = -strength[g + k + 1 + i] * np.sum(pull_whole * squares) / 4
        slopes[g : g + k] = strength[g : g + k] * np.array([q.sum() for q in pulls]) / 2
        slopes[g + k], slopes[-1] = pull_whole.sum() / 2, strength[-1] * np.trace(pull) / 2
        return value, slopes

    def optimise(self, z: Floats, t: Floats, start: Floats, steps: int) -> tuple[float, Floats]:
        """Least misfit and its hyperparameters, for rows (n, genes) and target (n,)."""
        return optimise(
            lambda p: self._misfit(p, z, t), self.prior, steps=steps, slopes=True, start=start
        )


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
        self.hyperparameters: Floats = np.empty(0)

    def fit(self, codes: npt.ArrayLike, target: npt.ArrayLike, seed: int = 0) -> TabularRegressor:
        """Learn from rows.

        Args:
            codes: Genes, (n, genes), small numbers.
            target: What to learn, (n,), in any unit, finite.
            seed: Which 200 rows choose scale and warp, and which 2,500 are fitted on, of more.
        Raises:
            InvalidArgument: Shapes differ, or a number is not finite.
            NotEnoughData: Fewer than 20 rows, or a target that never changes.
        """
        x, y = np.asarray(codes, np.float64), np.asarray(target, np.float64)
        if x.ndim != 2 or y.shape != x.shape[:1] or not np.isfinite(x).all():
            raise InvalidArgument(
                f"genes must be finite, (n, genes), and the target (n,): got shapes {x.shape} and "
                f"{y.shape}"
            )
        if not np.isfinite(y).all():
            raise InvalidArgument("a target to learn must be finite in every row")
        if len(y) < MINIMUM or np.ptp(y) == 0:
            raise NotEnoughData(
                f"{len(y)} rows are too few, or all equal: a fit takes {MINIMUM} rows whose target "
                "differs"
            )
        order = np.random.default_rng(seed).permutation(len(y))[:CAPACITY]
        x, y = x[order], y[order]
        groups = np.asarray(self._groups if self._groups is not None else np.arange(x.shape[1]))
        few = slice(0, _CHOOSING)

        def compared(process: _Covariance, amount: float, p: Floats) -> tuple[float, float, Floats]:
            warped, slope = _Warp(amount, float(y.mean()), float(y.std())).forth(y[few])
            mean, spread = warped.mean(), max(warped.std(), 1e-12)
            misfit, p = process.optimise(process.scale(x[few]), (warped - mean) / spread, p, 18)
            return misfit + len(warped) * float(np.log(spread)) - slope, amount, p

        kinds = ("names",) if self._names else ("numbers", "logarithms", "names")
        processes = [_Covariance(groups, _Scale(kind, x)) for kind in kinds]
        firsts = [compared(process, 0.0, process.prior.mean) for process in processes]
        chosen = min(range(len(firsts)), key=lambda i: firsts[i][0])
        self._covariance, first = processes[chosen], firsts[chosen]
        warps = [w for w in _WARPS if w != float("-inf") or y.min() > 0]
        seconds = [compared(self._covariance, w, first[2]) for w in warps]
        _, amount, p = min([first, *seconds], key=lambda each: each[0])

        self._warp = _Warp(amount, float(y.mean()), float(y.std()))
        self.hyperparameters = p
        steps = 20 if len(y) < 2 * _CHOOSING else 10
        self._condition(x, y, steps if len(y) <= _REFINING else 0)
        return self

    def _condition(self, codes: Floats, target: Floats, steps: int) -> None:
        """Rest on these rows, (n, genes) and (n,), by the scale and the warp that were chosen, with
        hyperparameters refined by so many steps."""
        warped, _ = self._warp.forth(target)
        self._mean, self._spread = float(warped.mean()), max(float(warped.std()), 1e-12)
        t = (warped - self._mean) / self._spread
        self._z = self._covariance.scale(codes)
        if steps:
            p = self.hyperparameters
            self.hyperparameters = self._covariance.optimise(self._z, t, p, steps)[1]
        self._posterior = Posterior(self._covariance.noisy(self._z, self.hyperparameters), t)

    def predict(self, codes: npt.ArrayLike) -> tuple[Floats, Floats]:
        """The number and its standard deviation, noise included, each (n,), in the target's unit.

        Args:
            codes: Genes, (n, genes).
        """
        z = self._covariance.scale(np.asarray(codes, np.float64))
        p = self.hyperparameters
        noise = np.exp(p[-1])
        own = float(self._covariance(self._z[:1], self._z[:1], p)[0][0, 0] + noise)
        expected, deviation = np.empty(len(z)), np.empty(len(z))
        for start in range(0, len(z), 1000):
            part = slice(start, start + 1000)
            across = self._covariance(z[part], self._z, p)[0]
            left = np.maximum(self._posterior.variance(own, across), noise)
            warped = self._posterior.mean(across) * self._spread + self._mean
            expected[part], slope = self._warp.back(warped)
            deviation[part] = np.sqrt(left) * self._spread * slope
        return expected, deviation


def ridge(hot: Floats, target: Floats, rows: Floats) -> Floats:
    """Baseline for rows (m, values): a ridge on one-hot genes (n, values), by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    predicted: Floats = RidgeCV(np.logspace(-2, 3, 11)).fit(hot, target).predict(rows)
    return predicted


def booster(codes: Floats, target: Floats, rows: Floats, seed: int) -> Floats:
    """Baseline for rows (m, genes): gradient-boosted trees on codes (n, genes)."""
    trees = grown(codes, target, 1000, _TREES | {"seed": seed})
    return np.asarray(trees.predict(rows), np.float64)


def line(column: Floats, target: Floats, values: Floats) -> Floats:
    """Baseline for values (m,): a straight line in one column (n,)."""
    if np.ptp(column) == 0:
        return np.full(len(values), target.mean())
    slope, start = np.polyfit(column, target, 1)
    predicted: Floats = slope * values + start
    return predicted


def relative_line(column: Floats, target: Floats, values: Floats) -> Floats:
    """`line` by least squares of the relative error."""
    rows = np.column_stack([column, np.ones_like(column)]) / target[:, None]
    slope, start = np.linalg.lstsq(rows, np.ones_like(target), rcond=None)[0]
    predicted: Floats = slope * values + start
    return predicted
