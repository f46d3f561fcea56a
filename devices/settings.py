"""devices.toml: the names of devices, and how each is reached and measured.

::

    [pixel6]
    transport = "adb"
    address = "1A2B3C4D"                  # adb serial, ssh host; never guessed
    runtime = "benchmark_model"
    binary = "android_aarch64_benchmark_model"

    [pi]
    transport = "ssh"
    address = "pi@raspberrypi"

The file is `devices.toml` in the working folder, or where PHONENAS_DEVICES points. `local` is
always known.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from phonenas.space.errors import InvalidArgument, PhonenasError, UnknownName, nearest
from phonenas.space.naming import plain_name
from phonenas.space.precision import FLOAT32, PRECISIONS

from .transports import TRANSPORTS

__all__ = ["LOCAL", "DeviceSettings", "Refused", "devices_file", "read_settings", "shortened"]

_CLASSES = ("big", "little", "all")


@dataclass(frozen=True)
class DeviceSettings:
    """One table of devices.toml.

    Args:
        name: The user's name for the device.
        transport: "adb", "ssh", "local", "simulated", one of an installed package (entry points
            `phonenas.transports`), or `module:Name` of a `Transport` or a whole `Device`.
        address: Serial of adb (`adb devices`), host of ssh; for "simulated" its seed.
        runtime: "onnxruntime", "litert", "benchmark_model", "onnxruntime_perf_test", one of an
            installed package (entry points `phonenas.runtimes`), or `module:Name` of a `Runtime`.
        threads: Threads that compute, ≥ 1, each on a core of its own.
        cores: "big" (those of the greatest capacity), "little", "all" (the system chooses), or
            core numbers.
        precision: What the networks of a space are written and computed in, by default: a name of
            `space.precision`, of those that the runtime has. A file is in its own.
        provider: Execution provider or delegate; "" for the runtime's default on the CPU.
        binary: The user's benchmark program, a file on this computer, for the runtimes that
            run one.
        python: Python on the device, for the runtimes that need it.
        port, config: For ssh, instead of those of the user's configuration.
        fixed_performance: Whether Android is asked to hold its clocks where they can stay.
        wait_below_c: Wait for the device to be cooler than this before each batch, in °C.
        energy: Whether the energy of an inference is read too, for some seconds more per network.
        phone: Whether a phone's limits apply (wait longer for heat, allow less drift); None: to
            every device behind adb and to every Android.
        speed: Of a simulated phone: factor of all its times, > 0; 1.3 takes 1.3 times as long.
    Raises:
        InvalidArgument: A value outside its range.
    """

    name: str
    transport: str = "local"
    address: str = ""
    runtime: str = "onnxruntime"
    threads: int = 1
    cores: str | tuple[int, ...] = "big"
    precision: str = FLOAT32
    provider: str = ""
    binary: str = ""
    python: str = ""
    port: int | None = None
    config: str = ""
    fixed_performance: bool = True
    wait_below_c: float | None = None
    energy: bool = False
    phone: bool | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        def invalid(field: str, must: str) -> InvalidArgument:
            return InvalidArgument(
                f"device {self.name}: {field} is {shortened(getattr(self, field))}; it must be "
                f"{must}"
            )

        own = self.transport in TRANSPORTS.own or ":" in self.transport
        if not own and self.transport not in TRANSPORTS.names():
            raise invalid("transport", f"one of {TRANSPORTS.help()}")
        if self.transport in ("adb", "ssh") and not self.address:
            raise invalid("address", "its adb serial or ssh host: none is chosen for you")
        if self.address.startswith("-") or any(ord(c) < 33 or ord(c) == 127 for c in self.address):
            raise invalid("address", "a serial or host, without spaces or control codes")
        if self.threads < 1:
            raise invalid("threads", "1 or more")
        if isinstance(self.cores, str):
            if self.cores not in _CLASSES:
                raise invalid("cores", f"one of {', '.join(_CLASSES)}, or a list of core numbers")
        elif not self.cores or min(self.cores) < 0 or len(set(self.cores)) != len(self.cores):
            raise invalid("cores", f"one of {', '.join(_CLASSES)}, or a list of core numbers")
        elif len(self.cores) < self.threads:
            raise invalid("cores", f"at least {self.threads} of them, for as many threads")
        if self.precision not in PRECISIONS:
            raise invalid("precision", f"one of {', '.join(PRECISIONS)}")
        if self.port is not None and not 0 < self.port < 65_536:
            raise invalid("port", "from 1 to 65535")
        if self.wait_below_c is not None and not 0 < self.wait_below_c < 150:
            raise invalid("wait_below_c", "a temperature in °C")
        if self.speed is not None and not (self.transport == "simulated" and 0 < self.speed < 100):
            raise invalid("speed", "a factor above 0 and below 100, of a simulated phone alone")


def shortened(value: object) -> str:
    """A value as it stands in a message: 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


LOCAL = DeviceSettings("local")


@dataclass(frozen=True)
class Refused:
    """A table of devices.toml that describes no device, and why."""

    name: str
    error: PhonenasError


def devices_file() -> Path:
    """Where devices.toml is looked for."""
    return Path(os.environ.get("PHONENAS_DEVICES") or "devices.toml")


def read_settings(path: Path | None = None) -> dict[str, DeviceSettings | Refused]:
    """All known devices by name, `local` first; a bad table costs its own device alone.

    Raises:
        InvalidArgument: The file cannot be read, or is not TOML.
    """
    path = path or devices_file()
    devices: dict[str, DeviceSettings | Refused] = {LOCAL.name: LOCAL}
    if not path.exists():
        if os.environ.get("PHONENAS_DEVICES"):
            raise InvalidArgument(f"PHONENAS_DEVICES names {path}, and there is no such file")
        return devices
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOML errors are ValueErrors
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    for name, table in document.items():
        try:
            devices[name] = _settings(name, table, path)
        except PhonenasError as error:
            devices[name] = Refused(name, error)
    return devices


def _settings(name: str, table: Any, path: Path) -> DeviceSettings:
    if name == LOCAL.name:
        raise InvalidArgument(f"{path}: the name local stands for this computer; choose another")
    plain_name(name, f"{path}: a device")
    if not isinstance(table, dict):
        raise InvalidArgument(f"{path}: {name} is not a table; write  [{name}]  and its keys below")
    types: dict[str, tuple[type, ...]] = {
        "threads": (int,),
        "port": (int,),
        "fixed_performance": (bool,),
        "energy": (bool,),
        "phone": (bool,),
        "wait_below_c": (int, float),
        "speed": (int, float),
        "cores": (str, list),
    }
    known = {f.name for f in fields(DeviceSettings)} - {"name"}
    for key, value in table.items():
        if key not in known:
            raise UnknownName(f"{path}: {name} has no setting {key!r}. {nearest(key, known)}")
        wanted = types.get(key, (str,))
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            names = " or ".join(t.__name__ for t in wanted)
            raise InvalidArgument(
                f"{path}: {name}.{key} is {shortened(value)}; it must be of type {names}"
            )
    cores = table.get("cores")
    if isinstance(cores, list):
        if not all(isinstance(c, int) and not isinstance(c, bool) for c in cores):
            raise InvalidArgument(f"{path}: {name}.cores must list core numbers")
        table = {**table, "cores": tuple(cores)}
    settings = DeviceSettings(name=name, **table)
    if settings.binary:
        # Relative to the file that names it.
        binary = (path.parent / Path(settings.binary).expanduser()).resolve()
        settings = DeviceSettings(**{**table, "name": name, "binary": str(binary)})
    return settings
