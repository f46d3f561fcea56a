"""The page docs/faults.md, from the tests: each fault, what is told, what to do.

    python -m tools.faults            write the page
    python -m tools.faults --check    exit 1 where it is not up to date

A test that makes a fault happen carries the mark `fault`, with what happens, what phonenas tells,
and what the user does::

    @pytest.mark.fault("A run's run.json is cut off", "`run.json is damaged`", "Search again.")

What stands in backquotes is quoted: while the test runs, it must be printed, or be the text of an
error (`tests/conftest.py` looks). `…` stands for what differs from case to case.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phonenas import devices as _devices  # noqa: F401  # have errors of their own
from phonenas.space import errors

__all__ = ["Fault", "codes", "faults", "page"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
_HEAD = """# Errors, and what to do

The tests produce each error of this table: files cut short, folders of other programs, names that
are paths, devices that fail in the middle of a job. They also check that phonenas prints the words
in the second column (`…` stands for text that varies). An error is one line on stderr: what was
asked, what prevents it, and what to do next. The exit code is 1 for a failure and 2 for invalid
arguments. What goes wrong between a computer and its phones has
[a table of its own](phones.md#when-something-goes-wrong).

`python -m tools.faults` writes this page from the tests.
"""
_CODES = """
## Codes

The first word of an error's line is its code; it stays the same from release to release, while the
words behind it may change. In Python it is the name of the class. With `--json` an error is the
document on stdout, as `{"error": {"code": "UnknownName", "message": "...", "exit_code": 2}}`,
unless the command had printed its result before it failed (some of several networks could not be
measured, for example). A command line that cannot be read is told with its usage; with `--json` it
has a code, too.

| Code | Exit code | What it means |
|---|---|---|
"""
_COLUMNS = "| What happens | What is told | What to do | Shown by |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Fault:
    """A row: a room of the house, what happens, what is told, what to do, and the tests."""

    room: str
    happens: str
    told: str
    do: str
    tests: tuple[str, ...]


def faults() -> list[Fault]:
    """All rows, by room, then in the order of the tests; equal rows are one.

    Raises:
        ValueError: A mark is not made of three texts.
    """
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "pytest.mark.fault" not in text:
            continue
        tree = ast.parse(text)
        parts = path.relative_to(ROOT / "tests").parts
        room = parts[0] if len(parts) > 1 else "the whole"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                for texts in _marks(node, path):
                    rows.setdefault((room, *texts), []).append(f"`{path.stem}.{node.name}`")
    return [Fault(*key, tuple(tests)) for key, tests in rows.items()]


def _marks(test: ast.FunctionDef, path: Path) -> Iterator[tuple[str, str, str]]:
    for mark in test.decorator_list:
        if not (isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault"):
            continue
        texts = [ast.literal_eval(a) for a in mark.args]
        if len(texts) != 3 or not all(isinstance(t, str) and "|" not in t for t in texts):
            raise ValueError(f"{path}:{mark.lineno}: a fault is three texts without a bar")
        yield texts[0], texts[1], texts[2]


def codes() -> list[tuple[str, int, str]]:
    """Each code, its exit code, and what it means: the first line of the class's docstring."""
    kinds = [errors.PhonenasError]
    for kind in kinds:  # grows meanwhile
        kinds += kind.__subclasses__()
    own = {k.__name__: k for k in kinds[1:] if k.__module__.startswith("phonenas.")}
    return [
        (name, int(kind.exit_code), (inspect.getdoc(kind) or "").partition("\n")[0])
        for name, kind in sorted(own.items())
    ]


def page() -> str:
    """The page, whole."""
    rows = faults()
    text = f"{_HEAD}\n{len(rows)} faults.\n"
    for room in dict.fromkeys(f.room for f in rows):
        text += f"\n## {_TITLES.get(room, room)}\n\n{_COLUMNS}"
        for f in rows:
            if f.room == room:
                text += f"| {f.happens} | {f.told} | {f.do} | {', '.join(f.tests)} |\n"
    rest = "".join(f"| `{code}` | {exit_} | {meaning} |\n" for code, exit_, meaning in codes())
    return text + _CODES + rest


_TITLES = {
    "cli": "At the command line",
    "data": "Stores, tables and files",
    "devices": "Devices and measuring",
    "latency_model": "The latency model",
    "report": "Pages",
    "search": "Runs and validations",
    "space": "Networks and model files",
}


def main() -> int:
    """Write the page, or compare it."""
    if "--check" in sys.argv:
        same = PAGE.read_text(encoding="utf-8") == page()
        print("up to date" if same else f"{PAGE} is not up to date:  python -m tools.faults")
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(faults())} faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
