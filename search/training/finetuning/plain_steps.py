"""plain_step(): the nodes of a QDQ file that have no weight, in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from phonenas.space.errors import InvalidArgument

__all__ = ["Step", "Values", "padded", "plain_step"]

Values = dict[str, Tensor]
#: What a node gives, of the values before it by their names.
Step = Callable[[Values], Tensor]


def padded(x: Tensor, pads: list[int], value: float) -> tuple[Tensor, tuple[int, int]]:
    """A map with a border as ONNX states it, and what is left to the operation, as torch states it.

    Args:
        x: (n, c, h, w).
        pads: Above, left, below, right.
        value: Of the border.
    """
    top, left, below, right = pads
    if (top, left) == (below, right) and not value:
        return x, (top, left)
    return functional.pad(x, (left, right, top, below), value=value), (0, 0)


def plain_step(node: onnx.NodeProto, attributes: Mapping[str, Any], constants: Values) -> Step:
    """What a node without a weight gives.

    Args:
        node: Of the file, for one image; the step takes any number.
        attributes: Of the node.
        constants: Of the file.
    Raises:
        InvalidArgument: No such node is known here.
    """
    names = list(node.input)
    numbers = [constants[n].tolist() if n in constants else [] for n in names]
    made = _made(node.op_type, attributes, numbers)
    if made is None:
        raise InvalidArgument(
            f"{node.name}, a {node.op_type}, has no fine-tuning for int8: leave --finetune and "
            "--finetune-epochs out"
        )
    read = [n for n in names if n and n not in constants]
    return lambda values: made(*(values[n] for n in read))


def _made(kind: str, a: Mapping[str, Any], numbers: list[Any]) -> Callable[..., Tensor] | None:
    """The function of a kind of node: of its attributes, and of its constants by input."""
    match kind:
        case "Add" | "Sum":
            return lambda *xs: sum(xs[1:], start=xs[0])
        case "Mul":
            return lambda x, y: x * y
        case "Relu":
            return torch.relu
        case "Clip":
            return lambda x: torch.clamp(x, numbers[1], numbers[2])
        case "Sigmoid":
            return torch.sigmoid
        case "HardSigmoid":
            return lambda x: torch.clamp(x * a["alpha"] + a["beta"], 0.0, 1.0)
        case "GlobalAveragePool":
            return lambda x: x.mean((2, 3), keepdim=True)
        case "MaxPool":
            return lambda x: _max_pool(x, a)
        case "AveragePool":
            return lambda x: _average_pool(x, a)
        case "Flatten":
            return lambda x: x.flatten(1)
        case "Concat":
            return lambda *xs: torch.cat(xs, a["axis"])
        case "Transpose":
            return lambda x: x.permute(*a["perm"])
        case "Reshape":
            return lambda x: x.reshape(len(x), *numbers[1][1:])
        case "Slice":
            return lambda x: _sliced(x, *numbers[1:4])
        case "Pad":  # of channels, behind them
            return lambda x: functional.pad(x, (0, 0, 0, 0, numbers[1][1], numbers[1][5]))
        case "Resize":
            return lambda x: functional.interpolate(
                x, scale_factor=int(numbers[2][2]), mode="nearest"
            )
        case _:
            return None


def _max_pool(x: Tensor, a: Mapping[str, Any]) -> Tensor:
    x, _ = padded(x, list(a["pads"]), -torch.inf)
    return functional.max_pool2d(x, a["kernel_shape"], a["strides"])


def _average_pool(x: Tensor, a: Mapping[str, Any]) -> Tensor:
    """The mean of what lies inside the map."""
    pads, kernel, strides = list(a.get("pads", [0] * 4)), a["kernel_shape"], a["strides"]
    if not any(pads):
        return functional.avg_pool2d(x, kernel, strides)
    top, left, below, right = pads
    parts = [
        functional.avg_pool2d(functional.pad(m, (left, right, top, below)), kernel, strides)
        for m in (x, torch.ones_like(x[:1, :1]))
    ]
    return parts[0] / parts[1]


def _sliced(x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None = None) -> Tensor:
    at: list[slice] = [slice(None)] * x.ndim
    for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=True):
        at[axis] = slice(start, end)
    return x[tuple(at)]
