"""`adb`: Android devices, by the adb program.

What a real daemon does, and what follows: a device lost in mid-command gives exit code 0 and no
output, so every command ends with a marker; `adb connect` to a refused port exits 0, so its text
is read; after a daemon's restart it says "already connected" to a device that is offline, so
that one is disconnected first; commands always name the serial; a server that runs is never
killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from ..space.errors import DeviceError, DeviceUnavailable, PhonenasError
from .android import AdbDevice, parse_devices
from .conversation import Conversation
from .transport import FOLDER, SWEEP_S, Answer, Marked, Transport, bounded, sweep
from .words import plain

__all__ = ["AdbTransport", "attached"]

_SHORT_S = 15.0
_CONNECT_S = 10.0
# What the adb program itself says when the device or the server went away.
_LOST = re.compile(
    r"^(?:adb: )?(?:error: )?(?:device (?:'[^']*' not found|offline|unauthorized|still)|closed|"
    r"no devices|protocol fault|cannot connect to daemon|failed to (?:get feature|read|check)|"
    r"connect(?:ion)? (?:failed|reset|error)|insufficient permissions|device not found)",
    re.M,
)
_NO_SPACE = re.compile(
    r"No space left|ENOSPC|Disk quota|Read-only file system|Permission denied", re.I
)


class AdbTransport(Transport):
    """One Android device by its serial; see `Transport` for the lifetime.

    Args:
        name: Of the device.
        serial: As `adb devices` prints it: a USB serial, or HOST:PORT.
    """

    kind = "adb"

    def __init__(self, name: str, serial: str) -> None:
        self.name = name
        self.serial = serial
        self.folder = ""

    @property
    def address(self) -> str:
        return self.serial

    @property
    def _over_network(self) -> bool:
        return ":" in self.serial

    def open(self) -> None:
        found = self._seen()
        if self._over_network and (found is None or found.state != "device"):
            self._connect(found)
            found = self._seen()
        if found is None or found.state != "device":
            state = found.state if found else "not attached"
            raise DeviceUnavailable(
                f"{self.name}: adb has {self.serial} as {state}. {_advice(found, self.serial)}"
            )
        answer = self.run(["sh", "-c", FOLDER], limit_s=_SHORT_S)
        folder = answer.output.strip().rpartition("\n")[2]  # a shell may greet before
        if answer.code or not folder.startswith("/"):
            raise DeviceError(
                f"{self.name}: no folder can be made on it: {answer.last_words}. Free some space "
                "in /data/local/tmp."
            )
        self.folder = folder

    def _connect(self, found: AdbDevice | None) -> None:
        if found is not None:  # offline: "already connected" would be all that it says
            self._adb("disconnect", self.serial, limit_s=_CONNECT_S)
        said = self._adb("connect", self.serial, limit_s=_CONNECT_S)
        text = (said.output + said.errors).strip()
        if not re.search(r"^(?:already )?connected to ", text, re.M):
            raise DeviceUnavailable(
                f"{self.name}: adb cannot connect to {self.serial}: {plain(text) or 'no answer'}. "
                "Is the device on, in this network, and its wireless debugging allowed?"
            )
        deadline = time.monotonic() + _CONNECT_S  # it may be "offline" or "connecting" for a moment
        while time.monotonic() < deadline:
            seen = self._seen()
            if seen is not None and seen.state in ("device", "unauthorized"):
                return
            time.sleep(0.1)

    def _seen(self) -> AdbDevice | None:
        return next((d for d in attached() if d.serial == self.serial), None)

    def _adb(self, *words: str, limit_s: float) -> Answer:
        return bounded(self.name, ["adb", *words], limit_s=limit_s)

    def close(self) -> None:
        folder, self.folder = self.folder, ""
        if folder:
            with contextlib.suppress(PhonenasError):
                self.run(sweep(folder), limit_s=SWEEP_S)

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        marked = Marked(command)
        said = self._adb("-s", self.serial, "shell", "-n", "-T", marked.line, limit_s=limit_s)
        answer = marked.read(said.output, said.errors)
        if answer is None:
            raise DeviceUnavailable(
                f"{self.name} was lost in mid-command ({said.last_words}). Look at the cable; "
                "the same command goes on from there."
            )
        return answer

    def spawn(self, command: Sequence[str]) -> Conversation:
        # A server that the command below had to start would hold the lock for good.
        self._adb("start-server", limit_s=_SHORT_S)
        line = shlex.join(command)
        words = ["adb", "-s", self.serial, "shell", "-T", line]
        return Conversation(self.name, words, beat=True, keep_open=self.keep_open)

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        if not files:
            return []
        said = self._adb(
            "-s", self.serial, "push", *map(str, files), f"{self.folder}/", limit_s=limit_s
        )
        text = said.output + said.errors
        if said.code or _LOST.search(text):
            told = plain(next((x for x in text.splitlines() if "rror" in x), said.last_words))
            if _NO_SPACE.search(text):
                raise DeviceError(
                    f"{self.name} takes no more files: {told}. Free some space in {self.folder}."
                )
            raise DeviceUnavailable(
                f"{self.name} was lost while files were pushed: {told}. Look at the cable; the "
                "same command goes on from there."
            )
        paths = [f"{self.folder}/{f.name}" for f in files]
        self._compare(files, paths)
        return paths

    def _compare(self, files: Sequence[Path], paths: Sequence[str]) -> None:
        """A push that was cut off can leave a part behind: compare the sizes."""
        answer = self.check(["wc", "-c", *paths], "counting the bytes pushed")
        sizes = [int(line.split()[0]) for line in answer.output.splitlines()[: len(paths)]]
        for file, size in zip(files, sizes, strict=True):
            if size != file.stat().st_size:
                raise DeviceUnavailable(
                    f"{self.name} holds {size} of {file.stat().st_size} bytes of {file.name}: it "
                    "was lost while files were pushed, or is full. Look at the cable and free "
                    "some space; the same command goes on from there."
                )

    def state(self) -> tuple[str, str]:
        try:
            found = self._seen()
        except PhonenasError as error:
            return "unknown", str(error)
        if found is None:
            how = f"adb connect {self.serial}" if self._over_network else "plug it in"
            return "not attached", how
        return ("ready", "") if found.state == "device" else (found.state, found.advice)


def _advice(found: AdbDevice | None, serial: str) -> str:
    if found is not None:
        return found.advice
    others = [d.serial for d in attached()]
    seen = f"It sees {', '.join(others)}." if others else "It sees no device at all."
    return f"{seen} Plug it in and allow USB debugging, or correct its address in devices.toml."


def attached() -> tuple[AdbDevice, ...]:
    """What adb sees now, whatever its state.

    Raises:
        DeviceUnavailable: adb is not installed, or its server cannot be started.
    """
    said = bounded("adb", ["adb", "devices", "-l"], limit_s=_SHORT_S, environment=dict(os.environ))
    if said.code:
        raise DeviceUnavailable(f"adb's server does not answer: {said.last_words}")
    return parse_devices(said.output)
