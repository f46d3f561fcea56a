"""Locks on files and folders: one process at a time, and what a disk without locks does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

from phonenas.data import files
from phonenas.space.errors import StoreError


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_has_a_lock_at_a_time(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    path = tmp_path / "one"
    if kind == "folder":
        path.mkdir()
    first = files.Lock(path)
    assert first.error is None and os.fstat(first.fileno()).st_ino == path.stat().st_ino
    with pytest.raises(BlockingIOError):
        files.Lock(path)
    first.close()
    first.close()
    files.Lock(path).close()
    assert [p.name for p in tmp_path.rglob("*")] == ["one"]


def test_a_child_that_inherits_a_lock_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    lock = files.Lock(tmp_path)
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(lock.fileno(),)) as child:
        lock.close()
        with pytest.raises(BlockingIOError):
            files.Lock(tmp_path)
        child.communicate(b"\n")
    files.Lock(tmp_path).close()


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock = files.Lock(tmp_path)
    assert lock.error is not None and lock.error.strerror == "No locks available"
    lock.close()
    with pytest.raises(FileNotFoundError):
        files.Lock(tmp_path / "no" / "folder")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_that_was_replaced_before_it_was_locked_is_opened_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    path, plain, calls = tmp_path / "one", fcntl.flock, list[int]()
    make = path.mkdir if kind == "folder" else path.touch
    make()

    def slow(descriptor: int, how: int) -> None:
        """Before the first and the second time another process removes it and makes it anew."""
        calls.append(descriptor)
        if len(calls) <= replaced:
            path.rename(tmp_path / f"was{len(calls)}")
            make()
        plain(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    replaced = 2
    with files.Lock(path) as lock:
        assert len(calls) == 3
        assert os.path.samestat(os.fstat(lock.fileno()), path.stat())
        note = path / ".phonenas-owner" if kind == "folder" else path
        assert f'"pid": {os.getpid()}' in note.read_text()
    replaced = 10**6
    with pytest.raises(FileNotFoundError, match="remove it again and again"):
        files.Lock(path)
    assert len(calls) == 13


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_note_that_is_no_regular_file_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    note, other = tmp_path / "r" / ".phonenas-owner", tmp_path / "other.txt"
    note.parent.mkdir()
    other.write_text("of somebody else")
    if kind == "pipe":
        os.mkfifo(note)
    else:
        note.symlink_to(other)
    code = "import sys, pathlib; from phonenas.data import files; path = pathlib.Path(sys.argv[1]);"
    code += " print(files.owner(path / '.phonenas-owner')); files.lock_folder(path)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(note.parent)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "who it is was not written down yet\n"
    assert (
        f"StoreError: {note.parent} cannot be worked in: {note} is no regular file" in done.stderr
    )
    assert "Remove it" in done.stderr
    assert note.is_fifo() if kind == "pipe" else note.is_symlink()
    assert other.read_text() == "of somebody else"


def test_an_output_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code = "import sys, pathlib; from phonenas.data import files; "
    code += "files.refuse_other(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipe")], check=True, timeout=PATIENCE_S
    )


@pytest.mark.parametrize("text", ["", "[]", "7", '{"pid": Infinity}', '{"pid": NaN}', "[" * 10**5])
def test_a_note_that_cannot_be_read_is_no_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "note").write_text(text)
    assert files.owner(tmp_path / "note") == "who it is was not written down yet"


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StoreError, match="is no regular file"):
            files.write_atomic(path, "text")
    assert (tmp_path / "pipe").is_fifo() and tmp_path.is_dir()
