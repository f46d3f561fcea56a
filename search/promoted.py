"""Promoted: networks of a run that were trained in full and measured, and the front of those.

    RUN/promoted.json        all that is told here; format "phonenas-promoted", version 1
    RUN/promoted/ID/         a network's own folder: its checkpoints, its files, a promoted.json

Of each number stands where it came from: top-1 is *estimated* by the search or *trained*, latency
*predicted* by the model or told by the device (measured, or simulated by one without hardware).
An estimate and a trained top-1 are on two scales, so only trained networks can be on the front.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Conditions
from ..data.documents import Document
from ..data.files import write_atomic
from ..devices.timing import Verdict
from ..latency_model import Score
from ..space import Architecture
from .pareto import Candidate, ParetoFront, hypervolume, non_dominated
from .reward import reward

__all__ = [
    "FILE",
    "FORMAT",
    "VERSION",
    "Promoted",
    "PromotedNetwork",
    "kendall",
    "on_front",
    "read_promoted",
]

FORMAT, VERSION, FILE = "phonenas-promoted", 1, "promoted.json"
_DOCUMENT = Document(FORMAT, VERSION, "file of promoted networks")


@dataclass(frozen=True)
class PromotedNetwork:
    """One network: estimated, trained, predicted, measured.

    Args:
        id: Of the run's candidate.
        candidate: Its block string in the run.
        block_args: As it was trained: with the classes of the data set.
        top1_estimated, estimated_error: By the search, in [0, 1], with its standard error.
        top1, top5: On the test images after training, in [0, 1]; None where that failed.
        top1_error: Standard error of `top1` as a share of `images`: √(p (1 - p) / n).
        images: Test images.
        epochs: Trained.
        predicted_ms, low_ms, high_ms: By the latency model, with its 90 % interval.
        predicted_as_trained: Whether that is of `block_args`, not of `candidate`.
        measured_ms: By the device; None where it was not asked.
        spread: How far the rounds of that stand apart, ± relative.
        meets_target: By the measured latency, else by the predicted; None without a target.
        on_front: Whether no other trained network beats it in both.
        macs, params: Counted, of `block_args`.
        files: What was exported: "weights", "card", "onnx", "tflite" → path in the run's folder.
        export_difference: Largest difference of a logit between these and torch.
        export_failed: Why an exported form is missing; "" where none is.
        failed: Why there is no trained network; "" where there is one.
        seconds: That its training took.
    """

    id: int
    candidate: str
    block_args: str
    top1_estimated: float
    estimated_error: float
    top1: float | None
    top1_error: float | None
    top5: float | None
    images: int
    epochs: int
    predicted_ms: float
    low_ms: float
    high_ms: float
    predicted_as_trained: bool
    macs: int
    params: int
    measured_ms: float | None = None
    spread: float | None = None
    meets_target: bool | None = None
    on_front: bool = False
    files: dict[str, str] = field(default_factory=dict)
    export_difference: float | None = None
    export_failed: str = ""
    failed: str = ""
    seconds: float = 0.0

    @property
    def architecture(self) -> Architecture:
        """The network as it was trained."""
        return Architecture.parse(self.block_args)

    @property
    def latency_ms(self) -> float:
        """Measured if it is, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms

    @property
    def bounds_ms(self) -> tuple[float, float]:
        """Of `latency_ms`: how far the rounds stand apart, or the model's 90 % interval."""
        if self.measured_ms is None:
            return self.low_ms, self.high_ms
        spread = self.spread or 0.0
        return self.measured_ms * (1 - spread), self.measured_ms * (1 + spread)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PromotedNetwork:
        """Inverse of `to_dict`.

        Raises:
            ValueError, TypeError: A field is missing, unknown or no number.
        """
        found = cls(**row)
        numbers = ("id", "top1_estimated", "estimated_error", "images", "epochs", "predicted_ms",
                   "low_ms", "high_ms", "macs", "params", "seconds")  # fmt: skip
        maybe = ("top1", "top1_error", "top5", "measured_ms", "spread", "export_difference")
        for name in (*numbers, *maybe):
            value = getattr(found, name)
            if not (isinstance(value, int | float) or (value is None and name in maybe)):
                raise ValueError(f"{name} is {value!r}")
        for name in ("candidate", "block_args", "failed", "export_failed"):
            if not isinstance(getattr(found, name), str):
                raise ValueError(f"{name} is {getattr(found, name)!r}")
        if not isinstance(found.files, dict) or not isinstance(found.on_front, bool):
            raise ValueError("files is a table, on_front true or false")
        return found


