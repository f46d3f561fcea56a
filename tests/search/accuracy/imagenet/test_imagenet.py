"""Top-1 on ImageNet after a full schedule: what it sees of a network, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from phonenas import search, space
from phonenas.search.accuracy import ImageNet, Surrogate, estimator
from phonenas.search.accuracy.imagenet.features import (
    FEATURES,
    SUMS,
    features,
    graph_sums,
    refused_share,
    sums,
)
from phonenas.search.accuracy.imagenet.fit import CHOSEN_ON, features_of
from phonenas.search.accuracy.imagenet.imagenet import file_path
from phonenas.search.accuracy.imagenet.published import RECIPES, read_published
from phonenas.search.benchmarks import imagenet as benchmark
from phonenas.space import Architecture, zoo
from phonenas.space.errors import InvalidArgument, UnknownName, UnsupportedFormat
from phonenas.testing import EstimatorContract

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
TABLES = [SHARED / "timm_imagenet.csv", SHARED / "published_networks.csv"]
SHORT = SHARED / "accel_nasbench.csv"
published = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared/data does not lie beside the checkout"
)


class TestContract(EstimatorContract):
    @pytest.fixture
    def estimator(self) -> ImageNet:
        return ImageNet()


def summed(network: Architecture) -> npt.NDArray[np.float64]:
    return np.sum([sums(o) for o in network.operators()], axis=0)


def of(name: str) -> float:
    return float(ImageNet().estimate([zoo.network(name)]).top1[0])


def test_sums_of_a_small_network_counted_by_hand() -> None:
    network = Architecture.parse(
        "r2_k5_s22_e3_i16_o24_se0.25 r2_k3_s11_e1_i24_o24_noskip r1_k3_s22_conv_i24_o40 head64"
    )
    got = dict(zip(SUMS, summed(network).tolist(), strict=True))
    # stem 16; MBConv 48 and 72 wide, with gates; two flat layers of 24; a dense 3×3 to 40; head.
    assert got["depth"] == 1 + 2 + 2 + 1
    assert got["channels"] == 16 + 48 + 72 + 24 + 24 + 40
    assert got["depthwise channels"] == 48 + 72 + 24 + 24
    assert got["depthwise kernels"] == 5 * (48 + 72) + 3 * (24 + 24)
    assert got["flat"] == 2
    assert got["gated"] == 48 + 72
    assert got["convolved"] == 16 + (48 + 48 + 24) + (72 + 72 + 24) + 2 * (24 + 24) + 40 + 64
    assert got["activated"] == 16 + 2 * 48 + 2 * 72 + 2 * 24 + 40 + 64
    assert got["swish"] == 0
    assert got["features"] == 64
    assert (got["fits"], got["refused"]) == (3, 2)
    assert got["dense macs"] == 3 * 16 * 9 * 112**2 + 24 * 40 * 9 * 28**2
    assert got["macs"] == network.macs and got["params"] == network.params


@pytest.mark.parametrize(
    "name",
    [
        "mnasnet-a1",
        "mnasnet-small",
        "mobilenet-v3-large",
        "efficientnet-edge-s",
        "mobilenet-v4-conv-medium",
    ],
)
def test_a_graph_of_blocks_has_the_sums_of_its_operators(name: str) -> None:
    network = zoo.network(name)
    graph = graph_sums(zoo.block_graph(network))
    kept = SUMS.index("fits")  # a graph's shortcuts are not counted
    assert graph[:kept].tolist() == summed(network)[:kept].tolist()


def test_features_of_graphs() -> None:
    graphs = [zoo.graph("mobilenet-v3-large"), zoo.graph("resnet-50"), zoo.graph("mobilenet-v1")]
    table = dict(zip(FEATURES, features_of(graphs)[0].T, strict=True))
    assert table["log2 macs"] == pytest.approx([np.log2(g.macs / 3e8) for g in graphs])
    assert table["swish share"][0] > 0.8 and table["swish share"][1:].tolist() == [0, 0]
    assert table["gated share"][0] > 0.6 and table["gated share"][1:].tolist() == [0, 0]
    assert table["share without expansion"] == pytest.approx([1 / 16, 0, 0])
    assert table["dense share of macs"][1] > 0.4 > table["dense share of macs"][0]
    assert table["log2 classifier inputs"] == pytest.approx(np.log2([1, 1.6, 0.8]))


def test_published_networks_are_within_a_point() -> None:
    figures = {"mnasnet-a1": 75.2, "mnasnet-b1": 74.5, "mnasnet-small": 66.0, "mobilenet-v2": 72.0}
    for name, top1 in figures.items():
        assert 100 * of(name) == pytest.approx(top1, abs=1.0)


def test_a_wider_network_is_better_and_so_is_a_larger_image() -> None:
    widths = [zoo.network("mobilenet-v2", w) for w in (0.35, 0.5, 0.75, 1.0, 1.4)]
    sides = [zoo.network("mnasnet-a1", 1.0, px) for px in (96, 128, 160, 192, 224)]
    for networks in (widths, sides):
        assert (np.diff(ImageNet().estimate(networks).top1) > 0).all()


def test_recipes_differ() -> None:
    network = [zoo.network("mnasnet-a1")]
    paper, strong, long = (
        ImageNet(recipe).estimate(network).top1[0] for recipe in ("paper", "strong", "long")
    )
    assert paper < strong < long
    assert len({ImageNet(recipe).digest for recipe in RECIPES}) == len(RECIPES)
    assert "350 epochs" in ImageNet().note and "500 to 3,600" in ImageNet("long").schedule
    with pytest.raises(UnknownName, match="Did you mean 'strong'"):
        estimator("imagenet:stong")


def test_by_genome_as_by_network() -> None:
    searched = space.get("mnasnet")
    genomes = searched.sample(np.random.default_rng(3), 40)
    by_genome = ImageNet().on(searched)(genomes)
    by_network = ImageNet().estimate([searched.decode(g) for g in genomes])
    assert by_genome.top1 == pytest.approx(by_network.top1, abs=1e-12)
    assert by_genome.standard_error == pytest.approx(by_network.standard_error, abs=1e-12)
    assert by_genome.outside.tolist() == by_network.outside.tolist()


def test_a_refused_identity_is_deducted_and_extrapolated() -> None:
    text = "r1_k3_s11_e1_i32_o16 r3_k3_s22_e6_i16_o24 r3_k5_s22_e3_i24_o40 r4_k3_s22_e6_i40_o80"
    plain, without = (Architecture.parse(text + end) for end in ("", "_noskip"))
    assert refused_share(summed(plain)) == 0
    assert refused_share(summed(without)) == pytest.approx(3 / 7)
    one, other = ImageNet().estimate([plain, without]), 3.5 * 3 / 7 / 100
    assert one.top1[0] - one.top1[1] == pytest.approx(other)
    assert one.outside[1] and one.standard_error[1] > one.standard_error[0]


def test_far_networks_are_extrapolated_with_a_wide_error() -> None:
    near, far = zoo.network("mnasnet-a1"), zoo.graph("squeezenet-1.0")
    answer = ImageNet().estimate([near, far])
    assert answer.outside.tolist() == [False, True]
    assert answer.standard_error[1] > 3 * answer.standard_error[0]


@pytest.mark.parametrize("make", [ImageNet, Surrogate])
def test_what_it_cannot_speak_of_is_refused(make: type[ImageNet] | type[Surrogate]) -> None:
    a1 = zoo.network("mnasnet-a1")
    for network, words in (
        (a1.with_classes(10), "10 classes at 224 px"),
        (a1.with_resolution(1024), "1,000 classes at 1024 px"),
    ):
        with pytest.raises(InvalidArgument, match=f"{words}.*phonenas fit-accuracy"):
            make().estimate([network])
    with pytest.raises(InvalidArgument, match="10 classes"):
        make().on(space.get("nasbench-macro"))


def test_small_images_are_refused_by_full_schedules_alone() -> None:
    small = [zoo.network("mnasnet-a1", 1.0, 32)]
    with pytest.raises(InvalidArgument, match="images of 64 to 512 px.*at 32 px"):
        ImageNet().estimate(small)
    assert Surrogate().estimate(small).outside.all()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    content = json.loads(file_path().read_text())
    file = tmp_path / "file.json"
    for change in (
        {"version": 2},
        {"factor": content["factor"][:-1]},
        {"coefficients": content["coefficients"][:-1]},
        {"scale": [0.0, *content["scale"][1:]]},
        {"centres": []},
    ):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(UnsupportedFormat, match="Install phonenas again"):
            ImageNet(path=file)
    file.write_text(json.dumps(content))
    assert ImageNet(path=file).estimate([]).top1.tolist() == []


def test_tables_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("network,top1\nmnasnet-a1,75\n")
    with pytest.raises(InvalidArgument, match="x.csv is neither timm's"):
        read_published([tmp_path / "x.csv"])


def test_rows_are_joined_by_name(tmp_path: Path) -> None:
    timm = tmp_path / "timm.csv"
    timm.write_text(
        "model,img_size,top1\n"
        "efficientnet_b0.ra_in1k,288,79.0\nefficientnet_b0.ra_in1k,224,77.7\n"  # the smaller side
        "mobilenetv2_140.ra_in1k,224,76.5\nsemnasnet_075.rmsp_in1k,224,73.0\n"
        "tf_efficientnet_b0.ns_jft_in1k,224,78.7\n"  # other images
        "convnext_tiny.fb_in1k,224,82.1\n"  # not of the zoo
    )
    papers = tmp_path / "papers.csv"
    papers.write_text(
        "model,family,top1,precision\nmobilenet_v1_0.50_160,x,59.0,fp32\n"
        "mobilenet_v1_0.50_160,x,59.0,fp32\nmobilenet_v1_0.50_160_quant,x,57.2,int8\n"
    )
    rows = {
        (str(r.network), r.family, r.recipe): r.top1
        for r in read_published([timm, papers])
        if r.recipe != "torchvision"
    }
    assert rows[(str(zoo.network("efficientnet-b0")), "efficientnet", "strong")] == 77.7
    assert rows[(str(zoo.network("mobilenet-v2", 1.4)), "mobilenet-v2", "strong")] == 76.5
    assert rows[(str(zoo.network("mnasnet-a1", 0.75)), "mnasnet", "strong")] == 73.0
    assert rows[("mobilenet-v1 width0.5 res160", "mobilenet-v1", "paper")] == 59.0
    assert not {78.7, 82.1, 79.0, 57.2} & set(rows.values())


def test_a_search_keeps_to_what_is_known() -> None:
    searched = space.get("mnasnet")
    genomes = searched.sample(np.random.default_rng(0), 50)
    answer = ImageNet().on(searched)(genomes)
    evaluated = search.Evaluations(
        genomes, np.ones(50), answer.top1, answer.standard_error, answer.outside
    )
    plain = search.Spec().losses(evaluated)[:, 0]
    trusted = search.Spec(trust=2.0).losses(evaluated)[:, 0]
    assert trusted - plain == pytest.approx(2 * answer.standard_error)
    assert "trust" not in search.Spec().settings
    settings = search.Spec(trust=2.0).settings
    assert search.Spec.recorded(settings, None).trust == 2.0
    with pytest.raises(InvalidArgument, match="standard errors"):
        search.Spec(trust=-1.0)


def test_sums_and_sides_alone_give_the_features() -> None:
    network = zoo.network("mnasnet-a1", 1.0, 192)
    got = features(summed(network)[None], np.array([192.0]))
    assert got == pytest.approx(features_of([network])[0])
    assert got[0, FEATURES.index("log2 resolution")] == pytest.approx(np.log2(192 / 224))


def test_figures_lie_about_their_network_and_recipe() -> None:
    # a and b have both recipes, 2 points apart: 0.4 of the four figures is neither; c has one.
    names, recipe = ["a", "a", "b", "b", "c"], np.array([0, 1, 0, 1, 0])
    top1 = np.array([70.0, 72.2, 75.0, 76.8, 10.0])
    noise = benchmark.figures_noise(names, recipe, top1)
    assert (noise["figures"], noise["networks"]) == (4, 2)
    assert noise["points"] == pytest.approx(0.2)  # each 0.1 off, one degree of freedom
    alone = benchmark.figures_noise(["a", "a", "b"], np.zeros(3, int), np.array([70, 71, 9.0]))
    assert alone["points"] == pytest.approx(0.5**0.5)


@published
@pytest.mark.slow
def test_each_family_left_out() -> None:
    result = benchmark.benchmark(TABLES, SHORT)
    scores = {(r["estimator"], r["families"]): r for r in result["scores"]}
    own = scores["imagenet", "all"]
    assert own["n"] == 139 and own["mean_error_points"] <= 1.0
    assert 0.85 <= own["coverage90"] <= 0.95
    for name in ("log macs", "log params"):
        assert scores[name, "all"]["mean_error_points"] > 1.8 * own["mean_error_points"]
    assert own["middle_spearman"] > 0.9 > scores["log params", "all"]["middle_spearman"]
    noise, (low, high) = result["noise"], result["middle_interval"]
    assert low < own["middle_spearman"] < high and 0 < noise["points"] < 1
    assert own["middle_spearman"] < noise["low"] < noise["spearman"] < noise["high"] < 1
    mnasnets = {
        zoo.network("mnasnet-a1"): 75.2,
        zoo.network("mnasnet-b1"): 74.5,
        zoo.network("mnasnet-small"): 66.0,
    }
    rows = {(r["network"], r["published"]): r for r in result["networks"]}
    for network, top1 in mnasnets.items():
        assert rows[str(network), top1]["estimated"] == pytest.approx(top1, abs=1.0)
    assert {r["family"] for r in result["families"]} > CHOSEN_ON


@published
@pytest.mark.slow
def test_the_shipped_file_is_what_the_tables_give() -> None:
    from phonenas.search.accuracy.imagenet.fit import fit

    shipped = json.loads(file_path().read_text())
    again = fit([SHARED / "published_networks.csv", TABLES[0]], SHORT, shipped["sources"])
    again["score"] = shipped["score"]
    for name in ("coefficients", "centres", "mean"):
        assert np.array(again[name]) == pytest.approx(np.array(shipped[name]), rel=1e-3, abs=1e-4)
    assert again["recipes"] == shipped["recipes"]
