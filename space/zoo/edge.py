"""The networks of the edge benchmark's tables (Qed-usc, EdgeSys 2024) by their names there.

The names are pytorchcv's. Widths are written `w1`, `w3d4` (three quarters), `wd2` (a half).
"""

from __future__ import annotations

from functools import lru_cache

from ..architecture import Architecture
from ..errors import UnknownName, nearest
from ..graph import NetworkGraph
from .names import named

__all__ = ["edge_family", "edge_names", "edge_network"]

_WIDTHS = {"w1": 1.0, "w3d4": 0.75, "wd2": 0.5, "wd4": 0.25, "w5d4": 1.25, "w7d20": 0.35}


def _mobilenet_v2(width: float) -> Architecture:
    """pytorchcv's widths: cut to whole channels, the head as it was."""
    text = " ".join(
        f"r{r}_k3_s{s}{s}_e{e}_i{int(i * width)}_o{int(o * width)}"
        for r, s, e, i, o in (
            (1, 1, 1, 32, 16),
            (2, 2, 6, 16, 24),
            (3, 2, 6, 24, 32),
            (4, 2, 6, 32, 64),
            (3, 1, 6, 64, 96),
            (3, 2, 6, 96, 160),
            (1, 1, 6, 160, 320),
        )
    )
    return Architecture.parse(text)


# Name there → how it is built: a name of the zoo, or a width.
_BLOCKS: dict[str, str | float] = {
    "mnasnet_a1": "mnasnet-a1",
    "mnasnet_b1": "mnasnet-b1",
    "mobilenetv2b_w1": 1.0,
    "mobilenetv2b_w3d4": 0.75,
    "mobilenetv2b_wd2": 0.5,
    "mobilenetv2b_wd4": 0.25,
    "spnasnet": "single-path-nas",
    "proxylessnas_mobile": "proxylessnas-mobile",
    "proxylessnas_mobile14": "proxylessnas-mobile-1.4",
    "proxylessnas_cpu": "proxylessnas-cpu",
    "proxylessnas_gpu": "proxylessnas-gpu",
}


