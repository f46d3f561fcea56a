"""The command line as a whole: its commands, its errors and its exit codes.

stdout carries the result (a table, or one JSON document with --json), stderr the progress and
the log. Exit 0: done; 1: it could not be done; 2: invalid arguments.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand

from phonenas import __version__
from phonenas.space.errors import PhonenasError

from . import (
    accuracy,
    benchmark,
    devices,
    doctor,
    latency,
    promote,
    report,
    search,
    spaces,
    tables,
    train,
    validate,
)
from .options import Stopped

__all__ = ["app", "main"]


# What a help text names in braces, and the registry that lists it.
_REGISTRIES = {
    "{spaces}": "phonenas.space.spaces:SPACES",
    "{strategies}": "phonenas.search.strategies:STRATEGIES",
    "{formats}": "phonenas.data.importers:FORMATS",
    "{estimators}": "phonenas.search.accuracy:ESTIMATORS",
}


_NO_NUMBER = re.compile(r"[^\x00-\x7f]|nan|inf|_", re.IGNORECASE)


class _Command(TyperCommand):
    """A command that refuses an option given twice, and names what is registered in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param in order:
            if param.param_type_name == "option" and not param.multiple and order.count(param) > 1:
                raise typer.BadParameter(
                    "it takes one value and is given twice", ctx, cast(Any, param)
                )
            # What typer calls the type has changed between its releases.
            bare: Any = getattr(param, "bare_type", None)
            kind: Any = bare() if callable(bare) else getattr(param, "type", None)
            if str(getattr(kind, "name", kind)).startswith(("int", "float")):
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

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.name_registered()
        super().format_help(ctx, formatter)


def _group(help: str, commands: list[Callable[..., None]], name: str | None = None) -> typer.Typer:
    group = typer.Typer(
        name=name,
        help=help,
        no_args_is_help=True,
        add_completion=name is not None,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for function in commands:
        named = function.__name__.rstrip("_").replace("_", "-")
        # The list of commands would cut the help text off.
        summary = (function.__doc__ or "").partition("\n")[0]
        group.command(name=named, cls=_Command, short_help=summary)(function)
    return group


app = _group(
    "Find image networks that are accurate and fast on your device, and measure them there.",
    [
        spaces.space,
        spaces.show,
        spaces.export_network,
        devices.devices,
        devices.profile,
        tables.import_,
        latency.fit,
        latency.check,
        latency.predict,
        report.trace,
        report.compare,
        search.search,
        validate.validate,
        report.report,
        accuracy.accuracy,
        accuracy.fit_accuracy,
        train.train,
        train.supernet,
        promote.promote,
        tables.export,
        doctor.doctor,
    ],
    "phonenas",
)
app.add_typer(
    _group(
        "Evaluate the models on tables that others published, beside baselines.",
        [
            benchmark.surrogate,
            benchmark.transfer,
            benchmark.networks,
            benchmark.search,
            benchmark.accuracy,
            accuracy.top1,
        ],
    ),
    name="benchmark",
    short_help="Evaluate the models on tables that others published, beside baselines.",
)


def _version(given: bool) -> None:
    if given:
        print(f"phonenas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find image networks that are accurate and fast on your device, and measure them there."""


def main() -> None:
    """Run the command line; errors leave as one line on stderr and an exit code."""
    try:
        try:
            app(prog_name="phonenas")
        finally:
            sys.stdout.flush()
    except PhonenasError as error:
        if "--verbose" in sys.argv and not isinstance(error.__cause__, PhonenasError | None):
            traceback.print_exception(error.__cause__)
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except (Stopped, KeyboardInterrupt):
        _fail("Stopped. What was finished is kept; the same command goes on from there.", 130)
    except BrokenPipeError:
        # Whoever read our output has enough; say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(f"StoreError:{where} {error.strerror or error}. Nothing half-written is left.", 1)
    except Exception as error:  # noqa: BLE001  # whatever it is, the user gets one line
        verbose = "--verbose" in sys.argv
        if verbose:
            traceback.print_exc()
        text = " ".join(str(error).split())[:300] or "no further text"
        from phonenas.data.files import without_password  # quick --help: it brings a database

        command = shlex.join(["phonenas", *map(without_password, sys.argv[1:])])
        advice = "" if verbose else " The same with --verbose prints the traceback."
        _fail(f"{type(error).__name__}: {text}. While running: {command}.{advice}", 1)


def _fail(message: str, code: int) -> None:
    # One line, whatever a file is called.
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in message), file=sys.stderr)
    sys.exit(code)
