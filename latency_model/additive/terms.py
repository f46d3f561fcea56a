"""What a kernel's time is made of: launches, multiply-adds and numbers moved, each of its kind.

A network is a sum of kernels, and a kernel a sum of a few terms, each with a rate of its own
(`process`). Rates of kernels that run the same code are one: all convolutions read and write maps
at one rate, whatever their window.

What a runtime folds into a kernel adds its own terms: an addition folded into a convolution still
reads a map. BatchNorm alone is a product and a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log2

import numpy as np
import numpy.typing as npt

from phonenas.space import Kernel

__all__ = ["LENGTHS", "SORTS", "TERMS", "shape_of", "sort_of", "terms"]

Floats = npt.NDArray[np.float64]

TERMS = (
    *(
        f"launch_{kind}"
        for kind in [
            "conv1",
            "convk",
            "dw",
            "group",
            "linear",
            "mean",
            "pool",
            "concat",
            "add",
            "mul",
            "act",
        ]
    ),
    "macs_conv1",
    "macs_conv3_s1",
    "macs_conv3_s2",
    "macs_conv_wide",
    "taps_conv",
    "in_conv",
    "out_conv",
    "weights_conv",
    "macs_dw3_s1",
    "macs_dw3_s2",
    "macs_dw_wide_s1",
    "macs_dw_wide_s2",
    "in_dw",
    "out_dw",
    "macs_group",
    "maps_group",
    "weights_linear",
    "in_mean",
    "macs_pool",
    "maps_concat",
    "maps_add",
    "maps_mul",
    "maps_act",
    "run",
)
_AT = {name: i for i, name in enumerate(TERMS)}
#: Kernels whose time deviates from its terms by their shape.
SORTS = ("conv1", "convk", "dw", "group", "linear")
#: Over which shapes are alike: logarithms (base 2) of channels in and out and of pixels, half the
#: window beyond 3, stride.
LENGTHS = (2.0, 2.0, 2.5, 1.5, 1.0)
_DIMENSIONS = {"dw": (0, 2, 3, 4), "linear": (0, 1)}
_ELEMENTWISE = {"add": "add", "mul": "mul"}
_CLAMPS = ("relu", "relu6", "none", "clip", "minimum")


def sort_of(kernel: Kernel) -> str:
    """Which terms it has: `SORTS`, or "mean", "pool", "concat", "add", "mul", "act"."""
    kind = kernel.kind
    if kind == "conv":
        if kernel.in_px == kernel.out_px == (1, 1):
            return "linear"
        if kernel.depthwise:
            return "dw"
        if kernel.groups > 1:
            return "group"
        return "conv1" if kernel.kernel == (1, 1) else "convk"
    named = {
        "linear": "linear",
        "global_pool": "mean",
        "max_pool": "pool",
        "average_pool": "pool",
        "add": "add",
        "mul": "mul",
        "batch_norm": "mul",
        "activation": "act",
    }
    return named.get(kind, "concat")


@lru_cache(maxsize=65536)
def _terms(kernel: Kernel) -> tuple[tuple[int, float], ...]:
    k, sort = kernel, sort_of(kernel)
    reads = k.in_channels * k.in_px[0] * k.in_px[1]
    found = {f"launch_{sort}": 1.0}
    window, stride = max(k.kernel), max(k.stride)
    if sort in ("conv1", "convk"):
        name = "conv1" if sort == "conv1" else "conv_wide"
        if sort == "convk" and window == 3:
            name = "conv3_s1" if stride == 1 else "conv3_s2"
        found |= {f"macs_{name}": k.macs, "in_conv": reads, "out_conv": k.writes}
        found["weights_conv"] = k.params
        if sort == "convk":
            found["taps_conv"] = k.writes * k.kernel[0] * k.kernel[1]
    elif sort == "dw":
        name = f"dw{'3' if window <= 3 else '_wide'}_s{1 if stride == 1 else 2}"
        found |= {f"macs_{name}": k.macs, "in_dw": reads, "out_dw": k.writes}
    elif sort == "group":
        found |= {"macs_group": k.macs, "maps_group": reads + k.writes}
    elif sort == "linear":
        found["weights_linear"] = k.params
    elif sort == "mean":
        found["in_mean"] = reads
    elif sort == "pool":
        found["macs_pool"] = k.writes * k.kernel[0] * k.kernel[1]
    else:
        found[f"maps_{sort}"] = k.writes
    if k.kind == "batch_norm":
        found |= {"launch_add": 1.0, "maps_add": k.writes}
    for name in () if k.kind in ("activation", "move") else k.fused:
        if name not in _CLAMPS:
            folded = _ELEMENTWISE.get(name, "act")
            for term, much in ((f"launch_{folded}", 1.0), (f"maps_{folded}", k.writes)):
                found[term] = found.get(term, 0.0) + much
    return tuple((_AT[name], float(much)) for name, much in found.items())


def terms(kernels: Sequence[Kernel]) -> Floats:
    """How much of each term each kernel has, (n, terms): launches, multiply-adds, numbers."""
    rows = np.zeros((len(kernels), len(TERMS)))
    for row, kernel in zip(rows, kernels, strict=True):
        for at, much in _terms(kernel):
            row[at] = much
    return rows


def shape_of(kernel: Kernel) -> tuple[float, ...]:
    """Where a kernel lies among those of its sort, in units of `LENGTHS`."""
    k = kernel
    full = (
        log2(k.in_channels),
        log2(k.out_channels),
        log2(k.out_px[0] * k.out_px[1]),
        (min(max(k.kernel), 7) - 3) / 2,
        min(max(k.stride), 2) - 1.0,
    )
    places = _DIMENSIONS.get(sort_of(k), range(len(full)))
    return tuple(full[i] / LENGTHS[i] for i in places)
