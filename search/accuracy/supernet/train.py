"""train_supernet(): weights shared over a space's choices, trained once for all of its networks.

Each step takes one batch of images. The largest network, the smallest and some random ones (see
`paths`) each have their loss on it, and the mean of their gradients is one step of AdamW under a
cosine. Networks change from step to step, so each weight has steps of its own, and Adam adapts its
rate to them. (On nasbench-macro at 16 px the mean loss of random networks was 2.14 after 132 steps,
from 2.30; SGD was still at 2.30.) A part of the training images is held out to evaluate networks
on; test images are never used.

A folder holds the result, `supernet.json` and `weights.safetensors`; during the training it holds
`checkpoint.safetensors`, from which the same call goes on to the same weights.

Source: Yu and Huang, Universally Slimmable Networks, ICCV 2019 (sandwich rule, in-place
distillation); Guo et al., Single Path One-Shot NAS, 2019; Chu et al., FairNAS, ICCV 2021.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data.documents import only
from phonenas.data.files import lock_folder, remove_unfinished
from phonenas.space import SearchSpace
from phonenas.space.errors import InvalidArgument

from ...training.recipe import SMALL, Recipe
from ...training.resources import Resources, computing, pick_device, require_torch
from .folder import DOCUMENT, document_of, same_settings, space_digest
from .run import Run, SupernetEpoch

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = ["RECIPE", "Sharing", "SupernetEpoch", "train_supernet"]

RECIPE = SMALL.changed(batch=64, learning_rate=0.008, weight_decay=0.01, label_smoothing=0.0)
"""`small` with the values of AdamW: a rate of 0.002 at its height, for batches of 64."""

_USED = (
    "epochs",
    "batch",
    "learning_rate",
    "schedule",
    "warmup_epochs",
    "decay_factor",
    "decay_epochs",
    "momentum",
    "weight_decay",
    "label_smoothing",
    "augment",
    "precision",
)


@dataclass(frozen=True)
class Sharing:
    """Which networks train the shared weights, and how they are evaluated.

    Args:
        hold_out: Share of the images held out to evaluate on, the same in every class, in (0, 1).
        random: Random networks a step, ≥ 1.
        sandwich: The largest and the smallest join each step.
        distil: All but the largest learn from the largest's answers instead of the labels; needs
            `sandwich`.
    Raises:
        InvalidArgument: `distil` without `sandwich`.
    """

    hold_out: float = 0.1
    random: int = 2
    sandwich: bool = True
    distil: bool = False

    def __post_init__(self) -> None:
        if self.distil and not self.sandwich:
            raise InvalidArgument("distil learns from the largest network: it needs sandwich")


def train_supernet(
    space: SearchSpace,
    images: ImageSet,
    *,
    into: str | Path,
    recipe: Recipe = RECIPE,
    sharing: Sharing | None = None,
    seed: int = 0,
    resources: Resources | None = None,
    on_event: Callable[[SupernetEpoch], None] | None = None,
) -> dict[str, Any]:
    """Train the shared weights of a space on a user's images, or go on with it.

    The same call on a folder in which it was stopped goes on to the same weights; on a finished
    folder it returns its result.

    Args:
        space: Whose networks; its resolution is that of the images. Networks of another resolution
            are evaluated at this one.
        images: Training images.
        into: Folder.
        recipe: Epochs, batch, rate and schedule, weight decay (decoupled), smoothing, augmentation;
            its momentum is Adam's first beta. The optimizer, dropout and average are not used.
        sharing: Which networks train, and how they are evaluated.
        seed: Of all chance.
        resources: Device, threads (1 by default) and loader processes. The last digits of weights
            depend on the threads. On a GPU products are in bfloat16 where the recipe's precision
            is not float32.
        on_event: Called after each epoch.
    Returns:
        The content of `supernet.json`: settings, curve, seconds, and top-1 of the largest, the
        smallest and 20 random networks.
    Raises:
        InvalidArgument: A value outside its range; or the loss is not a finite number.
        NotEnoughData: Fewer images than a batch.
        SettingsChanged: The folder's supernet was begun with other settings; both are named.
        UnsupportedFormat: The folder's files are damaged.
        StoreError: The disk does not take them.
        MissingExtra: torch or safetensors is not installed.
    """
    require_torch()
    sharing, resources = sharing or Sharing(), resources or Resources()
    folder = Path(into)
    only(folder, "supernet.json")
    settings: dict[str, Any] = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "space_digest": space_digest(space),
        "classes": list(images.classes),
        "images": images.digest,
        "recipe": {k: recipe.settings[k] for k in _USED},
        **asdict(sharing),
        "seed": seed,
        "threads": resources.threads or 1,
        "device": str(pick_device(resources.device).type),
    }
    done = _begun(folder, settings)
    if done is not None:
        return done
    lock = lock_folder(folder)
    try:
        only(folder, "supernet.json")  # of what came while another process had the folder
        done = _begun(folder, settings)  # another process may just have ended it
        if done is not None:
            return done
        if lock.error is None:
            remove_unfinished(
                folder, ("checkpoint.safetensors", "weights.safetensors", "supernet.json")
            )
        return _trained(folder, Run(space, images, recipe, settings, resources.loaders), on_event)
    finally:
        lock.close()


def _trained(
    folder: Path, run: Run, on_event: Callable[[SupernetEpoch], None] | None
) -> dict[str, Any]:
    """Train to the end, from a checkpoint where there is one."""
    from ...training.weights import load_checkpoint, save_checkpoint

    settings = run.settings
    kept = load_checkpoint(
        folder / "checkpoint.safetensors",
        f"Remove it to start again:  rm {shlex.quote(str(folder))}/checkpoint.*",
    )
    with computing(int(settings["threads"])):
        if kept is not None:
            same_settings(folder, kept.document["settings"], settings)
            run.restore(kept.tensors, kept.document)
        else:
            run.keep(folder)
        for event in run.epochs(folder):
            if on_event is not None:
                on_event(event)
        document = run.document()
    save_checkpoint(folder / "weights.safetensors", run.shared.tensors, {"settings": settings})
    DOCUMENT.write(folder / "supernet.json", document)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return document_of(folder)


def _begun(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What a finished training left; None where none is finished."""
    path = folder / "supernet.json"
    if not path.exists():
        return None
    found = document_of(folder)
    same_settings(folder, found["settings"], settings)
    return found
