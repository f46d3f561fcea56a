"""run() and search(): ask, evaluate, tell; with a budget, a checkpoint and exact resume."""

from __future__ import annotations

import copy
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phonenas.latency_model import LatencyModel
from phonenas.space import SearchSpace
from phonenas.space.errors import InvalidArgument, StoreError, UnsupportedFormat, reading
from phonenas.space.naming import counted
from phonenas.space.narrowed import PrecisionChoice

from .accuracy import AccuracyEstimator
from .accuracy.cache import Cached, kept
from .accuracy.inheritance.run import inheriting_in
from .accuracy.quantisation.quantised import InPrecisions, Quantised
from .accuracy.successive_halving import SuccessiveHalving
from .budget import Budget
from .checkpoint import BUDGET, RULES
from .constraints import Target
from .evaluations import COLUMNS, EPOCHS, INHERITED, SOURCE
from .evaluator import Evaluator
from .history import intervals_of
from .objectives import Latency
from .pareto import ParetoFront
from .precisions import PrecisionModels, write_runs
from .run_folder import Checkpoint, RunFolder
from .rungs import RungEvaluator
from .spec import Spec
from .strategies.base import State, Strategy
from .strategies.start_from import StartFrom

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Estimated", "Evaluated", "Searched", "run", "search"]

log = logging.getLogger("phonenas")

_ASKED = 1000  # proposals at most a turn; always as many, so that no turn depends on the budget
_TRAINED = 50  # where each is a training: so many pass before a budget is looked at
_STALE_ASKS = 200  # asks in a row that bring nothing new: the space is exhausted


@dataclass(frozen=True)
class Evaluated:
    """Event: a generation was evaluated.

    Args:
        evaluations, budget: Distinct networks evaluated, and how many in all.
        repeats: Proposals that were known already, and cost nothing.
        fastest_ms, best_top1: Of all so far, whether they meet the target or not.
        hypervolume: Of the front so far, share of the box; None with more than three objectives.
        seconds, failed: Since the run began, stops left out; networks without an accuracy.
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
        mean_s: Mean time of one so far, by the wall clock, in seconds.
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
    `resumed_from` is the evaluation at which a run was taken up, 0 for a new one. `failed` counts
    the networks that got no accuracy, by reason; they are among the evaluations. `kept` is the
    folder of the finished run as it was, where the search went on with one. `rungs` says how many
    networks were trained for so many epochs or more, where not all were for as many; `trained_s`
    how long all trainings took together, 0 of a run that was finished before. `ended` is the rule
    of its budget that ended it, "patience", "time" or "training"; "" where it evaluated all
    networks. `runs` are the folders of the runs of each precision, of a search over precisions.
    """

    front: ParetoFront
    strategy: str
    evaluations: int
    repeats: int
    seconds: float
    resumed_from: int
    failed: Mapping[str, int] = field(default_factory=dict)
    kept: Path | None = None
    ended: str = ""
    runs: Mapping[str, Path] = field(default_factory=dict)
    rungs: Mapping[int, int] = field(default_factory=dict)
    trained_s: float = 0.0

    def __repr__(self) -> str:
        return (
            f"Searched({counted(self.evaluations, 'network')} by {self.strategy}, {self.front!r})"
        )

    def to_frame(self) -> pd.DataFrame:
        """The front: see `ParetoFront.to_frame`."""
        return self.front.to_frame()


def run(
    space: SearchSpace,
    *,
    latency: LatencyModel,
    accuracy: AccuracyEstimator,
    strategy: Strategy,
    target_ms: float | None = None,
    evaluations: int | Budget = 8000,
    into: str | Path | None = None,
    spec: Spec | None = None,
) -> ParetoFront:
    """The front of `search`, with a hard target of `target_ms` (or the target of `spec`).

    Raises:
        InvalidArgument: Two targets, or as `search`.
    """
    spec = spec or Spec()
    if target_ms is not None:
        if spec.target is not None:
            raise InvalidArgument(f"two targets: target_ms={target_ms:g} and {spec.target}")
        spec = replace(spec, target=Target(target_ms))
    return search(
        space,
        latency=latency,
        accuracy=accuracy,
        strategy=strategy,
        spec=spec,
        evaluations=evaluations,
        into=into,
    ).front


