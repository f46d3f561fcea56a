"""Rounds: what the device says teaches the model, and the next round keeps its promises."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import old_run, undigested

from phonenas import cli, data, devices, latency_model, search, space
from phonenas.cli.networks import find
from phonenas.devices.device import Job, Reading
from phonenas.devices.measuring import profiling
from phonenas.devices.measuring.events import Measured as RoundsDone
from phonenas.latency_model import LatencyModel
from phonenas.report import read_validation, write_report
from phonenas.search.accuracy import Surrogate
from phonenas.search.run_folder import Loaded
from phonenas.search.validation import validate
from phonenas.search.validation.rerank import rerank
from phonenas.search.validation.round_model import round_model
from phonenas.search.validation.rounds import Ranked, RoundBegan, Rounds
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnsupportedFormat
from phonenas.testing import SimulatedPhone

pytestmark = pytest.mark.usefixtures("fast")
SPACE = space.AccelNASBench(resolution=224)


class Slower(SimulatedPhone):
    """Whole networks take longer than when the model was fitted; operators and sentinel do not."""

    def __init__(self, name: str = "sim", factor: float = 1.05) -> None:
        super().__init__(name)
        self.readings, self.wholes, self.factor = 0, 0, factor

    def run_ms(self, jobs: Sequence[Job], **more: Any) -> Iterator[Reading]:
        for job, reading in zip(jobs, super().run_ms(jobs, **more), strict=True):
            self.readings += 1
            whole = job.model.read_text().count("_") > 8
            self.wholes += whole
            factor = self.factor if whole else 1.0
            yield replace(reading, samples_ms=tuple(factor * ms for ms in reading.samples_ms))


class Stored:
    """A store, a run on it, and what a device truly takes."""

    def __init__(self, folder: Path, run: Loaded, model: LatencyModel) -> None:
        self.db, self.run, self.model = folder / "s.db", run, model

    def go(self, device: Slower | None = None, **more: Any) -> Rounds:
        with data.MeasurementStore(self.db) as store, device or Slower() as phone:
            return search.validate_rounds(
                self.run, latency=self.model, on=phone, into=store, **{"rounds": 2, **more}
            )

    def keeping(self, found: Rounds, device: Slower) -> int:
        """How many of the best truly meet the target."""
        target = self.run.front.target_ms
        assert target is not None
        true = [device.truth_ms(b.validated.candidate.architecture) for b in found.best]
        return sum(device.factor * ms <= target for ms in true)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LatencyModel]:
    """A store with a whole profile of the phone before it became slower, and a model of it."""
    path = tmp_path_factory.mktemp("rounds") / "s.db"
    protocol = replace(profiling.Protocol(), apart_s=0.0)
    with data.MeasurementStore(path) as store, SimulatedPhone("sim") as phone:
        subjects = profiling.Selection().subjects(SPACE, 30, seed=0)
        devices.measure(subjects, on=phone, into=store, protocol=protocol)
        return path, latency_model.fit(store, "sim")


def searched(folder: Path, prepared: tuple[Path, LatencyModel], **more: Any) -> Stored:
    path, model = prepared
    shutil.copy(path, folder / "s.db")
    target = float(np.quantile(model.on(SPACE)(SPACE.sample(np.random.default_rng(0), 500)), 0.1))
    search.run(
        SPACE,
        latency=model,
        accuracy=Surrogate(),
        strategy=search.NSGA2(seed=0),
        target_ms=target,
        evaluations=600,
        into=folder / "r",
        spec=search.Spec(**more),
    )
    return Stored(folder, search.load(folder / "r"), model)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, prepared: tuple[Path, LatencyModel]) -> Stored:
    return searched(tmp_path_factory.mktemp("once"), prepared)


def copied(of: Stored, into: Path) -> Stored:
    shutil.copytree(of.db.parent, into, dirs_exist_ok=True)
    return Stored(into, search.load(into / "r"), of.model)


@pytest.fixture
def store(tmp_path: Path, once: Stored) -> Stored:
    return copied(once, tmp_path)


@dataclass(frozen=True)
class Done:
    """What two rounds gave, with their events, and their store and run as these left them."""

    store: Stored
    found: Rounds
    events: list[Any]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, once: Stored) -> Done:
    store, events = copied(once, tmp_path_factory.mktemp("twice")), []
    with pytest.MonkeyPatch.context() as patch:
        quick = replace(profiling.Protocol(), apart_s=0.0)
        patch.setattr(validate, "Protocol", lambda **more: replace(quick, **more))
        return Done(store, store.go(on_event=events.append), events)


@pytest.fixture
def done(tmp_path: Path, twice: Done) -> Done:
    return replace(twice, store=copied(twice.store, tmp_path))


def test_the_second_round_promises_what_the_device_keeps(done: Done) -> None:
    store, found, events, device = done.store, done.found, done.events, Slower()
    first, second = found.rounds
    assert found.stopped == ""
    # All of the first round's promises are 5 % too fast; the second knows better.
    assert first.validation.score.bias < -0.04
    assert abs(second.validation.score.bias) < 0.03
    assert second.validation.score.coverage90 > first.validation.score.coverage90
    names = [b.validated.candidate.block_args for b in found.best]
    assert len(set(names)) == 5
    assert store.keeping(found, device) >= 4
    # Nothing is measured twice.
    chosen = [{v.candidate.block_args for v in r.validation.networks} for r in found.rounds]
    assert not chosen[0] & chosen[1] and set(names) <= chosen[0] | chosen[1]
    # Those that surely or likely meet the target come first, and among them the best reward.
    order = {"meets": 0, "likely": 0, "unclear": 1, "misses": 2}
    keys = [(order[str(b.validated.verdict)], -b.reward) for b in found.best]
    assert keys == sorted(keys)
    assert [e.number for e in events if isinstance(e, RoundBegan)] == [1, 2]
    (ranked,) = [e for e in events if isinstance(e, Ranked)]
    assert second.ranked == ranked and ranked.shift > 0.01
    assert ranked.stayed + ranked.left == len(first.front)
    assert ranked.stayed + ranked.joined == len(second.front)
    assert second.expected is not None and 0 < second.expected <= 5


def test_where_the_first_round_misses_the_best_of_both_meet(store: Stored) -> None:
    device = Slower(factor=1.25)
    found = store.go(device)
    first, second = found.rounds
    assert first.expected is not None and first.meet < 4 < first.expected
    assert abs(second.validation.score.bias) < 0.2 * abs(first.validation.score.bias)
    assert store.keeping(found, device) >= 4
    alone = store.go(device, rounds=1)
    assert store.keeping(alone, device) < 4


def test_what_was_measured_counts_instead_of_its_prediction(store: Stored) -> None:
    found = store.go(Slower(factor=1.1))
    measured = {v.candidate.block_args: v for v in found.rounds[0].validation.networks}
    target = store.run.front.target_ms
    assert target is not None
    assert any(v.meets_target is False for v in measured.values())
    known = [c for c in found.rounds[1].front if c.block_args in measured]
    assert known
    for c in known:
        v = measured[c.block_args]
        assert c.latency_ms == c.low_ms == c.high_ms == v.measured_ms <= target
    # It is a run like any other, and its measured candidates bear what was measured.
    again = search.load(store.run.path / "round2")
    told = {c.block_args: c.measured_ms for c in again.front}
    for r in found.rounds:
        for v in r.validation.networks:
            assert told.get(v.candidate.block_args, v.measured_ms) == v.measured_ms
    assert len(again.evaluations()) == len(store.run.evaluations())
    assert latency_model.load(store.run.path / "round2" / "model.json").calibration.networks == 35


def test_the_run_keeps_every_round_and_reports_it(done: Done) -> None:
    store, found = done.store, done.found
    kept = read_validation(store.run.path)
    assert kept is not None
    assert [r["round"] for r in kept["rounds"]] == [1, 2]
    # The run is a copy of the one that was validated: names are of where it lies.
    here, there = (str(p.parent) for p in (store.run.path, found.rounds[0].folder))
    names = [b["name"] for b in kept["best"]]
    assert names == [here + b.name.removeprefix(there) for b in found.best]
    assert {v["id"] for v in kept["networks"]} == {
        v.candidate.id for v in found.rounds[0].validation.networks
    }
    second = read_validation(store.run.path / "round2")
    assert second is not None and len(second["networks"]) == 5
    assert all(v["operators"] for v in second["networks"])
    for folder in (store.run.path, store.run.path / "round2"):
        assert write_report(folder).exists()
    # A later, smaller validation takes nothing away.
    store.go(rounds=1, top=1)
    later = read_validation(store.run.path)
    assert later is not None
    assert [v["id"] for v in later["networks"]] == [v["id"] for v in kept["networks"]]
    assert later["score"]["n"] == 5 and later["best"] == kept["best"]


def test_the_same_command_again_measures_nothing(done: Done) -> None:
    store, first, device = done.store, done.found, Slower()
    before = (store.run.path / "round2" / "model.json").read_bytes()
    again = store.go(device)
    assert device.wholes == 0

    def best(of: Rounds) -> list[dict[str, Any]]:  # whatever the folder is called
        return [{**b.to_dict(), "name": b.name.rpartition("/r")[2]} for b in of.best]

    assert best(again) == best(first)
    assert (store.run.path / "round2" / "model.json").read_bytes() == before
    # More of the first round teach another model; what the second measured is kept in the store.
    more = store.go(device, top=6)
    assert len(more.rounds[0].validation.networks) == 6
    assert (store.run.path / "round2" / "model.json").read_bytes() != before


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_killed_in_a_round_it_goes_on(store: Stored, number: int) -> None:
    class Killed(Exception):
        pass

    at = 0

    def kill(event: object) -> None:
        nonlocal at
        at = event.number if isinstance(event, RoundBegan) else at
        # Some networks of the round are complete, others are not.
        if at == number and isinstance(event, RoundsDone) and event.done > 30:
            raise Killed

    with pytest.raises(Killed):
        store.go(on_event=kill)
    model = store.run.path / "round2" / "model.json"
    before = model.read_bytes() if number == 2 else b""
    found = store.go()
    assert not before or model.read_bytes() == before
    assert [len(r.validation.networks) for r in found.rounds] == [5, 5]
    text = json.loads((store.run.path / "validation.json").read_text())
    assert len(text["rounds"]) == 2 and len(text["best"]) == 5
    again = store.go()
    assert [b.name for b in again.best] == [b.name for b in found.best]


@pytest.mark.slow
def test_it_ends_where_nothing_is_left_to_measure(store: Stored) -> None:
    found = store.go(top=400)
    first = {v.candidate.block_args for v in found.rounds[0].validation.networks}
    assert first == {c.block_args for c in store.run.front}
    names = [v.candidate.block_args for r in found.rounds for v in r.validation.networks]
    assert len(names) == len(set(names)) == found.score.n  # nothing is measured twice

    found = store.go(Slower(factor=40.0), again=True)
    assert len(found.rounds) == 1 and "no further network" in found.stopped
    assert all(b.validated.meets_target is False for b in found.best)


def test_the_command_tells_both_rounds(
    store: Stored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(store.db.parent)
    Path("devices.toml").write_text('[sim]\ntransport = "simulated"\n', encoding="utf-8")
    store.model.save("s.sim.model.json")

    def told(*words: str) -> tuple[Any, str, str]:
        line = ["phonenas", "validate", "r", "--device", "sim", "--db", "s.db", *words]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    code, out, err = told("--rounds", "2", "--top", "4", "--json")
    assert not code
    found = json.loads(out)
    assert [len(r["networks"]) for r in found["rounds"]] == [4, 4]
    assert found["score"]["n"] == 8 and len(found["networks"]) == 4
    assert all(v["meets_target"] for v in found["networks"])
    assert {v["name"].split(":")[0] for v in found["networks"]} <= {"r", "r/round2"}
    assert "round 1 of 2" in err and "ranked again for round 2" in err
    code, out, err = told("--rounds", "2", "--top", "4")
    assert not code and "the best 4 of 8 that were measured; of them " in out
    assert "round 2: " in out and "expected" in out and "SIMULATED" in out
    code, out, _ = told("--top", "2", "--quiet")
    assert not code and "r/round2" not in out
    code, _, err = told("--rounds", "0")
    assert code == 2 and "1 or more" in err
    shown = find(found["networks"][0]["name"], 1.0, 224)
    assert str(shown) == found["networks"][0]["block_args"]


def test_bad_input_is_told(store: Stored) -> None:
    for more in ({"rounds": 0}, {"top": 0}, {"rounds": -1}):
        with pytest.raises(InvalidArgument, match="1 or more"):
            store.go(**more)
    with pytest.raises(InvalidArgument, match="searched for sim, not for other"):
        store.go(Slower("other"))
    path, run = store.run.path, store.run
    store.run = search.load(path, space.AccelNASBench(resolution=64))
    with pytest.raises(InvalidArgument, match="at 224 px, not in accel-nasbench at 64 px"):
        store.go()
    store.run = search.load(path, space.get("mnasnet", 224))
    with pytest.raises(InvalidArgument, match="not in mnasnet at 224 px"):
        store.go()
    store.run = run
    store.run.model["conditions"]["runtime_version"] = "0.9"
    with pytest.raises(SettingsChanged, match=r"runtime_version: 0\.9 / 1"):
        store.go()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g + 99, "does not hold what it evaluated"),
        (lambda g: g[:, :-1], "does not hold what it evaluated"),
        (lambda g: np.zeros_like(g), "its front is not among them"),
    ],
)
def test_genomes_of_another_space_are_refused(
    store: Stored, change: Callable[[Any], Any], words: str
) -> None:
    path = store.run.path / "checkpoint.npz"
    old_run(store.run.path)
    store.run = search.load(store.run.path)
    with np.load(path) as file:
        parts = dict(file)
    parts["genomes"] = change(parts["genomes"]).astype(np.int8)
    np.savez(path, **parts)
    device = Slower()
    with pytest.raises(UnsupportedFormat, match=words):
        store.go(device)
    assert device.readings == 0
    path.unlink()
    with pytest.raises(UnsupportedFormat, match=r"there is no checkpoint\.npz"):
        store.go(device)


@pytest.mark.slow
def test_further_objectives_and_limits_are_taken_from_the_run(
    tmp_path: Path, prepared: tuple[Path, LatencyModel]
) -> None:
    asked: dict[str, Any] = {
        "also": [search.Macs()],
        "limits": [search.Limit(search.Params(), at_most=7e6)],
    }
    store = searched(tmp_path, prepared, **asked)
    for c in store.go().rounds[1].front:
        assert c.values["macs"] == c.macs and c.values["params"] == c.params <= 7e6
    # A run of version 0.1 tells them in words alone.
    run = store.run.path / "run.json"
    old = json.loads(run.read_text())
    assert old["settings"]["limits"][0].startswith("params<=7000000 (")
    del old["objectives"]
    old_run(store.run.path)
    run.write_text(json.dumps(undigested(old)))
    shutil.rmtree(store.run.path / "round2")
    store.run = search.load(store.run.path)
    again = store.go().rounds[1].front
    assert all(c.values["macs"] == c.macs and c.params <= 7e6 for c in again)


def test_a_shifted_model_tells_all_networks_slower(prepared: tuple[Path, LatencyModel]) -> None:
    _, fitted = prepared
    genomes = SPACE.sample(np.random.default_rng(3), 20)
    slower = fitted.scaled(1.04)
    assert slower.on(SPACE)(genomes) == pytest.approx(1.04 * fitted.on(SPACE)(genomes))
    assert slower.scores["model"].bias - fitted.scores["model"].bias == pytest.approx(
        0.04, abs=0.005
    )
    assert slower.digest != fitted.digest


def test_measured_networks_count_by_their_measurement(store: Stored, tmp_path: Path) -> None:
    run = store.run
    name, other = (run.front.candidates[i].block_args for i in (-1, 0))
    made = [rerank(run, store.model, {name: ms}, tmp_path / f"{ms}") for ms in (1.25, 1.26)]
    measured = [c for c in made[0].front if c.block_args == name]
    assert [(c.latency_ms, c.low_ms, c.high_ms) for c in measured] == [(1.25, 1.25, 1.25)]
    before, after = run.evaluations(), made[0].evaluations()
    (row,) = np.flatnonzero(before.latency_ms != after.latency_ms)
    assert str(SPACE.decode(after.genomes[row])) == name and after.latency_ms[row] == 1.25
    assert np.array_equal(before.top1, after.top1)
    digests = {run.settings["latency_model"], *(m.settings["latency_model"] for m in made)}
    assert len(digests) == 3
    # What lies there is given again, with what was measured since.
    made[0].with_measured({0: 9.0})
    assert rerank(run, store.model, {name: 1.25}, made[0].path).front.candidates[0].measured_ms == 9
    with pytest.raises(SettingsChanged):
        rerank(run, store.model, {other: 1.25}, made[0].path)


@pytest.mark.slow
def test_a_model_stays_while_the_same_was_measured(store: Stored, tmp_path: Path) -> None:
    name = store.run.front.candidates[0].block_args
    with data.MeasurementStore(store.db) as held:
        made = [
            round_model(tmp_path / "t", held, store.model.conditions, "digest", {name: ms})[
                0
            ].digest
            for ms in (2.0, 2.0, 3.0)
        ]
    assert made[0] == made[1] != made[2]


def test_a_run_is_ranked_again_by_what_it_holds(store: Stored, tmp_path: Path) -> None:
    front = rerank(store.run, store.model, {}, tmp_path / "again").front
    plain = [replace(c, measured_ms=None) for c in store.run.front]
    assert list(front) == plain
    assert front.hypervolume == pytest.approx(store.run.front.hypervolume)


@pytest.mark.fault(
    "A file of a round of a validation is damaged.",
    "`is damaged`; the file is left as it is",
    "As the message says: remove it; the store holds the measurements.",
)
@pytest.mark.parametrize(
    "file",
    [
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("round2/model.json", "round2/run.json", "round2/validation.json"),
                "round2/taught.json",
            )
        ),
        "validation.json",
    ],
)
def test_a_damaged_file_is_named_and_left(done: Done, file: str) -> None:
    store, device = done.store, Slower()
    path = store.run.path / file
    path.write_text("{")
    with pytest.raises(UnsupportedFormat, match="is damaged.*[Rr]emove .*give the same command"):
        store.go(device)
    assert path.read_text() == "{"
    path.unlink()  # as the message says
    assert len(store.go(device).rounds) == 2


def test_short_texts_and_tables(twice: Done) -> None:
    found = twice.found
    assert repr(found).startswith("Rounds(2 rounds, 10 networks simulated, best 5)")
    validation = found.rounds[0].validation
    assert repr(validation).startswith("Validation(5 networks simulated, ")
    assert len(repr(validation)) < 130
    frame = validation.to_frame()
    assert list(frame.columns[:3]) == ["id", "network", "top1"]
    assert frame.measured_ms.tolist() == [v.measured_ms for v in validation.networks]
    everything = found.to_frame()
    assert everything["round"].tolist() == [1] * 5 + [2] * 5
    assert len(everything) == 10 and set(frame.network) < set(everything.network)
