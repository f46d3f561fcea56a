"""Scores of predictions against measurements, rank correlations, and what an interval implies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import strict
from phonenas.data.measurement import Measurement
from phonenas.space.errors import InvalidArgument

__all__ = [
    "TO_MEAN",
    "Z90",
    "Score",
    "chance_within",
    "half_widths",
    "kendall_tau",
    "noise_of",
    "quantile90",
    "score",
    "spearman",
]

Values = npt.ArrayLike

Z90 = 1.6449  # standard deviations to either end of a normal's middle 90 %
_FARTHEST = 7.0  # logarithm of a factor: an end farther off says nothing more
_FEWEST = 3  # networks
_APART, _LEAST_SPREAD = 2.0, 1e-3  # of networks: in units of their noise, and at least
TO_MEAN = 0.7979  # from a normal's standard deviation to its mean absolute error


@dataclass(frozen=True)
class Score:
    """Scores over n networks; each measured network against its prediction.

    Args:
        n: Networks.
        mape: Mean |predicted - measured| / measured.
        bias: Mean (predicted - measured) / measured, signed.
        acc5, acc10: Share predicted within ±5 %, ±10 %.
        rmse_ms: Root mean square error in ms.
        rmspe: Root mean square relative error.
        spearman, kendall_tau: Rank correlations; NaN for fewer than two distinct values.
        coverage90: Share inside its 90 % interval; NaN where there is none.
        informative: Whether the networks differ by more than their noise, and the predictions
            follow that: they err less than one number for all, and than a line in MACs.
        reason: Why it is not informative; "" where it is.
    """

    n: int
    mape: float
    bias: float
    acc5: float
    acc10: float
    rmse_ms: float
    rmspe: float
    spearman: float
    kendall_tau: float
    coverage90: float
    informative: bool = True
    reason: str = ""

    @property
    def note(self) -> str:
        """A sentence for a score that is not informative; "" for others."""
        return "" if self.informative else f"NOT INFORMATIVE: {self.reason}"

    def to_dict(self) -> dict[str, float | int | str | None]:
        """The fields, NaN as None, ready for JSON."""
        return {k: None if v != v else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        """Inverse of `to_dict`.

        Raises:
            ValueError: A field is missing, unknown or no number.
        """
        numbers = {f.name for f in fields(cls) if f.type == "float"}
        kept = {k: float("nan") if v is None and k in numbers else v for k, v in values.items()}
        if unknown := set(kept) - {f.name for f in fields(cls)}:
            raise ValueError(f"no score has {min(unknown)[:80]}")
        return strict(kept, cls)


def spearman(a: Values, b: Values) -> float:
    """Spearman's rank correlation of two columns, (n,) each; NaN where either is constant."""
    from scipy import stats

    return float(stats.spearmanr(a, b).statistic) if _ranked(a, b) else float("nan")


def kendall_tau(a: Values, b: Values) -> float:
    """Kendall's τ-b of two columns, (n,) each; NaN where either is constant."""
    from scipy import stats

    return float(stats.kendalltau(a, b).statistic) if _ranked(a, b) else float("nan")


def _ranked(*columns: Values) -> bool:
    return all(np.size(c) > 1 and np.ptp(np.asarray(c, float)) > 0 for c in columns)


