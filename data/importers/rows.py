"""Rows: a CSV file with a header, within bounds, each row with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from .source import MAX_ROWS, Source, printable, shown

__all__ = ["Row", "rows"]

_MAX_COLUMNS = 1000


@dataclass(frozen=True)
class Row:
    """A row's cells by column, without blanks around them, and its last line."""

    cells: dict[str, str]
    line: int

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


def rows(source: Source, required: Iterable[str]) -> tuple[list[str], list[Row]]:
    """The header and all rows; lines without any cell are passed over.

    Raises:
        UnsupportedFormat: No CSV, a column twice or missing, a row that is longer or shorter
            than the header.
    """
    reader = csv.reader(io.StringIO(source.text, newline=""), strict=True)
    header: list[str] = []
    found: list[Row] = []
    try:
        for cells in reader:
            if not cells:
                continue
            cells = [c.strip() for c in cells]
            if not header:
                header = _header(source, cells, required)
                continue
            line = reader.line_num
            if len(cells) != len(header):
                raise source.error(line, f"{len(cells)} cells under {len(header)} columns")
            found.append(Row(dict(zip(header, cells, strict=True)), line))
            if len(found) > MAX_ROWS:
                raise source.error(line, f"a table has at most {MAX_ROWS:,} rows")
    except csv.Error as error:
        told = printable(str(error), 100)
        raise source.error(max(reader.line_num, 1), f"this is no CSV: {told}") from error
    if not header:
        _header(source, [], required)
    return header, found


def _header(source: Source, cells: list[str], required: Iterable[str]) -> list[str]:
    twice = (
        next((c for c in cells if cells.count(c) > 1), None) if len(cells) <= _MAX_COLUMNS else None
    )
    if len(cells) > _MAX_COLUMNS or twice is not None:
        told = f"the column {shown(twice)} twice" if twice is not None else f"{len(cells)} columns"
        raise source.error(1, f"the header has {told}")
    if missing := [c for c in required if c not in cells]:
        raise source.error(1, f"the header lacks {', '.join(missing)}")
    return cells
