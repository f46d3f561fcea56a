"""Transports, runtimes and devices of other packages, named in devices.toml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_S

from phonenas import devices
from phonenas.space.errors import InvalidArgument, UnknownName

# What a stranger writes: a transport, a runtime and a whole device.
STRANGERS = '''
from phonenas.devices import Runtime
from phonenas.devices.simulated import SimulatedPhone
from phonenas.devices.transports.local import LocalTransport


class Serial(LocalTransport):
    """Reaches a board over a serial line; here it is this computer."""

    kind = "serial"

    def __init__(self, name, address):
        super().__init__(name)
        self.port = address

    @property
    def address(self):
        return self.port


class Stopwatch(Runtime):
    """A runtime that only says its name."""

    name = "stopwatch"
    provider = "CPU"

    def lower(self, model, stem): ...
    def start(self, transport, cores, sentinel): ...
    def run_ms(self, jobs, *, sentinel, warmup_runs, warmup_s): ...
    def stop(self): ...


class Board(SimulatedPhone):
    """A whole device."""

    @classmethod
    def from_settings(cls, settings):
        return cls(settings.name, seed=7)


class Nothing:
    pass
'''


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "strangers_lab.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PHONENAS_DEVICES", str(tmp_path / "devices.toml"))
    yield tmp_path
    sys.modules.pop("strangers_lab", None)


def table(folder: Path, text: str) -> None:
    (folder / "devices.toml").write_text(text)


def test_a_transport_of_ones_own_is_named_by_module_and_name(strangers: Path) -> None:
    table(
        strangers,
        '[board]\ntransport = "strangers_lab:Serial"\naddress = "/dev/ttyUSB0"\n'
        'runtime = "strangers_lab:Stopwatch"\n',
    )
    board = devices.connect("board")
    assert board.place == "serial /dev/ttyUSB0"
    (row,) = [r for r in devices.listing() if r.name == "board"]
    assert (row.kind, row.state, row.runtime) == ("serial", "ready", "stopwatch")
    assert row.cores >= 1


def test_a_whole_device_of_ones_own(strangers: Path) -> None:
    table(strangers, '[board]\ntransport = "strangers_lab:Board"\n')
    with devices.connect("board") as board:
        assert board.conditions.device == "board"
        assert board.telemetry()["temperature_c"] == 30


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ('transport = "strangers_lab:Nothing"', InvalidArgument, "derived from phonenas.devices"),
        ('runtime = "strangers_lab:Nothing"', InvalidArgument, "derived from phonenas.devices"),
        ('transport = "strangers_lab:Absent"', UnknownName, "cannot be imported"),
        ('transport = "no_such_module:X"', UnknownName, "cannot be imported"),
        ('runtime = "no_such_module:X"', UnknownName, "cannot be imported"),
    ],
)
def test_what_is_none_is_told_and_hides_no_other_device(
    strangers: Path, text: str, kind: type[Exception], words: str
) -> None:
    table(strangers, f'[bad]\n{text}\n[try]\ntransport = "simulated"\n')
    with pytest.raises(kind, match=words):
        devices.connect("bad")
    rows = {r.name: r for r in devices.listing()}
    assert rows["bad"].state == "not usable"
    assert words in rows["bad"].detail
    assert rows["try"].state == "ready"


def test_those_of_an_installed_package_are_there_by_name(tmp_path: Path) -> None:
    (tmp_path / "strangers_lab.py").write_text(STRANGERS)
    about = tmp_path / "strangers_lab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers-lab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[phonenas.transports]\nserial = strangers_lab:Serial\nlocal = strangers_lab:Nothing\n"
        "[phonenas.runtimes]\nstopwatch = strangers_lab:Stopwatch\n"
    )
    table(tmp_path, '[board]\ntransport = "serial"\naddress = "ttyS0"\nruntime = "stopwatch"\n')
    done = subprocess.run(
        [sys.executable, "-m", "phonenas", "devices", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert (rows["board"]["kind"], rows["board"]["state"]) == ("serial", "ready")
    assert rows["board"]["runtime"] == "stopwatch"
    assert rows["local"]["state"] == "ready"  # no package takes the place of one of ours
    bad = '[board]\ntransport = "seriall"\n'
    table(tmp_path, bad)
    done = subprocess.run(
        [sys.executable, "-m", "phonenas", "devices", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["board"]["state"] == "not usable" and rows["local"]["state"] == "ready"
    assert "one of adb, local, serial, simulated, ssh, or MODULE:NAME" in rows["board"]["detail"]
