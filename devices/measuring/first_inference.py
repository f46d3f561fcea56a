"""FirstInferences: the first inference after loading, stored apart from the steady state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from phonenas.data.measurement import Conditions, Round
from phonenas.data.store import MeasurementStore

from ..device import Reading

__all__ = ["FirstInferences"]


class FirstInferences:
    """The first inference after loading, of whole networks, beside each steady round.

    It costs nothing: every round loads its model anyway. It has conditions of its own, mode
    "first", so no fit mixes it with steady times.
    """

    def __init__(self, store: MeasurementStore, conditions: Conditions, purpose: str) -> None:
        self.store, self.purpose = store, purpose
        self.conditions = replace(conditions, mode="first")
        self._active = conditions.mode == "steady"
        self._ids: dict[str, int] = {}
        self._waiting: list[tuple[int, int, Round]] = []
        self._count: dict[str, int] = {}

    def begin(self, networks: Sequence[str], again: bool) -> None:
        """Begin or continue the measurements of these networks."""
        if self._active and networks:
            known = self.store.pending(
                self.conditions, "network", list(networks), purpose=self.purpose, again=again
            )
            self._ids |= {text: pending.id for text, pending in known.items()}
            self._count |= {text: len(pending.rounds) for text, pending in known.items()}

    def accept(self, text: str, reading: Reading, telemetry: Mapping[str, Any]) -> None:
        """Record the first inference of an accepted reading, if the device reports it."""
        if text in self._ids and reading.first_ms > 0:
            first = Round((reading.first_ms,), telemetry=dict(telemetry))
            self._waiting.append((self._ids[text], self._count[text], first))
            self._count[text] += 1

    def forget(self, text: str) -> None:
        """Drop those of a network whose steady rounds were dropped."""
        if text in self._ids:
            self._waiting = [w for w in self._waiting if w[0] != self._ids[text]]
            self.store.reopen([(self._ids[text], 0)])
            self._count[text] = 0

    def commit(self) -> None:
        """Write what was recorded."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.store.add_rounds(waiting)

    def complete(self, networks: Sequence[str]) -> None:
        """Complete the measurements of these networks."""
        ids = [self._ids[t] for t in networks if self._count.get(t)]
        if ids:
            self.store.complete(ids)
