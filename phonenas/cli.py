"""The command line: reads the words, calls one function, prints its result.

stdout carries the result (a table, or one JSON document with --json), stderr the bars and the
log. Exit 0: done; 1: it could not be done; 2: it was asked amiss.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import (
    commands_accuracy,
    commands_benchmark,
    commands_benchmark_accuracy,
    commands_benchmark_search,
    commands_devices,
    commands_import,
    commands_model,
    commands_promote,
    commands_search,
    commands_supernet,
    commands_training,
    commands_validate,
)
from .console import (
    DEFAULT_DB,
    SPACES,
    AsJson,
    Db,
    DeviceName,
    ModelFile,
    OwnResolution,
    Quiet,
    Resolution,
    Verbose,
    Width,
    find_model,
    open_store,
    origin_note,
    print_result,
    set_up_logging,
    table,
    uncalibrated_note,
)  # fmt: skip
from .space.errors import PhonenasError

if TYPE_CHECKING:
    from .latency_model import LatencyModel
    from .space import Architecture

__all__ = ["app", "main"]

app = typer.Typer(
    name="phonenas",
    help="Find image networks that are accurate and fast on your device, and prove it there.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; errors leave as one line on stderr and an exit code."""
    try:
        app(prog_name="phonenas")
    except PhonenasError as error:
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except (_Stopped, KeyboardInterrupt):
        _fail("Stopped. What was finished is kept; the same command goes on from there.", 130)
    except BrokenPipeError:
        # Whoever read our output has enough; say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(f"StoreError:{where} {error.strerror or error}. Nothing half-written is left.", 1)


class _Stopped(Exception):
    """Ctrl-C inside a command."""


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """A command of the app or of a group of it, with logging set up from its own --verbose and --quiet."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        set_up_logging(kwargs.get("verbose", False), kwargs.get("quiet", False))
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt as stop:
            # Typer would end in silence.
            raise _Stopped from stop

    return group.command(name=function.__name__.rstrip("_").replace("_", "-"))(run)


@_command
def space(
    name: Annotated[str, typer.Argument(help=SPACES)],
    resolution: Resolution = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say what a search space holds."""
    from . import space as spaces

    found = spaces.get(name, resolution)
    per_block: dict[str, int] = {}
    for decision, options in found.decisions.items():
        block = decision.split("_", 1)[0]
        per_block[block] = per_block.get(block, 1) * len(options)
    result = {
        "name": name,
        "blocks": len(per_block),
        "choices_per_block": list(per_block.values()),
        "size": found.size,
        "operators": len(found.operators()),
        "resolution_px": found.resolution_px,
    }
    print_result(
        result,
        as_json,
        lambda: (
            f"{name} at {found.resolution_px} px: {found.size:.3g} genomes in {len(per_block)} blocks "
            f"({', '.join(map(str, per_block.values()))} choices), "
            f"{len(found.operators()):,} distinct operators"
        ),
    )


