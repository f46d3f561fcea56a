"""Several devices at once: one front for all, its targets, its folder, its views."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace
from resumed import ends_alike

from phonenas import search
from phonenas.data.measurement import Conditions
from phonenas.latency_model import LatencyModel, ready
from phonenas.latency_model.operator_times import OperatorTimes
from phonenas.search.accuracy import SuccessiveHalving, Surrogate
from phonenas.search.device_view import keep_models, of_device, written
from phonenas.search.pareto import non_dominated
from phonenas.search.validation.rerank import rerank
from phonenas.space import Architecture
from phonenas.space.errors import (
    Infeasible,
    InvalidArgument,
    SettingsChanged,
    UncoveredOperator,
    UnsupportedFormat,
)
from phonenas.testing import SimulatedTraining
from tests.cli.test_precisions import OneBlock

SPACE = TinySpace(resolution=224)
EVERY = 1296  # networks of it
BIG, LITTLE = "pixel4/tflite/cpu-1large/float32", "iphonexs/tflite/cpu-1large/float32"


@pytest.fixture(scope="module")
def models() -> tuple[LatencyModel, LatencyModel]:
    return ready.load(BIG), ready.load(LITTLE)


@pytest.fixture(scope="module")
def truth(models: tuple[LatencyModel, LatencyModel]) -> dict[str, np.ndarray]:
    """Each network of the space, by no part of the search: a list, then the models of networks."""
    genomes = np.stack(
        np.meshgrid(*(np.arange(n) for n in SPACE.option_counts), indexing="ij"), -1
    ).reshape(-1, len(SPACE.option_counts))
    networks = [SPACE.decode(row) for row in genomes]
    assert len({str(n) for n in networks}) == EVERY
    big, little = (m.latency_ms(networks) for m in models)
    top1 = Surrogate().on(SPACE)(genomes.astype(np.int8)).top1
    return {"network": np.array([str(n) for n in networks]), "b": big, "l": little, "top1": top1}


@pytest.fixture(scope="module")
def targets(truth: dict[str, np.ndarray]) -> tuple[float, float]:
    """Such that each device is the tighter one for many networks."""
    ratio = float(np.median(truth["l"] / truth["b"]))
    big = float(np.quantile(truth["b"], 0.6))
    return big, ratio * big


def both(
    models: tuple[LatencyModel, LatencyModel],
    targets: tuple[float, float] | None,
    across: str = "",
    weights: tuple[float, ...] = (),
    **more: Any,
) -> search.Spec:
    goals = [None, None] if targets is None else [search.Target(t, **more) for t in targets]
    on = [search.OnDevice(search.Latency(m), t) for m, t in zip(models, goals, strict=True)]
    return search.Spec(devices=search.Devices(on, across, weights))


def searched(
    models: tuple[LatencyModel, LatencyModel], spec: search.Spec, **more: Any
) -> search.Searched:
    given: dict[str, Any] = {"evaluations": EVERY, "strategy": search.RandomSearch(seed=0), **more}
    accuracy = given.pop("accuracy", None) or Surrogate()
    return search.search(
        given.pop("space", SPACE), latency=models[0], accuracy=accuracy, spec=spec, **given
    )


def beaten_by_none(costs: np.ndarray) -> np.ndarray:
    """Rows of (n, k) that no other row beats; slow and plain."""
    kept = []
    for i, row in enumerate(costs):
        at_least = (costs <= row).all(axis=1)
        better = (costs < row).any(axis=1)
        if not (at_least & better).any():
            kept.append(i)
    return np.array(kept)


@pytest.mark.parametrize("across", ["worst", "mean", "each"])
def test_the_front_is_the_exact_one(
    across: str,
    models: tuple[LatencyModel, LatencyModel],
    truth: dict[str, np.ndarray],
    targets: tuple[float, float],
) -> None:
    over = np.stack([truth["b"] / targets[0], truth["l"] / targets[1]])
    able = np.flatnonzero((truth["b"] <= targets[0]) & (truth["l"] <= targets[1]))
    tighter = over[:, able].argmax(axis=0)
    assert 50 < tighter.sum() < len(able) - 50 < EVERY - 150
    costs = {
        "worst": over.max(axis=0)[:, None],
        "mean": (over[0] ** (2 / 3) * over[1] ** (1 / 3))[:, None],
        "each": np.stack([truth["b"], truth["l"]], axis=1),
    }[across]
    losses = np.column_stack([1 - truth["top1"], costs])[able]
    expected = able[beaten_by_none(losses.round(12))]
    weights = (2.0, 1.0) if across == "mean" else ()
    front = searched(models, both(models, targets, across, weights)).front
    assert {c.block_args for c in front} == set(truth["network"][expected])
    row = {n: i for i, n in enumerate(truth["network"])}
    for c in front:
        i = row[c.block_args]
        assert c.values[f"latency:{BIG}"] == c.latency_ms == pytest.approx(truth["b"][i])
        assert c.values[f"latency:{LITTLE}"] == pytest.approx(truth["l"][i])
        ratio = {"mean": costs[i, 0]}.get(across, over[:, i].max())
        assert c.values["latency_ratio"] == pytest.approx(ratio)
        assert c.reward == pytest.approx(c.top1 * ratio**-0.07)
    low, high, _ = models[1].intervals(SPACE)(SPACE.encode(front.candidates[0].architecture)[None])
    ends = front.candidates[0].intervals[f"latency:{LITTLE}"]
    assert (ends.low_ms, ends.high_ms) == pytest.approx((low[0], high[0]))
    assert low[0] < front.candidates[0].values[f"latency:{LITTLE}"] < high[0]


def test_without_targets_every_latency_is_an_objective(
    models: tuple[LatencyModel, LatencyModel], truth: dict[str, np.ndarray]
) -> None:
    spec = both(models, None)
    assert spec.devices is not None and spec.devices.across == "each"
    front = searched(models, spec).front
    losses = np.column_stack([1 - truth["top1"], truth["b"], truth["l"]])
    expected = set(truth["network"][beaten_by_none(losses.round(12))])
    assert {c.block_args for c in front} == expected
    alone = non_dominated(losses[:, :2])
    assert len(front) > len(alone)  # some are there for the other device's sake
    assert front.target_ms is None and front.candidates[0].reward is None


def test_the_columns_have_the_devices_names(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], tmp_path: Path
) -> None:
    into = tmp_path / "r"
    searched(models, both(models, targets), evaluations=60, into=into)
    run = search.load(into, SPACE)
    names = {
        f"latency:{BIG}",
        f"latency:{LITTLE}",
        f"low:{LITTLE}",
        f"high:{LITTLE}",
        "latency_ratio",
    }
    assert names <= set(run.front.to_frame()) and names <= set(run.to_frame())
    for frame in (run.front.to_frame(), run.to_frame()):
        for column in ("origin", f"origin:{BIG}", f"origin:{LITTLE}"):
            assert set(frame[column]) == {"public"}
    assert {f"latency:{BIG}", f"latency:{LITTLE}"} <= set(
        pd.read_parquet(into / "evaluations.parquet")
    )
    document = json.loads((into / "run.json").read_text())
    for model in models:
        told = document["objectives"]["devices"][model.device]["conditions"]
        assert Conditions.from_dict(told) == model.conditions
    given = [(d["device"], d["target_ms"]) for d in document["settings"]["devices"]]
    assert given == [(BIG, targets[0]), (LITTLE, targets[1])]
    assert run.devices == (BIG, LITTLE)
    assert {n: m.digest for n, m in run.device_models().items()} == {
        m.device: m.digest for m in models
    }
    (into / "model2.json").unlink()
    with pytest.raises(
        UnsupportedFormat, match=r"model2.json is missing, the latency model of iphonexs"
    ):
        run.device_models()


def test_a_view_is_the_same_front_with_the_other_devices_times(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], tmp_path: Path
) -> None:
    searched(models, both(models, targets), evaluations=60, into=tmp_path / "r")
    run = search.load(tmp_path / "r", SPACE)
    assert of_device(run, BIG) is run
    view = of_device(run, LITTLE)
    for c, own in zip(view.front, run.front, strict=True):
        assert (c.id, c.block_args, c.reward) == (own.id, own.block_args, own.reward)
        assert c.latency_ms == own.values[f"latency:{LITTLE}"]
        assert (c.low_ms, c.high_ms) == tuple(vars(own.intervals[f"latency:{LITTLE}"]).values())[:2]
    assert view.front.target_ms == targets[1] and view.conditions == models[1].conditions
    column = run.evaluations().further[f"latency:{LITTLE}"]
    assert (view.evaluations().latency_ms == column).all()
    spec = view.spec  # the constraints are the same ones
    assert spec.devices is not None and spec.devices.own == 1
    assert spec.met(view.evaluations()).tolist() == run.spec.met(run.evaluations()).tolist()
    with pytest.raises(
        InvalidArgument, match=f"was searched for {BIG} and {LITTLE}, not for pixel"
    ):
        of_device(run, "pixel")
    chosen = [
        [c.id for c in search.candidate_selection.select_candidates(r.front, 4)]
        for r in (run, view)
    ]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 4


def test_a_view_has_nothing_of_the_other_device(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], tmp_path: Path
) -> None:
    goals = (search.Target(targets[0], "25"), search.Target(targets[1], "mobilenet-v2"))
    on = [search.OnDevice(search.Latency(m), t) for m, t in zip(models, goals, strict=True)]
    spec = search.Spec(devices=search.Devices(on))
    searched(models, spec, evaluations=60, into=tmp_path / "r")
    run = search.load(tmp_path / "r", SPACE)
    # The first device's networks were measured and covered; the second one is an int8 one that was
    # measured, and some operators of it were not.
    assert run.objectives is not None
    own = run.objectives["devices"][LITTLE]
    conditions = {**own["conditions"], "origin": "measured", "precision": "int8"}
    column = f"latency:{LITTLE}"
    candidates = tuple(
        replace(
            c.with_measured(5.0),
            covered=True,
            intervals={**c.intervals, column: replace(c.intervals[column], covered=False)},
        )
        for c in run.front
    )
    devices = {**run.objectives["devices"], LITTLE: {**own, "conditions": conditions}}
    front = replace(run.front, candidates=candidates)
    run = replace(run, front=front, objectives={**run.objectives, "devices": devices})
    view = of_device(run, LITTLE)
    assert {(c.covered, c.measured_ms) for c in view.front} == {(False, None)}
    assert (view.front.target_ms, view.front.target) == (targets[1], "mobilenet-v2")
    assert view.front.origin == "measured" and view.front.origins == run.front.origins
    assert (view.settings["device"], view.settings["precision"]) == (LITTLE, "int8")
    assert (view.settings["strategy"], view.settings["again"]) == ("again", "random")
    assert (view.path, view.whole) == (tmp_path / "r/device2", run)
    assert view.latency_model is not None and view.latency_model.digest == models[1].digest
    # Of a part of a run the whole stays the whole.
    assert of_device(replace(run, whole=front), LITTLE).whole is front  # type: ignore[arg-type]


def test_a_view_is_written_once_as_a_whole_run(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], tmp_path: Path
) -> None:
    searched(models, both(models, targets), evaluations=60, into=tmp_path / "r")
    run = search.load(tmp_path / "r", SPACE)
    assert written(run) is run  # of the first device it is there
    view = of_device(run, LITTLE)
    model2 = tmp_path / "r/model2.json"
    content = model2.read_bytes()
    model2.write_bytes(content[:-9])
    with pytest.raises(UnsupportedFormat, match="model2.json"):
        written(view)
    assert not view.path.exists()
    model2.write_bytes(content)
    made = written(view)
    assert made.whole is run and made.front == view.front
    alone = search.load(tmp_path / "r/device2", SPACE)
    assert alone.front == view.front and alone.settings == view.settings
    assert alone.seconds == run.seconds and alone.log() == run.log()
    assert (alone.evaluations().latency_ms == view.evaluations().latency_ms).all()
    assert {n: m.digest for n, m in alone.device_models().items()} == {
        m.device: m.digest for m in models
    }

    def files() -> dict[str, tuple[int, int]]:
        inside = [p for p in view.path.rglob("*") if p.is_file()]
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in inside}

    before = files()
    again = written(view)
    assert again.front == view.front and files() == before


def test_models_are_kept_beside_the_one_that_a_round_fitted(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], tmp_path: Path
) -> None:
    searched(models, both(models, targets), evaluations=60, into=tmp_path / "r")
    run = search.load(tmp_path / "r", SPACE)
    into = tmp_path / "round2"
    into.mkdir()
    keep_models(run, into)
    assert [(into / n).read_bytes() for n in ("model.json", "model2.json")] == [
        (tmp_path / "r" / n).read_bytes() for n in ("model.json", "model2.json")
    ]
    for name in ("model.json", "model2.json"):
        (into / name).write_bytes(b"fitted by the round")
    keep_models(run, into)
    assert (into / "model.json").read_bytes() == b"fitted by the round"
    assert (into / "model2.json").read_bytes() == (tmp_path / "r/model2.json").read_bytes()
    alone = tmp_path / "alone"
    alone.mkdir()
    one = search.Spec(search.Target(targets[0]))
    searched(models, one, evaluations=20, into=tmp_path / "one")
    keep_models(search.load(tmp_path / "one", SPACE), alone)
    assert not [*alone.iterdir()]


def test_the_chance_is_the_least_of_the_devices(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float]
) -> None:
    front = searched(models, both(models, targets, chance=0.9)).front
    for c in front:
        each = [
            float(m.predict([c.architecture]).within(t)[0])
            for m, t in zip(models, targets, strict=True)
        ]
        assert c.values["chance"] == pytest.approx(min(each), abs=1e-6) and min(each) >= 0.9 - 1e-9


@pytest.mark.parametrize("several", [True, False])
def test_ranked_again_a_measured_network_is_certain_on_its_device(
    several: bool,
    models: tuple[LatencyModel, LatencyModel],
    targets: tuple[float, float],
    tmp_path: Path,
) -> None:
    one = search.Spec(search.Target(targets[0], chance=0.5))
    spec = both(models, targets, chance=0.5) if several else one
    searched(models, spec, evaluations=80, into=tmp_path / "r")
    run = search.load(tmp_path / "r", SPACE)
    best = run.front.candidates[0].architecture
    again = rerank(run, models[0], {str(best): 0.99 * targets[0]}, tmp_path / "r/round2")
    evaluated = again.evaluations()
    for row, genome in enumerate(evaluated.genomes):
        network = SPACE.decode(genome)
        own = 1.0 if network == best else models[0].predict([network]).within(targets[0])[0]
        other = models[1].predict([network]).within(targets[1])[0] if several else 1.0
        assert evaluated.further["chance"][row] == pytest.approx(min(own, other), abs=1e-6)
    assert (tmp_path / "r/round2/model2.json").exists() == several


def test_more_evaluations_go_on_to_the_same_front(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], tmp_path: Path
) -> None:
    spec = both(models, targets, "mean", (1.0, 3.0))
    for n in (50, 120):
        searched(models, spec, evaluations=n, into=tmp_path / "a", strategy=nsga2())
    at_once = searched(models, spec, evaluations=120, into=tmp_path / "b", strategy=nsga2()).front
    assert search.load(tmp_path / "a").front == search.load(tmp_path / "b").front == at_once
    assert (tmp_path / "a/first50/model2.json").exists()
    with pytest.raises(SettingsChanged, match=r"device_weights was \[1.0, 3.0\] and is now"):
        searched(models, both(models, targets, "mean"), evaluations=120, into=tmp_path / "a")
    refitted = (models[0], models[1].scaled(1.01))
    with pytest.raises(SettingsChanged, match=r"that of the run:  --model \S*a/model2.json"):
        other = both(refitted, targets, "mean", (1.0, 3.0))
        searched(refitted, other, evaluations=120, into=tmp_path / "a", strategy=nsga2())


def nsga2() -> search.Strategy:
    return search.NSGA2(seed=1, population=20)


@pytest.mark.parametrize("across", ["worst", "each"])
def test_by_halving_those_that_meet_every_target_go_on(
    across: str,
    models: tuple[LatencyModel, LatencyModel],
    truth: dict[str, np.ndarray],
    targets: tuple[float, float],
    tmp_path: Path,
) -> None:
    def top1_of(network: Architecture) -> float:
        return 0.5 + 0.3 * (network.macs % 1_000_003) / 1_000_003

    def find(into: Path, evaluations: int) -> search.Searched:
        accuracy = SuccessiveHalving(SimulatedTraining(top1_of, 9, slow=True), 3)
        spec = both(models, targets, across)
        return searched(models, spec, accuracy=accuracy, evaluations=evaluations, into=into)

    front = find(tmp_path / "whole", 90).front
    known = search.load(tmp_path / "whole", SPACE).evaluations()
    row = {n: i for i, n in enumerate(truth["network"])}
    at = [row[SPACE.text(g)] for g in known.genomes]
    within = (truth["b"][at] <= targets[0]) & (truth["l"][at] <= targets[1])
    epochs = known.further["epochs"]
    assert 10 < within.sum() < 80 and {*epochs[within]} == {1.0, 3.0, 9.0}
    assert (epochs[~within] == 1).all()
    assert known.further[f"latency:{LITTLE}"] == pytest.approx(truth["l"][at])
    whole = SimulatedTraining(top1_of, 9)
    for c in front:
        assert c.values["epochs"] == 9
        assert c.top1 == whole.estimate([c.architecture]).top1[0]
        assert c.values[f"latency:{LITTLE}"] == pytest.approx(truth["l"][row[c.block_args]])
    view = of_device(search.load(tmp_path / "whole", SPACE), LITTLE)
    assert [c.latency_ms for c in view.front] == [c.values[f"latency:{LITTLE}"] for c in front]
    find(tmp_path / "r", 37)
    find(tmp_path / "r", 90)
    ends_alike(tmp_path / "r", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in search.names() if n != "random"])
@pytest.mark.parametrize("across", ["worst", "each"])
def test_every_strategy_finds_what_chance_finds(
    name: str, across: str, models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float]
) -> None:
    """In a space of 36 networks each evaluates nearly all; what is left out shows in no front."""
    space = OneBlock(resolution=224)
    wide = (1.5 * targets[0], 1.5 * targets[1])
    spec = both(models, wide, across)
    exact = searched(models, spec, evaluations=36, space=space).front
    found = searched(models, spec, evaluations=36, space=space, strategy=search.get(name, 0))
    assert found.evaluations == 36
    assert {c.block_args for c in found.front} == {c.block_args for c in exact}


def test_what_does_not_go_together_is_refused(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float]
) -> None:
    big, little = (search.Latency(m) for m in models)
    some = search.Target(5.0)
    for on, more, words in (
        ([search.OnDevice(big)], {}, "two devices or more, each once, got pixel4"),
        ([search.OnDevice(big)] * 2, {}, f"each once, got {BIG}, {BIG}"),
        ([search.OnDevice(big, some), search.OnDevice(little)], {}, "float32: no target, but"),
        ([search.OnDevice(big), search.OnDevice(little)], {"across": "worst"}, "give a --target"),
        ([search.OnDevice(d, some) for d in (big, little)], {"across": "sum"}, "worst, mean, each"),
        ([search.OnDevice(d, some) for d in (big, little)], {"weights": (1, 2)}, "only with acro"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            search.Devices(on, **more)
    soft = [search.Target(t, soft=True) for t in targets]
    with pytest.raises(InvalidArgument, match="a soft target weighs one cost"):
        on = [search.OnDevice(d, t) for d, t in zip((big, little), soft, strict=True)]
        search.Devices(on, "each")
    with pytest.raises(InvalidArgument, match="is an objective already"):
        replace(both(models, targets, "each"), also=[little])
    with pytest.raises(InvalidArgument, match=f"beside those of {BIG} and {LITTLE}"):
        replace(both(models, targets), target=some)
    with pytest.raises(InvalidArgument, match="the model of the first of several devices, pixel4"):
        searched((models[1], models[1]), both(models, targets), evaluations=5)


def test_targets_out_of_reach_name_what_comes_closest(
    models: tuple[LatencyModel, LatencyModel], truth: dict[str, np.ndarray]
) -> None:
    easy, hard = float(truth["b"].max()), 0.5 * float(truth["l"].min())
    words = (
        rf"with {easy:g} ms on {BIG} and {hard:g} ms on {LITTLE}; of .* the closest has \S+ ms on p"
    )
    with pytest.raises(Infeasible, match=words):
        searched(models, both(models, (easy, hard)), evaluations=5)


def test_a_device_that_does_not_cover_the_space_is_named(
    models: tuple[LatencyModel, LatencyModel], targets: tuple[float, float], fitted: LatencyModel
) -> None:
    assert isinstance(fitted.times, OperatorTimes)
    few = replace(fitted, times=replace(fitted.times, regressor=None))  # of networks at 32 px
    with pytest.raises(UncoveredOperator, match="fake has no "):
        searched((models[0], few), both((models[0], few), targets), evaluations=5)
