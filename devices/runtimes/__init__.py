"""Runtimes: each a file to run, a program, and how to read what it says."""

from __future__ import annotations

from ...space.errors import UnknownName, nearest
from ..settings import DeviceSettings
from .runtime import Identity, Runtime

__all__ = ["Identity", "Runtime", "get", "names"]


def _known() -> dict[str, type[Runtime]]:
    # A new runtime is one file and one line here.
    from .benchmark_model import BenchmarkModel
    from .perf_test import OnnxRuntimePerfTest
    from .python_worker import LiteRT, OnnxRuntime

    return {r.name: r for r in (OnnxRuntime, LiteRT, BenchmarkModel, OnnxRuntimePerfTest)}


def names() -> list[str]:
    """Every runtime's name."""
    return sorted(_known())


def get(name: str, settings: DeviceSettings) -> Runtime:
    """A runtime by its name.

    Raises:
        UnknownName: None bears it.
        InvalidArgument: It cannot do what the settings ask for.
    """
    known = _known()
    if name not in known:
        raise UnknownName(f"device {settings.name}: no runtime {name!r}. {nearest(name, known)}")
    return known[name](settings)
