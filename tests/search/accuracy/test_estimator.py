"""What an accuracy is, and what a search makes of networks that got none."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.latency_model import LatencyModel
from phonenas.search import strategies
from phonenas.search.accuracy import (
    ESTIMATORS,
    Accuracy,
    AccuracyEstimator,
    AccuracyTable,
    Additive,
    Request,
    Surrogate,
    estimator,
    registry,
)
from phonenas.search.accuracy.distributed import Distributed, estimate_on
from phonenas.search.cluster.workers import Serial
from phonenas.search.pareto import hypervolume, non_dominated
from phonenas.search.run_folder import RunFolder
from phonenas.space import Architecture, SearchSpace, zoo
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    SettingsChanged,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.space.registry import Registry
from phonenas.testing import EstimatorContract
from phonenas.testing.workers import LastFirst

SPACE = TinySpace(resolution=32)


class Moody(AccuracyEstimator):
    """Squeezes diverge: the surrogate, but every network with one in its first blocks fails."""

    name = "moody"

    def __init__(self, word: str = "_se0.25") -> None:
        self.word, self.asked = word, 0
        self._within = Surrogate()

    @property
    def digest(self) -> str:
        return f"moody-{self.word}"

    @property
    def cost_s(self) -> float:
        return 1e-5

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        self.asked += len(architectures)
        told = self._within.estimate(architectures)
        failed = tuple(
            (
                ""
                if self.word not in str(a)
                else "diverged at step 7"
                if "_e6" in str(a)
                else "no memory"
            )
            for a in architectures
        )
        none = np.array([bool(f) for f in failed], bool)
        return Accuracy(
            np.where(none, np.nan, told.top1),
            np.where(none, np.nan, told.standard_error),
            told.outside,
            failed,
        )


class TestWithFailures(EstimatorContract):
    @pytest.fixture
    def estimator(self) -> AccuracyEstimator:
        return Moody()

    @pytest.fixture
    def space(self) -> SearchSpace:
        return SPACE


class TestTable(EstimatorContract):
    @pytest.fixture
    def estimator(self, tmp_path: Path, networks: list[Architecture]) -> AccuracyEstimator:
        told = Surrogate().estimate(networks)
        path = tmp_path / "t.csv"
        failed = ["" if i % 7 else "out of memory" for i in range(len(networks))]
        pd.DataFrame(
            {"network": list(map(str, networks)), "top1": told.top1, "failed": failed}
        ).to_csv(path, index=False)
        return AccuracyTable(path)

    def again(self, estimator: AccuracyEstimator) -> AccuracyEstimator:
        assert isinstance(estimator, AccuracyTable)
        return AccuracyTable(estimator.source)


# -- Accuracy -------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("top1", "error", "failed", "words"),
    [
        ([0.5, 93.1], [0.1, 0.1], (), "network 1 has a top-1 of 93.1"),
        ([0.5, -0.1], [0.1, 0.1], (), "network 1"),
        ([0.5, NAN], [0.1, NAN], (), "needs a reason"),
        ([0.5, 0.5], [0.1, 0.0], (), "error above 0"),
        ([0.5, 0.5], [0.1, np.inf], (), "error above 0"),
        ([0.5, 0.0], [0.1, 0.1], ("", "diverged"), "failed .diverged., so both are NaN"),
        ([0.5, NAN], [0.1, NAN], ("diverged",), "2 accuracies with 1 reasons"),
        ([0.5], [0.1, 0.1], (), "one shape"),
    ],
)
def test_an_accuracy_that_is_none_is_refused(
    top1: Any, error: Any, failed: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Accuracy(np.array(top1), np.array(error), np.zeros(2, bool), failed)


def test_accuracies_are_joined_and_taken_apart() -> None:
    first = Accuracy(np.array([0.5, 0.6]), np.array([0.1, 0.2]), np.array([True, False]), ("", ""))
    assert first.failed == ()  # nothing failed: said in one way
    both = Accuracy.joined([first, Accuracy.failure("no memory", seconds=3.0)])
    assert len(both) == 3
    assert both.failed == ("", "", "no memory")
    assert both.well.tolist() == [True, True, False]
    assert both.seconds == ()  # told by one alone
    again = Accuracy.joined(both.take([i]) for i in (2, 0))
    assert again.failed == ("no memory", "") and again.top1[1] == 0.5 and again.outside[1]
    assert len(Accuracy.joined([])) == 0
    with pytest.raises(InvalidArgument, match="reason"):
        Accuracy.failure("")


def test_each_is_handed_over_as_it_is_known() -> None:
    class Slow(Moody):
        cost_s = 4.0  # type: ignore[assignment]

    networks = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(0), 5)]
    slow = Slow()
    seen: list[tuple[int, int]] = []
    slow.estimate_each(networks, lambda place, told: seen.append((place, slow.asked)))
    # Two fit into ten seconds: what is done is told before the next two begin.
    assert seen == [(0, 2), (1, 2), (2, 4), (3, 4), (4, 5)]
    gathered = slow.gathered(networks)
    told = slow.estimate(networks)
    np.testing.assert_allclose(gathered.top1, told.top1, rtol=0, atol=1e-12)
    assert gathered.failed == told.failed
    assert len(gathered.seconds) == 5 and min(gathered.seconds) >= 0


# -- fronts ---------------------------------------------------------------------------------------


def test_a_row_without_a_number_is_in_no_front() -> None:
    for k in (2, 3):
        losses = np.random.default_rng(0).random((50, k))
        broken = np.vstack([losses, np.full((3, k), np.nan)])
        broken[-1, 1:] = -1.0  # it would beat all but for what is missing
        assert np.array_equal(non_dominated(broken), non_dominated(losses))
        assert hypervolume(broken, [0] * k, [1] * k) == hypervolume(losses, [0] * k, [1] * k)


# -- the search -----------------------------------------------------------------------------------


def go(
    model: LatencyModel, accuracy: AccuracyEstimator, name: str = "nsga2", **more: Any
) -> search.Searched:
    how = search.NSGA2(seed=3, population=20) if name == "nsga2" else strategies.get(name, 3)
    return search.search(
        SPACE,
        **{"latency": model, "accuracy": accuracy, "strategy": how, "evaluations": 120, **more},
    )


@pytest.mark.parametrize(
    ("name", "bound"),
    [("nsga2", False), ("nsga2", True), ("random", True), ("weighted", True)]
    + [
        pytest.param(name, bound, marks=pytest.mark.slow)
        for name in ("rl", "surrogate")
        for bound in (False, True)
    ],
)
def test_a_failed_network_is_judged_and_never_chosen(
    fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: bool
) -> None:
    if name == "rl":
        pytest.importorskip("torch")
    told: list[tuple[Any, Any, Any]] = []
    how = strategies.get(name, 3)
    heard = how.tell

    def tell(genomes: Any, losses: Any, violation: Any) -> None:
        assert np.isfinite(losses).all() and np.isfinite(violation).all()
        told.append((genomes, losses, violation))
        heard(genomes, losses, violation)

    monkeypatch.setattr(how, "tell", tell)
    evaluations = 45 if name == "surrogate" else 120
    more: dict[str, Any] = {}
    target_ms = 0.0
    if bound:
        everything = fitted.on(SPACE)(SPACE.sample(np.random.default_rng(0), 2000))
        target_ms = float(np.quantile(everything, 0.5))
        target = search.Target(target_ms)
        more = {"spec": search.Spec(target, limits=[search.parse_limit("params<=2.4e6")])}
    events: list[Any] = []
    found = search.search(
        SPACE,
        latency=fitted,
        accuracy=Moody(),
        strategy=how,
        evaluations=evaluations,
        into=tmp_path / "r",
        on_event=events.append,
        **more,
    )
    table = pd.read_parquet(tmp_path / "r" / "evaluations.parquet")
    assert found.evaluations == len(table) == evaluations  # they count
    bad = table.failed != ""
    assert sum(found.failed.values()) == bad.sum() > 3
    assert set(found.failed) <= {"diverged at step 7", "no memory"}
    assert table.top1[bad].isna().all() and table.top1_error[bad].isna().all()
    assert table.top1[~bad].notna().all()
    assert len(found.front) and not any("_se0.25" in c.block_args for c in found.front)
    assert events[-1].failed == bad.sum()
    assert 0 < events[-1].best_top1 < 1 and 0 < found.front.hypervolume < 1
    log = np.loadtxt(tmp_path / "r" / "log.csv", delimiter=",", skiprows=1)
    assert np.isfinite(log).all()
    # What was told: behind each network that has an accuracy, whatever that oversteps.
    asked = np.concatenate([g for g, _, _ in told])
    violation = np.concatenate([v for _, _, v in told])
    loss = np.concatenate([x for _, x, _ in told])
    failed = np.array(["_se0.25" in str(SPACE.decode(g)) for g in asked])
    over = (
        violation if not bound else np.maximum(violation, loss[:, 1] / more["spec"].target.ms - 1)
    )
    assert violation[failed].min() > over[~failed].max()
    loaded = search.load(tmp_path / "r")
    assert loaded.failed == dict(found.failed)
    assert np.isnan(loaded.evaluations().top1).sum() == bad.sum()


def test_strategies_learn_to_leave_alone_what_fails(fitted: LatencyModel) -> None:
    """NSGA-II asks for fewer and fewer of them; uniform draws would not."""
    order: list[bool] = []

    class Noted(Moody):
        def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
            order.extend(self.word in str(a) for a in architectures)
            return super().estimate(architectures)

    go(fitted, Noted(), evaluations=250)
    assert np.mean(order[-100:]) < 0.75 * np.mean(order[:60])


class _Stop(Exception):
    pass


@pytest.mark.parametrize(
    "name",
    ["nsga2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("weighted", "surrogate"))],
)
def test_a_stopped_run_with_failures_ends_as_if_never_stopped(
    fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(RunFolder, "due", lambda self: True)
    more = {"evaluations": 45 if name == "surrogate" else 120}
    whole = go(fitted, Moody(), name, into=tmp_path / "whole", **more)
    turns = iter(range(3))

    def stop(event: object) -> None:
        if next(turns, None) is None:
            raise _Stop

    with pytest.raises(_Stop):
        go(fitted, Moody(), name, into=tmp_path / "r", on_event=stop, **more)
    found = go(fitted, Moody(), name, into=tmp_path / "r", **more)
    assert found.resumed_from > 0
    assert found.front == whole.front and found.failed == whole.failed
    tables = [pd.read_parquet(tmp_path / d / "evaluations.parquet") for d in ("whole", "r")]
    pd.testing.assert_frame_equal(*tables)


def test_no_accuracy_at_all_is_an_error(fitted: LatencyModel, tmp_path: Path) -> None:
    hopeless = Moody("r")  # each block has one
    with pytest.raises(
        NotEnoughData, match=r"none of \d+ networks .* got an accuracy: .*diverged at step 7"
    ):
        go(fitted, hopeless, into=tmp_path / "r")
    assert hopeless.asked < 60  # not the whole budget
    with pytest.raises(NotEnoughData, match="none of 5 networks"):
        go(fitted, Moody("r"), evaluations=5)


def test_another_estimator_is_refused_with_both_names(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    go(fitted, Moody(), into=tmp_path / "r")
    with pytest.raises(
        SettingsChanged, match=r"accuracy was 'moody-_se0.25' \(moody\) and is now 'surrogate-1-"
    ):
        go(fitted, surrogate, into=tmp_path / "r")


def test_a_checkpoint_whose_reasons_are_lost_is_damage(
    fitted: LatencyModel, tmp_path: Path
) -> None:
    import json

    go(fitted, Moody(), into=tmp_path / "r")
    path = tmp_path / "r" / "checkpoint.npz"
    with np.load(path) as file:
        arrays = dict(file)
    plain = json.loads(str(arrays["plain"]))
    assert plain["failed"]
    del plain["failed"]
    arrays["plain"] = np.array(json.dumps(plain))
    np.savez(path, **arrays)
    with pytest.raises(UnsupportedFormat, match="damaged"):
        go(fitted, Moody(), into=tmp_path / "r")


def test_a_run_without_failures_is_written_as_before(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    found = go(fitted, surrogate, into=tmp_path / "r")
    assert found.failed == {} and search.load(tmp_path / "r").failed == {}
    assert "failed" not in pd.read_parquet(tmp_path / "r" / "evaluations.parquet").columns
    assert '"failed"' not in (tmp_path / "r" / "run.json").read_text()
    assert "estimator" not in search.load(tmp_path / "r").settings
    assert not (tmp_path / "r" / "accuracy.db").exists()


@pytest.mark.slow
def test_additive_stays_within_its_range() -> None:
    tiny = Architecture.parse("r1_k3_s22_conv_i8_o8 head8 res32")
    found = Additive().estimate([tiny, zoo.network("mnasnet-a1")])
    assert (found.top1 >= 0).all() and (found.top1 <= 1).all()


def test_a_run_with_failed_networks_is_ranked_again_plotted_and_reported(
    fitted: LatencyModel, tmp_path: Path
) -> None:
    from phonenas.report import write_report
    from phonenas.report.plots import front_points
    from phonenas.search.validation.rerank import rerank

    found = go(fitted, Moody(), into=tmp_path / "r", spec=search.Spec(trust=1.5))
    run = search.load(tmp_path / "r", SPACE)
    assert run.failed
    again = rerank(run, fitted, {}, tmp_path / "r" / "round2")
    assert again.spec.trust == 1.5
    assert [c.block_args for c in again.front] == [c.block_args for c in found.front]
    assert search.load(tmp_path / "r" / "round2").failed == run.failed
    assert all(np.isfinite(p.top1) for p in front_points(run))
    assert "The search" in write_report(tmp_path / "r", None).read_text(encoding="utf-8")


@pytest.mark.slow
def test_workers_estimate_as_one_process_does() -> None:
    pytest.importorskip("torch")
    networks = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(0), 4)]
    request = Request(space=SPACE, seed=1)
    alone = estimator("zero_cost:naswot", request)
    many = estimator("zero_cost:naswot", replace(request, workers=LastFirst()))
    assert isinstance(many, Distributed) and many.digest == alone.digest and many.slow
    one, other = alone.estimate(networks), many.estimate(networks)
    assert (one.top1 == other.top1).all() and (one.standard_error == other.standard_error).all()
    assert all(s > 0 for s in other.seconds)
    serial = estimator("zero_cost:naswot", replace(request, workers=Serial()))
    assert serial.digest == alone.digest and not isinstance(serial, Distributed)
    with pytest.raises(InvalidArgument, match="leave --workers and --ray out"):
        estimator("surrogate", Request(workers=LastFirst()))


def test_a_worker_whose_estimator_is_another_says_so() -> None:
    with pytest.raises(SettingsChanged, match="a worker's estimator is"):
        estimate_on(Surrogate, {}, "another", str(zoo.network("mnasnet-a1")))


def test_a_slow_search_tells_each_network_and_how_it_was_asked(
    fitted: LatencyModel, tmp_path: Path
) -> None:
    from phonenas.search.loop import Estimated

    slow = Moody()
    slow.slow = True
    told: list[Any] = []
    words = {"accuracy": "moody:all", "held-out": "0.2"}
    slow.options = words
    found = go(fitted, slow, into=tmp_path / "r", on_event=told.append)
    each = [e for e in told if isinstance(e, Estimated)]
    assert len(each) == found.evaluations
    assert all(1 <= e.done <= e.networks and e.mean_s >= 0 for e in each)
    run = search.load(tmp_path / "r")
    assert run.settings["asked"] == words
    from phonenas.report import write_report

    page = write_report(tmp_path / "r", None).read_text(encoding="utf-8")
    assert "--accuracy" in page and "moody:all" in page and "--held-out" in page


def test_a_listener_hears_of_its_own_search_only(fitted: LatencyModel, tmp_path: Path) -> None:
    from phonenas.search.accuracy.cache import Cached

    caller = Cached(Moody(), tmp_path / "accuracy.db")
    events: list[Any] = []
    go(fitted, caller, into=tmp_path / "a", on_event=events.append)
    first = len(events)
    assert first > 0 and caller.on_asked is None
    go(fitted, caller, "random", into=tmp_path / "b")
    assert len(events) == first and caller.asked > 120

    def stop(event: object) -> None:
        raise _Stop

    with pytest.raises(_Stop):
        go(fitted, caller, "weighted", into=tmp_path / "c", on_event=stop)
    assert caller.on_asked is None


def test_a_strangers_estimator_is_there_by_module_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        """
import numpy as np
from phonenas.search.accuracy import Accuracy, AccuracyEstimator

