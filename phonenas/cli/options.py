"""Options that several commands share, each defined once, and what makes a function a command."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, foreign
from phonenas.space.naming import legible, plain_name
from phonenas.space.precision import PRECISIONS

from .groups import SCHEMA
from .output import completed, legend

__all__ = [
    "DEFAULT_DB",
    "NETWORK",
    "BrokenImages",
    "Db",
    "DeviceName",
    "DeviceNames",
    "EstimatorOptions",
    "Gpus",
    "InputFile",
    "LoaderProcesses",
    "ModelFile",
    "Output",
    "OwnResolution",
    "Precision",
    "Ray",
    "Resolution",
    "Seed",
    "Shapes",
    "Space",
    "Stopped",
    "StrategySettings",
    "Threads",
    "TrainingOptions",
    "Unit",
    "Width",
    "WorkerCount",
    "celsius",
    "command",
    "refuse_unusable",
    "settings_of",
]

DEFAULT_DB = "phonenas.db"
NETWORK = "A zoo name, a block string, a run's candidate (runs/x:3), or a .json file."

Db = Annotated[
    str, typer.Option("--db", envvar="PHONENAS_DB", help="Measurement store: a path or a URL.")
]
DeviceName = Annotated[str, typer.Option("--device", help="As `phonenas devices` lists it.")]
_DEVICES = typer.Option("--device", help="As `phonenas devices` lists it; repeatable.")
DeviceNames = Annotated[list[str] | None, _DEVICES]
# The registry's names take the place of what stands in braces, when the help is shown.
Space = Annotated[
    str,
    typer.Option("--space", help="{spaces}; a .toml file; or table:FILE, the networks of a table."),
]
Resolution = Annotated[
    int | None,
    typer.Option(help="Side of the input image, in pixels; default: the space's own, mostly 224."),
]
OwnResolution = Annotated[
    int | None, typer.Option("--resolution", help="Input side in pixels, instead of its own.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="Shape of a file's input, as x=1,3,224,224; repeatable."),
]
InputFile = Annotated[
    Path | None,
    typer.Option("--input", help="Run the file on this .npz file: an array for each input."),
]
Width = Annotated[float, typer.Option(help="Width multiplier.")]
Threads = Annotated[int | None, typer.Option(help="Threads that compute, pinned to as many cores.")]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help=f"{', '.join(PRECISIONS)}; default: that of devices.toml, else float32."
    ),
]
SearchedPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help=f"{', '.join(PRECISIONS)}; or any: a choice of the search among those that have a "
        "model. Default: that of devices.toml, else float32.",
    ),
]
ModelFile = Annotated[
    Path | None, typer.Option("--model", help="Latency model file; default: the store's.")
]
Ray = Annotated[
    str | None, typer.Option("--ray", help="A Ray cluster: auto, or HOST:PORT of its head.")
]
BrokenImages = Annotated[str, typer.Option("--broken", help="A broken image file: stop or skip.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", min=1, help="How many networks are trained at a time.")
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        min=0.0,
        help="GPUs that each training on a worker reserves: 1, or a share such as 0.5.",
    ),
]
LoaderProcesses = Annotated[
    int,
    typer.Option("--loaders", min=0, help="Processes that decode image files, for each training."),
]
StrategySettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting of the strategy: NAME=VALUE, as population=40; repeatable."
    ),
]
Unit = Annotated[str | None, typer.Option("--unit", help="Of a table's top-1: share or percent.")]


@dataclass(frozen=True)
class EstimatorOptions:
    """The options that choose an accuracy estimator, each as its help text has it."""

    accuracy: Annotated[
        str,
        typer.Option(
            help="{estimators}. imagenet:RECIPE, surrogate:FILE, zero_cost:PROXY, training:RECIPE, "
            "supernet:FOLDER, table:FILE take an argument."
        ),
    ] = "imagenet"
    data: Annotated[
        Path | None,
        typer.Option(help="Images: a folder, .npz or idx files; the training part is used."),
    ] = None
    trained: Annotated[
        Path | None, typer.Option(help="Of zero_cost: a table of 10 to 200 trained networks.")
    ] = None
    workers: WorkerCount = None
    ray: Ray = None
    gpus: Gpus = None
    held_out: Annotated[
        float | None, typer.Option(help="Share of the images kept for evaluation; default: 0.1.")
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of each short training; default: its recipe's.", min=1),
    ] = None
    loaders: LoaderProcesses = 0
    broken: BrokenImages = "stop"
    unit: Unit = None
    accuracy_cache: Annotated[
        Path | None, typer.Option(help="File that keeps accuracies, for many runs.")
    ] = None
    again: Annotated[
        bool, typer.Option("--again", help="Estimate again what failed, according to the cache.")
    ] = False

    def changed(self) -> dict[str, str]:
        """The options that differ from their defaults and change what is estimated, by name."""
        own = [f for f in fields(self) if f.name not in ("loaders", "again")]
        given = {f.name: getattr(self, f.name) for f in own if getattr(self, f.name) != f.default}
        return {name.replace("_", "-"): str(value) for name, value in given.items()}


@dataclass(frozen=True)
class TrainingOptions:
    """The options of trainings in full."""

    data: Annotated[
        Path,
        typer.Option(help="Images: a folder with train/CLASS and val/CLASS, .npz or idx files."),
    ]
    recipe: Annotated[str, typer.Option(help="paper, proxy or small.")] = "paper"
    epochs: Annotated[int | None, typer.Option(help="Epochs; default: the recipe's.")] = None
    batch: Annotated[int | None, typer.Option(help="Images a step, over all processes.")] = None
    held_out: Annotated[
        float | None,
        typer.Option(help="Evaluate on this share of the training images, not on the test images."),
    ] = None
    seed: Seed = 0
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU, for each training.")] = (
        None
    )
    loaders: LoaderProcesses = 0
    broken: BrokenImages = "stop"
    ray: Ray = None
    gpus: Gpus = None
    teacher: Annotated[
        str | None,
        typer.Option(help="Learn this one's outputs, too: an .onnx file, or module:Name of torch."),
    ] = None


def settings_of(given: list[str] | None) -> dict[str, str]:
    """Settings by name, as a user wrote them."""
    settings: dict[str, str] = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise InvalidArgument(f"--set takes NAME=VALUE, as population=40, got {text!r}")
        if name in settings:
            raise InvalidArgument(f"--set {name} is given twice: {settings[name]} and {value}")
        settings[name] = value
    return settings


class Stopped(Exception):
    """Ctrl-C inside a command."""


@dataclass(frozen=True)
class Output:
    """How a command prints: the options that every command takes.

    Attributes:
        as_json: One JSON document on stdout instead of text.
        verbose: The log on stderr, in full.
        quiet: No progress and no notes on stderr.
        given: Names of the command's parameters that stand on the command line.
        printed: Not empty once the result is printed.
    """

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False
    given: frozenset[str] = frozenset()
    printed: list[bool] = field(default_factory=list, compare=False, repr=False)

    def refuse(self, names: str, reason: str) -> None:
        """Refuse options that do not apply to what was given.

        Args:
            names: Names of parameters, separated by blanks.
            reason: Why, for the message: "acts only with --mode sustained".
        Raises:
            InvalidArgument: One of them stands on the command line.
        """
        for name in names.split():
            if name in self.given:
                raise InvalidArgument(f"--{name.rstrip('_').replace('_', '-')} {reason}")

    def print(self, result: Any, text: Callable[[], str]) -> None:
        """Print one JSON document; or the text, and what its marks mean."""
        self.printed.append(True)
        if self.as_json:
            print(json.dumps(result, indent=1, allow_nan=False))
        else:
            shown = text()
            print(legible(shown + legend(shown)))

    def note(self, text: str) -> None:
        """Print a line on stderr, unless the command is quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def set_up_logging(self) -> None:
        """Log to stderr, as much as the user asked for."""
        logger = logging.getLogger("phonenas")
        logger.handlers = [logging.StreamHandler(sys.stderr)]
        level = logging.ERROR if self.quiet else logging.WARNING
        logger.setLevel(logging.DEBUG if self.verbose else level)


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


