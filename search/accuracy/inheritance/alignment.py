"""Which layers of two networks correspond, and how far the networks lie apart.

Layers correspond in order, at the same stride from the input (an edit distance of the two lists of
operators). A pair costs the share of their parameters that the two do not have in common; a layer
without a partner costs 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import inf, prod

from phonenas.space import Architecture, Operator

__all__ = ["Pair", "aligned", "distance", "share_carried", "strided", "together"]

Pair = tuple[Operator | None, Operator | None]
_MOST_PAIRS = 1 << 16


def distance(one: Architecture, other: Architecture) -> float:
    """How far two networks lie apart, in [0, 1]: the mean cost of their layers.

    A layer costs the share of parameters that is not in both, half of the rest where skip or
    activation differ, and 1 without a partner. The mean is over the layers of the deeper network,
    stem and head included. It is the same in both directions, and 0 for equal networks alone,
    whatever their resolution.

    >>> a, b = map(Architecture.parse, ("r1_k3_s22_e3_i8_o16", "r2_k3_s22_e3_i8_o16"))
    >>> distance(a, a), distance(a, b) == distance(b, a) == 1 / 4
    (0.0, True)
    """
    layers = one.operators(), other.operators()
    cost = sum(1.0 if None in pair else _cost(*pair) for pair in aligned(one, other))
    return min(1.0, cost / max(map(len, layers)))


def share_carried(source: Architecture, target: Architecture) -> float:
    """Share of the target's parameters that the source has a value for, in [0, 1].

    A channel that is a copy of another counts; what pads a kernel does not, and nothing of a
    layer without a partner.
    """
    carried = 0.0
    for before, now in aligned(source, target):
        if before is None or now is None or before.kind != now.kind:
            continue
        own = {c.name: c for c in before.convolutions}
        for c in now.convolutions:
            if c.name in own:
                weights = prod(c.weight_shape)
                kept = min(1.0, (own[c.name].kernel / c.kernel) ** 2)
                carried += weights * kept + c.params - weights
    return carried / target.params


def aligned(source: Architecture, target: Architecture) -> list[Pair]:
    """Layers of both networks, in order, each beside its partner or None.

    Of several ways of least cost it is the one that pairs the earliest layers.
    """
    before, now = strided(source), strided(target)
    n, m, start, end = len(before), len(now), 0, 0
    # Equal layers at both ends are partners in any case; most networks share most of theirs.
    while start < min(n, m) and before[start] == now[start]:
        start += 1
    while end < min(n, m) - start and before[n - 1 - end] == now[m - 1 - end]:
        end += 1
    middle = _middle(before[start : n - end], now[start : m - end])
    first = [(o, o) for _, o in now[:start]]
    last = [(o, o) for _, o in now[m - end :]]
    return [*first, *middle, *last]


def strided(network: Architecture) -> list[tuple[int, Operator]]:
    """Layers, each with the stride of its input; of an image of 1 × 1, as sizes do not count."""
    layers, stride = [], 1
    for operator in network.operators():
        layers.append((stride, operator))
        stride *= operator.stride
    return layers


def _middle(
    before: Sequence[tuple[int, Operator]], now: Sequence[tuple[int, Operator]]
) -> list[Pair]:
    n, m = len(before), len(now)
    # The least cost of the layers from i and j on.
    least = [[float(n - i + m - j) for j in range(m + 1)] for i in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            both = together(before[i], now[j]) + least[i + 1][j + 1]
            least[i][j] = min(both, 1 + least[i + 1][j], 1 + least[i][j + 1])
    pairs: list[Pair] = []
    i = j = 0
    while i < n and j < m:
        if together(before[i], now[j]) + least[i + 1][j + 1] <= least[i][j]:
            pairs.append((before[i][1], now[j][1]))
            i, j = i + 1, j + 1
        elif 1 + least[i + 1][j] <= least[i][j]:
            pairs.append((before[i][1], None))
            i += 1
        else:
            pairs.append((None, now[j][1]))
            j += 1
    return [*pairs, *((o, None) for _, o in before[i:]), *((None, o) for _, o in now[j:])]


def together(before: tuple[int, Operator], now: tuple[int, Operator]) -> float:
    """Cost of two layers as partners, in [0, 1], each with the stride of its input; infinite where
    the strides differ."""
    if before[0] != now[0] or before[1].stride != now[1].stride:
        return inf
    return _cost(before[1], now[1])


@lru_cache(maxsize=_MOST_PAIRS)
def _cost(one: Operator | None, other: Operator | None) -> float:
    """Share of two layers' parameters that they do not have in common, in [0, 1]."""
    assert one is not None and other is not None
    if one.kind != other.kind:
        return 1.0
    own, theirs = ({c.name: c for c in o.convolutions} for o in (one, other))
    common = every = 0
    for name in {*own, *theirs}:
        a, b = own.get(name), theirs.get(name)
        shapes = [c.weight_shape for c in (a, b) if c is not None]
        every += prod(map(max, *shapes)) if len(shapes) == 2 else prod(shapes[0])
        common += prod(map(min, *shapes)) if len(shapes) == 2 else 0
    share = common / every
    alike = (one.skip, one.activation, one.gate) == (other.skip, other.activation, other.gate)
    return 1 - share * (1.0 if alike else 0.5)
