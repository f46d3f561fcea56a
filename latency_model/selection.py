"""Which few operators to measure, so that a space's networks are told best.

Before anything is measured, the process over parts (`process`) says how uncertain each operator is
and how much measuring one would tell of the others. Operators are chosen one by one, each time the
one that lowers the expected variance of the space's networks most. No time is looked at.

Source: Cohn, Ghahramani and Jordan, Active Learning with Statistical Models, JAIR 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..space import Operator, SearchSpace
from ..space.errors import InvalidArgument
from .parts import Parts
from .process import PRIOR, covariance, roofline
from .threads import one_thread

__all__ = ["choose_operators", "counts", "greedy", "networks_of"]

Floats = npt.NDArray[np.float64]

_NETWORKS = 300  # random ones that stand for the space
_SEED = 5  # any; another than that of the networks that a profile draws
_NOISE = 0.03  # relative, of a measured operator


def networks_of(space: SearchSpace, count: int, seed: int = _SEED) -> list[tuple[Operator, ...]]:
    """Operators of so many random networks of a space."""
    genomes = space.sample(np.random.default_rng(seed), count)
    return [tuple(space.decode(g).operators()) for g in genomes]


def counts(networks: Sequence[Sequence[Operator]], operators: Sequence[Operator]) -> Floats:
    """How often each network holds each operator, (networks, n); others are passed over."""
    at = {o: i for i, o in enumerate(operators)}
    found = np.zeros((len(networks), len(operators)))
    for row, network in enumerate(networks):
        for o in network:
            if o in at:
                found[row, at[o]] += 1
    return found


@one_thread
def choose_operators(
    space: SearchSpace, count: int, known: Sequence[Operator] = ()
) -> tuple[Operator, ...]:
    """Operators of a space to measure, (count,), the most telling first.

    The first of a longer choice are the shorter choice.

    Args:
        space: Whose networks shall be told.
        count: From 1 to all of the space's operators that are not known.
        known: Operators that were measured before; they are not chosen again.
    Raises:
        InvalidArgument: A count out of that range.
    """
    operators = space.operators()
    held = set(known)
    free = [i for i, o in enumerate(operators) if o not in held]
    if not 1 <= count <= len(free):
        raise InvalidArgument(
            f"operators to measure of {space!r}: 1 to {len(free)} that are not yet, got {count}"
        )
    parts = Parts(operators)
    ms, shares = roofline(parts, PRIOR)
    prior = covariance(parts, shares, parts, shares, PRIOR)
    weights = counts(networks_of(space, _NETWORKS), operators) * ms
    weights /= weights.sum(axis=1, keepdims=True)
    given = [i for i, o in enumerate(operators) if o in held]
    noise = np.full(len(operators), _NOISE**2)
    return tuple(operators[i] for i in greedy(prior, weights @ prior, noise, count, given))


def greedy(
    prior: Floats,
    goals: Floats,
    noise: Floats,
    count: int,
    given: Sequence[int] = (),
    open_to: Callable[[int], slice] = lambda _: slice(None),
) -> list[int]:
    """What to measure, (count,), each time what lowers the goals' summed variance most.

    Args:
        prior: Covariance of what can be measured, (n, n).
        goals: Covariance of each goal with what can be measured, (goals, n).
        noise: Variance of each measurement, (n,).
        count: How many.
        given: What is measured in any case, and not chosen.
        open_to: Number of a choice → what it is made among.
    """
    left, goals = np.diag(prior) + noise, goals.copy()
    seen = np.zeros((len(left), count + len(given)))
    taken: list[int] = []
    for step in range(count + len(given)):
        if step < len(given):
            best = given[step]
        else:
            gain = (goals**2).sum(axis=0) / left
            gain[taken] = -1.0
            among = open_to(step - len(given))
            best = int(np.argmax(gain[among])) + (among.start or 0)
        taken.append(best)
        root = np.sqrt(left[best])
        told = (prior[:, best] - seen[:, :step] @ seen[best, :step]) / root
        seen[:, step] = told
        goals -= np.outer(goals[:, best] / root, told)
        left = np.maximum(left - told**2, noise)
    return taken[len(given) :]
