"""Learning curves: expected top-1 at the last rung, and how often its error holds."""

from __future__ import annotations

import numpy as np
import pytest

from phonenas.search.learning_curve import expected_top1
from phonenas.search.rungs import promotable


def curves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Power laws with networks' own lag and speed, and noise; three rungs, and latency in ms."""
    rng = np.random.default_rng(seed)
    ms = np.exp(rng.normal(2, 0.4, n))
    last = 0.6 + 0.05 * np.log(ms) + rng.normal(0, 0.03, n)
    lag = 0.12 * np.exp(rng.normal(0, 0.25, n)) * (ms / 7) ** 0.3
    speed = 0.6 * np.exp(rng.normal(0, 0.2, n))
    epochs = np.array([1, 3, 9])
    left = (epochs ** -speed[:, None] - 9 ** -speed[:, None]) / (1 - 9 ** -speed[:, None])
    return last[:, None] - lag[:, None] * left + rng.normal(0, 0.012, (n, 3)), ms


def halved(top1: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """What is known of the curves when the best third goes on."""
    seen, here = np.full_like(top1, np.nan), np.arange(len(top1))
    for rung in range(3):
        seen[here, rung] = top1[here, rung]
        losses = np.column_stack([1 - top1[here, rung], ms[here]])
        here = here[promotable(losses, np.zeros(len(here), bool), 3)]
    return seen


def test_what_is_known_stays_and_has_no_error() -> None:
    top1, ms = curves(30, 0)
    expected, error = expected_top1(top1, ms)
    assert np.array_equal(expected, top1[:, -1])
    assert (error == 0).all()


def test_an_error_shrinks_where_all_end_alike() -> None:
    """What the first step leaves open does not matter where the second ends at 0.7 for all."""
    rng = np.random.default_rng(4)
    top1 = np.empty((90, 3))
    top1[:, 0] = rng.uniform(0.3, 0.5, 90)
    top1[:, 1] = top1[:, 0] + 0.1 + rng.normal(0, 0.05, 90)
    top1[:, 2] = 0.7 + rng.normal(0, 0.002, 90)
    top1[60:, 2] = top1[80:, 1] = np.nan
    _, error = expected_top1(top1, np.ones(90))
    assert 0 < error[60:80].max() < 0.025
    assert 0 < error[80:].max() < 0.03  # after a step whose gains scatter by 0.05


def test_a_network_without_any_has_none() -> None:
    top1 = np.array([[0.5, 0.6], [np.nan, np.nan]])
    expected, _ = expected_top1(top1, np.array([1.0, 2.0]))
    assert expected[0] == 0.6 and np.isnan(expected[1])


def test_before_any_went_on_the_error_says_that_nothing_is_known() -> None:
    top1 = np.array([[0.5, np.nan, np.nan], [0.4, np.nan, np.nan]])
    expected, error = expected_top1(top1, np.array([1.0, 2.0]))
    assert np.allclose(expected, [0.5, 0.4])
    assert (error > 0.3).all()


@pytest.mark.parametrize("n", [30, 100, 300])
def test_intervals_hold_as_often_as_they_say(n: int) -> None:
    inside, off = [], []
    for seed in range(20):
        top1, ms = curves(n, seed)
        seen = halved(top1, ms)
        expected, error = expected_top1(seen, ms)
        open_ = np.isnan(seen[:, -1])
        inside.append(np.abs(expected - top1[:, -1])[open_] <= 1.645 * error[open_])
        off.append((expected - top1[:, -1])[open_])
    assert 0.84 <= np.concatenate(inside).mean() <= 0.99
    # Of use: better than the same gain for all.
    assert np.concatenate(off).std() < 0.05


def test_the_step_of_each_rung_is_learned_from_all_that_took_it() -> None:
    # The gain of the second step is 0.2, known from one network; that of the first is 0.1.
    top1 = np.full((40, 3), np.nan)
    top1[:, 0] = np.linspace(0.3, 0.4, 40)
    top1[:20, 1] = top1[:20, 0] + 0.1
    top1[:8, 2] = top1[:8, 1] + 0.2
    expected, _ = expected_top1(top1, np.full(40, 5.0))
    assert np.allclose(expected, top1[:, 0] + 0.3, atol=0.01)


def test_networks_that_barely_learn_are_not_expected_to_catch_up() -> None:
    means, most = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        last, bad = rng.normal(0.6, 0.05, 300), np.arange(300) < 30
        top1 = np.column_stack([last - 0.2, last - 0.08, last]) + rng.normal(0, 0.02, (300, 3))
        top1[bad] = np.array([0.10, 0.14, 0.20]) + rng.normal(0, 0.005, (30, 3))
        best = np.argsort(-top1[:, 0])[:100]
        top1[np.setdiff1d(np.arange(300), best), 1:] = np.nan
        top1[best[np.argsort(-top1[best, 1])[33:]], 2] = np.nan
        expected, error = expected_top1(top1, np.exp(rng.uniform(1.6, 3.4, 300)))
        means.append(expected[bad].mean())
        most.append(expected[bad].max())
        assert (np.abs(expected - 0.20)[bad] <= 1.645 * error[bad]).mean() > 0.9
    assert np.mean(means) < 0.30 and max(most) < 0.45


def test_who_is_ahead_is_expected_to_stay_ahead_and_no_gain_is_below_0() -> None:
    for seed in range(20):
        top1, ms = curves(100, seed)
        ms[:] = 7.0
        best = np.argsort(-top1[:, 0])[:33]
        top1[np.setdiff1d(np.arange(100), best), 1] = np.nan
        top1[best, 1] = top1[best, 0] + 0.1 + 8 * (top1[best, 0] - 0.65) ** 2
        top1[np.argsort(top1[:, 0])[:20], 0] = np.linspace(0.05, 0.3, 20)
        expected, _ = expected_top1(top1[:, :2], ms)
        left = np.flatnonzero(np.isnan(top1[:, 1]))
        left = left[np.argsort(top1[left, 0])]
        assert (np.diff(expected[left]) >= -1e-12).all()
        assert (expected[left] >= top1[left, 0] - 1e-12).all()
