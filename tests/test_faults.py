"""What goes wrong between a computer and its phones: a named error or a whole job, each time.

Every test makes one fault happen, on a real adbd or sshd wherever it can, and asks that nothing
of it becomes a number: what was believed before stays, what was lost is taken again, and what
cannot be is told in one line that says what to do. `docs/phones.md` has a row for each.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import servers
from servers import AdbPhones, Sshd, wait_for

from phonenas import data, devices
from phonenas.devices import Device, Job, assembly, gate, job, keeper, lock
from phonenas.devices.plan import Event, Lost
from phonenas.devices.profiling import subjects_of
from phonenas.devices.registry import assemble
from phonenas.devices.runtimes import python_worker
from phonenas.devices.settings import DeviceSettings
from phonenas.devices.timing import SENTINEL, Protocol
from phonenas.space import Architecture
from phonenas.space.errors import (
    DeviceUnavailable,
    PhonenasError,
)

pytest_plugins = ("servers",)

HERE = Path(__file__).parent
SMALL = Architecture.parse("r1_k3_s11_e1_i32_o16 r1_k3_s22_e3_i16_o24 res32")
SUBJECTS = subjects_of(None, 0, 0, [SMALL])
TWICE = Protocol(
    operator_rounds=2, network_rounds=2, operator_runs=4, network_runs=4,
    warmup_runs=1, warmup_s=0.0, drift_limit=1e9, spread_limit=1e9, last_limit=1e9, apart_s=0.0,
)  # fmt: skip


# -- what the tests share -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short pauses and batches; no number is judged here, and nobody else's lock waited for."""
    monkeypatch.setattr(gate, "_LEAST", 1e9)
    monkeypatch.setattr(keeper, "_WATCH", 2)
    monkeypatch.setattr(keeper, "_WATCH_RUNS", 3)
    monkeypatch.setattr(keeper, "_RECONNECT_S", (0.1,) * 12)
    monkeypatch.setattr(job, "_BATCH_S", 0.005)
    monkeypatch.setattr(assembly, "_WATCH_S", 0.0)
    monkeypatch.setattr(adb, "SWEEP_S", 1.0)
    monkeypatch.setattr(ssh, "SWEEP_S", 1.0)
    monkeypatch.setattr(conversation, "_LEAVE_S", 0.5)
    monkeypatch.setattr(lock, "tempfile", SimpleNamespace(gettempdir=lambda: str(tmp_path)))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever went wrong, no program of ours stays on a device."""
    yield
    with contextlib.suppress(TimeoutError):
        wait_for("the end of all programs", lambda: not at_work(), 5)
    assert not at_work()


def at_work(what: str = "/phonenas-") -> dict[int, str]:
    """Programs on the tests' devices with these words in their command line, by process."""
    found = {}
    for pid in servers._offspring(os.getpid()):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            line = " ".join(words)
            program = Path(words[0]).name
            if what in line and "phonenas-test-" not in line and program not in ("adb", "ssh"):
                found[pid] = line
    return found


@pytest.fixture
def phones(adb_phones: AdbPhones, monkeypatch: pytest.MonkeyPatch) -> AdbPhones:
    for name, value in adb_phones.settings.items():
        monkeypatch.setenv(name, value)
    return adb_phones


def over_adb(serial: str, name: str = "phone", **more: Any) -> Any:
    more.setdefault("python", sys.executable)
    return assemble(DeviceSettings(name, "adb", serial, **more))


def over_ssh(sshd: Sshd, **more: Any) -> Any:
    more.setdefault("python", sys.executable)
    return assemble(DeviceSettings("board", "ssh", sshd.host, config=str(sshd.config), **more))


def here(**more: Any) -> Any:
    return assemble(DeviceSettings("here", **more))


def told(found: pytest.ExceptionInfo[PhonenasError]) -> str:
    """The words of an error: one line that can be printed, and long enough to help."""
    text = str(found.value)
    print(f"WORDS {os.environ.get('PYTEST_CURRENT_TEST')} {type(found.value).__name__}: {text}")
    assert text.isprintable(), repr(text)
    assert 40 < len(text) < 700
    return text


