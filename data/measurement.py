"""Measurement: raw samples of one subject under written-down conditions.

A subject is an operator or a kernel (by its key), or a whole network (by its text, or by the name
and digest of an ONNX file). Its samples come in rounds, taken far apart; statistics are computed
from them, never stored. The value and its error bar follow from the medians of the rounds alone:
repeats back to back understate the error.

Every time is what the clock shows. A device's state changes: another program on the same core, a
clock, a governor. So each sample has the time of the sentinel, a small fixed reference model that
ran within milliseconds of it. The sentinel tells the state; no time is divided by it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean, median
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta

from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import counted

from .documents import Count, Energy, Ms, strict

__all__ = [
    "MOST_MS",
    "NO_ENTRY",
    "WHOLE",
    "At",
    "Conditions",
    "Entry",
    "Measurement",
    "Mode",
    "Origin",
    "Round",
    "Startup",
    "SubjectKind",
    "taken_as",
]

SubjectKind = Literal["operator", "network", "kernel", "onnx"]
#: The kinds of subject that are whole networks: of the spaces, and by an ONNX file.
WHOLE: tuple[SubjectKind, ...] = ("network", "onnx")
Origin = Literal["measured", "simulated", "emulated", "imported", "public"]
Mode = Literal["steady", "first", "sustained"]
#: When a round was taken; an imported table may say the day or the month alone.
At = Annotated[str, Meta(pattern=r"^\d{4}-\d\d(-\d\d[T 0-9:.+Z-]*)?$", max_length=40)]
MOST_MS = 1e9  # no run takes eleven days

_MOST_STEPS = 1000
_T_OF_TWO = 6.314  # Student's t, one degree of freedom, 95 %
_ENOUGH = 7  # rounds; all lie on one side of their centre in one case of 64
_FAR = 8.0  # median absolute deviations; 5.4 standard deviations of a normal
_HALF_ARITHMETIC = ("benchmark_model",)  # a flag of its delegates: any floats are computed so
_TICK_MS = 5e-5  # of a phone's counter, at 19 to 26 MHz


@dataclass(frozen=True)
class Conditions:
    """All that a latency depends on beside the subject; unlike conditions never merge.

    Args:
        device: The name that the user gave the device ("local", "pixel6").
        model: What the device is, as it says itself.
        fingerprint: Short hash of its hardware description.
        runtime, runtime_version: The inference runtime.
        runtime_hash: SHA-256 of its binary; two builds of one version can differ by half.
        provider: Execution provider or delegate that really ran.
        optimisation: Graph optimisation level.
        threads: Threads that compute.
        cores: The class of core that it was pinned to.
        governor: Frequency governor, "none" where there is none.
        precision: What was computed in: a name of `space.precision`, as the file says it.
        mode: "steady" (after warm-up), "first" (the first inference after loading) or
            "sustained" (after minutes of load).
        origin: "measured", "simulated", "emulated" (an emulator ran it), "imported", or "public":
            a model that is shipped with phonenas was fitted on it.
        statistic: What a sample is: "samples" where each is one inference, else what the
            runtime prints instead, as "median of the runs".
        clocks: "governed", or "fixed-performance" where the system holds them.
        load_s: Seconds of unbroken load before the first sample, for the mode "sustained".
    """

    device: str
    model: str
    fingerprint: str
    runtime: str
    runtime_version: str
    runtime_hash: str
    provider: str
    optimisation: str
    threads: Annotated[int, Meta(ge=0, le=10_000)]
    cores: str
    governor: str
    precision: str = "float32"
    mode: Mode = "steady"
    origin: Origin = "measured"
    statistic: str = "samples"
    clocks: str = "governed"
    load_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits, a hash of all fields."""
        fields = asdict(self)
        # Fields that came later are left out at their defaults: older stores keep their digests.
        for later in ("statistic", "clocks", "load_s"):
            if fields[later] == type(self).__dataclass_fields__[later].default:
                del fields[later]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Conditions:
        """Inverse of `to_dict`; unknown fields are ignored.

        Raises:
            ValueError: A field is missing, or a value outside its range.
        """
        return strict(values, cls)

    @property
    def mark(self) -> str:
        """Before a latency: ● of a real device, ◌ of a simulated, emulated or imported one."""
        return "●" if self.origin == "measured" else "◌"

    @property
    def origin_note(self) -> str:
        """A sentence on latencies that no real device gave; "" where one did."""
        if self.origin == "measured":
            return ""
        if self.origin == "public":
            return (
                f"PUBLIC: {self.device} ({self.model}) is fitted on measurements that others "
                "published: phonenas devices --ready"
            )
        return (
            f"{self.origin.upper()}: {self.device} ({self.model}); no device was measured for "
            "these numbers"
        )

    def differences(self, other: Conditions) -> list[str]:
        """Each field in which two conditions differ, with both values."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{k}: {mine[k]} / {theirs[k]}" for k in mine if mine[k] != theirs[k]]

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads or 'unknown'} threads"
        return (
            f"{self.device} ({self.model}), {self.runtime} {self.runtime_version} {self.provider}, "
            f"optimisation {self.optimisation}, {threads} on {self.cores}, "
            f"governor {self.governor}, {self.precision}, {self.mode}, {self.origin}"
            + (f", {self.clocks}" if self.clocks != "governed" else "")
            + (f" after {self.load_s:g} s of load" if self.load_s else "")
            + (f", {self.statistic}" if self.statistic != "samples" else "")
        )


def taken_as(precision: str, runtime: str) -> tuple[str, ...]:
    """Precisions of files that a runtime computes in another one, as it is set.

    >>> taken_as("float16", "benchmark_model"), taken_as("int8", "onnxruntime")
    (('float32', 'float16-weights'), ())

    Args:
        precision: That the device was set to.
        runtime: As `Conditions` names it.
    """
    half = precision == "float16" and runtime in _HALF_ARITHMETIC
    return ("float32", "float16-weights") if half else ()


@dataclass(frozen=True)
class Startup:
    """A model file brought up in a process of its own, which holds the runtime and it alone.

    What a device does not report is None.

    Args:
        load_ms: Time to make the file ready to run, in ms, > 0: reading, optimising, preparing.
        first_ms: Time of its first inference, in ms, > 0.
        peak_bytes: Greatest resident memory of that process, with its runtime, in bytes.
        model_bytes: Of it, what came on top of what it held before it loaded the file, in bytes.
        file_bytes: Size of the file, in bytes.
        energy_mj: Energy of one inference, in mJ, > 0, what the device takes when idle included:
            of the processor's packages, or of the whole device by its battery.
    """

    load_ms: Ms | None = None
    first_ms: Ms | None = None
    peak_bytes: Count | None = None
    model_bytes: Count | None = None
    file_bytes: Count | None = None
    energy_mj: Energy | None = None

    @classmethod
    def middle(cls, several: Sequence[Startup]) -> Startup:
        """The median of each number over several startups of one file; None where none has it."""
        values: dict[str, Any] = {}
        for name in (f.name for f in fields(cls)):
            known = [v for s in several if (v := getattr(s, name)) is not None]
            if known:
                values[name] = int(median(known)) if name.endswith("_bytes") else median(known)
        return cls(**values)


@dataclass(frozen=True)
class Round:
    """Samples taken back to back.

    Args:
        samples_ms: Times of single inferences that ran undisturbed, in ms, each > 0.
        sentinel_ms: Time of the sentinel beside each sample, in ms, each > 0; empty where the
            device has no sentinel.
        preempted: How many further runs were dropped because the scheduler took the core.
        at: When, ISO 8601 in UTC; an imported table may say the day or the month alone.
        telemetry: What may change from round to round and explains a spread: core numbers,
            temperature, frequency, the sentinel's time.
        startup: Of a process of its own that brought the file up after these samples, if one did.
    Raises:
        InvalidArgument: No sample, one that is no time that a run can take, a count below 0, or a
            time of day that is no ISO 8601.
    """

    samples_ms: tuple[float, ...]
    sentinel_ms: tuple[float, ...] = ()
    preempted: int = 0
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    telemetry: dict[str, Any] = field(default_factory=dict, hash=False)
    startup: Startup | None = None

    def __post_init__(self) -> None:
        for name, kind in (("preempted", Count), ("at", At)):
            try:
                strict(getattr(self, name), kind)
            except ValueError as error:
                raise InvalidArgument(
                    f"{name} of a round, {getattr(self, name)!r}: {error}"
                ) from error
        times = self.samples_ms + self.sentinel_ms
        bad = [s for s in times if not 0 < s <= MOST_MS]
        if bad or not self.samples_ms:
            raise InvalidArgument(
                f"a round needs samples above 0 ms and up to {MOST_MS:.0e} ms, got "
                f"{bad[:3] or 'none'}"
            )
        if self.sentinel_ms and len(self.sentinel_ms) != len(self.samples_ms):
            raise InvalidArgument(
                f"{len(self.sentinel_ms)} sentinel times stand beside {len(self.samples_ms)} "
                f"samples"
            )

    def median_ms(self) -> float:
        """Median of the samples, in ms."""
        return median(self.samples_ms)


class Entry(NamedTuple):
    """A place in a store's own order, in which rounds were stored; no clock takes part.

    Args:
        store: Of which store; "" where that is not known.
        number: Rising; 0 before all others.
    """

    store: str = ""
    number: int = 0

    def after(self, other: Entry) -> bool:
        """Whether it came later; what is of another store was never seen in this one."""
        apart = self.store and other.store and self.store != other.store
        return bool(apart) or self.number > other.number


NO_ENTRY = Entry()


@dataclass(frozen=True)
class Measurement:
    """Rounds of one subject under one set of conditions.

    Args:
        kind: "operator", "kernel", "network", or "onnx" for a network by its file.
        subject: `Operator.key`, `Kernel.key`, `str(Architecture)` or `OnnxFile.key`.
        conditions: What it was measured under.
        rounds: At least one.
        series: 0 for the first measurement of the subject under these conditions, then 1, ...
        purpose: "profile" or "validation".
        entry: Of its last round in its store; a later measurement has a higher number.
    """

    kind: SubjectKind
    subject: str
    conditions: Conditions
    rounds: tuple[Round, ...]
    series: int = 0
    purpose: str = "profile"
    entry: Entry = NO_ENTRY

    def __repr__(self) -> str:
        bar = f" ±{self.spread:.1%}" if self.spread == self.spread else ""
        rounds = counted(len(self.rounds), "round")
        where = self.conditions.device
        return f"Measurement({self.subject!r}, {self.latency_ms:.3f} ms{bar}, {rounds} on {where})"

    @cached_property
    def medians_ms(self) -> tuple[float, ...]:
        """Median of each round, in ms."""
        return tuple(r.median_ms() for r in self.rounds)

    @property
    def sentinel_ms(self) -> float | None:
        """Time of the sentinel beside the rounds (median of their medians), in ms; None without."""
        times = [median(r.sentinel_ms) for r in self.rounds if r.sentinel_ms]
        return median(times) if times else None

    @cached_property
    def latency_ms(self) -> float:
        """The value: `centre` of the rounds' medians, in ms."""
        return centre(self.medians_ms)

    @cached_property
    def spread(self) -> float:
        """Its error bar: half the width of its 90 % interval, relative; 0.03 reads as ±3 %.

        NaN for a single round, which cannot show how far another would lie. Two rounds give 6.3
        times half their distance, by Student's t with one degree of freedom. See `spread`.
        """
        return spread(self.medians_ms)

    def run_ms(self, share: float) -> float | None:
        """Time within which this share of single runs ends, in ms: 0.9 gives their p90.

        Over the runs of all rounds that the scheduler did not interrupt; between two of them it is
        interpolated. None where a sample is no single run, as of a program that prints a median.

        Args:
            share: In [0, 1].
        """
        if self.conditions.statistic != "samples":
            return None
        ordered = sorted(s for r in self.rounds for s in r.samples_ms)
        return _at(ordered, share * (len(ordered) - 1))

    @cached_property
    def startup(self) -> Startup:
        """Median of each number over the startups beside its rounds; all None without any."""
        return Startup.middle([r.startup for r in self.rounds if r.startup is not None])

    @cached_property
    def figures(self) -> dict[str, float | int | None]:
        """p50_ms and p90_ms of single runs, and the numbers of its startup; None where unknown."""
        return {"p50_ms": self.run_ms(0.5), "p90_ms": self.run_ms(0.9), **asdict(self.startup)}

    @property
    def samples(self) -> int:
        """Number of samples over all rounds."""
        return sum(len(r.samples_ms) for r in self.rounds)

    @property
    def at(self) -> str:
        """When the last round was taken, ISO 8601 in UTC."""
        return self.rounds[-1].at


