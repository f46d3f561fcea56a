"""The house keeps its own rules: floors, public names, examples, documented commands."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from phonenas import __version__, cli

ROOT = Path(__file__).parents[1]
FLOORS = {"space": 1, "data": 2, "devices": 3, "latency_model": 3, "search": 4, "phonenas": 5}
ROOMS = sorted(
    p
    for folder in FLOORS
    for p in (ROOT / folder).glob("**/*.py")
    if "phonenas/" not in str(p.relative_to(ROOT))[9:]
)
ROOMS = [p for p in ROOMS if not any(part.is_symlink() for part in p.parents)]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "phonenas":
        parts = ("phonenas", *parts)
    return ".".join(p for p in parts if p != "__init__")


def folder_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imported_folders(path: Path) -> set[str]:
    """Top folders of the package that a room imports, at any depth of its code."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join(base + ([node.module] if node.module else []))
            names = [stem, *(f"{stem}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "phonenas" and len(parts) > 1 and parts[1] in FLOORS:
                found.add(parts[1])
    return found


def test_rooms_are_found() -> None:
    assert len(ROOMS) > 40
    assert imported_folders(ROOT / "search" / "loop.py") >= {"space", "latency_model"}


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_from_its_own_and_lower_floors_only(path: Path) -> None:
    here = folder_of(path)
    for other in imported_folders(path) - {here}:
        assert FLOORS[other] < FLOORS[here], f"{path.name} on floor {FLOORS[here]} imports {other}"


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_exist_and_are_documented(path: Path) -> None:
    if path.name == "__main__.py":
        return
    module = importlib.import_module(module_name(path))
    assert module.__doc__, "a room says what it is"
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{module.__name__}.{name} has no docstring"


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_in_docstrings_run(path: Path) -> None:
    if path.name != "__main__.py":
        module = importlib.import_module(module_name(path))
        assert doctest.testmod(module).failed == 0


def test_nothing_is_pickled_evaluated_or_passed_to_a_shell() -> None:
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {a.name for a in node.names} & {"pickle", "dill", "joblib", "shelve"}
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads")
                told = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert told.get("shell") != "True"
                assert told.get("allow_pickle") != "True"


def test_no_room_bears_a_standard_library_name() -> None:
    import sys

    names = {p.stem for p in ROOMS if folder_of(p) != "phonenas"} - {"__init__", "__main__"}
    # `operator` is imported relatively only; a top-level one could never shadow it.
    assert names & set(sys.stdlib_module_names) <= {"operator"}


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def documented_commands() -> list[str]:
    found = []
    for name in (
        "README.md",
        "docs/accuracy.md",
        "docs/architecture.md",
        "docs/cluster.md",
        "docs/detection.md",
        "docs/latency.md",
        "docs/phones.md",
        "docs/search.md",
        "CONTRIBUTING.md",
        "Makefile",
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        for line in re.findall(
            r"^\s*(?:\$ |\.venv/bin/|\$\(BIN\)/)?(phonenas [a-z].*)$", text, re.M
        ):
            found.append(line.replace("$(RUN)", "runs/demo").split("  #")[0].strip())
    return sorted(set(found))


def test_commands_are_documented() -> None:
    verbs = {c.split()[1] for c in documented_commands()}
    assert verbs >= {"profile", "fit", "predict", "search", "validate", "report", "show"}


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_is_one(line: str) -> None:
    group = typer.main.get_command(cli.app)
    words = shlex.split(line)[1:]
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    # Parsing alone refuses unknown options, lacking arguments and wrong types.
    command.make_context(words[0], words[1:], resilient_parsing=False)


def readme_examples() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    return [code for text in texts for code in re.findall(r"```python\n(.*?)```", text, re.S)]


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this computer's place taken by a device without hardware, on a small space."""
    from conftest import FakeDevice, TinySpace

    from phonenas import devices, space

    class Here(FakeDevice):
        name = "local"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "connect", lambda name, threads=1: Here())
    monkeypatch.setattr(space, "MnasNet", lambda resolution: TinySpace(resolution=32))
    from dataclasses import replace

    from phonenas.devices import profiling

    quick = replace(profiling.Protocol(), apart_s=0.0)
    monkeypatch.setattr(profiling, "Protocol", lambda **more: replace(quick, **more))
    examples = readme_examples()
    assert examples
    for code in examples:
        exec(compile(code, "README.md", "exec"), {})
