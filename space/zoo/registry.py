"""Every graph of the zoo by its name, with its builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ..errors import InvalidArgument
from ..graph import NetworkGraph
from . import cells, joined, mobile, residual
from .graph_builder import GraphBuilder

__all__ = ["GRAPHS", "Listed", "built_graph"]


@dataclass(frozen=True)
class Listed:
    """A network of the zoo.

    Args:
        build: Fills a builder; called with (builder, width, classes).
        resolution_px: Side of its input where nothing else is asked for.
        wide: Whether the family has width multipliers.
    """

    build: Callable[[GraphBuilder, float, int], None]
    resolution_px: int = 224
    wide: bool = False


def _of(build: Callable[..., None], *, px: int = 224, wide: bool = False, **fixed: Any) -> Listed:
    return Listed(partial(build, **fixed) if fixed else build, px, wide)


_BLOCKS, _BOTTLENECKS = residual.LAYERS, residual.LAYERS_OF_BOTTLENECKS
_RESIDUAL = {
    **{f"resnet-{n}": _of(residual.resnet, wide=True, layers=k) for n, k in _BLOCKS.items()},
    "resnet-50": _of(residual.resnet, layers=_BOTTLENECKS["50"], bottleneck=True),
    **{
        f"resnet-{n}-bc": _of(residual.resnet, layers=k, bottleneck=True)
        for n, k in _BOTTLENECKS.items()
        if n != "50"
    },
    **{
        f"resnext-{n}-{c}x4d": _of(
            residual.resnet, layers=_BOTTLENECKS[n], bottleneck=True, groups=c, inner=c / 16
        )
        for n in ("14", "26")
        for c in (16, 32)
    },
    **{f"se-resnet-{n}": _of(residual.resnet, layers=k, gated=True) for n, k in _BLOCKS.items()},
    **{f"preresnet-{n}": _of(residual.preresnet, wide=True, layers=k) for n, k in _BLOCKS.items()},
    **{
        f"preresnet-{n}-bc": _of(residual.preresnet, layers=k, bottleneck=True)
        for n, k in _BOTTLENECKS.items()
    },
    **{
        f"se-preresnet-{n}": _of(residual.preresnet, layers=k, gated=True)
        for n, k in _BLOCKS.items()
    },
}
# First width, slope, quantisation, depth, channels a group (Radosavovic et al., 2020, appendix).
_X: dict[str, tuple[int, float, float, int, int]] = {
    "200mf": (24, 36.44, 2.49, 13, 8),
    "400mf": (24, 24.48, 2.54, 22, 16),
    "600mf": (48, 36.97, 2.24, 16, 24),
    "800mf": (56, 35.73, 2.28, 16, 16),
    "1.6gf": (80, 34.01, 2.25, 18, 24),
}
_Y: dict[str, tuple[int, float, float, int, int]] = {
    "200mf": (24, 36.44, 2.49, 13, 8),
    "400mf": (48, 27.89, 2.09, 16, 8),
    "600mf": (48, 32.54, 2.32, 15, 16),
    "800mf": (56, 38.84, 2.4, 14, 16),
    "1.6gf": (48, 20.71, 2.65, 27, 24),
}
_REGNETS = {
    **{f"regnet-x-{size}": _of(residual.regnet, shape=s) for size, s in _X.items()},
    **{f"regnet-y-{size}": _of(residual.regnet, shape=s, gated=True) for size, s in _Y.items()},
    # torchvision rounds the widths of this one otherwise; timm's is the paper's.
    "regnet-y-800mf": _of(residual.regnet, shape=_Y["800mf"], gated=True, divisible=True),
    "regnet-y-800mf-paper": _of(residual.regnet, shape=_Y["800mf"], gated=True),
}

GRAPHS: dict[str, Listed] = {
    "mobilenet-v1": _of(mobile.mobilenet_v1, wide=True),
    "fd-mobilenet": _of(mobile.mobilenet_v1, wide=True, fast=True),
    "mobilenet-v1b": _of(mobile.mobilenet_v1, wide=True, bare=True),
    "mobilenet-v2-plain": _of(mobile.mobilenet_v2_plain, wide=True),
    "ghostnet": _of(mobile.ghostnet, wide=True),
    "ghostnet-plain": _of(mobile.ghostnet, wide=True, edge=True),
    "mixnet-s": _of(mobile.mixnet_s),
    **{
        name: _of(mobile.shufflenet_v2, channels=channels)
        for name, channels in (
            ("shufflenet-v2-x0.5", (48, 96, 192, 1024)),
            ("shufflenet-v2", (116, 232, 464, 1024)),
            ("shufflenet-v2-x1.5", (176, 352, 704, 1024)),
            ("shufflenet-v2-x2", (244, 488, 976, 2048)),
        )
    },
    "squeezenet-1.0": _of(joined.squeezenet),
    "squeezenet-1.1": _of(joined.squeezenet, version="1.1"),
    "squeezenet-residual-1.0": _of(joined.squeezenet, skips=True),
    "squeezenet-residual-1.1": _of(joined.squeezenet, version="1.1", skips=True),
    "alexnet": _of(joined.alexnet),
    "googlenet": _of(joined.googlenet),
    "bn-inception": _of(joined.bn_inception),
    "inception-v3": _of(joined.inception_v3, px=299),
    "densenet-121": _of(joined.densenet, layers=(6, 12, 24, 16)),
    "densenet-169": _of(joined.densenet, layers=(6, 12, 32, 32)),
    "peleenet": _of(joined.peleenet),
    "condensenet-74": _of(joined.condensenet74),
    "nasnet-a-mobile": _of(cells.nasnet_mobile),
    "amoebanet-a-mobile": _of(cells.amoebanet_mobile),
    "hardnet-39-ds": _of(
        joined.hardnet, first=48, stages="4,16,96,1 16,20,320,1 8,64,640,1 4,160,1024,0", growth=1.6
    ),
    "hardnet-68-ds": _of(
        joined.hardnet,
        first=64,
        stages="8,14,128,1 16,16,256,0 16,20,320,1 16,40,640,1 4,160,1024,0",
        growth=1.7,
    ),
    "vovnet-27-slim": _of(joined.vovnet27_slim),
    "dla-46-c": _of(joined.dla46c),
    "hrnet-w18-small-v1": _of(joined.hrnet, first=128, units=1, base=16, modules="1 1 1"),
    "hrnet-w18-small-v2": _of(joined.hrnet, first=256, units=2, base=18, modules="1 3 2"),
    "diracnet-18-v2": _of(residual.diracnet18),
    "bagnet-9": _of(residual.bagnet9),
    "wide-resnet-50-2": _of(residual.resnet, layers=(3, 4, 6, 3), bottleneck=True, inner=2.0),
    "resnext-50": _of(residual.resnet, layers=(3, 4, 6, 3), bottleneck=True, groups=32, inner=2.0),
    **_RESIDUAL,
    **_REGNETS,
}
_MOST_CLASSES, _MOST_PARAMS = 100_000, 10**9


@lru_cache(maxsize=256)
def built_graph(
    name: str, width: float = 1.0, resolution: int | None = None, classes: int = 1000
) -> NetworkGraph:
    """A network of `GRAPHS` by its name there.

    Raises:
        InvalidArgument: A width, resolution or number of classes that it does not have.
    """
    entry = GRAPHS[name]
    if not 0 < width <= 10 or (width != 1 and not entry.wide):
        has = "takes width multipliers in (0, 10]" if entry.wide else "has no width multipliers"
        raise InvalidArgument(f"{name} {has}, got {width:g}")
    if not 2 <= classes <= _MOST_CLASSES:
        raise InvalidArgument(f"a classifier has 2 to {_MOST_CLASSES:,} classes, got {classes}")
    builder = GraphBuilder(entry.resolution_px if resolution is None else resolution)
    entry.build(builder, width, classes)
    built = builder.built(name, width=float(width), classes=classes, default_px=entry.resolution_px)
    if built.params > _MOST_PARAMS:
        raise InvalidArgument(
            f"{built} would have {built.params:.2g} parameters, and {_MOST_PARAMS:.0e} is the limit"
        )
    return built
