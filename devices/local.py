"""`local`: this computer, as a transport."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .conversation import Conversation
from .transport import Answer, Transport, bounded

__all__ = ["LocalTransport"]


class LocalTransport(Transport):
    """Programs run as child processes; files are where they are."""

    kind = "local"

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = ""

    @property
    def address(self) -> str:
        return "this computer"

    def open(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="phonenas-")

    def close(self) -> None:
        folder, self.folder = self.folder, ""
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        return bounded(self.name, command, limit_s=limit_s)

    def spawn(self, command: Sequence[str]) -> Conversation:
        return Conversation(self.name, command, keep_open=self.keep_open)

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        return [str(f) for f in files]

    def state(self) -> tuple[str, str]:
        return "ready", ""
