"""Lower an operator or a whole network to ONNX, by hand and without torch.

BatchNorm is folded into the convolution before it; nodes are named `{index}.{what}` after the
operator's place in the network, and keep these names through a runtime's fusion. Without given
weights the values come from a short random sequence that repeats: what a runtime computes
takes as long as with trained ones, and hundreds of models can be built in a second.
"""

from __future__ import annotations

import onnx

from ..architecture import Architecture
from ..graph import NetworkGraph
from ..operator import Operator
from ..precision import FLOAT32, checked_precision
from .calibration import Ranges, settled_ranges
from .onnx_floats import float_model
from .onnx_nodes import INPUT, OUTPUT, Graph
from .weights import Arrays

__all__ = ["INPUT", "OUTPUT", "PRECISIONS", "Graph", "to_onnx"]

#: Those that an ONNX file is written in.
PRECISIONS = (FLOAT32, "float16", "int8", "int8-dynamic")


def to_onnx(
    subject: Architecture | NetworkGraph | Operator,
    *,
    weights: Arrays | None = None,
    seed: int = 0,
    precision: str = "float32",
    ranges: Ranges | None = None,
) -> onnx.ModelProto:
    """Build an inference model for one image.

    Args:
        subject: A network, or a single operator with its own shapes.
        weights: Arrays by the names that `to_torch` modules use in their state:
            `{index}.{convolution}.weight` (out, in / groups, k, k), `.bias` (out,), and
            `{index}.{convolution}_bn.weight`, `.bias`, `.running_mean`, `.running_var` (out,);
            index 0 for a single operator. None fills in random values.
        seed: Of the random values.
        precision: Of `PRECISIONS`; see `onnx_precision`.
        ranges: Of the values, as `calibrated` gives them, for int8; None: over random images.
    Returns:
        A model with input `input` (1, channels, px, px) and output `output`, (1, classes) for a
        network or head, (1, channels, px, px) otherwise, float32 both. In int8 those of an operator
        are bytes, as within a network, but for a stem's input and a head's output.
    Raises:
        UnknownName, InvalidArgument: No such precision; or one without an ONNX form here.
        InvalidArgument: Weights or ranges lack an array, or one has another shape; it is named.
    """
    checked_precision(precision, "precision", PRECISIONS)
    ranges = settled_ranges(subject, precision, ranges, weights=weights, seed=seed)
    model = float_model(subject, weights=weights, seed=seed)
    if precision == FLOAT32:
        return model
    from .onnx_precision import dynamic_int8, float16, static_int8

    if ranges is None:
        return float16(model) if precision == "float16" else dynamic_int8(model)
    if not isinstance(subject, Operator):
        return static_int8(model, ranges)
    return static_int8(
        model, ranges, bytes_in=subject.kind != "stem", bytes_out=subject.kind != "head"
    )
