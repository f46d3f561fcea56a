"""The latency model of a round, fitted on what was measured in the rounds before.

After the fit, the mean error that the model still has on the measured winners shifts it as a
whole, drawn towards no shift as if one more network had shown none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from phonenas.data import Conditions, MeasurementStore
from phonenas.data.documents import Ms, Text, digest_of, parsed, strict
from phonenas.data.files import write_atomic
from phonenas.latency_model import LatencyModel, load
from phonenas.latency_model.fitting import fit_measurements
from phonenas.space import Architecture
from phonenas.space.errors import UnsupportedFormat

__all__ = ["damage_advice", "round_model"]

# Files of a round that a new model makes obsolete.
_OWN: tuple[str, ...] = ("run.json", "checkpoint.npz", "evaluations.parquet", "log.csv")
_OWN += ("validation.json", "model.json", "taught.json")


class _Note(msgspec.Struct):
    """taught.json; phonenas 0.1 wrote no `run`."""

    measured: dict[Text, Ms]
    shift: Annotated[float, Meta(gt=-1, le=1e6)]
    run: Text = ""


def damage_advice(folder: Path) -> str:
    """What to do about a damaged file of a round, for people."""
    return (
        f"This is a round of a validation: remove {folder}, then give the same command again; the "
        "store holds the measurements."
    )


def round_model(
    folder: Path,
    store: MeasurementStore,
    conditions: Conditions,
    run: str,
    measured_ms: Mapping[str, float],
) -> tuple[LatencyModel, float]:
    """The model of a round, and its shift, relative.

    It is the one in the round's folder as long as the same was measured before the round;
    else a new one is fitted, and the files of the earlier round there are removed.

    Args:
        folder: Of the round; `model.json` and `taught.json` are written into it.
        store: All operators and whole networks in it count.
        conditions: Under which they were measured.
        run: Digest of the settings of the run, the model that it was searched with among them.
        measured_ms: Latencies measured in the rounds before, by block string, in ms; one at least.
    Raises:
        NotEnoughData, UncoveredOperator: As `latency_model.fit`.
        UnsupportedFormat: `taught.json` or `model.json` is damaged.
        StoreError: The folder cannot be written.
    """
    from phonenas.latency_model.transfer.source_devices import fit_like, source_of

    lineage = {"run": run, "measured": dict(measured_ms)}
    model, note = folder / "model.json", folder / "taught.json"
    if note.exists() and model.exists():
        try:
            document = parsed(note.read_bytes())
            kept, before = strict(document, _Note), load(model)
            if kept.run and document.get("digest") != digest_of(document):
                raise ValueError("it was changed since phonenas wrote it")
        except (OSError, ValueError) as error:
            raise UnsupportedFormat(
                f"{note} or {model.name} beside it is damaged: {error}. {damage_advice(folder)}"
            ) from error
        if {"run": kept.run, "measured": kept.measured} == lineage:
            return before, kept.shift
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)
    now = store.measurements(conditions)
    source = source_of(store, conditions, now)
    fitted = (
        fit_measurements(conditions, now)
        if source is None
        else fit_like(source, conditions, now).model
    )
    predicted_ms = fitted.latency_ms([Architecture.parse(name) for name in measured_ms])
    errors = np.log(list(measured_ms.values())) - np.log(predicted_ms)
    shift = float(np.expm1(errors.sum() / (len(errors) + 1)))
    fitted.scaled(1 + shift).save(model)
    # Last: a round that was stopped before this is fitted again.
    content = {**lineage, "shift": shift}
    write_atomic(note, json.dumps({**content, "digest": digest_of(content)}, indent=1) + "\n")
    return load(model), shift
