"""AccuracyChange: what 8 bits change of a network's top-1, from published pairs and measured ones.

A network in int8 makes more errors than in float32, by a share of its errors:

    top-1 in int8 = top-1 - growth · (1 - top-1)

Published pairs of 28 mobile networks show that the growth does not depend on how accurate a network
is: it is 1.6 to 6.1 % in MobileNetV1 from 41 to 71 % top-1. Families differ, and networks within
one:

    growth = mean + deviation of the family + deviation of the network

The three variances follow from the pairs by moments. A network of a search is of a family of its
own, of which nothing is known until some of it are quantised and measured: these are then of its
family, each with the error of its own measurement.

Source of the pairs, float32 and int8 by the same authors, per-channel or trained for integers:
tensorflow/models `research/slim/nets/mobilenet_v1.md` (MobileNetV1, trained for integers) and
`research/slim/nets/mobilenet/README.md` (MobileNetV3, 8-bit); tensorflow/tpu
`models/official/efficientnet/lite/README.md` (quantised after training); torchvision's weights of
`models.quantization` (ShuffleNetV2 quantised after training; MobileNetV2 and V3 trained for
integers). Left out: networks of dense convolutions, which lose less (ResNet-50 of torchvision
0.9 % of its errors), and quantisation with one scale for a whole tensor, which loses far more.
Source of the estimate: Hedges, A random effects model for effect sizes, Psychological Bulletin 93,
1983, after Cochran, Biometrics 10, 1954: the variance between families is that of their means,
unweighted, less the mean of the variances of these; the inverse of both is each family's weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument

__all__ = ["PUBLISHED", "AccuracyChange", "Change", "published_change"]

Floats = npt.NDArray[np.float64]
_MOST = 1.0  # growth of the errors at most, of one measurement that is believed

#: Family → top-1 in float32 and in int8 of each network, in %.
PUBLISHED: Mapping[str, Sequence[tuple[float, float]]] = {
    "mobilenet-v1": (
        *((70.9, 69.7), (70.0, 69.0), (68.0, 67.3), (65.2, 64.0)),
        *((68.4, 67.9), (67.2, 66.2), (65.3, 63.9), (62.1, 59.8)),
        *((63.3, 62.2), (61.7, 60.4), (59.1, 57.7), (56.3, 54.9)),
        *((49.8, 48.2), (47.7, 45.8), (45.5, 43.5), (41.5, 39.9)),
    ),
    "mobilenet-v2": ((71.878, 71.658),),
    "mobilenet-v3": ((75.2, 73.9), (67.5, 64.9), (74.042, 73.004)),
    "mobilenet-v3-minimalistic": ((72.3, 71.3),),
    "efficientnet-lite": ((75.1, 74.4), (76.7, 75.9), (77.6, 77.0), (79.8, 79.0), (81.5, 80.2)),
    "shufflenet-v2": ((60.552, 57.972), (69.362, 68.360)),
}


class Change(NamedTuple):
    """A measured change of a network's top-1.

    Args:
        top1: In float32, in [0, 1).
        change: Of it in int8, in [-1, 1]; below 0 where int8 is worse.
        error: Standard error of `change`, ≥ 0.
    """

    top1: float
    change: float
    error: float


@dataclass(frozen=True)
class AccuracyChange:
    """By what share the errors of a network grow that is written in int8.

    Args:
        growth: Expected, of a network of which nothing is known, relative to its errors.
        standard_error: Of the growth of one network, > 0.
        within: Standard deviation of the networks of one family, ≥ 0.
        pairs, families: Published ones that it follows from.
        measured: Networks of the user's that it follows from, too.
    """

    growth: float
    standard_error: float
    within: float
    pairs: int
    families: int
    measured: int = 0

    def __str__(self) -> str:
        told = f"{self.pairs} published pairs of {self.families} families"
        if self.measured:
            told += f" and {self.measured} measured"
        return (
            f"in int8 the errors grow by {self.growth:.1%} ± {self.standard_error:.1%} of "
            f"themselves, by {told}"
        )

    @property
    def digest(self) -> str:
        """A hash of all that the answers depend on."""
        numbers = [self.growth, self.standard_error]
        return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:12]

    def of(self, top1: Floats, error: Floats) -> tuple[Floats, Floats]:
        """Top-1 in int8 and its standard error.

        Args:
            top1: In float32, (n,), in [0, 1]; NaN where it is not known.
            error: Standard error of it, (n,).
        Returns:
            Both in int8, (n,). The error holds that of the growth.
        """
        errors = 1 - top1
        small = np.clip(top1 - self.growth * errors, 0, 1)
        return small, np.hypot((1 + self.growth) * error, self.standard_error * errors)

    def with_measured(self, changes: Sequence[Change]) -> AccuracyChange:
        """The same for networks of the kind that these are of.

        Raises:
            InvalidArgument: A top-1 outside [0, 1), an error below 0, or errors that are more than
                doubled.
        """
        if not changes:
            return self
        rows = np.array(changes, np.float64)
        top1, change, error = rows.T
        if not ((top1 >= 0) & (top1 < 1) & (error >= 0)).all():
            raise InvalidArgument("a change of top-1 is of one in [0, 1), with an error ≥ 0")
        growth, noise = -change / (1 - top1), error / (1 - top1)
        if (growth > _MOST).any():
            worst = int(growth.argmax())
            raise InvalidArgument(
                f"a network fell from {top1[worst]:.1%} to {top1[worst] + change[worst]:.1%} in "
                "int8: that is no estimate for others. Look at its calibration images"
            )
        family = self.standard_error**2 - self.within**2
        weights = 1 / (self.within**2 + noise**2)
        precision = 1 / family + weights.sum()
        mean = (self.growth / family + weights @ growth) / precision
        spread = float(np.sqrt(1 / precision + self.within**2))
        count = self.measured + len(changes)
        return AccuracyChange(float(mean), spread, self.within, self.pairs, self.families, count)


@cache
def published_change(without: str = "") -> AccuracyChange:
    """What the published pairs say.

    Args:
        without: A family that is left out.
    """
    growths = [
        np.array([(a - b) / (100 - a) for a, b in pairs])
        for family, pairs in PUBLISHED.items()
        if family != without
    ]
    sizes = np.array([len(g) for g in growths])
    means = np.array([g.mean() for g in growths])
    squares = sum(float(((g - g.mean()) ** 2).sum()) for g in growths)
    within = squares / float((sizes - 1).sum())
    between = max(0.0, float(means.var(ddof=1) - (within / sizes).mean()))
    weights = 1 / (between + within / sizes)
    mean = float(weights @ means / weights.sum())
    total = 1 / float(weights.sum()) + between + within
    return AccuracyChange(
        mean, float(np.sqrt(total)), float(np.sqrt(within)), int(sizes.sum()), len(growths)
    )
