"""Constraints: the target, limits on anything, and how far a network is beyond them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import LatencyModel
from phonenas.latency_model.peak_memory import PeakMemory
from phonenas.space.errors import InvalidArgument

from .evaluations import CHANCE, Evaluations
from .objectives import Objective, named
from .strategies.reward import SOFT, check_target

__all__ = ["Constraints", "Limit", "Target", "parse_limit", "split_limit"]

Floats = npt.NDArray[np.float64]
_LIMIT = re.compile(r"\s*(?P<name>[^<>=~]+?)\s*(?P<sign><=|>=)\s*(?P<soft>~?)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True)
class Target:
    """The latency that a network may have.

    Args:
        ms: On the device, > 0.
        given: As it was asked for ("25", or a network whose measured latency it is).
        soft: It only weighs, by the paper's exponents: networks beyond it stay in the front.
        chance: Least probability that a measurement meets it, in (0, 1), by the model's
            interval; None: the prediction must meet it.
    Raises:
        InvalidArgument: A number outside its range, or a chance for a soft target.
    """

    ms: float
    given: str = ""
    soft: bool = False
    chance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ms", check_target(self.ms))
        object.__setattr__(self, "given", self.given or f"{self.ms:g}")
        if self.chance is not None and not 0 < self.chance < 1:
            raise InvalidArgument(
                f"a chance to meet the target lies between 0 and 1, got {self.chance:g}"
            )
        if self.chance is not None and self.soft:
            raise InvalidArgument("a chance to meet the target needs a hard target")

    def __str__(self) -> str:
        chance = "" if self.chance is None else f" with a chance of {self.chance:.0%}"
        return f"{self.ms:g} ms{chance}"


@dataclass(frozen=True)
class Limit:
    """What an objective may be.

    Args:
        objective: Of any kind; it need not be minimised or maximised besides.
        at_most, at_least: The bound, one of both, in the objective's unit, > 0.
        soft: None for a hard bound, which no network of the front oversteps; else top-1 is weighed
            by (1 + how far the bound is overstepped, relative) to this power, ≤ 0.
    Raises:
        InvalidArgument: Neither or both bounds, or one outside its range.
    """

    objective: Objective
    at_most: float | None = None
    at_least: float | None = None
    soft: float | None = None

    def __post_init__(self) -> None:
        bounds = [b for b in (self.at_most, self.at_least) if b is not None]
        if len(bounds) != 1 or not (np.isfinite(bounds[0]) and bounds[0] > 0):
            raise InvalidArgument(
                f"a limit of {self.objective.name} is one finite number above 0, at_most or "
                "at_least"
            )
        if self.soft is not None and not -np.inf < self.soft <= 0:
            raise InvalidArgument(f"a soft limit's exponent is 0 or below, got {self.soft:g}")

    def __str__(self) -> str:
        sign, bound = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        return f"{self.objective.name}{sign}{'~' if self.soft is not None else ''}{bound:.15g}"

    def overstepped(self, values: Floats) -> Floats:
        """How far each value oversteps the bound, relative, (n,); ≤ 0 where it does not."""
        if self.at_most is not None:
            return values / self.at_most - 1
        assert self.at_least is not None
        return 1 - values / self.at_least

    def weight(self, values: Floats) -> Floats:
        """What a soft limit weighs top-1 by, (n,), in (0, 1]; 1 for a hard one."""
        if self.soft is None:
            return np.ones(len(values))
        weighed: Floats = (1 + np.maximum(self.overstepped(values), 0)) ** self.soft
        return weighed

    def describe(self) -> str:
        """All of it in one line, for a run's settings."""
        digest = hashlib.sha256(self.objective.digest.encode()).hexdigest()[:8]
        return f"{self} ({digest})" + ("" if self.soft is None else f" exponent {self.soft!r}")

    def to_dict(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        return {
            "objective": self.objective.to_dict(),
            "at_most": self.at_most,
            "at_least": self.at_least,
            "soft": self.soft,
        }


@dataclass(frozen=True)
class Constraints:
    """What a network must keep.

    Args:
        target: Of latency on the device; None for none.
        limits: Bounds on anything, hard or soft.
    """

    target: Target | None = None
    limits: Sequence[Limit] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))

    @property
    def hard_ms(self) -> float | None:
        """The target that no network of the front exceeds, in ms; None for a soft one or none."""
        return None if self.target is None or self.target.soft else self.target.ms

    @property
    def chance(self) -> float | None:
        """Least probability to meet the target, in (0, 1), or None."""
        return None if self.target is None else self.target.chance

    @property
    def hard_limits(self) -> tuple[Limit, ...]:
        """Those that no network of the front oversteps."""
        return tuple(q for q in self.limits if q.soft is None)

    def beyond_target(self, evaluated: Evaluations) -> Floats:
        """How far each network oversteps a hard target, relative, (n,); ≤ 0 where it does not."""
        if self.hard_ms is None:
            return np.full(len(evaluated), -1.0)
        beyond: Floats = evaluated.latency_ms / self.hard_ms - 1
        return beyond

    def beyond_limits(self, evaluated: Evaluations, cheap: bool = False) -> Floats:
        """How far each network oversteps the chance and each hard limit, (n, limits), ≤ 0 where it
        does not; `cheap` leaves out limits on objectives that cost more than a look-up."""
        beyond = []
        if self.chance is not None:
            lacks = self.chance - evaluated.further[CHANCE]
            # Far beyond the target the chance is 0 everywhere and shows no way.
            far = np.maximum(self.beyond_target(evaluated), 0)
            beyond.append(np.where(lacks > 0, lacks + far, lacks))
        beyond += [
            limit.overstepped(evaluated.further[limit.objective.name])
            for limit in self.hard_limits
            if limit.objective.cheap or not cheap
        ]
        return np.column_stack(beyond) if beyond else np.empty((len(evaluated), 0))

    def violation(self, evaluated: Evaluations) -> Floats:
        """How far the limit overstepped most is, (n,), without the target; ≤ 0 where all hold."""
        over = self.beyond_limits(evaluated)
        return over.max(axis=1) if over.shape[1] else np.full(len(evaluated), -1.0)

    def overstepped(self, evaluated: Evaluations, cheap: bool = False) -> Floats:
        """All constraints together, (n,), ≥ 0; 0 where all are met; `cheap` as above."""
        limits = np.maximum(self.beyond_limits(evaluated, cheap), 0).sum(axis=1)
        over: Floats = limits + np.maximum(self.beyond_target(evaluated), 0)
        return over

    def met(self, evaluated: Evaluations) -> npt.NDArray[np.bool_]:
        """Which networks keep the target and all limits, (n,)."""
        met: npt.NDArray[np.bool_] = (self.beyond_target(evaluated) <= 0) & (
            self.violation(evaluated) <= 0
        )
        return met

    def constraints(self) -> str:
        """All hard constraints, for people; "" where there are none."""
        target = [str(self.target)] if self.hard_ms is not None else []
        return " and ".join([*target, *(str(limit) for limit in self.hard_limits)])

    def describe(self, evaluated: Evaluations, row: int) -> str:
        """What one network has of all that is constrained, for people."""
        parts = [f"{evaluated.latency_ms[row]:.2f} ms"]
        for limit in self.hard_limits:
            name, unit = limit.objective.name, limit.objective.unit
            parts.append(f"{name} {evaluated.further[name][row]:,.4g} {unit}".rstrip())
        if self.chance is not None:
            parts.append(f"a chance of {evaluated.further[CHANCE][row]:.0%}")
        return ", ".join(parts)


def split_limit(text: str) -> tuple[str, dict[str, float | None]]:
    """Name of the objective, and `at_most` or `at_least` and `soft` of `Limit`.

    Raises:
        InvalidArgument: Not of the form of `parse_limit`.
    """
    match = _LIMIT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        bound = float(match["bound"])
    except ValueError as error:
        raise InvalidArgument(
            f"{text!r} is not a limit: an objective, <= or >=, and a number, as macs<=300e6 (soft: "
            "macs<=~300e6)"
        ) from error
    which = "at_most" if match["sign"] == "<=" else "at_least"
    return match["name"], {which: bound, "soft": SOFT[1] if match["soft"] else None}


def parse_limit(
    text: str,
    model_of: Callable[[str], LatencyModel] | None = None,
    memory_of: Callable[[], PeakMemory] | None = None,
) -> Limit:
    """A limit as the command line has it: `macs<=300e6`; `params<=~4e6` is soft (exponent -0.07).

    Raises:
        InvalidArgument: Not of that form.
        UnknownName: No such objective.
    """
    name, bound = split_limit(text)
    return Limit(named(name, model_of, memory_of), **bound)
