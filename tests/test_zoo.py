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
    ("mobilenet-v2", 1.0, 3_504_872, "300.77"),
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
    assert {name for name, *_ in PUBLISHED} == set(space.zoo.names())


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
    [(1, 8), (8, 8), (11.2, 16), (12, 16), (16, 16), (18, 24), (20, 24), (28, 32), (156.8, 160),
     (112 * 0.35, 40), (24 * 0.35, 8), (40 * 0.35, 16)],
)  # fmt: skip
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
@pytest.mark.parametrize("name", space.zoo.names())
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
    with pytest.raises(UnknownName, match=r"Known: .*mnasnet-small"):
        space.zoo.network("qqqq")


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
