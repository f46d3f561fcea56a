"""One gradient-boosted curve over operator features, for operators that were not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..space import Operator
from ..space.errors import NotEnoughData, UnsupportedFormat

if TYPE_CHECKING:
    import lightgbm

__all__ = ["FEATURES", "OperatorRegressor", "features"]

_KINDS = ("stem", "conv", "dsconv", "mbconv", "head")
_SKIPS = ("none", "identity", "pool")
FEATURES = (
    "kind", "kernel", "stride", "expansion", "se_channels", "skip", "in_px", "out_px",
    "in_channels", "out_channels", "mid_channels", "log_macs", "log_params", "log_input",
    "log_middle", "log_output",
)  # fmt: skip
_MINIMUM = 20  # operators; below that a booster learns nothing
_FOLDS = 5
_ROUNDS = 220
_PARAMETERS: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.08,
    "num_leaves": 24,
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


def features(operator: Operator) -> list[float]:
    """What the curve sees of an operator, in the order of `FEATURES`."""
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

    Lifetime: made by `fit`, or by `from_dict` from the text that `to_dict` gives.

    Attributes:
        mape: Mean relative error on operators that were held out, by 5-fold cross-validation.
    """

    def __init__(self, text: str, low: Sequence[float], high: Sequence[float], mape: float) -> None:
        self.text = text
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self.mape = mape
        self._booster: lightgbm.Booster | None = None

    @classmethod
    def fit(cls, table: Mapping[Operator, float]) -> OperatorRegressor:
        """Learn from measured operators.

        Args:
            table: Operator → ms.
        Raises:
            NotEnoughData: Fewer than 20 operators.
        """
        if len(table) < _MINIMUM:
            raise NotEnoughData(f"{len(table)} operators teach no curve; it takes {_MINIMUM}")
        rows = np.array([features(o) for o in table])
        target = np.log(np.fromiter(table.values(), float, len(table)))
        fold = np.random.default_rng(0).permutation(len(rows)) % _FOLDS
        errors = []
        for held in range(_FOLDS):
            booster = _train(rows[fold != held], target[fold != held])
            predicted = np.asarray(booster.predict(rows[fold == held], num_threads=1))
            errors.append(np.abs(np.expm1(predicted - target[fold == held])))
        booster = _train(rows, target)
        mape = float(np.concatenate(errors).mean())
        return cls(booster.model_to_string(), rows.min(axis=0), rows.max(axis=0), mape)

    def reaches(self, operator: Operator) -> bool:
        """Whether the operator lies within the ranges of what was measured, kinds included."""
        row = np.asarray(features(operator))
        return bool(((row >= self.low - 1e-9) & (row <= self.high + 1e-9)).all())

    def predict_ms(self, operators: Sequence[Operator]) -> npt.NDArray[np.float64]:
        """Time of each operator alone, (n,), in ms."""
        if not operators:
            return np.empty(0)
        rows = np.array([features(o) for o in operators])
        return np.asarray(np.exp(self._load().predict(rows, num_threads=1)), float)

    def _load(self) -> lightgbm.Booster:
        if self._booster is None:
            import lightgbm

            try:
                self._booster = lightgbm.Booster(model_str=self.text)
            except lightgbm.basic.LightGBMError as error:
                raise UnsupportedFormat(
                    f"the model's operator curve is damaged: {error}"
                ) from error
        return self._booster

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "features": list(FEATURES),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "mape": self.mape,
            "booster": self.text,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatorRegressor:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features.
        """
        if values["features"] != list(FEATURES):
            raise UnsupportedFormat("the model's operator curve has other features; fit it anew")
        return cls(values["booster"], values["low"], values["high"], values["mape"])


def _train(rows: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> lightgbm.Booster:
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
