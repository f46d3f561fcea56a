"""LookupTable: a network as the sum of its measured operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..data.measurement import Measurement
from ..space import Operator

__all__ = ["LookupTable"]


@dataclass(frozen=True)
class LookupTable:
    """Measured time of each operator.

    Args:
        ms: Operator → its time alone at batch 1, in ms.
        spread: Operator → how far its rounds stand apart, ± relative.
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
            max((m.at for m in chosen), default=""),
        )

    def __len__(self) -> int:
        return len(self.ms)

    def __contains__(self, operator: object) -> bool:
        return operator in self.ms
