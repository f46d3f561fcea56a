"""One job at a time measures a device into a store, a simulated device too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from phonenas import data, devices
from phonenas.data import files
from phonenas.devices import Subject
from phonenas.devices.simulated import SimulatedPhone
from phonenas.space import Operator
from phonenas.space.errors import DeviceUnavailable

ONE = Subject("operator", Operator.parse("mbconv6_k3_s1_14x14x80_80"))


def measured(path: Path, name: str = "sim", on_event: Any = None) -> int:
    with data.MeasurementStore(path) as store, SimulatedPhone(name, seed=1) as phone:
        return devices.measure([ONE], on=phone, into=store, on_event=on_event).measured


@pytest.mark.fault(
    "Two jobs measure one device, or a simulated one into the same store.",
    "`sim is being measured by another process: process … on …, since …, runs  …`; exit code 1, "
    "after 15 s",
    "Wait for it.",
)
def test_a_second_job_of_a_device_is_told_who_measures_it(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    tried = []

    def meanwhile(event: object) -> None:
        if not tried:
            tried.append(1)
            with pytest.raises(DeviceUnavailable) as caught:
                measured(tmp_path / "s.db")
            assert "sim is being measured by another process: " in str(caught.value)
            assert f"process {os.getpid()} on {os.uname().nodename}, since " in str(caught.value)
            assert measured(tmp_path / "s.db", "other") == 1  # another device
            assert measured(tmp_path / "t.db") == 1  # nothing is shared

    assert measured(tmp_path / "s.db", on_event=meanwhile) == 1 and tried
    assert measured(tmp_path / "s.db") == 0  # it is there, once
    with data.MeasurementStore(tmp_path / "s.db") as store:
        (one,) = store.measurements(store.conditions("sim")[0])
        assert [r.samples_ms for r in one.rounds] == list({r.samples_ms: 0 for r in one.rounds})
