"""The weighted product of accuracy and latency, soft and hard."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument

from ..pareto import non_dominated
from .base import Strategy

Floats = npt.NDArray[np.float64]
__all__ = [
    "HARD",
    "SOFT",
    "RewardStrategy",
    "targets_of",
    "check_exponents",
    "check_target",
    "limited_of",
    "penalised",
    "reward",
    "rewards_of",
    "spans_of",
    "sums_of",
]

SOFT = (-0.07, -0.07)
HARD = (0.0, -1.0)
_LEAST = 1e-9  # of a cost that is scaled to begin at 0
# Steps of these, modulo 1, fill an interval evenly at any time, and together a box.
_STEPS: tuple[float, ...] = (0.6180339887498949, 0.4142135623730951, 0.7320508075688772)
_STEPS += (0.23606797749978969, 0.6457513110645906)
_OVERSTEPPED = 0.01  # quality, at most, of what oversteps a limit
_FLOOR = 0.05  # of what a further cost's ratio may fall to


def check_target(target_ms: float) -> float:
    """The target as a float, in ms; InvalidArgument where it is not finite and above 0."""
    if not (np.isfinite(target_ms) and target_ms > 0):
        raise InvalidArgument(f"a target latency is above 0 ms, got {target_ms:g}")
    return float(target_ms)


def check_exponents(exponents: tuple[float, float]) -> tuple[float, float]:
    """Exponents at or below, and above, the target; InvalidArgument where one is above 0."""
    alpha, beta = exponents
    if not (-np.inf < alpha <= 0 and -np.inf < beta <= 0):
        raise InvalidArgument(f"alpha and beta are 0 or below, got {alpha:g} and {beta:g}")
    return float(alpha), float(beta)


class RewardStrategy(Strategy):
    """A strategy that follows the weighted product.

    Args:
        seed: As `Strategy` takes it.
        exponents: Of latency over target, at or below, and above it; ≤ 0.
    Raises:
        InvalidArgument: An exponent above 0, or a seed below 0.
    """

    def __init__(self, seed: int = 0, *, exponents: tuple[float, float] = HARD) -> None:
        super().__init__(seed)
        self.exponents = check_exponents(exponents)

    @classmethod
    def make(cls, seed: int, soft: bool, **settings: Any) -> Self:
        return cls(seed, exponents=SOFT if soft else HARD, **settings)

    @property
    def soft_target(self) -> bool:
        if self.exponents != SOFT:
            raise InvalidArgument(
                f"a soft target needs soft exponents, and {self.name} has {self.exponents}: "
                "construct it with exponents=SOFT"
            )
        return True


def reward(
    top1: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    target_ms: float,
    alpha: float = SOFT[0],
    beta: float = SOFT[1],
) -> Floats:
    """Score networks by accuracy and by how their latency stands to the target.

    top1 · (latency / target)^w, w = alpha at or below the target and beta above it.

    Args:
        top1: Share of validation images classified correctly, (n,), in [0, 1].
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
    scored: Floats = top1 * ratio ** np.where(ratio <= 1, alpha, beta)
    return scored


def rewards_of(
    losses: Floats,
    targets: npt.ArrayLike,
    exponents: tuple[float, float],
    spans: npt.ArrayLike = (),
) -> Floats:
    """Weighted products of losses, whatever the objectives are.

    A further objective may be of any sign, so its ratio is one plus its distance from its target in
    `spans`, instead of value over target.

    Args:
        losses: (..., k): 1 - quality, quality in [0, 1]; cost, ≥ 0; further losses.
        targets: Of all but the quality, in their units, (..., k - 1); one number where k is 2.
        exponents: At or below, and above, the target; ≤ 0.
        spans: How far each further loss ranges, (k - 2,), > 0.
    Returns:
        (...): `reward` of quality and cost, times that of each further loss.

    >>> rewards_of(np.array([[0.25, 80.0], [0.25, 160.0]]), 80.0, HARD).tolist()
    [0.75, 0.375]
    """
    targets = np.atleast_1d(np.asarray(targets, np.float64))
    ratio = np.maximum(losses[..., 1:2], _LEAST) / np.maximum(targets[..., :1], _LEAST)
    if losses.shape[-1] > 2:
        further = 1 + (losses[..., 2:] - targets[..., 1:]) / np.asarray(spans)
        further = np.maximum(further, _FLOOR)
        ratio = np.concatenate([ratio, further], axis=-1)
    weights = np.prod(ratio ** np.where(ratio <= 1, *exponents), axis=-1)
    scored: Floats = (1 - losses[..., 0]) * weights
    return scored


