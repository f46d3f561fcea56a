"""The weighted product of accuracy and latency, soft and hard."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument

__all__ = ["HARD", "SOFT", "check_target", "reward"]

SOFT = (-0.07, -0.07)
HARD = (0.0, -1.0)


def check_target(target_ms: float) -> float:
    """The target as a float, in ms.

    Raises:
        InvalidArgument: Not a finite number above 0.
    """
    if not (np.isfinite(target_ms) and target_ms > 0):
        raise InvalidArgument(f"a target latency is above 0 ms, got {target_ms:g}")
    return float(target_ms)


def reward(
    top1: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    target_ms: float,
    alpha: float = SOFT[0],
    beta: float = SOFT[1],
) -> npt.NDArray[np.float64]:
    """Score networks by accuracy and by how their latency stands to the target.

    top1 · (latency / target)^w, w = alpha at or below the target and beta above it.

    Args:
        top1: Share of validation images named rightly, (n,), in [0, 1].
        latency_ms: Time of one image at batch 1, (n,), in milliseconds, > 0.
        target_ms: Time that the device may take, in milliseconds, > 0.
        alpha, beta: Exponents at or below, and above, the target; ≤ 0. `SOFT` is the paper's
            default, `HARD` = (0, -1) its hard constraint.
    Returns:
        Rewards, (n,), no unit; equal to `top1` where latency meets the target exactly.
    Raises:
        InvalidArgument: A latency or the target is not positive, or an exponent is.
    Source: Tan et al., MnasNet, CVPR 2019, section 3.

    >>> reward([0.75], [80.0], 80.0).tolist()
    [0.75]
    """
    top1, latency = np.asarray(top1, float), np.asarray(latency_ms, float)
    target = check_target(target_ms)
    if alpha > 0 or beta > 0:
        raise InvalidArgument(f"alpha and beta are 0 or below, got {alpha:g} and {beta:g}")
    if not (np.isfinite(latency) & (latency > 0)).all():
        raise InvalidArgument("latencies are above 0 ms; one given is not")
    ratio = latency / target
    scored: npt.NDArray[np.float64] = top1 * ratio ** np.where(ratio <= 1, alpha, beta)
    return scored
