"""A model of a new device from a source device's model and a few measurements.

The source is another device, or the same one under another runtime, that was measured in full. The
new device's operators take the source's times, times a factor that changes smoothly with the parts
that an operator is made of (`parts_process`). Its networks are summed as the source's are, with
coefficients that may move a little. Operators and whole networks measured on the new device are
both weighted sums of these unknowns, so they are fitted together, and the remaining error is known:

    factor(operator) = common · (1 + Σ over parts of share · deviation(part))
    whole = constant + Σ over operators of (coefficients · features)

How far factors deviate, and how much measurements scatter, follows by marginal likelihood.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import Conditions, Measurement, SubjectKind
from phonenas.space import Architecture, Operator, SearchSpace
from phonenas.space.errors import NotEnoughData
from phonenas.space.precision import FLOAT32
from phonenas.space.spaces import space_of

from ..calibration import FEATURES, Calibration, operator_features
from ..gaussian_process import Posterior, Prior, misfit, one_thread, optimise
from ..lookup_table import LookupTable
from ..metrics import TO_MEAN, Z90, Score, noise_of, score
from ..model import Examined, LatencyModel, OperatorTimes
from ..outliers import Outlier, apart, by_speed
from ..tabular import line
from ..units.parts import Parts, counts
from ..units.parts_process import EXPECTED, NAMES, covariance, roofline
from ..units.regressor import OperatorRegressor, TransferRegressor

__all__ = [
    "MINIMUM",
    "PRIOR",
    "SEED",
    "TransferModel",
    "Unknowns",
    "drawn",
    "fit_transfer",
    "profile_command",
]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

MINIMUM = 5  # measurements
_GOOD = 0.05  # expected error of whole networks up to which a model is called good enough
_GOALS = 300  # random networks that stand for the space
SEED = 11  # any; another than that of the networks that a profile draws
_LEAST = 0.05  # of its common factor an operator takes at least
# Hyperparameters of two devices, as logarithms: deviations between kinds of parts and within them,
# of whole operators; scatter of operators and of networks; moves of coefficients; all relative.
PRIOR = Prior(
    np.log([0.4, 0.5, 0.1, 0.04, 0.035, 0.03]), np.array([0.7, 0.7, 0.7, 0.7, 0.4, 0.7]), bounds=3
)
_ODD_RATIO = 4.0, 8.0  # to the source's time: a factor, and usual deviations from the median
_MOST_KEPT = 0.75  # of the measurements, that must remain when odd ones are left out
_STEPS, _CALLS = 12, 100  # of optimising them
_ALL = 0.3  # deviation common to all operators
_FREE = 4  # hyperparameters that few measurements must determine beside what is predicted
_BELIEF = 5.0  # networks that the expected scatter counts for, beside those measured


@dataclass(frozen=True)
class TransferModel:
    """A model of a new device from a source device, and how accurate it expects to be.

    Args:
        model: Ready for use; operators that were not measured are not covered.
        source: Name of the source device.
        expected_mape: Mean relative error that it expects on random networks of the space.
        factor: By how much the new device is slower than the source, in the median.
        operators, networks: How many of each it was fitted on.
        source_precision: Of the source, where that is the same device in another precision.
    """

    model: LatencyModel
    source: str
    expected_mape: float
    factor: float
    operators: int
    networks: int
    source_precision: str = ""

    @property
    def good(self) -> bool:
        """Whether it expects to be within 5 % of whole networks, in the mean."""
        return self.expected_mape <= _GOOD

    def __str__(self) -> str:
        of = f" in {self.source_precision}" if self.source_precision else ""
        text = (
            f"fitted from {self.source}{of}, {self.operators} operators and {self.networks} "
            f"networks: {self.factor:.2f} times {self.source}'s time{of} in the median; the "
            f"expected error on networks of the space is {self.expected_mape:.1%}"
        )
        if self.good:
            return text
        more = 2 * (self.operators + self.networks)
        return (
            f"{text}\nNOT GOOD ENOUGH for less than {_GOOD:.0%}. Measure more:  "
            f"{profile_command(self.model.conditions, self.source, more)}, then fit again"
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        kept = ("expected_mape", "factor", "operators", "networks")
        values = {name: getattr(self, name) for name in kept}
        of = self.source_precision or None
        return {"device": self.source, "precision": of, "good_enough": self.good, **values}


def profile_command(conditions: Conditions, source: str, measurements: int) -> str:
    """The command that measures so much of a device for its model from a source device."""
    words = ["phonenas", "profile", "--device", conditions.device, "--like", source]
    if conditions.precision != FLOAT32:
        words += ["--precision", conditions.precision]
    return shlex.join([*words, "--measurements", str(measurements)])


def drawn(space: SearchSpace, seed: int) -> list[Architecture]:
    """Random networks that stand for a space."""
    genomes = space.sample(np.random.default_rng(seed), _GOALS)
    return [space.decode(g) for g in genomes]


class Unknowns:
    """The unknowns of a new device, and how networks depend on them.

    Unknowns are the deviations of the operators' factors, one common to all, and a move of each
    coefficient of the calibration.
    """

    def __init__(self, source: LatencyModel, operators: Sequence[Operator]) -> None:
        self.source, self.operators = source, list(operators)
        self.many = len(self.operators)
        self.ms = source.times.ms(self.operators)
        # Of what the source predicts itself, relative; 0 of what it measured.
        errors_ms = np.array([source.times.row(o)[-3] for o in self.operators], np.float64)
        self.source_error = errors_ms / self.ms
        times = source.times
        self._alike = times.error_correlation if isinstance(times, OperatorTimes) else 0.0
        regressor = source.regressor
        own = regressor.hyperparameters if isinstance(regressor, OperatorRegressor) else EXPECTED
        self._hyperparameters = np.array(own, np.float64)
        self._parts = self.parts_of(range(self.many))
        self.features = np.array(
            [operator_features(o, t) for o, t in zip(self.operators, self.ms, strict=True)]
        )
        # Features that are times of operators follow their factor, the others the common one.
        self.timed = np.array([name.endswith("ms") for name in FEATURES])

    def parts_of(self, places: Sequence[int] | Rows) -> tuple[Parts, Any, Floats]:
        """Parts of some operators, each one's shares of them, and its source's error, (places,),
        for `prior`."""
        parts = Parts([self.operators[i] for i in places])
        errors = self.source_error[np.asarray(places, np.intp)]
        return parts, roofline(parts, self._hyperparameters)[1], errors

    def prior(self, settings: Floats, of: tuple[Parts, Any, Floats] | None = None) -> Floats:
        """Covariance of the unknowns before measuring, (unknowns, unknowns).

        A factor that deviates and an error of the source's time are one to a measurement: both
        are in it, and what is measured takes both back.

        Args:
            settings: Hyperparameters of the two devices, (6,).
            of: `parts_of` the operators that take part; by default all.
        """
        parts, shares, errors = of or self._parts
        p = self._hyperparameters.copy()
        p[NAMES.index("all")] = np.log(_ALL)
        p[NAMES.index("kind")] = settings[0]
        for name in ("of_pointwise", "of_depthwise", "of_dense", "of_others"):
            p[NAMES.index(name)] = settings[1]
        p[NAMES.index("whole")] = settings[2]
        inner = covariance(parts, shares, parts, shares, p)
        # As over the source's own networks, a share of its errors is common to all.
        inner += self._alike * np.outer(errors, errors) + (1 - self._alike) * np.diag(errors**2)
        many, extra = len(inner), len(FEATURES) + 1
        total = np.zeros((many + 1 + extra,) * 2)
        total[:many, :many] = inner
        total[: many + 1, many] = total[many, : many + 1] = _ALL**2
        moves = np.arange(many + 1, many + 1 + extra)
        total[moves, moves] = np.exp(2 * settings[5])
        return total

    def rows(self, networks: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """What a unit of each unknown adds to each network, relative, (networks, unknowns).

        Second, the size of each column of the calibration, (features + 1,): moves are in its unit.
        """
        number = counts([a.operators() for a in networks], self.operators)
        c = self.source.calibration
        coefficients = np.asarray(c.coefficients)
        summed = number @ self.features
        whole = c.whole_ms(summed)
        timed = number * (self.features[:, self.timed] @ coefficients[self.timed])
        timed /= whole[:, None]
        columns = np.column_stack([summed, np.ones(len(summed))]) / whole[:, None]
        scale = np.maximum(np.sqrt(np.mean(columns**2, axis=0)), 1e-12)
        return np.column_stack([timed, 1 - timed.sum(axis=1), columns / scale]), scale


@one_thread
def fit_transfer(
    source: LatencyModel,
    conditions: Conditions,
    measurements: Sequence[Measurement],
    space: SearchSpace | None = None,
) -> TransferModel:
    """A model of a new device from a source device's and from a few measurements.

    Args:
        source: Model of a device that was measured in full.
        conditions: What the new device was measured under.
        measurements: Of the new device: operators that the source knows, and whole networks.
        space: Whose networks `expected_mape` is about, and whose operators the model shall know;
            by default the operators that the source measured, those of their space that it
            predicts, and the networks of its score.
    Raises:
        NotEnoughData: Fewer than 5 measurements, or no network at all to estimate an error on.
        UncoveredOperator: The source knows an operator neither from its table nor its regressor.
    """
    measurements, _ = by_speed(measurements)
    table = LookupTable.of(measurements)
    wholes = [m for m in measurements if m.kind == "network"]
    count = len(table) + len(wholes)
    if count < MINIMUM:
        raise NotEnoughData(
            f"{count} measurements are too few to predict {conditions.device} from "
            f"{source.device}; it takes {MINIMUM}. Measure more:  "
            + profile_command(conditions, source.device, 30)
        )
    networks = [Architecture.parse(m.subject) for m in wholes]
    whole_ms = np.array([m.latency_ms for m in wholes], np.float64)
    # Without a space, the networks of the source's score stand for those to come.
    goals = [Architecture.parse(e.network) for e in source.examined] or networks
    if space is not None:
        goals = drawn(space, SEED + 1)
    if not goals:
        raise NotEnoughData(
            f"no whole network is known on which to estimate the error for {conditions.device}: "
            "measure some, or name the space"
        )
    operators = dict.fromkeys(space.operators() if space is not None else _known_to(source))
    operators.update(dict.fromkeys(table.ms))
    operators.update(dict.fromkeys(o for a in (*networks, *goals) for o in a.operators()))
    unknowns = Unknowns(source, list(operators))
    many, place = unknowns.many, {o: i for i, o in enumerate(operators)}
    ones = np.array([place[o] for o in table.ms], np.intp)
    every, scale = unknowns.rows([*networks, *goals])
    rows, of_goals = every[: len(networks)], every[len(networks) :]
    by_source = source.latency_ms(networks) if networks else np.empty(0)
    single = np.array(list(table.ms.values()), np.float64) / unknowns.ms[ones]
    ratios = np.concatenate([single, whole_ms / by_source])
    common = float(np.exp(np.median(np.log(ratios))))
    odd = apart(np.log(ratios), *_ODD_RATIO)
    if not odd.any():
        e = _estimated(unknowns, ones, rows, ratios / common - 1)
        odd = apart(np.log(ratios / common / np.maximum(e.left_out, _LEAST)))
    if odd.any() and (~odd).sum() >= max(MINIMUM, _MOST_KEPT * len(odd)):
        expected = common * np.concatenate([unknowns.ms[ones], by_source])
        ms = ratios * expected / common
        texts = [*(o.key for o in table.ms), *(m.subject for m in wholes)]
        kinds: list[SubjectKind] = ["operator" for _ in ones]
        kinds += ["network" for _ in wholes]
        found = [Outlier(kinds[i], texts[i], ms[i], expected[i]) for i in np.flatnonzero(odd)]
        names = {o.subject for o in found}
        rest = [m for m in measurements if m.subject not in names]
        without = fit_transfer(source, conditions, rest, space)
        outliers = (*found, *without.model.outliers)
        return replace(without, model=replace(without.model, outliers=outliers))
    if odd.any():  # so many are no errors: the two devices differ so
        e = _estimated(unknowns, ones, rows, ratios / common - 1)

    factors = np.maximum(1 + e.mean[:many], _LEAST)
    operator_noise, network_noise = np.exp(2 * e.settings[3:5])
    error = np.sqrt(np.maximum(np.diag(e.covariance)[:many], 0) + operator_noise)
    error = np.hypot(error, factors - (1 + e.mean[:many])) / factors  # what was cut off is error
    pairs = zip((common * unknowns.ms * factors).tolist(), error.tolist(), strict=True)
    scale_alone, scale_whole = e.interval_scales
    regressor = TransferRegressor(
        {o: (ms, scale_alone * d) for o, (ms, d) in zip(operators, pairs, strict=True)},
        source.device,
    )
    left = np.maximum(((of_goals @ e.covariance) * of_goals).sum(axis=1), 0)
    goal_error = scale_whole * np.sqrt(left + network_noise)
    goal_error /= np.maximum(1 + of_goals @ e.mean, _LEAST)
    times = OperatorTimes(conditions=conditions, table=table, regressor=regressor)
    calibration = replace(
        _moved(unknowns, common, e.mean[many:], scale),
        half_width=Z90 * float(np.sqrt(np.mean(goal_error**2))),
        networks=len(networks),
    )
    # The half-width holds the error of unmeasured operators already, as in the goals.
    calibration = times.attributed(calibration, times.rows(goals))
    predicted = e.left_out[len(ones) :]
    predicted = np.maximum(predicted, _LEAST)
    half = Z90 * scale_whole * e.deviation[len(ones) :] / predicted
    ms = common * by_source * predicted
    columns = np.stack([ms, ms / (1 + half), ms * (1 + half), whole_ms], axis=1).tolist()
    examined = tuple(Examined(str(a), *row) for a, row in zip(networks, columns, strict=True))
    last = max(measurements, key=lambda m: m.entry)
    model = LatencyModel(
        times=times,
        calibration=calibration,
        examined=examined,
        scores=_scores(examined, by_source, noise_of(wholes)),
        measurements=count,
        until=last.at,
        last=last.entry,
    )
    mean_error = TO_MEAN * float(np.mean(goal_error))
    of = source.conditions.precision if source.device == conditions.device else ""
    return TransferModel(model, source.device, mean_error, common, len(table), len(networks), of)


def _known_to(source: LatencyModel) -> list[Operator]:
    """The operators that a source device measured, and those of the same space that it predicts."""
    measured, regressor = list(source.table.ms), source.regressor
    space = None if regressor is None else space_of(measured)
    if regressor is None or space is None:
        return measured
    others = [o for o in space.operators() if o not in source.table]
    return [*measured, *(o for o in others if regressor.reaches(o))]


@dataclass(frozen=True)
class _Estimate:
    """What measurements say of the unknowns.

    Args:
        mean, covariance: Of the unknowns, (unknowns,) and (unknowns, unknowns).
        settings: Hyperparameters, (6,).
        left_out, deviation: Each measurement as the others predict it, relative to the common
            factor, and that prediction's standard deviation, (measurements,).
        interval_scales: Factors of the standard errors of operators and of networks.
    """

    mean: Floats
    covariance: Floats
    settings: Floats
    left_out: Floats
    deviation: Floats
    interval_scales: tuple[float, float]


def _estimated(unknowns: Unknowns, ones: Rows, rows: Floats, off: Floats) -> _Estimate:
    """The unknowns from operators, at places `ones`, and networks, `rows`.

    Args:
        unknowns: Before measuring.
        ones: Places of the operators measured, (k,).
        rows: Of the networks measured, (n, unknowns).
        off: Measurements relative to the common factor, less 1: operators, then networks, (k + n,).
    """
    total = unknowns.many + 1 + len(FEATURES) + 1
    what = np.concatenate([np.eye(total)[ones], rows.reshape(-1, total)])
    # Only operators that a measurement depends on take part while the settings are optimised.
    used = np.union1d(ones, np.flatnonzero(rows[:, : unknowns.many].any(axis=0))).astype(np.intp)
    short = what[:, np.concatenate([used, np.arange(unknowns.many, total)])]
    some = unknowns.parts_of(used)

    def scatter(settings: Floats) -> Floats:
        s = np.exp(2 * settings)
        return np.concatenate([np.full(len(ones), s[3]), np.full(len(rows), s[4])]) * (1 + off) ** 2

    def misfit_of(settings: Floats) -> float:
        prior = unknowns.prior(settings, some)
        return misfit(short @ prior @ short.T + np.diag(scatter(settings)), off)

    settings = optimise(misfit_of, PRIOR, steps=_STEPS, calls=_CALLS)[1]
    prior = unknowns.prior(settings)
    across = prior @ what.T
    posterior = Posterior(what @ across + np.diag(scatter(settings)), off)
    error, deviation = posterior.leave_one_out()
    squares = (error / deviation) ** 2
    few = len(off) / max(len(off) - _FREE, 1)
    scales = [
        float(np.sqrt(few * (_BELIEF + part.sum()) / (_BELIEF + len(part))))
        for part in (squares[: len(ones)], squares[len(ones) :])
    ]
    return _Estimate(
        mean=posterior.mean(across),
        covariance=posterior.covariance(prior, across),
        settings=settings,
        left_out=1 + off - error,
        deviation=deviation,
        interval_scales=(scales[0], scales[1]),
    )


def _moved(unknowns: Unknowns, common: float, mean: Floats, scale: Floats) -> Calibration:
    """The source's calibration, moved: in times of operators as it is, in all else scaled.

    Args:
        unknowns: With the source.
        common: Factor of all.
        mean: The common deviation, then the move of each coefficient, (features + 2,).
        scale: Of `Unknowns.rows`, (features + 1,).
    """
    c, shift, moves = unknowns.source.calibration, mean[0], mean[1:]
    level = np.where(unknowns.timed, 1.0, common * (1 + shift))
    # A move is relative to the prediction; features that are times are the new device's by now.
    unit = np.where(unknowns.timed, 1.0, common) / scale[:-1]
    coefficients = np.asarray(c.coefficients) * level + moves[:-1] * unit
    constant = c.constant * common * (1 + shift) + moves[-1] * common / scale[-1]
    return replace(
        c.scaled(common), coefficients=tuple(map(float, coefficients)), constant=float(constant)
    )


def _scores(examined: Sequence[Examined], by_source: Floats, noise: float) -> dict[str, Score]:
    """Of the model, of the source's times one factor, of MACs; each network left out in turn."""
    if len(examined) < 3:
        return {}
    measured = np.array([e.measured_ms for e in examined])
    rows = np.array([[e.predicted_ms, e.low_ms, e.high_ms] for e in examined])
    logs = np.log(measured / by_source)
    scaled = [ms * np.exp(np.median(np.delete(logs, i))) for i, ms in enumerate(by_source)]
    macs = np.array([Architecture.parse(e.network).macs for e in examined], float)
    rest = [np.arange(len(macs)) != i for i in range(len(macs))]
    by_macs = score([line(macs[r], measured[r], macs[~r])[0] for r in rest], measured)
    own = {"noise": noise, "macs_mape": by_macs.mape}
    return {
        "model": score(rows[:, 0], measured, rows[:, 1], rows[:, 2], **own),
        "relative": score(scaled, measured, noise=noise),
        "macs": by_macs,
    }
