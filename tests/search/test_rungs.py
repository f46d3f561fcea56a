"""Successive halving: who goes on, what strategies learn, what the front holds; and the resume."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace
from patience import PATIENCE_S
from resumed import ends_alike

from phonenas import search
from phonenas.data.images import ImageSet
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Cached, ImageNet, SuccessiveHalving
from phonenas.search.accuracy.cache import kept_rows
from phonenas.search.accuracy.quantisation.quantised import Quantised
from phonenas.search.accuracy.short_training import ShortTraining
from phonenas.search.accuracy.successive_halving import rungs_of
from phonenas.search.checkpoint import read_checkpoint
from phonenas.search.evaluations import Evaluations
from phonenas.search.loop import Estimated
from phonenas.search.run_document import estimate_of, trained_for
from phonenas.search.rungs import RungEvaluator, promotable
from phonenas.search.training.recipe import SMALL
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument
from phonenas.testing import EstimatorContract, SimulatedTraining


def top1_of(network: Architecture) -> float:
    """More channels are better, with a part that only the text knows."""
    return 0.5 + 0.3 * (network.macs % 1_000_003) / 1_000_003


def halving(slow: bool = False, factor: int = 3, broken: Sequence[str] = ()) -> SuccessiveHalving:
    return SuccessiveHalving(SimulatedTraining(top1_of, 9, slow=slow, broken=broken), factor)


class TestSuccessiveHalving(EstimatorContract):
    @pytest.fixture
    def estimator(self) -> SuccessiveHalving:
        return halving()

    def again(self, estimator: object) -> SuccessiveHalving:
        return halving()


def test_rungs_end_with_all_epochs() -> None:
    assert rungs_of(9, 3) == (1, 3, 9)
    assert rungs_of(10, 3) == (1, 3, 10)
    assert rungs_of(8, 2) == (1, 2, 4, 8)
    assert rungs_of(5, 3) == (1, 5)
    assert rungs_of(27, 3, least=3) == (3, 9, 27)
    assert rungs_of(27, 3, least=4) == (9, 27)


def test_a_plan_counts_epochs_from_where_trainings_paused() -> None:
    plan = halving()
    assert plan.networks(27) == (27, 9, 3)
    assert plan.epochs_in_all(27) == 27 + 9 * 2 + 3 * 6


def test_the_last_step_is_the_whole_training() -> None:
    whole = SimulatedTraining(top1_of, 9)
    steps = halving().steps
    assert steps[-1].digest == whole.digest
    assert len({step.digest for step in steps}) == 3


def test_networks_in_int8_go_on_like_those_they_are_made_of(tiny: TinySpace) -> None:
    network = [tiny.decode(tiny.sample(np.random.default_rng(0), 1)[0])]
    floats = SimulatedTraining(top1_of, 9)
    whole = Quantised(floats)
    steps = SuccessiveHalving(whole, 3).steps
    assert steps[-1].digest == whole.digest
    assert steps[-1].estimate(network).top1[0] == whole.estimate(network).top1[0]
    assert steps[0].estimate(network).top1[0] < floats.after(1).estimate(network).top1[0]


def test_steps_in_int8_keep_what_was_trained_of_float32(tiny: TinySpace, tmp_path: Path) -> None:
    network = [tiny.decode(tiny.sample(np.random.default_rng(0), 1)[0])]
    floats = SimulatedTraining(top1_of, 9, slow=True)
    whole = Quantised(floats)
    kept, told = SuccessiveHalving(whole, 3, folder=tmp_path), SuccessiveHalving(whole, 3)
    assert len(kept.caches) == 3 and kept.digest == told.digest
    assert kept.steps[0].estimate(network).top1 == told.steps[0].estimate(network).top1
    (row,) = kept_rows(tmp_path / "accuracy.db", floats.after(1).digest)
    assert row[1] == pytest.approx(floats.after(1).estimate(network).top1[0])


def test_what_cannot_pause_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="imagenet trains no network"):
        SuccessiveHalving(ImageNet())
    with pytest.raises(InvalidArgument, match="2 or more"):
        halving(factor=1)
    with pytest.raises(InvalidArgument, match="give 10 epochs or more"):
        halving(factor=10)
    with pytest.raises(InvalidArgument, match="give 12 epochs or more"):
        SuccessiveHalving(SimulatedTraining(top1_of, 9), 3, least=4)


def test_the_best_third_goes_on_and_the_loneliest_of_a_rank_first() -> None:
    # Two ranks: the first three rows, of which the middle one has near neighbours; then the rest.
    losses = np.array(
        [[0.1, 9.0], [0.5, 5.0], [0.52, 4.9], [0.9, 1.0], [0.6, 9.5], [0.95, 9.6], [0.97, 9.9]]
    )
    none = np.zeros(7, bool)
    assert promotable(losses[:2], none[:2], 3).tolist() == []
    assert sorted(promotable(losses, none, 3).tolist()) == [0, 3]
    assert sorted(promotable(losses, none, 2).tolist()) == [0, 1, 3]
    assert promotable(losses, np.arange(7) == 0, 3).tolist() == [3]


class Told(SimulatedTraining):
    """Trainings whose top-1, and its error after the first epoch, are told; later it is 0.01."""

    def __init__(self, told: Mapping[str, tuple[float, float]]) -> None:
        super().__init__(lambda _: 0.0, 9)
        self.told = told

    def _read(self, network: Architecture) -> tuple[float, float, float, str]:
        top1, error = self.told[str(network)]
        return top1, error if self.read_at == 1 else 0.01, 1.0, ""


def by_latency(tiny: TinySpace, fitted: LatencyModel, n: int) -> np.ndarray:
    """Genomes of n networks, each slower than the one before."""
    drawn = tiny.sample(np.random.default_rng(0), 200)
    ms, first = np.unique(fitted.on(tiny)(drawn), return_index=True)
    assert len(ms) >= n
    return np.asarray(drawn[first[:n]])


def test_a_rung_compares_what_was_known_on_it(tiny: TinySpace, fitted: LatencyModel) -> None:
    """Who went on has a smaller error now, and keeps the rank that it had in this rung."""
    genomes = by_latency(tiny, fitted, 6)
    first, second, third = (tiny.text(g) for g in genomes[:3])
    told = {tiny.text(g): (0.30, 0.01) for g in genomes}
    # 0.54 at least, 0.52 and 0.50; and after more epochs the third has 0.59.
    told |= {first: (0.55, 0.01), second: (0.53, 0.01), third: (0.60, 0.10)}
    evaluator = RungEvaluator(
        tiny, fitted, SuccessiveHalving(Told(told), 3), search.Spec(trust=1.0)
    )
    epochs: dict[str, float] = {}

    def go_on(rows: list[int]) -> np.ndarray:
        _, losses, _ = evaluator(genomes[rows], len(rows))
        known = evaluator.evaluations()
        assert known is not None
        epochs.update(zip(map(tiny.text, known.genomes), known.further["epochs"], strict=True))
        for genome, error in zip(known.genomes, known.top1_error, strict=True):
            name = tiny.text(genome)
            assert error == (told[name][1] if epochs[name] == 1 else 0.01)
        return losses

    go_on([2, 3, 4])
    assert epochs[third] == 3 and sorted(epochs.values()) == [1, 1, 3]
    go_on([0, 1, 5])
    # Of these three nobody beats the third now, which came first.
    assert epochs[first] == epochs[second] == 3 and epochs[third] == 9
    # A training that has ended is told with its own error: 1 - (0.60 - 0.01).
    assert go_on([2])[0, 0] == pytest.approx(0.41)


def test_networks_that_failed_are_not_counted_for_a_third(
    tiny: TinySpace, fitted: LatencyModel
) -> None:
    genomes = by_latency(tiny, fitted, 27)

    def epochs(broken: Sequence[str] = ()) -> dict[str, float]:
        evaluator = RungEvaluator(tiny, fitted, halving(broken=broken), search.Spec())
        evaluator(genomes, 27)
        known = evaluator.evaluations()
        assert known is not None
        return dict(zip(map(tiny.text, known.genomes), known.further["epochs"], strict=True))

    whole = epochs()
    assert np.bincount([int(e) for e in whole.values()])[[1, 3, 9]].tolist() == [18, 6, 3]
    broken = [name for name, reached in whole.items() if reached == 3]
    # Of nine that went on three have a top-1 after three epochs: one in three goes on to the end.
    found = epochs(broken)
    assert sorted(found[n] for n in whole if whole[n] == 9) == [3, 3, 9]


def go(
    tiny: TinySpace, fitted: LatencyModel, accuracy: SuccessiveHalving, budget: object, into: Path
) -> search.Searched:
    return search.search(
        tiny,
        latency=fitted,
        accuracy=accuracy,
        strategy=search.get("nsga2", seed=1),
        evaluations=budget,  # type: ignore[arg-type]
        into=into,
    )


def test_the_front_is_of_those_trained_in_full(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    found = go(tiny, fitted, halving(), 90, tmp_path / "r")
    run = search.load(tmp_path / "r")
    known = run.evaluations()
    epochs = known.further["epochs"]
    assert set(epochs.tolist()) == {1.0, 3.0, 9.0}
    assert found.rungs == {e: int((epochs >= e).sum()) for e in (1, 3, 9)}
    # A rung's share is one in three of all that were there, and some that were among them once.
    assert 90 // 3 <= found.rungs[3] <= 45
    assert found.rungs[3] // 3 <= found.rungs[9] <= 20
    assert {c.values["epochs"] for c in found.front} == {9.0}
    whole = SimulatedTraining(top1_of, 9)
    for candidate in found.front:
        assert candidate.top1 == whole.estimate([candidate.architecture]).top1[0]
    best = known.top1[epochs == 9].max()
    assert max(c.top1 for c in found.front) == best
    # Each epoch of a network is trained once: a second of simulated time each.
    assert found.trained_s == found.rungs[1] + 2 * found.rungs[3] + 6 * found.rungs[9]
    assert "epochs" in pd.read_parquet(tmp_path / "r" / "evaluations.parquet")


def test_strategies_learn_what_a_network_is_expected_to_have_in_the_end(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[bytes, float] = {}
    tell = search.RandomSearch.tell

    def listen(self: object, genomes: np.ndarray, told: np.ndarray, violation: object) -> None:
        losses.update(zip(tiny.keys(genomes), told[:, 0].tolist(), strict=True))
        tell(self, genomes, told, violation)  # type: ignore[arg-type]

    monkeypatch.setattr(search.RandomSearch, "tell", listen)
    search.search(
        tiny,
        latency=fitted,
        accuracy=halving(),
        strategy=search.get("random"),
        evaluations=200,
        into=tmp_path / "r",
    )
    known = search.load(tmp_path / "r").evaluations()
    told = 1 - np.array([losses[key] for key in tiny.keys(known.genomes)])
    first = known.further["epochs"] == 1
    truth = np.array([top1_of(tiny.decode(g)) for g in known.genomes])
    # After one epoch networks lie 0.12 behind; what is told lies about where they end.
    assert np.mean(truth[first] - known.top1[first]) > 0.08
    assert abs(np.mean(truth[first] - told[first])) < 0.03


def test_what_is_extrapolated_is_trusted_less(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    losses = search.Spec.losses

    def listen(self: search.Spec, evaluated: Evaluations) -> np.ndarray:
        asked.append((evaluated.further["epochs"], evaluated.top1_error))
        return losses(self, evaluated)

    tell = search.RandomSearch.tell
    told: list[tuple[np.ndarray, np.ndarray]] = []

    def told_now(self: object, *given: object) -> None:
        told.append(asked[-1])
        tell(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(search.Spec, "losses", listen)
    monkeypatch.setattr(search.RandomSearch, "tell", told_now)
    search.search(
        tiny,
        latency=fitted,
        accuracy=halving(),
        strategy=search.get("random"),
        evaluations=90,
        into=tmp_path / "r",
    )
    epochs, error = (np.concatenate(parts) for parts in zip(*told, strict=True))
    read = search.load(tmp_path / "r").evaluations()
    first = read.further["epochs"] == 1
    assert error[epochs == 1].min() > 1.05 * read.top1_error[first].max()


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 37, 40])
def test_a_search_goes_on_as_if_all_had_been_given_at_once(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path, first: int
) -> None:
    go(tiny, fitted, halving(slow=True), 80, tmp_path / "whole")
    go(tiny, fitted, halving(slow=True), first, tmp_path / "r")
    again = go(tiny, fitted, halving(slow=True), first, tmp_path / "r")
    assert again.evaluations == first
    go(tiny, fitted, halving(slow=True), 80, tmp_path / "r")
    ends_alike(tmp_path / "r", tmp_path / "whole")


class _Killed(Exception):
    pass


@pytest.mark.parametrize("rung", [3, 9])
def test_a_run_killed_in_the_middle_of_a_rung_goes_on_from_there(
    tiny: TinySpace,
    fitted: LatencyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rung: int,
) -> None:
    """Killed between two networks that go on together, in a later generation than the first."""
    monkeypatch.setattr("phonenas.search.run_folder._INTERVAL_S", 0.0)
    monkeypatch.setattr("phonenas.search.run_folder._SHARE", 0)
    # Each answer is handed over, and kept, as soon as it is there.
    monkeypatch.setattr(SimulatedTraining, "cost_s", 100.0)
    read, asked, dies_at = SimulatedTraining._read, list[tuple[str, int]](), -1

    def listen(self: SimulatedTraining, network: Architecture) -> object:
        if len(asked) == dies_at:
            raise _Killed
        asked.append((str(network), self.read_at))
        return read(self, network)

    monkeypatch.setattr(SimulatedTraining, "_read", listen)
    go(tiny, fitted, halving(slow=True), 80, tmp_path / "whole")
    whole = list(asked)
    pairs = [i for i in range(1, len(whole)) if whole[i - 1][1] == whole[i][1] == rung]
    dies_at = pairs[-1]
    asked.clear()
    with pytest.raises(_Killed):
        go(tiny, fitted, halving(slow=True), 80, tmp_path / "r")
    assert asked == whole[:dies_at]
    # What it left: generations that ended, and of the one after them a part of a rung.
    stopped = read_checkpoint(tmp_path / "r", search.load(tmp_path / "whole").settings)
    assert stopped is not None and len(stopped.log) >= 2
    texts = map(tiny.text, stopped.evaluations.genomes)
    reached = dict(zip(texts, stopped.evaluations.further["epochs"].tolist(), strict=True))
    (last, _), (missing, _) = whole[dies_at - 1 : dies_at + 1]
    step = SimulatedTraining(top1_of, 9).after(rung)
    kept = {text for text, *_ in kept_rows(tmp_path / "r" / "accuracy.db", step.digest)}
    assert last in kept and missing not in kept
    assert reached.get(last, 1) < rung and 0 < len(reached) < 80
    assert rung in reached.values()
    # What it does then: no more than what is missing, in the same order, to the same end.
    resumed: list[int] = []
    resume = RungEvaluator.resume

    def heard(self: RungEvaluator, evaluated: Evaluations, log: object, timed: bool) -> None:
        resumed.append(len(evaluated))
        resume(self, evaluated, log, timed)  # type: ignore[arg-type]

    monkeypatch.setattr(RungEvaluator, "resume", heard)
    dies_at = -1
    asked.clear()
    again = go(tiny, fitted, halving(slow=True), 80, tmp_path / "r")
    assert resumed == [len(stopped.evaluations)] == [again.resumed_from]
    assert asked == whole[pairs[-1] :]
    ends_alike(tmp_path / "r", tmp_path / "whole")


_JOB = """
import os, signal, sqlite3, sys
sys.path[:0] = {tests!r}
from fakes import TinySpace
from test_rungs import HALVED
from phonenas import latency_model, search
from phonenas.search.accuracy.short_training import train_briefly
from phonenas.search.run_folder import RunFolder
from phonenas.testing import SimulatedTraining
RunFolder.due = lambda self: True
writes = {{"fsync", "link", "mkdir", "open", "rename", "replace", "unlink", "write"}}
trainings = {{SimulatedTraining._read.__code__, train_briefly.__code__}}
moments = 0

