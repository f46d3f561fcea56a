"""Lower a detector to ONNX, by hand, with BatchNorm folded; see `to_onnx`."""

from __future__ import annotations

import numpy as np
import onnx

from ..lowering.onnx_nodes import INPUT, Graph
from ..lowering.weights import Arrays
from .ssdlite import BOX_CODES, CLASS_LOGITS, SSDLite

__all__ = ["ssdlite_to_onnx"]


def ssdlite_to_onnx(
    detector: SSDLite, *, weights: Arrays | None = None, seed: int = 0
) -> onnx.ModelProto:
    """Build an inference model for one image.

    Args:
        detector: What to build.
        weights: Arrays by the names that `ssdlite_to_torch` modules use in their state; None fills
            in random values.
        seed: Of the random values.
    Returns:
        A float32 model with input `input` (1, 3, px, px) and outputs `class_logits`
        (1, boxes, classes) and `box_codes` (1, boxes, 4), neither squashed nor decoded; rows stand
        in the order of `SSDLite.anchors`.
    Raises:
        InvalidArgument: Weights lack an array, or one has another shape; it is named.
    """
    graph = Graph(weights, seed)
    px, value, first, given = detector.resolution_px, INPUT, "", []
    for name, layer in detector.trunk.items():
        if name == str(detector.tap):
            first = f"{name}.expand_{layer.activation}" if detector.tap_expanded else value
        value = graph.operator(f"{name}.", layer, value)
        given.append(value)
    maps = [first, *given[1 - len(detector.map_sides) :]]
    outputs = {}
    for what, each in ((CLASS_LOGITS, detector.classes), (BOX_CODES, 4)):
        parts = []
        for layer, source in zip(detector.predictors[what], maps, strict=True):
            prefix = f"{layer.name}."
            value = graph.operator(prefix, layer, source)
            # Channels last, so that the numbers of one anchor stand together.
            value = graph.node("Transpose", f"{prefix}last", [value], perm=[0, 2, 3, 1])
            shape = graph.constant(f"{prefix}shape", np.array([1, -1, each], np.int64))
            parts.append(graph.node("Reshape", f"{prefix}rows", [value, shape]))
        outputs[what] = (graph.node("Concat", what, parts, axis=1), [1, detector.boxes, each])
    return graph.packed("ssdlite", [1, 3, px, px], outputs)
