"""idx files, as MNIST and its relatives come: a magic number, sizes, then plain bytes."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, UnsupportedFormat

from .image_set import (
    ArrayImages,
    ImageSet,
    check_range,
    checked_labels,
    checked_pixels,
    numbered_classes,
    reason,
)
from .npz import memory_bytes

__all__ = ["find_idx", "read_idx"]

STEMS = {"train": ("train",), "test": ("t10k", "test", "val")}
CHUNK_BYTES = 1 << 24


def find_idx(folder: Path, part: str = "train", what: str = "images-idx3") -> Path | None:
    """The idx file of a part, packed or not, under one of its usual names; None without one."""
    for stem in STEMS[part]:
        for kind in (what, what.replace("-idx", ".idx")):
            for ending in ("-ubyte", "-ubyte.gz"):
                path = folder / f"{stem}-{kind}{ending}"
                if path.is_file():
                    return path
    return None


def read_idx(folder: Path, part: str) -> ImageSet:
    """One part of a folder of idx files.

    Raises:
        InvalidArgument, UnsupportedFormat: As `read_images`.
    """
    pixels_at = _path(folder, part, "images-idx3")
    labels_at = _path(folder, part, "labels-idx1")
    train_at = labels_at if part == "train" else _path(folder, "train", "labels-idx1")
    raw = _read(train_at, 1)
    if not raw.size:
        raise InvalidArgument(f"{train_at} holds no label: no class is known")
    train_labels = checked_labels(raw, len(raw), str(train_at))
    classes = numbered_classes(train_labels, str(train_at))
    pixels = checked_pixels(_read(pixels_at, 3), str(pixels_at))
    labels = checked_labels(_read(labels_at, 1), len(pixels), str(labels_at))
    check_range(labels, len(classes), str(labels_at))
    return ArrayImages(pixels, labels, classes, str(pixels_at))


def _path(folder: Path, part: str, what: str) -> Path:
    path = find_idx(folder, part, what)
    if path is None:
        names = " or ".join(f"{stem}-{what}-ubyte[.gz]" for stem in STEMS[part][:1])
        raise InvalidArgument(f"{folder} has idx files, but no {names} for the part {part!r}.")
    return path


def _read(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of one file of unsigned bytes, of so many dimensions."""
    packed = path.suffix == ".gz"
    try:
        with path.open("rb") as plain:
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if packed else plain
            return _parse(stream, dimensions)
    except (UnsupportedFormat, EOFError, zlib.error, gzip.BadGzipFile, MemoryError) as error:
        raise UnsupportedFormat(
            f"{path} cannot be read as an idx file: {reason(error)}. Fetch or write it again."
        ) from error


def _parse(stream: IO[bytes], dimensions: int) -> npt.NDArray[np.uint8]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise UnsupportedFormat(f"it begins with {head.hex(' ') or 'nothing'}, not with 00 00")
    if head[2] != 8 or head[3] != dimensions:
        raise UnsupportedFormat(
            f"its magic number {head.hex(' ')} says type {head[2]:#04x} with {head[3]} dimensions; "
            f"unsigned bytes (0x08) with {dimensions} are read here"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise UnsupportedFormat("it is cut short: it ends before its dimensions do")
    shape = tuple(map(int, np.frombuffer(sizes, ">u4")))
    needed = 1
    for side in shape:
        needed *= side
    if needed > memory_bytes():
        raise UnsupportedFormat(f"its sizes {shape} are more than the memory here")
    # Piece by piece: wrong sizes must not allocate memory for bytes that are not there.
    content = io.BytesIO()
    while content.tell() < needed:
        piece = stream.read(min(CHUNK_BYTES, needed - content.tell()))
        if not piece:
            raise UnsupportedFormat(
                f"its sizes {shape} need {needed:,} bytes, and it ends after {content.tell():,}"
            )
        content.write(piece)
    if stream.read(1):
        raise UnsupportedFormat(f"it is longer than the {needed:,} bytes that its dimensions need")
    return np.frombuffer(content.getbuffer(), np.uint8).reshape(shape)
