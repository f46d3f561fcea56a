"""Files written whole or not at all, and locks on files and folders, which tell who has them."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import re
import shlex
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from phonenas.space.errors import StoreError
from phonenas.space.naming import without_password

__all__ = [
    "Lock",
    "TemporaryFolder",
    "at_work",
    "lock_folder",
    "refuse_other",
    "remove_unfinished",
    "write_atomic",
]

log = logging.getLogger("phonenas")

_LOCK_WAIT_S = 15.0  # a process that was just killed takes a moment to end
_TELL_S = 1.0  # of waiting, before whoever waits is told
_OWNER = ".phonenas-owner"  # in a locked folder: who has it
_ENDED = " has ended, and a process that it began has not yet"
_TEMPORARY = "phonenas-job-"
_TRIES = 10  # to make, or lock, a folder that another process removes meanwhile
_OF_A_RUN = ("checkpoint.npz", "evaluations.parquet", "log.csv")
_LONGEST = 300  # characters of a command, and of what a note may hold in each field


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> Path:
    """Write a file beside its place, then move it there: readers see the old or the new one.

    Args:
        path: Where; its folder is made if it is not there.
        content: Bytes, text (UTF-8), or a function that writes to the path it is given.
    Raises:
        StoreError: The folder or the disk does not take it (full, read-only); the older file
            stays whole.
    """
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is no regular file, and is left as it is. Choose another place.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        beside = Path(name)
        try:
            if callable(content):
                content(beside)
            else:
                beside.write_bytes(content.encode() if isinstance(content, str) else content)
            with beside.open("r+b") as written:  # Windows flushes only what may be written
                os.fsync(written.fileno())
            beside.chmod(0o644)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise StoreError(
                f"{path} cannot be written: a folder above it is a file. Choose another place."
            ) from error
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. The older file, if there was "
            "one, is whole. Free the disk or choose another place, then give the command again."
        ) from error
    return path


def refuse_other(path: Path, own: str = "", *, alone: bool = False) -> None:
    """Refuse to replace a file of phonenas of another kind, which a user named for an output.

    Args:
        path: The output; nothing need be there.
        own: The format that may be replaced, as its "format" says; "" for none of ours.
        alone: Whether that format alone may be replaced, and an empty file.
    Raises:
        StoreError: What is there stays as it is.
    """
    try:
        if not path.is_file():  # to open a pipe would wait for its writer
            return
        with path.open("rb") as file:
            start = file.read(256)
    except OSError:  # what `write_atomic` tells
        return
    found = re.match(rb'\s*{\s*"format":\s*"(phonenas[^"]*)"', start)
    ours = found is not None or start.startswith(b"SQLite format 3\0")
    ours = ours or (path.name in _OF_A_RUN and (path.parent / "run.json").exists())
    is_own = bool(own) and found is not None and found[1].decode(errors="replace") == own
    if start and not is_own and (ours or alone):
        what = found[1].decode(errors="replace") if found else "no output of this command"
        raise StoreError(
            f"{path} is there already ({what}), and is not overwritten. Choose another --out, or "
            "move it away."
        )


class Lock:
    """The exclusive lock of a file or folder, until this process and each child close it.

    A folder is locked itself; while it is, a hidden file in it says who has it. In a locked file
    its own text does. On a system without file locks (Windows) nothing is locked, which is told.

    Args:
        path: A folder, or a file, which is made if it is not there.
    Attributes:
        error: Why the disk cannot lock `path`; None where it can.
    Raises:
        BlockingIOError: Another process had it for longer than 15 s; its `strerror` says which
            process that is, where, since when, and what it runs.
        FileExistsError: A pipe or the like stands where its note belongs: to open that would wait.
        OSError: The path cannot be opened, or is removed again and again.
    """

    def __init__(self, path: Path) -> None:
        folder = path.is_dir()
        self._path, self._note = path, path / _OWNER if folder else path
        self._descriptor = self._process = -1  # the process whose note it is
        self.error: OSError | None = None
        if not _locks():
            _tell_no_locks()
            if not folder:
                path.touch()
            self._write_note()
            return
        self._flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
        self._descriptor = os.open(path, self._flags, 0o644)
        try:
            refuse_special(self._note)
            for _ in range(_TRIES):
                self._take()
                if self._is_there():
                    return
                # Removed, or replaced, before it was locked.
                os.close(self._descriptor)
                self._descriptor = -1
                self._descriptor = os.open(path, self._flags, 0o644)
            raise FileNotFoundError(errno.ENOENT, "other processes remove it again and again")
        except (BlockingIOError, FileNotFoundError, FileExistsError):
            self.close()
            raise
        except OSError as error:
            self.error = error

    def _take(self) -> None:
        began, told = time.monotonic(), False
        while True:
            try:
                _lock_now(self._descriptor)
                break
            except BlockingIOError as error:
                waited = time.monotonic() - began
                if waited > _LOCK_WAIT_S:
                    raise BlockingIOError(errno.EWOULDBLOCK, owner(self._note)) from error
                if waited > _TELL_S and not told:
                    told = True
                    log.warning("waiting: %s", owner(self._note))
            time.sleep(0.1)

    def _is_there(self) -> bool:
        """Whether what is locked is what now stands at the path; then the note is written."""
        there = False
        with contextlib.suppress(FileNotFoundError):
            there = os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        if there:
            self._write_note()
        return there

    def _write_note(self) -> None:
        refuse_special(self._note)
        self._process = os.getpid()
        with contextlib.suppress(OSError):  # as where the folder is read-only
            self._note.write_text(json.dumps(_this_process()), encoding="utf-8")

    def fileno(self) -> int:
        """The descriptor, for children that are to share the lock; -1 without file locks."""
        return self._descriptor

    def close(self) -> None:
        """Release it; without effect the second time."""
        if self._note.name == _OWNER and self._process == os.getpid() and self.error is None:
            with contextlib.suppress(OSError):
                self._note.unlink(missing_ok=True)
        self._process = -1
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):  # unless the path could not be opened
            self.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class TemporaryFolder:
    """A folder for temporary files, locked as long as this process has it.

    Lifetime: made empty; `close`, or leaving it as a context, removes it. Each time, the folders
    that processes of this account left when they were killed are removed too.

    Attributes:
        path: Of the folder.
    Raises:
        StoreError: No folder can be made.
    """

    def __init__(self) -> None:
        sweep_temporary()
        for _ in range(_TRIES):
            try:
                self.path = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
            except OSError as error:
                raise StoreError(
                    f"no temporary folder can be made in {tempfile.gettempdir()}: "
                    f"{error.strerror or error}. Free the disk, or set TMPDIR to another folder."
                ) from error
            with contextlib.suppress(OSError):  # another process just took it for one left behind
                self._lock = _try_lock(self.path)
                return
        raise StoreError(f"no folder in {tempfile.gettempdir()} stays. Set TMPDIR to another one.")

    def close(self) -> None:
        """Remove it; without effect the second time."""
        if self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            sweep_temporary()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def sweep_temporary() -> None:
    """Remove the temporary folders of processes of this account that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            mine = not hasattr(os, "getuid") or about.st_uid == os.getuid()
            if mine and stat.S_ISDIR(about.st_mode) and (lock := _try_lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _try_lock(folder: Path) -> int | None:
    """The descriptor of a folder, locked now; None where there are no file locks.

    Raises:
        OSError: Another process has it, or removed it.
    """
    if not _locks():
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock_now(descriptor)
        folder.stat()  # it may have been removed before it was locked
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            raise
        return None  # a disk without locks
    return descriptor


def _locks() -> bool:
    """Whether this system has file locks."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def _tell_no_locks() -> None:
    log.warning(
        "this system has no file locks: let no two commands use one folder or device at once"
    )


def _lock_now(descriptor: int) -> None:
    """Lock an open file or folder; BlockingIOError if another process has it."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_folder(folder: Path) -> Lock:
    """Keep other processes out of a folder, until the returned lock is closed or this process ends.

    Args:
        folder: It is made if it is not there.
    Raises:
        StoreError: Another process has it for longer than 15 s, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
    except BlockingIOError as error:
        raise StoreError(
            f"another process works in {folder}: {error.strerror}. Wait for it, then give the "
            "command again; or choose another --out."
        ) from error
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be worked in: {error.strerror or error}. Choose another --out."
        ) from error
    if lock.error is not None:
        log.warning(
            "%s is not locked, for its disk has no locks (%s): start nothing else in it",
            folder,
            lock.error.strerror or lock.error,
        )
    return lock


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files of a process that was killed while it wrote; the folder is locked.

    Args:
        folder: In which files are written by `write_atomic`.
        names: Of those files.
    """
    for name in names:
        for file in folder.glob(f".{name}.????????"):
            with contextlib.suppress(OSError):  # as where the folder is read-only
                file.unlink(missing_ok=True)


def _this_process() -> dict[str, str | int]:
    name = Path(sys.argv[0]).name if sys.argv else ""
    words = ["phonenas" if name == "__main__.py" else name, *sys.argv[1:]]
    command = shlex.join(map(without_password, words))
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "began": _began(os.getpid()),
        "command": command if len(command) <= _LONGEST else f"{command[: _LONGEST - 1]}…",
    }


