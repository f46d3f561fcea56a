"""TableSpace: the rows of a table as a search space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Genomes, SearchSpace

if TYPE_CHECKING:
    from phonenas.space.search_space import Part

__all__ = ["TableSpace"]

_FEW = 4  # rows nearest to a mutant, of which it becomes one: the very nearest is a dead end


class TableSpace(SearchSpace):
    """The genes of a table as a space: genomes without networks.

    Uniform draws are draws of rows. Everything that strategies use is there; `decode` and
    `parts` are not.

    Args:
        decisions: Name of each gene → its options.
        genomes: Rows of the table, (n, genes) int8, all different.
    """

    name = "table"

    def __init__(self, decisions: Mapping[str, tuple[Any, ...]], genomes: Genomes) -> None:
        self._decisions, self.genomes = dict(decisions), genomes
        self.resolution_px = 0
        self.rows = {g.tobytes(): row for row, g in enumerate(genomes)}

    def __repr__(self) -> str:
        return f"TableSpace({len(self._decisions)} genes, {len(self.genomes):,} rows)"

    @property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return self._decisions

    @property
    def parts(self) -> tuple[Part, ...]:
        return ()

    def sample(self, rng: np.random.Generator, n: int) -> Genomes:
        """Draw n rows of the table, (n, genes) int8."""
        return self.genomes[rng.integers(0, len(self.genomes), n)]

    def mutate(
        self, genomes: Genomes, rng: np.random.Generator, rate: float | None = None
    ) -> Genomes:
        """Rows near the mutants, each another than it was; see `SearchSpace.mutate`."""
        mutants = super().mutate(genomes, rng, rate)
        for i, (genome, mutant) in enumerate(zip(genomes, mutants, strict=True)):
            if mutant.tobytes() not in self.rows:
                apart = self.apart(mutant)
                if (own := self.rows.get(genome.tobytes())) is not None:
                    apart[own] = np.inf
                few = min(_FEW, len(apart) - 1)
                nearest_rows = np.argpartition(apart, few - 1)[:few]
                mutants[i] = self.genomes[nearest_rows[rng.integers(few)]]
        return mutants

    def apart(self, genome: Genomes) -> npt.NDArray[np.float64]:
        """Genes between a genome and each row and, as a share below one, steps of options, (n,)."""
        steps = np.abs(genome.astype(np.int16) - self._wide)
        apart: npt.NDArray[np.float64] = np.count_nonzero(steps, axis=1) + steps @ self._step
        return apart

    @cached_property
    def _wide(self) -> npt.NDArray[np.int16]:
        return self.genomes.astype(np.int16)

    @cached_property
    def _step(self) -> npt.NDArray[np.float64]:
        counts = np.maximum(self.option_counts - 1, 1)
        return 1 / (counts * (len(counts) + 1.0))

    def identities(self, genomes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        return self.check(genomes).astype(np.int32)
