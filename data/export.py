"""Measurements as a plain table, for other programs: CSV or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..space.errors import InvalidArgument, NotEnoughData
from .files import write_atomic
from .store import MeasurementStore

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["export", "table"]


def table(store: MeasurementStore, device: str | None = None) -> pd.DataFrame:
    """One row a measurement: statistics, raw samples, and every field of its conditions.

    `latency_ms` is the pseudo-median of the rounds' medians in ms, `spread` the relative half-width
    between rounds, both at the reference speed; `raw_ms` the median as it came; `medians_ms` and `samples_ms` JSON lists (a list a round for the latter).
    Columns that describe conditions carry their own names (`device`, `runtime`, ...).
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for conditions in store.conditions(device):
        for m in store.measurements(conditions, all_series=True):
            rows.append(
                {
                    "kind": m.kind,
                    "subject": m.subject,
                    "latency_ms": round(m.latency_ms, 6),
                    "raw_ms": round(m.raw_ms, 6),
                    "spread": round(m.spread, 5),
                    "rounds": len(m.rounds),
                    "samples": m.samples,
                    "preempted": sum(r.preempted for r in m.rounds),
                    "series": m.series,
                    "purpose": m.purpose,
                    "measured_at": m.at,
                    "medians_ms": json.dumps(m.medians_ms),
                    "samples_ms": json.dumps([r.samples_ms for r in m.rounds]),
                    "sentinel_ms": json.dumps([r.sentinel_ms for r in m.rounds]),
                    "reference_ms": m.reference_ms,
                    "circumstances": json.dumps([r.circumstances for r in m.rounds]),
                    "conditions": conditions.digest,
                    **conditions.to_dict(),
                }
            )
    return pd.DataFrame(rows)


def export(store: MeasurementStore, path: Path, device: str | None = None) -> int:
    """Write `table` to a .csv or .parquet file; returns the number of measurements.

    Raises:
        InvalidArgument: Another ending.
        NotEnoughData: The store holds nothing for the device.
        StoreError: The file cannot be written.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise InvalidArgument(f"{path.name}: the export is a .csv or a .parquet file")
    found = table(store, device)
    if found.empty:
        raise NotEnoughData(
            f"the store {store.location} holds no measurement"
            + (f" of {device!r}. " if device else ". ")
            + "Make some:  phonenas profile --device local --space mnasnet"
        )
    if path.suffix == ".csv":
        write_atomic(path, found.to_csv(index=False))
    else:
        write_atomic(path, lambda beside: found.to_parquet(beside, index=False))
    return len(found)
