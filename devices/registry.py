"""Devices by their names: `local`, those of devices.toml, and what adb sees beside them."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..space.errors import InvalidArgument, PhonenasError, UnknownName, nearest
from .device import Device, DeviceState
from .settings import DeviceSettings, devices_file, read_settings
from .transport import Transport

__all__ = ["assemble", "connect", "listing"]


def connect(name: str, *, threads: int | None = None) -> Device:
    """A device by its name; `local` is this computer, others stand in devices.toml.

    Args:
        name: As `phonenas devices` lists it.
        threads: Instead of those in devices.toml: that compute, ≥ 1, each on a core of its own.
    Raises:
        UnknownName: No device bears this name.
        InvalidArgument: A setting outside its range.
    """
    known = read_settings()
    if name not in known:
        raise UnknownName(
            f"no device is called {name!r}. {nearest(name, known)} List them:  phonenas devices. "
            f"Another one is a table in {devices_file()}: see docs/phones.md"
        )
    settings = known[name]
    return assemble(settings if threads is None else replace(settings, threads=threads))


def assemble(settings: DeviceSettings) -> Device:
    """A device from its settings; starts nothing."""
    if settings.transport == "simulated":
        from .simulated import SimulatedPhone

        plain = DeviceSettings(
            settings.name, "simulated", settings.address, threads=settings.threads,
            cores=settings.cores, wait_below_c=settings.wait_below_c,
        )  # fmt: skip
        if settings != plain or settings.cores not in ("big", "little"):
            raise InvalidArgument(
                f"device {settings.name}: a simulated one has an address (its seed), threads, cores "
                "(big or little) and wait_below_c, and no other setting"
            )
        phone = SimulatedPhone(
            settings.name, seed=_seed(settings), threads=settings.threads,
            cores="little" if settings.cores == "little" else "big",
        )  # fmt: skip
        phone.wait_below_c = settings.wait_below_c
        return phone
    from . import runtimes
    from .assembly import AssembledDevice

    runtime = runtimes.get(settings.runtime, settings)
    return AssembledDevice(settings, _transport(settings), runtime)


def _seed(settings: DeviceSettings) -> int:
    if settings.address and not (settings.address.isascii() and settings.address.isdecimal()):
        raise InvalidArgument(
            f"device {settings.name}: the address of a simulated one is its seed, a number; got "
            f"{settings.address!r}"
        )
    return int(settings.address or 0)


def _transport(settings: DeviceSettings) -> Transport:
    if settings.transport == "adb":
        from .adb import AdbTransport

        return AdbTransport(settings.name, settings.address)
    if settings.transport == "ssh":
        from .ssh import SshTransport

        config = Path(settings.config).expanduser() if settings.config else None
        return SshTransport(settings.name, settings.address, settings.port, config)
    from .local import LocalTransport

    return LocalTransport(settings.name)


def listing() -> list[DeviceState]:
    """Every device that is known, with its state; then what adb sees and devices.toml lacks."""
    known = read_settings()
    # Each look may wait for a network: take them side by side.
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(_state, known.values()))
    return found + _strangers({s.address for s in known.values() if s.transport == "adb"})


def _state(settings: DeviceSettings) -> DeviceState:
    try:
        return assemble(settings).state()
    except PhonenasError as error:  # one bad table must not hide the others
        kind = settings.transport
        return DeviceState(settings.name, kind, "not usable", "", 0, settings.runtime, str(error))


def _strangers(known: set[str]) -> list[DeviceState]:
    """What adb sees and no table names."""
    if shutil.which("adb") is None:
        return []
    from .adb import attached

    try:
        seen = attached()
    except PhonenasError as error:
        return [DeviceState("(adb)", "adb", "unknown", "", 0, "", str(error))]
    return [
        DeviceState(
            f"({d.serial})",
            "adb",
            "not in devices.toml" if d.state == "device" else d.state,
            d.model,
            0,
            "",
            f'give it a name in devices.toml: transport = "adb", address = "{d.serial}"'
            if d.state == "device"
            else d.advice,
        )
        for d in seen
        if d.serial not in known
    ]
