"""run(): ask, estimate, tell; with a budget, a checkpoint and exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..latency_model import LatencyModel
from ..space import AdditiveTable, Genomes, SearchSpace
from ..space.errors import Infeasible, InvalidArgument, UnsupportedFormat
from .accuracy import AccuracyEstimator
from .pareto import Candidate, ParetoFront, hypervolume, non_dominated
from .reward import check_target, reward
from .run_folder import RunFolder
from .strategy import Objectives, Strategy

__all__ = ["Evaluated", "Searched", "run"]

log = logging.getLogger("phonenas")

_STALE_ASKS = 200  # asks in a row that bring nothing new: the space is exhausted


@dataclass(frozen=True)
class Evaluated:
    """Event: a generation was judged."""

    evaluations: int
    budget: int
    repeats: int
    fastest_ms: float
    best_top1: float


@dataclass(frozen=True)
class Searched:
    """What a search did, and its front.

    `evaluations` counts distinct networks, `repeats` proposals that were known already;
    `resumed_from` is the evaluation at which a stopped run was taken up, 0 for a new one.
    """

    front: ParetoFront
    strategy: str
    evaluations: int
    repeats: int
    seconds: float
    resumed_from: int


class _Judge:
    """Judges each network once; remembers all in order."""

    def __init__(
        self,
        space: SearchSpace,
        latency: LatencyModel,
        accuracy: AccuracyEstimator,
        target_ms: float | None,
    ) -> None:
        self.space, self.target_ms = space, target_ms
        self.latency_of = latency.on(space)
        self.accuracy_of = accuracy.on(space)
        self.rows: dict[bytes, int] = {}
        self.genomes: list[Genomes] = []
        self.numbers: list[Objectives] = []
        self.repeats = 0

    def __len__(self) -> int:
        return len(self.rows)

    def known(self) -> tuple[Genomes, Objectives]:
        """All judged genomes, (n, genes), and their latency_ms, top1, error, outside, (n, 4)."""
        if not self.genomes:
            return np.empty((0, len(self.space.option_counts)), np.int8), np.empty((0, 4))
        self.genomes = [np.concatenate(self.genomes)]
        self.numbers = [np.concatenate(self.numbers)]
        return self.genomes[0], self.numbers[0]

    def remember(self, genomes: Genomes, numbers: Objectives) -> None:
        for key in self.space.keys(genomes):
            self.rows.setdefault(key, len(self.rows))
        self.genomes.append(genomes)
        self.numbers.append(numbers)

    def __call__(self, genomes: Genomes, room: int) -> tuple[int, Objectives, Objectives]:
        """Judge; at most `room` new networks. Rows taken, losses (m, 2), violation (m,)."""
        keys = self.space.keys(genomes)
        fresh: dict[bytes, int] = {}
        taken = 0
        for row, key in enumerate(keys):
            if key not in self.rows and key not in fresh:
                if len(fresh) == room:
                    break
                fresh[key] = row
            taken += 1
        self.repeats += taken - len(fresh)
        if fresh:
            new = genomes[list(fresh.values())]
            told = self.accuracy_of(new)
            self.remember(
                new,
                np.column_stack(
                    [self.latency_of(new), told.top1, told.standard_error, told.outside]
                ),
            )
        if len(fresh) == taken:
            numbers = self.numbers[-1]
        else:
            numbers = self.known()[1][[self.rows[k] for k in keys[:taken]]]
        losses = np.column_stack([1 - numbers[:, 1], numbers[:, 0]])
        if self.target_ms is None:
            violation = np.zeros(taken)
        else:
            violation = numbers[:, 0] / self.target_ms - 1
        return taken, losses, violation


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
    on_event: Callable[[Evaluated], None] | None = None,
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
    on_event: Callable[[Evaluated], None] | None = None,
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
        into: Run folder; a run stopped in it is taken up and ends as if never stopped.
        target: How the target was given, kept for the report.
        on_event: Called with `Evaluated` after each generation.
    Raises:
        InvalidArgument: A target or budget out of range.
        SettingsChanged: The folder holds a run with other settings; both values are named.
        Infeasible: No network seen reaches the target; the fastest is named.
        UncoveredOperator: The model cannot predict some operator of the space.
        StoreError: The folder cannot be written.
    """
    if evaluations < 1:
        raise InvalidArgument(f"evaluations: 1 or more, got {evaluations}")
    if target_ms is not None:
        target_ms = check_target(target_ms)
    settings = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "latency_model": latency.digest,
        "device": latency.device,
        "accuracy": accuracy.digest,
        "target_ms": target_ms,
        "target": target or (f"{target_ms:g}" if target_ms else ""),
        "evaluations": evaluations,
        **strategy.settings,
    }
    began = time.monotonic()
    folder = RunFolder(into, settings, latency.summary()) if into is not None else None
    judge = _Judge(space, latency, accuracy, target_ms)
    strategy.start(space, target_ms)
    resumed, before_s = 0, 0.0
    if folder is not None and (stopped := folder.checkpoint()) is not None:
        try:
            judge.remember(space.check(stopped.genomes), stopped.numbers)
        except InvalidArgument as error:
            raise UnsupportedFormat(
                f"{folder.path / 'checkpoint.npz'} is damaged: {error}. Remove it to start anew."
            ) from error
        log.info("%s: goes on from %d evaluations", folder.path, len(stopped.genomes))
        before_s = stopped.seconds
        judge.repeats = stopped.repeats
        strategy.restore(stopped.state, stopped.genomes)
        resumed = len(judge)
    stale = 0
    while len(judge) < evaluations and stale < _STALE_ASKS:
        genomes = strategy.ask(evaluations - len(judge))
        if not len(genomes):
            break
        before = len(judge)
        taken, losses, violation = judge(genomes, evaluations - len(judge))
        strategy.tell(genomes[:taken], losses, violation)
        stale = 0 if len(judge) > before else stale + 1
        if on_event is not None:
            on_event(_event(judge, evaluations))
        if folder is not None and folder.due():
            seconds = before_s + time.monotonic() - began
            folder.save(strategy.state(), *judge.known(), judge.repeats, seconds)
    front = _front(judge, latency, settings)
    seconds = before_s + time.monotonic() - began
    searched = Searched(front, strategy.name, len(judge), judge.repeats, seconds, resumed)
    if folder is not None and (resumed < len(judge) or not folder.finished()):
        folder.save(strategy.state(), *judge.known(), judge.repeats, seconds)
        folder.finish(front, judge.space, *judge.known(), searched.seconds)
    return searched


