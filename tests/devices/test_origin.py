"""Simulated numbers say so wherever they go, and never mix with measured ones."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDevice, TinySpace, undigested

from phonenas import cli, data, devices, latency_model, search, space
from phonenas.devices.device import Device
from phonenas.devices.measuring.profiling import Selection
from phonenas.devices.measuring.protocol import Protocol
from phonenas.latency_model.fitting import choose_conditions
from phonenas.report import write_report
from phonenas.search.validation.validation_file import document
from phonenas.testing import SimulatedPhone


def measured(folder: Path, *on: Device) -> Path:
    """A folder with a store that holds the profile of each device."""
    subjects = Selection().subjects(TinySpace(resolution=32), 25, seed=0)
    with data.MeasurementStore(folder / "s.db") as store:
        for device in on:
            with device:
                devices.measure(subjects, on=device, into=store, protocol=Protocol(apart_s=0.0))
    return folder


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured(tmp_path_factory.mktemp("origin"), SimulatedPhone("sim"))


@pytest.mark.slow
def test_a_fit_takes_what_was_measured_though_the_simulated_came_later(tmp_path: Path) -> None:
    named = type("Named", (FakeDevice,), {"name": "twin"})
    simulated = measured(tmp_path, SimulatedPhone("sim"), named(), SimulatedPhone("twin"))
    with data.MeasurementStore(simulated / "s.db") as store:
        chosen, left_out = choose_conditions(store, "twin")
        assert chosen.origin == "measured"
        assert left_out == []
        assert {c.origin for c in store.conditions("twin")} == {"measured", "simulated"}
        assert latency_model.fit(store, "sim").conditions.origin == "simulated"


def test_a_simulated_run_never_says_measured(simulated: Path) -> None:
    tiny = TinySpace(resolution=32)
    run = simulated / "run"
    with data.MeasurementStore(simulated / "s.db") as store:
        model = latency_model.fit(store, "sim")
        search.run(
            tiny,
            latency=model,
            accuracy=search.accuracy.Surrogate(),
            strategy=search.RandomSearch(seed=0),
            target_ms=None,
            evaluations=60,
            into=run,
        )
        loaded = search.load(run)
        with SimulatedPhone("sim") as phone:
            found = search.validate(loaded.front, on=phone, into=store, top=2)
            told = document(found, loaded, phone.conditions, latency=model)
    (run / "validation.json").write_text(json.dumps(undigested(told)), encoding="utf-8")
    page = write_report(run, None).read_text(encoding="utf-8")
    assert "SIMULATED" in page
    body = page[page.index("<body>") :].replace("No device was measured for the times", "")
    shown = re.sub(r"<script>.*?</script>", "", body[: body.index("const plots")], flags=re.S)
    assert not re.findall(r"\bmeasured\b", shown)
    plots = body[body.index("const plots") : body.index("// A finger")]
    assert not re.findall(r"\bmeasured\b", plots)
    assert "simulated" in shown and "simulated" in plots


def test_the_commands_say_so(
    simulated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(simulated)
    (simulated / "devices.toml").write_text('[sim]\ntransport = "simulated"\n', encoding="utf-8")

    monkeypatch.setenv("PHONENAS_DB", "s.db")

    def told(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["phonenas", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (0, None)
        return capsys.readouterr().out

    assert "SIMULATED" in told("fit", "--device", "sim")
    network = str(TinySpace(resolution=32).decode(TinySpace(resolution=32).sample(_rng(), 1)[0]))
    assert "SIMULATED" in told("predict", network, "--device", "sim")
    rows: Any = json.loads(told("predict", network, "--device", "sim", "--json"))
    assert rows[0]["origin"] == "simulated"
    assert "SIMULATED" in told("profile", "--device", "sim", "--network", network)
    assert "simulated" in told("devices")


def _rng() -> Any:
    import numpy as np

    assert space  # the package is whole
    return np.random.default_rng(0)
