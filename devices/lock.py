"""One process at a time measures a device: two would disturb each other."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

from ..data.files import lock
from ..space.errors import DeviceUnavailable

__all__ = ["exclusive"]

_WAIT_S = 15.0


def exclusive(name: str, what: str) -> IO[bytes] | None:
    """Hold the lock of a device, until the returned file is closed here and in every child.

    Args:
        name: Of the device, for the message.
        what: What tells the device from others: transport and address.
    Returns:
        The open file; None on a system without such locks.
    Raises:
        DeviceUnavailable: Another process holds it for longer than 15 s.
    """
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"phonenas-{user}-{digest}.lock"
    file = path.open("a+b")
    try:
        held = lock(file.fileno(), _WAIT_S)
    except OSError as error:
        file.close()
        raise DeviceUnavailable(
            f"{name}: nobody can tell whether another process measures it, for {path} cannot be "
            f"locked: {error.strerror or error}. Set TMPDIR to a folder on a local disk."
        ) from error
    if held:
        return file
    file.close()
    if held is None:
        return None
    raise DeviceUnavailable(
        f"{name} is being measured by another process (it holds {path}). Two at once would disturb "
        "each other: wait for it, then give the command again."
    )
