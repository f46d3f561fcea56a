"""Networks of the zoo that are graphs: their published counts, and the edge benchmark's tables."""

from __future__ import annotations

import ast
import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from phonenas.space import Architecture, zoo
from phonenas.space.errors import InvalidArgument, UnknownName

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
published = pytest.mark.skipif(not SHARED.is_dir(), reason="no published tables beside the project")

# Parameters to the unit: torchvision's metadata where it has the network (the first block), timm's
# files for the others of MobileNet, pytorchcv's models for the rest.
PARAMS = {
    "alexnet": 61_100_840,
    "densenet-121": 7_978_856,
    "densenet-169": 14_149_480,
    "googlenet": 6_624_904,
    "regnet-y-400mf": 4_344_144,
    "regnet-y-1.6gf": 11_202_430,
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnext-50": 25_028_904,
    "squeezenet-1.0": 1_248_424,
    "squeezenet-1.1": 1_235_496,
    "wide-resnet-50-2": 68_883_240,
    "regnet-y-800mf": 6_432_512,
    "shufflenet-v2": 2_278_604,
    "shufflenet-v2-x0.5": 1_366_792,
    "shufflenet-v2-x1.5": 3_503_624,
    "shufflenet-v2-x2": 7_393_996,
    "inception-v3": 23_834_568,
    "mobilenet-v1": 4_231_976,
    "ghostnet": 5_182_508,
    "ghostnet width0.5": 2_587_292,
    "ghostnet width1.3": 7_358_820,
    "mixnet-s": 4_134_606,
    "regnet-x-200mf": 2_684_792,
    "regnet-x-1.6gf": 9_190_136,
    "regnet-y-200mf": 3_162_996,
    "regnet-y-600mf": 6_055_160,
    "regnet-y-800mf-paper": 6_263_168,
    "condensenet-74": 4_773_944,
    "nasnet-a-mobile": 5_289_978,
    "peleenet": 2_802_248,
    "vovnet-27-slim": 3_525_736,
    "hardnet-39-ds": 3_488_228,
    "hardnet-68-ds": 4_180_602,
    "diracnet-18-v2": 11_511_784,
    "dla-46-c": 1_301_400,
    "bn-inception": 11_295_240,
    "hrnet-w18-small-v1": 13_187_464,
    "hrnet-w18-small-v2": 15_597_464,
}


@pytest.mark.parametrize("name", sorted(PARAMS))
def test_parameters_are_the_published_ones(name: str) -> None:
    found = zoo.parse(name)
    assert found.params == PARAMS[name]


def test_published_figures() -> None:
    a1 = zoo.published("mnasnet-a1")
    assert a1 is not None and (a1.top1, a1.top5, a1.pixel1_ms) == (75.2, 92.5, 78.0)
    resnet = zoo.published("resnet-50")
    assert resnet is not None and (resnet.top1, resnet.pixel1_ms) == (76.13, None)
    assert resnet.source == "torchvision, weights IMAGENET1K_V1"
    assert zoo.published("resnet-50 res96") is None and zoo.published("") is None
    known = [n for n in (*zoo.names(), *zoo.graph_names()) if zoo.published(n)]
    assert len(known) == 62
    assert all(50 < zoo.published(n).top1 < 85 for n in known)


@published
def test_figures_of_timm_are_those_of_its_table() -> None:
    for name in zoo.graph_names():
        figures = zoo.published(name)
        if figures is not None and figures.source.startswith("timm"):
            found = [
                (float(r["top1"]), float(r["top5"]))
                for r in rows("timm_imagenet.csv")
                if r["model"] == figures.source.split(", ")[-1]
            ]
            assert (figures.top1, figures.top5) in found, name