def count(frame, event, called):
    global moments
    if event in ("c_call", "c_return"):
        owner = getattr(called, "__self__", None)
        touches = isinstance(owner, sqlite3.Connection | sqlite3.Cursor) or (
            called.__name__ in writes and not isinstance(owner, str | bytes)
        )
    else:
        touches = frame.f_code in trainings
    moments += touches
    if touches and moments == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

accuracy, evaluations = HALVED[{accuracy!r}]()
given = {{"population": 4}} if {strategy!r} == "nsga2" else {{}}  # more generations
model, strategy = latency_model.load({model!r}), search.get({strategy!r}, seed=1, given=given)
sys.setprofile(count)
search.search(TinySpace(resolution=32), latency=model, accuracy=accuracy, strategy=strategy,
    evaluations=evaluations, into={into!r})
sys.setprofile(None)
print("done", moments)
"""


def simulated() -> tuple[SuccessiveHalving, int]:
    return halving(slow=True), 45


def training() -> ShortTraining:
    """Real trainings, of four epochs of sixteen images."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    images = ImageSet.of(pixels, np.arange(20) % 2, ("cold", "warm"))
    recipe = SMALL.changed(epochs=4, batch=16)
    return ShortTraining(images, recipe=recipe, hold_out=0.2)


def trained() -> tuple[SuccessiveHalving, int]:
    return SuccessiveHalving(training(), 2), 12


