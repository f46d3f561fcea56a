"""Lower an operator or a whole network to a TFLite flatbuffer, by hand and without a converter.

The same numbers as in `to_onnx`, in TFLite's order: maps are NHWC, a convolution's weight is
(out, k, k, in), a depthwise one's (1, k, k, channels). Tensors are named `{index}.{what}` after
the operator's place in the network. Every node is one that the XNNPACK delegate takes, in float32
or in 8 bits, so that a whole model runs in it.

Padding is k // 2 on each side, as in the other forms. TFLite's SAME is just that at stride 1, at
kernel 1, and at stride 2 on odd maps; at stride 2 on even maps it has one row less above and one
column less on the left. There a PAD comes before a VALID convolution; XNNPACK merges the two, so
it costs nothing.

The schema's classes come with `ai-edge-litert`, an optional extra: it is imported when a model
is built.
"""

from __future__ import annotations

from ..architecture import Architecture
from ..errors import InvalidArgument
from ..graph import NetworkGraph
from ..operator import Operator
from ..precision import checked_precision
from .calibration import Ranges, settled_ranges
from .tflite_nodes import INPUT, OUTPUT, Graph
from .tflite_precision import write_in_precision
from .weights import Arrays

__all__ = ["INPUT", "OUTPUT", "PRECISIONS", "Graph", "to_tflite"]

#: Those that a TFLite file is written in.
PRECISIONS = ("float32", "float16", "float16-weights", "int8")

_MAX_BYTES = 2**31 - 1  # a flatbuffer's offsets are signed and have 32 bits


def to_tflite(
    subject: Architecture | NetworkGraph | Operator,
    *,
    weights: Arrays | None = None,
    seed: int = 0,
    precision: str = "float32",
    ranges: Ranges | None = None,
) -> bytes:
    """Build an inference model for one image.

    Args:
        subject: A network, or a single operator with its own shapes.
        weights: Arrays by the names that `to_torch` modules use in their state:
            `{index}.{convolution}.weight` (out, in / groups, k, k), `.bias` (out,), and
            `{index}.{convolution}_bn.weight`, `.bias`, `.running_mean`, `.running_var` (out,);
            index 0 for a single operator. None fills in random values, those of `to_onnx`.
        seed: Of the random values.
        precision: Of `PRECISIONS`. "float16-weights" is stored in 16 bits and computed in 32;
            "float16" has the same weights, and the mark by which XNNPACK computes in 16 bits where
            the processor can.
        ranges: Of the values, as `calibrated` gives them, for int8; None: over random images.
    Returns:
        A model, schema version 3, with input `input` (1, px, px, channels) and output
        `output`, (1, classes) for a network or head, (1, px, px, channels) otherwise, float32 both.
        In int8 those of an operator are bytes, as within a network, but for a stem's input and a
        head's output. Equal arguments give equal bytes.
    Raises:
        MissingExtra: ai-edge-litert is not installed.
        UnknownName, InvalidArgument: No such precision; or one without a TFLite form here.
        InvalidArgument: Weights or ranges lack an array, or one has another shape; it is named.
            Or the model would not fit into the 2 GB of a flatbuffer.
    Source: tensorflow/lite/schema/schema.fbs, as `ai_edge_litert.schema_py_generated` has it.
    """
    if 4 * subject.params > _MAX_BYTES:
        raise InvalidArgument(
            f"a TFLite file holds at most 2.1 GB, and {subject.params:.2g} parameters take "
            f"{4e-9 * subject.params:.1f} GB. Take fewer channels."
        )
    checked_precision(precision, "precision", PRECISIONS)
    ranges = settled_ranges(subject, precision, ranges, weights=weights, seed=seed)
    if isinstance(subject, NetworkGraph):
        from .graph_tflite import graph_to_tflite

        return graph_to_tflite(
            subject, weights=weights, seed=seed, precision=precision, ranges=ranges
        )
    operators = subject.operators() if isinstance(subject, Architecture) else (subject,)
    graph = Graph(weights, seed, precision, ranges)
    first = operators[0]
    value = graph.tensor(INPUT, (1, first.in_px, first.in_px, first.in_channels))
    for index, operator in enumerate(operators):
        value = graph.operator(f"{index}.", operator, value)
    graph.tensors[value].name = OUTPUT
    if isinstance(subject, Architecture):
        return write_in_precision(graph, "network", value)
    inside = {"bytes_in": subject.kind != "stem", "bytes_out": subject.kind != "head"}
    return write_in_precision(graph, subject.key, value, **inside)
