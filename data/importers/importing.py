"""Importing: read published files by their format, and keep their times in a store, once."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import plain_name
from phonenas.space.registry import Registry

from ..measurement import Conditions, Round, SubjectKind
from ..store import MeasurementStore
from .source import Source, quoted
from .table import Reading, Table

__all__ = ["FORMATS", "Imported", "Importer", "import_tables", "read"]

#: `importer(source, device, model)` gives a table, or a list of them; one that also has a parameter
#: `column`, or `setting`, reads one column of a wide table, which the user chooses.
Importer = Callable[..., Table | Sequence[Table]]
FORMATS: Registry[Importer] = Registry(
    "format",
    "phonenas.importers",
    {
        "proxylessnas": "phonenas.data.importers.layers:proxyless",
        "ofa": "phonenas.data.importers.layers:once_for_all",
        "singlepathnas": "phonenas.data.importers.layers:single_path",
        "edge": "phonenas.data.importers.edge:edge",
        "edge-networks": "phonenas.data.importers.edge:edge_networks",
        "csv": "phonenas.data.importers.plain:plain",
    },
)


@dataclass(frozen=True)
class Imported:
    """The result of importing one table.

    Args:
        table: The table.
        imported: Number of subjects that are new in the store.
        already: Number that the store had before, under these conditions.
    """

    table: Table
    imported: int
    already: int

    def reasons(self) -> dict[str, tuple[int, str]]:
        """Why rows were skipped: reason → how many, and the first of them."""
        counts = Counter(s.reason for s in self.table.skipped)
        first = {s.reason: s.row for s in reversed(self.table.skipped)}
        return {reason: (n, first[reason]) for reason, n in counts.most_common()}


def read(
    form: str,
    path: Path,
    device: str,
    *,
    column: str | None = None,
    setting: str | None = None,
    model: str | None = None,
) -> list[Table]:
    """Read the tables of one file; nothing is stored.

    Args:
        form: One of `FORMATS.names()`, or `module:Name` of an `Importer`.
        path: The file, of at most 64 MiB (4 MiB of YAML or JSON).
        device: The name that its numbers are kept under.
        column: Of a table with a column a device (`edge`), which one: "pixel4|1large|float|mean".
        setting: Of `edge-networks`, likewise: "pixel4|1large|float".
        model: What the device is, if the file does not state it or states it wrongly.
    Raises:
        UnknownName: No such format.
        InvalidArgument: No such file or column, or a name that is none.
        UnsupportedFormat: The file is not of this format; the message names the line.
        StoreError: It cannot be read.
    """
    importer = FORMATS.get(form)
    plain_name(device, "--device")
    if model is not None and not (0 < len(model.strip()) <= 100 and model.isprintable()):
        raise InvalidArgument(f"--model: 1 to 100 characters that print, got {quoted(model)}")
    chosen = {}
    for name, value in (("column", column), ("setting", setting)):
        if value is None:
            continue
        if name not in inspect.signature(importer).parameters:
            raise InvalidArgument(f"--{name} chooses one of an edge table; {form} has none")
        chosen[name] = value
    tables = importer(Source.open(path), device, model, **chosen)
    return [tables] if isinstance(tables, Table) else list(tables)


def import_tables(tables: Sequence[Table], into: MeasurementStore) -> list[Imported]:
    """Store tables; subjects that the store has under their conditions are left as they are.

    Several readings of one subject become rounds of one measurement. A reading without a date gets
    the present one, and its telemetry says so. After an interruption the same call continues.
    """
    return [_keep(table, into) for table in tables]


def _keep(table: Table, into: MeasurementStore) -> Imported:
    table = replace(table, conditions=_kept_under(table.conditions, into))
    groups: dict[tuple[SubjectKind, str], dict[str, list[Reading]]] = {}
    for reading in table.readings:
        group = groups.setdefault((reading.kind, reading.purpose), {})
        group.setdefault(reading.subject, []).append(reading)
    imported = already = 0
    for (kind, purpose), readings in groups.items():
        pending = into.pending(table.conditions, kind, list(readings), purpose=purpose)
        missing = {subject: p for subject, p in pending.items() if not p.complete}
        rounds = [
            (p.id, number, _round(reading, table))
            for subject, p in missing.items()
            for number, reading in enumerate(readings[subject])
        ]
        if rounds:
            into.add_rounds(rounds)
            into.complete([p.id for p in missing.values()])
        imported += len(missing)
        already += len(pending) - len(missing)
    return Imported(table, imported, already)


def _kept_under(conditions: Conditions, into: MeasurementStore) -> Conditions:
    """The conditions under which the store has a table already, else its own.

    Importers of before did not say what statistic a table holds ("samples"): the same table,
    imported again, is no other one.
    """
    known = into.conditions(conditions.device)
    before = replace(conditions, statistic="samples")
    return before if before in known and conditions not in known else conditions


def _round(reading: Reading, table: Table) -> Round:
    telemetry: dict[str, Any] = {"file": table.file, **reading.telemetry}
    if reading.at:
        return Round((reading.latency_ms,), at=reading.at, telemetry=telemetry)
    telemetry["at"] = "when it was imported; the source states no date"
    return Round(
        (reading.latency_ms,),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        telemetry=telemetry,
    )
