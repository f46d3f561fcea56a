"""Platform-aware neural architecture search for phones.

Five folders, each imported when it is first used: `space` (operators, networks, search spaces),
`data` (measurements and their store), `latency_model` (from measurements to predictions),
`devices` (what runs models), `search` (strategies, accuracy, validation).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import moved as _moved  # noqa: F401  # old module paths work from here on

if TYPE_CHECKING:
    from phonenas import data, devices, latency_model, search, space

__version__ = "0.2.0"
__all__ = ["__version__", "data", "devices", "latency_model", "search", "space"]

_FOLDERS = ("data", "devices", "latency_model", "search", "space")


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'phonenas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
