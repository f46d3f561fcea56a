"""Devices: what runs models and how long they take there."""

from __future__ import annotations

from .device import Device, DeviceState, Job, Reading
from .plan import Subject
from .profiling import Outcome, measure, profile
from .registry import connect, listing

__all__ = [
    "Device",
    "DeviceState",
    "Job",
    "Outcome",
    "Reading",
    "Subject",
    "connect",
    "listing",
    "measure",
    "profile",
]
