"""Drawings of networks: what stands in a row, and that the picture says the same."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from phonenas.space import Architecture, zoo
from phonenas.space.drawing import Row, drawing
from phonenas.space.errors import InvalidArgument

NETWORK = Architecture.parse(
    "r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24 r3_k5_s22_e3_i24_o40_se0.25 "
    "r1_k3_s22_conv_i40_o80_pool r1_a0_k0_s11_e4_i80_o80"
)


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def test_rows_of_a_network_of_blocks() -> None:
    rows = NETWORK.rows()
    assert [r.text for r in rows] == [
        "stem, 3×3, stride 2, 32 channels",
        "separable convolution 3×3, 16 channels",
        "MBConv6 3×3, 2 layers, stride 2, 24 channels",
        "MBConv3 5×5, 3 layers, stride 2, squeeze 0.25, 40 channels",
        "convolution 3×3, stride 2, pool skip, 80 channels",
        "MBConv4, 80 channels",
        "head, 1×1 to 1280 channels, 1000 classes",
    ]
    assert [r.in_px for r in rows] == [224, 112, 112, 56, 28, 14, 14]
    assert [r.layers for r in rows] == [1, 1, 2, 3, 1, 1, 1]
    assert sum(r.macs for r in rows) == NETWORK.macs


def test_rows_of_a_graph() -> None:
    network = zoo.find_graph("resnet-18")
    rows = network.rows()
    assert rows[0].text == "7×7, stride 2, 64 channels" and rows[0].in_px == 224
    assert rows[1] == Row("3×3, 4 layers, 64 channels", 4, 3, 56, 64, 4 * 56**2 * 64 * 64 * 9)
    assert rows[-1].text == "linear, 1000 outputs"
    assert sum(r.macs for r in rows) == network.macs
    depthwise = [r.text for r in zoo.find_graph("shufflenet-v2").rows() if "depthwise" in r.text]
    assert "3×3 depthwise, stride 2, 24 channels" in depthwise


def test_the_picture_has_a_brick_a_layer_and_a_bar_a_row() -> None:
    rows = NETWORK.rows()
    svg = drawing(rows)
    bricks = [e for e in elements(svg, "rect") if e.get("rx")]
    assert len(bricks) == sum(r.layers for r in rows)
    widths = [float(b.get("width", 0)) for b in bricks]
    # The square root of the channels: a layer of 40 channels beside one of 24.
    assert widths[4] / widths[2] == pytest.approx((40 / 24) ** 0.5, rel=0.05)
    assert bricks[4].get("fill") != bricks[2].get("fill") == bricks[1].get("fill")
    bars = [float(e.get("width", 0)) for e in elements(svg, "rect") if not e.get("rx")]
    assert bars.index(max(bars)) == max(range(len(rows)), key=lambda i: rows[i].macs)
    texts = [e.text for e in elements(svg, "text")]
    assert {r.text for r in rows} <= set(texts) and "share of the MACs" in texts


def test_shares_of_time() -> None:
    times = [1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0]
    texts = [e.text or "" for e in elements(drawing(NETWORK.rows(), times), "text")]
    assert [t for t in texts if t.endswith("%")] == ["25%", "0%", "25%", "50%", "0%", "0%", "0%"]
    assert "share of the time" in texts
    with pytest.raises(InvalidArgument, match="2 times for 7 rows"):
        drawing(NETWORK.rows(), [1.0, 2.0])
    assert drawing([]) == ""


def test_no_text_runs_into_the_bars() -> None:
    """A letter of 13 px takes 7 at most over a row's text."""
    for name in ("mnasnet-a1", "mobilenet-v3-large", "mobilenet-v4-conv-small"):
        svg = drawing(zoo.find(name).rows())
        starts = [float(e.get("x", 0)) for e in elements(svg, "rect") if not e.get("rx")]
        (label,) = {
            e.get("x")
            for e in elements(svg, "text")
            if e.text and "×" in e.text[1:] and "channels" in e.text
        }
        longest = max(len(e.text or "") for e in elements(svg, "text"))
        assert float(label or 0) + 6.8 * longest < min(starts)


def test_text_in_a_drawing_is_text() -> None:
    svg = drawing([Row("<script>x</script> & more", 1, 3, 8, 4, 5)])
    assert not re.search(r"<script", svg) and elements(svg, "text")[4].text


def test_a_notebook_shows_the_drawing() -> None:
    assert NETWORK._repr_html_() == drawing(NETWORK.rows())
    graph = zoo.find_graph("resnet-18")
    assert graph._repr_html_() == drawing(graph.rows())
