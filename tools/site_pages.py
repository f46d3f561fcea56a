"""Pages of the documentation site that are made when it is built: the README, the command line and
Python, each from its own source.

MkDocs calls `on_files`, and mkdocstrings the extension `Sections` (see mkdocs.yml).
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe
import typer
from typer.cli import get_docs_for_click

from phonenas import cli

_SECTION = re.compile(r"\n(?=(?:Attributes|Raises|Returns|Yields|Examples):\n)")
ROOT = Path(__file__).parents[1]
PACKAGES = ("space", "data", "devices", "latency_model", "search", "search.accuracy", "testing")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file in docs/ holds."""
    from mkdocs.structure.files import File

    for name, text in (("index.md", index()), ("commands.md", commands()), ("python.md", python())):
        files.append(File.generated(config, name, content=text))
    return files


def index() -> str:
    """The README, with its links as they are from within docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/", "](")
    return text.replace("[CONTRIBUTING.md](CONTRIBUTING.md)", "CONTRIBUTING.md")


def commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    group: Any = typer.main.get_command(cli.app)
    for command in group.commands.values():
        for within in getattr(command, "commands", {"": command}).values():
            within.name_registered()
            within.name_values()
    context = typer.Context(group, info_name="phonenas")
    text: str = get_docs_for_click(obj=group, ctx=context, name="phonenas", title="Command line")
    return re.sub(r"^# `?Command line`?$", "# Command line", text, flags=re.M)


def python() -> str:
    """What `from phonenas import ...` gives, by package, from the docstrings."""
    parts = [
        "# Python",
        "",
        "What each package exports. `phonenas.testing` holds the contracts as test classes.",
        "",
    ]
    for package in PACKAGES:
        parts += [f"## phonenas.{package}", "", f"::: phonenas.{package}", ""]
    return "\n".join(parts)


class Sections(griffe.Extension):
    """Docstrings as griffe reads them: a blank line before each section, examples as one."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is None:
            return
        text, start, examples = _SECTION.sub("\n\n", obj.docstring.value).partition("\n>>> ")
        if start:
            examples = textwrap.indent(f">>> {examples}", "    ")
            text = f"{text.rstrip()}\n\nExamples:\n{examples}"
        obj.docstring.value = text
