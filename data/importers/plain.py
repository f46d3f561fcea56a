"""The plain CSV: any latencies that someone has, one row a number, the first line the columns.

| column | what |
|---|---|
| `kind` | `operator` or `network` |
| `subject` | an operator's key (`mbconv6_k5_s2_se20_14x14x80_112`), or a network: block string or
zoo name, as `mobilenet-v1 width0.5 res192` |
| `latency_ms` | its time in ms, above 0 |
| `std_ms`, `runs` | standard deviation in ms, and of how many runs; kept beside the number |
| `at` or `measured_at` | when, ISO 8601; UTC if it has no zone |
| `purpose` | `profile` (the default) or `validation` |
| `series` | a number; of one subject's rows the highest counts |
| `device` | rows of another device than the one asked for are skipped |
| `origin` | rows that were `simulated` or `emulated` are skipped |
| `mode` | `steady` (the default), `first` or `sustained` |
| `threads` | a number; 0 if unknown |
| `model`, `runtime`, `runtime_version`, `runtime_hash`, `provider`, `optimisation`, `cores`,
`governor`, `precision`, `statistic`, `clocks` | the conditions, as text |

The first three are needed, the others as far as they are known; an empty cell is "unknown". Rows
of unlike conditions become tables of their own. What `phonenas export` writes is such a file: of
its other columns (raw samples, spread and so on) nothing is taken, so its numbers come back, not
their samples; of an export of an older release, `raw_ms` is taken in place of `latency_ms`, which
was divided by the sentinel's time. Any other column is an error.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from phonenas.space import Operator, zoo
from phonenas.space.errors import PhonenasError, nearest

from ..measurement import Conditions, SubjectKind
from .source import Row, Source, printable, quoted, rows
from .table import TEXTS, UNKNOWN, Reading, Skip, Table, conditions_of, within_limits

__all__ = ["COLUMNS", "plain"]

_MAX_NETWORKS = 20_000  # parsing a whole network takes some milliseconds

COLUMNS = (
    *("kind", "subject", "latency_ms", "std_ms", "runs", "at", "measured_at", "purpose"),
    *("series", "device", "origin", "mode", "threads", *TEXTS),
)
# Further columns of an export, which are not imported.
_PASSED_OVER = {
    *("raw_ms", "spread", "rounds", "samples", "preempted", "medians_ms", "samples_ms"),
    *("sentinel_ms", "reference_ms", "circumstances", "conditions", "fingerprint", "load_s"),
    *("p50_ms", "p90_ms", "load_ms", "first_ms", "peak_bytes", "model_bytes", "file_bytes"),
    "energy_mj",
}


def plain(source: Source, device: str, model: str | None = None) -> list[Table]:
    """A table for each set of conditions in the file; the first one lists the skipped rows.

    Raises:
        UnsupportedFormat: Not such a file; the message names the line.
    """
    header, body = rows(source, required=COLUMNS[:3])
    if strange := [c for c in header if c not in COLUMNS and c not in _PASSED_OVER]:
        raise source.error(
            1, f"the column {quoted(strange[0])} is unknown. {nearest(strange[0][:60], COLUMNS)}"
        )
    by_conditions: dict[Conditions, dict[tuple[str, str], tuple[float, int, Reading]]] = {}
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
        kept = by_conditions.setdefault(conditions, {})
        series = source.number(row.cells.get("series") or "0", row.line, "series")
        key = (reading.kind, reading.subject)
        before = kept.get(key)
        if before is not None and before[0] == series:
            raise source.error(
                row.line, f"{quoted(reading.subject, 120)} stands twice, in line {before[1]} before"
            )
        if before is not None:
            skipped.append(Skip("an earlier series of its subject", reading.subject))
        if before is None or series > before[0]:
            kept[key] = (series, row.line, reading)
    tables = [
        Table(source.name, c, tuple(r for _, _, r in kept.values()))
        for c, kept in by_conditions.items()
    ] or [Table(source.name, conditions_of(source, device), ())]
    return [replace(tables[0], skipped=tuple(skipped)), *tables[1:]]


def _foreign(row: Row, device: str) -> str:
    """Why a row is skipped, or ""."""
    if (named := row.cells.get("device")) and named != device:
        return f"of the device {quoted(named)}"
    if (origin := row.cells.get("origin")) in ("simulated", "emulated"):
        return f"{origin}: no device was measured"
    return ""


def _reading(source: Source, row: Row) -> Reading:
    kind, subject = row["kind"], row["subject"]
    # Exports of older releases: their latency_ms was divided by the sentinel's time.
    divided = row.cells.get("reference_ms") and row.cells.get("raw_ms")
    column = "raw_ms" if divided else "latency_ms"
    beside: dict[str, Any] = {"line": row.line}
    if std := row.cells.get("std_ms"):
        beside["std_ms"] = source.number(std, row.line, "std_ms")
    if runs := row.cells.get("runs"):
        beside["runs"] = _count(source, runs, row.line, "runs")
    if kind == "network":
        beside["row"] = subject[:200]
    _one_of(source, kind, ("operator", "network"), row.line, "kind")
    stored, text = _subject(source, kind, subject, row.line)
    return Reading(
        stored,
        text,
        source.latency_ms(row[column], row.line, column),
        beside,
        _at(source, row.cells.get("at") or row.cells.get("measured_at") or "", row.line),
        _one_of(
            source,
            row.cells.get("purpose") or "profile",
            ("profile", "validation"),
            row.line,
            "purpose",
        ),
    )


def _subject(source: Source, kind: str, text: str, line: int) -> tuple[SubjectKind, str]:
    """The subject as the store writes it: its kind there, and its text."""
    if len(text) > (120 if kind == "operator" else 10_000):
        raise source.error(line, f"no {quoted(kind)} has so long a name: {quoted(text)}")
    try:
        if kind == "operator":
            return "operator", within_limits(Operator.parse(text)).key
        graph = zoo.find_graph(text)
        return ("network", str(zoo.find(text))) if graph is None else ("onnx", str(graph))
    except PhonenasError as error:
        raise source.error(line, printable(str(error), 400)) from error


def _conditions(source: Source, row: Row, device: str, model: str | None) -> Conditions:
    known: dict[str, Any] = {}
    for name in TEXTS:
        text = row.cells.get(name) or UNKNOWN
        if len(text) > 200 or not text.isprintable():
            raise source.error(
                row.line, f"{name} is a text of up to 200 printable characters, got {quoted(text)}"
            )
        known[name] = text
    if known["statistic"] == "samples":
        known["statistic"] = "value of the samples"  # one number is left of them
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
        raise source.error(line, f"{what} is {' or '.join(options)}, got {quoted(text)}")
    return text


def _count(source: Source, text: str, line: int, what: str) -> int:
    value = source.number(text, line, what)
    if value != int(value) or value > 1e9:
        raise source.error(line, f"{what} is a whole number, got {quoted(text)}")
    return int(value)


def _at(source: Source, text: str, line: int) -> str:
    """A date in UTC as the store writes it, or ""."""
    if not text:
        return ""
    try:
        date = datetime.fromisoformat(text[:60])
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise source.error(
            line, f"a date as 2026-03-02T10:00:00 was expected, got {quoted(text)}"
        ) from error
    return date.isoformat(timespec="seconds")
