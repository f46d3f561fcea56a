"""carried_over(): the weights of one network as first weights of another.

Growth preserves the function: channels are copied, and the weights that read them are divided
among the copies; a larger kernel has zeros around; a new layer with a skip adds nothing, since the
last BatchNorm of its branch has scale 0; a new squeeze multiplies by one half, and what follows by
two. What is taken away is what does least: channels by the size of their weights, the border of
a kernel; of a squeeze its mean gate stays.

Source: Chen et al., Net2Net, ICLR 2016 (copied channels); Wei et al., Network Morphism, ICML 2016
(kernels, layers); Elsken et al., LEMONADE, ICLR 2019 (approximate morphisms, that shrink). The
copies get unequal random shares of the weights that read them, so that they learn different things;
Net2Net adds noise for that, which changes the function a little.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import pi
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Architecture, Operator
from phonenas.space.lowering.torch import BN_EPSILON, activations, torch_or_extra
from phonenas.space.operator import Convolution

from .alignment import aligned

__all__ = ["carried_over"]

Floats = npt.NDArray[np.floating[Any]]
Map = npt.NDArray[np.intp]  # for each channel, which one of the source it is a copy of
_LAST = ("conv", "project")  # what gives the output of a layer that is no head
_POINTS = 31  # of a quadrature over a normal distribution


def carried_over(
    source: Architecture,
    weights: Mapping[str, Floats],
    target: Architecture,
    first: Mapping[str, Floats],
    seed: int = 0,
) -> dict[str, npt.NDArray[np.float32]]:
    """First weights of a network that compute as nearly as possible what another network does.

    Args:
        source: Whose weights they are.
        weights: As `state_arrays` gives them, BatchNorm statistics included.
        target: With as many classes.
        first: Weights that the target has where the source has nothing for it; by all its names.
        seed: Of the choice of channels that are copied, and of the shares of the copies.
    Returns:
        float32 arrays by the names and shapes of `first`. The outputs are those of the source, to
        rounding, in evaluation mode, where the target is the source with more channels, larger
        kernels, further layers with an identity skip, or squeezes; activations ReLU where a
        squeeze is added to a layer without a projection, or a depthwise convolution to one without.
    """
    return _Transfer(source, weights, target, first, seed).run()


class _Transfer:
    def __init__(
        self,
        source: Architecture,
        weights: Mapping[str, Floats],
        target: Architecture,
        first: Mapping[str, Floats],
        seed: int,
    ) -> None:
        self.pairs = aligned(source, target)
        self.weights = weights
        self.arrays = {name: np.array(value, np.float32) for name, value in first.items()}
        self.rng = np.random.default_rng(seed)
        self.before = source.operators()
        self.trunk: Map = np.arange(3)  # of the layer's input; first the image's
        self.width = 3  # channels of the source there

    def run(self) -> dict[str, npt.NDArray[np.float32]]:
        i = j = 0
        for before, now in self.pairs:
            if now is not None:
                self.to = f"{j}."
            self.at = f"{i}."
            if before is not None and now is not None and before.kind == now.kind:
                self._layer(before, now, i)
            else:
                if now is not None:
                    self._new(now)
                self._pass(before, now)
            i, j = i + (before is not None), j + (now is not None)
        return self.arrays

    def _new(self, now: Operator) -> None:
        """A layer without a partner: with a skip it begins by adding nothing."""
        if now.skip != "none":
            last = next(c.name for c in now.convolutions if c.name in _LAST)
            for name in ("weight", "bias"):
                self.arrays[f"{self.to}{last}_bn.{name}"][:] = 0

    def _pass(self, before: Operator | None, now: Operator | None) -> None:
        """What the trunk's channels are behind layers that nothing was carried between."""
        old = self.width if before is None else before.out_channels
        new = len(self.trunk) if now is None else now.out_channels
        skipped = [o.skip != "none" for o in (before, now) if o is not None]
        if all(skipped) and (old, new) == (self.width, len(self.trunk)):
            return  # each adds to what passes
        self.trunk, self.width = self._map(new, old, np.arange(old, 0.0, -1)), old

    def _layer(self, before: Operator, now: Operator, i: int) -> None:
        known = {c.name: c for c in before.convolutions}
        channels: Map | None = self.trunk  # of the next convolution's input
        scale: Floats = np.ones(1)  # of the channels that it reads, by channel of the target
        previous: Convolution | None = None  # the last one on the map, whose output they are
        reduced: Map = np.arange(0)
        if "se_reduce" in known and not now.se_channels:
            gate_of = self._mean_gates(before)
        for c in now.convolutions:
            old = known.get(c.name)
            if c.name == "se_reduce":
                if old is None:
                    scale = self._half(now)
                elif channels is not None:
                    reduced = self._squeeze(c, old, channels)
                continue
            if c.name == "se_expand":
                if old is not None and channels is not None:
                    self._dense(c, reduced, channels, np.ones(1))
                continue
            if c.name == "project" and "se_reduce" in known and not now.se_channels:
                assert channels is not None
                scale = gate_of[channels]
            if old is None and c.groups > 1:
                self._centre(c, previous, channels is not None)
            elif old is None or channels is None:
                channels = None
            elif c.groups > 1:
                self._depthwise(c, channels)
            else:
                out = self._outputs(c, old, before, now, i)
                self._dense(c, channels, out, scale)
                channels, scale = out, np.ones(1)
            previous = c
        if "project" not in known and "se_reduce" in known and not now.se_channels:
            self._scaled(now, gate_of[channels] if channels is not None else np.ones(1))
        if channels is None:
            self._pass(before, now)
        else:
            self.trunk, self.width = channels, before.out_channels

    # -- which channels -----------------------------------------------------------------------

    def _outputs(
        self, c: Convolution, old: Convolution, before: Operator, now: Operator, i: int
    ) -> Map:
        """Which channel of the source each output of a convolution is."""
        if c.name == "classifier":
            return np.arange(c.out_channels)
        size = self._size(f"{self.at}{c.name}", before, i)
        if c.name in _LAST and now.kind != "head":
            if now.skip == before.skip == "pool":
                return self._pooled(c.out_channels, old.out_channels)
            if now.skip == "identity" and self.trunk.max() < old.out_channels:
                return self.trunk
        return self._map(c.out_channels, old.out_channels, size)

    def _map(self, new: int, old: int, size: Floats) -> Map:
        """For each of `new` channels one of `old`: the largest, or all and copies of some."""
        if new <= old:
            return np.sort(np.argsort(-size, kind="stable")[:new])
        copies = [self.rng.permutation(old) for _ in range(-(-new // old))]
        return np.concatenate([np.arange(old), *copies])[:new]

    def _pooled(self, new: int, old: int) -> Map:
        """Of a layer with a pool skip, which adds input channel i to output channel i."""
        rest = np.arange(min(self.width, old), old)  # to which nothing is added
        rest = rest if len(rest) else np.arange(old)
        own = self.trunk[:new] % old
        return np.concatenate([own, np.resize(rest, new - len(own))]).astype(np.intp)

    def _size(self, name: str, before: Operator, i: int) -> Floats:
        """How much each output of one of the source's convolutions weighs: its BatchNorm's scale
        by the sum of all weights that read it, (channels,)."""
        own = [c for c in before.convolutions if not c.name.startswith("se_")]
        after = own[[c.name for c in own].index(name.removeprefix(self.at)) + 1 :]
        after = [c for c in after if c.groups == 1]  # others read channel by channel
        at, reader = (self.at, after[0]) if after else (f"{i + 1}.", self._first(i + 1))
        weight = np.abs(self.weights[f"{at}{reader.name}.weight"])
        size: Floats = weight.reshape(len(weight), weight.shape[1], -1).sum(2)
        size = size.sum(0) if reader.groups == 1 else size[:, 0]
        if f"{name}_bn.weight" in self.weights:
            size = size * np.abs(self.weights[f"{name}_bn.weight"])
        return size

    def _first(self, i: int) -> Convolution:
        return self.before[i].convolutions[0]

    # -- which weights ------------------------------------------------------------------------

    def _dense(self, c: Convolution, channels: Map, out: Map, scale: Floats) -> None:
        """Weights between channels; those of copies get shares that sum to one."""
        wanted = self.arrays[f"{self.to}{c.name}.weight"]
        old = self.weights[f"{self.at}{c.name}.weight"]
        shares = self.rng.uniform(0.5, 1.5, (len(out), len(channels)))
        sums = np.zeros((len(out), int(channels.max()) + 1))
        np.add.at(sums.T, channels, shares.T)
        shares = shares / sums[:, channels] * scale
        taken = _resized(old.reshape(*old.shape[:2], *old.shape[2:] or (1, 1)), c.kernel)
        taken = taken[out][:, channels] * shares[:, :, None, None]
        self.arrays[f"{self.to}{c.name}.weight"] = taken.reshape(wanted.shape).astype(np.float32)
        self._by_channel(c, out)

    def _depthwise(self, c: Convolution, channels: Map) -> None:
        taken = _resized(self.weights[f"{self.at}{c.name}.weight"], c.kernel)[channels]
        self.arrays[f"{self.to}{c.name}.weight"] = taken.astype(np.float32)
        self._by_channel(c, channels)

    def _by_channel(self, c: Convolution, out: Map) -> None:
        """Bias and BatchNorm."""
        for end in (".bias", *(f"_bn.{n}" for n in _NORM)):
            name = f"{self.at}{c.name}{end}"
            if name in self.weights and f"{self.to}{c.name}{end}" in self.arrays:
                taken = self.weights[name][out].astype(np.float32)
                self.arrays[f"{self.to}{c.name}{end}"] = taken

    def _centre(self, c: Convolution, previous: Convolution | None, known: bool) -> None:
        """A new depthwise convolution passes each channel on, BatchNorm included."""
        if not known:
            return
        weight = np.zeros_like(self.arrays[f"{self.to}{c.name}.weight"])
        weight[:, 0, c.kernel // 2, c.kernel // 2] = 1
        mean: Floats = np.zeros(c.out_channels)
        variance: Floats = np.ones(c.out_channels)
        if previous is not None:
            mean, variance = self._moments(previous)
        self.arrays[f"{self.to}{c.name}.weight"] = weight
        scale = np.sqrt(variance + BN_EPSILON)
        for name, value in zip(_NORM, (scale, mean, mean, variance), strict=True):
            self.arrays[f"{self.to}{c.name}_bn.{name}"] = value.astype(np.float32)

    # -- squeezes -----------------------------------------------------------------------------

    def _half(self, now: Operator) -> Floats:
        """A new squeeze whose gate is one half everywhere; what is to follow is to be doubled."""
        expand = f"{self.to}se_expand"
        self.arrays[f"{expand}.weight"][:] = 0
        self.arrays[f"{expand}.bias"][:] = 0
        if any(part.name == "project" for part in now.convolutions):
            return np.full(1, 2.0)
        self._scaled(now, np.full(1, 2.0))
        return np.ones(1)

    def _scaled(self, now: Operator, factor: Floats) -> None:
        """Multiply what a layer without a projection gives; exactly so with ReLU or nothing."""
        for name in ("weight", "bias"):
            self.arrays[f"{self.to}conv_bn.{name}"] *= factor.astype(np.float32)

    def _squeeze(self, c: Convolution, old: Convolution, channels: Map) -> Map:
        reads, gives = (
            np.abs(self.weights[f"{self.at}{n}.weight"]) for n in ("se_reduce", "se_expand")
        )
        size = reads.reshape(len(reads), -1).sum(1) * gives[:, :, 0, 0].sum(0)
        out = self._map(c.out_channels, old.out_channels, size)
        self._dense(c, channels, out, np.ones(1))
        return out

    def _mean_gates(self, before: Operator) -> Floats:
        """What the source's squeeze multiplies each channel by, for its mean input, (channels,)."""
        torch, functions = torch_or_extra(), activations()
        parts = [c for c in before.convolutions if c.name != "project"]
        place = next(n for n, c in enumerate(parts) if c.name == "se_reduce")
        mean, _ = self._moments(parts[place - 1], of_source=True)
        value = torch.from_numpy(mean)
        for c in parts[place : place + 2]:
            weight, bias = (
                torch.from_numpy(np.asarray(self.weights[f"{self.at}{c.name}.{n}"], np.float64))
                for n in ("weight", "bias")
            )
            value = functions[c.activation](weight[:, :, 0, 0] @ value + bias)
        gates: Floats = value.numpy()
        return gates

    def _moments(self, c: Convolution, of_source: bool = False) -> tuple[Floats, Floats]:
        """Mean and variance of what a convolution gives, by channel, behind its activation; its
        BatchNorm gives normal distributions of known mean and variance."""
        torch = torch_or_extra()
        arrays: Mapping[str, Floats] = self.weights if of_source else self.arrays
        place = self.at if of_source else self.to
        scale, shift = (
            np.asarray(arrays[f"{place}{c.name}_bn.{n}"], np.float64) for n in ("weight", "bias")
        )
        points, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
        weights = weights / np.sqrt(2 * pi)
        given = torch.from_numpy(shift[:, None] + np.abs(scale)[:, None] * points)
        value = activations()[c.activation](given).numpy()
        mean = value @ weights
        return mean, np.maximum((value - mean[:, None]) ** 2 @ weights, 0)


_NORM = ("weight", "bias", "running_mean", "running_var")


def _resized(weight: Floats, kernel: int) -> Floats:
    """A weight (out, in, k, k) with another odd kernel: its centre, or zeros around it."""
    old = weight.shape[-1]
    if kernel <= old:
        cut = (old - kernel) // 2
        return weight[:, :, cut : old - cut, cut : old - cut]
    border = (kernel - old) // 2
    return np.pad(weight, ((0, 0), (0, 0), (border, border), (border, border)))
