"""LookupTable: a network as the sum of its measured operators."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from phonenas.data.measurement import Measurement
from phonenas.space import Operator

__all__ = ["LookupTable", "evenly"]

T = TypeVar("T")


@dataclass(frozen=True)
class LookupTable:
    """Measured time of each operator.

    Args:
        ms: Operator → its time alone at batch 1, in ms.
        spread: Operator → error bar of its time: half the 90 % interval, relative.
        date: When the latest of them was measured, ISO 8601.
    """

    ms: Mapping[Operator, float]
    spread: Mapping[Operator, float]
    date: str

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> LookupTable:
        """From measurements of kind "operator"; others are passed over."""
        chosen = [m for m in measurements if m.kind == "operator"]
        return cls(
            {Operator.parse(m.subject): m.latency_ms for m in chosen},
            {Operator.parse(m.subject): m.spread for m in chosen},
            max(chosen, key=lambda m: m.entry).at if chosen else "",
        )

    def without(self, keys: Container[str]) -> LookupTable:
        """The same table without some operators, by their keys."""
        kept = [o for o in self.ms if o.key not in keys]
        return LookupTable(
            {o: self.ms[o] for o in kept}, {o: self.spread[o] for o in kept}, self.date
        )

    def __len__(self) -> int:
        return len(self.ms)

    def __contains__(self, operator: object) -> bool:
        return operator in self.ms

    def spread_out(self, count: int) -> list[Operator]:
        """Up to `count` operators, evenly over the order of their times, from fast to slow."""
        ordered = sorted(self.ms, key=lambda o: (self.ms[o], o.key))
        return evenly(ordered, count)


def evenly(ordered: Sequence[T], count: int) -> list[T]:
    """Up to `count` of a list, its ends among them from two on.

    >>> evenly("abcdefg", 3), evenly("ab", 5), evenly("abc", 1)
    (['a', 'd', 'g'], ['a', 'b'], ['b'])
    """
    if count >= len(ordered):
        return list(ordered)
    if count == 1:
        return [ordered[len(ordered) // 2]]
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]
