"""How well predictions meet measurements: the field's scores, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument

__all__ = ["Score", "score"]

Values = npt.ArrayLike


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

    def to_dict(self) -> dict[str, float | int | None]:
        """The fields, NaN as None, ready for JSON."""
        return {k: None if v != v else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        """Inverse of `to_dict`."""
        kept: dict[str, Any] = {k: float("nan") if v is None else v for k, v in values.items()}
        return cls(**kept)


def score(
    predicted_ms: Values,
    measured_ms: Values,
    low_ms: Values | None = None,
    high_ms: Values | None = None,
) -> Score:
    """Score predictions, (n,) in ms, against measurements, (n,) in ms, each > 0.

    `low_ms` and `high_ms`, (n,), bound the 90 % intervals.

    Raises:
        InvalidArgument: No network, or shapes differ.
    """
    from scipy import stats

    p, m = np.asarray(predicted_ms, float), np.asarray(measured_ms, float)
    if p.shape != m.shape or p.ndim != 1 or not len(p):
        raise InvalidArgument(f"a score needs two equal lists, got shapes {p.shape} and {m.shape}")
    off = (p - m) / m
    ranked = len(p) > 1 and np.ptp(p) > 0 and np.ptp(m) > 0
    coverage = float("nan")
    if low_ms is not None and high_ms is not None:
        coverage = float(np.mean((np.asarray(low_ms) <= m) & (m <= np.asarray(high_ms))))
    return Score(
        n=len(p),
        mape=float(np.mean(np.abs(off))),
        bias=float(np.mean(off)),
        acc5=float(np.mean(np.abs(off) <= 0.05)),
        acc10=float(np.mean(np.abs(off) <= 0.10)),
        rmse_ms=float(np.sqrt(np.mean((p - m) ** 2))),
        rmspe=float(np.sqrt(np.mean(off**2))),
        spearman=float(stats.spearmanr(p, m).statistic) if ranked else float("nan"),
        kendall_tau=float(stats.kendalltau(p, m).statistic) if ranked else float("nan"),
        coverage90=coverage,
    )
