"""The example package of the docs, installed and used by its names, and the docs' example space."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phonenas import space

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed beside nothing else, and a devices.toml."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "docs" / "example_package", folder / "source")
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
    ]
    subprocess.run(
        [sys.executable, *install, str(folder / "installed"), str(folder / "source")], check=True
    )
    (folder / "devices.toml").write_text(
        '[sim]\ntransport = "simulated"\naddress = "3"\n\n'
        '[background]\ntransport = "low-priority"\naddress = "5"\n'
        f'python = "{sys.executable}"\n'
    )
    return folder


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that sees the installed package."""
    path = os.pathsep.join([str(place / "installed"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    environment.pop("PHONENAS_DEVICES", None)
    return subprocess.run(
        [sys.executable, "-m", "phonenas", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def phonenas(place: Path, *words: str) -> str:
    """What a command prints that ends well."""
    done = run(place, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_listings_have_their_names(place: Path) -> None:
    told = phonenas(place, "search", "--help")
    assert "hill-climbing" in told and "example-small" in told
    found = json.loads(phonenas(place, "devices", "--json"))
    background = next(d for d in found if d["name"] == "background")
    assert background["kind"] == "low-priority"
    assert background["state"] == "ready"
    found = json.loads(phonenas(place, "space", "example-small", "--json"))
    assert found["size"] == 216 and found["resolution_px"] == 64


def test_a_search_by_their_strategy_in_their_space(place: Path) -> None:
    mine = re.search(r"```toml\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    assert mine is not None
    (place / "my_space.toml").write_text(mine[1])
    described = space.get(str(place / "my_space.toml"))
    assert described.size == 17_496 and described.resolution_px == 192
    common = ("--device", "sim", "--quiet", "--json")
    for name, strategy in (("example-small", "hill-climbing"), ("my_space.toml", "nsga2")):
        phonenas(place, "profile", "--space", name, "--networks", "24", *common)
        phonenas(place, "fit", "--device", "sim", "--json")
        words = ("--space", name, "--strategy", strategy, "--evaluations", "100", "--out", strategy)
        found = json.loads(phonenas(place, "search", *words, *common))
        assert found["strategy"] == strategy and found["evaluations"] == 100
        assert found["front"]
    settings = json.loads((place / "nsga2" / "run.json").read_text())["settings"]
    assert re.fullmatch("my_space.toml@[0-9a-f]{12}", settings["space"])
    phonenas(place, "validate", "nsga2", "--top", "2", "--rounds", "2", *common)
    again = json.loads(phonenas(place, "search", *words, *common))
    assert again["front"] == found["front"]
    file = place / "my_space.toml"
    file.write_text(file.read_text().replace("[80, 96, 112]", "[80, 96, 128]"))
    refused = run(place, "search", *words, *common)
    assert refused.returncode == 2
    assert "my_space.toml@" in refused.stderr


def test_their_transport_measures(place: Path) -> None:
    words = ("--network", "mnasnet-small", "--resolution", "32", "--quiet", "--json")
    found = json.loads(phonenas(place, "profile", "--device", "background", *words))
    assert found["measured"] >= 1
    assert found["conditions"]["device"] == "background"
