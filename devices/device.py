"""The Device contract: what it is, and that it runs model files."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..data.measurement import Conditions
from ..space.errors import DeviceUnavailable
from ..space.lowering import Measurable

__all__ = ["Device", "DeviceState", "Job", "LostInRun", "Reading"]


class LostInRun(DeviceUnavailable):
    """The device was lost while a model ran on it, which may be the model's own doing."""


@dataclass(frozen=True)
class Job:
    """A model file on this computer, as `Device.lower` wrote it, and how many samples are wanted."""

    model: Path
    runs: int


@dataclass(frozen=True)
class Reading:
    """What a device gave for one model file, as it came.

    Args:
        samples_ms: Times of single undisturbed inferences after warm-up, in ms.
        sentinel_ms: Time of the sentinel beside each sample, in ms.
        preempted: Runs dropped because the scheduler took the core.
        provider: What really ran.
        error: Why there is no sample; "" otherwise.
        first_ms: Time of the first inference after loading, in ms; 0 where it is not told.
        clock_mhz: Clock of the slowest core at work, while it worked; 0 where it is not told.
        busy_s: Seconds of computing, warm-up and sentinel included; 0 where it is not told.
    """

    samples_ms: tuple[float, ...] = ()
    sentinel_ms: tuple[float, ...] = ()
    preempted: int = 0
    provider: str = ""
    error: str = ""
    first_ms: float = 0.0
    clock_mhz: float = 0.0
    busy_s: float = 0.0


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
    runs and `run_ms` may be called as often as wanted; left, after which nothing of it remains
    on the device. Timing, statistics and verdict are the house's, the same for every device.
    """

    name: str
    #: Temperature in °C to wait for before each batch, where a job does not say another.
    wait_below_c: float | None = None

    @abstractmethod
    def __enter__(self) -> Device:
        """Reach it and start its worker.

        Raises:
            DeviceUnavailable: It is not there, or cannot start the runtime.
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
        """What every measurement made now is made under; known once entered."""

    def lower(self, model: Measurable, stem: Path) -> Path:
        """Write a model as the file that this device runs, at `stem` plus an ending: ONNX.

        A device whose runtime reads another format overrides it.
        """
        from ..space.lowering import write_onnx

        return write_onnx(model, stem.with_suffix(".onnx"))

    @abstractmethod
    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        """Run model files one after the other; one reading each, in order.

        Args:
            jobs: Model files, with the number of undisturbed samples wanted of each.
            sentinel: A model file that is run between the samples.
            warmup_runs, warmup_s: Runs of each model, and seconds of unbroken load of the
                core, before the first sample.
        Raises:
            DeviceUnavailable: It was lost, or did not answer in time; `LostInRun` while the model
                ran whose reading is due.
        """

    @abstractmethod
    def circumstances(self) -> dict[str, Any]:
        """What may change from round to round: core numbers, load, temperature, clock.

        `thermal_status` (0 none, 1 light, ... as Android counts), `temperature_c`,
        `battery_percent`, `charging` and `load` are looked at before a batch; each may lack.
        """

    @abstractmethod
    def state(self) -> DeviceState:
        """What `phonenas devices` says of it."""

    @property
    def place(self) -> str:
        """What it shares with other names of the same hardware: they are measured in turn."""
        return self.name

    def now_s(self) -> float:
        """The clock that pauses are counted by, in s; a simulated device has its own."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Leave the device alone for a while."""
        time.sleep(seconds)

    @property
    def fingerprint(self) -> str:
        """Short hash of what the device is."""
        return self.conditions.fingerprint
