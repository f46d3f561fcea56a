"""The weighted product of accuracy and latency, soft and hard."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument
from .pareto import non_dominated

__all__ = ["HARD", "SOFT", "check_exponents", "check_target", "reward", "rewards_of", "targets"]

SOFT = (-0.07, -0.07)
HARD = (0.0, -1.0)
_LEAST = 1e-9  # of a cost that is scaled to begin at 0
_GOLDEN = 0.6180339887498949  # steps of it, modulo 1, fill an interval evenly at any time


def check_target(target_ms: float) -> float:
    """The target as a float, in ms.

    Raises:
        InvalidArgument: Not a finite number above 0.
    """
    if not (np.isfinite(target_ms) and target_ms > 0):
        raise InvalidArgument(f"a target latency is above 0 ms, got {target_ms:g}")
    return float(target_ms)


def check_exponents(exponents: tuple[float, float]) -> tuple[float, float]:
    """Exponents at or below, and above, the target.

    Raises:
        InvalidArgument: One is above 0 or no number.
    """
    alpha, beta = exponents
    if not (-np.inf < alpha <= 0 and -np.inf < beta <= 0):
        raise InvalidArgument(f"alpha and beta are 0 or below, got {alpha:g} and {beta:g}")
    return float(alpha), float(beta)


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
    check_exponents((alpha, beta))
    if not (np.isfinite(latency) & (latency > 0)).all():
        raise InvalidArgument("latencies are above 0 ms; one given is not")
    ratio = latency / target
    scored: npt.NDArray[np.float64] = top1 * ratio ** np.where(ratio <= 1, alpha, beta)
    return scored


def rewards_of(
    losses: npt.NDArray[np.float64], target: npt.ArrayLike, exponents: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Weighted products of what strategies are told, whatever the objectives are.

    Args:
        losses: (..., 2): 1 - quality, quality in [0, 1]; and cost, ≥ 0.
        target: Of the cost, in its unit, > 0; one, or one for each (...).
        exponents: At or below, and above, the target; ≤ 0.
    Returns:
        (...): `reward` of quality and cost.

    >>> rewards_of(np.array([[0.25, 80.0], [0.25, 160.0]]), 80.0, HARD).tolist()
    [0.75, 0.375]
    """
    ratio = np.maximum(losses[..., 1], _LEAST) / np.maximum(target, _LEAST)
    scored: npt.NDArray[np.float64] = (1 - losses[..., 0]) * ratio ** np.where(
        ratio <= 1, *exponents
    )
    return scored


def targets(
    losses: npt.NDArray[np.float64], first: int, count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Targets for those who name none: evenly over the costs of the front seen so far.

    Args:
        losses: (n, 2), what was seen, n ≥ 1; 1 - quality and cost.
        first, count: Which members of the endless sequence.
    Returns:
        Targets in the cost's unit, and their places in the range, in [0, 1], each (count,).
    """
    costs = losses[non_dominated(losses), 1]
    places = np.asarray((0.5 + _GOLDEN * np.arange(first, first + count)) % 1.0, np.float64)
    low, high = float(costs.min()), float(costs.max())
    aims: npt.NDArray[np.float64] = low + places * (high - low)
    return aims, places
