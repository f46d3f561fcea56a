"""FakeQuantised: what an int8 file computes, in float32 and with gradients.

Each value that the file holds in 8 bits is rounded to what they can hold, and clipped to its range:

    y = scale · (clip(round(x / scale) + zero point, least, most) - zero point)

The gradient passes where nothing is clipped, as if nothing were rounded (the straight-through
estimator). The nodes are those of the QDQ file itself, so that every value is rounded that the file
rounds, with the file's scale and zero point. The scales of weights follow from the weights
of each step, one for each output channel, as the file's followed from those that it was made of;
one is raised where the bias would not fit into 32 bits otherwise.
BatchNorm is folded into the weights before they are rounded, by its moving statistics, which stay
as they are; its factors and summands are trained. Biases are rounded to 32 bits, as in the file.

torch's own operation multiplies by 1 / scale where ONNX Runtime divides by the scale, so that it
rounds about one value in 500,000 the other way, and takes six times the time for maps in
torch's layout "channels last". `torch.ao.quantization` is deprecated, and it and torchao place
the roundings by rules of their own, not where this file has them.

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference, CVPR 2018, section 3. Krishnamoorthi, Quantizing deep convolutional networks
for efficient inference, 2018, section 3.2, for BatchNorm's frozen statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from phonenas.space.errors import InvalidArgument
from phonenas.space.lowering.weights import BATCH_NORM_EPS

from .plain_steps import Step, Values, padded, plain_step

__all__ = ["FakeQuantised", "fake_quantised", "weight_scales"]

_MOST_OF_WEIGHT, _MOST_OF_BIAS = 127, 2**31 - 1
_BIAS_FITS = 1.0001  # ONNX Runtime's, so that rounding does not make a bias too large again
_BYTES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


class _Rounded(torch.autograd.Function):
    """`fake_quantised`; the gradient passes where nothing is clipped."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: float, least: int, most: int
    ) -> Tensor:
        stored = x.div(scale).round_().add_(zero_point)
        ctx.save_for_backward((stored >= least) & (stored <= most))
        return stored.clamp_(least, most).sub_(zero_point).to(scale.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (within,) = ctx.saved_tensors
        return gradients[0] * within, None, None, None, None


def fake_quantised(x: Tensor, scale: Tensor, zero_point: int, least: int, most: int) -> Tensor:
    """What QuantizeLinear and then DequantizeLinear of ONNX make of a value.

    Args:
        x: Of any shape, float32; float64 is divided in float64.
        scale: > 0, float32, a scalar or of a shape that x's spreads over.
        zero_point: What stands for 0.
        least, most: Of what is stored, as 0 and 255.
    Returns:
        Of x's shape, float32, equal to ONNX Runtime's to the bit.
    """
    rounded: Any = _Rounded.apply
    y: Tensor = rounded(x, scale, float(zero_point), least, most)
    return y


def weight_scales(
    weight: Tensor, per_channel: bool, bias: Tensor | None = None, of_input: Tensor | None = None
) -> Tensor:
    """The scale of each output channel of a weight, whose largest value is stored as ±127.

    A bias is stored in 32 bits with the scale of the weight times that of the input. Where it does
    not fit, as where a channel's weights are nearly 0, the scale of the weight is larger, as
    `QDQQuantizer._adjust_weight_scale_for_int32_bias` of ONNX Runtime has it.

    Args:
        weight: (out, ...), float32.
        per_channel: Else one scale for all of it.
        bias: (out), float32; None: there is none to fit.
        of_input: Scale of what the layer reads, > 0, a scalar; needed with a bias.
    Returns:
        (out, 1, ...), or a scalar; 1 of zeros alone.
    """
    with torch.no_grad():
        sizes = weight.abs()
        largest = sizes.amax(tuple(range(1, weight.ndim)), keepdim=True) if per_channel else None
        most = sizes.amax() if largest is None else largest
        scales = (most.double() / _MOST_OF_WEIGHT).float()
        scales = torch.where(scales < torch.finfo(torch.float32).tiny, 1.0, scales)
        if bias is None or of_input is None:
            return scales
        size = bias.abs().double()
        size = size.reshape(scales.shape) if per_channel else size.amax()
        # In ONNX Runtime's order of operations, so that both scales are equal to the bit.
        least, present = _BIAS_FITS * (2.0 * size) / (2 * _MOST_OF_BIAS), of_input.double() * scales
        return torch.where(present < least, (scales * (least / present)).float(), scales)


class FakeQuantised(nn.Module):
    """The network of a QDQ file with trainable weights.

    Args:
        module: Of `to_torch`, with its weights. Its layers become those of this module, so that
            the state has the same names; the random state of dropout is not used.
        model: What `to_onnx` makes of the network in int8, with these weights.
    Raises:
        InvalidArgument: The file has a node that is not known here; it is named.
    """

    def __init__(self, module: nn.Module, model: onnx.ModelProto) -> None:
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        constants = {
            i.name: torch.from_numpy(numpy_helper.to_array(i).copy())
            for i in model.graph.initializer
        }
        (entry,), (given,) = model.graph.input, model.graph.output
        self._entry, self._given = entry.name, given.name
        self._steps: list[tuple[str, Step]] = []
        made = {o: node for node in model.graph.node for o in node.output}
        for node in _in_order(model.graph, {*constants, entry.name}):
            self._steps.append((node.output[0], self._step(node, made, constants)))

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, px, px) to logits (n, classes)."""
        values = {self._entry: x}
        for name, step in self._steps:
            values[name] = step(values)
        return values[self._given]

    def folded(self, prefix: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a convolution with BatchNorm folded in, as `weights.folded` has it.

        Args:
            prefix: Its name in the state, as `0.conv`.
        """
        layer = self.get_submodule(prefix)
        weight, own = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and (own is None or isinstance(own, Tensor))
        place, _, name = prefix.rpartition(".")
        holder: Any = self.get_submodule(place)
        norm = getattr(holder, f"{name}_bn", None)
        if norm is None:
            return weight, own
        # In float64, as the file's.
        scale = norm.weight / torch.sqrt(norm.running_var.double() + BATCH_NORM_EPS)
        bias = norm.bias - scale * norm.running_mean
        bias = bias if own is None else bias + scale * own
        whole = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        return whole.float(), bias.float()

    def _step(
        self, node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], constants: Values
    ) -> Step:
        """What a node gives, of the values before it."""
        kind, first = node.op_type, node.input[0]
        if kind == "QuantizeLinear":
            return self._rounding(node, constants)
        if kind == "DequantizeLinear":
            if first in constants:  # a weight or a bias, which `folded` gives
                return lambda values: constants[first]
            return lambda values: values[first]  # rounded already
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if kind in ("Conv", "Gemm"):
            # One scale, or one for each output channel.
            of_weight = constants[made[node.input[1]].input[1]]
            of_input = self._kept(constants[made[node.input[0]].input[1]])
            return self._weighted(node, attributes, of_input, per_channel=of_weight.ndim > 0)
        return plain_step(node, attributes, constants)

    def _rounding(self, node: onnx.NodeProto, constants: Values) -> Step:
        read, scale, zero_point = node.input
        least, most = _BYTES[constants[zero_point].dtype]
        stands_for_0 = int(constants[zero_point])
        kept = self._kept(constants[scale])
        return lambda values: fake_quantised(values[read], kept(), stands_for_0, least, most)

    def _kept(self, scale: Tensor) -> Callable[[], Tensor]:
        """What gives a scale: on the device of the weights, and not in their state."""
        name = f"scale_{len(self._buffers)}"
        self.register_buffer(name, scale.reshape(()), persistent=False)

        def kept() -> Tensor:
            buffer = self._buffers[name]
            assert buffer is not None
            return buffer

        return kept

    def _weighted(
        self,
        node: onnx.NodeProto,
        attributes: Mapping[str, Any],
        of_input: Callable[[], Tensor],
        *,
        per_channel: bool,
    ) -> Step:
        """What a convolution or a linear layer gives, its node named as in the state."""
        read, name = node.input[0], node.name

        def rounded() -> tuple[Tensor, Tensor | None]:
            weight, bias = self.folded(name)
            scales = weight_scales(weight, per_channel, bias, of_input())
            weight = fake_quantised(weight, scales, 0, -_MOST_OF_WEIGHT, _MOST_OF_WEIGHT)
            if bias is not None:
                scales = scales.flatten() * of_input()
                # Divided in float64, as the file's.
                bias = fake_quantised(bias.double(), scales, 0, -_MOST_OF_BIAS, _MOST_OF_BIAS)
            return weight, bias

        if node.op_type == "Gemm":
            return lambda values: functional.linear(values[read], *rounded())
        pads, strides = list(attributes["pads"]), list(attributes["strides"])
        groups = int(attributes["group"])

        def step(values: Values) -> Tensor:
            x, even = padded(values[read], pads, 0.0)
            return functional.conv2d(x, *rounded(), strides, even, groups=groups)

        return step


def _in_order(graph: onnx.GraphProto, known: set[str]) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, each behind those that it reads."""
    left = list(graph.node)
    while left:
        ready = [n for n in left if all(not i or i in known for i in n.input)]
        if not ready:
            raise InvalidArgument(f"fine-tuning: nothing gives what {left[0].name} reads")
        for node in ready:
            known.update(node.output)
            yield node
        left = [n for n in left if n.output[0] not in known]
