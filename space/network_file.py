"""NetworkFile: a network that somebody else wrote, by its file: what each format shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .file_inputs import Given, Input, Shape, plain_file_name, settled

__all__ = ["NetworkFile", "short_digest"]

_DIGITS = 12
_CHUNK = 1 << 20


@dataclass(frozen=True)
class NetworkFile:
    """A network in a file, as a subject to measure.

    Args:
        name: Of the file, without its folders.
        digest: Of the file with its weights, of the shapes that were set and of the input file:
            times depend on the values of weights, too, where these are denormal.
        path: Where it lies.
        macs: Multiply-adds of one image, to estimate how long measuring takes.
        precision: What it computes in: a name of `space.precision`, or several joined by "+".
        odd: Which of its layers compute in another precision than most, in words; "" for none.
        shapes: Of each input, where some were set.
        inputs: An .npz file that it is run on; None for random inputs.
        notes: What was set.
    """

    name: str
    digest: str
    path: Path
    macs: int = 0
    precision: str = "float32"
    odd: str = ""
    shapes: tuple[tuple[str, Shape], ...] = ()
    inputs: Path | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def given(
        cls,
        path: Path,
        pieces: Iterable[Path],
        own: Sequence[Input],
        given: Given,
        macs: int,
        computed: tuple[str, str],
    ) -> Self:
        """The file at a path with what a user says of its inputs.

        Args:
            path: Of the file.
            pieces: The files whose content counts, in order.
            own: Inputs as the file has them.
            given: What the user says.
            macs: See the class.
            computed: Its `precision` and `odd`.
        Raises:
            InvalidArgument: As `settled`.
        """
        shapes, notes = settled(own, given, str(path))
        digest = hashlib.sha256()
        for piece in pieces:
            with piece.open("rb") as file:
                for chunk in iter(lambda: file.read(_CHUNK), b""):
                    digest.update(chunk)
        changed = tuple(sorted(shapes.items()))
        if all(i.sides == shapes[i.name] for i in own):
            changed = ()
        else:
            digest.update(repr(list(changed)).encode())
        digest.update(given.digest.encode())
        return cls(
            plain_file_name(path),
            digest.hexdigest()[:_DIGITS],
            path,
            macs,
            *computed,
            changed,
            given.file,
            (*notes, *([computed[1]] if computed[1] else [])),
        )

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"{self.name}#{self.digest}"

    def __str__(self) -> str:
        return self.key


def short_digest(content: bytes) -> str:
    """The digest of a file's content, as it stands in its name.

    >>> short_digest(b"")
    'e3b0c44298fc'
    """
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
