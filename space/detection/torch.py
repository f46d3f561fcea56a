"""A detector as a torch module that can be trained; see `to_torch`.

torch is an optional extra and heavy: it is imported when a detector is built.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidArgument
from ..lowering.torch import initialise, layer_class, torch_or_extra
from ..lowering.weights import Arrays
from .head_layer import HeadLayer
from .ssdlite import BOX_CODES, CLASS_LOGITS, SSDLite

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ssdlite_to_torch"]

_DEVIATION = 0.03  # of the first weights of what stands on the backbone, in the published settings


def ssdlite_to_torch(
    detector: SSDLite, *, weights: Arrays | None = None, seed: int | None = None
) -> nn.Module:
    """Build a trainable detector, on the CPU, in training mode.

    Args:
        detector: What to build.
        weights: What a network with the same backbone has learned, by the names of its state
            (`state_arrays`, or the file that training writes): the backbone begins with it. What
            only that network has, its classifier, is left out. None begins from nothing.
        seed: Seeds the initial weights and leaves torch's global chance untouched; None draws
            from torch's global chance.
    Returns:
        A module that takes (n, 3, resolution_px, resolution_px) images and gives class logits
        (n, boxes, classes) and box codes (n, boxes, 4), rows in the order of `SSDLite.anchors`.
        Its method `per_map` gives the same as a list of pairs, one a map, the finest first.
        `state_arrays` of it is what `ssdlite_to_onnx` takes.
    Raises:
        MissingExtra: torch is not installed.
        InvalidArgument: Weights lack an array of the backbone, or one has another shape.
    Source: the initial weights beyond the backbone are those of the object detection API's
        `ssdlite_mobilenet_v3_large_320x320_coco.config`.
    """
    torch = torch_or_extra()
    module = _detector_class()(detector)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for name, layer in detector.layers.items():
        for c in layer.convolutions:
            part = module.get_submodule(f"{name}.{c.name}")
            initialise(c, part, generator)
            if isinstance(layer, HeadLayer) and not name.isdigit():
                torch.nn.init.normal_(part.weight, 0.0, _DEVIATION, generator=generator)
    if weights is not None:
        _begin(module, weights)
    return module


def _begin(module: nn.Module, weights: Arrays) -> None:
    """Copy what a network with the same backbone has learned."""
    import torch

    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if not key.partition(".")[0].isdigit() or key.endswith("num_batches_tracked"):
                continue
            array = weights.get(key)
            if array is None or tuple(array.shape) != tuple(tensor.shape):
                problem = "lack it" if array is None else f"have {tuple(array.shape)}"
                raise InvalidArgument(
                    f"the backbone's {key} is {tuple(tensor.shape)}, and the weights {problem}: "
                    "they are of another network"
                )
            tensor.copy_(torch.from_numpy(np.array(array, np.float32)))


@cache
def _detector_class() -> type[nn.Module]:
    """The module of a detector, defined when torch is first needed."""
    import torch
    from torch import nn

    layer_module = layer_class()

    class Detector(nn.Module):
        """(n, 3, px, px) → (n, boxes, classes), (n, boxes, 4)."""

        def __init__(self, detector: SSDLite) -> None:
            super().__init__()
            self.detector = detector
            for name, layer in detector.layers.items():
                self.add_module(name, layer_module(layer, 0.0))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits, codes = zip(*self.per_map(x), strict=True)
            return torch.cat(logits, 1), torch.cat(codes, 1)

        def per_map(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
            """Class logits (n, anchors of a map, classes) and box codes (n, ..., 4), map by map."""
            maps = self.maps(x)
            rows = []
            for what, each in ((CLASS_LOGITS, self.detector.classes), (BOX_CODES, 4)):
                layers = self.detector.predictors[what]
                given = [
                    self.get_submodule(layer.name)(m) for layer, m in zip(layers, maps, strict=True)
                ]
                rows.append([y.permute(0, 2, 3, 1).reshape(len(y), -1, each) for y in given])
            return list(zip(*rows, strict=True))

        def maps(self, x: Tensor) -> list[Tensor]:
            """The six maps that the predictors read, the finest first."""
            first, given = x, []
            for name in self.detector.trunk:
                layer: Any = self.get_submodule(name)
                if name == str(self.detector.tap):
                    before = x
                    x, expanded = layer.with_first(x)
                    first = expanded if self.detector.tap_expanded else before
                else:
                    x = layer(x)
                given.append(x)
            return [first, *given[1 - len(self.detector.map_sides) :]]

    return Detector
