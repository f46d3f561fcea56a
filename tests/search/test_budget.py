"""A budget's rules: what ends a search, and what is left to do for a greater one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.latency_model import LatencyModel
from phonenas.search import Budget
from phonenas.search.accuracy import Surrogate
from phonenas.space.errors import InvalidArgument


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"evaluations": 0}, "evaluations: 1 or more, got 0"),
        ({"patience": 0}, "patience: 1 network or more, got 0"),
        ({"time_s": 0.0}, "the time of a search is above 0 s, got 0"),
        ({"time_s": float("nan")}, "the time of a search is above 0 s, got nan"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        Budget(**given)


def test_settings_leave_out_the_rules_that_are_not_there() -> None:
    assert Budget(30).settings == {"evaluations": 30}
    both = {"evaluations": 30, "patience": 5, "time_s": 2.5}
    assert Budget(30, 5, 2.5).settings == both
    assert Budget.of({**both, "strategy": "random"}) == Budget(30, 5, 2.5)


@pytest.mark.parametrize(
    ("budget", "gain", "seconds", "rule"),
    [
        (Budget(9), 0.0, 1e9, ""),
        (Budget(9, patience=5), 0.001, 0.0, "patience"),
        (Budget(9, patience=5), 0.0011, 0.0, ""),
        (Budget(9, time_s=60.0), 0.0, 59.9, ""),
        (Budget(9, time_s=60.0), 0.0, 60.0, "time"),
        (Budget(9, patience=5, time_s=60.0), 0.5, 60.0, "time"),
    ],
)
def test_a_rule_is_met_by_little_gain_or_by_time(
    budget: Budget, gain: float, seconds: float, rule: str
) -> None:
    assert budget.rule_met(lambda last: {5: gain}[last], seconds) == rule


@pytest.mark.parametrize(
    ("budget", "ended", "spent"),
    [
        # The run had 300 evaluations, patience 50 and 60 s, and evaluated 300 or, ended by a rule
        # after 61 s, 120 of them.
        (Budget(300), "", True),
        (Budget(301), "", False),
        (Budget(300), "patience", False),
        (Budget(120), "time", True),
        (Budget(300, patience=50), "patience", True),
        (Budget(900, patience=50), "patience", True),
        (Budget(300, patience=51), "patience", False),
        (Budget(300, patience=50), "time", False),
        (Budget(300, time_s=60.0), "time", True),
        (Budget(300, time_s=62.0), "time", False),
        (Budget(900, time_s=60.0), "", True),
    ],
)
def test_what_has_nothing_left_to_do_is_over(budget: Budget, ended: str, spent: bool) -> None:
    evaluated = 120 if ended else 300
    assert budget.is_spent(ended, Budget(300, 50, 60.0), evaluated, 61.0) is spent


@pytest.mark.parametrize("target_ms", [None, 300.0])
def test_patience_ends_a_search_by_the_hypervolume_of_its_networks(
    fitted: LatencyModel, surrogate: Surrogate, tiny: TinySpace, tmp_path: Any, target_ms: Any
) -> None:
    found = search.search(
        tiny,
        latency=fitted,
        accuracy=surrogate,
        strategy=search.get("nsga2", seed=2),
        spec=search.Spec(None if target_ms is None else search.Target(target_ms)),
        evaluations=Budget(2000, patience=60),
        into=tmp_path / "r",
    )
    run = search.load(tmp_path / "r")
    evaluated, ends = run.evaluations(), [int(row.evaluations) for row in run.log()]
    assert found.ended == "patience" and found.evaluations == ends[-1] < 2000
    losses = np.column_stack([1 - evaluated.top1, evaluated.latency_ms])

    def gained(end: int) -> float:
        """Share of the hypervolume that the last 60 networks by then added."""
        bound = losses[:end, 1].max() if target_ms is None else target_ms
        box = [0.0, 0.0], [1.0, bound * (1 + 1e-9)]
        here, before = (search.hypervolume(losses[:n], *box) for n in (end, max(end - 60, 0)))
        return 1 - before / here if here else 1.0

    assert gained(ends[-1]) <= 0.001
    assert all(gained(end) > 0.001 for end in ends[:-1] if end > 60)
