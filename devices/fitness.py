"""Whether a device is in a state to be measured: temperature, battery, other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["doubts", "reason_to_wait"]

# Android's words for its thermal status, 0 to 6; from 1 on it throttles.
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_LOW_PERCENT = 15  # below, Android offers its battery saver, which lowers the clocks
_BUSY_SHARE = 0.5


def reason_to_wait(circumstances: Mapping[str, Any], wait_below_c: float | None) -> str:
    """Why the next batch should wait, or "".

    Args:
        circumstances: As `Device.circumstances` gives them.
        wait_below_c: Greatest temperature at which to measure, in °C; None for any.
    """
    status = int(circumstances.get("thermal_status", 0))
    if status > 0:
        word = _STATUS[min(status, len(_STATUS) - 1)]
        return f"it throttles for heat (thermal status {status}, {word})"
    celsius = circumstances.get("temperature_c")
    if wait_below_c is not None and celsius is not None and celsius >= wait_below_c:
        return f"it is at {celsius:.1f} °C; measured is below {wait_below_c:g} °C"
    return ""


def doubts(circumstances: Mapping[str, Any]) -> list[str]:
    """What speaks against measuring now, each a sentence that says what to do."""
    found = []
    percent = circumstances.get("battery_percent")
    if percent is not None and percent < _LOW_PERCENT and not circumstances.get("charging"):
        found.append(
            f"its battery is at {percent:.0f} % and not charging: a saver may lower the clocks. "
            "Charge it"
        )
    load, cores = circumstances.get("load"), circumstances.get("online")
    if load is not None and cores and load > _BUSY_SHARE * cores:
        found.append(f"other programs are at work on it (load {load:.1f}). Close them")
    return found
