"""to_torch: a network as a torch module that can be trained.

What a layer is made of comes from `Operator.convolutions`; this module adds what torch needs
besides: the momentum of BatchNorm, the initial weights, the skips.
The keys of `state_dict()` are `{i}.{name}.weight` and so on, with i the index of the operator
and name that of the convolution, so that `to_onnx` takes them as they are.

torch is an optional extra and heavy: it is imported when a network is built.
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..architecture import CLASSES, Architecture
from ..errors import InvalidArgument, MissingExtra, install
from ..graph import NetworkGraph
from ..operator import Convolution, Operator
from .graph_torch import activations
from .weights import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from ..detection.head_layer import HeadLayer

__all__ = [
    "BN_EPSILON",
    "BN_MOMENTUM",
    "activations",
    "initialise",
    "layer_class",
    "state_arrays",
    "to_torch",
    "torch_or_extra",
]

BN_MOMENTUM, BN_EPSILON = BATCH_NORM_MOMENTUM, BATCH_NORM_EPS


def to_torch(
    subject: Architecture | NetworkGraph | Operator,
    *,
    dropout: float = 0.2,
    seed: int | None = None,
) -> nn.Module:
    """Build a trainable network, on the CPU, in training mode.

    Args:
        subject: A network, or one operator alone (its keys then begin with `0.`).
        dropout: Share of the head's features that are set to 0 before the classifier while
            training, in [0, 1).
        seed: Seeds the initial weights and leaves torch's global chance untouched; None draws
            from torch's global chance.
    Returns:
        An `nn.Sequential` with one module per operator. A network takes (n, 3, resolution_px,
        resolution_px) images and gives (n, classes) logits.
    Raises:
        MissingExtra: torch is not installed.
        InvalidArgument: A dropout outside [0, 1).
    Source: the official MnasNet code, for BatchNorm and the initial weights (below 1,000 classes
        the classifier begins in the range of 1,000: its own would be far too wide). Padding is
        symmetric here, where TensorFlow's SAME is not at stride 2.
    """
    if not 0 <= dropout < 1:
        raise InvalidArgument(f"dropout lies in [0, 1), got {dropout:g}")
    torch = torch_or_extra()
    if isinstance(subject, NetworkGraph):
        from .graph_torch import graph_to_torch

        return graph_to_torch(subject, dropout=dropout, seed=seed)
    layer = layer_class()
    operators = subject.operators() if isinstance(subject, Architecture) else (subject,)
    network: nn.Sequential = torch.nn.Sequential(
        *(layer(operator, dropout) for operator in operators)
    )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for operator, module in zip(operators, network, strict=True):
        for c in operator.convolutions:
            initialise(c, module.get_submodule(c.name), generator)
    return network


def torch_or_extra() -> Any:
    """The library.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(
            "a torch network was asked for, and torch cannot be imported here. "
            f"Install it:  {install('torch')}"
        ) from error
    return torch


def state_arrays(module: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Weights and BatchNorm statistics as numpy arrays, which `to_onnx` takes.

    Args:
        module: A network of `to_torch`, on any device.
    Returns:
        The keys of `state_dict()`, without the counters `num_batches_tracked`, and copies of
        its values as float32: later training does not reach them.
    """
    return {
        key: value.detach().cpu().numpy().astype(np.float32)
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def initialise(c: Convolution, module: nn.Module, generator: Generator | None) -> None:
    """Give the module of a convolution its first weights, as the official MnasNet code does."""
    from torch import Tensor
    from torch.nn import init

    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if c.name == "classifier":
        # As written in the official code: the range comes from the outputs, not the inputs.
        # That was made for 1,000 classes; with ten it would begin far from even chances.
        limit = 1 / sqrt(max(c.out_channels, CLASSES))
        init.uniform_(weight, -limit, limit, generator=generator)
    else:
        # TensorFlow keeps a depthwise kernel as (k, k, channels, 1), so its fan-out is k·k.
        fan_out = c.kernel * c.kernel * c.out_channels // c.groups
        init.normal_(weight, 0.0, sqrt(2 / fan_out), generator=generator)
    if isinstance(bias, Tensor):
        init.zeros_(bias)


@cache
def layer_class() -> type[nn.Module]:
    """The module class of one layer, made with (operator, dropout); defined at the first call."""
    from torch import nn
    from torch.nn import functional

    functions = activations()

    class Layer(nn.Module):
        """One operator: (n, in_channels, in_px, in_px) → (n, out_channels, out_px, out_px)."""

        def __init__(self, operator: Operator | HeadLayer, dropout: float) -> None:
            super().__init__()
            self.operator = operator
            for c in operator.convolutions:
                # Built without values: torch would draw first weights, from its global chance,
                # only for `initialise` to throw them away.
                module: nn.Module
                if c.name == "classifier":
                    self.dropout = nn.Dropout(dropout)
                    module = nn.Linear(c.in_channels, c.out_channels, device="meta")
                else:
                    module = nn.Conv2d(
                        c.in_channels,
                        c.out_channels,
                        c.kernel,
                        stride=c.stride,
                        padding=c.kernel // 2,
                        groups=c.groups,
                        bias=c.bias,
                        device="meta",
                    )
                self.add_module(c.name, module.to_empty(device="cpu"))
                if c.normalised:
                    norm = nn.BatchNorm2d(c.out_channels, BN_EPSILON, BN_MOMENTUM)
                    self.add_module(f"{c.name}_bn", norm)

        def forward(self, x: Tensor) -> Tensor:
            return self.with_first(x)[0]

        def with_first(self, x: Tensor) -> tuple[Tensor, Tensor]:
            """What it gives, and what its first convolution gives, which a detector reads."""
            operator = self.operator
            y = gate = first = x
            for c in operator.convolutions:
                module = getattr(self, c.name)
                function = functions[c.activation]
                if c.name == "se_reduce":
                    gate = function(module(y.mean((2, 3), keepdim=True)))
                elif c.name == "se_expand":
                    y = y * function(module(gate))
                elif c.name == "classifier":
                    y = module(self.dropout(y.mean((2, 3))))
                else:
                    y = module(y.mean((2, 3), keepdim=True) if c.name == "hidden" else y)
                    if c.normalised:
                        y = getattr(self, f"{c.name}_bn")(y)
                    y = function(y)
                if c is operator.convolutions[0]:
                    first = y
            if operator.skip == "identity":
                return y + x, first
            if isinstance(operator, Operator) and operator.skip == "pool":
                return y + self._pooled(operator, x), first
            return y, first

        def _pooled(self, operator: Operator, x: Tensor) -> Tensor:
            stride, out = operator.stride, operator.out_channels
            pooled = functional.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)
            missing = out - pooled.shape[1]
            if missing > 0:
                return functional.pad(pooled, (0, 0, 0, 0, 0, missing))
            return pooled[:, :out]

        def extra_repr(self) -> str:
            return str(self.operator)

    return Layer
