"""What goes wrong between a computer and its phones: a named error or a whole job, each time.

Every test makes one fault happen, on a real adbd or sshd wherever it can, and asks that nothing
of it becomes a number: what was believed before stays, what was lost is taken again, and what
cannot be is told in one line that says what to do. `docs/phones.md` has a row for each.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import servers
from patience import PATIENCE_S, wait_for
from servers import Adbd, AdbPhones, Guarded, Sshd

from phonenas import data, devices
from phonenas.data import files
from phonenas.data.measurement import Conditions
from phonenas.devices import Device, Job, assembled_device
from phonenas.devices.measuring import job, rejection, supervisor
from phonenas.devices.measuring.events import Event, Lost, Measured, Rejected, Waiting, Warned
from phonenas.devices.measuring.profiling import Selection
from phonenas.devices.measuring.protocol import SENTINEL, Protocol
from phonenas.devices.measuring.rejection import rejection_reason
from phonenas.devices.registry import assemble, listing
from phonenas.devices.runtimes import command, python_worker
from phonenas.devices.settings import DeviceSettings
from phonenas.devices.simulated import SimulatedPhone
from phonenas.devices.simulated.disturbance import Throttle
from phonenas.devices.transports import adb, lock, process, ssh
from phonenas.space import Architecture
from phonenas.space.errors import (
    DeviceError,
    DeviceUnavailable,
    InvalidArgument,
    PhonenasError,
    StoreError,
)

pytest_plugins = ("servers",)
pytestmark = pytest.mark.faults

HERE = Path(__file__).parents[1]
SMALL = Architecture.parse("r1_k3_s11_e1_i32_o16 r1_k3_s22_e3_i16_o24 res32")
SUBJECTS = Selection(named=[SMALL]).subjects(None, 0, 0)
TWICE = Protocol(
    operator_rounds=2,
    network_rounds=2,
    operator_runs=4,
    network_runs=4,
    warmup_runs=1,
    warmup_s=0.0,
    drift_limit=1e9,
    spread_limit=1e9,
    last_limit=1e9,
    apart_s=0.0,
)


# -- what the tests share -------------------------------------------------------------------------


# A Python in whose workers each run takes 1 ms and none loses the core, however busy this computer
# is: a real sentinel that slows down is waited for, on a phone for minutes.
CALM = f"""\
#!{sys.executable} -B
import itertools, resource, runpy, sys, time, types
looks = itertools.count(1)
time.perf_counter = lambda: next(looks) / 1e3
resource.getrusage = lambda who: types.SimpleNamespace(ru_nivcsw=0)
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PYTHON: list[str] = []  # where it lies, last


