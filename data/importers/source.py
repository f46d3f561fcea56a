"""Source: the text of a published file within bounds, its numbers, and errors that name the line."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ...space.errors import InvalidArgument, StoreError, UnsupportedFormat

__all__ = ["MAX_ROWS", "Source", "printable", "shown"]

_MAX_BYTES = 64 * 2**20
MAX_ROWS = 100_000  # a lookup table has some thousands
# The store keeps six digits after the point; below that nothing would be left of a time.
_SMALLEST_MS, _LARGEST_MS = 1e-6, 1e9
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)


def shown(text: str, length: int = 60) -> str:
    """Foreign text as a message may print it: one line, no control characters, cut.

    >>> shown("a" + chr(27) + "[31m"), shown("b" * 100, 5)
    ("'a\\\\x1b[31m'", "'bbbbb…'")
    """
    return repr(text if len(text) <= length else text[:length] + "…")


def printable(text: str, length: int = 400) -> str:
    """Words of a library or of the system as a message may print them: one line, cut.

    >>> printable("it's\\nso")
    "it's\\\\nso"
    """
    cut = text if len(text) <= length else text[:length] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@dataclass(frozen=True)
class Source:
    """A file as it was read.

    Args:
        name: Its name, without its folder, as messages print it.
        text: What stands in it.
        digest: The first twelve hexadecimal digits of its bytes' SHA-256.
    """

    name: str
    text: str
    digest: str

    @classmethod
    def open(cls, path: Path, *, limit_bytes: int = _MAX_BYTES) -> Source:
        """Read a file.

        Raises:
            InvalidArgument: There is no such file.
            StoreError: It cannot be read.
            UnsupportedFormat: It is larger than the limit, or no UTF-8 text.
        """
        name = printable(path.name, 80)
        try:
            if not path.is_file():
                raise InvalidArgument(f"there is no file {shown(str(path), 200)} to import")
            with path.open("rb") as file:
                content = file.read(limit_bytes + 1)
        except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
            if isinstance(error, InvalidArgument):
                raise
            told = getattr(error, "strerror", None) or type(error).__name__
            raise StoreError(f"{name} cannot be read: {told}") from error
        if len(content) > limit_bytes:
            raise UnsupportedFormat(
                f"{name} is larger than {limit_bytes // 2**20} MiB; no latency table is"
            )
        return cls.of(name, content)

    @classmethod
    def of(cls, name: str, content: bytes) -> Source:
        """From bytes in hand.

        Raises:
            UnsupportedFormat: They are no UTF-8 text.
        """
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UnsupportedFormat(f"{name}, line {line}: this is no UTF-8 text") from error
        return cls(name, text, hashlib.sha256(content).hexdigest()[:12])

    def error(self, line: int, message: str) -> UnsupportedFormat:
        """An error that names the file and the line."""
        return UnsupportedFormat(f"{self.name}, line {line}: {message}")

    def number(self, text: str, line: int, what: str) -> float:
        """A finite number of at least 0, as JSON, YAML and CSV write it in decimal.

        Raises:
            UnsupportedFormat: It is none.
        """
        value = float(text) if len(text) <= 60 and _NUMBER.fullmatch(text) else math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.error(line, f"{what} is a number of 0 or more, got {shown(text)}")
        return value

    def latency_ms(self, text: str, line: int, what: str, per_ms: float = 1.0) -> float:
        """A time in ms; `per_ms` of the source's unit make one.

        Raises:
            UnsupportedFormat: No finite number above 0, or beyond 1 ns to 10^9 ms.
        """
        value = self.number(text, line, what) / per_ms
        if not _SMALLEST_MS <= value <= _LARGEST_MS:
            raise self.error(line, f"{what} is a time above 0 (1 ns to 1e9 ms), got {shown(text)}")
        return value
