"""The exact front of a whole space, where both objectives are sums over its parts.

Table latency and an additive accuracy model are such sums. Then dynamic programming over the parts
keeps, for each value of the decisions that later parts still read, every partial network that no
other beats in both sums. The result is the true Pareto front, of 10^18 networks as of ten, and
strategies can be compared with it.

Source: Bellman's principle; each partial front is pruned as in multi-objective shortest paths
(Martins, EJOR 16, 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from phonenas.space import AdditiveTable, Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import counted
from phonenas.space.narrowed import ConfinedSpace

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ExactFront", "exact_front"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
_LIMIT = 5_000_000  # partial networks of one state; beyond, memory would be the limit


@dataclass(frozen=True)
class ExactFront:
    """Networks that none of the space beats: genomes, (k, genes), int8, with their cost, which is
    minimised, and gain, which is maximised, both (k,) and rising.
    """

    genomes: Genomes
    cost: Floats
    gain: Floats

    def __len__(self) -> int:
        return len(self.cost)

    def __repr__(self) -> str:
        return f"ExactFront({counted(len(self), 'network')})"

    def to_frame(self) -> pd.DataFrame:
        """One row a network, by rising cost: cost, gain, genome (its options' places)."""
        import pandas as pd

        genomes = [tuple(row) for row in self.genomes.tolist()]
        return pd.DataFrame({"cost": self.cost, "gain": self.gain, "genome": genomes})


@dataclass
class _Partial:
    """Partial networks of one state: sums, and how each came about."""

    cost: Floats
    gain: Floats
    parent: Rows  # row among the previous part's partial networks, all states after each other
    choice: Rows  # of this part


def exact_front(
    space: SearchSpace, cost: AdditiveTable, gain: AdditiveTable, *, step: float = 0.0
) -> ExactFront:
    """The Pareto front of all genomes.

    Args:
        space: Whose.
        cost: Minimised, one number a genome, as `LatencyModel.on` gives.
        gain: Maximised, one number a genome.
        step: Of partial networks whose costs fall into one step only the best is kept. 0 is
            exact; else the front's cost is too high by at most a step for each part.
    Raises:
        InvalidArgument: A table of another space or of several numbers; a front so large that
            only a step above 0 can hold it.

    Example:
        >>> from phonenas.space import AccelNASBench
        >>> small = AccelNASBench(resolution=32)
        >>> macs = AdditiveTable(small, lambda o: o.macs)
        >>> params = AdditiveTable(small, lambda o: o.params)
        >>> front = exact_front(small, macs, params)
        >>> bool((np.diff(front.cost) > 0).all() and (np.diff(front.gain) > 0).all())
        True
    """
    costs, gains = (_choices(space, table) for table in (cost, gain))
    if isinstance(space, ConfinedSpace):
        summed, gained = cost(space.genomes), gain(space.genomes)
        best = _front(summed, gained, 0.0)
        return ExactFront(space.genomes[best], summed[best], gained[best])
    states: dict[tuple[int, ...], _Partial] = {
        (): _Partial(np.zeros(1), np.zeros(1), np.zeros(1, np.intp), np.zeros(1, np.intp))
    }
    history: list[tuple[Rows, Rows]] = []
    before: list[int] = []
    for part, columns in enumerate(space.part_columns):
        after = space.open_after[part]
        moves = _moves(space, part, before, costs[part], gains[part])
        joined: dict[tuple[int, ...], list[_Partial]] = {}
        start = 0
        for state, partial in states.items():
            known = dict(zip(before, state, strict=True))
            for own, choices in moves.get(tuple(known[c] for c in columns if c in known), ()):
                now = known | dict(zip(columns, own, strict=True))
                key = tuple(now[c] for c in after)
                joined.setdefault(key, []).append(
                    _joined(partial, start, choices, costs[part], gains[part], step)
                )
            start += len(partial.cost)
        states = {key: _pruned(several, step) for key, several in sorted(joined.items())}
        rows = list(states.values())
        history.append(
            (np.concatenate([r.parent for r in rows]), np.concatenate([r.choice for r in rows]))
        )
        before = after
    (last,) = states.values()
    return ExactFront(_genomes(space, history), last.cost, last.gain)


def _choices(space: SearchSpace, table: AdditiveTable) -> list[Floats]:
    if table.space is not space or table.by_choice[0].ndim != 1:
        raise InvalidArgument("an exact front takes tables of one number over the same space")
    return table.by_choice


def _moves(
    space: SearchSpace, part: int, before: Sequence[int], cost: Floats, gain: Floats
) -> dict[tuple[int, ...], list[tuple[tuple[int, ...], Rows]]]:
    """Choices of a part that may be on a front, by the decisions made before and those left open.

    Shared values → [(option indices of one such choice, choices)]. Only the indices of
    decisions that stay open matter; the choices of one entry agree in them.
    """
    columns, combos = space.part_columns[part], space.combos[part]
    shared = [i for i, c in enumerate(columns) if c in before]
    kept = [i for i, c in enumerate(columns) if c in space.open_after[part]]
    groups: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for choice, row in enumerate(combos.tolist()):
        inner = groups.setdefault(tuple(row[i] for i in shared), {})
        inner.setdefault(tuple(row[i] for i in kept), []).append(choice)
    return {
        key: [
            (tuple(combos[rows[0]].tolist()), np.asarray(rows)[_front(cost[rows], gain[rows], 0.0)])
            for rows in inner.values()
        ]
        for key, inner in groups.items()
    }


def _joined(
    partial: _Partial, start: int, choices: Rows, cost: Floats, gain: Floats, step: float
) -> _Partial:
    """Every partial network with every choice, those beaten left out."""
    if len(partial.cost) * len(choices) > 4 * _LIMIT:
        raise InvalidArgument(
            f"{len(partial.cost):,} partial networks with {len(choices):,} choices each; give a "
            f"step above {step:g}"
        )
    summed = (partial.cost[:, None] + cost[choices]).ravel()
    gained = (partial.gain[:, None] + gain[choices]).ravel()
    kept = _front(summed, gained, step)
    return _Partial(
        summed[kept], gained[kept], start + kept // len(choices), choices[kept % len(choices)]
    )


def _pruned(several: list[_Partial], step: float) -> _Partial:
    cost, gain, parent, choice = (
        np.concatenate([getattr(s, name) for s in several])
        for name in ("cost", "gain", "parent", "choice")
    )
    kept = _front(cost, gain, step)
    if len(kept) > _LIMIT:
        raise InvalidArgument(
            f"a front of {len(kept):,} partial networks; give a step above {step:g}"
        )
    return _Partial(cost[kept], gain[kept], parent[kept], choice[kept])


def _front(cost: Floats, gain: Floats, step: float) -> Rows:
    """Rows that no other beats, by rising cost; of equal ones the first."""
    order = np.lexsort((-gain, cost))
    best = np.maximum.accumulate(gain[order])
    kept: Rows = order[np.concatenate([[True], best[1:] > best[:-1]])]
    if step > 0:
        # The last of a step has its best gain.
        bins = np.floor(cost[kept] / step)
        kept = kept[np.append(bins[1:] != bins[:-1], True)]
    return kept


def _genomes(space: SearchSpace, history: list[tuple[Rows, Rows]]) -> Genomes:
    rows = np.arange(len(history[-1][0]))
    genomes = np.zeros((len(rows), len(space.option_counts)), np.int8)
    for part in reversed(range(len(history))):
        parent, choice = history[part]
        genomes[:, space.part_columns[part]] = space.combos[part][choice[rows]]
        rows = parent[rows]
    return genomes
