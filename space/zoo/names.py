"""Names of the zoo: ours, timm's and torchvision's, with their settings behind them."""

from __future__ import annotations

import re
from dataclasses import replace

from ..architecture import Architecture
from ..errors import InvalidArgument, UnknownName, nearest
from ..graph import NetworkGraph
from .blocks import BLOCKS, block_network
from .of_blocks import block_graph
from .registry import GRAPHS, built_graph

__all__ = ["find", "find_graph", "graph", "graph_names", "named", "names", "network", "parse"]

_FLOPS = {"002": "200mf", "004": "400mf", "006": "600mf", "008": "800mf", "016": "1.6gf"}
_V3 = "mobilenet-v3-"
# timm's families with a width in hundredths behind them → ours.
_WIDE = {
    "mnasnet": "mnasnet-b1",
    "semnasnet": "mnasnet-a1",
    "mobilenetv1": "mobilenet-v1",
    "mobilenetv2": "mobilenet-v2",
    "mobilenetv3-large": f"{_V3}large",
    "mobilenetv3-small": f"{_V3}small",
    "mobilenetv3-large-minimal": f"{_V3}large-minimalistic",
    "mobilenetv3-small-minimal": f"{_V3}small-minimalistic",
    "spnasnet": "single-path-nas",
    "fbnetc": "fbnet-c",
    "mobilenetv4-conv-small": "mobilenet-v4-conv-small",
    "ghostnet": "ghostnet",
}
_TIMM_NAME = re.compile(r"([a-z0-9-]+)-([0-9]{3})")
# Other names of timm and torchvision → our texts, all with - for _.
_ALIASES: dict[str, str] = {
    **{f"mnasnet{a}-{b}": f"mnasnet-b1 width{a}.{b}" for a, b in ("05", "13")},
    "mnasnet0-75": "mnasnet-b1 width0.75",
    "mnasnet1-0": "mnasnet-b1",
    **{f"efficientnet-e{s}": f"efficientnet-edge-{s}" for s in "sml"},
    **{f"resnet{n}": f"resnet-{n}" for n in ("10", "12", "14", "16", "18", "34", "50")},
    **{f"densenet{n}": f"densenet-{n}" for n in (121, 169)},
    **{f"regnet{k}-{n}": f"regnet-{k}-{size}" for k in "xy" for n, size in _FLOPS.items()},
    **{f"regnet-{k}-1-6gf": f"regnet-{k}-1.6gf" for k in "xy"},
    "regnety-008": "regnet-y-800mf-paper",
    **{f"squeezenet1-{n}": f"squeezenet-1.{n}" for n in (0, 1)},
    **{f"shufflenet-v2-x{n}-{m}": f"shufflenet-v2-x{n}.{m}" for n, m in ("05", "15")},
    "shufflenet-v2-x1-0": "shufflenet-v2",
    "shufflenet-v2-x2-0": "shufflenet-v2-x2",
    "mobilenetv4-conv-small": "mobilenet-v4-conv-small",
    "mobilenetv4-conv-medium": "mobilenet-v4-conv-medium",
    "hrnet-w18-small": "hrnet-w18-small-v1",
    "dla46-c": "dla-46-c",
    "wide-resnet50-2": "wide-resnet-50-2",
    "resnext50-32x4d": "resnext-50",
    "nasnetamobile": "nasnet-a-mobile",
}
_SETTING = re.compile(r"(width|res|classes)([0-9]{1,6}(?:\.[0-9]{1,20})?)")
# A block has its tokens joined by underscores; a name misspelt with one has none of them.
_BLOCK = re.compile(r"_[kiosre]\d|_conv")


def _resolved(word: str) -> str:
    """The text that a name stands for; the word itself where it is none.

    Case, and - or _, make no difference; `.ra_in1k`, as timm names weights, is cut off.
    """
    plain = word.lower().replace("_", "-")
    for key in (plain, plain.removeprefix("tf-"), plain.split(".")[0].removeprefix("tf-")):
        if key in BLOCKS or key in GRAPHS:
            return key
        if key in _ALIASES:
            return _ALIASES[key]
        match = _TIMM_NAME.fullmatch(key)
        if match and match[1] in _WIDE:
            width = int(match[2]) / 100
            if width < 0.75 and _WIDE[match[1]].startswith(_V3):
                continue  # timm's have another stem
            return _WIDE[match[1]] + (f" width{width:g}" if width != 1 else "")
    return word


def names() -> list[str]:
    """Every network of blocks of the zoo."""
    return sorted(BLOCKS)


def graph_names() -> list[str]:
    """Every network of the zoo that is not of blocks."""
    return sorted(GRAPHS)


