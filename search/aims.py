"""Aims: what a search is after, and how far a network is from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument
from .limits import Limit
from .objectives import Objective
from .pareto import hypervolume
from .run_folder import NUMBERS
from .strategy import Objectives

__all__ = ["Aims"]


@dataclass(frozen=True)
class Aims:
    """What a search is after.

    Args:
        target_ms: Of latency on the device, > 0; None for the whole front.
        soft: Whether the target only weighs, and networks beyond it stay in the front.
        chance: Least probability to meet the target, in (0, 1), by the model's interval; None
            where the prediction itself is held to it.
        also: Further objectives.
        limits: On anything.
    Raises:
        InvalidArgument: A chance outside its range or without a hard target, or a name twice.
    """

    target_ms: float | None = None
    soft: bool = False
    chance: float | None = None
    also: tuple[Objective, ...] = ()
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        if self.chance is not None:
            if not 0 < self.chance < 1:
                raise InvalidArgument(
                    f"a chance to meet the target lies between 0 and 1, got {self.chance:g}"
                )
            if self.target_ms is None or self.soft:
                raise InvalidArgument("a chance to meet the target needs a target, and a hard one")
        if self.soft and self.target_ms is None:
            raise InvalidArgument("a soft target needs a target")
        names = [o.name for o in self.also]
        if len(set(names)) < len(names):
            raise InvalidArgument(f"objectives of one name: {', '.join(names)}")

    @property
    def told_of(self) -> tuple[Objective, ...]:
        """All objectives besides top-1 and latency, those of limits included, each once."""
        found = {o.name: o for o in self.also}
        for limit in self.limits:
            found.setdefault(limit.objective.name, limit.objective)
        return tuple(found.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """What is remembered of each network."""
        return (
            *NUMBERS,
            *(o.name for o in self.told_of),
            *(("chance",) if self.chance is not None else ()),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must share besides the target; empty where nothing more is asked."""
        found: dict[str, Any] = {}
        if self.soft:
            found["soft"] = True
        if self.chance is not None:
            found["chance"] = self.chance
        if self.also:
            found["also"] = [f"{o.name} ({o.digest})" for o in self.also]
        if self.limits:
            found["limits"] = [limit.describe() for limit in self.limits]
        if self.columns != NUMBERS:
            found["columns"] = list(self.columns)
        return found

    def losses(self, numbers: Objectives) -> Objectives:
        """What is minimised, (n, 2 + also): 1 - top1 weighed by soft limits, latency, and so on."""
        top1 = numbers[:, 1].copy()
        for limit in self.limits:
            top1 *= limit.weight(self._of(limit.objective.name, numbers))
        more = [(-1 if o.maximise else 1) * self._of(o.name, numbers) for o in self.also]
        return np.column_stack([1 - top1, numbers[:, 0], *more])

    def _of(self, name: str, numbers: Objectives) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = numbers[:, self.columns.index(name)]
        return found

    def oversteps(self, numbers: Objectives) -> Objectives:
        """How far each network oversteps each hard constraint, (n, constraints); ≤ 0: it does not."""
        found = []
        if self.target_ms is not None and not self.soft:
            over = numbers[:, 0] / self.target_ms - 1
            found.append(over)
            if self.chance is not None:
                lacks = self.chance - self._of("chance", numbers)
                # Far beyond the target the chance is 0 everywhere and shows no way.
                found.append(np.where(lacks > 0, lacks + np.maximum(over, 0), lacks))
        found += [
            limit.overstepped(self._of(limit.objective.name, numbers))
            for limit in self.limits
            if limit.soft is None
        ]
        return np.column_stack(found) if found else np.empty((len(numbers), 0))

    def violation(self, numbers: Objectives) -> npt.NDArray[np.float64]:
        """The farthest overstepped, (n,); 0 where nothing binds."""
        over = self.oversteps(numbers)
        return over.max(axis=1) if over.shape[1] else np.zeros(len(numbers))

    def words(self) -> str:
        """All hard constraints, for people."""
        found = []
        if self.target_ms is not None and not self.soft:
            p = "" if self.chance is None else f" with a chance of {self.chance:.0%}"
            found.append(f"{self.target_ms:g} ms{p}")
        found += [str(limit) for limit in self.limits if limit.soft is None]
        return " and ".join(found)

    def volume(self, losses: Objectives, slowest_ms: float, worst: Objectives) -> float:
        """Share of a box that losses dominate, in [0, 1].

        The box: top-1 from 1 to 0, latency from 0 to the target or the slowest seen, each further
        objective from 0 (or the best seen, if below) to its hard bound or the worst seen. Two runs
        with one target and no further objectives compare.

        Args:
            losses: Of what meets all constraints, (n, k).
            slowest_ms: Seen so far.
            worst: Best and worst losses seen so far, (2, k).
        """
        bound = self.target_ms if self.target_ms is not None and not self.soft else slowest_ms
        ideal, reference = [0.0, 0.0], [1.0, bound * (1 + 1e-9)]
        limits = {q.objective.name: q.at_most for q in self.limits if q.soft is None}
        for i, objective in enumerate(self.also, start=2):
            low, high = float(worst[0, i]), float(worst[1, i])
            ideal.append(min(low, 0.0) if not objective.maximise else low)
            high = limits.get(objective.name) or high
            reference.append(high + 1e-9 * max(abs(high), 1e-9))
        return hypervolume(losses, ideal, reference)
