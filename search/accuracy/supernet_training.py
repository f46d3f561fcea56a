"""train_supernet(): weights shared over a space's choices, trained once for all of its networks.

Each step takes one batch of images. The largest network, the smallest and some random ones (see
`paths`) each have their loss on it, and the mean of their gradients is one step of AdamW under a
cosine: networks come and go, so each weight sees steps of its own, and Adam fits its rate to them.
(On nasbench-macro at 16 px the mean loss of random networks was 2.14 after 132 steps, from 2.30,
where SGD still stood at 2.30.) A part of the training images is held out for reading; test images
are never seen.

A folder holds what came out: `supernet.json`, `weights.safetensors`, and while it is under way
`checkpoint.safetensors`, from which the same call goes on to the same weights.

Source: Yu and Huang, Universally Slimmable Networks, ICCV 2019 (sandwich rule, in-place
distillation); Guo et al., Single Path One-Shot NAS, 2019; Chu et al., FairNAS, ICCV 2021.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.documents import only
from ...data.files import write_atomic
from ...space import SearchSpace
from ...space.errors import InvalidArgument
from ..training.evaluation import computing, pick_device, require_torch
from ..training.hold import hold, tidy
from ..training.recipe import SMALL, Recipe
from .supernet_folder import document_of, same_settings, space_digest
from .supernet_run import Run, SupernetEpoch

if TYPE_CHECKING:
    from ...data.images import ImageSet

__all__ = ["RECIPE", "SupernetEpoch", "train_supernet"]

RECIPE = SMALL.changed(batch=64, learning_rate=0.008, weight_decay=0.01, label_smoothing=0.0)
"""`small` with the values of AdamW: a rate of 0.002 at its height, for batches of 64."""

_USED = (
    "epochs", "batch", "learning_rate", "schedule", "warmup_epochs", "decay_factor", "decay_epochs",
    "momentum", "weight_decay", "label_smoothing", "augment", "precision",
)  # fmt: skip


def train_supernet(
    space: SearchSpace,
    images: ImageSet,
    *,
    into: str | Path,
    recipe: Recipe = RECIPE,
    hold_out: float = 0.1,
    random: int = 2,
    sandwich: bool = True,
    distil: bool = False,
    seed: int = 0,
    threads: int = 1,
    device: str = "auto",
    loaders: int = 0,
    on_event: Callable[[SupernetEpoch], None] | None = None,
) -> dict[str, Any]:
    """Train the shared weights of a space on a user's images, or go on with it.

    The same call on a folder that it was stopped in goes on to the same weights; on a folder
    that is done it gives what is there.

    Args:
        space: Whose networks; its resolution is that of the images. A search may ask for networks
            of a higher one: they are judged at this.
        images: Training images.
        into: Folder.
        recipe: Epochs, batch, rate and schedule, weight decay (decoupled), smoothing, augmentation;
            its momentum is Adam's first beta. The optimizer, dropout and average are not used.
        hold_out: Share of the images held out for reading, alike in every class, in (0, 1).
        random: Random networks a step, ≥ 1.
        sandwich: The largest and the smallest join each step.
        distil: All but the largest learn from the largest's answers instead of the labels; needs
            `sandwich`.
        seed: Of all chance.
        threads: Of torch on the CPU, ≥ 1; the weights depend on it, a little.
        device: "auto", "cpu" or "cuda". On a GPU products are in bfloat16 where the recipe's
            precision does not say float32.
        loaders: Processes that read images.
    Returns:
        What `supernet.json` holds: settings, curve, seconds, and top-1 of the largest, the
        smallest and 20 random networks.
    Raises:
        InvalidArgument: A value outside its range; or the loss left the numbers.
        NotEnoughData: Fewer images than a batch.
        SettingsChanged: The folder's supernet was begun with other settings; both are named.
        UnsupportedFormat: The folder's files are damaged.
        StoreError: The disk does not take them.
        MissingExtra: torch or safetensors is not installed.
    """
    require_torch()

    if distil and not sandwich:
        raise InvalidArgument("distil learns from the largest network: it needs sandwich")
    folder = Path(into)
    only(folder, "supernet.json")
    settings: dict[str, Any] = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "space_digest": space_digest(space),
        "classes": list(images.classes),
        "images": images.digest,
        "recipe": {k: recipe.settings[k] for k in _USED},
        "hold_out": hold_out,
        "random": random,
        "sandwich": sandwich,
        "distil": distil,
        "seed": seed,
        "threads": threads,
        "device": str(pick_device(device).type),
    }
    done = _begun(folder, settings)
    if done is not None:
        return done
    held = hold(folder)
    try:
        done = _begun(folder, settings)  # another process may just have ended it
        if done is not None:
            return done
        if held is not None:
            tidy(folder, ("checkpoint.safetensors", "weights.safetensors", "supernet.json"))
        return _trained(folder, Run(space, images, recipe, settings, loaders), on_event)
    finally:
        if held is not None:
            os.close(held)


def _trained(
    folder: Path, run: Run, on_event: Callable[[SupernetEpoch], None] | None
) -> dict[str, Any]:
    """From where it stopped to the end."""
    from ..training import checkpoint

    settings = run.settings
    kept = checkpoint.read(
        folder / "checkpoint.safetensors", f"Remove it to train anew:  rm {folder}/checkpoint.*"
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
    checkpoint.write(folder / "weights.safetensors", run.shared.tensors, {"settings": settings})
    write_atomic(folder / "supernet.json", json.dumps(document, indent=1, allow_nan=False))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return document


def _begun(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What a finished training left; None where none is finished."""
    path = folder / "supernet.json"
    if not path.exists():
        return None
    found = document_of(folder)
    same_settings(folder, found["settings"], settings)
    return found
