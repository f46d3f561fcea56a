"""A new device from a relative: its whole table as the guess, a few measurements as the news.

Another device, or the same one under another runtime, was measured in full. The new device's
operators take its times times a factor that changes smoothly with the parts that an operator is
made of (`process`), and its networks are summed as the relative's are, its coefficients moved a
little. Operators and whole networks that are measured on the new device are both weighted sums of
these unknowns, so they are learned from together, and what is left open is known:

    factor(operator) = common · (1 + Σ over parts of share · deviation(part))
    whole = constant + Σ over operators of (coefficients · features)

How far factors deviate, and how much measurements scatter, is settled by marginal likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.measurement import Conditions, Measurement
from ..space import Architecture, Operator, SearchSpace
from ..space.errors import InvalidArgument, NotEnoughData
from .calibration import FEATURES, Calibration, operator_features
from .curve import RelativeCurve
from .interval import TO_MEAN, Z90
from .lookup_table import LookupTable
from .metrics import Score, score
from .model import Examined, LatencyModel
from .parts import Parts
from .process import NAMES, PRIOR, covariance, roofline
from .regressor import OperatorRegressor
from .selection import counts, greedy
from .threads import one_thread

__all__ = [
    "MINIMUM", "Like", "choose_among", "choose_like", "fit_like", "split",
]  # fmt: skip

Floats = npt.NDArray[np.float64]

MINIMUM = 5  # measurements
_SHARE = 0.5  # of the measurements that are whole networks
_POOL = 100  # random networks of which they are chosen
_GOALS = 300  # random networks that stand for the space
_SEED = 11  # any; another than that of the networks that a profile draws
_LEAST = 0.05  # of its common factor an operator takes at least
# What is expected of two devices before the first measurement, and how far (in logarithms) each
# may lie off: deviations between kinds of parts and within them, of whole operators, scatter of
# operators and of networks, and what coefficients move, all relative.
_EXPECTED = np.log([0.4, 0.5, 0.1, 0.04, 0.035, 0.03])
_WIDE = np.array([0.7, 0.7, 0.7, 0.7, 0.4, 0.7])
_ALL = 0.3
_SOUGHT = 4  # settings that few measurements must settle beside what they tell
_BELIEF = 5.0  # networks that the expected scatter counts for, beside those measured


@dataclass(frozen=True)
class Like:
    """A model of a new device, and how good it takes itself to be.

    Args:
        model: Ready for use; operators that were not measured are not covered, and in doubt.
        expected_mape: Mean relative error that it expects on random networks of the space.
        factor: By how much the new device is slower than the relative, in the middle.
        operators, networks: How many taught it.
    """

    model: LatencyModel
    expected_mape: float
    factor: float
    operators: int
    networks: int


def split(count: int) -> tuple[int, int]:
    """So many operators and so many whole networks, of a count of measurements.

    >>> split(30)
    (15, 15)
    """
    networks = round(_SHARE * count)
    return count - networks, networks


def choose_like(
    relative: LatencyModel,
    space: SearchSpace,
    count: int,
    known: tuple[Sequence[Operator], Sequence[Architecture]] = ((), ()),
) -> tuple[tuple[Operator, ...], tuple[Architecture, ...]]:
    """What to measure on a new device, the most telling first: operators and whole networks.

    Args:
        relative: Model of the device that it is like.
        space: Whose networks shall be told.
        count: Of measurements in all, ≥ 5; those known are among them.
        known: Operators and networks that are measured; they are not chosen again.
    Raises:
        InvalidArgument: Fewer than 5, or more than the space has operators.
        UncoveredOperator: The relative lacks operators of the space.
    """
    if not MINIMUM <= count <= len(space.operators()):
        raise InvalidArgument(
            f"measurements on a device like {relative.device}: {MINIMUM} to "
            f"{len(space.operators())}, got {count}"
        )
    operators, networks = split(count)
    # A larger pool begins with the smaller one.
    rng, seen = np.random.default_rng(_SEED), dict.fromkeys(known[1])
    pool = list(seen)
    for _ in range(_POOL * (1 + networks // (_POOL // 2))):
        network = space.decode(space.sample(rng, 1)[0])
        if network not in seen:
            seen[network] = None
            pool.append(network)
    genomes = space.sample(np.random.default_rng(_SEED + 2), _GOALS)
    return choose_among(
        relative, space.operators(), pool, [space.decode(g) for g in genomes],
        max(0, operators - len(known[0])), max(0, networks - len(known[1])), known,
    )  # fmt: skip


@one_thread
def choose_among(
    relative: LatencyModel,
    candidates: Sequence[Operator],
    pool: Sequence[Architecture],
    aims: Sequence[Architecture],
    operators: int,
    networks: int,
    known: tuple[Sequence[Operator], Sequence[Architecture]] = ((), ()),
) -> tuple[tuple[Operator, ...], tuple[Architecture, ...]]:
    """So many of the candidates and of a pool of networks, for what they tell of other networks.

    Args:
        relative: Model of the device that the new one is like.
        candidates: Operators that can be measured; all that pool and aims hold.
        pool: Networks that can be measured.
        aims: Networks that shall be told.
        operators, networks: How many to choose of each.
        known: What is measured in any case, of candidates and pool; others are passed over.
    """
    likeness = _Likeness(relative, candidates)
    every = likeness.rows([*pool, *aims])
    rows, goals = every[: len(pool)], every[len(pool) :]
    s = np.exp(_EXPECTED)
    many = likeness.many
    unknowns = likeness.prior(_EXPECTED)
    what = np.concatenate([np.eye(many, unknowns.shape[0]), rows])
    prior = what @ unknowns @ what.T
    noise = np.concatenate([np.full(many, s[3] ** 2), np.full(len(rows), s[4] ** 2)])
    places = {o: i for i, o in enumerate(likeness.operators)}
    places_of = {a: many + i for i, a in enumerate(pool)}
    given = [places[o] for o in known[0] if o in places]
    given += [places_of[a] for a in known[1] if a in places_of]
    # Networks first: they settle what all have in common, and operators then what differs.
    chosen = greedy(
        prior, goals @ unknowns @ what.T, noise, operators + networks, given,
        open_to=lambda i: slice(many, None) if i < networks else slice(0, many),
    )  # fmt: skip
    return (
        tuple(likeness.operators[i] for i in chosen[networks:]),
        tuple(pool[i - many] for i in chosen[:networks]),
    )


class _Likeness:
    """The unknowns of a new device, and how networks hang on them.

    Unknowns are the factors of the operators, one common to all, and a move of each coefficient of
    the calibration; all but the common factor, deviations about it.
    """

    def __init__(self, relative: LatencyModel, operators: Sequence[Operator]) -> None:
        self.relative, self.operators = relative, list(operators)
        self.many = len(self.operators)
        self.ms = relative.operator_ms(self.operators)
        regressor = relative.regressor
        own = regressor.strengths if isinstance(regressor, OperatorRegressor) else PRIOR
        self._strengths = np.array(own, np.float64)
        self._parts = Parts(self.operators)
        self._shares = roofline(self._parts, self._strengths)[1]
        self.features = np.array(
            [operator_features(o, t) for o, t in zip(self.operators, self.ms, strict=True)]
        )
        # Features that are times of operators follow their factor, the others the common one.
        self._timed = np.array([name.endswith("ms") for name in FEATURES])

    def only(self, rows: npt.NDArray[np.intp]) -> tuple[Parts, Any]:
        """Parts and shares of some operators, for `prior`."""
        parts = Parts([self.operators[i] for i in rows])
        return parts, roofline(parts, self._strengths)[1]

    def prior(self, settings: Floats, only: tuple[Parts, Any] | None = None) -> Floats:
        """Covariance of all unknowns, or of those of `only` some operators, before measuring."""
        parts, shares = only or (self._parts, self._shares)
        strengths = self._strengths.copy()
        strengths[NAMES.index("all")] = np.log(_ALL)
        strengths[NAMES.index("kind")] = settings[0]
        for name in ("of_pointwise", "of_depthwise", "of_dense", "of_others"):
            strengths[NAMES.index(name)] = settings[1]
        strengths[NAMES.index("whole")] = settings[2]
        inner = covariance(parts, shares, parts, shares, strengths)
        many, extra = len(inner), len(FEATURES) + 1
        found = np.zeros((many + 1 + extra,) * 2)
        found[:many, :many] = inner
        found[many, :] = found[:, many] = 0.0
        found[: many + 1, many] = found[many, : many + 1] = _ALL**2
        moves = np.arange(many + 1, many + 1 + extra)
        found[moves, moves] = np.exp(2 * settings[5])
        return found

    def rows(self, networks: Sequence[Architecture]) -> Floats:
        """What a unit of each unknown adds to each network, relative, (networks, unknowns)."""
        held = counts([a.operators() for a in networks], self.operators)
        c = self.relative.calibration
        coefficients = np.asarray(c.coefficients)
        summed = held @ self.features
        whole = c.whole_ms(summed)
        timed = held * (self.features[:, self._timed] @ coefficients[self._timed])
        timed /= whole[:, None]
        columns = np.column_stack([summed, np.ones(len(summed))]) / whole[:, None]
        self.scale = np.maximum(np.sqrt(np.mean(columns**2, axis=0)), 1e-12)
        return np.column_stack([timed, 1 - timed.sum(axis=1), columns / self.scale])


@one_thread
def fit_like(
    relative: LatencyModel,
    conditions: Conditions,
    measurements: Sequence[Measurement],
    space: SearchSpace | None = None,
) -> Like:
    """A model of a new device from a relative's and from a few measurements.

    Args:
        relative: Model of a device that was measured in full.
        conditions: What the new device was measured under.
        measurements: Of the new device: operators that the relative knows, and whole networks.
        space: Whose networks `expected_mape` speaks of, and whose operators the model shall know;
            by default the operators that the relative measured, and the networks that examined it.
    Raises:
        NotEnoughData: Fewer than 5 measurements, or no network at all to judge by.
        UncoveredOperator: The relative knows an operator neither from its table nor its curve.
    """
    from scipy import linalg

    table = LookupTable.of(measurements)
    of_networks = [m for m in measurements if m.kind == "network"]
    taught = len(table) + len(of_networks)
    if taught < MINIMUM:
        raise NotEnoughData(
            f"{taught} measurements do not tell {conditions.device} from {relative.device}; it "
            f"takes {MINIMUM}. Measure more:  phonenas profile --device {conditions.device} "
            f"--like {relative.device} --measurements 30"
        )
    networks = [Architecture.parse(m.subject) for m in of_networks]
    whole_ms = np.array([m.latency_ms for m in of_networks], np.float64)
    wanted = dict.fromkeys(space.operators() if space is not None else relative.table.ms)
    wanted.update(dict.fromkeys(table.ms))
    wanted.update(dict.fromkeys(o for a in networks for o in a.operators()))
    # Without a space, the networks that examined the relative stand for those to come.
    aims = [Architecture.parse(e.network) for e in relative.examined] or networks
    if space is not None:
        genomes = space.sample(np.random.default_rng(_SEED + 1), _GOALS)
        aims = [space.decode(g) for g in genomes]
    if not aims:
        raise NotEnoughData(
            f"no whole network is known by which to judge {conditions.device}: measure some, or "
            "name the space"
        )
    wanted.update(dict.fromkeys(o for a in aims for o in a.operators()))
    likeness = _Likeness(relative, list(wanted))
    at = {o: i for i, o in enumerate(likeness.operators)}
    many = likeness.many
    ones = np.array([at[o] for o in table.ms], np.intp)
    single = np.array(list(table.ms.values()), np.float64) / likeness.ms[ones]
    every = likeness.rows([*networks, *aims])
    rows, goals = every[: len(networks)], every[len(networks) :]
    known = relative.latency_ms(networks) if networks else np.empty(0)
    ratios = np.concatenate([single, whole_ms / known])
    common = float(np.exp(np.median(np.log(ratios))))
    off = ratios / common - 1
    # Only operators that something measured hangs on, while the settings are sought.
    used = np.union1d(ones, np.flatnonzero(rows[:, :many].any(axis=0))).astype(np.intp)
    here = np.concatenate([used, np.arange(many, every.shape[1])])
    pick = np.zeros((len(ones), every.shape[1]))
    pick[np.arange(len(ones)), ones] = 1.0
    what = np.concatenate([pick, rows])
    short = what[:, here]

    def scatter(settings: Floats) -> Floats:
        s = np.exp(2 * settings)
        return np.concatenate([np.full(len(ones), s[3]), np.full(len(rows), s[4])]) * (1 + off) ** 2

    some = likeness.only(used)
    settings = _settle(
        lambda s: short @ likeness.prior(s, some) @ short.T + np.diag(scatter(s)), off
    )
    unknowns = likeness.prior(settings)
    across = unknowns @ what.T
    factor = linalg.cho_factor(what @ across + np.diag(scatter(settings)), lower=True)
    found = across @ linalg.cho_solve(factor, off)
    left = unknowns - across @ linalg.cho_solve(factor, across.T)

    # Left out one by one: what the others tell of each measurement, under the same settings.
    inverse = linalg.cho_solve(factor, np.eye(len(off)))
    error = (inverse @ off) / np.diag(inverse)
    deviation = np.sqrt(1 / np.diag(inverse))
    squares = (error / deviation) ** 2
    sought = taught / max(taught - _SOUGHT, 1)
    alone, whole = squares[: len(ones)], squares[len(ones) :]
    wider_alone = np.sqrt(sought * (_BELIEF + alone.sum()) / (_BELIEF + len(alone)))
    wider = np.sqrt(sought * (_BELIEF + whole.sum()) / (_BELIEF + len(whole)))

    factors = np.maximum(1 + found[:many], _LEAST)
    doubt = np.sqrt(np.maximum(np.diag(left)[:many], 0) + np.exp(2 * settings[3])) / factors
    ms = common * likeness.ms * factors
    curve = RelativeCurve(
        {o: (float(t), float(wider_alone * d)) for o, t, d in zip(wanted, ms, doubt, strict=True)},
        relative.device,
    )
    relative_error = (
        wider
        * np.sqrt(np.maximum(((goals @ left) * goals).sum(axis=1), 0) + np.exp(2 * settings[4]))
        / np.maximum(1 + goals @ found, _LEAST)
    )
    calibration = _calibration(
        likeness, common, found[many], found[many + 1 :],
        Z90 * float(np.sqrt(np.mean(relative_error**2))), len(networks),
    )  # fmt: skip
    bare = LatencyModel(
        conditions,
        table,
        curve,
        calibration,
        (),
        {},
        taught,
        max(m.at for m in measurements),
    )
    # The half-width holds the doubt of operators already, as it is in the networks aimed at.
    widths = bare.hole_widths(bare.rows(aims))
    calibration = replace(calibration, holes=float(np.sqrt(np.mean(widths**2))))
    told = common * known * (1 + off - error)[len(ones) :]
    examined = [
        Examined(str(a), float(t), float(t / (1 + h)), float(t * (1 + h)), float(m))
        for a, t, h, m in zip(
            networks, told, Z90 * wider * (deviation / (1 + off - error))[len(ones) :], whole_ms,
            strict=True,
        )
    ]  # fmt: skip
    model = LatencyModel(
        conditions,
        table,
        curve,
        calibration,
        examined,
        _scores(examined, known),
        taught,
        bare.until,
    )
    return Like(model, TO_MEAN * float(np.mean(relative_error)), common, len(table), len(networks))


def _settle(covariance_of: Any, off: Floats) -> Floats:
    """Settings that make the measurements, (n,) relative to the common factor, most likely."""
    from scipy import linalg, optimize

    def loss(settings: Floats) -> float:
        try:
            lower = linalg.cholesky(covariance_of(settings), lower=True)
        except linalg.LinAlgError:
            return 1e10
        white = linalg.solve_triangular(lower, off, lower=True)
        far = (settings - _EXPECTED) / _WIDE
        return float(white @ white / 2 + np.log(np.diag(lower)).sum() + far @ far / 2)

    bounds = list(zip(_EXPECTED - 3 * _WIDE, _EXPECTED + 3 * _WIDE, strict=True))
    found = optimize.minimize(
        loss, _EXPECTED, method="L-BFGS-B", bounds=bounds, options={"maxiter": 12, "maxfun": 100}
    )
    return np.asarray(found.x, np.float64)


def _calibration(
    likeness: _Likeness, common: float, shift: float, moves: Floats, half: float, networks: int
) -> Calibration:
    """The relative's calibration, moved: in times of operators as it is, in all else scaled."""
    c = likeness.relative.calibration
    level = np.where(likeness._timed, 1.0, common * (1 + shift))
    # A move is relative to the prediction; features that are times are the new device's by now.
    unit = np.where(likeness._timed, 1.0, common) / likeness.scale[:-1]
    coefficients = np.asarray(c.coefficients) * level + moves[:-1] * unit
    constant = c.constant * common * (1 + shift) + moves[-1] * common / likeness.scale[-1]
    return replace(
        c, coefficients=tuple(map(float, coefficients)), constant=float(constant), half_width=half,
        low_ms=c.low_ms * common, high_ms=c.high_ms * common, networks=networks,
    )  # fmt: skip


def _scores(examined: Sequence[Examined], known: Floats) -> dict[str, Score]:
    """Of the model, and of the relative times one factor, each network left out in turn."""
    if len(examined) < 3:
        return {}
    measured = np.array([e.measured_ms for e in examined])
    told = np.array([[e.predicted_ms, e.low_ms, e.high_ms] for e in examined])
    logs = np.log(measured / known)
    scaled = [k * np.exp(np.median(np.delete(logs, i))) for i, k in enumerate(known)]
    return {
        "model": score(told[:, 0], measured, told[:, 1], told[:, 2]),
        "relative": score(scaled, measured),
    }
