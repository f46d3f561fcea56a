"""From the sum of operators measured alone to the whole network, with an interval.

An operator alone is not the operator in its network: alone, its input and output are reordered
into the runtime's layout (too slow), and its weights and activations stay in the cache (too
fast). What sets the two apart is itself a sum over operators, so the calibrated latency stays
one, and a whole population is still one table look-up a part:

    whole = constant + Σ over operators of (coefficients · features)

The coefficients come from whole networks, by least squares of the *relative* error, drawn
towards "the whole is the sum" by a ridge whose strength is the most likely one (MacKay, Bayesian
Interpolation, 1992).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space import Operator
from ..space.errors import NotEnoughData, UnsupportedFormat

__all__ = [
    "FEATURES", "LATER_JOB", "MINIMUM", "UNCALIBRATED", "Calibration", "calibrate", "calibrate_any", "folds",
    "operator_features",
]  # fmt: skip

Array = npt.NDArray[np.float64]

FEATURES = ("ms", "operators", "activations", "weights", "gated", "late_ms", "pooled")
MINIMUM = 10  # networks; fewer make it worse than none
_LEVEL = 0.90
# A network measured in a later job stands apart from one measured beside the operators: six of
# them, measured again a few minutes on, took -1.3 to +5.5 % more (mean +2.0 %) on one computer.
# The networks that calibrate cannot show that, so it is added.
LATER_JOB = 0.03
_SMALL_PX = 14  # weights outweigh activations from here down, in MobileNetV2's proportions
_FOLDS = 10


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
        half_width: What calibration itself leaves open, relative; with `LATER_JOB` it makes h of
            the 90 % interval, from prediction / (1 + h) to prediction · (1 + h).
        low_ms, high_ms: Range of predictions in which networks were measured.
        networks: How many taught it.
        holes: What unmeasured operators added to the half-width of those networks, relative: it is
            part of `half_width` already.
    """

    coefficients: tuple[float, ...]
    constant: float
    half_width: float
    low_ms: float
    high_ms: float
    networks: int
    holes: float = 0.0

    def whole_ms(self, features: Array) -> Array:
        """Latency of networks, (n,), from their summed features, (n, features)."""
        found: Array = features @ np.asarray(self.coefficients) + self.constant
        return found

    def half_widths(self, whole_ms: Array, holes: Array | float = 0.0) -> Array:
        """Relative half-width of each 90 % interval, (n,).

        Args:
            whole_ms: Predictions, (n,), ms.
            holes: What unmeasured operators add in doubt, relative, (n,).

        Beyond the range of the measured networks it grows with the square of the ratio by which
        the range is left: a straight line is trusted no further than it was seen.
        """
        beyond = np.maximum(self.low_ms / whole_ms, whole_ms / self.high_ms)
        grown = self.half_width * np.maximum(1.0, beyond) ** 2
        more = np.maximum(0.0, np.square(holes) - self.holes**2)
        found: Array = np.sqrt(grown**2 + LATER_JOB**2 + more)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "features": list(FEATURES),
            "coefficients": list(self.coefficients),
            "constant": self.constant,
            "half_width": self.half_width,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "networks": self.networks,
            "holes": self.holes,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features.
        """
        if values["features"] != list(FEATURES):
            raise UnsupportedFormat(
                f"the model is calibrated over {', '.join(values['features'])}; this phonenas does "
                f"it over {', '.join(FEATURES)}. Fit it anew:  phonenas fit"
            )
        kept = {k: v for k, v in values.items() if k != "features"}
        coefficients = tuple(map(float, kept["coefficients"]))
        if len(coefficients) != len(FEATURES) or not np.isfinite(coefficients).all():
            raise ValueError(f"{len(coefficients)} coefficients")
        return cls(**{**kept, "coefficients": coefficients})


# The bare sum of operators. On public tables of phone GPUs it is 56 to 92 % of the whole (qed-usc,
# EdgeSys 2024); an interval up to 1 / 0.56 holds what is not known.
UNCALIBRATED = Calibration(
    (1.0, *(0.0 for _ in FEATURES[1:])), 0.0, 1 / 0.56 - 1, 1e-9, 1e9, networks=0
)


def folds(n: int) -> npt.NDArray[np.intp]:
    """Fold of each of n networks, (n,): ten folds, alike in size, drawn with a fixed seed."""
    count = min(_FOLDS, n)
    found: npt.NDArray[np.intp] = np.random.default_rng(0).permutation(n) % count
    return found


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
            f"{len(measured_ms)} whole networks do not calibrate a latency model; it takes "
            f"{MINIMUM}. Measure more:  phonenas profile --networks 20"
        )
    return calibrate_any(features, measured_ms)


def calibrate_any(features: Array, measured_ms: Array) -> Calibration:
    """`calibrate` without its minimum, for the folds of an examination."""
    fold = folds(len(measured_ms))
    predicted = np.empty(len(measured_ms))
    for held in range(fold.max() + 1):
        seen = fold != held
        weights = _solve(features[seen], measured_ms[seen])
        predicted[~seen] = features[~seen] @ weights[:-1] + weights[-1]
    predicted = np.maximum(predicted, 1e-9)
    errors = np.maximum(measured_ms / predicted, predicted / measured_ms) - 1
    weights = _solve(features, measured_ms)
    ordered = np.sort(errors)
    rank = min(len(ordered), int(np.ceil((len(ordered) + 1) * _LEVEL)))
    whole = features @ weights[:-1] + weights[-1]
    return Calibration(
        tuple(float(w) for w in weights[:-1]),
        float(weights[-1]),
        float(ordered[rank - 1]),
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
    # Each column at unit size, so that one strength fits all; a column of nothing tells nothing.
    scale = np.sqrt(np.mean(rows**2, axis=0))
    scale[scale == 0] = 1.0
    line = BayesianRidge(fit_intercept=False).fit(rows / scale, target)
    found: Array = prior + line.coef_ / scale
    return found
