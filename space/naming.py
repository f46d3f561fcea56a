"""Names that users and files give: of devices, of what they are like. One check for every door.

A name becomes part of a file's name, of a command to copy, of a line in a terminal and of a page.
"""

from __future__ import annotations

import re
from pathlib import Path

from .errors import InvalidArgument

__all__ = ["counted", "legible", "plain_name", "without_password"]

_MOST, _MOST_BYTES = 100, 200  # a file's name holds 255 bytes, with the endings that are added


def plain_name(text: str, what: str) -> str:
    """A name, as it was given.

    >>> plain_name("Pixel 6 (lab's)", "--device")
    "Pixel 6 (lab's)"

    Args:
        text: The name.
        what: What it is the name of, for the message: "--device".
    Raises:
        InvalidArgument: It is empty or longer than 100 characters or 200 bytes; it begins with a
            dash or a dot, or begins or ends with a blank; it holds a slash, a backslash, or a
            character that does not print, as a line break.
    """
    reason = ""
    if not text.strip():
        reason = "it is empty"
    elif len(text) > _MOST or len(text.encode(errors="replace")) > _MOST_BYTES:
        reason = f"it is longer than {_MOST} characters or {_MOST_BYTES} bytes"
    elif not text.isprintable():
        reason = "it holds a character that does not print"
    elif "/" in text or "\\" in text:
        reason = "it holds a slash"
    elif text[0] in "-.":
        reason = f"it begins with {text[0]!r}"
    elif text != text.strip():
        reason = "it begins or ends with a blank"
    if reason:
        shown = text if len(text) <= _MOST else text[:_MOST] + "…"
        raise InvalidArgument(f"{what}: {shown!r} cannot be a name: {reason}")
    return text


def counted(n: int, what: str) -> str:
    """A number of things in words.

    >>> counted(1, "network"), counted(1200, "network")
    ('1 network', '1,200 networks')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def legible(text: str) -> str:
    """Lines of text whose other control characters are spelled out, so that a terminal obeys none.

    >>> legible("a" + chr(27) + "[31m")
    'a\\\\x1b[31m'
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        c
        if c == "\n" or c.isprintable()
        else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def without_password(location: str | Path) -> str:
    """A store's location as it may be printed: no password in it.

    >>> without_password("postgresql+psycopg://lab:secret@db.lab/phones?sslpassword=alike")
    'postgresql+psycopg://lab:***@db.lab/phones?sslpassword=***'
    >>> without_password("lab:secret@db.lab/phones")
    'lab:***@db.lab/phones'
    >>> without_password("host=db.lab user=lab password=secret")
    'host=db.lab user=lab password=***'
    >>> without_password("phonenas.db")
    'phonenas.db'
    """
    # By hand, since what cannot be parsed as a URL is told too: up to the last @, so that a
    # password which holds one, as it should not, is hidden whole.
    text = re.sub(r"(://[^:@]*|^[^:@]*):(?!//).*@", r"\1:***@", str(location), count=1, flags=re.S)
    value = "[^&]*" if "://" in text else r"(?:'[^']*'|\S*)"
    return re.sub(rf"\b(\w*(?:password|passwd|pwd)\w*=){value}", r"\1***", text, flags=re.I)
