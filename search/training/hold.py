"""One process at a time trains in a folder: two would write over each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from ...data.files import lock
from ...space.errors import StoreError

__all__ = ["hold", "tidy"]

_WAIT_S = 15.0  # a process that was just killed takes a moment to end


def hold(folder: Path) -> int | None:
    """Keep other processes out of a folder, until what is returned is closed or this one ends.

    The lock is on the folder itself, so no file tells of it and none is left behind.

    Args:
        folder: It is made if it is not there.
    Returns:
        A file descriptor, for `os.close`; None on a system or a disk without such locks.
    Raises:
        StoreError: Another process holds it for longer than 15 s, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot hold a training: {error.strerror or error}. Choose another --out."
        ) from error
    try:
        held = lock(handle, _WAIT_S)
    except OSError:
        held = None
    if held:
        return handle
    os.close(handle)
    if held is None:
        return None
    raise StoreError(
        f"another process trains in {folder}. Wait for it, then give the command again; or choose "
        "another --out."
    )


def tidy(folder: Path, names: Iterable[str]) -> None:
    """Remove what a process that was killed while it wrote has left; the folder is held.

    Args:
        folder: In which files are written by `data.files.write_atomic`.
        names: Of those files.
    """
    for name in names:
        for file in folder.glob(f".{name}.????????"):
            with contextlib.suppress(OSError):  # as where the folder is read-only
                file.unlink(missing_ok=True)
