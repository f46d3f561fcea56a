"""Which operators of a search space a table of operators covers, and which it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from phonenas.space import Operator, SearchSpace, zoo

__all__ = ["Coverage", "coverage"]

_EXAMPLES = 5


@dataclass(frozen=True)
class Coverage:
    """What a table covers of a space.

    Args:
        space: The space's name.
        resolution_px: Side of its input image, in pixels.
        covered, missing: How many of the space's distinct operators the table has and lacks.
        examples: Keys of the first few that it lacks.
        networks: Zoo networks at this resolution of which it has every operator.
    """

    space: str
    resolution_px: int
    covered: int
    missing: int
    examples: tuple[str, ...]
    networks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {
            "space": self.space,
            "resolution_px": self.resolution_px,
            "operators": self.covered + self.missing,
            "covered": self.covered,
            "missing": self.missing,
            "examples": list(self.examples),
            "networks": list(self.networks),
        }


def coverage(space: SearchSpace, subjects: Iterable[str]) -> Coverage:
    """Compare a space's operators with those of a table.

    Args:
        space: Whose operators are needed.
        subjects: Keys of the table's operators; other texts never match.
    """
    present = set(subjects)
    needed = [o.key for o in space.operators()]
    missing = [key for key in needed if key not in present]
    return Coverage(
        space.name,
        space.resolution_px,
        len(needed) - len(missing),
        len(missing),
        tuple(missing[:_EXAMPLES]),
        tuple(n for n in zoo.names() if _whole(n, space.resolution_px, present)),
    )


def _whole(name: str, resolution_px: int, present: set[str]) -> bool:
    operators: tuple[Operator, ...] = zoo.network(name, 1.0, resolution_px).operators()
    return all(o.key in present for o in operators)
