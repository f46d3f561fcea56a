"""StartFrom: a strategy whose first proposals are known networks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from phonenas.space import Architecture, Genomes, Operator, SearchSpace
from phonenas.space.errors import InvalidArgument, NotInSpace

from .base import Objectives, State, Strategy

__all__ = ["StartFrom"]


class StartFrom(Strategy):
    """Another strategy, told of known networks in place of its own first proposals.

    They are evaluated like all others, in their order, and count. The strategy learns from them
    turn by turn, as many as it proposes in each.

    Args:
        strategy: Which goes on from there; new.
        networks: 1 or more, each of which counts once.
    Attributes:
        networks: Those that differ.
    Raises:
        InvalidArgument: No network.
    """

    def __init__(self, strategy: Strategy, networks: Sequence[Architecture]) -> None:
        super().__init__(strategy.seed)
        if not networks:
            raise InvalidArgument("a search starts from one known network or more, got none")
        self.strategy, self.name = strategy, strategy.name
        distinct: dict[tuple[Operator, ...], Architecture] = {}
        for network in networks:
            distinct.setdefault(network.operators(), network)
        self.networks = tuple(distinct.values())
        self._genomes: Genomes = np.empty((0, 0), np.int8)
        self._proposed = 0

    @property
    def settings(self) -> dict[str, Any]:
        text = "\n".join(map(str, self.networks))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return {**self.strategy.settings, "start_from": f"{len(self.networks)} networks ({digest})"}

    @property
    def soft_target(self) -> bool:
        return self.strategy.soft_target

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        """Bind to a space.

        Raises:
            NotInSpace: The space cannot express one of the networks; it is named.
        """
        genomes = []
        for network in self.networks:
            try:
                genomes.append(space.encode(network))
            except NotInSpace as error:
                raise NotInSpace(
                    f"the search cannot start from '{network}': {error}. Leave it out, or search "
                    "a space that holds it."
                ) from error
        self._genomes, self._proposed = np.array(genomes, np.int8), 0
        self.strategy.start(space, target, objectives)

    def ask(self, n: int) -> Genomes:
        own = self.strategy.ask(n)
        known = self._genomes[self._proposed : self._proposed + len(own)]
        return np.concatenate([known, own[len(known) :]])

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self._proposed = min(self._proposed + len(genomes), len(self._genomes))
        self.strategy.tell(genomes, losses, violation)

    def state(self) -> State:
        return self.strategy.state()

    def restore(self, state: State, seen: Genomes) -> None:
        self._proposed = min(len(seen), len(self._genomes))  # no other network comes before them
        self.strategy.restore(state, seen)
