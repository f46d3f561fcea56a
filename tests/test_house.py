"""The house keeps its own rules: floors, public names, examples, documented commands."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer.main
import yaml

from phonenas import __version__, cli
from phonenas.cli.setup import examples
from phonenas.latency_model import LatencyModel
from tools import house

ROOT = Path(__file__).parents[1]
ROOMS = house.package_files()


def test_rooms_are_found() -> None:
    assert len(ROOMS) > 200
    graph = house.import_graph()
    assert {"phonenas", "phonenas.__main__", "phonenas.cli", "phonenas.space"} <= set(graph)
    assert "phonenas.search.run_folder" in graph["phonenas.search.loop"]


KNOWN = {"phonenas", "phonenas.a", "phonenas.a.b", "phonenas.a.c", "phonenas.z"}


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import phonenas.z", {"phonenas.z"}),
        ("from . import c", {"phonenas.a.c"}),
        ("from . import name", {"phonenas.a"}),
        ("from .c import name", {"phonenas.a.c"}),
        ("from .. import z", {"phonenas.z"}),
        ("from .. import __version__", {"phonenas"}),
        ("from phonenas import __version__", {"phonenas"}),
        ("def f():\n    from ..z import name", {"phonenas.z"}),
        ("if TYPE_CHECKING:\n    from phonenas.a.c import Name", {"phonenas.a.c"}),
        ("importlib.import_module('.c', __package__)", {"phonenas.a.c"}),
        ("import numpy, phonenas.zebra", set()),
    ],
)
def test_every_kind_of_import_is_seen(source: str, modules: set[str]) -> None:
    assert house.imported(source, "phonenas.a.b", False, KNOWN) == modules


def test_circles_are_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}}
    frozen = {name: frozenset(others) for name, others in graph.items()}
    assert sorted(house.circles(frozen)) == [["a", "b", "c"], ["f"]]
    assert house.longest_chain(frozen, "a", "e") == [["a", "b", "c"], ["d"], ["e"]]


def test_upward_imports_are_seen() -> None:
    graph = {
        "phonenas.search.loop": {"phonenas", "phonenas.space"},
        "phonenas.devices.a": {"phonenas.latency_model.b", "phonenas.devices.c"},
        "phonenas.cli.app": {"phonenas", "phonenas.search.loop"},
    }
    assert house.upward({name: frozenset(others) for name, others in graph.items()}) == [
        ("phonenas.devices.a", "phonenas.latency_model.b"),
        ("phonenas.search.loop", "phonenas"),
    ]


def test_no_room_imports_in_a_circle() -> None:
    assert house.circles(house.import_graph()) == []


def test_a_room_imports_from_its_own_and_lower_floors_only() -> None:
    assert house.upward(house.import_graph()) == []


def test_no_function_has_more_than_eight_parameters_commands_aside() -> None:
    assert len(house.commands()) > 20
    listed = house.commands()
    assert [w for w in house.wide_functions() if w.name not in listed] == []


def test_no_module_is_long() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in ROOMS}
    assert {path: n for path, n in lengths.items() if n > 450} == {}


def test_the_chain_of_rooms_is_short() -> None:
    chain = house.longest_chain(house.rooms(house.import_graph()), "phonenas", "phonenas.space")
    assert 2 <= len(chain) <= 10, chain


def test_no_folder_has_more_than_20_modules() -> None:
    assert {folder: n for folder, n in house.folder_sizes().items() if n > 20} == {}


def undocumented(path: Path) -> list[str]:
    """Public names of a module that are not there or have no docstring, and a module without."""
    module = importlib.import_module(house.module_name(path))
    lacking = [] if module.__doc__ else [module.__name__]
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name, None)
        needed = inspect.isclass(thing) or inspect.isfunction(thing)
        if not hasattr(module, name) or (needed and not inspect.getdoc(thing)):
            lacking.append(f"{module.__name__}.{name}")
    return lacking


def test_public_names_exist_and_are_documented() -> None:
    asked = [path for path in ROOMS if path.name != "__main__.py"]
    assert len(asked) > 200
    assert [name for path in asked for name in undocumented(path)] == []


EXAMPLES = [p for p in ROOMS if p.name != "__main__.py" and ">>>" in p.read_text("utf-8")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_in_docstrings_run(path: Path) -> None:
    done = doctest.testmod(importlib.import_module(house.module_name(path)))
    assert done.failed == 0 < done.attempted


def test_the_formatter_lays_all_out() -> None:
    assert len(house.skipped_formatting()) < 10
    assert house.long_lines() == []


def test_the_architecture_page_names_every_folder() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    folders = {str(p.parent.relative_to(ROOT)) for p in ROOMS} - {"phonenas"}
    assert sorted(f for f in folders if f"`{f}/`" not in page) == []


def test_paths_in_documents_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page.read_text(encoding="utf-8"))
        assert [n for n in named if not (ROOT / n).exists()] == [], page.name


def test_links_of_pages_stay_among_the_pages() -> None:
    """So that they lead somewhere on the site too."""
    for page in (ROOT / "docs").glob("*.md"):
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        local = [link for link in links if "://" not in link]
        assert [x for x in local if "/" in x or not (ROOT / "docs" / x).is_file()] == [], page.name


def test_nothing_is_pickled_evaluated_or_passed_to_a_shell() -> None:
    seen = {str(p.relative_to(ROOT)): house.unsafe(p.read_text(encoding="utf-8")) for p in ROOMS}
    assert {path: lines for path, lines in seen.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as plain",
        "from pickle import loads",
        "from joblib import load",
        "from multiprocessing import util\nimport dill",
        "__import__('pickle')",
        "import importlib\nimportlib.import_module('pickle').loads(b'')",
        "from importlib import import_module\nimport_module('cloudpickle')",
        "yaml.load(text)",
        "import yaml as y\ny.full_load(text)",
        "from yaml import unsafe_load as load\nload(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pd.read_pickle(path)",
        "frame.to_pickle(path)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "from os import popen\npopen(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.getoutput(text)",
    ],
)
def test_what_unpickles_evaluates_or_reaches_a_shell_is_seen(source: str) -> None:
    assert len(house.unsafe(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "model.eval()",
        "json.loads(text)",
        "from .pickle_free import load\nload(path)",
        "subprocess.run(command)",
    ],
)
def test_what_is_safe_is_left_alone(source: str) -> None:
    assert house.unsafe(source) == []


def test_tests_wait_with_one_patience() -> None:
    """A limit of a few seconds is enough on one computer and too short on another."""
    short = re.compile(r"\btimeout=\d{1,2}\b|monotonic\(\) \+ \d|wait_for\(.*, [\d.]+\)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (ROOT / "tests").rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if short.search(line)
    ]
    assert not found, found


def test_no_room_bears_a_standard_library_name() -> None:
    names = {p.stem for p in ROOMS if p.relative_to(ROOT).parts[0] != "phonenas"}
    # These two lie in packages and are imported by their full names, so they shadow nothing.
    assert names & set(sys.stdlib_module_names) - {"__init__"} <= {"operator", "random"}


def test_a_wheel_holds_every_folder() -> None:
    folders = {
        house.module_name(p): str(p.parent.relative_to(ROOT))
        for p in ROOMS
        if p.name == "__init__.py"
    }
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(setup["packages"]) == set(folders)
    assert len(setup["packages"]) == len(folders), "a package is listed twice"
    assert setup["package-dir"] == folders
    # In the checkout the folders of the root stand inside the package by relative links.
    links = {p.name: str(p.readlink()) for p in (ROOT / "phonenas").iterdir() if p.is_symlink()}
    assert links == {name: f"../{name}" for name in house.FLOORS if name != "phonenas"}


def test_a_wheel_holds_every_data_file() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    held = set()
    for package, patterns in setup["package-data"].items():
        for pattern in patterns:
            held |= set((ROOT / setup["package-dir"][package]).glob(pattern))
    tracked = {p for p in house.tracked("*") if p.relative_to(ROOT).parts[0] in house.FLOORS}
    assert {p for p in tracked if p.suffix != ".py" and not p.is_symlink()} == held


def test_what_the_dockerfile_names_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM python:3\.1[123]", text, re.M)
    steps = [line.split() for line in text.splitlines() if line.startswith(("COPY", "CMD", "RUN"))]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    made = re.findall(r"(?:RUN|CMD|&&) \W*make[\s\",]+([a-z-]+)", text)
    assert {"install", "demo"} <= set(made) <= set(targets)
    for words in steps:
        if words[0] == "COPY":
            assert all((ROOT / source).exists() for source in words[1:-1]), words


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_recipes_for_other_package_managers_agree_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    version = re.search(r'set version = "([^"]+)"', recipe)
    assert version is not None and version[1] == project["version"]
    run = recipe.partition("  run:\n")[2].partition("\ntest:")[0]
    needed = {f"python {project['requires-python']}"}
    needed |= {re.sub(r"(?=>=)", " ", d, count=1) for d in project["dependencies"]}
    assert set(re.findall(r"- (.+)", run)) == needed
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")))
def test_a_form_for_issues_is_whole(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) and all(p["attributes"]["label"] for p in form["body"])


def documented_commands() -> list[str]:
    found = []
    pages = ["README.md", "CONTRIBUTING.md", "Makefile"]
    pages += [f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))]
    for name in pages:
        text = (ROOT / name).read_text(encoding="utf-8")
        for line in re.findall(
            r"^\s*(?:\$ |\.venv/bin/|\$\(BIN\)/)?(phonenas [a-z].*)$", text, re.M
        ):
            found.append(line.replace("$(RUN)", "runs/demo").split("  #")[0].strip())
    found += [line for _, lines in examples.EXAMPLES.values() for line, _ in lines]
    return sorted(set(found))


def test_commands_are_documented() -> None:
    verbs = {c.split()[1] for c in documented_commands()}
    assert verbs >= {"profile", "fit", "predict", "search", "validate", "report", "show"}


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_is_one(line: str) -> None:
    group = typer.main.get_command(cli.app)
    words = shlex.split(line)[1:]
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    # Parsing alone refuses unknown options, lacking arguments and wrong types. What a command asks
    # its parent for, as the names of its help, it asks once.
    parent = typer.Context(group, info_name="phonenas", **group.context_settings)
    command.make_context(words[0], words[1:], parent=parent, resilient_parsing=False)


PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


def examples_of(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.S)


@pytest.mark.parametrize("page", PAGES)
def test_python_in_pages_is_marked_as_python(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    others = re.findall(r"^ *```(?!python)\w*\n(.*?)```", text, re.S | re.M)
    assert not [b for b in others if re.search(r"^ *(import \w+|from \S+ import )", b, re.M)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if examples_of(page)])
def test_a_pages_python_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: LatencyModel
) -> None:
    """With stand-ins for devices and a cluster, a small space, few images and a short training."""
    from fakes import FakeDevice, TinySpace

    from phonenas import devices, search, space
    from phonenas.devices.measuring import profiling
    from phonenas.search.cluster import device_workers, workers

    class Here(FakeDevice):
        name = "local"

    quick = replace(profiling.Protocol(), apart_s=0.0)
    tiny, small = TinySpace(resolution=32), space.zoo.network("mnasnet-small", 1.0, 32)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)  # as `make demo` leaves it
    monkeypatch.setattr(profiling, "Protocol", lambda **more: replace(quick, **more))
    for room in (devices, device_workers):
        monkeypatch.setattr(room, "connect", lambda name, **settings: Here())
    monkeypatch.setattr(space, "MnasNet", lambda resolution: tiny)
    monkeypatch.setattr(space, "get", lambda name, resolution=None: tiny)
    monkeypatch.setattr(workers, "workers_from", lambda **more: workers.Serial())
    if page == "README.md":  # whose estimator is of larger images
        monkeypatch.setattr(search.accuracy, "ImageNet", search.accuracy.Surrogate)
    if page == "docs/search.md":
        search.run(
            tiny,
            latency=fitted,
            accuracy=search.accuracy.Surrogate(),
            strategy=search.RandomSearch(seed=0),
            evaluations=40,
            into="runs/a",
        )
    if page == "docs/accuracy.md":
        short = replace(search.training.PAPER, epochs=1, batch=8, warmup_epochs=0.0)
        monkeypatch.setattr(search.training, "PAPER", short)
        monkeypatch.setattr(space.zoo, "network", lambda name: small)
        pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
        parts = {"x_train": pixels, "y_train": np.arange(16) % 2}
        parts |= {"x_test": pixels[:8], "y_test": np.arange(8) % 2}
        Path("images").mkdir()
        np.savez("images/set.npz", **parts)  # type: ignore[arg-type]
    for code in examples_of(page):
        exec(compile(code, page, "exec"), {})
    written = {
        "docs/search.md": "runs/a/networks.parquet",
        "docs/accuracy.md": "runs/a1/network.onnx",
        "docs/cluster.md": "phonenas.db",
        "docs/detection.md": "a1-ssdlite.onnx",
        "docs/networks.md": "small.onnx",
        "README.md": "runs/python/run.json",
    }
    assert Path(written[page]).is_file()


def test_nothing_prints_minus_zero() -> None:
    """A signed number that rounds to 0 is +0.0, by the `z` of its format."""
    assert f"{-0.0004:+z.1%}" == "+0.0%"
    plain = re.compile(r":\+[.,]\d*[f%]")
    assert [str(path) for path in ROOMS if plain.search(path.read_text(encoding="utf-8"))] == []
