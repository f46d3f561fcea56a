"""Parts: what an operator's time is the sum of.

These are its convolutions, its squeeze, its skip, and entering and leaving it. Many operators share
parts: the 2,452 operators of `mnasnet` hold some 800 distinct ones, so measuring a few operators
informs about all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import log2, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from phonenas.space import Operator

__all__ = ["CLAMPED", "KINDS", "Part", "Parts", "counts", "parts_of"]

Floats = npt.NDArray[np.float64]

KINDS = ("pointwise", "depthwise", "dense", "squeeze", "pool", "identity", "classifier", "edges")
#: Activations that a runtime folds into the convolution before them.
CLAMPED = ("none", "relu", "relu6")
_VECTOR = 16  # channels that a kernel takes at once; what is left of the last ones is wasted


class Part(NamedTuple):
    """One part of an operator.

    Args:
        kind: Its place in `KINDS`.
        macs: Multiply-adds.
        numbers: Read and written, weights included.
        launches: Of kernels.
        shape: By which it is compared with others: logarithms (base 2) of its channels in and out
            and of its pixels, kernel, stride, and the waste in channels out and in.
    """

    kind: int
    macs: float
    numbers: float
    launches: float
    shape: tuple[float, float, float, float, float, float, float]


def parts_of(operator: Operator) -> list[Part]:
    """What an operator is made of; its edges come last."""
    o, parts = operator, []
    for c in o.convolutions:
        if c.name.startswith("se_"):
            continue
        came, pixels, weights = c.out_px * c.stride, c.out_px**2, prod(c.weight_shape)
        numbers = c.in_channels * came**2 + c.out_channels * pixels + weights
        if c.name == "classifier":
            parts.append(_part("classifier", weights, numbers, 1, c.in_channels, c.out_channels, 1))
            continue
        depthwise = c.groups > 1
        kind = "depthwise" if depthwise else "pointwise" if c.kernel == 1 else "dense"
        parts.append(
            Part(
                KINDS.index(kind),
                weights * pixels,
                numbers,
                1,
                (
                    log2(c.in_channels),
                    0.0 if depthwise else log2(c.out_channels),
                    log2(pixels),
                    0.0 if kind == "pointwise" else (c.kernel - 3) / 2,
                    c.stride - 1.0,
                    _waste(c.out_channels),
                    0.0 if depthwise else _waste(c.in_channels),
                ),
            )
        )
        if c.activation not in CLAMPED:  # a pass of its own over what the convolution gives
            much = 2 * c.out_channels * pixels
            parts.append(_part("identity", 0, much, 1, c.out_channels, 1, c.out_px))
    out = o.out_channels * o.out_px**2
    if o.se_channels:
        width = o.mid_channels or o.out_channels
        products = 2 * width * o.se_channels
        numbers = 3 * width * o.out_px**2 + products
        parts.append(_part("squeeze", products, numbers, 4, width, o.se_channels, o.out_px))
    came = o.in_channels * o.in_px**2
    if o.skip == "pool":
        macs = 9 * o.in_channels * o.out_px**2
        parts.append(
            _part(
                "pool", macs, came + 3 * out, 3, o.in_channels, o.out_channels, o.out_px, o.stride
            )
        )
    elif o.skip == "identity":
        parts.append(_part("identity", 0, 3 * out, 1, o.out_channels, 1, o.out_px))
    parts.append(_part("edges", 0, came + out, 2, o.in_channels, o.out_channels, o.in_px))
    return parts


def _part(
    kind: str,
    macs: float,
    numbers: float,
    launches: float,
    cin: int,
    cout: int,
    px: int,
    stride: int = 1,
) -> Part:
    shape = (log2(cin), log2(cout), 2 * log2(px), 0.0, stride - 1.0, 0.0, 0.0)
    return Part(KINDS.index(kind), macs, numbers, launches, shape)


def _waste(channels: int) -> float:
    return 4 * (-(-channels // _VECTOR) * _VECTOR / channels - 1)


class Parts:
    """The distinct parts of some operators.

    Args:
        operators: n of them.
    Attributes:
        kinds: Of each distinct part, (u,), places in `KINDS`.
        work: Multiply-adds, numbers moved and launches, (u, 3).
        shapes: (u, 7), see `Part.shape`.
        holds: How often each operator holds each part, sparse (n, u).
        traits: Each operator as a whole, (n, 14), about one unit apart where it matters.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.operators = tuple(operators)
        places: dict[Part, int] = {}
        self._pairs = [
            (row, places.setdefault(part, len(places)))
            for row, o in enumerate(self.operators)
            for part in parts_of(o)
        ]
        self.kinds = np.array([p.kind for p in places], np.intp)
        self.work: Floats = np.array([p[1:4] for p in places], float).reshape(-1, 3)
        self.shapes: Floats = np.array([p.shape for p in places], float).reshape(-1, 7)
        self.traits: Floats = np.array([_traits(o) for o in self.operators], float).reshape(-1, 14)

    @cached_property
    def holds(self) -> Any:
        from scipy import sparse

        rows, columns = np.array(self._pairs, np.intp).reshape(-1, 2).T
        shape = (len(self.operators), len(self.kinds))
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape)

    @cached_property
    def by_kind(self) -> list[npt.NDArray[np.intp]]:
        """Places of each kind's parts."""
        return [np.flatnonzero(self.kinds == k) for k in range(len(KINDS))]


def _traits(o: Operator) -> list[float]:
    return [
        log2(o.in_channels),
        log2(o.out_channels),
        2 * log2(o.in_px),
        o.kernel / 2,
        o.stride - 1.0,
        2.0 * (o.skip == "pool"),
        1.0 * (o.skip == "identity"),
        2.0 * (o.se_channels > 0),
        2 * log2(o.expansion),
        4.0 * (o.kind == "conv"),
        8.0 * (o.kind in ("stem", "head")),
        4.0 * (o.kind in ("fused", "edge")),
        4.0 * (o.activation not in CLAMPED),
        o.ahead / 2,
    ]


def counts(networks: Sequence[Sequence[Operator]], operators: Sequence[Operator]) -> Floats:
    """How often each network holds each operator, (networks, n); others are passed over."""
    column = {o: i for i, o in enumerate(operators)}
    times = np.zeros((len(networks), len(operators)))
    for row, network in zip(times, networks, strict=True):
        for o in network:
            if o in column:
                row[column[o]] += 1
    return times
