"""Published ImageNet figures of networks that the zoo can build: what the estimate is fitted on.

Rows of two public tables (timm's `results-imagenet.csv`, and a collection of papers' and model
collections' figures) and the zoo's own figures are joined by the network's name. Left out: what the
zoo cannot build, quantised networks, weights trained on more than ImageNet's 1.3 million images,
and evaluations at a larger side than the training's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phonenas.space import zoo
from phonenas.space.architecture import Architecture
from phonenas.space.errors import InvalidArgument
from phonenas.space.graph import NetworkGraph

__all__ = ["RECIPES", "TORCHVISION", "PublishedTop1", "read_published"]

#: How networks are trained; the first is the default.
RECIPES: dict[str, str] = {
    "paper": "350 epochs as in the MnasNet paper: RMSProp, averaged weights",
    "short": "90 to 120 epochs, crops and flips",
    "torchvision": "300 to 600 epochs, torchvision's first weights of mobile networks",
    "autoaugment": "350 epochs as in the paper, with AutoAugment",
    "strong": "300 to 600 epochs with RandAugment or mixup, averaged weights",
    "long": "500 to 3,600 epochs with strong augmentation",
}
_TAGS = {
    "autoaugment": "aa",
    "strong": "ra ra2 rmsp lamb ft in1k",
    "long": "ra4_e3600_r224 ra4_e3600_r240 e500_r224 e500_r256 e1200_r224 e2400_r224 e3600_r256 "
    "tv2 a1 a2",
    "short": "pycls tv ms gluon bt",
}
_RECIPE_OF = {tag: recipe for recipe, tags in _TAGS.items() for tag in tags.split()}
#: Name, recipe and top-1 in % of torchvision's first weights (IMAGENET1K_V1).
TORCHVISION = """
mnasnet-b1,torchvision,73.456  mnasnet-b1 width0.5,torchvision,67.734
mnasnet-b1 width0.75,torchvision,71.180  mnasnet-b1 width1.3,torchvision,76.506
mobilenet-v2,torchvision,71.878  mobilenet-v3-large,torchvision,74.042
mobilenet-v3-small,torchvision,67.668  shufflenet-v2-x0.5,torchvision,60.552
shufflenet-v2,torchvision,69.362  shufflenet-v2-x1.5,torchvision,72.996
shufflenet-v2-x2,torchvision,76.230  regnet-x-800mf,short,75.212  regnet-x-1.6gf,short,77.040
regnet-y-400mf,short,74.046  regnet-y-800mf,short,76.420  regnet-y-1.6gf,short,77.950
mnasnet-b1,paper,74.5  mnasnet-small,paper,66.0
"""
# Prefix of a network's name → its family; the first that fits. Others are not of the kind.
_FAMILIES = (
    ("mnasnet", "mnasnet"),
    ("mobilenet-v1", "mobilenet-v1"),
    ("mobilenet-v2", "mobilenet-v2"),
    ("mobilenet-v3", "mobilenet-v3"),
    ("mobilenet-v4", "mobilenet-v4"),
    ("efficientnet-b", "efficientnet"),
    ("efficientnet-lite", "efficientnet-lite"),
    ("efficientnet-edge", "efficientnet-edge"),
    ("proxylessnas", "proxylessnas"),
    ("single-path-nas", "single-path-nas"),
    ("fbnet-c", "fbnet-c"),
    ("mixnet-s", "mixnet"),
    ("ghostnet", "ghostnet"),
    ("shufflenet-v2", "shufflenet-v2"),
    ("regnet-x", "regnet-x"),
    ("regnet-y", "regnet-y"),
)
_NAMES = (  # of the collection of figures, as patterns, and the zoo's text
    (r"mnasnet_a1_([\d.]+)_(224)", "mnasnet-a1 width{0} res{1}"),
    (r"mnasnet_([\d.]+)_(\d+)", "mnasnet-b1 width{0} res{1}"),
    (r"mobilenet_v1_([\d.]+)_(\d+)", "mobilenet-v1 width{0} res{1}"),
    (r"mobilenet_v2_([\d.]+)_(\d+)", "mobilenet-v2 width{0} res{1}"),
    (r"mobilenet_v3_(large|small)_dm_([\d_]+)_float", "mobilenet-v3-{0} width{1}"),
    (r"mobilenet_v3_(large|small)_minimalistic_float", "mobilenet-v3-{0}-minimalistic"),
    (r"proxyless_(mobile|cpu|gpu)", "proxylessnas-{0}"),
    (r"efficientnet-lite(\d)", "efficientnet-lite{0}"),
    (r"spnasnet", "single-path-nas"),
)
# Prefix of timm's name → its family; and Google's weights that timm alone lists.
_TIMM = {
    **dict.fromkeys(("mnasnet", "semnasnet"), "mnasnet"),
    **{f"mobilenetv{n}": f"mobilenet-v{n}" for n in (1, 2, 3, 4)},
    "efficientnet_b": "efficientnet",
    "efficientnet_lite": "efficientnet-lite",
    "efficientnet_e": "efficientnet-edge",
    "spnasnet": "single-path-nas",
    "fbnetc": "fbnet-c",
    "mixnet_s": "mixnet",
    "ghostnet_": "ghostnet",
    "regnetx": "regnet-x",
    "regnety": "regnet-y",
}
_ONLY_TIMM = ("tf_efficientnet_b", "tf_efficientnet_e", "tf_mixnet")
_COLUMNS = (("model", "img_size", "top1"), ("model", "family", "top1"))


Network = Architecture | NetworkGraph


@dataclass(frozen=True)
class PublishedTop1:
    """A published figure: the network, its family, its recipe, top-1 in %."""

    network: Network
    family: str
    recipe: str
    top1: float


_Row = tuple[str, Network, str, float]  # family, network, recipe, top-1


def read_published(tables: Iterable[Path]) -> list[PublishedTop1]:
    """Every figure of the tables and of the zoo, each once.

    Args:
        tables: CSV files with `model`, `top1` (in %) and `img_size` (timm's) or `family`.
    Raises:
        InvalidArgument: A table has neither set of columns.
    """
    import pandas as pd

    rows: list[_Row] = []
    for path in tables:
        frame = pd.read_csv(path)
        kind = next((i for i, need in enumerate(_COLUMNS) if {*need} <= {*frame.columns}), None)
        if kind is None:
            raise InvalidArgument(
                f"{path} is neither timm's results-imagenet.csv ({', '.join(_COLUMNS[0])}) nor a "
                f"table of published networks ({', '.join(_COLUMNS[1])})"
            )
        rows += (_of_timm, _of_papers)[kind](
            {str(name): value for name, value in row.items()} for row in frame.to_dict("records")
        )
    for text in re.split(r"\s{2,}|\n", TORCHVISION.strip()):
        name, recipe, top1 = text.split(",")
        rows.append((*_known(name), recipe, float(top1)))
    return list(
        {
            (str(network), recipe, top1): PublishedTop1(network, family, recipe, top1)
            for family, network, recipe, top1 in rows
        }.values()
    )


def _family(name: str) -> str | None:
    return next((f for prefix, f in _FAMILIES if name.startswith(prefix)), None)


def _known(text: str) -> tuple[str, Network]:
    """Family and network of a text of the zoo."""
    family, network = _family(text), zoo.named(text)
    assert family is not None and network is not None, text
    return family, network


def _of_papers(rows: Iterable[Mapping[str, Any]]) -> list[_Row]:
    best: dict[str, float] = {}
    for row in rows:
        for pattern, text in _NAMES:
            match = re.fullmatch(pattern, str(row["model"]))
            if match and row["top1"] == row["top1"] and row.get("precision") != "int8":
                groups = [g.replace("_", ".") for g in match.groups()]
                # One network stands there for each phone; of two figures the first is the float's.
                best.setdefault(text.format(*groups), float(row["top1"]))
                break
    return [(*_known(text), "paper", top1) for text, top1 in best.items()]


def _of_timm(rows: Iterable[Mapping[str, Any]]) -> list[_Row]:
    smallest: dict[str, tuple[int, float]] = {}
    for row in rows:
        name, px = str(row["model"]), int(row["img_size"])
        # A side above that of the training gives points more, at the cost of a larger image.
        if name not in smallest or px < smallest[name][0]:
            smallest[name] = px, float(row["top1"])
    named: list[_Row] = []
    for name, (px, top1) in smallest.items():
        base, _, tag = name.partition(".")
        tag = tag.removesuffix("_in1k")
        google = base.startswith("tf_")
        recipe = _RECIPE_OF.get(tag)
        if google and tag == "in1k":
            # Others of Google's weights are in the papers' figures, too.
            recipe = "paper" if base.startswith(_ONLY_TIMM) else None
        if recipe is not None and (network := _timm_network(base.removeprefix("tf_"), px)):
            named.append((*network, recipe, top1))
    return named


def _timm_network(name: str, px: int) -> tuple[str, Network] | None:
    """Family and network of timm's name; None for one that the zoo does not build."""
    family = next((f for prefix, f in _TIMM.items() if name.startswith(prefix)), None)
    network = None if family is None else zoo.named(name, 1.0, px)
    return None if family is None or network is None else (family, network)
