"""A search over precisions: one front of all, a model and an accuracy of each, a run of each."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import TinySpace
from resumed import ends_alike

from phonenas import search
from phonenas.data import files
from phonenas.latency_model import LatencyModel
from phonenas.report import write_report
from phonenas.search.accuracy import AccuracyEstimator, SuccessiveHalving, Surrogate
from phonenas.search.accuracy.cache import kept_rows
from phonenas.search.accuracy.quantisation.quantised import InPrecisions
from phonenas.search.precisions import PrecisionModels
from phonenas.search.run_folder import lock_run
from phonenas.search.spec import Spec
from phonenas.space import Architecture, spaces
from phonenas.space.errors import InvalidArgument, PhonenasError, StoreError
from phonenas.space.narrowed import PrecisionChoice, narrow
from phonenas.testing import SimulatedTraining

SPACE = PrecisionChoice(TinySpace(resolution=32), ("float32", "int8"))
FASTER = 0.6
OTHERS = ("random", "nsga3", "regularised", "weighted", "rl", "surrogate")


@pytest.fixture(scope="module")
def models(fitted: LatencyModel) -> PrecisionModels:
    """The model of a device, and the same in int8: 0.6 times as slow."""
    conditions = replace(fitted.conditions, precision="int8")
    times = replace(fitted.times, conditions=conditions)
    small = replace(fitted, times=times, calibration=fitted.calibration.scaled(FASTER))
    return PrecisionModels({"float32": fitted, "int8": small})


def searched(
    models: PrecisionModels,
    accuracy: AccuracyEstimator,
    into: Path,
    strategy: str = "nsga2",
    n: int = 300,
) -> search.Searched:
    halving = isinstance(accuracy, SuccessiveHalving)
    return search.search(
        SPACE,
        latency=models,
        accuracy=accuracy if halving else InPrecisions(accuracy),
        strategy=search.get(strategy, 0),
        spec=Spec(),
        evaluations=n,
        into=into,
    )


@pytest.mark.parametrize(
    "strategy", ["nsga2", *(pytest.param(s, marks=pytest.mark.slow) for s in OTHERS)]
)
def test_each_strategy_chooses_the_precision(
    strategy: str, models: PrecisionModels, surrogate: Surrogate, tmp_path: Path
) -> None:
    front = searched(models, surrogate, tmp_path / "r", strategy).front
    found = {c.block_args.startswith("int8 ") for c in front}
    assert found == {True, False}
    for c in front:
        network = Architecture.parse(c.block_args.removeprefix("int8 "))
        assert c.architecture == network
        own = models.models["int8" if c.block_args.startswith("int8 ") else "float32"]
        assert c.latency_ms == pytest.approx(float(own.latency_ms([network])[0]))
        assert c.low_ms < c.latency_ms < c.high_ms
        whole = surrogate.estimate([network])
        small = c.block_args.startswith("int8 ")
        drop = 0.0388 * (1 - whole.top1[0]) if small else 0.0
        assert c.top1 == pytest.approx(whole.top1[0] - drop, abs=1e-4)
        assert (c.top1_error > whole.standard_error[0]) == small


def test_a_run_of_each_precision(
    models: PrecisionModels, surrogate: Surrogate, tmp_path: Path
) -> None:
    done = searched(models, surrogate, tmp_path / "r")
    assert done.runs == {p: tmp_path / "r" / p for p in ("float32", "int8")}
    whole = search.load(tmp_path / "r", SPACE)
    assert whole.precision == "float32 or int8" and whole.space.decisions == SPACE.decisions
    parts = {p: search.load(folder, TinySpace(resolution=32)) for p, folder in done.runs.items()}
    assert sum(len(part.evaluations()) for part in parts.values()) == 300
    for precision, part in parts.items():
        assert part.precision == part.conditions.precision == precision
        assert part.latency_model is not None
        assert part.latency_model.digest == models.models[precision].digest
        assert part.settings["evaluations"] == len(part.evaluations())
        assert not any(c.block_args.startswith("int8") for c in part.front)
        assert ("quantisation" in part.settings) == (precision == "int8")
        # What is on the front of all is on that of its precision, with the same numbers.
        own = {c.block_args: (c.latency_ms, c.top1) for c in part.front}
        for c in done.front:
            name = c.block_args.removeprefix("int8 ")
            if c.block_args.startswith("int8 ") == (precision == "int8"):
                assert own[name] == (c.latency_ms, c.top1)
    assert any(n.startswith("int8 ") for n in whole.to_frame().network)


def test_by_halving_the_best_of_all_precisions_go_on(
    models: PrecisionModels, tmp_path: Path
) -> None:
    def top1_of(network: Architecture) -> float:
        return 0.5 + 0.3 * (network.macs % 1_000_003) / 1_000_003

    def find(into: Path, n: int) -> search.Searched:
        training = SimulatedTraining(top1_of, 9, slow=True)
        return searched(models, SuccessiveHalving(InPrecisions(training), 3), into, n=n)

    found = find(tmp_path / "whole", 120)
    known = search.load(tmp_path / "whole", SPACE).evaluations()
    small = np.array([SPACE.text(g).startswith("int8 ") for g in known.genomes])
    for precision in (small, ~small):
        assert {*known.further["epochs"][precision]} == {1.0, 3.0, 9.0}
    whole = SimulatedTraining(top1_of, 9)
    for c in found.front:
        assert c.values["epochs"] == 9
        full = whole.estimate([c.architecture]).top1[0]
        drop = 0.0388 * (1 - full) if c.block_args.startswith("int8 ") else 0.0
        assert c.top1 == pytest.approx(full - drop, abs=1e-4)
    for precision, folder in found.runs.items():
        part = search.load(folder, TinySpace(resolution=32))
        assert {c.values["epochs"] for c in part.front} == {9.0}
        assert ("quantisation" in part.settings) == (precision == "int8")
        assert part.settings["halving"] == 3
    # Both precisions of a network are one training, kept once.
    names = [t for t, *_ in kept_rows(tmp_path / "whole" / "accuracy.db", whole.after(1).digest)]
    assert len(names) == len({*names}) < 120
    find(tmp_path / "r", 50)
    find(tmp_path / "r", 120)
    ends_alike(tmp_path / "r", tmp_path / "whole")


def test_the_run_of_a_precision_has_the_lock_of_its_run(
    models: PrecisionModels, surrogate: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    runs = searched(models, surrogate, tmp_path / "r", n=60).runs
    for part in (runs["int8"], runs["int8"] / "round2"):
        with closing(lock_run(part)), pytest.raises(StoreError, match="another process works in"):
            searched(models, surrogate, tmp_path / "r", n=80)
    # A finished run has no lock of its own: what it writes again has.
    shutil.rmtree(runs["int8"])
    with (
        closing(lock_run(tmp_path / "r")),
        pytest.raises(StoreError, match="another process works in"),
    ):
        searched(models, surrogate, tmp_path / "r", n=60)
    searched(models, surrogate, tmp_path / "r", n=60)
    assert search.load(runs["int8"], TinySpace(resolution=32)).precision == "int8"


@pytest.mark.slow
def test_the_report_names_the_precision_of_each(
    models: PrecisionModels, surrogate: Surrogate, tmp_path: Path
) -> None:
    searched(models, surrogate, tmp_path / "r", n=100)
    page = write_report(tmp_path / "r").read_text(encoding="utf-8")
    assert "float32 or int8" in page and "int8 r1" in page


@pytest.mark.slow
def test_one_that_goes_on_ends_as_all_at_once(
    models: PrecisionModels, surrogate: Surrogate, tmp_path: Path
) -> None:
    searched(models, surrogate, tmp_path / "r", n=120)
    gone_on = searched(models, surrogate, tmp_path / "r")
    assert gone_on.resumed_from == 120
    assert gone_on.front == searched(models, surrogate, tmp_path / "at_once").front
    for precision in ("float32", "int8"):
        fronts = [search.load(tmp_path / name / precision).front for name in ("r", "at_once")]
        assert fronts[0] == fronts[1]
        assert (tmp_path / "r" / "first120" / precision / "run.json").exists()


def test_the_space_is_made_again_by_its_name() -> None:
    name = "accel-nasbench block3_k=5 precision=float32,int8"
    space = spaces.get(name)
    assert space.name == name and list(space.decisions)[-1] == "precision"
    base = narrow(spaces.get("accel-nasbench"), ["block3_k=5"])
    assert space.size == 2 * base.size
    genomes = space.sample(np.random.default_rng(0), 50)
    again = space.mutate(genomes, np.random.default_rng(1))
    assert not set(space.keys(genomes)) & set(space.keys(again))
    other = genomes.copy()
    other[:, -1] = 1 - other[:, -1]
    assert not set(space.keys(genomes)) & set(space.keys(other))
    assert [space.decode(g) for g in genomes] == [base.decode(g[:-1]) for g in genomes]
    assert space.text(np.append(genomes[0, :-1], 1)).startswith("int8 r")
    assert (
        space.encode(space.decode(genomes[0]))[:-1] == base.encode(space.decode(genomes[0]))
    ).all()


def test_what_cannot_be_chosen_among(models: PrecisionModels, fitted: LatencyModel) -> None:
    for precisions, words in (
        (("int8",), "two or more"),
        (("int8", "int8"), "two or more"),
        (("int8", "int9"), "no precision is called 'int9'"),
    ):
        with pytest.raises(PhonenasError, match=words):
            PrecisionChoice(TinySpace(), precisions)
    with pytest.raises(InvalidArgument, match="takes the models of two or more"):
        PrecisionModels({"float32": fitted})
    with pytest.raises(InvalidArgument, match="the model of int8 is in float32"):
        PrecisionModels({"float32": fitted, "int8": fitted})
    small = models.models["int8"]
    other = replace(small.conditions, threads=4)
    with pytest.raises(InvalidArgument, match=r"other conditions: .*threads.*Measure both"):
        PrecisionModels(
            {
                "float32": fitted,
                "int8": replace(small, times=replace(small.times, conditions=other)),
            }
        )
    bare = replace(small, calibration=replace(small.calibration, networks=0))
    with pytest.raises(InvalidArgument, match=r"model of \w+ in int8 is of operators alone"):
        PrecisionModels({"float32": fitted, "int8": bare})
    sums = replace(fitted, calibration=replace(fitted.calibration, networks=0))
    assert PrecisionModels({"float32": sums, "int8": bare}).first is sums  # sums of both compare
    own = TinySpace(resolution=32)
    own.__dict__["decisions"] = {**own.decisions, "precision": ("high", "low")}
    with pytest.raises(InvalidArgument, match="tiny has a decision precision of its own"):
        PrecisionChoice(own, ("float32", "int8"))
    with pytest.raises(InvalidArgument, match="has no choice of a precision"):
        models.on(TinySpace())
    with pytest.raises(InvalidArgument, match="give all three or none"):
        search.search(SPACE, latency=models, accuracy=Surrogate(), strategy=search.get("random", 0))
