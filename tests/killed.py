"""Processes killed at random moments, as tests of what goes on afterwards need them."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from patience import PATIENCE_S, wait_for

from phonenas import search

__all__ = ["ends", "ends_alike", "kill_at_random"]


def kill_at_random(
    command: Callable[[Path], Sequence[str]],
    folder: Path,
    environment: dict[str, str],
    *,
    times: int,
    begun: str,
) -> int:
    """Kill jobs by SIGKILL, each at a random moment.

    The folders are r0, r1 and so on within `folder`: a killed job goes on in its own, and one that
    outran its killer is followed by a new one. Three in four moments lie amid the work, the others
    soon after a job printed its first line.

    Args:
        command: The words of a job, by its folder.
        folder, environment: Where, and with what environment.
        times: How many are killed.
        begun: Pattern of the files of its folder that a job writes amid its work.
    Returns:
        How many of the killed ones had written since they were started.
    """

    def written(into: Path) -> int:
        """When the newest was, in ns; 0 for none."""
        newest = 0
        for path in into.glob(begun):
            with suppress(FileNotFoundError):
                newest = max(newest, path.stat().st_mtime_ns)
        return newest

    moment, killed, left, window_s = random.Random(1), 0, 0, 0.4
    for turn in range(4 * times):
        into = folder / f"r{turn - killed}"
        before = written(into)
        process = subprocess.Popen(command(into), env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        if moment.random() < 0.75:

            def at_work(into: Path = into, before: int = before, job: Any = process) -> bool:
                return written(into) != before or job.poll() is not None

            wait_for("a job that works", at_work)
        time.sleep(moment.uniform(0.0, window_s))
        process.kill()
        process.stdout.close()
        if process.wait(timeout=PATIENCE_S) == -signal.SIGKILL:
            killed += 1
            left += written(into) != before
        else:
            window_s *= 0.8
        if killed == times:
            return left
    raise AssertionError(f"{killed} of {times} jobs were killed in {4 * times} turns")


def ends(words: Sequence[str], environment: dict[str, str]) -> None:
    """Run a job to its end, which it says with a line "done"."""
    done = subprocess.run(words, env=environment, capture_output=True, timeout=PATIENCE_S)
    assert done.stdout.endswith(b"done\n"), done.stderr.decode()


def ends_alike(some: Path, other: Path) -> None:
    """Whether two runs have the same front, evaluations and log, to the bit."""
    runs = [search.load(some), search.load(other)]
    assert runs[0].front == runs[1].front
    tables = [pd.read_parquet(path / "evaluations.parquet") for path in (some, other)]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    logs = [[row[:-1] for row in run.log()] for run in runs]  # without the seconds
    assert logs[0] == logs[1]
