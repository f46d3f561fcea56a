"""One training, of a network or of a supernet, as a task for workers: another computer may do it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..space import Architecture
from ..space.errors import InvalidArgument, PhonenasError, StoreError, TaskFailed
from .workers import Needs, Workers

if TYPE_CHECKING:
    from ..data.images import ImageSet
    from ..space import SearchSpace
    from .training.recipe import Recipe
    from .training.trained import Event, Trained

__all__ = ["of_one_network", "supernet_on", "train_network", "train_on"]


def of_one_network(error: RuntimeError | MemoryError) -> str:
    """What torch says of one network, mostly that it takes more memory than there is.

    Raises:
        TaskFailed: It is no single network's: after an error of the GPU's own, everything that this
            process asks of it fails.
    """
    words = " ".join(str(error).split())[:200] or type(error).__name__
    broken = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "HIP error", "NCCL")
    if "out of memory" not in words and any(sign in words for sign in broken):
        raise TaskFailed(
            f"the GPU failed, so no further training can run in this process: {words}. Give the "
            "command again: what is finished is kept."
        ) from error
    return words


def train_network(
    block_args: str,
    images: ImageSet,
    test: ImageSet,
    recipe: Recipe,
    seed: int,
    folder: str | None,
    device: str,
    threads: int | None,
    loaders: int,
    on_event: Callable[[Event], None] | None,
) -> Trained | str:
    """The task of one training, for `Workers.map`.

    Returns:
        What `train` gave, or why this network cannot be trained.
    Raises:
        PhonenasError: What would stop every other network, too.
    """
    from .training.evaluation import pick_device
    from .training.trainer import train

    pick_device(device)  # where it is not there, no network can be trained
    try:
        return train(
            Architecture.parse(block_args), images, test, recipe=recipe, seed=seed, into=folder,
            device=device, threads=threads, workers=loaders, on_event=on_event,
        )  # fmt: skip
    except PhonenasError as error:
        if isinstance(error, InvalidArgument):  # this network and these images do not fit
            return str(error)
        raise
    except (RuntimeError, MemoryError) as error:
        return f"{type(error).__name__}: {of_one_network(error)}"


def train_on(
    workers: Workers,
    network: Architecture,
    images: ImageSet,
    held: ImageSet,
    *,
    recipe: Recipe,
    seed: int = 0,
    into: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    loaders: int = 0,
    needs: Needs | None = None,
) -> Trained:
    """Train one network where the workers are, and keep what came of it here.

    Args:
        workers: Who trains; of several, one does.
        network, images, held, recipe, seed, device, threads, loaders: As `train` takes them.
        into: Folder. Where the workers see it too, checkpoints and the curve grow in it and a
            training that was stopped goes on; else it gets the result at the end.
        needs: What the training holds; by default as many processors as threads.
    Raises:
        TaskFailed: It could not go on; torch's reason.
        SettingsChanged: The folder holds a training with other settings; told before any work.
        PhonenasError: As `train` and `Workers.map`.
    """
    from .training.folder import TrainingFolder, finished_in, settings_of

    network = replace(network, classes=len(images.classes))
    settings = settings_of(network, images, held, recipe, seed)
    if into is not None and (done := finished_in(into, settings)) is not None:
        return done
    folder = None if into is None else str(into.resolve())
    (told,) = workers.map(
        train_network,
        [(str(network), images, held, recipe, seed, folder, device, threads, loaders, None)],
        needs=needs or Needs(cpus=threads or 1),
    )
    if isinstance(told, str):
        raise TaskFailed(
            f"the training could not go on: {told}. If the memory does not suffice, give a "
            "smaller batch or resolution, with another folder."
        )
    trained: Trained = told
    if into is not None and finished_in(into, settings) is None:
        here = TrainingFolder(into, {**settings, "precision": trained.recipe["precision"]})
        try:
            here.finish(trained)
        finally:
            here.close()
    return trained


def supernet_on(
    workers: Workers,
    space: SearchSpace,
    images: ImageSet,
    *,
    into: Path,
    needs: Needs | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Train a supernet where the workers are, in a folder that both see.

    Args:
        workers: Who trains; of several, one does.
        space, images, into: As `train_supernet` takes them; so are the other arguments.
        needs: What the training holds; by default one processor.
    Returns:
        As `train_supernet`.
    Raises:
        StoreError: The node does not see the folder, told before any work; or it cannot be written.
        PhonenasError: As `train_supernet` and `Workers.map`.
    """
    from .accuracy.supernet_folder import document_of

    mark = into / f".seen-{os.getpid()}"
    try:
        into.mkdir(parents=True, exist_ok=True)
        mark.touch()
        workers.map(
            _train_supernet,
            [(space, images, str(into.resolve()), mark.name, how)],
            needs=needs or Needs(),
        )
    except OSError as error:
        raise StoreError(f"{into} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
    return document_of(into)


def _train_supernet(
    space: SearchSpace, images: ImageSet, folder: str, mark: str, how: dict[str, Any]
) -> None:
    """The task: nothing is told back, all is in the folder."""
    from .accuracy.supernet_training import train_supernet

    if not Path(folder, mark).exists():
        # Days of work would lie on a disk that nobody looks at.
        raise StoreError(
            f"the node that trains does not see {folder} of the computer that asks. Choose an --out "
            "on a disk that both have under the same path."
        )
    train_supernet(space, images, into=folder, **how)
