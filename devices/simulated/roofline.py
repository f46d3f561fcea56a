"""Roofline: the true time of a model on a `SimulatedPhone`.

A kernel of W multiply-adds that moves B bytes takes, at a clock of c times the highest
(0 < c ≤ 1), in ms,

    t(c) = max(W / (R · u) / c,  B / S(B, c)) + d / c

- R = 22.4 GMAC/s: two 128-bit units at 2.8 GHz, 8 float32 multiply-adds a cycle (little cores:
  half as many at 1.8 GHz). u is the share reached: 0.60, of depthwise convolutions 0.45, of
  pooling 0.20, times p / (p + 12) for a map of p pixels: small maps leave the units idle.
- S = 8 GB/s · c^¼ for what exceeds the cache of 512 KiB, since memory has a clock of its own, and
  28 GB/s · c within it (little: 4 and 12). B counts maps in and out and weights, 4 bytes each.
- d = 8 µs to dispatch a kernel. Squeeze, excite, pooling, adding and h-swish and swish are kernels
  as well.

With n threads R grows as n^0.9, S by 30 % for each further one to at most 1.9 times, d by half
for each. An operator is the sum of its kernels; a network is

    T = 0.4 ms + Σ w · t(operator),   w = 0.90 where the operator's input fits the cache, else 1,

for its input is still warm there, and a run has a fixed cost: the plain sum of operators is 5 to
8 % too much, which a calibration can learn.

In another precision a number of a map takes m bytes, a weight w bytes, and R is r times as high:

| precision | m | w | r |
|---|---|---|---|
| float16 | 2 | 2 | 2 |
| int8 | 1 | 1 | 3 |
| int8-dynamic | 4 | 1 | 2 |
| float16-weights | 4 | 4 (once loaded) | 1 |

A slower clock slows compute-bound work in full and memory-bound work hardly: to 1.67 and 1.14
times at c = 0.6. Neighbours slow memory by their `contention` k ≥ 1, computing by
1 + (k - 1) / 6.

Source of the form: Williams, Waterman and Patterson, Roofline, CACM 2009. The constants are
chosen, not measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from phonenas.space import Architecture, Kernel, Operator
from phonenas.space.precision import FLOAT32

__all__ = ["Cost", "Roofline"]


class _CoreClass(NamedTuple):
    clock_mhz: float
    macs_per_cycle: float
    memory_gbs: float
    cache_gbs: float
    capacity: int


_CORES = {
    "big": _CoreClass(2800.0, 8.0, 8.0, 28.0, 1024),
    "little": _CoreClass(1800.0, 4.0, 4.0, 12.0, 380),
}
_CACHE_BYTES = 1 << 19
_DISPATCH_MS = 0.008
_NETWORK_MS, _WARM = 0.4, 0.90
_USED, _USED_DEPTHWISE, _USED_POOLING, _IDLE_PIXELS = 0.60, 0.45, 0.20, 12


class _Numbers(NamedTuple):
    """Of a precision: bytes of a map's number and of a weight, and the speed of multiply-adds."""

    map_bytes: float
    weight_bytes: float
    speed: float


_NUMBERS = {
    FLOAT32: _Numbers(4, 4, 1),
    "float16": _Numbers(2, 2, 2),
    "int8": _Numbers(1, 1, 3),
    "int8-dynamic": _Numbers(4, 1, 2),
    "float16-weights": _Numbers(4, 4, 1),
}


class Cost(NamedTuple):
    """Times of a kernel at the highest clock, in ms: of computing, of memory, of dispatch."""

    core_ms: float
    memory_ms: float
    dispatch_ms: float


class _Kernel(NamedTuple):
    macs: float
    used: float
    maps: float  # numbers of feature maps that are moved
    weights: float = 0