class Half(AccuracyEstimator):
    name, form, takes = "half", "half[:SHARE]", ("unit",)
    digest, cost_s = "half", 0.0

    def __init__(self, share=0.5, unit=None):
        self.share, self.unit = share, unit

    @classmethod
    def make(cls, request):
        return cls(float(request.argument or 0.5), request.unit)

    def estimate(self, architectures):
        n = len(architectures)
        return Accuracy(np.full(n, self.share), np.full(n, 0.1), np.zeros(n, bool))

def no_class(): ...
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    half: Any = estimator("theirs:Half:0.25", Request(unit="share"))
    assert (half.share, half.unit) == (0.25, "share")
    assert estimator("theirs:Half").estimate([zoo.network("mnasnet-a1")]).top1.tolist() == [0.5]
    with pytest.raises(InvalidArgument, match=r"half\[:SHARE\] does not use --epochs"):
        estimator("theirs:Half", Request(epochs=3))
    with pytest.raises(InvalidArgument, match="not an AccuracyEstimator class"):
        estimator("theirs:no_class")
    with pytest.raises(UnknownName, match="theirs:None, which cannot be imported"):
        estimator("theirs:None")
    point = importlib.metadata.EntryPoint("half", "theirs:Half", "phonenas.estimators")
    theirs = Registry[Any]("accuracy estimator", "phonenas.estimators", ESTIMATORS.own)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    monkeypatch.setattr(registry, "ESTIMATORS", theirs)
    assert "half" in theirs.help()
    assert estimator("half:0.75").estimate([zoo.network("mnasnet-a1")]).top1.tolist() == [0.75]
