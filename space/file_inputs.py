"""Inputs of a network's file: which sides are free, and what a user sets them to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InvalidArgument

__all__ = [
    "NOT_GIVEN",
    "Given",
    "GivenArray",
    "Input",
    "Shape",
    "link_or_copy",
    "linked",
    "parsed_shape",
    "plain_file_name",
    "settled",
]

Shape = tuple[int, ...]
_BATCH = re.compile(r"(n|b|bs|batch.*|.*_batch(_size)?)", re.IGNORECASE)
_COLOURS = (1, 3, 4)
_USUAL_PX = 224
_MOST_SIDE = 1 << 24


class Input(NamedTuple):
    """An input as the file has it.

    `dtype` is numpy's name of it. `sides` holds a number for each side that is fixed and a name
    for each that is free; it is None where the file gives no shape.
    """

    name: str
    dtype: str
    sides: tuple[int | str, ...] | None

    def __str__(self) -> str:
        return "without a shape" if self.sides is None else f"({', '.join(map(str, self.sides))})"


@dataclass(frozen=True)
class GivenArray:
    """Type and shape of an array of an input file."""

    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Given:
    """What a user says of the inputs of a file.

    Args:
        shapes: By input, from `--shape`.
        resolution_px: Side of the image, from `--resolution`.
        file: An .npz file with an array for each input, from `--input`.
        arrays: What it holds, by name.
        digest: Of its content.
    """

    shapes: tuple[tuple[str, Shape], ...] = ()
    resolution_px: int | None = None
    file: Path | None = None
    arrays: tuple[tuple[str, GivenArray], ...] = ()
    digest: str = ""

    def __bool__(self) -> bool:
        return bool(self.shapes or self.resolution_px or self.file)


NOT_GIVEN = Given()


def parsed_shape(text: str) -> tuple[str, Shape]:
    """A name and a shape from `NAME=1,3,H,W`.

    >>> parsed_shape("x=1,3,64,64")
    ('x', (1, 3, 64, 64))
    """
    name, mark, numbers = text.rpartition("=")
    sides = [n.strip() for n in re.split("[,x]", numbers)]
    if not (mark and name.strip() and all(re.fullmatch("[0-9]{1,9}", n) for n in sides)):
        raise InvalidArgument(f"--shape: NAME=1,3,224,224, got {text!r}")
    shape = tuple(map(int, sides))
    if not all(0 < n <= _MOST_SIDE for n in shape):
        raise InvalidArgument(f"--shape {text}: each side is 1 to {_MOST_SIDE:,}")
    return name.strip(), shape


def plain_file_name(path: Path) -> str:
    """The name of a file as a part of a subject's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:80]


def link_or_copy(source: Path, path: Path) -> Path:
    """The file at another path: by a link, or a copy where no link can be made (Windows)."""
    try:
        path.symlink_to(source.resolve())
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, path)
    return path


def linked(
    source: Path,
    path: Path,
    inputs: Path | None,
    shapes: Mapping[str, Shape],
    kinds: Mapping[str, str],
) -> Path:
    """Link a file whose own shapes cannot be set at a path; its inputs go beside it.

    Args:
        source: The file.
        path: Of the link; the inputs have its name and `.npz`.
        inputs: An .npz file; None for random inputs.
        shapes: Of inputs, where some were set.
        kinds: Type of each input, as numpy calls it.
    """
    import numpy as np

    link_or_copy(source, path)
    beside = path.with_suffix(".npz")
    if inputs is not None:
        link_or_copy(inputs, beside)
    elif shapes:
        random = np.random.default_rng(0)
        made: dict[str, Any] = {}
        for name, shape in shapes.items():
            drawn = np.ones(shape) if "int" in kinds[name] else random.standard_normal(shape)
            made[name] = drawn.astype(kinds[name])
        np.savez(beside, **made)
    return path


