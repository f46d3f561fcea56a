"""Strategies by name: ours, those of installed packages, and `module:Name`."""

from __future__ import annotations

from typing import Any

from phonenas.space.errors import InvalidArgument
from phonenas.space.registry import Registry

from .base import Strategy

__all__ = ["STRATEGIES", "get", "names"]

_ROOM = "phonenas.search.strategies"
STRATEGIES: Registry[Any] = Registry(
    "strategy",
    "phonenas.strategies",
    {
        "nsga2": f"{_ROOM}.nsga2:NSGA2",
        "random": f"{_ROOM}.random:RandomSearch",
        "rl": f"{_ROOM}.controller:Controller",
        "surrogate": f"{_ROOM}.surrogate_assisted:SurrogateAssisted",
        "weighted": f"{_ROOM}.weighted_product:WeightedProduct",
    },
)


def names() -> list[str]:
    """Every strategy by name, those of installed packages among them."""
    return STRATEGIES.names()


def get(name: str, seed: int = 0, soft: bool = False) -> Strategy:
    """A strategy by name, with its default settings.

    Args:
        name: See `names`; or `module:Name` of a class.
        seed: Of all chance.
        soft: For a soft target, where the strategy can follow one.
    Raises:
        UnknownName: No such strategy; the message offers the nearest.
        InvalidArgument: What bears the name is not a subclass of `Strategy`.
    """
    kind = STRATEGIES.get(name)
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise InvalidArgument(f"the strategy {name!r} is {kind!r}, which is not a Strategy class")
    return kind.make(seed, soft)
