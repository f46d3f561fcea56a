"""Documents of --json against the schema that their command prints."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema

from phonenas.cli.documents import DOCUMENTS, schema_of

__all__ = ["check_document", "named"]


def named(words: tuple[str, ...]) -> str:
    """The command of a command line, as its schema is named: "search", "benchmark search"."""
    command = " ".join(words[:2]) if words[0] == "benchmark" else words[0]
    assert command in DOCUMENTS, command
    return command


def check_document(words: tuple[str, ...], document: Any) -> None:
    """A document is what the schema says, and holds nothing that the schema does not name."""
    faults = sorted(_validator(named(words)).iter_errors(document), key=_depth, reverse=True)
    assert not faults, [_words(f) for f in faults[:3]]


@cache
def _validator(command: str) -> Any:
    schema = schema_of(command)
    for part in schema["$defs"].values():
        if "properties" in part:
            part["additionalProperties"] = False
    return jsonschema.Draft202012Validator(schema)


def _depth(fault: Any) -> int:
    return len(fault.absolute_path)


def _words(fault: Any) -> str:
    """The innermost reason: of several kinds of documents that of the nearest."""
    while fault.context:
        fault = max(fault.context, key=_depth)
    return f"{fault.json_path}: {fault.message[:300]}"
