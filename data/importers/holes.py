"""Holes: which operators of a search space a table of operators has, and which it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...space import Operator, SearchSpace, zoo

__all__ = ["Holes", "holes"]

_EXAMPLES = 5


@dataclass(frozen=True)
class Holes:
    """What a table covers of a space.

    Args:
        space: The space's name.
        resolution_px: Side of its input image, in pixels.
        covered, missing: How many of the space's distinct operators the table has, and lacks.
        examples: Keys of the first few that it lacks.
        networks: Names of the zoo's networks at this resolution that it has whole.
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


def holes(space: SearchSpace, subjects: Iterable[str]) -> Holes:
    """Compare a space's operators with those of a table.

    Args:
        space: Whose operators are needed.
        subjects: Keys of the table's operators; texts that are none never match.
    """
    had = set(subjects)
    needed = [o.key for o in space.operators()]
    missing = [key for key in needed if key not in had]
    return Holes(
        space.name,
        space.resolution_px,
        len(needed) - len(missing),
        len(missing),
        tuple(missing[:_EXAMPLES]),
        tuple(n for n in zoo.names() if _whole(n, space.resolution_px, had)),
    )


def _whole(name: str, resolution_px: int, had: set[str]) -> bool:
    operators: tuple[Operator, ...] = zoo.network(name, 1.0, resolution_px).operators()
    return all(o.key in had for o in operators)
