"""A new device from a source device, on the command line: profile --like, then fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeDevice

from phonenas import data, devices
from phonenas.space.errors import UnknownName
from tests.cli.test_app import Run, run

__all__ = ["run"]

SPACE = ("--space", "accel-nasbench", "--resolution", "32", "--quiet")


class Slower(FakeDevice):
    """1.7 times as slow, and slower still with heavy models."""

    name = "new"

    @staticmethod
    def true_ms(model: Path) -> float:
        return 1.7 * (0.2 + model.stat().st_size * 2.4e-6)


@pytest.fixture
def both(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The commands, with a source device and a new device; the minimum is lowered for speed."""

    def connect(name: str, *, threads: int = 1, precision: str | None = None) -> FakeDevice:
        if name not in ("fake", "new"):
            raise UnknownName(f"no device is called {name!r}")
        return FakeDevice() if name == "fake" else Slower()

    monkeypatch.setattr(devices, "connect", connect)
    monkeypatch.setattr("phonenas.latency_model.transfer.source_devices._OWN", 60)
    return run


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_new_device_from_a_few_measurements(both: Run, tmp_path: Path) -> None:
    both.json("profile", "--device", "fake", "--networks", "20", *SPACE)
    found = both.json(
        "profile", "--device", "new", "--like", "fake", "--measurements", "24", *SPACE
    )
    assert found["measured"] == 24
    assert (
        both.json("profile", "--device", "new", "--like", "fake", "--measurements", "24", *SPACE)[
            "measured"
        ]
        == 0
    )  # the same choice again

    report = both.json("fit", "--device", "new")
    assert report["operators"] + report["networks"] == 24
    relative = report["relative"]
    assert relative["device"] == "fake" and 1.6 < relative["factor"] < 2.1
    assert relative["expected_mape"] < 0.05 and relative["good_enough"]
    assert report["lookup_table"] is None

    # What it expects of its error is what the device then says.
    fresh = both.json(
        "profile", "--device", "new", "--operators", "1", "--networks", "12", "--seed", "5", *SPACE
    )
    assert fresh["measured"] >= 12
    with data.MeasurementStore(tmp_path / "phonenas.db") as store:
        (conditions,) = store.conditions("new")
        taken = store.measurements(conditions, "network")[-12:]
    rows = both.json(
        "predict", *(m.subject for m in taken), "--resolution", "32", "--device", "new", "--quiet"
    )
    off = [abs(r["latency_ms"] / m.latency_ms - 1) for r, m in zip(rows, taken, strict=True)]
    assert sum(off) / len(off) < max(2.5 * relative["expected_mape"], 0.02)
    inside = [r["low_ms"] <= m.latency_ms <= r["high_ms"] for r, m in zip(rows, taken, strict=True)]
    assert sum(inside) >= 10


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_source_that_cannot_be_used_is_an_error(both: Run) -> None:
    words = ("profile", "--device", "new", "--like")
    code, _, err = both(*words, "fake", *SPACE)
    assert code != 0 and "holds no measurement of 'fake'" in err
    both.json("profile", "--device", "fake", "--networks", "3", *SPACE)
    code, _, err = both(*words, "fake", *SPACE)
    assert code == 2 and "3 whole networks measured" in err and "phonenas profile" in err
    both.json("profile", "--device", "fake", "--networks", "12", *SPACE)
    code, _, err = both("profile", "--device", "fake", "--like", "fake", *SPACE)
    assert code == 2 and "not its own source device" in err
    for wrong in (("--measurements", "4"), ("--measurements", "100000"), ("--operators", "5")):
        code, _, err = both(*words, "fake", *wrong, *SPACE)
        assert code == 2 and "Traceback" not in err, wrong
    code, _, err = both("fit", "--device", "fake", "--like", "fake")
    assert code == 2 and "own source device" in err


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_few_operators_of_a_space(both: Run) -> None:
    found = both.json(
        "profile", "--device", "fake", "--operators", "40", "--networks", "15", *SPACE
    )
    assert found["measured"] == 55
    report = both.json("fit", "--device", "fake")
    assert report["operators"] == 40 and report["relative"] is None
    (row,) = both.json(
        "predict", "mnasnet-small", "--resolution", "32", "--device", "fake", "--quiet"
    )
    assert row["covered"] is False


def test_the_source_device_is_remembered(tmp_path: Path) -> None:
    conditions = FakeDevice().conditions
    with data.MeasurementStore(tmp_path / "s.db") as store:
        assert store.relative(conditions) is None
        store.set_relative(conditions, "big", "0123456789ab")
        store.set_relative(conditions, "bigger", "ba9876543210")
        assert store.relative(conditions) == ("bigger", "ba9876543210")
        json.dumps(store.relative(conditions))
