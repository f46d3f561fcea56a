"""SimulatedPhone: a phone without hardware, for tests and for trying the commands.

Its times are made up, and it says so: `origin` is "simulated". What it has of a phone is what
makes measuring hard: a governor that wants load before it gives speed, throttling that hits
computing in full and memory hardly, neighbours in bursts, lost connections.

A run takes, in ms, with the truth t of `roofline` at the clock c and the contention k of its
moment,

    sample = t(c, k) · place · e^(noise · N(0, 1)) + stolen

`place` (1 ± 1 %) is drawn for each loading of a model, for where it came to lie in memory; the
first runs after loading take 1.55, 1.30, 1.06 and 1.02 times as long. Clock, contention and
stolen time are those of `disturbance`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ..data.measurement import Conditions
from ..space import Architecture, Kernel, Operator
from ..space.errors import DeviceUnavailable, InvalidArgument, PhonenasError
from ..space.lowering import Measurable, layers_alone
from . import roofline
from .device import Device, DeviceState, Job, Reading
from .disturbance import BackgroundLoad, Disturbance, Throttle

__all__ = ["BackgroundLoad", "SimulatedPhone", "Throttle"]

_USUAL_THROTTLE, _USUAL_LOAD = Throttle(), BackgroundLoad()
_VERSION = "1"  # of the truth: raised when its constants change
_OF_A_CLASS = 4  # cores; there are two classes
_FIRST = (1.55, 1.30, 1.06, 1.02)
_PLACEMENT = 0.01
_BLOCK_S = 0.002  # of samples between two runs of the sentinel, as the worker does it
_LOAD_S, _LOAD_BYTES_S = 0.03, 300e6  # to load a model
_ASK_S, _LOST_S = 0.1, 1.0  # to ask for a batch; to find out that nobody answers


class SimulatedPhone(Device):
    """A phone of made-up speed, under a clock of its own: hours pass in seconds.

    Equal seeds and equal calls give equal readings. Two seeds are two phones of one model, with
    slightly other rates and another fingerprint.

    Args:
        name: The user's name for it.
        seed: Which phone it is, and of all chance; ≥ 0.
        threads: That compute, 1 to 4.
        cores: The class of core that they compute on.
        throttle: When its clock falls; None for never.
        load: Other programs; None for none.
        disconnect_every: It is lost with the next model after so many were run; None for never.
        reboot_s: Seconds until it can be reached again.
        noise: Scatter of single runs, σ of their logarithm.
    Raises:
        InvalidArgument: A value outside its range.
    """

    def __init__(
        self,
        name: str = "simulated",
        *,
        seed: int = 0,
        threads: int = 1,
        cores: Literal["big", "little"] = "big",
        throttle: Throttle | None = _USUAL_THROTTLE,
        load: BackgroundLoad | None = _USUAL_LOAD,
        disconnect_every: int | None = None,
        reboot_s: float = 20.0,
        noise: float = 0.01,
    ) -> None:
        if not 1 <= threads <= _OF_A_CLASS:
            raise InvalidArgument(f"{name} lends 1 to {_OF_A_CLASS} cores, got {threads} threads")
        readings = 1 if disconnect_every is None else disconnect_every
        if min(seed, noise, reboot_s, readings - 1) < 0:
            raise InvalidArgument(
                f"{name}: seed, noise and reboot_s are 0 or more, disconnect_every 1 or more"
            )
        self.name, self.seed, self.threads, self.noise = name, seed, threads, noise
        self.disconnect_every, self.reboot_s = disconnect_every, reboot_s
        self.speed = roofline.Roofline(seed, threads, cores)
        self._chance = random.Random(f"runs {seed}")
        self._around = Disturbance(seed, threads, throttle, load)
        self._back_s = 0.0
        self._models_run = 0
        self._entered = False
        self._sentinel_place = 1.0

    def truth_ms(self, model: Operator | Architecture | Kernel) -> float:
        """What a model takes after warm-up at the highest clock, undisturbed, in ms."""
        return self.speed.time_ms(self.speed.costs(model))

    def now_s(self) -> float:
        return self._around.now_s

    def pause(self, seconds: float) -> None:
        self._around.spend(max(0.0, seconds), clock=0.0)

    # -- running ------------------------------------------------------------------------------

    def lower(self, model: Measurable, stem: Path) -> Path:
        """Write a model's name: this phone needs no more to know how long it takes."""
        path = stem.with_suffix(".simulated")
        if not isinstance(model, Kernel):
            model = layers_alone(model, self.name)
        name = str(model) if isinstance(model, Architecture) else model.key
        path.write_text(name + "\n", encoding="utf-8")
        return path

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        self._reached()
        return self._readings(jobs, sentinel, warmup_runs, warmup_s)

    def _reached(self) -> None:
        if not self._entered:
            raise DeviceUnavailable(f"{self.name} is not entered, or was lost: enter it again")

    def _readings(
        self, jobs: Sequence[Job], sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        self.pause(_ASK_S)
        self._around.work_begins()
        for job in jobs:
            self._reached()
            self._models_run += 1
            if self.disconnect_every and self._models_run % (self.disconnect_every + 1) == 0:
                self._entered = False
                self.pause(_LOST_S)
                self._back_s = self.now_s() + self.reboot_s
                raise DeviceUnavailable(
                    f"{self.name} was lost while it ran {job.model.name} (simulated)"
                )
            try:
                model, beside = _read(job.model), self.speed.costs(_read(sentinel))
            except (PhonenasError, OSError, UnicodeDecodeError) as error:
                yield Reading(error=f"{type(error).__name__}: {error}"[:500])
                continue
            self._around.spend(_LOAD_S + 4 * model.params / _LOAD_BYTES_S, self._around.clock())
            yield self._measure(self.speed.costs(model), job.runs, beside, warmup_runs, warmup_s)

    def _measure(
        self,
        costs: list[roofline.Cost],
        runs: int,
        sentinel: list[roofline.Cost],
        warmup_runs: int,
        warmup_s: float,
    ) -> Reading:
        """As the worker on a real phone: warm up, then samples with the sentinel in between."""
        place = self._chance.gauss(1, _PLACEMENT)
        began_s = self.now_s()
        first_ms, _ = self._run(costs, place * _FIRST[0])
        for again in range(1, warmup_runs):
            self._run(costs, place * (_FIRST[again] if again < len(_FIRST) else 1.0))
        self._around.spend(
            max(0.0, self._around.working_since_s + warmup_s - self.now_s()), self._around.clock()
        )
        samples: list[float] = []
        beside: list[float] = []
        preempted, slowest = 0, self._around.clock()
        before = self._beside(sentinel)
        while len(samples) < runs and preempted < 3 * runs:
            block: list[float] = []
            block_s = self.now_s()
            while self.now_s() - block_s < _BLOCK_S and len(samples) + len(block) < runs:
                ms, noticed = self._run(costs, place)
                if noticed:
                    preempted += 1
                else:
                    block.append(ms)
            after = self._beside(sentinel)
            samples += block
            beside += [(before + after) / 2] * len(block)
            before = after
            slowest = min(slowest, self._around.clock())
        if not samples:
            return Reading(error=f"no undisturbed run among {preempted}")
        return Reading(
            tuple(samples),
            tuple(beside),
            preempted,
            "simulated",
            first_ms=first_ms,
            clock_mhz=round(slowest * self.speed.core.clock_mhz, 1),
            busy_s=self.now_s() - began_s,
        )

    def _beside(self, sentinel: list[roofline.Cost]) -> float:
        """Time of the sentinel now: its second run, repeated while preempted."""
        self._run(sentinel, self._sentinel_place)
        for _ in range(5):
            ms, noticed = self._run(sentinel, self._sentinel_place)
            if not noticed:
                break
        return ms

    def _run(self, costs: list[roofline.Cost], factor: float) -> tuple[float, bool]:
        """One inference: its time in ms, and whether it is known that it lost the core."""
        clock = self._around.clock()
        ms = self.speed.time_ms(costs, clock, self._around.contention())
        ms *= factor * math.exp(self._chance.gauss(0, self.noise))
        stolen_ms, noticed = self._around.stolen(self._chance)
        ms += stolen_ms
        self._around.spend(ms / 1e3, clock)
        return ms, noticed

    # -- what it says of itself ---------------------------------------------------------------

    def __enter__(self) -> SimulatedPhone:
        if self.now_s() < self._back_s:
            self.pause(_LOST_S)
            raise DeviceUnavailable(f"{self.name} is starting again (simulated)")
        self._entered = True
        self._sentinel_place = self._chance.gauss(1, _PLACEMENT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False

    @property
    def conditions(self) -> Conditions:
        return Conditions(
            device=self.name,
            model="simulated phone, no hardware",
            fingerprint=_short_hash(f"simulated {self.seed}"),
            runtime="simulated",
            runtime_version=_VERSION,
            runtime_hash=_short_hash(f"roofline {_VERSION}"),
            provider="simulated",
            optimisation="all",
            threads=self.threads,
            cores=f"cores of capacity {self.speed.core.capacity}",
            governor="schedutil",
            origin="simulated",
        )

    def circumstances(self) -> dict[str, Any]:
        self._reached()
        return {
            "cores": list(range(self.threads)),
            "temperature_c": round(self._around.celsius, 1),
            "thermal_status": self._around.thermal_status(),
            "load": 2.5 if self._around.in_burst() else 0.5,
            "battery_percent": 80,
            "charging": True,
            "clock_mhz": round(self._around.allowed() * self.speed.core.clock_mhz, 1),
        }

    def state(self) -> DeviceState:
        return DeviceState(
            self.name,
            "simulated",
            "ready",
            self.conditions.model,
            2 * _OF_A_CLASS,
            f"simulated {_VERSION}",
            f"its times are made up (a roofline, seed {self.seed})",
        )


def _read(path: Path) -> Operator | Architecture | Kernel:
    text = path.read_text(encoding="utf-8").strip()
    kinds: tuple[type[Operator | Kernel], ...] = (Operator, Kernel)
    for kind in kinds:
        with contextlib.suppress(InvalidArgument):
            return kind.parse(text)
    return Architecture.parse(text)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
