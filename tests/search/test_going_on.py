"""A finished search that is given more evaluations ends as if they had been given at once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeDevice, TinySpace, old_run
from patience import PATIENCE_S
from resumed import ends_alike

from phonenas import search
from phonenas.data import MeasurementStore
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Surrogate
from phonenas.search.evaluations import Evaluations, Generation
from phonenas.search.run_document import VALIDATION
from phonenas.search.run_folder import Checkpoint, RunFolder
from phonenas.space import Architecture, SearchSpace
from phonenas.space.errors import SettingsChanged, StoreError


class _Stop(Exception):
    pass


def _stop(*_: Any) -> Any:
    raise _Stop


STRATEGIES = ["nsga2", "nsga3", "random", "weighted", "regularised", "rl", "surrogate"]
STRATEGIES += ["rl reward=sum", "rl reward=limit"]


class Searching:
    """Searches of one model, estimator and strategy."""

    def __init__(self, space: SearchSpace, latency: LatencyModel, accuracy: Surrogate) -> None:
        self.space = space
        self.given: dict[str, Any] = {"latency": latency, "accuracy": accuracy}

    def __call__(
        self, strategy: str, evaluations: int | search.Budget, into: Path, **more: Any
    ) -> search.Searched:
        if strategy.startswith("rl"):
            pytest.importorskip("torch")
        return search.search(
            self.space,
            **self.given,
            strategy=search.get(strategy, seed=2),
            evaluations=evaluations,
            into=into,
            **more,
        )


@pytest.fixture
def go(fitted: LatencyModel, surrogate: Surrogate, tiny: TinySpace) -> Searching:
    return Searching(tiny, fitted, surrogate)


def stop_at(evaluations: int) -> Any:
    def stop(event: Any) -> None:
        if event.evaluations >= evaluations:
            raise _Stop

    return stop


@pytest.mark.parametrize(
    "strategy",
    ["nsga2", "random", "weighted"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("rl", "surrogate")],
)
@pytest.mark.parametrize("first", [37, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 40))])
def test_more_evaluations_end_as_all_at_once(
    go: Searching, tmp_path: Path, strategy: str, first: int
) -> None:
    go(strategy, 80, tmp_path / "whole")
    go(strategy, first, tmp_path / "r")
    found = go(strategy, 80, tmp_path / "r")
    assert (found.resumed_from, found.evaluations) == (first, 80)
    assert found.kept == tmp_path / "r" / f"first{first}"
    ends_alike(tmp_path / "r", tmp_path / "whole")
    assert search.load(found.kept).settings["evaluations"] == first
    assert search.load(tmp_path / "r").settings["evaluations"] == 80


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("target_ms", [None, 300.0])
def test_300_and_300_are_600(
    go: Searching, tmp_path: Path, strategy: str, target_ms: float | None
) -> None:
    spec = search.Spec(None if target_ms is None else search.Target(target_ms))
    go(strategy, 600, tmp_path / "whole", spec=spec)
    go(strategy, 300, tmp_path / "r", spec=spec)
    go(strategy, 600, tmp_path / "r", spec=spec)
    ends_alike(tmp_path / "r", tmp_path / "whole")


@pytest.mark.parametrize(
    "strategy", ["nsga2", "random", pytest.param("weighted", marks=pytest.mark.slow)]
)
def test_a_run_stopped_after_it_went_on_goes_on(
    go: Searching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(RunFolder, "due", lambda self: True)
    go(strategy, 90, tmp_path / "whole")
    go(strategy, 33, tmp_path / "r")
    with pytest.raises(_Stop):
        go(strategy, 60, tmp_path / "r", on_event=stop_at(50))
    assert not json.loads((tmp_path / "r" / "run.json").read_text())["complete"]
    go(strategy, 90, tmp_path / "r")  # and was given more while it was under way
    ends_alike(tmp_path / "r", tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "r").glob("first*")) == ["first33"]


@pytest.mark.parametrize("strategy", ["nsga2", pytest.param("weighted", marks=pytest.mark.slow)])
def test_a_run_stopped_between_its_last_generation_and_its_end_goes_on(
    go: Searching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(RunFolder, "due", lambda self: True)
    go(strategy, 90, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("phonenas.search.evaluator.Evaluator.front", _stop)
        with pytest.raises(_Stop):
            go(strategy, 37, tmp_path / "r")
    shutil.copytree(tmp_path / "r", tmp_path / "more")
    go(strategy, 90, tmp_path / "more")
    ends_alike(tmp_path / "more", tmp_path / "whole")
    go(strategy, 37, tmp_path / "r")
    go(strategy, 90, tmp_path / "r")
    ends_alike(tmp_path / "r", tmp_path / "whole")


RULES = {"patience": search.Budget(600, patience=40), "time": search.Budget(600, time_s=1e-9)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "strategy",
    ["nsga2", "random"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("weighted", "rl", "surrogate")],
)
def test_a_run_that_a_rule_ended_goes_on_as_if_it_had_not(
    go: Searching, tmp_path: Path, rule: str, strategy: str
) -> None:
    first = go(strategy, RULES[rule], tmp_path / "r")
    assert first.ended == rule
    n = 600 if strategy == "random" and rule == "patience" else first.evaluations + 37
    again = go(strategy, RULES[rule], tmp_path / "r")
    assert (again.ended, again.front, again.kept) == (rule, first.front, None)
    assert again.resumed_from == again.evaluations == first.evaluations
    found = go(strategy, n, tmp_path / "r")
    assert (found.ended, found.evaluations, found.resumed_from) == ("", n, first.evaluations)
    assert found.kept == tmp_path / "r" / f"first{first.evaluations}"
    kept = search.load(found.kept)
    assert kept.front == first.front and kept.settings["evaluations"] == 600
    go(strategy, n, tmp_path / "whole")
    ends_alike(tmp_path / "r", tmp_path / "whole")
    assert search.load(tmp_path / "r").settings.keys().isdisjoint({"patience", "time_s"})


def test_more_patience_or_time_goes_on_and_fewer_evaluations_than_there_are_do_not(
    go: Searching, tmp_path: Path
) -> None:
    had = go("nsga2", search.Budget(600, time_s=1e-9), tmp_path / "r").evaluations
    more = go("nsga2", search.Budget(600, patience=30, time_s=1e6), tmp_path / "r")
    assert more.ended == "patience" and had < more.evaluations < 600
    go("nsga2", search.Budget(600, patience=30), tmp_path / "whole")
    ends_alike(tmp_path / "r", tmp_path / "whole")
    most = go("nsga2", search.Budget(600, patience=60), tmp_path / "r")
    assert most.resumed_from == more.evaluations < most.evaluations
    with pytest.raises(SettingsChanged, match=f"a run of {most.evaluations} evaluations, and 20 a"):
        go("nsga2", 20, tmp_path / "r")
    assert go("nsga2", most.evaluations, tmp_path / "r").resumed_from == most.evaluations


@pytest.mark.parametrize("rule", RULES)
def test_a_run_stopped_between_a_rule_and_its_end_ends_there(
    go: Searching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(RunFolder, "due", lambda self: True)
    go("nsga2", RULES[rule], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("phonenas.search.evaluator.Evaluator.front", _stop)
        with pytest.raises(_Stop):
            go("nsga2", RULES[rule], tmp_path / "r")
    assert go("nsga2", RULES[rule], tmp_path / "r").ended == rule
    ends_alike(tmp_path / "r", tmp_path / "whole")


def test_a_run_that_takes_no_more_time_is_over(go: Searching, tmp_path: Path) -> None:
    first = go("random", 20, tmp_path / "r")
    found = go("random", search.Budget(60, time_s=1e-9), tmp_path / "r")
    assert (found.ended, found.evaluations, found.front) == ("time", 20, first.front)


def test_a_store_in_the_folder_of_a_run_is_no_part_of_the_run(
    go: Searching, tmp_path: Path
) -> None:
    go("random", 20, tmp_path / "r")
    for name in ("phonenas.db", "phonenas.db-wal", "fake.model.json", "notes.txt"):
        (tmp_path / "r" / name).write_text("the user's")
    kept = go("random", 30, tmp_path / "r").kept
    assert kept is not None
    assert {p.name for p in kept.iterdir()} == {
        *("run.json", "model.json", "checkpoint.npz", "evaluations.parquet", "log.csv")
    }
    assert (tmp_path / "r" / "phonenas.db").read_text() == "the user's"


def test_a_front_that_was_read_before_the_search_went_on_is_not_measured(
    go: Searching, tmp_path: Path
) -> None:
    go("random", 20, tmp_path / "r")
    run = search.load(tmp_path / "r")
    run.check_unchanged()
    go("random", 60, tmp_path / "r")
    device = FakeDevice()
    device.name = run.settings["device"]
    with pytest.raises(SettingsChanged, match="went on to 60 evaluations after its front was read"):
        search.validate_rounds(
            run, latency=go.given["latency"], on=device, into=MeasurementStore(tmp_path / "s.db")
        )


_JOB = """
import os, signal, sys
import numpy as np
sys.path.insert(0, {tests!r})
from fakes import TinySpace
from phonenas import latency_model, search
from phonenas.search.run_folder import RunFolder
RunFolder.due = lambda self: True
def kill(event):
    if event.evaluations >= {at}:
        os.kill(os.getpid(), signal.SIGKILL)
