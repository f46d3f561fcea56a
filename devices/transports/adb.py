"""`adb`: Android devices, by the adb program.

A device lost in mid-command gives exit code 0 and no output, so every command ends with a marker;
`adb connect` to a refused port exits 0, so its text is read; after a daemon's restart it prints
"already connected" for a device that is offline, so that one is disconnected first; every command
names the serial; a running server is never killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from phonenas.space.errors import DeviceError, DeviceUnavailable, PhonenasError

from ..system.android_text import AdbDevice, parse_devices
from ..system.device_text import plain
from .base import FOLDER, SWEEP_S, Answer, Marked, Transport, bounded, sweep
from .process import Process

__all__ = ["AdbTransport", "attached", "found_adb", "hardware_serials"]

_SHORT_S = 15.0
_CONNECT_S = 10.0
_LOOK_S = 3.0
# What the adb program prints when the device or the server is lost.
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
        device = self._listed()
        if self._over_network and (device is None or device.state != "device"):
            self._connect(device)
            device = self._listed()
        if device is None or device.state != "device":
            state = device.state if device else "not attached"
            raise DeviceUnavailable(
                f"{self.name}: adb lists {self.serial} as {state}. {_advice(device)}"
            )
        answer = self.run(["sh", "-c", FOLDER], limit_s=_SHORT_S)
        folder = answer.output.strip().rpartition("\n")[2]  # after a shell's greeting
        if answer.code or not folder.startswith("/"):
            raise DeviceError(
                f"{self.name}: no folder can be made on it: {answer.last_line}. Free some space "
                "in /data/local/tmp."
            )
        self.folder = folder

    def _connect(self, device: AdbDevice | None) -> None:
        if device is not None:  # offline: it would only print "already connected"
            self._adb("disconnect", self.serial, limit_s=_CONNECT_S)
        answer = self._adb("connect", self.serial, limit_s=_CONNECT_S)
        text = (answer.output + answer.errors).strip()
        if not re.search(r"^(?:already )?connected to ", text, re.M):
            raise DeviceUnavailable(
                f"{self.name}: adb cannot connect to {self.serial}: {plain(text) or 'no answer'}. "
                "Check that it is on, in this network, and allows wireless debugging."
            )
        deadline = time.monotonic() + _CONNECT_S  # it may be "offline" or "connecting" for a moment
        while time.monotonic() < deadline:
            listed = self._listed()
            if listed is not None and listed.state in ("device", "unauthorized"):
                return
            time.sleep(0.1)

    def _listed(self) -> AdbDevice | None:
        return next((d for d in attached() if d.serial == self.serial), None)

    def _adb(self, *words: str, limit_s: float) -> Answer:
        return bounded(self.name, [found_adb() or "adb", *words], limit_s=limit_s)

    def close(self) -> None:
        folder, self.folder = self.folder, ""
        if folder:
            with contextlib.suppress(PhonenasError):
                self.run(sweep(folder), limit_s=SWEEP_S)

    def run(self, command: Sequence[str], *, limit_s: float) -> Answer:
        marked = Marked(command)
        raw = self._adb("-s", self.serial, "shell", "-n", "-T", marked.line, limit_s=limit_s)
        answer = marked.read(raw.output, raw.errors)
        if answer is None:
            raise DeviceUnavailable(
                f"{self.name} was lost in mid-command ({raw.last_line}). Check the cable; the same "
                "command continues from there."
            )
        return answer

    def spawn(self, command: Sequence[str]) -> Process:
        # A server that the command below had to start would inherit the lock.
        self._adb("start-server", limit_s=_SHORT_S)
        line = shlex.join(command)
        words = [found_adb() or "adb", "-s", self.serial, "shell", "-T", line]
        return Process(self.name, words, beat=True, keep_open=self.keep_open)

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        if not files:
            return []
        answer = self._adb(
            "-s", self.serial, "push", *map(str, files), f"{self.folder}/", limit_s=limit_s
        )
        text = answer.output + answer.errors
        if answer.code or _LOST.search(text):
            line = plain(next((x for x in text.splitlines() if "rror" in x), answer.last_line))
            if _NO_SPACE.search(text):
                raise DeviceError(
                    f"{self.name} takes no more files: {line}. Free some space in {self.folder}."
                )
            raise DeviceUnavailable(
                f"{self.name} was lost while files were pushed: {line}. Check the cable; the same "
                "command continues from there."
            )
        paths = [f"{self.folder}/{f.name}" for f in files]
        self._compare(files, paths)
        return paths

    def _compare(self, files: Sequence[Path], paths: Sequence[str]) -> None:
        """Compare sizes: a push that was cut off can leave a part of a file."""
        answer = self.check(["wc", "-c", *paths], "counting the bytes pushed")
        sizes = [int(line.split()[0]) for line in answer.output.splitlines()[: len(paths)]]
        for file, size in zip(files, sizes, strict=True):
            if size != file.stat().st_size:
                raise DeviceUnavailable(
                    f"{self.name} holds {size} of {file.stat().st_size} bytes of {file.name}: the "
                    "connection was lost, or it is full. Check the cable and free some "
                    "space; the same command continues from there."
                )

    def state(self) -> tuple[str, str]:
        try:
            device = self._listed()
        except PhonenasError as error:
            return "unknown", str(error)
        if device is None:
            how = f"adb connect {self.serial}" if self._over_network else "plug it in"
            return "not attached", how
        return ("ready", "") if device.state == "device" else (device.state, device.advice)


def _advice(device: AdbDevice | None) -> str:
    if device is not None:
        return device.advice
    others = [d.serial for d in attached()]
    listed = f"It lists {', '.join(others)}." if others else "It lists no device at all."
    return f"{listed} Plug it in and allow USB debugging, or correct its address in devices.toml."


# Where Android Studio puts its SDK: on Linux, on a Mac, on Windows.
_SDKS = (
    "$ANDROID_HOME",
    "$ANDROID_SDK_ROOT",
    "~/Android/Sdk",
    "~/Library/Android/sdk",
    "$LOCALAPPDATA/Android/Sdk",
)


def found_adb() -> str | None:
    """The adb program: on the PATH, else in Android's SDK; None where there is none."""
    if shutil.which("adb") is not None:
        return "adb"
    for place in _SDKS:
        folder = os.path.expandvars(os.path.expanduser(place))  # noqa: PTH111 - needs no home
        if not Path(folder).is_absolute():  # not set: a folder here may have any such name
            continue
        if found := shutil.which("adb", path=str(Path(folder) / "platform-tools")):
            return found
    return None


def attached() -> tuple[AdbDevice, ...]:
    """All devices that adb lists now, in any state.

    Raises:
        DeviceUnavailable: adb is not installed, or its server cannot be started.
    """
    answer = bounded("adb", [found_adb() or "adb", "devices", "-l"], limit_s=_SHORT_S)
    if answer.code:
        raise DeviceUnavailable(f"adb's server does not answer: {answer.last_line}")
    return parse_devices(answer.output)


def hardware_serials(devices: Sequence[AdbDevice]) -> dict[str, str]:
    """The hardware's serial number, by adb's, of devices that may be one phone listed twice.

    Devices of one model are asked if one of them is reached over the air; emulators, and devices
    that do not answer, are left out.
    """
    usable = [d for d in devices if d.state == "device" and not d.serial.startswith("emulator-")]
    numbers = {}
    for device in usable:
        like = [d for d in usable if (d.product, d.model) == (device.product, device.model)]
        if len(like) > 1 and any(d.over_air for d in like):
            with contextlib.suppress(PhonenasError):
                transport = AdbTransport(device.serial, device.serial)
                answer = transport.run(["getprop", "ro.serialno"], limit_s=_LOOK_S)
                if number := plain(answer.output):
                    numbers[device.serial] = number
    return numbers