def named(
    text: str, width: float = 1.0, resolution: int | None = None
) -> Architecture | NetworkGraph | None:
    """The network that a text names: a name, and `width0.75`, `res192`, `classes10` behind it.

    `width` multiplies the text's own, `resolution` replaces it.

    Returns:
        None where the text does not begin with the name of a network.
    Raises:
        InvalidArgument: A width, resolution or number of classes that it does not have, or a word
            that is no setting; it is named.
    """
    first, *more = text.split() or [""]
    name, *words = [*_resolved(first).split(), *more]
    if name not in BLOCKS and name not in GRAPHS:
        return None
    given: dict[str, str] = {}
    for word in words:
        setting = _SETTING.fullmatch(word)
        if setting is None or setting[1] in given or (setting[1] != "width" and "." in word):
            raise InvalidArgument(
                f"{text[:80]!r}: {word[:40]!r} is not a setting, as width0.75, res192 and "
                "classes10 are, each once"
            )
        given[setting[1]] = setting[2]
    width *= float(given.get("width", 1))
    px = resolution if resolution is not None else int(given["res"]) if "res" in given else None
    classes = int(given.get("classes", 1000))
    if name in GRAPHS:
        return built_graph(name, width, px, classes)
    if classes < 1:
        raise InvalidArgument(f"a classifier has 1 class or more, got {classes}")
    found = block_network(name, width, px)
    return found if classes == found.classes else found.with_classes(classes)


def _unknown(name: str) -> UnknownName:
    return UnknownName(
        f"no network is called {name[:80]!r}. "
        + nearest(name[:80], [*BLOCKS, *GRAPHS], "docs/networks.md")
    )


def network(name: str, width: float = 1.0, resolution: int | None = None) -> Architecture:
    """A published network of blocks.

    Args:
        name: As `names` lists it, or as timm has it (`mobilenetv2_140`).
        width: Width multiplier in (0, 10].
        resolution: Side of the input in pixels; None for the network's own.
    Raises:
        UnknownName: No such network; the message offers the nearest.
        InvalidArgument: A width or resolution out of range, or a network that is a graph.

    >>> network("mnasnet-a1").params
    3887038
    """
    found = named(name, width, resolution)
    if found is None:
        raise _unknown(name)
    if not isinstance(found, Architecture):
        raise InvalidArgument(f"{found.name} is not of blocks; zoo.graph gives it")
    return found


def graph(
    name: str, width: float = 1.0, resolution: int | None = None, classes: int = 1000
) -> NetworkGraph:
    """A network of the zoo as a graph; one of blocks as the graph that computes the same.

    Args:
        name: As `graph_names` or `names` lists it.
        width: Width multiplier in (0, 10]; other than 1 where the family has widths.
        resolution: Side of the input in pixels; None for the network's own.
        classes: Outputs of the classifier, 2 to 100,000.
    Raises:
        UnknownName: No such network; the message offers the nearest.
        InvalidArgument: A width, resolution or number of classes that it does not have.

    >>> graph("resnet-50").params
    25557032
    """
    if name in GRAPHS:
        return built_graph(name, width, resolution, classes)
    found = named(name, width, resolution)
    if found is None:
        raise _unknown(name)
    if isinstance(found, NetworkGraph):
        return found if classes == found.classes else found.with_classes(classes)
    built = block_graph(replace(found, classes=classes))
    px = BLOCKS[name].resolution_px if name in BLOCKS else found.resolution_px
    return replace(built, name=name, width=float(width), default_px=px)


def find_graph(text: str, width: float = 1.0, resolution: int | None = None) -> NetworkGraph | None:
    """`named`, where it is a graph; None for networks of blocks, too."""
    found = named(text, width, resolution)
    return found if isinstance(found, NetworkGraph) else None


def find(text: str, width: float = 1.0, resolution: int | None = None) -> Architecture:
    """A zoo name, with its settings, or a block string.

    `resolution` replaces the text's own where it is given.

    Raises:
        UnknownName, InvalidArchitecture, InvalidArgument: As `network` and `Architecture.parse`.
    """
    if named(text, width, resolution) is not None:
        return network(text, width, resolution)
    first, *more = text.split() or [""]
    lone = not re.search(r"[,·;]", text) and all(_SETTING.fullmatch(word) for word in more)
    if lone and not _BLOCK.search(text):
        raise _unknown(first)
    architecture = Architecture.parse(text).scaled(width)
    return architecture if resolution is None else architecture.with_resolution(resolution)


def parse(text: str) -> Architecture | NetworkGraph:
    """The network whose text `str` gives, or that a name of the zoo gives.

    Raises:
        UnknownName, InvalidArchitecture, InvalidArgument: As `graph` and `Architecture.parse`.
    """
    found = named(text)
    return Architecture.parse(text) if found is None else found
