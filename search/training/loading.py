"""Batches of image files, decoded and augmented by Pillow: here, or in loader processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.data.images.decoding import open_image, to_rgb
from phonenas.data.images.folders import FileImages
from phonenas.data.images.image_set import ImageSet
from phonenas.space.errors import PhonenasError, TaskFailed

from .augment import central_boxes, draws, random_boxes

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["FileBatches", "Loader", "flips", "shifted", "shifts"]

# A batch of several hundred large photographs on a slow network disk takes a minute or two.
PATIENCE_S = 900
# How often to look whether the processes still live.
LOOK_S = 5
PREFETCHED = 3

Batch = tuple[int, npt.NDArray[np.int64]]


def flips(
    seed: int, epoch: int, indices: npt.NDArray[np.int64], augment: str | None
) -> npt.NDArray[np.bool_]:
    """Which of the images (n,) are mirrored, (n,): half of them at random, if `augment` mirrors."""
    if augment not in ("imagenet", "small"):
        return np.zeros(len(indices), bool)
    return draws(seed, epoch, indices, range(1))[:, 0] < 0.5


def shifts(
    seed: int, epoch: int, indices: npt.NDArray[np.int64], pad_px: int
) -> npt.NDArray[np.int64]:
    """How far each image (n,) moves within a border of `pad_px`: (n, 2) in [0, 2 pad_px]."""
    moved = draws(seed, epoch, indices, range(1, 3))
    return np.floor(moved * (2 * pad_px + 1)).astype(np.int64)


def shifted(
    pixels: npt.NDArray[np.uint8],
    moved: npt.NDArray[np.int64],
    pad_px: int,
    mirrored: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Images moved within a black border, some mirrored.

    Args:
        pixels: (b, px, px, 3).
        moved: (b, 2), as of `shifts`.
        pad_px: Width of the border.
        mirrored: (b,).
    Returns:
        (b, px, px, 3).
    """
    px = pixels.shape[1]
    framed = np.zeros((px + 2 * pad_px, px + 2 * pad_px, 3), np.uint8)
    result = np.empty_like(pixels)
    for row, (y, x) in enumerate(moved.tolist()):
        framed[pad_px : pad_px + px, pad_px : pad_px + px] = pixels[row]
        seen = framed[y : y + px, x : x + px]
        result[row] = seen[:, ::-1] if mirrored[row] else seen
    return result


