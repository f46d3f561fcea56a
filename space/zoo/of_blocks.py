"""Operators and networks of blocks as graphs, so that both kinds are read as kernels in one way."""

from __future__ import annotations

from functools import lru_cache

from ..architecture import Architecture
from ..graph import IMAGE, NetworkGraph, Runtime
from ..kernels.kernel import Kernel
from ..operator import Operator
from .graph_builder import GraphBuilder

__all__ = ["block_graph", "operator_kernels"]


def block_graph(network: Architecture) -> NetworkGraph:
    """The graph that computes what a network of blocks computes."""
    g = GraphBuilder(network.resolution_px)
    x = IMAGE
    for operator in network.operators():
        x = _layer(g, x, operator)
    return g.built(str(network), classes=network.classes, default_px=network.resolution_px)


@lru_cache(maxsize=65536)
def operator_kernels(operator: Operator, runtime: Runtime = "tflite") -> tuple[Kernel, ...]:
    """What a runtime launches for a layer, in order; see `NetworkGraph.kernels`."""
    g = GraphBuilder(operator.in_px, channels=operator.in_channels)
    _layer(g, IMAGE, operator)
    return g.built(operator.key).kernels(runtime)


def _layer(g: GraphBuilder, x: int, operator: Operator) -> int:
    source, reduced = x, 0
    for c in operator.convolutions:
        if c.name == "se_reduce":
            reduced = c.out_channels
            g.gating = (c.activation, operator.gate)
        elif c.name == "se_expand":
            x = g.gate(x, reduced)
        elif c.name == "classifier":
            return g.linear(x if operator.hidden else g.mean(x), c.out_channels)
        else:
            flags = {"normalised": c.normalised, "bias": c.bias}
            x = g.mean(x) if c.name == "hidden" else x
            x = g.conv(
                x, c.out_channels, c.kernel, c.stride, groups=c.groups, act=c.activation, **flags
            )
    if operator.skip == "pool":
        source = g.pool(source, 3, operator.stride, kind="average_pool")
        more = operator.out_channels - operator.in_channels
        if more > 0:
            source = g.pad(source, operator.out_channels)
        elif more < 0:
            source = g.slice(source, 0, operator.out_channels)
    return x if operator.skip == "none" else g.add(x, source)
