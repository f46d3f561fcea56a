"""Taught: the latency model of a round, fitted on what the device said of the rounds before.

After the fit, what the model still errs on the measured winners shifts it as a whole, drawn
towards no shift as if one more network had shown none. Networks that were measured are told by
their measurement.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data import Conditions, MeasurementStore
from ..data.files import write_atomic
from ..latency_model import LatencyModel, load, score
from ..latency_model.fitting import fit_measurements
from ..space import Architecture, Genomes, SearchSpace
from ..space.errors import PhonenasError

__all__ = ["Measured", "shifted", "taught"]

_OWN = (
    "run.json", "checkpoint.npz", "evaluations.parquet", "log.csv", "validation.json", "model.json",
    "taught.json",
)  # fmt: skip
Array = npt.NDArray[np.float64]


def taught(
    folder: Path,
    store: MeasurementStore,
    conditions: Conditions,
    promised: str,
    measured_ms: Mapping[str, float],
) -> tuple[LatencyModel, float]:
    """The model of a round, and its shift, relative.

    It is the one that lies in the round's folder as long as the same was measured before it;
    else a new one is fitted, and what the round left there is removed.

    Args:
        folder: Of the round; `model.json` and `taught.json` are written into it.
        store: All operators and whole networks in it teach.
        conditions: Under which they were measured.
        promised: Digest of the model that the run was searched with.
        measured_ms: What the rounds before measured, by block string, ms; one at least.
    Raises:
        NotEnoughData, UncoveredOperator: As `latency_model.fit`.
        StoreError: The folder cannot be written.
    """
    from ..latency_model.relatives import relative_of, tell

    lineage = {"promised": promised, "measured": dict(measured_ms)}
    model, note = folder / "model.json", folder / "taught.json"
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        if {name: kept.get(name) for name in lineage} == lineage:
            return load(model), float(kept["shift"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PhonenasError):
        pass  # a new one
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)
    now = store.measurements(conditions)
    relative = relative_of(store, conditions, now)
    fitted = (
        fit_measurements(conditions, now)
        if relative is None
        else tell(relative, conditions, now).model
    )
    told = fitted.latency_ms([Architecture.parse(name) for name in measured_ms])
    off = np.log(list(measured_ms.values())) - np.log(told)
    shift = float(np.expm1(off.sum() / (len(off) + 1)))
    shifted(fitted, shift).save(model)
    # Last: what was stopped before is done anew.
    write_atomic(note, json.dumps({**lineage, "shift": shift}, indent=1) + "\n")
    return load(model), shift


def shifted(model: LatencyModel, by: float) -> LatencyModel:
    """The same model with every whole network `by` slower, relative; its scores too."""
    c, factor = model.calibration, 1 + by
    calibration = replace(
        c,
        coefficients=tuple(factor * w for w in c.coefficients),
        constant=factor * c.constant,
        low_ms=factor * c.low_ms,
        high_ms=factor * c.high_ms,
    )
    examined = [
        replace(
            e,
            predicted_ms=factor * e.predicted_ms,
            low_ms=factor * e.low_ms,
            high_ms=factor * e.high_ms,
        )
        for e in model.examined
    ]
    scores = dict(model.scores)
    if examined:
        columns = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
        scores["model"] = score(*([getattr(e, name) for e in examined] for name in columns))
    return LatencyModel(
        model.conditions, model.table, model.regressor, calibration, examined, scores,
        model.measurements, model.until, model.alike,
    )  # fmt: skip


class Measured(LatencyModel):
    """A model that gives the measurement of what was measured, and else predicts."""

    @classmethod
    def of(cls, model: LatencyModel, measured_ms: Mapping[str, float]) -> Measured:
        """The model, with measurements by block string."""
        found = cls(
            model.conditions, model.table, model.regressor, model.calibration, model.examined,
            model.scores, model.measurements, model.until, model.alike,
        )  # fmt: skip
        found.measured_ms = dict(measured_ms)
        return found

    measured_ms: dict[str, float]

    @cached_property
    def digest(self) -> str:
        text = super().digest + json.dumps(self.measured_ms, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _rows(self, space: SearchSpace) -> Callable[[Genomes], tuple[list[int], list[float]]]:
        """Which genomes were measured, and what they took."""
        networks = [(Architecture.parse(name), ms) for name, ms in self.measured_ms.items()]
        known = {space.keys(space.encode(a)[None])[0]: ms for a, ms in networks if a in space}

        def of(genomes: Genomes) -> tuple[list[int], list[float]]:
            found = [(i, known[k]) for i, k in enumerate(space.keys(genomes)) if k in known]
            return [i for i, _ in found], [ms for _, ms in found]

        return of

    def on(self, space: SearchSpace) -> Callable[[Genomes], Array]:
        told, rows_of = super().on(space), self._rows(space)

        def latency_ms(genomes: Genomes) -> Array:
            found = told(genomes)
            rows, ms = rows_of(genomes)
            found[rows] = ms
            return found

        return latency_ms

    def intervals(
        self, space: SearchSpace
    ) -> Callable[[Genomes], tuple[Array, Array, npt.NDArray[np.bool_]]]:
        told, rows_of = super().intervals(space), self._rows(space)

        def ends(genomes: Genomes) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
            low, high, covered = told(genomes)
            rows, ms = rows_of(genomes)
            low[rows], high[rows] = ms, ms
            return low, high, covered

        return ends
