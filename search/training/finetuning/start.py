"""QuantisedStart: the weights and ranges from which a fine-tuning for int8 begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.space import Classifier
from phonenas.space.lowering.calibration import Ranges

if TYPE_CHECKING:
    from torch import nn

__all__ = ["QuantisedStart"]


@dataclass(frozen=True)
class QuantisedStart:
    """A trained network about to be fine-tuned for int8.

    Args:
        weights: float32 arrays by the names of `to_torch`'s state.
        ranges: Of its values, as `calibrated` gives them. They stay, as in the file.
    """

    weights: Mapping[str, Any] = field(repr=False)
    ranges: Ranges = field(repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What it decides of the result, ready for JSON: 16 hex digits of each."""
        digest = hashlib.sha256()
        for name, array in sorted(self.weights.items()):
            digest.update(name.encode() + np.ascontiguousarray(array, np.float32).tobytes())
        ranges = json.dumps({name: list(ends) for name, ends in sorted(self.ranges.items())})
        said = hashlib.sha256(ranges.encode()).hexdigest()
        return {"from weights": digest.hexdigest()[:16], "int8 ranges": said[:16]}

    def module(self, network: Classifier) -> nn.Module:
        """The network with its weights, fake-quantised; see `fake_quantisation`.

        Raises:
            InvalidArgument: Weights of another network, or a node without fine-tuning.
        """
        from phonenas.space.lowering.onnx import to_onnx
        from phonenas.space.lowering.torch import to_torch

        from ..evaluation import set_weights
        from .fake_quantisation import FakeQuantised

        module = to_torch(network, dropout=0.0, seed=0)
        set_weights(module, self.weights)
        model = to_onnx(network, weights=self.weights, precision="int8", ranges=self.ranges)
        return FakeQuantised(module, model)
