"""SSDLite: a detector on an `Architecture`, as in the COCO part of the MnasNet paper.

Six maps, at strides 16 to 512; at each place of each, classes and box codes for a few anchors
(`anchors`). What is published leaves little open, and counts decide the rest:

- The first map is the expansion of the layer that goes from stride 16 to 32 (or that layer's input,
  where it has no expansion), the second the head's 1×1 convolution at stride 32 (1280 channels).
- Four extra layers lead on: 1×1 to half of 512, 256, 256, 128 channels, depthwise 3×3 at
  stride 2, 1×1 to all of them; each with BatchNorm and ReLU.
- Each map has two predictors, one of classes and one of boxes: depthwise 3×3 with BatchNorm and
  ReLU, then 1×1 with a bias; 3 anchors on the first map, 6 on the others.
- A width multiplier widens the extra layers (cut to whole channels, 16 at least) and the head's
  1×1 too.

Counts, millions of parameters and billions of multiply-adds of one image:

=====================================  ================  ==========================
network                                here              printed
=====================================  ================  ==========================
A1, 320 px, 91 classes                 4.912, 0.838      4.9, 0.8 (MnasNet)
the same, BatchNorm folded             4.887, 0.838      4.88, 0.84 (MobileNetV3)
A1 ×0.5, folded                        1.677, 0.290      1.68, 0.29 (MobileNetV3)
A1 ×0.35, folded                       1.023, 0.177      1.02, 0.18 (MobileNetV3)
MobileNetV2, 320 px, 81 classes        4.337, 0.789      4.3, 0.8 (MobileNetV2)
MobileNetV2, 300 px, 91, folded        4.475, 0.750      4.475, 0.763 (released file)
=====================================  ================  ==========================

Other readings miss: with the first map from the layer's input A1 has 4.740 and 0.770, with 81
classes 4.746 and 0.821, without the 1×1 to 1280 channels 3.686 and 0.716. An earlier layer's
expansion (480 channels) has 4.853 and 0.814, which round to MnasNet's digits and not to
MobileNetV3's.

Sources: Sandler et al., MobileNetV2, CVPR 2018, section 6.2; TensorFlow's object detection API,
`ssd_mobilenet_v2_feature_extractor`, `feature_map_generators`, `convolutional_box_predictor` and
`ssdlite_mobilenet_v2_coco.config`; printed counts also in Howard et al., Searching for MobileNetV3,
ICCV 2019, and OpenVINO's model zoo. Theirs clip ReLU at 6 and pad as TensorFlow does, which changes
no count and no map's size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..architecture import CLASSES, RESOLUTION_PX, Architecture, round_channels
from ..errors import InvalidArchitecture, InvalidArgument
from ..operator import Operator
from ..precision import FLOAT32
from .anchors import FIRST_ANCHORS, FURTHER_ANCHORS, anchors
from .head_layer import HeadLayer, extra_layer, predictor

__all__ = ["BOX_CODES", "CLASS_LOGITS", "COCO_CLASSES", "DETECTION_PX", "SSDLite"]

CLASS_LOGITS, BOX_CODES = "class_logits", "box_codes"  # the names of what it gives

COCO_CLASSES = 91  # COCO numbers its classes 1 to 90; 0 is the background
DETECTION_PX = 320
_TAP_STRIDE, _LAST_STRIDE = 16, 32
_EXTRA_CHANNELS = (512, 256, 256, 128)
_CODE_SIZE = 4
_MOST_CLASSES = 10_000
_LEAST_WIDTH, _MOST_WIDTH = 0.01, 10.0
_MOST_PARAMS = 10**9
_SETTING = re.compile(r"(classes|res|width)([0-9]{1,6}(?:\.[0-9]{1,20})?)")


@dataclass(frozen=True)
class SSDLite:
    """A detector: a backbone without its classifier, four extra layers, twelve predictors.

    Args:
        backbone: Whose strides multiply to 32. Its resolution and classes are not looked at; what
            it is kept as has the detector's resolution and 1000 classes.
        classes: Of objects, and one for the background; 2 to 10,000.
        resolution_px: Side of the square RGB input, in pixels.
        width: Multiplies the channels of the extra layers alone, in [0.01, 10]; `scaled` widens
            all.
    Raises:
        InvalidArgument: A value out of its range, a backbone without maps at strides 16 and 32, or
            a resolution that it cannot take.
        InvalidArchitecture: More than a billion parameters.

    Example:
        >>> from phonenas.space.zoo import network
        >>> detector = SSDLite(network("mnasnet-a1"))
        >>> detector.map_sides, detector.params
        ((20, 10, 5, 3, 2, 1), 4912181)
        >>> SSDLite.parse(str(detector)) == detector
        True
    """

    backbone: Architecture
    classes: int = COCO_CLASSES
    resolution_px: int = DETECTION_PX
    width: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= _MOST_CLASSES:
            raise InvalidArgument(
                f"a detector has 2 to {_MOST_CLASSES:,} classes, the background among them, "
                f"got {self.classes}"
            )
        if not _LEAST_WIDTH <= self.width <= _MOST_WIDTH:
            raise InvalidArgument(
                f"a width multiplier lies in [{_LEAST_WIDTH:g}, {_MOST_WIDTH:g}], got "
                f"{self.width:g}"
            )
        if self.backbone.total_stride != _LAST_STRIDE:
            raise InvalidArgument(
                f"SSDLite needs feature maps at strides {_TAP_STRIDE} and {_LAST_STRIDE}, and this "
                f"backbone ends at stride {self.backbone.total_stride}. Take one with five "
                "layers of stride 2, such as mnasnet-a1"
            )
        own = replace(self.backbone, resolution_px=self.resolution_px, classes=CLASSES)
        object.__setattr__(self, "backbone", own)
        object.__setattr__(self, "width", float(self.width))
        if self.params > _MOST_PARAMS:
            raise InvalidArchitecture(
                f"this detector would have {self.params:.2g} parameters, and {_MOST_PARAMS:.0e} is "
                "the limit. Is a number in head, width or classes mistyped?"
            )

    @property
    def precision(self) -> str:
        """What it is written in: detectors have no other form than that of float32."""
        return FLOAT32

    @cached_property
    def tap(self) -> int:
        """Index of the layer whose expansion, or input, is the first map."""
        stride = 1
        for index, operator in enumerate(self.backbone.operators()):
            stride *= operator.stride
            if stride == _LAST_STRIDE:
                return index
        raise AssertionError("strides multiply to 32")

    @property
    def tap_expanded(self) -> bool:
        """Whether the first map is the expansion of layer `tap`; else it is that layer's input."""
        return self.backbone.operators()[self.tap].convolutions[0].name == "expand"

    @cached_property
    def trunk(self) -> dict[str, Operator | HeadLayer]:
        """The layers behind each other, by the names that their weights have.

        The backbone's have the names that they have in the network that classifies, `0`, `1`, ...,
        its head's 1×1 convolution among them; then `extra1` to `extra4`. The last five give the
        maps after the first.
        """
        *body, head = self.backbone.operators()
        layers: dict[str, Operator | HeadLayer] = {str(i): o for i, o in enumerate(body)}
        layer = HeadLayer("features", head.in_px, head.convolutions[:1])
        layers[str(len(body))] = layer
        for number, channels in enumerate(_EXTRA_CHANNELS, start=1):
            layer = extra_layer(number, layer.out_channels, layer.out_px, channels, self.width)
            layers[layer.name] = layer
        return layers

    @cached_property
    def predictors(self) -> dict[str, tuple[HeadLayer, ...]]:
        """A layer for each map, the finest first, by output: `class_logits`, `box_codes`."""
        layers = list(self.trunk.values())
        tapped = layers[self.tap]
        assert isinstance(tapped, Operator)
        first = tapped.mid_channels if self.tap_expanded else tapped.in_channels
        maps = [(first, tapped.in_px)]
        maps += [(o.out_channels, o.out_px) for o in layers[-1 - len(_EXTRA_CHANNELS) :]]
        return {
            what: tuple(
                predictor(f"{name}{i}", channels, px, anchors_there * each)
                for i, ((channels, px), anchors_there) in enumerate(
                    zip(maps, self.anchors_per_place, strict=True), start=1
                )
            )
            for what, name, each in (
                (CLASS_LOGITS, "classes", self.classes),
                (BOX_CODES, "boxes", _CODE_SIZE),
            )
        }

    @cached_property
    def layers(self) -> dict[str, Operator | HeadLayer]:
        """The trunk's layers, then `classes1` to `classes6` and `boxes1` to `boxes6`."""
        heads = {p.name: p for layers in self.predictors.values() for p in layers}
        return {**self.trunk, **heads}

    @property
    def map_sides(self) -> tuple[int, ...]:
        """Sides of the six maps in pixels, the finest first."""
        return tuple(layer.in_px for layer in self.predictors[BOX_CODES])

    @property
    def anchors_per_place(self) -> tuple[int, ...]:
        """Anchors at each place of each map."""
        return (FIRST_ANCHORS, *(FURTHER_ANCHORS,) * (1 + len(_EXTRA_CHANNELS)))

    @property
    def boxes(self) -> int:
        """How many anchors there are in all, and so rows of each output."""
        return sum(n * px**2 for n, px in zip(self.anchors_per_place, self.map_sides, strict=True))

    def anchors(self) -> npt.NDArray[np.float32]:
        """The boxes that its codes refer to, (boxes, 4); see `anchors.anchors`."""
        return anchors(self.map_sides)

    def operators(self) -> tuple[Operator | HeadLayer, ...]:
        """Its layers in order: the backbone's, the extra ones, the predictors."""
        return tuple(self.layers.values())

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image (FLOPs are twice that)."""
        return sum(o.macs for o in self.operators())

    @cached_property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(o.params for o in self.operators())

    def with_resolution(self, resolution_px: int) -> SSDLite:
        """The same detector on another input size, in pixels a side."""
        return replace(self, resolution_px=resolution_px)

    def scaled(self, width: float) -> SSDLite:
        """All of it `width` times as wide, the head's 1×1 and the extra layers too.

        Raises:
            InvalidArgument: A width out of range.
        """
        if width == 1:
            return self
        body = self.backbone.scaled(width)
        head = round_channels(self.backbone.head_channels * width)
        body = replace(body, head_channels=head)
        return replace(self, backbone=body, width=self.width * width)

    @property
    def key(self) -> str:
        """Its name in the store: its text."""
        return str(self)

    def __str__(self) -> str:
        words = ["ssdlite", f"classes{self.classes}", f"res{self.resolution_px}"]
        if self.width != 1:
            words.append(f"width{np.format_float_positional(self.width, trim='-')}")
        plain = replace(self.backbone, resolution_px=RESOLUTION_PX)
        return " ".join([*words, str(plain)])

    @classmethod
    def parse(cls, text: str) -> SSDLite:
        """Read the line of text that `str` writes: `ssdlite`, settings, a block string.

        `classes91`, `res320` and `width0.5` may be left out for 91 classes, 320 px and width 1.

        Raises:
            InvalidArchitecture: A word that is none, or one given twice; it is named.
            InvalidArgument: As for the class.
        """
        first, *words = [w for w in re.split(r"[\s,·;]+", text.strip()) if w] or [""]
        if first != "ssdlite":
            raise InvalidArchitecture(
                f"a detector's text begins with the word ssdlite, and this one with {first[:40]!r}"
            )
        settings: dict[str, str] = {}
        blocks = []
        for word in words:
            setting = _SETTING.fullmatch(word)
            if setting is None:
                blocks.append(word)
                continue
            name, value = setting[1], setting[2]
            if name in settings or (name != "width" and "." in value):
                raise InvalidArchitecture(f"'{word}': {name} is given once, as in {_AS_IN[name]}")
            settings[name] = value
        return cls(
            Architecture.parse(" ".join(blocks)),
            classes=int(settings.get("classes", COCO_CLASSES)),
            resolution_px=int(settings.get("res", DETECTION_PX)),
            width=float(settings.get("width", 1)),
        )


_AS_IN = {"classes": "classes91", "res": "res320", "width": "width0.5"}
