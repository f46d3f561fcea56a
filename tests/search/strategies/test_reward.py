"""The weighted product and its kin: values worked out by hand, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phonenas.search import NSGA2, WeightedProduct
from phonenas.search.strategies.reward import (
    HARD,
    SOFT,
    RewardStrategy,
    check_exponents,
    check_target,
    limited_of,
    penalised,
    reward,
    rewards_of,
    spans_of,
    sums_of,
    targets_of,
)
from phonenas.space.errors import InvalidArgument


def test_the_papers_exponents() -> None:
    assert SOFT == (-0.07, -0.07)
    assert HARD == (0.0, -1.0)


@pytest.mark.parametrize(
    ("latency", "exponents", "value"),
    [
        (80.0, (-0.07, -0.07), 0.75),
        (160.0, (-0.07, -0.07), 0.75 * 2**-0.07),
        (40.0, (-0.07, -0.07), 0.75 * 2**0.07),
        (40.0, (0.0, -1.0), 0.75),
        (160.0, (0.0, -1.0), 0.375),
        (80.0, (-0.5, -3.0), 0.75),
        (40.0, (-0.5, -3.0), 0.75 * math.sqrt(2)),
        (160.0, (-0.5, -3.0), 0.75 / 8),
    ],
)
def test_the_weighted_product(latency: float, exponents: tuple[float, float], value: float) -> None:
    assert reward([0.75], [latency], 80.0, *exponents).tolist() == pytest.approx([value])
    losses = np.array([[0.25, latency]])
    assert rewards_of(losses, 80.0, exponents).tolist() == pytest.approx([value])


def test_soft_is_the_default() -> None:
    assert reward([0.5], [2.0], 1.0)[0] == pytest.approx(0.5 * 2**-0.07)
    assert reward([0.5], [0.5], 1.0)[0] == pytest.approx(0.5 * 2**0.07)


@pytest.mark.parametrize("latency", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_is_finite_and_above_0(latency: float) -> None:
    with pytest.raises(InvalidArgument, match="latencies are above 0 ms; one given is not"):
        reward([0.5, 0.5], [1.0, latency], 1.0)


@pytest.mark.parametrize("target", [0.0, -2.0, math.nan, math.inf])
def test_a_target_is_finite_and_above_0(target: float) -> None:
    with pytest.raises(InvalidArgument, match="a target latency is above 0 ms, got"):
        check_target(target)
    with pytest.raises(InvalidArgument, match="a target latency is above 0 ms, got"):
        reward([0.5], [1.0], target)


def test_a_target_is_given_back_as_a_float() -> None:
    assert check_target(3) == 3.0
    assert type(check_target(3)) is float


@pytest.mark.parametrize(
    "exponents",
    [(0.1, -1.0), (0.0, 0.1), (-math.inf, 0.0), (0.0, -math.inf), (math.nan, 0.0), (0.0, math.nan)],
)
def test_exponents_are_finite_and_at_most_0(exponents: tuple[float, float]) -> None:
    with pytest.raises(InvalidArgument, match="alpha and beta are 0 or below, got"):
        check_exponents(exponents)
    with pytest.raises(InvalidArgument, match="alpha and beta are 0 or below, got"):
        reward([0.5], [1.0], 1.0, *exponents)


def test_exponents_of_0_are_allowed() -> None:
    assert check_exponents((0, 0)) == (0.0, 0.0)
    assert check_exponents((-1, -2)) == (-1.0, -2.0)


def test_a_strategy_by_name_is_soft_or_hard() -> None:
    soft, hard = WeightedProduct.make(3, True), WeightedProduct.make(3, False)
    assert soft.exponents == (-0.07, -0.07) and hard.exponents == (0.0, -1.0)
    assert soft.seed == 3
    assert soft.soft_target is True
    with pytest.raises(InvalidArgument, match="construct it with exponents=SOFT"):
        _ = hard.soft_target
    for exponents in ((-0.5, -3.0), (-0.07, -0.08), (-0.06, -0.07)):
        with pytest.raises(InvalidArgument, match="construct it with exponents=SOFT"):
            _ = WeightedProduct(0, exponents=exponents).soft_target
    assert WeightedProduct().exponents == (0.0, -1.0) and WeightedProduct().seed == 0
    with pytest.raises(InvalidArgument, match="alpha and beta"):
        WeightedProduct(0, exponents=(1.0, -1.0))
    assert isinstance(NSGA2.make(1, False), NSGA2)


def test_a_strategy_of_ones_own_is_hard_and_of_seed_0_if_it_says_nothing() -> None:
    class Own(RewardStrategy):
        name = "own"

        def start(self, space: object, target: float | None = None, objectives: int = 2) -> None:
            raise AssertionError

        ask = tell = start  # type: ignore[assignment]

    assert (Own().seed, Own().exponents) == (0, (0.0, -1.0))
    own = Own(seed=5, exponents=SOFT)
    assert (own.seed, own.exponents) == (5, (-0.07, -0.07))
    with pytest.raises(TypeError):
        Own(5, SOFT)  # type: ignore[misc]


# -- further losses -----------------------------------------------------------------------------


def test_a_further_loss_is_one_plus_its_distance_in_spans() -> None:
    # quality .8, cost twice its target, a further loss half a span beyond its own target
    losses = np.array([[0.2, 20.0, 5.0]])
    value = rewards_of(losses, [10.0, 3.0], (0.0, -1.0), [4.0])
    assert value.tolist() == pytest.approx([0.8 / 2 / 1.5])
    below = rewards_of(np.array([[0.2, 10.0, 1.0]]), [10.0, 3.0], (-1.0, -2.0), [4.0])
    assert below.tolist() == pytest.approx([0.8 * 2.0])


def test_a_further_loss_far_below_its_target_stops_at_a_twentieth() -> None:
    far = rewards_of(np.array([[0.0, 1.0, -100.0]]), [1.0, 0.0], (-1.0, -1.0), [1.0])
    assert far.tolist() == pytest.approx([20.0])


def test_a_cost_of_0_is_finite() -> None:
    value = rewards_of(np.array([[0.0, 0.0]]), 1.0, (-1.0, -1.0))
    assert value.tolist() == pytest.approx([1e9])
    assert rewards_of(np.array([[0.0, 1.0]]), 0.0, (-1.0, -1.0)).tolist() == pytest.approx([1e-9])


def test_any_leading_shape() -> None:
    losses = np.array([[[0.25, 80.0]], [[0.25, 160.0]]])
    assert rewards_of(losses, 80.0, HARD).tolist() == [[0.75], [0.375]]
    # The last axis holds the losses, whatever the others are.
    further = np.array([[[0.2, 20.0, 5.0]], [[0.2, 10.0, 3.0]]])
    value = rewards_of(further, [10.0, 3.0], (0.0, -1.0), [4.0])
    assert value.shape == (2, 1) and value[:, 0].tolist() == pytest.approx([0.8 / 2 / 1.5, 0.8])
    three = np.array([[[0.25, 80.0], [0.25, 160.0], [0.5, 40.0]]])
    assert rewards_of(three, 80.0, HARD).tolist() == [[0.75, 0.375, 0.5]]
    one_each = rewards_of(np.array([[0.5, 2.0], [0.5, 2.0]]), np.array([[2.0], [1.0]]), HARD)
    assert one_each.tolist() == [0.5, 0.25]


def test_spans_are_ranges_of_further_losses() -> None:
    losses = np.array([[0.0, 9.0, 1.0, 5.0], [1.0, 0.0, 4.0, 5.0]])
    assert spans_of(losses).tolist() == [3.0, 1e-12]


# -- targets ------------------------------------------------------------------------------------

FRONT = np.array([[0.1, 20.0], [0.3, 10.0], [0.5, 30.0]])  # the last is beaten


def test_targets_lie_evenly_over_the_front() -> None:
    targets, places = targets_of(FRONT, None, 0, 3)
    golden = 0.6180339887498949
    expected = [0.5, (0.5 + golden) % 1, (0.5 + 2 * golden) % 1]
    assert places[:, 0].tolist() == pytest.approx(expected)
    assert targets[:, 0].tolist() == pytest.approx([10 + 10 * p for p in expected])
    later, _ = targets_of(FRONT, None, 2, 1)
    assert later[0, 0] == pytest.approx(targets[2, 0])


def test_a_named_target_stands_in_the_middle() -> None:
    targets, places = targets_of(FRONT, 12.5, 4, 2)
    assert targets.tolist() == [[12.5], [12.5]]
    assert places.tolist() == [[0.5], [0.5]]


def test_each_further_cost_has_its_own_step() -> None:
    losses = np.zeros((2, 8))
    losses[0, 0], losses[1, 1:] = 1.0, 1.0
    _, places = targets_of(losses, None, 1, 1)
    steps = [0.6180339887498949, 0.4142135623730951, 0.7320508075688772, 0.23606797749978969]
    steps += [0.6457513110645906, 0.6180339887498949, 0.4142135623730951]
    assert places[0].tolist() == pytest.approx([(0.5 + s) % 1 for s in steps])


# -- limits -------------------------------------------------------------------------------------


def test_what_oversteps_a_limit_is_worth_less_than_what_keeps_it() -> None:
    losses = np.array([[0.2, 1.0], [0.1, 2.0], [0.1, 3.0]])
    changed = penalised(losses, np.array([0.0, 1.0, 3.0]))
    assert changed[:, 0].tolist() == pytest.approx([0.2, 1 - 0.005, 1 - 0.0025])
    assert changed[:, 1].tolist() == [1.0, 2.0, 3.0]
    assert losses[1, 0] == 0.1  # what was given stays
    assert penalised(losses, np.array([-1.0, 0.0, 0.0]))[0, 0] == 0.2


def test_aims_cover_the_front_seen() -> None:
    losses = np.array([[0.1, 9.0], [0.5, 3.0], [0.9, 1.0], [0.95, 20.0]])
    targets, places = targets_of(losses, None, 0, 200)
    assert targets.shape == places.shape == (200, 1)
    assert 1.0 <= targets.min() < 1.1 and 8.9 < targets.max() <= 9.0
    assert np.histogram(targets, 8, (1, 9))[0].min() >= 23
    assert (places >= 0).all() and (places <= 1).all()
    parts = [targets_of(losses, None, 0, 3)[0], targets_of(losses, None, 3, 4)[0]]
    assert np.array_equal(np.concatenate(parts), targets[:7])
    three = np.column_stack([losses, [-4.0, 0.0, -2.0, 0.0]])
    targets, places = targets_of(three, 7.0, 0, 100)
    assert (targets[:, 0] == 7.0).all() and (places[:, 0] == 0.5).all()
    assert -4 <= targets[:, 1].min() < -3.8 and -0.2 < targets[:, 1].max() <= 0
    assert len(np.unique(places[:, 1])) == 100


def test_further_losses_weigh_by_their_distance() -> None:
    losses = np.array([[0.2, 5.0, -1.0], [0.2, 5.0, 1.0], [0.2, 10.0, -1.0]])
    told = rewards_of(losses, np.array([5.0, -1.0]), HARD, spans_of(losses))
    assert told.tolist() == [0.8, 0.4, 0.4]  # a whole range, and twice the target, halve alike


def test_who_breaks_a_limit_is_worth_less_than_who_breaks_the_target() -> None:
    losses = np.array([[0.9, 8.0], [0.1, 2.0], [0.1, 2.0], [0.1, 8.0]])
    found = penalised(losses, np.array([-0.1, 0.02, 0.5, 0.3]))
    quality = 1 - found[:, 0]
    assert quality[0] == pytest.approx(0.1)
    assert quality[0] > quality[1] > quality[3] > quality[2] > 0
    # Who breaks the target and a limit is worth less than who breaks the target alone.
    told = rewards_of(np.vstack([found, [[0.9, 8.0]]]), 4.0, HARD)
    assert told[4] > told[3]
    assert (found[:, 1] == losses[:, 1]).all()


def test_sums_weigh_shares_of_ranges() -> None:
    best, worst = np.array([0.2, 10.0, -5.0]), np.array([0.4, 50.0, 5.0])
    losses = np.array([[0.25, 20.0, 0.0], [0.99, 10.0, -5.0]])
    # Quality .75 of its range less the costs' mean, (.25 + .5) / 2; what is far below counts as -1.
    assert sums_of(losses, 0.6, best, worst).tolist() == pytest.approx([0.3, -0.6])


def test_a_limit_that_is_overstepped_costs_by_how_much() -> None:
    losses = np.array([[0.3, 20.0, 4.0], [0.3, 25.0, 4.0], [0.3, 10.0, 7.0], [0.1, 99.0, 4.0]])
    found = limited_of(losses, [20.0, 4.0], [10.0])
    assert found.tolist() == pytest.approx([0.7, -0.25, -0.3, -1.0])
    # Far below the target is kept as well; nothing is gained by it.
    assert limited_of(np.array([[0.3, 10.0]]), 20.0).tolist() == pytest.approx([0.7])
    assert limited_of(losses[:1] - [0.0, 10.0, 9.0], [20.0, 4.0], [10.0])[0] == 0.7


def test_sums_and_limits_at_their_edges() -> None:
    # A loss that is the same everywhere has no range: its distance counts as it is.
    same = sums_of(np.array([[0.25, 3.0]]), 0.5, np.array([0.5, 3.0]), np.array([0.5, 3.0]))
    assert same.tolist() == [0.625]  # .5 (1 + .25)
    # Quality that is worse than its range by one range and by more is worth the same.
    worse = sums_of(np.array([[3.0, 0.0], [9.0, 0.0]]), 1.0, np.zeros(2), np.array([1.5, 1.0]))
    assert worse.tolist() == [-1.0, -1.0]
    batch = np.array([[[0.0, 1.0, 0.5]], [[1.0, 0.0, 0.5]]])
    each = sums_of(batch, [[1.0], [0.0]], np.zeros(3), np.ones(3))
    assert each.tolist() == [[1.0], [-0.25]]
    # Just kept is kept, a target of 0 too; further losses are of the last axis.
    assert limited_of(np.array([[0.5, 1e-9], [0.5, 2e-9]]), 0.0).tolist() == [0.5, -1.0]
    batch = np.array([[[0.25, 1.0, 2.0]], [[0.25, 1.0, 5.0]], [[0.25, 3.0, 2.0]]])
    kept = limited_of(batch, [2.0, 2.0], [4.0])
    assert kept.shape == (3, 1) and kept[:, 0].tolist() == [0.75, -0.75, -0.5]
    four = np.array([[0.25, 1.0, 2.0, 2.5], [0.25, 1.0, 3.0, 2.0]])
    assert limited_of(four, [2.0, 2.0, 2.0], [4.0, 2.0]).tolist() == [-0.25, -0.25]
    several = np.array([[*four, [0.5, 1.0, 2.0, 2.0]]] * 2)
    found = limited_of(several, [2.0, 2.0, 2.0], [4.0, 2.0])
    assert found.tolist() == [[-0.25, -0.25, 0.5]] * 2
