"""Spec: what a search is after; its losses, and the share of them that a front dominates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from phonenas.data.documents import Number, Text, strict
from phonenas.space.errors import InvalidArgument

from .constraints import Constraints, Devices, Limit, Target, split_limit
from .evaluations import CHANCE, COLUMNS, Evaluations
from .objectives import NAME, RATIO, RESERVED, Latency, Objective, Recorded
from .pareto import hypervolume, non_dominated
from .strategies.reward import reward

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
            compared, ≥ 0; so a search stays where the estimator knows the networks' parts. A front
            compares extrapolated networks more strictly; see `front`.
        devices: Several devices, instead of a target.
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
        for objective in (*self.on_devices, *self.also, *(q.objective for q in self.limits)):
            other = known.setdefault(objective.name, objective)
            named = objective.name.replace("/", ".")  # a ready phone's name has slashes
            taken = RESERVED if self.devices is None else (*RESERVED, RATIO)
            if objective.name in taken or not re.fullmatch(NAME, named):
                raise InvalidArgument(f"{objective.name!r} cannot name an objective")
            if (type(other), other.digest) != (type(objective), objective.digest):
                raise InvalidArgument(f"two different objectives are called {objective.name}")
        if twice := [o.name for o in self._costs if o.name in names]:
            raise InvalidArgument(f"{twice[0]} is an objective already: leave out --also")

    @property
    def on_devices(self) -> tuple[Objective, ...]:
        """The latency on each of several devices; none for one device."""
        return () if self.devices is None else tuple(d.latency for d in self.devices.on)

    @property
    def _costs(self) -> tuple[Objective, ...]:
        """Further latencies that are objectives of their own."""
        if self.devices is None or self.devices.across != "each":
            return ()
        return tuple(d.latency for d in self.devices.others)

    @property
    def _one_ratio(self) -> bool:
        """Whether the cost is one ratio of several devices; else it is the latency, in ms."""
        return self.devices is not None and self.devices.across != "each"

    @property
    def cost_target(self) -> float | None:
        """What the cost may be, in its unit: the target in ms, or 1 of several devices' ratio."""
        if self.target is None:
            return None
        return 1.0 if self._one_ratio else self.target.ms

    @property
    def loss_count(self) -> int:
        """How many losses a network has."""
        return 2 + len(self._costs) + len(self.also)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All besides top-1 and latency, those of limits and of several devices included."""
        known = {o.name: o for o in (*self.on_devices, *self.also)}
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
        if self.devices is not None:
            settings |= self.devices.settings
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
        """Objectives and limits, ready for JSON; a run keeps them beside its settings.

        Of several devices also what the model of each says of itself, its conditions among it.
        """
        models = {o.model.device: o.model for o in self.on_devices if isinstance(o, Latency)}
        return {
            "also": [o.to_dict() for o in self.also],
            "limits": [limit.to_dict() for limit in self.limits],
            **({"devices": {d: m.summary() for d, m in models.items()}} if models else {}),
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
        soft, chance = bool(settings.get("soft")), settings.get("chance")
        if settings["target_ms"] is not None:
            target = Target(settings["target_ms"], settings["target"], soft, chance)
        devices = Devices.recorded(settings, soft, chance)
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
            return cls(target, limits, also, trust, devices=devices)
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

    def cost(self, evaluated: Evaluations) -> Floats:
        """What is minimised besides the accuracy, (n,): latency in ms, or devices' ratio."""
        if self.devices is not None and self._one_ratio:
            return self.devices.ratio(evaluated)
        return evaluated.latency_ms

    def ratios(self, evaluated: Evaluations) -> dict[str, Floats]:
        """The one ratio of several devices with targets as a column, (n,); none elsewhere."""
        if self.devices is None or self.target is None:
            return {}
        return {RATIO: self.devices.ratio(evaluated)}

    def losses(self, evaluated: Evaluations) -> Floats:
        """What is minimised, (n, loss_count): 1 - top1, less its distrust and weighed by soft
        limits, the cost, and so on."""
        top1 = (evaluated.top1 - self.trust * evaluated.top1_error) * self.weights(evaluated)
        more = [
            (-1 if o.maximise else 1) * evaluated.further[o.name]
            for o in (*self._costs, *self.also)
        ]
        return np.column_stack([1 - top1, self.cost(evaluated), *more])

    def front(self, evaluated: Evaluations) -> tuple[npt.NDArray[np.intp], int]:
        """The networks that none beats, by rising cost.

        An extrapolated network is among them only where it is better by more than its doubt: where
        the lower end of its top-1, by `trust`, is above the estimates of all others that are as
        good in everything else. Else a front is full of networks, mostly its fastest ones, whose
        differences are far smaller than their errors. Where all are extrapolated, or without trust,
        lower ends alone decide.

        Args:
            evaluated: Networks with a top-1 that meet the hard constraints.
        Returns:
            Rows, (m,), and how many networks are left out as extrapolated.
        """
        losses = self.losses(evaluated)
        losses[:, [0, 1]] = losses[:, [1, 0]]  # by cost, then top-1, whatever the losses' order is
        best, outside = non_dominated(losses), evaluated.outside
        if not self.trust or not outside[best].any() or outside[best].all():
            return best, 0
        hoped = losses.copy()
        hoped[:, 1] = replace(self, trust=0.0).losses(evaluated)[:, 0]
        groups = [np.flatnonzero(outside == unknown) for unknown in (False, True)]
        rows = np.concatenate([group[non_dominated(losses[group])] for group in groups])
        columns = [losses[rows, 1], *losses[rows].T[:1:-1], losses[rows, 0]]
        kept: list[int] = []
        # Whatever beats a network comes before it.
        for row in rows[np.lexsort(columns)].tolist():
            rivals = (hoped if outside[row] else losses)[kept]
            if not (rivals <= losses[row]).all(axis=1).any():
                kept.append(row)
        left_out = len({*best[outside[best]].tolist()} - {*kept})
        return np.array(kept)[np.lexsort(losses[kept].T[::-1])], left_out

    def rewards(self, evaluated: Evaluations) -> Floats:
        """The paper's soft reward of each network, (n,), weighed by soft limits; with a target.

        Of several devices it is that of one ratio: the weighted mean, else the largest.
        """
        assert self.target is not None
        ratio = (
            evaluated.latency_ms / self.target.ms
            if self.devices is None
            else self.devices.ratio(evaluated)
        )
        rewards: Floats = reward(evaluated.top1, ratio, 1.0) * self.weights(evaluated)
        return rewards

    def weights(self, evaluated: Evaluations) -> Floats:
        """What all soft limits weigh top-1 by, (n,), in (0, 1]."""
        weights = np.ones(len(evaluated))
        for limit in self.limits:
            weights *= limit.weight(evaluated.further[limit.objective.name])
        return weights

    def volume(self, losses: Floats, highest: float, worst: Floats) -> float:
        """Share of a box that losses dominate, in [0, 1]; an estimate with five objectives or more.

        The box: top-1 from 1 to 0, the cost from 0 to its target or the highest seen, each further
        objective from 0 (or the best seen, if below) to its hard bound or the worst seen. Two runs
        with one target and no further objectives compare.

        Args:
            losses: Of the networks that meet all constraints, (n, k).
            highest, worst: Highest cost, and best and worst losses, (2, k), seen so far.
        """
        bound = self.cost_target if self.hard_ms is not None else None
        ideal, reference = [0.0, 0.0], [1.0, (bound or highest) * (1 + 1e-9)]
        limits = {q.objective.name: q.at_most for q in self.hard_limits}
        if self.devices is not None and self.hard_ms is not None:
            limits |= {d.latency.name: d.target.ms for d in self.devices.on if d.target}
        for i, objective in enumerate((*self._costs, *self.also), start=2):
            low, high = float(worst[0, i]), float(worst[1, i])
            ideal.append(min(low, 0.0) if not objective.maximise else low)
            high = limits.get(objective.name) or high
            reference.append(high + 1e-9 * max(abs(high), 1e-9))
        return hypervolume(losses, ideal, reference)
