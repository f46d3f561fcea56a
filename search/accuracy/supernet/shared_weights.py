"""SharedWeights: one set of tensors from which every network of a search space takes its own.

How weights are shared:

- by place: the n-th layer of a part of the space (a block, a layer slot, a stage) is one place,
  so networks with fewer layers use the first of them; the stem is a place too;
- by kind and kernel: at one place, regular convolutions, depthwise-separable ones and MBConvs
  have weights of their own, and so has each kernel size;
- by slices: layers of one place, kind and kernel that differ in channels, expansion or squeeze
  width take the first channels of the widest. BatchNorm's scale and shift are sliced likewise; its
  statistics are computed for each network.

Layers with and without squeeze-and-excite, and with different skips, share their convolutions.
Each layer is `to_torch`'s own module with these slices, so a network's outputs here and those of
`to_torch` with `weights_of` are the same arithmetic. All operators are supported.

Source: Guo et al., Single Path One-Shot NAS, 2019 (a path's layers by kind); Yu and Huang,
Universally Slimmable Networks, ICCV 2019, and Cai et al., Once-for-All, ICLR 2020 (slices).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Operator, SearchSpace
from phonenas.space.errors import InvalidArgument
from phonenas.space.lowering.torch import initialise, layer_class, torch_or_extra
from phonenas.space.operator import Convolution

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SharedWeights"]

Shape = tuple[int, ...]
Arrays = dict[str, npt.NDArray[np.float32]]


class SharedWeights:
    """The tensors of a supernet.

    Lifetime: built once; `tensors` are trained in place. Layers are built when they are first
    used and kept.

    Args:
        space: Whose networks take their weights here.
        classes: Outputs of the classifier, in place of the space's own number, ≥ 1.
        seed: Of the first weights.
        arrays: Weights by the names of `shapes`, instead of first ones.
        device: Of the tensors, as torch names it.
    Attributes:
        tensors: By name, `PLACE.CONVOLUTION.weight` and so on; leaves that take gradients.
    Raises:
        InvalidArgument: Arrays that lack a tensor, or have one of another shape; it is named.
        MissingExtra: torch is not installed.
    """

    def __init__(
        self,
        space: SearchSpace,
        classes: int,
        *,
        seed: int = 0,
        arrays: Mapping[str, npt.NDArray[np.float32]] | None = None,
        device: str = "cpu",
    ) -> None:
        if classes < 1:
            raise InvalidArgument(f"a classifier has 1 class or more, got {classes}")
        self.space, self.classes, self.device = space, classes, device
        self._layers: dict[Operator, nn.Module] = {}
        first = self._first(seed) if arrays is None else self._given(arrays)
        self.tensors: dict[str, Tensor] = {
            name: t.to(device).requires_grad_() for name, t in first.items()
        }

    # -- which tensors ------------------------------------------------------------------------

    def placed(self, genome: npt.ArrayLike) -> tuple[tuple[str, Operator], ...]:
        """The layers of one genome, stem and head included, each with the place of its weights."""
        codes = self.space.codes(genome)
        if len(codes) != 1:
            raise InvalidArgument(f"one genome has layers at a time, got {len(codes)}")
        layers = [("stem", self.space.stem)]
        for part, code in enumerate(codes[0].tolist()):
            layers += self._of_choice(part, self.space.part_layers[part][code])
        return tuple(layers)

    def _of_choice(self, part: int, layers: tuple[Operator, ...]) -> Iterator[tuple[str, Operator]]:
        for number, operator in enumerate(layers):
            ahead = f"a{operator.ahead}_" if operator.ahead else ""
            place = f"part{part}.layer{number}.{operator.kind}_{ahead}k{operator.kernel}"
            if operator.kind == "head":
                operator = replace(operator, out_channels=self.classes)
            yield place, operator

    @cached_property
    def _widest(self) -> dict[str, Convolution]:
        """At each place, its convolutions in the widest form of any choice."""
        known = {("stem", self.space.stem)}
        for part, choices in enumerate(self.space.part_layers):
            for layers in choices:
                known.update(self._of_choice(part, layers))
        widest: dict[str, Convolution] = {}
        for place, operator in sorted(known, key=lambda k: (k[0], k[1].key)):
            for c in operator.convolutions:
                name = f"{place}.{c.name}"
                so_far = widest.get(name, c)
                widest[name] = replace(
                    c,
                    in_channels=max(c.in_channels, so_far.in_channels),
                    out_channels=max(c.out_channels, so_far.out_channels),
                    groups=max(c.groups, so_far.groups),
                )
        return widest

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor by name."""
        return {
            f"{place}{end}": shape for place, c in self._widest.items() for end, shape in _shapes(c)
        }

    @property
    def size(self) -> int:
        """Trainable numbers."""
        return sum(prod(shape) for shape in self.shapes.values())

    def _first(self, seed: int) -> dict[str, Tensor]:
        """First weights as `to_torch` makes them, for the widest; but the classifier starts at 0.

        Its usual first weights, with 1,280 features and few classes, give a loss twice that of
        chance, which takes hundreds of steps to undo.
        """
        torch = torch_or_extra()
        generator = torch.Generator().manual_seed(seed)
        tensors: dict[str, Tensor] = {}
        for place, c in self._widest.items():
            module = torch.nn.Module()
            for end, shape in _shapes(c):
                tensors[place + end] = torch.full(shape, 1.0 if end == "_bn.weight" else 0.0)
            weight, bias = tensors[f"{place}.weight"], tensors.get(f"{place}.bias")
            module.weight = torch.nn.Parameter(weight)
            module.bias = None if bias is None else torch.nn.Parameter(bias)
            if c.name != "classifier":
                initialise(c, module, generator)
            tensors[f"{place}.weight"] = module.weight.detach()
        return tensors

    def _given(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Tensor]:
        torch = torch_or_extra()
        tensors: dict[str, Tensor] = {}
        for name, shape in self.shapes.items():
            if name not in arrays or tuple(arrays[name].shape) != shape:
                present = f"{tuple(arrays[name].shape)}" if name in arrays else "not there"
                raise InvalidArgument(
                    f"the weights' {name} is {present}; networks of {self.space!r} with "
                    f"{self.classes} classes take {shape}"
                )
            tensors[name] = torch.tensor(np.asarray(arrays[name], np.float32))
        return tensors

    # -- one network --------------------------------------------------------------------------

    def forward(self, genome: npt.ArrayLike, images: Tensor) -> Tensor:
        """A network's outputs in training: BatchNorm uses the batch's statistics.

        Args:
            genome: Of one network, (genes,).
            images: (n, 3, resolution_px, resolution_px), normalised, on the tensors' device.
        Returns:
            Logits, (n, classes); gradients reach `tensors`.
        """
        import torch
        from torch.func import functional_call

        # On a CPU too: there the backward pass of depthwise convolutions is 2 to 3 times as fast.
        x = images.contiguous(memory_format=torch.channels_last)
        for place, operator in self.placed(genome):
            layer = self._layer(operator)
            own = {name: self._slice(place, name, p.shape) for name, p in layer.named_parameters()}
            x = functional_call(layer, own, (x,))
        return x

    def weights_of(self, genome: npt.ArrayLike) -> Arrays:
        """One network's weights by the names of `to_torch`'s state, copies.

        BatchNorm's running mean and variance are those of a new network, 0 and 1: they must be
        computed from training images before the network is evaluated or exported (see
        `Supernet.weights_of`).
        """
        arrays: Arrays = {}
        for number, (place, operator) in enumerate(self.placed(genome)):
            for c in operator.convolutions:
                for end, shape in _shapes(c):
                    own = self._slice(place, f"{c.name}{end}", shape).detach().cpu().numpy()
                    arrays[f"{number}.{c.name}{end}"] = own.copy()
                if c.normalised:
                    name = f"{number}.{c.name}_bn"
                    arrays[f"{name}.running_mean"] = np.zeros(c.out_channels, np.float32)
                    arrays[f"{name}.running_var"] = np.ones(c.out_channels, np.float32)
        return arrays

    def _slice(self, place: str, name: str, shape: Any) -> Tensor:
        whole = self.tensors[f"{place}.{name}"]
        # Whole tensors pass untouched: the backward pass of a slice fills a second one with zeros.
        if tuple(whole.shape) == tuple(shape):
            return whole
        return whole[tuple(slice(0, n) for n in shape)]

    def _layer(self, operator: Operator) -> nn.Module:
        """The module of an operator, without values of its own, in training mode."""
        if operator not in self._layers:
            from torch import nn

            layer = layer_class()(operator, 0.0).to("meta")
            for module in layer.modules():
                if isinstance(module, nn.BatchNorm2d):
                    # The batch's statistics alone.
                    module.track_running_stats = False
            self._layers[operator] = layer
        return self._layers[operator]


def _shapes(c: Convolution) -> Iterator[tuple[str, Shape]]:
    """Endings of the names of a convolution's tensors, with their shapes."""
    yield ".weight", c.weight_shape[:2] if c.name == "classifier" else c.weight_shape
    if c.normalised:
        yield "_bn.weight", (c.out_channels,)
        yield "_bn.bias", (c.out_channels,)
    elif c.bias:
        yield ".bias", (c.out_channels,)
