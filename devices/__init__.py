"""Devices: what runs models and how long they take there."""

from __future__ import annotations

from .device import Device, DeviceState, Job, Reading
from .measuring.events import Subject
from .measuring.profiling import Outcome, Selection, measure, profile
from .measuring.protocol import QUICK, Protocol
from .registry import connect, listing, usual_precision
from .runtimes.runtime import Identity, Runtime
from .settings import DeviceSettings
from .transports.base import Answer, Transport
from .transports.process import Process

__all__ = [
    "QUICK",
    "Answer",
    "Device",
    "DeviceSettings",
    "DeviceState",
    "Identity",
    "Job",
    "Outcome",
    "Process",
    "Protocol",
    "Reading",
    "Runtime",
    "Selection",
    "Subject",
    "Transport",
    "connect",
    "listing",
    "measure",
    "profile",
    "usual_precision",
]
