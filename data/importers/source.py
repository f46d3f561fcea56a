"""Source: the text of a published file within bounds, as CSV rows or as entries of YAML or JSON.

Errors name the line. Of PyYAML only the events are used, never objects: no tag is acted on, no
alias is followed, nothing nests deeper than `{name: {field: number}}`, and a name that stands twice
is an error. JSON of this form is YAML.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from phonenas.space.errors import InvalidArgument, StoreError, UnsupportedFormat

from ..export import as_written

__all__ = ["NamedRow", "Row", "Source", "entries", "printable", "quoted", "rows"]

_MAX_BYTES = 64 * 2**20
_MAX_YAML_BYTES = 4 * 2**20  # PyYAML takes some 10 s for it; the published tables have 15 kB
_MAX_COLUMNS = 1000
_FORM = "expected a mapping of names to mappings of fields to numbers"
_MAX_ROWS = 100_000  # a lookup table has some thousands
# The store keeps six digits after the point; below that nothing would be left of a time.
_SMALLEST_MS, _LARGEST_MS = 1e-6, 1e9
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)


def quoted(text: str, length: int = 60) -> str:
    """Text of a file as a message may print it: in quotes, one line, no control characters, cut.

    >>> quoted("a" + chr(27) + "[31m"), quoted("b" * 100, 5)
    ("'a\\\\x1b[31m'", "'bbbbb…'")
    """
    return repr(text if len(text) <= length else text[:length] + "…")


def printable(text: str, length: int = 400) -> str:
    """A message of a library or of the system, as ours may print it: one line, cut.

    >>> printable("it's\\nso")
    "it's\\\\nso"
    """
    cut = text if len(text) <= length else text[:length] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@dataclass(frozen=True)
class Source:
    """The content of a file.

    Args:
        name: Its name, without its folder, as messages print it.
        text: Its content.
        digest: The first twelve hexadecimal digits of its bytes' SHA-256.
    """

    name: str
    text: str
    digest: str

    @classmethod
    def open(cls, path: Path) -> Source:
        """Read a file.

        Raises:
            InvalidArgument: There is no such file.
            StoreError: It cannot be read.
            UnsupportedFormat: It is larger than the limit, or no UTF-8 text.
        """
        name = printable(path.name, 80)
        try:
            if not path.is_file():
                raise InvalidArgument(f"there is no file {quoted(str(path), 200)} to import")
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
            if isinstance(error, InvalidArgument):
                raise
            problem = getattr(error, "strerror", None) or type(error).__name__
            raise StoreError(f"{name} cannot be read: {problem}") from error
        if len(content) > _MAX_BYTES:
            raise UnsupportedFormat(
                f"{name} is larger than {_MAX_BYTES // 2**20} MiB; no latency table is"
            )
        return cls.of(name, content)

    @classmethod
    def of(cls, name: str, content: bytes) -> Source:
        """From bytes in hand.

        Raises:
            UnsupportedFormat: They are not UTF-8 text.
        """
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UnsupportedFormat(f"{name}, line {line}: this is not UTF-8 text") from error
        return cls(name, text, hashlib.sha256(content).hexdigest()[:12])

    def error(self, line: int, message: str) -> UnsupportedFormat:
        """An error that names the file and the line."""
        return UnsupportedFormat(f"{self.name}, line {line}: {message}")

    def number(self, text: str, line: int, what: str) -> float:
        """A finite number of at least 0, as JSON, YAML and CSV write it in decimal.

        Raises:
            UnsupportedFormat: It is none.
        """
        value = float(text) if len(text) <= 60 and _NUMBER.fullmatch(text) else math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.error(line, f"{what} is a number of 0 or more, got {quoted(text)}")
        return value

    def latency_ms(self, text: str, line: int, what: str, per_ms: float = 1.0) -> float:
        """A time in ms; `per_ms` of the source's unit make one.

        Raises:
            UnsupportedFormat: No finite number above 0, or beyond 1 ns to 10^9 ms.
        """
        value = self.number(text, line, what) / per_ms
        if not _SMALLEST_MS <= value <= _LARGEST_MS:
            raise self.error(line, f"{what} is a time above 0 (1 ns to 1e9 ms), got {quoted(text)}")
        return value


# -- CSV ----------------------------------------------------------------------------------------


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
    body: list[Row] = []
    try:
        for cells in reader:
            if not cells:
                continue
            cells = [as_written(c.strip()) for c in cells]
            if not header:
                header = _header(source, cells, required)
                continue
            line = reader.line_num
            if len(cells) != len(header):
                raise source.error(line, f"{len(cells)} cells under {len(header)} columns")
            body.append(Row(dict(zip(header, cells, strict=True)), line))
            if len(body) > _MAX_ROWS:
                raise source.error(line, f"a table has at most {_MAX_ROWS:,} rows")
    except csv.Error as error:
        problem = printable(str(error), 100)
        raise source.error(max(reader.line_num, 1), f"this is not valid CSV: {problem}") from error
    if not header:
        _header(source, [], required)
    return header, body


def _header(source: Source, cells: list[str], required: Iterable[str]) -> list[str]:
    twice = (
        next((c for c in cells if cells.count(c) > 1), None) if len(cells) <= _MAX_COLUMNS else None
    )
    if len(cells) > _MAX_COLUMNS or twice is not None:
        problem = (
            f"the column {quoted(twice)} twice" if twice is not None else f"{len(cells)} columns"
        )
        raise source.error(1, f"the header has {problem}")
    if missing := [c for c in required if c not in cells]:
        raise source.error(1, f"the header lacks {', '.join(missing)}")
    return cells


# -- YAML and JSON ------------------------------------------------------------------------------


@dataclass(frozen=True)
class NamedRow:
    """One name, its line, and its fields: text of the number and its line."""

    name: str
    line: int
    fields: dict[str, tuple[str, int]]


def entries(source: Source) -> list[NamedRow]:
    """All entries in the file's order.

    Raises:
        UnsupportedFormat: Not of this form; the message names the line and what was expected.
    """
    if len(source.text) > _MAX_YAML_BYTES:
        limit = _MAX_YAML_BYTES // 2**20
        raise UnsupportedFormat(f"{source.name} is larger than {limit} MiB; no latency table is")
    events = _events(source)
    _take(source, events, yaml.StreamStartEvent)
    _take(source, events, yaml.DocumentStartEvent)
    _take(source, events, yaml.MappingStartEvent)
    by_name: dict[str, NamedRow] = {}
    while (name := _key(source, events)) is not None:
        text, line = name
        if text in by_name:
            raise source.error(
                line, f"{quoted(text, 120)} stands twice, in line {by_name[text].line} before"
            )
        _take(source, events, yaml.MappingStartEvent)
        by_name[text] = NamedRow(text, line, _fields(source, events))
        if len(by_name) > _MAX_ROWS:
            raise source.error(line, f"a table has at most {_MAX_ROWS:,} rows")
    _take(source, events, yaml.DocumentEndEvent)
    _take(source, events, yaml.StreamEndEvent)
    return list(by_name.values())


def _fields(source: Source, events: Iterator[yaml.Event]) -> dict[str, tuple[str, int]]:
    fields: dict[str, tuple[str, int]] = {}
    while (key := _key(source, events)) is not None:
        name, line = key
        if name in fields:
            raise source.error(line, f"{quoted(name)} stands twice in one entry")
        if len(fields) >= 100:
            raise source.error(line, "an entry has at most 100 fields")
        value = _take(source, events, yaml.ScalarEvent)
        assert isinstance(value, yaml.ScalarEvent)
        at = _line(value)
        if value.style is not None:  # in quotes, or a block of text
            raise source.error(
                at, f"{quoted(name)} is a number, got the text {quoted(value.value)}"
            )
        fields[name] = (value.value, at)
    return fields


def _key(source: Source, events: Iterator[yaml.Event]) -> tuple[str, int] | None:
    """The next key with its line, or None where the mapping ends."""
    event = next(events)
    if isinstance(event, yaml.MappingEndEvent):
        return None
    if not isinstance(event, yaml.ScalarEvent):
        raise source.error(_line(event), _FORM)
    return event.value, _line(event)


def _take(source: Source, events: Iterator[yaml.Event], wanted: type[yaml.Event]) -> yaml.Event:
    event = next(events)
    if not isinstance(event, wanted):
        raise source.error(_line(event), _FORM)
    return event


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark is not None else 1


def _events(source: Source) -> Iterator[yaml.Event]:
    """PyYAML's events; what is in none of these tables is refused as it comes."""
    try:
        for event in yaml.parse(source.text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise source.error(_line(event), "anchors and aliases are not followed")
            if tag := getattr(event, "tag", None):
                raise source.error(_line(event), f"the tag {quoted(str(tag))} is not acted on")
            yield event
    except UnsupportedFormat:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = printable(error.problem or "damaged", 100)
        raise source.error(
            mark.line + 1 if mark else 1, f"this is not valid YAML or JSON: {problem}"
        ) from error
    except yaml.reader.ReaderError as error:
        line = source.text.count("\n", 0, int(error.position)) + 1
        raise source.error(line, "a character that YAML does not allow") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets some through, as of "\UFFFFFFFF" or %YAML with thousands of digits.
        raise source.error(1, f"this is not valid YAML or JSON ({type(error).__name__})") from error
