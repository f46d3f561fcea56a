"""Reward, front, strategies, loop, run folders: correct, resumable, loud when impossible."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import FakeDevice, TinySpace, undigested
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_S

from phonenas import data, search, space
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import AccuracyEstimator, Surrogate
from phonenas.search.pareto import hypervolume, non_dominated
from phonenas.search.run_folder import RunFolder
from phonenas.search.strategies.base import Strategy
from phonenas.space import SearchSpace
from phonenas.space.errors import (
    Infeasible,
    InvalidArgument,
    InvalidImage,
    SettingsChanged,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.testing import EstimatorContract, SpaceContract, StrategyContract


class TestRandomSearch(StrategyContract):
    def make(self, seed: int) -> Strategy:
        return search.RandomSearch(seed=seed)


class TestNSGA2(StrategyContract):
    def make(self, seed: int) -> Strategy:
        return search.NSGA2(seed=seed, population=40)

    def test_no_network_is_asked_for_twice(self) -> None:
        tiny = TinySpace(resolution=32)
        strategy = self.make(0)
        strategy.start(tiny)
        keys = [k for g in self.walk(strategy, tiny, 20) for k in tiny.keys(g)]
        assert len(keys) == len(set(keys))

    def test_it_learns(self, space: SearchSpace) -> None:
        def volume(strategy: Strategy) -> float:
            strategy.start(space)
            asked = np.concatenate(self.walk(strategy, space, 40))
            return hypervolume(self.evaluate(space, asked)[0], (0, 0), (1, 1))

        assert volume(self.make(0)) > volume(search.RandomSearch(seed=0)) + 0.05

    def test_the_infeasible_rank_behind(self, space: SearchSpace) -> None:
        strategy = self.make(1)
        strategy.start(space)
        for _ in range(30):
            genomes = strategy.ask(40)
            losses, _ = self.evaluate(space, genomes)
            strategy.tell(genomes, losses, losses[:, 0] - 0.3)
        assert np.median(losses[:, 0]) < 0.35  # drawn uniformly it would be 0.5

    def test_small_populations_are_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="4 or more"):
            search.NSGA2(population=2)


class TestSurrogate(EstimatorContract):
    @pytest.fixture
    def estimator(self) -> AccuracyEstimator:
        return Surrogate()


class TestMnasNetSpace(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return space.get("mnasnet")


class TestTinySpace(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return TinySpace(resolution=32)


# -- reward -------------------------------------------------------------------------------------


def test_reward_is_the_papers() -> None:
    got = search.reward([0.75, 0.75, 0.75], [80.0, 160.0, 40.0], 80.0)
    assert got == pytest.approx([0.75, 0.75 * 2**-0.07, 0.75 * 2**0.07])
    hard = search.reward([0.75, 0.75], [40.0, 160.0], 80.0, *search.HARD)
    assert hard == pytest.approx([0.75, 0.375])
    # The rule for alpha and beta: doubling latency is paid for by 5 % accuracy.
    assert search.reward([0.70 * 1.05], [160.0], 80.0) == pytest.approx(0.70, rel=1e-3)


@pytest.mark.parametrize("target", [0, -1, float("nan"), float("inf")])
def test_no_target_at_or_below_zero(target: float) -> None:
    with pytest.raises(InvalidArgument, match="above 0 ms"):
        search.reward([0.5], [1.0], target)


def test_reward_refuses_what_is_no_latency_and_no_exponent() -> None:
    with pytest.raises(InvalidArgument, match="latencies are above 0"):
        search.reward([0.5, 0.5], [1.0, 0.0], 1.0)
    with pytest.raises(InvalidArgument, match="0 or below"):
        search.reward([0.5], [1.0], 1.0, alpha=0.1)


# -- front --------------------------------------------------------------------------------------

points = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=60).map(
    lambda rows: np.array(rows, float)
)


@given(points)
def test_no_member_of_a_front_is_beaten_and_none_is_missing(losses: np.ndarray) -> None:
    kept = set(non_dominated(losses).tolist())

    def beats(a: int, b: int) -> bool:
        return bool((losses[a] <= losses[b]).all() and (losses[a] < losses[b]).any())

    for b in range(len(losses)):
        beaten = any(beats(a, b) for a in range(len(losses)))
        twin = any(a in kept and (losses[a] == losses[b]).all() for a in range(len(losses)))
        assert (b in kept) <= (not beaten)
        assert beaten or twin


@given(points)
def test_hypervolume_is_the_share_of_the_box(losses: np.ndarray) -> None:
    grid = (np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1) + 0.5).reshape(-1, 1, 2)
    share = (losses[None] <= grid).all(-1).any(-1).mean()
    assert hypervolume(losses, (0, 0), (20, 20)) == pytest.approx(share)


# -- loop ---------------------------------------------------------------------------------------


SETTINGS = {
    "space": "tiny",
    "resolution_px": 32,
    "device": "fake",
    "latency_model": "0123",
    "target_ms": None,
    "target": "",
}


def go(model: LatencyModel, accuracy: Surrogate, **more: object) -> search.Searched:
    settings: dict[str, object] = {
        "latency": model,
        "accuracy": accuracy,
        "strategy": search.NSGA2(seed=3, population=20),
        "evaluations": 300,
    }
    if (target_ms := more.pop("target_ms", None)) is not None:
        settings["spec"] = search.Spec(search.Target(target_ms))  # type: ignore[arg-type]
    return search.search(TinySpace(resolution=32), **{**settings, **more})  # type: ignore[arg-type]


def test_the_front_is_sound(fitted: LatencyModel, surrogate: Surrogate, tiny: TinySpace) -> None:
    everything = tiny.sample(np.random.default_rng(0), 4000)
    target = float(np.quantile(fitted.on(tiny)(everything), 0.4))
    found = go(fitted, surrogate, target_ms=target)
    assert found.evaluations == 300
    latency = [c.latency_ms for c in found.front]
    top1 = [c.top1 for c in found.front]
    assert latency == sorted(latency) and top1 == sorted(top1)
    assert max(latency) <= target
    for c in found.front:
        assert c.low_ms < c.latency_ms < c.high_ms
        assert c.latency_ms == pytest.approx(float(fitted.latency_ms([c.architecture])[0]))
        assert c.top1 == pytest.approx(float(surrogate.estimate([c.architecture]).top1[0]))
        assert (c.macs, c.params) == (c.architecture.macs, c.architecture.params)
        assert c.reward == pytest.approx(float(search.reward([c.top1], [c.latency_ms], target)[0]))
    # The tiny space can be seen whole: nothing within the target beats the front's best by much.
    seen = fitted.on(tiny)(everything) <= target
    best = surrogate.on(tiny)(everything[seen]).top1.max()
    assert max(top1) >= best - 0.01


def test_equal_seeds_are_equal(fitted: LatencyModel, surrogate: Surrogate) -> None:
    found = go(fitted, surrogate).front
    assert go(fitted, surrogate).front == found
    assert go(fitted, surrogate, strategy=search.NSGA2(seed=4, population=20)).front != found


def test_each_network_is_judged_once(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    found = go(fitted, surrogate, strategy=search.RandomSearch(seed=0), into=tmp_path / "r")
    table = pd.read_parquet(tmp_path / "r" / "evaluations.parquet")
    tiny = TinySpace(resolution=32)
    genomes = table[list(tiny.decisions)].to_numpy()
    assert len(table) == 300 == len(set(tiny.keys(genomes)))
    assert found.repeats > 0  # random draws do repeat, and were not judged again
    assert table.latency_ms.to_numpy() == pytest.approx(fitted.on(tiny)(genomes))


@pytest.mark.slow
def test_a_space_smaller_than_the_budget_ends(fitted: LatencyModel, surrogate: Surrogate) -> None:
    for strategy in (
        search.RandomSearch(seed=0),
        search.NSGA2(seed=0, population=20),
        search.WeightedProduct(seed=0),
    ):
        found = go(fitted, surrogate, strategy=strategy, evaluations=10**9)
        tiny = TinySpace(resolution=32)
        assert 0.8 * tiny.size < found.evaluations <= tiny.size


def test_an_impossible_target_names_the_fastest(fitted: LatencyModel, surrogate: Surrogate) -> None:
    with pytest.raises(
        Infeasible,
        match=r"on fake was found that reaches 1e-06 ms; the fastest of \d+ tried takes \d",
    ):
        go(fitted, surrogate, target_ms=1e-6)


@pytest.mark.parametrize("more", [{"evaluations": 0}, {"target_ms": 0.0}, {"target_ms": -3.0}])
def test_bad_budgets_and_targets(
    fitted: LatencyModel, surrogate: Surrogate, more: dict[str, float]
) -> None:
    with pytest.raises(InvalidArgument):
        go(fitted, surrogate, **more)


def test_a_finished_run_is_given_again(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    first = go(fitted, surrogate, into=tmp_path / "r")
    before = (tmp_path / "r" / "run.json").read_bytes()
    second = go(fitted, surrogate, into=tmp_path / "r")
    assert second.front == first.front
    assert second.resumed_from == 300
    assert (tmp_path / "r" / "run.json").read_bytes() == before
    assert search.load(tmp_path / "r").front == first.front


@pytest.mark.fault(
    "A finished run whose checkpoint.npz was removed is asked for again.",
    "`checkpoint.npz is missing, so that this finished run cannot be given again`",
    "As it says: the report still shows its front.",
)
def test_a_finished_run_without_its_checkpoint_is_kept(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    first = go(fitted, surrogate, into=tmp_path / "r")
    (tmp_path / "r" / "checkpoint.npz").unlink()
    before = {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()}
    assert {"run.json", "model.json"} <= before.keys()
    with pytest.raises(StoreError, match="is missing, so that this finished run cannot be given"):
        go(fitted, surrogate, into=tmp_path / "r")
    assert {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()} == before
    assert search.load(tmp_path / "r").front == first.front


def test_what_an_earlier_process_wrote_is_kept_where_nothing_is_evaluated(tmp_path: Path) -> None:
    RunFolder(tmp_path / "r", SETTINGS).close()
    with pytest.raises(InvalidImage), RunFolder(tmp_path / "r", SETTINGS):
        raise InvalidImage("img/3.png cannot be read as an image")
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["run.json"]


@pytest.mark.fault(
    "A search goes on in a folder that holds one with other settings.",
    "`holds a run with other settings: …was 3 and is now 8`",
    "Give the same settings, or another --out.",
)
def test_changed_settings_are_refused_with_both_values(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    go(fitted, surrogate, into=tmp_path / "r")
    with pytest.raises(SettingsChanged, match="seed was 3 and is now 8"):
        go(fitted, surrogate, into=tmp_path / "r", strategy=search.NSGA2(seed=8, population=20))
    with pytest.raises(SettingsChanged, match="population was 20 and is now 30"):
        go(fitted, surrogate, into=tmp_path / "r", strategy=search.NSGA2(seed=3, population=30))


def test_a_run_that_judged_nothing_may_begin_anew(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    class Broken(Surrogate):
        def on(self, space: SearchSpace) -> Any:
            def judge(genomes: Any) -> Any:
                raise InvalidImage("img/3.png cannot be read as an image")

            return judge

    with pytest.raises(InvalidImage):
        go(fitted, Broken(), into=tmp_path / "r", evaluations=100)
    assert list((tmp_path / "r").iterdir()) == []
    assert go(fitted, surrogate, into=tmp_path / "r").evaluations == 300
    with pytest.raises(SettingsChanged):
        go(fitted, surrogate, into=tmp_path / "r", evaluations=100)


@pytest.mark.fault(
    "A search is to write into the folder of a training.",
    "`holds a training (result.json). Choose another --out.`",
    "As it says.",
)
def test_folders_of_other_work_are_refused(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "result.json").touch()
    with pytest.raises(StoreError, match=r"holds a training \(result.json\)"):
        go(fitted, surrogate, into=tmp_path / "t")
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["result.json"]


class _Stop(Exception):
    pass


def budget(strategy: str) -> int:
    """Enough for a run to be stopped in its midst; what learns a model takes few."""
    return 60 if strategy == "surrogate" else 300


# Of the strategies that learn no model, each with and without a target, early and later.
QUICKLY = {
    *(("nsga2", None, 1), ("nsga2", 300.0, 4), ("nsga2", None, 7)),
    *(("random", 300.0, 1), ("random", None, 4)),
    *(("weighted", None, 1), ("weighted", 300.0, 7)),
}


@pytest.mark.parametrize(
    ("strategy", "target_ms", "stop_after"),
    [
        pytest.param(*case, marks=[] if case in QUICKLY else pytest.mark.slow)
        for case in itertools.product(
            ["nsga2", "random", "weighted", "rl", "surrogate"], [None, 300.0], [1, 4, 7]
        )
    ],
)
def test_a_stopped_run_ends_as_if_never_stopped(
    fitted: LatencyModel,
    surrogate: Surrogate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    target_ms: float | None,
    stop_after: int,
) -> None:
    if strategy == "rl":
        pytest.importorskip("torch")
    monkeypatch.setattr(RunFolder, "due", lambda self: True)
    turns = 0

    def stop(event: object) -> None:
        nonlocal turns
        turns += 1
        if turns > stop_after:
            raise _Stop

    def new() -> Strategy:
        made = search.get(strategy, seed=2)
        if strategy == "random":
            monkeypatch.setattr(  # smaller bites, so that there is something to stop
                search.RandomSearch, "ask", lambda self, n: self.space.sample(self.rng, min(n, 25))
            )
        return made

    more = {"evaluations": budget(strategy), "target_ms": target_ms}
    whole = go(fitted, surrogate, strategy=new(), into=tmp_path / "whole", **more)
    with pytest.raises(_Stop):
        go(fitted, surrogate, strategy=new(), into=tmp_path / "r", on_event=stop, **more)
    resumed = go(fitted, surrogate, strategy=new(), into=tmp_path / "r", **more)
    assert 0 < resumed.resumed_from < budget(strategy)
    assert resumed.front == whole.front
    assert resumed.repeats == whole.repeats
    tables = [pd.read_parquet(tmp_path / n / "evaluations.parquet") for n in ("whole", "r")]
    pd.testing.assert_frame_equal(*tables)


_JOB = """
import sys
sys.path.insert(0, {tests!r})
from fakes import TinySpace
from phonenas import latency_model, search
from phonenas.search.run_folder import RunFolder
RunFolder.due = lambda self: True
if {strategy!r} == "rl":
    import torch  # seconds, and nothing to resume from meanwhile
