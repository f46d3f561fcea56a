"""SimulatedPhone: a phone without hardware, for tests and for trying the commands.

Its times are computed, and recorded so: `origin` is "simulated". It has what makes a phone hard to
measure: a governor that raises the clock only under load, throttling that slows computing fully and
memory hardly, bursts of other programs, lost connections.

A run takes, in ms, with the truth t of `roofline` at the clock c and the contention k of its
moment,

    sample = speed · t(c, k) · place · e^(noise · N(0, 1)) + stolen

`place` is drawn for each loading of a model, for its place in memory: 1 ± 1 %, of the sentinel,
which is loaded for each request, 1 ± 2.4 %. The first runs after loading take 1.55, 1.30, 1.06 and
1.02 times as long. Clock, contention and stolen time are those of `disturbance`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from phonenas.data.measurement import Conditions, Startup
from phonenas.space import Architecture, Kernel, Operator
from phonenas.space.errors import DeviceError, DeviceUnavailable, InvalidArgument, PhonenasError
from phonenas.space.lowering.write import Measurable, layers_alone
from phonenas.space.precision import FLOAT32, PRECISIONS, checked_precision, weight_bytes

from ..device import Device, DeviceState, Job, Reading
from ..settings import DeviceSettings, shortened
from . import roofline
from .disturbance import BackgroundLoad, Disturbance, Losses, Throttle

__all__ = ["BackgroundLoad", "SimulatedPhone", "Throttle"]

_USUAL_THROTTLE, _USUAL_LOAD = Throttle(), BackgroundLoad()
_VERSION = "1"  # of the true times: raised when their constants change
_OF_A_CLASS = 4  # cores; there are two classes
_FIRST = (1.55, 1.30, 1.06, 1.02)
_PLACEMENT, _SENTINEL_PLACEMENT = 0.01, 0.024
_BLOCK_S = 0.002  # of samples between two runs of the sentinel, as in the worker
_LOAD_S, _LOAD_BYTES_S = 0.03, 300e6  # to load a model
_NUMBER_BYTES, _RUNTIME_BYTES = 4, 24 << 20
_ASK_S, _LOST_S = 0.1, 1.0  # for a request; to notice that nothing answers


class SimulatedPhone(Device):
    """A phone of computed speed, with a clock of its own: hours pass in seconds.

    Equal seeds and equal calls give equal readings. Two seeds are two phones of one model, with
    slightly different rates and different fingerprints.

    Args:
        name: The user's name for it.
        seed: Of the phone and of all randomness, ≥ 0.
        threads: Threads that compute, 1 to 4.
        cores: The class of core that they compute on.
        throttle: When its clock falls; None for never.
        load: Other programs; None for none.
        losses: When its connection is lost; None for never.
        noise: Scatter of single runs, σ of their logarithm.

    Attributes:
        speed: Factor of all its times, the sentinel's too, > 0: 1.3 for a phone that takes 1.3
            times as long. Its conditions, and `truth_ms`, are those of speed 1.
        precision: What networks are written and computed in, one of `precisions`.
    Raises:
        InvalidArgument: A value outside its range.
    """

    phone = True
    speed = 1.0
    precision = FLOAT32

    def __init__(
        self,
        name: str = "simulated",
        *,
        seed: int = 0,
        threads: int = 1,
        cores: Literal["big", "little"] = "big",
        throttle: Throttle | None = _USUAL_THROTTLE,
        load: BackgroundLoad | None = _USUAL_LOAD,
        losses: Losses | None = None,
        noise: float = 0.01,
    ) -> None:
        if not 1 <= threads <= _OF_A_CLASS:
            raise InvalidArgument(f"{name} has 1 to {_OF_A_CLASS} cores, got {threads} threads")
        if min(seed, noise) < 0:
            raise InvalidArgument(f"{name}: seed and noise are 0 or more, got {seed} and {noise}")
        self.name, self.seed, self.threads, self.noise = name, seed, threads, noise
        self.losses = losses
        self.roofline = roofline.Roofline(seed, threads, cores)
        self._chance = random.Random(f"runs {seed}")
        self._of_startups = random.Random(f"startups {seed}")
        self._around = Disturbance(seed, threads, throttle, load)
        self._back_s = 0.0
        self._models_run = 0
        self._entered = False
        self._sentinel_place = 1.0

    @classmethod
    def from_settings(cls, settings: DeviceSettings) -> SimulatedPhone:
        name, address, cores = settings.name, settings.address, settings.cores
        allowed = DeviceSettings(
            name,
            settings.transport,
            address,
            threads=settings.threads,
            cores=cores,
            precision=settings.precision,
            wait_below_c=settings.wait_below_c,
            speed=settings.speed,
        )
        if settings != allowed or cores not in ("big", "little"):
            raise InvalidArgument(
                f"device {name}: a simulated one has an address (its seed), threads, cores (big or "
                "little), precision, wait_below_c and speed, and no other setting"
            )
        if address and not (address.isascii() and address.isdecimal()):
            raise InvalidArgument(
                f"device {name}: the address of a simulated one is its seed, a number; got "
                f"{shortened(address)}"
            )
        seed, threads = int(address or 0), settings.threads
        phone = cls(name, seed=seed, threads=threads, cores=cores)  # type: ignore[arg-type]
        phone.precision = settings.precision
        phone.speed = 1.0 if settings.speed is None else settings.speed
        phone.wait_below_c = settings.wait_below_c
        return phone

    def truth_ms(self, model: Operator | Architecture | Kernel) -> float:
        """Time of a model after warm-up at the highest clock, undisturbed, in ms."""
        return self.roofline.time_ms(self.roofline.costs(model, self.precision))

    def now_s(self) -> float:
        return self._around.now_s

    def pause(self, seconds: float) -> None:
        self._around.spend(max(0.0, seconds), clock=0.0)

    # -- running ------------------------------------------------------------------------------

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(PRECISIONS)

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        """Write the model's name and its precision, from which its time is computed."""
        path = stem.with_suffix(".simulated")
        if not isinstance(model, Kernel):
            model = layers_alone(model, self.name)
        name = str(model) if isinstance(model, Architecture) else model.key
        path.write_text(f"{name}\n{precision}\n", encoding="utf-8")
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
        self._sentinel_place = self._chance.gauss(1, _SENTINEL_PLACEMENT)
        for job in jobs:
            self._reached()
            self._models_run += 1
            if self.losses and self._models_run % (self.losses.every + 1) == 0:
                self._entered = False
                self.pause(_LOST_S)
                self._back_s = self.now_s() + self.losses.reboot_s
                raise DeviceUnavailable(
                    f"{self.name} was lost while it ran {job.model.name} (simulated)"
                )
            try:
                model, precision = _read(job.model)
                costs, beside = (self.roofline.costs(*_read(f)) for f in (job.model, sentinel))
            except (PhonenasError, OSError, UnicodeDecodeError) as error:
                yield Reading(error=f"{type(error).__name__}: {error}"[:500])
                continue
            self._around.spend(self._load_s(model, precision), self._around.clock())
            yield self._measure(costs, job.runs, beside, warmup_runs, warmup_s)

    @staticmethod
    def _load_s(model: Operator | Architecture | Kernel, precision: str) -> float:
        return _LOAD_S + weight_bytes(precision) * model.params / _LOAD_BYTES_S

    def startup(self, model: Path) -> Startup:
        """A process that holds the runtime, the weights twice (the file, and as they are laid out
        to compute), and the activations that are needed at once."""
        self._reached()
        try:
            network, precision = _read(model)
        except (PhonenasError, OSError, UnicodeDecodeError) as error:
            raise DeviceError(f"{self.name}: {error}") from error
        self.pause(_ASK_S)
        self._around.work_begins()
        chance = self._of_startups  # of its own: readings stay what they are without startups
        load_s = (
            self._load_s(network, precision) * self.speed * math.exp(chance.gauss(0, self.noise))
        )
        self._around.spend(load_s, self._around.clock())
        costs = self.roofline.costs(network, precision)
        first_ms = self.roofline.time_ms(costs, self._around.clock())
        first_ms *= _FIRST[0] * self.speed * chance.gauss(1, _PLACEMENT)
        self._around.spend(first_ms / 1e3, self._around.clock())
        file_bytes = weight_bytes(precision) * network.params
        model_bytes = 2 * file_bytes + _NUMBER_BYTES * _activations(network)
        peak_bytes = _RUNTIME_BYTES + model_bytes
        return Startup(load_s * 1e3, first_ms, peak_bytes, model_bytes, file_bytes)

    def _measure(
        self,
        costs: list[roofline.Cost],
        runs: int,
        sentinel: list[roofline.Cost],
        warmup_runs: int,
        warmup_s: float,
    ) -> Reading:
        """As the worker on a real phone: warm-up, then samples with the sentinel in between."""
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
            return Reading(preempted=preempted, error=f"no undisturbed run among {preempted}")
        return Reading(
            tuple(samples),
            tuple(beside),
            preempted,
            "simulated",
            first_ms=first_ms,
            clock_mhz=round(slowest * self.roofline.core.clock_mhz, 1),
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
        """One inference: its time in ms, and whether a counter shows that it lost the core."""
        clock = self._around.clock()
        ms = self.roofline.time_ms(costs, clock, self._around.contention())
        ms *= self.speed * factor * math.exp(self._chance.gauss(0, self.noise))
        stolen_ms, noticed = self._around.stolen(self._chance)
        ms += stolen_ms
        self._around.spend(ms / 1e3, clock)
        return ms, noticed

    # -- what it reports of itself ------------------------------------------------------------

    def __enter__(self) -> SimulatedPhone:
        if self.now_s() < self._back_s:
            self.pause(_LOST_S)
            raise DeviceUnavailable(f"{self.name} is starting again (simulated)")
        self._entered = True
        return self

    def __exit__(self, *error: object) -> None:
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
            cores=f"cores of capacity {self.roofline.core.capacity}",
            governor="schedutil",
            precision=self.precision,
            origin="simulated",
        )

    def telemetry(self) -> dict[str, Any]:
        self._reached()
        return {
            "cores": list(range(self.threads)),
            "temperature_c": round(self._around.celsius, 1),
            "thermal_status": self._around.thermal_status(),
            "load": 2.5 if self._around.in_burst() else 0.5,
            "battery_percent": 80,
            "charging": True,
            "clock_mhz": round(self._around.allowed() * self.roofline.core.clock_mhz, 1),
        }

    def state(self) -> DeviceState:
        return DeviceState(
            self.name,
            "simulated",
            "ready",
            self.conditions.model,
            2 * _OF_A_CLASS,
            f"simulated {_VERSION}",
            f"its times are computed (a roofline, seed {self.seed})",
        )


def _read(path: Path) -> tuple[Operator | Architecture | Kernel, str]:
    """A model and its precision."""
    text, _, precision = path.read_text(encoding="utf-8").strip().partition("\n")
    precision = checked_precision(precision or FLOAT32, f"{path.name}:")
    kinds: tuple[type[Operator | Kernel], ...] = (Operator, Kernel)
    for kind in kinds:
        with contextlib.suppress(InvalidArgument):
            return kind.parse(text), precision
    return Architecture.parse(text), precision


def _activations(network: Operator | Architecture | Kernel) -> int:
    """Most numbers of its maps that are in memory at once."""
    if isinstance(network, Kernel):
        return network.reads + network.writes
    operators = network.operators() if isinstance(network, Architecture) else (network,)
    return max(o.peak_activations for o in operators)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
