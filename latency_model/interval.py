"""What a 90 % interval says of a target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument

__all__ = ["TO_MEAN", "Z90", "chance_within"]

Z90 = 1.6449  # standard deviations to either end of a normal's middle 90 %
TO_MEAN = 0.7979  # from a normal's standard deviation to its mean absolute error


def chance_within(
    ms: npt.ArrayLike, low_ms: npt.ArrayLike, high_ms: npt.ArrayLike, target_ms: float
) -> npt.NDArray[np.float64]:
    """Probability that a measurement is at or below a target, (n,), in [0, 1].

    Errors are taken as normal in log latency, as wide as the 90 % interval says.

    Args:
        ms, low_ms, high_ms: Predictions and the ends of their 90 % intervals, (n,), ms, > 0.
        target_ms: > 0, ms.
    Raises:
        InvalidArgument: A target that is no finite number above 0.
    """
    from scipy.special import ndtr

    if not (np.isfinite(target_ms) and target_ms > 0):
        raise InvalidArgument(f"a target latency is above 0 ms, got {target_ms!r}")
    low, high = np.asarray(low_ms, float), np.asarray(high_ms, float)
    reach = np.maximum(np.log(high / low) / 2, 1e-9)
    found: npt.NDArray[np.float64] = ndtr(Z90 * np.log(target_ms / np.asarray(ms, float)) / reach)
    return found