print("ready", flush=True)
search.search(TinySpace(resolution=32), latency=latency_model.load({model!r}),
    accuracy=search.accuracy.Surrogate(), strategy=search.get({strategy!r}, seed=1),
    evaluations={evaluations}, into={into!r})
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["nsga2", "random", "weighted", "rl", "surrogate"])
def test_killed_at_twenty_random_moments_it_ends_the_same(
    fitted: LatencyModel,
    surrogate: Surrogate,
    tmp_path: Path,
    environment: dict[str, str],
    strategy: str,
) -> None:
    if strategy == "rl":
        pytest.importorskip("torch")
    model = fitted.save(tmp_path / "m.json")

    def job(into: Path) -> str:
        return _JOB.format(
            tests=str(Path(__file__).parents[1]),
            model=str(model),
            into=str(into),
            strategy=strategy,
            evaluations=80 if strategy == "surrogate" else 900,
        )

    def end(into: Path) -> object:
        done = subprocess.run(
            [sys.executable, "-c", job(into)],
            env=environment,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        assert done.stdout.endswith(b"done\n"), done.stderr.decode()
        return search.load(into).front

    whole = end(tmp_path / "whole")
    moment, killed, left = random.Random(1), 0, 0
    window_s = 0.4  # as long as this computer takes to come amid the work, and not to its end
    for turn in range(80):
        process = subprocess.Popen(
            [sys.executable, "-c", job(tmp_path / f"r{turn - killed}")],
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moment.uniform(0.0, window_s))
        os.kill(process.pid, signal.SIGKILL)
        if process.wait(timeout=PATIENCE_S) == -signal.SIGKILL:
            killed += 1
            amid = (tmp_path / f"r{turn + 1 - killed}" / "checkpoint.npz").exists()
            left += amid
            window_s *= 1.0 if amid else 1.25
        else:
            window_s *= 0.8
        process.stdout.close()
        if killed == 20:
            break
    assert killed == 20 and left >= 8  # and amid their work
    for into in tmp_path.glob("r*"):  # a run that outran its killer is followed by a new one
        assert end(into) == whole


@pytest.mark.fault(
    "A run's run.json or checkpoint is damaged, newer, or another file.",
    "`run.json is damaged`; `has version 9; this phonenas reads versions 1 to 2`",
    "Search again, with another --out.",
)
def test_damaged_and_foreign_runs_are_refused(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    go(fitted, surrogate, into=tmp_path / "r")
    run = tmp_path / "r" / "run.json"
    document = json.loads(run.read_text())
    run.write_text(json.dumps({**document, "version": 9}))
    with pytest.raises(
        UnsupportedFormat, match="has version 9; this phonenas reads versions 1 to 2"
    ):
        search.load(tmp_path / "r")
    run.write_text("{}")
    with pytest.raises(UnsupportedFormat, match="not a run of phonenas"):
        search.load(tmp_path / "r")
    for part in ("settings", "complete", "front", "hypervolume", "model"):
        run.write_text(json.dumps({k: v for k, v in document.items() if k != part}))
        with pytest.raises(UnsupportedFormat, match="is damaged|not a run of phonenas"):
            search.load(tmp_path / "r")
    wrong = [{**c, "latency_ms": "fast"} for c in document["front"]]
    run.write_text(json.dumps(undigested({**document, "front": wrong})))
    with pytest.raises(
        UnsupportedFormat, match=r"front\[0\]\.latency_ms: expected number, got text"
    ):
        search.load(tmp_path / "r")
    faster = [{**c, "latency_ms": c["latency_ms"] / 2} for c in document["front"]]
    run.write_text(json.dumps({**document, "front": faster}))
    with pytest.raises(UnsupportedFormat, match="changed since phonenas wrote it"):
        search.load(tmp_path / "r")
    run.write_text(json.dumps(undigested({**document, "complete": False})))
    with pytest.raises(UnsupportedFormat, match="stopped before its end"):
        search.load(tmp_path / "r")
    (tmp_path / "r" / "checkpoint.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UnsupportedFormat, match="damaged"):
        go(fitted, surrogate, into=tmp_path / "r")
    with pytest.raises(UnknownName, match="there is no run"):
        search.load(tmp_path / "nowhere")


@pytest.mark.fault(
    "The folder of a run cannot be made.",
    "`cannot be worked in: Not a directory`",
    "Choose another place.",
)
def test_a_folder_that_cannot_be_written_is_told(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be worked in: Not a directory"):
        go(fitted, surrogate, into=tmp_path / "file" / "run")


def test_a_checkpoint_that_does_not_fit_is_damage(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    go(fitted, surrogate, into=tmp_path / "r")
    path = tmp_path / "r" / "checkpoint.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files}
    for change in ({"numbers": arrays["numbers"][:100]}, {"genomes": arrays["genomes"][:, :5]}):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(UnsupportedFormat, match="is damaged"):
            go(fitted, surrogate, into=tmp_path / "r")
    path.write_bytes(b"")
    with pytest.raises(UnsupportedFormat, match="is damaged"):
        go(fitted, surrogate, into=tmp_path / "r")


def test_a_target_written_otherwise_is_the_same_target(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    specs = [search.Spec(search.Target(300.0, given)) for given in ("300", "300.0")]
    first, again = (go(fitted, surrogate, spec=spec, into=tmp_path / "r") for spec in specs)
    assert again.front.candidates == first.front.candidates


def test_seeds_below_zero_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="a seed is 0 or more"):
        search.NSGA2(seed=-1)


def test_unknown_strategies_offer_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'nsga2'"):
        search.get("nsqa2")


# -- validation ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("fast")
def test_validation_holds_promises_against_the_device(
    fitted: LatencyModel, surrogate: Surrogate, profiled: Path, tiny: TinySpace
) -> None:
    target = float(np.median(fitted.on(tiny)(tiny.sample(np.random.default_rng(0), 500))))
    front = go(fitted, surrogate, target_ms=target).front
    with data.MeasurementStore(profiled) as store, FakeDevice() as device:
        found = search.validate(front, on=device, into=store, top=5, expected=fitted.conditions)
        readings = device.readings
        again = search.validate(front, on=device, into=store, top=5)
        # Nothing but the sentinel ran again, to tell the speed of the device.
        assert device.readings - readings == 12 and again.reused == 5
    assert len(found.networks) == 5
    for v in found.networks:
        assert v.error == pytest.approx(v.predicted_ms / v.measured_ms - 1)
        assert v.inside == (v.low_ms <= v.measured_ms <= v.high_ms)
        assert v.meets_target == (v.measured_ms <= target)
        assert v.candidate.measured_ms == v.measured_ms
    assert found.score.n == 5
    assert str(found).count("\n") == 4
    with pytest.raises(InvalidArgument, match="top: 1 or more"), FakeDevice() as device:
        search.validate(front, on=device, into=store, top=0)


def test_validation_refuses_other_conditions(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    from dataclasses import replace

    front = go(fitted, surrogate).front
    then = replace(fitted.conditions, runtime_version="0.9")
    with (
        data.MeasurementStore(tmp_path / "s.db") as store,
        FakeDevice() as device,
        pytest.raises(SettingsChanged, match="runtime_version: 0.9 / 1"),
    ):
        search.validate(front, on=device, into=store, expected=then)
