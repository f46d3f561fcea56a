"""Shell completion of names, through the protocol by which a shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

from phonenas.cli import groups
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture


@pytest.fixture
def offered(run: Run, monkeypatch: pytest.MonkeyPatch) -> object:
    """What a shell is offered for the last word of a line; an empty word ends with a blank."""
    for folder in ("runs/first", "runs/lab/second"):
        Path(folder).mkdir(parents=True)
        Path(folder, "run.json").write_text("{}", encoding="utf-8")
    Path("mine.toml").write_text("", encoding="utf-8")
    Path("devices.toml").write_text('[my-phone]\ntransport = "simulated"\n', encoding="utf-8")

    def offered(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_PHONENAS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        code, out, err = run()
        assert code == 0 and err == ""
        return out.split()

    return offered


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("phonenas sear", ["search"]),
        ("phonenas search --strat", ["--strategy"]),
        ("phonenas search --strategy ns", ["nsga2", "nsga3"]),
        ("phonenas search --device my", ["my-phone"]),
        ("phonenas profile --device lo", ["local"]),
        ("phonenas profile --like my", ["my-phone"]),
        ("phonenas promote runs/first --device my", ["my-phone"]),
        (
            "phonenas predict x --device pixel4/tflite/cpu-1large/",
            ["pixel4/tflite/cpu-1large/float32", "pixel4/tflite/cpu-1large/int8"],
        ),
        ("phonenas space mnas", ["mnasnet", "mnasnet-flat"]),
        ("phonenas search --space mi", ["mine.toml"]),
        ("phonenas search --accuracy im", ["imagenet"]),
        ("phonenas import of", ["ofa"]),
        ("phonenas show mnasnet-s", ["mnasnet-small"]),
        ("phonenas show densenet-12", ["densenet-121"]),
        ("phonenas show runs/f", ["runs/first", "runs/first:0"]),
        ("phonenas profile --network mnasnet-s", ["mnasnet-small"]),
        ("phonenas search --target mnasnet-s", ["mnasnet-small"]),
        ("phonenas search --start-from runs/f", ["runs/first"]),
        ("phonenas report runs/first ru", ["runs/first", "runs/lab/second"]),
        ("phonenas validate ru", ["runs/first", "runs/lab/second"]),
        ("phonenas serve runs/l", ["runs/lab/second"]),
        ("phonenas benchmark search t.csv --strategy we", ["weighted"]),
        ("phonenas run --o", ["--out"]),
        ("phonenas train x --qui", ["--quiet"]),
    ],
)
def test_names_are_completed(offered: object, line: str, expected: list[str]) -> None:
    assert sorted(offered(line)) == expected  # type: ignore[operator]


def test_what_cannot_be_read_offers_nothing(offered: object) -> None:
    Path("devices.toml").write_text("[bad", encoding="utf-8")
    assert offered("phonenas search --device ") == []  # type: ignore[operator]


def test_a_folder_that_vanishes_costs_no_other(
    offered: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("lab"):
            raise FileNotFoundError(path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert offered("phonenas validate ru") == ["runs/first"]  # type: ignore[operator]

    def fail() -> object:
        yield "pixel"
        raise ValueError

    assert groups._completing(fail)("pi") == ["pixel"]


def test_completion_looks_at_so_many_entries(
    offered: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_MOST_ENTRIES", 10)
    for number in range(30):
        Path(f"runs/first/{number}").mkdir()
        Path(f"runs/first/{number}/run.json").write_text("{}", encoding="utf-8")
    found = offered("phonenas validate ru")  # type: ignore[operator]
    assert "runs/first" in found and len(found) <= 10


def test_it_is_quick(environment: dict[str, str]) -> None:
    """What takes long to import is not, by the completion of whatever is named."""
    heavy = ("torch", "onnxruntime", "sklearn", "lightgbm", "plotly", "pandas", "ray")
    words = ("--device ", "--space ", "--strategy ", "--target ", "--out x --acc")
    code = (
        "import os, sys\nfrom phonenas.cli import main\n"
        f"for words in {words!r}:\n"
        "    line = f'phonenas search {words}'\n"
        "    os.environ['COMP_WORDS'] = line\n"
        "    os.environ['COMP_CWORD'] = str(len(line.split(' ')) - 1)\n"
        "    try:\n        main()\n    except SystemExit as stop:\n"
        f"        loaded = [m for m in {heavy!r} if m in sys.modules]\n"
        "        print('##', stop.code or 0, loaded, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "_PHONENAS_COMPLETE": "complete_bash", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    offered = done.stdout.split("## 0 []\n")
    assert len(offered) == len(words) + 1 and offered.pop() == "", done.stdout
    assert all(one.strip() for one in offered)
