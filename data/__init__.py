"""Measurements, the store that keeps them, the tables that ship, and image sets."""

from __future__ import annotations

from .export import export
from .images import ImageSet, held_out, read_images
from .measurement import Conditions, Measurement, Round
from .store import MeasurementStore

__all__ = [
    "Conditions",
    "ImageSet",
    "Measurement",
    "MeasurementStore",
    "Round",
    "export",
    "held_out",
    "read_images",
]
