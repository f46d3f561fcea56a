"""The Runtime contract: a file to run, a program, and how to read what it says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...space.lowering import Measurable
from ..device import Job, Reading
from ..settings import DeviceSettings

if TYPE_CHECKING:
    from ..transport import Transport

__all__ = ["MODEL_S", "Identity", "Runtime"]

MODEL_S = 30.0  # longest that one model may run, warm-up included


@dataclass(frozen=True)
class Identity:
    """What a runtime is, as it says on the device itself.

    Args:
        runtime, version: Name and version.
        sha256: Of the binary that computes.
        provider: Execution provider or delegate that every reading must come from.
        optimisation: Graph optimisation level.
        statistic: "samples" where it tells every inference, or what it tells instead.
    """

    runtime: str
    version: str
    sha256: str
    provider: str
    optimisation: str
    statistic: str = "samples"


class Runtime(ABC):
    """A program that runs models. Lifetime: made, `start`ed on an open transport, `stop`ped.

    Args:
        settings: The device's; `provider` "" stands for the runtime's own default.
    """

    name: str
    provider: str  # the default

    def __init__(self, settings: DeviceSettings) -> None:
        self.settings = settings
        self.provider = settings.provider or type(self).provider

    def described(self, transport: Transport) -> str:
        """Its name, and its version where that is known without starting it."""
        return self.name

    @abstractmethod
    def lower(self, model: Measurable, stem: Path) -> Path:
        """Write a model as the file that this runtime reads, at `stem` plus an ending."""

    @abstractmethod
    def start(self, transport: Transport, cores: Sequence[int], sentinel: Path) -> Identity:
        """Bring the program to the device and see that it runs.

        Args:
            cores: Numbers of the cores to compute on; none where it cannot be pinned.
            sentinel: A model file, to try it with.
        Raises:
            DeviceUnavailable: It cannot run there; says what is missing.
            DeviceError: It runs, and not as asked.
        """

    @abstractmethod
    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        """As `Device.run_ms`."""

    @abstractmethod
    def stop(self) -> None:
        """End it; bounded, never raises. May be called twice."""
