"""Groups of commands: how their options are read and completed, and what their help lists.

A shell asks for the names that complete a word through the program itself (typer's protocol), so
what gives them imports as little as it can.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast, get_args

import typer
from typer.core import TyperCommand

__all__ = ["SCHEMA", "group"]

# What a help text names in braces, and the registry that lists it.
_REGISTRIES = {
    "{spaces}": "phonenas.space.spaces:SPACES",
    "{strategies}": "phonenas.search.strategies:STRATEGIES",
    "{formats}": "phonenas.data.importers:FORMATS",
    "{estimators}": "phonenas.search.accuracy:ESTIMATORS",
}
_NO_NUMBER = re.compile(r"[^\x00-\x7f]|nan|inf|_", re.IGNORECASE)


def _print_schema(context: typer.Context, given: bool) -> None:
    """Print the schema of a command's document, and end."""
    if not given:
        return
    from .documents import schema_of

    words: list[str] = []
    place: Any = context
    while place.parent is not None:
        words.insert(0, place.info_name)
        place = place.parent
    print(json.dumps(schema_of(" ".join(words)), indent=1))
    raise typer.Exit


#: Every command takes it; what it needs of the command line is its name alone.
SCHEMA = typer.Option(
    "--json-schema",
    is_eager=True,
    callback=_print_schema,
    help="Print the JSON Schema of what --json prints.",
)


class _Command(TyperCommand):
    """A command that refuses an option given twice, and names what is registered in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param in order:
            if param.param_type_name == "option" and not param.multiple and order.count(param) > 1:
                raise typer.BadParameter(
                    "it takes one value and is given twice", ctx, cast(Any, param)
                )
            if _type_of(param).startswith(("int", "float")):
                self._check_digits(ctx, param, given[param.name])
        return super().parse_args(ctx, args)

    @staticmethod
    def _check_digits(ctx: Any, param: Any, given: Any) -> None:
        """Refuse what Python takes for a number: digits of other scripts, nan and inf."""
        for text in given if isinstance(given, list) else [given]:
            if isinstance(text, str) and (_NO_NUMBER.search(text) or len(text) > 40):
                raise typer.BadParameter(f"{text[:40]!r} is not a number", ctx, param)

    def name_registered(self) -> None:
        """Put the names that are registered into the options' help."""
        for param in self.params:
            for name, place in _REGISTRIES.items():
                if name in (getattr(param, "help", None) or ""):
                    module, _, attribute = place.partition(":")
                    known = getattr(importlib.import_module(module), attribute).help()
                    param.help = param.help.replace(name, known)  # type: ignore[attr-defined]

    def name_values(self) -> None:
        """Call a value N, X, PATH or TEXT in the help, in place of its type in Python."""
        for param in cast(Any, self.params):
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: None  # its own name says what it is
            elif param.metavar is None and not param.is_flag:
                kind = _type_of(param).removeprefix("list[")
                words = {"int": "N", "float": "X", "path": "PATH", "file": "PATH"}
                param.metavar = next((w for k, w in words.items() if kind.startswith(k)), "TEXT")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The options and the arguments, one that may be left out in brackets."""
        named = [p.metavar or p.name.upper() for p in self._arguments()]
        return [self.options_metavar or "", *named]

    def _arguments(self) -> list[Any]:
        return [p for p in cast(Any, self.params) if p.param_type_name == "argument"]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.name_registered()
        self.name_values()
        super().format_help(ctx, formatter)


def _type_of(param: Any) -> str:
    """What typer calls the type of a parameter, which has changed between its releases."""
    bare: Any = getattr(param, "bare_type", None)
    kind: Any = bare() if callable(bare) else getattr(param, "type", None)
    return str(getattr(kind, "name", kind)).lower()


_MOST_RUNS, _MOST_ENTRIES = 200, 20_000  # a shell waits meanwhile


def _runs() -> Iterator[str]:
    """Run folders up to three levels below this folder, among its first entries."""
    left, found, folders = _MOST_ENTRIES, 0, [Path()]
    for _ in range(3):
        below: list[Path] = []
        for folder in folders:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in islice(entries, left):
                    left -= 1
                    if not entry.name.startswith(".") and entry.is_dir():
                        below.append(folder / entry.name)
        for run in below:
            if found < _MOST_RUNS and (run / "run.json").is_file():
                found += 1
                yield str(run)
        folders = below


def _networks() -> Iterator[str]:
    from phonenas.space import zoo

    yield from zoo.names()
    yield from zoo.graph_names()
    yield from (f"{run}:0" for run in _runs())


def _devices() -> Iterator[str]:
    from phonenas.devices.settings import read_settings
    from phonenas.latency_model import ready

    yield from read_settings()
    yield from ready.names()


def _spaces() -> Iterator[str]:
    from phonenas.space import spaces

    yield from spaces.names()
    yield from (str(path) for path in islice(Path().glob("*.toml"), _MOST_RUNS))


def _registered(place: str) -> Callable[[], list[str]]:
    def names() -> list[str]:
        module, _, attribute = place.partition(":")
        return list(getattr(importlib.import_module(module), attribute).names())

    return names


def _names_for(name: str, info: Any) -> Callable[[], Any] | None:
    """What lists the values of a parameter, by what its help says that it takes; None: nothing."""
    help, metavar = info.help or "", info.metavar or ""
    if "{spaces}" in help:
        return _spaces
    for word, place in _REGISTRIES.items():
        if word in help:
            return _registered(place)
    if "`phonenas devices`" in help or name == "like":
        return _devices
    if "NETWORK|RUN" in metavar:
        return lambda: chain(_networks(), _runs())
    if "NETWORK" in metavar or name in ("network", "target"):
        return _networks
    if "RUN" in metavar or "Run folder" in help or name == "start_from":
        return _runs
    return None


def _completing(names: Callable[[], Any]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        found: list[str] = []
        with contextlib.suppress(Exception):  # a shell has no place for a message
            for name in names():
                if name.startswith(incomplete):
                    found.append(name)
        return found

    return complete


def _add_completion(function: Callable[..., None]) -> None:
    """Give each parameter of a command the names that complete it."""
    for parameter in inspect.signature(function).parameters.values():
        for info in get_args(parameter.annotation)[1:]:
            names = _names_for(parameter.name, info)
            if names is not None:
                info.autocompletion = _completing(names)


def group(
    help: str, commands: list[Callable[..., None]], name: str | None = None, epilog: str = ""
) -> typer.Typer:
    """Commands under one name.

    Args:
        help: What the group is for, in a sentence.
        commands: Functions that `options.command` made commands.
        name: Of the program, if the group is the whole command line; it then has completion.
        epilog: What stands below the list of commands.
    """
    found = typer.Typer(
        name=name,
        help=help,
        epilog=epilog or None,
        no_args_is_help=True,
        add_completion=name is not None,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for function in commands:
        _add_completion(function)
        named = function.__name__.rstrip("_").replace("_", "-")
        # The list of commands would cut the help text off.
        summary = (function.__doc__ or "").partition("\n")[0]
        found.command(name=named, cls=_Command, short_help=summary)(function)
    return found
