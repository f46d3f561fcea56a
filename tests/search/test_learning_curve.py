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


def errors_at_the_centre(scattered: slice) -> float:
    """The error of a network in the middle of 30 that gain 0.1, some of them ±0.05 more."""
    top1 = np.full((31, 2), np.nan)
    top1[:30, 0], top1[30, 0] = np.linspace(0.4, 0.6, 30), 0.5
    top1[:30, 1] = top1[:30, 0] + 0.1
    top1[scattered, 1] += 0.05 * np.resize([1, -1, -1, 1], len(top1[scattered]))
    return float(expected_top1(top1, np.full(31, 5.0))[1][30])


def test_where_the_lowest_third_strays_all_errors_are_wider() -> None:
    # The mirror image fits as well, so all that differs is who strays.
    lowest, highest = errors_at_the_centre(slice(0, 8)), errors_at_the_centre(slice(22, 30))
    assert lowest > 1.3 * highest
    # Beyond the lowest third nobody's straying counts for more.
    assert errors_at_the_centre(slice(10, 14)) == pytest.approx(
        errors_at_the_centre(slice(16, 20)), rel=1e-6
    )


@pytest.mark.parametrize("ahead", [False, True])
def test_beyond_the_turn_of_a_curve_all_end_level(ahead: bool) -> None:
    """End is a parabola of the start: who lies beyond its turn ends where the turn does."""
    rng = np.random.default_rng(0)
    start, large = rng.uniform(0.40, 0.60, 400), np.arange(400) % 2
    turn, sign = (0.58, -1) if ahead else (0.42, 1)
    end = 0.7 + sign * 4 * (start - turn) ** 2 + 0.1 * large  # who is larger gains more
    far = np.linspace(0.61, 0.65, 9) if ahead else np.linspace(0.30, 0.39, 9)
    top1 = np.full((409, 2), np.nan)
    top1[:, 0], top1[:400, 1] = [*start, *far], end
    ms = np.exp([*(2.0 * large), *np.zeros(9)])
    expected, _ = expected_top1(top1, ms)
    assert np.ptp(expected[400:]) < 1e-9
    assert expected[400:] == pytest.approx(0.7, abs=0.005)


def after_an_uncertain_step(top1: np.ndarray) -> np.ndarray:
    """Errors at the last rung of the last three, which did not take the first step.

    The first step adds 0.1 ± 0.05 to 300 networks, which take the second one.
    """
    return expected_top1(top1, np.full(len(top1), 5.0))[1][-3:]


def test_an_error_grows_and_shrinks_with_the_slope_of_the_curve() -> None:
    rng = np.random.default_rng(2)
    top1 = np.full((303, 3), np.nan)
    top1[:300, 0] = rng.uniform(0.30, 0.50, 300)
    top1[:300, 1] = top1[:300, 0] + 0.1 + rng.normal(0, 0.05, 300)
    top1[:300, 2] = 0.6 + 2 * (top1[:300, 1] - 0.3) ** 2
    top1[300:, 0] = 0.28, 0.36, 0.44  # 0.38, 0.46 and 0.54 after the first step
    slopes = 4 * (np.array([0.38, 0.46, 0.54]) - 0.3)
    assert after_an_uncertain_step(top1) == pytest.approx(0.05 * slopes, abs=0.005)


def test_where_the_gain_is_at_its_limit_an_error_stays_as_wide() -> None:
    rng = np.random.default_rng(3)
    top1 = np.full((303, 3), np.nan)
    top1[:300, 0] = rng.uniform(0.30, 0.50, 300)
    top1[:300, 1] = top1[:300, 0] + 0.1 + rng.normal(0, 0.05, 300)
    lowest = top1[:300, 1].min()
    top1[:300, 2] = 0.5 + 0.4 * top1[:300, 1]  # who starts lower gains more
    top1[300:, 0] = lowest - np.array([0.13, 0.14, 0.15])  # below all after the first step
    first = expected_top1(top1[:, :2], np.full(303, 5.0))[1][-3:]
    assert (first > 0.04).all()
    assert (after_an_uncertain_step(top1) >= 0.999 * first).all()


def test_the_unit_of_the_latency_does_not_matter() -> None:
    top1, ms = curves(40, 5)
    seen = halved(top1, ms)
    for in_ms, in_us in zip(expected_top1(seen, ms), expected_top1(seen, 1000 * ms), strict=True):
        assert in_us == pytest.approx(in_ms, rel=1e-6)


def test_no_top1_is_above_1() -> None:
    top1 = np.array([[0.80, 0.95], [0.82, 0.97], [0.84, 0.99], [0.95, np.nan]])
    assert expected_top1(top1, np.full(4, 5.0))[0].tolist() == [0.95, 0.97, 0.99, 1.0]