def settled(
    inputs: Sequence[Input], given: Given, file: str
) -> tuple[dict[str, Shape], tuple[str, ...]]:
    """The shape of each input, and notes on what was set.

    A side of one name is the same in all inputs. A free batch is 1.

    Args:
        inputs: As the file has them.
        given: What the user says.
        file: What errors call it.
    Raises:
        InvalidArgument: A side stays free; what is given does not fit, or names no input.
    """
    sides = {i.name: None if i.sides is None else list(i.sides) for i in inputs}
    bound: dict[str, int] = {}
    notes: list[str] = []
    asked = _asked(inputs, given, file)
    for name, shape in asked.items():
        its = sides[name]
        if its is not None:
            for side, size in zip(its, shape, strict=True):
                named = isinstance(side, str) and side != "?"
                if named and bound.setdefault(str(side), size) != size:
                    raise InvalidArgument(
                        f"{file}: {side} is {size} in input {name}, "
                        f"and {bound[str(side)]} elsewhere"
                    )
            if its != list(shape):
                notes.append(f"input {name} is set to {_shown(shape)}")
        else:
            notes.append(f"input {name} is set to {_shown(shape)}")
        sides[name] = list(shape)
    used = False
    for i in inputs:
        its = sides[i.name]
        if its is None:
            continue
        own = list(its)
        for at, side in enumerate(its):
            if isinstance(side, str) and side in bound:
                its[at] = bound[side]
        batch = _batch(its)
        if batch is not None:
            notes.append(f"batch {its[batch] if its[batch] != '?' else 'size'} is taken as 1")
            its[batch] = 1
        if given.resolution_px is not None and (free := _image_sides(its)):
            used = True
            for at in free:
                its[at] = given.resolution_px
            notes.append(f"input {i.name} is set to {_shown(its)}")
        elif own != its and batch is None:
            notes.append(f"input {i.name} is set to {_shown(its)}")
    if given.resolution_px is not None and not used:
        every = ", ".join(f"{i.name} {i}" for i in inputs) or "none"
        raise InvalidArgument(
            f"--resolution does not apply to {file}, which has no image input of free size; its "
            f"inputs: {every}"
        )
    for i in inputs:
        its = sides[i.name]
        if its is None or any(isinstance(s, str) for s in its):
            raise InvalidArgument(_unset(i, its, file))
    whole = {n: tuple(int(s) for s in its or ()) for n, its in sides.items()}
    return whole, tuple(dict.fromkeys(notes))


def _asked(inputs: Sequence[Input], given: Given, file: str) -> Mapping[str, Shape]:
    """Shapes by `--shape` and the input file, each compared with the file's own sides."""
    known = {i.name: i for i in inputs}
    names = ", ".join(known) or "none"
    asked: dict[str, Shape] = {}
    for name, shape in given.shapes:
        if name not in known:
            raise InvalidArgument(f"--shape: {file} has no input {name}; its inputs: {names}")
        if asked.setdefault(name, shape) != shape:
            raise InvalidArgument(f"--shape: input {name} is given two shapes")
        _compare(known[name], shape, f"--shape {name}={_shown(shape)}", file)
    if given.file is None:
        return asked
    arrays = dict(given.arrays)
    if set(arrays) != set(known):
        raise InvalidArgument(
            f"--input {given.file}: it holds {', '.join(arrays) or 'nothing'}; the inputs of "
            f"{file} are {names}"
        )
    for name, array in arrays.items():
        its = known[name]
        if array.dtype != its.dtype:
            raise InvalidArgument(
                f"--input {given.file}: {name} is {array.dtype}, and {file} takes {its.dtype}"
            )
        _compare(its, array.shape, f"--input {given.file}: {name} of {_shown(array.shape)}", file)
        if asked.setdefault(name, array.shape) != array.shape:
            raise InvalidArgument(f"--input {given.file}: {name} has another shape than --shape")
    return asked


def _compare(its: Input, shape: Shape, what: str, file: str) -> None:
    if its.sides is None:
        return
    fits = len(shape) == len(its.sides) and all(
        isinstance(side, str) or side == size for side, size in zip(its.sides, shape, strict=True)
    )
    if not fits:
        raise InvalidArgument(f"{what} does not fit: input {its.name} of {file} is {its}")


def _batch(sides: Sequence[int | str]) -> int | None:
    """Where a free batch stands: by its name; else the first of two, four or more sides."""
    for at, side in enumerate(sides):
        if isinstance(side, str) and _BATCH.fullmatch(side):
            return at
    if not sides or isinstance(sides[0], int) or len(sides) == 1:
        return None
    if len(sides) == 3 and isinstance(sides[1], str) and sides[2] in _COLOURS:
        return None  # an image without a batch, channels last
    return 0


def _image_sides(sides: Sequence[int | str]) -> list[int]:
    """Places of the free sides of an image's height and width; none where it is no image."""
    if len(sides) not in (3, 4):
        return []
    last = sides[-1] in _COLOURS and not (isinstance(sides[-3], int) and sides[-3] in _COLOURS)
    places = [len(sides) - 3, len(sides) - 2] if last else [len(sides) - 2, len(sides) - 1]
    return [at for at in places if isinstance(sides[at], str)]


def _unset(its: Input, sides: Sequence[int | str] | None, file: str) -> str:
    if sides is None:
        return f"{file}: input {its.name} has no shape. Set it:  --shape {its.name}=1,3,224,224"
    free = [s for s in sides if isinstance(s, str)]
    many = "a free side" if len(free) == 1 else "free sides"
    image = _image_sides(sides)
    example = ",".join(str(_USUAL_PX if isinstance(s, str) else s) for s in sides)
    by_side = f"  --resolution {_USUAL_PX}  or" if len(image) == len(free) else ""
    return (
        f"{file}: input {its.name} {its} has {many} ({', '.join(free)}); its latency depends on "
        f"{'it' if len(free) == 1 else 'them'}. Set {'it' if len(free) == 1 else 'them'}, for "
        f"example:{by_side}  --shape {its.name}={example}"
    )


def _shown(shape: Sequence[int | str]) -> str:
    return ",".join(map(str, shape))
