"""Protocol: how much is measured, and the verdict; what is rejected is in `rejection`.

Rules, from experiments: warm up by count and by time; some ten runs a round and several rounds far
apart in random order, because repeats back to back agree with each other but not with repeats a
minute later; drop preempted runs; median of each round, `centre` over rounds. The sentinel, a
small reference model that runs between the samples, tells the state of the machine meanwhile:
readings in another state are rejected. Times are what the clock shows, and nothing corrects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from phonenas.data.measurement import WHOLE, Measurement, Mode
from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import counted
from phonenas.space.operator import Operator

from .preconditions import load_text

__all__ = ["QUICK", "SENTINEL", "Protocol", "Verdict", "at_speed", "verdict", "verdict_of"]

# About half a millisecond on a desktop core and a few on a phone's; without squeeze-and-excite.
SENTINEL = Operator("mbconv", 40, 40, 28, kernel=5, expansion=6, skip="identity")


@dataclass(frozen=True)
class Protocol:
    """How much is measured and what is accepted.

    Args:
        operator_rounds, network_rounds: Rounds of each operator or kernel, and each whole network.
        operator_runs, network_runs: Undisturbed samples a round.
        warmup_runs, warmup_s: Before the first sample; seconds of unbroken load.
        startups: Processes of its own that bring up each whole network, after its first rounds,
            for its memory, the time to load it and its first inference, ≥ 0; none in the mode
            "sustained".
        drift_limit: Greatest drift of the sentinel from its time at the start, relative, on a
            phone: what waits for memory does not slow down as the sentinel does. On a computer the
            farthest 30 % of the last readings are rejected at most.
        spread_limit: Greatest error bar of a whole network (half its 90 % interval), ± relative,
            before further rounds are taken.
        last_limit: The same of an operator or kernel, one of many in a network; and of a whole
            network after the further rounds: beyond it the network is given up. An operator or
            kernel then keeps its value with a wide bar, and is told as uncertain: errors of many
            operators cancel in a network, and without one of them those that hold it have no time.
        extra_rounds: Greatest number of further rounds.
        further_share: Further rounds of all operators and kernels of a job, over the planned ones,
            from which on each of these gets `few_extra_rounds` at most: so the time of a job on a
            noisy device has an end. On two jobs of a noisy computer the error of whole networks
            was 6.9 and 5.0 % with the first 3 rounds of each operator, 5.6 and 4.5 % with up to 5,
            4.8 and 4.4 % with all, up to 12, which took a quarter and a sixth more rounds.
        negligible_ms, last_negligible_ms: An error bar up to this many ms is accepted whatever its
            ratio: an operator of 20 µs may double without an effect on any network.
        apart_s: Least seconds between two rounds of one subject.
        mode: "steady", or "sustained" for the speed after minutes of load, of whole networks only.
        sustain_s: Seconds of unbroken load before the first batch of the mode "sustained",
            10 to 3,600.
        wait_below_c: Wait for the device to be cooler than this before each batch, in °C.
        cool_down_s: Longest wait for a device that throttles or is too hot, in s.
        seed: Of the order in which subjects are measured, and of the networks that `profile`
            draws, ≥ 0.
    Raises:
        InvalidArgument: A value outside its range, or `wait_below_c` in the mode "sustained".
    """

    operator_rounds: int = 3
    network_rounds: int = 10
    operator_runs: int = 10
    network_runs: int = 10
    warmup_runs: int = 5
    warmup_s: float = 0.3
    startups: int = 1
    drift_limit: float = 0.10
    spread_limit: float = 0.10
    last_limit: float = 0.25
    extra_rounds: int = 9
    further_share: float = 0.25
    few_extra_rounds: int = 2
    negligible_ms: float = 0.005
    last_negligible_ms: float = 0.03
    apart_s: float = 3.0
    mode: Mode = "steady"
    sustain_s: float = 180.0
    wait_below_c: float | None = None
    cool_down_s: float = 900.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InvalidArgument(f"the seed of a measuring job is 0 or more, got {self.seed}")
        if self.mode == "sustained" and not 10 <= self.sustain_s <= 3600:
            raise InvalidArgument(
                "sustained speed is measured after 10 to 3600 s of load, not after "
                f"{self.sustain_s:g} s"
            )
        if self.mode == "sustained" and self.wait_below_c is not None:
            raise InvalidArgument(
                "sustained speed is that of a warm device: leave out --wait-below"
            )

    @property
    def load_s(self) -> float:
        """Seconds of unbroken load before the first batch; 0 in the steady mode."""
        return self.sustain_s if self.mode == "sustained" else 0.0

    def rounds(self, kind: str) -> int:
        """Rounds of a subject of this kind."""
        return self.network_rounds if kind in WHOLE else self.operator_rounds

    def limit(self, kind: str) -> float:
        """Greatest error bar of a subject of this kind for which no further round is taken."""
        return self.spread_limit if kind in WHOLE else max(self.spread_limit, self.last_limit)

    def runs(self, kind: str) -> int:
        """Samples a round of a subject of this kind."""
        return self.network_runs if kind in WHOLE else self.operator_runs


_WIDE = 0.1  # greatest share of subjects of a stable profile with a wide error bar
#: A first look: one round of an operator, so no error bar, and two of a network, so a wide one.
QUICK = Protocol(operator_rounds=1, network_rounds=2)


_TOLD = 0.05  # a difference in speed that is told
_LEVEL = 0.02  # error of a job's speed: each loading of the sentinel has a level of its own


@dataclass(frozen=True)
class Verdict:
    """Whether a set of measurements is stable, and what to do if not."""

    stable: bool
    text: str


def verdict_of(measurement: Measurement, protocol: Protocol) -> Verdict:
    """Whether the error bar of one measurement is as small as the protocol asks."""
    m = measurement
    if len(m.rounds) < 2:
        return Verdict(False, "one round gives no error bar; measure again without --quick")
    text = f"{len(m.rounds)} rounds: {m.latency_ms:.3f} ms ±{m.spread:.1%} (90 % interval)"
    if _exact(m, protocol):
        return Verdict(True, text)
    return Verdict(False, f"{text}; measure it again on a quiet, cool device")


def _load_beside(measurements: Sequence[Measurement]) -> str:
    rounds = [r for m in measurements for r in m.rounds]
    preempted = sum(r.preempted for r in rounds)
    runs = preempted + sum(len(r.samples_ms) for r in rounds)
    return load_text([r.telemetry for r in rounds], preempted / runs)


def _exact(m: Measurement, protocol: Protocol) -> bool:
    negligible = m.spread * m.latency_ms <= protocol.negligible_ms
    return m.spread <= protocol.limit(m.kind) or negligible


def verdict(measurements: Sequence[Measurement], rejected: int, protocol: Protocol) -> Verdict:
    """Whether a profile is stable, by the error bars of its whole networks.

    Operators decide if there is no network. It is stable if every subject has an error bar, the
    middle one of these is at most half the protocol's limit, nine in ten are within it, and other
    programs hardly loaded the device: under a steady load rounds agree on times that are too long.

    Args:
        rejected: Number of rejected readings, for the text.
    """
    chosen = [m for m in measurements if m.kind in WHOLE] or list(measurements)
    if not chosen:
        return Verdict(False, "nothing was measured")
    bars = [m.spread for m in chosen if len(m.rounds) > 1]
    single = sum(len(m.rounds) == 1 for m in measurements)
    wide = [m for m in measurements if len(m.rounds) > 1 and not _exact(m, protocol)]
    parts = [f"{counted(rejected, 'reading')} rejected"]
    if wide:
        parts.insert(0, f"{len(wide)} of {len(measurements)} subjects with a wide error bar")
    if bars:
        kind = f"{len(bars)} {chosen[0].kind}{'s' if len(bars) > 1 else ''}"
        parts.insert(0, f"{kind} known to ±{median(bars):.1%} (median of 90 % intervals)")
    loaded = _load_beside(measurements)
    if single:
        have = (
            "1 subject has one round" if single == 1 else f"{single} subjects have one round each"
        )
        parts.insert(0, f"{have}, which gives no error bar")
        parts += [f"other programs ran ({loaded})"] if loaded else []
        return Verdict(False, f"a first look: {'; '.join(parts)}. Measure again without --quick.")
    text = "; ".join(parts)
    limit, whole = protocol.limit(chosen[0].kind), chosen[0].kind in WHOLE
    wide_of_these = sum(m.kind in WHOLE or not whole for m in wide)
    if median(bars) > limit / 2 or wide_of_these > _WIDE * len(chosen):
        return Verdict(
            False,
            f"unstable: {text}{f'; other programs ran ({loaded})' if loaded else ''}. Close other "
            "programs, let the device cool, then measure again with --again.",
        )
    if loaded:
        return Verdict(
            False,
            f"loaded: {text}; other programs ran beside it all ({loaded}). Close them, then "
            "measure again with --again.",
        )
    return Verdict(True, f"stable: {text}")


def at_speed(found: Verdict, slowdown: float | None, *, limit: float | None) -> Verdict:
    """A verdict that also says how the device's speed differs from that of its store.

    Args:
        found: The verdict on the measurements alone.
        slowdown: Time of the sentinel now over that beside earlier measurements; None: unknown.
        limit: Greatest relative difference at which both belong together; None for no limit.
    """
    if slowdown is None or abs(slowdown - 1) < _TOLD:
        return found
    change = "slower" if slowdown > 1 else "faster"
    text = (
        f"{found.text.rstrip('.')}. The device is {change} than when its store was measured: "
        f"the sentinel takes {slowdown:.2f} times as long"
    )
    if limit is None or abs(slowdown - 1) < limit - _LEVEL:
        return Verdict(found.stable, text)
    return Verdict(
        False,
        f"another speed: {text.removeprefix('stable: ')}, and models fitted before do not hold. "
        "Let it cool, charge it, close other programs, then measure again with --again; if it "
        "stays at this speed, profile it with "
        "--again, fit and search again",
    )
