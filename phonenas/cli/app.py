"""The command line as a whole: its commands, its errors and its exit codes.

stdout carries the result (a table, or one JSON document with --json), stderr the progress and
the log. Exit 0: done; 1: it could not be done; 2: invalid arguments.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from typing import Annotated

import typer

from phonenas import __version__
from phonenas.space.errors import PhonenasError

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
