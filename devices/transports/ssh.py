"""`ssh`: Termux, boards and Linux computers, by OpenSSH's own program.

The user's configuration, keys and known hosts are used, and an unknown host key is never accepted:
in BatchMode what OpenSSH would ask about is an error. One master connection is opened and the
commands share it (6 ms a command instead of 200). Windows's OpenSSH cannot share one: there each
command connects by itself.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from phonenas.data.files import TemporaryFolder
from phonenas.space.errors import DeviceError, DeviceUnavailable, PhonenasError

from ..settings import DeviceSettings
from ..system.device_text import plain
from .base import FOLDER, SWEEP_S, Answer, Marked, Transport, bounded, how_to_install, sweep
from .process import NEW_GROUP, Process

__all__ = ["SshTransport"]

_CONNECT_S = 10
_SHORT_S = 15.0
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={_CONNECT_S}",
    "ServerAliveInterval=2",
    "ServerAliveCountMax=3",
)
# What OpenSSH prints, and what to do about it.
_ADVICE = (
    (
        r"IDENTIFICATION HAS CHANGED",
        "its host key has changed. Do not trust it unless you know why (it was set up again). If "
        "you do, remove the old one and connect once by hand:  ssh-keygen KEY && ssh HOST",
    ),
    (
        r"Host key verification failed",
        "its host key is not known yet. Connect once by hand, compare the key, and accept it:  "
        "ssh HOST",
    ),
    (r"Permission denied", "it does not know your key. Copy it there:  ssh-copy-id HOST"),
    (r"Could not resolve", "no host has this name. Correct its address in devices.toml"),
    (
        r"Connection refused",
        "nothing listens on that port. Start sshd on it (Termux:  sshd, port 8022)",
    ),
    (r"timed out|No route|unreachable|not responding", "it is off, asleep or in another network"),
)


def _connections_are_shared() -> bool:
    return sys.platform != "win32"


class SshTransport(Transport):
    """One host that OpenSSH reaches; see `Transport` for the lifetime.

    Args:
        name: Of the device.
        host: As for `ssh`: a host, USER@HOST, or a name in the user's configuration.
        port: Instead of the configuration's.
        config: A configuration file instead of the user's own.
    """

    kind = "ssh"

    def __init__(
        self, name: str, host: str, port: int | None = None, config: Path | None = None
    ) -> None:
        self.name, self.host, self.port = name, host, port
        self.config = config
        self.folder = ""
        self._sockets: TemporaryFolder | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    @classmethod
    def from_settings(cls, settings: DeviceSettings) -> SshTransport:
        config = Path(settings.config).expanduser() if settings.config else None
        return cls(settings.name, settings.address, settings.port, config)

    @property
    def address(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def _reached_by(self) -> list[str]:
        config = [] if self.config is None else ["-F", str(self.config)]
        return config + ([] if self.port is None else ["-p", str(self.port)])

    def _ssh(self, *options: str) -> list[str]:
        # OpenSSH uses the first value of an option.
        given = [x for option in (*options, *_OPTIONS) for x in ("-o", option)]
        return ["ssh", *self._reached_by, *given]

    def _shared(self) -> list[str]:
        """Only through the master: without it the command fails at once."""
        if self._sockets is None:
            raise DeviceUnavailable(f"{self.name} is not open")
        if not _connections_are_shared():
            return self._ssh("ControlPath=none")
        return self._ssh(self._control_path, "ControlMaster=no", "ProxyCommand=false")

    @property
    def _control_path(self) -> str:
        """Short, as a socket's path must be, and quoted for OpenSSH's options."""
        assert self._sockets is not None
        return f'ControlPath="{str(self._sockets.path).replace("%", "%%")}/c"'

    def open(self) -> None:
        self._sockets = TemporaryFolder()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            if _connections_are_shared():
                self._begin_master()
            answer = self.run(["sh", "-c", FOLDER], limit_s=_SHORT_S)
            folder = answer.output.strip().rpartition("\n")[2]  # after a shell's greeting
            if answer.code or not folder.startswith("/"):
                raise DeviceError(
                    f"{self.name}: no folder can be made on it: {answer.last_line}. Free some "
                    "space in its temporary folder."
                )
            self.folder = folder
        except BaseException:
            self.close()
            raise

    def _begin_master(self) -> None:
        command = self._ssh(self._control_path, "ControlMaster=yes", "ControlPersist=no")
        try:
            self._master = subprocess.Popen(
                # It ends with its input, so also when this process is killed.
                [*command, "-T", "--", self.host, "exec cat >/dev/null"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                creationflags=NEW_GROUP,
            )
        except OSError as error:
            raise DeviceUnavailable(
                f"{self.name}: ssh cannot be started: {error}. Install it:  {how_to_install('ssh')}"
            ) from error
        self._await_master()

    def _await_master(self) -> None:
        assert self._master is not None and self._sockets is not None
        deadline = time.monotonic() + _CONNECT_S + 5
        while time.monotonic() < deadline:
            if self._master.poll() is not None:
                raise DeviceUnavailable(f"{self.name}: {self._trouble()}")
            if (self._sockets.path / "c").exists():
                return
            time.sleep(0.01)
        raise DeviceUnavailable(
            f"{self.name}: no connection to {self.host} within {_CONNECT_S} s: it is off, asleep "
            "or in another network."
        )

    def _trouble(self, more: str = "") -> str:
        """What OpenSSH printed, and what to do."""
        text = more
        if self._errors is not None:
            self._errors.seek(0)
            text = self._errors.read(1 << 16).decode("utf-8", errors="replace") + more
        # "UNKNOWN port" only says that there is no master any more.
        lines = [x for x in text.splitlines() if x.strip(" @\r") and "UNKNOWN port" not in x]
        line = plain(lines[-1]) if lines else "the connection ended"
        advice = next((a for p, a in _ADVICE if re.search(p, text)), "try it by hand:  ssh HOST")
        known_as = re.search(r"Host key for (\S+) has changed", text)
        file = re.search(r"Offending \S+ key in (.+):\d+", text)
        forget = ["-f", file[1]] if file else []
        forget += ["-R", known_as[1] if known_as else self.host.rpartition("@")[2]]
        for name, words in (("HOST", [*self._reached_by, self.host]), ("KEY", forget)):
            advice = advice.replace(name, plain(shlex.join(words), 400))
        return f"ssh {self.address}: {line.rstrip('.')}: {advice}"

    def close(self) -> None:
        folder, self.folder = self.folder, ""
        alone = self._master is None and not _connections_are_shared()
        if folder and (alone or (self._master is not None and self._master.poll() is None)):
            with contextlib.suppress(PhonenasError):
                self.run(sweep(folder), limit_s=SWEEP_S)
        master, self._master = self._master, None
        if master is not None:
            assert master.stdin is not None
            master.stdin.close()
            master.terminate()
            try:
                master.wait(timeout=5)
            except subprocess.TimeoutExpired:
                master.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    master.wait(timeout=5)
        if self._errors is not None:
            self._errors.close()
            self._errors = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        return self._run(command, limit_s, None)

    def _run(self, command: Sequence[str], limit_s: float, data: bytes | None) -> Answer:
        marked = Marked(command)
        ssh = [*self._shared(), *(["-n"] if data is None else []), "--", self.host, marked.line]
        raw = bounded(self.name, ssh, limit_s=limit_s, data=data)
        answer = marked.read(raw.output, raw.errors)
        if answer is None:
            raise DeviceUnavailable(
                f"{self.name} was lost in mid-command; the same command continues from there. "
                f"{self._trouble(raw.errors)}"
            )
        return answer

    def spawn(self, command: Sequence[str]) -> Process:
        line = shlex.join(command)
        return Process(
            self.name, [*self._shared(), "--", self.host, line], beat=True, keep_open=self.keep_open
        )

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        if not files:
            return []
        packed = io.BytesIO()
        # A file of a user's is linked here: what it leads to is sent.
        with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
            for file in files:
                archive.add(file, arcname=file.name, recursive=False)
        command = ["tar", "-xf", "-", "-o", "-C", self.folder]
        answer = self._run(command, limit_s, packed.getvalue())
        if answer.code:
            raise DeviceError(
                f"{self.name} takes no more files: {answer.last_line}. Free some space in "
                f"{self.folder}."
            )
        return [f"{self.folder}/{f.name}" for f in files]

    def state(self) -> tuple[str, str]:
        # With short limits: a list has many devices.
        ssh = [*self._ssh("ConnectTimeout=3", "ControlPath=none"), "-n", "--", self.host, "true"]
        try:
            answer = bounded(self.name, ssh, limit_s=8)
        except PhonenasError as error:
            return "unreachable", str(error)
        return ("ready", "") if answer.code == 0 else ("unreachable", self._trouble(answer.errors))
