"""How long tests wait for what must happen at all; tests never time.

A wait costs its time only when it fails, so there is one limit for all, many times what any step
takes on a busy computer. `make slow` and `make real` run a test that ran out of it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PATIENCE_S", "wait_for"]

PATIENCE_S = 120.0


def wait_for(
    what: str,
    ready: Callable[[], object],
    seconds: float = PATIENCE_S,
    said: Callable[[], object] = str,
) -> None:
    """Ask until `ready` says yes; a TimeoutError with what was `said` after so many seconds."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {seconds:g} s {said()}".rstrip())
        time.sleep(0.01)
