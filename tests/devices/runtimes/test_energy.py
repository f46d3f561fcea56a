"""Energy of an inference: counters of the processor's packages, and batteries."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from patience import PATIENCE_S

from phonenas.devices.runtimes import worker
from phonenas.devices.runtimes.energy import POWERED, power_uw
from phonenas.devices.settings import DeviceSettings, read_settings
from phonenas.space.errors import InvalidArgument


class Clock:
    """Of a program whose runs take half a second each."""

    def __init__(self) -> None:
        self.s = 0.0

    def perf_counter(self) -> float:
        return self.s

    def run(self) -> None:
        self.s += 0.5


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(worker, "time", made)
    monkeypatch.setattr(worker, "_POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(worker, "_SUPPLIES", tmp_path / "power_supply")
    return made


def written(folder: Path, **texts: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_a_device_that_tells_nothing_has_no_energy(clock: Clock) -> None:
    assert worker.energy_mj(clock.run, 3.0) is None and clock.s == 0


def test_packages_are_counted_where_their_counter_begins_again(
    clock: Clock, tmp_path: Path
) -> None:
    caps = tmp_path / "powercap"
    first = written(caps / "intel-rapl:0", name="package-0", energy_uj=990, max_energy_range_uj=999)
    second = written(
        caps / "intel-rapl:1", name="package-1", energy_uj=100, max_energy_range_uj=10**9
    )
    written(caps / "intel-rapl:0:0", name="core", energy_uj=5, max_energy_range_uj=999)
    written(caps / "intel-rapl:2", name="psys", energy_uj=5, max_energy_range_uj=999)

    def run() -> None:
        clock.run()
        written(first, energy_uj=190)  # 200 µJ later
        written(second, energy_uj=9_900)  # 9,800 µJ later

    # Six runs of half a second: 10 mJ.
    assert worker.energy_mj(run, 3.0) == pytest.approx(10 / 6)
    assert clock.s == 3.0

    # The same package by another interface.
    written(caps / "intel-rapl-mmio:0", name="package-0", energy_uj=7, max_energy_range_uj=999)
    assert worker.package_uj()["package-0"] == (190, 999)

    def unreadable() -> None:
        clock.run()
        (second / "energy_uj").unlink(missing_ok=True)

    assert worker.energy_mj(unreadable, 3.0) is None


@pytest.mark.parametrize(
    "tells",
    [
        {"power_now": 4_000_000},
        {"current_now": -1_000_000, "voltage_now": 4_000_000},
        {"current_now": 1_000_000, "voltage_now": 4_000_000, "power_now": "n/a"},
    ],
)
def test_a_battery_that_gives_four_watts(
    clock: Clock, tmp_path: Path, tells: dict[str, object]
) -> None:
    supplies = tmp_path / "power_supply"
    battery = written(supplies / "battery", type="Battery", status="Discharging", **tells)
    written(supplies / "usb", type="USB", status="Discharging", power_now=10**8)
    mouse = {"type": "Battery", "status": "Discharging", "scope": "Device"}
    written(supplies / "mouse", **mouse, power_now=10**8)
    assert worker.energy_mj(clock.run, 3.0) == pytest.approx(2000)  # 4 W for half a second

    def once() -> None:
        clock.s += 10.0  # a run that takes longer than all of them were to take

    assert worker.energy_mj(once, 3.0) == pytest.approx(40_000)
    second = written(supplies / "second", type="Battery", status="Discharging")
    assert worker.energy_mj(clock.run, 3.0) is None  # it does not tell
    for tells_nothing in ("--5", "3000", 10**10):  # no number; 3 mW; 10 kW
        written(second, power_now=tells_nothing)
        if tells_nothing == "3000":
            assert worker.battery_uw() == pytest.approx(4_003_000)
            continue
        assert worker.energy_mj(clock.run, 3.0) is None
    written(second, status="Full")

    def plugged_in() -> None:
        clock.run()
        written(battery, status="Charging")

    assert worker.energy_mj(plugged_in, 3.0) is None
    assert worker.energy_mj(clock.run, 3.0) is None


def tick(*lines: str) -> str:
    return "".join(f"{line} \n" for line in lines) + ".\n"


def test_the_second_half_of_a_run_counts() -> None:
    usb = "USB - - - 500000 5000000"
    mouse = "Battery Discharging Device 9000000 - -"
    early = [tick(usb, "Battery Discharging - - -9000000 4000000")] * 3
    late = tick(usb, mouse, "Battery Discharging System - -1000000 4000000")
    last = tick(usb, "Battery Discharging - 6000000 - -")
    assert power_uw("\n" + "".join([*early, late, late, last])) == pytest.approx(14e6 / 3)
    for text in (
        "",
        "Battery Discharging - 6000000 - - \n",  # cut off
        tick(usb, mouse),
        tick("Battery Charging - 6000000 - -"),
        tick("Battery Discharging - - - 4000000"),
        late + tick("Battery Full - 6000000 - -"),
        tick("Battery Discharging - 6e6 - -"),
        tick("Battery Discharging - - 1000 4000"),  # mA and mV
        tick("Battery Discharging - 6000000 - -", "Battery Discharging - - - -"),
    ):
        assert power_uw(text) is None


def test_the_script_reads_beside_a_program(tmp_path: Path) -> None:
    supplies = tmp_path / "power_supply"
    written(supplies / "BAT0", type="Battery", status="Discharging", current_now=2_000_000)
    written(supplies / "BAT0", voltage_now=3_000_000)
    written(supplies / "BAT1", type="Battery", status="Not charging")
    script = POWERED.replace("/sys/class/power_supply", str(supplies))
    program = ["sh", "-c", "echo its text; sleep 0.4; exit 3"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", "marker", str(tmp_path / "out"), *program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    text, _, readings = done.stdout.rpartition("marker")
    assert done.returncode == 3 and text.strip() == "its text" and not done.stderr
    assert power_uw(readings) == pytest.approx(6e6)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["out"]


def test_it_is_a_setting_of_a_device(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text('[pi]\nenergy = true\n[bad]\nenergy = "yes"\n')
    found = read_settings(path)
    assert isinstance(found["pi"], DeviceSettings) and found["pi"].energy
    assert not isinstance(found["bad"], DeviceSettings)
    assert isinstance(found["bad"].error, InvalidArgument)
    assert "bad.energy is 'yes'; it must be of type bool" in str(found["bad"].error)
