"""Random decisions about each image: its place in the epoch, its crop, its shift, its flip.

Every decision is a function of (seed, epoch, number of the image) alone: neither the batch, nor
the process that reads the image, nor a resumed training changes it. So numbers are not drawn one
after the other but computed from their key, by SplitMix64, whose outputs are numbered (Steele,
Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["central_boxes", "draws", "order", "random_boxes"]

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10
# The official code asks that a tenth of "the object" be seen, and its object is the whole image.
COVERED = 0.1
# The usual evaluation takes 224 of 256 pixels.
CENTRE = 224 / 256

Floats = npt.NDArray[np.float64]
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _raw(
    seed: int, epoch: int, indices: npt.NDArray[np.int64], columns: range
) -> npt.NDArray[np.uint64]:
    """Random bits, (n, len(columns)), of the images (n,)."""
    key = np.zeros(1, np.uint64)
    for part in (seed & (2**64 - 1), seed >> 64, epoch):
        key = _mixed(key + _STEP * np.array([(part + 1) % 2**64], np.uint64))
    images = _mixed(key + _STEP * (indices.astype(np.uint64) + np.uint64(1)))
    counts = np.arange(columns.start + 1, columns.stop + 1).astype(np.uint64)
    return _mixed(images[:, None] + _STEP * counts)


def draws(seed: int, epoch: int, indices: npt.NDArray[np.int64], columns: range) -> Floats:
    """Uniform numbers in [0, 1), a row for each image.

    Args:
        seed, epoch: At least 0.
        indices: Numbers of the images, (n,).
        columns: Which of the unlimited numbers that belong to each image.
    Returns:
        (n, len(columns)).
    """
    return (_raw(seed, epoch, indices, columns) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """The numbers of the images of an epoch, shuffled: (count,)."""
    # A column that no other decision about an image uses.
    keys = _raw(seed, epoch, np.arange(count), range(-1, 0))[:, 0]
    return np.argsort(keys, kind="stable")


def central_boxes(heights: Floats, widths: Floats, resolution_px: int) -> Floats:
    """The box that evaluation sees of images of heights (n,) and widths (n,), in pixels.

    The central square of 224/256 of the shorter side, as the usual ImageNet evaluation (resize
    the shorter side to 256, take the central 224), at every resolution. A square image no
    larger than the resolution is taken whole: digits and thumbnails are drawn to their edges.

    Returns:
        (n, 4): y, x, height, width, in pixels of the image.
    """
    shorter = np.minimum(heights, widths)
    whole = (heights == widths) & (heights <= resolution_px)
    sides = np.where(whole, shorter, shorter * CENTRE)
    return np.stack([(heights - sides) / 2, (widths - sides) / 2, sides, sides], axis=-1)


def random_boxes(
    heights: Floats,
    widths: Floats,
    resolution_px: int,
    seed: int,
    epoch: int,
    indices: npt.NDArray[np.int64],
) -> Floats:
    """Inception-style crops as the official MnasNet code takes them.

    The aspect (width to height, 3:4 to 4:3) is uniform, and so is the height among those that
    give 8 to 100 % of the area; crops under 10 % are drawn again (see `COVERED`), ten times at
    most. Where that fails, or the crop is the whole image, the central box is taken.

    Args:
        heights, widths: Of the images, (n,), in pixels.
        resolution_px: Side of what the network sees.
        seed, epoch, indices: As for `draws`; indices (n,).
    Returns:
        (n, 4): y, x, height, width, in pixels of the image.
    Source: preprocessing.py of the official MnasNet code, and TensorFlow's
        sample_distorted_bounding_box for the way in which it draws.
    """
    areas = heights * widths
    low, high = AREA[0] * areas, AREA[1] * areas
    boxes = np.stack([np.zeros_like(heights), np.zeros_like(widths), heights, widths], axis=-1)
    open_ = np.ones(len(indices), bool)
    for attempt in range(TRIES):
        if not open_.any():
            break
        aspects, tall, down, right = draws(
            seed, epoch, indices, range(1 + 4 * attempt, 5 + 4 * attempt)
        ).T
        aspects = ASPECT[0] + aspects * (ASPECT[1] - ASPECT[0])
        tallest = np.minimum(np.rint(np.sqrt(high / aspects)), heights)
        tallest = np.minimum(tallest, np.floor((widths + 0.5 - 1e-7) / aspects))
        least = np.minimum(np.rint(np.sqrt(low / aspects)), tallest)
        h = least + np.floor(tall * (tallest - least + 1))
        w = np.rint(h * aspects)
        # Rounding may have left the range by a row.
        h = h + (h * w < low) - (h * w > high)
        w = np.rint(h * aspects)
        good = (h * w >= np.maximum(low, COVERED * areas)) & (h * w <= high)
        good &= (h >= 1) & (w >= 1) & (h <= heights) & (w <= widths) & open_
        y = np.floor(down * (heights - h + 1))
        x = np.floor(right * (widths - w + 1))
        boxes[good] = np.stack([y, x, h, w], axis=-1)[good]
        open_ &= ~good
    whole = boxes[:, 2] * boxes[:, 3] >= areas
    boxes[whole] = central_boxes(heights, widths, resolution_px)[whole]
    return boxes
