"""Rates of terms, and corrections by shape, from networks observed whole.

A kernel takes

    time = (Σ over terms of rate · amount) · (1 + correction(shape))

Rates are positive. Their logarithms are normal about what arithmetic, memory and dispatch cost
relative to the multiply-adds of a 1×1 convolution (`PROFILES`), with one free scale for the whole
device, and a shared deviation for terms that belong together (all launches, all maps). The
correction is a Gaussian process over the shapes of kernels of one sort (Matérn 3/2), on inducing
kernels. A network is the sum, seen with relative noise: each its own (Student's t, for phones
throttle), and one that its whole family shares, since what the terms leave out is alike within a
family. Without that share, sixteen widths of one network would outvote all others.

The posterior is Laplace's: the mode by Gauss-Newton, the covariance about it.

Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 5 and 8
(inducing points); Lange, Little and Taylor, Robust Statistical Modeling Using the t Distribution,
JASA 1989 (weights).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from phonenas.space import Kernel

from ..gaussian_process import squared_distances
from .terms import SORTS, TERMS, shape_of, sort_of, terms

__all__ = ["GROUPS", "PROFILES", "Basis", "Observed", "Posterior", "Profile", "fit", "profile_of"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

_INDUCING = 20  # kernels of each sort, at most
_COVERED = 0.02  # of a shape's variance left by those chosen, where no more are
_STEPS, _LONGEST, _SMALL = 12, 1.0, 1e-3  # of Gauss-Newton, in logarithms
_TAIL = 4.0  # degrees of freedom
_LEAST = 0.2  # of its terms' time a kernel takes at least
_FREE = 5.0  # deviation of a device's scale, in logarithms
_WIDEST = 1.2  # deviation of a cost, in logarithms
_RANK = 56  # directions of the posterior that are kept


@dataclass(frozen=True)
class Profile:
    """What is expected of one kind of unit, and how surely.

    Args:
        costs: Logarithm of each group's cost in multiply-adds of a 1×1 convolution.
        shared: Standard deviation of what a group's terms share, in logarithms.
        own: Of what each term has for itself.
        amplitude: Of the correction by shape.
        noise: Of a network, relative.
        family: Of what a family shares, relative.
        slope: Likewise, for each doubling of a network's size within its family.
    """

    costs: dict[str, float]
    shared: float
    own: float
    amplitude: float
    noise: float
    family: float
    slope: float

    def wide(self) -> Profile:
        """The same expectations, less surely held: for runtimes unlike those they are from."""
        return replace(
            self,
            shared=min(10 * self.shared, _WIDEST),
            own=min(4 * self.own, _WIDEST),
            amplitude=2 * self.amplitude,
        )


_NAMES = [
    "run",
    "launch",
    "step",
    "conv",
    "taps",
    "maps",
    "others",
    "dw",
    "dw_wide",
    "dw_maps",
    "weights",
    "group",
    "group_maps",
]


def _profile(costs: Sequence[float], *rest: float) -> Profile:
    return Profile(dict(zip(_NAMES, costs, strict=True)), *rest)


# Chosen on Pixel 4 and iPhone 7 under TFLite.
PROFILES: dict[str, Profile] = {
    "cpu-float": _profile(
        (12.4, 13.6, 10.5, 0.0, -0.2, 1.3, 2.5, 1.9, 1.9, 2.5, 1.5, 2.6, 1.1),
        0.12,
        0.14,
        0.14,
        0.019,
        0.03,
        0.009,
    ),
    "cpu-int8": _profile(
        (14.0, 13.7, 11.2, 1.3, -1.8, 3.2, 3.0, 2.9, 2.9, 3.9, 2.2, 5.6, 5.4),
        0.11,
        0.26,
        0.12,
        0.024,
        0.02,
        0.009,
    ),
    "gpu": _profile(
        (18.4, 15.3, 12.8, 1.2, 0.1, 3.4, 2.5, 2.9, 2.9, 1.6, 3.7, 1.1, 2.5),
        0.22,
        1.2,
        0.13,
        0.051,
        0.02,
        0.005,
    ),
}


def profile_of(provider: str, precision: str) -> Profile:
    """What is expected under conditions: on a GPU, or a core with integers or floats."""
    return PROFILES[_kind(provider, precision)]


def _kind(provider: str, precision: str) -> str:
    if provider.lower() not in ("cpu", "cpuexecutionprovider", "xnnpack", ""):
        return "gpu"
    return "cpu-int8" if precision.startswith(("int8", "uint8", "quant")) else "cpu-float"


_SMALL_LAUNCHES = ("linear", "mean", "pool", "concat", "add", "mul", "act")
# Of each term: its place in `Profile.costs`, the group that it shares a deviation with, and its own
# deviation where that is not the profile's.


def _expected(name: str) -> tuple[str, str, float | None]:
    head, _, of = name.partition("_")
    if name == "run":
        return "run", "", 1.0
    if head == "launch":
        return ("step", "steps", None) if of in _SMALL_LAUNCHES else ("launch", "launches", None)
    if head == "macs" and of.startswith("conv"):
        return "conv", "", 0.3
    if head == "macs" and of.startswith("dw"):
        return ("dw_wide" if "wide" in of else "dw"), "dw", None
    special: dict[str, tuple[str, str, float | None]] = {
        "taps_conv": ("taps", "", 0.7),
        "macs_group": ("group", "", 0.8),
        "maps_group": ("group_maps", "", 1.0),
        "macs_pool": ("pool", "", 0.7),
        "in_conv": ("maps", "maps", None),
        "out_conv": ("maps", "maps", None),
        "in_dw": ("dw_maps", "maps", None),
        "out_dw": ("dw_maps", "maps", None),
    }
    if name in special:
        return special[name]
    return ("weights", "weights", None) if head == "weights" else ("others", "others", None)


_EXPECTED = [_expected(name) for name in TERMS]
_GROUPS = [g for g in dict.fromkeys(g for _, g, _ in _EXPECTED) if g]
#: Which terms share a deviation, (terms, groups).
GROUPS: Floats = np.array([[float(g == name) for name in _GROUPS] for _, g, _ in _EXPECTED])
# Logarithms of rates from (scale, shares of groups, own), (terms, 1 + groups + terms).
_SPREAD: Floats = np.column_stack([np.ones(len(TERMS)), GROUPS, np.eye(len(TERMS))])
_CONV1 = TERMS.index("macs_conv1")
_RUN = TERMS.index("run")


def _prior(profile: Profile) -> tuple[Floats, Floats]:
    """Mean of the logarithms of rates, (terms,), and deviations of what `_SPREAD` adds."""
    costs = {**profile.costs, "pool": 1.0}
    mean = np.array([costs[name] for name, *_ in _EXPECTED])
    mean[_CONV1] = 0.0
    own = [profile.own if d is None else d for *_, d in _EXPECTED]
    return mean, np.array([_FREE, *[profile.shared] * len(_GROUPS), *own])


class Basis:
    """Inducing kernels, and the correction's functions on them.

    Args:
        inducing: Kernels of each of `SORTS`, by sort.
        reach: By sort, the greatest share of variance missed at a kernel that was observed.
    """

    def __init__(
        self, inducing: dict[str, tuple[Kernel, ...]], reach: dict[str, float] | None = None
    ) -> None:
        self.inducing, self.reach = inducing, reach or {}
        self._shapes: dict[str, Floats] = {}
        self._inverse: dict[str, Floats] = {}
        self.at: dict[str, slice] = {}
        self.size = 0
        for sort in SORTS:
            chosen = inducing.get(sort, ())
            if not chosen:
                continue
            shapes = np.array([shape_of(k) for k in chosen])
            lower = np.linalg.cholesky(_matern(shapes, shapes) + 1e-6 * np.eye(len(shapes)))
            self._shapes[sort], self._inverse[sort] = shapes, np.linalg.inv(lower).T
            self.at[sort] = slice(self.size, self.size + len(shapes))
            self.size += len(shapes)

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> Basis:
        """Chosen among kernels, those first that the ones before tell least of."""
        inducing: dict[str, tuple[Kernel, ...]] = {}
        for sort in SORTS:
            mine: dict[tuple[float, ...], Kernel] = {}
            for kernel in kernels:
                if sort_of(kernel) == sort:
                    mine.setdefault(shape_of(kernel), kernel)
            if mine:
                pool = list(mine.values())
                inducing[sort] = tuple(pool[i] for i in _spread(np.array(list(mine))))
        basis = cls(inducing)
        missed = basis.rows(kernels)[1]
        for kernel, share in zip(kernels, missed.tolist(), strict=True):
            sort = sort_of(kernel)
            basis.reach[sort] = max(basis.reach.get(sort, 0.0), share)
        return basis

    def rows(self, kernels: Sequence[Kernel]) -> tuple[Floats, Floats]:
        """Functions at kernels, (n, size), and the share of variance that they miss, (n,)."""
        values, missed = np.zeros((len(kernels), self.size)), np.zeros(len(kernels))
        sorts = np.array([sort_of(k) for k in kernels])
        for sort in SORTS:
            here = np.flatnonzero(sorts == sort)
            if not len(here):
                continue
            missed[here] = 1.0
            if sort in self.at:
                shapes = np.array([shape_of(kernels[int(i)]) for i in here])
                at = _matern(shapes, self._shapes[sort]) @ self._inverse[sort]
                values[here, self.at[sort]] = at
                missed[here] = np.maximum(0.0, 1 - np.sum(at**2, axis=1))
        return values, missed


def _matern(a: Floats, b: Floats) -> Floats:
    r = np.sqrt(3 * squared_distances(a, b))
    values: Floats = (1 + r) * np.exp(-r)
    return values


def _spread(shapes: Floats) -> list[int]:
    """Rows of shapes, (n, d), by a pivoted Cholesky factor of their covariance."""
    correlation = _matern(shapes, shapes)
    left, lower = np.ones(len(shapes)), np.zeros((len(shapes), 0))
    chosen: list[int] = []
    while len(chosen) < min(_INDUCING, len(shapes)):
        place = int(np.argmax(left))
        if left[place] < _COVERED:
            break
        column = (correlation[:, place] - lower @ lower[place]) / np.sqrt(left[place])
        lower = np.column_stack([lower, column])
        left = left - column**2
        chosen.append(place)
    return chosen


class Observed:
    """Networks as sums of terms and of corrected terms; what a fit needs of their kernels.

    Args:
        networks: Kernels of each, (n,).
        basis: Of the correction.
    """

    def __init__(self, networks: Sequence[Sequence[Kernel]], basis: Basis) -> None:
        place: dict[Kernel, int] = {}
        for kernels in networks:
            for kernel in kernels:
                place.setdefault(kernel, len(place))
        distinct = list(place)
        counts = np.zeros((len(networks), len(distinct)))
        for row, kernels in zip(counts, networks, strict=True):
            np.add.at(row, [place[k] for k in kernels], 1.0)
        amounts = terms(distinct)
        values, missed = basis.rows(distinct)
        self.basis = basis
        self.macs: Floats = counts @ np.array([float(k.macs) for k in distinct])
        self.plain: Floats = counts @ amounts
        self.plain[:, _RUN] = 1.0
        self.amounts, self.missed = amounts, counts * missed
        sorts = np.array([sort_of(k) for k in distinct])
        # Of each sort: which terms it has, and (n, terms, functions).
        self.corrected: list[tuple[Rows, slice, Floats]] = []
        for sort, at in basis.at.items():
            here = np.flatnonzero(sorts == sort)
            columns = np.flatnonzero(amounts[here].any(axis=0))
            block = np.einsum(
                "nu,ut,uf->ntf", counts[:, here], amounts[here][:, columns], values[here, at]
            )
            self.corrected.append((columns, at, block))

    def take(self, rows: Rows) -> Observed:
        """Some of the networks."""
        some = object.__new__(Observed)
        some.basis, some.macs, some.plain = self.basis, self.macs[rows], self.plain[rows]
        some.amounts, some.missed = self.amounts, self.missed[rows]
        some.corrected = [(c, at, np.ascontiguousarray(b[rows])) for c, at, b in self.corrected]
        return some

    def at(self, rates: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Times, (n,), and their slopes in log rates, (n, terms), and in weights, (n, size)."""
        slopes = self.plain * rates
        by_weight = np.zeros((len(slopes), self.basis.size))
        for columns, at, block in self.corrected:
            slopes[:, columns] += (block @ weights[at]) * rates[columns]
            by_weight[:, at] = np.einsum("ntf,t->nf", block, rates[columns])
        return slopes.sum(axis=1), slopes, by_weight


