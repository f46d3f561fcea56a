"""The heat map of a page: time per multiply-add, by the kind of operator and its map's size."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import replace
from pathlib import Path

import browser
import pytest
from fakes import TinySpace

from phonenas.latency_model import LatencyModel, ready
from phonenas.report.heat_map import Cell, cells_of, heat_map_section, kind_of
from phonenas.report.page import Page
from phonenas.search.run_folder import Loaded
from phonenas.space import Operator
from tests.report.test_plots import made_run

PIXEL1 = "pixel1/tflite/cpu-1big/float32"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("stem_k3_s2_224x224x3_32", "stem"),
        ("head1280_7x7x320_1000", "head"),
        ("conv_k3_s1_28x28x40_40", "convolution 3×3"),
        ("dsconv_k3_s1_112x112x32_16", "separable 3×3"),
        ("mbconv6_k5_s2_se20_14x14x80_112", "MBConv6 5×5, squeeze"),
        ("mbconv3_k3_s1_skip_56x56x24_24", "MBConv3 3×3"),
        ("mbconv4_a5_k3_s2_28x28x40_80", "MBConv4 5×5 and 3×3"),
        ("mbconv4_a3_k0_s1_14x14x96_96", "MBConv4 3×3"),
        ("mbconv4_k0_s1_14x14x96_96", "MBConv4"),
        ("fused4_k3_s2_112x112x16_24", "fused MBConv4 3×3"),
    ],
)
def test_a_kind_leaves_size_and_stride_aside(key: str, kind: str) -> None:
    assert kind_of(Operator.parse(key)) == kind


def test_cells_hold_the_median_of_their_operators() -> None:
    # 3 · 3 · 4 · 4 · 8 · 8 = 9,216 multiply-adds; at half the side a quarter of them.
    times = {
        "conv_k3_s1_8x8x4_4": 9.216e-6,  # 1 ps for each
        "conv_k3_s1_skip_8x8x4_4": 27.648e-6,  # 3 ps
        "conv_k3_s2_8x8x4_4": 20.736e-6,  # 9 ps
        "conv_k3_s1_4x4x4_4": 11.52e-6,  # 5 ps
    }
    ms = {Operator.parse(key): value for key, value in times.items()}
    found = cells_of(ms, list(ms)[:2])
    assert [(c.kind, c.px, c.operators, c.measured) for c in found] == [
        ("convolution 3×3", 8, 3, 2),
        ("convolution 3×3", 4, 1, 0),
    ]
    assert found[0].ps == pytest.approx((3, 1, 9)) and found[1].ps == pytest.approx((5, 5, 5))


@pytest.fixture
def tiny_run(tmp_path: Path, tiny: TinySpace) -> Loaded:
    run = made_run(tmp_path / "run", n=20)
    settings = {**run.settings, "space": tiny.name, "resolution_px": 32}
    return replace(run, settings=settings, given_space=tiny)


def test_the_table_has_a_cell_for_each_kind_and_size(
    tiny_run: Loaded, tiny: TinySpace, fitted: LatencyModel
) -> None:
    html = heat_map_section(tiny_run, fitted, " on pixel6")
    assert "<h2>How long a multiply-add takes on pixel6</h2>" in html
    operators = tiny.operators()
    assert f"● {len(operators)} of {len(operators)} operators measured alone" in html
    head = re.findall(r'<th scope="col">(\d+) px</th>', html)
    assert head == sorted({str(o.in_px) for o in operators}, key=int, reverse=True)
    kinds = re.findall(r'<th scope="row">(.*?)</th>', html)
    assert {*kinds} == {*map(kind_of, operators)} and len(kinds) == len({*kinds})
    cells = re.findall(r'<td style="background:(#\w+);color:(#\w+)" title="(.*?)">([\d,.]+)<', html)
    assert len(cells) == len({(kind_of(o), o.in_px) for o in operators})
    # By hand: the middle of the times of one kind on one size, over its multiply-adds.
    of_stem = next(c for c in cells if c[2].startswith("stem at 32 px"))
    stem = next(o for o in operators if o.kind == "stem")
    assert float(of_stem[3]) == pytest.approx(fitted.table.ms[stem] * 1e9 / stem.macs, rel=0.06)
    values = [float(v.replace(",", "")) for *_, v in cells]
    lightest = {colour for colour, *_ in cells if colour == "#fee838"}
    darkest = [float(v) for colour, *_, v in cells if colour == "#00224e"]
    assert lightest and min(values) in darkest


def test_a_ready_phone_s_cells_are_predicted(tmp_path: Path) -> None:
    html = heat_map_section(made_run(tmp_path / "run", n=20), ready.load(PIXEL1))
    assert "operators, ○ predicted" in html and "●" not in html and "measured" not in html
    assert "separable 3×3" in html


def test_no_map_where_there_is_no_model_or_another_one(
    tiny_run: Loaded, tmp_path: Path, fitted: LatencyModel
) -> None:
    assert heat_map_section(tiny_run, None) == ""
    other = made_run(tmp_path / "other", n=20)  # of mnasnet, which the model does not reach
    assert heat_map_section(other, fitted) == ""
    unknown = replace(tiny_run, given_space=None)
    known = heat_map_section(unknown, fitted)  # its space is not known here: what was measured
    assert f"{len(fitted.table)} of {len(fitted.table)} operators measured alone" in known


def test_one_operator_alone_is_a_map() -> None:
    from phonenas.report.heat_map import _html

    html = _html([Cell("stem", 32, (3.0, 3.0, 3.0), 1, 1)], "")
    assert ">3<" in html and "● 1 of 1 operator measured alone" in html
    assert "fastest is" not in html and "times as long" not in html


@pytest.mark.parametrize(
    ("ps", "says"), [(3.0, ""), (3.02, ""), (4.2, "1.4 times as"), (90.0, "30 times as")]
)
def test_the_slowest_is_told_where_it_is_slower(ps: float, says: str) -> None:
    from phonenas.report.heat_map import _html

    html = _html([Cell("stem", n, (p, p, p), 1, 1) for n, p in ((32, 3.0), (16, ps))], "")
    assert ("The fastest is stem at 32 px, the slowest stem at 16 px" in html) == bool(says)
    assert says in html and ("times as long" in html) == bool(says)


def test_marks_tell_cells_apart_where_some_are_predicted() -> None:
    from phonenas.report.heat_map import _html

    cells = [Cell("stem", 32, (3.0, 2.0, 4.0), 2, n) for n in (0, 1, 2)]
    html = _html([replace(c, px=8 << i) for i, c in enumerate(cells)], "")
    assert re.findall(r">([○●]) 3<", html) == ["●", "○", "○"]
    assert "2 operators, 1 of them measured alone; 2 to 4 ps for a MAC" in html


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_accessible(tmp_path: Path, width: int, scheme: str) -> None:
    page = tmp_path / "page.html"
    section = heat_map_section(made_run(tmp_path / "run", n=20), ready.load(PIXEL1))
    page.write_text(Page("map").html(["<h1>A run</h1>", section]), encoding="utf-8")
    axe = importlib.resources.files("axe_core_python") / "axe.min.js"
    with browser.opened(page, tmp_path / "profile", width) as tab:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.call("Emulation.setEmulatedMedia", features=features)
        tab.run(axe.read_text(encoding="utf-8") + "; 1")
        found = tab.run(
            "axe.run({resultTypes: ['violations']}).then(r => r.violations.map(v => [v.id, "
            "v.nodes.map(n => n.html.slice(0, 200))]))"
        )
        assert found == []
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.run("document.querySelectorAll('.heat td[title]').length") > 20
