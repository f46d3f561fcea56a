"""npz files of images: x_train, y_train, x_test, y_test. Nothing in them is unpickled."""

from __future__ import annotations

import errno
import lzma
import os
import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, UnsupportedFormat

from .image_set import (
    DAMAGE,
    ArrayImages,
    ImageSet,
    check_range,
    checked_labels,
    checked_pixels,
    numbered_classes,
    reason,
)

__all__ = ["memory_bytes", "read_npz"]


_ARCHIVES = (zipfile.BadZipFile, lzma.LZMAError, tokenize.TokenError)
_DAMAGE: tuple[type[BaseException], ...] = (*_ARCHIVES, *DAMAGE)


def read_npz(path: Path, part: str) -> ImageSet:
    """One part of an npz file.

    Raises:
        InvalidArgument, UnsupportedFormat: As `read_images`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path, part)
    except (InvalidArgument, UnsupportedFormat):
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # A damaged directory makes zipfile seek before the beginning of the file.
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(path, error) from error


def memory_bytes() -> int:
    """How much memory this computer has; 1 TiB where that is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**40


def _read(archive: zipfile.ZipFile, path: Path, part: str) -> ImageSet:
    names = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}
    ending = part if part == "train" or f"x_{part}" in names else "val"
    wanted = list(dict.fromkeys((f"x_{ending}", f"y_{ending}", "y_train")))
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidArgument(
            f"{path} has no {' and no '.join(missing)}; it holds "
            f"{', '.join(sorted(names)) or 'nothing'}. Images are kept as x_train, y_train, x_test "
            "and y_test."
        )
    pixels = checked_pixels(_array(archive, names[f"x_{ending}"], path), f"x_{ending} of {path}")
    labels = checked_labels(
        _array(archive, names[f"y_{ending}"], path), len(pixels), f"y_{ending} of {path}"
    )
    if "classes" in names:
        classes = _classes(_array(archive, names["classes"], path), path)
    else:
        train_labels = labels
        if ending != "train":
            raw = _array(archive, names["y_train"], path)
            train_labels = checked_labels(raw, len(raw) if raw.ndim else 0, f"y_train of {path}")
        if not len(train_labels):
            raise InvalidArgument(f"y_train of {path} is empty: no class is known")
        classes = numbered_classes(train_labels, f"y_train of {path}")
    check_range(labels, len(classes), f"y_{ending} of {path}")
    return ArrayImages(pixels, labels, classes, str(path))


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> npt.NDArray[Any]:
    """One array of any shape, once its header agrees with its size and this computer's memory."""
    entry = archive.getinfo(name)
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            raise ValueError(f"{name} is of version {version} of the npy format")
        shape, _, dtype = header(stream)
        if dtype.hasobject:
            raise UnsupportedFormat(
                f"{path}: {name} holds Python objects, which are never unpickled here. "
                "Write it as an array of uint8 (images), integers (labels) or strings (classes)."
            )
        needed = dtype.itemsize
        for side in shape:
            needed *= side
        if min(shape, default=1) < 0 or not dtype.itemsize:
            raise ValueError(f"{name} has the shape {shape} of {dtype}")
        if stream.tell() + needed != entry.file_size:
            raise ValueError(f"the shape {shape} of {name} disagrees with its size")
        if needed > memory_bytes():
            raise UnsupportedFormat(
                f"{path}: {name} takes {needed / 2**30:,.1f} GiB, more than the memory here. "
                "Keep a set of this size as folders of files."
            )
    with archive.open(entry) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _classes(names: npt.NDArray[Any], path: Path) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InvalidArgument(
            f"classes of {path} is a row of strings; this is {names.dtype} of shape {names.shape}"
        )
    classes = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist())
    if len(set(classes)) < len(classes) or "" in classes:
        raise InvalidArgument(f"classes of {path}: no name stands twice, and none is empty")
    return classes


def _damaged(path: Path, error: BaseException) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} cannot be read as an npz file: {reason(error)}. Copy or write it again "
        "(numpy.savez)."
    )
