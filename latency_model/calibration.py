"""From the sum of operators measured alone to the whole network, with an interval.

An operator alone differs from the operator in its network: alone, its input and output are
reordered into the runtime's layout (too slow), and its weights and activations stay in the cache
(too fast). The difference is itself a sum over operators, so the calibrated latency stays a sum,
and a whole population is still one table look-up a part:

    whole = constant + Σ over operators of (coefficients · features)

The coefficients come from whole networks, by least squares of the *relative* error, with a ridge
towards "the whole is the sum" whose strength is the most likely one (MacKay, Bayesian
Interpolation, 1992).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from phonenas.data.documents import Count, Ms, Number, Text, strict
from phonenas.space import Operator
from phonenas.space.errors import NotEnoughData, UncoveredOperator, UnsupportedFormat

from .metrics import quantile90

__all__ = [
    "DIVIDED",
    "FEATURES",
    "LATER_JOB",
    "MINIMUM",
    "UNCALIBRATED",
    "Calibration",
    "beyond_range",
    "calibrate",
    "calibrate_any",
    "folds",
    "operator_features",
]

Array = npt.NDArray[np.float64]

FEATURES = ("ms", "operators", "activations", "weights", "gated", "late_ms", "pooled")
MINIMUM = 10  # networks; with fewer, the bare sum is better
# Networks measured in a later job differ together from those measured beside the operators: by the
# clock of one computer, five of a job within the hour took 1.0 % less than predicted in the mean,
# nine two hours later 3.2 %. That is a standard deviation of 2.4 % between jobs, 4 % at 90 %. The
# networks of the calibration, all of one job, do not show it, so it is added.
LATER_JOB = 0.04
# What a new version of the models' files changed.
DIVIDED = "its times were divided by the sentinel's, and are now what the clock shows"
_SMALL_PX = 14  # weights outweigh activations from here down, in MobileNetV2's proportions
_FOLDS = 10
_END = 1e-3  # of the range's ends: more than what a file rounds, and far less than an error


def beyond_range(ms: float, low_ms: float, high_ms: float) -> bool:
    """Whether a time lies outside the range of the networks that a model was fitted on.

    The networks at its ends do not, though their times are rounded in files.
    """
    return not low_ms * (1 - _END) <= ms <= high_ms * (1 + _END)


def operator_features(operator: Operator, ms: float) -> list[float]:
    """What an operator adds to its network, in the order of `FEATURES`.

    Its own time in ms; one, for dispatch; its input and output activations in millions, for
    layout changes; its weights in millions, for a cold cache; the activations that a squeeze
    gates in millions, for they are read twice; its time once more if its map is small, for there
    the weights outweigh the activations; one if it has a pooled skip, whose cut or padded channels
    make a runtime leave its blocked layout in the middle of a network.
    """
    activations = (
        operator.in_channels * operator.in_px**2 + operator.out_channels * operator.out_px**2
    )
    gated = 0
    if operator.se_channels:
        gated = max(operator.mid_channels, operator.out_channels) * operator.out_px**2
    late_ms = ms if operator.in_px <= _SMALL_PX else 0.0
    pooled = float(operator.skip == "pool")
    return [ms, 1.0, activations / 1e6, operator.params / 1e6, gated / 1e6, late_ms, pooled]


@dataclass(frozen=True)
class Calibration:
    """Linear from summed features to the whole.

    Args:
        coefficients: (features,), ms per unit of each feature.
        constant: ms a network.
        half_width: Error of the calibration itself, relative; with `LATER_JOB` it makes h of the
            90 % interval, from prediction / (1 + h) to prediction · (1 + h).
        low_ms, high_ms: Range of predictions in which networks were measured.
        networks: How many it was fitted on.
        uncovered: What unmeasured operators added to the half-width of those networks, relative:
            it is part of `half_width` already.
    """

    coefficients: tuple[Number, ...]
    constant: Number
    half_width: Annotated[float, Meta(ge=0, le=1e6)]
    low_ms: Ms
    high_ms: Ms
    networks: Count
    uncovered: Annotated[float, Meta(ge=0, le=1e6)] = 0.0

    def line_ms(self, features: Array) -> Array:
        """The line of summed features, (n, features), as it is: (n,), ms, which can be below 0."""
        line: Array = features @ np.asarray(self.coefficients) + self.constant
        return line

    def whole_ms(self, features: Array) -> Array:
        """Latency of networks, (n,), from their summed features, (n, features).

        Raises:
            UncoveredOperator: A network is so far from those measured that the line falls below 0.
        """
        return self.above_zero(self.line_ms(features))

    def above_zero(self, whole_ms: Array) -> Array:
        """Predictions as they are, (n,), ms.

        Raises:
            UncoveredOperator: One is 0 or less, which no network takes.
        """
        if len(whole_ms) and not whole_ms.min() > 0:
            raise UncoveredOperator(
                f"the model predicts {whole_ms.min():.3g} ms for a network, which is impossible: "
                f"it is too different from the {self.networks} networks of {self.low_ms:.3g} to "
                f"{self.high_ms:.3g} ms that "
                "calibrate the model. Measure networks like it, then fit again:  phonenas profile "
                "--device DEVICE --network 'BLOCKS'"
            )
        return whole_ms

    def scaled(self, factor: float) -> Calibration:
        """Every network `factor` times as slow, the relative intervals as they are."""
        return replace(
            self,
            coefficients=tuple(factor * c for c in self.coefficients),
            constant=factor * self.constant,
            low_ms=factor * self.low_ms,
            high_ms=factor * self.high_ms,
        )

    def beyond(self, whole_ms: Array) -> Array:
        """By which ratio predictions, (n,), exceed the range of the measured networks, ≥ 1."""
        ratio: Array = np.maximum(self.low_ms / whole_ms, whole_ms / self.high_ms)
        return np.maximum(1.0, ratio)

    def half_widths(self, whole_ms: Array, uncovered: Array | float = 0.0) -> Array:
        """Relative half-width of each 90 % interval, (n,).

        Args:
            whole_ms: Predictions, (n,), ms.
            uncovered: What unmeasured operators add to it, relative, (n,).

        Beyond the range of the measured networks it grows with the square of the ratio by which
        the range is exceeded, since nothing shows that the sum stays linear there.
        """
        grown = self.half_width * self.beyond(whole_ms) ** 2
        more = np.maximum(0.0, np.square(uncovered) - self.uncovered**2)
        half_widths: Array = np.sqrt(grown**2 + LATER_JOB**2 + more)
        return half_widths

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        values = {"features": list(FEATURES), **vars(self)}
        values["coefficients"], values["holes"] = list(self.coefficients), values.pop("uncovered")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features.
            ValueError: It is damaged.
        """
        features = strict(values.get("features"), list[Text])
        if features != list(FEATURES):
            raise UnsupportedFormat(
                f"the model is calibrated over {', '.join(features)[:200]}; this phonenas does "
                f"it over {', '.join(FEATURES)}. Fit it again:  phonenas fit"
            )
        made = strict({**values, "uncovered": values.get("holes", 0.0)}, cls)
        if len(made.coefficients) != len(FEATURES):
            raise ValueError(f"{len(made.coefficients)} coefficients")
        return made


