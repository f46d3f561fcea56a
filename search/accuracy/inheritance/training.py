"""A training of a search: where it is kept, when it pauses, and whose weights it begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phonenas.data.files import remove_unfinished
from phonenas.space import Architecture
from phonenas.space.errors import StoreError, UnknownName

from ...training.job import FirstWeights, TrainingJob
from ...training.resources import Resources
from ...training.result import Trained
from ...training.weights import load_weights, save_weights
from .transfer import carried_over

__all__ = ["Place", "trained_at"]


@dataclass(frozen=True)
class Place:
    """Of one training.

    Args:
        pause_after: Epochs of its recipe after which it pauses; None for all.
        folder: Where it is kept, and goes on; None: nowhere.
        inherited: Whether other networks inherit its weights: then these are kept whenever it
            pauses, and at its end.
        source: Whose weights it begins with: the folder of that training, after how many epochs,
            and the digest of what they depend on. None: its own first ones.
    """

    pause_after: int | None = None
    folder: str | None = None
    inherited: bool = False
    source: tuple[str, int, str] | None = None


def trained_at(
    network: Architecture, job: TrainingJob, place: Place, resources: Resources
) -> Trained:
    """Train a network to the epoch that a place says, from what is kept there.

    A worker that does not see the folder of the run trains from nothing, to the same answer; but
    where networks inherit weights it cannot.

    Raises:
        StoreError: Weights that are inherited are gone, or this worker does not see their folder.
        PhonenasError: As `run_job`.
    """
    from ...training.trainer import run_job

    folder = None if place.folder is None else Path(place.folder)
    if folder is not None and not folder.parent.is_dir():
        if place.inherited:
            raise StoreError(
                f"networks inherit weights from {folder.parent}, and this worker does not see it: "
                "give an --out that all nodes see, or leave --inherit out"
            )
        folder = None
    if place.source is not None:
        job = replace(job, start=_start(network.with_classes(len(job.images.classes)), job, place))
    trained = run_job(network, job, into=folder, resources=resources)
    if place.inherited and folder is not None and trained.weights:
        path = _weights(folder, place.pause_after or job.recipe.epochs)
        remove_unfinished(folder, [path.name])
        if not path.exists():
            save_weights(path, trained.network, trained.weights, {})
    return trained


def _weights(folder: Path, epochs: int) -> Path:
    return folder / f"weights{epochs}.safetensors"


def _start(network: Architecture, job: TrainingJob, place: Place) -> FirstWeights:
    """The weights of the source, carried over."""
    from phonenas.space.lowering.torch import state_arrays, to_torch

    assert place.source is not None
    folder, epochs, digest = place.source
    path = _weights(Path(folder), epochs)
    try:
        source, weights = load_weights(path)
    except UnknownName as error:
        raise StoreError(
            f"{path} is gone, whose weights {network} inherits: this run cannot go on without "
            "its folder of trainings. Search again, with another --out."
        ) from error
    assert isinstance(source, Architecture)
    first: Mapping[str, Any] = state_arrays(to_torch(network, seed=job.seed))
    arrays = carried_over(source, weights, network, first, job.seed)
    return FirstWeights(arrays, job.recipe.dropout, digest)