@pytest.fixture(scope="module", autouse=True)
def calm(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("calm") / "python"
    path.write_text(CALM, encoding="utf-8")
    path.chmod(0o700)
    PYTHON.append(str(path))


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short pauses and batches; no number is judged here, and nobody else's lock waited for.

    A device that answers may take its time: only tests of silence are `impatient`.
    """
    monkeypatch.setattr(rejection.DriftFilter, "check", lambda self, reading: "")
    monkeypatch.setattr(supervisor, "_WATCH", 2)
    monkeypatch.setattr(supervisor, "_WATCH_RUNS", 3)
    monkeypatch.setattr(supervisor, "_RECONNECT_S", (0.1,) * 100)
    monkeypatch.setattr(job, "_BATCH_S", 0.02)
    monkeypatch.setattr(assembled_device, "_WATCH_S", 0.0)
    monkeypatch.setattr(adb, "SWEEP_S", PATIENCE_S)
    monkeypatch.setattr(ssh, "SWEEP_S", PATIENCE_S)
    monkeypatch.setattr(process, "_LEAVE_S", 0.5)
    monkeypatch.setattr(lock, "tempfile", SimpleNamespace(gettempdir=lambda: str(tmp_path)))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever went wrong, no program of ours stays on a device."""
    yield
    left: dict[int, str] = {}

    def none() -> bool:
        left.clear()
        left.update(at_work())
        return not left

    with contextlib.suppress(TimeoutError):
        wait_for("the end of all programs", none)
    assert not left


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
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    monkeypatch.setenv("XDG_CACHE_HOME", home)  # where adbd lies
    for name, value in adb_phones.settings.items():
        monkeypatch.setenv(name, value)
    return adb_phones


@pytest.fixture(scope="module")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    daemon = Sshd()
    with (daemon.folder / "sshd_config").open("a") as file:
        # SHLVL: else bash reads the user's start-up file for each command.
        file.write(f"SetEnv SHLVL=2 TMPDIR={tmp_path_factory.mktemp('host')}\n")
    daemon.restart()
    yield daemon
    daemon.stop()


@pytest.fixture
def sshd(_host: Sshd) -> Sshd:
    """A host of this file's own, and well, whatever the test before did to it."""
    _host.heal()
    return _host


def over_adb(serial: str, name: str = "phone", **more: Any) -> Any:
    more.setdefault("python", PYTHON[-1])
    more.setdefault("phone", False)  # the daemon runs on this computer
    return assemble(DeviceSettings(name, "adb", serial, **more))


def over_ssh(sshd: Sshd, **more: Any) -> Any:
    more.setdefault("python", PYTHON[-1])
    return assemble(DeviceSettings("board", "ssh", sshd.host, config=str(sshd.config), **more))


def here(**more: Any) -> Any:
    return assemble(DeviceSettings("here", **more))


WORDS: dict[str, list[str]] = {}


def note(text: str) -> str:
    """Remember what this test was told: the page on faults may quote it."""
    test = re.sub(r".*::|[\[ ].*", "", os.environ["PYTEST_CURRENT_TEST"])
    WORDS.setdefault(test, []).append(text)
    return text


def told(found: pytest.ExceptionInfo[PhonenasError]) -> str:
    """The words of an error: one line that can be printed, and long enough to help."""
    text = str(found.value)
    assert text.isprintable(), repr(text)
    assert 40 < len(text) < 700
    return note(f"{type(found.value).__name__}: {text}")


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
    rounds = stored(path)
    assert len({(measurement, number) for measurement, number, _ in rounds}) == len(rounds)


def losses(events: Sequence[Event]) -> list[str]:
    """Why the device was lost, each time; a line that can be printed."""
    found = [note(e.reason) for e in events if isinstance(e, Lost)]
    assert all(x.isprintable() for x in found)
    return found


def impatient(monkeypatch: pytest.MonkeyPatch, seconds: float = 1.0) -> None:
    """From now on wait no longer than this, twice, for an answer; to be called with the silence."""
    for room in (python_worker, command):
        monkeypatch.setattr(room, "MODEL_S", seconds)
        monkeypatch.setattr(room, "_GRACE_S", seconds)
    monkeypatch.setattr(python_worker, "_limit_s", lambda files: 30.0 * seconds)
    for way in (adb, ssh):
        monkeypatch.setattr(way, "SWEEP_S", seconds)


def patient_again(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, PATIENCE_S)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return here().lower(SENTINEL, tmp_path / "sentinel")


# -- cables, daemons, servers ----------------------------------------------------------------------


@pytest.mark.adbd
@pytest.mark.parametrize("cut", ["reset", "silent"])
def test_unplugged_in_mid_command(
    phones: AdbPhones, monkeypatch: pytest.MonkeyPatch, cut: Any
) -> None:
    device = over_adb(phones.serials[0])
    device.transport.open()
    raw = subprocess.Popen(
        ["adb", "-s", phones.serials[0], "shell", "sleep 5432; echo late"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )

    def pull_out() -> None:
        wait_for("the commands", lambda: at_work("sleep 5432") and at_work("sleep 6543"))
        phones.devices[0].unplug(cut)

    hand = threading.Thread(target=pull_out)
    hand.start()
    with raw, pytest.raises(DeviceUnavailable) as found:
        try:
            limit_s = 4 if cut == "silent" else PATIENCE_S
            device.transport.run(["sleep", "6543"], limit_s=limit_s)
        finally:
            if cut == "silent":
                raw.kill()
            said = raw.communicate(timeout=PATIENCE_S)[0]
    hand.join()
    text = told(found)
    if cut == "silent":
        impatient(monkeypatch)
        assert "phone did not answer within 4 s" in text
    else:
        assert (raw.returncode, said) == (0, b"")  # the fault itself: adb says that all is well
        assert "lost in mid-command" in text and "Check the cable" in text
    phones.devices[0].plug()
    phones.server.connect(phones.devices[0])
    device.transport.close()


@pytest.mark.adbd
@pytest.mark.parametrize("cut", ["reset", "silent"])
def test_unplugged_in_mid_push(
    phones: AdbPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Any
) -> None:
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
    with pytest.raises(DeviceUnavailable) as found:
        device.transport.push([big], limit_s=4 if cut == "silent" else PATIENCE_S)
    hand.join()
    if cut == "silent":
        assert 0 < there.stat().st_size < 1 << 30  # a part is left behind
        impatient(monkeypatch)
    else:
        wait_for("its end", lambda: not there.exists())  # adbd throws the part away
    told(found)
    assert re.search("lost while files were pushed|did not answer within 4 s", str(found.value))
    device.transport.close()
    phones.devices[0].plug()
    shutil.rmtree(there.parent, ignore_errors=True)


@pytest.mark.adbd
@pytest.mark.parametrize("cut", ["reset", "silent"])
def test_unplugged_in_mid_job_and_plugged_in_again(
    phones: AdbPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Any
) -> None:
    device, phone = over_adb(phones.serials[0]), phones.devices[0]

    def pull_out() -> None:
        impatient(monkeypatch)
        phone.unplug(cut)

    strike(device, pull_out)

    def plug(event: Event) -> None:
        if isinstance(event, Lost):
            phone.plug()
            patient_again(monkeypatch)

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
    states, folders = [], []

    def restart() -> None:
        folders.append(device.transport.folder)
        phone.kill()
        wait_for("offline", lambda: phones.server.state(phones.serials[0]) != "device")
        states.append(phones.server.state(phones.serials[0]))
        phone.restart()

    strike(device, restart)
    outcome, events = measured(device, tmp_path / "x.db")
    assert states[0] in ("offline", "")
    assert losses(events)
    whole(outcome, tmp_path / "x.db")
    shutil.rmtree(folders[0], ignore_errors=True)  # perhaps nobody was left there to do it


# -- what the phone does not allow, and what it cannot run -----------------------------------------


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


def android(folder: Path, **said: str) -> None:
    """Let a device of the stand-in be an Android that prints these texts, by service."""
    texts = {
        "getprop": recorded("getprop_pixel8pro.txt"),
        "battery": recorded("battery_discharging.txt"),
        "thermalservice": recorded("thermal_pixel_tensor.txt"),
        **said,
    }
    for service, text in texts.items():
        (folder / service).write_text(text, encoding="utf-8")
    scripts = {
        "dumpsys": f'cat "{folder}/$1"',
        "getprop": f'[ "$1" = ro.serialno ] || exec cat "{folder}/getprop"\necho HW123',
    }
    for name, script in scripts.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / "bin" / name).chmod(0o700)


def named(folder: Path, monkeypatch: pytest.MonkeyPatch, tables: str) -> dict[str, Any]:
    """The rows of `phonenas devices` with this devices.toml."""
    (folder / "devices.toml").write_text(tables, encoding="utf-8")
    monkeypatch.setenv("PHONENAS_DEVICES", str(folder / "devices.toml"))
    return {row.name: row for row in listing()}


def warned(device: Any, store: Path) -> list[str]:
    """What a job warns of at its start."""
    _, events = measured(device, store)
    return [note(e.reason) for e in events if isinstance(e, Warned)]


CUT = recorded("thermal_pixel_tensor.txt")


@pytest.mark.parametrize(
    ("thermal", "words"),
    [
        (CUT[: CUT.index("Current temperatures") + 120], "expected Temperature{mValue=…"),
        (CUT[: CUT.index("Current temperatures")], "expected a whole text; it is cut off after"),
        (CUT.replace("Thermal Status: 0", "Wärmestatus: 0"), "expected a line 'Thermal Status: 0'"),
        ("Can't find service: thermalservice\n", 'found "Can\'t find service: thermalservice"'),
    ],
    ids=["in_a_line", "between_lines", "another_language", "no_service"],
)
def test_a_thermal_text_that_cannot_be_read(
    standin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    puppet: Puppet,
    thermal: str,
    words: str,
) -> None:
    android(attach(standin, "R1"), thermalservice=thermal)
    device = over_adb("R1", python=puppet.device.settings.python, phone=None)
    warnings = warned(device, tmp_path / "x.db")
    (about,) = [d for d in warnings if "thermal status is unknown" in d]
    assert words in about
    assert device.phone  # and stays one, with a phone's limits
    row = named(tmp_path, monkeypatch, '[mine]\ntransport = "adb"\naddress = "R1"\n')["mine"]
    assert row.state == "ready" and words in note(row.detail)
    assert "thermal status is unknown" in row.detail and row.detail.isprintable()


def test_a_battery_text_that_cannot_be_read(standin: Path, tmp_path: Path, puppet: Puppet) -> None:
    said = recorded("battery_discharging.txt")
    texts = (said.replace("level: 67", "Ladestand: 67"), said[: said.index("67") + 1])
    for number, battery in enumerate(texts):
        shutil.rmtree(standin / "R1", ignore_errors=True)
        android(attach(standin, "R1"), battery=battery)
        device = over_adb("R1", python=puppet.device.settings.python, phone=None)
        warnings = warned(device, tmp_path / f"{number}.db")
        assert any("its battery level is unknown: dumpsys battery: expected" in d for d in warnings)
        assert device.phone


def test_texts_with_colours_are_read(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def red(name: str) -> str:
        lines = recorded(name).splitlines()
        return "".join(f"\x1b[31m{line}\x1b[0m\r\n" for line in lines)

    android(
        attach(standin, "R1"),
        getprop=red("getprop_pixel8pro.txt"),
        battery=red("battery_discharging.txt"),
        thermalservice=red("thermal_pixel_tensor.txt"),
    )
    row = named(tmp_path, monkeypatch, '[mine]\ntransport = "adb"\naddress = "R1"\n')["mine"]
    assert "unknown" not in row.detail
    assert "battery 67 %" in row.detail and "27 °C" in row.detail
    assert "Pixel 8 Pro" in row.model


def test_an_emulated_device_is_never_counted_as_measured(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, puppet: Puppet
) -> None:
    android(attach(standin, "emulator-5554"), getprop=recorded("getprop_emulator_14.txt"))
    device = over_adb("emulator-5554", python=puppet.device.settings.python, phone=None)
    assert any("it is emulated" in d for d in warned(device, tmp_path / "x.db"))
    assert device.conditions.origin == "emulated"
    with data.MeasurementStore(tmp_path / "x.db") as store:
        assert {c.origin for c in store.conditions()} == {"emulated"}
    tables = '[mine]\ntransport = "adb"\naddress = "emulator-5554"\n'
    row = named(tmp_path, monkeypatch, tables)["mine"]
    assert "emulated: its times do not count as measured" in note(row.detail)
    # A worker that sees another processor than the device has runs under an emulator, too.
    puppet.amiss("hello", **{"with": {"machine": "riscv64"}})
    with puppet.device as other:
        assert other.conditions.origin == "emulated"
    puppet.amiss("hello", **{"with": {"machine": os.uname().machine}})
    with puppet.device as other:
        assert other.conditions.origin == "measured"


def test_a_phone_that_adb_lists_twice_is_named_once(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, puppet: Puppet
) -> None:
    air = "adb-R1-AbCdEf._adb-tls-connect._tcp"
    for serial in (air, "R1"):
        android(attach(standin, serial))
    rows = named(tmp_path, monkeypatch, "")
    assert rows["(R1)"].state == "not in devices.toml"
    assert rows[f"({air})"].state == "listed twice"
    assert "the same phone as (R1) (serial number HW123)" in note(rows[f"({air})"].detail)
    mine = '[mine]\ntransport = "adb"\naddress = "R1"\n'
    rows = named(tmp_path, monkeypatch, mine)
    assert "the same phone as mine" in rows[f"({air})"].detail
    again = f'[again]\ntransport = "adb"\naddress = "{air}"\n'
    rows = named(tmp_path, monkeypatch, mine + again)
    assert "the same phone as mine (serial number HW123): measure one of them" in note(
        rows["again"].detail
    )
    # Nor is it measured twice at once.
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.1)
    prop = f"{recorded('getprop_pixel8pro.txt')}[ro.serialno]: [HW123]\n"
    for serial in (air, "R1"):
        (standin / serial / "getprop").write_text(prop, encoding="utf-8")
    python = puppet.device.settings.python
    with over_adb("R1", python=python):
        with pytest.raises(DeviceUnavailable, match="is being measured by another process"):
            over_adb(air, "again", python=python).__enter__()
    with over_adb(air, "again", python=python):
        pass


def test_unauthorized_is_told_with_what_to_do(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (standin / "devices").write_text(recorded("adb_devices_states.txt"))
    with pytest.raises(DeviceUnavailable) as found:
        over_adb("R58M123ABC").__enter__()
    text = told(found)
    assert "adb lists R58M123ABC as unauthorized" in text
    assert "accept the question about USB debugging" in text
    table = tmp_path / "devices.toml"
    table.write_text('[mine]\ntransport = "adb"\naddress = "R58M123ABC"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(table))
    rows = {r.name: r for r in listing()}
    assert rows["mine"].state == "unauthorized" and "accept" in rows["mine"].detail
    assert rows["(28151FDF6000AB)"].state == "not in devices.toml"
    # Every other state is told too, and none of them is taken for a device.
    for serial, word in {
        "emulator-5554": "offline",
        "ce0517151f2b": "authorizing",
        "ZY22AAAA": "recovery",
        "0123456789ABCDEF": "no permissions",
        "ZY22CCCC": "bootloader",
        "ZY22GGGG": "frobnicating",
    }.items():
        with pytest.raises(DeviceUnavailable, match=f"as {word}") as found:
            over_adb(serial).__enter__()
        told(found)
    with pytest.raises(
        DeviceUnavailable, match="as not attached. It lists 28151FDF6000AB,"
    ) as found:
        over_adb("ABSENT").__enter__()
    told(found)


# A root folder with all of this computer in it, and a /data/local/tmp of its own.
ROOT = """
mount -t tmpfs tmpfs "$1"
for each in /*; do
  if [ -h "$each" ]; then cp -P "$each" "$1"
  elif [ -d "$each" ] && [ "$each" != /data ]; then mkdir "$1$each"; mount --rbind "$each" "$1$each"
  fi
done
mkdir -p "$1/data/local/tmp"
mount -t tmpfs -o "$2" tmpfs "$1/data/local/tmp"
root=$1
shift 2
exec chroot "$root" "$@"
"""


class Odd(Adbd):
    """A device whose folder for files is a file system as a test wants it: full, or unrunnable."""

    def __init__(self, options: str) -> None:
        self.options = options
        super().__init__()

    def _started(self) -> Guarded:
        (self.folder / "root").mkdir(exist_ok=True)
        self._door.unlink(missing_ok=True)
        unshare, flags = self._isolation
        wrap = [unshare, f"{flags}m", "sh", "-c", ROOT]
        return Guarded(
            self._command,
            log=self.folder / "log",
            environment={"PATH": os.environ["PATH"]},
            folder=self.folder,
            wrap=[*wrap, "sh", str(self.folder / "root"), self.options],
            door=self._door,
            port=5555,
            grace_s=0.5,
        )


@pytest.fixture
def phone_with(phones: AdbPhones) -> Iterator[Callable[[str], Odd]]:
    """Makes further devices, each connected."""
    with contextlib.ExitStack() as stack:

        def make(options: str) -> Odd:
            made = Odd(options)
            stack.callback(made.stop)
            stack.callback(phones.server.adb, "disconnect", made.address)
            phones.server.connect(made)
            return made

        yield make


@pytest.mark.adbd
def test_no_space_left_on_the_device(
    phones: AdbPhones, phone_with: Callable[[str], Odd], tmp_path: Path
) -> None:
    phone = phone_with("size=16m")

    def at(words: str) -> str:
        return phones.server.adb("-s", phone.address, "shell", words).stdout

    assert "16384" in at("df -k /data/local/tmp")  # a file system of 16 MiB
    device = over_adb(phone.address)
    big = tmp_path / "big.onnx"
    with big.open("wb") as file:
        file.truncate(17 << 20)
    device.transport.open()
    with pytest.raises(DeviceError) as found:
        device.transport.push([big], limit_s=PATIENCE_S)
    text = told(found)
    assert "takes no more files" in text and "No space left on device" in text
    assert f"Free some space in {device.transport.folder}" in text
    device.transport.close()
    strike(device, lambda: at("cat /dev/zero > /data/local/tmp/film"), after=2)

    def free(event: Event) -> None:
        if isinstance(event, Lost):
            at("rm /data/local/tmp/film")

    outcome, events = measured(device, tmp_path / "x.db", free)
    assert "No space left" in losses(events)[0]
    whole(outcome, tmp_path / "x.db")


@pytest.mark.adbd
@pytest.mark.parametrize("runtime", ["onnxruntime", "benchmark_model"])
def test_models_do_not_pile_up_on_the_device(
    phones: AdbPhones, tmp_path: Path, runtime: str
) -> None:
    more = {"runtime": runtime}
    if runtime == "benchmark_model":
        litert()
        more["binary"] = str(program(tmp_path / runtime, recorded(WELL)))
    device = over_adb(phones.serials[0], **more)
    there: list[set[str]] = []

    def look(event: Event) -> None:
        if isinstance(event, Measured):
            files = Path(device.transport.folder).iterdir()  # adbd runs on this computer
            there.append({p.name for p in files if p.suffix in (".onnx", ".tflite")})

    outcome, _ = measured(device, tmp_path / "x.db", look)
    assert len(there) > 2
    assert all({Path(name).stem for name in names} == {"sentinel"} for names in there), there
    whole(outcome, tmp_path / "x.db", samples=4 if runtime == "onnxruntime" else 1)


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
    assert "the sentinel has no time: it ended with code 127" in losses(events)[0]
    assert "is not on the device" in losses(events)[0]
    whole(outcome, tmp_path / "x.db", samples=1)


def test_a_binary_without_the_right_to_run(tmp_path: Path) -> None:
    litert()
    binary = program(tmp_path / "benchmark_model", recorded(WELL))
    binary.chmod(0o600)
    with pytest.raises(
        DeviceUnavailable, match=r"is not executable. Allow it:  chmod \+x "
    ) as found:
        here(runtime="benchmark_model", binary=str(binary)).__enter__()
    told(found)


@pytest.mark.adbd
def test_a_folder_from_which_nothing_may_run(
    phone_with: Callable[[str], Odd], tmp_path: Path
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


@pytest.mark.parametrize("content", [b"<html>Not Found</html>", b"", b"\x00\x01\x1b[31m" * 500])
def test_a_binary_that_is_no_program(tmp_path: Path, content: bytes) -> None:
    litert()
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(content)
    binary.chmod(0o700)
    device = here(runtime="benchmark_model", binary=str(binary))
    with pytest.raises(DeviceUnavailable, match="is not a program: it begins with ") as found:
        device.__enter__()
    told(found)


@pytest.mark.adbd
def test_a_binary_cut_short(phones: AdbPhones, tmp_path: Path) -> None:
    litert()
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(Path("/bin/true").read_bytes()[:9000])
    device = over_adb(phones.serials[0], runtime="benchmark_model", binary=str(binary))
    with pytest.raises(DeviceUnavailable, match="cannot run benchmark_model as asked") as found:
        device.__enter__()
    assert re.search("it ended with code (126|127|132|135|139)", told(found))


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


# -- programs that hang, and what they say instead of times ----------------------------------------


@pytest.mark.adbd
def test_a_worker_that_hangs_is_ended_and_the_job_goes_on(
    phones: AdbPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = over_adb(phones.serials[0])
    hung: dict[int, str] = {}

    def hang() -> None:
        impatient(monkeypatch)
        hung.update(at_work(f"{device.transport.folder}/worker.py"))
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)

    def lost(event: Event) -> None:
        if isinstance(event, Lost):
            patient_again(monkeypatch)

    strike(device, hang)
    outcome, events = measured(device, tmp_path / "x.db", lost)
    assert hung
    wait_for("their end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in hung))
    assert "did not answer within 2 s" in losses(events)[0]
    whole(outcome, tmp_path / "x.db")


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("adb", marks=pytest.mark.adbd),
        pytest.param("ssh", marks=pytest.mark.sshd),
        "local",
    ],
)
def test_a_benchmark_program_that_hangs_is_ended(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    litert()
    hangs = tmp_path / "hangs"
    binary = program(
        tmp_path / "benchmark_model",
        "",
        sentinel=recorded(WELL),
        then=f"echo $$ > {hangs}; exec sleep 4321",
    )
    settings = {"runtime": "benchmark_model", "binary": str(binary)}
    if way == "adb":
        device = over_adb(request.getfixturevalue("phones").serials[0], **settings)
    elif way == "ssh":
        device = over_ssh(request.getfixturevalue("sshd"), **settings)
    else:
        device = here(**settings)
    model = device.lower(SENTINEL, tmp_path / "model")
    sentinel = device.lower(SENTINEL, tmp_path / "sentinel")
    with device:
        for name in ("MODEL_S", "_GRACE_S"):
            monkeypatch.setattr(command, name, 2.0)  # the sentinel is answered for within it, too
        with pytest.raises(DeviceUnavailable) as found:
            list(device.run_ms([Job(model, 2)], sentinel=sentinel, warmup_runs=1, warmup_s=0))
        assert "did not answer within 4 s" in told(found)
    hung = Path(f"/proc/{int(hangs.read_text())}")
    wait_for("its end", lambda: not hung.exists())


SPOILED = {  # what a program prints where a time should be, and what is told of it
    "bad_tflite_cut_off.txt": "it was cut off",
    "bad_tflite_decimal_comma.txt": "avg=63743,2",
    "bad_tflite_zero_time.txt": "a finite time above 0",
    "bad_tflite_crashed_at_end.txt": "a program that ends by itself",
    "bad_tflite_inference_failed.txt": "This reports a failure",
    "bad_tflite_no_runs.txt": "at least one timed run|This reports a failure",
    "bad_tflite_other_mean.txt": "again, found",
    "bad_garbage.txt": "this line does not belong to one",
    "bad_empty.txt": "found nothing",
    "bad_killed.txt": "a program that ends by itself",
    "bad_other_program.txt": "this line does not belong to one",
    "tflite_gpu_rest_on_cpu.txt": "asked for XNNPACK",
    "tflite_2025_am62_xnnpack_partly.txt": "asked for XNNPACK, and it printed:",
    "tflite_2021_flag_ignored.txt": "does not know --allow_fp16; use a newer one",
}
TRANSLATED = {
    "bad_ort_cut_off.txt": "it was cut off",
    "bad_ort_decimal_comma.txt": "onnxruntime_perf_test: expected",
    "bad_ort_translated.txt": "this line does not belong to one",
    "bad_ort_no_unit.txt": "onnxruntime_perf_test: expected",
    "bad_ort_not_in_build.txt": "This reports a failure",
}


def refused(binary: Path, runtime: str, why: str) -> None:
    """It is told when the device is entered, by the sentinel, what the program prints."""
    with pytest.raises(DeviceUnavailable, match=why) as found:
        here(runtime=runtime, binary=str(binary)).__enter__()
    assert f"cannot run {runtime} as asked: " in told(found)


def no_time(binary: Path, text: str, why: str, tmp_path: Path) -> None:
    """Neither for the sentinel nor, in mid-job, for a model is such a text a time."""
    refused(program(binary, text), "benchmark_model", why)
    device = here(runtime="benchmark_model", binary=str(binary))
    model = device.lower(SENTINEL, tmp_path / "model")
    sentinel = device.lower(SENTINEL, tmp_path / "sentinel")
    program(binary, text, sentinel=recorded(WELL))
    with device:
        (reading,) = device.run_ms([Job(model, 2)], sentinel=sentinel, warmup_runs=1, warmup_s=0.0)
    assert reading.samples_ms == ()
    assert re.search(why, note(reading.error)) and reading.error.isprintable()


@pytest.mark.parametrize("name", TRANSLATED)
def test_what_is_no_report_of_perf_test_is_no_time(name: str, tmp_path: Path) -> None:
    binary = program(tmp_path / "onnxruntime_perf_test", recorded(name))
    refused(binary, "onnxruntime_perf_test", TRANSLATED[name])


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_no_report_of_benchmark_model_is_no_time(name: str, tmp_path: Path) -> None:
    litert()
    no_time(tmp_path / "benchmark_model", recorded(name), SPOILED[name], tmp_path)


@pytest.mark.parametrize("bad", ["-49785", "nan", "inf", "0", "-0", "1e999"])
def test_a_time_that_is_none_in_a_report(bad: str, tmp_path: Path) -> None:
    litert()
    good = recorded(WELL)
    text = good.replace("median=51891", f"median={bad}")
    assert text != good
    no_time(tmp_path / "benchmark_model", text, "a finite time above 0", tmp_path)


def test_a_program_that_prints_its_report_and_fails(tmp_path: Path) -> None:
    litert()
    binary = program(tmp_path / "benchmark_model", recorded(WELL), code=3)
    device = here(runtime="benchmark_model", binary=str(binary))
    model = device.lower(SENTINEL, tmp_path / "model")
    sentinel = device.lower(SENTINEL, tmp_path / "sentinel")
    with device:
        (reading,) = device.run_ms([Job(model, 2)], sentinel=sentinel, warmup_runs=1, warmup_s=0)
    assert reading.samples_ms == ()
    assert "it ended with code 3 after its report" in note(reading.error)


@pytest.mark.adbd
def test_a_job_without_reports_keeps_no_number(phones: AdbPhones, tmp_path: Path) -> None:
    litert()
    binary = program(
        tmp_path / "benchmark_model",
        recorded("bad_tflite_decimal_comma.txt"),
        sentinel=recorded(WELL),
    )
    device = over_adb(phones.serials[0], runtime="benchmark_model", binary=str(binary))
    outcome, _ = measured(device, tmp_path / "x.db")
    assert set(outcome.unstable) == {s.text for s in SUBJECTS}
    assert all("63743,2" in note(why) for why in outcome.unstable.values())
    assert outcome.results == {} and stored(tmp_path / "x.db") == set()
    assert not outcome.verdict.stable


class Puppet:
    """A device here whose worker answers at once, and does amiss what it is told."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "python.json"
        python = write_program(folder / "python", (HERE / "standin_worker.py").read_text())
        self.device = here(python=str(python))
        self.sentinel = self.device.lower(SENTINEL, folder / "sentinel")
        self.model = self.device.lower(SENTINEL, folder / "model")

    def amiss(self, at: str, **what: Any) -> None:
        self.file.write_text(json.dumps({"at": at, **what}))

    def readings(self) -> list[Any]:
        jobs = [Job(self.model, 4)] * 2
        return list(self.device.run_ms(jobs, sentinel=self.sentinel, warmup_runs=1, warmup_s=0.0))


@pytest.fixture
def puppet(tmp_path: Path) -> Puppet:
    return Puppet(tmp_path)


def test_the_stand_in_worker_measures_when_nothing_is_amiss(puppet: Puppet, tmp_path: Path) -> None:
    outcome, events = measured(puppet.device, tmp_path / "x.db")
    assert losses(events) == [] and outcome.rejected == 0
    whole(outcome, tmp_path / "x.db")


def test_times_that_are_none_from_a_worker_are_not_believed(puppet: Puppet, tmp_path: Path) -> None:
    with puppet.device:
        for part in ("samples_ms", "sentinel_ms"):
            for bad in (0, -1, math.nan, math.inf, -math.inf):
                puppet.amiss("run", **{"with": {part: [1.0, bad, 1.0, 1.0]}})
                for reading in puppet.readings():
                    reason = rejection_reason(reading, "CPUExecutionProvider")
                    assert "not a positive finite number" in note(reason)
    puppet.amiss("run", once=True, **{"with": {"samples_ms": [0, 1, 1, 1]}})
    outcome, _ = measured(puppet.device, tmp_path / "x.db")
    assert outcome.rejected == 1
    whole(outcome, tmp_path / "x.db")


AMISS: list[dict[str, Any]] = [
    {"samples_ms": None},
    {"samples_ms": "1.0"},
    {"samples_ms": ["1,5"] * 4},
    {"samples_ms": ["nan"] * 4},
    {"samples_ms": [[1.0]] * 4},
    {"samples_ms": [True] * 4},
    {"samples_ms": [1.0] * 3},
    {"samples_ms": [1.0] * 5},
    {"sentinel_ms": [0.5]},
    {"sentinel_ms": {"0": 0.5}},
    {"samples_ms": [10**400] * 4},
    {"provider": None},
    {"index": 7},
    {"index": None},
    {"preempted": "many"},
    {"clock_mhz": "fast"},
    {"clock_mhz": math.nan},
    {"busy_s": math.nan},
    {"first_ms": math.nan},
    {"first_ms": -1},
]


def test_answers_that_are_amiss_are_not_believed(puppet: Puppet, tmp_path: Path) -> None:
    with puppet.device:
        for changes in AMISS:
            puppet.amiss("run", **{"with": changes})
            with pytest.raises(
                DeviceError, match="invalid answer|answered for another model"
            ) as found:
                puppet.readings()
            told(found)
            puppet.device.__exit__(None, None, None)
            puppet.device.__enter__()
        for nothing in ({"samples_ms": [], "sentinel_ms": []}, {"error": "\x1b[31mno\nmemory"}):
            puppet.amiss("run", **{"with": nothing})
            for reading in puppet.readings():
                reason = rejection_reason(reading, "CPUExecutionProvider")
                assert reason in ("it has no time", "no memory")
    for unknown in ({"runtime": None}, {"version": ""}, {"error": "No module named 'numpy'"}):
        puppet.amiss("hello", **{"with": unknown})
        with pytest.raises(PhonenasError, match="not report its runtime|cannot start") as found:
            puppet.device.__enter__()
        told(found)
    puppet.amiss("run", once=True, **{"with": {"index": 7}})
    outcome, events = measured(puppet.device, tmp_path / "x.db")
    assert "answered for another model" in losses(events)[0]
    whole(outcome, tmp_path / "x.db")


# -- junk where an answer should be ----------------------------------------------------------------

JUNK = ["Welcome to board!", "", "{", "[]", "\x1b[2J\x07", "[" * 200_000]


@pytest.mark.parametrize("at", ["hello", "run", "done"])
def test_junk_before_an_answer(puppet: Puppet, tmp_path: Path, at: str) -> None:
    for junk in JUNK:
        puppet.amiss(at, before=junk)
        with pytest.raises(PhonenasError) as found:
            with puppet.device:
                puppet.readings()
        told(found)
    puppet.amiss(at, before="Welcome", once=True)
    if at == "hello":
        with pytest.raises(DeviceError):
            puppet.device.__enter__()
    outcome, events = measured(puppet.device, tmp_path / "x.db")
    assert at == "hello" or losses(events)
    whole(outcome, tmp_path / "x.db")


def test_a_line_without_end(puppet: Puppet, tmp_path: Path) -> None:
    puppet.amiss("run", endless=20_000_000, once=True)
    with puppet.device, pytest.raises(DeviceError, match="sent 168[0-9]* bytes") as found:
        puppet.readings()  # it is not read to its end
    told(found)
    outcome, _ = measured(puppet.device, tmp_path / "x.db")
    whole(outcome, tmp_path / "x.db")


# -- throttling ------------------------------------------------------------------------------------


def test_throttling_in_mid_profile_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the drift filter as it is
    phone = SimulatedPhone(
        "hot", throttle=Throttle(every_s=40.0, for_s=12.0, to=0.5, reported=False), load=None
    )
    events: list[Event] = []
    with data.MeasurementStore(tmp_path / "x.db") as store, phone:
        outcome = devices.measure(
            SUBJECTS,
            on=phone,
            into=store,
            protocol=Protocol(apart_s=15.0, network_rounds=5),
            on_event=events.append,
        )
    reasons = [note(e.reason) for e in events if isinstance(e, Rejected | Waiting)]
    assert any("it throttles" in x for x in reasons)
    assert outcome.unstable == {} and len(outcome.results) == len(SUBJECTS)
    scale = [
        m.latency_ms / phone.truth_ms(s.model) for s in SUBJECTS for m in [outcome.results[s.text]]
    ]
    assert max(scale) / min(scale) < 1.1, scale  # at half the clock it would be up to 2


# -- two phones of one model -----------------------------------------------------------------------


@pytest.mark.adbd
def test_two_phones_of_one_model_are_never_confused(phones: AdbPhones, tmp_path: Path) -> None:
    one, two = (over_adb(serial, f"phone{n}") for n, serial in enumerate(phones.serials))
    with one, two:
        assert one.conditions.model == two.conditions.model
        assert one.fingerprint == two.fingerprint
        assert one.conditions != two.conditions
        phones.devices[0].unplug()
        with pytest.raises(DeviceUnavailable, match="^phone0 ") as found:
            one.transport.run(["echo", "1"], limit_s=PATIENCE_S)
        told(found)
        assert two.transport.run(["echo", "2"], limit_s=PATIENCE_S).output == "2\n"
    with data.MeasurementStore(tmp_path / "x.db") as store, two:
        devices.measure(SUBJECTS, on=two, into=store, protocol=TWICE)
        assert {c.device for c in store.conditions()} == {"phone1"}


def test_each_command_names_the_serial(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [attach(standin, serial) for serial in ("R1", "R2")]
    table = tmp_path / "devices.toml"
    table.write_text('[first]\ntransport = "adb"\naddress = "R1"\npython = "/bin/false"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(table))
    rows = {r.name: r for r in listing()}
    assert rows["first"].state == "ready" and rows["(R2)"].state == "not in devices.toml"
    assert rows["(R2)"].model == "Pixel 6"
    assert (folders[0] / "log").exists() and not (folders[1] / "log").exists()
    # What has no address is refused, and not the first phone.
    table.write_text('[first]\ntransport = "adb"\n')
    with pytest.raises(InvalidArgument, match="address is ''; it must be its adb serial") as found:
        devices.connect("first")
    told(found)
    # And one whose address is not there is not replaced by those that are.
    with pytest.raises(
        DeviceUnavailable, match="adb lists R3 as not attached. It lists R1, R2."
    ) as found:
        over_adb("R3").__enter__()
    told(found)
    assert not (folders[1] / "log").exists()


# -- ssh -------------------------------------------------------------------------------------------


@pytest.mark.sshd
def test_a_host_key_that_changed_is_never_taken(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_RECONNECT_S", (0.1,) * 2)
    device = over_ssh(sshd)
    strike(device, sshd.change_host_key)  # in mid-job: the connection ends, another host answers
    with data.MeasurementStore(tmp_path / "x.db") as store, device:
        with pytest.raises(DeviceUnavailable) as found:
            devices.measure(SUBJECTS, on=device, into=store, protocol=TWICE)
    text = told(found)
    assert "its host key has changed" in text and "Do not trust it" in text
    address = f"[127.0.0.1]:{sshd.cable.port}"
    (advised,) = re.findall(r"ssh-keygen .*-R \S+", text)
    assert address in advised
    before = stored(tmp_path / "x.db")
    with pytest.raises(DeviceUnavailable, match="has changed"):
        device.__enter__()
    state = device.state()
    assert state.state == "unreachable" and "has changed" in state.detail
    assert stored(tmp_path / "x.db") == before
    # The advice works: without the old key it is an unknown one, refused too until it is accepted.
    subprocess.run(shlex.split(advised), check=True, capture_output=True, timeout=PATIENCE_S)
    with pytest.raises(
        DeviceUnavailable, match="host key is not known yet. Connect once by hand"
    ) as found:
        device.__enter__()
    told(found)
    sshd.trust()
    outcome, _ = measured(device, tmp_path / "x.db")
    whole(outcome, tmp_path / "x.db")


@pytest.mark.sshd
def test_hosts_that_let_nobody_in(sshd: Sshd, tmp_path: Path) -> None:
    strange = tmp_path / "config"
    text = sshd.config.read_text()
    for words, why in {
        f"{text.replace('user_key', 'no_such_key')}": "does not know your key. Copy it there:",
        f"{re.sub('Port .*', f'Port {servers.free_port()}', text)}": "nothing listens on that port",
        f"{text.replace('127.0.0.1', 'nobody..invalid')}": "no host has this name",
        f"{text}    NoSuchOption yes\n": "try it by hand:  ssh -F ",
    }.items():
        strange.write_text(words)
        device = assemble(DeviceSettings("board", "ssh", sshd.host, config=str(strange)))
        with pytest.raises(DeviceUnavailable, match=why) as found:
            device.__enter__()
        told(found)
        assert device.state().state == "unreachable"


@pytest.mark.sshd
@pytest.mark.parametrize("way", ["dropped", "reset", "silent"])
def test_ssh_lost_in_mid_run(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    monkeypatch.setattr(
        ssh, "_OPTIONS", (*ssh._OPTIONS[:-2], "ServerAliveInterval=1", "ServerAliveCountMax=2")
    )
    device = over_ssh(sshd)
    left: dict[int, str] = {}

    def ended() -> None:
        wait_for("its end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))

    def lose() -> None:
        left.update(at_work(f"{device.transport.folder}/worker.py"))
        assert left
        if way == "dropped":
            sshd.drop()
        else:
            sshd.unplug(way)

    def plug(event: Event) -> None:
        if isinstance(event, Lost) and way != "dropped" and sshd.cable._mode != "up":
            ended()  # by itself: nobody reaches it
            sshd.plug()

    strike(device, lose)
    outcome, events = measured(device, tmp_path / "x.db", plug)
    assert losses(events)
    ended()
    whole(outcome, tmp_path / "x.db")


# -- names, paths and words that are not plain text ------------------------------------------------

ODD = "odd \"dir\" $(touch pwned) 'a;b' [x] %h"


@pytest.fixture
def sshd_with() -> Iterator[Callable[[str], Sshd]]:
    """Makes further hosts, each with these lines in its configuration."""
    with contextlib.ExitStack() as stack:

        def make(lines: str) -> Sshd:
            made = Sshd()
            stack.callback(made.stop)
            with (made.folder / "sshd_config").open("a") as file:
                file.write(f"{lines}\n")
            made.restart()
            return made

        yield make


@pytest.mark.sshd
def test_folders_and_programs_with_odd_names(
    sshd_with: Callable[[str], Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litert()
    odd = tmp_path / ODD
    odd.mkdir()
    quoted = str(odd).replace("\\", "\\\\").replace('"', '\\"')
    sshd = sshd_with(f'SetEnv "TMPDIR={quoted}" SHLVL=2')
    binary = program(odd / "bench mark; touch pwned2 `id`", recorded(WELL))
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(prefix="a %h '", dir="/tmp"))
    device = over_ssh(sshd, runtime="benchmark_model", binary=str(binary))
    try:
        with device:
            assert device.transport.folder.startswith(f"{odd}/phonenas-")  # the fault is there
            (where,) = (tmp_path / ODD).glob("phonenas-*")
            assert (where / binary.name).exists()
            assert device.conditions.statistic == "median of the runs"
        assert not where.exists()
        outcome, _ = measured(device, tmp_path / "x.db")
    finally:
        shutil.rmtree(tempfile.tempdir)
    whole(outcome, tmp_path / "x.db", samples=1)
    assert not [
        p for place in (odd, tmp_path, Path.cwd(), Path.home()) for p in place.glob("pwned*")
    ]


def test_a_program_here_with_an_odd_name(tmp_path: Path) -> None:
    litert()
    odd = tmp_path / ODD
    odd.mkdir()
    binary = program(odd / "-bench mark; touch pwned", recorded(WELL))
    outcome, _ = measured(here(runtime="benchmark_model", binary=str(binary)), tmp_path / "x.db")
    whole(outcome, tmp_path / "x.db", samples=1)
    assert not list(Path.cwd().glob("pwned*"))


@pytest.mark.adbd
def test_a_program_over_adb_with_an_odd_name(phones: AdbPhones, tmp_path: Path) -> None:
    litert()
    binary = program(tmp_path / "-b $(touch pwned); 'x'", recorded(WELL))
    device = over_adb(phones.serials[0], runtime="benchmark_model", binary=str(binary))
    outcome, _ = measured(device, tmp_path / "x.db")
    whole(outcome, tmp_path / "x.db", samples=1)
    assert not list(phones.devices[0].folder.glob("pwned*"))


def test_a_phone_that_says_odd_things_of_itself(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = attach(standin, "R1", model="\x1b[31mPixel\x07")
    said = recorded("getprop_pixel8pro.txt")
    odd = "\x1b]0;owned\x07\x1b[31mPixel\t$(touch pwned)\x00\u202e6\nSecond line"
    lines = [x for x in said.splitlines() if "ro.product.model" not in x and "marketname" not in x]
    (tmp_path / "said").write_text("\n".join([*lines, f"[ro.product.model]: [{odd}]"]) + "\n")
    for name in ("getprop", "dumpsys"):
        (folder / "bin" / name).write_text(
            f"#!/bin/sh\n[ $0 = {folder}/bin/getprop ] && cat {tmp_path}/said\n"
        )
        (folder / "bin" / name).chmod(0o700)
    table = tmp_path / "devices.toml"
    table.write_text('[mine]\ntransport = "adb"\naddress = "R1"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(table))
    for row in listing():
        assert all(str(x).isprintable() for x in vars(row).values()), row
    python = write_program(tmp_path / "python", (HERE / "standin_worker.py").read_text())
    python.with_suffix(".json").write_text(
        json.dumps({"at": "hello", "with": {"runtime": "\x1b[1mort", "version": "1\n2"}})
    )
    with over_adb("R1", python=str(python), fixed_performance=False) as device:
        model = device.conditions.model
        assert (
            model.isprintable()
            and "Pixel" in model
            and "\\x00" in model
            and "$(touch pwned)" in model
        )
        assert all(str(v).isprintable() for v in device.conditions.to_dict().values())
    assert not list(folder.rglob("pwned*")) + list(Path.cwd().glob("pwned*"))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "", "-x", "../x", "a\x00b"])
def test_odd_names_in_devices_toml_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "devices.toml"
    monkeypatch.setenv("PHONENAS_DEVICES", str(table))
    for text in (
        f'[{json.dumps(name)}]\ntransport = "local"\n',
        f'[x]\ntransport = "ssh"\naddress = {json.dumps(name)}\n',
    ):
        if name == "../x" and "address" in text:
            continue
        table.write_text(text)
        with pytest.raises(InvalidArgument) as found:
            devices.connect("x" if "address" in text else name)
        told(found)
        assert next(r.name for r in listing()) == "local"  # which still works


# -- a silent fall-back ----------------------------------------------------------------------------

FALLEN_BACK = {
    "tflite_gpu_rest_on_cpu.txt": "GPU",
    "tflite_gpu_opengl_instead.txt": "GPU",
    "tflite_2025_phone_gpu_then_nnapi.txt": "GPU",
    "tflite_2021_flag_ignored.txt": "GPU",
    "tflite_2021_mi11_nnapi_fails.txt": "NNAPI",
    "tflite_2019_no_nnapi_library.txt": "NNAPI",
    "tflite_2022_logcat_nnapi_declined.txt": "NNAPI",
    "tflite_2022_logcat_nnapi_partly.txt": "NNAPI",
    "tflite_2021_imx8_says_nothing.txt": "NNAPI",
    "tflite_2025_termux_xnnpack.txt": "CPU",
    "tflite_2025_am62_plain_kernels.txt": "XNNPACK",
}


@pytest.mark.parametrize("name", FALLEN_BACK)
def test_a_delegate_that_fell_back_gives_no_number(name: str, tmp_path: Path) -> None:
    litert()
    provider = FALLEN_BACK[name]
    binary = program(tmp_path / "benchmark_model", recorded(name))
    device = here(runtime="benchmark_model", binary=str(binary), provider=provider)
    with pytest.raises(DeviceUnavailable, match="cannot run benchmark_model as asked") as found:
        device.__enter__()
    told(found)


@pytest.mark.adbd
def test_a_provider_that_the_build_lacks(phones: AdbPhones, tmp_path: Path) -> None:
    device = over_adb(phones.serials[0], provider="QNNExecutionProvider")
    with data.MeasurementStore(tmp_path / "x.db") as store, device:
        with pytest.raises(DeviceError) as found:
            devices.measure(SUBJECTS, on=device, into=store, protocol=TWICE)
    text = told(found)
    assert "this build has no QNNExecutionProvider; it has" in text and "CPUExecution" in text
    assert stored(tmp_path / "x.db") == set()


def test_a_worker_that_ran_another_provider(puppet: Puppet, tmp_path: Path) -> None:
    puppet.amiss("run", once=True, **{"with": {"provider": "NnapiExecutionProvider"}})
    outcome, _ = measured(puppet.device, tmp_path / "x.db")
    assert outcome.rejected == 1
    with data.MeasurementStore(tmp_path / "x.db") as store:
        (refused,) = store.rejections(outcome.conditions)
    assert "asked for CPUExecutionProvider, and NnapiExecutionProvider ran" in note(str(refused))
    whole(outcome, tmp_path / "x.db")


# -- what is not installed -------------------------------------------------------------------------


@pytest.mark.adbd
@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("/bin/false", "ended with code 1"),
        ("/nonexistent", "ended with code 127"),
        ("python2.7 -x", "ended with code 127"),
        ("/bin/echo", "answered"),
    ],
)
def test_a_python_that_is_none(phones: AdbPhones, python: str, why: str) -> None:
    with pytest.raises(PhonenasError, match=why) as found:
        over_adb(phones.serials[0], python=python).__enter__()
    text = told(found)
    assert why == "answered" or f"test that with  {python} -c 'import onnxruntime'." in text


@pytest.mark.adbd
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_python_without_the_runtime(phones: AdbPhones, tmp_path: Path, runtime: str) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o700)
    with pytest.raises(DeviceUnavailable, match=f"cannot start {runtime}: .*Error: ") as found:
        over_adb(phones.serials[0], python=str(bare), runtime=runtime).__enter__()
    text = told(found)
    assert re.search("Install it there:  pip install (onnxruntime|ai-edge-litert)", text)


@pytest.mark.parametrize(
    ("kind", "advice"), [("adb", "apt install adb"), ("ssh", "apt install openssh-client")]
)
def test_programs_that_are_not_installed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, advice: str
) -> None:
    table = tmp_path / "devices.toml"
    table.write_text(f'[mine]\ntransport = "{kind}"\naddress = "R1"\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(table))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceUnavailable, match=advice) as found:
        devices.connect("mine").__enter__()
    told(found)
    (row,) = [r for r in listing() if r.name == "mine"]
    assert row.state in ("unknown", "unreachable") and advice in row.detail


# -- it comes back as another ----------------------------------------------------------------------


@pytest.mark.adbd
@pytest.mark.parametrize(
    ("was", "is_now", "why"),
    [
        ("AP1A.240305.019/11445699", "AP2A.240905.003/12231197", "fingerprint: "),
        ("sched_pixel", "powersave", "governor: sched_pixel / powersave"),
    ],
)
def test_a_phone_that_comes_back_as_another_is_refused(
    phones: AdbPhones,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    was: str,
    is_now: str,
    why: str,
) -> None:
    text = tmp_path / "snapshot"
    text.write_text(recorded("snapshot_pixel6.txt"))
    monkeypatch.setattr(assembled_device, "SNAPSHOT", f"cat {text}")
    phone = phones.devices[0]
    device = over_adb(phones.serials[0], cores="all", fixed_performance=False)

    then: list[Conditions] = []

    def exchange() -> None:
        then.append(device.conditions)
        assert was in text.read_text()
        text.write_text(text.read_text().replace(was, is_now))
        phone.unplug()

    def plug(event: Event) -> None:
        if isinstance(event, Lost):
            phone.plug()

    strike(device, exchange, after=8)
    path = tmp_path / "x.db"
    with pytest.raises(DeviceError) as found:
        measured(device, path, plug)
    words = told(found)
    assert "came back with other conditions" in words and why in words
    before = stored(path)
    assert before  # what was measured is kept
    outcome, _ = measured(device, path)
    whole(outcome, path)
    assert len(outcome.conditions.differences(then[0])) == 1  # the old ones are left alone
    assert before < stored(path)


# -- the store's disk is full ----------------------------------------------------------------------


@pytest.mark.adbd
def test_the_stores_disk_is_full_in_mid_job(
    phones: AdbPhones, puppet: Puppet, tmp_path: Path
) -> None:
    python = str(puppet.file.with_suffix(""))
    device = over_adb(phones.serials[0], python=python)
    protocol = replace(TWICE, operator_runs=300, network_runs=300)
    path = tmp_path / "x.db"
    before: set[tuple[int, int, str]] = set()
    with data.MeasurementStore(path) as store, device:

        def fill(event: Event) -> None:
            if isinstance(event, Measured) and not before:
                before.update(stored(path))
                with store._database._engine.connect() as connection:
                    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
                    # SQLite's own limit gives the very error of a full disk.
                    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(StoreError) as found:
            devices.measure(SUBJECTS, on=device, into=store, protocol=protocol, on_event=fill)
        assert "full" in told(found)
    assert before and before <= stored(path)
    with data.MeasurementStore(path) as store, device:
        outcome = devices.measure(SUBJECTS, on=device, into=store, protocol=protocol)
    assert before < stored(path)
    whole(outcome, path, samples=300)


# -- Ctrl-C, and an end without a word -------------------------------------------------------------


class Command:
    """`phonenas profile` in a process of its own, at work on a device."""

    def __init__(self, folder: Path, table: str, environment: Mapping[str, str]) -> None:
        (folder / "devices.toml").write_text(f"[mine]\n{table}")
        self.path, self._said = folder / "x.db", folder / "said"
        words = ["profile", "--device", "mine", "--network", str(SMALL), "--db", str(self.path)]
        with self._said.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "phonenas", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=folder,
                start_new_session=True,
                env={**environment, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
            )

    def said(self) -> str:
        """What it printed, the bars and the log."""
        return self._said.read_text(errors="replace")

    def wait_until_it_measures(self) -> Path:
        """The device's folder, once rounds are in the store and a program works there."""
        folders: set[str] = set()

        def begun() -> bool:
            assert self.process.poll() is None, self.said()
            for line in at_work().values():
                folders.update(re.findall(r"(/\S*/phonenas-\w{10})/", line))
            return bool(folders) and self.rounds() > 0

        wait_for("the first round", begun, said=lambda: f"{folders} {at_work()} {self.said()}")
        (folder,) = folders
        return Path(folder)

    def rounds(self) -> int:
        with contextlib.suppress(sqlite3.Error):
            return len(stored(self.path)) if self.path.exists() else 0
        return 0  # its tables are being made

    def end(self, *signals: signal.Signals) -> tuple[int, str]:
        """Exit code and the last line."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.3)
        wait_for("its end", lambda: self.process.poll() is not None, said=self.said)
        said = self.said().splitlines()
        return self.process.returncode, said[-1] if said else ""


@pytest.fixture
def command_over(phones: AdbPhones, sshd: Sshd, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts the command over "adb" or "ssh", with more settings of the device."""
    begun: list[Command] = []

    def start(way: str, **more: str) -> Command:
        table = {"python": PYTHON[-1], **more}
        if way == "adb":
            table |= {"transport": "adb", "address": phones.serials[0]}
            environment = phones.environment
        else:
            table |= {"transport": "ssh", "address": sshd.host, "config": str(sshd.config)}
            # Locks and sockets of its own, by a name that is short enough for a socket.
            environment = {**os.environ, "TMPDIR": str(sshd.folder)}
        lines = "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
        begun.append(Command(tmp_path, lines, environment))
        return begun[-1]

    yield start
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def clients(*words: str) -> list[str]:
    """Processes of any parent whose command line has all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if all(w in line for w in words):
                found.append(line)
    return found


@pytest.mark.adbd
@pytest.mark.sshd
@pytest.mark.parametrize(("way", "times"), [("ssh", 1), ("adb", 3)])
def test_ctrl_c(command_over: Callable[..., Command], way: str, times: int) -> None:
    begun = command_over(way)
    folder = begun.wait_until_it_measures()
    before = stored(begun.path)
    code, last = begun.end(*[signal.SIGINT] * times)
    if times == 1:
        assert code == 130
        assert (
            note(last) == "Stopped. What was finished is kept; the same command goes on from there."
        )
    assert code != 0
    wait_for("its end", lambda: not at_work() and not folder.exists())
    assert before <= stored(begun.path)


@pytest.mark.adbd
@pytest.mark.sshd
def test_ctrl_c_while_nobody_answers(
    phones: AdbPhones, command_over: Callable[..., Command]
) -> None:
    begun = command_over("adb")
    begun.wait_until_it_measures()
    phones.devices[0].unplug("silent")
    time.sleep(0.5)
    code, last = begun.end(signal.SIGINT)
    assert (code, last[:8]) == (130, "Stopped.")
    wait_for("its end", lambda: not at_work())


@pytest.mark.adbd
@pytest.mark.sshd
@pytest.mark.parametrize(
    ("way", "runtime"), [("adb", "onnxruntime"), ("ssh", "onnxruntime"), ("ssh", "benchmark_model")]
)
def test_killed(
    phones: AdbPhones,
    sshd: Sshd,
    command_over: Callable[..., Command],
    tmp_path: Path,
    way: str,
    runtime: str,
) -> None:
    more = {}
    if runtime == "benchmark_model":
        litert()
        text = recorded(WELL)
        binary = program(tmp_path / "benchmark_model", text, then="sleep 0.3")
        more = {"runtime": runtime, "binary": str(binary)}
    begun = command_over(way, **more)
    folder = begun.wait_until_it_measures()
    before = stored(begun.path)
    code, _ = begun.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    wait_for("its end", lambda: not at_work())
    if runtime == "onnxruntime":  # between two batches of a program nobody is there to clean up
        wait_for("the end of its folder", lambda: not folder.exists())
    mine = (phones.serials[0], "shell") if way == "adb" else (str(sshd.config), sshd.host)
    wait_for("the end of what was started here", lambda: not clients(*mine))
    assert before <= stored(begun.path)


@pytest.mark.adbd
def test_a_benchmark_program_ends_when_its_cable_falls_silent(
    phones: AdbPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litert()
    text = recorded(WELL)
    binary = program(tmp_path / "benchmark_model", text, sentinel=text, then="exec sleep 4321")
    device = over_adb(phones.serials[0], runtime="benchmark_model", binary=str(binary))
    model = device.lower(SENTINEL, tmp_path / "model")
    sentinel = device.lower(SENTINEL, tmp_path / "sentinel")
    with device:
        jobs = [Job(sentinel, 1)] * 4 + [Job(model, 1)]
        readings = device.run_ms(jobs, sentinel=sentinel, warmup_runs=1, warmup_s=0.0)
        next(readings)
        wait_for("the long run", lambda: at_work("sleep 4321"))
        phones.devices[0].unplug("silent")
        impatient(monkeypatch)
        wait_for("its end", lambda: not at_work("sleep 4321") and not at_work())
        readings.close()
    phones.devices[0].plug()


@pytest.mark.adbd
def test_an_adb_server_that_was_started_on_the_way_holds_no_lock(
    phones: AdbPhones, tmp_path: Path
) -> None:
    device = over_adb(phones.serials[0])
    with device:
        phones.server.kill()
        talk = device.transport.spawn(["true"])
        with pytest.raises(DeviceUnavailable):
            talk.line(PATIENCE_S)
        talk.close()
        assert phones.server.answers()  # another server, started by that command
    with over_adb(phones.serials[0]):  # nobody holds its lock
        pass


@pytest.mark.sshd
def test_a_host_that_greets(sshd_with: Callable[[str], Sshd], tmp_path: Path) -> None:
    sshd = sshd_with('ForceCommand echo "Welcome to board!"; eval "$SSH_ORIGINAL_COMMAND"')
    with pytest.raises(DeviceError) as found:
        over_ssh(sshd).__enter__()
    text = told(found)
    assert (
        "answered 'Welcome to board!'" in text and "start-up file" in text and "silence it" in text
    )


# -- the page -------------------------------------------------------------------------------------


def rows_of_the_page() -> list[tuple[str, str]]:
    """What phonenas says and which tests show it, of each row under "When something goes wrong"."""
    text = (HERE.parent / "docs" / "phones.md").read_text(encoding="utf-8")
    section = text.partition("## When something goes wrong")[2].partition("\n## ")[0]
    rows = [x.strip("|").split(" | ") for x in section.splitlines() if x.startswith("| ")]
    return [(row[1], row[3]) for row in rows[1:]]


def test_the_page_on_faults_quotes_what_is_said(request: pytest.FixtureRequest) -> None:
    """Of those tests that were not skipped; every test that it names must be there."""
    chosen = request.config.option
    if chosen.keyword or chosen.markexpr or any("::" in x for x in request.config.args):
        pytest.skip("only some tests of this file were asked for")
    rows = rows_of_the_page()
    assert len(rows) > 30
    named = set()
    for says, shown_by in rows:
        tests = re.findall(r"`(test_\w+)`", shown_by)
        assert tests and all(t in globals() for t in tests), shown_by
        named.update(tests)
        if not all(t in WORDS for t in tests):
            continue
        heard = [x for t in tests for x in WORDS[t]]
        for quoted in re.findall(r"`` (.+?) ``|`(.+?)`", says):
            parts = [re.escape(x) for x in "".join(quoted).split("…")]
            pattern = re.compile(".*".join(parts))
            assert any(pattern.search(x) for x in heard), (quoted, heard)
    assert set(WORDS) <= named, set(WORDS) - named
