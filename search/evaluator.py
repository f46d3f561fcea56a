"""Evaluator: each network of a search evaluated once, by all that was asked.

Strategies take numbers alone: they observe a network whose accuracy failed as the least accurate so
far, with a violation greater than that of any other network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import LatencyModel
from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import Infeasible
from phonenas.space.narrowed import ConfinedSpace

from .accuracy import AccuracyEstimator
from .evaluations import CHANCE, EPOCHS, INHERITED, SOURCE, Evaluations, Generation
from .history import History, Intervals, intervals_of, least_chance
from .objectives import Objective, checked
from .precisions import PrecisionModels
from .spec import Spec

__all__ = ["Evaluator"]

Floats = npt.NDArray[np.float64]
_RESTARTS = 5  # of the descent to the network that oversteps least
_SWEEPS = 20  # over all genes, at most; it mostly ends after three
_HOPELESS = 20  # networks without one accuracy, after which a search ends
_FAILED = 10.0  # violation of a failed network, at least
_PROBED = 10  # random networks; each descent begins at the best of them


class Evaluator(History):
    """Evaluates each network once, by latency, accuracy and all objectives.

    Args:
        space, latency, accuracy, spec: As for `search`.
    Attributes:
        trained_s: What all accuracies took that say so, in seconds.
    """

    def __init__(
        self,
        space: SearchSpace,
        latency: LatencyModel | PrecisionModels,
        accuracy: AccuracyEstimator,
        spec: Spec,
    ) -> None:
        super().__init__(space, spec, latency.device, latency.conditions.origin)
        self._latency_of = latency.on(space)
        self._intervals_of: dict[str, Intervals] = {}  # by the column of the latency
        if spec.chance is not None:
            self._intervals_of = intervals_of(space, spec) or {"": latency.intervals(space)}
        self._accuracy_of = accuracy.on(space)
        self.trained_s = 0.0
        self._ancestry, self._epochs = accuracy.ancestry, accuracy.epochs
        self._texts: list[str] = []  # of all networks, where some inherit weights
        if self._ancestry is not None:
            self._ancestry.clear()
        self._further = [(o, o.on(space)) for o in spec.objectives]
        self._units = {o.name: o.unit for o in spec.objectives if o.unit}
        self._known: dict[str, dict[bytes, float]] = {o.name: {} for o in spec.objectives}

    def resume(self, evaluated: Evaluations, log: Sequence[Generation], timed: bool) -> None:
        """Go on from what was evaluated before the run stopped.

        Args:
            evaluated, log: All of it, and a row a generation.
            timed: Whether to learn again how long it took, from answers that are kept.
        """
        if self._ancestry is not None:
            self._evaluate_again(evaluated, log)
            return
        self.remember(evaluated)
        if timed:
            self.trained_s = sum(self._accuracy_of(evaluated.genomes).seconds)

    def _evaluate_again(self, evaluated: Evaluations, log: Sequence[Generation]) -> None:
        """Evaluate what was evaluated, generation by generation: the answers are kept."""
        self.reuse(evaluated)
        start = 0
        for end in [*dict.fromkeys(int(row.evaluations) for row in log), len(evaluated)]:
            if end > start:
                self.remember(self.evaluate(evaluated.genomes[start:end]))
                self._end_generation()
                start = end

    def _end_generation(self) -> bool:
        """Let the networks of later generations inherit the weights of those trained by now; and
        whether numbers in the record changed."""
        if self._ancestry is None or (known := self.evaluations()) is None:
            return False
        self._texts += [self.space.text(g) for g in known.genomes[len(self._texts) :]]
        epochs = known.further.get(EPOCHS, np.full(len(known), float(self._epochs)))
        for row in np.flatnonzero(known.has_top1).tolist():
            self._ancestry.trained(self._texts[row], row, int(epochs[row]))
        return False

    def _inherited(self, genomes: Genomes) -> dict[str, Floats]:
        """Whose weights networks begin with, as columns; none where they inherit none."""
        if self._ancestry is None:
            return {}
        networks = [self.space.decode(g) for g in genomes]
        self._ancestry.assign(networks)
        sources = [self._ancestry.source(str(a)) for a in networks]
        return {
            SOURCE: np.array([-1.0 if s is None else s.row for s in sources]),
            INHERITED: np.array([0.0 if s is None else s.share for s in sources]),
        }

    def reuse(self, evaluated: Evaluations) -> None:
        """Do not ask a costly objective again for networks that it was asked for."""
        keys = self.space.keys(evaluated.genomes)
        for objective, _ in self._further:
            if not objective.cheap:
                values = evaluated.further[objective.name].tolist()
                self._known[objective.name] = dict(zip(keys, values, strict=True))

    def _asked(
        self, objective: Objective, of: Callable[[Genomes], Floats], genomes: Genomes
    ) -> Floats:
        """An objective of genomes, (n, genes) → (n,), where it is not known."""
        known = self._known[objective.name]
        keys = self.space.keys(genomes) if known else [b""] * len(genomes)
        new = [row for row, key in enumerate(keys) if key not in known]
        values = np.array([known.get(key, np.nan) for key in keys])
        if new:
            values[new] = checked(
                objective.name,
                of(genomes[new]),
                len(new),
                lambda row: str(self.space.decode(genomes[new[row]])),
            )
        return values

    def evaluate(self, genomes: Genomes, cheap: bool = False) -> Evaluations:
        """The numbers of genomes, (n, genes), without remembering them; `cheap` leaves accuracies
        and costly objectives at 0."""
        ms, zero = self._latency_of(genomes), np.zeros(len(genomes))
        further = {
            o.name: zero if cheap and not o.cheap else self._asked(o, of, genomes)
            for o, of in self._further
        }
        if self._intervals_of:
            further[CHANCE] = least_chance(self.spec, ms, further, self._intervals_of, genomes)
        if cheap:
            return Evaluations(genomes, ms, zero, zero, zero > 0, further, self._units)
        further |= self._inherited(genomes)
        accuracy = self._accuracy_of(genomes)
        self.trained_s += sum(accuracy.seconds)
        failed = {i: why for i, why in enumerate(accuracy.failed) if why}
        top1, error, outside = accuracy.top1, accuracy.standard_error, accuracy.outside
        return Evaluations(genomes, ms, top1, error, outside, further, self._units, failed)

    def __call__(self, genomes: Genomes, room: int) -> tuple[int, Floats, Floats]:
        """Evaluate proposals, (n, genes), with at most `room` new networks among them.

        Returns:
            How many proposals were taken, m; their losses, (m, k), and violation, (m,), as a
            strategy observes them.
        Raises:
            NotEnoughData: None of the first 20 networks got an accuracy.
        """
        keys = self.space.keys(genomes)
        new: dict[bytes, int] = {}
        taken = 0
        for row, key in enumerate(keys):
            if key not in self.rows and key not in new:
                if len(new) == room:
                    break
                new[key] = row
            taken += 1
        self.repeats += taken - len(new)
        if new:
            evaluated = self.evaluate(genomes[list(new.values())])
            self.remember(evaluated)
            if len(self) >= _HOPELESS:
                self.refuse_without_accuracy()
            changed = self._end_generation()
            if len(new) == taken and not changed:
                return taken, *self._observed(evaluated)
        known = self.evaluations()
        assert known is not None
        return taken, *self._observed(known.take([self.rows[k] for k in keys[:taken]]))

    def others(self) -> Genomes:
        """The networks of a listed space that were not evaluated, (n, genes); of other spaces
        none."""
        space = self.space
        listed = space.genomes if isinstance(space, ConfinedSpace) else np.empty((0, 0), np.int8)
        new = [key not in self.rows for key in space.keys(listed)] if len(listed) else []
        others: Genomes = listed[new]
        return others

    def _observed(self, evaluated: Evaluations) -> tuple[Floats, Floats]:
        """Losses and violation as a strategy observes them: finite, and the failed behind all."""
        spec = self.spec
        if not evaluated.failed:
            return spec.losses(evaluated), spec.violation(evaluated)
        known = self.evaluations()
        assert known is not None
        known = known.take(np.flatnonzero(known.has_top1))
        over = np.maximum(spec.violation(known), spec.beyond_target(known))
        # Not 0: a model of top-1 would be drawn down around each network that failed.
        least = float(known.top1.min()) if len(known) else 0.0
        widest = float(known.top1_error.max(initial=0.0))
        top1 = np.where(evaluated.has_top1, evaluated.top1, least)
        error = np.where(evaluated.has_top1, evaluated.top1_error, widest)
        finite = replace(evaluated, top1=top1, top1_error=error, failed={})
        violation = spec.violation(finite)
        violation[~evaluated.has_top1] = max(_FAILED, 2 * (1 + over.max(initial=0.0)))
        return spec.losses(finite), violation

    def refuse_impossible(self) -> None:
        """Look, before a budget is spent, whether any network meets the hard constraints.

        Of listed networks each is looked at. In other spaces, from a few starts, each gene in turn
        takes the option that oversteps least, until none helps. Limits on costly
        objectives are left out; these networks do not count as evaluated.

        Raises:
            Infeasible: None was found; the closest is named.
        """
        spec = self.spec
        if not spec.constraints():
            return
        closest: tuple[float, Evaluations] | None = None
        tried, starts = 0, _RESTARTS
        if isinstance(self.space, ConfinedSpace):  # a change of one gene leads to no other network
            evaluated = self.evaluate(self.space.genomes, cheap=True)
            over = spec.overstepped(evaluated, cheap=True)
            best = int(np.argmin(over))
            if over[best] <= 0:
                return
            closest, tried, starts = (float(over[best]), evaluated.take([best])), len(over), 0
        rng = np.random.default_rng(0)
        for _ in range(starts):
            start = self.space.sample(rng, _PROBED)
            tried += len(start)
            over = spec.overstepped(self.evaluate(start, cheap=True), cheap=True)
            here = start[int(np.argmin(over))]
            for _ in range(_SWEEPS):
                before = here
                for gene, count in enumerate(self.space.option_counts):
                    options = np.repeat(here[None], count, axis=0)
                    options[:, gene] = np.arange(count)
                    options = self.space.within(options)
                    evaluated = self.evaluate(options, cheap=True)
                    tried += count
                    over = spec.overstepped(evaluated, cheap=True)
                    best = int(np.argmin(over))
                    if over[best] < over[here[gene]]:
                        here = options[best]
                    if closest is None or over[best] < closest[0]:
                        closest = float(over[best]), evaluated.take([best])
                    if over[best] <= 0:
                        return
                if before is here:
                    break
        assert closest is not None
        where = f"no network of {self.space.name} on {self.device} was found"
        if spec.devices is not None:
            where = f"no network of {self.space.name} was found"
        elif spec.hard_ms is not None and not (spec.chance or spec.limits):
            raise Infeasible(
                f"{where} that reaches {spec.hard_ms:g} ms; the fastest of {tried:,} tried takes "
                f"{closest[1].latency_ms[0]:.2f} ms. Raise --target or lower --resolution."
            )
        raise Infeasible(
            f"{where} with {spec.constraints()}; of {tried:,} tried the closest has "
            f"{spec.describe(closest[1], 0)}. Raise --target or the limit, or lower --resolution."
        )
