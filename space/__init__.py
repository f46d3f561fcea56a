"""Operators, networks, search spaces, and their lowerings to ONNX and torch."""

from __future__ import annotations

from . import errors, zoo
from .accel_nasbench import AccelNASBench
from .additive import AdditiveTable
from .architecture import Architecture, Block
from .errors import UnknownName, nearest
from .kernel import Kernel
from .mnasnet import MnasNet
from .mnasnet_flat import MnasNetFlat
from .operator import Operator
from .proxylessnas import ProxylessNAS
from .search_space import Genomes, Part, SearchSpace

__all__ = [
    "AccelNASBench",
    "AdditiveTable",
    "Architecture",
    "Block",
    "Genomes",
    "Kernel",
    "MnasNet",
    "MnasNetFlat",
    "Operator",
    "Part",
    "ProxylessNAS",
    "SearchSpace",
    "errors",
    "get",
    "names",
    "zoo",
]

_SPACES: dict[str, type[SearchSpace]] = {
    s.name: s for s in (MnasNet, MnasNetFlat, AccelNASBench, ProxylessNAS)
}


def names() -> list[str]:
    """Every search space by name."""
    return sorted(_SPACES)


def get(name: str, resolution: int = 224) -> SearchSpace:
    """A search space by name.

    Raises:
        UnknownName: No such space; the message offers the nearest.
        InvalidArgument: A resolution that its networks cannot take.
    """
    if name not in _SPACES:
        raise UnknownName(f"no search space is called {name!r}. {nearest(name, _SPACES)}")
    return _SPACES[name](resolution)
