"""How much is measured and the verdict, at the edges of each limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phonenas.data import Conditions, Measurement, Round
from phonenas.devices.measuring.protocol import (
    QUICK,
    SENTINEL,
    Protocol,
    Verdict,
    at_speed,
    verdict,
    verdict_of,
)
from phonenas.space.errors import InvalidArgument

HERE = Conditions("d", "m", "f", "r", "1", "h", "p", "all", 1, "c", "none")


def measured(spread: float, ms: float = 1.0, kind: str = "network", rounds: int = 2) -> Measurement:
    """A measurement whose value and error bar are given."""
    one = Measurement(kind, "s", HERE, (Round((ms,)),) * rounds)  # type: ignore[arg-type]
    one.__dict__.update(latency_ms=ms, spread=spread)
    return one


def test_how_much_is_measured() -> None:
    p = Protocol()
    assert {k: p.rounds(k) for k in ("operator", "kernel", "network", "onnx")} == {
        "operator": 3,
        "kernel": 3,
        "network": 10,
        "onnx": 10,
    }
    assert (p.runs("operator"), p.runs("network")) == (10, 10)
    other = Protocol(operator_runs=4, network_runs=7, operator_rounds=2, network_rounds=5)
    assert (other.runs("kernel"), other.runs("onnx")) == (4, 7)
    assert (other.rounds("kernel"), other.rounds("onnx")) == (2, 5)
    assert (p.warmup_runs, p.warmup_s, p.apart_s, p.extra_rounds) == (5, 0.3, 3.0, 9)
    assert (p.drift_limit, p.cool_down_s, p.seed) == (0.10, 900.0, 0)
    assert (p.limit("network"), p.limit("onnx")) == (0.10, 0.10)
    assert (p.limit("operator"), p.limit("kernel")) == (0.25, 0.25)
    assert Protocol(spread_limit=0.4).limit("operator") == 0.4
    assert (p.negligible_ms, p.last_negligible_ms) == (0.005, 0.03)
    assert (QUICK.operator_rounds, QUICK.network_rounds) == (1, 2)
    assert (p.load_s, Protocol(mode="sustained").load_s) == (0.0, 180.0)
    assert Protocol(mode="sustained", sustain_s=60.0).load_s == 60.0
    assert SENTINEL.key == "mbconv6_k5_s1_skip_28x28x40_40"


def test_what_no_job_can_be() -> None:
    with pytest.raises(InvalidArgument, match="is 0 or more, got -1"):
        Protocol(seed=-1)
    for edge in (10, 3600):
        Protocol(mode="sustained", sustain_s=edge)
    for wrong in (9.9, 3600.1):
        with pytest.raises(InvalidArgument, match=f"10 to 3600 s of load, not after {wrong:g} s"):
            Protocol(mode="sustained", sustain_s=wrong)
        Protocol(sustain_s=wrong)  # of no effect in the steady mode
    with pytest.raises(InvalidArgument, match="leave out --wait-below"):
        Protocol(mode="sustained", wait_below_c=40.0)
    assert Protocol(wait_below_c=40.0).wait_below_c == 40.0


@pytest.mark.parametrize(
    ("one", "stable", "text"),
    [
        (measured(0.10), True, "2 rounds: 1.000 ms ±10.0% (90 % interval)"),
        (measured(0.101), False, "±10.1% (90 % interval); measure it again on a quiet, cool d"),
        (measured(0.25, kind="operator"), True, "2 rounds: 1.000 ms ±25.0% (90 % interval)"),
        (measured(0.26, kind="operator"), False, "; measure it again on a quiet, cool device"),
        (measured(0.5, 0.01), True, "2 rounds: 0.010 ms ±50.0% (90 % interval)"),  # 5 µs
        (measured(0.5, 0.0101), False, "; measure it again on a quiet, cool device"),
        (measured(0.0, rounds=1), False, "one round gives no error bar; measure again without --q"),
    ],
)
def test_the_verdict_on_one(one: Measurement, stable: bool, text: str) -> None:
    said = verdict_of(one, Protocol())
    assert said.stable is stable
    assert text in said.text
    assert not stable or said.text == text


def test_half_the_limit_is_the_most_of_the_middle_error_bar() -> None:
    for kind, edge in (("network", 0.05), ("operator", 0.125)):
        assert verdict([measured(edge, kind=kind)] * 3, 0, Protocol()).stable
        said = verdict([measured(edge + 0.001, kind=kind)] * 3, 0, Protocol())
        assert said.text.startswith(f"unstable: 3 {kind}s known to ±")
        assert said.text.endswith(
            "Close other programs, let the device cool, then measure again with --again."
        )


def test_one_in_ten_may_be_wide() -> None:
    calm, wide = measured(0.01), measured(0.3)
    assert verdict([calm] * 9 + [wide], 0, Protocol()).text == (
        "stable: 10 networks known to ±1.0% (median of 90 % intervals); 1 of 10 subjects with a "
        "wide error bar; 0 readings rejected"
    )
    assert not verdict([calm] * 8 + [wide], 0, Protocol()).stable
    assert not verdict([calm] * 18 + [wide] * 3, 0, Protocol()).stable
    # Networks decide; operators with a wide error bar are named.
    operators = [measured(0.9, kind="operator")] * 5
    said = verdict([calm] * 2 + operators, 0, Protocol())
    assert said.stable and "5 of 7 subjects with a wide error bar" in said.text


def test_a_single_round_makes_a_first_look() -> None:
    one, two = measured(0.0, rounds=1), measured(0.01)
    assert verdict([one, two], 4, Protocol()).text == (
        "a first look: 1 subject has one round, which gives no error bar; 1 network known to "
        "±1.0% (median of 90 % intervals); 4 readings rejected. Measure again without --quick."
    )
    said = verdict([one, one], 0, Protocol())
    assert said.text == (
        "a first look: 2 subjects have one round each, which gives no error bar; 0 readings "
        "rejected. Measure again without --quick."
    )
    # Beside many of two rounds, too.
    assert verdict([two] * 30 + [one], 0, Protocol()).text.startswith("a first look: 1 subject")
    # An operator of one round is a first look beside networks of several.
    lone = measured(0.0, kind="operator", rounds=1)
    assert verdict([two, lone], 0, Protocol()).text.startswith("a first look: 1 subject has one")


def test_runs_that_lost_the_core_show_a_load() -> None:
    def crowded(preempted: int) -> Measurement:
        rounds = (Round((1.0,) * 10), Round((1.0,) * (10 - preempted), preempted=preempted))
        one = Measurement("network", "s", HERE, rounds)
        one.__dict__.update(latency_ms=1.0, spread=0.01)
        return one

    assert verdict([crowded(1)], 0, Protocol()).stable  # 1 of 20
    said = verdict([crowded(2)], 0, Protocol())
    assert said.text == (
        "loaded: 1 network known to ±1.0% (median of 90 % intervals); 0 readings rejected; other "
        "programs ran beside it all (10% of the runs lost the core; times may be up to 24% too "
        "long). Close them, then measure again with --again."
    )
    assert not said.stable


CALM = Verdict(True, "stable: 3 networks.")


@pytest.mark.parametrize(
    ("slowdown", "limit", "stable", "begins", "told"),
    [
        (None, 0.1, True, "stable: 3 networks.", ""),
        (1.049, 0.1, True, "stable: 3 networks.", ""),
        (0.951, 0.1, True, "stable: 3 networks.", ""),
        (1.051, 0.1, True, "stable: 3 networks. The device is slower", "takes 1.05 times as long"),
        (0.949, 0.1, True, "stable: 3 networks. The device is faster", "takes 0.95 times as long"),
        (1.079, 0.1, True, "stable: 3 networks. The", "takes 1.08 times as long"),
        (1.081, 0.1, False, "another speed: 3 networks. The", "models fitted before do not hold"),
        (0.919, 0.1, False, "another speed: 3 networks. The", "measure again with --again"),
        (2.0, None, True, "stable: 3 networks. The device is slower", "takes 2.00 times as long"),
    ],
)
def test_another_speed(
    slowdown: float | None, limit: float | None, stable: bool, begins: str, told: str
) -> None:
    said = at_speed(CALM, slowdown, limit=limit)
    assert said.stable is stable
    assert said.text.startswith(begins) and told in said.text
    assert (said == CALM) is (told == "")


def test_a_bad_verdict_stays_bad_at_another_speed() -> None:
    wild = Verdict(False, "unstable: 3 networks.")
    assert not at_speed(wild, 1.06, limit=0.1).stable
    assert at_speed(wild, 1.2, limit=0.1).text.startswith("another speed: unstable: 3 networks.")
    assert replace(wild) == wild