@dataclass(frozen=True)
class Promoted:
    """What came of promoting the best of a run.

    Args:
        networks: By rising id, failed ones among them.
        target_ms, target: Of the run.
        device: For which it was searched.
        origin: Of the measured latencies: "measured", "simulated"; "" where none is.
        recipe, seed: How all were trained.
        images: Sets by part, "train" and "test": source, digest and number of images.
        kendall_tau: Rank correlation between estimated and trained top-1; None for fewer than
            two networks, or where all are equal.
        score: Of predicted against measured latencies; None where none was measured.
        verdict, conditions: Of the measuring; None where none was done.
        seconds: That all of it took, stops left out.
    """

    networks: tuple[PromotedNetwork, ...]
    target_ms: float | None
    target: str
    device: str
    recipe: dict[str, Any]
    seed: int
    images: dict[str, Any]
    origin: str = ""
    kendall_tau: float | None = None
    score: Score | None = None
    verdict: Verdict | None = None
    conditions: Conditions | None = None
    seconds: float = 0.0

    @property
    def trained(self) -> tuple[PromotedNetwork, ...]:
        """Those that have a trained top-1."""
        return tuple(n for n in self.networks if n.top1 is not None)

    @property
    def front(self) -> ParetoFront:
        """Those trained that no other beats in top-1 and latency, by rising latency.

        Top-1 is the trained one with its standard error, latency the measured one where there is
        one, bounded by the spread of its rounds. With a target those that miss it are left out,
        unless all do. `id` is that of the run's candidate; the hypervolume is in the box from
        top-1 1 to 0 and from 0 ms to the target, or to the slowest of them.
        """
        rows = [n for n in self.trained if n.on_front]
        rows.sort(key=lambda n: n.latency_ms)
        bound = self.target_ms or max((n.latency_ms for n in self.trained), default=1.0)
        losses = np.array([[n.latency_ms, 1 - (n.top1 or 0.0)] for n in rows]).reshape(-1, 2)
        volume = hypervolume(losses, [0.0, 0.0], [bound * (1 + 1e-9), 1.0])
        return ParetoFront(
            tuple(self._candidate(n) for n in rows), self.target_ms, self.target, volume
        )

    def _candidate(self, n: PromotedNetwork) -> Candidate:
        top1, (low_ms, high_ms) = n.top1 or 0.0, n.bounds_ms
        value = None
        if self.target_ms is not None:
            value = float(reward([top1], [n.latency_ms], self.target_ms)[0])
        return Candidate(
            id=n.id, block_args=n.block_args, top1=top1, top1_error=n.top1_error or 0.0,
            outside=False, latency_ms=n.latency_ms, low_ms=low_ms, high_ms=high_ms, covered=True,
            macs=n.macs, params=n.params, reward=value, measured_ms=n.measured_ms,
        )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """The front, a row a network, each number with its origin."""
        told = {n.id: n for n in self.networks}
        return [
            {
                "id": c.id,
                "block_args": c.block_args,
                "top1": c.top1,
                "top1_error": c.top1_error,
                "top1_origin": "trained",
                "latency_ms": c.latency_ms,
                "low_ms": c.low_ms,
                "high_ms": c.high_ms,
                "latency_origin": "predicted" if c.measured_ms is None else self.origin,
                "meets_target": told[c.id].meets_target,
            }
            for c in self.front
        ]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "device": self.device,
            "target_ms": self.target_ms,
            "target": self.target,
            "recipe": self.recipe,
            "seed": self.seed,
            "images": self.images,
            "networks": [n.to_dict() for n in self.networks],
            "front": self.rows(),
            "kendall_tau": self.kendall_tau,
            "score": None if self.score is None else self.score.to_dict(),
            "origin": self.origin,
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "conditions": None if self.conditions is None else self.conditions.to_dict(),
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Promoted:
        """Inverse of `to_dict`; the front is told anew.

        Raises:
            KeyError, ValueError, TypeError: A field is missing or wrong.
        """
        verdict, score, conditions = (found[k] for k in ("verdict", "score", "conditions"))
        return cls(
            networks=tuple(PromotedNetwork.from_dict(row) for row in found["networks"]),
            target_ms=None if found["target_ms"] is None else float(found["target_ms"]),
            target=str(found["target"]),
            device=str(found["device"]),
            recipe=dict(found["recipe"]),
            seed=int(found["seed"]),
            images=dict(found["images"]),
            origin=str(found["origin"]),
            kendall_tau=None if found["kendall_tau"] is None else float(found["kendall_tau"]),
            score=None if score is None else Score.from_dict(score),
            verdict=None if verdict is None else Verdict(**verdict),
            conditions=None if conditions is None else Conditions.from_dict(conditions),
            seconds=float(found["seconds"]),
        )

    def save(self, run_dir: Path) -> Path:
        """Write `promoted.json` into the run's folder, whole or not at all.

        Raises:
            StoreError: The disk does not take it.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        return write_atomic(run_dir / FILE, text + "\n")


def on_front(networks: list[PromotedNetwork], target_ms: float | None) -> set[int]:
    """Ids of the trained networks that none beats in top-1 and latency.

    With a target only those that meet it count, unless none does.
    """
    rows = [n for n in networks if n.top1 is not None]
    if target_ms is not None:
        rows = [n for n in rows if n.latency_ms <= target_ms] or rows
    if not rows:
        return set()
    losses = np.array([[n.latency_ms, 1 - (n.top1 or 0.0)] for n in rows])
    return {rows[i].id for i in non_dominated(losses)}


def kendall(networks: list[PromotedNetwork]) -> float | None:
    """Kendall's τ-b between estimated and trained top-1; None where there is none."""
    from scipy import stats

    pairs = [(n.top1_estimated, n.top1) for n in networks if n.top1 is not None]
    if len(pairs) < 2:
        return None
    tau = float(stats.kendalltau(*zip(*pairs, strict=True)).statistic)
    return None if math.isnan(tau) else tau


def read_promoted(run_dir: str | Path) -> Promoted | None:
    """What `phonenas promote` wrote into a run; None where it has not been given yet.

    Raises:
        UnsupportedFormat: Another format or version (both are named), or damaged.
        StoreError: It cannot be read.
    """
    path = Path(run_dir) / FILE
    again = f"Make it anew:  phonenas promote {run_dir} --data ..."
    found = _DOCUMENT.read(path, again)
    if found is None:
        return None
    with _DOCUMENT.checking(path, again):
        return Promoted.from_dict(found)
