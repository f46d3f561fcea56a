"""The Device contract: what a device is, and that it runs model files."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from phonenas.data.measurement import Conditions, Startup
from phonenas.space.errors import DeviceUnavailable, InvalidArgument
from phonenas.space.lowering.write import Measurable
from phonenas.space.precision import FLOAT32

from .node_times import Trace
from .settings import DeviceSettings

__all__ = ["Device", "DeviceState", "Job", "LostInRun", "Reading"]


class LostInRun(DeviceUnavailable):
    """The device was lost while a model ran on it; the model itself may be the cause."""


@dataclass(frozen=True)
class Job:
    """A model file on this computer, as `Device.lower` wrote it, and how many samples to take.

    `partly` says that a delegate may leave some of its nodes to other kernels.
    """

    model: Path
    runs: int
    partly: bool = False


@dataclass(frozen=True)
class Reading:
    """The raw result of one model file on a device.

    Args:
        samples_ms: Times of single undisturbed inferences after warm-up, in ms.
        sentinel_ms: Time of the sentinel beside each sample, in ms.
        preempted: Runs dropped because the scheduler took the core; with an error, that is why.
        provider: The execution provider that ran.
        error: Why there is no sample; "" otherwise.
        first_ms: Time of the first inference after loading, in ms; 0 if unknown.
        clock_mhz: Clock of the slowest core in use during the run, in MHz; 0 if unknown.
        busy_s: Seconds of computing, warm-up and sentinel included; 0 if unknown.
    """

    samples_ms: tuple[float, ...] = ()
    sentinel_ms: tuple[float, ...] = ()
    preempted: int = 0
    provider: str = ""
    error: str = ""
    first_ms: float = 0.0
    clock_mhz: float = 0.0
    busy_s: float = 0.0

    @property
    def crowded_out(self) -> bool:
        """Whether there is no sample because other programs took the core from every run."""
        return bool(self.error) and self.preempted > 0


@dataclass(frozen=True)
class DeviceState:
    """A row of `phonenas devices`."""

    name: str
    kind: str
    state: str
    model: str
    cores: int
    runtime: str
    detail: str


class Device(ABC):
    """One phone or computer, reached by some transport, running some runtime.

    Lifetime: made by `connect`, which starts nothing; entered as a context, in which its worker
    runs and `run_ms` may be called any number of times; left, after which nothing of it remains
    on the device. Timing, statistics and verdict are the same for every device, and not its own.
    """

    name: str
    #: Wait for the device to be cooler than this before each batch, in °C, unless a job says
    #: otherwise.
    wait_below_c: float | None = None
    #: Whether the energy of inferences is asked for.
    energy: bool = False
    #: Whether a phone's limits apply, known once entered: heat is waited for longer and less
    #: drift is allowed.
    phone: bool = False

    @classmethod
    def from_settings(cls, settings: DeviceSettings) -> Device:
        """The device of a table in devices.toml whose `transport` names this class.

        Raises:
            InvalidArgument: It cannot be made from settings, which is so unless overridden.
        """
        raise InvalidArgument(f"device {settings.name}: {cls.__name__} has no `from_settings`")

    @abstractmethod
    def __enter__(self) -> Device:
        """Reach it and start its worker.

        Raises:
            DeviceUnavailable: It cannot be reached, or cannot start the runtime.
        """

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the worker; bounded in time."""

    @property
    @abstractmethod
    def conditions(self) -> Conditions:
        """The conditions of every measurement made now; known once entered."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """What its networks may be written in: names of `space.precision`, float32 first.

        The one that they are written in stands in its conditions.
        """
        return (FLOAT32,)

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        """Write a model as the file that this device runs, at `stem` plus an ending: ONNX.

        A device whose runtime reads another format overrides it.

        Args:
            model: A network or a part of one; a file stays in its own precision.
            stem: Of the path.
            precision: Of `precisions`. A device that has float32 alone need not take it.
        """
        from phonenas.space.lowering.write import write_onnx

        return write_onnx(model, stem.with_suffix(".onnx"), precision)

    @abstractmethod
    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        """Run model files one after another; yields one reading each, in order.

        Args:
            jobs: Model files, with the number of undisturbed samples wanted of each.
            sentinel: A model file that is run between the samples.
            warmup_runs, warmup_s: Runs of each model, and seconds of unbroken load of the
                core, before the first sample.
        Raises:
            DeviceUnavailable: It was lost, or did not answer in time; `LostInRun` if that happened
                while the model of the next reading ran.
        """

    def startup(self, model: Path) -> Startup | None:
        """Bring a model up in a process of its own, which ends then; None if it cannot be had.

        It is asked for between two requests of `run_ms`, so that it disturbs no sample.

        Args:
            model: A model file, as `lower` wrote it.
        Raises:
            DeviceError: It failed there; the device itself is not lost.
            DeviceUnavailable: The device was lost.
        """
        return None

    def trace(self, model: Path, runs: int = 21) -> Trace:
        """Run a model under its runtime's own profiler, in a process of its own.

        Args:
            model: A model file, as `lower` wrote it.
            runs: Of which the medians are, ≥ 1.
        Raises:
            InvalidArgument: No profile of single nodes can be had of its runtime.
            DeviceError: It failed there; the device itself is not lost.
            DeviceUnavailable: The device was lost.
        """
        raise InvalidArgument(f"{self.name}: this device gives no profile of single nodes")

    @abstractmethod
    def telemetry(self) -> dict[str, Any]:
        """What may change from round to round: core numbers, load, temperature, clock.

        A measuring job reads `thermal_status` (0 none, 1 light, ... as Android counts),
        `temperature_c`, `battery_percent`, `charging`, `load`, `online`, `pressure` (% of time in
        which a program waits for a core) and `cpu_quota` (cores) before a batch, and `unread`, a
        list of sentences on text that could not be read; from one batch to the next
        `elsewhere_s`, processor seconds that other programs took on the cores that the job does
        not compute on. A key whose value is unknown is absent.
        """

    @abstractmethod
    def state(self) -> DeviceState:
        """Its row of `phonenas devices`."""

    def refresh(self) -> None:
        """Let what is measured next run in a new process, where the runtime keeps one.

        The place of a process in memory changes its times by some 0.8 %. Nothing else changes.

        Raises:
            DeviceUnavailable, DeviceError: As `__enter__`.
        """
        return

    @property
    def place(self) -> str:
        """Equal for two names of the same hardware, which are then measured in turn."""
        return self.name

    def now_s(self) -> float:
        """The clock by which pauses are counted, in s; a simulated device has its own."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Leave the device idle for a while."""
        time.sleep(seconds)

    @property
    def fingerprint(self) -> str:
        """Short hash of what the device is."""
        return self.conditions.fingerprint
