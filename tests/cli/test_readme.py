"""README and first steps: their commands, after those of `make demo`, run in the order printed."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDevice, TinySpace

from phonenas import cli, devices, space
from phonenas.devices.measuring import profiling
from phonenas.search.validation import validate
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture

ROOT = Path(__file__).parents[2]
# Lines of the shell blocks that set up an environment, and are not run here.
SETUP = {"make demo", ". .venv/bin/activate", "phonenas --install-completion"}


class Here(FakeDevice):
    """This computer's place; times by the size of a file, near those that the README names."""

    name = "local"

    @staticmethod
    def true_ms(model: Path) -> float:
        return 0.02 + model.stat().st_size * 4e-7


def lines_of_shell(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line not in SETUP]


def lines_of_the_demo(text: str) -> list[str]:
    recipe = text.split("\ndemo:")[1].split("\ntest:")[0]
    lines = re.findall(r"^\t@?\$\(BIN\)/(phonenas .*)$|^\t@(cp .*)$", recipe, re.M)
    commands = [a or b for a, b in lines]
    # `make` runs the recipe of the model where the demo asks for it: after the profile.
    profile, search, validated, report, fit, copy = commands
    return [profile, fit, copy, search, validated, report]


@pytest.mark.slow
def test_everything_runs_in_the_order_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = replace(profiling.Protocol(), apart_s=0.0)
    for room in (profiling, validate, devices):
        monkeypatch.setattr(room, "Protocol", lambda **more: replace(quick, **more))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "connect", lambda name, **settings: Here())
    monkeypatch.setattr(space, "get", lambda name, resolution=None: TinySpace(resolution=224))
    monkeypatch.setattr(space, "MnasNet", lambda resolution: TinySpace(resolution=resolution))

    def run(line: str) -> str:
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            monkeypatch.setenv(name, value)
            return ""
        if words[0] == "cp":
            Path(words[2]).write_bytes(Path(words[1]).read_bytes())
            return ""
        assert words[0] == "phonenas", line
        monkeypatch.setattr(sys, "argv", words)
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert code in (0, None), f"{line}\n{out}\n{err}"
        return out

    # The small space of the test has 55 operators, not 2,452.
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--operators 200 " in makefile
    makefile = makefile.replace("--operators 200 ", "--operators 40 ")
    values = {"RUN": "runs/demo", "DB": "runs/demo/phonenas.db", "MODEL": "runs/demo/model.json"}
    for name, value in values.items():
        makefile = makefile.replace(f"$({name})", value)
    Path("runs/demo").mkdir(parents=True)
    monkeypatch.setenv("PHONENAS_DB", values["DB"])
    for line in lines_of_the_demo(makefile):
        run(line)
    monkeypatch.delenv("PHONENAS_DB")
    assert Path("runs/demo/report.html").is_file()
    assert Path("runs/demo/phonenas.local.model.json").is_file()

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    steps = (ROOT / "docs/first_steps.md").read_text(encoding="utf-8")
    lines = [*lines_of_shell(readme), *lines_of_shell(steps)]
    assert len(lines) > 30
    printed = {line: run(line) for line in lines}
    assert os.environ["PHONENAS_DB"] == values["DB"]
    shown = printed["phonenas show runs/mine"]
    assert shown.startswith("runs/mine: ") and "○ predicted" in shown
    header, *rows = Path("networks.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("id,network,") and len(rows) > 10
    assert Path("candidate.onnx").stat().st_size > 10_000
    assert Path("runs/mine/report.html").is_file() and Path("measurements.parquet").is_file()

    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert "latency_ms" in capsys.readouterr().out


def test_the_readme_is_short_and_begins_with_a_picture() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("![") for line in lines[:8])


@pytest.mark.slow
def test_first_steps_show_what_the_search_for_a_ready_phone_prints(run: Run) -> None:
    steps = (ROOT / "docs/first_steps.md").read_text(encoding="utf-8")
    shown = re.search(
        r"(phonenas search --device pixel4[^\n]*)\n.*?```text\n(8,000 networks.*?)```", steps, re.S
    )
    assert shown is not None
    code, out, err = run(*shlex.split(shown[1])[1:])
    assert code == 0, err

    def form(line: str) -> str:
        """Without blanks and figures, which another processor may round otherwise."""
        return re.sub(r"[0-9]+(\.[0-9]+)?", "#", " ".join(line.split()))

    printed = {form(line) for line in out.splitlines()}
    lines = [line for line in shown[2].splitlines() if line.strip() not in ("", "...")]
    assert len(lines) == 9
    assert [line for line in lines if form(line) not in printed] == []


@pytest.mark.parametrize("page", ["README.md", "docs/first_steps.md"])
def test_every_command_that_is_printed_outside_of_blocks_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    named = set(re.findall(r"`phonenas ([a-z-]+)", prose))
    known = {c.name for c in cli.app.registered_commands} | {
        g.name for g in cli.app.registered_groups
    }
    assert named <= known


@pytest.mark.parametrize("page", ["README.md", "docs/first_steps.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", text))
    assert named and named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))
