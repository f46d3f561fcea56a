"""float_model(): an operator or a network as a float32 ONNX model; see `onnx`."""

from __future__ import annotations

import onnx

from ..architecture import Architecture
from ..graph import NetworkGraph
from ..operator import Operator
from .onnx_nodes import INPUT, OUTPUT, Graph
from .weights import Arrays

__all__ = ["float_model"]


def float_model(
    subject: Architecture | NetworkGraph | Operator, *, weights: Arrays | None = None, seed: int = 0
) -> onnx.ModelProto:
    """`to_onnx` in float32, with the same arguments."""
    if isinstance(subject, NetworkGraph):
        from .graph_onnx import graph_to_onnx

        return graph_to_onnx(subject, weights=weights, seed=seed)
    operators = subject.operators() if isinstance(subject, Architecture) else (subject,)
    graph = Graph(weights, seed)
    value = INPUT
    for index, operator in enumerate(operators):
        value = graph.operator(f"{index}.", operator, value)
    first, last = operators[0], operators[-1]
    out_shape = [1, last.out_channels]
    if last.kind != "head":
        out_shape += [last.out_px, last.out_px]
    return graph.packed(
        "network" if isinstance(subject, Architecture) else subject.key,
        [1, first.in_channels, first.in_px, first.in_px],
        {OUTPUT: (value, out_shape)},
    )