def score(
    predicted_ms: Values,
    measured_ms: Values,
    low_ms: Values | None = None,
    high_ms: Values | None = None,
    *,
    noise: float = 0.0,
    macs_mape: float = math.nan,
) -> Score:
    """Score predictions, (n,) in ms, against measurements, (n,) in ms, each > 0.

    Args:
        predicted_ms, measured_ms: As above.
        low_ms, high_ms: Ends of the 90 % intervals, (n,), ms.
        noise: Relative standard error of a network's time, ≥ 0; 0 where it is not known.
        macs_mape: Error of a line in MACs on the same networks; NaN where there is none.
    Raises:
        InvalidArgument: No network, or shapes differ.
    """
    p, m = np.asarray(predicted_ms, float), np.asarray(measured_ms, float)
    if p.shape != m.shape or p.ndim != 1 or not len(p):
        raise InvalidArgument(f"a score needs two equal lists, got shapes {p.shape} and {m.shape}")
    off = (p - m) / m
    coverage = float("nan")
    if low_ms is not None and high_ms is not None:
        coverage = float(np.mean((np.asarray(low_ms) <= m) & (m <= np.asarray(high_ms))))
    mape = float(np.mean(np.abs(off)))
    reason = _uninformative(mape, m, noise, macs_mape)
    return Score(
        n=len(p),
        mape=mape,
        bias=float(np.mean(off)),
        acc5=float(np.mean(np.abs(off) <= 0.05)),
        acc10=float(np.mean(np.abs(off) <= 0.10)),
        rmse_ms=float(np.sqrt(np.mean((p - m) ** 2))),
        rmspe=float(np.sqrt(np.mean(off**2))),
        spearman=spearman(p, m),
        kendall_tau=kendall_tau(p, m),
        coverage90=coverage,
        informative=not reason,
        reason=reason,
    )


def _uninformative(mape: float, measured_ms: npt.NDArray[Any], noise: float, macs: float) -> str:
    """Why an error on networks, (n,) ms, shows nothing of a model; "" where it does."""
    n, logs = len(measured_ms), np.log(measured_ms)
    if n < _FEWEST:
        return f"{n} network{'s' * (n != 1)}, and it takes {_FEWEST} to compare"
    spread = float(np.std(logs, ddof=1))
    if spread <= max(_APART * (noise if math.isfinite(noise) else 0.0), _LEAST_SPREAD):
        return (
            f"the times of the {n} networks differ by ±{spread:.1%}, no more than their noise of "
            f"±{noise:.1%} lets them: there was nothing to predict"
        )
    others = (logs.sum() - logs) / (n - 1)  # each network by the mean of the others
    constant = float(np.mean(np.abs(np.exp(others - logs) - 1)))
    if mape >= constant:
        return f"one number for all {n} networks errs by {constant:.1%}, the model by {mape:.1%}"
    if mape >= macs:
        return f"a line in MACs errs by {macs:.1%}, the model by {mape:.1%}"
    return ""


def noise_of(measurements: Sequence[Measurement]) -> float:
    """Median relative standard error of some measurements; 0 where none has several rounds."""
    spreads = [m.spread / Z90 for m in measurements if math.isfinite(m.spread)]
    return float(np.median(spreads)) if spreads else 0.0


def chance_within(
    ms: npt.ArrayLike, low_ms: npt.ArrayLike, high_ms: npt.ArrayLike, target_ms: float
) -> npt.NDArray[np.float64]:
    """Probability that a measurement is at or below a target, (n,), in [0, 1].

    Errors are taken as normal in log latency, as wide as the 90 % interval says.

    Args:
        ms, low_ms, high_ms: Predictions and the ends of their 90 % intervals, (n,), ms, > 0.
        target_ms: > 0, ms.
    Raises:
        InvalidArgument: The target is not a finite number above 0.
    """
    from scipy.special import ndtr

    if not (np.isfinite(target_ms) and target_ms > 0):
        raise InvalidArgument(f"a target latency is above 0 ms, got {target_ms!r}")
    low, high = np.asarray(low_ms, float), np.asarray(high_ms, float)
    reach = np.maximum(np.log(high / low) / 2, 1e-9)
    chance: npt.NDArray[np.float64] = ndtr(Z90 * np.log(target_ms / np.asarray(ms, float)) / reach)
    return chance


def half_widths(deviations: Values) -> npt.NDArray[np.float64]:
    """Relative half-widths h, (n,), of intervals from p / (1 + h) to p · (1 + h).

    Args:
        deviations: Of logarithms, (n,), at the ends; beyond 7, a factor of 1,000, counts as 7.
    """
    half: npt.NDArray[np.float64] = np.expm1(np.minimum(deviations, _FARTHEST))
    return half


def quantile90(errors: Values) -> float:
    """What 90 % of errors, (n,), stay below, those of one more not seen among them (conformal)."""
    ordered = np.sort(errors)
    return float(ordered[min(len(ordered), math.ceil((len(ordered) + 1) * 0.9)) - 1])