def test_multiply_adds() -> None:
    """Convolutions and classifiers, gates left out (pytorchcv's hooks, a gate's subtracted)."""
    assert zoo.graph("mobilenet-v1").macs == 568_740_352
    assert zoo.graph("resnet-18").macs == 1_814_073_344
    assert zoo.graph("densenet-121").macs == 2_834_161_664
    assert zoo.graph("squeezenet-1.1").macs == 349_151_936
    assert zoo.graph("mobilenet-v1", 0.5).macs == 149_497_088
    assert zoo.graph("mobilenet-v1", resolution=192).macs < 568_740_352 * (192 / 224) ** 2 * 1.01


def test_amoebanet_has_the_counts_of_its_paper() -> None:
    """5.1 M parameters, 555 M multiply-adds (Real et al., 2019, table 2)."""
    network = zoo.graph("amoebanet-a-mobile")
    assert f"{network.params / 1e6:.1f}" == "5.1"
    assert network.macs == pytest.approx(555e6, rel=0.005)


def test_a_text_names_a_graph_with_its_settings() -> None:
    graph = zoo.graph("ghostnet", 0.75, 192, 10)
    assert str(graph) == "ghostnet width0.75 res192 classes10"
    assert zoo.parse(str(graph)) == graph
    assert str(zoo.graph("mobilenet-v1", np.float64(0.5))) == "mobilenet-v1 width0.5"
    assert str(zoo.graph("inception-v3")) == "inception-v3"
    assert zoo.graph("inception-v3").resolution_px == 299
    assert zoo.parse("inception-v3 res299") == zoo.graph("inception-v3")
    assert isinstance(zoo.parse("r1_k3_s11_e1_i32_o16"), Architecture)
    for name in zoo.graph_names():
        assert zoo.parse(name) == zoo.graph(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("resnet-50 width0.5", "resnet-50 has no width multipliers, got 0.5"),
        ("mobilenet-v1 width11", "takes width multipliers in"),
        ("mobilenet-v1 width0", "takes width multipliers in"),
        ("mobilenet-v1 res0", "0 px cannot be taken"),
        ("mobilenet-v1 res9999", "9999 px cannot be taken"),
        ("inception-v3 res32", "32 px cannot be taken"),
        ("mobilenet-v1 width0.01", "this width leaves a layer without channels"),
        ("resnet-34 width9", "parameters, and 1e[+]09 is the limit"),
        ("hrnet-w18-small-v1 res33", "Does a resolution of 33 px suit"),
        ("mobilenet-v1 classes1", "2 to 100,000 classes"),
        ("mobilenet-v1 res96 res96", "'res96' is not a setting"),
        ("mobilenet-v1 wide", "'wide' is not a setting"),
    ],
)
def test_settings_that_are_none(text: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        zoo.parse(text)


@pytest.mark.parametrize("name", ["resnet-18", "squeezenet-1.1", "ghostnet"])
def test_another_number_of_classes(name: str) -> None:
    assert zoo.graph(name).with_classes(10) == zoo.graph(name, classes=10)


def test_an_unknown_graph_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"'resnet-51'.*Did you mean 'resnet-50'"):
        zoo.graph("resnet-51")


# -- the edge benchmark ---------------------------------------------------------------------------


def rows(file: str) -> list[dict[str, str]]:
    with (SHARED / file).open(newline="") as lines:
        return list(csv.DictReader(lines))


@published
@pytest.mark.parametrize(("runtime", "count"), [("tflite", 102), ("torch", 100)])
def test_every_network_of_the_edge_benchmark_is_known(runtime: str, count: int) -> None:
    names = [r["model"] for r in rows(f"edge_{runtime}_cnn_e2e.csv")]
    assert len(names) == count and set(names) <= set(zoo.edge_names())


def weighted(name: str) -> Counter[tuple[object, ...]]:
    """What a network multiplies with weights: kind, channels, kernel, side of the output."""
    found: Counter[tuple[object, ...]] = Counter()
    for k in zoo.kernels(zoo.edge_network(name)):
        if k.kind in ("conv", "linear"):
            kind = "depthwise" if k.depthwise else "grouped" if k.groups > 1 else "plain"
            found[kind, k.in_channels, k.out_channels, k.kernel[0], k.out_px[0]] += 1
    return found


