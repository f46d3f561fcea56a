"""Mutated files are answered, or refused by an error of phonenas: `python -m tools.fuzz`."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

from phonenas.space.errors import UnsupportedFormat
from tools.fuzz.__main__ import tried
from tools.fuzz.kinds import KINDS, Kind, Other

ROOT = Path(__file__).parents[1]


class _Raises(Kind):
    name = "raises"
    error: Exception

    def attempt(self, rng: random.Random, here: Path) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnsupportedFormat("it is damaged"), "refused"),
        (UnsupportedFormat("x" * 5_000), "foreign exception"),
        (UnsupportedFormat(""), "foreign exception"),
        (KeyError("front"), "foreign exception"),
        (MemoryError(), "foreign exception"),
        (Other("run.json"), "another front"),
    ],
)
def test_outcomes_are_told_apart(tmp_path: Path, error: Exception, outcome: str) -> None:
    kind = _Raises(tmp_path)
    kind.error = error
    assert tried(kind, 0, 0, tmp_path)[0] == outcome


@pytest.mark.parametrize(("kind", "count"), [("devices", 60), ("stores", 12), ("tflite", 30)])
def test_mutated_files_are_answered_or_refused(tmp_path: Path, kind: str, count: int) -> None:
    made = KINDS[kind](tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    bad = []
    for number in range(count):
        outcome, detail = tried(made, 1, number, here)
        if outcome not in ("answered", "refused"):
            bad.append((number, outcome, detail))
    assert not bad


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_some_hundreds_of_each_kind(kind: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.fuzz", kind, "--count", "300", "--seed", "7"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = done.stdout.splitlines()[0]
    assert "300 inputs" in counted and "foreign exception 0" in counted
    assert "another front 0" in counted and "too slow 0" in counted and "crash 0" in counted