def refuse_special(note: Path) -> None:
    """Refuse a note that is a link, a pipe or a device.

    Raises:
        FileExistsError: So it is.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(note.lstat().st_mode):
            raise FileExistsError(
                errno.EEXIST, f"{note} is no regular file; it holds who works there. Remove it"
            )


def owner(note: Path) -> str:
    """Who has the lock that a note belongs to, for people; notes of processes that ended say so."""
    return _read_note(note)[2]


def _read_note(note: Path) -> tuple[bool | None, str, str]:
    """Whether a note's process works (None: not known here), its host, and all that for people."""
    try:
        refuse_special(note)
        values = json.loads(note.read_text(encoding="utf-8"))
        pid = int(values["pid"])
        host, since, command = (_printable(values[k]) for k in ("host", "since", "command"))
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return False, "", "who it is was not written down yet"
    # On Windows os.kill would end the process that it is to look for.
    here = host == socket.gethostname() and sys.platform != "win32"
    works = not _gone(pid, str(values.get("began", ""))) if here else None
    told = f"process {pid} on {host}, since {since}, runs  {command}"
    return works, host, told + (_ENDED if works is False else "")


def at_work(folder: Path) -> tuple[bool | None, str]:
    """Whether a process works in a folder now, and which, for people; "" where none does.

    The folder's lock is not touched: to try it would keep its owner out. So it is not known (None)
    of a process of another computer, or on Windows: it may have been killed.
    """
    works, host, told = _read_note(folder / _OWNER)
    if works is None:
        return None, f"begun on {host}; whether it still works is not known here"
    return works, told if works else ""


def _printable(text: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text)[:_LONGEST])


def _gone(pid: int, began: str) -> bool:
    """Whether a process of this computer has ended, also where a later one has its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return bool(began) and _began(pid) not in ("", began)


def _began(pid: int) -> str:
    """When a process began, as Linux counts it; "" where that is not told."""
    try:
        about = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return about.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
