"""Devices behind a real adbd and a real sshd: the contract, and agreement with this computer."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest
import servers
from patience import wait_for
from servers import AdbPhones, Sshd

from phonenas import data, devices
from phonenas.devices import Device, Job
from phonenas.devices.measuring.pool import DevicePool
from phonenas.devices.measuring.profiling import Selection
from phonenas.devices.measuring.protocol import SENTINEL, Protocol
from phonenas.devices.registry import assemble, listing
from phonenas.devices.runtimes import command
from phonenas.devices.settings import DeviceSettings
from phonenas.space import Architecture
from phonenas.space.errors import DeviceError
from phonenas.testing import DeviceContract
from phonenas.testing.device import undisturbed

pytest_plugins = ("servers",)

SMALL = Architecture.parse("r1_k3_s11_e1_i32_o16 r1_k3_s22_e3_i16_o24 res64")


@pytest.fixture
def phones(adb_phones: AdbPhones, monkeypatch: pytest.MonkeyPatch) -> AdbPhones:
    for name, value in adb_phones.settings.items():
        monkeypatch.setenv(name, value)
    return adb_phones


def over_adb(phones: AdbPhones, number: int = 0, **more: object) -> Device:
    return assemble(
        DeviceSettings(
            f"phone{number}",
            "adb",
            phones.serials[number],
            python=sys.executable,
            phone=False,  # the daemon runs on this computer
            **more,  # type: ignore[arg-type]
        )
    )


def over_ssh(sshd: Sshd, **more: object) -> Device:
    return assemble(
        DeviceSettings(
            "board",
            "ssh",
            sshd.host,
            config=str(sshd.config),
            python=sys.executable,
            **more,  # type: ignore[arg-type]
        )
    )


@pytest.fixture(scope="session")
def benchmark_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for Google's program: the same flags and words, times by LiteRT's interpreter."""
    pytest.importorskip("ai_edge_litert")
    return program_of(tmp_path_factory.mktemp("bin"), "benchmark_model")


@pytest.fixture(scope="session")
def perf_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for ONNX Runtime's program, in the same way."""
    return program_of(tmp_path_factory.mktemp("bin"), "perf")


def program_of(folder: Path, name: str) -> Path:
    path = folder / name
    body = (Path(__file__).parents[1] / f"standin_{name}.py").read_text(encoding="utf-8")
    path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.adbd
class TestAdb(DeviceContract):
    @pytest.fixture
    def device(self, phones: AdbPhones) -> Device:
        return over_adb(phones)

    def test_nothing_is_left_on_the_device(self, device: Device, sentinel: Path) -> None:
        with device:
            self.run(device, [Job(sentinel, 2)], sentinel)
            folder = Path(device.transport.folder)  # type: ignore[attr-defined]
            assert folder.is_dir()  # adbd runs on this computer
            assert {p.suffix for p in folder.iterdir()} == {".py", ".onnx"}
        assert not folder.exists()


@pytest.mark.adbd
class TestAdbLiteRT(DeviceContract):
    @pytest.fixture
    def device(self, phones: AdbPhones) -> Device:
        pytest.importorskip("ai_edge_litert")
        return over_adb(phones, runtime="litert")


@pytest.mark.adbd
class TestAdbBenchmarkModel(DeviceContract):
    every_inference = False

    @pytest.fixture
    def device(self, phones: AdbPhones, benchmark_model: Path) -> Device:
        return over_adb(phones, runtime="benchmark_model", binary=str(benchmark_model))

    def test_what_it_states_is_in_the_conditions(self, device: Device) -> None:
        with device:
            assert device.conditions.statistic == "median of the runs"
            assert device.conditions.provider == "XNNPACK"


@pytest.mark.sshd
class TestSsh(DeviceContract):
    @pytest.fixture
    def device(self, sshd: Sshd) -> Device:
        return over_ssh(sshd)


@pytest.mark.sshd
class TestSshLiteRT(DeviceContract):
    @pytest.fixture
    def device(self, sshd: Sshd) -> Device:
        pytest.importorskip("ai_edge_litert")
        return over_ssh(sshd, runtime="litert")


@pytest.mark.sshd
class TestSshBenchmarkModel(DeviceContract):
    every_inference = False

    @pytest.fixture
    def device(self, sshd: Sshd, benchmark_model: Path) -> Device:
        return over_ssh(sshd, runtime="benchmark_model", binary=str(benchmark_model))


def by_benchmark_model(program: Path) -> Device:
    return assemble(DeviceSettings("here", runtime="benchmark_model", binary=str(program)))