@_command
def show(
    network: Annotated[
        str,
        typer.Argument(help="Zoo name, block string, runs/x:3, .json or .onnx file, ssdlite:NAME."),
    ],
    width: Width = 1.0,
    resolution: OwnResolution = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show a network: its operators, parameters and MACs."""
    from .commands_kernels import show_file
    from .search.networks import detector, find

    if network.endswith(".onnx"):
        cut = show_file(network)
        rows = [[str(o["key"]), f"{o['macs']:,}", f"{o['params']:,}"] for o in cut["operators"]]
        rows.append(["whole", f"{cut['macs']:,}", f"{cut['params']:,}"])
        print_result(cut, as_json, lambda: table(["kernel", "MACs", "parameters"], rows))
        return
    found = detector(network, width, resolution) or find(network, width, resolution)
    operators = [{"key": o.key, "macs": o.macs, "params": o.params} for o in found.operators()]
    result = {
        "name": network,
        "params": found.params,
        "macs": found.macs,
        "resolution_px": found.resolution_px,
        "operators": operators,
        "block_args": str(found),
    }

    def text() -> str:
        rows = [[str(o), f"{o.macs:,}", f"{o.params:,}"] for o in found.operators()]
        total = [f"{found.resolution_px} px, whole", f"{found.macs:,}", f"{found.params:,}"]
        return f"{found}\n\n" + table(["operator", "MACs", "parameters"], [*rows, total])

    print_result(result, as_json, text)


_command(commands_devices.devices)
_command(commands_devices.profile)
_command(commands_import.import_)


_command(commands_model.fit)
_command(commands_model.check)


@_command
def predict(
    network: Annotated[
        list[str],
        typer.Argument(
            help="Zoo name, block string, runs/x:3, .json, any .onnx file, or ssdlite:NAME."
        ),
    ],
    device: DeviceName = "local",
    explain: Annotated[bool, typer.Option("--explain", help="By operator.")] = False,
    target: Annotated[
        float | None, typer.Option(help="Also the probability to take at most so many ms.")
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Predict the latency of networks that were never run."""
    from .commands_kernels import kernel_model, predict_file
    from .search.networks import detector, find

    named = ((n, detector(n, width, resolution)) for n in network)
    detectors = {n: one for n, one in named if one is not None}
    files = [n for n in network if n.strip().endswith(".onnx") or n in detectors]
    layered = [n for n in network if n not in files]
    result: list[dict[str, Any]] = []
    note = ""
    if layered:
        told = find_model(db, device, model, quiet)
        found = [find(n, width, resolution) for n in layered]
        predicted = told.predict(found)
        chances = None if target is None else predicted.within(target)
        note = uncalibrated_note(told) + origin_note(told.conditions)
        for i, (name, architecture) in enumerate(zip(layered, found, strict=True)):
            result.append(
                {
                    "network": name,
                    "latency_ms": float(predicted.ms[i]),
                    "low_ms": float(predicted.low_ms[i]),
                    "high_ms": float(predicted.high_ms[i]),
                    "interval": 0.9,
                    "covered": bool(predicted.covered[i]),
                    "origin": told.conditions.origin,
                }
            )
            if chances is not None:
                result[-1]["within_target"] = float(chances[i])
            if explain:
                result[-1]["operators"] = _explained(told, architecture)
    if files:
        kernels = kernel_model(db, device, model)
        note = note or origin_note(kernels.conditions)
        result += [
            predict_file(f.strip(), kernels, explain, target, detectors.get(f)) for f in files
        ]
        result.sort(key=lambda r: network.index(r["network"]) if r["network"] in network else 0)

    def text() -> str:
        rows = [
            [
                r["network"], f"○ {r['latency_ms']:.3f} ms",
                f"{r['low_ms']:.3f} to {r['high_ms']:.3f} ms",
                _basis(r),
                *([f"{r['within_target']:.0%}"] if target is not None else []),
            ]
            for r in result
        ]  # fmt: skip
        header = ["network", "predicted", "90 % interval", ""]
        shown = table(header + ([f"within {target:g} ms"] if target is not None else []), rows)
        for r in result if explain else []:
            lines = [
                [o["key"], f"{o['ms']:.4f}", f"{o['share']:.1%}", "●" if o["measured"] else "○"]
                for o in r["operators"]
            ]
            shown += f"\n\n{r['network']}\n" + table(["operator", "ms", "share", ""], lines)
        for r in result:
            shown += "".join(f"\n{r['network']}: {n}" for n in r.get("notes", ()))
        return shown + note

    print_result(result, as_json, text)


def _basis(row: dict[str, Any]) -> str:
    if "notes" in row:
        return "from its kernels" if row["covered"] else "some kernels beyond what was measured"
    return "every operator measured" if row["covered"] else "some operators estimated"


def _explained(model: LatencyModel, architecture: Architecture) -> list[dict[str, Any]]:
    shares = model.explain(architecture)
    whole = sum(e.ms for e in shares)
    return [
        {
            "key": "(constant)" if e.operator is None else e.operator.key,
            "ms": e.ms,
            "alone_ms": e.alone_ms,
            "alone_low_ms": e.low_ms,
            "alone_high_ms": e.high_ms,
            "share": e.ms / whole,
            "measured": e.measured,
        }
        for e in shares
    ]


_command(commands_search.search)
_command(commands_validate.validate)
_command(commands_validate.report)


_command(commands_accuracy.accuracy)
_command(commands_accuracy.fit_accuracy)
_command(commands_training.train)
_command(commands_supernet.supernet)
_command(commands_promote.promote)


@_command
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .parquet file.")],
    device: Annotated[str | None, typer.Option("--device", help="Only this device.")] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the store's measurements as a table, raw samples and conditions included."""
    from .data import export as write

    with open_store(db) as store:
        rows = write(store, out, device)
    print_result(
        {"file": str(out), "measurements": rows}, as_json, lambda: f"{rows} measurements: {out}"
    )


benchmark = typer.Typer(
    help="Examine the models on tables that others published, beside baselines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(benchmark, name="benchmark")
_command(commands_benchmark.surrogate, benchmark)
_command(commands_benchmark.transfer, benchmark)
_command(commands_benchmark.networks, benchmark)
_command(commands_benchmark_search.search, benchmark)
_command(commands_benchmark_accuracy.accuracy, benchmark)
