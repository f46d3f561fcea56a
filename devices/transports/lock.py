"""One process at a time measures a device: two would disturb each other."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from phonenas.data.files import Lock
from phonenas.space.errors import DeviceUnavailable

__all__ = ["exclusive"]


def exclusive(name: str, what: str) -> Lock:
    """Lock a device for this process, until the returned lock is closed here and in every child.

    Args:
        name: Of the device, for the message.
        what: What distinguishes the device from others: transport and address.
    Raises:
        DeviceUnavailable: Another process has the lock for longer than 15 s, or the folder of
            temporary files cannot be used or locked.
    """
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"phonenas-{user}-{digest}.lock"
    error: OSError | None
    try:
        lock = Lock(path)
        error = lock.error
        if error is None:
            return lock
        lock.close()
    except BlockingIOError as held:
        raise DeviceUnavailable(
            f"{name} is being measured by another process: {held.strerror}. Two at once would "
            "disturb each other: wait for it, then give the command again."
        ) from held
    except OSError as other:
        error = other
    raise DeviceUnavailable(
        f"{name}: another process may be measuring it, because {path} cannot be locked: "
        f"{error.strerror or error}. Set TMPDIR to a folder on a local disk."
    ) from error
