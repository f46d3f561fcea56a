"""The fakes that phonenas.testing ships, and our own transports and runtimes, by the contracts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phonenas import devices
from phonenas.devices.assembled_device import AssembledDevice
from phonenas.devices.measuring.protocol import SENTINEL
from phonenas.devices.runtimes import Runtime
from phonenas.devices.runtimes.python_worker import OnnxRuntime
from phonenas.devices.settings import DeviceSettings
from phonenas.devices.transports.base import Answer, Transport
from phonenas.devices.transports.local import LocalTransport
from phonenas.space.errors import DeviceUnavailable
from phonenas.testing import (
    DeviceContract,
    FakeDevice,
    FakeRuntime,
    FakeTransport,
    RuntimeContract,
    TransportContract,
)


class TestFakeTransport(TransportContract):
    @pytest.fixture
    def transport(self) -> Transport:
        return FakeTransport()


class TestLocalTransport(TransportContract):
    @pytest.fixture
    def transport(self) -> Transport:
        return LocalTransport("here")


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime(DeviceSettings("fake"))


class TestOnnxRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return OnnxRuntime(DeviceSettings("here"))

    @pytest.fixture
    def transport(self) -> Transport:
        return LocalTransport("here")


class TestFakeDevice(DeviceContract):
    @pytest.fixture
    def device(self) -> devices.Device:
        return FakeDevice()


def test_a_fake_transport_answers_and_is_lost_as_told() -> None:
    transport = FakeTransport(answers={"getprop": Answer(0, "Pixel 9\n")}, lost_after=2)
    with pytest.raises(DeviceUnavailable, match="fake was lost"):
        transport.run(["true"], limit_s=1)
    transport.open()
    assert transport.run(["getprop", "ro.product.model"], limit_s=1).output == "Pixel 9\n"
    assert transport.run(["true"], limit_s=10).code == 0
    with pytest.raises(DeviceUnavailable, match="fake was lost"):
        transport.run(["true"], limit_s=1)
    assert transport.commands[0] == ["getprop", "ro.product.model"]
    transport.close()


def test_fakes_make_a_device(tmp_path: Path) -> None:
    settings = DeviceSettings("fake phone")
    device = AssembledDevice(settings, FakeTransport("fake phone"), FakeRuntime(settings))
    with device:
        sentinel = device.lower(SENTINEL, tmp_path / "s")
        (reading,) = device.run_ms(
            [devices.Job(sentinel, 3)], sentinel=sentinel, warmup_runs=0, warmup_s=0.0
        )
        assert device.conditions.runtime == "fake"
    assert reading.samples_ms == pytest.approx([0.1 + sentinel.stat().st_size * 1e-5] * 3)


def test_without_pytest_the_extra_is_named() -> None:
    code = "import sys; sys.modules['pytest'] = None\nimport phonenas.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install pytest" in done.stderr
    assert "MissingExtra" in done.stderr
