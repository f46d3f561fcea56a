"""The command line as a whole: its commands, its errors and its exit codes.

stdout carries the result (a table, or one JSON document with --json), stderr the progress and
the log. Exit 0: done; 1: it could not be done; 2: invalid arguments.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import traceback
from typing import Annotated, Any

import typer

from phonenas import __version__
from phonenas.space.errors import InvalidUsage, PhonenasError, foreign

from . import (
    accuracy,
    benchmark,
    devices,
    latency,
    promote,
    report,
    search,
    spaces,
    tables,
    train,
    validate,
)
from .groups import group
from .live import serve
from .options import Stopped
from .setup import doctor, examples, init, run

__all__ = ["app", "main"]


app = group(
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
        serve,
        run.run,
        init.init,
        doctor.doctor,
        examples.examples,
    ],
    "phonenas",
    "To begin:  phonenas init study, then phonenas run study.toml. For a phone that you do not "
    "have:  phonenas devices --ready. Worked commands for each task:  phonenas examples",
)
app.add_typer(
    group(
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


# The class of all of typer's errors about the words of a command; typer does not export it.
_Usage: type[Any] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; errors leave as one line on stderr and an exit code."""
    verbose = "--verbose" in sys.argv
    _take_every_sign()
    try:
        try:
            code = app(prog_name="phonenas", standalone_mode=False)
        finally:
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except _Usage as error:
        if "--json" not in sys.argv:
            error.show()  # with the usage of the command
            sys.exit(2)
        told = InvalidUsage(" ".join(error.format_message().split()))
        print(json.dumps({"error": told.to_dict()}, indent=1))
        _fail(f"InvalidUsage: {told}", 2)
    except PhonenasError as error:
        if verbose and not isinstance(error.__cause__, PhonenasError | None):
            traceback.print_exception(error.__cause__)
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except (Stopped, KeyboardInterrupt, typer.Abort):
        _fail("Stopped. What was finished is kept; the same command goes on from there.", 130)
    except BrokenPipeError:
        # Whoever read our output has enough; say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(f"StoreError: {foreign(error)}", 1)
    except Exception as error:  # noqa: BLE001  # whatever it is, the user gets one line
        if verbose:
            traceback.print_exc()
        from phonenas.space.naming import without_password

        command = shlex.join(["phonenas", *map(without_password, sys.argv[1:])])
        advice = "" if verbose else " The same with --verbose prints the traceback."
        _fail(f"Unexpected: {foreign(error)}. While running: {command}.{advice}", 1)


def _take_every_sign() -> None:
    """Let no sign of ours fail in an encoding that lacks it, as that of Windows's pipes does."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper) or stream.encoding.lower().startswith("utf"):
            continue
        if sys.platform == "win32" and not stream.isatty():
            stream.reconfigure(encoding="utf-8")
        else:
            stream.reconfigure(errors="replace")


def _fail(message: str, code: int) -> None:
    # One line, whatever a file is called.
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in message), file=sys.stderr)
    sys.exit(code)
