"""A phone that became slower or faster after its fit: what is told follows the clock."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import TinySpace, undigested

from phonenas import data, devices, latency_model, search
from phonenas.devices.measuring import profiling
from phonenas.devices.simulated import SimulatedPhone
from phonenas.search.accuracy import Surrogate
from phonenas.space import Architecture
from tests.cli.test_app import Run

pytestmark = pytest.mark.usefixtures("fast")
SPACE = TinySpace(resolution=224)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder with a store of the phone at speed 1, a model and a run; its target in ms."""
    folder = tmp_path_factory.mktemp("speed")
    with data.MeasurementStore(folder / "s.db") as store, SimulatedPhone("sim") as phone:
        subjects = profiling.Selection().subjects(SPACE, 30, seed=0)
        devices.measure(subjects, on=phone, into=store, protocol=devices.Protocol(apart_s=0.0))
        model = latency_model.fit(store, "sim")
    model.save(folder / "s.sim.model.json")
    networks = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(0), 200)]
    target = float(np.quantile(model.latency_ms(networks), 0.7))
    search.run(
        SPACE,
        latency=model,
        accuracy=Surrogate(),
        strategy=search.NSGA2(seed=0),
        target_ms=target,
        evaluations=400,
        into=folder / "r",
    )
    return folder, target


def copied(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A copy of the folder; the options that name it."""
    shutil.copytree(made, folder / "s")
    monkeypatch.setenv("PHONENAS_DEVICES", str(folder / "devices.toml"))
    return ("--db", str(folder / "s" / "s.db"), "--device", "sim")


def now(speed: float, folder: Path) -> None:
    """From now on the phone has this speed."""
    (folder / "devices.toml").write_text(f'[sim]\ntransport = "simulated"\nspeed = {speed}\n')


@pytest.mark.parametrize(
    "speed",
    [1.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.7, 0.8, 0.9, 1.0, 1.1, 1.2))],
)
def test_the_clock_decides_on_a_phone_of_another_speed(
    speed: float,
    searched: tuple[Path, float],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, target = searched
    run = Run(capsys, monkeypatch)
    db = copied(made, tmp_path, monkeypatch)
    now(speed, tmp_path)
    told = run.json("validate", str(tmp_path / "s" / "r"), *db)
    phone = SimulatedPhone("sim")
    assert len(told["networks"]) == 5
    for row in told["networks"]:
        true_ms = speed * phone.truth_ms(Architecture.parse(row["block_args"]))
        assert row["measured_ms"] == pytest.approx(true_ms, rel=0.04)
        if abs(true_ms / target - 1) > 0.04:
            assert row["meets_target"] is (true_ms <= target)
    assert ("times as long" in told["verdict"]["text"]) is (speed != 1)
    assert ("measure again with --again" in told["verdict"]["text"]) is (abs(speed - 1) > 0.05)

    checked = run.json("check", *db)
    assert checked["slowdown"] == pytest.approx(speed, abs=0.02)
    assert checked["refit"] is (speed != 1)
    code, out, err = run("check", *db)
    assert code == 0, err
    assert ("holds" in out) is (speed == 1)
    assert ("times as long as when it was measured" in out) is (speed != 1)


@pytest.mark.slow
def test_what_was_measured_before_a_phone_changed_is_measured_again(
    searched: tuple[Path, float],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(capsys, monkeypatch)
    db = copied(searched[0], tmp_path, monkeypatch)
    words = ("validate", str(tmp_path / "s" / "r"), *db)
    now(1.0, tmp_path)
    before = run.json(*words)
    assert "times as long" not in before["verdict"]["text"]
    assert run.json(*words)["reused"] == 5
    now(1.3, tmp_path)
    told = run.json(*words)
    assert told["reused"] == 0
    for old, new in zip(before["networks"], told["networks"], strict=True):
        assert new["measured_ms"] == pytest.approx(1.3 * old["measured_ms"], rel=0.03)
    assert told["verdict"]["stable"] is False
    assert "slower than when its store was measured" in told["verdict"]["text"]
    # A fit would mix two speeds: what the model was fitted on is to be measured again, too.
    assert told["upkeep"]["measure_again"] is True
    code, out, err = run(*words)
    assert code == 0, err
    assert "the device has another speed: newer networks take 1.3" in out
    words = "--device sim --space accel-nasbench --operators 55 --again"  # as many as before
    command = f"phonenas profile {words} --db {db[1]}"
    assert f"with the other options of its profile:  {command}\nthen:  phonenas fit" in out
    assert "SPACE" not in out


@pytest.mark.slow
def test_networks_of_a_former_speed_take_no_part_in_a_fit(
    searched: tuple[Path, float],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(capsys, monkeypatch)
    db = copied(searched[0], tmp_path, monkeypatch)
    now(1.0, tmp_path)
    before = run.json("validate", str(tmp_path / "s" / "r"), *db)
    assert run.json("fit", *db)["of_a_former_speed"] == []
    now(1.3, tmp_path)
    with data.MeasurementStore(db[1]) as store, devices.connect("sim") as phone:
        subjects = profiling.Selection().subjects(SPACE, 30, seed=0)
        protocol = devices.Protocol(apart_s=0.0)
        devices.measure(subjects, on=phone, into=store, protocol=protocol, again=True)
    told = run.json("fit", *db)
    old = [n["block_args"] for n in before["networks"]]
    assert sorted(told["of_a_former_speed"]) == sorted(old)
    assert told["score"]["mape"] < 0.03
    code, out, err = run("fit", *db)
    assert code == 0, err
    assert "left out of the fit: 5 networks are older than what it rests on, and of another" in out
    assert f"--network '{told['of_a_former_speed'][0]}' --again" in out
    model = latency_model.load(tmp_path / "s" / "s.sim.model.json")
    predicted = model.latency_ms([Architecture.parse(text) for text in old])
    for row, ms in zip(before["networks"], predicted, strict=True):
        assert ms == pytest.approx(1.3 * row["measured_ms"], rel=0.06)


def test_a_run_of_an_older_releases_model_is_told(
    searched: tuple[Path, float],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(capsys, monkeypatch)
    words = ("validate", str(tmp_path / "s" / "r"), *copied(searched[0], tmp_path, monkeypatch))
    now(1.0, tmp_path)
    old = "was searched with a model of an older release: its times were divided by the sentinel's"
    assert old not in run(*words)[2]
    path = tmp_path / "s" / "r" / "run.json"
    document = json.loads(path.read_text())
    del document["model"]["version"]
    path.write_text(json.dumps(undigested(document)))
    assert old in run(*words)[2]
