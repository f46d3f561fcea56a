"""A curve over operators, for those that were not measured.

Few measured operators teach a Gaussian process over the parts that operators share (`process`).
Many teach gradient-boosted trees as well, which follow the steps of a runtime's kernels; then the
two are averaged, by the share that served best on operators left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..space import Operator
from ..space.errors import NotEnoughData, UnsupportedFormat
from .interval import Z90
from .parts import Parts
from .process import NAMES, PartsProcess

if TYPE_CHECKING:
    import lightgbm

__all__ = ["FEATURES", "MINIMUM", "OperatorRegressor", "features"]

Floats = npt.NDArray[np.float64]

_KINDS = ("stem", "conv", "dsconv", "mbconv", "head", "proj")
_SKIPS = ("none", "identity", "pool")
FEATURES = (
    "kind", "kernel", "stride", "expansion", "se_channels", "skip", "in_px", "out_px",
    "in_channels", "out_channels", "mid_channels", "log_macs", "log_params", "log_input",
    "log_middle", "log_output",
)  # fmt: skip
_FORM = 2  # of `to_dict`
MINIMUM = 20  # operators; fewer settle no rate
_CAPACITY = 1200  # operators that teach the process, of more; its cost grows with their cube
_MANY = 500  # operators from which trees are grown, and their corners span the range
_LOOSE = 2.0  # up to which ratio fewer are believed beyond the range that they span
_DERIVED = FEATURES.index("log_macs")  # from here on products of the sizes before
_LOOSE_AT = np.array([n not in ("kind", "kernel", "stride", "skip") for n in FEATURES[:_DERIVED]])
_ABSENT = [FEATURES.index(n) for n in ("se_channels", "mid_channels")]
_FOLDS = 5
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the trees
_ROUNDS = 150
_PARAMETERS: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.1,
    "num_leaves": 20,
    "min_data_in_leaf": 4,
    "lambda_l2": 0.1,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
# What a tree needs to predict; the rest of LightGBM's text tells how it was grown.
_GROWTH = (
    "split_gain", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count",
    "tree_sizes",
)  # fmt: skip


def features(operator: Operator) -> list[float]:
    """What trees see of an operator, in the order of `FEATURES`."""
    middle = max(operator.mid_channels, operator.out_channels) * operator.in_px**2
    return [
        _KINDS.index(operator.kind),
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


class OperatorRegressor:
    """Predicts an operator's time from its shapes, within the range that it was taught.

    Lifetime: made by `fit`, or by `from_dict` from what `to_dict` gives.

    Attributes:
        mape: Mean relative error on operators that were left out.
        widening: By how much `doubt` is wider than the process says, so that its 90 % intervals
            held 90 % of the operators that were left out.
        share: Of the trees in the average, in [0, 1].
        taught: Operators that taught it.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        ms: npt.ArrayLike,
        strengths: npt.ArrayLike,
        *,
        low: Sequence[float],
        high: Sequence[float],
        mape: float,
        widening: float,
        taught: int,
        share: float = 0.0,
        trees: str = "",
    ) -> None:
        self._operators, self._ms = tuple(operators), np.asarray(ms, np.float64)
        self._strengths = np.asarray(strengths, np.float64)
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self.mape, self.widening, self.taught, self.share = mape, widening, taught, share
        self.trees = trees
        self._process: PartsProcess | None = None
        self._booster: lightgbm.Booster | None = None

    @classmethod
    def fit(cls, table: Mapping[Operator, float]) -> OperatorRegressor:
        """Learn from measured operators.

        Args:
            table: Operator → ms.
        Raises:
            NotEnoughData: Fewer than 20 operators.
        """
        if len(table) < MINIMUM:
            raise NotEnoughData(f"{len(table)} operators teach no curve; it takes {MINIMUM}")
        # In the order of their names, so that the order of measuring changes nothing.
        operators = sorted(table, key=lambda o: o.key)
        ms = np.array([table[o] for o in operators], np.float64)
        rows = np.array([features(o) for o in operators])
        drawn = np.random.default_rng(0).permutation(len(ms))
        kept = np.sort(drawn[:_CAPACITY])
        process = PartsProcess.of(Parts([operators[i] for i in kept]), ms[kept])
        ratio, doubt = process.left_out()
        off, share, trees = np.log(ratio), 0.0, ""
        if len(ms) >= _MANY:
            share, off, doubt = cls._examined(operators, ms, rows, process.strengths)
            if share:
                trees = _slim(_train(rows, np.log(ms)).model_to_string())
        sizes = np.sort(np.abs(off) / doubt)
        rank = min(len(sizes), int(np.ceil((len(sizes) + 1) * 0.9)))
        found = cls(
            process.parts.operators, ms[kept], process.strengths,
            low=rows.min(axis=0).tolist(), high=rows.max(axis=0).tolist(),
            mape=float(np.abs(np.expm1(off)).mean()),
            widening=max(1.0, float(sizes[rank - 1]) / Z90),
            taught=len(ms), share=share, trees=trees,
        )  # fmt: skip
        found._process = process
        return found

    @staticmethod
    def _examined(
        operators: Sequence[Operator], ms: Floats, rows: Floats, strengths: Floats
    ) -> tuple[float, Floats, Floats]:
        """Best share of the trees; logarithm of each error and doubt, by 5-fold cross-validation."""
        fold = np.random.default_rng(1).permutation(len(ms)) % _FOLDS
        told, doubt = np.empty((2, len(ms))), np.empty(len(ms))
        for held in range(_FOLDS):
            out, seen = np.flatnonzero(fold == held), np.flatnonzero(fold != held)
            few = np.sort(np.random.default_rng(held).permutation(seen)[:_CAPACITY]).tolist()
            inner = PartsProcess(Parts([operators[i] for i in few]), ms[few], strengths)
            guess, doubt[out] = inner.predict(Parts([operators[i] for i in out.tolist()]))
            told[0, out] = np.log(guess)
            told[1, out] = _train(rows[seen], np.log(ms[seen])).predict(rows[out], num_threads=1)
        errors = {s: (1 - s) * told[0] + s * told[1] - np.log(ms) for s in _SHARES}
        best = min(_SHARES, key=lambda s: float(np.abs(errors[s]).mean()))
        noise = float(np.exp(strengths[NAMES.index("noise")]))
        return best, errors[best], np.hypot(doubt, noise)

    @property
    def strengths(self) -> Floats:
        """Of the process, logarithms in the order of `process.NAMES`."""
        return self._strengths

    def reaches(self, operator: Operator) -> bool:
        """Whether the operator lies within the ranges of what was measured, kinds included.

        Few operators do not span a space's corners: below 500 sizes may be twice as large or half
        as small as any measured; `doubt` says what that costs.
        """
        row, low, high = np.asarray(features(operator)), self.low, self.high
        if self.taught < _MANY:
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
        return self._average(operators, self._load().predict_ms(Parts(operators)))

    def doubt(self, operators: Sequence[Operator]) -> Floats:
        """Standard error of each prediction, (n,), relative; larger far from what was taught.

        It holds what a measurement scatters by itself. Errors of like operators are alike: over a
        network they add up by more than their squares (`errors`).
        """
        if not operators:
            return np.empty(0)
        _, doubt = self._load().predict(Parts(operators))
        noise = np.exp(self._strengths[NAMES.index("noise")])
        found: Floats = self.widening * np.hypot(doubt, noise)
        return found

    def errors(self, operators: Sequence[Operator]) -> Floats:
        """Covariance of the predictions' errors, (n, n), ms²; its diagonal is (doubt · ms)²."""
        if not operators:
            return np.empty((0, 0))
        parts = Parts(operators)
        found = self._load().errors(parts)
        noise = np.exp(2 * self._strengths[NAMES.index("noise")])
        found[np.diag_indices(len(found))] += noise * self._load().predict_ms(parts) ** 2
        return self.widening**2 * found

    def alike(self, networks: Sequence[Sequence[Operator]], known: Mapping[Operator, Any]) -> float:
        """How alike errors are within networks: the share ρ of their doubt that adds up linearly.

        A network's doubt is √(ρ · (Σ d)² + (1 - ρ) · Σ d²) over its operators' doubts d in ms, with
        the ρ in [0, 1] that is enough, by the covariance, for three in four of these networks.

        Args:
            networks: Operators of each network.
            known: Operators that were measured and are in no doubt.
        """
        holes = list(dict.fromkeys(o for n in networks for o in n if o not in known))
        if not holes:
            return 0.0
        at = {o: i for i, o in enumerate(holes)}
        rows = np.zeros((len(networks), len(holes)))
        for row, network in enumerate(networks):
            for o in network:
                if o in at:
                    rows[row, at[o]] += 1
        covariance = self.errors(holes)
        d = np.sqrt(np.maximum(np.diag(covariance), 0))
        # Equal operators err alike in full, so a repeated one counts with its own number squared.
        apart, whole = (rows**2) @ d**2, np.einsum("ij,jk,ik->i", rows, covariance, rows)
        linear = (rows @ d) ** 2 - apart
        if not linear.any():
            return 0.0
        some = linear > 0
        needed = (whole[some] - apart[some]) / linear[some]
        return float(np.clip(np.quantile(needed, 0.75), 0.0, 1.0))

    def _average(self, operators: Sequence[Operator], ms: Floats) -> Floats:
        if not self.share:
            return ms
        rows = np.array([features(o) for o in operators])
        trees = np.asarray(self._grown().predict(rows, num_threads=1), np.float64)
        found: Floats = np.exp((1 - self.share) * np.log(ms) + self.share * trees)
        return found

    def _load(self) -> PartsProcess:
        if self._process is None:
            try:
                self._process = PartsProcess(Parts(self._operators), self._ms, self._strengths)
            except (ValueError, np.linalg.LinAlgError) as error:
                raise UnsupportedFormat(
                    f"the model's operator curve is damaged: {error}"
                ) from error
        return self._process

    def _grown(self) -> lightgbm.Booster:
        if self._booster is None:
            import lightgbm

            try:
                self._booster = lightgbm.Booster(model_str=self.trees)
            except lightgbm.basic.LightGBMError as error:
                raise UnsupportedFormat(
                    f"the model's operator curve is damaged: {error}"
                ) from error
        return self._booster

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "form": _FORM,
            "features": list(FEATURES),
            "strengths": dict(zip(NAMES, self._strengths.tolist(), strict=True)),
            "operators": [o.key for o in self._operators],
            "ms": self._ms.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "mape": self.mape,
            "widening": self.widening,
            "taught": self.taught,
            "share": self.share,
            "trees": self.trees,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatorRegressor:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features, or as another form of curve.
        """
        if (
            values["features"] != list(FEATURES)
            or values.get("form") != _FORM
            or tuple(values["strengths"]) != NAMES
        ):
            raise UnsupportedFormat(
                "the model's operator curve is of another form; fit it anew:  phonenas fit"
            )
        operators, ms = [Operator.parse(k) for k in values["operators"]], values["ms"]
        strengths = [float(s) for s in values["strengths"].values()]
        if len(operators) != len(ms) or not np.isfinite([*ms, *strengths]).all() or min(ms) <= 0:
            raise ValueError("an operator's time is no positive number")
        kept = ("low", "high", "mape", "widening", "taught", "share", "trees")
        return cls(operators, ms, strengths, **{k: values[k] for k in kept})


def _train(rows: Floats, target: Floats) -> lightgbm.Booster:
    import lightgbm

    data = lightgbm.Dataset(
        rows,
        target,
        feature_name=list(FEATURES),
        categorical_feature=["kind", "skip"],
        params={"verbosity": -1, "num_threads": 1},
        free_raw_data=True,
    )
    return lightgbm.train(_PARAMETERS, data, num_boost_round=_ROUNDS)


def _slim(text: str) -> str:
    """LightGBM's text without what only tells how the trees were grown; it predicts the same."""
    lines = text.split("\nend of trees")[0].split("\n")
    kept = [line for line in lines if line.split("=")[0] not in _GROWTH]
    return "\n".join(kept) + "\nend of trees\n"
