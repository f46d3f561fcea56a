"""What every device must do, and a device without hardware."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas.data import Conditions
from phonenas.data.measurement import Startup
from phonenas.devices import Device, Job
from phonenas.devices.device import DeviceState, Reading
from phonenas.devices.measuring.protocol import SENTINEL
from phonenas.space.errors import DeviceError, DeviceUnavailable
from phonenas.space.precision import FLOAT32, PRECISIONS

__all__ = ["DeviceContract", "FakeDevice"]

SENTINEL_MS = 0.5
SENTINEL_NOISE = 0.002  # its own: a real sentinel is not exactly proportional to the samples


class FakeDevice(Device):
    """Answers at once with times that follow from a model file's size, under seeded noise.

    `speed` (a list, used up one a reading) slows sentinel and samples alike, except for the noise
    that each has of its own; `trouble` maps the number of a reading to the reading given instead.
    """

    name = "fake"

    #: What networks are written in.
    precision = FLOAT32

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
        self.rng_beside = np.random.default_rng((seed, 1))
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
        names = ("fake phone", "f00", "fake", "1", "h4sh", "CPU", "all")
        return Conditions(self.name, *names, 1, "one core", "none", self.precision)

    @property
    def precisions(self) -> tuple[str, ...]:
        return FLOAT32, "int8"

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        if not self.entered:
            raise DeviceUnavailable("fake is not entered")
        for job in jobs:
            self.readings += 1
            if self._is_no_model(job.model):
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
            beside = SENTINEL_MS * slow * self.rng_beside.normal(1, SENTINEL_NOISE, job.runs)
            yield Reading(samples, tuple(map(float, beside)), 0, "CPU")

    def startup(self, model: Path) -> Startup:
        if not self.entered:
            raise DeviceUnavailable("fake is not entered")
        if self._is_no_model(model):
            raise DeviceError("fake: no model")
        size, ms = model.stat().st_size, self.true_ms(model)
        self.clock_s += 20 * ms / 1e3
        return Startup(5 * ms, 1.5 * ms, 30_000_000 + 2 * size, 2 * size, size)

    @staticmethod
    def _is_no_model(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(2) == b"no"

    @staticmethod
    def true_ms(model: Path) -> float:
        """What a model file takes when nothing disturbs: by its bytes."""
        return 0.2 + model.stat().st_size * 2e-6

    def telemetry(self) -> dict[str, Any]:
        return {"load": 0.0}

    def state(self) -> DeviceState:
        return DeviceState(self.name, "fake", "ready", "fake phone", 1, "fake 1", "")


def too_busy(error: str) -> bool:
    """Whether the error of a reading says that a busy computer left it no undisturbed run."""
    return "no undisturbed run" in error or "no run in time" in error


def undisturbed(
    run_ms: Callable[..., Iterable[Reading]], jobs: Sequence[Job], **how: Any
) -> list[Reading]:
    """Readings of jobs, asked for again where other programs took the core in too many runs."""
    for _ in range(100):
        readings = list(run_ms(jobs, **how))
        if not any(
            too_busy(r.error) or (r.preempted and len(r.samples_ms) < job.runs)
            for job, r in zip(jobs, readings, strict=False)
        ):
            break
    return readings


class DeviceContract:
    """A device runs model files, says what it is, and raises phonenas's own errors."""

    @pytest.fixture
    def device(self) -> Device:
        """The device under test, not yet entered."""
        raise NotImplementedError

    @pytest.fixture
    def sentinel(self, device: Device, tmp_path: Path) -> Path:
        return device.lower(SENTINEL, tmp_path / "sentinel")

    #: Whether each sample is one inference; a program that prints statistics gives one a model.
    every_inference = True

    def run(self, device: Device, jobs: list[Job], sentinel: Path) -> list[Any]:
        how: dict[str, Any] = {"sentinel": sentinel, "warmup_runs": 2, "warmup_s": 0.0}
        return undisturbed(device.run_ms, jobs, **how)

    def test_readings_come_in_order_and_are_times(self, device: Device, sentinel: Path) -> None:
        with device:
            readings = self.run(device, [Job(sentinel, 4), Job(sentinel, 7)], sentinel)
        assert [r.error for r in readings] == ["", ""]
        assert [len(r.samples_ms) for r in readings] == ([4, 7] if self.every_inference else [1, 1])
        for r in readings:
            assert len(r.sentinel_ms) == len(r.samples_ms)
            assert all(0 < t < 60_000 for t in r.samples_ms + r.sentinel_ms)
            assert r.provider == device.conditions.provider

    def test_an_invalid_model_file_is_an_error_and_the_next_model_runs(
        self, device: Device, sentinel: Path
    ) -> None:
        broken = sentinel.with_name(f"broken{sentinel.suffix}")
        broken.write_bytes(b"no model")
        with device:
            bad, good = self.run(device, [Job(broken, 3), Job(sentinel, 3)], sentinel)
        assert bad.error
        assert not bad.samples_ms
        assert not good.error
        assert len(good.samples_ms) == (3 if self.every_inference else 1)

    def test_a_startup_is_of_the_file_alone(self, device: Device, sentinel: Path) -> None:
        broken = sentinel.with_name(f"broken{sentinel.suffix}")
        broken.write_bytes(b"no model")
        with device:
            startup = device.startup(sentinel)
            if startup is None:
                return  # a device need not have any
            with pytest.raises((DeviceError, DeviceUnavailable)):
                device.startup(broken)
            (reading,) = self.run(device, [Job(sentinel, 2)], sentinel)  # it goes on
        assert not reading.error
        known = {k: v for k, v in vars(startup).items() if v is not None}
        assert known and all(v > 0 for v in known.values())
        assert known.get("model_bytes", 0) < known.get("peak_bytes", math.inf)

    def test_conditions_are_equal_from_one_connection_to_the_next(self, device: Device) -> None:
        with device:
            first = device.conditions
        with device:
            assert device.conditions == first
        assert first.device == device.name
        assert all(v not in ("", None) for v in first.to_dict().values())
        assert device.fingerprint == first.fingerprint

    def test_each_precision_that_it_names_runs(
        self, device: Device, sentinel: Path, tmp_path: Path
    ) -> None:
        names = device.precisions
        assert names[0] == FLOAT32 and len(set(names)) == len(names) and {*names} <= {*PRECISIONS}
        files = [device.lower(SENTINEL, tmp_path / n, n) for n in names if n != FLOAT32]
        with device:
            assert device.conditions.precision in names
            readings = self.run(device, [Job(f, 2) for f in files], sentinel)
        errors = [r.error for r in readings]
        assert errors == [""] * len(files), errors

    def test_telemetry_is_json(self, device: Device) -> None:
        with device:
            assert isinstance(json.loads(json.dumps(device.telemetry())), dict)

    def test_state_is_known_before_the_device_is_entered(self, device: Device) -> None:
        state = device.state()
        assert state.name == device.name
        assert state.cores > 0

    def test_it_runs_on_in_a_new_process(self, device: Device, sentinel: Path) -> None:
        with device:
            conditions = device.conditions
            for _ in range(2):
                device.refresh()
                (reading,) = self.run(device, [Job(sentinel, 2)], sentinel)
                assert reading.samples_ms and not reading.error
            assert device.conditions == conditions

    def test_it_can_be_exited_twice_and_entered_again(self, device: Device, sentinel: Path) -> None:
        with device:
            device.__exit__(None, None, None)  # as after a loss
            device.__enter__()
            (reading,) = self.run(device, [Job(sentinel, 2)], sentinel)
            assert not reading.error
            device.__exit__(None, None, None)

    def test_its_clock_advances_while_it_pauses(self, device: Device) -> None:
        before = device.now_s()
        device.pause(0.02)
        assert device.now_s() - before >= 0.02

    def test_it_refuses_to_run_outside_its_context(self, device: Device, sentinel: Path) -> None:
        with pytest.raises(DeviceUnavailable):
            self.run(device, [Job(sentinel, 1)], sentinel)
        with device:
            pass
        with pytest.raises(DeviceUnavailable):
            self.run(device, [Job(sentinel, 1)], sentinel)
