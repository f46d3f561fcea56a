"""Lower a detector to a TFLite flatbuffer, by hand; see `to_tflite`."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidArgument
from ..lowering.tflite_nodes import CLAMPS, INPUT, Graph
from ..lowering.weights import Arrays
from .ssdlite import BOX_CODES, CLASS_LOGITS, SSDLite

__all__ = ["ssdlite_to_tflite"]

_MAX_BYTES = 2**31 - 1
_JOINED = 4


def ssdlite_to_tflite(detector: SSDLite, *, weights: Arrays | None = None, seed: int = 0) -> bytes:
    """Build an inference model for one image.

    Args:
        detector: What to build.
        weights: Arrays by the names that `ssdlite_to_torch` modules use in their state; None fills
            in random values, those of `ssdlite_to_onnx`.
        seed: Of the random values.
    Returns:
        A float32 model with input `input` (1, px, px, 3) and outputs `class_logits`
        (1, boxes, classes) and `box_codes` (1, boxes, 4), as those of `ssdlite_to_onnx`. Boxes are
        not decoded and none is suppressed: that is left to the application.
    Raises:
        MissingExtra: ai-edge-litert is not installed.
        InvalidArgument: Weights lack an array, or one has another shape; it is named. Or the
            model would not fit into the 2 GB of a flatbuffer.
    """
    if 4 * detector.params > _MAX_BYTES:
        raise InvalidArgument(
            f"a TFLite file holds at most 2.1 GB, and {detector.params:.2g} parameters take "
            f"{4e-9 * detector.params:.1f} GB. Take fewer channels."
        )
    graph = Graph(weights, seed)
    px = detector.resolution_px
    value = first = graph.tensor(INPUT, (1, px, px, 3))
    given = []
    for name, layer in detector.trunk.items():
        before, value = value, graph.operator(f"{name}.", layer, value)
        given.append(value)
        if name == str(detector.tap):
            # An activation that is no clamp is a node of its own.
            own = f"{name}.expand" + f"_{layer.activation}" * (layer.activation not in CLAMPS)
            expanded = (i for i, t in enumerate(graph.tensors) if t.name == own)
            first = next(expanded) if detector.tap_expanded else before
    maps = [first, *given[1 - len(detector.map_sides) :]]
    outputs = []
    for what, each in ((CLASS_LOGITS, detector.classes), (BOX_CODES, 4)):
        parts = []
        for layer, source in zip(detector.predictors[what], maps, strict=True):
            prefix = f"{layer.name}."
            value = graph.operator(prefix, layer, source)
            rows = [1, layer.out_px**2 * layer.out_channels // each, each]
            shape = graph.constant(f"{prefix}shape", np.array(rows, np.int32))
            parts.append(
                graph.node("RESHAPE", f"{prefix}rows", [value, shape], rows, newShape=rows)
            )
        # XNNPACK joins a few maps, but not six: the coarse ones, of some dozen boxes, go first.
        few = parts[_JOINED - 1 :]
        rows = [1, sum(graph.tensors[p].shape[1] for p in few), each]
        parts[_JOINED - 1 :] = [graph.node("CONCATENATION", f"{what}.few", few, rows, axis=1)]
        rows = [1, detector.boxes, each]
        outputs.append(graph.node("CONCATENATION", what, parts, rows, axis=1))
    return graph.packed("ssdlite", *outputs)
