"""Processes that share one run folder, one store and one device, killed at random.

`python -m tools.torture --kills 50 --processes 8` starts commands side by side on a simulated
phone, kills some at any moment, and after each batch examines what is left. It prints counts, and
ends with 1 if anything is mixed, lost or left behind, or if a refusal names nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: a process that forks has one thread

from phonenas.cli.app import main as command_line
from phonenas.data import MeasurementStore, files
from phonenas.search.checkpoint import read_checkpoint, run_digest
from phonenas.search.run_folder import RunFolder, load

__all__ = ["Tally", "main", "torture"]

_DEVICE = ("--device", "sim")
_SPACE = ("--space", "accel-nasbench", "--resolution", "32")
_PROFILE = ("profile", *_DEVICE, *_SPACE, "--networks", "12", "--quick")
_SEARCH = ("search", *_DEVICE, *_SPACE, "--model", "model.json", "--evaluations", "400")
_SEARCH += ("--accuracy", "surrogate")
_SEARCHES = [(*_SEARCH, "--seed", seed, "--out") for seed in ("1", "2", "3")]
_JOBS = [
    *((*s, "run") for s in _SEARCHES),
    ("validate", "run", *_DEVICE, "--model", "model.json", "--top", "2", "--rounds", "2"),
    (*_PROFILE, "--again"),
    ("report", "run"),
    ("fit", *_DEVICE, "--out", "again.model.json"),
]
_NAMED = re.compile(r"process (\d+) on \S+, since \S+, runs  ")
_UNNAMED = re.compile(r"another process works in|who it is was not written down yet")
_LONGEST_S = 300.0  # of one command, on a busy computer


@dataclass
class Tally:
    """What happened.

    Args:
        started, killed, done: Commands: all, those ended by SIGKILL, those that ended with 0.
        in_use, other_settings: Commands that were refused: with 1, since another process works
            there and is named; with 2, since the folder holds a run with other settings.
        unnamed: Those refused with 1 in the moment before the owner had written down who it is.
        not_yet: Commands that ended with 1 for lack of a finished run.
        batches: Of commands side by side, each examined afterwards.
        faults: What must not be, a sentence each.
    """

    started: int = 0
    killed: int = 0
    done: int = 0
    in_use: int = 0
    unnamed: int = 0
    other_settings: int = 0
    not_yet: int = 0
    batches: int = 0
    faults: list[str] = field(default_factory=list)


def _begin(words: tuple[str, ...], log: Path) -> int:
    """Fork a process that runs a command; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for descriptor in (1, 2):
            os.dup2(to, descriptor)
        sys.argv = ["phonenas", *words]
        command_line()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001 - a fault, which the log tells
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _ended(pid: int, limit_s: float) -> int | None:
    """The exit status once a process has ended, negative for a signal; None beyond the limit."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)  # nothing of a command that hangs runs on beside the next
    os.waitpid(pid, 0)
    return None


def _alone(tally: Tally, *words: str) -> None:
    """Run a command to its end, with nobody beside it."""
    log = Path("alone.log")
    if (code := _ended(_begin(words, log), _LONGEST_S)) != 0:
        tally.faults.append(f"{' '.join(words)} ended with {code}: {log.read_text()[-400:]}")


def _stored() -> tuple[int, int]:
    """How many measurements count in the store, and the rounds of these."""
    with MeasurementStore("phonenas.db", create=False) as store:
        all_ = [m for c in store.conditions() for m in store.measurements(c, all_series=True)]
    return len(all_), sum(len(m.rounds) for m in all_)


def _examine(tally: Tally, before: tuple[int, int]) -> tuple[int, int]:
    """Whether the folder is of one run, whole as if alone, and the store has lost nothing."""
    now = _stored()
    if now[0] < before[0] or now[1] < before[1]:
        tally.faults.append(f"lost: measurements and rounds were {before} and are {now}")
    path = Path("run/run.json")
    if not path.exists():
        return now
    settings = json.loads(path.read_text())["settings"]
    seed = str(settings["seed"])
    for file in ("run/validation.json", "run/run.json"):
        held = json.loads(Path(file).read_text()).get("run") if Path(file).exists() else None
        if held not in (None, run_digest(settings)):
            tally.faults.append(f"mixed: {file} is of the run {held}")
    stopped = read_checkpoint(Path("run"), settings)
    whole = load(f"alone{seed}")
    reference = whole.evaluations()
    if stopped is not None:
        n = len(stopped.evaluations)
        if not (stopped.evaluations.genomes == reference.genomes[:n]).all():
            tally.faults.append(f"mixed: the {n} networks are not those of seed {seed}")
    if json.loads(path.read_text())["complete"]:
        found = load("run")
        fronts = [[(c.id, c.block_args, c.latency_ms) for c in r.front] for r in (found, whole)]
        if fronts[0] != fronts[1]:
            tally.faults.append(f"mixed: the front is not that of seed {seed} alone")
    return now


def _count(tally: Tally, words: tuple[str, ...], code: int | None, log: Path) -> None:
    text = log.read_text() if log.exists() else ""
    what = f"{' '.join(words)} ended with {code}: {text[-400:]}"
    if code == 0:
        tally.done += 1
    elif code == -signal.SIGKILL:
        tally.killed += 1
    elif code == 1 and _NAMED.search(text):
        tally.in_use += 1
    elif code == 1 and _UNNAMED.search(text):
        tally.unnamed += 1
    elif code == 2 and "holds a run with other settings" in text:
        tally.other_settings += 1
    elif code in (1, 2) and ("there is no run in" in text or "stopped before its end" in text):
        tally.not_yet += 1
    else:
        tally.faults.append(what)
    if "Traceback" in text:
        tally.faults.append(what)


def torture(folder: Path, *, kills: int, processes: int, seed: int, wait_s: float = 0.5) -> Tally:
    """Start commands side by side in an empty folder until so many were killed.

    Args:
        folder: Becomes the working folder of this process.
        kills: At least so many processes are killed.
        processes: That work at once, ≥ 2.
        seed: Of the commands and the moments.
        wait_s: How long a command waits for another one's lock, in seconds.
    """
    chance, tally = random.Random(seed), Tally()
    os.chdir(folder)
    Path("devices.toml").write_text('[sim]\ntransport = "simulated"\naddress = "1"\n')
    Path("tmp").mkdir()
    os.environ |= {"TMPDIR": str(folder / "tmp"), "PHONENAS_DB": "phonenas.db"}
    tempfile.tempdir = None
    os.environ.pop("PHONENAS_DEVICES", None)
    files._LOCK_WAIT_S = wait_s
    RunFolder.due = lambda self: True  # type: ignore[method-assign]  # a checkpoint each time
    _alone(tally, *_PROFILE)
    _alone(tally, "fit", *_DEVICE, "--out", "model.json")
    for search in _SEARCHES:
        _alone(tally, *search, f"alone{search[-2]}")
    if tally.faults:
        return tally
    stored = _stored()
    while tally.killed < kills and not tally.faults:
        tally.batches += 1
        began = []
        for number in range(processes):
            words = chance.choice(_JOBS)
            log = Path(f"{number}.log")
            began.append((_begin(words, log), words, log))
            time.sleep(chance.uniform(0.0, 0.1))
        tally.started += processes
        victims = chance.sample(began, k=chance.randint(1, processes - 1))
        for pid, _, _ in victims:
            time.sleep(chance.uniform(0.0, 0.6))
            os.kill(pid, signal.SIGKILL)  # it is not waited for yet, so the id is its own
        for pid, words, log in began:
            code = _ended(pid, _LONGEST_S)
            _count(tally, words, code, log)
        stored = _examine(tally, stored)
        if Path("run/run.json").exists() and chance.random() < 0.5:
            for file in sorted(Path("run").rglob("*"), reverse=True):  # so that others begin one
                file.rmdir() if file.is_dir() else file.unlink()
    first = next((s for s in _SEARCHES if not Path("run/run.json").exists()), None)
    if first is None:
        own = str(json.loads(Path("run/run.json").read_text())["settings"]["seed"])
        first = next(s for s in _SEARCHES if s[-2] == own)
    _alone(tally, *first, "run")
    _alone(tally, *_PROFILE, "--again")
    _alone(tally, *_JOBS[3])
    _alone(tally, "report", "run")
    _examine(tally, stored)
    hidden = list(Path("run").rglob(".*"))
    left = [p.name for p in (*Path("tmp").glob("phonenas-job-*"), *hidden)]
    if left:
        tally.faults.append(f"left behind: {', '.join(left)}")
    return tally


def main() -> None:
    """Read the command line, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        tally = torture(Path(folder), kills=given.kills, processes=given.processes, seed=given.seed)
        os.chdir(home)
    for name, value in vars(tally).items():
        print(f"{name:>15}  {len(value) if name == 'faults' else value}")
    for fault in tally.faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
