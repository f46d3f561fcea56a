"""Spec: what a search is after; its losses, and the share of them that a front dominates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from phonenas.data.documents import Number, Text, strict
from phonenas.space.errors import InvalidArgument

from .constraints import Constraints, Limit, Target, split_limit
from .evaluations import CHANCE, COLUMNS, Evaluations
from .objectives import NAME, RESERVED, Objective, Recorded
from .pareto import hypervolume

__all__ = ["Spec"]

Floats = npt.NDArray[np.float64]
_ALSO = re.compile(r"(?P<name>\S+) \(.*\)(?P<up> up)?")  # an objective in the settings of a run


class _Objective(msgspec.Struct, forbid_unknown_fields=True):
    name: Text
    unit: Text = ""
    maximise: bool = False


class _Limit(msgspec.Struct, forbid_unknown_fields=True):
    objective: _Objective
    at_most: Number | None = None
    at_least: Number | None = None
    soft: Number | None = None


class _Kept(msgspec.Struct):
    """`Spec.to_dict`, as a run keeps it."""

    also: list[_Objective]
    limits: list[_Limit]


@dataclass(frozen=True)
class Spec(Constraints):
    """What a search is after: constraints, and objectives besides top-1 and latency.

    Args:
        target: Of latency on the device; None for the whole front.
        limits: Bounds on anything, hard or soft.
        also: Objectives besides top-1 and latency; the front is that of all.
        trust: Standard errors that are deducted from each estimate of top-1 before networks are
            compared, ≥ 0; so a search stays where the estimator knows the networks' parts.
    Raises:
        InvalidArgument: A name twice, one that cannot name an objective, or a trust below 0.
    """

    also: Sequence[Objective] = ()
    trust: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.trust < np.inf:
            raise InvalidArgument(
                f"trust is a number of standard errors to deduct, 0 or more, got {self.trust:g}"
            )
        object.__setattr__(self, "also", tuple(self.also))
        names = [o.name for o in self.also]
        if len(set(names)) < len(names):
            raise InvalidArgument(f"objectives of one name: {', '.join(names)}")
        known: dict[str, Objective] = {}
        for objective in (*self.also, *(q.objective for q in self.limits)):
            other = known.setdefault(objective.name, objective)
            named = objective.name.replace("/", ".")  # a ready phone's name has slashes
            if objective.name in RESERVED or not re.fullmatch(NAME, named):
                raise InvalidArgument(f"{objective.name!r} cannot name an objective")
            if (type(other), other.digest) != (type(objective), objective.digest):
                raise InvalidArgument(f"two different objectives are called {objective.name}")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All besides top-1 and latency, those of limits included, each once."""
        known = {o.name: o for o in self.also}
        for limit in self.limits:
            known.setdefault(limit.objective.name, limit.objective)
        return tuple(known.values())

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must share, ready for JSON."""
        target = self.target
        columns = [*COLUMNS, *(o.name for o in self.objectives)]
        settings: dict[str, Any] = {
            "target_ms": None if target is None else target.ms,
            "target": "" if target is None else target.given,
        }
        if target is not None and target.soft:
            settings["soft"] = True
        if self.chance is not None:
            settings["chance"] = self.chance
            columns.append(CHANCE)
        if self.also:
            settings["also"] = [
                f"{o.name} ({o.digest})" + (" up" if o.maximise else "") for o in self.also
            ]
        if self.limits:
            settings["limits"] = [limit.describe() for limit in self.limits]
        if len(columns) > len(COLUMNS):
            settings["columns"] = columns
        if self.trust:
            settings["trust"] = float(self.trust)
        return settings

    def to_dict(self) -> dict[str, Any]:
        """Objectives and limits, ready for JSON; a run keeps them beside its settings."""
        return {
            "also": [o.to_dict() for o in self.also],
            "limits": [limit.to_dict() for limit in self.limits],
        }

    @classmethod
    def recorded(cls, settings: Mapping[str, Any], kept: Mapping[str, Any] | None) -> Spec:
        """What a finished run was after; its objectives cannot be computed for other networks.

        Args:
            settings: Of the run.
            kept: `to_dict` of its spec; None in a run of version 0.1, which has text in `settings`.
        Raises:
            ValueError, KeyError, TypeError, AttributeError: Damaged.
        """
        target, trust = None, float(settings.get("trust", 0.0))
        if settings["target_ms"] is not None:
            soft, chance = bool(settings.get("soft")), settings.get("chance")
            target = Target(settings["target_ms"], settings["target"], soft, chance)
        if kept is not None:
            file = strict(kept, _Kept)
            also = [Recorded(o.name, o.unit, o.maximise) for o in file.also]
            limits = [
                Limit(
                    Recorded(q.objective.name, q.objective.unit, q.objective.maximise),
                    q.at_most,
                    q.at_least,
                    q.soft,
                )
                for q in file.limits
            ]
            return cls(target, limits, also, trust)
        matches = [_ALSO.fullmatch(text) for text in settings.get("also", ())]
        if None in matches:
            raise ValueError(f"also is {settings['also']!r}")
        also = [Recorded(m["name"], maximise=bool(m["up"])) for m in matches if m is not None]
        known = {o.name: o for o in also}
        limits = []
        for text in settings.get("limits", ()):
            name, bound = split_limit(text.split(" (")[0])
            if " exponent " in text:
                bound["soft"] = float(text.split(" exponent ")[1])
            limits.append(Limit(known.setdefault(name, Recorded(name)), **bound))
        return cls(target, limits, also, trust)

    def losses(self, evaluated: Evaluations) -> Floats:
        """What is minimised, (n, 2 + also): 1 - top1, less its distrust and weighed by soft limits,
        latency, and so on."""
        top1 = (evaluated.top1 - self.trust * evaluated.top1_error) * self.weights(evaluated)
        more = [(-1 if o.maximise else 1) * evaluated.further[o.name] for o in self.also]
        return np.column_stack([1 - top1, evaluated.latency_ms, *more])

    def weights(self, evaluated: Evaluations) -> Floats:
        """What all soft limits weigh top-1 by, (n,), in (0, 1]."""
        weights = np.ones(len(evaluated))
        for limit in self.limits:
            weights *= limit.weight(evaluated.further[limit.objective.name])
        return weights

    def volume(self, losses: Floats, slowest_ms: float, worst: Floats) -> float:
        """Share of a box that losses dominate, in [0, 1]; an estimate with five objectives or more.

        The box: top-1 from 1 to 0, latency from 0 to the target or the slowest seen, each further
        objective from 0 (or the best seen, if below) to its hard bound or the worst seen. Two runs
        with one target and no further objectives compare.

        Args:
            losses: Of the networks that meet all constraints, (n, k).
            slowest_ms, worst: Slowest latency, and best and worst losses, (2, k), seen so far.
        """
        bound = slowest_ms if self.hard_ms is None else self.hard_ms
        ideal, reference = [0.0, 0.0], [1.0, bound * (1 + 1e-9)]
        limits = {q.objective.name: q.at_most for q in self.hard_limits}
        for i, objective in enumerate(self.also, start=2):
            low, high = float(worst[0, i]), float(worst[1, i])
            ideal.append(min(low, 0.0) if not objective.maximise else low)
            high = limits.get(objective.name) or high
            reference.append(high + 1e-9 * max(abs(high), 1e-9))
        return hypervolume(losses, ideal, reference)