strategy = search.get({strategy!r}, seed=2)
if {start}:
    space, rng = TinySpace(resolution=32), np.random.default_rng(5)
    strategy = search.StartFrom(strategy, [space.decode(g) for g in space.sample(rng, {start})])
search.search(TinySpace(resolution=32), latency=latency_model.load({model!r}),
    accuracy=search.accuracy.Surrogate(), strategy=strategy,
    evaluations=search.{evaluations}, into={into!r}, on_event=kill)
"""


@pytest.fixture
def job(fitted: LatencyModel, tmp_path: Path, environment: dict[str, str]) -> Any:
    """One search in a process of its own, killed after so many evaluations; its exit code."""
    model = fitted.save(tmp_path / "m.json")

    def run(
        strategy: str, into: str, budget: search.Budget, at: float = 1e9, start: int = 0
    ) -> int:
        if strategy.startswith("rl"):
            pytest.importorskip("torch")
        code = _JOB.format(
            tests=str(Path(__file__).parents[1]),
            model=str(model),
            strategy=strategy,
            evaluations=repr(budget),
            into=str(tmp_path / into),
            at=at,
            start=start,
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=environment, capture_output=True, timeout=PATIENCE_S * 2)
        return done.returncode

    return run


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_in_the_second_half_it_ends_the_same(
    job: Any, tmp_path: Path, strategy: str
) -> None:
    half = 60 if strategy == "surrogate" else 300
    one, two = search.Budget(half), search.Budget(2 * half)
    assert job(strategy, "whole", two) == job(strategy, "r", one) == 0
    for at in (half + 1, 1.4 * half, 2 * half - 5):
        assert job(strategy, "r", two, at) == -signal.SIGKILL
    assert job(strategy, "r", two) == 0
    ends_alike(tmp_path / "r", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_with_patience_and_known_networks_it_ends_the_same(
    job: Any, tmp_path: Path, strategy: str
) -> None:
    budget = search.Budget(120 if strategy == "surrogate" else 600, patience=40)
    assert job(strategy, "whole", budget, start=25) == 0
    end = len(search.load(tmp_path / "whole").evaluations())
    for at in (1, 12, 27, 0.6 * end, end):  # among the known networks, after them, at the rule
        assert job(strategy, "r", budget, at, 25) == -signal.SIGKILL
    assert job(strategy, "r", budget, start=25) == 0
    ends_alike(tmp_path / "r", tmp_path / "whole")


@pytest.mark.fault(
    "A search is given again with fewer evaluations than its folder's run has.",
    "`holds a run of 60 evaluations, and 40 are asked for`",
    "Give as many or more, or another --out.",
)
def test_fewer_evaluations_are_refused(go: Searching, tmp_path: Path) -> None:
    go("nsga2", 60, tmp_path / "r")
    before = (tmp_path / "r" / "run.json").read_bytes()
    with pytest.raises(SettingsChanged, match="holds a run of 60 evaluations, and 40 are asked"):
        go("nsga2", 40, tmp_path / "r")
    assert (tmp_path / "r" / "run.json").read_bytes() == before


def test_what_was_made_of_the_first_front_stays_with_it(go: Searching, tmp_path: Path) -> None:
    run = tmp_path / "r"
    go("nsga2", 40, run)
    front = search.load(run).front
    made_of_it = ("validation.json", "references.json", "traces.json", "report.html")
    for name in (*made_of_it, "promoted/3/result.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("made of the first front")
    (run / "round2").mkdir()
    shutil.copy(run / "run.json", run / "round2" / "run.json")
    (run / "mine.txt").write_text("a note")
    (run / "accuracy.db").write_text("answers")
    found = go("nsga2", 80, run)
    kept = run / "first40"
    assert found.kept == kept and search.load(kept).front == front
    assert len(search.load(kept).evaluations()) == 40
    assert (kept / "promoted/3/result.json").read_text() == "made of the first front"
    assert {*made_of_it, "round2"} <= {p.name for p in kept.iterdir()}
    left = {p.name for p in run.iterdir()}
    assert not left & {*made_of_it, "round2", "promoted"}
    assert {"mine.txt", "accuracy.db"} <= left and not (kept / "accuracy.db").exists()
    validated = {"round": 1, "id": 3, "name": f"{run}:3", "measured_ms": 5.0}
    VALIDATION.write(
        run / "validation.json",
        {
            "networks": [],
            "rounds": [{"round": 1, "folder": str(run)}, {"round": 2, "folder": f"{run}/round2"}],
            "best": [validated, {**validated, "round": 2, "name": f"{run}/round2:3"}],
        },
    )
    again = go("nsga2", 100, run)
    # Names point to what was validated, not to the new front.
    document = VALIDATION.read(run / "first80" / "validation.json", "")
    assert document is not None
    assert [r["folder"] for r in document["rounds"]] == [f"{run}/first80", f"{run}/first80/round2"]
    assert [b["name"] for b in document["best"]] == [f"{run}/first80:3", f"{run}/first80/round2:3"]
    assert again.kept == run / "first80"
    assert not (again.kept / "first40").exists() and kept.is_dir()
    assert go("nsga2", 100, run).kept is None


def test_a_run_of_an_earlier_phonenas_goes_on_from_its_end(
    go: Searching, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go("nsga2", 40, tmp_path / "r")
    old_run(tmp_path / "r")
    path = tmp_path / "r" / "checkpoint.npz"
    with np.load(path) as file:
        arrays = dict(file)
    plain = json.loads(str(arrays["plain"]))
    del plain["before_last"]
    np.savez(path, **{**arrays, "plain": np.array(json.dumps(plain))})
    found = go("nsga2", 60, tmp_path / "r")
    assert (found.resumed_from, found.evaluations) == (40, 60)
    assert "was finished by an earlier phonenas" in caplog.text


@pytest.mark.fault(
    "A finished run whose checkpoint.npz was removed is given more evaluations.",
    "`checkpoint.npz is missing, so that this finished run cannot go on`",
    "As it says: search again with another --out.",
)
def test_a_run_without_its_checkpoint_does_not_go_on(go: Searching, tmp_path: Path) -> None:
    go("nsga2", 40, tmp_path / "r")
    (tmp_path / "r" / "checkpoint.npz").unlink()
    with pytest.raises(StoreError, match="is missing, so that this finished run cannot go on"):
        go("nsga2", 60, tmp_path / "r")
    assert len(search.load(tmp_path / "r").front) > 0


def test_costly_objectives_are_asked_once(go: Searching, tmp_path: Path) -> None:
    asked: list[str] = []

    def energy(network: Architecture) -> float:
        asked.append(str(network))
        return float(network.params)

    spec = search.Spec(also=[search.Function("energy", energy)])
    go("nsga2", 37, tmp_path / "r", spec=spec)
    assert len(asked) == len(set(asked)) == 37
    go("nsga2", 60, tmp_path / "r", spec=spec)
    assert len(asked) == len(set(asked)) == 60


def test_the_last_generation_is_taken_off() -> None:
    genomes = np.array([[0], [1], [2]], np.int8)
    evaluated = Evaluations.of_array(genomes, np.ones((3, 4)))
    log = (Generation(2, 1, 0.5, 1.0, 1.0, 1.0), Generation(3, 4, 0.5, 1.0, 1.0, 2.0))
    done = Checkpoint({"a": 1}, evaluated, 4, 2.0, log, 0, True).to_go_on()
    assert (len(done.evaluations), done.repeats, done.log) == (2, 1, log[:1])
    assert (done.seconds, done.before_last, done.state) == (2.0, False, {"a": 1})
    first = Checkpoint({}, evaluated, 4, 2.0, log[1:], 0, True).to_go_on()
    assert (len(first.evaluations), first.repeats, first.log) == (0, 0, ())
    under_way = Checkpoint({}, evaluated, 4, 2.0, log)
    assert under_way.to_go_on() is under_way
