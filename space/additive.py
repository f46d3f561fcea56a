"""AdditiveTable and PeakTable: any sum or greatest over operators, for whole populations at once.

MACs, parameters, table latency and the surrogate's stage features are all sums over a
network's operators. Each part of a `SearchSpace` has few choices, so the sum over the
operators of every choice is tabled once, and a genome costs one look-up per part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .operator import Operator
from .search_space import SearchSpace

__all__ = ["AdditiveTable", "PeakTable"]

_CHUNK = 8192  # rows whose codes and partial sums stay in the L2 cache


class AdditiveTable:
    """`constant` + the sum of `value(operator)` over a network's operators, by genome.

    Args:
        space: The space of the genomes.
        value: Operator → a number, or d numbers. Called once per distinct operator.
        constant: Added once per network, a number or d numbers.
        examine: Takes and gives the sums of a call; raises where one cannot be.
    Attributes:
        by_choice: What each choice of each part adds, (choices,) or (choices, d); stem and
            constant are with the first part's.
    """

    def __init__(
        self,
        space: SearchSpace,
        value: Callable[[Operator], float | Sequence[float]],
        constant: float | Sequence[float] = 0.0,
        examine: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
    ) -> None:
        self.space, self._examine = space, examine
        operators = space.operators()
        rows = np.array([value(o) for o in operators], np.float64)
        self._flat = rows.ndim == 1
        rows = rows.reshape(len(operators), -1)
        padded = np.vstack([rows, np.zeros(rows.shape[1])])  # index -1: no layer
        tables = [padded[rows].sum(axis=1) for rows in space.expansions]
        # The stem and the constant belong to every network: the first part carries them.
        tables[0] = tables[0] + padded[operators.index(space.stem)] + np.asarray(constant)
        self.by_choice = [t[:, 0] if self._flat else t for t in tables]
        self._offsets = np.cumsum([0] + [len(t) for t in tables[:-1]]).astype(np.int32)
        self._table = np.concatenate(tables)
        if self._flat:
            self._table = np.ascontiguousarray(self._table[:, 0])

    def __call__(self, genomes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The sums of genomes (n, genes): (n,) for a number per operator, (n, d) for d numbers."""
        genomes = self.space.check(genomes)
        shape = (len(genomes),) if self._flat else (len(genomes), self._table.shape[1])
        out = np.empty(shape)
        for start in range(0, len(genomes), _CHUNK):
            rows = slice(start, start + _CHUNK)
            codes = self.space.codes(genomes[rows]) + self._offsets
            if self._flat:
                np.sum(self._table.take(codes), axis=1, out=out[rows])
            else:
                total = self._table[codes[:, 0]]
                for part in range(1, codes.shape[1]):
                    total += self._table[codes[:, part]]
                out[rows] = total
        return out if self._examine is None else self._examine(out)


class PeakTable:
    """The greatest `value(operator)` among a network's operators, by genome.

    Args:
        space: The space of the genomes.
        value: Operator → a number. Called once per distinct operator.
    """

    def __init__(self, space: SearchSpace, value: Callable[[Operator], float]) -> None:
        self.space = space
        operators = space.operators()
        padded = np.array([*(value(o) for o in operators), -np.inf])  # index -1: no layer
        self._by_choice = [padded[rows].max(axis=1) for rows in space.expansions]
        self._stem = float(padded[operators.index(space.stem)])

    def __call__(self, genomes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The greatest values of genomes (n, genes): (n,)."""
        genomes = self.space.check(genomes)
        codes = self.space.codes(genomes)
        peaks = np.full(len(genomes), self._stem)
        for part, values in enumerate(self._by_choice):
            np.maximum(peaks, values[codes[:, part]], out=peaks)
        return peaks
