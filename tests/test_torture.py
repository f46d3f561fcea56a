"""Processes killed at random in one run folder, one store and one device: `tools.torture`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import PATIENCE_S


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_killed_processes_leave_one_run_and_lose_nothing(
    processes: int, environment: dict[str, str]
) -> None:
    words = ["-m", "tools.torture", "--kills", "4", "--processes", str(processes)]
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 8,
    )
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert int(counts["killed"]) >= 4 and counts["faults"] == "0"
