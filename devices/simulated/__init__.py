"""A phone without hardware, for tests and for trying the commands."""

from __future__ import annotations

from .disturbance import BackgroundLoad, Disturbance, Losses, Throttle
from .phone import SimulatedPhone

__all__ = ["BackgroundLoad", "Disturbance", "Losses", "SimulatedPhone", "Throttle"]
