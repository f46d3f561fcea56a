"""Measurements as a plain table, for other programs: CSV or Parquet."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.space.errors import InvalidArgument, NotEnoughData

from .files import refuse_other, write_atomic
from .store import MeasurementStore

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_written", "export", "harmless", "table", "to_csv"]

# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula: with an apostrophe before it, as people
    write there; `as_written` takes it off again.

    >>> harmless("=1+1"), harmless("'=1+1"), harmless("plain")
    ("'=1+1", "''=1+1", 'plain')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def as_written(cell: str) -> str:
    """Inverse of `harmless`.

    >>> as_written("'=1+1"), as_written("'plain'")
    ('=1+1', "'plain'")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def to_csv(rows: pd.DataFrame) -> str:
    """A table as CSV; its texts are made `harmless`, its numbers stay."""

    def cell(value: Any) -> Any:
        return harmless(value) if isinstance(value, str) else value

    texts = [c for c in rows if rows[c].dtype == object or str(rows[c].dtype).startswith("str")]
    shown = rows.assign(**{str(c): rows[c].map(cell) for c in texts})
    return str(shown.rename(columns=harmless).to_csv(index=False))


def table(store: MeasurementStore, device: str | None = None) -> pd.DataFrame:
    """One row a measurement: statistics, raw samples, and every field of its conditions.

    `latency_ms` is the value of the rounds' medians in ms, `spread` half its 90 % interval,
    relative; `p50_ms` to `energy_mj` are `Measurement.figures`, empty where unknown;
    `medians_ms`, `samples_ms` and `sentinel_ms` are JSON lists (a list a round for the latter
    two). Columns that describe conditions carry their own names (`device`, ...).
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
                    "spread": round(m.spread, 5),
                    **m.figures,
                    "rounds": len(m.rounds),
                    "samples": m.samples,
                    "preempted": sum(r.preempted for r in m.rounds),
                    "series": m.series,
                    "purpose": m.purpose,
                    "measured_at": m.at,
                    "medians_ms": json.dumps(m.medians_ms),
                    "samples_ms": json.dumps([r.samples_ms for r in m.rounds]),
                    "sentinel_ms": json.dumps([r.sentinel_ms for r in m.rounds]),
                    "circumstances": json.dumps([r.telemetry for r in m.rounds]),
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
    refuse_other(path)
    rows = table(store, device)
    if rows.empty:
        raise NotEnoughData(
            f"the store {store.location} holds no measurement"
            + (f" of {device!r}. {_known(store)}" if device else ". ")
            + f"Make some:  phonenas profile --device {shlex.quote(device or 'local')} --space "
            "mnasnet"
        )
    if path.suffix == ".csv":
        write_atomic(path, to_csv(rows))
    else:
        write_atomic(path, lambda beside: rows.to_parquet(beside, index=False))
    return len(rows)


def _known(store: MeasurementStore) -> str:
    """The devices that a store holds, in a sentence; "" for none."""
    names = sorted({c.device for c in store.conditions()})
    return f"It holds {', '.join(names)}. " if names else ""
