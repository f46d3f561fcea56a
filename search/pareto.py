"""Candidate and ParetoFront: networks with their numbers, and those that none beats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import Count, Ms, Number, Share, Text, strict
from phonenas.space import Architecture
from phonenas.space.naming import counted
from phonenas.space.precision import from_front

from .exported_file import ExportedFile

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FRONT_COLUMNS", "Candidate", "Interval", "ParetoFront", "hypervolume", "non_dominated"]

# Of `ParetoFront.to_frame`.
FRONT_COLUMNS: tuple[str, ...] = (
    "id",
    "network",
    "latency_ms",
    "low_ms",
    "high_ms",
    "top1",
    "top1_error",
)
FRONT_COLUMNS += ("outside", "macs", "params", "reward", "origin")
_EXACT = 4  # losses
_POINTS = 100_000


@dataclass(frozen=True)
class Interval:
    """The 90 % interval of a predicted latency, ms, and whether every operator was measured."""

    low_ms: Ms
    high_ms: Ms
    covered: bool


@dataclass(frozen=True)
class Candidate:
    """A network with its numbers, each with where it came from.

    Args:
        id: Its place in the run's front, from 0; `runs/x:3` names it.
        block_args: The network, as `Architecture.parse` reads it; of a search over precisions
            behind its precision, where that is not float32.
        top1, top1_error: Estimated accuracy in [0, 1], on the estimator's scale, and its standard
            error.
        outside: Whether `top1` is an extrapolation.
        latency_ms, low_ms, high_ms: Predicted latency and its 90 % interval, ms.
        covered: Whether every operator of it was measured.
        macs, params: Counted.
        reward: Weighted product against the run's target; None without one.
        measured_ms: Measured on the device, or None.
        values: Of further objectives and limits, by name; of several devices the latency on each
            in ms, as `latency:pixel6`.
        intervals: Of these latencies, by the same name.
    """

    id: Count
    block_args: Text
    top1: Share
    top1_error: Share
    outside: bool
    latency_ms: Ms
    low_ms: Ms
    high_ms: Ms
    covered: bool
    macs: Count
    params: Count
    reward: Number | None = None
    measured_ms: Ms | None = None
    values: dict[str, Number] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """The network itself."""
        return Architecture.parse(from_front(self.block_args)[1])

    def with_measured(self, measured_ms: float) -> Candidate:
        """The same candidate with its measurement."""
        return replace(self, measured_ms=measured_ms)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; `intervals` only where there are several devices."""
        return {k: v for k, v in asdict(self).items() if k != "intervals" or v}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Candidate:
        """Inverse of `to_dict`.

        Raises:
            ValueError: A field is missing, or a value outside its range.
        """
        return strict(values, cls)


@dataclass(frozen=True)
class ParetoFront:
    """Candidates none of which another beats in every objective, by rising latency.

    Args:
        candidates: In order of latency; of several devices in that of their largest or mean ratio
            of latency and target.
        target_ms: What the search aimed at, or None.
        target: How the target was given ("25", or a network whose measured latency it is).
        hypervolume: Share of the reference box that all evaluated networks within the constraints
            dominate, by lower ends of top-1, in [0, 1]; those left out are among them.
        origin: Of the latencies that the model which predicted was fitted on: "measured",
            "simulated", "emulated" or "imported"; "" where it is not known.
        exported: Files of candidates that were trained and exported, by block string.
        targets: Of several devices the target of each in ms, or None, by the name of its latency
            in `Candidate.values`. `latency_ms` and `target_ms` are those of one of them.
        left_out: How many extrapolated networks `Spec.front` left out.
        origins: Of several devices the origin of each, by the same names; `origin` is of the one.
    """

    candidates: tuple[Candidate, ...]
    target_ms: float | None
    target: str
    hypervolume: float
    origin: str = "measured"
    exported: Mapping[str, ExportedFile] = field(default_factory=dict, hash=False, repr=False)
    targets: Mapping[str, float | None] = field(default_factory=dict, hash=False, repr=False)
    left_out: int = 0
    origins: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def __repr__(self) -> str:
        if not self.candidates:
            return "ParetoFront(0 networks)"
        ms = [c.latency_ms for c in self]
        best = max(c.top1 for c in self)
        target = "" if self.target_ms is None else f", target {self.target_ms:.2f} ms"
        if self.left_out:
            target += f", {counted(self.left_out, 'extrapolated network')} left out"
        if self.origin not in ("measured", ""):
            target += f", {self.origin.upper()}: no device was measured"
        return (
            f"ParetoFront({counted(len(self), 'network')}, {min(ms):.2f} to "
            f"{max(ms):.2f} ms, top-1 up to {best:.1%}{target})"
        )

    def extrapolated(self) -> list[str]:
        """What of it is extrapolated, and what was left out for that, a sentence each."""
        outside = sum(c.outside for c in self)
        left = counted(self.left_out, "extrapolated network")
        on = f"{outside} of {len(self)} networks on the front are extrapolated"
        out = (
            f"{left} left out: more accurate than networks that are as fast, but by less than the "
            "error (--trust 0 keeps them)"
        )
        return [on] * bool(outside) + [out] * bool(self.left_out)

    def to_frame(self) -> pd.DataFrame:
        """One row a candidate: `FRONT_COLUMNS`, then further objectives by name.

        Of several devices each has a latency with its interval: `latency:pixel6`, `low:pixel6` and
        `high:pixel6`, in ms; and `origin:pixel6`. `origin` is then that of all: "measured and
        public" where they differ.
        """
        import pandas as pd

        further = [{**c.values, **_ends(c)} for c in self]
        names = dict.fromkeys(name for row in further for name in row)
        columns = [*FRONT_COLUMNS, *(name for name in names if name not in FRONT_COLUMNS)]
        own = self.origin_columns
        rows = [
            {**more, **c.to_dict(), "network": c.block_args, **own}
            for c, more in zip(self, further, strict=True)
        ]
        return pd.DataFrame(rows, columns=[*columns, *(n for n in own if n not in columns)])

    @property
    def origin_columns(self) -> dict[str, str]:
        """Origin of the latencies, and of several devices that of each, by column of a table."""
        each = {f"origin:{n.removeprefix('latency:')}": o for n, o in self.origins.items()}
        return {"origin": " and ".join(dict.fromkeys(each.values())) or self.origin, **each}


