"""LatencyModel: what a device takes for a network that was never run on it.

Operators teach it (lookup table, and a curve for what the table lacks), whole networks
calibrate it, and each whole network in turn examines a model that it took no part in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.files import write_atomic
from ..data.measurement import Conditions
from ..space import AdditiveTable, Architecture, Genomes, Operator, SearchSpace
from ..space.errors import UncoveredOperator
from .calibration import (
    FEATURES,
    LATER_JOB,
    Calibration,
    operator_features,
)
from .curve import OperatorCurve
from .interval import Z90, chance_within
from .lookup_table import LookupTable, evenly
from .metrics import Score, score

__all__ = ["Examined", "Explained", "LatencyModel", "Predicted"]

COLUMNS = len(FEATURES) + 3
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """Predictions for n networks.

    Args:
        ms: Latency at batch 1, (n,), ms.
        low_ms, high_ms: 90 % interval, (n,), ms.
        covered: Whether every operator was measured, (n,); where not, the curve filled in and
            the interval is wider.
    """

    ms: Array
    low_ms: Array
    high_ms: Array
    covered: npt.NDArray[np.bool_]

    def within(self, target_ms: float) -> Array:
        """Probability that each is at or below a target when measured, (n,); see `chance_within`."""
        return chance_within(self.ms, self.low_ms, self.high_ms, target_ms)


@dataclass(frozen=True)
class Examined:
    """A whole network, predicted by a model that it took no part in."""

    network: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float


@dataclass(frozen=True)
class Explained:
    """What one operator adds to a network's predicted latency.

    Args:
        operator: Which; None for the network's constant share.
        ms: Its share of the whole, ms.
        alone_ms, low_ms, high_ms: Its time alone, and the 90 % interval of that, ms.
        measured: Whether that was measured (else the curve's).
    """

    operator: Operator | None
    ms: float
    alone_ms: float
    low_ms: float
    high_ms: float
    measured: bool


class LatencyModel:
    """Lifetime: made by `fit` or `load`; then only read.

    Attributes:
        conditions: What it was measured under; it speaks of nothing else.
        table: Operators measured.
        regressor: The curve for operators that were not; None if they were too few.
        calibration: From the sum to the whole.
        examined: Each whole network against a model that it took no part in.
        scores: "model", "lookup_table" (raw sum of operators) and "macs" (a straight line in
            MACs, fitted on the same networks), each on networks not used to fit it.
        measurements: How many it was fitted on, the sentinel's aside.
        until: When the latest of these was made, ISO 8601.
        alike: Share of the curve's errors that adds up linearly within a network, in [0, 1].
    """

    def __init__(
        self,
        conditions: Conditions,
        table: LookupTable,
        regressor: OperatorCurve | None,
        calibration: Calibration,
        examined: Sequence[Examined],
        scores: Mapping[str, Score],
        measurements: int = 0,
        until: str = "",
        alike: float = 0.0,
    ) -> None:
        self.measurements, self.until = measurements, until or table.date
        self.alike = alike
        self.conditions, self.table, self.regressor = conditions, table, regressor
        self.calibration, self.examined, self.scores = calibration, tuple(examined), dict(scores)
        self._curve: dict[Operator, tuple[float, float]] = {}  # ms, and its doubt in ms

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.conditions.device

    @property
    def calibrated(self) -> bool:
        """Whether whole networks taught it what a sum of operators lacks."""
        return self.calibration.networks > 0

    # -- operators ----------------------------------------------------------------------------

    def operator_ms(self, operators: Sequence[Operator], remedy: str = "") -> Array:
        """Time of each operator alone, (n,), ms: measured, or else from the curve.

        Raises:
            UncoveredOperator: Neither; the message says what would measure it.
        """
        unknown = [
            o for o in dict.fromkeys(operators) if o not in self.table and o not in self._curve
        ]
        if unknown:
            beyond = [o for o in unknown if self.regressor is None or not self.regressor.reaches(o)]
            if beyond or self.regressor is None:
                imported = self.conditions.origin == "imported"
                raise UncoveredOperator(
                    f"{self.device} has no {beyond[0]}"
                    + (f" and {len(beyond) - 1} others" if len(beyond) > 1 else "")
                    + ", beyond what it can be predicted from. It covers "
                    f"{len(self.table)} operators, "
                    + (
                        "imported: nothing can be measured there. Ask for a space that the table is of, as "
                        "--space proxylessnas"
                        if imported
                        else f"measured {self.table.date[:10]}. Measure what is missing:  phonenas "
                        f"profile --device {self.device} " + (remedy or "--network 'BLOCKS'")
                    )
                )
            told = self.regressor.predict_ms(unknown)
            pairs = np.column_stack([told, told * self.regressor.doubt(unknown)]).tolist()
            self._curve.update((o, (ms, d)) for o, (ms, d) in zip(unknown, pairs, strict=True))
        return np.array([self.table.ms.get(o) or self._curve[o][0] for o in operators])

    def operators(self, operators: Sequence[Operator]) -> Predicted:
        """Time of each operator alone, with the 90 % interval of a measurement in a later job.

        The rounds of one job stand too near each other to tell what a measured operator is worth.
        But the curve, told by all others, cannot stand nearer to it than measurements scatter: its
        error on operators left out is taken for the scatter, of the one measured and of the next.

        Raises:
            UncoveredOperator: As `operator_ms`.
        """
        ms = self.operator_ms(operators)
        known = np.array([o in self.table for o in operators])
        spread = np.array([self.table.spread.get(o, 0.0) for o in operators])
        # A mean absolute error of m is a standard deviation of about 1.25 m.
        scatter = 1.25 * self.regressor.mape if self.regressor is not None else 0.0
        own = np.sqrt(2) * np.maximum(np.nan_to_num(spread), scatter)
        doubt = np.array([self._curve.get(o, (1.0, 0.0))[1] for o in operators]) / ms
        half = np.sqrt((Z90 * np.where(known, own, doubt)) ** 2 + LATER_JOB**2)
        return Predicted(ms, ms / (1 + half), ms * (1 + half), known)

    def _row(self, operator: Operator) -> list[float]:
        """Calibration features, then an unmeasured operator's doubt in ms, its square, and 1."""
        ms = float(self.operator_ms([operator])[0])
        _, doubt = self._curve.get(operator, (0.0, 0.0)) if operator not in self.table else (0, 0)
        hole = float(operator not in self.table)
        return [*operator_features(operator, ms), doubt, doubt**2, hole]

    # -- networks -----------------------------------------------------------------------------

    def predict(self, architectures: Sequence[Architecture]) -> Predicted:
        """Latency of networks, with 90 % intervals.

        Raises:
            UncoveredOperator: A network holds an operator that the model cannot tell.
        """
        for architecture in architectures:
            self.operator_ms(architecture.operators(), f"--network '{architecture}'")
        return self._predicted(self.rows(architectures))

    def _predicted(self, rows: Array) -> Predicted:
        ms = self.calibration.whole_ms(rows[:, : len(FEATURES)])
        half = self.calibration.half_widths(ms, self.hole_widths(rows))
        return Predicted(ms, ms / (1 + half), ms * (1 + half), rows[:, -1] == 0)

    def hole_widths(self, rows: Array) -> Array:
        """What unmeasured operators add to the relative half-width of each network, (n,).

        Errors of like operators are alike: a share of them adds up, the rest by their squares.
        """
        linear, squares = rows[:, -3], rows[:, -2]
        variance = self.alike * linear**2 + (1 - self.alike) * squares
        ms = self.calibration.whole_ms(rows[:, : len(FEATURES)])
        found: Array = Z90 * np.sqrt(variance) / ms
        return found

    def rows(self, architectures: Sequence[Architecture]) -> Array:
        """What calibration and intervals go by, summed over each network, (n, columns)."""
        found = [np.sum([self._row(o) for o in a.operators()], axis=0) for a in architectures]
        return np.array(found, float).reshape(len(found), COLUMNS)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Latency of networks, (n,), ms. Raises as `predict`."""
        return self.predict(architectures).ms

    def examine(self, architectures: Sequence[Architecture], measured_ms: Array) -> LatencyModel:
        """The same model, examined on whole networks that did not teach it, (n,) ms."""
        if not architectures:
            return self
        told = self.predict(architectures)
        rows = zip(architectures, told.ms, told.low_ms, told.high_ms, measured_ms, strict=True)
        examined = [Examined(str(a), *map(float, numbers)) for a, *numbers in rows]
        scores = {"model": score(told.ms, measured_ms, told.low_ms, told.high_ms)}
        return LatencyModel(
            self.conditions, self.table, self.regressor, self.calibration, examined, scores,
            self.measurements, self.until, self.alike,
        )  # fmt: skip

    def on(self, space: SearchSpace) -> Callable[[Genomes], Array]:
        """Latency by genome for populations of a space: one table look-up a part.

        Raises:
            UncoveredOperator: The space holds an operator that the model cannot tell.
        """
        self.operator_ms(space.operators(), _profile(space))
        coefficients = np.asarray(self.calibration.coefficients)
        ms = dict(zip(space.operators(), self.operator_ms(space.operators()), strict=True))
        return AdditiveTable(
            space,
            lambda o: float(np.dot(operator_features(o, ms[o]), coefficients)),
            self.calibration.constant,
        )

    def intervals(
        self, space: SearchSpace
    ) -> Callable[[Genomes], tuple[Array, Array, npt.NDArray[np.bool_]]]:
        """Low and high end of the 90 % interval in ms and `covered`, each (n,), by genome."""
        self.operator_ms(space.operators(), _profile(space))
        table = AdditiveTable(space, self._row)

        def of(genomes: Genomes) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
            told = self._predicted(table(genomes))
            return told.low_ms, told.high_ms, told.covered

        return of

    def explain(self, architecture: Architecture) -> list[Explained]:
        """Where a network's predicted milliseconds go; the shares add up to the prediction."""
        operators = architecture.operators()
        alone = self.operators(operators)
        coefficients = np.asarray(self.calibration.coefficients)
        numbers = zip(operators, alone.ms, alone.low_ms, alone.high_ms, strict=True)
        shares = [
            Explained(
                o, float(np.dot(operator_features(o, ms), coefficients)), float(ms), float(low),
                float(high), o in self.table,
            )
            for o, ms, low, high in numbers
        ]  # fmt: skip
        return [*shares, Explained(None, self.calibration.constant, 0.0, 0.0, 0.0, True)]

    def spread_out(self, count: int) -> list[Architecture]:
        """Up to `count` of the networks that examined it, evenly from fast to slow."""
        ordered = sorted(self.examined, key=lambda e: (e.measured_ms, e.network))
        return [Architecture.parse(e.network) for e in evenly(ordered, count)]

    # -- files --------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for the whole model."""
        from .model_file import document

        text = json.dumps(document(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def save(self, path: str | Path) -> Path:
        """Write it as versioned JSON, atomically; `load` reads it."""
        from .model_file import document

        return write_atomic(Path(path), json.dumps(document(self), separators=(",", ":")) + "\n")

    def summary(self) -> dict[str, Any]:
        """What a run keeps of the model that promised, ready for JSON.

        Its digest and conditions, how much taught it, its scores, and the networks that
        examined it as [network, predicted_ms, low_ms, high_ms, measured_ms].
        """
        return {
            "digest": self.digest,
            "conditions": self.conditions.to_dict(),
            "operators": len(self.table),
            "networks": self.calibration.networks,
            "date": self.table.date,
            "scores": {name: s.to_dict() for name, s in self.scores.items()},
            "examined": [
                [e.network, e.predicted_ms, e.low_ms, e.high_ms, e.measured_ms]
                for e in self.examined
            ],
        }


def _profile(space: SearchSpace) -> str:
    return f"--space {space.name} --resolution {space.resolution_px}"
