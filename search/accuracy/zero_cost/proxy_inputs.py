"""Inputs of zero-cost proxies: a batch of noise, or of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from phonenas.data.images import ImageSet

__all__ = ["Batch", "of_images", "of_noise"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Batch:
    """Images with their labels.

    Args:
        images: (n, 3, px, px), float32, normalised, on the CPU.
        labels: (n,), int64, below the network's classes.
    """

    images: Tensor
    labels: Tensor


def of_noise(n: int, px: int, classes: int, seed: int) -> Batch:
    """Standard normal noise, with random labels."""
    import torch

    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, 3, px, px), np.float32)
    return Batch(torch.from_numpy(noise), torch.from_numpy(rng.integers(0, classes, n)))


def of_images(images: ImageSet, n: int, px: int, seed: int) -> Batch:
    """Images drawn by the seed: the middle square of each, brought to `px` pixels a side.

    Raises:
        InvalidImage: A file among them is broken.
    """
    import torch

    chosen = np.random.default_rng(seed).choice(len(images), n, replace=False)
    fitted = torch.cat([_fitted(images.image(int(i)), px) for i in chosen])
    return Batch(fitted, torch.from_numpy(images.labels[chosen].astype(np.int64)))


def _fitted(image: npt.NDArray[np.uint8], px: int) -> Tensor:
    """One image, normalised, (1, 3, px, px)."""
    import torch
    from torch.nn import functional

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.array(image[top : top + side, left : left + side])
    x = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255
    if side != px:
        x = functional.interpolate(
            x, (px, px), mode="bilinear", antialias=True, align_corners=False
        )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    return (x - mean) / std
