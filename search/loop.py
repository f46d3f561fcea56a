"""run(): ask, estimate, tell; with a budget, a checkpoint and exact resume."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..latency_model import LatencyModel
from ..space import AdditiveTable, SearchSpace
from ..space.errors import Infeasible, InvalidArgument, UnsupportedFormat
from .accuracy import AccuracyEstimator
from .accuracy.cache import Cached, kept
from .aims import Aims
from .judge import Judge
from .limits import Limit
from .objectives import Objective
from .pareto import Candidate, ParetoFront, non_dominated
from .reward import SOFT, check_target, reward
from .run_folder import NUMBERS, RunFolder
from .strategy import Strategy

__all__ = ["Estimated", "Evaluated", "Searched", "run", "search"]

log = logging.getLogger("phonenas")

_SHIPPED = "surrogate-1-"  # as digests begin of runs that need not name their estimator
_STALE_ASKS = 200  # asks in a row that bring nothing new: the space is exhausted


@dataclass(frozen=True)
class Evaluated:
    """Event: a generation was judged.

    Args:
        evaluations, budget: Distinct networks judged, and how many in all.
        repeats: Proposals that were known already, and cost nothing.
        fastest_ms, best_top1: Of all seen so far, whether they meet the target or not.
        hypervolume: Of the front so far, share of the box; None with more than three objectives.
        seconds: Since the run began, stops left out.
        failed: Of those judged, how many got no accuracy.
    """

    evaluations: int
    budget: int
    repeats: int
    fastest_ms: float
    best_top1: float
    hypervolume: float | None = None
    seconds: float = 0.0
    failed: int = 0


@dataclass(frozen=True)
class Estimated:
    """Event: a slow estimator gave one more network of a generation its accuracy.

    Args:
        done, networks: Of those in this generation that it was not asked for before.
        mean_s: What one took so far, by the wall clock, in seconds.
        left: Of the whole search, at most so many more.
    """

    done: int
    networks: int
    mean_s: float
    left: int


@dataclass(frozen=True)
class Searched:
    """What a search did, and its front.

    `evaluations` counts distinct networks, `repeats` proposals that were known already;
    `resumed_from` is the evaluation at which a stopped run was taken up, 0 for a new one. `failed`
    counts the networks that got no accuracy, by reason; they are among the evaluations.
    """

    front: ParetoFront
    strategy: str
    evaluations: int
    repeats: int
    seconds: float
    resumed_from: int
    failed: Mapping[str, int] = field(default_factory=dict)


def run(
    space: SearchSpace,
    *,
    latency: LatencyModel,
    accuracy: AccuracyEstimator,
    strategy: Strategy,
    target_ms: float | None = None,
    evaluations: int = 8000,
    into: str | Path | None = None,
    target: str = "",
    soft: bool = False,
    chance: float | None = None,
    also: Sequence[Objective] = (),
    limits: Sequence[Limit] = (),
    on_event: Callable[[Evaluated | Estimated], None] | None = None,
) -> ParetoFront:
    """Search a space for networks that are accurate and fast; see `search` for the details.

    Returns the front alone.
    """
    return search(
        space,
        latency=latency,
        accuracy=accuracy,
        strategy=strategy,
        target_ms=target_ms,
        evaluations=evaluations,
        into=into,
        target=target,
        soft=soft,
        chance=chance,
        also=also,
        limits=limits,
        on_event=on_event,
    ).front


def search(
    space: SearchSpace,
    *,
    latency: LatencyModel,
    accuracy: AccuracyEstimator,
    strategy: Strategy,
    target_ms: float | None = None,
    evaluations: int = 8000,
    into: str | Path | None = None,
    target: str = "",
    soft: bool = False,
    chance: float | None = None,
    also: Sequence[Objective] = (),
    limits: Sequence[Limit] = (),
    asked: Mapping[str, str] | None = None,
    again: bool = False,
    on_event: Callable[[Evaluated | Estimated], None] | None = None,
) -> Searched:
    """Search a space for networks that are accurate and fast.

    Args:
        space: Where to look.
        latency: A fitted model of the device.
        accuracy: Of top-1.
        strategy: New, with its seed.
        target_ms: Constraint on predicted latency, in ms, > 0; networks beyond it rank behind
            all within it and never enter the front. None for the whole front.
        evaluations: Distinct networks to judge, ≥ 1.
        into: Run folder; a run stopped in it is taken up and ends as if never stopped. What a slow
            estimator says is kept in its `accuracy.db`, network by network.
        target: How the target was given, kept for the report.
        soft: The target only weighs, by the paper's soft exponents: what lies beyond it stays in
            the front, with a smaller reward. `weighted` and `rl` follow that reward, and must have
            those exponents; the others look for the whole front.
        chance: Least probability that a measurement meets the target, in (0, 1), by the model's
            interval. None: the prediction is held to the target.
        also: Objectives besides top-1 and latency; the front is that of all.
        limits: Bounds on anything, hard or soft.
        asked: Options of the command line that named the estimator, kept for the report.
        again: Ask a slow estimator anew, once, for what failed according to the folder's
            `accuracy.db`; networks that a stopped run has judged keep what they were told.
        on_event: Called with `Evaluated` after each generation, and within one with `Estimated`
            for each network that a slow estimator, kept in the folder, was asked for.
    Raises:
        InvalidArgument: A target, chance or budget out of range.
        SettingsChanged: The folder holds a run with other settings; both values are named.
        Infeasible: A short look beforehand found no network that meets the target and the
            limits, or the search saw none; the closest is named.
        InvalidObjective: A user's function gave no number; the network is named.
        NotEnoughData: No network at all, of the first 20 or of all, got an accuracy.
        UncoveredOperator: The model cannot predict some operator of the space.
        StoreError: The folder cannot be written.
    """
    if evaluations < 1:
        raise InvalidArgument(f"evaluations: 1 or more, got {evaluations}")
    if target_ms is not None:
        target_ms = check_target(target_ms)
    aims = Aims(target_ms, soft, chance, tuple(also), tuple(limits))
    settings = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "latency_model": latency.digest,
        "device": latency.device,
        "accuracy": accuracy.digest,
        "target_ms": target_ms,
        "target": target or (f"{target_ms:g}" if target_ms else ""),
        "evaluations": evaluations,
        **aims.settings,
        **strategy.settings,
    }
    # A soft target is nothing but the reward's; who follows no reward looks for the whole front.
    follows = getattr(strategy, "exponents", None)
    if soft and follows not in (None, SOFT):
        raise InvalidArgument(
            f"a soft target needs soft exponents, and {strategy.name} has {follows}: make it with exponents=SOFT"
        )
    if accuracy.name != "recorded" and not accuracy.digest.startswith(_SHIPPED):
        settings |= {"estimator": accuracy.name, "scale": accuracy.note}
    if asked:
        settings |= {"asked": dict(asked)}
    if into is not None:
        accuracy = kept(accuracy, Path(into) / "accuracy.db", again=again)
    began = time.monotonic()
    judge = Judge(space, latency, accuracy, aims)
    if isinstance(accuracy, Cached) and on_event is not None:
        tell = on_event
        accuracy.on_asked = lambda done, of, mean_s: tell(
            Estimated(done, of, mean_s, max(0, evaluations - len(judge) - done))
        )
    if into is None or not (Path(into) / "run.json").exists():
        judge.refuse_impossible()  # before a folder is made for it
    folder = RunFolder(into, settings, latency.summary()) if into is not None else None
    strategy.start(space, None if soft and follows is None else target_ms, 2 + len(aims.also))
    resumed, before_s, stale = 0, 0.0, 0
    if folder is not None and (stopped := folder.checkpoint()) is not None:
        try:
            judge.remember(space.check(stopped.genomes), stopped.numbers, stopped.failed)
        except InvalidArgument as error:
            raise UnsupportedFormat(
                f"{folder.path / 'checkpoint.npz'} is damaged: {error}. Remove it to start anew."
            ) from error
        log.info("%s: goes on from %d evaluations", folder.path, len(stopped.genomes))
        before_s = stopped.seconds
        stale = stopped.stale
        judge.repeats, judge.log = stopped.repeats, [tuple(row) for row in stopped.log.tolist()]
        strategy.restore(stopped.state, stopped.genomes)
        resumed = len(judge)
    over = folder is not None and folder.finished()
    while not over and len(judge) < evaluations and stale < _STALE_ASKS:
        genomes = strategy.ask(evaluations - len(judge))
        if not len(genomes):
            break
        before = len(judge)
        taken, losses, violation = judge(genomes, evaluations - len(judge))
        strategy.tell(genomes[:taken], losses, violation)
        stale = 0 if len(judge) > before else stale + 1
        seconds = before_s + time.monotonic() - began
        row = judge.note(seconds)
        if on_event is not None:
            volume = None if np.isnan(row[2]) else row[2]
            event = Evaluated(
                len(judge), evaluations, judge.repeats, row[3], row[4], volume, seconds,
                len(judge.failed),
            )  # fmt: skip
            on_event(event)
        if folder is not None and folder.due():
            folder.save(
                strategy.state(),
                *judge.known(),
                judge.repeats,
                seconds,
                judge.log,
                stale,
                judge.failed,
            )
    front = _front(judge, latency, settings)
    seconds = before_s + time.monotonic() - began
    failed = dict(sorted(Counter(judge.failed.values()).items()))
    searched = Searched(front, strategy.name, len(judge), judge.repeats, seconds, resumed, failed)
    if folder is not None and (resumed < len(judge) or not folder.finished()):
        folder.save(
            strategy.state(), *judge.known(), judge.repeats, seconds, judge.log, stale, judge.failed
        )
        folder.finish(front, judge.space, *judge.known(), searched.seconds, judge.failed)
    return searched


def _front(judge: Judge, latency: LatencyModel, settings: dict[str, Any]) -> ParetoFront:
    genomes, numbers = judge.known()
    aims, target_ms = judge.aims, judge.aims.target_ms
    judge.refuse_without_accuracy()
    within = np.flatnonzero(aims.met(numbers) & ~np.isnan(numbers[:, 1]))
    if not len(within):
        raise Infeasible(
            f"none of {len(numbers):,} networks seen meets {aims.words()} on {latency.device}; the fastest takes "
            f"{numbers[:, 0].min():.2f} ms, the closest has {judge.closest()}. Raise --target or the limit, lower "
            "--resolution or give more --evaluations, with another --out."
        )
    space = judge.space
    losses = aims.losses(numbers[within])
    # By latency, then top-1, whatever the losses' order is.
    losses[:, [0, 1]] = losses[:, [1, 0]]
    rows = within[non_dominated(losses)]
    low, high, covered = latency.intervals(space)(genomes[rows])
    counts = AdditiveTable(space, lambda o: (o.macs, o.params))(genomes[rows])
    rewards = (
        reward(numbers[rows, 1], numbers[rows, 0], target_ms) * aims.weights(numbers[rows])
        if target_ms is not None
        else None
    )
    candidates = tuple(
        Candidate(
            id=i,
            block_args=str(space.decode(genomes[row])),
            top1=float(numbers[row, 1]),
            top1_error=float(numbers[row, 2]),
            outside=bool(numbers[row, 3]),
            latency_ms=float(numbers[row, 0]),
            low_ms=float(low[i]),
            high_ms=float(high[i]),
            covered=bool(covered[i]),
            macs=int(counts[i, 0]),
            params=int(counts[i, 1]),
            reward=None if rewards is None else float(rewards[i]),
            values={
                name: float(numbers[row, column])
                for column, name in enumerate(aims.columns)
                if column >= len(NUMBERS)
            },
        )
        for i, row in enumerate(rows)
    )
    return ParetoFront(candidates, target_ms, str(settings["target"]), judge.volume())
