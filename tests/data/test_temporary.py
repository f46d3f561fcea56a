"""Temporary folders: removed with their owner, and after a kill by whoever comes next."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from phonenas.data import files
from phonenas.data.files import TemporaryFolder

KEEP = """
from phonenas.data.files import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "model.onnx").write_bytes(b"x" * 1000)
print(folder.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def names(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir())


def test_what_a_killed_job_left_goes_and_what_a_live_one_has_stays(
    place: Path, environment: dict[str, str]
) -> None:
    (place / "phonenas-1000-abc.lock").touch()
    (place / "phonenas-job-a file").touch()
    (place / "somebody-else").mkdir()
    others = ["phonenas-1000-abc.lock", "phonenas-job-a file", "somebody-else"]
    environment |= {"TMPDIR": str(place)}
    with subprocess.Popen(
        [sys.executable, "-c", KEEP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as job:
        assert job.stdout is not None
        its = Path(job.stdout.readline().strip())
        with TemporaryFolder() as mine:
            assert names(place) == sorted([*others, its.name, mine.name])
            assert (its / "model.onnx").exists()
        assert names(place) == sorted([*others, its.name])
        job.kill()
        job.wait()
        assert its.exists()
        with TemporaryFolder() as mine:
            assert names(place) == sorted([*others, mine.name])
    assert names(place) == others


def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], tempfile.mkdtemp

    def swept(*words: str, **named: str) -> str:
        path = real(*words, **named)
        made.append(path)
        if len(made) == 1:
            files.sweep_temporary()
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with TemporaryFolder() as mine:
        assert str(mine) == made[1] and names(place) == [mine.name]


def test_a_disk_without_locks_has_folders_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with TemporaryFolder() as first, TemporaryFolder() as second:
        assert names(place) == sorted([first.name, second.name])
    assert names(place) == []
