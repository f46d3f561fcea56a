"""Batches: from an image set to normalised tensors, in an order that only seed and epoch decide.

Images in memory are augmented a batch at a time, by torch, in this process and on the device of
the training. Images in files are decoded by Pillow in processes of their own. Both see the same
boxes of the same images; resizing is bilinear, averaging where it reduces (TensorFlow's, which
the official code uses, does not average).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from phonenas.data.images.image_set import ArrayImages, ImageSet
from phonenas.space.errors import InvalidArgument

from .augment import central_boxes, order, random_boxes
from .distributed import Processes
from .loading import FileBatches, Loader, flips, shifted, shifts
from .resources import require_torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AUGMENTATIONS", "MEAN", "STD", "Batches"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
AUGMENTATIONS = ("imagenet", "small", "shift")


class Batches:
    """An image set as batches for training or evaluation.

    | `augment` | what each image undergoes |
    |---|---|
    | "imagenet" | a random crop of 10 to 100 % of the area and aspect 3:4 to 4:3, and a flip: as
    the official MnasNet code (see `augment.random_boxes`) |
    | "small" | what evaluation sees, moved within a black border of an eighth of the side (4 pixels
    at 32), and a flip |
    | "shift" | "small" without the flip, for digits and letters |
    | None | evaluation: the central 224/256 of the shorter side; a square image that is no larger
    than the resolution is taken whole |

    Args:
        images: The set.
        batch: Images a batch over all processes, at least 1.
        resolution_px: Side of what the network sees, at least 8.
        augment: One of the table.
        seed: Of the order and of every augmentation, at least 0.
        loaders: Processes that read files, 0 or more; 0 reads them here. Images in memory need
            none. A script that asks for some must be importable: its work stands under
            `if __name__ == "__main__":`.
        shuffle: Each epoch in an order of its own, without the last batch where it is not full;
            else the set's own order, whole. None does so if `augment` is given.
        processes: That share each batch, and this one's device, where the tensors are to lie.
            `batch` is a multiple of their number n, and each takes every n-th image of it. The
            last batch of an unshuffled epoch may give some of them less, or an empty tensor.
    Raises:
        InvalidArgument: A value out of its range; or fewer images than a shuffled batch, so that
            an epoch would be empty. (Unshuffled, a small set is one smaller batch.)
        MissingExtra: torch is not installed.
    """

    def __init__(
        self,
        images: ImageSet,
        batch: int,
        resolution_px: int,
        *,
        augment: str | None = "imagenet",
        seed: int = 0,
        loaders: int = 0,
        shuffle: bool | None = None,
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes()
        if augment is not None and augment not in AUGMENTATIONS:
            raise InvalidArgument(
                f"an augmentation is one of {', '.join(AUGMENTATIONS)}, not {augment!r}"
            )
        for what, value, least in (
            ("a batch", batch, 1),
            ("a resolution", resolution_px, 8),
            ("a seed", seed, 0),
            ("the number of loader processes", loaders, 0),
        ):
            if value < least:
                raise InvalidArgument(f"{what} is at least {least}, not {value}")
        if batch % processes.world:
            raise InvalidArgument(
                f"{processes.world} processes cannot share batches of {batch} evenly"
            )
        if not len(images):
            raise InvalidArgument(f"{images.source} has no image")
        require_torch()
        import torch

        self.images, self.batch, self.resolution_px = images, batch, resolution_px
        self.augment, self.seed, self.processes = augment, seed, processes
        self.shuffle = augment is not None if shuffle is None else shuffle
        if self.shuffle and len(images) < batch:
            raise InvalidArgument(
                f"{images.source} has {len(images):,} images, fewer than one batch of {batch:,}: "
                f"an epoch would be empty. Train with batches of at most {len(images):,}."
            )
        self.device = torch.device(processes.device)
        self._mean = 255 * torch.tensor(MEAN).reshape(3, 1, 1).to(self.device)
        self._std = 255 * torch.tensor(STD).reshape(3, 1, 1).to(self.device)
        self._pad_px = resolution_px // 8
        self._files = FileBatches(images, resolution_px, augment, self._pad_px, seed)
        self._pin = self.device.type == "cuda"
        self._loaders = 0 if isinstance(images, ArrayImages) else loaders
        self._loader: Loader | None = None

    def __len__(self) -> int:
        """Steps an epoch."""
        full, rest = divmod(len(self.images), self.batch)
        return full if self.shuffle or not rest else full + 1

    def indices(self, number: int) -> list[npt.NDArray[np.int64]]:
        """The images of each step of an epoch that this process sees, each (b,)."""
        if number < 0:
            raise InvalidArgument(f"an epoch has a number of at least 0, not {number}")
        count = len(self.images)
        row = order(self.seed, number, count) if self.shuffle else np.arange(count)
        starts = range(0, len(self) * self.batch, self.batch)
        return [
            row[at : at + self.batch][self.processes.rank :: self.processes.world] for at in starts
        ]

    def epoch(self, number: int, start_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the images.

        Args:
            number: Of the epoch, at least 0. Equal numbers give equal tensors.
            start_step: Steps to pass over, in [0, len(self)]; nothing of them is read.
        Returns:
            At each step (images (b, 3, resolution_px, resolution_px), float32, normalised;
            labels (b,), int64), both on `device`.
        Raises:
            InvalidArgument: A number or step out of range.
            InvalidImage: At the step whose file is broken; the message names it.
            TaskFailed: A process that reads files was killed, or gave nothing for 15 minutes.
        """
        if not 0 <= start_step <= len(self):
            raise InvalidArgument(f"an epoch has {len(self)} steps; there is no step {start_step}")
        return self._steps(number, self.indices(number)[start_step:])

    def close(self) -> None:
        """End the processes that read files; another epoch starts new ones."""
        self._loader = None

    def _steps(
        self, number: int, steps: list[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        pixels: Iterator[Tensor]
        if isinstance(self.images, ArrayImages):
            images = self.images
            pixels = (self._from_memory(images, number, step) for step in steps)
        else:
            pixels = self._from_files(number, steps)
        for step, seen in zip(steps, pixels, strict=True):
            labels = torch.from_numpy(self.images.labels[step])
            seen = seen.sub_(self._mean).div_(self._std)
            yield seen, self._moved(labels)

    def _from_files(self, number: int, steps: list[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        work = [(number, step) for step in steps]
        if self._loaders and self._loader is None:
            self._loader = Loader(self._files, self._loaders, self._pin)
        read = self._loader(work) if self._loader else map(self._files.__getitem__, work)
        for pixels, error in read:
            if error is not None:
                raise error
            yield self._planes(pixels)

    def _from_memory(self, images: ArrayImages, number: int, step: npt.NDArray[np.int64]) -> Tensor:
        """The images (b,) of one step of epoch `number`, as (b, 3, px, px), not yet normalised."""
        import torch

        px, pad = self.resolution_px, self._pad_px
        height, width = images.pixels.shape[1:3]
        pixels = np.ascontiguousarray(images.rows(step))
        mirrored = flips(self.seed, number, step, self.augment)
        if self.augment == "imagenet":
            sizes = np.full(len(step), float(height)), np.full(len(step), float(width))
            boxes = random_boxes(*sizes, px, self.seed, number, step)
            return resampled(self._planes(torch.from_numpy(pixels)), boxes, px, mirrored)
        moved = shifts(self.seed, number, step, pad)
        if (height, width) == (px, px):
            # As bytes, one after the other: the fastest way by far, on a GPU's host too.
            if self.augment is not None:
                pixels = shifted(pixels, moved, pad, mirrored)
            return self._planes(torch.from_numpy(pixels))
        boxes = central_boxes(np.array([float(height)]), np.array([float(width)]), px)
        seen = resampled(self._planes(torch.from_numpy(pixels)), boxes, px, np.zeros(1, bool))
        if self.augment is None:
            return seen
        framed = torch.nn.functional.pad(seen, (pad, pad, pad, pad))
        rows = [
            framed[row, :, y : y + px, x : x + px].flip(2 if mirrored[row] else ())
            for row, (y, x) in enumerate(moved.tolist())
        ]
        return torch.stack(rows) if rows else seen

    def _planes(self, pixels: Tensor) -> Tensor:
        """(b, h, w, 3) bytes as (b, 3, h, w), float32, on the device."""
        import torch

        return (
            self._moved(pixels)
            .permute(0, 3, 1, 2)
            .to(torch.float32, memory_format=torch.contiguous_format)
        )

    def _moved(self, tensor: Tensor) -> Tensor:
        if self._pin and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=self._pin)


def resampled(
    planes: Tensor, boxes: npt.NDArray[np.float64], px: int, mirrored: npt.NDArray[np.bool_]
) -> Tensor:
    """Boxes of images of one size, each brought to (px, px): bilinear, as Pillow computes it.

    Args:
        planes: (b, c, h, w), float32.
        boxes: (b, 4) or (1, 4): y, x, height, width in pixels.
        px: Side of the result.
        mirrored: (b,) or (1,); whether left and right change places.
    Returns:
        (b, c, px, px), float32.
    """
    import torch

    y, x, height, width = torch.from_numpy(boxes).to(planes.device, torch.float32).T
    # Weights of each row and column of the source: two small products of matrices a plane.
    down = _weights(y, height, planes.shape[2], px)
    across = _weights(x, width, planes.shape[3], px)
    flip = torch.from_numpy(mirrored).to(planes.device)[:, None, None]
    across = torch.where(flip, across.flip(1), across)
    b, c, h, w = planes.shape
    # All planes of an image in one product each way.
    beside = planes.permute(0, 2, 1, 3).reshape(b, h, c * w)
    lower = (down.expand(b, -1, -1) @ beside).reshape(b, px * c, w)
    seen: Tensor = (lower @ across.expand(b, -1, -1).mT).reshape(b, px, c, px)
    return seen.permute(0, 2, 1, 3).contiguous()


def _weights(begins: Tensor, lengths: Tensor, size: int, px: int) -> Tensor:
    """How much each source pixel counts in each pixel of the result.

    Args:
        begins, lengths: Of the box of each image along one side, (b,), in source pixels.
        size, px: Source pixels and pixels of the result along that side.
    Returns:
        (b, px, size), float32; each row sums to 1.
    """
    import torch

    scale = (lengths / px)[:, None, None]
    centres = torch.arange(px, device=begins.device)[None, :, None] + 0.5
    sources = torch.arange(size, device=begins.device)[None, None, :] + 0.5
    away = (sources - (begins[:, None, None] + centres * scale)).abs()
    near = (1 - away / scale.clamp(min=1)).clamp(min=0)
    shares: Tensor = near / near.sum(2, keepdim=True)
    return shares
