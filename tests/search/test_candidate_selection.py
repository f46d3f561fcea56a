"""Which candidates are worth a device's time."""

from __future__ import annotations

import numpy as np
import pytest

from phonenas.search.candidate_selection import chances, select_candidates
from phonenas.search.pareto import Candidate, ParetoFront


def front(
    points: list[tuple[float, float]], target_ms: float | None = None, half: float = 0.05
) -> ParetoFront:
    """Latency in ms and top-1 of each candidate, by rising latency."""
    found = []
    for i, (ms, top1) in enumerate(points):
        reward = None if target_ms is None else top1 * (ms / target_ms) ** -0.07
        low, high = ms / (1 + half), ms * (1 + half)
        found.append(Candidate(i, str(i), top1, 0.01, False, ms, low, high, True, 1, 1, reward))
    return ParetoFront(tuple(found), target_ms, "", 0.5)


def curve(n: int, low: float = 2.0, high: float = 10.0) -> list[tuple[float, float]]:
    return [(ms, 0.8 - 0.6 / ms) for ms in np.linspace(low, high, n)]


def test_the_chance_follows_the_interval() -> None:
    at = chances(front([(9.0, 0.7), (10.0, 0.71), (10 * 1.05, 0.72)], target_ms=10.0))
    assert at[1] == pytest.approx(0.5) and at[2] == pytest.approx(0.05, abs=1e-3)
    assert at[0] > 0.99
    assert (chances(front(curve(5))) == 1).all()


def test_they_are_spread_along_the_front() -> None:
    chosen = select_candidates(front(curve(100)), 5)
    latencies = np.array([c.latency_ms for c in chosen])
    assert len(chosen) == 5 and (np.diff(latencies) > 0.4).all()
    assert chosen[-1].id == 99  # the best top-1, where nothing limits it
    assert latencies[0] < 4


def test_near_twins_are_not_measured_twice() -> None:
    twins = [(ms + d, top1 + d * 1e-4) for ms, top1 in curve(6) for d in (0.0, 1e-3)]
    chosen = select_candidates(front(twins), 6)
    assert len({round(c.latency_ms, 1) for c in chosen}) == 6


def test_what_would_hardly_meet_the_target_waits() -> None:
    found = front(curve(80), target_ms=10.0, half=0.08)
    chosen = select_candidates(found, 5)
    chance = chances(found)
    assert all(chance[c.id] > 0.6 for c in chosen)
    best = max(found, key=lambda c: (c.reward or 0) * chance[c.id])
    assert best in chosen
    # All are near to what was asked for.
    top = max(c.reward or 0 for c in found)
    assert all((c.reward or 0) >= 0.95 * top for c in chosen)
    likely = max(c.top1 for c in found if chance[c.id] > 0.5)
    assert all(c.top1 >= 0.97 * likely for c in chosen)


def test_a_short_front_is_measured_whole() -> None:
    found = front(curve(3), target_ms=20.0)
    assert select_candidates(found, 3) == select_candidates(found, 50) == list(found)
    assert len(select_candidates(found, 1)) == 1
    lone = front([(5.0, 0.7), (9.9, 0.75)], target_ms=10.0)
    assert len(select_candidates(lone, 2)) == 2


def test_what_was_measured_is_not_chosen_again_nor_its_twins() -> None:
    found = front(curve(100))
    first = select_candidates(found, 5)
    names = {c.block_args for c in first}
    second = select_candidates(found, 5, names)
    assert len(second) == 5 and not names & {c.block_args for c in second}
    # They lie in the gaps that the first left.
    latencies = sorted(c.latency_ms for c in [*first, *second])
    assert np.diff(latencies).min() > 0.1
    assert select_candidates(found, 200, names) == [c for c in found if c.block_args not in names]
    assert select_candidates(found, 3, {c.block_args for c in found}) == []


def test_the_next_gains_most_over_the_best_that_was_measured() -> None:
    found = front(curve(80), target_ms=10.0, half=0.02)
    value = [c.reward or 0 for c in found]
    order = sorted(range(80), key=lambda i: -value[i])
    measured = {found.candidates[i].block_args for i in order[5:40]}
    (one,) = select_candidates(found, 1, measured)
    chance = chances(found)
    best = max(value[i] * chance[i] for i in order[5:40])
    gains = [(max(value[i] - best, 0) * chance[i], i) for i in (*order[:5], *order[40:])]
    assert one.id == max(gains)[1]
    # Where nothing is better, the widest gap.
    (one,) = select_candidates(found, 1, {found.candidates[i].block_args for i in order[:5]})
    assert one.id not in order[:5] and (one.reward or 0) >= 0.95 * max(value)
