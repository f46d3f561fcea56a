"""A `NetworkGraph` as a torch module that can be trained; see `to_torch`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Any

from ..architecture import CLASSES
from ..graph import NetworkGraph, Node
from .weights import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

__all__ = ["activations", "graph_to_torch"]


def graph_to_torch(
    network: NetworkGraph, *, dropout: float = 0.2, seed: int | None = None
) -> nn.Module:
    """Build a trainable network, on the CPU, in training mode.

    Args:
        network: A network of the zoo.
        dropout: Share of the last layer's inputs set to 0 while training, in [0, 1).
        seed: Seeds the initial weights; None draws from torch's global chance.
    Returns:
        A module of (n, 3, px, px) images to (n, classes) logits, whose state has
        `{index}.{op}.weight` and so on.
    """
    import torch

    module = _module_class()(network, dropout)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for index, node in enumerate(network.nodes):
        if node.weighted:
            _initialise(node, module.get_submodule(f"{index}.{node.op}"), generator)
    return module


def _initialise(node: Node, module: Any, generator: Generator | None) -> None:
    """As `torch.initialise`: the official MnasNet code's first weights."""
    from torch.nn import init

    out, _, kh, kw = node.weight_shape
    if node.op == "linear":
        limit = 1 / sqrt(max(out, CLASSES))
        init.uniform_(module.weight, -limit, limit, generator=generator)
    else:
        init.normal_(
            module.weight, 0.0, sqrt(2 / (kh * kw * out / node.groups)), generator=generator
        )
    if module.bias is not None:
        init.zeros_(module.bias)


@cache
def activations() -> dict[str, Callable[[Tensor], Tensor]]:
    """What computes each activation."""
    import torch
    from torch.nn import functional

    return {
        "none": lambda x: x,
        "relu": torch.relu,
        "relu6": functional.relu6,
        "hard_swish": functional.hardswish,
        "swish": functional.silu,
        "sigmoid": torch.sigmoid,
        "hard_sigmoid": functional.hardsigmoid,
        "clip": lambda x: torch.clamp(x, 0.0, 1.0),
    }


@cache
def _module_class() -> type[nn.Module]:
    import torch
    from torch import nn
    from torch.nn import functional

    functions = activations()

    def padded(x: Tensor, node: Node, value: float) -> Tensor:
        top, left, below, right = node.pads
        return functional.pad(x, (left, right, top, below), value=value)

    class GraphModule(nn.Module):
        """The nodes in order; each value is freed behind its last reader."""

        def __init__(self, network: NetworkGraph, dropout: float) -> None:
            super().__init__()
            self.network = network
            self.dropout = nn.Dropout(dropout)
            for index, node in enumerate(network.nodes):
                holder = nn.Module()
                out, inside, *_ = node.weight_shape
                if node.op == "linear":
                    linear = nn.Linear(inside, out, bias=node.bias, device="meta")
                    holder.add_module("linear", linear.to_empty(device="cpu"))
                elif node.op == "conv":
                    conv = nn.Conv2d(
                        node.in_channels,
                        out,
                        node.kernel,
                        stride=node.stride,
                        padding=node.pads[:2],
                        groups=node.groups,
                        bias=node.bias,
                        device="meta",
                    )
                    holder.add_module("conv", conv.to_empty(device="cpu"))
                if node.normalised or node.op == "batch_norm":
                    norm = nn.BatchNorm2d(node.channels, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
                    holder.add_module("conv_bn" if node.normalised else "batch_norm", norm)
                if len(list(holder.children())):
                    self.add_module(str(index), holder)
            last = {i: index for i, users in network.users.items() for index in users}
            self.freed: dict[int, list[int]] = {}
            for value, reader in last.items():
                self.freed.setdefault(reader, []).append(value)

        def forward(self, x: Tensor) -> Tensor:
            nodes, values = self.network.nodes, {-1: x}
            for index, node in enumerate(nodes):
                inputs = [values[i] for i in node.inputs]
                values[index] = self._computed(index, node, inputs)
                for value in self.freed.get(index, ()):
                    del values[value]
            return values[len(nodes) - 1].flatten(1)

        def _computed(self, index: int, node: Node, inputs: list[Tensor]) -> Tensor:
            x = inputs[0]
            match node.op:
                case "conv":
                    holder = self.get_submodule(str(index))
                    y: Tensor = holder.conv(x)  # type: ignore[operator]
                    return holder.conv_bn(y) if node.normalised else y  # type: ignore[operator]
                case "linear":
                    x = x.flatten(1)
                    if index == len(self.network.nodes) - 1:
                        x = self.dropout(x)
                    y = self.get_submodule(f"{index}.linear")(x)
                    return y[:, :, None, None]
                case "batch_norm":
                    normed: Tensor = self.get_submodule(f"{index}.batch_norm")(x)
                    return normed
                case "max_pool":
                    x = padded(x, node, -torch.inf)
                    return functional.max_pool2d(x, node.kernel, node.stride)
                case "average_pool":
                    if not any(node.pads):
                        return functional.avg_pool2d(x, node.kernel, node.stride)
                    ones = torch.ones_like(x[:1, :1])
                    parts = [
                        functional.avg_pool2d(padded(m, node, 0.0), node.kernel, node.stride)
                        for m in (x, ones)
                    ]
                    return parts[0] / parts[1]
                case "global_pool":
                    return x.mean((2, 3), keepdim=True)
                case "add":
                    for other in inputs[1:]:
                        x = x + other
                    return x
                case "mul":
                    return x * inputs[1]
                case "activation":
                    return functions[node.function](x)
                case "concat":
                    return torch.cat(inputs, 1)
                case "slice":
                    end = node.start + node.channels
                    return x[:, node.start : end, : node.px, : node.px]
                case "pad":
                    return functional.pad(x, (0, 0, 0, 0, 0, node.channels - node.in_channels))
                case "shuffle":
                    return functional.channel_shuffle(x, node.groups)
                case _:
                    factor = node.px // node.in_px
                    return functional.interpolate(x, scale_factor=factor, mode="nearest")

        def extra_repr(self) -> str:
            return str(self.network)

    return GraphModule
