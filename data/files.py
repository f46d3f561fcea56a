"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..space.errors import StoreError

__all__ = ["lock", "write_atomic"]


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> Path:
    """Write a file beside its place, then move it there: readers see the old or the new one.

    Args:
        path: Where; its folder is made if it is not there.
        content: Bytes, text (UTF-8), or a function that writes to the path it is given.
    Raises:
        StoreError: The folder or the disk does not take it (full, read-only); the older file
            stays whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        beside = Path(name)
        try:
            if callable(content):
                content(beside)
            else:
                beside.write_bytes(content.encode() if isinstance(content, str) else content)
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.chmod(0o644)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise StoreError(
                f"{path} cannot be written: a folder above it is a file. Choose another place."
            ) from error
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. The older file, if there was "
            "one, is whole. Free the disk or choose another place, then give the command again."
        ) from error
    return path


def lock(handle: int, wait_s: float) -> bool | None:
    """Hold the lock of an open file or folder, until it is closed here and in every child.

    Args:
        handle: A file descriptor.
        wait_s: How long to wait for whoever holds it, in s.
    Returns:
        True: held. False: another process held it for longer than that. None: there are no such
        locks on this system.
    Raises:
        OSError: The disk has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.1)
