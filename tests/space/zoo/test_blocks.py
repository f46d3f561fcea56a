"""Published networks against the numbers that their papers and official code give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phonenas import space
from phonenas.space.architecture import round_channels
from phonenas.space.errors import InvalidArgument, UnknownName

# Name, width, parameters to the unit, MACs in millions as printed.
PUBLISHED = [
    ("mnasnet-a1", 1.0, 3_887_038, "311.33"),
    ("mnasnet-a1", 1.4, 6_105_992, "585.8"),
    ("mnasnet-a1", 0.75, 2_912_278, "223.3"),
    ("mnasnet-a1", 0.5, 2_082_006, "103.1"),
    ("mnasnet-a1", 0.35, 1_747_018, "61.7"),
    ("mnasnet-b1", 1.0, 4_383_312, "314.42"),
    ("mnasnet-b1", 0.5, 2_218_512, None),  # torchvision's mnasnet0_5
    ("mnasnet-small", 1.0, 2_030_264, "68.27"),
    ("mnasnet-b1", 0.75, 3_170_208, None),  # torchvision's mnasnet0_75
    ("mnasnet-b1", 1.3, 6_282_256, None),  # torchvision's mnasnet1_3
    ("mobilenet-v2", 1.0, 3_504_872, "300.77"),
    # Parameters of pytorchcv's models and, for Single-Path NAS, timm's file.
    ("proxylessnas-mobile", 1.0, 4_080_512, None),
    ("proxylessnas-mobile-1.4", 1.0, 6_857_568, None),
    ("proxylessnas-cpu", 1.0, 4_361_648, None),
    ("proxylessnas-gpu", 1.0, 7_119_848, None),
    ("single-path-nas", 1.0, 4_421_616, None),
    # torchvision's metadata and timm's models.
    ("efficientnet-b0", 1.0, 5_288_548, None),
    ("efficientnet-b1", 1.0, 7_794_184, None),
    ("efficientnet-b2", 1.0, 9_109_994, None),
    ("efficientnet-b3", 1.0, 12_233_232, None),
    ("mobilenet-v3-large", 1.0, 5_483_032, None),
    ("mobilenet-v3-small", 1.0, 2_542_856, None),
    ("mobilenet-v3-large", 0.75, 3_993_528, None),
    ("mobilenet-v3-small", 0.75, 2_041_872, None),
    ("mobilenet-v3-large-minimalistic", 1.0, 3_924_288, None),
    ("mobilenet-v3-small-minimalistic", 1.0, 2_044_736, None),
    ("mobilenet-v4-conv-small", 1.0, 3_774_024, None),
    ("mobilenet-v4-conv-medium", 1.0, 9_715_512, None),
    ("fbnet-c", 1.0, 5_572_200, None),
    ("efficientnet-lite0", 1.0, 4_652_008, None),
    ("efficientnet-lite1", 1.0, 5_416_680, None),
    ("efficientnet-lite2", 1.0, 6_092_072, None),
    ("efficientnet-lite3", 1.0, 8_197_096, None),
    ("efficientnet-lite4", 1.0, 13_006_568, None),
    ("efficientnet-edge-s", 1.0, 5_438_392, None),
    ("efficientnet-edge-m", 1.0, 6_899_496, None),
    ("efficientnet-edge-l", 1.0, 10_589_712, None),
    ("mobilenet-v4-conv-small", 0.5, 2_238_952, None),
    ("mobilenet-v4-conv-small", 0.35, 1_905_384, None),
    # pytorchcv's models.
    ("mobilenet-v3-small-1280", 1.0, 2_945_288, None),
    ("mobilenet-v3-large-1280", 1.0, 5_481_752, None),
]


@pytest.mark.parametrize(("name", "width", "params", "macs"), PUBLISHED)
def test_counts_are_the_published_ones(
    name: str, width: float, params: int, macs: str | None
) -> None:
    network = space.zoo.network(name, width)
    assert network.params == params
    if macs is not None:
        # To the printed digits; 61.6496 at width 0.35 was printed 61.7, by way of 61.65.
        last_digit = 10.0 ** -len(macs.partition(".")[2])
        assert network.macs / 1e6 == pytest.approx(float(macs), rel=0, abs=0.505 * last_digit)


def test_every_network_has_a_published_count() -> None:
    # Once-for-all's are counted in thousands (`test_once_for_all`).
    assert {name for name, *_ in PUBLISHED} == {
        n for n in space.zoo.names() if not n.startswith("ofa-")
    }


@pytest.mark.parametrize(
    ("name", "px", "params", "macs"),
    [
        ("ofa-note8-22", 140, "4.3", 67),
        ("ofa-note8-31", 152, "4.6", 101),
        ("ofa-cpu-11", 144, "4.4", 160),
        ("ofa-cpu-15", 188, "4.9", 301),
    ],
)
def test_once_for_all(name: str, px: int, params: str, macs: int) -> None:
    """The millions that its code prints; its multiply-adds count the products of gates, too."""
    network = space.zoo.network(name)
    assert network.resolution_px == px
    assert f"{network.params / 1e6:.1f}" == params
    gates = sum(2 * o.se_channels * (o.mid_channels or o.out_channels) for o in network.operators())
    assert round((network.macs + gates) / 1e6) == macs
    searched = space.get("ofa-mbv3-w1.0", px)
    assert (network in searched) == name.startswith("ofa-note8")


def test_squeeze_is_taken_from_input_channels() -> None:
    """The usual mistake takes it from the expanded ones, and counts 5,139,518."""
    a1 = space.zoo.network("mnasnet-a1")
    mistaken = sum(
        replace(o, se_channels=o.se_channels * o.expansion).params for o in a1.operators()
    )
    assert mistaken == pytest.approx(5_139_518, abs=2_000)  # up to rounding of the squeeze
    assert a1.params != mistaken


def test_squeeze_widths_of_a1() -> None:
    found = [o.se_channels for o in space.zoo.network("mnasnet-a1").operators() if o.se_channels]
    assert found == [6, 10, 10, 20, 28, 28, 40, 40]


@pytest.mark.parametrize(
    ("wish", "rounded"),
    [
        (1, 8),
        (8, 8),
        (11.2, 16),
        (12, 16),
        (16, 16),
        (18, 24),
        (20, 24),
        (28, 32),
        (156.8, 160),
        (112 * 0.35, 40),
        (24 * 0.35, 8),
        (40 * 0.35, 16),
    ],
)
def test_channels_round_as_in_the_official_code(wish: float, rounded: int) -> None:
    assert round_channels(wish) == rounded


def test_rounded_channels_are_multiples_and_never_far_below_the_wish() -> None:
    for tenths in range(1, 20_000):
        rounded = round_channels(tenths / 10)
        assert rounded % 8 == 0
        assert rounded >= max(8, 0.9 * tenths / 10)
        assert rounded <= tenths / 10 + 8


def test_width_scales_the_stem_and_leaves_the_head() -> None:
    half = space.zoo.network("mnasnet-a1", 0.5)
    assert half.stem_channels == 16
    assert half.head_channels == 1280
    assert space.zoo.network("mnasnet-a1", 1.0) == space.zoo.network("mnasnet-a1")


def test_mobilenet_v2_widens_its_head_above_one() -> None:
    assert space.zoo.network("mobilenet-v2", 1.4).head_channels == 1792
    assert space.zoo.network("mobilenet-v2", 0.5).head_channels == 1280
    assert space.zoo.network("mobilenet-v2", 1.4).params == 6_108_776  # torchvision, timm


@pytest.mark.parametrize("width", [0, -1, 10.5, float("nan"), float("inf")])
def test_widths_that_are_none(width: float) -> None:
    with pytest.raises(InvalidArgument, match="width"):
        space.zoo.network("mnasnet-a1", width)


@pytest.mark.parametrize("resolution", [0, -1, 31, 5000])
@pytest.mark.parametrize("name", ["mnasnet-a1", "mobilenet-v3-small", "efficientnet-b0"])
def test_resolutions_that_cannot_be_taken(name: str, resolution: int) -> None:
    for ask in (space.zoo.network, space.zoo.find):
        with pytest.raises(InvalidArgument, match=rf"{resolution} px cannot be taken.*32 to 2048"):
            ask(name, resolution=resolution)


@pytest.mark.parametrize("resolution", [32, 33, 224, 2048])
def test_resolutions_that_can(resolution: int) -> None:
    small = space.zoo.network("mnasnet-small", resolution=resolution)
    assert small.operators()[-1].in_px == -(-resolution // 32)
    assert small.params == 2_030_264


def test_macs_follow_the_square_of_the_resolution() -> None:
    at = {px: space.zoo.network("mnasnet-a1", resolution=px) for px in (64, 128)}
    classifier = 1280 * 1000
    assert at[128].macs - classifier == 4 * (at[64].macs - classifier)


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"'mnasnet-a2'.*Did you mean 'mnasnet-a1'"):
        space.zoo.network("mnasnet-a2")
    with pytest.raises(UnknownName, match="Did you mean 'mobilenet-v2'"):
        space.zoo.find("mobilenetv2")
    with pytest.raises(UnknownName, match="All [0-9]+ names:  docs/networks.md"):
        space.zoo.network("qqqq")
    with pytest.raises(UnknownName, match="Did you mean 'resnet-50'"):
        space.zoo.find("resnet51")
    with pytest.raises(UnknownName, match="'mobilnet-v2'.*Did you mean 'mobilenet-v2'"):
        space.zoo.find("mobilnet-v2 width0.5 res96")
    with pytest.raises(UnknownName, match="'mobilenetv3_small_050'"):
        space.zoo.find("mobilenetv3_small_050")  # timm's has another stem
    with pytest.raises(InvalidArgument, match="resnet-50 is not of blocks"):
        space.zoo.network("resnet-50")


def test_timm_s_names() -> None:
    for theirs, ours, width in (
        ("mnasnet_050", "mnasnet-b1", 0.5),
        ("semnasnet_075", "mnasnet-a1", 0.75),
        ("mobilenetv2_140", "mobilenet-v2", 1.4),
        ("spnasnet_100", "single-path-nas", 1.0),
        ("mnasnet_small", "mnasnet-small", 1.0),
        ("mnasnet0_5", "mnasnet-b1", 0.5),
        ("MobileNet_V2", "mobilenet-v2", 1.0),
        ("mobilenetv3_large_075", "mobilenet-v3-large", 0.75),
        ("tf_mobilenetv3_small_minimal_100", "mobilenet-v3-small-minimalistic", 1.0),
        ("tf_efficientnet_lite3.in1k", "efficientnet-lite3", 1.0),
        ("EfficientNet-B0", "efficientnet-b0", 1.0),
        ("efficientnet_em", "efficientnet-edge-m", 1.0),
        ("fbnetc_100", "fbnet-c", 1.0),
        ("mobilenetv4_conv_medium.e500_r224_in1k", "mobilenet-v4-conv-medium", 1.0),
        ("mobilenetv4_conv_small_050", "mobilenet-v4-conv-small", 0.5),
    ):
        assert space.zoo.find(theirs) == space.zoo.network(ours, width)
    for theirs, ours in (
        ("resnet50", "resnet-50"),
        ("ResNet_50.tv_in1k", "resnet-50"),
        ("regnety_008", "regnet-y-800mf-paper"),
        ("regnet_x_1_6gf", "regnet-x-1.6gf"),
        ("shufflenet_v2_x1_5", "shufflenet-v2-x1.5"),
        ("squeezenet1_1", "squeezenet-1.1"),
        ("ghostnet_130", "ghostnet width1.3"),
    ):
        assert space.zoo.parse(theirs) == space.zoo.parse(ours)


def test_a_name_has_settings() -> None:
    small = space.zoo.find("mobilenet-v3-small width0.75 res96 classes10")
    assert small == space.zoo.network("mobilenet-v3-small", 0.75, 96).with_classes(10)
    assert space.zoo.find("efficientnet-b1").resolution_px == 240
    assert space.zoo.find("efficientnet_b1", 1.0, 128).resolution_px == 128
    doubled = space.zoo.find("mobilenetv2_050 res96", 2.0)
    assert doubled == space.zoo.network("mobilenet-v2", 1.0, 96)
    for text in ("mobilenet-v2 wide", "mobilenet-v2 res96 res96", "mobilenet-v2 res96.5"):
        with pytest.raises(InvalidArgument, match="is not a setting"):
            space.zoo.find(text)


def test_a_network_of_blocks_as_a_graph() -> None:
    graph = space.zoo.graph("mobilenet-v3-large", 0.75, 192, 10)
    assert str(graph) == "mobilenet-v3-large width0.75 res192 classes10"
    network = space.zoo.parse(str(graph))
    assert isinstance(network, space.Architecture)
    assert (graph.params, graph.macs) == (network.params, network.macs)


def test_find_takes_names_and_block_strings() -> None:
    a1 = space.zoo.network("mnasnet-a1")
    assert space.zoo.find("mnasnet-a1") == a1
    assert space.zoo.find(str(a1)) == a1
    assert space.zoo.find(str(a1), width=0.5) == space.zoo.network("mnasnet-a1", 0.5)
    assert space.zoo.find(f"{a1} res96").resolution_px == 96
    assert space.zoo.find(f"{a1} res96", resolution=128).resolution_px == 128
    assert space.zoo.find("mnasnet-a1", resolution=128).resolution_px == 128
    with pytest.raises(InvalidArgument, match="0 px cannot be taken"):
        space.zoo.find(str(a1), resolution=0)
