"""Networks in tables: a CSV or Parquet file with a network a row.

A network is a block string (column `network` or `block_args`), or the decisions of a search space,
a column each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .architecture import Architecture
from .block import Block
from .errors import InvalidArgument, NotEnoughData, PhonenasError, UnsupportedFormat, nearest
from .search_space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["network_of", "networks_in", "parsed_network", "read_frame", "row_name"]

NETWORKS = ("network", "block_args")


def read_frame(file: Path) -> pd.DataFrame:
    """A CSV or Parquet file.

    Raises:
        InvalidArgument: It cannot be read.
        UnsupportedFormat: It is not a table.
        NotEnoughData: It is empty.
    """
    import pandas as pd

    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except pd.errors.EmptyDataError as error:
        raise NotEnoughData(f"{file} is empty: it takes a row for each trained network") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from error
        raise UnsupportedFormat(f"{file} is not a table: {error}") from error
    except ValueError as error:  # of pandas and of pyarrow alike
        raise UnsupportedFormat(f"{file} is not a table: {error}") from error


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
    return replace(space.example(), blocks=tuple(blocks))


def networks_in(
    frame: pd.DataFrame,
    file: Path,
    *,
    known: Callable[[], Iterable[SearchSpace]],
    space: SearchSpace | None = None,
    column: str | None = None,
    parse: Callable[[str], Architecture] = Architecture.parse,
) -> tuple[Architecture, ...]:
    """The network of each row.

    Args:
        frame, file: The table, and where it was read.
        known: Spaces whose decisions may be the columns, where none is given.
        space: Whose decisions name the columns, where there is no column of networks.
        column: Of the networks; None for `network` or `block_args`.
        parse: Reads one network.
    Raises:
        InvalidArgument: No such column, and no space whose decisions are there.
        UnsupportedFormat: A row holds no network; it is named.
    """
    names = {str(c) for c in frame.columns}
    if column is None:
        column = next((c for c in NETWORKS if c in names), None)
    elif column not in names:
        raise InvalidArgument(f"{file} has no column {column!r}. {nearest(column, names)}")
    if column is None:
        space = space or _space_of(names, file, known)
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
    seen: dict[Hashable, Architecture] = {}
    networks = []
    for i, row in enumerate(rows):
        key = row if column is not None else tuple(row.values())
        if key not in seen:
            if column is not None:
                seen[key] = parsed_network(str(row), file, i, parse)
            else:
                assert space is not None
                try:
                    seen[key] = network_of(row, space)
                except (PhonenasError, KeyError, TypeError, ValueError) as error:
                    raise UnsupportedFormat(
                        f"{file}, {row_name(i)}: no network: {error}"
                    ) from error
        networks.append(seen[key])
    return tuple(networks)


def parsed_network(
    text: str, file: Path, row: int, parse: Callable[[str], Architecture] = Architecture.parse
) -> Architecture:
    """The network that a row holds as text; UnsupportedFormat, with the row, without one."""
    try:
        return parse(text)
    except PhonenasError as error:
        raise UnsupportedFormat(f"{file}, {row_name(row)}: no network: {error}") from error


def row_name(index: int | np.intp) -> str:
    """A row for people, from 1.

    >>> row_name(0)
    'row 1'
    """
    return f"row {int(index) + 1}"


def _space_of(
    names: set[str], file: Path, known: Callable[[], Iterable[SearchSpace]]
) -> SearchSpace:
    tried = []
    for space in known():
        if set(space.decisions) <= names:
            return space
        tried.append(space.name)
    raise InvalidArgument(
        f"{file} has neither a column of networks ({', '.join(NETWORKS)}) nor the decisions of a "
        f"space ({', '.join(tried)})."
    )
