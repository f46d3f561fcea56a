"""Networks beside each other: what is known of each, and what their error bars tell apart.

Two latencies are told apart where the 90 % interval of their ratio leaves 1 out. Both are measured,
or both predicted, where both have that; their errors count as independent, which for two
predictions of one model is too careful: they share part of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeGuard

from phonenas.data.measurement import Measurement
from phonenas.latency_model import Score, score
from phonenas.latency_model.calibration import LATER_JOB
from phonenas.latency_model.metrics import Z90
from phonenas.space import Architecture, NetworkGraph
from phonenas.space.errors import Incomplete
from phonenas.space.naming import counted

if TYPE_CHECKING:
    import pandas as pd

    from phonenas.search.accuracy import AccuracyEstimator
    from phonenas.space import Classifier

__all__ = [
    "FULL",
    "Compared",
    "NetworkRow",
    "Pair",
    "Ratio",
    "Timing",
    "Top1",
    "against",
    "alike",
    "estimates",
    "measured_timing",
    "ratio_of",
    "scale_of",
    "scored",
    "top1_gain",
]

FULL = "full schedule"  # of what is published, and of the estimator of that scale
_FULL_ESTIMATOR = "imagenet"
_ONE_ROUND = 0.1  # relative error of a measurement that has no error bar
_JOB_S = 3600.0  # measured further apart, two networks are of two jobs
_IMAGES = 50_000  # of ImageNet's validation set, by which published top-1 is counted
_ALIKE = 0.05  # of their MACs, by which networks differ that count as alike
_APART = 1.05  # times as long, from which on such a pair is told
_MOST_PAIRS = 5
VERDICTS = {-1: "faster", 0: "not told apart", 1: "slower"}


def scale_of(estimator: AccuracyEstimator) -> str:
    """What must be equal for two top-1 to compare: `FULL`, or the estimator's own digest."""
    return FULL if estimator.name == _FULL_ESTIMATOR else estimator.digest


def estimates(network: Any, estimator: AccuracyEstimator) -> TypeGuard[Classifier]:
    """Whether an estimator takes a network of this kind: not of blocks, only that of `FULL`."""
    graphs = estimator.name == _FULL_ESTIMATOR and isinstance(network, NetworkGraph)
    return graphs or isinstance(network, Architecture)


@dataclass(frozen=True)
class Top1:
    """A top-1 with the scale that it is on.

    Args:
        top1, error: In [0, 1], and its standard error.
        schedule: What it was trained for, in words.
        source: Who published it, or the estimator.
        outside: Whether it is an extrapolation.
        estimated: Whether an estimator gave it; else it is published.
    """

    top1: float
    error: float
    schedule: str
    source: str
    outside: bool = False
    estimated: bool = True

    @classmethod
    def published(cls, percent: float, source: str) -> Top1:
        """A published figure, in %; its error is that of a share of 50,000 images."""
        share = percent / 100
        error = math.sqrt(share * (1 - share) / _IMAGES)
        return cls(share, error, FULL, source, estimated=False)

    @classmethod
    def by(cls, estimator: AccuracyEstimator, network: Classifier) -> Top1:
        """What an estimator says of a network, on its own scale.

        Raises:
            PhonenasError: It refuses the network.
            Incomplete: The network got no accuracy; the reason is the message.
        """
        answer = estimator.estimate([network])  # type: ignore[list-item]
        if not answer.well[0]:
            raise Incomplete(answer.failed[0])
        numbers = (float(answer.top1[0]), float(answer.standard_error[0]))
        outside = bool(answer.outside[0])
        return cls(*numbers, scale_of(estimator), estimator.name, outside)