def _event(judge: _Judge, budget: int) -> Evaluated:
    numbers = judge.numbers[-1]
    return Evaluated(
        len(judge), budget, judge.repeats, float(numbers[:, 0].min()), float(numbers[:, 1].max())
    )


def _front(judge: _Judge, latency: LatencyModel, settings: dict[str, Any]) -> ParetoFront:
    genomes, numbers = judge.known()
    target_ms = settings["target_ms"]
    within = np.arange(len(numbers))
    if target_ms is not None:
        within = np.flatnonzero(numbers[:, 0] <= target_ms)
        if not len(within):
            raise Infeasible(
                f"none of {len(numbers):,} networks seen reaches {target_ms:g} ms on "
                f"{latency.device}; the fastest takes {numbers[:, 0].min():.2f} ms. Raise --target, "
                "lower --resolution or give more --evaluations, with another --out."
            )
    space = judge.space
    losses = np.column_stack([numbers[within, 0], 1 - numbers[within, 1]])
    rows = within[non_dominated(losses)]
    low, high, covered = latency.intervals(space)(genomes[rows])
    counts = AdditiveTable(space, lambda o: (o.macs, o.params))(genomes[rows])
    rewards = (
        reward(numbers[rows, 1], numbers[rows, 0], target_ms) if target_ms is not None else None
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
        )
        for i, row in enumerate(rows)
    )
    # Fixed corner: top-1 of 1 at 0 ms; reference: top-1 of 0 at the target, or at the slowest
    # seen. Runs with one target compare.
    slowest = target_ms if target_ms is not None else float(numbers[:, 0].max()) * (1 + 1e-9)
    volume = hypervolume(losses, (0.0, 0.0), (slowest * (1 + 1e-9), 1.0))
    return ParetoFront(candidates, target_ms, str(settings["target"]), volume)
