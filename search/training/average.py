"""The moving average of weights and BatchNorm statistics: what the paper evaluates.

torch is imported by this room: it is imported where it is used.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage", "averaged_tensors"]


def averaged_tensors(module: nn.Module) -> list[Tensor]:
    """Weights, biases and BatchNorm's means and variances, in the module's order; no counters."""
    return [t.detach() for t in module.state_dict().values() if t.is_floating_point()]


class WeightAverage:
    """A second network that follows the first: a ← a - (1 - d) (a - w).

    d is the lesser of `decay` and (1 + n) / (10 + n) after n updates, so that the first weights,
    which are chance, are soon forgotten.

    Args:
        module: The network that is trained, on its device.
        decay: In (0, 1).
    Source: tf.train.ExponentialMovingAverage with `num_updates`, as the official MnasNet code
        calls it after each update, for all variables, BatchNorm's moving ones included.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._followed = averaged_tensors(module)
        self._own = averaged_tensors(self.module)

    def rate(self, updates: int) -> float:
        """d after so many updates, the present one included."""
        return min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the trained network, right after its update number `updates`, from 1."""
        torch._foreach_lerp_(self._own, self._followed, 1 - self.rate(updates))
