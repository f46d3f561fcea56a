"""Keeper: holds a device in a state to be measured, and brings it back when it is lost.

Everything that a measuring job waits for is here, and each wait has its bound: for a phone to
cool, for the sentinel to stand where it stood, for a cable to be plugged in again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from ..data.measurement import Conditions, Mode
from ..space.errors import DeviceError, DeviceUnavailable, UnstableDevice
from .device import Device, Job, Reading
from .fitness import doubts, reason_to_wait
from .gate import Gate
from .plan import Doubted, Lost, OnEvent, Waiting
from .timing import SENTINEL, Protocol, reading_objection

__all__ = ["Keeper"]

log = logging.getLogger("phonenas")

_WATCH = 10  # readings of the sentinel before the first subject
_WATCH_RUNS = 30
# Several threads have two speeds, each for seconds: which is the usual one takes longer to see.
_SEVERAL_WATCHES, _SEVERAL_PAUSE_S = 12, 2.0
_WEIGHT = 5
_PROBES = 2
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)  # pauses between tries
_FRUITLESS = 5  # losses in a row between which nothing was measured
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_SEVERAL_LONGEST_S = 4.0  # the other speed may be over at any moment
_PHONE_S, _COMPUTER_S = 60.0, 3.0  # of waiting for a speed that is within the drift limit
_HEAT_PAUSE_S = 10.0
_SUSTAIN_RUNS = 200
_PHONE_LIMIT = 0.10  # of drift: what waits for memory does not slow down as the sentinel does
_LOOK_S = 10.0  # a look costs up to half a second over ssh; heat moves more slowly


class Keeper:
    """One device for the length of one job.

    Args:
        device: Entered; left to whoever entered it.
        protocol: What is believed, and how long is waited.
        mode: "steady", or "sustained" to measure under lasting load.
        tell: Takes `Waiting`, `Lost` and `Doubted`.
    """

    def __init__(self, device: Device, protocol: Protocol, mode: Mode, tell: OnEvent) -> None:
        self.device, self.protocol, self.mode, self.tell = device, protocol, mode, tell
        self.base = device.conditions
        self.gate = Gate(protocol.drift_limit, threads=self.base.threads)
        self._sentinel: Path | None = None
        self.fruitless = 0
        self._doubted: set[str] = set()
        self._circumstances: dict[str, Any] = {}
        self._look_again_s = -1.0

    @property
    def conditions(self) -> Conditions:
        """What the job's measurements are made under."""
        return replace(self.base, mode=self.mode, load_s=self.protocol.sustain_s)

    def run(self, jobs: Sequence[Job], sentinel: Path) -> Generator[Reading, None, None]:
        """`Device.run_ms` by the protocol; as many readings as jobs, or an error."""
        told = 0
        readings = self.device.run_ms(
            jobs,
            sentinel=sentinel,
            warmup_runs=self.protocol.warmup_runs,
            warmup_s=self.protocol.warmup_s,
        )
        try:
            for reading in readings:
                told += 1
                yield reading
        finally:
            if isinstance(readings, Generator):  # the rest is not wanted: the device may stop
                readings.close()
        if told != len(jobs):
            raise DeviceError(f"{self.device.name} told of {told} models instead of {len(jobs)}")

    # -- before -------------------------------------------------------------------------------

    def settle(self, sentinel: Path, reference_ms: float | None) -> None:
        """Watch the sentinel for a while, to know where it mostly stands.

        Raises:
            DeviceError: The device cannot run it.
            UnstableDevice: It stands too far from the reference that all numbers are stated at.
        """
        self._sentinel = sentinel
        try:
            self.ready()
        except DeviceUnavailable as error:
            self.recover(error)
        if "thermal_status" in self._circumstances:
            self.gate.most = min(self.gate.most, _PHONE_LIMIT)
        self._heat_up()
        watches = _SEVERAL_WATCHES if self.gate.several and self.mode == "steady" else 1
        for left in reversed(range(watches)):
            self._watch(sentinel)
            if left:
                self._wait("several threads have two speeds; which is usual", _SEVERAL_PAUSE_S)
        self.gate.anchor(reference_ms)
        self.check_reference(reference_ms)

    def _watch(self, sentinel: Path) -> None:
        """Some readings of the sentinel, for the gate."""
        for reading in self._bounded(
            lambda: self.run([Job(sentinel, _WATCH_RUNS)] * _WATCH, sentinel)
        ):
            objection = reading_objection(reading, self.base.provider)
            if objection:
                raise DeviceError(
                    f"{self.device.name} cannot run the sentinel: {objection}. Set another provider "
                    "or runtime in devices.toml."
                )
            # Heavy, so that a spell of throttling soon after cannot outvote them.
            self.gate.objection(median(reading.sentinel_ms), reading.clock_mhz, weight=_WEIGHT)

    def check_reference(self, reference_ms: float | None) -> None:
        """That the device stands near the speed at which its numbers are stated.

        Raises:
            UnstableDevice: It does not.
        """
        if reference_ms is None or self.mode != "steady":
            return
        off = self.gate.usual_ms / reference_ms - 1
        if abs(off) > self.protocol.drift_limit:
            raise UnstableDevice(
                f"{self.device.name} runs the sentinel in {self.gate.usual_ms:.3f} ms; its "
                f"measurements are stated at {reference_ms:.3f} ms ({off:+.0%}, limit "
                f"±{self.protocol.drift_limit:.0%}). Let it cool, charge it, close other programs, "
                "and give the command again; if it is to stay so, measure into another store "
                "with --db."
            )

    def _heat_up(self) -> None:
        """Minutes of unbroken load, before the sustained mode and after every break in it."""
        sentinel = self._sentinel
        assert sentinel is not None
        until = self.device.now_s() + self.protocol.sustain_s
        while self.protocol.sustain_s and self.device.now_s() < until:
            left = until - self.device.now_s()
            self.tell(Waiting("it is under load before sustained speed is measured", left))
            jobs = [Job(sentinel, _SUSTAIN_RUNS)] * 5
            for reading in self._bounded(lambda: self.run(jobs, sentinel)):  # noqa: B023 - at once
                if reading.error:
                    raise DeviceError(
                        f"{self.device.name} cannot run the sentinel: {reading.error}"
                    )
                self.fruitless = 0

    def ready(self) -> dict[str, Any]:
        """Circumstances of the next batch, once the device is fit for it.

        Raises:
            UnstableDevice: It stayed too hot for longer than `cool_down_s`.
        """
        waited = 0.0
        if self.device.now_s() < self._look_again_s:
            return self._circumstances
        while True:
            circumstances = self._circumstances = self.device.circumstances()
            self._look_again_s = self.device.now_s() + _LOOK_S
            for doubt in doubts(circumstances):
                self._doubt(doubt)
            below_c = self.protocol.wait_below_c
            if below_c is None:
                below_c = self.device.wait_below_c
            if below_c is not None and "temperature_c" not in circumstances:
                self._doubt(
                    f"it tells no temperature, so nobody can wait for it to be below {below_c:g} °C. "
                    "Leave that out"
                )
            reason = reason_to_wait(circumstances, below_c) if self.mode == "steady" else ""
            if not reason:
                return circumstances
            self._look_again_s = -1.0
            if waited >= self.protocol.cool_down_s:
                raise UnstableDevice(
                    f"{self.device.name}: {reason}, and did so for {waited / 60:.0f} min. Let it "
                    "cool, without its case and off the charger, then give the same command again."
                )
            self._wait(reason, _HEAT_PAUSE_S)
            waited += _HEAT_PAUSE_S

    def _doubt(self, doubt: str) -> None:
        """Tell it once, whatever its figures."""
        kind = doubt.split("(")[0]
        if kind not in self._doubted:
            self._doubted.add(kind)
            self.tell(Doubted(f"{self.device.name}: {doubt}"))

    def _wait(self, reason: str, seconds: float) -> None:
        self.tell(Waiting(f"{self.device.name}: {reason}", seconds))
        self.device.pause(seconds)

    # -- between ------------------------------------------------------------------------------

    def objection(self, reading: Reading) -> str:
        """Why the device's speed beside a reading forbids to believe it, or ""."""
        if self.mode == "steady":
            return self.gate.judge(reading)
        # Under lasting load its own speed is what is asked for; only stolen cores spoil it.
        share = reading.preempted / (reading.preempted + len(reading.samples_ms))
        return self.gate.crowd(share)

    def cool_down(self, reason: str, sentinel: Path) -> None:
        """Pause, longer each time, until the sentinel stands where it stood.

        A phone is given a minute to cool, a computer, whose neighbours seldom leave, some seconds;
        a speed that stays within the protocol's drift limit after that is believed as well.

        Raises:
            UnstableDevice: It stayed beyond that limit for `cool_down_s`.
        """
        waited, pause = 0.0, _FIRST_PAUSE_S
        enough_s = _PHONE_S if "thermal_status" in self._circumstances else _COMPUTER_S
        while waited < self.protocol.cool_down_s:
            self._wait(reason, pause)
            waited += pause
            pause = min(_SEVERAL_LONGEST_S if self.gate.several else _LONGEST_PAUSE_S, 2 * pause)
            readings = self._bounded(
                lambda: self.run([Job(sentinel, _WATCH_RUNS)] * _PROBES, sentinel)
            )
            reason = ""
            for reading in readings:
                reason = reading_objection(reading, self.base.provider)
                if not reason:
                    now_ms = median(reading.sentinel_ms)
                    reason = self.gate.objection(now_ms, reading.clock_mhz)
                    if reason and waited >= enough_s and self.gate.widen(now_ms):
                        reason = ""
            if not reason or self.gate.sped_up:
                return
        raise UnstableDevice(
            f"{self.device.name} did not come back to its speed within {waited / 60:.0f} min: "
            f"{reason}. Close other programs or let it cool, then give the same command again."
        )

    # -- after a loss -------------------------------------------------------------------------

    def _bounded(self, ask: Callable[[], Iterable[Reading]]) -> list[Reading]:
        """All readings of a question, asked again after a loss."""
        while True:
            try:
                return list(ask())
            except (DeviceUnavailable, DeviceError) as error:
                self.recover(error)

    def recover(self, error: DeviceUnavailable | DeviceError) -> None:
        """Leave the device and enter it again, some times within some two minutes.

        Raises:
            DeviceUnavailable, DeviceError: The last trouble, where it does not come back, is
                another than it was, or is lost again and again with nothing measured between.
        """
        self.fruitless += 1
        log.info("%s: %s", self.device.name, error)
        if self.fruitless > _FRUITLESS:
            raise error
        self._look_again_s = -1.0
        self.device.__exit__(None, None, None)
        for pause in _RECONNECT_S:
            self.tell(Lost(str(error), pause))
            self.device.pause(pause)
            try:
                self.device.__enter__()
            except (DeviceUnavailable, DeviceError) as again:
                error = again
                continue
            if self.device.conditions != self.base:
                told = "; ".join(self.base.differences(self.device.conditions))
                raise DeviceError(
                    f"{self.device.name} came back as another than it was: {told} (then / now). "
                    "What was measured is kept under the old conditions; the same command begins "
                    "under the new ones."
                ) from error
            if self.protocol.sustain_s:
                self._heat_up()
            return
        raise error

    @property
    def ms_per_mac(self) -> float:
        """Speed of the device, for estimates of time."""
        return self.gate.usual_ms / SENTINEL.macs
