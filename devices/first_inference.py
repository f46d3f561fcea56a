"""FirstInferences: what a user waits for once, recorded apart from the steady state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..data.measurement import Conditions, Round
from ..data.store import MeasurementStore
from .device import Reading

__all__ = ["FirstInferences"]


class FirstInferences:
    """The first inference after loading, of whole networks, beside each steady round.

    It costs nothing more: every round loads its model anyway. It stands under conditions of its
    own, mode "first", so no fit ever mixes it with steady times.
    """

    def __init__(self, store: MeasurementStore, conditions: Conditions, purpose: str) -> None:
        self.store, self.purpose = store, purpose
        self.conditions = replace(conditions, mode="first")
        self._active = conditions.mode == "steady"
        self._ids: dict[str, int] = {}
        self._waiting: list[tuple[int, int, Round]] = []
        self._taken: dict[str, int] = {}

    def plan(self, networks: Sequence[str], again: bool) -> None:
        """Make room for these networks."""
        if self._active and networks:
            found = self.store.pending(
                self.conditions, "network", list(networks), purpose=self.purpose, again=again
            )
            self._ids = {text: pending.id for text, pending in found.items()}
            self._taken = {text: len(pending.rounds) for text, pending in found.items()}

    def take(self, text: str, reading: Reading, circumstances: Mapping[str, Any]) -> None:
        """Note the first inference of an accepted reading, where the device tells it."""
        if text in self._ids and reading.first_ms > 0:
            taken = Round((reading.first_ms,), circumstances=dict(circumstances))
            self._waiting.append((self._ids[text], self._taken[text], taken))
            self._taken[text] += 1

    def forget(self, text: str) -> None:
        """What went with steady rounds that do not count does not count either."""
        if text in self._ids:
            self._waiting = [w for w in self._waiting if w[0] != self._ids[text]]
            self.store.reopen([(self._ids[text], 0)])
            self._taken[text] = 0

    def commit(self) -> None:
        """Write what was noted."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.store.add_rounds(waiting)

    def complete(self, networks: Sequence[str]) -> None:
        """Let the first inferences of these networks count."""
        ids = [self._ids[t] for t in networks if self._taken.get(t)]
        if ids:
            self.store.complete(ids)