@dataclass(frozen=True)
class Posterior:
    """Rates and corrections, given networks.

    Args:
        log_rates: Of `TERMS`, ms per unit.
        weights: Of the basis' functions, (size,).
        factor: F of the covariance F·Fᵀ of both, (terms + size, rank).
    """

    log_rates: Floats
    weights: Floats
    factor: Floats

    def predict(self, observed: Observed, profile: Profile) -> tuple[Floats, Floats]:
        """Times of networks, (n,), ms, and their relative standard deviation, (n,)."""
        ms, slopes, by_weight = observed.at(np.exp(self.log_rates), self.weights)
        errors = np.column_stack([slopes, by_weight]) @ self.factor
        untold = observed.missed @ (observed.amounts @ np.exp(self.log_rates)) ** 2
        variance = np.sum(errors**2, axis=1) + profile.amplitude**2 * untold
        own = profile.noise**2 + profile.family**2
        return ms, np.sqrt(variance / ms**2 + own)


def family_covariance(families: Sequence[Hashable], macs: Floats, profile: Profile) -> Floats:
    """Covariance of what networks of one family share, relative, (n, n)."""
    known = {f: i for i, f in enumerate(dict.fromkeys(families))}
    at = np.array([known[f] for f in families])
    total = np.zeros((len(at), len(at)))
    size = np.log2(np.maximum(macs, 1.0))
    for i in range(len(known)):
        here = np.flatnonzero(at == i)
        apart = size[here] - size[here].mean()
        total[np.ix_(here, here)] = profile.family**2 + profile.slope**2 * np.outer(apart, apart)
    return total


