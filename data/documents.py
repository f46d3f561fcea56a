"""Documents: the JSON files of phonenas. Each says its format and version, and is read the same way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..space.errors import StoreError, UnsupportedFormat

__all__ = ["Document", "only"]

_FOLDERS = {"run.json": "a search", "result.json": "a training", "supernet.json": "a supernet"}


@dataclass(frozen=True)
class Document:
    """One kind of such a file.

    Args:
        format: The word in the file that tells its kind, "phonenas-...".
        version: The one that is read.
        what: It in words: "validation".
    """

    format: str
    version: int
    what: str

    def read(self, path: Path, again: str) -> dict[str, Any] | None:
        """What a file holds; None where there is none.

        Args:
            path: The file.
            again: What a user does where it cannot be used: a sentence or a command.
        Raises:
            UnsupportedFormat: No JSON, another kind, or another version (both are named).
            StoreError: It cannot be read.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise UnsupportedFormat(
                f"{path} is damaged, or no {self.what}: {error}. {again}"
            ) from error
        if not isinstance(found, dict) or found.get("format") != self.format:
            raise UnsupportedFormat(f"{path} is no {self.what} of phonenas. {again}")
        if found.get("version") != self.version:
            raise UnsupportedFormat(
                f"{path} has version {found.get('version')}; this phonenas reads version "
                f"{self.version}. {again}"
            )
        return found

    @contextmanager
    def checking(self, path: Path, again: str) -> Iterator[None]:
        """Around the use of what was read: what it lacks, or has otherwise, is told as damage.

        Raises:
            UnsupportedFormat: A value is missing, or of another kind.
        """
        try:
            yield
        except UnsupportedFormat:
            raise
        except (
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            IndexError,
            OverflowError,
        ) as error:
            told = f"{type(error).__name__} {error}"
            raise UnsupportedFormat(f"{path} is damaged: {told}. {again}") from error


def only(folder: Path, mine: str) -> None:
    """Refuse a folder in which something else was done.

    Args:
        folder: It may not be there yet.
        mine: The file by which one's own folders are known, "run.json" for instance.
    Raises:
        StoreError: It holds another's.
    """
    for name, what in _FOLDERS.items():
        if name != mine and (folder / name).exists():
            raise StoreError(f"{folder} holds {what} ({name}). Choose another --out.")
