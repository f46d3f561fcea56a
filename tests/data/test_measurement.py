"""The value of some rounds and its error bar."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonenas.data import Conditions, Measurement, Round
from phonenas.data.measurement import Entry, Startup, centre, spread
from phonenas.space.errors import InvalidArgument

HERE = Conditions("d", "m", "f", "r", "1", "h", "p", "all", 1, "c", "none")
TICK_MS = 5e-5
rounds_ms = st.lists(st.floats(0.1, 100.0), min_size=3, max_size=18)


@pytest.mark.parametrize(
    ("medians_ms", "value_ms", "bar"),
    [
        ((1.0, 1.0, 10.0), 1.0, 13.0366),  # two rounds against one decide nothing
        ((1.0,) * 8 + (1.3,) * 4, 1.0, 0.15),  # the digits are coarser than the scatter
        ((1.0, 1.2), 1.1, 6.314 * 0.1 / 1.1),  # Student's t, one degree of freedom
        ((1.0, 2.0, 3.0), 2.0, 0.724256),
        (tuple(range(1, 11)), 5.5, 0.429792),  # two times 0.17 + 0.32 √10 ranks from the middle
        (tuple(range(1, 13)), 6.5, 0.393389),
        # No bar of seven rounds or more reaches beyond all of them.
        ((*(0.99 + 0.005 * i for i in range(5)), 1.3, 1.3, 1.3, 1.3), 1.044934, 0.244098),
        ((1.3,) * 9 + (1.0,), 1.3, 0.3 / 1.3),  # nothing makes a device faster
        ((2.0, 2.0, 2.0), 2.0, TICK_MS / 2.0),
        ((1.0, 2.0, 4.0), 2.272896, 1.034465),
    ],
)
def test_a_value_and_its_error_bar(
    medians_ms: tuple[float, ...], value_ms: float, bar: float
) -> None:
    m = Measurement("network", "n", HERE, tuple(Round((t,)) for t in medians_ms))
    assert m.latency_ms == pytest.approx(value_ms, rel=1e-5)
    assert m.spread == pytest.approx(bar, rel=1e-3)


def test_a_single_round_has_a_value_and_no_error_bar() -> None:
    m = Measurement("network", "n", HERE, (Round((3.0, 1.0, 2.0)),))
    assert m.latency_ms == 2.0 and math.isnan(m.spread)


@settings(deadline=None)
@given(rounds_ms)
def test_the_value_solves_its_equation_and_lies_among_the_rounds(values: list[float]) -> None:
    t, middle = centre(values), median(values)
    deviation = median(abs(x - middle) for x in values)
    assert min(values) <= t <= max(values)
    if deviation > 1e-6 * middle:
        pull = [math.tanh((x - t) / (2 * deviation)) for x in values]
        assert sum(pull) == pytest.approx(0.0, abs=1e-6)
    else:
        assert t == pytest.approx(middle, rel=1e-5)


@settings(deadline=None)
@given(rounds_ms, st.floats(0.01, 100.0), st.floats(0.0, 50.0), st.randoms())
def test_both_follow_the_scale_and_no_order(
    values: list[float], scale: float, shift: float, chance: object
) -> None:
    t, half = centre(values), spread(values) * centre(values)
    moved = [scale * x + shift for x in values]
    chance.shuffle(moved)  # type: ignore[attr-defined]
    assert centre(moved) == pytest.approx(scale * t + shift, rel=1e-6, abs=1e-9)
    if min(half, scale * half) > 2 * TICK_MS:
        assert spread(moved) * centre(moved) == pytest.approx(scale * half, rel=1e-5, abs=2e-4)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 100.0), min_size=2, max_size=18))
def test_no_error_bar_is_zero(values: list[float]) -> None:
    half = spread(values) * centre(values)
    assert half >= TICK_MS * (1 - 1e-9)
    if len(set(values)) == 1:
        assert half == pytest.approx(TICK_MS)


@settings(deadline=None)
@given(st.lists(st.floats(1.0, 1.1), min_size=5, max_size=12, unique=True), st.data())
def test_disturbed_rounds_move_the_value_only_so_far_however_slow_they_are(
    good: list[float], data: st.DataObject
) -> None:
    disturbed = data.draw(st.integers(1, (len(good) - 1) // 2))
    slow, slower = ([*good, *[f] * disturbed] for f in (10.0, 1000.0))
    assert centre(slower) == pytest.approx(centre(slow), rel=1e-6)
    assert centre(slow) < 1.5


NORMAL, LATE = ("normal", 0.0, 1.0), ("late", 0.2, 1.3)


# Three rounds and ten are those of an operator and of a network.
@pytest.mark.parametrize("n", [3, 10, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 12))])
@pytest.mark.parametrize("noise", [NORMAL, LATE, ("student", 0.0, 1.0)], ids=lambda n: n[0])
def test_nine_in_ten_error_bars_hold(noise: tuple[str, float, float], n: int) -> None:
    name, share, times = noise
    chance = np.random.default_rng(1)
    deviates = (
        chance.standard_t(3, (1500, n)) if name == "student" else chance.normal(size=(1500, n))
    )
    rows = np.exp(0.02 * deviates) * np.where(chance.random((1500, n)) < share, times, 1.0)
    held = [abs(centre(row) - 1) <= spread(row) * centre(row) for row in rows.tolist()]
    assert 0.86 < np.mean(held) < 0.96


@pytest.mark.parametrize("rounds", [6, 10, 12])
def test_the_bar_grows_before_the_value_breaks(rounds: int) -> None:
    for disturbed in range(rounds // 2 + 1):
        values = [1 + 0.001 * i for i in range(rounds - disturbed)]
        values += [2 + 0.001 * i for i in range(disturbed)]
        off = abs(centre(values) - 1)
        assert off < 0.1 or spread(values) * centre(values) > 0.8 * off, disturbed
    assert disturbed == rounds // 2


# -- conditions, rounds, entries ----------------------------------------------------------------


def test_conditions_have_one_digest_and_later_fields_change_none_at_their_defaults() -> None:
    assert HERE.digest == "e79cdff36695"
    assert replace(HERE, statistic="samples", clocks="governed", load_s=0.0).digest == HERE.digest
    others = [
        replace(HERE, statistic="median of the runs"),
        replace(HERE, clocks="fixed-performance"),
        replace(HERE, load_s=60.0),
        replace(HERE, threads=2),
        replace(HERE, mode="first"),
        replace(HERE, origin="simulated"),
        replace(HERE, precision="int8"),
    ]
    assert len({c.digest for c in others} | {HERE.digest}) == 8
    assert all(Conditions.from_dict(c.to_dict()) == c for c in others)
    assert HERE.differences(replace(HERE, threads=2, cores="d")) == [
        "threads: 1 / 2",
        "cores: c / d",
    ]
    for name, bad in (("threads", -1), ("threads", 10_001), ("load_s", -0.1), ("load_s", 1.1e9)):
        with pytest.raises(ValueError, match=name):
            Conditions.from_dict({**HERE.to_dict(), name: bad})
    for name, edge in (("threads", 0), ("threads", 10_000), ("load_s", 0.0), ("load_s", 1e9)):
        Conditions.from_dict({**HERE.to_dict(), name: edge})


def test_conditions_in_words() -> None:
    assert str(HERE) == (
        "d (m), r 1 p, optimisation all, 1 thread on c, governor none, float32, steady, measured"
    )
    more = replace(
        HERE, threads=2, clocks="fixed-performance", load_s=60.0, statistic="mean", mode="sustained"
    )
    assert str(more) == (
        "d (m), r 1 p, optimisation all, 2 threads on c, governor none, float32, sustained, "
        "measured, fixed-performance after 60 s of load, mean"
    )
    assert ", unknown threads on c" in str(replace(HERE, threads=0))
    assert (HERE.mark, HERE.origin_note) == ("●", "")
    for origin in ("simulated", "emulated", "imported", "public"):
        other = replace(HERE, origin=origin)  # type: ignore[arg-type]
        assert other.mark == "◌"
        note = "PUBLIC: d (m) is fitted on measurements that others published: phonenas devices"
        if origin != "public":
            note = f"{origin.upper()}: d (m); no device was measured for these numbers"
        assert other.origin_note.startswith(note)


@pytest.mark.parametrize(
    ("samples", "sentinel", "told"),
    [
        ((), (), "got none"),
        ((0.0,), (), r"got \[0.0\]"),
        ((-1.0, 2.0), (), r"got \[-1.0\]"),
        ((math.nan,), (), "nan"),
        ((1.1e9,), (), "up to 1e\\+09 ms"),
        ((1.0,), (0.0,), r"got \[0.0\]"),
        ((1.0, 2.0), (0.5,), "1 sentinel times stand beside 2 samples"),
        ((1.0,), (0.5, 0.5), "2 sentinel times stand beside 1 samples"),
    ],
)
def test_what_is_no_round(
    samples: tuple[float, ...], sentinel: tuple[float, ...], told: str
) -> None:
    with pytest.raises(InvalidArgument, match=told):
        Round(samples, sentinel)


def test_the_edges_of_a_round() -> None:
    assert Round((1e9, 1e-9)).median_ms() == pytest.approx(5e8)
    assert Round((1.0,), preempted=0).preempted == 0
    with pytest.raises(InvalidArgument, match="preempted of a round, -1: "):
        Round((1.0,), preempted=-1)
    for at in ("2026-11", "2026-11-30", "2026-11-30T10:00:00+00:00"):
        assert Round((1.0,), at=at).at == at
    with pytest.raises(InvalidArgument, match="at of a round, 'today': "):
        Round((1.0,), at="today")


def test_what_a_measurement_says_of_its_rounds() -> None:
    rounds = (
        Round((1.0, 3.0), (0.5, 0.7), at="2026-01-01"),
        Round((2.0,), (), at="2026-01-02"),
        Round((4.0, 4.0, 9.0), (0.9, 0.9, 0.1), at="2026-01-03"),
    )
    m = Measurement("network", "n", HERE, rounds)
    assert m.medians_ms == (2.0, 2.0, 4.0)
    assert m.sentinel_ms == pytest.approx(0.75)  # of 0.6 and 0.9
    assert (m.samples, m.at) == (6, "2026-01-03")
    assert Measurement("network", "n", HERE, rounds[1:2]).sentinel_ms is None
    assert (m.series, m.purpose, m.entry) == (0, "profile", ("", 0))


def test_what_was_stored_later() -> None:
    assert Entry("a", 2).after(Entry("a", 1)) and not Entry("a", 1).after(Entry("a", 2))
    assert not Entry("a", 1).after(Entry("a", 1))
    # What is of another store was never seen in this one.
    assert Entry("a", 1).after(Entry("b", 2)) and Entry("b", 2).after(Entry("a", 1))
    # Of an unknown store the numbers alone count.
    assert not Entry("", 1).after(Entry("b", 2)) and Entry("", 3).after(Entry("b", 2))
    assert not Entry("a", 1).after(Entry("", 2)) and Entry("a", 3).after(Entry("", 2))


def test_a_bar_is_no_less_than_a_tick_of_the_clock() -> None:
    assert spread((1.0, 1.0, 1.00003)) == TICK_MS
    # 0.724 ranks from the middle, twice: 2 × 0.724 × 0.00006.
    assert spread((1.0, 1.0, 1.00006)) == pytest.approx(2 * 0.72426 * 6e-5, rel=1e-3)
    # Half of the least difference, where most are equal to the last digit.
    assert spread((1.0,) * 10 + (1.02, 1.05)) == pytest.approx(0.01)
    assert spread((1.0,) * 10 + (1.0, 1.00004)) == TICK_MS


def test_seven_rounds_and_more_bound_their_bar() -> None:
    six = (1.0, 1.0, 1.1, 1.1, 1.2, 1.2)
    rank = 2.5 - (0.17 + 0.32 * math.sqrt(6))
    half = 2 * (1.1 - (1.0 + (rank - 1) * 0.1 if rank > 1 else 1.0))
    assert spread(six) == pytest.approx(half / 1.1, rel=1e-6)
    seven = (1.0, 1.0, 1.0, 1.1, 1.2, 1.2, 1.2)
    assert spread(seven) == pytest.approx(0.1 / 1.1)  # and not 2 × 0.1
    # A round that is far faster than the others lies in the bar: 8 deviations are 0.08.
    near = (0.921, *(1.0 + 0.01 * i for i in (-2, -1, -1, 0, 0, 1, 1, 2)))
    far = (0.8, *near[1:])
    assert spread(far) * centre(far) == pytest.approx(centre(far) - 0.8)
    assert spread(near) * centre(near) < 0.06


def test_quantiles_are_of_all_single_runs() -> None:
    rounds = (Round((1.0, 9.0, 3.0)), Round((2.0, 4.0)))
    m = Measurement("network", "n", HERE, rounds)
    assert m.run_ms(0.5) == 3.0
    assert m.run_ms(0.9) == pytest.approx(7.0)  # 0.6 of the way from 4 to 9
    assert m.run_ms(0) == 1.0 and m.run_ms(1) == 9.0
    printed = Measurement("network", "n", replace(HERE, statistic="median of the runs"), rounds)
    assert printed.run_ms(0.5) is None


def test_startups_are_told_by_the_median_of_each_number() -> None:
    startups = [
        Startup(30.0, 2.0, 90, 40, 10),
        Startup(50.0, None, 100, None, 10),
        Startup(31.0, 3.0, 95, 45, 10, 6.5),
    ]
    rounds = (Round((1.0,)), *(Round((1.0,), startup=s) for s in startups))
    m = Measurement("network", "n", HERE, rounds)
    assert m.startup == Startup(31.0, 2.5, 95, 42, 10, 6.5)
    assert m.figures == {
        "p50_ms": 1.0,
        "p90_ms": 1.0,
        "load_ms": 31.0,
        "first_ms": 2.5,
        "peak_bytes": 95,
        "model_bytes": 42,
        "file_bytes": 10,
        "energy_mj": 6.5,
    }
    alone = Measurement("network", "n", HERE, rounds[:1])
    assert alone.startup == Startup()
    assert set(alone.figures.values()) == {1.0, None}
