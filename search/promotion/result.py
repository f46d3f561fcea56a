"""Promoted: networks of a run that were trained in full and measured, and the front of those.

    RUN/promoted.json        all of it; format "phonenas-promoted", version 1
    RUN/promoted/ID/         a network's own folder: its checkpoints, its files, a promoted.json

Each number has its origin: top-1 is *estimated* by the search or *trained*, latency *predicted* by
the model or *measured* by the device (*simulated* by one without hardware). An estimated and a
trained top-1 are on two scales, so only trained networks can be on the front.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.data import Conditions
from phonenas.data.documents import Count, Document, Ms, Number, Share, Text, strict
from phonenas.devices.measuring.protocol import Verdict
from phonenas.latency_model import Score, kendall_tau
from phonenas.space import Architecture
from phonenas.space.naming import counted
from phonenas.space.precision import FLOAT32

from ..exported_file import ExportedFile, FileLatency
from ..pareto import Candidate, ParetoFront, hypervolume, non_dominated
from ..strategies.reward import reward
from ..training.export.quantised import QuantisedModel
from ..training.finetuning.tuned import FineTuned
from ..validation.validate import Validated, target_verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FILE", "Promoted", "PromotedNetwork", "read_promoted"]

FILE = "promoted.json"
_RUN_BY_PHONES = ("onnx", "tflite")  # and the same in another precision: "onnx int8"
_MEASURED = ("measured_ms", "spread", "file", "meets_target", "verdict")
_DOCUMENT = Document("phonenas-promoted", 2, "file of promoted networks")
_PLAIN = (
    "device",
    "precision",
    "target_ms",
    "target",
    "recipe",
    "seed",
    "images",
    "origin",
    "seconds",
    "run",
)


@dataclass(frozen=True, kw_only=True)
class PromotedNetwork:
    """One network: estimated, trained, predicted, measured.

    Args:
        id: Of the run's candidate.
        candidate: Its block string in the run.
        block_args: As it was trained: with the classes of the images.
        top1_estimated, estimated_error: Of the search, in [0, 1], with its standard error.
        top1, top5: On the test images after training, in [0, 1]; None where that failed.
        top1_error: Standard error of `top1` as a share of `images`: √(p (1 - p) / n).
        images: Test images.
        epochs: Trained.
        predicted_ms, low_ms, high_ms: By the latency model, with its 90 % interval.
        predicted_as_trained: Whether that is of `block_args`, not of `candidate`.
        measured_ms: By the device: of the exported file, or, where it was not measured, of the
            architecture with random weights; None where nothing was measured.
        spread: Error bar of that: half its 90 % interval, relative.
        file: The exported file beside the architecture with random weights; None where no device
            was asked.
        unmeasured: Why the device gave no stable measurement; "" where it gave one or was not
            asked.
        meets_target: By the measured latency, else by the predicted; None without a target.
        verdict: The same with the interval taken into account, as `target_verdict`.
        on_front: Whether no other trained network beats it in both.
        macs, params: Counted, of `block_args`.
        files: What was exported: "weights", "card", "onnx", "tflite", "onnx int8" … → path in the
            run's folder.
        sha256: Of the files that a phone runs, as they were exported: "onnx", "tflite", "onnx
            int8" … → 64 hexadecimal digits.
        precision: What was searched, and what ships.
        quantised: The files in another precision beside those in float32, on the test images.
        finetuned: What the fine-tuning for int8 came to; None where none was asked for.
        export_difference: Largest difference of a logit between these and torch.
        export_failed: Why an exported form is missing; "" where none is.
        failed: Why there is no trained network; "" where there is one.
        seconds: Duration of its training.
    """

    id: Count
    candidate: Text
    block_args: Text
    top1_estimated: Share
    estimated_error: Share
    top1: Share | None = None
    top1_error: Share | None = None
    top5: Share | None = None
    images: Count = 0
    epochs: Count = 0
    predicted_ms: Ms
    low_ms: Ms
    high_ms: Ms
    predicted_as_trained: bool
    macs: Count
    params: Count
    measured_ms: Ms | None = None
    spread: Number | None = None
    file: FileLatency | None = None
    unmeasured: Text = ""
    meets_target: bool | None = None
    verdict: str | None = None
    on_front: bool = False
    files: dict[str, Text] = field(default_factory=dict)
    sha256: dict[str, Text] = field(default_factory=dict)
    precision: Text = FLOAT32
    quantised: tuple[QuantisedModel, ...] = ()
    finetuned: FineTuned | None = None
    export_difference: Number | None = None
    export_failed: Text = ""
    failed: Text = ""
    seconds: Number = 0.0

    @property
    def architecture(self) -> Architecture:
        """The network as it was trained."""
        return Architecture.parse(self.block_args)

    @property
    def quantised_file(self) -> QuantisedModel | None:
        """Of the files in another precision the one in the format that a device ran, else the
        first."""
        form = "" if self.file is None else self.file.file.rpartition(".")[2]
        same = [q for q in self.quantised if q.name == form]
        return next(iter([*same, *self.quantised]), None)

    @property
    def in_precision(self) -> bool:
        """Whether a file of it is in the precision of the run."""
        q = self.quantised_file
        return self.precision == FLOAT32 or (q is not None and q.precision == self.precision)

    @property
    def shipped(self) -> tuple[float, float]:
        """Top-1 of what ships, with its standard error; 0 where it failed.

        Of a quantised file that of training, on all test images, and the change, on those of the
        export. The error is that of both as if they were independent, which is rather too high:
        the more of the images float32 names correctly, the more int8 can lose. Of a file that no
        runtime here runs it is that of the training.
        """
        q, error = self.quantised_file, self.top1_error or 0.0
        if self.top1 is None:
            return 0.0, 0.0
        if q is None or q.precision != self.precision or q.not_run:
            return self.top1, error
        return min(max(self.top1 + q.change, 0.0), 1.0), math.hypot(error, q.change_error)

    @property
    def latency_ms(self) -> float:
        """Measured if it is, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms

    @property
    def bounds_ms(self) -> tuple[float, float]:
        """90 % interval of `latency_ms`: of the measurement, or of the model."""
        if self.measured_ms is None:
            return self.low_ms, self.high_ms
        spread = self.spread or 0.0
        return self.measured_ms * max(0.0, 1 - spread), self.measured_ms * (1 + spread)

    def measured(self, v: Validated, target_ms: float | None) -> PromotedNetwork:
        """With what a device measured: of its file, which is what ships, if that computes in what
        was searched; else of its architecture.

        Args:
            v: The network as it was validated.
            target_ms: Of the run; None without one.
        """
        ms, spread = v.measured_ms, v.spread
        if v.file is not None and v.file.measured_ms is not None and not v.file.precision:
            ms, spread = v.file.measured_ms, math.nan if v.file.spread is None else v.file.spread
        return replace(
            self,
            measured_ms=ms,
            spread=spread if spread == spread else None,
            file=v.file,
            meets_target=None if target_ms is None else ms <= target_ms,
            verdict=target_verdict(ms, spread, target_ms),
        )

    def exported(self, run_dir: Path) -> ExportedFile | None:
        """Its files that a phone runs, in the run's folder; None where none was exported."""
        paths: dict[str, list[Path]] = {}
        known: dict[str, str] = {}
        for kind, file in self.files.items():
            form, _, of = kind.partition(" ")
            if form in _RUN_BY_PHONES:
                paths.setdefault(of or FLOAT32, []).append(run_dir / file)
                known |= {Path(file).name: self.sha256[kind]} if kind in self.sha256 else {}
        return ExportedFile.of(self.architecture, paths, known, self.precision)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PromotedNetwork:
        """Inverse of `to_dict`.

        Raises:
            ValueError: A field is missing, or a value outside its range.
        """
        return strict(row, cls)


