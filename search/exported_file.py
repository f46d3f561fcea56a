"""ExportedFile: a trained network as the file that ships; FileLatency: that file, measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phonenas.data.documents import Ms, Number, Text
from phonenas.space import Classifier

__all__ = ["ExportedFile", "FileLatency", "file_sha256"]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ExportedFile:
    """A trained network in the forms that were exported; a device is given the one it reads.

    Args:
        network: As it was trained.
        paths: Of its files.
        sha256: Of each as it was exported, by the name of the file.
    """

    network: Classifier
    paths: tuple[Path, ...]
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class FileLatency:
    """An exported file on a device, beside the same architecture with random weights.

    Args:
        file: Its name; "" where the device takes none.
        sha256: Of the file that was measured, 64 hexadecimal digits; "" where none was.
        changed: Whether it is another file than the one that was exported.
        measured_ms, spread: Its time in ms and its error bar, half the 90 % interval, relative;
            None without a stable measurement.
        random_ms, random_spread: Of the architecture with random weights.
        differs: Whether the two 90 % intervals lie apart; None where one is unknown.
        reason: Where the two differ, what in the file may be the cause; else "".
        unmeasured: Why there is no time; "" where there is one.
        precision: What the file computes in, where its architecture was measured in another; the
            two times are then not compared, and the file's is not the network's. Else "".
    """

    file: Text = ""
    sha256: Text = ""
    changed: bool = False
    measured_ms: Ms | None = None
    spread: Number | None = None
    random_ms: Ms | None = None
    random_spread: Number | None = None
    differs: bool | None = None
    reason: Text = ""
    unmeasured: Text = ""
    precision: Text = ""

    def __str__(self) -> str:
        """What a user should know of it, in a sentence; "" for a file that is as expected."""
        if self.unmeasured:
            return f"the exported file is not measured: {self.unmeasured}"
        told = []
        if self.changed:
            told.append(f"{self.file} was changed after it was exported")
        if self.precision and self.measured_ms:
            told.append(
                f"{self.file} computes in {self.precision}, unlike what was searched: its "
                f"{self.measured_ms:.2f} ms are not the network's"
            )
        if self.differs and self.measured_ms and self.random_ms:
            ratio = self.measured_ms / self.random_ms - 1
            told.append(
                f"{self.file} takes {self.measured_ms:.2f} ms, {ratio:+.1%} beside the "
                f"architecture with random weights ({self.random_ms:.2f} ms): {self.reason}"
            )
        return "; ".join(told)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
