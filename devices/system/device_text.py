"""Text that came from a device: made safe to print, and the error for text that is not a report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from phonenas.space.errors import DeviceError

__all__ = [
    "BY_HAND",
    "NUMBER",
    "UnreadableOutput",
    "check_crash",
    "lines_of",
    "no_report",
    "plain",
    "shown",
    "unreadable",
]

# As C and C++ print numbers in the "C" locale, NaN and infinity included: the error shows them.
NUMBER = (
    r"(?:[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,4})?"
    r"|[-+]?(?i:nan|inf))"
)
BY_HAND = "Run it by hand on the device to see all that it prints."
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CRASH = re.compile(
    r"(?:\S{1,200}: line [0-9]+: +[0-9]+ )?(?:Segmentation fault|Aborted|Killed|Terminated"
    r"|Illegal instruction|Bus error|Floating point exception|Trace/breakpoint trap)"
    r"(?: \(core dumped\))?(?: {2}.*)?"
)
# What a shell or linker prints for a program that cannot start, and what to do.
_REFUSALS = (
    (
        re.compile(r": not executable: |Exec format error|unexpected e_machine|bad ELF magic"),
        "It was built for another processor: use the build for this device's "
        "(getprop ro.product.cpu.abi).",
    ),
    (
        re.compile(r"CANNOT LINK EXECUTABLE|error while loading shared libraries"),
        "Put the named library beside it, or use a build that needs none.",
    ),
    (
        re.compile(r": (?:inaccessible or not found|not found|No such file or directory)$"),
        "The program, or a file that it needs, is not on the device: push it again.",
    ),
    (
        re.compile(r": (?:Permission denied|can't execute: .*)$"),
        "Mark it executable, in a folder from which programs may run (/data/local/tmp).",
    ),
)


class UnreadableOutput(DeviceError):
    """A program on a device printed something other than the expected report."""


def plain(text: str, limit: int = 200) -> str:
    r"""Text that a device reported, safe to print: one line, no escapes, at most `limit`
    characters.

    >>> plain("\x1b[31mPixel\t6\x07\n")
    'Pixel 6\\x07'
    """
    line = " ".join(_ANSI.sub("", text[: 20 * limit]).split())
    legible = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return legible if len(legible) <= limit else legible[: limit - 1] + "…"


def shown(line: str) -> str:
    r"""A line as an error message quotes it: control codes visible, at most 160 characters.

    >>> shown("avg=\x00nan")
    "'avg=\\x00nan'"
    """
    quoted = repr(line[:170])
    return quoted if len(quoted) <= 160 else f"{quoted[:158]}…{quoted[0]}"


def unreadable(program: str, expected: str, line: str, advice: str = "") -> UnreadableOutput:
    """The error that says which program, what was expected, the line found, and what to do."""
    printed = shown(line) if line else "nothing"
    return UnreadableOutput(f"{program}: expected {expected}, found {printed}. {advice or BY_HAND}")


def lines_of(text: str) -> list[str]:
    r"""The lines that are not empty, without colours and trailing blanks.

    Only CR and LF end a line, also the \r\r\n of old adb shells: what else Python treats as a
    line's end is a control code here, and shown as one.
    """
    return [x for line in re.split(r"[\r\n]+", _ANSI.sub("", text)) if (x := line.rstrip(" \t"))]


def check_crash(program: str, lines: Sequence[str]) -> None:
    """Reject the report of a program that then crashed: its numbers may be wrong.

    Raises:
        UnreadableOutput: A line of a shell says that the system ended the program.
    """
    for line in lines:
        if _CRASH.fullmatch(line.strip()):
            raise _refusal(program, lines) or unreadable(
                program, "a program that ends by itself", line
            )


def _refusal(program: str, lines: Sequence[str]) -> UnreadableOutput | None:
    for line in lines:
        for pattern, advice in _REFUSALS:
            if pattern.search(line):
                return unreadable(program, "a report", line, advice)
    return None


def no_report(
    program: str, lines: Sequence[str], failures: Sequence[str], own: Sequence[str]
) -> UnreadableOutput:
    """Why there is no report: not started, failed, cut off, or another program's output.

    Args:
        lines: All that was printed.
        failures: Those of them that report a failure.
        own: Those of them that only this program prints.
    """
    if refused := _refusal(program, lines):
        return refused
    if failures:
        last = "" if len(failures) == 1 else f" It ended with: {plain(failures[-1])}"
        return unreadable(program, "a report", failures[0], f"This reports a failure.{last}")
    if not lines:
        return unreadable(program, "a report", "")
    if own:
        return unreadable(program, "a whole report; it was cut off after this", lines[-1])
    return unreadable(program, "a report; this line does not belong to one", lines[0])
