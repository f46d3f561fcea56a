"""Models: the files of a job's subjects, written when first needed and kept while there is room."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .device import Device
from .plan import Subject

__all__ = ["Models"]

_ROOM_BYTES = 256 << 20


class Models:
    """Each subject is measured in several rounds: its file is written once if there is room.

    Args:
        device: Whose format it is.
        subjects: By text; looked up when a file is wanted.
        folder: Where the files lie.
    """

    def __init__(self, device: Device, subjects: Mapping[str, Subject], folder: Path) -> None:
        self.device, self.subjects, self.folder = device, subjects, folder
        self._kept: dict[str, Path] = {}
        self._passing: list[Path] = []
        self._bytes = self._written = 0

    def file(self, text: str) -> Path:
        """The file of an open subject; it stays at least until `tidy`."""
        if text in self._kept:
            return self._kept[text]
        self._written += 1
        path = self.device.lower(self.subjects[text].model, self.folder / str(self._written))
        size = path.stat().st_size
        if self._bytes + size <= _ROOM_BYTES:
            self._kept[text] = path
            self._bytes += size
        else:
            self._passing.append(path)
        return path

    def tidy(self) -> None:
        """Delete what there was no room for, and what is not needed any more."""
        for path in self._passing:
            path.unlink()
        self._passing.clear()
        for text in [t for t in self._kept if t not in self.subjects]:
            path = self._kept.pop(text)
            self._bytes -= path.stat().st_size
            path.unlink()
