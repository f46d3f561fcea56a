"""The plain CSV: any latencies that someone has, one row a number, the first line the columns.

| column | what |
|---|---|
| `kind` | `operator` or `network` |
| `subject` | an operator's key (`mbconv6_k5_s2_se20_14x14x80_112`), or a network: block string or zoo name |
| `latency_ms` | its time in ms, above 0 |
| `std_ms`, `runs` | standard deviation in ms, and of how many runs; kept beside the number |
| `at` or `measured_at` | when, ISO 8601; UTC where no zone stands there |
| `purpose` | `profile` (the default) or `validation` |
| `series` | a number; of one subject's rows the highest counts |
| `device` | rows of another device than the one asked for are skipped |
| `origin` | rows that were `simulated` are skipped |
| `mode` | `steady` (the default), `first` or `sustained` |
| `threads` | a number; 0 where nobody knows |
| `model`, `runtime`, `runtime_version`, `runtime_hash`, `provider`, `optimisation`, `cores`, `governor`, `precision`, `statistic`, `clocks` | the conditions, as text |

The first three are needed, the others as far as they are known; an empty cell is "unknown". Rows
of unlike conditions become tables of their own. What `phonenas export` writes is such a file: of
its other columns (raw samples, spread and so on) nothing is taken, so its numbers come back, not
their samples. Any other column is an error.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ...space import Operator, zoo
from ...space.errors import PhonenasError, nearest
from ..measurement import Conditions
from .rows import Row, rows
from .source import Source, printable, shown
from .table import UNKNOWN, Reading, Skip, Table, conditions_of, sane

__all__ = ["COLUMNS", "plain"]

_MAX_NETWORKS = 20_000  # a whole network takes some milliseconds to be understood

_TEXTS = (
    "model", "runtime", "runtime_version", "runtime_hash", "provider", "optimisation", "cores",
    "governor", "precision", "statistic", "clocks",
)  # fmt: skip
COLUMNS = (
    "kind", "subject", "latency_ms", "std_ms", "runs", "at", "measured_at", "purpose", "series",
    "device", "origin", "mode", "threads", *_TEXTS,
)  # fmt: skip
# What an export has beside, and what cannot be had back from it.
_PASSED_OVER = frozenset(
    ("raw_ms", "spread", "rounds", "samples", "preempted", "medians_ms", "samples_ms",
     "sentinel_ms", "reference_ms", "circumstances", "conditions", "fingerprint", "load_s")
)  # fmt: skip


def plain(source: Source, device: str, model: str | None = None) -> list[Table]:
    """A table for each set of conditions in the file; what is skipped stands in the first.

    Raises:
        UnsupportedFormat: Not such a file; the message names the line.
    """
    header, body = rows(source, required=COLUMNS[:3])
    if strange := [c for c in header if c not in COLUMNS and c not in _PASSED_OVER]:
        raise source.error(
            1, f"the column {shown(strange[0])} is unknown. {nearest(strange[0][:60], COLUMNS)}"
        )
    found: dict[Conditions, dict[tuple[str, str], tuple[float, int, Reading]]] = {}
    skipped: list[Skip] = []
    networks = 0
    for row in body:
        networks += row["kind"] == "network"
        if networks > _MAX_NETWORKS:
            raise source.error(row.line, f"a table has at most {_MAX_NETWORKS:,} whole networks")
        reading = _reading(source, row)
        conditions = _conditions(source, row, device, model)
        if reason := _foreign(row, device):
            skipped.append(Skip(reason, reading.subject))
            continue
        kept = found.setdefault(conditions, {})
        series = source.number(row.cells.get("series") or "0", row.line, "series")
        key = (reading.kind, reading.subject)
        before = kept.get(key)
        if before is not None and before[0] == series:
            raise source.error(
                row.line, f"{shown(reading.subject, 120)} stands twice, in line {before[1]} before"
            )
        if before is not None:
            skipped.append(Skip("an earlier series of its subject", reading.subject))
        if before is None or series > before[0]:
            kept[key] = (series, row.line, reading)
    tables = [
        Table(source.name, c, tuple(r for _, _, r in kept.values())) for c, kept in found.items()
    ] or [Table(source.name, conditions_of(source, device), ())]
    return [replace(tables[0], skipped=tuple(skipped)), *tables[1:]]


def _foreign(row: Row, device: str) -> str:
    """Why a row is not ours to take, or ""."""
    if (told := row.cells.get("device")) and told != device:
        return f"of the device {shown(told)}"
    if row.cells.get("origin") == "simulated":
        return "simulated: no device was measured"
    return ""


def _reading(source: Source, row: Row) -> Reading:
    kind, subject = row["kind"], row["subject"]
    beside: dict[str, Any] = {"line": row.line}
    if std := row.cells.get("std_ms"):
        beside["std_ms"] = source.number(std, row.line, "std_ms")
    if runs := row.cells.get("runs"):
        beside["runs"] = _count(source, runs, row.line, "runs")
    return Reading(
        _one_of(source, kind, ("operator", "network"), row.line, "kind"),  # type: ignore[arg-type]
        _subject(source, kind, subject, row.line),
        source.latency_ms(row["latency_ms"], row.line, "latency_ms"),
        beside,
        _at(source, row.cells.get("at") or row.cells.get("measured_at") or "", row.line),
        _one_of(
            source, row.cells.get("purpose") or "profile", ("profile", "validation"),
            row.line, "purpose",
        ),
    )  # fmt: skip


def _subject(source: Source, kind: str, text: str, line: int) -> str:
    """The subject as the store writes it."""
    if len(text) > (120 if kind == "operator" else 10_000):
        raise source.error(line, f"no {shown(kind)} has so long a name: {shown(text)}")
    try:
        return sane(Operator.parse(text)).key if kind == "operator" else str(zoo.find(text))
    except PhonenasError as error:
        raise source.error(line, printable(str(error), 400)) from error


def _conditions(source: Source, row: Row, device: str, model: str | None) -> Conditions:
    known: dict[str, Any] = {}
    for name in _TEXTS:
        text = row.cells.get(name) or UNKNOWN
        if len(text) > 200 or not text.isprintable():
            raise source.error(
                row.line, f"{name} is a text of up to 200 printable characters, got {shown(text)}"
            )
        known[name] = text
    if known["statistic"] == "samples":
        known["statistic"] = "pseudo-median of the samples"  # one number is left of them
    if model:
        known["model"] = model
    known["mode"] = _one_of(
        source,
        row.cells.get("mode") or "steady",
        ("steady", "first", "sustained"),
        row.line,
        "mode",
    )
    known["threads"] = _count(source, row.cells.get("threads") or "0", row.line, "threads")
    return conditions_of(source, device, **known)


def _one_of(source: Source, text: str, options: tuple[str, ...], line: int, what: str) -> str:
    if text not in options:
        raise source.error(line, f"{what} is {' or '.join(options)}, got {shown(text)}")
    return text


def _count(source: Source, text: str, line: int, what: str) -> int:
    value = source.number(text, line, what)
    if value != int(value) or value > 1e9:
        raise source.error(line, f"{what} is a whole number, got {shown(text)}")
    return int(value)


def _at(source: Source, text: str, line: int) -> str:
    """A date in UTC as the store writes it, or ""."""
    if not text:
        return ""
    try:
        told = datetime.fromisoformat(text[:60])
        told = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise source.error(
            line, f"a date as 2026-03-02T10:00:00 was expected, got {shown(text)}"
        ) from error
    return told.isoformat(timespec="seconds")
