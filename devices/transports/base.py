"""The Transport contract: run programs on a device, copy files to it, exchange lines with it.

A transport knows nothing of models or times; a runtime knows nothing of cables. Commands are
argument lists; if a shell runs them, the transport quotes them. Every command ends with a marker
that carries its exit code: without the marker the device was lost, whatever the local program
returned.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from phonenas.space.errors import DeviceError, DeviceUnavailable

from ..settings import DeviceSettings
from ..system.device_text import plain
from .process import HUNG, NEW_GROUP, Process

__all__ = [
    "FOLDER",
    "SWEEP_S",
    "Answer",
    "Marked",
    "Transport",
    "bounded",
    "ending",
    "how_to_install",
    "sweep",
    "watched",
]

# Makes a new folder where programs may be stored and run, and removes those that killed jobs left
# a day ago or earlier. Nothing from outside is inserted.
FOLDER = """
for place in /data/local/tmp "${TMPDIR:-/tmp}" /tmp; do
  [ -d "$place" ] && [ -w "$place" ] || continue
  find "$place" -maxdepth 1 -name 'phonenas-??????????' -mtime +0 -exec rm -rf {} \\; 2>/dev/null
  umask 077
  mktemp -d "$place/phonenas-XXXXXXXXXX" && exit 0
done
exit 1
"""

_INSTALLED_BY = {
    "darwin": {
        "adb": "brew install android-platform-tools, or Android's platform-tools",
        "ssh": "it is a part of macOS: look at PATH",
    },
    "win32": {
        "adb": "Android's platform-tools, and add their folder to PATH",
        "ssh": "Windows's optional feature OpenSSH Client",
    },
    "linux": {
        "adb": "apt install adb, or Android's platform-tools",
        "ssh": "apt install openssh-client",
    },
}

SWEEP_S = 3.0  # longest wait for a device that does not answer when it is left


def sweep(folder: str) -> list[str]:
    """The command that ends all programs of a folder that `FOLDER` made, and removes it.

    Programs are found by the folder's name in their command line; this command itself has a
    pattern instead, so that it does not end itself.
    """
    name = folder.rpartition("/")[2]
    return ["sh", "-c", 'pkill -9 -f "$1"; rm -rf "$2"', "sh", f"[{name[0]}]{name[1:]}/", folder]


@dataclass(frozen=True)
class Answer:
    """The result of a command on the device: exit code, output, error output."""

    code: int
    output: str
    errors: str = ""

    @property
    def last_line(self) -> str:
        """The last line of its error output, else of its output, as plain text."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        return plain(lines[-1]) if lines else "it printed nothing"


class Transport(ABC):
    """A way to a device. Lifetime: made, `open`ed, used, `close`d; may be opened again.

    Attributes:
        name: Of the device, for messages.
        kind: "local", "adb", "ssh"; "local" means that files need not be copied.
        folder: A folder on the device while open, for pushed files; a file of the same name is
            replaced.
        keep_open: File descriptors that spawned programs inherit: locks, held as long as they run.
    """

    kind: str
    name: str
    folder: str = ""
    keep_open: tuple[int, ...] = ()

    @classmethod
    def from_settings(cls, settings: DeviceSettings) -> Transport:
        """The transport of a table of devices.toml: by default `cls(name, address)`."""
        return cls(settings.name, settings.address)  # type: ignore[call-arg]

    @property
    @abstractmethod
    def address(self) -> str:
        """What distinguishes this device from all others of its kind."""

    @abstractmethod
    def open(self) -> None:
        """Reach it and make the folder.

        Raises:
            DeviceUnavailable: It cannot be reached or refuses access; says what to do.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove the folder if the device can be reached, and disconnect; bounded, never raises."""

    @abstractmethod
    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        """Run a command to its end.

        Raises:
            DeviceUnavailable: The device was lost, or the command did not end in time.
        """

    @abstractmethod
    def spawn(self, command: Sequence[str]) -> Process:
        """Start a program to exchange lines with."""

    @abstractmethod
    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        """Copy files into the folder; returns their paths on the device, in order.

        Raises:
            DeviceError: The device refused one: no space left, read-only.
            DeviceUnavailable: It was lost meanwhile.
        """

    @abstractmethod
    def state(self) -> tuple[str, str]:
        """Without opening it: its state ("ready", "offline", ...) and what to do about it."""

    def check(self, command: Sequence[str], doing: str, *, limit_s: float = 30.0) -> Answer:
        """Run a command that should end with 0.

        Raises:
            DeviceError: It did not; the message has its last line.
        """
        answer = self.run(command, limit_s=limit_s)
        if answer.code != 0:
            raise DeviceError(
                f"{self.name}: {doing} failed with code {answer.code}: {answer.last_line}"
            )
        return answer