def strike(device: Any, fault: Callable[[], object], after: int = 4) -> None:
    """Let a fault happen once, while the device works: after so many readings."""
    real, given = device.run_ms, 0

    def run_ms(jobs: Sequence[Job], **more: Any) -> Iterator[Any]:
        nonlocal given
        for reading in real(jobs, **more):
            given += 1
            if given == after:
                fault()
            yield reading

    device.run_ms = run_ms


def stored(path: Path) -> set[tuple[int, int, str]]:
    """Every round of a store, as it lies there."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT measurement, number, samples_ms FROM round"))


def measured(
    device: Device, path: Path, on_event: Callable[[Event], object] | None = None
) -> tuple[devices.Outcome, list[Event]]:
    """Measure the subjects into a store; what was believed may not change or go on the way."""
    events: list[Event] = []
    before: set[tuple[int, int, str]] = set()

    def tell(event: Event) -> None:
        events.append(event)
        before.update(stored(path))
        if on_event is not None:
            on_event(event)

    with data.MeasurementStore(path) as store, device:
        outcome = devices.measure(SUBJECTS, on=device, into=store, protocol=TWICE, on_event=tell)
    assert before <= stored(path)
    return outcome, events


def whole(outcome: devices.Outcome, path: Path, samples: int = 4) -> None:
    """Every subject has its rounds, each once, of as many positive times as were asked for."""
    assert outcome.unstable == {}
    assert set(outcome.results) == {s.text for s in SUBJECTS}
    for measurement in outcome.results.values():
        assert len(measurement.rounds) == 2
        for taken in measurement.rounds:
            assert len(taken.samples_ms) == len(taken.sentinel_ms) == samples
            assert all(0 < t < 60_000 for t in taken.samples_ms + taken.sentinel_ms)
    assert len([r for r in stored(path)]) >= 2 * len(SUBJECTS)


def losses(events: Sequence[Event]) -> list[str]:
    return [e.reason for e in events if isinstance(e, Lost)]


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return here().lower(SENTINEL, tmp_path / "sentinel")


# -- 1 to 4: cables, daemons, servers -------------------------------------------------------------


@pytest.mark.adbd
@pytest.mark.parametrize("cut", ["reset", "silent"])
def test_unplugged_in_mid_command(phones: AdbPhones, cut: Any) -> None:
    device = over_adb(phones.serials[0])
    device.transport.open()
    raw = subprocess.Popen(
        ["adb", "-s", phones.serials[0], "shell", "sleep 30; echo late"],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    threading.Timer(0.4, phones.devices[0].unplug, [cut]).start()
    began = time.monotonic()
    with raw, pytest.raises(DeviceUnavailable) as found:
        try:
            device.transport.run(["sleep", "30"], limit_s=2)
        finally:
            if cut == "silent":
                raw.kill()
            said = raw.communicate(timeout=5)[0]
    assert time.monotonic() - began < 4
    text = told(found)
    if cut == "silent":
        assert "phone did not answer within 2 s" in text
    else:
        assert (raw.returncode, said) == (0, b"")  # the fault itself: adb says that all is well
        assert "lost in mid-command" in text and "Look at the cable" in text
    phones.devices[0].plug()
    phones.server.connect(phones.devices[0])
    device.transport.close()


@pytest.mark.adbd
@pytest.mark.parametrize("cut", ["reset", "silent"])
def test_unplugged_in_mid_push(phones: AdbPhones, tmp_path: Path, cut: Any) -> None:
    device = over_adb(phones.serials[0])
    device.transport.open()
    big = tmp_path / "big.onnx"
    with big.open("wb") as file:
        file.truncate(1 << 30)
    there = Path(device.transport.folder) / big.name  # adbd runs on this computer

    def pull_out() -> None:
        wait_for("the first part", lambda: there.exists() and there.stat().st_size > 1 << 20)
        phones.devices[0].unplug(cut)

    hand = threading.Thread(target=pull_out)
    hand.start()
    began = time.monotonic()
    with pytest.raises(DeviceUnavailable) as found:
        device.transport.push([big], limit_s=3)
    hand.join()
    assert time.monotonic() - began < 5
    if cut == "silent":
        assert 0 < there.stat().st_size < 1 << 30  # a part is left behind
    else:
        wait_for("its end", lambda: not there.exists(), 2)  # adbd throws the part away
    told(found)
    assert re.search("lost while files were pushed|did not answer within 3 s", str(found.value))
    device.transport.close()
    phones.devices[0].plug()
    shutil.rmtree(there.parent, ignore_errors=True)


@pytest.mark.adbd
@pytest.mark.parametrize("cut", ["reset", "silent"])
def test_unplugged_in_mid_job_and_plugged_in_again(
    phones: AdbPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Any
) -> None:
    monkeypatch.setattr(python_worker, "MODEL_S", 1.0)
    monkeypatch.setattr(python_worker, "_GRACE_S", 1.0)
    device, phone = over_adb(phones.serials[0]), phones.devices[0]
    strike(device, lambda: phone.unplug(cut))

    def plug(event: Event) -> None:
        if isinstance(event, Lost):
            phone.plug()

    outcome, events = measured(device, tmp_path / "x.db", plug)
    assert losses(events)
    whole(outcome, tmp_path / "x.db")


@pytest.mark.adbd
def test_the_adb_server_is_killed_in_mid_job(phones: AdbPhones, tmp_path: Path) -> None:
    device = over_adb(phones.serials[0])
    strike(device, phones.server.kill)
    outcome, events = measured(device, tmp_path / "x.db")
    assert not phones.server.alive  # a command of the job has started another
    assert losses(events)
    whole(outcome, tmp_path / "x.db")


@pytest.mark.adbd
def test_the_daemon_is_restarted_in_mid_job(phones: AdbPhones, tmp_path: Path) -> None:
    device, phone = over_adb(phones.serials[0]), phones.devices[0]
    states = []

    def restart() -> None:
        phone.kill()
        wait_for("offline", lambda: phones.server.state(phones.serials[0]) != "device", 5)
        states.append(phones.server.state(phones.serials[0]))
        phone.restart()

    strike(device, restart)
    outcome, events = measured(device, tmp_path / "x.db")
    assert states[0] in ("offline", "")
    assert losses(events)
    whole(outcome, tmp_path / "x.db")


# -- 5 to 9: what the phone does not allow, and what it cannot run --------------------------------


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `adb` that is none, first in PATH; the folder where it looks up what to say."""
    folder = tmp_path / "standin"
    folder.mkdir()
    write_program(folder / "adb", (HERE / "standin_adb.py").read_text(encoding="utf-8"))
    (folder / "devices").write_text(recorded("adb_devices_none.txt"))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def write_program(path: Path, python: str) -> Path:
    path.write_text(f"#!{sys.executable} -IS\n{python}", encoding="utf-8")
    path.chmod(0o700)
    return path


