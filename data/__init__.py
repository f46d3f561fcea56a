"""Measurements, the store that keeps them, and the tables that ship."""

from __future__ import annotations

from .export import export
from .measurement import Conditions, Measurement, Round
from .store import MeasurementStore

__all__ = ["Conditions", "Measurement", "MeasurementStore", "Round", "export"]