def centre(values: Sequence[float]) -> float:
    """The value that undisturbed rounds have, as long as fewer than half are disturbed.

    Solves Σ tanh((x - t) / 2s) = 0 for t, with the median absolute deviation s. It scatters hardly
    more than a mean (a thirtieth at ten Gaussian rounds), and lies in the range of its values.

    Args:
        values: Medians of rounds in ms, (n,), n ≥ 1, each > 0.
    Returns:
        In the unit of the values.
    Source: Rousseeuw and Verboven, Robust estimation in very small samples, Computational
    Statistics & Data Analysis 40 (2002): the M-estimator of location with a logistic ψ.
    """
    t = median(values)
    s = median(abs(x - t) for x in values)
    if s == 0 or not math.isfinite(s):
        return t
    for _ in range(_MOST_STEPS):
        step = 2 * s * fmean(math.tanh((x - t) / (2 * s)) for x in values)
        t += step
        if abs(step) < 1e-9 * s:
            break
    return min(max(t, min(values)), max(values))


def spread(medians_ms: Sequence[float]) -> float:
    """Half the width of the 90 % interval of `centre`, over that value; NaN for one round.

    It is twice the distance from the value to the farther of two rounds, those that lie
    0.17 + 0.32 √n ranks from the middle: what n rounds leave open of their centre. It grows beyond
    bounds when nearly half of the rounds are disturbed, just before the value does. Nothing makes
    a device faster, so a round that is far faster than the value lies in the bar, too. From seven
    rounds on, no bar reaches beyond all of them.

    The ranks are chosen so that the interval holds the undisturbed value in 85 to 95 % of cases
    under Gaussian, heavy-tailed and contaminated noise: `python -m tools.bench.error_bars`.

    Args:
        medians_ms: Medians of rounds in ms, (n,), each > 0.
    Returns:
        Relative, > 0: at least a tick of the clock.
    """
    n, ordered = len(medians_ms), sorted(medians_ms)
    if n < 2:
        return math.nan
    value, low = centre(ordered), ordered[0]
    if n == 2:
        half = _T_OF_TWO * (ordered[1] - low) / 2
    else:
        rank = (n - 1) / 2 - (0.17 + 0.32 * math.sqrt(n))
        half = 2 * max(value - _at(ordered, rank), _at(ordered, n - 1 - rank) - value)
        if n >= _ENOUGH:
            half = min(half, max(value - low, ordered[-1] - value))
        if value - low > _FAR * median(abs(x - value) for x in ordered):
            half = max(half, value - low)
    if half < _TICK_MS < ordered[-1] - low:
        # Equal to the last digit, but for others: the digits are coarser than the scatter.
        half = min(b - a for a, b in itertools.pairwise(ordered) if b > a) / 2
    return max(half, _TICK_MS) / value


def _at(ordered: Sequence[float], rank: float) -> float:
    """The value at a rank between 0 and n - 1, interpolated."""
    i = int(rank)
    return ordered[i] + (rank - i) * (ordered[min(i + 1, len(ordered) - 1)] - ordered[i])
