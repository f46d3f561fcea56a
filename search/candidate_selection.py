"""Which candidates of a front are worth a device's time."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import chance_within

from .pareto import Candidate, ParetoFront, hypervolume

__all__ = ["chances", "select_candidates"]

_NEAR = 0.95  # of the best reward: what is worth less is not what was asked for
# Of the best top-1 that likely meets the target: the soft reward hardly differs from 4 to 7 ms.
_ACCURATE = 0.97


def chances(front: ParetoFront) -> npt.NDArray[np.float64]:
    """Probability that each candidate meets the front's target when measured, (n,), in [0, 1].

    1 without a target.
    """
    if front.target_ms is None:
        return np.ones(len(front))
    ms, low, high = np.array([[c.latency_ms, c.low_ms, c.high_ms] for c in front]).T
    return chance_within(ms, low, high, front.target_ms)


def _whole_chances(front: ParetoFront) -> npt.NDArray[np.float64]:
    """`chances`; of several devices the least of all, (n,)."""
    least = chances(front)
    for name, target_ms in front.targets.items():
        if target_ms is not None:
            ends = [(c.values[name], c.intervals[name]) for c in front]
            ms, low, high = np.array([(ms, i.low_ms, i.high_ms) for ms, i in ends]).T
            least = np.minimum(least, chance_within(ms, low, high, target_ms))
    return least


def _costs(front: ParetoFront) -> npt.NDArray[np.float64]:
    """What each candidate costs, (n,): latency in ms.

    Of several devices the largest latency / target, without targets their geometric mean: the same
    whichever of them is validated.
    """
    if not front.targets:
        return np.array([c.latency_ms for c in front])
    ms = np.array([[c.values[name] for name in front.targets] for c in front])
    targets = [t for t in front.targets.values() if t is not None]
    costs: npt.NDArray[np.float64] = (
        (ms / np.array(targets)).max(axis=1) if targets else np.exp(np.log(ms).mean(axis=1))
    )
    return costs


def select_candidates(
    front: ParetoFront, k: int, measured: Collection[str] = ()
) -> list[Candidate]:
    """The k candidates to measure, in the order of the front.

    Of several devices "the target" here means those of all, so that the same networks are measured
    on each.

    The first has the greatest reward (without a target, top-1) times the chance to meet the
    target. Each further one adds most to the hypervolume that is expected of those chosen, so they
    lie along the front, near-twins add nothing, and networks that hardly meet the target come
    last. With a target only those within 5 % of the best reward, and 3 % of the best top-1 that
    likely meets it, are looked at, if they are enough.

    What was measured before counts as chosen: the first is then the one that is expected to gain
    most reward over the best of them, if any is, and near-twins of them come last too.

    Args:
        front: Of a search.
        k: How many, ≥ 1; all that were not measured where the front has no more.
        measured: Networks that were measured already, as `Candidate.block_args`.
    """
    candidates = list(front)
    done = np.array([c.block_args in measured for c in candidates], bool)
    open_ = [c for c, known in zip(candidates, done, strict=True) if not known]
    if k >= len(open_):
        return open_
    chance = _whole_chances(front)
    value = np.array([c.top1 if c.reward is None else c.reward for c in candidates])
    best = float((value * chance)[done].max(initial=0.0))
    gain = np.where(done, -1.0, np.maximum(value - best, 0.0) * chance)
    # Where nothing better is in sight, all are chosen to fill the gaps.
    chosen = [int(np.argmax(gain))] if gain.max() > 0 else []
    top1 = np.array([c.top1 for c in candidates])
    near = np.ones(len(candidates), bool)
    if front.target_ms is not None:
        likely = top1[chance > 0.5].max(initial=0.0)
        near = (value >= _NEAR * value.max()) & (top1 >= _ACCURATE * likely)
    near[chosen] = True
    if (near & ~done).sum() < k:
        near[:] = True
    losses = np.column_stack([_costs(front), [1 - c.top1 for c in candidates]])
    ideal, worst = losses[near].min(axis=0), losses[near].max(axis=0)
    # A little beyond the worst of them, so that the ends count too.
    reference = ideal + 1.1 * np.maximum(worst - ideal, 1e-9)
    known = [int(i) for i in np.flatnonzero(done & near & (chance > 0.5))]
    while len(chosen) < k:
        have = hypervolume(losses[[*known, *chosen]], ideal, reference)
        gains = [
            -1.0
            if i in chosen or done[i] or not near[i]
            else chance[i] * (hypervolume(losses[[*known, *chosen, i]], ideal, reference) - have)
            for i in range(len(candidates))
        ]
        chosen.append(int(np.argmax(gains)))
    return [candidates[i] for i in sorted(chosen)]
