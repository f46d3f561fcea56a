"""Scores and rank correlations, by hand."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from phonenas.data import Conditions, Measurement, Round
from phonenas.latency_model import chance_within, kendall_tau, score, spearman
from phonenas.latency_model.metrics import TO_MEAN, Z90, Score, half_widths, noise_of, quantile90
from phonenas.space.errors import InvalidArgument

HERE = Conditions("d", "m", "f", "r", "1", "h", "p", "all", 1, "c", "none")


def test_a_score_is_what_its_fields_say() -> None:
    found = score([11.0, 19.0, 30.0], [10.0, 20.0, 40.0], [9.0, 18.0, 20.0], [12.0, 19.5, 41.0])
    assert found.n == 3
    assert found.mape == pytest.approx((0.1 + 0.05 + 0.25) / 3)
    assert found.bias == pytest.approx((0.1 - 0.05 - 0.25) / 3)
    assert (found.acc5, found.acc10) == pytest.approx((1 / 3, 2 / 3))
    assert found.rmse_ms == pytest.approx(math.sqrt((1 + 1 + 100) / 3))
    assert found.coverage90 == pytest.approx(2 / 3)
    assert (found.spearman, found.kendall_tau) == (1.0, 1.0)
    with pytest.raises(InvalidArgument, match="two equal lists"):
        score([1.0], [1.0, 2.0])


def test_rank_correlations_by_hand() -> None:
    a, b = [1, 2, 3, 4], [1, 2, 4, 3]
    assert spearman(a, b) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert kendall_tau(a, b) == pytest.approx((5 - 1) / 6)
    assert kendall_tau(a, b[::-1]) == pytest.approx(-4 / 6)
    for constant in ([2, 2, 2, 2], np.full(4, 1.5)):
        assert math.isnan(spearman(a, constant)) and math.isnan(kendall_tau(constant, a))
    assert math.isnan(spearman([1], [2]))


def test_the_probability_to_meet_a_target_follows_from_the_interval() -> None:
    ends = chance_within([10.0, 10.0], [8.0, 8.0], [12.5, 12.5], 12.5)
    assert ends == pytest.approx([0.95, 0.95], abs=1e-4)
    assert chance_within([10.0], [8.0], [12.5], 8.0) == pytest.approx([0.05], abs=1e-4)


def test_the_conformal_quantile_leaves_room_for_one_more() -> None:
    # (n + 1) 0.9 of 10 errors is 9.9: the tenth; of 20 it is 18.9: the nineteenth.
    assert quantile90(np.arange(1.0, 11.0)) == 10.0
    assert quantile90(np.arange(20.0, 0.0, -1.0)) == 19.0
    assert quantile90(np.array([3.0, 1.0])) == 3.0


def test_a_score_on_equal_networks_says_that_there_was_nothing_to_predict() -> None:
    found = score([5.0] * 12, [5.0] * 12, [4.9] * 12, [5.1] * 12)
    assert (found.mape, found.coverage90) == (0.0, 1.0)
    assert not found.informative and "nothing to predict" in found.reason
    assert found.to_dict()["informative"] is False and "nothing to predict" in found.note
    # Networks that differ by their noise alone, too.
    rng = np.random.default_rng(0)
    scattered = 5.0 * np.exp(rng.normal(0, 0.02, 40))
    within = score(scattered * np.exp(rng.normal(0, 0.002, 40)), scattered, noise=0.02)
    assert not within.informative and "±2.0%" in within.reason
    assert score(scattered * 1.001, scattered, noise=0.001).informative


def test_a_score_no_better_than_a_constant_or_a_line_in_macs_says_so() -> None:
    rng = np.random.default_rng(1)
    true = np.exp(rng.normal(1, 0.3, 60))
    blind = score(rng.permutation(true), true)
    assert not blind.informative and "one number for all 60 networks errs by" in blind.reason
    good = true * np.exp(rng.normal(0, 0.05, 60))
    assert score(good, true).informative and score(good, true, macs_mape=0.1).informative
    poor = score(good, true, macs_mape=0.02)
    assert not poor.informative and "a line in MACs errs by 2.0%, the model by" in poor.reason
    assert score(good, true).reason == score(good, true).note == ""
    assert "it takes 3 to compare" in score([1.0, 2.0], [1.0, 2.0]).reason


def test_the_edges_of_a_score() -> None:
    # 5 % and 10 % count as within; so do the ends of an interval.
    found = score([21.0, 22.0, 22.5, 19.0], [20.0] * 4, [20.0] * 4, [20.0] * 4)
    assert (found.acc5, found.acc10) == (0.5, 0.75)
    assert found.coverage90 == 1.0
    near = score([20.6, 19.8, 21.8, 17.0], [20.0] * 4)
    assert (near.acc5, near.acc10) == (0.5, 0.75)
    assert score([1.0], [1.0], [1.01], [2.0]).coverage90 == 0.0
    assert score([1.0], [1.0], [0.5], [0.99]).coverage90 == 0.0
    for ends in (([1.0], None), (None, [1.0])):
        assert math.isnan(score([1.0], [1.0], *ends).coverage90)
    assert found.rmspe == pytest.approx(math.sqrt((0.05**2 + 0.1**2 + 0.125**2 + 0.05**2) / 4))
    assert score([3.0, 1.0], [1.0, 1.0]).rmspe == pytest.approx(math.sqrt(2))
    assert score([2.0, 8.0], [1.0, 10.0]).bias == pytest.approx(0.4)
    assert score([2.0, 8.0], [1.0, 10.0]).rmse_ms == pytest.approx(math.sqrt(2.5))
    for shapes in (([], []), ([[1.0]], [[1.0]])):
        with pytest.raises(InvalidArgument, match="two equal lists"):
            score(*shapes)


def test_a_score_is_written_and_read_with_what_it_does_not_know() -> None:
    whole = score([1.0, 2.0, 4.0], [1.0, 2.1, 4.2], [1.0] * 3, [5.0] * 3)
    assert Score.from_dict(whole.to_dict()) == whole
    bare = score([1.0], [1.1])
    values = bare.to_dict()
    assert values["spearman"] is values["coverage90"] is None and values["n"] == 1
    again = Score.from_dict(values)
    assert math.isnan(again.spearman) and math.isnan(again.kendall_tau)
    assert again.to_dict() == values
    for wrong in ({**values, "more": 1}, {**values, "n": None}, {**values, "mape": "x"}):
        with pytest.raises(ValueError, match="no score has more|n: |mape: "):
            Score.from_dict(wrong)
    with pytest.raises(ValueError, match="no score has a$"):
        Score.from_dict({**values, "b": 1, "a": 1})
    with pytest.raises(ValueError, match="^object missing required field bias"):
        Score.from_dict({k: v for k, v in values.items() if k != "bias"})
    with pytest.raises(ValueError, match="n: expected whole number"):
        Score.from_dict({**values, "n": math.nan})
    with pytest.raises(ValueError, match="informative: expected true or false, got nothing"):
        Score.from_dict({**values, "informative": None})


def test_correlations_need_two_values_that_differ() -> None:
    assert spearman([1, 2], [3, 4]) == pytest.approx(1.0)
    assert kendall_tau([1, 2], [4, 3]) == pytest.approx(-1.0)
    for a, b in (([1], [1]), ([], []), ([1, 1], [1, 2]), ([1, 2], [2, 2])):
        assert math.isnan(spearman(a, b)) and math.isnan(kendall_tau(a, b))


def test_when_a_score_shows_something() -> None:
    # A spread of logarithms of 0.1, and the noise that is half of it, or just less.
    ms = np.exp(np.array([-0.1, 0.0, 0.1]))
    assert "takes 3 to compare" in score(ms[:2], ms[:2]).reason
    assert score(ms[:2], ms[:2]).reason.startswith("2 networks, and")
    assert score([1.0], [1.0]).reason.startswith("1 network, and")
    assert score(ms, ms, noise=0.0499).informative
    assert "±10.0%, no more than their noise of ±5.0%" in score(ms, ms, noise=0.0501).reason
    exactly = float(np.std(np.log(ms), ddof=1)) / 2
    assert not score(ms, ms, noise=exactly).informative
    assert score(ms, ms, noise=math.nan).informative
    tiny = np.exp(np.array([-0.00099, 0.0, 0.00099]))
    assert "nothing to predict" in score(tiny, tiny).reason
    assert score(tiny**1.1, tiny**1.1).informative
    # Each by the mean of the other two: errors of e^0.15 - 1, 0 and 1 - e^-0.15.
    constant = (math.expm1(0.15) + -math.expm1(-0.15)) / 3
    assert score(ms * (1 + 0.99 * constant), ms).informative
    blind = score(ms * (1 + constant * (1 + 1e-12)), ms)
    assert blind.reason == (
        f"one number for all 3 networks errs by {constant:.1%}, the model by {constant:.1%}"
    )
    assert score(ms * 1.02, ms, macs_mape=0.0201).informative
    assert score(ms * 1.02, ms, macs_mape=0.0199).reason == (
        "a line in MACs errs by 2.0%, the model by 2.0%"
    )


def test_one_number_for_all_is_the_mean_of_the_others() -> None:
    # The mean of three others is -x/3 where the mean of all is 0: e^(-4x/3) - 1 is its error.
    x = np.array([-0.3, -0.1, 0.1, 0.3])
    ms, constant = np.exp(x), float(np.abs(np.expm1(-4 * x / 3)).mean())
    assert score(ms * (1 + 0.99 * constant), ms).informative
    assert score(ms * (1 + 1.01 * constant), ms).reason.startswith(
        f"one number for all 4 networks errs by {constant:.1%}, "
    )


def test_the_noise_of_measurements() -> None:
    def of(spread: float) -> Measurement:
        m = Measurement("network", "n", HERE, (Round((1.0,)),))
        m.__dict__["spread"] = spread
        return m

    assert noise_of([of(0.16449), of(0.32898), of(math.nan)]) == pytest.approx(0.15)
    assert noise_of([of(math.nan)]) == noise_of([]) == 0.0


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_a_target_is_finite_and_above_0(target: float) -> None:
    with pytest.raises(InvalidArgument, match="a target latency is above 0 ms, got"):
        chance_within([1.0], [0.9], [1.1], target)


def test_an_interval_of_no_width_decides() -> None:
    assert chance_within([10.0] * 2, [10.0] * 2, [10.0] * 2, 9.999).tolist() == [0.0, 0.0]
    assert chance_within([10.0], [10.0], [10.0], 10.001).tolist() == [1.0]
    assert chance_within([10.0], [10.0], [10.0], 10.0).tolist() == [0.5]
    # One interval is √2 wide either way, the target as far: Φ(1.6449 × 1).
    assert chance_within([10.0], [5.0], [20.0], 20.0) == pytest.approx([0.95], abs=1e-4)
    assert chance_within([10.0], [5.0], [20.0], 1e-9) == pytest.approx([0.0], abs=1e-9)


def test_the_quantile_of_few() -> None:
    assert quantile90([7.0]) == 7.0
    assert quantile90(np.arange(1.0, 20.0)) == 18.0  # (19 + 1) 0.9 = 18
    assert quantile90(np.arange(1.0, 19.0)) == 18.0  # 17.1: the eighteenth


def test_deviations_of_logarithms_are_relative_half_widths() -> None:
    # Twice as long or half as long is 1; beyond a factor of 1,000 an end says nothing more.
    thousand = math.exp(7.0) - 1
    half = half_widths([0.0, math.log(2.0), 7.0, 8.0])
    assert half == pytest.approx([0.0, 1.0, thousand, thousand])


def test_widths_of_a_normal_and_scores_that_do_not_change() -> None:
    assert pytest.approx(math.sqrt(2 / math.pi), abs=1e-4) == TO_MEAN
    assert Z90 == pytest.approx(math.sqrt(2) * 1.163087, abs=1e-4)  # erf(1.163087) = 0.9
    with pytest.raises(FrozenInstanceError):
        score([1.0], [1.0]).n = 2  # type: ignore[misc]
