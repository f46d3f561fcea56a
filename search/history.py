"""History: all networks that a search evaluated, in order, and the best of them.

A network whose accuracy failed counts as evaluated. Its top-1 is NaN, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import chance_within
from phonenas.space import AdditiveTable, Genomes, SearchSpace
from phonenas.space.errors import Infeasible, NotEnoughData

from .evaluations import COLUMNS, EPOCHS, Evaluations, Generation
from .objectives import Latency
from .pareto import Candidate, Interval, ParetoFront, non_dominated
from .spec import Spec

__all__ = ["History", "Intervals", "intervals_of", "least_chance", "summarise_reasons"]

Floats = npt.NDArray[np.float64]
# Genomes, (n, genes), to both ends of the 90 % interval in ms and whether all was measured, (n,).
Intervals = Callable[[Genomes], tuple[Floats, Floats, npt.NDArray[np.bool_]]]
_VOLUME = 3  # objectives up to which each generation's hypervolume is cheap
_REASONS = 3  # named to people


def summarise_reasons(reasons: Mapping[str, int]) -> str:
    """Reasons with how often each came, the commonest first; at most three.

    >>> summarise_reasons({"diverged": 2, "out of memory": 1})
    'diverged (2), out of memory (1)'
    """
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{why} ({count:,})" for why, count in ranked[:_REASONS]]
    more = sum(count for _, count in ranked[_REASONS:])
    return ", ".join([*named, *([f"other reasons ({more:,})"] if more else [])])


def intervals_of(space: SearchSpace, spec: Spec) -> dict[str, Intervals]:
    """Intervals of the latency on each of several devices, by its column; none for one device.

    Raises:
        UncoveredOperator: A device's model cannot predict some operator of the space.
    """
    known = spec.on_devices
    return {o.name: o.model.intervals(space) for o in known if isinstance(o, Latency)}


def least_chance(
    spec: Spec,
    latency_ms: Floats,
    further: Mapping[str, Floats],
    intervals: Mapping[str, Intervals],
    genomes: Genomes,
) -> Floats:
    """Probability to meet the hard target, (n,); of several devices the least of theirs.

    Args:
        spec: With a target.
        latency_ms, further: Of n networks: latency, and the columns of several devices.
        intervals: By the column of each device; by "" of the one device.
        genomes: (n, genes).
    """
    assert spec.target is not None
    targets = {"": spec.target.ms} if spec.devices is None else spec.devices.targets_ms
    chances = []
    for name, of in intervals.items():
        low, high, _ = of(genomes)
        ms = further[name] if name else latency_ms
        chances.append(chance_within(ms, low, high, targets[name] or spec.target.ms))
    least: Floats = np.min(chances, axis=0)
    return least


class History:
    """All networks that were evaluated, in order, and the best of them.

    Args:
        space: Of the networks.
        spec: What is asked.
        device: Its name, for messages.
        origin: Of the latencies that its model was fitted on.
    Attributes:
        repeats: Proposals that were known already.
        log: A row a generation. Without a hard target the hypervolume is of the box known by then,
            which grows with the slowest network seen. Of several devices `fastest_ms` is on the
            first.
    """

    def __init__(self, space: SearchSpace, spec: Spec, device: str, origin: str) -> None:
        self.space, self.spec, self.device, self.origin = space, spec, device, origin
        self.rows: dict[bytes, int] = {}
        self.repeats = 0
        self.log: list[Generation] = []
        self._forget()

    def _forget(self) -> None:
        self.failures = 0
        self._parts: list[Evaluations] = []
        self._front: Floats | None = None
        self._earlier = (
            0,
            np.empty((0, self.spec.loss_count)),
        )  # networks, and losses of their front
        self._volume: tuple[tuple[bytes, float, bytes], float] | None = None  # and what it is of
        self._range = np.array([[np.inf], [-np.inf]])
        self._highest, self._fastest_ms, self._best_top1 = 0.0, float("inf"), 0.0

    def __len__(self) -> int:
        return len(self.rows)

    def evaluations(self) -> Evaluations | None:
        """All that was evaluated, in order; None before the first."""
        if len(self._parts) > 1:
            self._parts = [Evaluations.concat(self._parts)]
        return self._parts[0] if self._parts else None

    def remember(self, evaluated: Evaluations) -> None:
        """Add networks that were evaluated, now or in a run that stopped."""
        if not len(evaluated):
            return
        self.failures += len(evaluated.failed)
        for key in self.space.keys(evaluated.genomes):
            self.rows.setdefault(key, len(self.rows))
        self._parts.append(evaluated)
        self._highest = max(self._highest, float(self.spec.cost(evaluated).max()))
        self._fastest_ms = min(self._fastest_ms, float(evaluated.latency_ms.min()))
        compared = evaluated.comparable
        if not compared.all():
            evaluated = evaluated.take(np.flatnonzero(compared))
        if not len(evaluated):
            return
        losses = self.spec.losses(evaluated)
        low, high = np.minimum(self._range[0], losses.min(axis=0)), losses.max(axis=0)
        self._range = np.stack([low, np.maximum(self._range[1], high)])
        self._best_top1 = max(self._best_top1, float(evaluated.top1.max()))
        within = losses[self.spec.met(evaluated)]
        if self._front is not None:
            within = np.concatenate([self._front, within])
        self._front = within[non_dominated(within)]

    def update(self, evaluated: Evaluations) -> None:
        """Remember these numbers of all networks instead of those so far; in the same order."""
        self._forget()
        self.remember(evaluated)

    def volume(self) -> float:
        """Hypervolume of all that was evaluated; see `Spec.volume`."""
        if self._front is None or not len(self._front):
            return 0.0
        of = self._front.tobytes(), self._highest, self._range.tobytes()
        if self._volume is None or self._volume[0] != of:  # in many dimensions it takes long
            self._volume = of, self.spec.volume(self._front, self._highest, self._range)
        return self._volume[1]

    def grown(self, last: int) -> float:
        """Share of the hypervolume that the latest networks added, in [0, 1].

        Args:
            last: How many networks; with none before them, none within the constraints, or no
                volume that sampled points show, it is 1.
        """
        if self._front is None or len(self) <= last:
            return 1.0
        front = self._front_of(len(self) - last)
        if not len(front):
            return 1.0
        whole = self.volume()
        if not whole:
            return 1.0
        if np.array_equal(front, self._front):
            return 0.0
        return 1 - self.spec.volume(front, self._highest, self._range) / whole

    def _front_of(self, count: int) -> Floats:
        """Losses of the front of the first networks, (n, losses)."""
        evaluated = self.evaluations()
        assert evaluated is not None
        known, front = self._earlier
        if count < known or EPOCHS in evaluated.further:  # of other networks, too
            known, front = 0, front[:0]
        rows = np.arange(known, count)
        new = evaluated.take(rows[evaluated.comparable[known:count]])
        both = np.concatenate([front, self.spec.losses(new)[self.spec.met(new)]])
        self._earlier = count, both[non_dominated(both)]
        return self._earlier[1]

    def note(self, seconds: float) -> Generation:
        """Add a generation to the log, and give its row."""
        cheap = self.spec.loss_count <= _VOLUME
        volume = self.volume() if cheap else float("nan")
        self.log.append(
            Generation(len(self), self.repeats, volume, self._fastest_ms, self._best_top1, seconds)
        )
        return self.log[-1]

    def rungs(self) -> dict[int, int]:
        """How many networks were trained for so many epochs or more, by epochs; none where the
        record does not say."""
        evaluated = self.evaluations()
        if evaluated is None or EPOCHS not in evaluated.further:
            return {}
        epochs = evaluated.further[EPOCHS]
        return {int(e): int((epochs >= e).sum()) for e in np.unique(epochs)}

    def reasons(self) -> dict[str, int]:
        """Why networks have no accuracy, each reason with how often it came."""
        evaluated = self.evaluations()
        return {} if evaluated is None else dict(sorted(Counter(evaluated.failed.values()).items()))

    def refuse_without_accuracy(self) -> None:
        """End where no network that was evaluated has an accuracy.

        Raises:
            NotEnoughData: None has; the reasons are in the message.
        """
        if self.failures < len(self) or (evaluated := self.evaluations()) is None:
            return
        first = self.space.decode(evaluated.genomes[min(evaluated.failed)])
        raise NotEnoughData(
            f"none of {len(self):,} networks that were evaluated got an accuracy: "
            f"{summarise_reasons(self.reasons())}. Try one of them alone, with the options of this "
            f"search:  phonenas accuracy '{first}'. Then search with another --out."
        )

    def front(
        self, intervals: Intervals, on_devices: Mapping[str, Intervals] | None = None
    ) -> ParetoFront:
        """The front of all networks that meet the hard constraints, by rising cost; where not all
        were trained as long, of those trained longest.

        Args:
            intervals: Of latency, by genome.
            on_devices: Of the latency on each of several devices, by its column.
        Raises:
            NotEnoughData: No network was evaluated, or none has an accuracy.
            Infeasible: None meets the constraints; the closest is named.
        """
        self.refuse_without_accuracy()
        spec, evaluated = self.spec, self.evaluations()
        if evaluated is None:
            raise NotEnoughData("the strategy proposed no network, so there is no front")
        within = np.flatnonzero(spec.met(evaluated) & evaluated.comparable)
        if not len(within):
            closest = int(np.argmin(spec.overstepped(evaluated)))
            where = f" on {self.device}; the fastest takes {self._fastest_ms:.2f} ms"
            where = where if spec.devices is None else ""
            raise Infeasible(
                f"none of {len(evaluated):,} networks evaluated meets {spec.constraints()}"
                f"{where}; the closest has {spec.describe(evaluated, closest)}. Raise --target or "
                "the limit, lower --resolution or give more --evaluations, with another --out."
            )
        rows, left_out = spec.front(evaluated.take(within))
        best = evaluated.take(within[rows])
        low, high, covered = intervals(best.genomes)
        counts = AdditiveTable(self.space, lambda o: (o.macs, o.params))(best.genomes)
        ms, given, rewards = None, "", [None] * len(best)
        if spec.target is not None:
            ms, given = spec.target.ms, spec.target.given
            rewards = spec.rewards(best).tolist()
        columns = {
            **{name: getattr(best, name).tolist() for name in COLUMNS},
            "low_ms": low.tolist(),
            "high_ms": high.tolist(),
            "covered": covered.tolist(),
            "macs": counts[:, 0].astype(np.int64).tolist(),
            "params": counts[:, 1].astype(np.int64).tolist(),
            "reward": rewards,
        }
        further = {**best.further, **spec.ratios(best)}
        ends = {name: of(best.genomes) for name, of in (on_devices or {}).items()}
        candidates = tuple(
            Candidate(
                id=i,
                block_args=self.space.text(best.genomes[i]),
                values={name: float(values[i]) for name, values in further.items()},
                intervals={
                    name: Interval(float(low[i]), float(high[i]), bool(covered[i]))
                    for name, (low, high, covered) in ends.items()
                },
                **{name: values[i] for name, values in columns.items()},
            )
            for i in range(len(best))
        )
        front = ParetoFront(candidates, ms, given, self.volume(), self.origin, left_out=left_out)
        if spec.devices is None:
            return front
        return replace(front, targets=spec.devices.targets_ms, origins=spec.devices.origins)
