"""Models: the files of a job's subjects, written when first needed and kept while space lasts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phonenas.space.precision import FLOAT32

from ..device import Device
from .events import Subject

__all__ = ["Models"]

_MOST_BYTES = 256 << 20


class Models:
    """Each subject is measured in several rounds: its file is written once if there is space.

    Args:
        device: Whose format the files have.
        subjects: By text; read when a file is wanted.
        folder: Of the files.
        precision: What networks and their parts are written in.
    """

    def __init__(
        self, device: Device, subjects: Mapping[str, Subject], folder: Path, precision: str
    ) -> None:
        self.device, self.subjects, self.folder = device, subjects, folder
        self.precision = precision
        self._kept: dict[str, Path] = {}
        self._passing: list[Path] = []
        self._bytes = self._written = 0

    def file(self, text: str) -> Path:
        """The file of an open subject; it stays at least until `tidy`."""
        if text in self._kept:
            return self._kept[text]
        self._written += 1
        path = self._lowered(self.subjects[text].model, self.folder / str(self._written))
        size = path.stat().st_size
        if self._bytes + size <= _MOST_BYTES:
            self._kept[text] = path
            self._bytes += size
        else:
            self._passing.append(path)
        return path

    def _lowered(self, model: Any, stem: Path) -> Path:
        """A file is in its own precision; all else is written in that of the job."""
        own = hasattr(model, "precision") or self.precision == FLOAT32
        if own or self.precision not in self.device.precisions:
            return self.device.lower(model, stem)
        return self.device.lower(model, stem, self.precision)

    def tidy(self) -> None:
        """Delete files beyond the space, and those that are not needed any more."""
        for path in self._passing:
            _remove(path)
        self._passing.clear()
        for text in [t for t in self._kept if t not in self.subjects]:
            path = self._kept.pop(text)
            self._bytes -= path.stat().st_size
            _remove(path)


def _remove(path: Path) -> None:
    path.unlink()
    path.with_suffix(".npz").unlink(missing_ok=True)  # its inputs
