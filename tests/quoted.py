"""What the mark `fault` quotes, compared with what was told while a test ran."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["not_told"]


def not_told(quoting: str, heard: Sequence[str], *, every: bool) -> list[str]:
    """The quotations, in backquotes, that stand in nothing that was told.

    Args:
        quoting: Text with quotations; … in them stands for any words.
        heard: Errors, and what was printed.
        every: Whether each must be told; else none is missing if one was.
    """
    missing = []
    quotations = re.findall(r"`([^`]+)`", quoting)
    for quoted in quotations:
        pattern = re.compile(".*".join(re.escape(x) for x in quoted.split("…")), re.S)
        if not any(pattern.search(text) for text in heard):
            missing.append(quoted)
    return missing if every or len(missing) == len(quotations) else []