def how_to_install(program: str) -> str:
    """What a message says after "Install it:" of `adb`, `ssh` or another program here."""
    system = sys.platform if sys.platform in _INSTALLED_BY else "linux"
    name = Path(program).stem  # adb may be given by its path in Android's SDK
    return _INSTALLED_BY[system].get(name, name)


def ending(marker: str) -> str:
    """Shell commands that print a marker and the exit code of the command before them.

    On a line of their own even if the output does not end with a line's end; Android's shell has no
    built-in printf.
    """
    return f"phonenas_code=$?; echo; echo {marker} $phonenas_code"


def watched(folder: str, beats: bool) -> tuple[str, str]:
    """First and last lines of a script that ends, with all that it runs, when this side is lost.

    It reads empty lines, one a second, and `stop`, which ends it. If its input closes, or with
    `beats` is silent for some four seconds, it removes the folder, too.
    """
    beat = shlex.quote(f"{folder}/beat")
    over = f"{{ rm -rf {shlex.quote(folder)}; kill -9 0; }}"
    first = f"""\
exec 3<&0 </dev/null
(while read -r said; do [ "$said" != stop ] || kill -9 0; : >{beat}; done; {over}) \
<&3 >/dev/null 2>&1 &
watch=$!
"""
    if beats:
        first += f"""\
(silent=0; while [ $silent -lt 4 ]; do sleep 1; silent=$((silent + 1))
if [ -e {beat} ]; then rm -f {beat}; silent=0; fi; done; {over}) 3<&- >/dev/null 2>&1 &
watch="$watch $!"
"""
    return f"{first}exec 3<&-\n", "kill $watch\n"


def _end(program: subprocess.Popen[bytes]) -> None:
    """End its whole group: what it started would run on, on the core that is measured."""
    if not hasattr(os, "killpg"):  # Windows
        program.kill()
        return
    with suppress(ProcessLookupError, PermissionError):  # macOS: all of the group have ended
        os.killpg(program.pid, signal.SIGKILL)


class Marked:
    """A remote command line that ends with a marker, and the parser of its output.

    >>> marked = Marked(["echo", "a b; rm"])
    >>> marked.line.startswith("echo 'a b; rm'; ")
    True
    >>> marked.read(f"hello\\n\\n{marked.marker} 3\\n", "").code
    3
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.marker = f"phonenas-{secrets.token_hex(8)}"
        self.line = f"{shlex.join(command)}; {ending(self.marker)}"

    def read(self, output: str, errors: str) -> Answer | None:
        """The answer; None without the marker."""
        end = re.search(rf"\n?{self.marker} (\d+)\r?\n", output)
        return None if end is None else Answer(int(end[1]), output[: end.start()], errors)


def bounded(
    name: str, command: Sequence[str], *, limit_s: float, data: bytes | None = None
) -> Answer:
    """Run a local program to its end, within a limit.

    Raises:
        DeviceUnavailable: It cannot be started, or did not end in time.
    """
    try:
        program = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            creationflags=NEW_GROUP,
        )
    except FileNotFoundError as error:
        raise DeviceUnavailable(
            f"{name}: the program {command[0]} is not installed here. "
            f"Install it:  {how_to_install(command[0])}"
        ) from error
    except OSError as error:
        raise DeviceUnavailable(f"{name}: {command[0]} cannot be started: {error}") from error
    with program:
        try:
            output, errors = program.communicate(data, timeout=limit_s)
        except BaseException as error:
            _end(program)
            if isinstance(error, subprocess.TimeoutExpired):
                raise DeviceUnavailable(
                    f"{name} did not answer within {limit_s:.0f} s. {HUNG}"
                ) from error
            raise
    return Answer(
        program.returncode,
        output.decode("utf-8", errors="replace"),
        errors.decode("utf-8", errors="replace"),
    )