def fit(
    observed: Observed,
    ms: Floats,
    families: Sequence[Hashable],
    profile: Profile,
    rank: int = _RANK,
) -> Posterior:
    """The posterior of rates and corrections.

    Args:
        observed: Networks, n of them.
        ms: Their times, (n,), ms, > 0.
        families: Of each.
        profile: What is expected.
        rank: Directions of the covariance that are kept; 0 where no interval is needed.
    """
    from scipy import linalg

    mean, deviations = _prior(profile)
    size, many = observed.basis.size, len(deviations)
    deviation = np.concatenate([deviations, np.full(size, profile.amplitude)])
    state = np.zeros(many + size)
    mean = mean + np.log(np.median(ms / observed.at(np.exp(mean), np.zeros(size))[0]))
    shared = family_covariance(families, observed.macs, profile)
    own = profile.noise
    whole = linalg.cho_factor(shared + own**2 * np.eye(len(ms)))
    for _ in range(_STEPS):
        whole_ms, slopes, by_weight = observed.at(
            np.exp(mean + _SPREAD @ state[:many]), state[many:]
        )
        error = 1 - whole_ms / ms
        jacobian = np.column_stack([slopes @ _SPREAD, by_weight]) / ms[:, None]
        apart = own**2 * linalg.cho_solve(whole, error)  # its own share of each error
        weight = (_TAIL + 1) / (_TAIL + (apart / own) ** 2)
        steps = jacobian * deviation
        covariance = steps @ steps.T + shared + np.diag(own**2 / weight)
        inverse = linalg.cho_factor(covariance)
        target = steps.T @ linalg.cho_solve(inverse, error + jacobian @ state)
        move = target * deviation - state
        longest = float(np.abs(move[:many]).max())
        state = state + move * min(1.0, _LONGEST / max(longest, 1e-12))
        if longest < _SMALL:
            break
    log_rates, weights = mean + _SPREAD @ state[:many], state[many:]
    if not rank:
        return Posterior(log_rates, weights, np.zeros((len(log_rates) + size, 0)))
    # Covariance: D - D Jᵀ K⁻¹ J D, of which the main directions are kept.
    known = linalg.solve_triangular(np.linalg.cholesky(covariance), steps, lower=True)
    turn = np.zeros((len(TERMS) + size, len(state)))
    turn[: len(TERMS), :many], turn[len(TERMS) :, many:] = _SPREAD, np.eye(size)
    turn *= deviation
    left = turn @ (np.eye(len(state)) - known.T @ known) @ turn.T
    values, vectors = np.linalg.eigh((left + left.T) / 2)
    kept = slice(-min(rank, len(values)), None)
    factor = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0))
    return Posterior(log_rates, weights, factor)
