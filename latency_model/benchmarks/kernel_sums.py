"""From the times of kernels to whole networks, with an interval.

A network takes more than its kernels measured one by one: it is started and its result is fetched,
each launch waits for the one before, clocks rise with the work, weights and maps are not in the
cache as they are for a repeated kernel, and some operations were never measured alone. The whole
is linear in a few sums over its kernels:

    whole = Σ over features of (coefficient · sum)

The coefficients come from networks measured whole, by least squares of the relative error with a
ridge towards "the whole is the sum". A few dozen networks do not determine which sums take part,
and how strong the ridge is: all choices are averaged, by the error of each on networks left out;
more sums must lower it to have an equal share.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, NotEnoughData
from phonenas.space.kernels.kernel import Kernel

__all__ = ["FEATURES", "MINIMUM", "KernelSum", "sums"]

Floats = npt.NDArray[np.float64]

FEATURES = (
    "ms",
    "unlisted_ms",
    "constant",
    "unusual_ms",
    "root_ms",
    "launches",
    "activations",
    "weights",
)
MINIMUM = 8  # networks; fewer determine no coefficient
_LEVEL = 0.90
_SETS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (0, 1, 2, 3),
    (0, 1, 2, 4),
    (0, 1, 2, 3, 4),
    (0, 1, 2, 3, 4, 5),
    (0, 1, 2, 3, 4, 5, 6, 7),
)
_RIDGES = (1e-3, 1e-2)
_EARNED = 0.97  # ratio by which a further feature must lower the error for an equal share
_SHARP = 10  # power of the error left out by which choices are weighed
_PLAIN = 5  # features up to which a set alone may widen the interval
_FOLDS = 10
_ENDS = 3  # a third at either end of the range is left out for the interval


def sums(
    kernels: Sequence[Kernel],
    ms: npt.ArrayLike,
    unlisted_ms: float = 0.0,
    unusual: npt.ArrayLike | None = None,
) -> Floats:
    """What a network's kernels add up to, in the order of `FEATURES`.

    Args:
        kernels: Of one network, in any order.
        ms: Time of each alone, (kernels,), ms.
        unlisted_ms: Time of what the network has beside them, where nothing like it was measured.
        unusual: Where the runtime takes special code, (kernels,), as for a winograd: in a network
            that is several launches.
    Returns:
        Time in ms; that of what is not listed; one; the time of the unusual; the square root of
        the time, for clocks that rise; launches; activations read and written, in millions;
        weights, in millions.
    Raises:
        InvalidArgument: Lengths differ.
    """
    times = np.asarray(ms, np.float64)
    odd = np.zeros(len(kernels)) if unusual is None else np.asarray(unusual, np.float64)
    if not times.shape == odd.shape == (len(kernels),):
        raise InvalidArgument(
            f"{len(kernels)} kernels, but values of shapes {times.shape} and {odd.shape}"
        )
    total = float(times.sum())
    moved = sum(k.reads + k.writes for k in kernels) / 1e6
    weights = sum(k.params for k in kernels) / 1e6
    own = float(times @ odd)
    return np.array([total, unlisted_ms, 1.0, own, total**0.5, len(kernels), moved, weights])


@dataclass(frozen=True)
class KernelSum:
    """Whole networks from the times of their kernels.

    Args:
        coefficients: (features,), ms per unit of each feature; 0 for what takes no part.
        half_width: h of the 90 % interval, from prediction / (1 + h) to prediction · (1 + h).
        low_ms, high_ms: Range of predictions in which networks were measured.
        networks: How many it was fitted on.
        mape: Mean relative error on networks left out.
        others: Coefficients over single small sets of sums, (sets, features).
    """

    coefficients: tuple[float, ...]
    half_width: float
    low_ms: float
    high_ms: float
    networks: int
    mape: float
    others: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def fit(
        cls,
        rows: npt.ArrayLike,
        whole_ms: npt.ArrayLike,
        groups: Sequence[Hashable] | None = None,
        left_out: npt.ArrayLike | None = None,
        families: Sequence[Hashable] | None = None,
    ) -> KernelSum:
        """Fit on networks measured whole.

        Args:
            rows: `sums` of each network, (n, features), over kernels measured or predicted.
            whole_ms: Time of each network, (n,), ms, > 0.
            groups: Folds of networks, (n,): one is left out at a time; ten by default.
            left_out: `sums` of each over times by a model that was not fitted on the network,
                (n, features): what the interval must cover; by default `rows`.
            families: Of networks, (n,): errors within one are correlated, so the interval counts
                each family once; by default each network.
        Raises:
            InvalidArgument: Lengths differ, or a time is not positive.
            NotEnoughData: Fewer than 8 networks.
        """
        own, whole = np.asarray(rows, np.float64), np.asarray(whole_ms, np.float64)
        other = own if left_out is None else np.asarray(left_out, np.float64)
        if not own.shape == other.shape == (len(whole), len(FEATURES)):
            raise InvalidArgument(
                f"{len(whole)} networks, but sums of shapes {own.shape} and {other.shape}"
            )
        if len(whole) < MINIMUM:
            raise NotEnoughData(
                f"{len(whole)} whole networks are too few to fit on; it takes {MINIMUM}"
            )
        if not (np.isfinite(whole) & (whole > 0)).all():
            raise InvalidArgument("a network's time must be positive and finite, in ms")
        fold = _folds(len(whole), groups)
        choices = [_Choice(part, ridge) for part in _SETS for ridge in _RIDGES]
        each_error = np.array([_errors((own, own), whole, fold, c) for c in choices])
        needed = np.array([_EARNED ** len(choice.part) for choice in choices])
        sizes = np.maximum(np.mean(np.abs(each_error), axis=1), 1e-6) / needed
        shares = (sizes.min() / sizes) ** _SHARP
        shares /= shares.sum()
        errors = shares @ [_errors((own, other), whole, fold, c) for c in choices]
        mape = float(np.mean(np.abs(errors)))
        ratios = _ratios(errors)
        if len(whole) >= _ENDS * MINIMUM:
            # As for networks that are lighter or heavier than all that it was fitted on.
            third = np.argsort(np.argsort(whole)) * _ENDS // len(whole)
            ends = shares @ [_errors((own, other), whole, third, c) for c in choices]
            ratios = np.maximum(ratios, np.where(third == _ENDS // 2, 0.0, _ratios(ends)))
        each = np.array([choice.coefficients(own, whole) for choice in choices])
        coefficients = shares @ each
        predicted = own @ coefficients
        half_width = _quantile(ratios, list(range(len(whole))) if families is None else families)
        return cls(
            tuple(float(c) for c in coefficients),
            half_width,
            float(predicted.min()),
            float(predicted.max()),
            len(whole),
            mape,
            tuple(
                tuple(map(float, c))
                for choice, c in zip(choices, each, strict=True)
                if len(choice.part) <= _PLAIN
            ),
        )

    def predict_ms(self, rows: npt.ArrayLike) -> Floats:
        """Time of networks, (n,), ms, from their `sums`, (n, features)."""
        rows = np.atleast_2d(np.asarray(rows, np.float64))
        ms: Floats = np.maximum(rows @ np.asarray(self.coefficients), 1e-9)
        return ms

    def half_widths(self, rows: npt.ArrayLike, extrapolated: npt.ArrayLike = 0.0) -> Floats:
        """Relative half-width of each 90 % interval, (n,).

        Args:
            rows: `sums` of the networks, (n, features).
            extrapolated: What kernels beyond the measured range add, relative, (n,).

        Beyond the range of the measured networks it grows with the ratio by which the range is
        exceeded, and wherever one of the small sets of sums predicts something else.
        """
        rows = np.atleast_2d(np.asarray(rows, np.float64))
        whole = self.predict_ms(rows)
        beyond = np.maximum(1.0, np.maximum(self.low_ms / whole, whole / self.high_ms))
        apart = np.zeros(len(whole))
        if self.others:
            others = np.maximum(rows @ np.asarray(self.others).T, 1e-9) / whole[:, None]
            apart = np.max(np.maximum(others, 1 / others), axis=1) - 1
        squares = (self.half_width * beyond) ** 2 + apart**2 + np.square(extrapolated)
        return np.asarray(np.sqrt(squares), np.float64)


def _folds(n: int, groups: Sequence[Hashable] | None) -> npt.NDArray[np.intp]:
    if groups is not None:
        if len(groups) != n:
            raise InvalidArgument(f"{n} networks, but {len(groups)} groups")
        known = list(dict.fromkeys(groups))
        if len(known) > 2:
            return np.array([known.index(g) for g in groups])
    fold: npt.NDArray[np.intp] = np.random.default_rng(0).permutation(n) % min(_FOLDS, n)
    return fold


@dataclass(frozen=True)
class _Choice:
    """Which sums take part, and with which ridge."""

    part: tuple[int, ...]
    ridge: float

    def coefficients(self, rows: Floats, whole: Floats) -> Floats:
        """Of all features, 0 for those that take no part, by relative least squares.

        The ridge is towards "the whole is the sum".
        """
        from sklearn.linear_model import Ridge

        prior = np.zeros(len(self.part))
        prior[:2] = 1.0  # ms, listed or not
        columns = rows[:, self.part] / whole[:, None]
        scale = np.sqrt(np.mean(columns**2, axis=0)) + 1e-12
        line = Ridge(alpha=self.ridge * len(rows), fit_intercept=False, solver="cholesky")
        moved = line.fit(columns / scale, 1.0 - columns @ prior).coef_ / scale
        coefficients = np.zeros(len(FEATURES))
        coefficients[list(self.part)] = prior + moved
        return coefficients


def _errors(
    rows: tuple[Floats, Floats], whole: Floats, fold: npt.NDArray[np.intp], choice: _Choice
) -> Floats:
    """Signed relative errors on networks left out, (n,).

    Args:
        rows: `sums` to fit on, and those to predict from, (n, features) each.
        whole: Time of each network, (n,), ms.
        fold: Of each, (n,).
        choice: Of sums and ridge.
    """
    errors = np.empty(len(whole))
    for k in range(fold.max() + 1):
        out = fold == k
        coefficients = choice.coefficients(rows[0][~out], whole[~out])
        errors[out] = rows[1][out] @ coefficients / whole[out] - 1
    return errors


def _ratios(errors: Floats) -> Floats:
    """How far too much or too little, as a ratio less one, (n,)."""
    ratios: Floats = np.expm1(np.abs(np.log1p(np.maximum(errors, -0.99))))
    return ratios


def _quantile(ratios: Floats, families: Sequence[Hashable]) -> float:
    """What 90 % stay below, if each family counts the same, and one more that is not here."""
    known = list(dict.fromkeys(families))
    at = np.array([known.index(f) for f in families])
    shares = 1.0 / np.bincount(at)[at] / (len(known) + 1)
    order = np.argsort(ratios)
    rank = int(np.searchsorted(np.cumsum(shares[order]), _LEVEL - 1e-9))
    return float(ratios[order[min(rank, len(order) - 1)]])
