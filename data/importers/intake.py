"""Intake: read published files by their format, and keep what they say in a store, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...space.errors import InvalidArgument, UnknownName, nearest
from ..measurement import Round, SubjectKind
from ..store import MeasurementStore
from .source import Source
from .table import Reading, Table, check_name

__all__ = ["FORMATS", "Imported", "import_tables", "read"]

FORMATS = ("proxylessnas", "ofa", "singlepathnas", "edge", "csv")


@dataclass(frozen=True)
class Imported:
    """What became of one table.

    Args:
        table: It.
        imported: How many subjects are new in the store.
        already: How many stood there before under these conditions.
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
    form: str, path: Path, device: str, *, column: str | None = None, model: str | None = None
) -> list[Table]:
    """The tables of one file; nothing is kept.

    Args:
        form: One of `FORMATS`.
        path: The file, of at most 64 MiB (4 MiB of YAML or JSON).
        device: The name that its numbers are kept under.
        column: For `edge`, which one, as "pixel4|1large|float|mean".
        model: What the device is, where the file does not tell or tells it wrongly.
    Raises:
        UnknownName: No such format.
        InvalidArgument: No such file or column, or a name that is none.
        UnsupportedFormat: The file is not of this format; the message names the line.
        StoreError: It cannot be read.
    """
    if form not in FORMATS:
        raise UnknownName(f"no format is called {form[:60]!r}. {nearest(form[:60], FORMATS)}")
    check_name(device, "--device")
    if model is not None:
        check_name(model, "--model")
    if column is not None and form != "edge":
        raise InvalidArgument(f"--column chooses one of an edge table; {form} has none")
    if form == "csv":
        from .plain import plain

        return plain(Source.open(path), device, model)
    if form == "edge":
        from .edge import edge

        return [edge(Source.open(path), device, column, model)]
    from .layers import once_for_all, proxyless, single_path
    from .mappings import MAX_BYTES

    how = {"proxylessnas": proxyless, "ofa": once_for_all, "singlepathnas": single_path}[form]
    return [how(Source.open(path, limit_bytes=MAX_BYTES), device, model)]


def import_tables(tables: Sequence[Table], into: MeasurementStore) -> list[Imported]:
    """Keep tables in a store; what stands there already under their conditions is left as it is.

    Several readings of one subject become rounds of one measurement. A reading whose date nobody
    told gets the present one, and says so in its circumstances. Stopped midway, the same call
    goes on.
    """
    return [_keep(table, into) for table in tables]


def _keep(table: Table, into: MeasurementStore) -> Imported:
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


def _round(reading: Reading, table: Table) -> Round:
    told: dict[str, Any] = {"file": table.file, **reading.circumstances}
    if reading.at:
        return Round((reading.latency_ms,), at=reading.at, circumstances=told)
    told["at"] = "when it was imported; the source tells no date"
    return Round(
        (reading.latency_ms,),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        circumstances=told,
    )
