"""The worker's timing rules, with an engine and a scheduler of the test's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phonenas.devices.device import Job
from phonenas.devices.runtimes import worker
from phonenas.devices.runtimes.python_worker import OnnxRuntime
from phonenas.devices.settings import DeviceSettings
from phonenas.devices.transports.local import LocalTransport

ENGINE = """
class Model:
    provider = "CPU"
    load_ms = 7.0

    def __init__(self, path):
        self.path = path

    def run(self):
        RAN.append(self.path)


RAN = []


class Engine:
    def __init__(self, settings): ...

    def load(self, path):
        return Model(path)

    def identity(self):
        return {"runtime": "fake", "version": "1", "sha256": "0"}
"""


class Scheduler:
    """A clock that moves by 1 ms a run of a model, by 101 ms where the scheduler takes the core.

    Of the sentinel, every first run of two takes 3 ms and the second 0.5 ms, from its tenth run on
    0.7 ms.
    """

    def __init__(self, ran: list[str], every: int) -> None:
        self.ran, self.every = ran, every

    def preempted(self) -> int:
        return self.ran.count("model") // self.every

    def perf_counter(self) -> float:
        beside = range(self.ran.count("sentinel"))
        sentinel_ms = sum(3.0 if n % 2 == 0 else 0.5 if n < 10 else 0.7 for n in beside)
        return (self.ran.count("model") + 100 * self.preempted() + sentinel_ms) / 1e3


def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> worker.Bench:
    path = tmp_path / "engine.py"
    path.write_text(ENGINE)
    made = worker.Bench(str(path), {"provider": "CPU"})
    ran = made.engine.load.__globals__["RAN"]
    scheduler = Scheduler(ran, every)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=scheduler.perf_counter))
    monkeypatch.setattr(worker, "preemptions", scheduler.preempted)
    return made


def measured(of: worker.Bench, runs: int) -> dict[str, Any]:
    request = {"limit_s": 1e9, "warmup_runs": 2, "warmup_s": 0.0, "sentinel": "sentinel"}
    return of.measure("model", runs, request)


def test_runs_that_lost_the_core_are_dropped_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(bench(tmp_path, monkeypatch, every=4), 9)
    assert len(found["samples_ms"]) == len(found["sentinel_ms"]) == 9
    # Every fourth run takes 101 ms: none of them is among the samples.
    assert max(found["samples_ms"]) == pytest.approx(1.0)
    assert found["preempted"] == 3


def test_the_sentinels_time_is_that_of_its_second_runs_around_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch, every=10**9)
    monkeypatch.setattr(worker, "_BLOCK_S", 0.0015)
    found = measured(made, 16)
    # Two samples of 1 ms between two readings of the sentinel; the sixth one is slower.
    assert found["sentinel_ms"] == pytest.approx([0.5] * 8 + [0.6] * 2 + [0.7] * 6)
    assert found["samples_ms"] == pytest.approx([1.0] * 16)
    assert found["first_ms"] == pytest.approx(1.0)


def test_a_sentinel_that_lost_the_core_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch, every=10**9)
    ran = made.engine.load.__globals__["RAN"]
    # Its first two timed runs lose the core.
    monkeypatch.setattr(worker, "preemptions", lambda: min(2, max(0, len(ran) - 1)))
    assert made.sentinel_ms("sentinel") == pytest.approx(0.5)
    assert ran == ["sentinel"] * 4


def test_where_every_run_loses_the_core_there_is_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(bench(tmp_path, monkeypatch, every=1), 5)
    assert found == {"error": "no undisturbed run among 15", "preempted": 15}


def test_a_startup_counts_what_came_on_top_of_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch, every=10**9)
    (tmp_path / "model").write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    resident = {"VmRSS": 40_000_000, "VmHWM": 90_000_000}
    monkeypatch.setattr(worker, "resident_bytes", resident.get)
    assert made.startup("model", 4) == {
        "load_ms": 7.0,
        "first_ms": pytest.approx(1.0),
        "peak_bytes": 90_000_000,
        "model_bytes": 50_000_000,
        "file_bytes": 5,
        "energy_mj": None,
    }
    assert made.engine.load.__globals__["RAN"] == ["model"] * 4
    resident.clear()  # a system without /proc
    startup = made.startup("model", 1)
    assert startup["peak_bytes"] is None and startup["model_bytes"] is None


def test_memory_of_this_process_is_read_where_proc_is() -> None:
    peak, now = worker.resident_bytes("VmHWM"), worker.resident_bytes("VmRSS")
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc")
    assert peak is not None and now is not None
    assert 1 << 20 < now <= peak + (64 << 10)  # the kernel adds up the counts of several cores late
    assert worker.resident_bytes("VmOther") is None


def test_the_worker_says_which_processor_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    assert bench(tmp_path, monkeypatch, every=4).hello()["machine"] == "riscv64"


class Cable(LocalTransport):
    """This computer as if it were another: files are copied into the folder of the device."""

    kind = "cable"

    def push(self, files: Sequence[Path], *, limit_s: float) -> list[str]:
        return [str(shutil.copy(f, Path(self.folder) / f.name)) for f in files]


def test_another_process_takes_over_and_the_folder_of_the_device_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(worker.__file__, tmp_path / "worker.py")
    (tmp_path / "engine_onnxruntime.py").write_text(ENGINE)
    model = tmp_path / "model"
    model.write_text("")
    monkeypatch.setattr(worker, "__file__", str(tmp_path / "worker.py"))
    settings = DeviceSettings("it", provider="CPU", python=sys.executable)
    runtime, transport = OnnxRuntime(settings), Cable("it")
    transport.open()
    try:
        first = runtime.start(transport, (), model)
        for turn in range(2):
            assert runtime._process is not None
            before = runtime._process.process
            runtime.refresh()
            assert runtime._process is not None and runtime._process.process.pid != before.pid
            assert before.poll() == 0
            assert {p.name for p in Path(transport.folder).iterdir()} >= {"worker.py"}
            (reading,) = runtime.run_ms(
                [Job(model, 3 + turn)], sentinel=model, warmup_runs=1, warmup_s=0.0
            )
            assert (reading.error, len(reading.samples_ms)) == ("", 3 + turn)
        assert first.runtime == "fake"
    finally:
        runtime.stop()
        transport.close()
    runtime.refresh()  # nothing runs: nothing to do