@published
def test_each_operation_of_the_tflite_files_is_there() -> None:
    """1×1 pixel convolutions and products with a matrix are one here."""
    kinds = {
        "CONV_2D": "plain",
        "FULLY_CONNECTED": "plain",
        "CONV_2D_GROUP": "grouped",
        "DEPTHWISE_CONV_2D": "depthwise",
    }
    theirs: dict[str, Counter[tuple[object, ...]]] = {}
    for row in rows("edge_tflite_cnn_ops_gpu.csv"):
        kind = kinds.get(row["operation"])
        if kind is None:
            continue
        feature = ast.literal_eval(row["feature"])
        inside = feature["Input_channel"]
        out = inside if kind == "depthwise" else int(feature["Filter"])
        sizes = [1, 1]
        if row["operation"] != "FULLY_CONNECTED":
            sizes = [int(feature["Kernel"]), int(feature["Output_shape"])]
        theirs.setdefault(row["model"], Counter())[kind, inside, out, *sizes] += 1
    assert len(theirs) == 102
    for name, operations in theirs.items():
        assert weighted(name) == operations, name


@published
def test_each_operation_of_the_torch_files_is_there() -> None:
    theirs: dict[str, Counter[tuple[int, ...]]] = {}
    for row in rows("edge_torch_cnn_ops_gpu.csv"):
        f = ast.literal_eval(row["feature"])
        key: tuple[int, ...]
        if row["operation"].endswith("conv2d_context"):
            key = (f["input_channel"], f["output_channel"], f["kernel_size"], f["stride"])
            key += (f.get("groups", f["input_channel"]), f["input_shape"], f["output_shape"])
        elif row["operation"].endswith("linear_context"):
            key = (f["input_shape"], f["output_shape"], 1, 1, 1, 1, 1)
        else:
            continue
        theirs.setdefault(row["model"], Counter())[key] += 1
    assert len(theirs) == 100
    for name, operations in theirs.items():
        mine = Counter(
            (k.in_channels, k.out_channels, k.kernel[0], k.stride[0], k.groups, *sides)
            for k in zoo.kernels(zoo.edge_network(name))
            if k.kind in ("conv", "linear")
            for sides in [(k.in_px[0], k.out_px[0])]
        )
        assert mine == operations, name


def test_families_of_the_edge_benchmark() -> None:
    families = Counter(zoo.edge_family(name) for name in zoo.edge_names())
    assert families["mobilenet"] == 12 and families["mobilenetv2"] == 8
    assert families["mobilenetv3"] == 10 and families["proxyless"] == 6
    assert families["mnasnet"] == 2 and families["efficientnet_edge"] == 3
    with pytest.raises(UnknownName, match="'mobilenet_w2' is not known"):
        zoo.edge_family("mobilenet_w2")


def test_a_network_of_blocks_and_its_graph_are_cut_alike() -> None:
    for text in ("mnasnet-a1", "mobilenet-v2"):
        network = zoo.network(text)
        assert zoo.block_graph(network).params == network.params
        assert zoo.block_graph(network).macs == network.macs


def test_the_page_lists_every_network_as_it_is() -> None:
    page = (
        (Path(__file__).parents[3] / "docs/networks.md")
        .read_text(encoding="utf-8")
        .split("## All")[1]
    )
    listed = [line for line in page.split("\n") if line.startswith("| `")]
    assert len(listed) == len(zoo.names()) + len(zoo.graph_names())
    for line in listed:
        name, kind, px, params, macs, top1 = (c.strip(" `") for c in line.strip("|").split("|"))
        network = zoo.network(name) if kind == "blocks" else zoo.graph(name)
        figures = zoo.published(name)
        assert (params, macs) == (f"{network.params:,}", f"{network.macs / 1e6:,.1f}")
        assert px == str(network.resolution_px)
        assert top1 == ("" if figures is None else f"{figures.top1:g}")