def inherited() -> tuple[SuccessiveHalving, int]:
    return SuccessiveHalving(training().inheriting(), 2), 12


def inherited_in_full() -> tuple[ShortTraining, int]:
    return training().inheriting(), 12


HALVED = {
    "simulated": simulated,
    "trained": trained,
    "inherited": inherited,
    "inherited in full": inherited_in_full,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("accuracy", "strategy", "generations"),
    [
        ("simulated", "nsga2", 6),
        ("simulated", "surrogate", 6),
        ("trained", "nsga2", 2),
        ("inherited", "nsga2", 2),
        ("inherited in full", "nsga2", 2),
    ],
)
def test_killed_at_random_moments_it_ends_the_same(
    fitted: LatencyModel,
    tmp_path: Path,
    environment: dict[str, str],
    accuracy: str,
    strategy: str,
    generations: int,
) -> None:
    """A moment is before or after a write, or a training, of the search; which, is drawn."""
    if accuracy != "simulated":
        pytest.importorskip("torch")
        pytest.importorskip("safetensors")
    here, model = Path(__file__).parent, fitted.save(tmp_path / "m.json")
    given = {"tests": [str(here), str(here.parent)], "model": str(model)}

    def job(into: str, at: int = 0) -> subprocess.CompletedProcess[str]:
        own = {"accuracy": accuracy, "strategy": strategy, "into": str(tmp_path / into), "at": at}
        words = [sys.executable, "-c", _JOB.format(**given, **own)]
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=PATIENCE_S * 2
        )

    def ends(into: str) -> int:
        done = job(into)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1])

    moments = ends("whole")
    known = search.load(tmp_path / "whole").evaluations().further
    assert accuracy == "inherited in full" or len({*known["epochs"].tolist()}) == 3
    assert "inherited" not in accuracy or known["source"].max() > 0
    settings = search.load(tmp_path / "whole").settings
    drawn, left, killed, runs = random.Random(1), list[int](), 0, 0
    kills = 20 if accuracy == "simulated" else 6  # each of the others trains networks anew
    for _ in range(4 * kills):  # a run that ends before its moment is followed by a new one
        done = job(f"r{runs}", drawn.randrange(1, moments))
        runs += done.returncode == 0
        if done.returncode:
            assert done.returncode == -signal.SIGKILL, done.stderr
            killed += 1
            stopped = None
            if (tmp_path / f"r{runs}" / "checkpoint.npz").exists():
                stopped = read_checkpoint(tmp_path / f"r{runs}", settings)
            left.append(0 if stopped is None else len(stopped.evaluations))
        if killed == kills:
            break
    assert killed == kills and len({*left}) >= generations
    ends(f"r{runs}")
    for run in range(runs + 1):
        ends_alike(tmp_path / f"r{run}", tmp_path / "whole")


