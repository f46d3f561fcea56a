"""Aims: what a search is after, and how far a network is from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument
from .limits import Limit
from .objectives import NAME, RESERVED, Objective
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
        known: dict[str, Objective] = {}
        for objective in (*self.also, *(q.objective for q in self.limits)):
            other = known.setdefault(objective.name, objective)
            if objective.name in RESERVED or not re.fullmatch(NAME, objective.name):
                raise InvalidArgument(f"{objective.name!r} cannot name an objective")
            if (type(other), other.digest) != (type(objective), objective.digest):
                raise InvalidArgument(f"two different objectives are called {objective.name}")

    @property
    def told_of(self) -> tuple[Objective, ...]:
        """All objectives besides top-1 and latency, those of limits included, each once."""
        found = {o.name: o for o in self.also}
        for limit in self.limits:
            found.setdefault(limit.objective.name, limit.objective)
        return tuple(found.values())

    @property
    def binding(self) -> tuple[Limit, ...]:
        """The hard limits."""
        return tuple(q for q in self.limits if q.soft is None)

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
            found["also"] = [
                f"{o.name} ({o.digest})" + (" up" if o.maximise else "") for o in self.also
            ]
        if self.limits:
            found["limits"] = [limit.describe() for limit in self.limits]
        if self.columns != NUMBERS:
            found["columns"] = list(self.columns)
        return found

    def losses(self, numbers: Objectives) -> Objectives:
        """What is minimised, (n, 2 + also): 1 - top1 weighed by soft limits, latency, and so on."""
        top1 = numbers[:, 1] * self.weights(numbers)
        more = [(-1 if o.maximise else 1) * self._of(o.name, numbers) for o in self.also]
        return np.column_stack([1 - top1, numbers[:, 0], *more])

    def weights(self, numbers: Objectives) -> npt.NDArray[np.float64]:
        """What all soft limits weigh top-1 by, (n,), in (0, 1]."""
        found = np.ones(len(numbers))
        for limit in self.limits:
            found *= limit.weight(self._of(limit.objective.name, numbers))
        return found

    def _of(self, name: str, numbers: Objectives) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = numbers[:, self.columns.index(name)]
        return found

    def beyond_target(self, numbers: Objectives) -> npt.NDArray[np.float64]:
        """How far each network oversteps a hard target, relative, (n,); ≤ 0 where it does not."""
        if self.target_ms is None or self.soft:
            return np.full(len(numbers), -1.0)
        found: npt.NDArray[np.float64] = numbers[:, 0] / self.target_ms - 1
        return found

    def beyond_limits(self, numbers: Objectives, cheap: bool = False) -> Objectives:
        """How far each network oversteps the chance and each hard limit, (n, limits); ≤ 0: it does not.

        Args:
            numbers: (n, columns).
            cheap: Leave out what costs more than a look-up to tell.
        """
        found = []
        if self.chance is not None:
            lacks = self.chance - self._of("chance", numbers)
            # Far beyond the target the chance is 0 everywhere and shows no way.
            far = np.maximum(self.beyond_target(numbers), 0)
            found.append(np.where(lacks > 0, lacks + far, lacks))
        found += [
            limit.overstepped(self._of(limit.objective.name, numbers))
            for limit in self.binding
            if limit.objective.cheap or not cheap
        ]
        return np.column_stack(found) if found else np.empty((len(numbers), 0))

    def violation(self, numbers: Objectives) -> npt.NDArray[np.float64]:
        """How far the limit overstepped most is, (n,), the target left out; ≤ 0 where all are kept."""
        over = self.beyond_limits(numbers)
        return over.max(axis=1) if over.shape[1] else np.full(len(numbers), -1.0)

    def met(self, numbers: Objectives) -> npt.NDArray[np.bool_]:
        """Which networks keep the target and all limits, (n,)."""
        found: npt.NDArray[np.bool_] = (self.beyond_target(numbers) <= 0) & (
            self.violation(numbers) <= 0
        )
        return found

    def words(self) -> str:
        """All hard constraints, for people."""
        found = []
        if self.target_ms is not None and not self.soft:
            p = "" if self.chance is None else f" with a chance of {self.chance:.0%}"
            found.append(f"{self.target_ms:g} ms{p}")
        found += [str(limit) for limit in self.binding]
        return " and ".join(found)

    def volume(self, losses: Objectives, slowest_ms: float, worst: Objectives) -> float:
        """Share of a box that losses dominate, in [0, 1]; an estimate with more than four objectives.

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
        limits = {q.objective.name: q.at_most for q in self.binding}
        for i, objective in enumerate(self.also, start=2):
            low, high = float(worst[0, i]), float(worst[1, i])
            ideal.append(min(low, 0.0) if not objective.maximise else low)
            high = limits.get(objective.name) or high
            reference.append(high + 1e-9 * max(abs(high), 1e-9))
        return hypervolume(losses, ideal, reference)