@dataclass(frozen=True)
class Promoted:
    """The best networks of a run, trained in full and perhaps measured.

    Args:
        networks: By rising id, failed ones among them.
        target_ms, target: Of the run.
        device: For which it was searched.
        origin: Of the measured latencies: "measured", "simulated" or "emulated"; "" where none is.
        recipe, seed: How all were trained.
        images: Sets by part, "train" and "test": source, digest and number of images.
        score: Of predicted against measured latencies; None where none was measured.
        verdict, conditions: Of the measurement; None where there was none.
        seconds: Duration of all of it, stops left out.
        run: Digest of the run's settings; "" in files of phonenas 0.1.
        precision: In which it was searched.
    """

    networks: tuple[PromotedNetwork, ...]
    target_ms: Ms | None
    target: Text
    device: Text
    recipe: dict[str, Any]
    seed: Count
    images: dict[str, Any]
    origin: Text = ""
    score: Score | None = None
    verdict: Verdict | None = None
    conditions: Conditions | None = None
    seconds: Number = 0.0
    run: Text = ""
    precision: Text = FLOAT32

    @property
    def trained(self) -> tuple[PromotedNetwork, ...]:
        """Those that have a trained top-1."""
        return tuple(n for n in self.networks if n.top1 is not None)

    @property
    def shipping(self) -> tuple[PromotedNetwork, ...]:
        """The trained ones that have a file in the precision of the run; all, if none has."""
        return tuple(n for n in self.trained if n.in_precision) or self.trained

    def __repr__(self) -> str:
        best = max((n.shipped[0] for n in self.trained), default=0.0)
        return (
            f"Promoted({len(self.trained)} of {counted(len(self.networks), 'network')} trained, "
            f"top-1 up to {best:.1%}, for {self.device})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a network, the fields of `PromotedNetwork`, by rising id."""
        import pandas as pd

        columns = [f.name for f in fields(PromotedNetwork)]
        return pd.DataFrame([asdict(n) for n in self.networks], columns=columns)

    @property
    def kendall_tau(self) -> float | None:
        """Kendall's τ-b between estimated top-1 and that of what ships; None where it is not
        defined: for fewer than two networks that ship, or where all are equal."""
        rows = self.shipping
        tau = kendall_tau([n.top1_estimated for n in rows], [n.shipped[0] for n in rows])
        return None if tau != tau else tau

    @property
    def front(self) -> ParetoFront:
        """The networks of `shipping` that no other beats in top-1 and latency, by rising latency.

        Top-1 is that of what ships with its standard error, latency the measured one where there is
        one, with its 90 % interval. With a target those that miss it are left out,
        unless all do. `id` is that of the run's candidate; the hypervolume is in the box from
        top-1 1 to 0 and from 0 ms to the target, or to the slowest of them.
        """
        rows = [n for n in self.trained if n.on_front]
        rows.sort(key=lambda n: n.latency_ms)
        bound = self.target_ms or max((n.latency_ms for n in self.trained), default=1.0)
        losses = np.array([[n.latency_ms, 1 - n.shipped[0]] for n in rows]).reshape(-1, 2)
        volume = hypervolume(losses, [0.0, 0.0], [bound * (1 + 1e-9), 1.0])
        return ParetoFront(
            tuple(self._candidate(n) for n in rows),
            self.target_ms,
            self.target,
            volume,
            self.origin,
        )

    @property
    def predicted_front(self) -> ParetoFront:
        """All trained networks with their predicted latencies, as `validate` takes them."""
        rows = [replace(n, measured_ms=None) for n in self.trained]
        return ParetoFront(
            tuple(self._candidate(n) for n in rows), self.target_ms, self.target, 0.0, self.origin
        )

    def with_measurements_of(self, earlier: Promoted | None) -> Promoted:
        """With what an earlier call measured of the same networks, and the front of that."""
        before = {n.block_args: n for n in (earlier.networks if earlier else ())}
        networks = []
        for n in self.networks:
            b = before.get(n.block_args)
            if b is not None and b.measured_ms is not None and n.top1 is not None:
                n = replace(n, **{name: getattr(b, name) for name in _MEASURED})
            networks.append(n)
        result = self
        if earlier is not None and any(n.measured_ms is not None for n in networks):
            result = replace(
                self,
                origin=earlier.origin,
                score=earlier.score,
                verdict=earlier.verdict,
                conditions=earlier.conditions,
            )
        return result.with_front(networks)

    def with_front(self, networks: list[PromotedNetwork]) -> Promoted:
        """With these networks, those marked that none beats in top-1 and latency.

        Those without a file in the precision of the run do not count if others have one. With a
        target only those that meet it count, unless none does.
        """
        rows = list(replace(self, networks=tuple(networks)).shipping)
        if self.target_ms is not None:
            rows = [n for n in rows if n.latency_ms <= self.target_ms] or rows
        losses = np.array([[n.latency_ms, 1 - n.shipped[0]] for n in rows]).reshape(-1, 2)
        best = {rows[i].id for i in non_dominated(losses)}
        return replace(self, networks=tuple(replace(n, on_front=n.id in best) for n in networks))

    def _candidate(self, n: PromotedNetwork) -> Candidate:
        (top1, top1_error), (low_ms, high_ms) = n.shipped, n.bounds_ms
        value = None
        if self.target_ms is not None:
            value = float(reward([top1], [n.latency_ms], self.target_ms)[0])
        return Candidate(
            id=n.id,
            block_args=n.block_args,
            top1=top1,
            top1_error=top1_error,
            outside=False,
            latency_ms=n.latency_ms,
            low_ms=low_ms,
            high_ms=high_ms,
            covered=True,
            macs=n.macs,
            params=n.params,
            reward=value,
            measured_ms=n.measured_ms,
        )

    def rows(self) -> list[dict[str, Any]]:
        """The front, a row a network, each number with its origin."""
        by_id = {n.id: n for n in self.networks}
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
                "meets_target": by_id[c.id].meets_target,
                "verdict": by_id[c.id].verdict,
            }
            for c in self.front
        ]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "format": _DOCUMENT.format,
            "version": _DOCUMENT.version,
            **{name: getattr(self, name) for name in _PLAIN},
            "networks": [n.to_dict() for n in self.networks],
            "front": self.rows(),
            "kendall_tau": self.kendall_tau,
            "score": None if self.score is None else self.score.to_dict(),
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "conditions": None if self.conditions is None else self.conditions.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Promoted:
        """Inverse of `to_dict`; the front and the rank correlation are computed again.

        Raises:
            ValueError: A field is missing, or a value outside its range.
        """
        score = document.get("score")
        kept = None if score is None else Score.from_dict(score)
        return replace(strict({**document, "score": None}, cls), score=kept)

    def save(self, run_dir: Path) -> Path:
        """Write `promoted.json` into the run's folder, whole or not at all.

        Raises:
            StoreError: The disk does not take it.
        """
        return _DOCUMENT.write(run_dir / FILE, self.to_dict())


def read_promoted(run_dir: str | Path) -> Promoted | None:
    """What `phonenas promote` wrote into a run; None where it was not promoted yet.

    Raises:
        UnsupportedFormat: Another format or version (both are named), or damaged.
        StoreError: It cannot be read.
    """
    path = Path(run_dir) / FILE
    name = shlex.quote(str(path))
    remedy = (
        "Move it away and promote again: no training and no measurement is lost:  "
        f"mv {name} {name}.damaged"
    )
    document = _DOCUMENT.read(path, remedy)
    if document is None:
        return None
    with _DOCUMENT.checking(path, remedy):
        return Promoted.from_dict(document)
