"""The Runtime contract: a model file's format, a program, and how to read what it prints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phonenas.data.measurement import Startup
from phonenas.space.errors import InvalidArgument
from phonenas.space.lowering.write import Measurable
from phonenas.space.precision import FLOAT32

from ..device import Job, Reading
from ..node_times import Trace
from ..settings import DeviceSettings

if TYPE_CHECKING:
    from ..transports.base import Transport

__all__ = [
    "ENERGY_S",
    "MODEL_S",
    "STARTUP_RUNS",
    "WARMUP_RUNS",
    "Identity",
    "Runtime",
    "onnxruntime_precisions",
    "runs_natively",
]

WARMUP_RUNS = 5  # before a trace
STARTUP_RUNS = 20  # of a model in a process of its own
ENERGY_S = 3.0  # of runs whose energy is read; a battery's gauge is renewed every second or so
MODEL_S = 30.0  # longest that one model may run, warm-up included
_ALIKE = {"armv8l": "armv7l", "i386": "i686", "i586": "i686", "arm64": "aarch64"}
# 64-bit systems that run 32-bit programs too.
_ALSO = {("aarch64", "armv7l"), ("x86_64", "i686")}


# As the providers' documents have it; what one does not run is an error of its reading.
_OF_PROVIDERS = {
    "CPUExecutionProvider": (FLOAT32, "int8", "int8-dynamic"),
    "CUDAExecutionProvider": (FLOAT32, "float16"),
    "CoreMLExecutionProvider": (FLOAT32, "float16"),
    "DmlExecutionProvider": (FLOAT32, "float16"),
    "NnapiExecutionProvider": (FLOAT32, "int8"),
    "QNNExecutionProvider": (FLOAT32, "float16", "int8"),
    "TensorrtExecutionProvider": (FLOAT32, "float16", "int8"),
    "XnnpackExecutionProvider": (FLOAT32, "int8"),
}


def onnxruntime_precisions(provider: str) -> tuple[str, ...]:
    """What an execution provider of ONNX Runtime computes in, without a cast to another precision.

    Of those that networks are written in as ONNX: a file with float16 weights runs as well.

    >>> onnxruntime_precisions("CPUExecutionProvider")
    ('float32', 'int8', 'int8-dynamic')
    """
    return _OF_PROVIDERS.get(provider, (FLOAT32,))


def runs_natively(built_for: str, machine: str) -> bool:
    """Whether a program runs on a processor without emulation.

    Args:
        built_for, machine: Of the program, and of the device, as `uname -m` prints them; "" for
            unknown, which goes with all.
    """
    program, device = _ALIKE.get(built_for, built_for), _ALIKE.get(machine, machine)
    return not (program and device) or program == device or (device, program) in _ALSO


@dataclass(frozen=True)
class Identity:
    """What a runtime is, as it reports on the device itself.

    Args:
        runtime, version: Name and version.
        sha256: Hash of the binary that computes.
        provider: Execution provider or delegate that every reading must come from.
        optimisation: Graph optimisation level.
        statistic: "samples" where it reports every inference, else what it reports instead.
        machine: Processor that the program sees, as `uname -m` prints it; "" if unknown. Where the
            device has another, an emulator runs the program.
    """

    runtime: str
    version: str
    sha256: str
    provider: str
    optimisation: str
    statistic: str = "samples"
    machine: str = ""


class Runtime(ABC):
    """A program that runs models. Lifetime: made, `start`ed on an open transport, `stop`ped.

    Args:
        settings: Of the device; `provider` "" stands for the runtime's own default.
    """

    name: str
    provider: str  # the default

    def __init__(self, settings: DeviceSettings) -> None:
        self.settings = settings
        self.provider = settings.provider or type(self).provider

    @property
    def precisions(self) -> tuple[str, ...]:
        """What its provider runs as it is written: names of `space.precision`, float32 first.

        A device is refused that is to measure in another one (`runtimes.get`).
        """
        return (FLOAT32,)

    def described(self, transport: Transport) -> str:
        """Its name, and its version if that is known without starting it."""
        return self.name

    @abstractmethod
    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        """Write a model as the file that this runtime reads, at `stem` plus an ending.

        Args:
            model: A network or a part of one; a file stays in its own precision.
            stem: Of the path.
            precision: Of `precisions`. A runtime that has float32 alone need not take it.
        """

    @abstractmethod
    def start(self, transport: Transport, cores: Sequence[int], sentinel: Path) -> Identity:
        """Bring the program to the device and test that it runs.

        Args:
            cores: Numbers of the cores to compute on; none if it cannot be pinned.
            sentinel: A model file, to test it with.
        Raises:
            DeviceUnavailable: It cannot run there; says what is missing.
            DeviceError: It runs, but not as asked.
        """

    @abstractmethod
    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        """As `Device.run_ms`."""

    def startup(self, model: Path) -> Startup | None:
        """As `Device.startup`."""
        return None

    def trace(self, model: Path, runs: int) -> Trace:
        """As `Device.trace`."""
        raise InvalidArgument(
            f"{self.settings.name}: phonenas reads no profile of single nodes from {self.name}. "
            "Devices with onnxruntime, onnxruntime_perf_test or benchmark_model give one"
        )

    def refresh(self) -> None:
        """As `Device.refresh`; for a runtime that starts a process for each model, nothing."""
        return

    @abstractmethod
    def stop(self) -> None:
        """End it; bounded, never raises. May be called twice."""
