"""Objectives and limits: any number of them, each with its right value, none of them ignored."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace
from hypothesis import example, given
from hypothesis import strategies as st
from patience import PATIENCE_S

from phonenas import search
from phonenas.latency_model import LatencyModel, chance_within
from phonenas.latency_model.peak_memory import PeakMemory as MemoryModel
from phonenas.search.accuracy import Surrogate
from phonenas.search.constraints import Limit, parse_limit
from phonenas.search.objectives import Function, Latency, PeakMemory, named
from phonenas.search.pareto import hypervolume, non_dominated
from phonenas.space import Architecture, Operator
from phonenas.space.errors import (
    Infeasible,
    InvalidArgument,
    InvalidObjective,
    SettingsChanged,
    UnknownName,
)
from phonenas.space.lowering.onnx import to_onnx

TINY = TinySpace(resolution=32)
EVALUATIONS = {"nsga2": 150, "weighted": 150, "surrogate": 100, "rl": 200}
STRATEGIES = ["nsga2", "random", "weighted", "rl", "surrogate"]


def go(fitted: LatencyModel, **more: Any) -> search.Searched:
    settings: dict[str, Any] = {"strategy": search.NSGA2(seed=3, population=20), "evaluations": 200}
    target = {k: more.pop(k) for k in ("target_ms", "soft", "chance") if k in more}
    asked = {k: more.pop(k) for k in ("also", "limits") if k in more}
    ms = target.pop("target_ms", None)
    aim = None if ms is None else search.Target(ms, **target)
    settings["spec"] = search.Spec(aim, **asked)
    return search.search(TINY, latency=fitted, accuracy=Surrogate(), **(settings | more))


def median_of(objective: search.Objective) -> float:
    return float(np.median(objective.on(TINY)(TINY.sample(np.random.default_rng(0), 400))))


def test_counts_are_the_networks_own() -> None:
    genomes = TINY.sample(np.random.default_rng(1), 20)
    networks = [TINY.decode(g) for g in genomes]
    assert search.Macs().on(TINY)(genomes).tolist() == [n.macs for n in networks]
    assert search.Params().on(TINY)(genomes).tolist() == [n.params for n in networks]
    peaks = [4 * max(o.peak_activations for o in n.operators()) for n in networks]
    assert search.PeakActivation().on(TINY)(genomes).tolist() == peaks
    sizes = [len(to_onnx(n).SerializeToString()) for n in networks[:4]]
    assert named("file_size").on(TINY)(genomes[:4]).tolist() == sizes


def test_predicted_memory_is_a_limit_like_any_other(fitted: LatencyModel) -> None:
    model = MemoryModel(fitted.conditions, 30e6, 8.0, 0.0, 20, 0.01, 0.02)
    limit = parse_limit("peak_memory<=40e6", memory_of=lambda: model)
    genomes = TINY.sample(np.random.default_rng(1), 20)
    params = [TINY.decode(g).params for g in genomes]
    assert limit.objective.on(TINY)(genomes) == pytest.approx([30e6 + 32 * p for p in params])
    bound = float(np.median(limit.objective.on(TINY)(genomes)))
    found = go(fitted, limits=[parse_limit(f"peak_memory<={bound}", memory_of=lambda: model)])
    assert all(c.values["peak_memory"] <= bound for c in found.front)
    assert limit.objective.digest != PeakMemory(replace(model, per_weight=9.0)).digest


@pytest.mark.parametrize("name", ["p50_ms", "p90_ms", "load_ms", "first_ms", "model_bytes"])
def test_what_is_only_measured_is_no_objective(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_limit(f"{name}<=20")
    assert str(refused.value).startswith(f"{name} is measured and never predicted, so a search can")
    assert "of each network that is validated. Known: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_peak_activations_by_hand() -> None:
    plain = Operator("mbconv", 16, 24, 8, kernel=3, stride=2, expansion=6)
    # expand: 16 maps of 8x8 in, 96 out; depthwise: 96 in at 8x8, 96 out at 4x4.
    assert plain.peak_activations == max(16 * 64 + 96 * 64, 96 * 64 + 96 * 16)
    skipped = Operator("mbconv", 16, 16, 8, kernel=3, expansion=6, skip="identity", se_channels=4)
    # depthwise with both its maps, while the input waits for the addition.
    assert skipped.peak_activations == 2 * 96 * 64 + 16 * 64
    head = Operator("head", 32, 1000, 7, features=1280)
    assert head.peak_activations == (32 + 1280) * 49


@pytest.mark.parametrize(
    "strategy",
    [*STRATEGIES[:3], *(pytest.param(n, marks=pytest.mark.slow) for n in STRATEGIES[3:])],
)
def test_three_objectives_give_a_front_that_none_beats(fitted: LatencyModel, strategy: str) -> None:
    if strategy == "rl":
        pytest.importorskip("torch")
    found = go(
        fitted,
        strategy=search.get(strategy, 1),
        also=[search.Params()],
        evaluations=120 if strategy == "surrogate" else 200,
    )
    losses = np.array([[c.latency_ms, 1 - c.top1, c.values["params"]] for c in found.front])
    for row in losses:
        beats = (losses <= row).all(axis=1) & (losses < row).any(axis=1)
        assert not beats.any()
    assert [c.values["params"] for c in found.front] == [c.params for c in found.front]
    twos = losses[:, :2]
    assert any(((twos <= row).all(axis=1) & (twos < row).any(axis=1)).any() for row in twos)
    assert 0 < found.front.hypervolume < 1


@pytest.mark.parametrize(
    "strategy",
    [*STRATEGIES[:3], *(pytest.param(n, marks=pytest.mark.slow) for n in STRATEGIES[3:])],
)
def test_no_limit_is_ignored(fitted: LatencyModel, strategy: str) -> None:
    if strategy == "rl":
        pytest.importorskip("torch")
    bound = median_of(search.Macs()) * 0.7
    ms = float(np.median(fitted.on(TINY)(TINY.sample(np.random.default_rng(0), 400))))
    found = go(
        fitted,
        strategy=search.get(strategy, 2),
        target_ms=ms,
        limits=[Limit(search.Macs(), at_most=bound)],
        evaluations=60 if strategy == "surrogate" else 300,
    )
    assert len(found.front) > 0
    assert all(c.macs <= bound and c.latency_ms <= ms for c in found.front)


@pytest.mark.slow
@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("strategy", ["nsga2", "weighted", "surrogate", "rl"])
def test_a_limit_draws_the_search_to_where_it_holds(
    fitted: LatencyModel, strategy: str, with_target: bool, tmp_path: Path
) -> None:
    if strategy == "rl":
        pytest.importorskip("torch")
    ms = float(np.median(fitted.on(TINY)(TINY.sample(np.random.default_rng(0), 400))))
    drawn = search.Params().on(TINY)(TINY.sample(np.random.default_rng(0), 1000))
    bound = float(np.quantile(drawn, 0.1))
    go(
        fitted,
        strategy=search.get(strategy, 2),
        limits=[Limit(search.Params(), at_most=bound)],
        target_ms=ms if with_target else None,
        evaluations=EVALUATIONS[strategy],
        into=tmp_path / "r",
    )
    table = pd.read_parquet(tmp_path / "r" / "evaluations.parquet")
    assert (table.params[len(table) // 2 :] <= bound).mean() > 0.2  # a tenth by chance


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["nsga2", "surrogate"])
def test_a_target_draws_the_search_to_within_it(
    fitted: LatencyModel, strategy: str, tmp_path: Path
) -> None:
    """Those that follow the weighted product pay 3 % for 3 % beyond: here that is all there is."""
    drawn = fitted.on(TINY)(TINY.sample(np.random.default_rng(0), 1000))
    ms = float(np.quantile(drawn, 0.15))
    go(
        fitted,
        strategy=search.get(strategy, 2),
        target_ms=ms,
        evaluations=EVALUATIONS[strategy],
        into=tmp_path / "r",
    )
    table = pd.read_parquet(tmp_path / "r" / "evaluations.parquet")
    assert (table.latency_ms[len(table) // 2 :] <= ms).mean() > 0.4  # 0.15 by chance


def test_at_least_binds_too(fitted: LatencyModel) -> None:
    bound = median_of(search.Params())
    found = go(fitted, limits=[Limit(search.Params(), at_least=bound)])
    assert min(c.params for c in found.front) >= bound


def test_a_soft_limit_weighs_and_does_not_bind(fitted: LatencyModel) -> None:
    bound = median_of(search.Macs()) * 0.8
    hard = go(fitted, limits=[Limit(search.Macs(), at_most=bound)]).front
    soft = go(fitted, limits=[Limit(search.Macs(), at_most=bound, soft=-0.07)]).front
    assert max(c.macs for c in hard) <= bound < max(c.macs for c in soft)
    limit = Limit(search.Macs(), at_most=100.0, soft=-0.5)
    assert limit.weight(np.array([50.0, 100.0, 400.0])).tolist() == [1.0, 1.0, 0.5]


def test_a_soft_target_keeps_what_lies_beyond(fitted: LatencyModel) -> None:
    ms = float(np.quantile(fitted.on(TINY)(TINY.sample(np.random.default_rng(0), 400)), 0.3))
    hard, soft = go(fitted, target_ms=ms).front, go(fitted, target_ms=ms, soft=True).front
    assert max(c.latency_ms for c in hard) <= ms < max(c.latency_ms for c in soft)
    for c in soft:
        assert c.reward == pytest.approx(c.top1 * (c.latency_ms / ms) ** -0.07)


def test_a_chance_is_kept(fitted: LatencyModel) -> None:
    ms = float(np.quantile(fitted.on(TINY)(TINY.sample(np.random.default_rng(0), 400)), 0.95))
    sure, even = go(fitted, target_ms=ms, chance=0.95).front, go(fitted, target_ms=ms).front
    for c in sure:
        chance = chance_within([c.latency_ms], [c.low_ms], [c.high_ms], ms)[0]
        assert c.values["chance"] == pytest.approx(chance, abs=1e-9) and chance >= 0.95
    assert max(c.latency_ms for c in sure) < max(c.latency_ms for c in even)


@pytest.mark.parametrize(
    "more",
    [
        {"chance": 1.0, "target_ms": 1.0},
        {"chance": 0.0, "target_ms": 1.0},
        {"chance": 0.9, "target_ms": 1.0, "soft": True},
        {"also": [search.Macs(), search.Macs()]},
    ],
)
def test_what_cannot_be_asked(fitted: LatencyModel, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        go(fitted, **more)


def test_the_impossible_ends_before_anything_is_judged(fitted: LatencyModel) -> None:
    asked = []
    spy = Function("spy", lambda n: asked.append(n) or 1.0)
    with pytest.raises(Infeasible, match=r"macs<=10; of [\d,]+ tried the closest has .* macs \d"):
        go(fitted, also=[spy], limits=[Limit(search.Macs(), at_most=10)])
    assert asked == []
    least = min(search.Macs().on(TINY)(TINY.sample(np.random.default_rng(0), 3000)))
    assert len(go(fitted, limits=[Limit(search.Macs(), at_most=least)]).front) > 0


def test_a_further_device_is_an_objective(fitted: LatencyModel) -> None:
    found = go(fitted, also=[Latency(fitted)])
    assert [c.values["latency:fake"] for c in found.front] == [c.latency_ms for c in found.front]


def test_a_users_function_is_asked_once_a_network(fitted: LatencyModel, tmp_path: Path) -> None:
    asked: list[str] = []
    depth = Function("layers", lambda n: asked.append(str(n)) or len(n.operators()))
    found = go(fitted, also=[depth], into=tmp_path / "r")
    assert len(asked) == len(set(asked)) == 200
    assert all(c.values["layers"] == len(c.architecture.operators()) for c in found.front)
    run = json.loads((tmp_path / "r" / "run.json").read_text())
    assert run["settings"]["also"] == ["layers (layers/1)"]
    assert search.load(tmp_path / "r").front == found.front
    again = go(fitted, also=[depth], into=tmp_path / "r")
    assert again.front == found.front and len(asked) == 200


def layers(network: Architecture) -> int:
    return len(network.operators())


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_workers_change_nothing_but_the_time(fitted: LatencyModel, processes: bool) -> None:
    alone = go(fitted, also=[Function("layers", layers)], evaluations=60)
    together = go(
        fitted, also=[Function("layers", layers, workers=3, processes=processes)], evaluations=60
    )
    assert together.front == alone.front


def test_workers_work_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=PATIENCE_S)
    judge = Function("meet", lambda n: barrier.wait() * 0.0, workers=3).on(TINY)
    assert judge(TINY.sample(np.random.default_rng(0), 3)).tolist() == [0.0] * 3


@pytest.mark.parametrize("batched", [False, True])
def test_a_function_for_many_at_once(batched: bool) -> None:
    function: Any = (lambda ns: [len(n.operators()) for n in ns]) if batched else layers
    genomes = TINY.sample(np.random.default_rng(0), 5)
    told = Function("layers", function, batched=batched).on(TINY)(genomes)
    assert told.tolist() == [len(TINY.decode(g).operators()) for g in genomes]


@pytest.mark.parametrize(
    ("function", "batched", "words"),
    [
        (lambda n: float("nan"), False, "gave nan for "),
        (lambda n: float("inf"), False, "gave inf for "),
        (lambda n: "fast", False, "not numbers for "),
        (lambda n: [1.0, 2.0], False, r"values of shape \(\d+, 2\) for \d+ networks, from "),
        (lambda ns: [1.0], True, r"values of shape \(1,\) for \d+ networks, from "),
        (lambda n: 1 / 0, False, "failed with ZeroDivisionError: division by zero, asked for "),
    ],
)
def test_a_wrong_function_is_named_with_the_network(
    fitted: LatencyModel, function: Any, batched: bool, words: str
) -> None:
    asked: list[Architecture] = []

    def spied(given: Any) -> Any:
        asked.extend(given if batched else [given])
        return function(given)

    with pytest.raises(InvalidObjective, match=f"the objective mine .*{words}") as raised:
        go(fitted, also=[Function("mine", spied, batched=batched)])
    assert any(str(network) in str(raised.value) for network in asked)


@pytest.mark.parametrize("name", ["top1", "latency_ms", "", "two words", "x" * 65, "peak_memory"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be the name of an objective"):
        Function(name, layers)


def test_unknown_objectives_offer_the_nearest(fitted: LatencyModel) -> None:
    with pytest.raises(UnknownName, match="'mac'.*macs"):
        named("mac")
    with pytest.raises(InvalidArgument, match="peak_memory is predicted from the measurements of"):
        named("peak_memory")
    with pytest.raises(UnknownName, match="latency:x"):
        named("latency:x")
    assert named("latency:fake", lambda _: fitted).name == "latency:fake"


def test_limits_as_the_command_line_has_them() -> None:
    hard, soft, least = map(parse_limit, ("macs<=300e6", " params <= ~4e6", "peak_activation>=10"))
    assert (hard.at_most, hard.soft, str(hard)) == (300e6, None, "macs<=300000000")
    assert (soft.at_most, soft.soft) == (4e6, -0.07)
    assert (least.at_least, least.at_most) == (10, None)


@pytest.mark.parametrize(
    "text", ["macs", "macs<300", "macs<=", "macs<=many", "macs<=-1", "macs<=nan", ""]
)
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_limit(text)


NEARLY = st.tuples(
    st.sampled_from(["macs", " params ", "peak_activation", "mac", "top1", "latency:x", ""]),
    st.sampled_from(["<=", ">=", " <= ~", "<", "==", "<=>=", ""]),
    st.one_of(st.floats().map(str), st.sampled_from(["300e6", "1_0", "~5", "0", "-3", "1e999"])),
).map("".join)


@given(st.one_of(st.text(max_size=20), NEARLY))
@example("macs<=300e6")
@example("params>= ~4e6")
def test_any_text_is_a_limit_or_an_error(text: str) -> None:
    try:
        limit = parse_limit(text)
    except UnknownName as error:
        assert re.split("[<>]=", text)[0].strip() in str(error)
        return
    except InvalidArgument as error:
        assert "limit" in str(error)
        return
    name, sign, bound = re.fullmatch(r"(.+?)([<>]=)(.+)", text).groups()  # type: ignore[union-attr]
    value = float(bound.replace("~", ""))
    expected = (value, None) if sign == "<=" else (None, value)
    assert limit.objective.name == name.strip()
    assert (limit.at_most, limit.at_least) == expected
    assert 0 < value < math.inf
    assert (limit.soft is not None) == ("~" in bound)
    assert str(parse_limit(str(limit))) == str(limit)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30))
def test_fronts_of_three_by_counting(rows: list[tuple[int, ...]]) -> None:
    losses = np.array(rows, float)
    kept = non_dominated(losses)
    beaten = [
        any((o <= row).all() and (o < row).any() for o in losses)
        or any((o == row).all() for o in losses[:i])
        for i, row in enumerate(losses)
    ]
    assert sorted(kept.tolist()) == [i for i, b in enumerate(beaten) if not b]
    assert (np.diff(losses[kept, 0]) >= 0).all()
    # By counting unit cubes.
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    share = (losses[None] <= grid[:, None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(losses, (0, 0, 0), (5, 5, 5)) == pytest.approx(share)


def test_a_run_with_further_objectives_resumes(fitted: LatencyModel, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if event.evaluations >= 100:
            raise Stop

    more: dict[str, Any] = {
        "also": [search.Params()],
        "limits": [Limit(search.Macs(), at_most=median_of(search.Macs()))],
    }
    whole = go(fitted, into=tmp_path / "whole", **more)
    from phonenas.search.run_folder import RunFolder

    due, RunFolder.due = RunFolder.due, lambda self: True  # type: ignore[method-assign]
    try:
        with pytest.raises(Stop):
            go(fitted, into=tmp_path / "r", on_event=stop, **more)
    finally:
        RunFolder.due = due  # type: ignore[method-assign]
    resumed = go(fitted, into=tmp_path / "r", **more)
    assert resumed.resumed_from > 0 and resumed.front == whole.front
    logs = [pd.read_csv(tmp_path / n / "log.csv").drop(columns="seconds") for n in ("whole", "r")]
    assert logs[0].evaluations.is_monotonic_increasing and len(logs[0]) > 5
    pd.testing.assert_frame_equal(
        logs[0].tail(3).reset_index(drop=True), logs[1].tail(3).reset_index(drop=True)
    )


@pytest.mark.slow
def test_a_finished_run_is_not_searched_on(fitted: LatencyModel, tmp_path: Path) -> None:
    """One that ended because nothing new came is given again as it is."""
    more: dict[str, Any] = {"strategy": search.WeightedProduct(seed=1), "evaluations": 10**6}
    first = go(fitted, into=tmp_path / "r", **more)
    before = (tmp_path / "r" / "run.json").read_bytes()
    again = go(fitted, into=tmp_path / "r", **(more | {"strategy": search.WeightedProduct(seed=1)}))
    assert again.front == first.front and again.evaluations == first.evaluations < TINY.size + 1
    assert (tmp_path / "r" / "run.json").read_bytes() == before


def test_turning_an_objective_round_is_a_change(fitted: LatencyModel, tmp_path: Path) -> None:
    go(fitted, also=[Function("layers", layers)], evaluations=30, into=tmp_path / "r")
    with pytest.raises(SettingsChanged, match="up"):
        go(
            fitted,
            also=[Function("layers", layers, maximise=True)],
            evaluations=30,
            into=tmp_path / "r",
        )


def test_a_limit_changed_in_its_ninth_digit_is_a_change(
    fitted: LatencyModel, tmp_path: Path
) -> None:
    big = [Limit(search.Macs(), at_most=bound) for bound in (301234567.0, 301234568.0)]
    go(fitted, limits=big[:1], evaluations=30, into=tmp_path / "r")
    with pytest.raises(SettingsChanged, match="301234567.*301234568"):
        go(fitted, limits=big[1:], evaluations=30, into=tmp_path / "r")
    assert parse_limit(str(big[0])) == big[0] or str(parse_limit(str(big[0]))) == str(big[0])


def test_one_name_means_one_objective(fitted: LatencyModel) -> None:
    limit = Limit(Function("layers", layers, version="2"), at_most=30)
    with pytest.raises(InvalidArgument, match="two different objectives are called layers"):
        go(fitted, also=[Function("layers", layers)], limits=[limit])
    with pytest.raises(InvalidArgument, match="macs"):
        Function("macs", layers)


def test_an_impossible_target_beside_a_costly_limit_ends_at_once(fitted: LatencyModel) -> None:
    asked: list[str] = []
    slow = Function("slow", lambda n: asked.append(str(n)) or 1.0)
    with pytest.raises(Infeasible, match="1e-06 ms"):
        go(fitted, target_ms=1e-6, limits=[Limit(slow, at_most=2.0)])
    assert asked == []


def test_an_objective_of_ones_own_is_held_to_its_shape(fitted: LatencyModel) -> None:
    class Two(search.Objective):
        name = "two"

        def on(self, space: Any) -> Any:
            return lambda genomes: np.zeros((len(genomes), 2))

    with pytest.raises(
        InvalidObjective, match=r"the objective two gave values of shape \(\d+, 2\)"
    ):
        go(fitted, also=[Two()])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["nsga2", "surrogate", "random"])
def test_a_soft_target_leaves_others_the_whole_front(fitted: LatencyModel, strategy: str) -> None:
    ms = float(np.quantile(fitted.on(TINY)(TINY.sample(np.random.default_rng(0), 400)), 0.3))
    more: dict[str, Any] = {"evaluations": 60}
    soft = go(fitted, strategy=search.get(strategy, 4), target_ms=ms, soft=True, **more).front
    free = go(fitted, strategy=search.get(strategy, 4), **more).front
    assert [c.block_args for c in soft] == [c.block_args for c in free]


def test_a_soft_target_needs_soft_exponents(fitted: LatencyModel, tmp_path: Path) -> None:
    more: dict[str, Any] = {"target_ms": 5.0, "soft": True, "into": tmp_path / "r"}
    with pytest.raises(InvalidArgument, match="exponents=SOFT"):
        go(fitted, strategy=search.WeightedProduct(seed=0), **more)
    assert not (tmp_path / "r").exists()
    found = go(fitted, strategy=search.get("weighted", 0, soft=True), target_ms=5.0, soft=True)
    assert len(found.front) > 0


def test_many_objectives_are_estimated() -> None:
    rng = np.random.default_rng(0)
    losses = rng.random((40, 5))
    exact = np.mean([(losses <= p).all(axis=1).any() for p in rng.random((20_000, 5))])
    assert hypervolume(losses, [0] * 5, [1] * 5) == pytest.approx(exact, abs=0.02)
