"""The store of measurements: one SQLite file, or a database by its URL."""

from __future__ import annotations

from .database import Database
from .schema import Contents
from .store import MeasurementStore, Pending

__all__ = ["Contents", "Database", "MeasurementStore", "Pending"]
