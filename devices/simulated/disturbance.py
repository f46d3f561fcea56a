"""Disturbance: clock, heat and other programs of a simulated phone, in virtual time.

Its clock c, as a share of the highest one, is the lower of what throttling leaves and what the
governor gives: 0.5 + 0.5 · s / 0.2 after s seconds of load, at most 1. Temperature T follows

    dT/dt = (30 °C + 28 °C · threads^0.6 · c² - T) / 60 s

with c = 0 in pauses. Other programs come in bursts, with exponential gaps and lengths.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from phonenas.space.errors import InvalidArgument

__all__ = ["BackgroundLoad", "Disturbance", "Losses", "Throttle"]

_RAMP_S, _REST_CLOCK = 0.2, 0.5
_AMBIENT_C, _RISE_C, _COOLING_S, _RELIEF_C = 30.0, 28.0, 60.0, 6.0
_MODERATE = 2  # as Android counts


@dataclass(frozen=True)
class Throttle:
    """When the clock falls, and to what.

    Args:
        every_s, for_s: In the last `for_s` of every `every_s` seconds, under any load.
        to: Share of the highest clock that remains, in (0, 1].
        above_c: Also from this temperature on until it is 6 °C cooler, in °C. Unbroken work of
            one thread comes to 58 °C, of two to 72 °C, of four to 94 °C.
        reported: Whether `thermal_status` shows it; many phones slow down long before that.
    Raises:
        InvalidArgument: A value outside its range.
    """

    every_s: float = 120.0
    for_s: float = 30.0
    to: float = 0.6
    above_c: float = 70.0
    reported: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.for_s < self.every_s and 0 < self.to <= 1):
            raise InvalidArgument(f"throttling: 0 ≤ for_s < every_s and 0 < to ≤ 1, got {self}")


@dataclass(frozen=True)
class BackgroundLoad:
    """Other programs, in bursts.

    Args:
        every_s, for_s: Mean seconds between two bursts, and of one; both > 0.
        preempted, quiet: Share of runs that lose the core, in a burst and outside, in [0, 1].
        stolen_ms: Median of the time they lose, in ms; lognormal, with a long tail (σ = 1).
        unnoticed: Share of these that no counter shows, so that they stay among the samples.
        contention: How much slower memory is in a burst, ≥ 1.
    """

    every_s: float = 45.0
    for_s: float = 3.0
    preempted: float = 0.2
    quiet: float = 0.005
    stolen_ms: float = 4.0
    unnoticed: float = 0.05
    contention: float = 1.3


@dataclass(frozen=True)
class Losses:
    """Lost connections.

    Args:
        every: The phone is lost with the next model after so many were run, ≥ 1.
        reboot_s: Seconds until it can be reached again, ≥ 0.
    Raises:
        InvalidArgument: A value outside its range.
    """

    every: int
    reboot_s: float = 20.0

    def __post_init__(self) -> None:
        if self.every < 1 or self.reboot_s < 0:
            raise InvalidArgument(f"losses: every ≥ 1 model, reboot_s ≥ 0, got {self}")


class Disturbance:
    """Virtual time with a phone's clock, temperature and other programs.

    Args:
        seed: Of the bursts' times.
        threads: Threads that compute, ≥ 1: the more, the warmer.
        throttle: None for never.
        load: None for no other programs.

    Attributes:
        now_s: Seconds since it was made.
        celsius: Temperature in °C.
        working_since_s: When the present unbroken load began.
    """

    def __init__(
        self, seed: int, threads: int, throttle: Throttle | None, load: BackgroundLoad | None
    ) -> None:
        self.threads, self.throttle, self.load = threads, throttle, load
        self.now_s = self.working_since_s = 0.0
        self.celsius = _AMBIENT_C
        self._hot = False
        self._bursts = random.Random(f"bursts {seed}")
        self._burst = (0.0, 0.0)  # the present or next one, from and to

    def spend(self, seconds: float, clock: float) -> None:
        """Let time pass under load at this share of the highest clock, or idle at 0."""
        towards = _AMBIENT_C + _RISE_C * self.threads**0.6 * clock * clock
        self.celsius = towards + (self.celsius - towards) * math.exp(-seconds / _COOLING_S)
        self.now_s += seconds
        if self.throttle is not None:
            relief = _RELIEF_C if self._hot else 0.0
            self._hot = self.celsius > self.throttle.above_c - relief

    def work_begins(self) -> None:
        """Start a load after a pause, in which the governor has lowered the clock."""
        self.working_since_s = self.now_s

    def allowed(self) -> float:
        """Share of the highest clock that throttling allows now."""
        t = self.throttle
        if t is None or not (self._hot or self.now_s % t.every_s >= t.every_s - t.for_s):
            return 1.0
        return t.to

    def clock(self) -> float:
        """Share of the highest clock now, under load."""
        ramp = min(1.0, (self.now_s - self.working_since_s) / _RAMP_S)
        return min(self.allowed(), _REST_CLOCK + (1 - _REST_CLOCK) * ramp)

    def thermal_status(self) -> int:
        """0 none, 2 moderate, as Android counts, if it is reported."""
        reported = self.throttle is not None and self.throttle.reported
        return _MODERATE if reported and self.allowed() < 1 else 0

    def in_burst(self) -> bool:
        """Whether other programs run now."""
        if self.load is None:
            return False
        while self.now_s >= self._burst[1]:
            starts = self._burst[1] + self._bursts.expovariate(1 / self.load.every_s)
            self._burst = (starts, starts + self._bursts.expovariate(1 / self.load.for_s))
        return self.now_s >= self._burst[0]

    def contention(self) -> float:
        """How much slower memory is now, ≥ 1."""
        return self.load.contention if self.load is not None and self.in_burst() else 1.0

    def stolen(self, chance: random.Random) -> tuple[float, bool]:
        """Time that a run loses now, in ms, and whether a counter shows it."""
        load = self.load
        if load is None or chance.random() >= (load.preempted if self.in_burst() else load.quiet):
            return 0.0, False
        return load.stolen_ms * math.exp(chance.gauss(0, 1)), chance.random() >= load.unnoticed
