"""HeadLayer: what a detector has beyond its backbone, and how its layers are made.

Source: TensorFlow's object detection API, `feature_map_generators` with `use_depthwise`, and
`ConvolutionalBoxHead` and `ConvolutionalClassHead`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..operator import Convolution

__all__ = ["HeadLayer", "extra_layer", "predictor"]

_LEAST_CHANNELS = 16


@dataclass(frozen=True)
class HeadLayer:
    """One layer of the head: convolutions behind each other. It lowers as an `Operator` does.

    Args:
        name: What it is: "features", "extra1", "classes1", "boxes1", ...
        in_px: Side of the square input map in pixels.
        convolutions: In order.
    """

    name: str
    in_px: int
    convolutions: tuple[Convolution, ...]

    kind: ClassVar[str] = "detection"
    skip: ClassVar[str] = "none"
    activation: ClassVar[str] = "relu"

    @property
    def in_channels(self) -> int:
        """Channels of the input map."""
        return self.convolutions[0].in_channels

    @property
    def out_channels(self) -> int:
        """Channels of what it gives: for a predictor, anchors times classes, or times 4."""
        return self.convolutions[-1].out_channels

    @property
    def out_px(self) -> int:
        """Side of what it gives, in pixels."""
        return self.convolutions[-1].out_px

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return sum(c.macs for c in self.convolutions)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(c.params for c in self.convolutions)

    @property
    def key(self) -> str:
        """Its name in a listing: `extra1_10x10x1280_512`."""
        return f"{self.name}_{self.in_px}x{self.in_px}x{self.in_channels}_{self.out_channels}"

    def __str__(self) -> str:
        shape = f"{self.in_px}×{self.in_px}×{self.in_channels}→{self.out_channels}"
        return f"{self.name} at {shape}"


def predictor(name: str, channels: int, px: int, out: int) -> HeadLayer:
    """What reads one map: depthwise 3×3, then 1×1 with a bias to `out` numbers at each place.

    Args:
        name: Of the layer.
        channels, px: Of the map, and its side in pixels.
        out: Anchors times numbers of each.
    """
    return HeadLayer(
        name,
        px,
        (
            Convolution("depthwise", channels, channels, 3, 1, channels, px, True, "relu"),
            Convolution("predict", channels, out, 1, 1, 1, px, False, "none"),
        ),
    )


def extra_layer(number: int, channels: int, px: int, wish: int, width: float) -> HeadLayer:
    """What makes the next coarser map: 1×1 to half, depthwise 3×3 at stride 2, 1×1 to all.

    Args:
        number: Which one, from 1.
        channels, px: Of the map before, and its side in pixels.
        wish, width: Channels that it gives, times a multiplier, cut to whole ones, 16 at least.
    """
    half, out = (max(_LEAST_CHANNELS, int(w * width)) for w in (wish // 2, wish))
    small = -(-px // 2)
    return HeadLayer(
        f"extra{number}",
        px,
        (
            Convolution("reduce", channels, half, 1, 1, 1, px, True, "relu"),
            Convolution("depthwise", half, half, 3, 2, half, small, True, "relu"),
            Convolution("expand", half, out, 1, 1, 1, small, True, "relu"),
        ),
    )
