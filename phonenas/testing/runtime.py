"""What every runtime must do, and a runtime without a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from phonenas.data.measurement import taken_as
from phonenas.devices import Job
from phonenas.devices.device import Reading
from phonenas.devices.measuring.protocol import SENTINEL
from phonenas.devices.runtimes import Identity, Runtime
from phonenas.devices.transports.base import Transport
from phonenas.space import zoo
from phonenas.space.errors import DeviceUnavailable
from phonenas.space.lowering.write import Measurable, write_onnx
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.precision import FLOAT32, PRECISIONS
from phonenas.space.tflite_file import TfliteFile

from .device import too_busy, undisturbed
from .transport import FakeTransport

__all__ = ["FakeRuntime", "RuntimeContract"]


class FakeRuntime(Runtime):
    """Answers at once: 0.1 ms, and 1 ms more for each 100 kB of the model file."""

    name = "fake"
    provider = "CPU"
    transport: Transport | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        return FLOAT32, "int8"

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        return write_onnx(model, stem.with_suffix(".onnx"), precision)

    def start(self, transport: Transport, cores: Sequence[int], sentinel: Path) -> Identity:
        transport.push([sentinel], limit_s=30)
        self.transport = transport
        return Identity(self.name, "1", "0" * 64, self.provider, "all")

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        if self.transport is None:
            raise DeviceUnavailable(f"{self.settings.name}: the runtime is not started")
        for job in jobs:
            content = job.model.read_bytes()
            if content[:2] == b"no":
                yield Reading(error="this file holds no model")
            else:
                self.transport.push([job.model], limit_s=30)
                ms = 0.1 + len(content) * 1e-5
                yield Reading((ms,) * job.runs, (0.5,) * job.runs, 0, self.provider)

    def stop(self) -> None:
        self.transport = None


class RuntimeContract:
    """A runtime writes its own model files, runs them in order, and ends when it is stopped."""

    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime under test, not yet started."""
        raise NotImplementedError

    @pytest.fixture
    def transport(self) -> Transport:
        """A device that the runtime can run on, not yet open."""
        return FakeTransport()

    #: Whether each sample is one inference; a program that prints statistics gives one a model.
    every_inference = True

    def test_it_says_what_it_is_and_runs_models_in_order(
        self, runtime: Runtime, transport: Transport, tmp_path: Path
    ) -> None:
        sentinel = runtime.lower(SENTINEL, tmp_path / "sentinel")
        network = runtime.lower(zoo.network("mnasnet-small", 0.5, 64), tmp_path / "network")
        broken = tmp_path / f"broken{sentinel.suffix}"
        broken.write_bytes(b"no model")
        transport.open()
        try:
            identity = runtime.start(transport, (), sentinel)
            assert all((identity.runtime, identity.version, identity.sha256, identity.provider))
            jobs = [Job(sentinel, 3), Job(broken, 2), Job(network, 4)]
            small, bad, large = undisturbed(
                runtime.run_ms, jobs, sentinel=sentinel, warmup_runs=1, warmup_s=0.0
            )
        finally:
            runtime.stop()
            runtime.stop()
            transport.close()
        assert bad.error and not bad.samples_ms
        for reading, samples in ((small, 3), (large, 4)):
            assert reading.error == ""
            assert len(reading.samples_ms) == (samples if self.every_inference else 1)
            assert len(reading.sentinel_ms) == len(reading.samples_ms)
            assert all(0 < ms < 60_000 for ms in reading.samples_ms + reading.sentinel_ms)
            assert reading.provider == identity.provider

    def test_it_runs_each_precision_that_it_names(
        self, runtime: Runtime, transport: Transport, tmp_path: Path
    ) -> None:
        """Others are refused by name before a device is reached: see `devices.runtimes.get`."""
        names = runtime.precisions
        assert names[0] == FLOAT32 and len(set(names)) == len(names) and {*names} <= {*PRECISIONS}
        sentinel = runtime.lower(SENTINEL, tmp_path / "sentinel")
        models = {n: runtime.lower(SENTINEL, tmp_path / n, n) for n in names if n != FLOAT32}
        for name, path in models.items():
            assert self.computes_in(path) in (name, *taken_as(name, runtime.name))
        transport.open()
        try:
            runtime.start(transport, (), sentinel)
            jobs = [Job(path, 4) for path in models.values()]
            readings = list(runtime.run_ms(jobs, sentinel=sentinel, warmup_runs=1, warmup_s=0.0))
        finally:
            runtime.stop()
            transport.close()
        errors = {n: r.error for n, r in zip(models, readings, strict=True) if r.error}
        # On a busy computer it ran, and was disturbed each time, or had no time left.
        assert all(too_busy(error) for error in errors.values()), errors

    def computes_in(self, path: Path) -> str:
        """The precision of a model file, as it says itself; of another format, overridden."""
        file = TfliteFile.at(path) if path.suffix == ".tflite" else OnnxFile.at(path)
        return file.precision

    def test_it_starts_again_after_it_was_stopped(
        self, runtime: Runtime, transport: Transport, tmp_path: Path
    ) -> None:
        sentinel = runtime.lower(SENTINEL, tmp_path / "sentinel")
        identities = []
        for _ in range(2):
            transport.open()
            try:
                identities.append(runtime.start(transport, (), sentinel))
            finally:
                runtime.stop()
                transport.close()
        assert identities[0] == identities[1]

    def test_a_lost_device_raises_device_unavailable(
        self, runtime: Runtime, transport: Transport, tmp_path: Path
    ) -> None:
        sentinel = runtime.lower(SENTINEL, tmp_path / "sentinel")
        with pytest.raises(DeviceUnavailable):
            runtime.start(FakeTransport(lost_after=0), (), sentinel)
