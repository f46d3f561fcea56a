"""From the sum of operators to the whole network, by hand."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from phonenas.latency_model.calibration import (
    FEATURES,
    UNCALIBRATED,
    Calibration,
    beyond_range,
    calibrate,
    calibrate_any,
    folds,
    operator_features,
)
from phonenas.space import Operator
from phonenas.space.errors import NotEnoughData, UncoveredOperator, UnsupportedFormat

COEFFICIENTS = (0.9, 0.01, 0.2, 0.3, 0.1, 0.05, 0.02)
KNOWN = Calibration(COEFFICIENTS, 0.5, 0.03, 2.0, 10.0, 20, 0.01)


def features(n: int, seed: int = 0) -> np.ndarray:
    """Summed features of networks whose times differ by five, (n, 7)."""
    rng = np.random.default_rng(seed)
    ms = rng.uniform(2, 10, n)
    others = rng.uniform(0.2, 1.0, (n, 6)) * [20, 8, 5, 2, 3, 4]
    return np.column_stack([ms, others])


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        # 8·28² in and 16·14² out; 8·48 + 2·48 and 9·48 + 2·48 and 48·16 + 2·16 weights.
        (
            Operator("mbconv", 8, 16, 28, kernel=3, stride=2, expansion=6),
            [0.5, 1.0, 0.009408, 0.001808, 0.0, 0.0, 0.0],
        ),
        # Gated: 24 middle channels at 14²; small: the time once more; a pooled skip.
        (
            Operator("mbconv", 4, 6, 14, kernel=3, expansion=6, se_channels=2, skip="pool"),
            [0.5, 1.0, 0.00196, 0.000686, 0.004704, 0.5, 1.0],
        ),
        # A regular convolution is gated at its outputs.
        (
            Operator("conv", 4, 6, 15, kernel=1, se_channels=2),
            [0.5, 1.0, 0.00225, 0.000068, 0.00135, 0.0, 0.0],
        ),
    ],
)
def test_what_an_operator_adds(operator: Operator, expected: list[float]) -> None:
    assert operator_features(operator, 0.5) == pytest.approx(expected, rel=1e-9)


def test_a_prediction_is_a_line_of_the_features() -> None:
    one = np.array([[4.0, 10.0, 2.0, 1.0, 0.5, 2.0, 3.0]])
    # 3.6 + 0.1 + 0.4 + 0.3 + 0.05 + 0.1 + 0.06 + 0.5
    assert KNOWN.line_ms(one) == pytest.approx([5.11])
    assert KNOWN.whole_ms(one) == pytest.approx([5.11])
    assert KNOWN.scaled(1.5).whole_ms(one) == pytest.approx([7.665])
    slower = KNOWN.scaled(2.0)
    assert (slower.low_ms, slower.high_ms, slower.half_width) == (4.0, 20.0, 0.03)
    assert UNCALIBRATED.whole_ms(one) == pytest.approx([4.0])
    assert UNCALIBRATED.half_width == pytest.approx(0.785714, abs=1e-6)
    assert (UNCALIBRATED.low_ms, UNCALIBRATED.high_ms) == (1e-9, 1e9)
    assert (UNCALIBRATED.constant, UNCALIBRATED.networks) == (0.0, 0)


def test_an_interval_holds_a_later_job_and_widens_beyond_the_range() -> None:
    half = KNOWN.half_widths(np.array([2.0, 5.0, 10.0, 1.0, 20.0]))
    inside = math.hypot(0.03, 0.04)
    far = math.hypot(0.03 * 2**2, 0.04)
    assert half == pytest.approx([inside, inside, inside, far, far], rel=1e-9)
    # What unmeasured operators add counts beyond what the fit's own networks had of it.
    more = KNOWN.half_widths(np.array([5.0, 5.0, 5.0]), np.array([0.05, 0.01, 0.005]))
    added = math.sqrt(0.03**2 + 0.04**2 + 0.05**2 - 0.01**2)
    assert more == pytest.approx([added, inside, inside], rel=1e-9)


@pytest.mark.parametrize(
    ("ms", "beyond"),
    [
        (1.9979, True),
        (1.9981, False),  # a thousandth may be rounded off in a file
        (2.0, False),
        (5.0, False),
        (10.0, False),
        (10.0099, False),
        (10.0101, True),
        (0.0, True),
        (-3.0, True),
        (math.inf, True),
        (math.nan, True),
    ],
)
def test_the_range_of_the_measured_networks_has_a_thousandth_to_spare(
    ms: float, beyond: bool
) -> None:
    assert beyond_range(ms, 2.0, 10.0) is beyond


@pytest.mark.parametrize("whole_ms", [0.0, -0.4])
def test_no_network_takes_0_ms_or_less(whole_ms: float) -> None:
    with pytest.raises(UncoveredOperator, match=f"predicts {whole_ms:.3g} ms") as told:
        KNOWN.above_zero(np.array([3.0, whole_ms]))
    assert "the 20 networks of 2 to 10 ms" in str(told.value)
    assert "phonenas profile --device DEVICE --network 'BLOCKS'" in str(told.value)
    assert list(KNOWN.above_zero(np.array([1e-9]))) == [1e-9]
    assert len(KNOWN.above_zero(np.empty(0))) == 0


def test_it_is_written_and_read() -> None:
    values = KNOWN.to_dict()
    assert values["features"] == [
        "ms",
        "operators",
        "activations",
        "weights",
        "gated",
        "late_ms",
        "pooled",
    ]
    assert values["coefficients"] == list(COEFFICIENTS)
    assert values["holes"] == 0.01 and "uncovered" not in values
    assert Calibration.from_dict(values) == KNOWN
    # Files of the version before have no word on uncovered operators.
    old = {k: v for k, v in values.items() if k != "holes"}
    assert Calibration.from_dict(old) == replace(KNOWN, uncovered=0.0)
    other = ["ms", "operators"]
    with pytest.raises(UnsupportedFormat, match="calibrated over ms, operators; this phonenas"):
        Calibration.from_dict({**values, "features": other})
    for unlike in ([*values["features"], "more"], ["zone", *values["features"][1:]]):
        with pytest.raises(UnsupportedFormat, match="Fit it again"):
            Calibration.from_dict({**values, "features": unlike})
    for wrong in (COEFFICIENTS[:-1], (*COEFFICIENTS, 1.0)):
        with pytest.raises(ValueError, match=f"^{len(wrong)} coefficients"):
            Calibration.from_dict({**values, "coefficients": list(wrong)})
    for name in ("half_width", "holes"):
        for bad in (-0.1, 1_000_000.5, 2e6):
            with pytest.raises(ValueError):
                Calibration.from_dict({**values, name: bad})
    for name in ("half_width", "holes"):
        for edge in (0.0, 1e6):
            Calibration.from_dict({**values, name: edge})
    assert len(FEATURES) == 7


def test_ten_folds_of_equal_size_always_the_same() -> None:
    assert sorted(folds(10).tolist()) == list(range(10))
    assert np.bincount(folds(25)).tolist() == [3] * 5 + [2] * 5
    assert sorted(folds(4).tolist()) == [0, 1, 2, 3]
    assert folds(12).tolist() == [9, 2, 7, 4, 5, 1, 0, 3, 6, 0, 8, 1]


def test_ten_networks_are_enough_and_nine_are_not() -> None:
    rows = features(10)
    assert calibrate(rows, rows[:, 0]).networks == 10
    with pytest.raises(NotEnoughData, match="^9 whole network.* it takes 10.* --networks 20$"):
        calibrate(rows[:9], rows[:9, 0])
    assert calibrate_any(rows[:9], rows[:9, 0]).networks == 9


def test_a_whole_that_is_the_sum_has_the_sums_coefficients() -> None:
    rows = features(30)
    found = calibrate(rows, rows[:, 0])
    assert found.coefficients == pytest.approx([1.0, *[0.0] * 6], abs=1e-6)
    assert found.constant == pytest.approx(0.0, abs=1e-6)
    assert found.half_width == pytest.approx(0.0, abs=1e-6)
    assert (found.low_ms, found.high_ms) == pytest.approx((rows[:, 0].min(), rows[:, 0].max()))


def test_true_coefficients_are_found_by_relative_least_squares() -> None:
    rows = features(60)
    true_ms = rows @ np.array(COEFFICIENTS) + 0.5
    found = calibrate(rows, true_ms)
    assert found.coefficients == pytest.approx(COEFFICIENTS, abs=2e-3)
    assert found.constant == pytest.approx(0.5, abs=0.02)
    assert found.half_width < 1e-3
    assert (found.low_ms, found.high_ms) == pytest.approx((true_ms.min(), true_ms.max()), rel=1e-3)
    # A time ten times as long weighs as much as a short one: the error is relative.
    rng = np.random.default_rng(1)
    noisy = true_ms * np.exp(rng.normal(0, 0.02, 60))
    fitted = calibrate(rows, noisy)
    assert np.abs(fitted.whole_ms(rows) / true_ms - 1).max() < 0.03


def test_a_feature_that_no_network_has_takes_no_part() -> None:
    rows = features(30)
    rows[:, 6] = 0.0
    found = calibrate(rows, 1.2 * rows[:, 0])
    assert found.coefficients[6] == 0.0
    assert np.isfinite(found.coefficients).all()
    assert found.whole_ms(rows) == pytest.approx(1.2 * rows[:, 0], rel=1e-3)


def test_the_interval_is_that_of_networks_left_out() -> None:
    rng = np.random.default_rng(3)
    rows = features(200)
    measured = rows[:, 0] * np.exp(rng.normal(0, 0.05, 200))
    found = calibrate(rows, measured)
    # Nine in ten of a normal lie within 1.645 standard deviations.
    assert found.half_width == pytest.approx(math.exp(1.645 * 0.05) - 1, rel=0.15)
    later = features(2000, seed=4)
    true = later[:, 0] * np.exp(rng.normal(0, 0.05, 2000))
    ratio = true / found.whole_ms(later)
    held = np.mean(np.maximum(ratio, 1 / ratio) - 1 <= found.half_width)
    assert 0.87 < held < 0.94


@pytest.mark.parametrize("less_ms", [4.0, 0.5])
def test_a_line_below_0_is_replaced_by_the_bare_sum(less_ms: float) -> None:
    # The last of these is put below 0 by the others: its error is that of its own sum.
    rows = features(12)
    rows[:, 1:] = 0.0
    rows[:, 0] = [*np.linspace(5, 10, 11), 0.2]
    measured = np.array([*(rows[:11, 0] - less_ms), 0.04])
    found = calibrate_any(rows, measured)
    assert found.half_width == pytest.approx(4.0, rel=1e-6)
    assert found.low_ms > 0


def test_a_calibration_does_not_change_and_has_no_uncovered_operators_by_default() -> None:
    assert Calibration(COEFFICIENTS, 0.5, 0.03, 2.0, 10.0, 20).uncovered == 0.0
    with pytest.raises(FrozenInstanceError):
        KNOWN.constant = 1.0  # type: ignore[misc]


def test_how_far_beyond_the_measured_range_a_network_is() -> None:
    assert (KNOWN.low_ms, KNOWN.high_ms) == (2.0, 10.0)
    ratios = KNOWN.beyond(np.array([1.6, 2.0, 5.0, 10.0, 17.5]))
    assert ratios.tolist() == pytest.approx([1.25, 1.0, 1.0, 1.0, 1.75])


def test_the_unit_of_a_feature_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    rows = features(40)
    measured = (rows @ np.array(COEFFICIENTS) + 0.5) * np.exp(rng.normal(0, 0.05, 40))
    units = np.array([1.0, 50.0, 0.01, 1000.0, 1.0, 0.001, 7.0])  # the time is in ms
    found, other = calibrate(rows, measured), calibrate(rows * units, measured)
    assert other.coefficients == pytest.approx(found.coefficients / units, rel=1e-4)
    assert other.whole_ms(rows * units) == pytest.approx(found.whole_ms(rows), rel=1e-6)
