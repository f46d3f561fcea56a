"""Measurement: raw samples of one subject under written-down conditions.

A subject is an operator or a kernel (by its key), or a whole network (by its text, or by the name
and digest of an ONNX file). Its samples come in rounds, taken far apart; statistics are computed from them, never stored. The
error bar is the spread *between* rounds: repeats back to back understate it.

A device's speed changes under one's hands: a neighbour on the same core, a clock, a governor.
So beside each sample stands the time of the sentinel, a small fixed model run within
milliseconds of it, and statistics are stated at one speed: sample · reference / sentinel, with
the sentinel's median over the device's first profile as the reference. The raw samples stay.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from statistics import median
from typing import Any, Literal

from ..space.errors import InvalidArgument

__all__ = ["WHOLE", "Conditions", "Measurement", "Mode", "Origin", "Round", "SubjectKind"]

SubjectKind = Literal["operator", "network", "kernel", "onnx"]
#: The kinds of subject that are whole networks: of the spaces, and by an ONNX file.
WHOLE: tuple[SubjectKind, ...] = ("network", "onnx")
Origin = Literal["measured", "simulated", "imported"]
Mode = Literal["steady", "first", "sustained"]


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
        precision: Number format.
        mode: "steady" (after warm-up), "first" (the first inference after loading) or
            "sustained" (after minutes of load).
        origin: "measured", "simulated" or "imported".
        statistic: What a sample is: "samples" where each is one inference, else what the
            runtime tells instead, as "median of the runs".
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
    threads: int
    cores: str
    governor: str
    precision: str = "float32"
    mode: Mode = "steady"
    origin: Origin = "measured"
    statistic: str = "samples"
    clocks: str = "governed"
    load_s: float = 0.0

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for all fields."""
        told = asdict(self)
        # Fields that came later are left out at their defaults: older stores keep their digests.
        for later in ("statistic", "clocks", "load_s"):
            if told[later] == type(self).__dataclass_fields__[later].default:
                del told[later]
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Conditions:
        """Inverse of `to_dict`; unknown fields are ignored, absent ones are an error."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})

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


@dataclass(frozen=True)
class Round:
    """Samples taken back to back.

    Args:
        samples_ms: Times of single inferences that ran undisturbed, in ms, each > 0.
        sentinel_ms: Time of the sentinel beside each sample, in ms, each > 0; empty where the
            device cannot tell.
        preempted: How many further runs were dropped because the scheduler took the core.
        at: When, ISO 8601 in UTC.
        circumstances: What may change from round to round and explains doubt: core numbers,
            temperature, frequency, the sentinel's time.
    Raises:
        InvalidArgument: No sample, or one that is not a finite positive number.
    """

    samples_ms: tuple[float, ...]
    sentinel_ms: tuple[float, ...] = ()
    preempted: int = 0
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    circumstances: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        times = self.samples_ms + self.sentinel_ms
        bad = [s for s in times if not (math.isfinite(s) and s > 0)]
        if bad or not self.samples_ms:
            raise InvalidArgument(f"a round needs samples above 0 ms, got {bad or 'none'}")
        if self.sentinel_ms and len(self.sentinel_ms) != len(self.samples_ms):
            raise InvalidArgument(
                f"{len(self.sentinel_ms)} sentinel times stand beside {len(self.samples_ms)} samples"
            )

    def median_ms(self, reference_ms: float | None = None) -> float:
        """Median of the samples in ms; at the speed at which the sentinel takes the reference."""
        if reference_ms is None or not self.sentinel_ms:
            return median(self.samples_ms)
        return median(
            t * reference_ms / s for t, s in zip(self.samples_ms, self.sentinel_ms, strict=True)
        )


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
        reference_ms: What the sentinel takes at the speed that statistics are stated at; None
            for the samples as they came.
    """

    kind: SubjectKind
    subject: str
    conditions: Conditions
    rounds: tuple[Round, ...]
    series: int = 0
    purpose: str = "profile"
    reference_ms: float | None = None

    @cached_property
    def medians_ms(self) -> tuple[float, ...]:
        """Median of each round in ms, at the reference speed."""
        return tuple(r.median_ms(self.reference_ms) for r in self.rounds)

    @property
    def raw_ms(self) -> float:
        """Over the rounds as they came, at no common speed, in ms."""
        return pseudo_median([r.median_ms() for r in self.rounds])

    @cached_property
    def latency_ms(self) -> float:
        """Pseudo-median of the rounds' medians, in ms, at the reference speed."""
        return pseudo_median(self.medians_ms)

    @cached_property
    def spread(self) -> float:
        """Half the width of the narrowest band that holds two thirds of the rounds, relative.

        0.03 reads as ±3 %. One round in three may be off without harm: the median holds. NaN
        for a single round, which says nothing of it; of three rounds it is the nearest two's,
        so compare it among measurements of equally many rounds.
        """
        return spread(self.medians_ms)

    @property
    def samples(self) -> int:
        """Number of samples over all rounds."""
        return sum(len(r.samples_ms) for r in self.rounds)

    @property
    def at(self) -> str:
        """When the last round was taken, ISO 8601 in UTC."""
        return max(r.at for r in self.rounds)


def pseudo_median(values: Sequence[float]) -> float:
    """Median of the means of all pairs, each value with itself too (Hodges and Lehmann, 1963).

    It shrugs off outliers nearly as a median does, and scatters hardly more than a mean: the
    same 40 networks in two profiles of 8 rounds differed by 2.6 %, by their medians 3.0 %.
    """
    pairs = [(a + b) / 2 for i, a in enumerate(values) for b in values[i:]]
    return median(pairs)


def spread(medians_ms: tuple[float, ...]) -> float:
    """Half the narrowest band that holds two thirds of the values, over their median; or NaN."""
    ordered = sorted(medians_ms)
    need = max(2, math.ceil(len(ordered) * 2 / 3))
    if len(ordered) < 2:
        return math.nan
    widths = [ordered[i + need - 1] - ordered[i] for i in range(len(ordered) - need + 1)]
    return min(widths) / 2 / median(ordered)
