"""Whether a device may be measured now: temperature, battery, other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

__all__ = ["load_text", "reason_to_wait", "warnings_of"]

# Android's names of its thermal status, 0 to 6; from 1 on it throttles.
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_LOW_PERCENT = 15  # below, Android offers its battery saver, which lowers the clocks
_BUSY_SHARE = 0.5
_BUSY_CORES = 0.3  # of other programs beside the job
_CROWDED = 0.05  # share of runs that lost the core
_PRESSED = 20.0  # % of the time in which a program waited for a core
# A program that streams memory on another core makes whole networks 12 to 24 % slower.
_COST = 0.24


def reason_to_wait(telemetry: Mapping[str, Any], wait_below_c: float | None) -> str:
    """Why the next batch should wait, or "".

    Args:
        telemetry: As `Device.telemetry` gives it.
        wait_below_c: Greatest temperature at which to measure, in °C; None for any.
    """
    status = int(telemetry.get("thermal_status", 0))
    if status > 0:
        word = _STATUS[min(status, len(_STATUS) - 1)]
        return f"it throttles for heat (thermal status {status}, {word})"
    celsius = telemetry.get("temperature_c")
    if wait_below_c is not None and celsius is not None and celsius >= wait_below_c:
        return f"it is at {celsius:.1f} °C; it is measured below {wait_below_c:g} °C"
    return ""


def warnings_of(
    telemetry: Mapping[str, Any], *, phone: bool = False, wait_below_c: float | None = None
) -> list[str]:
    """What may make a measurement wrong now, each a sentence that says what to do.

    Args:
        telemetry: As `Device.telemetry` gives it.
        phone: Whether it is a phone, which heats up: an unknown temperature is a warning.
        wait_below_c: Greatest temperature at which to measure, in °C; None for any.
    """
    warnings = list(telemetry.get("unread", ()))
    if "temperature_c" not in telemetry and wait_below_c is not None:
        warnings.append(
            "its temperature is unknown, so no batch waits for it to be below "
            f"{wait_below_c:g} °C. Omit that limit"
        )
    elif "temperature_c" not in telemetry and phone:
        warnings.append(
            "its temperature is unknown: keep it cool, and look at the spread of its times"
        )
    percent = telemetry.get("battery_percent")
    if percent is not None and percent < _LOW_PERCENT and not telemetry.get("charging"):
        warnings.append(
            f"its battery is not charging ({percent:.0f} %): a battery saver may lower the clocks. "
            "Charge it"
        )
    quota, threads = telemetry.get("cpu_quota"), len(telemetry.get("cores", ())) or 1
    if quota is not None and quota < threads:
        warnings.append(
            f"its container may use {quota:.0%} of a core and is stopped beyond that, so times are "
            "too long. Raise the quota"
        )
    if text := load_text([telemetry]):
        warnings.append(f"other programs run on it ({text}). Close them")
    return warnings


def load_text(telemetry: Sequence[Mapping[str, Any]], preempted: float = 0.0) -> str:
    """How other programs load the device, and what that may cost; "" if they hardly do.

    Args:
        telemetry: Of some moments, as the measuring job stores it with each round.
        preempted: Share of the runs that lost their core, in [0, 1].
    """

    def middle(name: str) -> float | None:
        values = [float(t[name]) for t in telemetry if t.get(name) is not None]
        return median(values) if values else None

    parts = []
    others, load, cores = middle("others"), middle("load"), middle("online")
    pressure = middle("pressure")
    cost = 0.0
    if others is not None and others >= _BUSY_CORES:
        parts.append(f"they take {others:.1f} cores")
        cost = _COST * min(1.0, others)
    elif others is None and load is not None and cores and load > _BUSY_SHARE * cores:
        parts.append(f"load {load:.1f} on {cores:.0f} cores")
        cost = _COST
    if preempted > _CROWDED:
        parts.append(f"{preempted:.0%} of the runs lost the core")
        cost = _COST
    if pressure is not None and pressure >= _PRESSED:
        parts.append(f"programs wait for a core in {pressure:.0f} % of the time")
        cost = _COST
    return f"{', '.join(parts)}; times may be up to {cost:.0%} too long" if parts else ""
