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
from .nearest import Nearest

__all__ = ["Ancestry", "Source"]


@dataclass(frozen=True)
class Source:
    """A network whose weights another one inherits.

    Args:
        network: Its block string.
        row: Its number among all that were evaluated, from 0.
        epochs: After how many of its own its weights are taken.
        lineage: Of the source that it had itself; "" where it began from nothing.
        share: Of the other network's parameters that it has a value for, in [0, 1]; of both as
            they are trained, with the classes of the images.
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

    Args:
        classes: Of the images, ≥ 1: networks are trained with so many outputs, however many those
            of the space have.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.clear()

    def clear(self) -> None:
        """Forget all networks."""
        self._sources: dict[str, Source | None] = {}
        self._trained: dict[str, tuple[int, int]] = {}  # row and epochs
        self._networks: list[tuple[str, Architecture]] = []  # as trained, in the order of those
        self._near = Nearest()

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
                own = one.with_classes(self.classes)
                near, network = min(
                    (self._networks[n] for n in self._near.to(own)),
                    key=lambda known: (distance(known[1], own), -self._trained[known[0]][1]),
                )
                row, epochs = self._trained[near]
                before = self._sources.get(near)
                lineage, share = before.digest if before else "", share_carried(network, own)
                self._sources[text] = Source(near, row, epochs, lineage, share)

    def trained(self, network: str, row: int, epochs: int) -> None:
        """A network of a row has been trained for so many epochs by now."""
        if network not in self._trained:
            as_trained = Architecture.parse(network).with_classes(self.classes)
            self._networks.append((network, as_trained))
            self._near.add(as_trained)
        self._trained[network] = self._trained.get(network, (row, 0))[0], epochs
