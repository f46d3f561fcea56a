"""What becomes of a candidate on its way to a promoted network, step by step."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data import Conditions
from ..latency_model import LatencyModel
from ..space.errors import ExportDiffers, UncoveredOperator, UnsupportedFormat
from .pareto import Candidate, ParetoFront
from .promoted import FILE, Promoted, PromotedNetwork, on_front, read_promoted
from .run_folder import Loaded
from .validation import Validation

if TYPE_CHECKING:
    from ..data.images import ImageSet
    from .training.recipe import Recipe
    from .training.trained import Trained

__all__ = ["as_before", "exported", "planned", "promises", "set_told", "with_measured"]

log = logging.getLogger("phonenas")


def planned(
    c: Candidate, classes: int, run: Loaded, latency: LatencyModel | None
) -> PromotedNetwork:
    """A candidate before anything was done with it."""
    network = replace(c.architecture, classes=classes)
    promise, as_trained = (c.latency_ms, c.low_ms, c.high_ms), str(network) == c.block_args
    if latency is not None and not as_trained:
        try:
            told = latency.predict([network])
            promise = (float(told.ms[0]), float(told.low_ms[0]), float(told.high_ms[0]))
            as_trained = True
        except UncoveredOperator:
            pass  # a head far smaller than any that was measured: the run's promise stands
    n = PromotedNetwork(
        id=c.id, candidate=c.block_args, block_args=str(network), top1_estimated=c.top1,
        estimated_error=c.top1_error, top1=None, top1_error=None, top5=None, images=0, epochs=0,
        predicted_ms=promise[0], low_ms=promise[1], high_ms=promise[2],
        predicted_as_trained=as_trained, macs=network.macs, params=network.params,
    )  # fmt: skip
    target_ms = run.front.target_ms
    return n if target_ms is None else replace(n, meets_target=n.predicted_ms <= target_ms)


def exported(
    n: PromotedNetwork,
    trained: Trained,
    run_dir: Path,
    test: ImageSet,
    recipe: Recipe,
    formats: tuple[str, ...] | None,
    threads: int | None,
) -> PromotedNetwork:
    """What a training gave, with its files written."""
    from .training.export import WEIGHTS, export

    n = replace(n, epochs=len(trained.curve), seconds=trained.seconds, images=trained.images_held)
    if trained.diverged or trained.top1 != trained.top1:
        return replace(n, failed=trained.diverged or "its top-1 is no number")
    p, count = trained.top1, max(trained.images_held, 1)
    n = replace(n, top1=p, top5=trained.top5, top1_error=sqrt(p * (1 - p) / count))
    folder = run_dir / "promoted" / str(n.id)
    try:
        done = export(
            trained, folder, test, formats=formats, recipe=recipe.digest, threads=threads or 1
        )
    except ExportDiffers as error:
        kept = {
            name: str((folder / file).relative_to(run_dir))
            for name, file in (("weights", WEIGHTS), ("onnx", "network.onnx"),
                               ("tflite", "network.tflite"))
            if (folder / file).exists()
        }  # fmt: skip
        return replace(n, export_failed=str(error), files=kept)
    files = {name: path.relative_to(run_dir).as_posix() for name, path in done.files.items()}
    left = "; ".join(f"{form}: {reason}" for form, reason in done.left_out.items())
    return replace(n, files=files, export_difference=done.difference, export_failed=left)


def as_before(now: Promoted, run_dir: Path) -> Promoted:
    """With what an earlier call measured of the same networks."""
    try:
        before = read_promoted(run_dir)
    except UnsupportedFormat as error:
        # All in it is told anew, and what was measured is still in the store.
        log.warning("%s is written anew: %s", run_dir / FILE, error)
        before = None
    held = {} if before is None else {n.block_args: n for n in before.networks}
    networks = []
    for n in now.networks:
        b = held.get(n.block_args)
        if b is not None and b.measured_ms is not None and n.top1 is not None:
            n = replace(n, measured_ms=b.measured_ms, spread=b.spread, meets_target=b.meets_target)
        networks.append(n)
    if before is not None and any(n.measured_ms is not None for n in networks):
        now = replace(
            now, origin=before.origin, score=before.score, verdict=before.verdict,
            conditions=before.conditions,
        )  # fmt: skip
    return _with_front(now, networks)


def promises(result: Promoted) -> ParetoFront:
    """The trained networks with their predicted latencies, as `validate` takes them."""
    candidates = tuple(
        Candidate(
            id=n.id, block_args=n.block_args, top1=n.top1 or 0.0, top1_error=n.top1_error or 0.0,
            outside=False, latency_ms=n.predicted_ms, low_ms=n.low_ms, high_ms=n.high_ms,
            covered=True, macs=n.macs, params=n.params,
        )
        for n in result.trained
    )  # fmt: skip
    return ParetoFront(candidates, result.target_ms, result.target, 0.0)


def with_measured(result: Promoted, told: Validation, conditions: Conditions) -> Promoted:
    """With what the device said, and the front of that."""
    by_id = {v.candidate.id: v for v in told.networks}
    networks = []
    for n in result.networks:
        v = by_id.get(n.id)
        if v is not None:
            n = replace(n, measured_ms=v.measured_ms, spread=v.spread, meets_target=v.meets_target)
        networks.append(n)
    result = replace(
        result, origin=conditions.origin, score=told.score, verdict=told.verdict,
        conditions=conditions, seconds=result.seconds + told.seconds,
    )  # fmt: skip
    return _with_front(result, networks)


def _with_front(result: Promoted, networks: list[PromotedNetwork]) -> Promoted:
    there = on_front(networks, result.target_ms)
    return replace(result, networks=tuple(replace(n, on_front=n.id in there) for n in networks))


def set_told(images: ImageSet) -> dict[str, Any]:
    """What is kept of a set of images: source, digest and how many."""
    return {"source": images.source, "digest": images.digest, "images": len(images)}