def sums_of(losses: Floats, weights: npt.ArrayLike, best: Floats, worst: Floats) -> Floats:
    """Weighted sums of quality and costs, each in shares of a range.

    weight · quality - (1 - weight) · mean of the costs; 1 is the best of a range, 0 the worst. What
    is far below the range counts as -1 of it, so that a limit overstepped does not hide the rest.

    Args:
        losses: (..., k), as `rewards_of` takes them.
        weights: Of the quality, (...), in [0, 1].
        best, worst: Of each loss, (k,).
    Source: Hsu et al., MONAS, 2018, the mixed reward. The range of quality is ours: by its own
        figure it hardly differs between networks.

    >>> best, worst = np.array([0.0, 10.0]), np.array([0.5, 50.0])
    >>> sums_of(np.array([[0.0, 50.0], [0.25, 10.0]]), 0.5, best, worst).tolist()
    [0.0, 0.25]
    """
    shares = (losses - best) / np.where(worst > best, worst - best, 1.0)
    quality = np.maximum(1 - shares[..., 0], -1.0)
    weights = np.asarray(weights, np.float64)
    summed: Floats = weights * quality - (1 - weights) * shares[..., 1:].mean(axis=-1)
    return summed


def limited_of(losses: Floats, targets: npt.ArrayLike, spans: npt.ArrayLike = ()) -> Floats:
    """Quality of what keeps all targets; of other networks minus the share by which they overstep.

    Args:
        losses, targets, spans: As `rewards_of` takes them.
    Returns:
        (...), in [-1, 1].
    Source: Zhou et al., Resource-Efficient Neural Architect, 2018 (RNAS in MnasNet's paper), a
        policy gradient under hard limits; Hsu et al., MONAS, 2018, whose reward beyond a limit is
        0. That it falls with the overstep is ours: so the first networks, all beyond, are told
        apart.

    >>> limited_of(np.array([[0.25, 80.0], [0.25, 100.0]]), 80.0).tolist()
    [0.75, -0.25]
    """
    targets = np.atleast_1d(np.asarray(targets, np.float64))
    over = losses[..., 1] / np.maximum(targets[..., 0], _LEAST) - 1
    if losses.shape[-1] > 2:
        further = (losses[..., 2:] - targets[..., 1:]) / np.asarray(spans)
        over = np.maximum(over, further.max(axis=-1))
    limited: Floats = np.where(over <= 0, 1 - losses[..., 0], -np.clip(over, 0, 1))
    return limited


def spans_of(losses: Floats) -> Floats:
    """How far each further loss of (n, k) ranges, (k - 2,), > 0."""
    spans: Floats = np.maximum(np.ptp(losses[:, 2:], axis=0), 1e-12)
    return spans


def targets_of(
    losses: Floats, target: float | None, first: int, count: int
) -> tuple[Floats, Floats]:
    """Targets for strategies that follow one product at a time: evenly over the front so far.

    Args:
        losses: (n, k), what was seen, n ≥ 1.
        target: Of the first cost, where one was named.
        first, count: Which members of the sequence, which has no end.
    Returns:
        Targets in the costs' units, and their places in the range, in [0, 1], each (count, k - 1).
    """
    costs = losses[non_dominated(losses), 1:]
    steps = np.array([_STEPS[i % len(_STEPS)] for i in range(costs.shape[1])])
    turns = np.arange(first, first + count, dtype=np.float64)[:, None]
    places: Floats = np.asarray((0.5 + steps * turns) % 1.0, np.float64)
    low, high = costs.min(axis=0), costs.max(axis=0)
    targets: Floats = low + places * (high - low)
    if target is not None:
        targets[:, 0], places[:, 0] = target, 0.5
    return targets, places


def penalised(losses: Floats, violation: Floats) -> Floats:
    """Losses, (n, k), in which whatever oversteps a limit is worth less than what keeps all.

    The less it oversteps, the more it is worth. The target is not a limit: the reward weighs it.

    Args:
        losses: (n, k), as `Strategy.tell` gets them.
        violation: (n,), > 0 where a limit is overstepped.
    """
    changed, wrong = losses.copy(), violation > 0
    changed[wrong, 0] = 1 - _OVERSTEPPED / (1 + violation[wrong])
    return changed
