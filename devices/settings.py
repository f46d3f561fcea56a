"""devices.toml: the names of devices, and how each is reached and measured.

::

    [pixel6]
    transport = "adb"                     # adb, ssh, local or simulated
    address = "1A2B3C4D"                  # adb serial, ssh host; never guessed
    runtime = "benchmark_model"
    binary = "android_aarch64_benchmark_model"

    [pi]
    transport = "ssh"
    address = "pi@raspberrypi"

The file is `devices.toml` in the working folder, or where PHONENAS_DEVICES says. `local` is
always there.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..space.errors import InvalidArgument, UnknownName, nearest

__all__ = ["LOCAL", "DeviceSettings", "devices_file", "read_settings"]

_TRANSPORTS = ("adb", "local", "simulated", "ssh")
_CLASSES = ("big", "little", "all")
_PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class DeviceSettings:
    """One table of devices.toml.

    Args:
        name: The user's name for the device.
        transport: "adb", "ssh", "local" or "simulated".
        address: Serial of adb (`adb devices`), host of ssh; for "simulated" its seed.
        runtime: "onnxruntime", "litert", "benchmark_model" or "onnxruntime_perf_test".
        threads: That compute, ≥ 1, each on a core of its own.
        cores: "big" (those of the greatest capacity), "little", "all" (the system chooses), or
            core numbers.
        precision: "float32", or "float16" where the runtime has it.
        provider: Execution provider or delegate; "" for the runtime's default on the CPU.
        binary: The user's benchmark program, a file on this computer, for the runtimes that
            are one.
        python: Python on the device, for the runtimes that need one.
        port, config: For ssh, instead of those of the user's configuration.
        fixed_performance: Whether Android is asked to hold its clocks where they can stay.
        wait_below_c: Wait for the device to be cooler than this before each batch, in °C.
    Raises:
        InvalidArgument: A value outside its range.
    """

    name: str
    transport: str = "local"
    address: str = ""
    runtime: str = "onnxruntime"
    threads: int = 1
    cores: str | tuple[int, ...] = "big"
    precision: str = "float32"
    provider: str = ""
    binary: str = ""
    python: str = ""
    port: int | None = None
    config: str = ""
    fixed_performance: bool = True
    wait_below_c: float | None = None

    def __post_init__(self) -> None:
        def refuse(field: str, must: str) -> InvalidArgument:
            return InvalidArgument(
                f"device {self.name}: {field} is {getattr(self, field)!r}; it must be {must}"
            )

        if self.transport not in _TRANSPORTS:
            raise refuse("transport", f"one of {', '.join(_TRANSPORTS)}")
        if self.transport in ("adb", "ssh") and not self.address:
            raise refuse("address", "its adb serial or ssh host: none is taken by itself")
        if self.address.startswith("-") or any(ord(c) < 33 or ord(c) == 127 for c in self.address):
            raise refuse("address", "a serial or host, without spaces or control codes")
        if self.threads < 1:
            raise refuse("threads", "1 or more")
        if isinstance(self.cores, str):
            if self.cores not in _CLASSES:
                raise refuse("cores", f"one of {', '.join(_CLASSES)}, or a list of core numbers")
        elif not self.cores or min(self.cores) < 0 or len(set(self.cores)) != len(self.cores):
            raise refuse("cores", f"one of {', '.join(_CLASSES)}, or a list of core numbers")
        elif len(self.cores) < self.threads:
            raise refuse("cores", f"at least {self.threads} of them, for as many threads")
        if self.precision not in _PRECISIONS:
            raise refuse("precision", f"one of {', '.join(_PRECISIONS)}")
        if self.port is not None and not 0 < self.port < 65_536:
            raise refuse("port", "from 1 to 65535")
        if self.wait_below_c is not None and not 0 < self.wait_below_c < 150:
            raise refuse("wait_below_c", "a temperature in °C")


LOCAL = DeviceSettings("local")


def devices_file() -> Path:
    """Where devices.toml is looked for."""
    return Path(os.environ.get("PHONENAS_DEVICES") or "devices.toml")


def read_settings(path: Path | None = None) -> dict[str, DeviceSettings]:
    """All known devices by name; `local` first.

    Raises:
        InvalidArgument: The file is no TOML, or a table has an unknown key or a bad value.
    """
    path = path or devices_file()
    found = {LOCAL.name: LOCAL}
    if not path.exists():
        if os.environ.get("PHONENAS_DEVICES"):
            raise InvalidArgument(f"PHONENAS_DEVICES names {path}, and there is no such file")
        return found
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    for name, table in document.items():
        found[name] = _settings(name, table, path)
    return found


def _settings(name: str, table: Any, path: Path) -> DeviceSettings:
    if name == LOCAL.name:
        raise InvalidArgument(f"{path}: the name local is taken by this computer; choose another")
    if not name.isprintable() or name.startswith("-") or "/" in name or not name.strip():
        raise InvalidArgument(f"{path}: {name!r} is no name for a device")
    if not isinstance(table, dict):
        raise InvalidArgument(f"{path}: {name} is no table; write  [{name}]  and its keys below")
    types: dict[str, tuple[type, ...]] = {
        "threads": (int,), "port": (int,), "fixed_performance": (bool,),
        "wait_below_c": (int, float), "cores": (str, list),
    }  # fmt: skip
    known = {f.name for f in fields(DeviceSettings)} - {"name"}
    for key, value in table.items():
        if key not in known:
            raise UnknownName(f"{path}: {name} has no setting {key!r}. {nearest(key, known)}")
        wanted = types.get(key, (str,))
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            names = " or ".join(t.__name__ for t in wanted)
            raise InvalidArgument(f"{path}: {name}.{key} is {value!r}; it must be of type {names}")
    cores = table.get("cores")
    if isinstance(cores, list):
        if not all(isinstance(c, int) and not isinstance(c, bool) for c in cores):
            raise InvalidArgument(f"{path}: {name}.cores lists what is no core number")
        table = {**table, "cores": tuple(cores)}
    settings = DeviceSettings(name=name, **table)
    if settings.binary:
        # As written, seen from the file that names it.
        binary = (path.parent / Path(settings.binary).expanduser()).resolve()
        settings = DeviceSettings(**{**table, "name": name, "binary": str(binary)})
    return settings
