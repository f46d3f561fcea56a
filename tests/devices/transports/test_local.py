"""This computer as a device: the contract on the real worker, and what can go wrong with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE_S, wait_for

from phonenas import data, devices, space
from phonenas.data import files
from phonenas.devices import Device, Job
from phonenas.devices.assembled_device import AssembledDevice
from phonenas.devices.measuring.profiling import Selection
from phonenas.devices.measuring.protocol import SENTINEL, Protocol, verdict
from phonenas.devices.measuring.rejection import DriftFilter
from phonenas.devices.registry import assemble
from phonenas.devices.runtimes import python_worker
from phonenas.devices.settings import DeviceSettings
from phonenas.devices.transports.base import bounded
from phonenas.space.errors import DeviceUnavailable, InvalidArgument, UnknownName
from phonenas.space.lowering.onnx import to_onnx
from phonenas.testing import DeviceContract


class TestLocalDevice(DeviceContract):
    @pytest.fixture
    def device(self) -> Device:
        return devices.connect("local")

    def test_the_worker_is_pinned_and_gone_afterwards(self, device: Device) -> None:
        with device:
            process = worker_of(device).pid
            if hasattr(os, "sched_getaffinity"):
                assert os.sched_getaffinity(process) == set(device.telemetry()["cores"])
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)

    def test_a_worker_that_is_killed_is_device_lost(self, device: Device, sentinel: Path) -> None:
        with device:
            os.kill(worker_of(device).pid, signal.SIGKILL)
            with pytest.raises(DeviceUnavailable, match="worker process ended with code -9"):
                self.run(device, [Job(sentinel, 3)], sentinel)

    def test_a_worker_that_hangs_is_device_lost(
        self, device: Device, sentinel: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with device:
            monkeypatch.setattr(python_worker, "MODEL_S", 0.2)
            monkeypatch.setattr(python_worker, "_GRACE_S", 0.2)
            os.kill(worker_of(device).pid, signal.SIGSTOP)
            with pytest.raises(DeviceUnavailable, match="did not answer"):
                self.run(device, [Job(sentinel, 3)], sentinel)
            os.kill(worker_of(device).pid, signal.SIGCONT)

    def test_a_second_one_is_told_who_measures(
        self, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with device, monkeypatch.context() as patch:
            patch.setattr(files, "_LOCK_WAIT_S", 0.2)
            with pytest.raises(DeviceUnavailable, match="measured by another process"):
                devices.connect("local").__enter__()
        with devices.connect("local"):
            pass  # free again

    def test_its_row_of_the_list_names_the_runtimes_version(self, device: Device) -> None:
        from importlib.metadata import version

        row = device.state()
        assert (row.state, row.runtime) == ("ready", f"onnxruntime {version('onnxruntime')}")
        assert "core" in row.detail


def worker_of(device: Device) -> subprocess.Popen[bytes]:
    assert isinstance(device, AssembledDevice)
    assert isinstance(device.runtime, python_worker.PythonWorker)
    assert device.runtime._process is not None
    return device.runtime._process.process


@pytest.mark.slow  # the engine itself is examined quickly in test_engine_litert.py
class TestLocalLiteRT(DeviceContract):
    @pytest.fixture
    def device(self) -> Device:
        pytest.importorskip("ai_edge_litert")
        return assemble(DeviceSettings("local-litert", runtime="litert"))


@pytest.mark.slow
def test_a_real_profile_of_a_few_operators(tmp_path: Path) -> None:
    network = space.Architecture.parse("r1_k3_s11_e1_i32_o16 r1_k3_s22_e3_i16_o24 res64")
    with data.MeasurementStore(tmp_path / "s.db") as store, devices.connect("local") as device:
        outcome = devices.measure(
            Selection(named=[network]).subjects(None, 0, 0),
            on=device,
            into=store,
            protocol=Protocol(apart_s=1.1),
        )
        sentinel_ms = store.sentinel_ms(device.conditions)
    assert outcome.measured + len(outcome.unstable) == len(network.operators()) + 1
    assert sentinel_ms is not None and sentinel_ms > 0
    for m in outcome.results.values():
        assert m.conditions.runtime == "onnxruntime"
        assert len(m.conditions.runtime_hash) == 16
        assert m.samples >= 3 * Protocol().operator_runs
        for taken in m.rounds:
            assert len(taken.sentinel_ms) == len(taken.samples_ms)
            assert "load" in taken.telemetry
    # Rounds lie apart in time, not back to back.
    stamps = {r.at for m in outcome.results.values() for r in m.rounds}
    assert len(stamps) >= 3


@pytest.mark.slow
def test_bigger_operators_take_longer(tmp_path: Path) -> None:
    small = space.Operator("mbconv", 16, 16, 14, kernel=3, expansion=3)
    large = space.Operator("mbconv", 64, 64, 56, kernel=5, expansion=6)
    sentinel = tmp_path / "s.onnx"
    sentinel.write_bytes(to_onnx(SENTINEL).SerializeToString())
    jobs = []
    for name, operator in (("small", small), ("large", large)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(to_onnx(operator).SerializeToString())
        jobs.append(Job(path, 5))
    with devices.connect("local") as device:
        for _ in range(20):  # a busy computer may let none of five runs through
            readings = list(device.run_ms(jobs, sentinel=sentinel, warmup_runs=5, warmup_s=0.1))
            if all(r.samples_ms for r in readings):
                break
    assert min(readings[1].samples_ms) > 10 * min(readings[0].samples_ms)  # 100 times the MACs


def test_what_a_program_started_ends_with_it_when_it_takes_too_long(tmp_path: Path) -> None:
    script = "sleep 4321 >/dev/null 2>&1 & echo $! > started; wait"
    for limit_s in (1.0, 10.0, 60.0):  # in which it must have begun
        with pytest.raises(DeviceUnavailable, match=f"did not answer within {limit_s:.0f} s"):
            bounded("x", ["sh", "-c", f"cd {tmp_path}; {script}"], limit_s=limit_s)
        if (tmp_path / "started").exists():
            break
    process = int((tmp_path / "started").read_text())

    def ended() -> bool:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"  # it is this computer's to reap

    wait_for("its end", ended)


@pytest.mark.slow
def test_several_threads_are_one_pool_and_an_older_runtime_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    program = (
        "import sys; from phonenas.devices.runtimes.engine_onnxruntime import Engine; import "
        "onnxruntime\n"
        "ask = {'threads': 2, 'provider': 'CPUExecutionProvider'}\n"
        "if sys.argv[1] == 'old': del onnxruntime.set_global_thread_pool_sizes\n"
        "engine = Engine(ask)\n"
        "models = [engine.load(sys.argv[2]) for _ in range(8)]\n"
        "[m.run() for m in models]\n"
        "import pathlib; print(len(list(pathlib.Path('/proc/self/task').iterdir())))\n"
    )
    sentinel = tmp_path / "s.onnx"
    sentinel.write_bytes(to_onnx(SENTINEL).SerializeToString())

    def ran(which: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, which, str(sentinel)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=Path(__file__).parents[3],
        )

    old = ran("old")
    assert old.returncode == 1
    assert "cannot share one pool of threads" in old.stderr
    new = ran("new")
    assert new.returncode == 0, new.stderr
    assert new.stderr == ""
    # Eight sessions with threads of their own would be eight more.
    assert int(new.stdout) < 8


def test_warm_up_by_time_holds_before_the_first_sample(tmp_path: Path) -> None:
    sentinel = tmp_path / "s.onnx"
    sentinel.write_bytes(to_onnx(SENTINEL).SerializeToString())
    with devices.connect("local") as device:
        began = time.monotonic()
        list(device.run_ms([Job(sentinel, 1)], sentinel=sentinel, warmup_runs=5, warmup_s=0.5))
        assert time.monotonic() - began >= 0.5


def test_unknown_devices_and_too_many_threads() -> None:
    with pytest.raises(UnknownName, match="Known: local"):
        devices.connect("locale")
    with pytest.raises(InvalidArgument, match="threads"):
        devices.connect("local", threads=0)
    with pytest.raises(InvalidArgument, match="threads would share"):
        devices.connect("local", threads=10_000).__enter__()


def test_two_threads_are_other_conditions() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core only")
    with devices.connect("local") as one:
        alone = one.conditions
    with devices.connect("local", threads=2) as two:
        version, threads = alone.differences(two.conditions)
    assert threads == "threads: 1 / 2"
    assert version.endswith(", one pool")


def test_the_drift_follows_where_the_machine_mostly_is() -> None:
    drift = DriftFilter(0.2, memory=40)
    for _ in range(40):
        assert drift.check_speed(1.0) == ""
    assert "+100%" in drift.check_speed(2.0)
    assert drift.usual_ms == 1.0
    refused = sum(bool(drift.check_speed(2.0)) for _ in range(40))
    assert 15 <= refused < 40  # a lasting change becomes the new normal, not at once
    assert drift.check_speed(2.0) == ""
    assert "-50%" in drift.check_speed(1.0)


def test_verdict_says_what_to_do() -> None:
    assert not verdict([], 0, Protocol()).stable
    conditions = data.Conditions("d", "m", "f", "r", "1", "h", "p", "all", 1, "c", "none")

    def network(*ms: float) -> data.Measurement:
        return data.Measurement("network", "n", conditions, tuple(data.Round((t,)) for t in ms))

    calm, wild = network(1.0, 1.01, 1.02), network(1.0, 1.3, 1.7)
    assert verdict([calm], 2, Protocol()).stable
    told = verdict([wild], 2, Protocol())
    assert not told.stable and "--again" in told.text
