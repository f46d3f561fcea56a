"""train(): a network and images in, trained weights and their accuracy out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...space import Architecture
from ...space.errors import InvalidArgument, NotEnoughData
from .evaluation import computing, require_torch
from .recipe import Recipe
from .trained import Began, Epoch, Event, Stepped, Trained

if TYPE_CHECKING:
    from ...data.image_set import ImageSet

__all__ = ["Began", "Epoch", "Event", "Stepped", "Trained", "train"]


def train(
    network: Architecture,
    images: ImageSet,
    held: ImageSet | None = None,
    *,
    recipe: Recipe,
    seed: int = 0,
    into: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int = 0,
    on_event: Callable[[Event], None] | None = None,
    checkpoint_s: float = 60.0,
    evaluate_each: int = 1,
) -> Trained:
    """Train a network from its first weights.

    On a CPU equal arguments and threads give equal weights, to the bit, whether the training was
    stopped and taken up or not (of several processes but for BatchNorm's statistics, whose
    averaging rounds with each checkpoint). A training that diverges is no error: `Trained.diverged` says so,
    and its accuracy is NaN. Started by torchrun, several processes train one network together
    (see `distributed`); each returns the same accuracy.

    Args:
        network: The network; its classes become those of the images.
        images: To train on, at least 2.
        held: To judge by after epochs and at the end; the same classes. None: no accuracy.
        recipe: See `recipe`.
        seed: Of first weights, order, augmentation and dropout, in [0, 2^63).
        into: Folder for checkpoints, curve and result; a training stopped in it goes on, one that
            is finished is read. None: nothing is kept.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: Of the CPU, for this time; None leaves torch's number.
        workers: Processes that decode files; 0 for none. The weights do not depend on it.
        on_event: Called with `Began`, `Stepped` and `Epoch`.
        checkpoint_s: Seconds between checkpoints within an epoch, ≥ 0.
        evaluate_each: Epochs between looks at the held-out images; 0 looks at the end alone.
    Raises:
        MissingExtra: torch or safetensors is not installed.
        InvalidArgument: A value out of range, or held-out images of other classes.
        NotEnoughData: Fewer than two images.
        InvalidImage: A file that is no image, where the set was opened with broken="stop".
        SettingsChanged: The folder holds a training with other settings; both are named.
        UnsupportedFormat: The folder's checkpoint is damaged; the message says what to do.
        StoreError: The folder cannot be written; the older checkpoint stays whole. Or another
            process trains in it.
        WorkersUnavailable: The processes of torchrun do not find each other.
    """
    require_torch()
    import torch

    from .distributed import together
    from .job import Job

    _check(images, held, seed, checkpoint_s, evaluate_each)
    network = replace(network, classes=len(images.classes))
    with computing(threads), together(device) as processes:
        cuda = [processes.device] if processes.device.type == "cuda" else []
        # The caller's chance stays as it was.
        with torch.random.fork_rng(devices=cuda):
            job = Job(
                network, images, held, recipe, seed, processes, into, checkpoint_s, workers,
                evaluate_each, on_event or (lambda event: None),
            )  # fmt: skip
            try:
                return job.run()
            finally:
                job.close()


def _check(
    images: ImageSet, held: ImageSet | None, seed: int, checkpoint_s: float, evaluate_each: int
) -> None:
    if not 0 <= seed < 2**63:
        raise InvalidArgument(f"seed: from 0 to below 2^63, got {seed}")
    if not checkpoint_s >= 0:
        raise InvalidArgument(f"checkpoint_s: 0 or more seconds, got {checkpoint_s}")
    if evaluate_each < 0:
        raise InvalidArgument(f"evaluate_each: 0 or more epochs, got {evaluate_each}")
    if len(images) < 2:
        # BatchNorm has no variance of one value.
        raise NotEnoughData(f"{images.source} has {len(images)} images; a training needs two")
    if held is not None and held.classes != images.classes:
        differ = sorted(set(held.classes) ^ set(images.classes)) or ["their order"]
        raise InvalidArgument(
            f"the images to train on and those to judge by have other classes: {differ[0]} is not "
            f"in both ({images.source}, {held.source})"
        )
    if held is not None and not len(held):
        raise NotEnoughData(f"{held.source} has no images to judge by")
