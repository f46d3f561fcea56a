"""Anchors: the boxes that a detector's outputs refer to, and the code between the two.

A box is (centre y, centre x, height, width) in shares of the image's side. At each place of a map
lie a few anchors, the larger the coarser the map; a code says how a box differs from its anchor.

Source: Liu et al., SSD, ECCV 2016, section 2.2, with the scales, ratios and code of TensorFlow's
object detection API (`ssd_anchor_generator`, `faster_rcnn_box_coder`), which trained the published
SSDLite networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument

__all__ = ["FIRST_ANCHORS", "FURTHER_ANCHORS", "anchors", "decoded", "encoded"]

FIRST_ANCHORS, FURTHER_ANCHORS = 3, 6  # at each place of the finest map, and of the others
_LEAST_SCALE, _MOST_SCALE = 0.2, 0.95
_SMALL = 0.1  # scale of the one small square of the finest map
_RATIOS = (1.0, 2.0, 0.5, 3.0, 1 / 3)  # width over height
_CODE_SCALES = np.array([10.0, 10.0, 5.0, 5.0])
_LEAST_SIDE = 1e-8
_MOST_LOG = 10.0  # an untrained network may ask for a side of e^1000

Floats = npt.NDArray[np.float64]


@cache
def _shapes(maps: int) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Height and width of the anchors at each place, for each map."""
    scales = [*np.linspace(_LEAST_SCALE, _MOST_SCALE, maps).tolist(), 1.0]
    shapes = []
    for number, (scale, following) in enumerate(pairwise(scales)):
        wanted = [(scale, ratio) for ratio in _RATIOS] + [((scale * following) ** 0.5, 1.0)]
        if number == 0:
            wanted = [(_SMALL, 1.0), (scale, 2.0), (scale, 0.5)]
        shapes.append(tuple((size / ratio**0.5, size * ratio**0.5) for size, ratio in wanted))
    return tuple(shapes)


def anchors(map_sides: Sequence[int]) -> npt.NDArray[np.float32]:
    """Every anchor, in the order of a detector's outputs: maps, rows, columns, anchors of a place.

    Args:
        map_sides: Sides of the maps in pixels, the finest first; two or more, each ≥ 1.
    Returns:
        Boxes (n, 4): centre y, centre x, height, width, in shares of the image's side. They may
        reach beyond the image.
    Raises:
        InvalidArgument: Fewer than two maps, or one without pixels.

    >>> anchors([20, 10, 5, 3, 2, 1]).shape
    (2034, 4)
    """
    if len(map_sides) < 2 or min(map_sides) < 1:
        raise InvalidArgument(f"anchors need two or more maps, got sides {list(map_sides)}")
    parts = []
    for side, shapes in zip(map_sides, _shapes(len(map_sides)), strict=True):
        middle = (np.arange(side) + 0.5) / side
        y, x, one = np.meshgrid(middle, middle, np.arange(len(shapes)), indexing="ij")
        sizes = np.array(shapes)[one]
        parts.append(np.concatenate([y[..., None], x[..., None], sizes], axis=-1).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def decoded(codes: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """Boxes from codes.

    Args:
        codes: Output of a detector, (..., 4): shifts of the centre in tenths of the anchor's
            sides (y, x), and fifths of the natural logarithm of height and width over the anchor's.
        at: Their anchors, (..., 4).
    Returns:
        Boxes, (..., 4), as `anchors` gives them.
    """
    code, anchor = np.asarray(codes, float) / _CODE_SCALES, np.asarray(at, float)
    centre = anchor[..., :2] + code[..., :2] * anchor[..., 2:]
    sides = anchor[..., 2:] * np.exp(np.minimum(code[..., 2:], _MOST_LOG))
    return np.concatenate([centre, sides], axis=-1)


def encoded(boxes: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """Codes from boxes, the targets of a detector's training. Inverse of `decoded`.

    Args:
        boxes: (..., 4), as `anchors` gives them.
        at: Their anchors, (..., 4).
    Returns:
        Codes, (..., 4).
    """
    box, anchor = np.asarray(boxes, float), np.asarray(at, float)
    sides = np.maximum(box[..., 2:], _LEAST_SIDE)
    shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    code = np.concatenate([shift, np.log(sides / anchor[..., 2:])], axis=-1)
    return np.asarray(code * _CODE_SCALES)
