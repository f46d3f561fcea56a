"""Transports: how a device is reached, by name."""

from __future__ import annotations

from typing import Any

from phonenas.space.registry import Registry

__all__ = ["TRANSPORTS"]

_HERE = "phonenas.devices"
#: By name, as devices.toml gives it: a `Transport`, or a whole `Device` that needs no runtime.
TRANSPORTS: Registry[Any] = Registry(
    "transport",
    "phonenas.transports",
    {
        "adb": f"{_HERE}.transports.adb:AdbTransport",
        "local": f"{_HERE}.transports.local:LocalTransport",
        "simulated": f"{_HERE}.simulated.phone:SimulatedPhone",
        "ssh": f"{_HERE}.transports.ssh:SshTransport",
    },
)
