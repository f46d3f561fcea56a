"""Results: networks that were trained elsewhere, with their accuracies, from a table.

A CSV or Parquet file with one network a row: a block string (column `network` or `block_args`), or
the decisions of a search space, a column each; and its top-1. Columns `standard_error` and `failed`
are optional; all others are ignored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Architecture, SearchSpace, spaces
from phonenas.space.errors import InvalidArgument, NotEnoughData, nearest
from phonenas.space.network_table import (
    network_of,
    networks_in,
    parsed_network,
    read_frame,
    row_name,
)

__all__ = ["UNITS", "Results", "network_of", "read_any", "read_results"]

Floats = npt.NDArray[np.float64]
UNITS = ("share", "percent")
TARGETS = ("top1", "val_top1")


@dataclass(frozen=True)
class Results:
    """Trained networks, a row each; a network may stand in several.

    Args:
        source: The file.
        networks: n.
        top1: (n,), in [0, 1]; NaN where the training failed.
        standard_error: (n,), same unit, > 0; NaN where the table has none.
        failed: A reason a row, "" where it did not fail.
        sha256: Of the file.
        target: The column of `top1`.
        unit: Of that column, "share" or "percent".
        left_out: Networks of a cache that began with weights of others, and are not here.
    """

    source: Path
    networks: tuple[Architecture, ...]
    top1: Floats
    standard_error: Floats
    failed: tuple[str, ...]
    sha256: str
    target: str
    unit: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.networks)


def read_results(
    path: str | Path,
    *,
    unit: str | None = None,
    space: SearchSpace | None = None,
    column: str | None = None,
    target: str | None = None,
) -> Results:
    """Read a table of trained networks.

    Args:
        path: .csv or .parquet.
        unit: Of top-1, "share" (in [0, 1]) or "percent"; None infers it from the numbers, where all
            are at most 1 or all above 1.
        space: Whose decisions name the columns, where there is no column of networks; None takes
            the first whose decisions are all there.
        column: Of the block strings; None for `network` or `block_args`.
        target: Column of top-1; None for `top1` or `val_top1`.
    Raises:
        InvalidArgument: No such file, unit or column, or a number outside its range; the row is
            named.
        UnsupportedFormat: The file is not a table, or a row holds no network; the row is named.
        NotEnoughData: It has no rows.
    """
    file = Path(path)
    if unit not in (None, *UNITS):
        raise InvalidArgument(f"a unit of top-1 is share or percent, got {unit!r}")
    frame = read_frame(file)
    target = _column(frame, file, target, TARGETS, "of top-1")
    if not len(frame):
        raise NotEnoughData(f"{file} has no rows: it takes one for each trained network")
    networks = networks_in(frame, file, known=spaces.each, space=space, column=column)
    failed = _reasons(frame, file)
    top1 = _numbers(frame, file, target)
    errors = np.full(len(frame), np.nan)
    if "standard_error" in frame:
        errors = _numbers(frame, file, "standard_error")
    bad = np.array([bool(why) for why in failed])
    lacking = np.flatnonzero(np.isnan(top1) & ~bad)
    if len(lacking):
        raise InvalidArgument(
            f"{file}, {row_name(lacking[0])}: {target} is not a number. Remove the row, or give "
            "the reason in a column 'failed'."
        )
    unit = _unit(top1[~bad], unit, file, target)
    scale = 100.0 if unit == "percent" else 1.0
    top1, errors = np.where(bad, np.nan, top1 / scale), np.where(bad, np.nan, errors / scale)
    for name, values, most in ((target, top1, 1.0), ("standard_error", errors, np.inf)):
        wrong = np.flatnonzero(
            (values < 0) | (values > most) | ((values == 0) & (values is errors))
        )
        if len(wrong):
            range_ = f"in [0, {scale:g}], the unit being {unit}" if values is top1 else "above 0"
            raise InvalidArgument(
                f"{file}, {row_name(wrong[0])}: {name} is {scale * values[wrong[0]]:g}; it lies "
                f"{range_}. Is the unit another, or the column?"
            )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Results(file, networks, top1, errors, failed, digest, target, unit)


def read_any(
    path: str | Path,
    *,
    unit: str | None = None,
    space: SearchSpace | None = None,
    column: str | None = None,
    target: str | None = None,
) -> Results:
    """Trained networks from a table, a run's promoted.json, or a cache of accuracies.

    Of a cache only networks that began from first weights are taken.

    Args:
        path: .csv, .parquet, .json, or the .db of a cache.
        target: Of a cache that holds several estimators, the digest of one.
        unit, space, column: As `read_results`; of tables alone.
    Raises:
        InvalidArgument, UnsupportedFormat, NotEnoughData: As `read_results`.
    """
    file = Path(path)
    if file.suffix not in (".db", ".json"):
        return read_results(file, unit=unit, space=space, column=column, target=target)
    if unit is not None or space is not None or column is not None:
        raise InvalidArgument(f"{file} needs no --unit, --space or --column: leave them out")
    left_out = 0
    if file.suffix == ".db":
        from .cache import kept_rows

        rows = kept_rows(file, target)
        left_out = len(kept_rows(file, target, inherited=True)) - len(rows)
    else:
        rows = _promoted(file)
    if not rows:
        more = f" from first weights, and {left_out:,} from inherited ones" if left_out else ""
        raise NotEnoughData(f"{file} holds no network trained{more}")
    texts, top1, error, failed = zip(*rows, strict=True)
    nan = float("nan")
    return Results(
        file,
        tuple(parsed_network(text, file, i) for i, text in enumerate(texts)),
        np.array([nan if v is None else v for v in top1], np.float64),
        np.array([nan if v is None else v for v in error], np.float64),
        tuple(failed),
        # Of the rows: a cache that is still written to has some of them beside its file.
        hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        target or "top1",
        "share",
        left_out,
    )


def _promoted(file: Path) -> list[tuple[str, float | None, float | None, str]]:
    """Network, top-1, its error and why it failed, of each network of a promoted.json."""
    from ..promotion.result import FILE, read_promoted

    promoted = read_promoted(file.parent) if file.name == FILE else None
    if promoted is None:
        raise InvalidArgument(
            f"{file} is not a {FILE} of a run. Tables are read as .csv and .parquet, and caches as "
            f".db."
        )
    return [
        (n.block_args, None if n.failed else n.top1, None if n.failed else n.top1_error, n.failed)
        for n in promoted.networks
        if n.failed or n.top1 is not None
    ]


def _column(frame: Any, file: Path, given: str | None, usual: tuple[str, ...], of: str) -> str:
    names = [str(c) for c in frame.columns]
    if given is not None:
        if given not in names:
            raise InvalidArgument(f"{file} has no column {given!r}. {nearest(given, names)}")
        return given
    for name in usual:
        if name in names:
            return name
    raise InvalidArgument(
        f"{file} has no column {' or '.join(map(repr, usual))} {of}. Rename the right one, or "
        f"for fit-accuracy name it by --target: {', '.join(names)}."
    )


def _numbers(frame: Any, file: Path, column: str) -> Floats:
    import pandas as pd

    values = frame[column]
    numbers: Floats = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero((np.isnan(numbers) & values.notna().to_numpy()) | np.isinf(numbers))
    if len(wrong):
        raise InvalidArgument(
            f"{file}, {row_name(wrong[0])}: {column} is {values.iloc[wrong[0]]!r}, and no number"
        )
    return numbers


def _unit(top1: Floats, unit: str | None, file: Path, target: str) -> str:
    if unit is not None:
        return unit
    if not len(top1) or top1.max() <= 1:
        return "share"
    if top1.min() > 1:
        return "percent"
    raise InvalidArgument(
        f"{file}: {target} runs from {top1.min():g} to {top1.max():g}: say whether that is a share "
        "or per cent (unit 'share' or 'percent'; --unit on the command line)"
    )


def _reasons(frame: Any, file: Path) -> tuple[str, ...]:
    if "failed" not in frame:
        return ("",) * len(frame)

    def reason(value: Any) -> str:
        if value is None or value is False or value != value or value in ("", 0, "False", "false"):
            return ""
        if value is True or value in (1, "True", "true"):
            return f"failed, as {file.name} says"
        return str(value)

    return tuple(reason(value) for value in frame["failed"].tolist())
