"""Ancestry: from which network each network of a search inherits its weights.

A network inherits from the nearest one of all that were trained before its generation. So who
inherits from whom follows from the generations alone, not from the order in which workers answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from phonenas.space import Architecture

from .alignment import distance, share_carried

__all__ = ["Ancestry", "Source"]


@dataclass(frozen=True)
class Source:
    """A network whose weights another one inherits.

    Args:
        network: Its block string.
        row: Its number among all that were evaluated, from 0.
        epochs: After how many of its own its weights are taken.
        lineage: Of the source that it had itself; "" where it began from nothing.
        share: Of the other network's parameters that it has a value for, in [0, 1].
    """

    network: str
    row: int
    epochs: int
    lineage: str
    share: float

    @property
    def digest(self) -> str:
        """Twelve hex digits of all that its weights depend on, beside the training's settings."""
        text = f"{self.network} after {self.epochs} {self.lineage}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Ancestry:
    """Who was trained in a search, and who inherits from whom.

    Lifetime: emptied by a search at its start; then, for each generation, `assign`, and `trained`
    once it is evaluated.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all networks."""
        self._sources: dict[str, Source | None] = {}
        self._trained: dict[str, tuple[Architecture, int, int]] = {}  # row and epochs

    def source(self, network: str) -> Source | None:
        """Whose weights a network begins with; None for its own first ones."""
        return self._sources.get(network)

    def assign(self, networks: Sequence[Architecture]) -> None:
        """Choose for each that has none yet the nearest network that was trained.

        Of networks that are equally near it is the one trained for longest, then the earliest.
        """
        for one in networks:
            text = str(one)
            if text in self._sources:
                continue
            self._sources[text] = None
            if self._trained:
                near, row, epochs = min(
                    self._trained.values(), key=lambda known: (distance(known[0], one), -known[2])
                )
                before = self._sources.get(str(near))
                lineage, share = before.digest if before else "", share_carried(near, one)
                self._sources[text] = Source(str(near), row, epochs, lineage, share)

    def trained(self, network: str, row: int, epochs: int) -> None:
        """A network of a row has been trained for so many epochs by now."""
        known = self._trained.get(network)
        architecture = Architecture.parse(network) if known is None else known[0]
        first = row if known is None else known[1]
        self._trained[network] = architecture, first, epochs