# The bare sum of operators. On public tables of phone GPUs it is 56 to 92 % of the whole (qed-usc,
# EdgeSys 2024), so the interval goes up to 1 / 0.56 of it.
UNCALIBRATED = Calibration(
    (1.0, *(0.0 for _ in FEATURES[1:])), 0.0, 1 / 0.56 - 1, 1e-9, 1e9, networks=0
)


def folds(n: int) -> npt.NDArray[np.intp]:
    """Fold of each of n networks, (n,): ten folds of equal size, drawn with a fixed seed."""
    fold: npt.NDArray[np.intp] = np.random.default_rng(0).permutation(n) % min(_FOLDS, n)
    return fold


def calibrate(features: Array, measured_ms: Array) -> Calibration:
    """Fit on whole networks.

    The interval is conformal: the 90 % quantile, corrected for n, of the relative errors that
    10-fold cross-validation makes on these same networks.

    Args:
        features: Summed features of each network, (n, features).
        measured_ms: Whole networks, (n,), ms.
    Raises:
        NotEnoughData: n < 10.
    """
    if len(measured_ms) < MINIMUM:
        raise NotEnoughData(
            f"{len(measured_ms)} whole network(s) do not calibrate a latency model; it takes "
            f"{MINIMUM}. Measure more:  phonenas profile --networks 20"
        )
    return calibrate_any(features, measured_ms)


def calibrate_any(features: Array, measured_ms: Array) -> Calibration:
    """`calibrate` without its minimum, for the folds of a cross-validation."""
    fold = folds(len(measured_ms))
    predicted = np.empty(len(measured_ms))
    for k in range(fold.max() + 1):
        rest = fold != k
        weights = _solve(features[rest], measured_ms[rest])
        predicted[~rest] = features[~rest] @ weights[:-1] + weights[-1]
    # As in the score, the bare sum stands for what comes out below 0.
    ratio = measured_ms / np.where(predicted > 0, predicted, features[:, 0])
    errors = np.maximum(ratio, 1 / ratio) - 1
    weights = _solve(features, measured_ms)
    whole = features @ weights[:-1] + weights[-1]
    whole = whole[whole > 0]
    return Calibration(
        tuple(float(w) for w in weights[:-1]),
        float(weights[-1]),
        quantile90(errors),
        float(whole.min()),
        float(whole.max()),
        len(measured_ms),
    )


def _solve(features: Array, measured_ms: Array) -> Array:
    """Coefficients and constant, (features + 1,), by relative least squares with a ridge."""
    from sklearn.linear_model import BayesianRidge

    columns = np.column_stack([features, np.ones(len(features))])
    prior = np.zeros(columns.shape[1])
    prior[0] = 1.0  # ms: the whole is the sum
    rows = columns / measured_ms[:, None]
    target = 1.0 - rows @ prior
    # Each column at unit size, so that one ridge suits all; a column of zeros stays as it is.
    scale = np.sqrt(np.mean(rows**2, axis=0))
    scale[scale == 0] = 1.0
    line = BayesianRidge(fit_intercept=False).fit(rows / scale, target)
    solved: Array = prior + line.coef_ / scale
    return solved
