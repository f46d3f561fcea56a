"""`local`: this computer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from phonenas.data.files import TemporaryFolder
from phonenas.space.errors import DeviceUnavailable

from .base import Answer, Transport, bounded
from .process import Process

__all__ = ["LocalTransport"]

_NOT_WINDOWS = (
    "a computer with Windows cannot be measured: it has no POSIX shell, which says what its "
    "processor is and does. Measure a phone or a board, or work in WSL; or use a ready phone:  "
    "phonenas devices --ready"
)


class LocalTransport(Transport):
    """Programs run as child processes; files stay where they are."""

    kind = "local"

    def __init__(self, name: str, address: str = "") -> None:
        self.name = name
        self._temporary: TemporaryFolder | None = None

    @property
    def address(self) -> str:
        return "this computer"

    def open(self) -> None:
        if sys.platform == "win32":
            raise DeviceUnavailable(f"{self.name}: {_NOT_WINDOWS}")
        self._temporary = TemporaryFolder()
        self.folder = str(self._temporary.path)

    def close(self) -> None:
        self.folder = ""
        if self._temporary is not None:
            self._temporary.close()

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        return bounded(self.name, command, limit_s=limit_s)

    def spawn(self, command: Sequence[str]) -> Process:
        return Process(self.name, command, keep_open=self.keep_open)

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        return [str(f) for f in files]

    def state(self) -> tuple[str, str]:
        return ("no shell", _NOT_WINDOWS) if sys.platform == "win32" else ("ready", "")