_CONTEXT = _option("context", typer.Context, inspect.Parameter.empty)
_OUTPUT = [
    _option(name, Annotated[bool, typer.Option(word, help=text)], False)
    for name, word, text in (
        ("as_json", "--json", "Print one JSON document."),
        ("verbose", "--verbose", "Log to stderr."),
        ("quiet", "--quiet", "No progress, no notes."),
    )
]
_STORE = [_option("db", Db, DEFAULT_DB)]
_JSON_SCHEMA = _option("json_schema", Annotated[bool, SCHEMA], False)


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    empty = inspect.Parameter.empty
    values = [(f.name, empty if f.default is MISSING else f.default) for f in fields(group)]
    return [_option(name, hints[name], default) for name, default in values]


def _given(context: typer.Context | None, values: dict[str, Any]) -> frozenset[str]:
    """The parameters on the command line; those of a call, where there is no command line."""
    if context is None:
        return frozenset(values)
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(n for n, s in sources.items() if s is not None and s.name == "COMMANDLINE")


def _completed(text: str, db: str, given: dict[str, Any], networks: bool) -> str:
    """An error's text, its printed commands completed by the options of this command.

    `networks` says that its `precision` is of networks on a device, and not of a training.
    """
    device, model = given.get("device"), given.get("model")
    if isinstance(device, list):
        device = device[0] if len(device) == 1 else None
    return completed(
        text,
        "" if db == DEFAULT_DB else db,
        device or "",
        model if isinstance(model, Path) else None,  # `import --model` is a description
        given.get("precision") if networks else None,
    )