def test_patience_is_refused(tiny: TinySpace, fitted: LatencyModel, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="patience goes without halving"):
        go(tiny, fitted, halving(), search.Budget(60, patience=20), tmp_path / "r")


def test_failures_are_not_tried_again_in_a_run_that_has_begun(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    again = Cached(SimulatedTraining(top1_of, 9), tmp_path / "r" / "accuracy.db", again=True)
    go(tiny, fitted, SuccessiveHalving(again), 30, tmp_path / "r")
    with pytest.raises(InvalidArgument, match="which has begun by halving"):
        go(tiny, fitted, SuccessiveHalving(again), 60, tmp_path / "r")


def test_a_front_of_networks_trained_in_part_says_so(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    part = go(tiny, fitted, halving(), 8, tmp_path / "part")
    run = search.load(tmp_path / "part")
    assert max(part.rungs) == 3
    assert estimate_of(run.settings, run.front).schedule == "3 of 9 simulated epochs"
    whole = go(tiny, fitted, halving(), 90, tmp_path / "whole")
    assert trained_for("9 simulated epochs", whole.front) == "9 simulated epochs"


def test_the_bar_counts_networks_to_begin_on_the_first_rung_alone(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    left: list[list[int]] = [[]]

    def listen(event: object) -> None:
        if isinstance(event, Estimated):
            left[-1].append(event.left)
        else:
            left.append([])

    search.search(
        tiny,
        latency=fitted,
        accuracy=halving(),
        strategy=search.get("random"),
        evaluations=90,
        into=tmp_path / "r",
        on_event=listen,
    )
    assert left[0][0] > 0 and left[0][-1] == 0


@pytest.mark.slow
def test_a_budget_of_training_ends_the_search_and_a_greater_one_goes_on(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    found = go(tiny, fitted, halving(slow=True), search.Budget(500, training_s=60), tmp_path / "r")
    assert found.ended == "training"
    assert 60 <= found.trained_s < 120
    again = go(tiny, fitted, halving(slow=True), search.Budget(500, training_s=60), tmp_path / "r")
    assert again.evaluations == found.evaluations
    more = go(tiny, fitted, halving(slow=True), search.Budget(500, training_s=200), tmp_path / "r")
    assert more.evaluations > found.evaluations and more.trained_s >= 200
    whole = search.Budget(500, training_s=200)
    go(tiny, fitted, halving(slow=True), whole, tmp_path / "whole")
    assert search.load(tmp_path / "r").front == search.load(tmp_path / "whole").front


def test_a_network_that_fails_on_a_later_rung_is_told_and_in_no_front(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    first = go(tiny, fitted, halving(), 60, tmp_path / "r")
    broken = [c.block_args for c in first.front][:1]
    found = go(tiny, fitted, halving(broken=broken), 60, tmp_path / "b")
    assert found.failed == {"it diverged": 1}
    assert broken[0] not in {c.block_args for c in found.front}


def test_limits_keep_networks_from_going_on(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    drawn = tiny.sample(np.random.default_rng(0), 200)
    target_ms = float(np.median(fitted.on(tiny)(drawn)))
    search.search(
        tiny,
        latency=fitted,
        accuracy=halving(),
        strategy=search.get("random"),
        spec=search.Spec(search.Target(target_ms)),
        evaluations=90,
        into=tmp_path / "r",
    )
    known = search.load(tmp_path / "r").evaluations()
    beyond = known.latency_ms > target_ms
    assert beyond.sum() > 20
    assert (known.further["epochs"][beyond] == 1).all()


def test_answers_are_kept_for_each_rung(
    tiny: TinySpace, fitted: LatencyModel, tmp_path: Path
) -> None:
    found = go(tiny, fitted, halving(slow=True), 60, tmp_path / "r")
    steps = halving(slow=True).within(tmp_path / "r").caches
    networks = [c.architecture for c in found.front]
    for step in steps:
        assert isinstance(step, Cached)
        step.estimate(networks)
        assert (step.known, step.asked) == (len(networks), 0)
