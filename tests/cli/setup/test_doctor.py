"""The command doctor: what it finds where a thing is there, and where it is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phonenas.cli.setup import doctor
from phonenas.data import Conditions, MeasurementStore, Round
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture

Look = Callable[[], dict[str, dict[str, Any]]]


@pytest.fixture
def look(run: Run) -> Look:
    """Runs the command; its findings by what was looked at, whatever its exit code."""
    import json

    def findings() -> dict[str, dict[str, Any]]:
        code, out, err = run("doctor", "--json")
        assert not err
        found = {f["check"]: f for f in json.loads(out)}
        assert code == any(f["state"] == "fault" for f in found.values())
        return found

    return findings


def keep(path: Path, at: str) -> None:
    """A store with one measurement of that time."""
    words = ("pixel", "Pixel 1", "f", "onnxruntime", "1.22", "h", "CPU", "all")
    conditions = Conditions(*words, threads=1, cores="big", governor="none")
    with MeasurementStore(path) as store:
        (pending,) = store.pending(conditions, "network", ["conv"]).values()
        store.add_rounds([(pending.id, 0, Round((1.0, 1.1, 1.2), at=at))])
        store.complete([pending.id])


def test_everything_is_there(run: Run) -> None:
    keep(Path("phonenas.db"), "2026-01-02T03:04:05+00:00")
    code, out, err = run("doctor")
    assert (code, err) == (0, "") and out.splitlines()[-1] == "No fault."
    rows = out.splitlines()
    assert any(r.startswith("ok ") and "onnxruntime" in r for r in rows)
    assert any(r.startswith("ok ") and "phonenas.db: 1 measurement of pixel" in r for r in rows)


def test_what_is_not_installed_is_named_with_its_purpose_and_command(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda n: None if n == "safetensors" else there(n))
    found = look()["extra torch"]
    assert found["state"] == "absent" and found["advice"] == "pip install torch safetensors pillow"
    assert "safetensors not installed" in found["found"] and "promote" in found["found"]

    monkeypatch.setattr(doctor, "_REQUIRED", ("numpy", "no-such-package"))
    found = look()["packages"]
    assert found["state"] == "fault" and found["advice"] == "pip install no-such-package"


def test_programs_that_are_not_there(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    found = look()
    assert [found[n]["state"] for n in ("adb", "ssh")] == ["absent", "absent"]
    assert "apt install adb" in found["adb"]["advice"]


def test_a_busy_computer_and_a_full_disk(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 0.0, 0.0))
    monkeypatch.setattr(doctor, "_LEAST_FREE", 10**18)
    found = look()
    assert found["load"]["state"] == "note" and "load 1.9 on 2 cores" in found["load"]["found"]
    assert found["temporary files"]["state"] == "fault"
    monkeypatch.delattr(os, "getloadavg")  # as on Windows
    assert look()["load"]["state"] == "note"


def test_devices_that_cannot_be_used(look: Look) -> None:
    Path("devices.toml").write_text('[bad]\ntransport = "pigeon"\n[sim]\ntransport = "simulated"\n')
    found = look()
    assert found["device bad"]["state"] == "fault" and "pigeon" in found["device bad"]["advice"]
    assert found["device sim"]["state"] == "ok"
    Path("devices.toml").write_text("[bad")
    found = look()
    assert found["devices.toml"]["state"] == "fault"
    assert "cannot be read" in found["devices.toml"]["found"]


def test_the_store_and_the_clock(look: Look) -> None:
    found = look()
    assert found["store"]["state"] == "absent"
    assert found["store"]["advice"] == "make one:  phonenas profile"

    keep(Path("phonenas.db"), "2999-01-02T03:04:05+00:00")
    found = look()
    assert found["store"]["state"] == "ok" and found["clock"]["state"] == "note"
    assert "a measurement of pixel is of 2999-01-02 03:04 UTC" in found["clock"]["found"]

    Path("phonenas.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    found = look()
    assert found["store"]["state"] == "fault" and "is damaged" in found["store"]["found"]
    assert "clock" not in found
