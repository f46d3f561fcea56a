"""A transport: this computer, with programs at a lower priority.

A table of devices.toml names it::

    [background]
    transport = "low-priority"
    address = "10"              # the niceness, 0 to 19
    python = "python3"          # one that can import the runtime
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from phonenas.devices.transports.base import Answer
from phonenas.devices.transports.local import LocalTransport
from phonenas.devices.transports.process import Process
from phonenas.space.errors import InvalidArgument

__all__ = ["LowPriority"]


class LowPriority(LocalTransport):
    """Every program is started by `nice`; files are copied into a folder of the device's own."""

    kind = "low-priority"

    def __init__(self, name: str, address: str = "10") -> None:
        super().__init__(name)
        if not (address.isdecimal() and int(address) <= 19):
            raise InvalidArgument(f"device {name}: the address is a niceness, 0 to 19")
        self._nice = ["nice", "-n", address]

    @property
    def address(self) -> str:
        return f"this computer at niceness {self._nice[-1]}"

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        return super().run([*self._nice, *command], limit_s=limit_s)

    def spawn(self, command: Sequence[str]) -> Process:
        return super().spawn([*self._nice, *command])

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        return [shutil.copy(file, self.folder) for file in files]
