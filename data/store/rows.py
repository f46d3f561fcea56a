"""Rounds, conditions and measurements as rows of a store's tables, and back, read strictly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..documents import Count, Ms, Text, parsed, strict
from ..measurement import At, Conditions, Round, Startup, SubjectKind

__all__ = ["MeasurementRow", "columns_of", "conditions_of", "measurement_row", "round_of"]

_SAMPLES = msgspec.json.Decoder(Annotated[tuple[Ms, ...], Meta(min_length=1, max_length=1_000_000)])
_SENTINEL = msgspec.json.Decoder(Annotated[tuple[Ms, ...], Meta(max_length=1_000_000)])
_TELEMETRY = msgspec.json.Decoder(dict[str, Any])
# Of a round's startup among its telemetry: older releases, which know none, read the store too.
_STARTUP = "startup"
_OWN = "device:startup"  # what a device itself calls so
_OURS = {f.name for f in fields(Startup)}


class MeasurementRow(msgspec.Struct, array_like=True):
    """A row of the table of measurements, its columns in their order."""

    id: Count
    conditions: Text
    kind: SubjectKind
    subject: Text
    series: Count
    purpose: Text
    complete: bool
    given_up: Text | None


def _times(ms: Sequence[float]) -> str:
    """As JSON, to a millionth of a ms; shorter ones whole, for no time is 0."""
    return json.dumps([round(s, 6) or s for s in ms], allow_nan=False)


def _telemetry(values: dict[str, Any]) -> str:
    """As JSON, which has no NaN and no infinity: such values are left out, null in lists.

    Bytes of a file's name that are no UTF-8 become question marks.
    """
    finite = {k: v for k, v in values.items() if not isinstance(v, float) or isfinite(v)}
    text = json.dumps(finite, ensure_ascii=False).encode(errors="replace")
    plain = json.loads(text, parse_constant=lambda _: None)
    return json.dumps(plain, sort_keys=True, allow_nan=False)


def columns_of(taken: Round) -> dict[str, Any]:
    """A round as columns of its table, those that name it left out."""
    startup = {} if taken.startup is None else {_STARTUP: asdict(taken.startup)}
    told = {_OWN if k == _STARTUP else k: v for k, v in taken.telemetry.items()}
    return {
        "samples_ms": _times(taken.samples_ms),
        "sentinel_ms": _times(taken.sentinel_ms),
        "preempted": taken.preempted,
        "at": taken.at,
        "circumstances": _telemetry({**told, **startup}),
    }


def round_of(row: Any) -> Round:
    """A round by its row.

    Raises:
        ValueError: The row is damaged.
    """
    telemetry = _TELEMETRY.decode(row.circumstances)
    startup = telemetry.pop(_STARTUP, None)
    if _OWN in telemetry:
        telemetry[_STARTUP] = telemetry.pop(_OWN)
    elif not isinstance(startup, dict | None) or not {*(startup or ())} <= _OURS:
        # A device's, by a release that knew no other.
        telemetry[_STARTUP], startup = startup, None
    return Round(
        _SAMPLES.decode(row.samples_ms),
        _SENTINEL.decode(row.sentinel_ms),
        strict(row.preempted, Count),
        strict(row.at, At),
        telemetry,
        None if startup is None else strict(startup, Startup),
    )


def measurement_row(row: Any) -> MeasurementRow:
    """A row of the table of measurements; ValueError where it is damaged."""
    return strict(tuple(row), MeasurementRow)


def conditions_of(fields: Any, digest: Any) -> Conditions:
    """Conditions by their row; ValueError where it is damaged."""
    conditions = Conditions.from_dict(parsed(fields))
    if conditions.digest != digest:
        raise ValueError(f"the conditions {digest} have the digest {conditions.digest}")
    return conditions
