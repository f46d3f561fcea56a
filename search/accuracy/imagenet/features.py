"""What the full-schedule estimate sees of a network: 17 sums, and 13 features of these.

Sums over operators, so that a population of a search space costs a look-up a part. A graph's are
over its nodes; its depth is along its longest path. Both ways agree for a network of blocks.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from phonenas.space import Operator
from phonenas.space.graph import NetworkGraph

__all__ = ["FEATURES", "SUMS", "features", "graph_sums", "refused_share", "sums"]

Floats = npt.NDArray[np.float64]
SUMS = (
    "macs",
    "params",
    "depth",  # convolutions of more than 1×1 along the longest path
    "channels",  # of convolutions of more than 1×1
    "depthwise channels",
    "depthwise kernels",  # kernel times channels
    "flat",  # depthwise convolutions of narrow maps, before a linear projection
    "convolved",  # channels that convolutions give
    "activated",  # those with an activation
    "swish",  # with a (hard) swish
    "gated",  # channels with squeeze-and-excite
    "depthwise macs",
    "dense macs",  # of more than 1×1, in one group
    "grouped macs",
    "features",  # inputs of the classifier
    "fits",  # layers where an identity fits as a shortcut
    "refused",  # those of them without
)
_AT = {name: i for i, name in enumerate(SUMS)}
FEATURES = (
    "log2 macs",
    "log2 params",
    "log2 resolution",
    "log2 depth",
    "mean depthwise kernel",
    "swish share",
    "gated share",
    "share without expansion",
    "activated share",
    "log2 classifier inputs",
    "depthwise share of macs",
    "dense share of macs",
    "grouped share of macs",
)


def _convolution(
    own: Floats, macs: int, channels: int, kernel: int, groups: int, in_channels: int
) -> None:
    """Add what a convolution on the map counts besides its place on a path."""
    if kernel == 1:
        return
    own[_AT["channels"]] += channels
    if 1 < groups == in_channels:
        own[_AT["depthwise macs"]] += macs
        own[_AT["depthwise channels"]] += channels
        own[_AT["depthwise kernels"]] += channels * kernel
    else:
        own[_AT["grouped macs" if groups > 1 else "dense macs"]] += macs


@lru_cache(maxsize=65536)
def sums(operator: Operator) -> tuple[float, ...]:
    """What an operator adds to its network's sums, (17,)."""
    own = np.zeros(len(SUMS))
    own[:2] = operator.macs, operator.params
    for c in operator.convolutions:
        if c.name == "se_reduce":
            own[_AT["gated"]] += c.in_channels
        elif c.name == "classifier":
            own[_AT["features"]] += c.in_channels
        elif c.name not in ("se_expand", "hidden"):
            own[_AT["convolved"]] += c.out_channels
            own[_AT["depth"]] += c.kernel > 1
            _convolution(own, c.macs, c.out_channels, c.kernel, c.groups, c.in_channels)
            if c.activation != "none":
                own[_AT["activated"]] += c.out_channels
                own[_AT["swish"]] += c.out_channels * _swish(c.activation)
    expanded = any(c.name == "expand" for c in operator.convolutions)
    own[_AT["flat"]] = operator.kind == "dsconv" and not expanded
    fits = operator.stride == 1 and operator.in_channels == operator.out_channels
    if operator.kind not in ("stem", "head"):
        own[_AT["fits"]] = fits
        own[_AT["refused"]] = fits and operator.skip != "identity"
    return tuple(own.tolist())


def _swish(function: str) -> bool:
    return "swish" in function or function == "silu"


def graph_sums(graph: NetworkGraph) -> Floats:
    """The sums of a graph, (17,)."""
    own = np.zeros(len(SUMS))
    own[:2] = graph.macs, graph.params
    depths: list[int] = []  # up to each node
    for index, node in enumerate(graph.nodes):
        on_map = node.px > 1 and not node.squeeze
        before = max(depths[i] if i >= 0 else 0 for i in node.inputs)
        depths.append(before + (node.op == "conv" and on_map and max(node.kernel) > 1))
        if node.op == "conv" and on_map:
            own[_AT["convolved"]] += node.channels
            own[_AT["flat"]] += _flat(graph, index)
            kernel = max(node.kernel)
            _convolution(own, node.macs, node.channels, kernel, node.groups, node.in_channels)
        elif node.op == "activation" and on_map:
            own[_AT["activated"]] += node.channels
            own[_AT["swish"]] += node.channels * _swish(node.function)
        elif node.op == "mul" and node.squeeze:
            own[_AT["gated"]] += node.channels
    last = [n for n in graph.nodes if n.weighted][-1]
    own[_AT["depth"]] = depths[-1]
    own[_AT["features"]] = last.in_channels * last.in_px**2
    return own


def _flat(graph: NetworkGraph, index: int) -> bool:
    """Whether a depthwise convolution reads a map that no 1×1 widened, and a 1×1 without an
    activation reads what it gives: an MBConv of expansion 1."""
    nodes, node = graph.nodes, graph.nodes[index]
    if max(node.kernel) == 1 or node.groups != node.in_channels or node.inputs[0] < 0:
        return False
    before = nodes[node.inputs[0]]
    if before.op == "activation" and nodes[before.inputs[0]].kernel == (1, 1):
        return False
    readers = graph.users.get(index, [])
    while readers and nodes[readers[-1]].op in ("activation", "mul"):
        readers = graph.users.get(readers[-1], [])
    linear = [r for r in readers if nodes[r].op == "conv" and nodes[r].kernel == (1, 1)]
    return any(nodes[user].op != "activation" for r in linear for user in graph.users.get(r, []))


def features(raw: Floats, resolution_px: Floats) -> Floats:
    """Features in the order of `FEATURES`, (n, 13), of sums, (n, 17), and input sides, (n,).

    Logarithms are to base 2, of values over those of a network of middle size.
    """
    by_name = dict(zip(SUMS, np.maximum(raw, 0).T, strict=True))
    macs = np.maximum(by_name["macs"], 1)
    depthwise, spatial = by_name["depthwise channels"], np.maximum(by_name["channels"], 1)
    some = np.maximum(depthwise, 1)
    return np.column_stack(
        [
            np.log2(macs / 3e8),
            np.log2(np.maximum(by_name["params"], 1) / 4e6),
            np.log2(resolution_px / 224),
            np.log2(np.maximum(by_name["depth"], 1) / 18),
            np.where(depthwise > 0, (by_name["depthwise kernels"] / some - 3) / 2, 0.0),
            by_name["swish"] / np.maximum(by_name["activated"], 1),
            np.minimum(by_name["gated"] / np.where(depthwise > 0, some, spatial), 1.0),
            by_name["flat"] / np.maximum(by_name["depth"], 1),
            by_name["activated"] / np.maximum(by_name["convolved"], 1),
            np.log2(np.maximum(by_name["features"], 1) / 1280),
            *(by_name[f"{kind} macs"] / macs for kind in ("depthwise", "dense", "grouped")),
        ]
    )


def refused_share(raw: Floats) -> Floats:
    """Share of the layers that an identity fits and that have another skip, or none, (n,)."""
    fits, refused = raw[..., _AT["fits"]], raw[..., _AT["refused"]]
    return np.asarray(refused / np.maximum(fits, 1), np.float64)