# What is far beyond any use, and would ask for all memory or for years; other counts: _MOST.
_MOST_OF = {
    **dict.fromkeys(("networks", "top"), 10_000),
    **dict.fromkeys(("kernels", "measurements", "resolution"), 100_000),
    **dict.fromkeys(("threads", "workers", "loaders"), 1_024),
    "rounds": 100,
    "seed": 2**63 - 1,
}
_MOST = 10**9


def refuse_unusable(given: dict[str, Any]) -> None:
    """Refuse a number beyond any use, what could not be printed as a command to copy, and a
    device that is no name."""
    for name, value in given.items():
        option, most = f"--{name.rstrip('_').replace('_', '-')}", _MOST_OF.get(name, _MOST)
        if isinstance(value, int | float) and not -most <= value <= most:
            raise InvalidArgument(f"{option}: at most {most:,}, got {value:.6g}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str | Path) and not str(text).isprintable():
                raise InvalidArgument(
                    f"{option}: {str(text)!r} holds a line break or another character that does "
                    "not print"
                )
            if name not in ("device", "like") or not isinstance(text, str):
                continue
            if not _ready(text):
                plain_name(text, option)


def _ready(device: str) -> bool:
    """Whether a device is a ready phone, whose name has three slashes.

    Raises:
        UnknownName: It is written as one, or as the start of one, and there is none of that name.
    """
    if "/" not in device or "\\" in device or ".." in device:
        return False
    from phonenas.latency_model.ready import begun, known

    return bool((device.count("/") == 3 or begun(device)) and known(device))


def celsius(text: str | None) -> float | None:
    """A temperature in °C, from the text that the user writes.

    >>> celsius("45C"), celsius("45 °C"), celsius("45")
    (45.0, 45.0, 45.0)
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*°?[cC]?\s*", text)
    if found is None or not 0 < float(found[1]) < 150:
        raise InvalidArgument(f"--wait-below: a temperature in °C such as 45C, got {text!r}")
    return float(found[1])


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a command: it gains the options that all commands share.

    The function's first parameter is an `Output`, filled from `--json`, `--verbose` and `--quiet`.
    If the second is named `db`, the command takes `--db` too. A parameter whose type is a
    dataclass stands for an option a field. An error of a command with `--db` leaves with its
    printed commands completed (`stores.completed`). What is returned has a signature that typer
    reads.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    added = list(_OUTPUT)
    stored = bool(own) and own[0].name == "db"
    if stored:
        own, added = own[1:], _STORE + added
    networks = any(p.name == "precision" and p.annotation == Precision for p in own)
    positional = [p.name for p in own]
    groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
    expanded = [o for p in own for o in (_fields(p.annotation) if p.name in groups else [p])]
    if groups:
        expanded = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in expanded]

    @functools.wraps(function)
    def run(*values: Any, **given: Any) -> None:
        context, _ = given.pop("context", None), given.pop("json_schema", None)
        switches = {p.name: given.pop(p.name, False) for p in _OUTPUT}
        output = Output(**switches, given=_given(context, given))
        store = (given.pop("db", DEFAULT_DB),) if stored else ()
        output.set_up_logging()
        try:
            if not all(map(str.strip, store)):
                raise InvalidArgument("--db is empty: give the path of a file, or a URL")
            places = dict(zip(positional, values, strict=False))
            refuse_unusable({**given, **places, **({"db": store[0]} if store else {})})
            for name, group in groups.items():
                options = {f.name: given.pop(f.name) for f in fields(group) if f.name in given}
                given[name] = group(**options)
            function(output, *store, *values, **given)
        except (typer.Exit, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if store and isinstance(error, PhonenasError):
                error.args = (_completed(str(error), *store, given, networks),)
            if output.as_json and not output.printed:  # one document, whatever happens
                output.print({"error": foreign(error).to_dict()}, str)
            raise
        except KeyboardInterrupt as stop:
            raise Stopped from stop  # typer would end without a word

    parameters = [*expanded, *added, _JSON_SCHEMA, _CONTEXT]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
