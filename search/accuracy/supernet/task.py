"""The training of a supernet as a task for workers, on any computer that sees its folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.space.errors import StoreError

from ...cluster.workers import Workers
from ...training.resources import Resources
from .folder import document_of
from .train import train_supernet

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet
    from phonenas.space import SearchSpace

__all__ = ["supernet_on"]


def supernet_on(
    workers: Workers,
    space: SearchSpace,
    images: ImageSet,
    *,
    into: Path,
    resources: Resources | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Train a supernet where the workers are, in a folder that both see.

    Args:
        workers: Who trains; of several, one does.
        space, images, into, resources: As `train_supernet` takes them; so are the other arguments.
            The training holds as many processors as threads, and its share of GPUs.
    Returns:
        As `train_supernet`.
    Raises:
        StoreError: The node does not see the folder (checked first), or it cannot be written.
        PhonenasError: As `train_supernet` and `Workers.map`.
    """
    resources = resources or Resources()
    mark = into / f".seen-{os.getpid()}"
    try:
        into.mkdir(parents=True, exist_ok=True)
        mark.touch()
        workers.map(
            _train_supernet,
            [(space, images, str(into.resolve()), mark.name, {**how, "resources": resources})],
            needs=resources.needs,
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
    """The task: it returns nothing, all is in the folder."""
    if not Path(folder, mark).exists():
        # Days of work would lie on a disk that nobody looks at.
        raise StoreError(
            f"the node that trains does not see {folder} of the computer that asks. Choose an "
            "--out on a disk that both have under the same path."
        )
    train_supernet(space, images, into=folder, **how)
