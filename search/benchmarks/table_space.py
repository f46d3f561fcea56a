"""TableSpace: the rows of a table of genes as a search space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Genomes
from phonenas.space.narrowed import ConfinedSpace

if TYPE_CHECKING:
    from phonenas.space.search_space import Part

__all__ = ["TableSpace"]


class TableSpace(ConfinedSpace):
    """The genes of a table as a space: genomes without networks.

    Everything that strategies use is there; `decode` and `parts` are not.

    Args:
        decisions: Name of each gene → its options.
        genomes: Rows of the table, (n, genes) int8, all different.
    """

    name = "table"

    def __init__(self, decisions: Mapping[str, tuple[Any, ...]], genomes: Genomes) -> None:
        self._decisions, self.genomes = dict(decisions), genomes
        self.resolution_px = 0

    def __repr__(self) -> str:
        return f"TableSpace({len(self._decisions)} genes, {len(self.genomes):,} rows)"

    @property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return self._decisions

    @property
    def parts(self) -> tuple[Part, ...]:
        return ()

    def identities(self, genomes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        return self.check(genomes).astype(np.int32)
