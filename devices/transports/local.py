"""`local`: this computer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phonenas.data.files import TemporaryFolder

from .base import Answer, Transport, bounded
from .process import Process

__all__ = ["LocalTransport"]


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
        return "ready", ""
