"""A step of a study: a command with its words, and the options that a study may give it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from phonenas.space.errors import InvalidArgument, StoreError, UnknownName

from ..devices import profile
from ..groups import group
from ..latency import fit
from ..output import command_line
from ..promote import promote
from ..report import report
from ..search import search
from ..validate import validate

__all__ = ["Step", "commands", "options_of", "plain", "read_study", "written"]

_OF_ALL = ("json", "json-schema", "verbose", "quiet", "help")  # of every command, given to `run`
_MOST_BYTES = 1 << 20
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")


@cache
def commands() -> dict[str, Any]:
    """The commands of the steps, by name, as the command line has them."""
    functions = [profile, fit, search, validate, promote, report]
    found: Any = typer.main.get_command(group("The steps of a study.", functions))
    return dict(found.commands)


@cache
def options_of(name: str) -> dict[str, Any]:
    """The options of a step's command that a study may give, by name."""
    return {
        word.removeprefix("--"): param
        for param in commands()[name].params
        for word in param.opts
        if word.startswith("--") and word.removeprefix("--") not in _OF_ALL
    }


@dataclass(frozen=True)
class Step:
    """One command of a study.

    Args:
        name: Of the step: "search nsga2-6-seed0".
        words: Of the command, without `phonenas`.
        after: Names of the earlier steps that it rests on.
        makes: The files that are there when it is done.
        reads: Values of its options that may be files or folders which it reads.
        devices: On which devices it is, by name.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...]
    makes: tuple[Path, ...]
    reads: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        return command_line(*self.shown)

    @property
    def shown(self) -> list[str]:
        """The words, without a password."""
        from phonenas.space.naming import without_password

        return [without_password(word) for word in self.words]


def written(value: Any) -> str:
    """A value as a word: a number in all its digits, 8.0 as 8.

    >>> written(8.0), written(1234567.5), written("a")
    ('8', '1234567.5', 'a')
    """
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def plain(value: Any) -> str:
    """A value as part of a folder's name; its hash where it is none. Of a table its values, which
    are in the order of the study's devices.

    >>> plain(8.0), plain({"a": 8, "b": 20.5}), plain("mobilenet-v2 width0.5")
    ('8', '8-20.5', '53f7f362')
    """
    if isinstance(value, dict):
        return "-".join(map(plain, value.values()))
    text = written(value)
    return text if _PLAIN.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:8]


def read_study(path: Path) -> dict[str, Any]:
    """The content of a study file.

    Raises:
        UnknownName: There is none.
        StoreError: It cannot be read.
        InvalidArgument: It is no TOML file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        words = f"there is no study file {path}. Write one:  phonenas init study"
        raise UnknownName(words) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidArgument(f"{path} is larger than 1 MiB, so it describes no study")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, or no TOML: the line is named
        raise InvalidArgument(f"{path} is not a TOML file: {error}") from error
