"""Nearest: the networks of a set that lie nearest to another one, for sets of thousands.

What depends on one network alone (its layers and their strides) is computed once, and the cost of
two layers once for all networks that have them. The distances from a network to all others then
take one pass over its layers, with all others side by side in an array.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from phonenas.space import Architecture, Operator

from .alignment import strided, together

__all__ = ["Nearest"]

Floats = npt.NDArray[np.float64]
_ALIKE = 1e-9  # two sums of the same distances, in another order, lie nearer than that


class Nearest:
    """A growing set of networks."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, Operator], int] = {}  # of each layer with its stride
        self._every: list[tuple[int, Operator]] = []  # the same, by number
        self._groups: dict[tuple[int, int], list[int]] = {}  # which may be partners, by strides
        self._costs: dict[int, list[float]] = {}  # of a layer beside those of its group
        self._lengths: list[int] = []
        self._layers = np.zeros((0, 0), np.int64)  # a row a network, and room for more

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, network: Architecture) -> None:
        """Take one more network; its number is that of those before it."""
        layers = self._numbered(network)
        rows, width = self._layers.shape
        if len(self) == rows or len(layers) > width:
            rows = 2 * len(self) + 1 if len(self) == rows else rows
            wider = np.zeros((rows, max(width, len(layers))), np.int64)
            wider[: len(self), :width] = self._layers[: len(self)]
            self._layers = wider
        self._layers[len(self), : len(layers)] = layers
        self._lengths.append(len(layers))

    def to(self, network: Architecture) -> list[int]:
        """The numbers, ascending, of the networks nearest to one: of these at the least distance,
        and any that may be by the rounding of a sum. Empty where the set is."""
        if not len(self):
            return []
        distances = self._distances(network)
        return [int(n) for n in np.flatnonzero(distances <= distances.min() + _ALIKE)]

    def _numbered(self, network: Architecture) -> list[int]:
        layers = strided(network)
        for one in layers:
            if one not in self._numbers:
                self._groups.setdefault(_strides(one), []).append(len(self._every))
                self._numbers[one] = len(self._every)
                self._every.append(one)
        return [self._numbers[one] for one in layers]

    def _distances(self, network: Architecture) -> Floats:
        """As `distance` to each network of the set, (n,), but for rounding."""
        now, lengths = self._numbered(network), np.array(self._lengths)
        layers = self._layers[: len(self)]
        places = np.arange(layers.shape[1] + 1.0)
        # By place i: the least cost of the first i layers of each beside the first j of `network`.
        least = np.tile(places, (len(layers), 1))
        for j, layer in enumerate(now, 1):
            own = least + 1.0
            paired = least[:, :-1] + self._cost(layer)[layers]
            np.minimum(own[:, 1:], paired, out=own[:, 1:])
            own[:, 0] = j
            # A layer of the others without a partner costs 1, as does each after it.
            least = np.minimum.accumulate(own - places, axis=1) + places
        sums: Floats = least[np.arange(len(layers)), lengths]
        means: Floats = np.minimum(1.0, sums / np.maximum(lengths, len(now)))
        return means

    def _cost(self, layer: int) -> Floats:
        """Of a layer beside each numbered one."""
        one = self._every[layer]
        alike, known = self._groups[_strides(one)], self._costs.setdefault(layer, [])
        known += [together(one, self._every[other]) for other in alike[len(known) :]]
        costs = np.full(len(self._every), np.inf)
        costs[alike] = known
        return costs


def _strides(layer: tuple[int, Operator]) -> tuple[int, int]:
    return layer[0], layer[1].stride