@dataclass(frozen=True)
class Timing:
    """Latency of a network on one device: measured, predicted, both or neither.

    Args:
        device, precision, origin: As in its `Conditions`; of a measurement where they differ.
        measured_ms, spread, at: As of `Measurement`; None and "" where the store has none.
        p50_ms, p90_ms, load_ms, first_ms, peak_bytes, model_bytes, file_bytes, energy_mj: As of
            `Measurement.figures`.
        predicted_ms, low_ms, high_ms: With the 90 % interval; None where nothing predicts it.
        basis: "operators", "kernels" or "whole networks": what the prediction rests on.
        covered: Whether it rests on what was measured, and not on what was predicted from that.
        fitted_on: Whether the measurement took part in the fit of what predicts.
        notes: What the prediction assumes, as that it is extrapolated.
        reason: Why there is no prediction; "" where there is one.
    """

    device: str
    precision: str = ""
    origin: str = "measured"
    measured_ms: float | None = None
    spread: float | None = None
    at: str = ""
    predicted_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    basis: str = ""
    covered: bool | None = None
    fitted_on: bool = False
    notes: tuple[str, ...] = ()
    reason: str = ""
    p50_ms: float | None = None
    p90_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None
    model_bytes: int | None = None
    file_bytes: int | None = None
    energy_mj: float | None = None

    @property
    def ms(self) -> float | None:
        """Measured, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms

    @property
    def error(self) -> float | None:
        """Of the prediction, relative to the measurement; None without both."""
        if self.measured_ms is None or self.predicted_ms is None:
            return None
        return self.predicted_ms / self.measured_ms - 1

    @property
    def inside(self) -> bool | None:
        """Whether the measurement lies in the 90 % interval of its prediction."""
        if self.measured_ms is None or self.low_ms is None or self.high_ms is None:
            return None
        return self.low_ms <= self.measured_ms <= self.high_ms

    @property
    def bounds_ms(self) -> tuple[float, float]:
        """The 90 % interval of `ms`, where there is one."""
        if self.measured_ms is not None:
            half = self._spread
            return self.measured_ms / (1 + half), self.measured_ms * (1 + half)
        return self.low_ms or math.nan, self.high_ms or math.nan

    @property
    def _spread(self) -> float:
        return _ONE_ROUND if self.spread is None or math.isnan(self.spread) else self.spread

    def log_ms(self, measured: bool) -> tuple[float, float] | None:
        """Logarithm of the measured or the predicted time in ms, and its standard error."""
        if measured:
            if self.measured_ms is None:
                return None
            return math.log(self.measured_ms), math.log1p(self._spread) / Z90
        if self.predicted_ms is None or self.high_ms is None:
            return None
        return math.log(self.predicted_ms), math.log(self.high_ms / self.predicted_ms) / Z90


@dataclass(frozen=True)
class Ratio:
    """How many times as long one network takes as another.

    Args:
        times: The ratio; low, high: its 90 % interval.
        basis: "measured", "predicted", or "mixed": one of each.
    """

    times: float
    low: float
    high: float
    basis: str

    @property
    def sign(self) -> int:
        """-1 faster, 1 slower, 0 not told apart."""
        return 1 if self.low > 1 else -1 if self.high < 1 else 0

    @property
    def verdict(self) -> str:
        """The same in words."""
        return VERDICTS[self.sign]


def ratio_of(first: Timing, other: Timing) -> Ratio | None:
    """`other` over `first`; None where one of them has no time."""
    for basis, of_first, of_other in (
        ("measured", True, True),
        ("predicted", False, False),
        ("mixed", first.measured_ms is not None, other.measured_ms is not None),
    ):
        a, b = first.log_ms(of_first), other.log_ms(of_other)
        if a is None or b is None:
            continue
        off, error = b[0] - a[0], math.hypot(a[1], b[1])
        if basis != "predicted" and not _same_job(first, other):
            error = math.hypot(error, LATER_JOB / Z90)
        half = Z90 * error
        return Ratio(math.exp(off), math.exp(off - half), math.exp(off + half), basis)
    return None


def _same_job(a: Timing, b: Timing) -> bool:
    """Whether two measurements lie within an hour; a prediction counts what a later job adds."""
    if not a.at or not b.at:
        return True
    try:
        times = [datetime.fromisoformat(at).timestamp() for at in (a.at, b.at)]
    except ValueError:
        return False
    return abs(times[0] - times[1]) <= _JOB_S


@dataclass(frozen=True)
class NetworkRow:
    """One network, and its times on each device.

    Args:
        name: As the user wrote it.
        text: Block string or graph; "" of a file.
        macs, params: Counted; None where a file cannot be cut into kernels.
        resolution_px, classes: Of its input and output; None of a file.
        size_bytes: Of a file; else of its parameters in the precision of the first device.
        stored: Whether `size_bytes` is that of a file.
        peak_activation_bytes: Of activations at once, float32; None where it is not known.
        published, estimated: Top-1, each on its own scale.
        no_estimate: Why there is no estimate; "" where there is one.
        timings: One a device, in their order.
    """

    name: str
    text: str = ""
    macs: int | None = None
    params: int | None = None
    resolution_px: int | None = None
    classes: int | None = None
    size_bytes: int | None = None
    stored: bool = False
    peak_activation_bytes: int | None = None
    published: Top1 | None = None
    estimated: Top1 | None = None
    no_estimate: str = ""
    timings: tuple[Timing, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it has no latency on any device."""
        return all(t.ms is None for t in self.timings)