@pytest.mark.slow
class TestLocalBenchmarkModel(DeviceContract):
    every_inference = False

    @pytest.fixture
    def device(self, benchmark_model: Path) -> Device:
        return by_benchmark_model(benchmark_model)


def test_benchmark_model_tells_one_time_and_an_invalid_file(
    benchmark_model: Path, tmp_path: Path
) -> None:
    with by_benchmark_model(benchmark_model) as device:
        model = device.lower(SENTINEL, tmp_path / "sentinel")
        invalid = tmp_path / f"invalid{model.suffix}"
        invalid.write_bytes(b"no model")
        readings = undisturbed(
            device.run_ms,
            [Job(invalid, 4), Job(model, 4)],
            sentinel=model,
            warmup_runs=2,
            warmup_s=0.0,
        )
    assert readings[0].error and not readings[1].error
    assert [len(r.samples_ms) for r in readings] == [0, 1]
    assert readings[1].provider == device.conditions.provider


def test_benchmark_model_profiles_the_nodes_of_a_file(
    benchmark_model: Path, tmp_path: Path
) -> None:
    with by_benchmark_model(benchmark_model) as device:
        model = device.lower(SMALL, tmp_path / "small")
        profile = device.trace(model, 7)
        invalid = tmp_path / "invalid.tflite"
        invalid.write_bytes(b"no model")
        with pytest.raises(DeviceError):
            device.trace(invalid, 7)
    assert profile.runs == 7 and profile.statistic == "mean" and profile.plain_ms > 0
    assert {n.provider for n in profile.nodes} == {"XNNPACK"}
    assert sum(n.op == "DEPTHWISE_CONV_2D" for n in profile.nodes) == 2  # one in each block
    # The profile is of the runs with it, one node after the other.
    assert profile.nodes_ms == pytest.approx(profile.profiled_ms, rel=0.01)
    ends = [n.start_ms + n.shown_ms for n in profile.nodes]
    assert [n.start_ms for n in profile.nodes] == pytest.approx([0.0, *ends[:-1]])


def by_perf_test(program: Path) -> Device:
    return assemble(DeviceSettings("here", runtime="onnxruntime_perf_test", binary=str(program)))


@pytest.mark.slow
class TestLocalPerfTest(DeviceContract):
    @pytest.fixture
    def device(self, perf_test: Path) -> Device:
        return by_perf_test(perf_test)


def test_perf_test_tells_every_run_but_those_of_warm_up(perf_test: Path, tmp_path: Path) -> None:
    with by_perf_test(perf_test) as device:
        assert device.conditions.statistic == "samples"
        model = device.lower(SENTINEL, tmp_path / "sentinel")
        (reading,) = undisturbed(
            device.run_ms, [Job(model, 6)], sentinel=model, warmup_runs=5, warmup_s=0.0
        )
    assert len(reading.samples_ms) == 6 and len(set(reading.samples_ms)) > 1
    assert min(*reading.samples_ms, *reading.sentinel_ms) > 0


def test_perf_test_profiles_the_nodes_of_a_file(perf_test: Path, tmp_path: Path) -> None:
    with by_perf_test(perf_test) as device:
        model = device.lower(SMALL, tmp_path / "small")
        profile = device.trace(model, 7)
        left = list(Path(device.transport.folder).glob("profile*"))  # type: ignore[attr-defined]
        assert not left
        invalid = tmp_path / "invalid.onnx"
        invalid.write_bytes(b"no model")
        with pytest.raises(DeviceError):
            device.trace(invalid, 7)
    assert profile.runs == 7 and profile.statistic == "median" and profile.plain_ms > 0
    assert {n.provider for n in profile.nodes} == {"CPUExecutionProvider"}
    assert sum(n.op == "Conv" for n in profile.nodes) > 4
    assert 0 < profile.nodes_ms < 2 * profile.profiled_ms


def test_a_perf_test_without_a_profile_says_so(perf_test: Path, tmp_path: Path) -> None:
    silent = tmp_path / "perf"
    text = perf_test.read_text(encoding="utf-8")
    assert "options.enable_profiling = True" in text
    silent.write_text(text.replace("options.enable_profiling = True", "pass"), encoding="utf-8")
    silent.chmod(0o755)
    with by_perf_test(silent) as device:
        model = device.lower(SENTINEL, tmp_path / "sentinel")
        with pytest.raises(
            DeviceError, match="the profile of onnxruntime_perf_test cannot be read"
        ):
            device.trace(model, 3)


