"""Supervisor: keeps a device in a state to be measured, and reconnects it when it is lost.

All waits of a measuring job are here, each with a bound: for a phone to cool, for the sentinel to
return to its usual time, for a cable to be plugged in again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from phonenas.data.measurement import Conditions
from phonenas.space.errors import DeviceError, DeviceUnavailable, UnstableDevice

from ..device import Device, Job, Reading
from .events import Lost, OnEvent, Waiting, Warned
from .preconditions import load_text, reason_to_wait, warnings_of
from .protocol import SENTINEL, Protocol
from .rejection import DriftFilter, rejection_reason

__all__ = ["Supervisor"]

log = logging.getLogger("phonenas")

_LOADS, _WATCH = 3, 4  # loadings of the sentinel before the first subject, and readings of each
_WATCH_RUNS = 30
# Several threads have two speeds, each for seconds: the usual one takes longer to find.
_SEVERAL_WATCHES, _SEVERAL_PAUSE_S = 12, 2.0
_WEIGHT = 5
_PROBES = 2
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)  # pauses between tries
_FRUITLESS = 5  # losses in a row with nothing measured in between
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_SEVERAL_LONGEST_S = 4.0  # the other speed may end at any moment
_PHONE_S = 60.0  # of waiting for a speed that is within the drift limit
# A computer's other programs seldom end: waiting takes this share of a job, and some seconds.
_IDLE_SHARE, _IDLE_S = 0.05, 10.0
_TOLD = 0.05  # of the sentinel's usual time in the store: a difference that is told
_LOOKS, _LOOK_PAUSE_S = 3, 2.0  # before it is told: one look may have been disturbed
# Of work of one process: each has a speed of its own, by some 0.8 %. Another one takes its time.
_FRESH_S, _FRESH_TIMES = 20.0, 20.0
_HEAT_PAUSE_S = 10.0
_CROWDED_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # pauses while other programs take the core
_SUSTAIN_RUNS = 200
_FIRST_LOOK_S = 0.5  # least time over which other programs' share of the cores is taken
_LOOK_S = 10.0  # telemetry costs up to half a second over ssh; heat changes more slowly


class Supervisor:
    """One device for the length of one job.

    Args:
        device: Entered; whoever entered it leaves it.
        protocol: What is accepted, how long to wait, and the mode.
        tell: Takes `Waiting`, `Lost` and `Warned`.
    """

    def __init__(self, device: Device, protocol: Protocol, tell: OnEvent) -> None:
        self.device, self.protocol, self.tell = device, protocol, tell
        self.mode = protocol.mode
        self.base = device.conditions
        most = protocol.drift_limit if device.phone else None
        self.drift = DriftFilter(most, threads=self.base.threads)
        self._sentinel: Path | None = None
        self._began_s = device.now_s()
        self._refresh_s = self._began_s + _FRESH_S
        self._idle_s = 0.0
        self.fruitless = 0
        self._warned: set[str] = set()
        self._telemetry: dict[str, Any] = {}
        self._elsewhere: tuple[float, float, Any] | None = None
        self._look_again_s = -1.0

    @property
    def conditions(self) -> Conditions:
        """Conditions of the job's measurements."""
        return replace(self.base, mode=self.mode, load_s=self.protocol.load_s)

    def run(self, jobs: Sequence[Job], sentinel: Path) -> Generator[Reading, None, None]:
        """`Device.run_ms` by the protocol; as many readings as jobs, or an error."""
        count = 0
        readings = self.device.run_ms(
            jobs,
            sentinel=sentinel,
            warmup_runs=self.protocol.warmup_runs,
            warmup_s=self.protocol.warmup_s,
        )
        try:
            for reading in readings:
                count += 1
                yield reading
        finally:
            if isinstance(readings, Generator):  # the rest is not wanted: the device may stop
                readings.close()
        if count != len(jobs):
            raise DeviceError(f"{self.device.name} answered for {count} of {len(jobs)} models")

    # -- before -------------------------------------------------------------------------------

    def settle(self, sentinel: Path, usual_ms: float | None) -> None:
        """Measure the sentinel for a while, to know its usual time.

        A phone that is not at the speed of its store is waited for, for a minute; then it is
        measured as it is. A difference is told.

        Args:
            sentinel: Its file.
            usual_ms: Its usual time in the store, in ms; None if that is empty.
        Raises:
            DeviceError: The device cannot run it.
        """
        self._sentinel = sentinel
        if self.base.origin == "emulated":
            self._warn(
                "it is emulated: its times are those of an emulator, are kept as such and never "
                "count as measured"
            )
        try:
            self.ready()
        except DeviceUnavailable as error:
            self.recover(error)
        self._heat_up()
        several = self.drift.several and self.mode == "steady"
        watches = _SEVERAL_WATCHES if several else 1
        for left in reversed(range(watches)):
            self._watch(sentinel)
            if left:
                self._wait("several threads have two speeds; which one is usual", _SEVERAL_PAUSE_S)
        if usual_ms is not None and self.mode == "steady":
            waited = 0.0
            while self.device.phone and waited < _PHONE_S and self._off(usual_ms) > self._most:
                self._wait(self._differs(usual_ms), _HEAT_PAUSE_S)
                waited += _HEAT_PAUSE_S
                self.drift.forget()
                self._watch(sentinel)
            if abs(self._off(usual_ms)) >= _TOLD and not several:
                self._look_again(sentinel)
                if abs(self._off(usual_ms)) >= _TOLD:
                    self._warn(self._differs(usual_ms))
        self.drift.anchor(usual_ms)

    @property
    def _most(self) -> float:
        return self.protocol.drift_limit

    def _off(self, usual_ms: float) -> float:
        return self.drift.usual_ms / usual_ms - 1

    def _differs(self, usual_ms: float) -> str:
        return (
            f"the sentinel takes {self.drift.usual_ms:.3f} ms; beside the measurements in the "
            f"store it took {usual_ms:.3f} ms ({self._off(usual_ms):+z.0%}): what is measured now "
            "is of another speed"
        )

    def _look_again(self, sentinel: Path) -> None:
        """Watch the sentinel until two looks agree, three times at most."""
        for _ in range(_LOOKS):
            before_ms = self.drift.usual_ms
            self._wait("its speed is not that of the store; whether that lasts", _LOOK_PAUSE_S)
            self.drift.forget()
            self._watch(sentinel)
            if abs(self.drift.usual_ms / before_ms - 1) < _TOLD:
                return

    def _watch(self, sentinel: Path) -> None:
        """Some readings of the sentinel, of several loadings, for the drift filter."""
        jobs = [Job(sentinel, _WATCH_RUNS)] * _WATCH
        readings = [r for _ in range(_LOADS) for r in self._undisturbed(jobs, sentinel)]
        for reading in readings:
            if reason := rejection_reason(reading, self.base.provider):
                raise DeviceError(
                    f"{self.device.name} cannot run the sentinel: {reason}. Set another provider "
                    "or runtime in devices.toml."
                )
            # With a weight, so that throttling soon after does not outnumber them.
            self.drift.check_speed(median(reading.sentinel_ms), reading.clock_mhz, weight=_WEIGHT)

    def _undisturbed(self, jobs: Sequence[Job], sentinel: Path) -> list[Reading]:
        """Readings of the sentinel, without those from whose every run the core was taken.

        Raises:
            UnstableDevice: All of them are so, for half a minute.
        """
        for pause in (*_CROWDED_S, 0.0):
            readings = self._bounded(lambda: self.run(jobs, sentinel))
            if kept := [r for r in readings if not r.crowded_out]:
                return kept
            if pause:
                self._wait("other programs take its core from every run", pause)
        load = load_text([self._telemetry])
        raise UnstableDevice(
            f"{self.device.name} is busy: other programs take its core from every run of the "
            f"sentinel, still so after {sum(_CROWDED_S):.0f} s"
            + (f" ({load})" if load else "")
            + ". `top` shows which they are: close them, then give the same command again."
        )

    def _heat_up(self) -> None:
        """Minutes of unbroken load, before the sustained mode and after every break in it."""
        sentinel = self._sentinel
        assert sentinel is not None
        until = self.device.now_s() + self.protocol.load_s
        while self.device.now_s() < until:
            left = until - self.device.now_s()
            self.tell(Waiting("it is under load before sustained speed is measured", left))
            jobs = [Job(sentinel, _SUSTAIN_RUNS)] * 5
            for reading in self._bounded(lambda: self.run(jobs, sentinel)):  # noqa: B023 - at once
                if reading.error and not reading.crowded_out:
                    raise DeviceError(
                        f"{self.device.name} cannot run the sentinel: {reading.error}"
                    )
                self.fruitless = 0

    @property
    def pressure(self) -> float:
        """Share of time in which a program waited for a core, in [0, 1]; 0 where it is unknown."""
        return float(self._telemetry.get("pressure") or 0.0) / 100

    def ready(self) -> dict[str, Any]:
        """Telemetry of the next batch, once the device meets its preconditions.

        Raises:
            UnstableDevice: It stayed too hot for longer than `cool_down_s`.
        """
        waited = 0.0
        if self.device.now_s() < self._look_again_s:
            return self._telemetry
        while True:
            telemetry = self._telemetry = self._with_others(self.device.telemetry())
            known = "others" in telemetry or self._elsewhere is None
            self._look_again_s = self.device.now_s() + (_LOOK_S if known else _FIRST_LOOK_S)
            below_c = self.protocol.wait_below_c
            if below_c is None:
                below_c = self.device.wait_below_c
            # A load average counts what the user's own commands did in the minute before; where the
            # others' share of the cores will be known in a moment, that is told instead.
            seen = telemetry if known else {**telemetry, "load": None}
            for warning in warnings_of(seen, phone=self.device.phone, wait_below_c=below_c):
                self._warn(warning)
            reason = reason_to_wait(telemetry, below_c) if self.mode == "steady" else ""
            if not reason:
                return telemetry
            self._look_again_s = -1.0
            if waited >= self.protocol.cool_down_s:
                raise UnstableDevice(
                    f"{self.device.name}: {reason}, still so after {waited / 60:.0f} min. Let it "
                    "cool, without its case and off the charger, then give the same command again."
                )
            self._wait(reason, _HEAT_PAUSE_S)
            waited += _HEAT_PAUSE_S

    def _with_others(self, telemetry: dict[str, Any]) -> dict[str, Any]:
        """Telemetry with `others`: processor time of other programs since the last look, in cores,
        on the cores that the job does not compute on."""
        values = {**telemetry}
        spent_s, before = values.pop("elsewhere_s", None), self._elsewhere
        if spent_s is None:
            self._elsewhere = None
            return values
        now, cores = self.device.now_s(), values.get("cores")
        if before is None or before[2] != cores:
            self._elsewhere = (now, spent_s, cores)
        elif now - before[0] >= _FIRST_LOOK_S:
            self._elsewhere = (now, spent_s, cores)
            values["others"] = round(max(0.0, spent_s - before[1]) / (now - before[0]), 3)
        return values

    def _warn(self, warning: str) -> None:
        """Report it once, whatever its figures."""
        kind = re.split("[(:]", warning)[0]
        if kind not in self._warned:
            self._warned.add(kind)
            self.tell(Warned(f"{self.device.name}: {warning}"))

    def _wait(self, reason: str, seconds: float) -> None:
        self.tell(Waiting(f"{self.device.name}: {reason}", seconds))
        self.device.pause(seconds)

    # -- between ------------------------------------------------------------------------------

    def drift_reason(self, reading: Reading) -> str:
        """The reason to reject a reading for the device's speed beside it, or ""."""
        if self.mode == "steady":
            return self.drift.check(reading)
        # Under lasting load the device's own speed is wanted; only preempted runs spoil it.
        share = reading.preempted / (reading.preempted + len(reading.samples_ms))
        return self.drift.check_preemption(share, median(reading.samples_ms))

    def cool_down(self, reason: str, sentinel: Path) -> None:
        """Pause, longer each time, until the sentinel is back at its usual time.

        A phone's speed within the drift limit is accepted after a minute. On a computer all waits
        of a job together take a twentieth of it, and some seconds; then it goes on as it is.

        Raises:
            UnstableDevice: A phone stayed beyond that limit for `cool_down_s`.
        """
        waited, pause = 0.0, _FIRST_PAUSE_S
        bounded = self.drift.most is not None
        while waited < self.protocol.cool_down_s and (bounded or self._may_wait(pause)):
            self._wait(reason, pause)
            waited += pause
            self._idle_s += pause
            pause = min(_SEVERAL_LONGEST_S if self.drift.several else _LONGEST_PAUSE_S, 2 * pause)
            readings = self._bounded(
                lambda: self.run([Job(sentinel, _WATCH_RUNS)] * _PROBES, sentinel)
            )
            reason = ""
            for reading in readings:
                reason = rejection_reason(reading, self.base.provider)
                if not reason:
                    now_ms = median(reading.sentinel_ms)
                    reason = self.drift.check_speed(now_ms, reading.clock_mhz)
                    if reason and waited >= _PHONE_S and self.drift.widen(now_ms):
                        reason = ""
            if not reason or self.drift.moved:
                return
        if bounded:
            raise UnstableDevice(
                f"{self.device.name} did not come back to its speed within {waited / 60:.0f} min: "
                f"{reason}. Close other programs or let it cool, then give the same command again."
            )

    def _may_wait(self, seconds: float) -> bool:
        work_s = self.device.now_s() - self._began_s - self._idle_s
        return self._idle_s + seconds <= _IDLE_S + _IDLE_SHARE * work_s

    def refresh(self) -> None:
        """Begin a new process on the device now and then, so that no number is of one alone."""
        now = self.device.now_s()
        if self.mode == "steady" and now >= self._refresh_s:
            self.device.refresh()
            took_s = self.device.now_s() - now
            self._refresh_s = now + took_s + max(_FRESH_S, _FRESH_TIMES * took_s)

    # -- after a loss -------------------------------------------------------------------------

    def _bounded(self, ask: Callable[[], Iterable[Reading]]) -> list[Reading]:
        """All readings of a request, which is repeated after a loss."""
        while True:
            try:
                return list(ask())
            except (DeviceUnavailable, DeviceError) as error:
                self.recover(error)

    def recover(self, error: DeviceUnavailable | DeviceError) -> None:
        """Leave the device and enter it again, several times within some two minutes.

        Raises:
            DeviceUnavailable, DeviceError: The last error, if it does not come back, has changed,
                or is lost again and again with nothing measured in between.
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
            except (DeviceUnavailable, DeviceError) as failure:
                error = failure
                continue
            if self.device.conditions != self.base:
                differences = "; ".join(self.base.differences(self.device.conditions))
                raise DeviceError(
                    f"{self.device.name} came back with other conditions: {differences} (before / "
                    "now). What was measured is kept under those of before; the same command "
                    "starts under the new ones."
                ) from error
            self._heat_up()
            return
        raise error

    @property
    def ms_per_mac(self) -> float:
        """Speed of the device, for estimates of time."""
        return self.drift.usual_ms / SENTINEL.macs