@dataclass(frozen=True)
class Compared:
    """Networks beside each other; the others are compared with the first.

    Args:
        rows: In the order in which they were named.
        devices: In the order in which they were named.
        notes: Of each device: where its times come from; "" for a device that was measured.
        scale: What the estimated top-1 is; "" where it says it all.
    """

    rows: tuple[NetworkRow, ...]
    devices: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    scale: str = ""

    def __repr__(self) -> str:
        names = ", ".join(r.name for r in self.rows[:3]) + ", …" * (len(self.rows) > 3)
        return f"Compared({counted(len(self.rows), 'network')}: {names}; {', '.join(self.devices)})"

    def to_frame(self) -> pd.DataFrame:
        """One row a network and device: the fields of `NetworkRow` and `Timing` as plain values,
        with top1_published, top1_source, top1_estimated, top1_error, top1_scale and outside, the
        prediction's error, and how it compares with the first network."""
        import pandas as pd

        return pd.DataFrame([line for row in self.rows for line in self._lines(row)])

    def _lines(self, row: NetworkRow) -> Iterator[dict[str, Any]]:
        published, estimated = row.published, row.estimated
        own: dict[str, Any] = {
            "network": row.name,
            "text": row.text,
            "macs": row.macs,
            "params": row.params,
            "resolution_px": row.resolution_px,
            "size_bytes": row.size_bytes,
            "peak_activation_bytes": row.peak_activation_bytes,
            "top1_published": None if published is None else published.top1,
            "top1_source": None if published is None else published.source,
            "top1_estimated": None if estimated is None else estimated.top1,
            "top1_error": None if estimated is None else estimated.error,
            "top1_scale": None if estimated is None else estimated.schedule,
            "outside": None if estimated is None else estimated.outside,
        }
        for place, t in enumerate(row.timings):
            ratio = against(self, row, place)
            yield {
                **own,
                **asdict(t),
                "notes": "; ".join(t.notes),
                "error": t.error,
                "inside": t.inside,
                "times_the_first": None if ratio is None else ratio.times,
                "than_the_first": None if ratio is None else ratio.verdict,
                "reason": t.reason,
            }


@dataclass(frozen=True)
class Pair:
    """Two networks of nearly equal MACs whose latencies are told apart, on one device."""

    device: str
    faster: str
    slower: str
    macs: tuple[int, int]
    ratio: Ratio


def top1_gain(of: NetworkRow, over: NetworkRow) -> tuple[float, float, str] | None:
    """Points of top-1 in [-1, 1] by which a network leads another, and the standard error.

    Both published, else both estimated, else one of each on one scale: two scales are not compared.

    Returns:
        The difference, its standard error, and "published", "estimated" or "mixed"; None without a
        scale that both are on.
    """
    for scale, a, b in (
        ("published", of.published, over.published),
        ("estimated", of.estimated, over.estimated),
        ("mixed", of.published or of.estimated, over.published or over.estimated),
    ):
        if a is not None and b is not None and a.schedule == b.schedule:
            return a.top1 - b.top1, math.hypot(a.error, b.error), scale
    return None


def alike(compared: Compared, place: int) -> list[Pair]:
    """Pairs with MACs within 5 % that a device tells apart, the largest ratio first; five at most.

    Args:
        compared: The networks.
        place: Which of the devices.
    """
    pairs = []
    known = [(r, r.macs, t, t.ms) for r in compared.rows if r.macs and (t := r.timings[place]).ms]
    for one, other in combinations(known, 2):
        (a, of_a, fast, _), (b, of_b, slow, _) = sorted((one, other), key=lambda k: k[3] or 0.0)
        ratio = ratio_of(fast, slow)
        near = max(of_a, of_b) <= (1 + _ALIKE) * min(of_a, of_b)
        if near and ratio is not None and ratio.sign > 0 and ratio.times >= _APART:
            device = compared.devices[place]
            pairs.append(Pair(device, a.name, b.name, (of_a, of_b), ratio))
    return sorted(pairs, key=lambda p: -p.ratio.times)[:_MOST_PAIRS]


def scored(compared: Compared, place: int) -> Score | None:
    """Predictions on one device beside what was measured there and took no part in the fit.

    None without any such network.
    """
    timings = [r.timings[place] for r in compared.rows]
    known = [t for t in timings if t.error is not None and not t.fitted_on]
    if not known:
        return None
    names = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
    return score(*([getattr(t, name) for t in known] for name in names))


def measured_timing(m: Measurement) -> dict[str, Any]:
    """The fields of a `Timing` that a measurement gives."""
    c = m.conditions
    spread = None if math.isnan(m.spread) else m.spread
    own = {"device": c.device, "precision": c.precision, "origin": c.origin}
    return {**own, "measured_ms": m.latency_ms, "spread": spread, "at": m.at, **m.figures}


def against(compared: Compared, row: NetworkRow, place: int) -> Ratio | None:
    """A network over the first, on one device; None for the first itself."""
    first = compared.rows[0]
    return None if row is first else ratio_of(first.timings[place], row.timings[place])
