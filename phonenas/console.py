"""What the commands share: their options, how results are printed, stores and models by name."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .space.errors import InvalidArgument, NotEnoughData, StoreError

if TYPE_CHECKING:
    from .data import Conditions, MeasurementStore
    from .latency_model import LatencyModel, Score
    from .latency_model.upkeep import Upkeep

__all__ = [
    "DEFAULT_DB", "SPACES", "AsJson", "BrokenImages", "Db", "DeviceName", "ModelFile", "OwnResolution", "Quiet", "Ray", "Resolution",
    "Seed", "Space", "Threads", "Verbose", "Width", "find_model", "measurable", "model_path", "open_store",
    "origin_note", "print_result", "refit_lines", "score_table", "shown_db", "set_up_logging", "table",
    "uncalibrated_note",
]  # fmt: skip

# Told without importing them: the help comes up at once.
SPACES = "mnasnet, mnasnet-flat, accel-nasbench, proxylessnas or nasbench-macro."
Db = Annotated[
    str, typer.Option("--db", envvar="PHONENAS_DB", help="Measurement store: a path or a URL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what is done to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No bars, no notes.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Device, as `phonenas devices` lists it.")
]
Space = Annotated[str, typer.Option("--space", help=SPACES)]
Resolution = Annotated[
    int | None,
    typer.Option(help="Side of the input image, in pixels; default: the space's own, mostly 224."),
]
OwnResolution = Annotated[
    int | None, typer.Option("--resolution", help="Input side in pixels, instead of its own.")
]
Width = Annotated[float, typer.Option(help="Width multiplier.")]
Threads = Annotated[int | None, typer.Option(help="Threads that compute, pinned to as many cores.")]
ModelFile = Annotated[
    Path | None, typer.Option("--model", help="Latency model file; default: the store's.")
]
Ray = Annotated[
    str | None, typer.Option("--ray", help="A Ray cluster: auto, or HOST:PORT of its head.")
]
BrokenImages = Annotated[str, typer.Option("--broken", help="A broken image file: stop or skip.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all chance.")]
DEFAULT_DB = "phonenas.db"


def set_up_logging(verbose: bool, quiet: bool) -> None:
    """Log to stderr, as much as asked."""
    logger = logging.getLogger("phonenas")
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)


def print_result(result: Any, as_json: bool, text: Callable[[], str]) -> None:
    """One JSON document, or text."""
    if as_json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        print(text())


def table(header: list[str], rows: list[list[str]]) -> str:
    """Rows under a header, aligned."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    # Numbers stand to the right, words to the left.
    right = [all(r[i][:1] in "-+0123456789○●" for r in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            c.rjust(w) if is_right else c.ljust(w)
            for c, w, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def origin_note(conditions: Conditions) -> str:
    """A line for numbers that no real device gave; "" for measured ones."""
    if conditions.origin == "measured":
        return ""
    return (
        f"\n{conditions.origin.upper()}: {conditions.device} ({conditions.model}); no device was "
        "measured for these numbers"
    )


def uncalibrated_note(model: LatencyModel) -> str:
    """A line for a model that no whole network calibrated; "" for others."""
    if model.calibrated:
        return ""
    return (
        f"\nUNCALIBRATED: sums of {model.device}'s operators, for fewer than ten whole networks came "
        "with them; a whole may take up to 1.8 times as long. They rank networks; do not promise them"
    )


def measurable(model: LatencyModel) -> None:
    """Refuse a model whose device nobody here can measure.

    Raises:
        InvalidArgument: Its table was imported.
    """
    if model.conditions.origin == "imported":
        raise InvalidArgument(
            f"{model.device} is a table that was imported: there is no device to measure. Measure one of "
            "your own, or tell it from another:  phonenas profile --device NEW --like MEASURED"
        )


def refit_lines(held: Upkeep, device: str, db: str) -> list[str]:
    """What newer measurements say of a model, a line each; none where there are none."""
    if not held.newer:
        return []
    again = f"phonenas fit --device {device} --db {shown_db(db)}"
    if not held.reasons:
        return [
            f"{held.newer} measurements are newer than the model, which holds; {again} takes them in."
        ]
    lines = [f"the model should be fitted again: {reason}" for reason in held.reasons]
    if held.outdated:
        # A fit on a few new operators among many old ones would mix two speeds.
        lines.append(
            "first measure all anew, with the options of its profile:  phonenas profile --device "
            f"{device} --space SPACE --again --db {shown_db(db)}"
        )
    return [*lines, f"{'then' if held.outdated else 'do so'}:  {again}"]


def score_table(scores: dict[str, Score]) -> str:
    """Scores beside their baselines."""
    names = {
        "model": "model",
        "lookup_table": "raw table sum",
        "macs": "MACs baseline",
        "relative": "relative times a factor",
    }
    header = ["", "n", "MAPE", "bias", "acc5", "acc10", "RMSE", "Spearman", "Kendall", "90% covers"]
    rows = []
    for key, s in scores.items():
        coverage = "" if s.coverage90 != s.coverage90 else f"{s.coverage90:.0%}"
        rows.append(
            [
                names.get(key, key),
                str(s.n),
                f"{s.mape:.2%}",
                f"{s.bias:+.2%}",
                f"{s.acc5:.0%}",
                f"{s.acc10:.0%}",
                f"{s.rmse_ms:.3f} ms",
                f"{s.spearman:.4f}",
                f"{s.kendall_tau:.4f}",
                coverage,
            ]
        )
    return table(header, rows)


def open_store(db: str, *, create: bool = False) -> MeasurementStore:
    """The store of a command."""
    from .data import MeasurementStore

    return MeasurementStore(db, create=create)


def shown_db(db: str) -> str:
    """A store's location without its password."""
    from .data.database import shown as without_password

    return without_password(db)


def model_path(db: str, device: str) -> Path:
    """Where a store's latency model of a device lies: beside a file, or in this folder."""
    if "://" in db:
        return Path(f"phonenas.{device}.model.json")
    path = Path(db)
    return path.with_name(f"{path.stem}.{device}.model.json")


def find_model(db: str, device: str, model: Path | None, quiet: bool) -> LatencyModel:
    """A device's latency model, and a note if the store has more."""
    from .data import MeasurementStore
    from .devices import connect
    from .latency_model import load
    from .latency_model.upkeep import upkeep

    path = model or model_path(db, device)
    if not path.exists():
        connect(device)  # an unknown device is the likelier mistake
        raise NotEnoughData(
            f"there is no latency model of {device} at {path}. Fit one:  "
            f"phonenas fit --device {device} --db {shown_db(db)}"
        )
    found = load(path)
    if found.device != device:
        raise InvalidArgument(f"{path} is a model of {found.device}, not of {device}")
    if not quiet and ("://" in db or Path(db).exists()):
        # A store that can only be read, or not at all, is no reason not to predict.
        with contextlib.suppress(StoreError), MeasurementStore(db, create=False) as store:
            if store.latest(found.conditions, ("operator", "network")) > found.until:
                held = upkeep(found, store.measurements(found.conditions))
                for line in refit_lines(held, device, db):
                    print(line, file=sys.stderr)
    return found
