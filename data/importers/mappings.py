"""Mappings: a YAML or JSON file of the form {name: {field: number}}, with the line of each.

PyYAML is asked for its events only, never for objects: no tag is acted on, no alias is followed,
nothing nests deeper than the form, and a name that stands twice is an error. JSON of this form is
YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from ...space.errors import UnsupportedFormat
from .source import MAX_ROWS, Source, printable, shown

__all__ = ["MAX_BYTES", "Entry", "entries"]

MAX_BYTES = 4 * 2**20  # PyYAML takes some 10 s for it; the published tables have 15 kB
_FORM = "expected a mapping of names to mappings of fields to numbers"


@dataclass(frozen=True)
class Entry:
    """One name, its line, and its fields: text of the number and its line."""

    name: str
    line: int
    fields: dict[str, tuple[str, int]]


def entries(source: Source) -> list[Entry]:
    """All entries in the file's order.

    Raises:
        UnsupportedFormat: Not of this form; the message names the line and what was expected.
    """
    events = _events(source)
    _take(source, events, yaml.StreamStartEvent)
    _take(source, events, yaml.DocumentStartEvent)
    _take(source, events, yaml.MappingStartEvent)
    found: dict[str, Entry] = {}
    while (name := _key(source, events)) is not None:
        text, line = name
        if text in found:
            raise source.error(
                line, f"{shown(text, 120)} stands twice, in line {found[text].line} before"
            )
        _take(source, events, yaml.MappingStartEvent)
        found[text] = Entry(text, line, _fields(source, events))
        if len(found) > MAX_ROWS:
            raise source.error(line, f"a table has at most {MAX_ROWS:,} rows")
    _take(source, events, yaml.DocumentEndEvent)
    _take(source, events, yaml.StreamEndEvent)
    return list(found.values())


def _fields(source: Source, events: Iterator[yaml.Event]) -> dict[str, tuple[str, int]]:
    fields: dict[str, tuple[str, int]] = {}
    while (key := _key(source, events)) is not None:
        name, line = key
        if name in fields:
            raise source.error(line, f"{shown(name)} stands twice in one entry")
        if len(fields) >= 100:
            raise source.error(line, "an entry has at most 100 fields")
        value = _take(source, events, yaml.ScalarEvent)
        assert isinstance(value, yaml.ScalarEvent)
        at = _line(value)
        if value.style is not None:  # in quotes, or a block of text
            raise source.error(at, f"{shown(name)} is a number, got the text {shown(value.value)}")
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
                raise source.error(_line(event), f"the tag {shown(str(tag))} is not acted on")
            yield event
    except UnsupportedFormat:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = printable(error.problem or "damaged", 100)
        raise source.error(
            mark.line + 1 if mark else 1, f"this is no YAML or JSON: {told}"
        ) from error
    except yaml.reader.ReaderError as error:
        line = source.text.count("\n", 0, int(error.position)) + 1
        raise source.error(line, "a character that YAML does not allow") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets some through, as of "\UFFFFFFFF" or %YAML with thousands of digits.
        raise source.error(1, f"this is no YAML or JSON ({type(error).__name__})") from error
