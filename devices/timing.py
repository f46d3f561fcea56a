"""How the house measures: how much, what is rejected, and the verdict.

Rules, from experiments: warm up by count and by time; some ten runs a round and several rounds
far apart in random order, for repeats back to back agree with each other and not with
themselves a minute later; drop preempted runs; median of each round, pseudo-median over rounds; a
sentinel model between the samples shows what the machine itself does meanwhile. Small changes of
speed are divided out (`data.measurement`); under large ones nothing is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..data.measurement import WHOLE, Measurement
from ..space.operator import Operator
from .device import Reading

__all__ = ["SENTINEL", "Protocol", "Verdict", "verdict", "verdict_of"]

# About half a millisecond on a desktop core and a few on a phone's; convolves, gates nothing.
SENTINEL = Operator("mbconv", 40, 40, 28, kernel=5, expansion=6, skip="identity")


@dataclass(frozen=True)
class Protocol:
    """How much is measured and what is believed.

    Args:
        operator_rounds, network_rounds: Rounds of each operator or kernel, and each whole network.
        operator_runs, network_runs: Undisturbed samples a round.
        warmup_runs, warmup_s: Before the first sample; seconds of unbroken load.
        drift_limit: How far the sentinel may ever stand from where it mostly stands, relative.
        spread_limit: How far two thirds of a subject's rounds may stand apart, ± relative,
            before further rounds are taken.
        extra_rounds: How many further rounds at most.
        last_limit: How far they may stand apart after those; beyond it the subject is given
            up. Some small operators have two speeds, by where their memory came to lie: they
            are kept, with the spread as their error bar.
        negligible_ms, last_negligible_ms: Rounds that stand no further apart than this many
            ms agree whatever their ratio: an operator of 20 µs may double and no network
            shows it.
        apart_s: Least seconds between two rounds of one subject.
        sustain_s: Seconds of unbroken load before the first batch, for the sustained mode.
        wait_below_c: Wait for the device to be cooler than this before each batch, in °C.
        cool_down_s: Longest wait for a device that throttles or is too hot, in s.
    """

    operator_rounds: int = 3
    network_rounds: int = 10
    operator_runs: int = 10
    network_runs: int = 10
    warmup_runs: int = 5
    warmup_s: float = 0.3
    drift_limit: float = 0.35
    spread_limit: float = 0.10
    extra_rounds: int = 6
    last_limit: float = 0.25
    negligible_ms: float = 0.005
    last_negligible_ms: float = 0.03
    apart_s: float = 3.0
    sustain_s: float = 0.0
    wait_below_c: float | None = None
    cool_down_s: float = 900.0

    def rounds(self, kind: str) -> int:
        """Rounds of a subject of this kind."""
        return self.network_rounds if kind in WHOLE else self.operator_rounds

    def runs(self, kind: str) -> int:
        """Samples a round of a subject of this kind."""
        return self.network_runs if kind in WHOLE else self.operator_runs


def reading_objection(reading: Reading, provider: str) -> str:
    """Why a reading is no measurement; "" when it is one."""
    if reading.error:
        return reading.error
    if reading.provider != provider:  # a silent fall-back
        return f"asked for {provider}, and {reading.provider or 'nothing'} ran"
    if not reading.samples_ms or not reading.sentinel_ms:
        return "it brought no time"
    if not all(0 < s < float("inf") for s in reading.samples_ms + reading.sentinel_ms):
        return "a time that is no positive finite number"  # NaN compares false
    return ""


@dataclass(frozen=True)
class Verdict:
    """Whether a set of measurements is to be believed, and what to do if not."""

    stable: bool
    text: str


def verdict_of(measurement: Measurement, protocol: Protocol) -> Verdict:
    """Whether one measurement is to be believed as closely as the protocol asks."""
    m = measurement
    if len(m.rounds) < 2:
        return Verdict(False, "one round gives no error bar; measure again without --quick")
    told = f"{len(m.rounds)} rounds around {m.latency_ms:.3f} ms stand ±{m.spread:.1%} apart"
    if m.spread <= protocol.spread_limit or m.spread * m.latency_ms <= protocol.negligible_ms:
        return Verdict(True, told)
    return Verdict(False, f"{told}; measure it again on a quiet, cool device")


def verdict(measurements: Sequence[Measurement], rejected: int, limit: float) -> Verdict:
    """Judge a profile by the spread between rounds of its whole networks.

    Networks decide because they are what is promised; operators when there is no network.
    """
    chosen = [m for m in measurements if m.kind in WHOLE] or list(measurements)
    if not chosen:
        return Verdict(False, "nothing was measured")
    spreads = [m.spread for m in chosen if len(m.rounds) > 1]
    if not spreads:
        return Verdict(
            False, "unknown: one round each gives no error bar. Measure again without --quick."
        )
    typical = median(spreads)
    kind = f"{len(chosen)} {chosen[0].kind}{'s' if len(chosen) > 1 else ''}"
    words = f"rounds of {kind} stand ±{typical:.1%} apart (median); {rejected} readings rejected"
    if typical > limit / 2:
        return Verdict(
            False,
            f"unstable: {words}. Close other programs, let the device cool, then measure again "
            "with --again.",
        )
    return Verdict(True, f"stable: {words}")
