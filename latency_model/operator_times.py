"""OperatorTimes: time of each operator alone, measured or else predicted, and their sums."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import Conditions
from phonenas.space import Architecture, Operator
from phonenas.space.errors import UncoveredOperator

from .calibration import FEATURES, LATER_JOB, Calibration, operator_features
from .lookup_table import LookupTable
from .metrics import Z90
from .predicted import Explained, Predicted
from .units.regressor import Regressor

__all__ = ["OperatorTimes"]

COLUMNS = len(FEATURES) + 3
_ACCEPTED = 0.1  # relative spread of rounds that a measuring job accepts
Array = npt.NDArray[np.float64]
# What each regressor gave so far, since each call of one takes milliseconds: time in ms, and its
# standard error in ms.
_PREDICTED: WeakKeyDictionary[Regressor, dict[Operator, tuple[float, float]]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatorTimes:
    """Time of each operator alone on one device: measured, or else from a regressor.

    Args:
        conditions: What was measured under.
        table: Operators measured.
        regressor: For operators that were not; None if too few were measured.
        error_correlation: Share of the regressor's errors that adds up linearly within a network,
            in [0, 1].
    """

    conditions: Conditions
    table: LookupTable
    regressor: Regressor | None
    error_correlation: float = 0.0

    def ms(self, operators: Sequence[Operator], remedy: str = "") -> Array:
        """Time of each operator alone, (n,), ms: measured, or else from the regressor.

        Args:
            operators: n of them.
            remedy: Options of `phonenas profile` that measure what is missing.
        Raises:
            UncoveredOperator: Neither; the message says what would measure it.
        """
        return self._estimates(operators, remedy)[:, 0]

    def _estimates(self, operators: Sequence[Operator], remedy: str = "") -> Array:
        """Time of each operator in ms, and its standard error in ms, 0 if measured, (n, 2)."""
        regressor, measured = self.regressor, self.table.ms
        known = {} if regressor is None else _PREDICTED.setdefault(regressor, {})
        new = [o for o in dict.fromkeys(operators) if o not in measured and o not in known]
        if new:
            beyond = [o for o in new if regressor is None or not regressor.reaches(o)]
            if regressor is None or beyond:
                raise UncoveredOperator(self._missing(beyond, remedy))
            ms = regressor.predict_ms(new)
            pairs = zip(ms.tolist(), (ms * regressor.standard_error(new)).tolist(), strict=True)
            known.update(zip(new, pairs, strict=True))
        rows = [(measured[o], 0.0) if o in measured else known[o] for o in operators]
        return np.array(rows, np.float64).reshape(len(rows), 2)

    def _missing(self, operators: Sequence[Operator], remedy: str) -> str:
        device, others = self.conditions.device, len(operators) - 1
        text = f"{device} has no {operators[0]}" + (f" and {others} others" if others else "")
        text += f", beyond what it can be predicted from. It covers {len(self.table)} operators, "
        if self.conditions.origin == "imported":
            return text + (
                "imported: nothing can be measured there. Ask for a space that the table is of, as "
                "--space proxylessnas"
            )
        return text + (
            f"measured {self.table.date[:10]}. Measure what is missing:  phonenas profile --device "
            f"{shlex.quote(device)} " + (remedy or "--network 'BLOCKS'")
        )

    def predict(self, operators: Sequence[Operator]) -> Predicted:
        """Time of each operator alone, with the 90 % interval of a measurement in a later job.

        The rounds of one job lie too close together to show how a measured operator scatters
        between jobs. The regressor, fitted on all others, cannot be more exact than measurements:
        its error on operators left out stands for the scatter, of this measurement and the next.

        Raises:
            UncoveredOperator: As `ms`.
        """
        ms, errors = self._estimates(operators).T
        measured = np.array([o in self.table for o in operators])
        spread = np.array([self.table.spread.get(o, 0.0) for o in operators])
        # A mean absolute error of m is a standard deviation of about 1.25 m.
        scatter = 1.25 * self.regressor.mape if self.regressor is not None else 0.0
        # One round alone says nothing of its scatter: as much as a job accepts.
        known = np.where(np.isnan(spread), scatter or _ACCEPTED, spread / Z90)
        own = np.sqrt(2) * np.maximum(known, scatter)
        half = np.sqrt((Z90 * np.where(measured, own, errors / ms)) ** 2 + LATER_JOB**2)
        return Predicted(ms, ms / (1 + half), ms * (1 + half), measured)

    def covers(self, network: Architecture) -> bool:
        """Whether each of its operators was measured or is within the regressor's reach."""
        reach = self.regressor.reaches if self.regressor is not None else lambda _: False
        return all(o in self.table.ms or reach(o) for o in network.operators())

    def check(self, networks: Sequence[Architecture]) -> None:
        """Raises as `ms`; the message says how to measure what a network lacks."""
        for network in networks:
            self.ms(network.operators(), f"--network {shlex.quote(str(network))}")

    def row(self, operator: Operator) -> list[float]:
        """`operator_features`; for an unmeasured one its standard error in ms, the square, 1."""
        ms, error = map(float, self._estimates([operator])[0])
        uncovered = float(operator not in self.table)
        return [*operator_features(operator, ms), error, error**2, uncovered]

    def rows(self, architectures: Sequence[Architecture]) -> Array:
        """`row`, summed over each network, (n, columns)."""
        self.ms([o for a in architectures for o in a.operators()])  # all at once, which is quicker
        sums = [np.sum([self.row(o) for o in a.operators()], axis=0) for a in architectures]
        return np.array(sums, float).reshape(len(sums), COLUMNS)

    def uncovered_widths(self, rows: Array, whole_ms: Array) -> Array:
        """What unmeasured operators add to the relative half-width of each network, (n,).

        Args:
            rows: Of the networks, (n, columns).
            whole_ms: Their latency, (n,), ms.
        """
        share = self.error_correlation
        variance = share * rows[:, -3] ** 2 + (1 - share) * rows[:, -2]
        widths: Array = Z90 * np.sqrt(variance) / whole_ms
        return widths

    def shares(self, network: Architecture, calibration: Calibration) -> list[Explained]:
        """Each operator's part in a network's predicted time, and last the constant."""
        alone = self.predict(network.operators())
        coefficients = np.asarray(calibration.coefficients)
        ends = zip(alone.ms.tolist(), alone.low_ms.tolist(), alone.high_ms.tolist(), strict=True)
        parts = [
            Explained(
                o,
                float(np.dot(operator_features(o, ms), coefficients)),
                ms,
                low,
                high,
                o in self.table,
            )
            for o, (ms, low, high) in zip(network.operators(), ends, strict=True)
        ]
        return [*parts, Explained(None, calibration.constant, 0.0, 0.0, 0.0, False)]

    def attributed(self, calibration: Calibration, rows: Array) -> Calibration:
        """The calibration with `uncovered` set for the networks of `rows`, (n, columns)."""
        line = calibration.line_ms(rows[:, : len(FEATURES)])
        widths = self.uncovered_widths(rows[line > 0], line[line > 0])
        return replace(calibration, uncovered=float(np.sqrt(np.mean(widths**2))))

    def whole(self, rows: Array, calibration: Calibration) -> Predicted:
        """Networks from their `rows`, (n, columns), under a calibration."""
        ms = calibration.whole_ms(rows[:, : len(FEATURES)])
        half = calibration.half_widths(ms, self.uncovered_widths(rows, ms))
        return Predicted(ms, ms / (1 + half), ms * (1 + half), rows[:, -1] == 0)
