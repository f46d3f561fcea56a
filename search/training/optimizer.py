"""The optimizers, and which weights they let decay.

torch is imported by this room: it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from .recipe import Recipe

__all__ = ["RMSProp", "make_optimizer"]


class RMSProp(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 has it, and as the paper was trained.

    For a weight w with gradient g (weight decay added) and rate η::

        s ← s + (1 - decay) (g² - s)        s begins at 1
        m ← momentum · m + η g / √(s + epsilon)        m begins at 0
        w ← w - m

    torch's own differs in three ways: there s begins at 0, epsilon is added outside the root, and
    the rate multiplies m, not g, so that a change of the rate reaches back.

    Args:
        params: As torch.optim takes them; groups may have a `weight_decay` of their own.
        lr: Rate η, ≥ 0; set `group["lr"]` before each step to follow a schedule.
        decay, momentum: In [0, 1).
        epsilon: Above 0.
        weight_decay: λ: the gradient gains λ w.
    Source: tensorflow/python/training/rmsprop.py (`_create_slots` fills `rms` with ones) and the
        kernel ApplyRMSProp.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "decay": decay,
            "momentum": momentum,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["mean_square"] = torch.ones_like(p)
                self.state[p]["momentum"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            squares = [self.state[p]["mean_square"] for p in weights]
            moments = [self.state[p]["momentum"] for p in weights]
            if group["weight_decay"]:
                gradients = list(
                    torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
                )
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(moments, group["momentum"])
            torch._foreach_addcdiv_(moments, gradients, roots, value=group["lr"])
            torch._foreach_sub_(weights, moments)
        return loss


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a recipe over a network, its state filled from the start.

    Weight decay falls on every weight and bias but those of BatchNorm: the official code adds the
    squares of all variables whose name lacks `batch_normalization`, the biases of
    squeeze-and-excite and of the classifier among them.

    Args:
        recipe: Which optimizer, and its values.
        module: Its weights, where they are now: move it to its device before.
    Returns:
        Two groups, the weights that decay and those that do not; their `lr` is 0 until it is set.
    """
    normed = {
        id(p)
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        for p in m.parameters(recurse=False)
    }
    weights = list(module.parameters())
    groups = [
        {
            "params": [p for p in weights if id(p) not in normed],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in weights if id(p) in normed], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if recipe.optimizer == "rmsprop":
        return RMSProp(groups, 0.0, recipe.rms_decay, recipe.momentum, recipe.epsilon)
    sgd = torch.optim.SGD(
        groups, 0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0, foreach=True
    )
    if recipe.momentum:
        # torch would make it at the first step, equal to the gradient: momentum · 0 + gradient.
        for p in weights:
            sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return sgd
