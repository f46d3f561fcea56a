"""Curves: what tells the time of operators that were not measured.

`OperatorRegressor` is one, taught by the device's own operators; `RelativeCurve` is another, told
by a relative and a few measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..space import Operator
from .interval import TO_MEAN
from .regressor import OperatorRegressor

__all__ = ["OperatorCurve", "RelativeCurve", "curve_from_dict"]

Floats = npt.NDArray[np.float64]


class OperatorCurve(Protocol):
    """What a latency model asks of a curve."""

    #: Mean relative error on operators that were left out, or expected.
    mape: float

    def reaches(self, operator: Operator) -> bool:
        """Whether it can tell this operator."""

    def predict_ms(self, operators: Sequence[Operator]) -> Floats:
        """Time of each operator alone, (n,), ms."""

    def doubt(self, operators: Sequence[Operator]) -> Floats:
        """Standard error of each prediction, (n,), relative."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""


class RelativeCurve:
    """Operators' times as a relative and a few measurements tell them.

    It has the interface of `OperatorRegressor`, over the operators that the relative knows.

    Args:
        told: Operator → its time, ms, and its relative standard error.
        relative: Name of the relative.
    Attributes:
        mape: Mean relative error that the standard errors stand for.
    """

    def __init__(self, told: Mapping[Operator, tuple[float, float]], relative: str) -> None:
        self.told, self.relative = dict(told), relative
        self.mape = TO_MEAN * float(np.mean([d for _, d in self.told.values()]))

    def reaches(self, operator: Operator) -> bool:
        """Whether the relative knows it."""
        return operator in self.told

    def predict_ms(self, operators: Sequence[Operator]) -> Floats:
        """Time of each operator alone, (n,), ms."""
        return np.array([self.told[o][0] for o in operators], np.float64)

    def doubt(self, operators: Sequence[Operator]) -> Floats:
        """Standard error of each, (n,), relative."""
        return np.array([self.told[o][1] for o in operators], np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        told = {o.key: [float(f"{ms:.5g}"), round(d, 4)] for o, (ms, d) in self.told.items()}
        return {"form": "relative", "relative": self.relative, "told": told}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RelativeCurve:
        """Inverse of `to_dict`."""
        told = {Operator.parse(k): (float(v[0]), float(v[1])) for k, v in values["told"].items()}
        if not told or not np.isfinite([*told.values()]).all() or min(told.values())[0] <= 0:
            raise ValueError("an operator's time is no positive number")
        return cls(told, str(values["relative"]))


def curve_from_dict(values: Mapping[str, Any]) -> OperatorCurve:
    """The curve that a `to_dict` gave.

    Raises:
        UnsupportedFormat: It is of a form that this phonenas does not know.
    """
    if values.get("form") == "relative":
        return RelativeCurve.from_dict(values)
    return OperatorRegressor.from_dict(values)
