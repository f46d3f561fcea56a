"""The Transport contract: run a program on a device, bring it files, talk to it.

A transport knows nothing of models or times; a runtime knows nothing of cables. Commands are
argument lists; where the far side has a shell, the transport quotes them. Every command ends with
a marker that carries its exit code: without the marker the device was lost, whatever the local
program returned.
"""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..space.errors import DeviceError, DeviceUnavailable
from .conversation import HUNG, Conversation
from .words import plain

__all__ = [
    "FOLDER",
    "SWEEP_S",
    "Answer",
    "Marked",
    "Transport",
    "bounded",
    "ending",
    "sweep",
    "watched",
]

# Makes a folder of its own where programs may be stored and run, and sweeps away what jobs that
# were killed left there a day ago or earlier. No word in it comes from outside.
FOLDER = """
for place in /data/local/tmp "${TMPDIR:-/tmp}" /tmp; do
  [ -d "$place" ] && [ -w "$place" ] || continue
  find "$place" -maxdepth 1 -name 'phonenas-??????????' -mtime +0 -exec rm -rf {} \\; 2>/dev/null
  umask 077
  mktemp -d "$place/phonenas-XXXXXXXXXX" && exit 0
done
exit 1
"""

SWEEP_S = 3.0  # longest that leaving a device waits for one that does not answer


def sweep(folder: str) -> list[str]:
    """The command that ends what runs from a folder that `FOLDER` made, and removes it.

    Programs are known by the folder's name in their command line; in the command's own stands a
    pattern instead, so that it does not end itself.
    """
    name = folder.rpartition("/")[2]
    return ["sh", "-c", 'pkill -9 -f "$1"; rm -rf "$2"', "sh", f"[{name[0]}]{name[1:]}/", folder]


@dataclass(frozen=True)
class Answer:
    """What a command that ended on the device left: exit code, output, error output."""

    code: int
    output: str
    errors: str = ""

    @property
    def last_words(self) -> str:
        """Its last line of error output, or of output; plain text for a message."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        return plain(lines[-1]) if lines else "it said nothing"


class Transport(ABC):
    """A way to a device. Lifetime: made, `open`ed, used, `close`d; may be opened again.

    Attributes:
        name: Of the device, for messages.
        kind: "local", "adb", "ssh".
        folder: A folder of its own on the device, while open; what is pushed lies there, and a
            file of the same name is replaced.
        keep_open: File descriptors that spawned programs inherit: a lock that must outlive us
            as long as they run.
    """

    kind: str
    name: str
    folder: str = ""
    keep_open: tuple[int, ...] = ()

    @property
    @abstractmethod
    def address(self) -> str:
        """What tells this device from all others of its kind."""

    @abstractmethod
    def open(self) -> None:
        """Reach it and make the folder.

        Raises:
            DeviceUnavailable: It is not there, or lets nobody in; says what to do.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove the folder, if it can be reached, and hang up; bounded, never raises."""

    @abstractmethod
    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        """Run a command to its end.

        Raises:
            DeviceUnavailable: The device was lost, or the command did not end in time.
        """

    @abstractmethod
    def spawn(self, command: Sequence[str]) -> Conversation:
        """Start a program to talk with."""

    @abstractmethod
    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        """Bring files into the folder; their paths there, in order.

        Raises:
            DeviceError: The device refused one: no space left, read-only.
            DeviceUnavailable: It was lost on the way.
        """

    @abstractmethod
    def state(self) -> tuple[str, str]:
        """Without opening: a word ("ready", "offline", ...) and what to do about it."""

    def check(self, command: Sequence[str], doing: str, *, limit_s: float = 30.0) -> Answer:
        """Run a command that should end with 0.

        Raises:
            DeviceError: It did not; its last words are in the message.
        """
        answer = self.run(command, limit_s=limit_s)
        if answer.code != 0:
            raise DeviceError(
                f"{self.name}: {doing} failed with code {answer.code}: {answer.last_words}"
            )
        return answer


def ending(marker: str) -> str:
    """Shell words that print a marker and the exit code of the command before them.

    On a line of their own even where the output does not end with one; Android's shell has no
    printf of its own.
    """
    return f"phonenas_code=$?; echo; echo {marker} $phonenas_code"


def watched(folder: str, beats: bool) -> tuple[str, str]:
    """First and last lines of a script that ends, with all that it runs, when nobody asks any more.

    Its input may bring empty lines, one a second, and `stop`, which ends it. Where the input
    closes instead, or with `beats` stays silent for some four seconds, the folder goes too.
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


class Marked:
    """A remote command line that ends with a marker, and the reading of it.

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
        """The answer; None where the marker lacks."""
        found = re.search(rf"\n?{self.marker} (\d+)\r?\n", output)
        if found is None:
            return None
        return Answer(int(found[1]), output[: found.start()], errors)


def bounded(
    name: str, command: Sequence[str], *, limit_s: float, data: bytes | None = None,
    environment: dict[str, str] | None = None,
) -> Answer:  # fmt: skip
    """Run a local program to its end, within a limit.

    Raises:
        DeviceUnavailable: It cannot be started, or did not end in time.
    """
    try:
        done = subprocess.run(
            list(command),
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=limit_s,
            env=environment,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceUnavailable(f"{name} did not answer within {limit_s:.0f} s. {HUNG}") from error
    except FileNotFoundError as error:
        hint = {
            "adb": "apt install adb, or Android's platform-tools",
            "ssh": "apt install openssh-client",
        }
        raise DeviceUnavailable(
            f"{name}: the program {command[0]} is not installed here. "
            f"Install it:  {hint.get(Path(command[0]).name, command[0])}"
        ) from error
    except OSError as error:
        raise DeviceUnavailable(f"{name}: {command[0]} cannot be started: {error}") from error
    return Answer(
        done.returncode,
        done.stdout.decode("utf-8", errors="replace"),
        done.stderr.decode("utf-8", errors="replace"),
    )
