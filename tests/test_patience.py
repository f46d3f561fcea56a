"""`make slow` and `make real` run a test that ran out of a wait again, and no other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S, wait_for

ROOT = Path(__file__).parents[1]

TESTS = """
import subprocess, sys, time
import pytest
SHORT_S, TURNS = 0.01, []

@pytest.fixture(scope="session")
def daemon():
    yield TURNS

def turn(name):
    TURNS.append(name)
    return TURNS.count(name)

def test_wait(daemon):
    if turn("wait") < 3:
        raise TimeoutError("the first round: not within 120 s")

def test_process():
    if turn("process") < 2:
        subprocess.run([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, timeout=SHORT_S)

@pytest.mark.timeout(0.5)
def test_clock():
    if turn("clock") < 2:
        time.sleep(4321)

def test_wait_for_ever():
    raise TimeoutError(f"turn {turn('ever')}")

def test_wrong():
    assert turn("wrong") > 1

def test_broken():
    if turn("broken") < 2:
        raise RuntimeError("a word of TimeoutError: in a text")

def test_last(daemon):
    assert [daemon.count(x) for x in ("ever", "wrong", "broken")] == [3, 1, 1]
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["-n", "1", "--dist", "loadfile"]])
def test_a_test_that_ran_out_of_a_wait_alone_is_run_again(tmp_path: Path, more: list[str]) -> None:
    (given,) = re.findall(r"^PATIENTLY := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "tests", *given.split(), *more]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    told = done.stdout
    assert "3 failed, 4 passed, 6 rerun" in told, told
    failed = set(re.findall(r"^FAILED tests/test_it.py::(\w+)", told, re.M))
    assert failed == {"test_wait_for_ever", "test_wrong", "test_broken"}
    assert set(re.findall(r"^RERUN tests/test_it.py::(\w+)", told, re.M)) == {
        "test_wait",
        "test_process",
        "test_clock",
        "test_wait_for_ever",
    }


def test_a_wait_that_runs_out_shows_what_was_said() -> None:
    with pytest.raises(TimeoutError, match="^the moon: not within 0.01 s no file x$"):
        wait_for("the moon", lambda: False, 0.01, said=lambda: "no file x")
    wait_for("the sun", lambda: True)
