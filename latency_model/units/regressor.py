"""Times of operators that were not measured, from those that were.

`OperatorRegressor` is fitted on a device's own operators: a Gaussian process over the parts that
operators share (`parts_process`), which learns from few. From 500 operators on it is averaged with
gradient-boosted trees, which follow the steps of a runtime's kernels, by the share that served best
on operators left out. `TransferRegressor` holds what a source device and few measurements gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from functools import cached_property
from math import log
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from phonenas.data.documents import Count, Ms, Number, Share, Text, strict
from phonenas.space import Operator
from phonenas.space.errors import NotEnoughData, UnsupportedFormat

from ..metrics import TO_MEAN, Z90, quantile90
from ..trees import grown, loaded
from .parts import Parts, counts
from .parts_process import NAMES, PartsProcess

if TYPE_CHECKING:
    import lightgbm

__all__ = [
    "FEATURES",
    "MINIMUM",
    "OperatorRegressor",
    "Regressor",
    "TransferRegressor",
    "features",
    "regressor_from_dict",
]

Floats = npt.NDArray[np.float64]

_KINDS = ("stem", "conv", "dsconv", "mbconv", "head", "proj", "fused", "edge")
_SKIPS = ("none", "identity", "pool")
FEATURES = (
    "kind",
    "kernel",
    "stride",
    "expansion",
    "se_channels",
    "skip",
    "in_px",
    "out_px",
    "in_channels",
    "out_channels",
    "mid_channels",
    "log_macs",
    "log_params",
    "log_input",
    "log_middle",
    "log_output",
)
_FORM = 2  # of `to_dict`
MINIMUM = 20  # operators; fewer determine no rate
_CAPACITY = 1200  # operators that the process is fitted on, of more; its cost is cubic
_MANY = 500  # operators from which trees are grown, and which span a space's range
_LOOSE = 2.0  # ratio by which fewer operators may be exceeded
_DERIVED = FEATURES.index("log_macs")  # from here on products of the sizes before
_LOOSE_AT = np.array([n not in ("kind", "kernel", "stride", "skip") for n in FEATURES[:_DERIVED]])
_ABSENT = [FEATURES.index(n) for n in ("se_channels", "mid_channels")]
_FOLDS = 5
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the trees
_ROUNDS = 150
_TREES = {
    "seed": 0,
    "learning_rate": 0.1,
    "num_leaves": 20,
    "min_data_in_leaf": 4,
    "lambda_l2": 0.1,
    "feature_fraction": 0.8,
}
# Parts of LightGBM's text that tell how a tree was grown; none is needed to predict.
_GROWTH = ("split_gain", "leaf_weight", "leaf_count", "internal_", "tree_sizes")


def features(operator: Operator) -> list[float]:
    """Numbers of an operator for the trees, in the order of `FEATURES`."""
    middle = max(operator.mid_channels, operator.out_channels) * operator.in_px**2
    make = 3 * operator.ahead + {"hard_swish": 1, "swish": 2}.get(operator.activation, 0)
    return [
        _KINDS.index(operator.kind) + len(_KINDS) * make,  # others than ReLU's are other kinds
        operator.kernel,
        operator.stride,
        operator.expansion,
        operator.se_channels,
        _SKIPS.index(operator.skip),
        operator.in_px,
        operator.out_px,
        operator.in_channels,
        operator.out_channels,
        operator.mid_channels,
        log(operator.macs),
        log(operator.params),
        log(operator.in_channels * operator.in_px**2),
        log(middle),
        log(operator.out_channels * operator.out_px**2),
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatorRegressor:
    """Predicts an operator's time from its shapes, within the range of those it was fitted on.

    Made by `fit`, or by `from_dict` from what `to_dict` gives.
    Args:
        observed: Operator → ms, for the process: at most 1,200.
        hyperparameters: Of the process, (20,), in the order of `parts_process.NAMES`.
        low, high: Range of each of `FEATURES` over all operators that it was fitted on.
        mape: Mean relative error on operators that were left out.
        interval_scale: Factor of the process's own standard errors with which their 90 % intervals
            held 90 % of the operators that were left out, ≥ 1.
        fitted_on: Number of operators that it was fitted on.
        trees: Their share in the average, in [0, 1], and LightGBM's text; "" at share 0.
        process: Fitted on `observed` with these hyperparameters; None: it is made when needed.
    """

    observed: Mapping[Operator, float]
    hyperparameters: Floats
    low: Sequence[float]
    high: Sequence[float]
    mape: float
    interval_scale: float
    fitted_on: int
    trees: tuple[float, str] = (0.0, "")
    process: InitVar[PartsProcess | None] = None

    def __post_init__(self, process: PartsProcess | None) -> None:
        if process is not None:
            object.__setattr__(self, "_process", process)

    @classmethod
    def fit(cls, table: Mapping[Operator, float]) -> OperatorRegressor:
        """Fit on measured operators.

        Args:
            table: Operator → ms.
        Raises:
            NotEnoughData: Fewer than 20 operators.
        """
        if len(table) < MINIMUM:
            raise NotEnoughData(f"{len(table)} operators are too few for a fit; it takes {MINIMUM}")
        # In the order of their names, so that the order of measuring changes nothing.
        operators = sorted(table, key=lambda o: o.key)
        ms = np.array([table[o] for o in operators], np.float64)
        rows = np.array([features(o) for o in operators])
        kept = np.sort(np.random.default_rng(0).permutation(len(ms))[:_CAPACITY])
        process = PartsProcess.of(Parts([operators[i] for i in kept]), ms[kept])
        ratio, standard_error = process.left_out()
        error, share, text = np.log(ratio), 0.0, ""
        if len(ms) >= _MANY:
            share, error, standard_error = _cross_validated(
                operators, ms, rows, process.hyperparameters
            )
            if share:
                text = _slim(_train(rows, np.log(ms)).model_to_string())
        return cls(
            observed=dict(zip(process.parts.operators, ms[kept].tolist(), strict=True)),
            hyperparameters=process.hyperparameters,
            low=rows.min(axis=0).tolist(),
            high=rows.max(axis=0).tolist(),
            mape=float(np.abs(np.expm1(error)).mean()),
            interval_scale=max(1.0, quantile90(np.abs(error) / standard_error) / Z90),
            fitted_on=len(ms),
            trees=(share, text),
            process=process,
        )

    def reaches(self, operator: Operator) -> bool:
        """Whether the operator lies within the ranges of what was measured, kinds included.

        Few operators do not span a space's corners: below 500 sizes may be twice as large or half
        as small as any measured; `standard_error` says what that costs.
        """
        row, low, high = (np.asarray(v, float) for v in (features(operator), self.low, self.high))
        if self.fitted_on < _MANY:
            row, low, high = (v[:_DERIVED] for v in (row, low, high))
            low = np.where(_LOOSE_AT, low / _LOOSE, low)
            high = np.where(_LOOSE_AT, high * _LOOSE, high)
            # Without a squeeze, or without middle channels, is next to the smallest.
            low = np.where(np.isin(np.arange(_DERIVED), _ABSENT), 0.0, low)
        return bool(((row >= low - 1e-9) & (row <= high + 1e-9)).all())

    def predict_ms(self, operators: Sequence[Operator]) -> Floats:
        """Time of each operator alone, (n,), in ms."""
        if not operators:
            return np.empty(0)
        ms, share = self._process.predict_ms(Parts(operators)), self.trees[0]
        if not share:
            return ms
        rows = np.array([features(o) for o in operators])
        trees = np.asarray(self._booster.predict(rows, num_threads=1), np.float64)
        average: Floats = np.exp((1 - share) * np.log(ms) + share * trees)
        return average

    def standard_error(self, operators: Sequence[Operator]) -> Floats:
        """Standard error of each prediction, (n,), relative; larger far from what was measured.

        It includes the scatter of a measurement. Errors of similar operators are correlated: over
        a network they add up by more than their squares (`errors`).
        """
        if not operators:
            return np.empty(0)
        _, of_process = self._process.predict(Parts(operators))
        error: Floats = self.interval_scale * np.hypot(of_process, _noise(self.hyperparameters))
        return error

    def by_others(self, operators: Sequence[Operator]) -> tuple[Floats, Floats]:
        """Time of each operator by the process, its own observation left out.

        Returns:
            Time, (n,), ms, and its standard error, (n,), relative.
        """
        ratio, error = self._process.left_out()
        own = {
            o: (self.observed[o] * r, e)
            for o, r, e in zip(self._process.parts.operators, ratio, error, strict=True)
        }
        rest = [o for o in operators if o not in own]
        if rest:
            own |= dict(
                zip(rest, zip(*self._process.predict(Parts(rest)), strict=True), strict=True)
            )
        ms, error = np.array([own[o] for o in operators]).T
        return ms, self.interval_scale * np.hypot(error, _noise(self.hyperparameters))

    def errors(self, operators: Sequence[Operator]) -> Floats:
        """Covariance of the predictions' errors, (n, n), ms²."""
        if not operators:
            return np.empty((0, 0))
        parts = Parts(operators)
        covariance = self._process.errors(parts)
        noise = (_noise(self.hyperparameters) * self._process.predict_ms(parts)) ** 2
        covariance[np.diag_indices(len(covariance))] += noise
        return self.interval_scale**2 * covariance

    def error_correlation(
        self, networks: Sequence[Sequence[Operator]], known: Mapping[Operator, Any]
    ) -> float:
        """Correlation ρ of errors within networks: the share of them that adds up linearly.

        A network's standard error is √(ρ · (Σ d)² + (1 - ρ) · Σ d²) over its operators' standard
        errors d in ms, with the ρ in [0, 1] that is enough, by the covariance, for three in four
        of these networks.

        Args:
            networks: Operators of each network.
            known: Operators that were measured and have no such error.
        """
        unmeasured = list(dict.fromkeys(o for n in networks for o in n if o not in known))
        if not unmeasured:
            return 0.0
        rows, covariance = counts(networks, unmeasured), self.errors(unmeasured)
        d = np.sqrt(np.maximum(np.diag(covariance), 0))
        # A repeated operator has the same error each time: it counts with its number squared.
        apart, whole = (rows**2) @ d**2, np.einsum("ij,jk,ik->i", rows, covariance, rows)
        linear = (rows @ d) ** 2 - apart
        some = linear > 0
        if not some.any():
            return 0.0
        needed = (whole[some] - apart[some]) / linear[some]
        return float(np.clip(np.quantile(needed, 0.75), 0.0, 1.0))

    @cached_property
    def _process(self) -> PartsProcess:
        ms = np.array(list(self.observed.values()), np.float64)
        try:
            return PartsProcess(Parts(list(self.observed)), ms, self.hyperparameters)
        except (ValueError, np.linalg.LinAlgError) as error:
            raise UnsupportedFormat(f"the model's regressor is damaged: {error}") from error

    @cached_property
    def _booster(self) -> lightgbm.Booster:
        return loaded(self.trees[1], "the trees of the model's regressor")

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "form": _FORM,
            "features": list(FEATURES),
            "strengths": dict(zip(NAMES, self.hyperparameters.tolist(), strict=True)),
            "operators": [o.key for o in self.observed],
            "ms": list(self.observed.values()),
            "low": list(self.low),
            "high": list(self.high),
            "mape": self.mape,
            "widening": self.interval_scale,
            "taught": self.fitted_on,
            "share": self.trees[0],
            "trees": self.trees[1],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatorRegressor:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features, or in another form.
            ValueError: It is damaged.
        """
        file = strict(values, _File)
        if file.features != list(FEATURES) or file.form != _FORM or tuple(file.strengths) != NAMES:
            raise UnsupportedFormat(
                "the model's regressor is of another form; fit it again:  phonenas fit"
            )
        operators = [Operator.parse(k) for k in file.operators]
        if len(set(operators)) != len(file.ms):
            raise ValueError(f"{len(file.ms)} times of {len(set(operators))} operators")
        return cls(
            observed=dict(zip(operators, file.ms, strict=True)),
            hyperparameters=np.array([*file.strengths.values()]),
            low=file.low,
            high=file.high,
            mape=file.mape,
            interval_scale=file.widening,
            fitted_on=file.taught,
            trees=(file.share, file.trees),
        )


@dataclass(frozen=True, eq=False)
class TransferRegressor:
    """Operators' times by a source device and few measurements, for operators that it knows.

    Args:
        times: Operator → its time, ms, and its relative standard error.
        source: Name of the source device.
    """

    times: Mapping[Operator, tuple[float, float]]
    source: str

    @cached_property
    def mape(self) -> float:
        """Mean relative error that the standard errors stand for."""
        return TO_MEAN * float(np.mean([error for _, error in self.times.values()]))

    def reaches(self, operator: Operator) -> bool:
        """Whether the source device's model knows it."""
        return operator in self.times

    def predict_ms(self, operators: Sequence[Operator]) -> Floats:
        """Time of each operator alone, (n,), ms."""
        return np.array([self.times[o][0] for o in operators], np.float64)

    def standard_error(self, operators: Sequence[Operator]) -> Floats:
        """Standard error of each, (n,), relative."""
        return np.array([self.times[o][1] for o in operators], np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        rows = {o.key: [float(f"{ms:.5g}"), round(d, 4)] for o, (ms, d) in self.times.items()}
        return {"form": "relative", "relative": self.source, "told": rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransferRegressor:
        """Inverse of `to_dict`.

        Raises:
            ValueError: It is damaged.
        """
        file = strict(values, _Relative)
        return cls({Operator.parse(k): v for k, v in file.told.items()}, file.relative)


Regressor = OperatorRegressor | TransferRegressor


def regressor_from_dict(values: Mapping[str, Any]) -> Regressor:
    """The regressor that a `to_dict` gave.

    Raises:
        UnsupportedFormat: It is of a form that this phonenas does not know.
        ValueError: It is damaged.
    """
    if values.get("form") == "relative":
        return TransferRegressor.from_dict(values)
    return OperatorRegressor.from_dict(values)


_Row = Annotated[list[Number], Meta(min_length=len(FEATURES), max_length=len(FEATURES))]
_Error = Annotated[float, Meta(ge=0, le=1e6)]


class _File(msgspec.Struct):
    features: list[Text]
    strengths: dict[Text, Annotated[float, Meta(ge=-100, le=100)]]
    operators: Annotated[list[Text], Meta(min_length=1)]
    ms: list[Ms]
    low: _Row
    high: _Row
    mape: _Error
    widening: Annotated[float, Meta(gt=0, le=1e6)]
    taught: Count
    share: Share
    trees: str
    form: int | Text | None = None


class _Relative(msgspec.Struct):
    relative: Text
    told: Annotated[dict[Text, tuple[Ms, _Error]], Meta(min_length=1)]


def _noise(hyperparameters: Floats) -> float:
    return float(np.exp(hyperparameters[NAMES.index("noise")]))


def _cross_validated(
    operators: Sequence[Operator], ms: Floats, rows: Floats, hyperparameters: Floats
) -> tuple[float, Floats, Floats]:
    """Best share of the trees; logarithm of each error and its standard error, in five folds."""
    fold = np.random.default_rng(1).permutation(len(ms)) % _FOLDS
    logs, standard_error = np.empty((2, len(ms))), np.empty(len(ms))
    for k in range(_FOLDS):
        out, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        few = np.sort(np.random.default_rng(k).permutation(rest)[:_CAPACITY]).tolist()
        process = PartsProcess(Parts([operators[i] for i in few]), ms[few], hyperparameters)
        predicted, standard_error[out] = process.predict(
            Parts([operators[i] for i in out.tolist()])
        )
        logs[0, out] = np.log(predicted)
        logs[1, out] = _train(rows[rest], np.log(ms[rest])).predict(rows[out], num_threads=1)
    errors = {s: (1 - s) * logs[0] + s * logs[1] - np.log(ms) for s in _SHARES}
    best = min(_SHARES, key=lambda s: float(np.abs(errors[s]).mean()))
    return best, errors[best], np.hypot(standard_error, _noise(hyperparameters))


def _train(rows: Floats, target: Floats) -> lightgbm.Booster:
    names = {"feature_name": list(FEATURES), "categorical_feature": ["kind", "skip"]}
    return grown(rows, target, _ROUNDS, _TREES, **names)


def _slim(text: str) -> str:
    """LightGBM's text without what only tells how the trees were grown; it predicts the same."""
    lines = text.split("\nend of trees")[0].split("\n")
    kept = [line for line in lines if not line.startswith(_GROWTH)]
    return "\n".join(kept) + "\nend of trees\n"