def search(
    space: SearchSpace,
    *,
    latency: LatencyModel | PrecisionModels,
    accuracy: AccuracyEstimator,
    strategy: Strategy,
    spec: Spec | None = None,
    evaluations: int | Budget = 8000,
    into: str | Path | None = None,
    on_event: Callable[[Evaluated | Estimated], None] | None = None,
) -> Searched:
    """Search a space for networks that are accurate and fast.

    Args:
        space: Where to look.
        latency: A fitted model of the device; of several devices that of the first. Or one for each
            precision, with a space that has the choice (`PrecisionChoice`) and `InPrecisions` for
            the accuracy.
        accuracy: Of top-1. With `SuccessiveHalving` the best alone are trained in full, and the
            front is of those.
        strategy: New, with its seed. Networks beyond a hard target rank behind all within it and
            never enter the front. A soft target is followed by strategies with `soft_target`; the
            others look for the whole front.
        spec: Target or several devices, further objectives and limits; None for the whole front of
            both.
        evaluations: Distinct networks to evaluate, ≥ 1; or a `Budget`, which may end it before.
        into: Run folder; a run stopped in it is taken up and ends as if never stopped, and a
            finished one goes on if it is given a greater budget than it had, to the front that all
            of it at once gives; as it was it stays in `first300`. Answers of a slow estimator are
            kept in its `accuracy.db`, network by network.
        on_event: Called with `Evaluated` after each generation, and within one with `Estimated`
            for each network that a slow estimator, kept in the folder, was asked for.
    Raises:
        InvalidArgument: A budget out of range or below the networks that it starts from, a soft
            target for a strategy that was made for a hard one, or another model than that of the
            first of several devices.
        NotInSpace: The search starts from a network outside the space; it is named.
        SettingsChanged: The folder holds a run with other settings, or with more evaluations; both
            values are named.
        Infeasible: A short look beforehand found no network that meets the target and the
            limits, or none was evaluated; the closest is named.
        InvalidObjective: A user's function gave no number; the network is named.
        NotEnoughData: No network at all, of the first 20 or of all, got an accuracy.
        UncoveredOperator: The model cannot predict some operator of the space.
        UnsupportedFormat: The folder's checkpoint is damaged.
        StoreError: The folder cannot be written, another process works in it and is named, or it
            holds a finished run without its checkpoint.
    """
    budget = evaluations if isinstance(evaluations, Budget) else Budget(evaluations)
    limit, spec = budget.evaluations, spec or Spec()
    whole = accuracy.estimator if isinstance(accuracy, SuccessiveHalving) else accuracy
    several = isinstance(latency, PrecisionModels), isinstance(whole, InPrecisions)
    if len({*several, isinstance(space, PrecisionChoice)}) > 1:
        raise InvalidArgument(
            "a search over precisions takes a PrecisionChoice as its space, PrecisionModels for "
            "latency and InPrecisions for accuracy; give all three or none"
        )
    if isinstance(strategy, StartFrom) and (first := len(strategy.networks)) > limit:
        raise InvalidArgument(
            f"the search starts from {first:,} networks and evaluates {limit:,}: give "
            f"{first:,} evaluations or more"
        )
    soft = spec.target is not None and spec.target.soft
    strategy_target = (
        None if spec.target is None or (soft and not strategy.soft_target) else spec.cost_target
    )
    models = [o.model for o in spec.on_devices if isinstance(o, Latency)]
    if spec.devices is not None and spec.devices.own:
        raise InvalidArgument("a search is of the first of its devices: `own` is for its parts")
    if models and models[0].digest != latency.digest:
        raise InvalidArgument(
            f"`latency` is the model of the first of several devices, {models[0].device} "
            f"({models[0].digest}), got that of {latency.device} ({latency.digest})"
        )
    own = {"space", "resolution_px", "device", "precision", BUDGET, *RULES}
    if double := own & strategy.settings.keys():
        raise InvalidArgument(
            f"the strategy {strategy.name} has a setting {min(double)}, which is one of every "
            "search: give it another name"
        )
    settings = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "latency_model": latency.digest,
        "device": latency.device,
        "precision": latency.conditions.precision,
        "accuracy": accuracy.digest,
        **budget.settings,
        **spec.settings,
        **strategy.settings,
        **accuracy.settings,
    }
    began = time.monotonic()
    evaluator: Evaluator
    columns = settings.get("columns", COLUMNS)
    if whole.ancestry is not None:
        columns = settings["columns"] = [*columns, SOURCE, INHERITED]
        accuracy = inheriting_in(into, accuracy)
    if isinstance(accuracy, SuccessiveHalving):
        if budget.patience is not None:
            raise InvalidArgument(
                "patience goes without halving, where networks gain long after they were begun: "
                "give a time (--time) or a time of training (--budget)"
            )
        settings["columns"] = [*columns, EPOCHS]
        accuracy = accuracy if into is None else accuracy.within(Path(into))
        if any(c.again for c in accuracy.caches) and (Path(into or "") / "run.json").exists():
            raise InvalidArgument(
                f"--again would change who went on in {into}, which has begun by halving: give "
                "another --out"
            )
        evaluator = RungEvaluator(space, latency, accuracy, spec)
    else:
        if into is not None and isinstance(accuracy, Quantised | InPrecisions):
            accuracy = accuracy.cached(Path(into) / "accuracy.db")
        elif into is not None:
            accuracy = kept(accuracy, Path(into) / "accuracy.db")
        evaluator = Evaluator(space, latency, accuracy, spec)

    def tell(done: int, networks: int, mean_s: float, later: bool = False) -> None:
        if on_event is not None:
            left = 0 if later else max(0, limit - len(evaluator) - done)
            on_event(Estimated(done, networks, mean_s, left))

    with ExitStack() as stack:
        stack.enter_context(_telling(accuracy, None if on_event is None else tell))
        if into is None or not (Path(into) / "run.json").exists():
            evaluator.refuse_impossible()  # before a folder is made for it
        folder = None
        if into is not None:
            summary = latency.summary()
            folder = stack.enter_context(RunFolder(into, settings, summary, spec.to_dict()))
            if not folder.finished():
                if isinstance(latency, LatencyModel):
                    for model in models or [latency]:
                        folder.keep_model(model)
                else:
                    for precision, model in latency.models.items():
                        folder.keep_model(model, f"model.{precision}.json")
        strategy.start(space, strategy_target, spec.loss_count)
        resumed, before_s, stale, rule = 0, 0.0, 0, ""
        stopped = None if folder is None else folder.checkpoint()
        if folder is not None and stopped is None and folder.finished():
            raise StoreError(
                f"{folder.path / 'checkpoint.npz'} is missing, so that this finished run cannot "
                "be given again. Show its front:  phonenas report "
                f"{shlex.quote(str(folder.path))}  or search again, with another --out."
            )
        if folder is not None and stopped is not None:
            try:
                space.check(stopped.evaluations.genomes)
            except InvalidArgument as error:
                raise UnsupportedFormat(
                    f"{folder.path / 'checkpoint.npz'} is damaged: {error}. Remove it to start "
                    "this run again."
                ) from error
            resumed, again = len(stopped.evaluations), stopped.before_last
            if folder.finished():
                evaluator.remember(stopped.evaluations)
            else:
                evaluator.reuse(stopped.evaluations)
                stopped = stopped.to_go_on()
                timed = accuracy.epochs > 0
                evaluator.resume(stopped.evaluations, stopped.log, timed)
            log.info("%s: goes on from %d evaluations", folder.path, resumed)
            before_s, stale = stopped.seconds, stopped.stale
            evaluator.repeats, evaluator.log = stopped.repeats, list(stopped.log)
            with reading(
                f"the strategy's state in {folder.path / 'checkpoint.npz'}",
                "The checkpoint is damaged: remove it to start this run again.",
            ):
                strategy.restore(stopped.state, stopped.evaluations.genomes)
            if folder.finished():
                rule = folder.ended()
                if not rule and resumed < limit:  # as it was given no more time than it took
                    rule = budget.rule_met(lambda last: 1.0, before_s)
            elif not again:  # it was killed between its last generation and its end
                rule = budget.rule_met(evaluator.grown, before_s, evaluator.trained_s)

        def checkpoint(before: tuple[State, int] | None = None) -> Checkpoint:
            evaluated = evaluator.evaluations()
            assert evaluated is not None
            state, idle = before or (strategy.state(), stale)
            counts = (evaluator.repeats, seconds, tuple(evaluator.log), idle, before is not None)
            return Checkpoint(state, evaluated, *counts)

        seconds, before = before_s, None
        over = bool(rule) or (folder is not None and folder.finished())
        most = _TRAINED if accuracy.epochs else _ASKED
        nothing = np.empty((0, len(space.decisions)), np.int8)
        while not over and len(evaluator) < min(limit, space.size):
            start = copy.deepcopy(strategy.state()), stale
            genomes = space.within(strategy.ask(most)) if stale < _STALE_ASKS else nothing
            if ended := not len(genomes):
                genomes = evaluator.others()
            if not len(genomes):
                break
            before, known = start, len(evaluator)
            taken, losses, violation = evaluator(genomes, limit - known)
            if not ended:
                strategy.tell(genomes[:taken], losses, violation)
                stale = 0 if len(evaluator) > known else stale + 1
            seconds = before_s + time.monotonic() - began
            row = evaluator.note(seconds)
            # The evaluations may have cut the last generation short; a rule ends a whole one.
            if last := len(evaluator) >= min(limit, space.size):
                over = True
            elif rule := budget.rule_met(evaluator.grown, seconds, evaluator.trained_s):
                over, before = True, None
            if on_event is not None:
                volume = None if np.isnan(row.hypervolume) else row.hypervolume
                best = (row.repeats, row.fastest_ms, row.best_top1, volume, seconds)
                on_event(Evaluated(row.evaluations, limit, *best, evaluator.failures))
            if folder is not None and folder.due():
                folder.save(checkpoint(before if last else None))
        front = evaluator.front(latency.intervals(space), intervals_of(space, spec))
        seconds = before_s + time.monotonic() - began
        if folder is not None and (resumed < len(evaluator) or not folder.finished()):
            done = checkpoint(before)
            folder.save(done)
            folder.finish(front, space, done, rule)
        runs: dict[str, Path] = {}
        if folder is not None and isinstance(latency, PrecisionModels):
            evaluated = evaluator.evaluations()
            assert evaluated is not None
            assert isinstance(space, PrecisionChoice)
            assert isinstance(accuracy, InPrecisions | SuccessiveHalving)
            runs = write_runs(folder, space, latency, accuracy, evaluated, spec)
        counts = (len(evaluator), evaluator.repeats)
        kept_as = None if folder is None else folder.kept
        reasons, rungs = evaluator.reasons(), evaluator.rungs()
        return Searched(
            front,
            strategy.name,
            *counts,
            seconds,
            resumed,
            reasons,
            kept_as,
            rule,
            runs,
            rungs,
            evaluator.trained_s,
        )


@contextmanager
def _telling(accuracy: AccuracyEstimator, tell: Callable[..., None] | None) -> Iterator[None]:
    """Call `tell` for each network that a cached estimator is asked for, within the block only; of
    a later rung with `later`."""
    if isinstance(accuracy, Quantised | InPrecisions):
        accuracy = accuracy.base
    caches = [accuracy] if isinstance(accuracy, Cached) else []
    if isinstance(accuracy, SuccessiveHalving):
        caches += accuracy.caches
    before = [cache.on_asked for cache in caches]
    for place, cache in enumerate(caches):
        cache.on_asked = cache.on_asked if tell is None else partial(tell, later=place > 0)
    try:
        yield
    finally:
        for cache, own in zip(caches, before, strict=True):
            cache.on_asked = own
