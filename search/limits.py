"""Limit: what an objective may be, hard or soft."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..latency_model import LatencyModel
from ..space.errors import InvalidArgument
from .objectives import Objective, named
from .reward import SOFT

__all__ = ["Limit", "parse_limit"]

Floats = npt.NDArray[np.float64]
_LIMIT = re.compile(r"\s*(?P<name>[^<>=~]+?)\s*(?P<sign><=|>=)\s*(?P<soft>~?)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """What an objective may be.

    Args:
        objective: Of any kind; it need not be minimised or maximised besides.
        at_most, at_least: The bound, one of both, in the objective's unit, > 0.
        soft: Exponent ≤ 0 of one plus how far the bound is overstepped, relative (value over bound,
            where that is a greatest one), that top-1 is weighed by; None: a hard bound, which no network of the front oversteps.
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
                f"a limit of {self.objective.name} is one finite number above 0, at most or at least"
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
        of = hashlib.sha256(self.objective.digest.encode()).hexdigest()[:8]
        return f"{self} ({of})" + ("" if self.soft is None else f" exponent {self.soft!r}")


def parse_limit(text: str, model_of: Callable[[str], LatencyModel] | None = None) -> Limit:
    """A limit as the command line has it: `macs<=300e6`; `params<=~4e6` is soft, weighed by exponent -0.07.

    Raises:
        InvalidArgument: Not of that form.
        UnknownName: No such objective.
    """
    match = _LIMIT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        bound = float(match["bound"])
    except ValueError as error:
        raise InvalidArgument(
            f"{text!r} is no limit: an objective, <= or >=, and a number, as macs<=300e6 (soft: macs<=~300e6)"
        ) from error
    soft = SOFT[1] if match["soft"] else None
    objective = named(match["name"], model_of)
    if match["sign"] == "<=":
        return Limit(objective, at_most=bound, soft=soft)
    return Limit(objective, at_least=bound, soft=soft)
