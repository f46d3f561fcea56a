"""What several test files share: a device without hardware, a small space, a fitted model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas import data, devices, latency_model, search, space
from phonenas.data import Conditions
from phonenas.devices.device import Device, DeviceState, Job, Reading
from phonenas.space.errors import DeviceUnavailable

SENTINEL_MS = 0.5


class FakeDevice(Device):
    """Answers at once with times that follow from a model file's size, under seeded noise.

    `speed` (a list, used up one a reading) slows sentinel and sample alike; `trouble` maps the
    number of a reading to the reading that is given instead.
    """

    name = "fake"

    def __init__(
        self,
        noise: float = 0.002,
        speed: Sequence[float] = (),
        trouble: Mapping[int, Reading] | None = None,
        seed: int = 0,
    ) -> None:
        self.noise, self.speeds = noise, list(speed)
        self.trouble = dict(trouble or {})
        self.rng = np.random.default_rng(seed)
        self.entered = False
        self.readings = 0
        self.clock_s = 0.0

    def now_s(self) -> float:
        return self.clock_s

    def pause(self, seconds: float) -> None:
        self.clock_s += seconds

    def __enter__(self) -> FakeDevice:
        self.entered = True
        return self

    def __exit__(self, *error: object) -> None:
        self.entered = False

    @property
    def conditions(self) -> Conditions:
        return Conditions(
            self.name, "fake phone", "f00", "fake", "1", "h4sh", "CPU", "all", 1, "one core", "none"
        )

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        if not self.entered:
            raise DeviceUnavailable("fake is not entered")
        for job in jobs:
            self.readings += 1
            if job.model.read_bytes()[:2] == b"no":
                yield Reading(error="no model")
                continue
            if self.readings in self.trouble:
                yield self.trouble[self.readings]
                continue
            slow = self.speeds.pop(0) if self.speeds else 1.0
            true_ms = self.true_ms(job.model)
            wobble = self.rng.normal(1, self.noise, job.runs)
            samples = tuple(map(float, true_ms * slow * np.abs(wobble)))
            self.clock_s += sum(samples) / 1e3
            yield Reading(samples, (SENTINEL_MS * slow,) * job.runs, 0, "CPU")

    @staticmethod
    def true_ms(model: Path) -> float:
        """What a model file takes when nothing disturbs: by its bytes."""
        return 0.2 + model.stat().st_size * 2e-6

    def circumstances(self) -> dict[str, Any]:
        return {"load": 0.0}

    def state(self) -> DeviceState:
        return DeviceState(self.name, "fake", "ready", "fake phone", 1, "fake 1", "")


class TinySpace(space.AccelNASBench):
    """A handful of operators: the last blocks are settled."""

    name = "tiny"

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {
            name: options if name.startswith(("block1", "block2")) else options[:1]
            for name, options in super().decisions.items()
        }


@pytest.fixture(scope="session")
def tiny() -> TinySpace:
    return TinySpace(resolution=32)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of one subject need not lie apart where there is no machine to drift."""

    from dataclasses import replace

    from phonenas.devices import profiling
    from phonenas.search import validation

    quick = replace(profiling.Protocol(), apart_s=0.0)
    monkeypatch.setattr(profiling, "Protocol", lambda **more: replace(quick, **more))
    monkeypatch.setattr(validation, "Protocol", lambda **more: replace(quick, **more))


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a whole profile of the fake device on the tiny space."""
    from dataclasses import replace

    from phonenas.devices import profiling

    path = tmp_path_factory.mktemp("store") / "phonenas.db"
    protocol = replace(profiling.Protocol(), apart_s=0.0)
    subjects = profiling.subjects_of(TinySpace(resolution=32), 30, seed=0)
    with data.MeasurementStore(path) as store, FakeDevice() as device:
        devices.measure(subjects, on=device, into=store, protocol=protocol)
    return path


@pytest.fixture(scope="session")
def fitted(profiled: Path) -> latency_model.LatencyModel:
    with data.MeasurementStore(profiled) as store:
        return latency_model.fit(store, "fake")


@pytest.fixture(scope="session")
def surrogate() -> search.accuracy.Surrogate:
    return search.accuracy.Surrogate()


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses: this checkout importable, one thread."""
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
