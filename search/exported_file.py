"""ExportedFile: a trained network as the file that ships; FileLatency: that file, measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phonenas.data.documents import Ms, Number, Text
from phonenas.devices.measuring.progress import is_failure
from phonenas.space import Classifier
from phonenas.space.errors import UnstableDevice

__all__ = ["ExportedFile", "FileLatency", "file_sha256", "refuse_unstable"]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ExportedFile:
    """A trained network in the forms that were exported; a device is given the one it reads.

    Args:
        network: As it was trained.
        paths: Of its files.
        sha256: Of each as it was exported, by the name of the file.
        also: The same network in other precisions, to be measured in the same job.
    """

    network: Classifier
    paths: tuple[Path, ...]
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    also: tuple[ExportedFile, ...] = ()

    @classmethod
    def of(
        cls,
        network: Classifier,
        paths: Mapping[str, Sequence[Path]],
        sha256: Mapping[str, str],
        precision: str,
    ) -> ExportedFile | None:
        """The files of a network: those of one precision, and the others beside them.

        Args:
            network: As it was trained.
            paths: By the precision of the file.
            sha256: By the name of the file.
            precision: That ships; where no file is in it, the first of `paths` does. None where
                there is no file at all.
        """
        there = {of: tuple(found) for of, found in paths.items() if found}
        if not there:
            return None
        first = precision if precision in there else next(iter(there))
        also = tuple(cls(network, found, sha256) for of, found in there.items() if of != first)
        return cls(network, there[first], sha256, also)


@dataclass(frozen=True, kw_only=True)
class FileLatency:
    """An exported file on a device, beside the same architecture with random weights.

    Args:
        file: Its name; of one that the device does not take, those of its forms.
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
        also: The same network in the files of other precisions, measured in the same job.
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
    also: tuple[FileLatency, ...] = ()

    @property
    def as_expected(self) -> bool:
        """Whether nothing is wrong with it, nor with those beside it."""
        own = not (self.unmeasured or self.changed or self.precision or self.differs)
        return own and not any(other.unmeasured or other.changed for other in self.also)

    def __str__(self) -> str:
        """What a user should know of it, in a sentence; "" for a file that is as expected."""
        told = []
        if self.unmeasured:
            told.append(f"the exported file is not measured: {self.unmeasured}")
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
                f"{self.file} takes {self.measured_ms:.2f} ms, {ratio:+z.1%} beside the "
                f"architecture with random weights ({self.random_ms:.2f} ms): {self.reason}"
            )
        return "; ".join([*told, *filter(None, map(self._beside, self.also))])

    def _beside(self, other: FileLatency) -> str:
        """What is to be known of the same network's file in another precision."""
        if other.measured_ms is None:
            return f"{other.file or 'a file of it'} is not measured: {other.unmeasured}"
        changed = " was changed after it was exported, and" if other.changed else ""
        ratio = ""
        if self.measured_ms is not None:
            ratio = f", {other.measured_ms / self.measured_ms:.2f} times {self.file}"
        bar = "" if other.spread is None else f" ±{other.spread:.1%}"
        of = other.precision or "the precision of the device"
        return f"{other.file}{changed} takes {other.measured_ms:.2f} ms{bar} in {of}{ratio}"


def refuse_unstable(files: Iterable[tuple[str, FileLatency | None]], networks: str = "") -> None:
    """Raise where a device gave no stable time of a file, which was told before.

    Args:
        files: Names of networks, each with its file and those beside it. One of which the device
            takes no form was not asked for, and what it cannot run is told alone: no other time
            would change that.
        networks: A sentence on networks without a stable time; "" for none.
    Raises:
        UnstableDevice: So it is of a file, or of these networks.
    """
    tried = [(name, f) for name, file in files if file for f in (file, *file.also) if f.sha256]
    unstable = [(name, f) for name, f in tried if f.unmeasured and not is_failure(f.unmeasured)]
    lacking = [f"{name}, {f.file}: {f.unmeasured}" for name, f in unstable]
    told = [networks] if networks else []
    if lacking:
        told.append(
            f"{len(lacking)} of {len(tried)} exported files gave no stable measurement "
            f"({'; '.join(lacking)})"
        )
    if told:
        raise UnstableDevice(
            f"{'; '.join(told)}. What was measured is kept. Close other programs, then give the "
            "same command again."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
