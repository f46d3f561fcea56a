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
    penalised,
    reward,
    rewards_of,
    spans_of,
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
