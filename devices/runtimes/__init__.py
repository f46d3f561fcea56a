"""Runtimes: each a model file's format, a program, and how to read what it prints."""

from __future__ import annotations

from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.registry import Registry

from ..settings import DeviceSettings
from .runtime import Identity, Runtime

__all__ = ["RUNTIMES", "Identity", "Runtime", "get", "names"]

_HERE = "phonenas.devices.runtimes"
#: By name, as devices.toml gives it.
RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime",
    "phonenas.runtimes",
    {
        "benchmark_model": f"{_HERE}.benchmark_model:BenchmarkModel",
        "litert": f"{_HERE}.python_worker:LiteRT",
        "onnxruntime": f"{_HERE}.python_worker:OnnxRuntime",
        "onnxruntime_perf_test": f"{_HERE}.perf_test:OnnxRuntimePerfTest",
    },
)
names = RUNTIMES.names


def get(name: str, settings: DeviceSettings) -> Runtime:
    """A runtime by its name, or by `module:Name`, for a device.

    Raises:
        UnknownName: No runtime has this name.
        InvalidArgument: It cannot do what the settings ask for, or is not a runtime.
    """
    try:
        kind = RUNTIMES.get(name)
    except UnknownName as error:
        raise UnknownName(f"device {settings.name}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Runtime)):
        raise InvalidArgument(
            f"device {settings.name}: runtime {name!r} names {kind!r}; it must be a class derived "
            "from phonenas.devices.Runtime"
        )
    runtime = kind(settings)
    if settings.precision not in runtime.precisions:
        raise InvalidArgument(
            f"device {settings.name}: {name} with {runtime.provider} runs "
            f"{', '.join(runtime.precisions)}, not {settings.precision}"
        )
    return runtime
