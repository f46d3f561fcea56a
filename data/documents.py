"""Documents: the JSON files of phonenas, each with its format, version and digest, read strictly.

A document holds one digest of its whole content, so that a file that was changed or damaged is
refused, not believed. Files of phonenas 0.1 have none; they are read by the same strict forms.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from phonenas.space.errors import StoreError, UnsupportedFormat

from .files import write_atomic

__all__ = [
    "Count",
    "Document",
    "Energy",
    "Ms",
    "Number",
    "Share",
    "Text",
    "digest_of",
    "only",
    "parsed",
    "strict",
]

T = TypeVar("T")
#: Milliseconds; nothing that phonenas measures takes ten days.
Ms = Annotated[float, Meta(gt=0, le=1e9)]
#: Millijoules of one inference.
Energy = Annotated[float, Meta(gt=0, le=1e12)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Text = Annotated[str, Meta(max_length=100_000)]

_FOLDERS = {
    "run.json": "a search",
    "result.json": "a training",
    "supernet.json": "a supernet",
    "study.json": "a study",
}
_MOST_BYTES = 256 << 20
_MOST_DIGITS = 60  # the state of a random generator has 39
_DIGEST = "digest"
_PLACE = re.compile(r"(?P<text>.*?)(?: - at `(?P<place>\$.*)`)?", re.DOTALL)
_KINDS = {
    "float": "number",
    "int": "whole number",
    "str": "text",
    "bool": "true or false",
    "array": "list",
    "object": "table",
    "null": "nothing",
}


def strict(values: Any, kind: type[T]) -> T:
    """A value of JSON as a type: each field of its kind, in its range, none missing.

    Args:
        values: As `parsed` gives it.
        kind: A dataclass, `msgspec.Struct` or other type that `msgspec.convert` knows. true is
            no number, and neither are NaN and the infinities.
    Raises:
        ValueError: It is not; the message names the place.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        match = _PLACE.fullmatch(str(error))
        assert match is not None
        text = re.sub(r"`([^`]*)`", lambda m: _kind(m[1]), match["text"])
        place = (match["place"] or "$").removeprefix("$").lstrip(".").replace("[...]", "[…]")
        text = text[:1].lower() + text[1:]
        raise ValueError(f"{place}: {text}" if place else text) from error
    except (OverflowError, RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error


def _kind(text: str) -> str:
    return " or ".join(_KINDS.get(name, name) for name in text.split(" | "))


def parsed(text: str | bytes, *, nan: bool = False) -> Any:
    """The value of a JSON text; with `nan` None for each NaN.

    Raises:
        ValueError: No JSON or no UTF-8, a key twice, a number that is not finite or has over 60
            digits, or nesting too deep.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_nan if nan else _no_number,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = max(names, key=names.count)
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return values


def _nan(text: str) -> Any:
    return None if text == "NaN" else _no_number(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text[:_MOST_DIGITS]} is not a finite number")
    return value


def _int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def digest_of(content: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits, a hash of a document's content, its own digest left out."""
    own = {name: value for name, value in content.items() if name != _DIGEST}
    text = json.dumps(own, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Document:
    """One kind of JSON file.

    Args:
        format: The value of "format" in the file: "phonenas-...".
        version: The version that this phonenas writes: it holds a digest.
        what: Its name in messages: "validation".
        oldest: The oldest version that is read too; before `version` there was no digest.
        changed: How the content of an older file differs, for the message that refuses it.
    """

    format: str
    version: int
    what: str
    oldest: int = 1
    changed: str = ""

    def complete(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content with its format, version and digest, ready for JSON.

        The content of an older version stays of that version. A number that is not finite becomes
        null, for JSON has none.
        """
        own = json.loads(json.dumps(dict(content)), parse_constant=lambda _: None)
        head = {"format": self.format, "version": own.get("version", self.version)}
        head[_DIGEST] = digest_of({**own, **head})
        return {**head, **{k: v for k, v in own.items() if k not in head}}

    def write(self, path: Path, content: Mapping[str, Any], indent: int | None = 1) -> Path:
        """Write the content with its format, version and digest, whole or not at all.

        Raises:
            StoreError: The disk does not take it.
        """
        text = json.dumps(
            self.complete(content), indent=indent, separators=None if indent else (",", ":")
        )
        return write_atomic(path, text + "\n")

    def read(self, path: Path, again: str) -> dict[str, Any] | None:
        """The content of a file; None if there is no file.

        Args:
            path: The file.
            again: What the user does if the file cannot be used: a sentence or a command.
        Raises:
            UnsupportedFormat: No JSON, another kind, another version (both are named), or changed
                since it was written.
            StoreError: It cannot be read.
        """
        try:
            if path.exists() and not path.is_file():
                raise StoreError(f"{path} cannot be read: it is no regular file")
            if path.stat().st_size > _MOST_BYTES:
                raise UnsupportedFormat(f"{path} is far too large for a {self.what}. {again}")
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            content = parsed(text)
        except ValueError as error:
            raise UnsupportedFormat(
                f"{path} is damaged, or not a {self.what}: {str(error)[:300]}. {again}"
            ) from error
        if not isinstance(content, dict) or content.get("format") != self.format:
            raise UnsupportedFormat(f"{path} is not a {self.what} of phonenas. {again}")
        version = content.get("version")
        if type(version) is not int or not self.oldest <= version <= self.version:
            known = f"versions {self.oldest} to {self.version}"
            if self.oldest == self.version:
                known = f"version {self.version}"
            older = type(version) is int and version < self.oldest
            why = f" ({self.changed})" if older and self.changed else ""
            raise UnsupportedFormat(
                f"{path} has version {str(version)[:40]}; this phonenas reads {known}{why}. {again}"
            )
        told = content.get(_DIGEST)
        if (told is not None or version == self.version) and told != digest_of(content):
            raise UnsupportedFormat(
                f"{path} is damaged: it was changed since phonenas wrote it (its digest is "
                f"another). {again}"
            )
        return content

    @contextmanager
    def checking(self, path: Path, again: str) -> Iterator[None]:
        """A context for using the content: a value that is missing or wrong is reported as damage.

        Raises:
            UnsupportedFormat: A value is missing, or of another kind.
        """
        try:
            yield
        except UnsupportedFormat:
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            words = " ".join(str(error).split())[:300]
            # What `strict` and phonenas say is a sentence; a key alone is none.
            damage = words if type(error) is ValueError else f"{type(error).__name__} {words}"
            raise UnsupportedFormat(f"{path} is damaged: {str(damage)[:300]}. {again}") from error


def only(folder: Path, mine: str) -> None:
    """Refuse a folder that holds another kind of work.

    Args:
        folder: May be missing.
        mine: The file that marks the expected kind, as "run.json".
    Raises:
        StoreError: It holds another kind of work.
    """
    for name, what in _FOLDERS.items():
        if name != mine and (folder / name).exists():
            raise StoreError(f"{folder} holds {what} ({name}). Choose another --out.")
