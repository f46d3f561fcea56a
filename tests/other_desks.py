"""Runs phonenas where the parts that only Linux has are hidden: as on a Mac, or with Windows.

    python other_desks.py darwin|win32 COMMANDS.json

The file holds commands of phonenas, each a list of words. They run one after the other in this
process, and one line of JSON for each says its exit code and what it printed. For tests alone, and
as far as the standard library of Linux lets itself be hidden: what it needs itself is loaded first,
and what a system does with a call is what its documents and Python's say.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What is loaded before anything is hidden: it chooses its own way by the system once.
LOADED = [
    "asyncio",
    "concurrent.futures.process",
    "ctypes",
    "http.server",
    "multiprocessing.connection",
    "multiprocessing.context",
    "multiprocessing.popen_spawn_posix",
    "platform",
    "tarfile",
    "tempfile",
    "webbrowser",
    "lightgbm",
    "moocore",
    "msgspec",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "plotly.graph_objects",
    "pyarrow.parquet",
    "pymoo.core.problem",
    "rich.console",
    "rich.live",
    "rich.progress",
    "scipy.stats",
    "sklearn.linear_model",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "threadpoolctl",
    "typer",
    "yaml",
]
NOT_ON_A_MAC = {
    "os": "sched_setaffinity sched_getaffinity pidfd_open memfd_create copy_file_range splice "
    "posix_fadvise posix_fallocate fdatasync pipe2 eventfd",
    "resource": "RUSAGE_THREAD prlimit",
    "select": "epoll",
}
NOT_ON_WINDOWS = {
    "os": "fork forkpty killpg getpgid getpgrp setpgid setsid getsid getuid geteuid getgid getegid "
    "getlogin getgroups getloadavg uname fchmod fchown chown lchown chroot mkfifo mknod nice "
    "getpriority sync wait wait3 wait4 waitid sysconf confstr pread pwrite "
    "ttyname ctermid fchdir posix_spawn O_NONBLOCK O_DIRECTORY O_CLOEXEC O_NOFOLLOW O_SYNC "
    "O_NOCTTY",
    "signal": "SIGKILL SIGALRM SIGHUP SIGUSR1 SIGUSR2 SIGSTOP SIGCONT SIGCHLD SIGQUIT SIGPIPE "
    "SIGTSTP alarm setitimer getitimer pause pthread_sigmask pthread_kill sigwait siginterrupt",
    "select": "poll",
    "socket": "AF_UNIX socketpair",
    "time": "clock_gettime pthread_getcpuclockid tzset",
}
NO_MODULES = ["fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"]


def hide(system: str) -> None:
    """Take away what Linux alone has; with "win32" also what a Mac has and Windows has not.

    Args:
        system: As `sys.platform` is to say: "darwin" or "win32".
    """
    for name in LOADED:
        importlib.import_module(name)
    for name in ("torch", "PIL.Image", "safetensors", "ai_edge_litert.interpreter", "flatbuffers"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # It has a way of its own for each system, which looks into the system's loader.
    importlib.import_module("threadpoolctl").ThreadpoolController._load_libraries = lambda _: None
    _without(NOT_ON_A_MAC)
    _no_folder_of_the_kernel()
    if system == "darwin":
        _limits_of_a_mac()
    else:
        _as_windows_does()
        _without(NOT_ON_WINDOWS)
        for name in NO_MODULES:
            sys.modules[name] = None  # type: ignore[assignment]  # so that its import fails
    sys.platform = system


def _without(names: dict[str, str]) -> None:
    for module, words in names.items():
        for word in words.split():
            with contextlib.suppress(AttributeError):
                delattr(importlib.import_module(module), word)


def _no_folder_of_the_kernel() -> None:
    """Nothing of /proc and /sys is there."""

    def checked(plain: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any, *more: Any, **named: Any) -> Any:
            text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
            if isinstance(text, str) and text.startswith(("/proc/", "/sys/")):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", text)
            return plain(path, *more, **named)

        return ask

    builtins.open = io.open = checked(io.open)
    for name in ("open", "stat", "listdir", "scandir", "readlink", "access"):
        setattr(os, name, checked(getattr(os, name)))


def _limits_of_a_mac() -> None:
    import resource

    plain = resource.setrlimit

    def limited(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        plain(kind, limits)

    resource.setrlimit = limited


def _as_windows_does() -> None:
    """What Windows has too, and does otherwise."""
    kill, fsync, opened = os.kill, os.fsync, os.open

    def no_right(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    def kill_process(pid: int, how: int) -> None:
        raise AssertionError(f"os.kill({pid}, {how}) ends a process with Windows, whatever it is")

    def flush(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        import_flags = flags_of(number)
        if import_flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(number)

    def open_file(path: Any, *more: Any, **named: Any) -> int:
        if isinstance(path, str | os.PathLike) and Path(os.fspath(path)).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return int(opened(path, *more, **named))

    import fcntl

    get_flags = fcntl.F_GETFL
    control = fcntl.fcntl

    def flags_of(number: int) -> int:
        return control(number, get_flags)

    os.symlink = no_right  # type: ignore[assignment]
    os.kill = kill_process
    os.fsync = flush
    os.open = open_file
    register = selectors.DefaultSelector.register

    def only_sockets(self: Any, file: Any, events: int, data: Any = None) -> Any:
        number = file if isinstance(file, int) else file.fileno()
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(10038, "An operation was attempted on something that is not a socket")
        return register(self, file, events, data)

    selectors.DefaultSelector.register = only_sockets  # type: ignore[method-assign]
    begin, killed = subprocess.Popen.__init__, signal.SIGKILL

    def begun(self: Any, *more: Any, **named: Any) -> None:
        assert not named.get("pass_fds"), "pass_fds not supported on Windows."
        begin(self, *more, **named)

    def ended(self: Any) -> None:
        if self.poll() is None:
            kill(self.pid, killed)

    subprocess.Popen.__init__ = begun  # type: ignore[method-assign]
    subprocess.Popen.kill = subprocess.Popen.terminate = ended  # type: ignore[method-assign]
    os.O_BINARY = 0  # type: ignore[attr-defined]


def every_module() -> list[str]:
    """Import all of phonenas; those that cannot be, each with its error."""
    import phonenas

    failed = []
    for module in pkgutil.walk_packages(phonenas.__path__, "phonenas."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except Exception as error:  # noqa: BLE001 - told by the test
                failed.append(f"{module.name}: {error!r}")
    return failed


def run(words: list[str]) -> dict[str, Any]:
    """One command in this process: its exit code, what it printed, and a traceback."""
    from phonenas.cli import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["phonenas", *words]
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as error:
            code = error.code
        except BaseException:  # noqa: BLE001 - told by the test
            code = traceback.format_exc()
    return {"command": words, "code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    hide(sys.argv[1])
    for words in asked:
        result = {"failed": every_module()} if words == ["import"] else run(words)
        print(json.dumps(result), flush=True)
