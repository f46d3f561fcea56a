"""What a latency model answers: predictions with intervals, and where their time goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import Ms, Text
from phonenas.space import Kernel, Operator

from .metrics import chance_within

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Examined", "Explained", "Predicted"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """Predictions for n networks, or for n operators alone.

    Args:
        ms: Latency at batch 1, (n,), ms.
        low_ms, high_ms: 90 % interval, (n,), ms.
        covered: Whether every operator was measured, (n,); where not, the regressor predicted it
            and the interval is wider.
    """

    ms: Array
    low_ms: Array
    high_ms: Array
    covered: npt.NDArray[np.bool_]

    def __repr__(self) -> str:
        ends = f", {self.ms.min():.3g} to {self.ms.max():.3g} ms" if len(self.ms) else ""
        return f"Predicted({len(self.ms)}{ends})"

    def to_frame(self) -> pd.DataFrame:
        """One row a network: latency_ms, low_ms, high_ms, covered."""
        import pandas as pd

        columns = ("latency_ms", "low_ms", "high_ms", "covered")
        values = (self.ms, self.low_ms, self.high_ms, self.covered)
        return pd.DataFrame(dict(zip(columns, values, strict=True)))

    def within(self, target_ms: float) -> Array:
        """Probability to be at or below a target when measured, (n,); see `chance_within`."""
        return chance_within(self.ms, self.low_ms, self.high_ms, target_ms)


@dataclass(frozen=True)
class Examined:
    """A whole network, predicted by a model that was not fitted on it."""

    network: Text
    predicted_ms: Ms
    low_ms: Ms
    high_ms: Ms
    measured_ms: Ms


@dataclass(frozen=True)
class Explained:
    """What one operator or kernel adds to a network's predicted latency.

    Args:
        operator: Which; None for the network's constant share.
        ms: Its share of the whole, ms.
        alone_ms, low_ms, high_ms: Its time alone, and the 90 % interval of that, ms.
        measured: Whether that was measured; else it is fitted, as the constant always is.
        node: Of a kernel of a file, the node that it begins with.
    """

    operator: Operator | Kernel | None
    ms: float
    alone_ms: float
    low_ms: float
    high_ms: float
    measured: bool
    node: str = ""
