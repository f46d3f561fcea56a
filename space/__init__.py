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
from .nasbench_macro import NASBenchMacro
from .operator import Operator
from .proxylessnas import ProxylessNAS
from .search_space import Genomes, Part, SearchSpace
from .ssdlite import SSDLite

__all__ = [
    "AccelNASBench",
    "AdditiveTable",
    "Architecture",
    "Block",
    "Genomes",
    "Kernel",
    "MnasNet",
    "MnasNetFlat",
    "NASBenchMacro",
    "Operator",
    "Part",
    "ProxylessNAS",
    "SSDLite",
    "SearchSpace",
    "errors",
    "get",
    "names",
    "zoo",
]

_SPACES: dict[str, type[SearchSpace]] = {
    s.name: s for s in (MnasNet, MnasNetFlat, AccelNASBench, ProxylessNAS, NASBenchMacro)
}


def names() -> list[str]:
    """Every search space by name."""
    return sorted(_SPACES)


def get(name: str, resolution: int | None = None) -> SearchSpace:
    """A search space by name, at an input side in pixels or at its own (224; 32 of CIFAR's).

    Raises:
        UnknownName: No such space; the message offers the nearest.
        InvalidArgument: A resolution that its networks cannot take.
    """
    if name not in _SPACES:
        raise UnknownName(f"no search space is called {name!r}. {nearest(name, _SPACES)}")
    own = _SPACES[name]
    return own() if resolution is None else own(resolution)