@pytest.mark.slow
def test_a_battery_is_read_beside_a_program(
    perf_test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DeviceSettings(
        "here", runtime="onnxruntime_perf_test", binary=str(perf_test), energy=True
    )
    with assemble(settings) as device:
        model = device.lower(SENTINEL, tmp_path / "sentinel")
        supplies = tmp_path / "power_supply" / "battery"
        supplies.mkdir(parents=True)
        script = command.POWERED.replace("/sys/class/power_supply", str(supplies.parent))
        monkeypatch.setattr(command, "POWERED", script)
        found = device.startup(model)
        assert found is not None and found.energy_mj is None and found.peak_bytes
        for name, text in (
            ("type", "Battery"),
            ("status", "Discharging"),
            ("power_now", "5000000"),
        ):
            (supplies / name).write_text(f"{text}\n")
        found = device.startup(model)
        # 5 W, for as long as an inference takes: some tenths of a millisecond to some ms.
        assert found is not None and found.energy_mj is not None and 0.1 < found.energy_mj < 100


@pytest.mark.adbd
class TestAdbPerfTest(DeviceContract):
    @pytest.fixture
    def device(self, phones: AdbPhones, perf_test: Path) -> Device:
        return over_adb(phones, runtime="onnxruntime_perf_test", binary=str(perf_test))


@pytest.mark.adbd
@pytest.mark.sshd
def test_adb_and_ssh_give_the_times_that_local_gives(
    phones: AdbPhones, sshd: Sshd, tmp_path: Path
) -> None:
    """One run, three ways turn by turn."""
    ways = {"local": devices.connect("local"), "adb": over_adb(phones), "ssh": over_ssh(sshd)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        for device in ways.values():
            stack.enter_context(device)
        sentinel = ways["local"].lower(SENTINEL, tmp_path / "sentinel")
        model = ways["local"].lower(SMALL, tmp_path / "model")
        for _ in range(9):
            for name, device in ways.items():
                (reading,) = undisturbed(
                    device.run_ms, [Job(model, 20)], sentinel=sentinel, warmup_runs=5, warmup_s=0.1
                )
                assert reading.error == ""
                times[name].append(median(reading.samples_ms))
    ratios = {name: median(t) / median(times["local"]) for name, t in times.items()}
    # A wrong unit, thread or core is off by more; another program on the core by less.
    assert all(0.67 <= r <= 1.5 for r in ratios.values()), ratios


@pytest.mark.adbd
def test_two_adb_devices_side_by_side_into_one_store(phones: AdbPhones, tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "x.db") as store:

        def work(device: Device, tell: object) -> devices.Outcome:
            return devices.measure(
                Selection(named=[SMALL]).subjects(None, 0, 0),
                on=device,
                into=store,
                protocol=Protocol(apart_s=0.5, network_rounds=3),
                on_event=tell,  # type: ignore[arg-type]
            )

        found = DevicePool([over_adb(phones, 0), over_adb(phones, 1)]).run(work)
        assert found.failures == {}
        assert {c.device for c in store.conditions()} == {"phone0", "phone1"}
        for outcome in found.outcomes.values():
            assert outcome.measured + len(outcome.unstable) == len(SMALL.operators()) + 1


@pytest.mark.adbd
def test_the_list_shows_what_adb_sees_and_no_table_names(
    phones: AdbPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = phones.serials
    path = tmp_path / "devices.toml"
    path.write_text(
        f'[mine]\ntransport = "adb"\naddress = "{first}"\n'
        '[away]\ntransport = "adb"\naddress = "NOSUCH"\n'
        '[nowhere]\ntransport = "ssh"\naddress = "nobody@127.0.0.1"\nport = 1\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("PHONENAS_DEVICES", str(path))
    rows = {r.name: r for r in listing()}
    assert rows["mine"].state == "ready"
    assert rows["mine"].cores == os.cpu_count()
    assert rows["away"].state == "not attached"
    assert rows["nowhere"].state == "unreachable" and "listens" in rows["nowhere"].detail
    assert rows[f"({second})"].state == "not in devices.toml"
    assert f'address = "{second}"' in rows[f"({second})"].detail


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    wait_for("the end of each worker", lambda: not _workers(), said=_workers)


def _workers() -> list[str]:
    found = []
    for process in servers._offspring(os.getpid()):  # others may measure on this computer
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(w.endswith(b"/worker.py") for w in words) and b"adb" not in words[0]:
            found.append(b" ".join(words).decode())
    return found
