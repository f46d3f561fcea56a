"""Results: networks that were trained elsewhere, with their accuracies, from a table.

A CSV or Parquet file with one network a row: a block string (column `network` or `block_args`), or
the decisions of a search space, a column each; and its top-1. Columns `standard_error` and `failed`
are optional; all others are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas import space as spaces
from phonenas.space import Architecture, Block, SearchSpace
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    PhonenasError,
    UnsupportedFormat,
    nearest,
)

__all__ = ["UNITS", "Results", "network_of", "read_any", "read_results"]

Floats = npt.NDArray[np.float64]
UNITS = ("share", "percent")
NETWORKS = ("network", "block_args")
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
    """

    source: Path
    networks: tuple[Architecture, ...]
    top1: Floats
    standard_error: Floats
    failed: tuple[str, ...]
    sha256: str
    target: str
    unit: str

    def __len__(self) -> int:
        return len(self.networks)


def network_of(row: Mapping[Any, Any], space: SearchSpace) -> Architecture:
    """The network of one row of a table whose columns are named like a space's decisions.

    Values are those of the options, or close to them (a fourth layer where the space has three);
    where the options are texts, also their numbers.
    """
    values: dict[str, Any] = {}
    for name, options in space.decisions.items():
        value = row[name]
        texts = not all(isinstance(o, int | float) for o in options)
        if texts and value not in options and float(value) == int(value):
            if not 0 <= int(value) < len(options):
                raise ValueError(f"{name} is {value}, it has {len(options)} options")
            value = options[int(value)]
        values[name] = value
    blocks: list[Block] = []
    for part in space.parts:
        built = part.build(*(values[name] for name in part.decisions))
        if isinstance(built, tuple):
            blocks.extend(block.canonical() for block in built)
    # Classes, resolution and stem are those of the space's own networks.
    other = space.decode(np.zeros(len(space.decisions), np.int8))
    return replace(other, blocks=tuple(blocks))


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
    import pandas as pd

    file = Path(path)
    if unit not in (None, *UNITS):
        raise InvalidArgument(f"a unit of top-1 is share or percent, got {unit!r}")
    try:
        content = file.read_bytes()
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except pd.errors.EmptyDataError as error:
        raise NotEnoughData(f"{file} is empty: it takes a row for each trained network") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from error
        raise UnsupportedFormat(f"{file} is not a table: {error}") from error
    except ValueError as error:  # of pandas and of pyarrow alike
        raise UnsupportedFormat(f"{file} is not a table: {error}") from error
    target = _column(frame, file, target, TARGETS, "of top-1")
    if not len(frame):
        raise NotEnoughData(f"{file} has no rows: it takes one for each trained network")
    networks = _networks(frame, file, space, column)
    failed = _reasons(frame, file)
    top1 = _numbers(frame, file, target)
    errors = np.full(len(frame), np.nan)
    if "standard_error" in frame:
        errors = _numbers(frame, file, "standard_error")
    bad = np.array([bool(why) for why in failed])
    lacking = np.flatnonzero(np.isnan(top1) & ~bad)
    if len(lacking):
        raise InvalidArgument(
            f"{file}, {_row(lacking[0])}: {target} is not a number. Remove the row, or give the "
            "reason in a column 'failed'."
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
                f"{file}, {_row(wrong[0])}: {name} is {scale * values[wrong[0]]:g}; it lies "
                f"{range_}. Is the unit another, or the column?"
            )
    digest = hashlib.sha256(content).hexdigest()
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
    if file.suffix == ".db":
        from .cache import kept_rows

        rows = kept_rows(file, target)
    else:
        rows = _promoted(file)
    if not rows:
        raise NotEnoughData(f"{file} holds no trained network")
    texts, top1, error, failed = zip(*rows, strict=True)
    nan = float("nan")
    return Results(
        file,
        tuple(_parsed(text, file, i) for i, text in enumerate(texts)),
        np.array([nan if v is None else v for v in top1], np.float64),
        np.array([nan if v is None else v for v in error], np.float64),
        tuple(failed),
        # Of the rows: a cache that is still written to has some of them beside its file.
        hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        target or "top1",
        "share",
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


def _parsed(text: str, file: Path, row: int) -> Architecture:
    try:
        return Architecture.parse(text)
    except PhonenasError as error:
        raise UnsupportedFormat(f"{file}, {_row(row)}: no network: {error}") from error


def _row(index: int | np.intp) -> str:
    return f"row {int(index) + 1}"


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
            f"{file}, {_row(wrong[0])}: {column} is {values.iloc[wrong[0]]!r}, and no number"
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


def _networks(
    frame: Any, file: Path, space: SearchSpace | None, column: str | None
) -> tuple[Architecture, ...]:
    names = {str(c) for c in frame.columns}
    if column is None:
        column = next((c for c in NETWORKS if c in names), None)
    elif column not in names:
        raise InvalidArgument(f"{file} has no column {column!r}. {nearest(column, names)}")
    if column is None:
        space = space or _space_of(names, file)
        lacking = [d for d in space.decisions if d not in names]
        if lacking:
            raise InvalidArgument(
                f"{file} has neither a column of networks ({', '.join(NETWORKS)}) nor all "
                f"decisions of {space.name}: {', '.join(lacking[:5])} "
                f"{'is' if len(lacking) == 1 else 'are'} not there. Name the column of block "
                "strings (--column) or the space (--space)."
            )
        rows: list[Any] = frame[list(space.decisions)].to_dict("records")
    else:
        rows = frame[column].tolist()
    known: dict[Hashable, Architecture] = {}
    networks = []
    for i, row in enumerate(rows):
        key = row if column is not None else tuple(row.values())
        try:
            if key not in known:
                if column is None:
                    assert space is not None
                    known[key] = network_of(row, space)
                else:
                    known[key] = Architecture.parse(str(row))
            networks.append(known[key])
        except (PhonenasError, KeyError, TypeError, ValueError) as error:
            raise UnsupportedFormat(f"{file}, {_row(i)}: no network: {error}") from error
    return tuple(networks)


def _space_of(names: set[str], file: Path) -> SearchSpace:
    for name in spaces.names():
        space = spaces.get(name)
        if set(space.decisions) <= names:
            return space
    raise InvalidArgument(
        f"{file} has neither a column of networks ({', '.join(NETWORKS)}) nor the decisions of a "
        f"space ({', '.join(spaces.names())})."
    )
