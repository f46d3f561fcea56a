"""Several processes and one run folder: one works, the others are told who."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.data import files
from phonenas.latency_model import LatencyModel
from phonenas.report import write_report
from phonenas.search.accuracy import Surrogate
from phonenas.search.run_folder import RunFolder, load, lock_run
from phonenas.search.validation.validation_file import earlier
from phonenas.space.errors import SettingsChanged, StoreError, UnsupportedFormat

OTHER = "import sys\nfrom phonenas.data.files import Lock\nfrom pathlib import Path\n"
OTHER += "lock = Lock(Path(sys.argv[1]))\nprint('it is mine', flush=True)\ninput()\n"


def go(fitted: LatencyModel, into: Path, seed: int = 0) -> search.Searched:
    return search.search(
        TinySpace(resolution=32),
        latency=fitted,
        accuracy=Surrogate(),
        strategy=search.get("random", seed=seed),
        evaluations=40,
        into=into,
    )


@pytest.fixture
def owner(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """The process that has the lock of the folder r."""
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    (tmp_path / "r").mkdir()
    words = [sys.executable, "-c", OTHER, str(tmp_path / "r"), "--db", "postgresql://a:hush@b/c"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout is not None and b"mine" in other.stdout.readline()
        yield other.pid
        other.kill()


@pytest.mark.fault(
    "Another process works in the folder of a run or a training.",
    "`another process works in …: process … on …, since …, runs  …`; exit code 1, after 15 s",
    "Wait for it, or choose another --out.",
)
def test_whoever_works_in_a_folder_is_named_without_a_password(
    fitted: LatencyModel, owner: int, tmp_path: Path
) -> None:
    with pytest.raises(StoreError) as caught:
        go(fitted, tmp_path / "r")
    told = str(caught.value)
    host = re.escape(os.uname().nodename)
    since = r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert re.search(rf"process {owner} on {host}, {since}, runs  ", told)
    assert "postgresql://a:***@b/c" in told and "hush" not in told
    assert not (tmp_path / "r" / "run.json").exists()


@pytest.mark.fault(
    "A search is begun in the folder of another one, which has only begun.",
    "`holds a run with other settings: seed was 0 and is now 1`; exit code 2",
    "Choose another --out.",
)
def test_a_search_with_other_settings_is_refused_while_the_first_has_only_begun(
    fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    go(fitted, tmp_path / "whole")
    settings = json.loads((tmp_path / "whole" / "run.json").read_text())["settings"]
    with RunFolder(tmp_path / "r", settings):
        with pytest.raises(SettingsChanged, match="seed was 0 and is now 1"):
            go(fitted, tmp_path / "r", seed=1)
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            go(fitted, tmp_path / "r")
    # Killed before anything was evaluated, it is still a run of those settings.
    with pytest.raises(SettingsChanged, match="seed was 0 and is now 1"):
        go(fitted, tmp_path / "r", seed=1)
    front = go(fitted, tmp_path / "r").front
    assert [c.block_args for c in front] == [c.block_args for c in load(tmp_path / "whole").front]


def test_every_writer_of_a_run_is_kept_out(
    fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    go(fitted, tmp_path / "r")
    run = load(tmp_path / "r", TinySpace(resolution=32))
    shutil.copytree(run.path, run.path / "round2")
    with lock_run(run.path):
        for work in (
            lambda: write_report(run.path),
            lambda: run.write_networks(),
            lambda: lock_run(run.path / "round2"),  # a round belongs to its run
        ):
            with pytest.raises(StoreError, match="another process works in"):
                work()
        write_report(run.path, tmp_path / "elsewhere.html")
        assert go(fitted, tmp_path / "r").evaluations == 40  # a finished run is only read
    assert not [p.name for p in run.path.rglob(".*")]
    write_report(run.path)


def test_a_training_that_began_while_a_search_waited_is_left_alone(
    fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phonenas.search import run_folder

    plain = run_folder.lock_run

    def waited(path: Path) -> files.Lock:
        lock = plain(path)
        (path / "result.json").write_text("{}")
        return lock

    monkeypatch.setattr(run_folder, "lock_run", waited)
    with pytest.raises(StoreError, match="holds a training"):
        go(fitted, tmp_path / "r")
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["result.json"]


@pytest.mark.fault(
    "Files of two runs lie in one folder.",
    "`checkpoint.npz is of another run (settings …) than the run.json of its folder`",
    "Search again, with another --out.",
)
def test_files_of_two_runs_are_never_read_as_one(fitted: LatencyModel, tmp_path: Path) -> None:
    for seed in (0, 1):
        go(fitted, tmp_path / f"r{seed}", seed)
    mine, others = tmp_path / "r0", tmp_path / "r1"
    run = load(mine, TinySpace(resolution=32))
    other = json.loads((others / "run.json").read_text())["run"]
    shutil.copy(others / "checkpoint.npz", mine)
    with pytest.raises(UnsupportedFormat, match=rf"checkpoint.npz is of another run .*{other}"):
        run.evaluations()
    (mine / "checkpoint.npz").unlink()
    document = {"format": "phonenas-validation", "version": 1, "run": other, "networks": []}
    (mine / "validation.json").write_text(json.dumps(document))
    for read in (lambda: earlier(mine / "validation.json", run, fitted.conditions),):
        with pytest.raises(UnsupportedFormat, match="validation.json is of another run"):
            read()
    changed = json.loads((mine / "run.json").read_text())
    changed["settings"]["seed"] = 1
    (mine / "run.json").write_text(json.dumps(changed))
    with pytest.raises(UnsupportedFormat, match="damaged"):
        load(mine)


@pytest.mark.fault(
    "A latency model is fitted again before a stopped search goes on.",
    "`The latency model was fitted again since; that of the run:  --model …`",
    "Give the search that model.",
)
def test_a_run_keeps_its_model(fitted: LatencyModel, tmp_path: Path) -> None:
    go(fitted, tmp_path / "r")
    kept = load(tmp_path / "r").latency_model
    assert kept is not None and kept.digest == fitted.digest and kept.last == fitted.last
    with pytest.raises(SettingsChanged, match=r"--model \S*/r/model.json"):
        go(fitted.scaled(1.1), tmp_path / "r")
    fitted.scaled(1.2).save(tmp_path / "new" / "model.json")
    with pytest.raises(StoreError, match="another latency model than the one that predicts"):
        go(fitted, tmp_path / "new")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.json"]


def test_what_a_killed_writer_left_beside_its_file_goes(
    fitted: LatencyModel, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".checkpoint.npz.abcdefgh").write_bytes(b"half")
    go(fitted, tmp_path / "r")
    assert not [p.name for p in (tmp_path / "r").glob(".*")]
    assert np.load(tmp_path / "r" / "checkpoint.npz")["genomes"].shape[0] == 40