def recorded(name: str) -> str:
    return (HERE / "recorded" / name).read_text(encoding="utf-8", errors="replace")


def attach(standin: Path, serial: str, model: str = "Pixel_6") -> Path:
    """One more device of the stand-in: its folder."""
    folder = standin / serial
    for name in ("bin", "tmp"):
        (folder / name).mkdir(parents=True)
    with (standin / "devices").open("a") as devices:
        devices.write(f"{serial}  device usb:1-1 product:oriole model:{model} transport_id:1\n")
    return folder


def test_unauthorized_is_told_with_what_to_do(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (standin / "devices").write_text(recorded("adb_devices_states.txt"))
    with pytest.raises(DeviceUnavailable) as found:
        over_adb("R58M123ABC").__enter__()
    text = told(found)
    assert "adb has R58M123ABC as unauthorized" in text
    assert "accept the question about USB debugging" in text
    table = tmp_path / "devices.toml"
    table.write_text('[mine]\ntransport = "adb"\naddress = "R58M123ABC"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(table))
    rows = {r.name: r for r in listing()}
    assert rows["mine"].state == "unauthorized" and "accept" in rows["mine"].detail
    assert rows["(28151FDF6000AB)"].state == "not in devices.toml"
    # Every other state is told too, and none of them is taken for a device.
    for serial, word in {
        "emulator-5554": "offline", "ce0517151f2b": "authorizing", "ZY22AAAA": "recovery",
        "0123456789ABCDEF": "no permissions", "ZY22CCCC": "bootloader", "ZY22GGGG": "frobnicating",
    }.items():  # fmt: skip
        with pytest.raises(DeviceUnavailable, match=f"as {word}") as found:
            over_adb(serial).__enter__()
        told(found)
    with pytest.raises(
        DeviceUnavailable, match="as not attached. It sees 28151FDF6000AB,"
    ) as found:
        over_adb("ABSENT").__enter__()
    told(found)


class Small(Adbd):
    """A device whose folder for files is as a test wants it: tiny, or not for programs.

    Args:
        mount: Options of the tmpfs that lies there; "" for a plain folder.
        place: Name of that folder.
    """

    def __init__(self, mount: str = "", place: str = "place") -> None:
        self.mount, self.name = mount, place
        super().__init__()

    @property
    def place(self) -> Path:
        return self.folder / self.name

    def _started(self) -> Guarded:
        self.place.mkdir(exist_ok=True)
        self._door.unlink(missing_ok=True)
        wrap = list(self._isolation)
        if self.mount:
            wrap[-1] = f"{wrap[-1]}m"
            script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
            wrap += ["sh", "-c", script, "sh", self.mount, str(self.place)]
        return Guarded(
            self._command,
            log=self.folder / "log",
            environment={"PATH": os.environ["PATH"], "TMPDIR": str(self.place)},
            folder=self.folder,
            wrap=wrap,
            door=self._door,
            port=5555,
            grace_s=0.5,
        )


@pytest.fixture
def phone_with(phones: AdbPhones) -> Iterator[Callable[..., Small]]:
    """Makes further devices, each connected."""
    with contextlib.ExitStack() as stack:

        def make(*words: str) -> Small:
            made = Small(*words)
            stack.callback(made.stop)
            stack.callback(phones.server.adb, "disconnect", made.address)
            phones.server.connect(made)
            return made

        yield make


@pytest.mark.adbd
def test_no_space_left_on_the_device(
    phones: AdbPhones, phone_with: Callable[..., Small], tmp_path: Path
) -> None:
    phone = phone_with("size=2m")
    shell = phones.server.adb("-s", phone.address, "shell", f"df -k {phone.place}").stdout
    assert "2048" in shell  # the device's files lie on a file system of 2 MiB
    device = over_adb(phone.address)
    big = tmp_path / "big.onnx"
    with big.open("wb") as file:
        file.truncate(3 << 20)
    device.transport.open()
    with pytest.raises(DeviceError) as found:
        device.transport.push([big], limit_s=20)
    text = told(found)
    assert "takes no more files" in text and "No space left on device" in text
    assert f"Free some space in {device.transport.folder}" in text
    device.transport.close()

    def at(words: str) -> None:
        phones.server.adb("-s", phone.address, "shell", words)

    strike(device, lambda: at(f"cat /dev/zero > {phone.place}/film"))

    def free(event: Event) -> None:
        if isinstance(event, Lost):
            at(f"rm {phone.place}/film")

    outcome, events = measured(device, tmp_path / "x.db", free)
    assert "No space left" in losses(events)[0]
    whole(outcome, tmp_path / "x.db")


def test_adb_says_that_there_is_no_space(standin: Path, sentinel: Path) -> None:
    folder = attach(standin, "R1")
    (folder / "push").write_text(
        "adb: error: failed to copy 'a.onnx' to '/data/local/tmp/x/a.onnx': remote couldn't "
        "write file: No space left on device\n"
    )
    with pytest.raises(DeviceError, match="takes no more files.*No space left") as found:
        over_adb("R1").__enter__()
    told(found)


def test_a_file_that_arrives_in_part_is_never_run(standin: Path, sentinel: Path) -> None:
    folder = attach(standin, "R1")
    device = over_adb("R1")
    with device:
        (folder / "cut").write_text("1000")
        with pytest.raises(
            DeviceUnavailable, match=r"holds 1000 of \d+ bytes of sentinel.onnx"
        ) as found:
            list(device.run_ms([Job(sentinel, 2)], sentinel=sentinel, warmup_runs=1, warmup_s=0))
        told(found)


def litert() -> None:
    pytest.importorskip("ai_edge_litert")


def program(path: Path, text: str, *, sentinel: str = "", code: int = 0, then: str = "") -> Path:
    """A program that prints a text for each model, and another for the sentinel; then a command."""
    path.write_text(
        "#!/bin/sh\n"
        f"case \"$*\" in *sentinel*) cat <<'EOF'\n{sentinel or text}\nEOF\n"
        f";;\n*) cat <<'EOF'\n{text}\nEOF\n{then}\nexit {code};;\nesac\n",
        encoding="utf-8",
    )
    path.chmod(0o700)
    return path


WELL = "tflite_2025_termux_xnnpack.txt"


def test_a_binary_that_is_not_here(tmp_path: Path) -> None:
    device = here(runtime="onnxruntime_perf_test", binary=str(tmp_path / "perf_test"))
    with pytest.raises(InvalidArgument) as found:
        device.__enter__()
    text = told(found)
    assert "perf_test cannot be read: No such file or directory. Build it from" in text


@pytest.mark.adbd
def test_a_binary_that_vanishes_in_mid_job_is_brought_again(
    phones: AdbPhones, tmp_path: Path
) -> None:
    litert()
    binary = program(tmp_path / "benchmark_model", recorded(WELL))
    device = over_adb(phones.serials[0], runtime="benchmark_model", binary=str(binary))
    strike(device, lambda: Path(device.runtime._program).unlink(), after=3)
    outcome, events = measured(device, tmp_path / "x.db")
    assert "the sentinel gave no time" in losses(events)[0] and "not" in losses(events)[0]
    whole(outcome, tmp_path / "x.db", samples=1)


def test_a_binary_without_the_right_to_run(tmp_path: Path) -> None:
    litert()
    binary = program(tmp_path / "benchmark_model", recorded(WELL))
    binary.chmod(0o600)
    with pytest.raises(DeviceUnavailable, match="is not executable. Allow it:  chmod +x ") as found:
        here(runtime="benchmark_model", binary=str(binary)).__enter__()
    told(found)


@pytest.mark.adbd
def test_a_folder_from_which_nothing_may_run(
    phone_with: Callable[..., Small], tmp_path: Path
) -> None:
    litert()
    binary = program(tmp_path / "benchmark_model", recorded(WELL))
    phone = phone_with("noexec")
    device = over_adb(phone.address, runtime="benchmark_model", binary=str(binary))
    with pytest.raises(DeviceUnavailable) as found:
        device.__enter__()
    text = told(found)
    assert "cannot run benchmark_model" in text and "Permission denied" in text
    assert "in a folder from which programs may run" in text


@pytest.mark.adbd
@pytest.mark.parametrize("content", [b"\x00\x01\x02\xff" * 500, b"<html>404</html>\n", b""])
def test_a_binary_that_is_none(phones: AdbPhones, tmp_path: Path, content: bytes) -> None:
    litert()
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(content)
    device = over_adb(phones.serials[0], runtime="benchmark_model", binary=str(binary))
    with pytest.raises(DeviceUnavailable, match="cannot run benchmark_model as asked") as found:
        device.__enter__()
    told(found)


def test_a_binary_for_another_processor(tmp_path: Path) -> None:
    litert()
    if os.uname().machine != "x86_64":
        pytest.skip("this computer is no x86_64")
    binary = tmp_path / "benchmark_model"
    head = bytearray(Path("/bin/true").read_bytes()[:4096])
    head[18:20] = (183).to_bytes(2, "little")  # e_machine: EM_AARCH64
    binary.write_bytes(head)
    binary.chmod(0o700)
    with pytest.raises(
        DeviceUnavailable, match="is built for aarch64, the device is x86_64"
    ) as found:
        here(runtime="benchmark_model", binary=str(binary)).__enter__()
    assert "Google publishes it" in told(found)
