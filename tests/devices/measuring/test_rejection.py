"""Which readings are rejected, by numbers that are written down here."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from phonenas.devices.device import Reading
from phonenas.devices.measuring.rejection import DriftFilter, _band, _quantile, rejection_reason

GOOD = Reading((1.0, 1.1), (0.5, 0.5), 0, "CPU")


def phone(*readings_ms: float, most: float = 0.35, anchor: bool = False) -> DriftFilter:
    drift = DriftFilter(most)
    for ms in readings_ms:
        drift.check_speed(ms)
    if anchor:
        drift.anchor()
    return drift


def computer(*readings_ms: float, anchor: bool = False) -> DriftFilter:
    drift = DriftFilter(None)
    for ms in readings_ms:
        drift.check_speed(ms)
    if anchor:
        drift.anchor()
    return drift


# -- a reading by itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (GOOD, ""),
        (Reading(error="out of memory"), "out of memory"),
        (Reading((1.0,), (0.5,), 0, "GPU"), "asked for CPU, and GPU ran"),
        (Reading((1.0,), (0.5,), 0, ""), "asked for CPU, and nothing ran"),
        (Reading((), (0.5,), 0, "CPU"), "it has no time"),
        (Reading((1.0,), (), 0, "CPU"), "it has no time"),
        (Reading((1e9,), (1e-9,), 0, "CPU"), ""),
    ],
)
def test_why_a_reading_is_of_no_use(reading: Reading, reason: str) -> None:
    assert rejection_reason(reading, "CPU") == reason


def test_a_provider_that_ran_in_part_is_one_where_that_is_allowed() -> None:
    both, other = (Reading((1.0,), (0.5,), 0, p) for p in ("NPU,CPU", "CPU,NPU"))
    assert rejection_reason(both, "NPU") == "asked for NPU, and NPU,CPU ran"
    assert rejection_reason(both, "NPU", partly=True) == ""
    assert rejection_reason(other, "NPU", partly=True) == "asked for NPU, and CPU,NPU ran"


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 1.0001e9])
def test_no_time_that_none_takes_is_believed(bad: float) -> None:
    said = "a time that is not a positive finite number of at most 1e+09 ms"
    assert rejection_reason(Reading((1.0, bad), (0.5, 0.5), 0, "CPU"), "CPU") == said
    assert rejection_reason(Reading((1.0, 1.0), (0.5, bad), 0, "CPU"), "CPU") == said


# -- the usual speed and its limit --------------------------------------------------------------


def test_the_narrowest_band_and_its_middle() -> None:
    values = deque([6.0, 1.1, 1.0, 5.0, 1.3])
    assert _band(values, 0.5) == pytest.approx((1.1, 0.3))
    assert _band(values, 0.9) == pytest.approx((1.3, 5.0))
    assert _band(values, 1.0) == pytest.approx((1.3, 5.0))
    assert _band(deque([2.0, 1.0]), 0.4) == (1.0, 0.0)
    assert _band(deque([2.0]), 0.5) == (2.0, 0.0)
    assert _band(deque([1.0, 2.0, 2.1, 2.3]), 0.5) == pytest.approx((2.1, 0.3))
    # By the difference, not by the ratio.
    assert _band(deque([1.0, 1.2, 10.0, 11.0]), 0.4) == pytest.approx((1.1, 0.2))
    assert _quantile([4.0, 1.0, 3.0, 2.0]) == 3.0
    assert _quantile([float(i) for i in range(10)]) == 7.0
    assert _quantile([5.0]) == 5.0


def test_the_limit_follows_the_scatter_of_two_thirds() -> None:
    assert phone(*[1.0] * 100).limit == pytest.approx(0.06)
    # Of 50 and 50 the band of 67 is 0.04 wide, around 0.98: four times half of that.
    assert phone(*[0.98] * 50, *[1.02] * 50).limit == pytest.approx(4 * 0.02 / 0.98)
    assert phone(*[0.5] * 50, *[1.0] * 50).limit == 0.35
    assert phone(*[0.98] * 50, *[1.02] * 50, most=0.07).limit == 0.07
    # A third and less takes no part.
    assert phone(*[1.0] * 67, *[1.5] * 33).limit == pytest.approx(0.06)


def test_a_computer_refuses_three_tenths_of_its_readings_at_most() -> None:
    assert computer(*[1.0] * 71, *[1.3] * 29).limit == pytest.approx(0.06)
    assert computer(*[1.0] * 69, *[1.3] * 31).limit == pytest.approx(0.3)
    assert computer(*[1.0] * 69, *[0.7] * 31).limit == pytest.approx(0.3)
    assert computer(*[1.0] * 69, *[5.0] * 31).limit == 1.0


def test_the_edge_of_the_limit() -> None:
    for ms, refused in ((1.0595, False), (1.0605, True), (0.9405, False), (0.9395, True)):
        for drift in (phone(*[1.0] * 100), computer(*[1.0] * 100)):
            said = drift.check_speed(ms)
            assert bool(said) is refused, ms
            if refused:
                assert said == (
                    f"the sentinel beside it took {ms:.3f} ms instead of 1.000 ms "
                    f"({ms - 1:+.0%}, limit ±6%): another program has the core, or it throttles"
                )


def test_what_belongs_to_the_usual_state() -> None:
    assert phone(*[2.0] * 50).belongs_ms == pytest.approx((0.0, 2.12))
    assert computer(*[2.0] * 50).belongs_ms == pytest.approx((2 / 1.15, 2 * 1.15))
    # The half that is nearest together is 0.4 wide, around 2.2: 4 × 0.2 / 2.2.
    scattered = computer(*[1.0, 2.0, 2.2, 2.4, 9.0] * 10)
    assert scattered.usual_ms == 2.2
    factor = 1 + 4 * 0.2 / 2.2
    assert scattered.belongs_ms == pytest.approx((2.2 / factor, 2.2 * factor))


def test_a_computer_remembers_half_as_many_readings() -> None:
    slow, known = [2.0] * 151, [1.0] * 600
    assert computer(*known, *slow[:-2]).usual_ms == 1.0
    assert computer(*known, *slow).usual_ms == 2.0
    drift = phone(*known, most=3.0)
    for _ in range(299):
        drift.check_speed(2.0)
    assert drift.usual_ms == 1.0
    drift.check_speed(2.0)
    drift.check_speed(2.0)
    assert drift.usual_ms == 2.0


def test_a_weight_stands_for_as_many_readings() -> None:
    drift = phone(1.0)
    drift.check_speed(2.0, weight=3)
    assert drift.usual_ms == 2.0
    one = phone(1.0, 1.0)
    one.check_speed(2.0)
    assert one.usual_ms == 1.0


# -- beside the start of a job ------------------------------------------------------------------


def test_no_reading_of_a_phone_lies_farther_from_its_start_than_the_limit() -> None:
    drift = phone(*[1.0] * 60, most=0.10, anchor=True)
    assert drift.anchor_ms == 1.0
    assert drift.check_speed(1.11) == (
        "the sentinel beside it took 1.110 ms; it took 1.000 ms at the start (+11%, limit ±10%): "
        "it throttles, or another program has the core"
    )
    assert "at the start (-11%" in drift.check_speed(0.89)
    # A computer has no such limit.
    assert "instead of" in computer(*[1.0] * 60, anchor=True).check_speed(1.5)


def test_a_speed_within_the_limit_can_be_let_in() -> None:
    drift = phone(*[1.0] * 60, most=0.10, anchor=True)
    assert drift.check_speed(1.09)
    assert not drift.widen(1.101) and not drift.widen(0.899)
    assert drift.check_speed(1.09)
    assert drift.widen(1.099)
    assert drift.check_speed(1.09) == drift.check_speed(1.0) == ""
    assert phone(*[1.0] * 60, most=0.10, anchor=True).widen(0.901)
    fresh = phone(*[1.0] * 60, most=0.10)  # before the start is known the usual time counts
    assert not fresh.widen(1.2) and fresh.widen(1.05)
    anything = computer(*[1.0] * 60, anchor=True)
    assert anything.widen(7.0)


def test_as_many_readings_are_let_in_as_there_are() -> None:
    drift = phone(*[1.0] * 10, most=0.5, anchor=True)
    drift.widen(1.2)
    assert list(drift._readings) == [1.0] * 10 + [1.2] * 10
    full = phone(*[1.0] * 600, most=0.5, anchor=True)
    full.widen(1.2)
    assert list(full._readings) == [1.0] * 300 + [1.2] * 300


def test_five_faster_readings_in_a_row_show_that_a_phone_throttled_at_its_start() -> None:
    drift = phone(*[1.0] * 100, most=0.5, anchor=True)
    for _ in range(4):
        assert drift.check_speed(0.8)
    assert not drift.moved and drift.usual_ms == 1.0
    drift.check_speed(1.0)  # in a row
    for _ in range(4):
        assert drift.check_speed(0.8)
    assert not drift.moved
    assert drift.check_speed(0.8) != ""  # it is judged by the speed before
    assert drift.moved
    assert drift.usual_ms == drift.anchor_ms == 0.8
    assert list(drift._readings) == [0.8] * 50
    assert drift.check_speed(0.8) == ""
    # 15 % faster is not yet another state.
    near = phone(*[1.0] * 100, most=0.5, anchor=True)
    for _ in range(10):
        assert near.check_speed(0.86)
    assert not near.moved


def test_a_start_is_set_anew_twice_at_most() -> None:
    drift = phone(*[1.0] * 100, most=0.9, anchor=True)
    for ms, moves in ((0.8, True), (0.6, True), (0.4, False)):
        drift.moved = False
        for _ in range(5):
            drift.check_speed(ms)
        assert drift.moved is moves, ms
    assert drift.usual_ms == drift.anchor_ms == 0.6


def test_a_computer_whose_usual_state_changes_begins_again_twice() -> None:
    drift = computer(*[1.0] * 10, anchor=True)
    for ms, moves in ((1.14, False), (1.16 * 1.14, True), (0.8, True), (1.6, False)):
        drift.moved = False
        for _ in range(300):
            drift.check_speed(ms)
        assert drift.moved is moves, ms
        assert drift.usual_ms == pytest.approx(ms)
    assert drift.anchor_ms == pytest.approx(0.8)
    nearly = computer(*[1.0] * 10, anchor=True)
    for _ in range(300):
        nearly.check_speed(0.9)
    assert not nearly.moved and nearly.anchor_ms == 1.0


def test_all_of_the_start_is_forgotten() -> None:
    drift = phone(*[1.0] * 10, most=0.5, anchor=True)
    drift.check_speed(1.0, 2000.0)
    for _ in range(4):
        drift.check_speed(0.7)
    drift.forget()
    assert drift.anchor_ms is None
    assert drift.check_speed(0.7) == "" and drift.usual_ms == 0.7
    assert not drift.moved
    assert list(drift._clocks) == []  # nor does the clock that was usual before count


# -- several threads ----------------------------------------------------------------------------


def test_several_threads_are_held_to_a_quarter() -> None:
    assert DriftFilter(0.35, threads=2).most == 0.25
    assert DriftFilter(0.10, threads=2).most == 0.10
    assert DriftFilter(None, threads=2).most == 0.25
    assert DriftFilter(None, threads=1).most is None
    assert DriftFilter(0.35, threads=1).most == 0.35
    assert not DriftFilter(0.35).several


def test_the_speed_of_earlier_jobs_is_the_one_to_wait_for() -> None:
    drift = DriftFilter(0.35, threads=2)
    for ms in [0.3] * 60 + [0.50] * 20 + [0.52] * 19:
        drift.check_speed(ms)
    drift.anchor(0.45)  # within a quarter of it lie those around 0.5
    assert drift.anchor_ms == drift.usual_ms == 0.50
    drift.anchor(1.0)  # none are near
    assert drift.anchor_ms == drift.usual_ms == 1.0
    drift.anchor()
    assert drift.anchor_ms == 0.3
    # One thread has one speed: that of the start.
    one = phone(*[0.3] * 60)
    one.anchor(0.5)
    assert one.anchor_ms == 0.3


def test_another_speed_of_several_threads_is_believed_after_a_minute() -> None:
    drift = DriftFilter(None, threads=2)
    for _ in range(60):
        drift.check_speed(1.0)
    for _ in range(30):  # before the start is known both speeds are observed
        drift.check_speed(0.7)
    assert not drift.moved
    drift.anchor()
    for _ in range(23):
        drift.check_speed(0.7)
    assert not drift.moved
    drift.check_speed(0.7)
    assert drift.moved and drift.usual_ms == 0.7


# -- clock and preemption -----------------------------------------------------------------------


def test_a_clock_counts_where_the_time_follows() -> None:
    def at(clock_mhz: float, ms: float) -> str:
        drift = DriftFilter(0.35)
        for known_ms in [0.96] * 60 + [1.04] * 40:
            drift.check_speed(known_ms, 2000.0)
        drift.anchor()
        return drift.check_speed(ms, clock_mhz)

    fell = "the clock fell to 1499 MHz from 2000 MHz: it throttles"
    assert at(1499.0, 1.05) == fell  # 9 % slower than 0.96, which the scatter allows
    assert at(1501.0, 1.05) == ""
    assert at(1499.0, 1.0) == ""
    assert at(0.0, 1.05) == ""  # not known
    # Without the start's clock the usual one counts.
    drift = DriftFilter(0.35)
    for known_ms in [0.96] * 60 + [1.04] * 40:
        drift.check_speed(known_ms, 2000.0)
    assert drift.check_speed(1.05, 1499.0) == fell
    assert drift.check_speed(1.05, 1.0).startswith("the clock fell to 1 MHz")


def test_the_clock_of_the_start_counts_and_not_that_of_later() -> None:
    drift = DriftFilter(0.35)
    for known_ms in [0.96] * 12 + [1.04] * 8:
        drift.check_speed(known_ms, 2000.0)
    drift.anchor()
    for known_ms in [0.96] * 60 + [1.04] * 40:
        drift.check_speed(known_ms, 1600.0)
    assert (
        drift.check_speed(1.05, 1499.0) == "the clock fell to 1499 MHz from 2000 MHz: it throttles"
    )


def test_a_tenth_of_the_runs_may_lose_the_core() -> None:
    drift = DriftFilter(0.35)
    assert [drift.check_preemption(0.0) for _ in range(10)] == [""] * 10
    assert drift.check_preemption(0.10) == ""
    assert drift.check_preemption(0.11) == (
        "11% of its runs lost the core to another program (limit 10%); the others shared their "
        "caches with it"
    )
    # Where more do so as a rule, twice as many may.
    busy = DriftFilter(0.35)
    for _ in range(20):
        busy.check_preemption(0.2)
    assert busy.check_preemption(0.40) == ""
    assert "(limit 40%)" in busy.check_preemption(0.41)
    # And what seven in ten stay below.
    uneven = DriftFilter(0.35)
    for share in [0.0] * 11 + [0.5] * 9:
        uneven.check_preemption(share)
    assert uneven.check_preemption(0.5) == ""
    assert "(limit 50%)" in uneven.check_preemption(0.51)


def test_long_runs_have_a_share_of_their_own() -> None:
    drift = DriftFilter(0.35)
    for _ in range(20):
        drift.check_preemption(0.3, 2.0)
    assert drift.check_preemption(0.5, 2.0) == ""
    assert [drift.check_preemption(0.05, 1.99) for _ in range(9)] == [""] * 9
    assert "limit 10%" in drift.check_preemption(0.2, 1.99)


def test_a_whole_reading_is_checked_by_its_medians() -> None:
    drift = DriftFilter(0.35)
    calm = Reading((1.0,) * 10, (0.5, 0.5, 9.0), 0, "CPU")
    assert [drift.check(calm) for _ in range(20)] == [""] * 20
    assert drift.usual_ms == 0.5 and not drift.off_speed
    slow = Reading((1.0,) * 10, (0.6,) * 3, 0, "CPU")
    assert "0.600 ms instead of 0.500 ms (+20%" in drift.check(slow) and drift.off_speed
    crowded = Reading((1.0,) * 8, (0.5,) * 8, 2, "CPU")  # 2 of 10
    assert "20% of its runs" in drift.check(crowded) and not drift.off_speed
    allowed = Reading((1.0,) * 9, (0.5,) * 9, 1, "CPU")
    assert drift.check(allowed) == ""
    clocked = Reading((1.0,) * 10, (0.5,) * 10, 0, "CPU", clock_mhz=2000.0)
    assert drift.check(clocked) == "" and list(drift._clocks) == [2000.0]
    # Long runs by the median of their samples.
    long = Reading((1.0, 2.5, 2.5), (0.5,) * 3, 1, "CPU")
    short = Reading((1.0, 1.0, 2.5), (0.5,) * 3, 1, "CPU")
    assert drift.check(long) == ""
    assert "25% of its runs" in drift.check(short)


def test_a_quiet_device_is_held_to_six_percent_and_a_noisy_one_to_more() -> None:
    rng = np.random.default_rng(0)
    quiet, noisy = DriftFilter(0.35), DriftFilter(0.35)
    for _ in range(100):
        quiet.check_speed(float(rng.normal(1, 0.003)))
        noisy.check_speed(float(rng.choice([0.46, 0.58]) * rng.normal(1, 0.02)))
    assert quiet.limit == pytest.approx(0.06)
    assert 0.2 < noisy.limit <= 0.35
    assert "limit ±6%" in quiet.check_speed(1.1)
    assert quiet.check_speed(1.03) == ""
    assert noisy.check_speed(0.58) == noisy.check_speed(0.46) == ""


def test_a_spell_of_throttling_never_becomes_the_usual() -> None:
    drift = DriftFilter(0.35)
    for _ in range(300):
        drift.check_speed(1.0)
    refused = sum(bool(drift.check_speed(1.4)) for _ in range(200))
    assert refused == 200
    assert drift.usual_ms == 1.0


def test_a_slow_ramp_does_not_take_its_own_measure_along() -> None:
    drift = DriftFilter(0.10)
    for _ in range(20):
        drift.check_speed(1.0, weight=5)
    drift.anchor()
    believed = [ms for ms in np.linspace(1.0, 1.6, 3000) if not drift.check_speed(float(ms))]
    assert max(believed) <= 1.10
    assert not drift.widen(1.2)


def test_of_the_two_speeds_of_several_threads_the_usual_one_is_kept() -> None:
    drift = DriftFilter(0.35, threads=2)
    for ms in [0.5] * 60 + [0.3] * 40:
        drift.check_speed(ms)
    drift.anchor()
    assert drift.usual_ms == 0.5
    assert drift.check_speed(0.54) == drift.check_speed(0.47) == ""
    # A minute of the other speed is refused, and takes nothing along.
    assert all(drift.check_speed(0.3) for _ in range(20))
    assert not drift.moved
    assert drift.check_speed(0.5) == ""
    # Only what lasts is believed.
    assert all(drift.check_speed(0.3) for _ in range(24))
    assert drift.moved
    assert drift.usual_ms == 0.3
    assert drift.check_speed(0.3) == ""
    # A speed at which earlier numbers are stated is the one to wait for.
    drift.anchor(0.5)
    assert drift.check_speed(0.3) != ""


def test_a_file_of_others_may_run_in_part_elsewhere() -> None:
    reading = Reading((1.0,), (0.5,), 0, "XNNPACK, 58 of 222 nodes on built-in kernels")
    assert rejection_reason(reading, "XNNPACK").startswith("asked for XNNPACK, and XNNPACK, 58")
    assert rejection_reason(reading, "XNNPACK", partly=True) == ""
    assert rejection_reason(reading, "GPU", partly=True).startswith("asked for GPU")
