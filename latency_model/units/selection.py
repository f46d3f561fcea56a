"""Which few operators to measure, so that a space's networks are predicted best.

Before anything is measured, the process over parts (`parts_process`) says how uncertain each
operator is and how much measuring one would inform about the others. Operators are chosen one by
one, each time the one that lowers the expected variance of the space's networks most. No measured
time is used.

Source: Cohn, Ghahramani and Jordan, Active Learning with Statistical Models, JAIR 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from phonenas.space import Operator, SearchSpace
from phonenas.space.errors import InvalidArgument

from ..gaussian_process import one_thread
from .parts import Parts, counts
from .parts_process import EXPECTED, covariance, roofline

__all__ = ["choose_operators", "greedy", "networks_of"]

Floats = npt.NDArray[np.float64]

_NETWORKS = 300  # random ones that stand for the space
_SEED = 5  # any; another than that of the networks that a profile draws
_NOISE = 0.03  # relative, of a measured operator


def networks_of(space: SearchSpace, count: int, seed: int = _SEED) -> list[tuple[Operator, ...]]:
    """Operators of so many random networks of a space."""
    genomes = space.sample(np.random.default_rng(seed), count)
    return [tuple(space.decode(g).operators()) for g in genomes]


@one_thread
def choose_operators(
    space: SearchSpace, count: int, known: Sequence[Operator] = ()
) -> tuple[Operator, ...]:
    """Operators of a space to measure, (count,), the most informative first.

    The first of a longer choice are the shorter choice.

    Args:
        space: Whose networks shall be predicted.
        count: From 1 to all of the space's operators that are not known.
        known: Operators that were measured before; they are not chosen again.
    Raises:
        InvalidArgument: A count out of that range.
    """
    operators = space.operators()
    measured = set(known)
    free = [i for i, o in enumerate(operators) if o not in measured]
    if not 1 <= count <= len(free):
        raise InvalidArgument(
            f"{count} operators of {space!r} cannot be measured: 1 to {len(free)} are not yet"
        )
    parts = Parts(operators)
    ms, shares = roofline(parts, EXPECTED)
    prior = covariance(parts, shares, parts, shares, EXPECTED)
    weights = counts(networks_of(space, _NETWORKS), operators) * ms
    weights /= weights.sum(axis=1, keepdims=True)
    given = [i for i, o in enumerate(operators) if o in measured]
    noise = np.full(len(operators), _NOISE**2)
    return tuple(operators[i] for i in greedy(prior, weights @ prior, noise, count, given))


def greedy(
    prior: Floats,
    goals: Floats,
    noise: Floats,
    count: int,
    given: Sequence[int] = (),
    allowed: Callable[[int], slice] = lambda _: slice(None),
) -> list[int]:
    """What to measure, (count,), each time what lowers the goals' summed variance most.

    Args:
        prior: Covariance of what can be measured, (n, n).
        goals: Covariance of each goal with what can be measured, (goals, n).
        noise: Variance of each measurement, (n,).
        count: How many.
        given: What is measured in any case, and not chosen.
        allowed: Number of a choice → the columns that it is made among.
    """
    left, goals = np.diag(prior) + noise, goals.copy()
    whitened = np.zeros((len(left), count + len(given)))
    taken: list[int] = []
    for step in range(count + len(given)):
        if step < len(given):
            best = given[step]
        else:
            gain = (goals**2).sum(axis=0) / left
            gain[taken] = -1.0
            among = allowed(step - len(given))
            best = int(np.argmax(gain[among])) + (among.start or 0)
        taken.append(best)
        root = np.sqrt(left[best])
        column = (prior[:, best] - whitened[:, :step] @ whitened[best, :step]) / root
        whitened[:, step] = column
        goals -= np.outer(goals[:, best] / root, column)
        left = np.maximum(left - column**2, noise)
    return taken[len(given) :]
