"""Networks people know, at any width and resolution that their families have.

A network of blocks is an `Architecture` (`blocks`, `families`); others are a `NetworkGraph`
(`registry`), built by the functions of `mobile`, `residual` and `joined`. `names` finds them by
name; `edge` knows them by the names of the edge
benchmark's tables, `published` the figures of papers and model collections.
"""

from __future__ import annotations

from ..architecture import Architecture
from ..graph import NetworkGraph, Runtime
from ..kernels.kernel import Kernel
from .edge import edge_family, edge_names, edge_network
from .names import find, find_graph, graph, graph_names, named, names, network, parse
from .of_blocks import block_graph, operator_kernels
from .published import Published, published

__all__ = [
    "Published",
    "block_graph",
    "edge_family",
    "edge_names",
    "edge_network",
    "find",
    "find_graph",
    "graph",
    "graph_names",
    "kernels",
    "named",
    "names",
    "network",
    "operator_kernels",
    "parse",
    "published",
]


def kernels(
    network: Architecture | NetworkGraph, runtime: Runtime = "tflite"
) -> tuple[Kernel, ...]:
    """What a runtime launches for a network, in order; see `NetworkGraph.kernels`."""
    graph = block_graph(network) if isinstance(network, Architecture) else network
    return graph.kernels(runtime)
