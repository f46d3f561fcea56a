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
from ..space.errors import NotEnoughData, UncoveredOperator, UnsupportedFormat
from .calibration import (
    FEATURES,
    Calibration,
    operator_features,
)
from .lookup_table import LookupTable
from .metrics import Score
from .regressor import OperatorRegressor

__all__ = ["Examined", "Explained", "LatencyModel", "Predicted", "load"]

FORMAT, VERSION = "phonenas-latency-model", 1
_Z90 = 1.645
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
        alone_ms: Its time alone, ms.
        measured: Whether that was measured (else the curve's).
    """

    operator: Operator | None
    ms: float
    alone_ms: float
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
    """

    def __init__(
        self,
        conditions: Conditions,
        table: LookupTable,
        regressor: OperatorRegressor | None,
        calibration: Calibration,
        examined: Sequence[Examined],
        scores: Mapping[str, Score],
        measurements: int = 0,
    ) -> None:
        self.measurements = measurements
        self.conditions, self.table, self.regressor = conditions, table, regressor
        self.calibration, self.examined, self.scores = calibration, tuple(examined), dict(scores)
        self._curve: dict[Operator, float] = {}

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.conditions.device

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
                raise UncoveredOperator(
                    f"{self.device} has no {beyond[0]}"
                    + (f" and {len(beyond) - 1} others" if len(beyond) > 1 else "")
                    + f", and they lie beyond what it can be predicted from. It covers "
                    f"{len(self.table)} operators, measured {self.table.date[:10]}. Measure what "
                    f"is missing:  phonenas profile --device {self.device} "
                    + (remedy or "--network 'BLOCKS'")
                )
            told = self.regressor.predict_ms(unknown)
            self._curve.update(zip(unknown, map(float, told), strict=True))
        return np.array([self.table.ms.get(o) or self._curve[o] for o in operators])

    def _row(self, operator: Operator) -> list[float]:
        """Calibration features, then the share (ms²) of doubt if it was not measured, and 1."""
        ms = float(self.operator_ms([operator])[0])
        hole = operator not in self.table
        mape = self.regressor.mape if self.regressor is not None and hole else 0.0
        # Errors of single operators are drawn apart, so squares add up. A mean absolute error
        # of m is a standard deviation of about 1.25 m.
        return [*operator_features(operator, ms), (1.25 * mape * ms) ** 2, float(hole)]

    # -- networks -----------------------------------------------------------------------------

    def predict(self, architectures: Sequence[Architecture]) -> Predicted:
        """Latency of networks, with 90 % intervals.

        Raises:
            UncoveredOperator: A network holds an operator that the model cannot tell.
        """
        for architecture in architectures:
            self.operator_ms(architecture.operators(), f"--network '{architecture}'")
        rows = [np.sum([self._row(o) for o in a.operators()], axis=0) for a in architectures]
        return self._predicted(np.array(rows, float).reshape(len(rows), len(FEATURES) + 2))

    def _predicted(self, rows: Array) -> Predicted:
        ms = self.calibration.whole_ms(rows[:, : len(FEATURES)])
        holes = _Z90 * np.sqrt(rows[:, -2]) / ms
        half = self.calibration.half_widths(ms, holes)
        return Predicted(ms, ms / (1 + half), ms * (1 + half), rows[:, -1] == 0)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Latency of networks, (n,), ms. Raises as `predict`."""
        return self.predict(architectures).ms

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
        alone = self.operator_ms(operators)
        coefficients = np.asarray(self.calibration.coefficients)
        shares = [
            Explained(
                o, float(np.dot(operator_features(o, ms), coefficients)), float(ms), o in self.table
            )
            for o, ms in zip(operators, alone, strict=True)
        ]
        return [*shares, Explained(None, self.calibration.constant, 0.0, True)]

    # -- files --------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "conditions": self.conditions.to_dict(),
            "date": self.table.date,
            "measurements": self.measurements,
            "operators": {
                o.key: [round(ms, 6), _rounded(self.table.spread[o])]
                for o, ms in self.table.ms.items()
            },
            "calibration": self.calibration.to_dict(),
            "scores": {name: s.to_dict() for name, s in self.scores.items()},
            "examined": [
                [e.network, e.predicted_ms, e.low_ms, e.high_ms, e.measured_ms]
                for e in self.examined
            ],
            "regressor": None if self.regressor is None else self.regressor.to_dict(),
        }

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

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for the whole model."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def save(self, path: str | Path) -> Path:
        """Write it as versioned JSON, atomically."""
        return write_atomic(Path(path), json.dumps(self.to_dict(), indent=0) + "\n")


def load(path: str | Path) -> LatencyModel:
    """Read a model that `save` wrote.

    Raises:
        UnsupportedFormat: Not such a file, damaged, or of another version (both are named).
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotEnoughData(
            f"there is no latency model at {path}. Fit one:  phonenas fit --device local"
        ) from error
    except (OSError, ValueError) as error:
        raise UnsupportedFormat(f"{path} is no latency model: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UnsupportedFormat(f"{path} is no latency model of phonenas")
    if found.get("version") != VERSION:
        raise UnsupportedFormat(
            f"{path} has version {found.get('version')}; this phonenas reads version {VERSION}. "
            "Fit it anew:  phonenas fit"
        )
    try:
        operators = {Operator.parse(k): v for k, v in found["operators"].items()}
        if not all(0 < v[0] < float("inf") for v in operators.values()):
            raise ValueError("an operator's time is no positive number")
        return LatencyModel(
            Conditions.from_dict(found["conditions"]),
            LookupTable(
                {o: float(v[0]) for o, v in operators.items()},
                {o: float("nan") if v[1] is None else float(v[1]) for o, v in operators.items()},
                found["date"],
            ),
            OperatorRegressor.from_dict(found["regressor"]) if found["regressor"] else None,
            Calibration.from_dict(found["calibration"]),
            [Examined(*row) for row in found["examined"]],
            {name: Score.from_dict(s) for name, s in found["scores"].items()},
            int(found["measurements"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UnsupportedFormat):
            raise
        raise UnsupportedFormat(f"{path} is damaged: {type(error).__name__} {error}") from error


def _profile(space: SearchSpace) -> str:
    return f"--space {space.name} --resolution {space.resolution_px}"


def _rounded(spread: float) -> float | None:
    return None if spread != spread else round(spread, 4)