class FileBatches:
    """What a loader process does: (epoch, image numbers (b,)) → (pixels (b, px, px, 3), error).

    An error is returned as a value, since one that is raised in another process arrives
    wrapped in the text of its traceback.
    """

    def __init__(
        self, images: ImageSet, resolution_px: int, augment: str | None, pad_px: int, seed: int
    ) -> None:
        self.images, self.resolution_px = images, resolution_px
        self.augment, self.pad_px, self.seed = augment, pad_px, seed

    def __getitem__(self, batch: Batch) -> tuple[Tensor, PhonenasError | None]:
        import torch

        epoch, indices = batch
        px = self.resolution_px
        pixels = np.zeros((len(indices), px, px, 3), np.uint8)
        mirrored = flips(self.seed, epoch, indices, self.augment)
        try:
            for row in range(len(indices)):
                pixels[row] = self._seen(epoch, indices[row : row + 1])
        except PhonenasError as error:
            return torch.zeros(0, dtype=torch.uint8), error
        if self.augment in ("small", "shift"):
            moved = shifts(self.seed, epoch, indices, self.pad_px)
            pixels = shifted(pixels, moved, self.pad_px, mirrored)
        elif mirrored.any():
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        return torch.from_numpy(pixels), None

    def _seen(self, epoch: int, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The box of one image, `index` (1,), that this epoch shows: (px, px, 3), uint8."""
        from PIL.Image import Resampling, fromarray

        px, number = self.resolution_px, int(index[0])
        path = self.images.path(number) if isinstance(self.images, FileImages) else None
        with open_image(path) if path else fromarray(self.images.image(number)) as picture:
            width, height = picture.size
            sizes = np.array([height], float), np.array([width], float)
            scale = 1.0
            if self.augment == "imagenet":
                y, x, h, w = random_boxes(*sizes, px, self.seed, epoch, index)[0]
                # A JPEG is decoded at 1/2, 1/4 or 1/8 where the crop stays no smaller than px.
                least = int(width * px / w) + 1, int(height * px / h) + 1
                if path and (drafted := picture.draft(None, least)):
                    scale = drafted[1][2] / width
            else:
                y, x, h, w = central_boxes(*sizes, px)[0]
            rgb: Image = to_rgb(picture, path) if path else picture
            # Rounding must not lead out of the image.
            right, low = min((x + w) * scale, rgb.width), min((y + h) * scale, rgb.height)
            box = (x * scale, y * scale, right, low)
            return np.asarray(rgb.resize((px, px), Resampling.BILINEAR, box))


def _as_it_is(batch: Any) -> Any:
    return batch


def _end_with_parent(_: int) -> None:
    """End this process when the one that receives its batches ends, even by SIGKILL.

    torch looks whether the parent has changed, and the parent of a process of a fork server is
    the server, which in turn lives as long as any of its processes.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Epoch:
    """The batches of the present epoch, as torch's sampler; it stays in this process."""

    batches: Sequence[Batch] = ()
    abandoned = False  # no more of it is to be read

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            if self.abandoned:
                return
            yield batch

    def __len__(self) -> int:
        return len(self.batches)


class Loader:
    """Runs `FileBatches` in `loaders` processes, which live as long as this object.

    The processes come from a fork server where the system has one, else they are spawned: a
    plain fork would copy a process in which torch, CUDA or Ray run threads, whose locks then
    stay taken for ever.
    """

    def __init__(self, batches: FileBatches, loaders: int, pin: bool) -> None:
        from torch.utils.data import DataLoader

        ways = multiprocessing.get_all_start_methods()
        served = "forkserver" in ways
        context = multiprocessing.get_context("forkserver" if served else "spawn")
        if served:  # torch takes seconds to import: it does so once for all processes to come
            context.set_forkserver_preload(["torch.utils.data", __name__])
        self.sampler = _Epoch()
        self.loaders = loaders
        self._begun: Iterator[Any] = iter(())
        with warnings.catch_warnings():
            # How many processes suit this computer is the user's to say.
            warnings.filterwarnings("ignore", "This DataLoader will create")
            self.loader: Any = DataLoader(
                batches,  # type: ignore[arg-type]
                sampler=self.sampler,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=loaders,
                prefetch_factor=PREFETCHED,
                persistent_workers=True,
                pin_memory=pin,
                timeout=LOOK_S,
                multiprocessing_context=context,
                worker_init_fn=_end_with_parent,
            )

    def __call__(self, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, PhonenasError | None]]:
        """Pixels (b, px, px, 3) of each batch, or the error of the first broken image, in order."""
        try:
            self._end()
            self.sampler.batches = batches
            steps = self._begun = iter(self.loader)
            for _ in batches:
                yield _next(steps)
        except (RuntimeError, OSError, EOFError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise TaskFailed(
                f"a process that reads images was lost: {reason}. With too little memory, or too "
                f"little shared memory (/dev/shm), take fewer than {self.loaders} loader processes "
                "(--loaders), or smaller batches."
            ) from error

    def _end(self) -> None:
        """Receive what the processes still read of an epoch that was abandoned.

        torch does so itself, but waits no longer than `LOOK_S` for each batch.
        """
        self.sampler.abandoned = True
        with contextlib.suppress(StopIteration):
            for _ in range(PREFETCHED * self.loaders + 1):
                _next(self._begun)
        self.sampler.abandoned = False


def _next(steps: Iterator[Any]) -> Any:
    """The next batch; every few seconds it looks whether the loader processes live.

    Without a limit torch waits for ever where a file hangs, and with one it does not notice
    before that limit that a process of a fork server has died.
    """
    for _ in range(PATIENCE_S // LOOK_S - 1):
        try:
            return next(steps)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
    return next(steps)
