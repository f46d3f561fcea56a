"""Printed: what every benchmark program's report is parsed into, and checks of printed times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from phonenas.data.measurement import MOST_MS

from ..system.device_text import plain, unreadable

__all__ = ["COUNT", "Printed", "agree", "first_match", "ordered", "time_ms"]

COUNT = r"[0-9]{1,9}"
# The programs print 6 digits: two prints of one quantity agree as far as this.
_ROUNDING = 1e-5
_SHIFT = {"us": -3, "ms": 0, "s": 3}  # of the decimal point, to ms


@dataclass(frozen=True)
class Printed:
    """What a benchmark program printed for one model; all times in ms, finite and above 0.

    Args:
        runs: Number of timed runs, ≥ 1.
        mean_ms: Their mean.
        median_ms: Their median (of an even number of runs the upper middle one), if printed.
        min_ms, max_ms: The fastest and the slowest, if printed.
        std_ms: Standard deviation of the population, ≥ 0, if printed.
        first_ms: The first inference of all, if printed. perf_test rounds it down to whole ms: one
            below 1 ms is None.
        init_ms: Creation of the interpreter or session, if printed.
        peak_bytes: Greatest resident memory of the program, if printed.
        model_bytes: Of it, what came after the program's own start, if printed.
        provider: What ran: "XNNPACK", "GPU", "NNAPI", "NPU", "CPU" (plain kernels) or an execution
            provider's name; several that share the graph are joined by "+"; "" if not printed.
        fallback: The line that says that the graph, or a part of it, ran elsewhere than asked; ""
            if there is none.
        ignored_flags: Unknown flags that it ignored.
    """

    runs: int
    mean_ms: float
    median_ms: float | None
    min_ms: float | None
    max_ms: float | None
    std_ms: float | None
    first_ms: float | None
    init_ms: float | None
    provider: str
    fallback: str
    ignored_flags: tuple[str, ...] = ()
    peak_bytes: int | None = None
    model_bytes: int | None = None


def time_ms(program: str, line: str, number: str, unit: str) -> float:
    """A printed time in "us", "ms" or "s".

    Raises:
        UnreadableOutput: It is 0, negative, NaN or infinite; the line is shown.
    """
    value = float(Decimal(number).scaleb(_SHIFT[unit]))  # 0.101519 s is 101.519 ms
    if not 0 < value <= MOST_MS:
        raise unreadable(program, "a finite time above 0", line)
    return value


def agree(a: float, b: float, slack: float = 0.0) -> bool:
    """Whether two printed values can be one quantity, each rounded to 6 digits or by `slack`."""
    return abs(a - b) <= slack + 2 * _ROUNDING * max(a, b)


def ordered(
    program: str, line: str, low: float | None, high: float | None, values: Iterable[float | None]
) -> None:
    """Check that low ≤ value ≤ high for all that are known, within rounding.

    Raises:
        UnreadableOutput: They are not; the line is shown.
    """
    least = 0.0 if low is None else low * (1 - _ROUNDING)
    greatest = math.inf if high is None else high * (1 + _ROUNDING)
    if not all(least <= v <= greatest for v in (low, *values) if v is not None):
        raise unreadable(program, "all times between the least and the greatest", line)


def first_match(lines: Sequence[str], patterns: Iterable[re.Pattern[str]]) -> str:
    """The first line that the first matching pattern finds, made plain; "" for none."""
    return plain(next((x for p in patterns for x in lines if p.search(x)), ""))