class Roofline:
    """The speed of one phone.

    Args:
        seed: Of the phone: rates of two phones differ by up to ±5 %.
        threads: Threads that compute, ≥ 1.
        cores: The class of core.
    """

    def __init__(
        self, seed: int = 0, threads: int = 1, cores: Literal["big", "little"] = "big"
    ) -> None:
        self.core = _CORES[cores]
        own = random.Random(f"phone {seed}")
        self._macs_per_ms = own.uniform(0.95, 1.05) * threads**0.9
        self._macs_per_ms *= self.core.macs_per_cycle * self.core.clock_mhz * 1e3
        copies = own.uniform(0.95, 1.05) * min(1.9, 1 + 0.3 * (threads - 1))
        self._memory_per_ms = copies * self.core.memory_gbs * 1e6
        self._cache_per_ms = copies * self.core.cache_gbs * 1e6
        self._dispatch_ms = _DISPATCH_MS * (1 + 0.5 * (threads - 1))
        self._known: dict[tuple[Operator | Architecture | Kernel, str], list[Cost]] = {}

    def costs(
        self, model: Operator | Architecture | Kernel, precision: str = FLOAT32
    ) -> list[Cost]:
        """The costs of a model's kernels in a precision."""
        key, numbers = (model, precision), _NUMBERS[precision]
        if key not in self._known:
            if isinstance(model, Kernel):
                self._known[key] = [self._cost(_lone(model), numbers)]
            elif isinstance(model, Operator):
                self._known[key] = [self._cost(k, numbers) for k in _kernels(model)]
            else:
                costs = [Cost(_NETWORK_MS, 0.0, 0.0)]
                for o in model.operators():
                    moved = numbers.map_bytes * o.in_channels * o.in_px * o.in_px
                    share = _WARM if moved <= _CACHE_BYTES else 1.0
                    costs += [Cost(*(share * t for t in c)) for c in self.costs(o, precision)]
                self._known[key] = costs
        return self._known[key]

    def _cost(self, kernel: _Kernel, numbers: _Numbers) -> Cost:
        core_ms = kernel.macs / kernel.used / (self._macs_per_ms * numbers.speed)
        moved = numbers.map_bytes * kernel.maps + numbers.weight_bytes * kernel.weights
        if moved <= _CACHE_BYTES:
            return Cost(max(core_ms, moved / self._cache_per_ms), 0.0, self._dispatch_ms)
        return Cost(core_ms, moved / self._memory_per_ms, self._dispatch_ms)

    def time_ms(self, costs: Sequence[Cost], clock: float = 1.0, contention: float = 1.0) -> float:
        """Time of one warm inference, in ms.

        Args:
            costs: Of `costs`.
            clock: Share of the highest clock, in (0, 1].
            contention: How much slower neighbours make memory, ≥ 1.
        """
        core = (1 + (contention - 1) / 6) / clock
        memory = contention / math.sqrt(math.sqrt(clock))
        return sum(max(c * core, m * memory) + d * core for c, m, d in costs)


def _lone(kernel: Kernel) -> _Kernel:
    pixels = kernel.out_px[0] * kernel.out_px[1]
    used = _USED_DEPTHWISE if kernel.depthwise else _USED
    used *= pixels / (pixels + _IDLE_PIXELS)
    return _Kernel(kernel.macs, used, kernel.reads + kernel.writes, kernel.params)


def _kernels(operator: Operator) -> list[_Kernel]:
    kernels = []
    out = operator.out_px * operator.out_px
    for c in operator.convolutions:
        pixels = c.out_px * c.out_px
        weights = math.prod(c.weight_shape)
        read_values = c.in_channels * (c.out_px * c.stride) ** 2
        used = _USED_DEPTHWISE if c.groups > 1 else _USED
        kernels.append(
            _Kernel(
                weights * pixels,
                used * pixels / (pixels + _IDLE_PIXELS),
                read_values + c.out_channels * pixels,
                weights,
            )
        )
        if c.activation in ("hard_swish", "swish"):
            kernels.append(_Kernel(0, 1, 2 * c.out_channels * pixels))
    if operator.se_channels:
        scaled = (operator.mid_channels or operator.out_channels) * out
        kernels += [_Kernel(0, 1, scaled), _Kernel(0, 1, 2 * scaled)]
    if operator.kind == "head":
        kernels.append(_Kernel(0, 1, operator.features * operator.in_px**2))
    result = operator.out_channels * out
    if operator.skip == "pool":
        read_values = operator.in_channels * operator.in_px**2
        kernels.append(
            _Kernel(9 * operator.in_channels * out, _USED_POOLING, read_values + 2 * result)
        )
    elif operator.skip == "identity":
        kernels.append(_Kernel(0, 1, 3 * result))
    return kernels