def _ends(candidate: Candidate) -> dict[str, float]:
    """Both ends of each interval of several devices, by column."""
    ends: dict[str, float] = {}
    for name, interval in candidate.intervals.items():
        device = name.removeprefix("latency:")
        ends |= {f"low:{device}": interval.low_ms, f"high:{device}": interval.high_ms}
    return ends


def non_dominated(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Rows of (n, k) losses, all minimised, that no other row beats; by rising first loss.

    Of equal rows the first is kept. A row with a NaN beats none and is never kept.
    """
    if np.isnan(losses).any():
        whole = np.flatnonzero(~np.isnan(losses).any(axis=1))
        return whole[non_dominated(losses[whole])]
    if losses.shape[1] == 2:
        order = np.lexsort((np.arange(len(losses)), losses[:, 1], losses[:, 0]))
        second = losses[order, 1]
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        kept: npt.NDArray[np.intp] = order[second < best_before]
        return kept
    from moocore import is_nondominated

    if not len(losses):
        return np.empty(0, np.intp)
    order = np.lexsort((np.arange(len(losses)), *losses.T[::-1]))
    front: npt.NDArray[np.intp] = order[is_nondominated(losses[order])]  # of equal ones the first
    return front


def hypervolume(
    losses: npt.NDArray[np.float64], ideal: Sequence[float], reference: Sequence[float]
) -> float:
    """Share of the box between `ideal` and `reference` that rows of (n, k) losses dominate.

    Exact up to four losses; beyond, where the exact one takes hours, by 100,000 sampled points.
    """
    low, high = np.asarray(ideal, float), np.asarray(reference, float)
    scaled = np.clip((losses - low) / (high - low), 0, None)
    inside = scaled[(scaled < 1).all(axis=1)]
    if not len(inside):
        return 0.0
    front = inside[non_dominated(inside)]
    if front.shape[1] > _EXACT:
        drawn = np.random.default_rng(0).random((_POINTS, front.shape[1]))
        # One loss a row, in the order of the first: what lies before a network cannot be beaten.
        first, *others = np.ascontiguousarray(drawn[np.argsort(drawn[:, 0])].T)
        beaten = np.zeros(len(drawn), bool)
        for row, start in zip(front, np.searchsorted(first, front[:, 0]), strict=True):
            inside = others[0][start:] >= row[1]
            for loss, value in zip(others[1:], row[2:], strict=True):
                inside &= loss[start:] >= value
            beaten[start:] |= inside
        return float(beaten.mean())
    if front.shape[1] > 2:
        from moocore import hypervolume as exact

        return float(exact(front, ref=np.ones(front.shape[1])))
    right = np.append(front[1:, 0], 1.0)
    return float(np.sum((right - front[:, 0]) * (1 - front[:, 1])))