# Name there, name here, widths, family.
_SCALED = (
    ("mobilenet", "mobilenet-v1", "w1 w3d4 wd2 wd4", "mobilenet"),
    ("mobilenetb", "mobilenet-v1b", "w1 w3d4 wd2 wd4", "mobilenet"),
    ("fdmobilenet", "fd-mobilenet", "w1 w3d4 wd2 wd4", "mobilenet"),
    ("mobilenetv2", "mobilenet-v2-plain", "w1 w3d4 wd2 wd4", "mobilenetv2"),
    ("mobilenetv3_large", "mobilenet-v3-large-1280", "w1 w3d4 wd2 w5d4 w7d20", "mobilenetv3"),
    ("mobilenetv3_small", "mobilenet-v3-small-1280", "w1 w3d4 wd2 w5d4 w7d20", "mobilenetv3"),
    ("resnet18", "resnet-18", "w3d4 wd2 wd4", "resnet"),
    ("preresnet18", "preresnet-18", "w3d4 wd2 wd4", "preresnet"),
)
_UNITS = ("10", "12", "14", "16", "18")
_REGNETS = {"002": "200mf", "004": "400mf", "006": "600mf", "008": "800mf", "016": "1.6gf"}
# Name there → name here, family.
_NAMED: dict[str, tuple[str, str]] = {
    "efficientnet_edge_small_b": ("efficientnet-edge-s", "efficientnet_edge"),
    "efficientnet_edge_medium_b": ("efficientnet-edge-m", "efficientnet_edge"),
    "efficientnet_edge_large_b": ("efficientnet-edge-l", "efficientnet_edge"),
    "ghostnet": ("ghostnet-plain", "ghostnet"),
    "fbnet_cb": ("fbnet-c", "proxyless"),
    "bagnet9": ("bagnet-9", "bagnet"),
    "bninception": ("bn-inception", "inception"),
    "densenet121": ("densenet-121", "densenet"),
    "densenet169": ("densenet-169", "densenet"),
    "diracnet18v2": ("diracnet-18-v2", "diracnet"),
    "dla46c": ("dla-46-c", "dla"),
    "hardnet39ds": ("hardnet-39-ds", "hardnet"),
    "hardnet68ds": ("hardnet-68-ds", "hardnet"),
    "hrnet_w18_small_v1": ("hrnet-w18-small-v1", "hrnet"),
    "hrnet_w18_small_v2": ("hrnet-w18-small-v2", "hrnet"),
    "peleenet": ("peleenet", "peleenet"),
    "squeezenet_v1_0": ("squeezenet-1.0", "squeezenet"),
    "squeezenet_v1_1": ("squeezenet-1.1", "squeezenet"),
    "squeezeresnet_v1_0": ("squeezenet-residual-1.0", "squeezenet"),
    "squeezeresnet_v1_1": ("squeezenet-residual-1.1", "squeezenet"),
    "vovnet27s": ("vovnet-27-slim", "vovnet"),
    **{f"resnet{n}": (f"resnet-{n}", "resnet") for n in _UNITS},
    **{f"preresnet{n}": (f"preresnet-{n}", "preresnet") for n in _UNITS},
    **{f"seresnet{n}": (f"se-resnet-{n}", "resnet") for n in _UNITS},
    **{f"sepreresnet{n}": (f"se-preresnet-{n}", "preresnet") for n in _UNITS},
    **{f"resnetbc{n}b": (f"resnet-{n}-bc", "resnet") for n in ("14", "26")},
    **{f"preresnetbc{n}b": (f"preresnet-{n}-bc", "preresnet") for n in ("14", "26")},
    **{
        f"resnext{n}_{c}x4d": (f"resnext-{n}-{c}x4d", "resnext")
        for n in ("14", "26")
        for c in (16, 32)
    },
    **{f"regnetx{n}": (f"regnet-x-{size}", "regnet") for n, size in _REGNETS.items()},
    **{f"regnety{n}": (f"regnet-y-{size}", "regnet") for n, size in _REGNETS.items()},
    "regnety008": ("regnet-y-800mf-paper", "regnet"),
}
_FAMILIES_OF_BLOCKS = {"mnasnet": "mnasnet", "mobilenetv2b": "mobilenetv2"}


def _of_graphs() -> dict[str, tuple[str, float, str]]:
    """Name there → name here, width, family."""
    known = {there: (here, 1.0, family) for there, (here, family) in _NAMED.items()}
    for there, here, widths, family in _SCALED:
        known |= {f"{there}_{w}": (here, _WIDTHS[w], family) for w in widths.split()}
    return known


_GRAPHS = _of_graphs()


def edge_names() -> list[str]:
    """Names of the benchmark's networks that are known, in alphabetic order."""
    return sorted({*_GRAPHS, *_BLOCKS})


@lru_cache(maxsize=256)
def edge_network(name: str) -> Architecture | NetworkGraph:
    """A network of the benchmark, at 224 px and with 1,000 classes as it was measured.

    Raises:
        UnknownName: No network of that name is known.
    """
    if name in _BLOCKS:
        built = _BLOCKS[name]
        if not isinstance(built, str):
            return _mobilenet_v2(built)
        network = named(built)
        assert network is not None
        return network
    if name not in _GRAPHS:
        raise UnknownName(
            f"the edge benchmark's {name!r} is not known here. {nearest(name, edge_names())}"
        )
    here, width, _ = _GRAPHS[name]
    network = named(here, width, 224)
    assert network is not None
    return network


def edge_family(name: str) -> str:
    """The family of a network of the benchmark, as it is left out of a fit to examine it.

    Raises:
        UnknownName: As `edge_network`.
    """
    edge_network(name)
    if name in _GRAPHS:
        return _GRAPHS[name][2]
    return _FAMILIES_OF_BLOCKS.get(name.split("_")[0], "proxyless")
