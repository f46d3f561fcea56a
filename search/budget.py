"""Budget: how many networks a search evaluates, and the rules by which it may end before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from phonenas.space.errors import InvalidArgument

from .checkpoint import BUDGET, RULES

__all__ = ["GAIN", "Budget"]

# Share of its hypervolume up to which a search has no gain. In a large space nearly each generation
# has some: in `mnasnet` on a ready Pixel 4 one in each 100 of 8,000 networks.
GAIN = 0.001


@dataclass(frozen=True)
class Budget:
    """When a search ends. A search that ended goes on if it is given a greater budget.

    Args:
        evaluations: Distinct networks to evaluate, ≥ 1.
        patience: The search ends before, after a generation, if the latest so many networks added
            0.1 % or less to the hypervolume, ≥ 1; None for no such rule. It begins to count with
            the first network within all constraints.
        time_s: The search ends before, after the generation in which its time comes to so many
            seconds, > 0; stops of the run are left out. None for no such rule.
        training_s: The search ends before, after the generation in which its trainings come to so
            many seconds together, > 0; also those that ran side by side. None for no such rule.
    Raises:
        InvalidArgument: A number out of range.
    """

    evaluations: int = 8000
    patience: int | None = None
    time_s: float | None = None
    training_s: float | None = None

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise InvalidArgument(f"evaluations: 1 or more, got {self.evaluations}")
        if self.patience is not None and self.patience < 1:
            raise InvalidArgument(f"patience: 1 network or more, got {self.patience}")
        for of, seconds in (("a search", self.time_s), ("its trainings", self.training_s)):
            if seconds is not None and not 0 < seconds < np.inf:
                raise InvalidArgument(f"the time of {of} is above 0 s, got {seconds:g}")

    @property
    def settings(self) -> dict[str, Any]:
        """Ready for JSON, without the rules that it does not have."""
        rules = {rule: getattr(self, rule) for rule in RULES}
        return {BUDGET: self.evaluations, **{n: v for n, v in rules.items() if v is not None}}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Budget:
        """That of a run's settings."""
        return cls(settings[BUDGET], *(settings.get(rule) for rule in RULES))

    def rule_met(
        self, grown: Callable[[int], float], seconds: float, trained_s: float = 0.0
    ) -> str:
        """The rule that ends a search, "patience", "time" or "training"; "" where it goes on.

        Args:
            grown: Share of the hypervolume that the latest n networks added, by n; in [0, 1].
            seconds: How long it has run.
            trained_s: How long its trainings took together, in seconds.
        """
        if self.patience is not None and grown(self.patience) <= GAIN:
            return "patience"
        if self.training_s is not None and trained_s >= self.training_s:
            return "training"
        return "time" if self.time_s is not None and seconds >= self.time_s else ""

    def is_spent(self, ended: str, before: Budget, evaluations: int, seconds: float) -> bool:
        """Whether a search that ended has nothing left to do.

        Args:
            ended: The rule that ended it; "" where it evaluated all networks.
            before: The budget that it had.
            evaluations, seconds: What it evaluated, and how long it ran.
        """
        if self.evaluations <= (evaluations if ended else before.evaluations):
            return True
        rules = {
            "patience": (self.patience, before.patience),
            "training": (self.training_s, before.training_s),
        }
        now, had = rules.get(ended, (None, None))
        if now is not None and had is not None and now <= had:
            return True
        return self.time_s is not None and seconds >= self.time_s
