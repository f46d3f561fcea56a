"""Latency models as files: versioned JSON, checked when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.documents import Document
from ..data.measurement import Conditions
from ..space import Operator
from ..space.errors import NotEnoughData
from .calibration import Calibration
from .curve import curve_from_dict
from .lookup_table import LookupTable
from .metrics import Score
from .model import Examined, LatencyModel

__all__ = ["FORMAT", "VERSION", "document", "load"]

FORMAT, VERSION = "phonenas-latency-model", 2
_DOCUMENT = Document(FORMAT, VERSION, "latency model")


def document(model: LatencyModel) -> dict[str, Any]:
    """Everything of a model, ready for JSON."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "conditions": model.conditions.to_dict(),
        "date": model.table.date,
        "until": model.until,
        "measurements": model.measurements,
        "alike": model.alike,
        "operators": {
            o.key: [round(ms, 6), _rounded(model.table.spread[o])]
            for o, ms in model.table.ms.items()
        },
        "calibration": model.calibration.to_dict(),
        "scores": {name: s.to_dict() for name, s in model.scores.items()},
        "examined": [
            [e.network, e.predicted_ms, e.low_ms, e.high_ms, e.measured_ms] for e in model.examined
        ],
        "regressor": None if model.regressor is None else model.regressor.to_dict(),
    }


def load(path: str | Path) -> LatencyModel:
    """Read a model that `save` wrote.

    Raises:
        UnsupportedFormat: Not such a file, damaged, or of another version (both are named).
    """
    path = Path(path)
    again = "Fit it anew:  phonenas fit"
    found = _DOCUMENT.read(path, again)
    if found is None:
        raise NotEnoughData(
            f"there is no latency model at {path}. Fit one:  phonenas fit --device local"
        )
    with _DOCUMENT.checking(path, again):
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
            curve_from_dict(found["regressor"]) if found["regressor"] else None,
            Calibration.from_dict(found["calibration"]),
            [Examined(*row) for row in found["examined"]],
            {name: Score.from_dict(s) for name, s in found["scores"].items()},
            int(found["measurements"]),
            str(found["until"]),
            float(found["alike"]),
        )


def _rounded(spread: float) -> float | None:
    return None if spread != spread else round(spread, 4)
