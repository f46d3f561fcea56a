"""Judge: each network of a search judged once, by all that was asked, and remembered in order.

A network whose accuracy failed counts as judged. What is remembered of it is NaN and the reason; to
strategies, which take numbers alone, it is told as the least accurate seen that oversteps a limit
further than any other network does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..latency_model import LatencyModel
from ..latency_model.interval import chance_within
from ..space import Genomes, SearchSpace
from ..space.errors import Infeasible, NotEnoughData
from .accuracy import AccuracyEstimator
from .aims import Aims
from .objectives import checked
from .pareto import non_dominated
from .run_folder import NUMBERS
from .strategy import Objectives

__all__ = ["Judge", "told_reasons"]

_RESTARTS = 5  # of the way down to what oversteps least
_SWEEPS = 20  # over all genes, at most; it mostly ends after three
_SHOWN = 3  # objectives up to which each generation's hypervolume is cheap
_REASONS = 3  # told to people
_HOPELESS = 20  # networks without one accuracy, after which a search ends
_FAILED = 10.0  # how far a failed network oversteps, at least
_PROBED = 10  # random networks that each way down begins at the best of


def told_reasons(reasons: Mapping[str, int]) -> str:
    """Reasons with how often each came, the commonest first; at most three.

    >>> told_reasons({"diverged": 2, "out of memory": 1})
    'diverged (2), out of memory (1)'
    """
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{why} ({count:,})" for why, count in ranked[:_REASONS]]
    more = sum(count for _, count in ranked[_REASONS:])
    return ", ".join([*words, *([f"other reasons ({more:,})"] if more else [])])


class _Decoded(Sequence[str]):
    """Networks by row, written out only where an error names one."""

    def __init__(self, space: SearchSpace, genomes: Genomes) -> None:
        self.space, self.genomes = space, genomes

    def __len__(self) -> int:
        return len(self.genomes)

    def __getitem__(self, row: Any) -> Any:
        return str(self.space.decode(self.genomes[row]))


class Judge:
    """Judges each network once; remembers all in order.

    Args:
        space, latency, accuracy: As for `search`.
        aims: What is asked.
    Attributes:
        repeats: Proposals that were known already.
        log: A row a generation: evaluations, repeats, hypervolume (NaN with many objectives),
            fastest ms and best top-1 so far, seconds. Without a hard target the hypervolume is of the
            box known by then, which grows with the slowest network seen.
        failed: Why a network has no accuracy, by its place in the order.
    """

    def __init__(
        self, space: SearchSpace, latency: LatencyModel, accuracy: AccuracyEstimator, aims: Aims
    ) -> None:
        self.space, self.aims, self.device = space, aims, latency.device
        self._latency_of = latency.on(space)
        self._intervals_of = latency.intervals(space) if aims.chance is not None else None
        self._accuracy_of = accuracy.on(space)
        self._more: Sequence[Callable[[Genomes], Any]] = [o.on(space) for o in aims.told_of]
        self.rows: dict[bytes, int] = {}
        self._genomes: list[Genomes] = []
        self._numbers: list[Objectives] = []
        self.repeats = 0
        self.log: list[tuple[float, ...]] = []
        self.failed: dict[int, str] = {}
        self._front: Objectives | None = None
        self._seen = np.array([[np.inf], [-np.inf]])
        self._slowest_ms = 0.0
        self._fastest_ms, self._best_top1 = float("inf"), 0.0

    def __len__(self) -> int:
        return len(self.rows)

    def known(self) -> tuple[Genomes, Objectives]:
        """All judged genomes, (n, genes), and their numbers, (n, columns of the aims)."""
        if not self._genomes:
            return (
                np.empty((0, len(self.space.option_counts)), np.int8),
                np.empty((0, len(self.aims.columns))),
            )
        self._genomes = [np.concatenate(self._genomes)]
        self._numbers = [np.concatenate(self._numbers)]
        return self._genomes[0], self._numbers[0]

    def remember(
        self, genomes: Genomes, numbers: Objectives, failed: Mapping[int, str] | None = None
    ) -> None:
        """Take what was judged, now or in a run that stopped.

        Args:
            genomes, numbers: (n, genes) and (n, columns of the aims).
            failed: Why networks have no accuracy, by their rows here.
        """
        self.failed |= {len(self.rows) + row: why for row, why in (failed or {}).items()}
        for key in self.space.keys(genomes):
            self.rows.setdefault(key, len(self.rows))
        self._genomes.append(genomes)
        self._numbers.append(numbers)
        if not len(numbers):
            return
        self._slowest_ms = max(self._slowest_ms, float(numbers[:, 0].max()))
        self._fastest_ms = min(self._fastest_ms, float(numbers[:, 0].min()))
        numbers = numbers[~np.isnan(numbers[:, 1])]
        if not len(numbers):
            return
        losses = self.aims.losses(numbers)
        self._seen = np.stack(
            [np.minimum(self._seen[0], losses.min(axis=0)), np.maximum(self._seen[1], losses.max(axis=0))]
        )  # fmt: skip
        self._best_top1 = max(self._best_top1, float(numbers[:, 1].max()))
        within = losses[self.aims.met(numbers)]
        if self._front is not None:
            within = np.concatenate([self._front, within])
        self._front = within[non_dominated(within)]

    def volume(self) -> float:
        """Hypervolume of all that was judged; see `Aims.volume`."""
        if self._front is None or not len(self._front):
            return 0.0
        return self.aims.volume(self._front, self._slowest_ms, self._seen)

    def note(self, seconds: float) -> tuple[float, ...]:
        """Add a generation to the log, and give its row."""
        shown = len(self.aims.also) + 2 <= _SHOWN
        row = (
            float(len(self)), float(self.repeats), self.volume() if shown else float("nan"),
            self._fastest_ms, self._best_top1, seconds,
        )  # fmt: skip
        self.log.append(row)
        return row

    def numbers_of(self, genomes: Genomes) -> tuple[Objectives, dict[int, str]]:
        """Judge genomes without remembering them, (n, columns of the aims), and why rows failed."""
        told = self._accuracy_of(genomes)
        ms = self._latency_of(genomes)
        columns = [ms, told.top1, told.standard_error, told.outside]
        for objective, of in zip(self.aims.told_of, self._more, strict=True):
            columns.append(checked(objective.name, of(genomes), _Decoded(self.space, genomes)))
        if self._intervals_of is not None:
            assert self.aims.target_ms is not None
            low, high, _ = self._intervals_of(genomes)
            columns.append(chance_within(ms, low, high, self.aims.target_ms))
        return np.column_stack(columns), {i: why for i, why in enumerate(told.failed) if why}

    def __call__(
        self, genomes: Genomes, room: int
    ) -> tuple[int, Objectives, npt.NDArray[np.float64]]:
        """Judge; at most `room` new networks. Rows taken, losses (m, k), violation (m,)."""
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
            self.remember(new, *self.numbers_of(new))
            self._refuse_hopeless()
        if len(fresh) == taken:
            numbers = self._numbers[-1]
        else:
            numbers = self.known()[1][[self.rows[k] for k in keys[:taken]]]
        return taken, *self._told(numbers)

    def _told(self, numbers: Objectives) -> tuple[Objectives, npt.NDArray[np.float64]]:
        """Losses and violation as a strategy hears them: finite, and the failed behind all others."""
        failed = np.isnan(numbers[:, 1])
        if not failed.any():
            return self.aims.losses(numbers), self.aims.violation(numbers)
        well = self.known()[1]
        well = well[~np.isnan(well[:, 1])]
        over = np.maximum(self.aims.violation(well), self.aims.beyond_target(well))
        told = numbers.copy()
        # Not 0: a model of top-1 would be drawn down around each network that failed.
        told[failed, 1] = well[:, 1].min() if len(well) else 0.0
        violation = self.aims.violation(told)
        violation[failed] = max(_FAILED, 2 * (1 + over.max(initial=0.0)))
        return self.aims.losses(told), violation

    def _refuse_hopeless(self) -> None:
        if len(self) >= _HOPELESS and len(self.failed) == len(self):
            self.refuse_without_accuracy()

    def refuse_without_accuracy(self) -> None:
        """Say so if no network that was judged has an accuracy.

        Raises:
            NotEnoughData: None has; the reasons are in the message.
        """
        if not len(self.failed) or len(self.failed) < len(self):
            return
        raise NotEnoughData(
            f"none of {len(self):,} networks that were judged got an accuracy: {self.failures()}. Try one of "
            f"them alone:  phonenas accuracy '{self._first_failed()}' ... Then search with another --out."
        )

    def failures(self) -> str:
        """The reasons for which networks failed, the commonest first, for people."""
        return told_reasons(Counter(self.failed.values()))

    def _first_failed(self) -> str:
        return str(self.space.decode(self.known()[0][min(self.failed)]))

    def refuse_impossible(self) -> None:
        """Look, before a budget is spent, whether any network meets the hard constraints.

        From a few starts, each gene in turn takes the option that oversteps least, until none
        helps. Limits on what is costly to tell are left out; what this finds does not count as judged.

        Raises:
            Infeasible: None was found; the closest is named.
        """
        aims = self.aims
        if not aims.words():
            return
        rng = np.random.default_rng(0)
        closest: tuple[float, Objectives] | None = None
        tried = 0
        for _ in range(_RESTARTS):
            start = self.space.sample(rng, _PROBED)
            numbers = self._cheap_numbers(start)
            tried += len(start)
            here = start[int(np.argmin(self._over(numbers)))]
            for _ in range(_SWEEPS):
                before = here
                for gene, count in enumerate(self.space.option_counts):
                    options = np.repeat(here[None], count, axis=0)
                    options[:, gene] = np.arange(count)
                    numbers = self._cheap_numbers(options)
                    tried += count
                    over = self._over(numbers)
                    best = int(np.argmin(over))
                    if over[best] < over[here[gene]]:
                        here = options[best]
                    if closest is None or over[best] < closest[0]:
                        closest = (float(over[best]), numbers[best])
                    if over[best] <= 0:
                        return
                if before is here:
                    break
        assert closest is not None
        if aims.target_ms is not None and not (aims.soft or aims.chance or aims.limits):
            raise Infeasible(
                f"no network of {self.space.name} was found that reaches {aims.target_ms:g} ms on {self.device}; "
                f"the fastest of {tried:,} looked at takes {closest[1][0]:.2f} ms. Raise --target or lower "
                "--resolution."
            )
        raise Infeasible(
            f"no network of {self.space.name} on {self.device} was found with {aims.words()}; of {tried:,} "
            f"looked at the closest has {self._described(closest[1])}. Raise --target or the limit, or lower "
            "--resolution."
        )

    def _over(self, numbers: Objectives) -> npt.NDArray[np.float64]:
        """What is left to overcome, all constraints together."""
        limits = np.maximum(self.aims.beyond_limits(numbers, cheap=True), 0).sum(axis=1)
        over: npt.NDArray[np.float64] = limits + np.maximum(self.aims.beyond_target(numbers), 0)
        return over

    def _cheap_numbers(self, genomes: Genomes) -> Objectives:
        """As `numbers_of`, with top-1 and what is costly left at 0."""
        found = np.zeros((len(genomes), len(self.aims.columns)))
        found[:, 0] = self._latency_of(genomes)
        for i, (objective, of) in enumerate(zip(self.aims.told_of, self._more, strict=True)):
            if objective.cheap:
                found[:, len(NUMBERS) + i] = of(genomes)
        if self._intervals_of is not None:
            assert self.aims.target_ms is not None
            low, high, _ = self._intervals_of(genomes)
            found[:, -1] = chance_within(found[:, 0], low, high, self.aims.target_ms)
        return found

    def _described(self, numbers: Objectives) -> str:
        names = [q.objective.name for q in self.aims.binding]
        words = [f"{numbers[0]:.2f} ms"]
        words += [f"{n} {numbers[self.aims.columns.index(n)]:,.4g}" for n in names]
        if self.aims.chance is not None:
            words.append(f"a chance of {numbers[-1]:.0%}")
        return ", ".join(words)

    def closest(self) -> str:
        """Of all that was judged, what oversteps least, for people."""
        numbers = self.known()[1]
        limits = np.maximum(self.aims.violation(numbers), 0)
        over = limits + np.maximum(self.aims.beyond_target(numbers), 0)
        return self._described(numbers[int(np.argmin(over))])
