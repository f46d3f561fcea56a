"""Devices by their names: `local`, those of devices.toml, and what else adb sees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from phonenas.space.errors import InvalidArgument, PhonenasError, UnknownName, nearest
from phonenas.space.precision import FLOAT32, checked_precision

from . import runtimes
from .assembled_device import AssembledDevice
from .device import Device, DeviceState
from .settings import DeviceSettings, Refused, devices_file, read_settings
from .system.android_text import AdbDevice
from .transports import TRANSPORTS
from .transports.adb import attached, found_adb, hardware_serials
from .transports.base import Transport

__all__ = ["assemble", "connect", "listing", "usual_precision"]


def connect(name: str, *, threads: int | None = None, precision: str | None = None) -> Device:
    """A device by its name; `local` is this computer, the others are tables of devices.toml.

    Args:
        name: As `phonenas devices` lists it.
        threads: Threads that compute, instead of those in devices.toml, ≥ 1.
        precision: What networks are written and computed in, instead of that in devices.toml: a
            name of `space.precision`.
    Raises:
        UnknownName: No device, or no precision, has this name.
        InvalidArgument: A setting outside its range, a precision that the device's runtime cannot
            run, or its table describes no device.
    """
    known = read_settings()
    if name not in known:
        raise UnknownName(
            f"no device is called {name!r}. {nearest(name, known)} List them:  phonenas devices. "
            f"Another one is a table in {devices_file()}: see docs/phones.md"
        )
    settings = known[name]
    if isinstance(settings, Refused):
        raise settings.error
    own: dict[str, Any] = {} if threads is None else {"threads": threads}
    if precision is not None:
        if (made := _in_precision(replace(settings, **own), precision)) is not None:
            return made
        own["precision"] = checked_precision(precision)
    return assemble(replace(settings, **own))


def _in_precision(settings: DeviceSettings, precision: str) -> Device | None:
    """A device of another package that has a precision by itself, without a setting; else None."""
    kind = TRANSPORTS.get(settings.transport)
    if not (isinstance(kind, type) and issubclass(kind, Device)):
        return None
    device = assemble(settings)
    return device if device.conditions.precision == precision else None


def usual_precision(name: str) -> str:
    """What networks are written in for a device by default: as devices.toml says, else float32.

    Raises:
        InvalidArgument: The file cannot be read.
    """
    known = read_settings().get(name)
    return known.precision if isinstance(known, DeviceSettings) else FLOAT32


def assemble(settings: DeviceSettings) -> Device:
    """A device from its settings; starts nothing.

    Raises:
        UnknownName: Its transport or runtime is not installed.
        InvalidArgument: What the transport names is not a transport, or cannot do what is asked.
    """
    kind = TRANSPORTS.get(settings.transport)
    if isinstance(kind, type) and issubclass(kind, Device):
        device: Device = _made(kind, settings)
        if settings.precision not in device.precisions:
            raise InvalidArgument(
                f"device {settings.name} runs {', '.join(device.precisions)}, not "
                f"{settings.precision}"
            )
        return device
    if not (isinstance(kind, type) and issubclass(kind, Transport)):
        raise InvalidArgument(
            f"device {settings.name}: transport {settings.transport!r} names {kind!r}; it must be "
            "a class derived from phonenas.devices.Transport or phonenas.devices.Device"
        )
    runtime = runtimes.get(settings.runtime, settings)
    return AssembledDevice(settings, _made(kind, settings), runtime)


def _made(kind: Any, settings: DeviceSettings) -> Any:
    """A transport or device of a class, which may be another's and fail in any way."""
    try:
        return kind.from_settings(settings)
    except PhonenasError:
        raise
    except Exception as error:
        raise InvalidArgument(
            f"device {settings.name}: transport {settings.transport!r} cannot be made from its "
            f"table: {type(error).__name__}: {error}"
        ) from error


def listing() -> list[DeviceState]:
    """Every known device with its state; then what adb sees and devices.toml lacks.

    A phone that adb lists twice, by cable and over the air, is named once; the other row says so.
    """
    tables = read_settings()
    known = {n: s for n, s in tables.items() if isinstance(s, DeviceSettings)}
    seen: tuple[AdbDevice, ...] = ()
    rows: list[DeviceState] = []
    if found_adb() is not None:
        try:
            seen = attached()
        except PhonenasError as error:
            rows = [DeviceState("(adb)", "adb", "unknown", "", 0, "", str(error))]
    hardware = hardware_serials(seen)
    # Each state may wait for a network: get them side by side.
    with ThreadPoolExecutor(max_workers=16) as pool:
        named = list(pool.map(_state, known.values()))
    first: dict[str, str] = {}  # name of each phone by its hardware's serial number
    for i, settings in enumerate(known.values()):
        if settings.transport == "adb" and (serial := hardware.get(settings.address)):
            name = first.setdefault(serial, settings.name)
            if name != settings.name:
                twice = f"the same phone as {name} (serial number {serial}): measure one of them"
                named[i] = replace(named[i], detail=f"{twice}; {named[i].detail}")
    addresses = {s.address for s in known.values() if s.transport == "adb"}
    # By cable before over the air: that one is proposed for devices.toml.
    unnamed = sorted((d for d in seen if d.serial not in addresses), key=lambda d: d.over_air)
    named += [
        DeviceState(repr(n)[1:-1], "", "not usable", "", 0, "", str(s.error))
        for n, s in tables.items()
        if isinstance(s, Refused)
    ]
    return named + rows + [_unnamed(d, hardware.get(d.serial, ""), first) for d in unnamed]


def _state(settings: DeviceSettings) -> DeviceState:
    try:
        return assemble(settings).state()
    except Exception as error:  # noqa: BLE001  # one bad device must not hide the others
        kind = settings.transport
        text = (
            str(error) if isinstance(error, PhonenasError) else f"{type(error).__name__}: {error}"
        )
        return DeviceState(settings.name, kind, "not usable", "", 0, settings.runtime, text)


def _unnamed(device: AdbDevice, hardware: str, first: dict[str, str]) -> DeviceState:
    """The row of what adb sees and no table names."""
    state, detail = device.state, device.advice
    name = f"({device.serial})"
    if state == "device":
        state = "not in devices.toml"
        detail = f'name it in devices.toml: transport = "adb", address = "{device.serial}"'
        if hardware and (other := first.setdefault(hardware, name)) != name:
            state = "listed twice"
            detail = f"the same phone as {other} (serial number {hardware}), reached another way"
    return DeviceState(name, "adb", state, device.model, 0, "", detail)
