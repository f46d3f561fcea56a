"""A run's validation.json as a report reads it: each value checked, what lacks filled in."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phonenas.search.checkpoint import of_this_run
from phonenas.search.run_document import named_in
from phonenas.search.run_folder import Loaded
from phonenas.search.validation.validate import SAID
from phonenas.search.validation.validation_file import DOCUMENT, checked_validation
from phonenas.space.errors import PhonenasError

from .several import of_devices

__all__ = ["measured_in", "read_validation"]

_NUMBERS = ("top1", "predicted_ms", "low_ms", "high_ms", "measured_ms", "spread", "error")
_FLAGS = ("inside", "meets_target", "outside")


def read_validation(run_dir: Path) -> dict[str, Any] | None:
    """What `phonenas validate` wrote into a run; None where it has not been given yet.

    Raises:
        UnsupportedFormat: Another format or version (both are named), or damaged.
        StoreError: It cannot be read.
    """
    from .plots import calibration_points, operator_points

    path = run_dir / "validation.json"
    again = f"Write it again:  phonenas validate {shlex.quote(str(run_dir))} --device ..."
    validation = DOCUMENT.read(path, again)
    if validation is None:
        return None
    with DOCUMENT.checking(path, again):
        checked_validation(validation)
        for v in validation["networks"]:
            v |= {n: math.nan if v.get(n) is None else float(v[n]) for n in _NUMBERS}
            v |= {k: _flag(v.get(k)) for k in _FLAGS}
            v["verdict"] = _target_verdict(v)
        validation["unmeasured"] = [
            {"id": int(u["id"]), "block_args": str(u["block_args"]), "reason": str(u["reason"])}
            for u in validation.get("unmeasured") or ()
        ]
        for name in ("verdict", "conditions", "score", "model"):
            validation[name] = dict(validation.get(name) or {})
        validation["model"]["scores"] = dict(validation["model"].get("scores") or {})
        validation = named_in(run_dir, validation)
        for name in ("rounds", "best"):
            validation[name] = [dict(row) for row in validation.get(name) or ()]
        for row in validation["rounds"]:
            row |= {"round": int(row["round"]), "networks": list(row["networks"])}
            row |= {k: dict(row.get(k) or {}) for k in ("score", "changed")}
        for v in validation["best"]:
            v |= {"round": int(v["round"]), "name": str(v["name"])}
            v |= {k: float(v[k]) for k in ("top1", "predicted_ms", "measured_ms")}
            v["meets_target"] = _flag(v.get("meets_target"))
            v["verdict"] = _target_verdict(v)
        calibration_points(validation), operator_points(validation)
    return validation


def measured_in(run: Loaded) -> dict[str, list[dict[str, Any]]]:
    """The validated networks of a run on each of its devices, by the column of its latency, or ""
    where it is of one device.

    Of a validation that is damaged, or of another run, there are none: the report tells it.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for view in of_devices(run):
        name = f"latency:{view.settings['device']}" if len(run.devices) > 1 else ""
        path = view.path / "validation.json"
        try:
            validation = read_validation(view.path) or {}
            of_this_run(path, validation.get("run"), view.settings, "")
        except PhonenasError:
            continue
        there = {c.id: c.block_args for c in view.front}
        found[name] = [
            v for v in validation.get("networks", ()) if there.get(v["id"]) == v["block_args"]
        ]
    return found


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _target_verdict(v: Mapping[str, Any]) -> str | None:
    """What the measurement says of the target; a file of version 0.1 has the value's word alone."""
    if v.get("verdict") in SAID:
        return str(v["verdict"])
    return {True: "meets", False: "misses"}.get(v["meets_target"])
