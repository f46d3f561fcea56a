"""The front on a run's page: every network in a table, the best drawn, in a browser and without."""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from fakes import undigested

from phonenas.report import write_report
from phonenas.search.run_folder import Loaded
from tests.report.test_plots import document, made_run
from tests.report.test_run import validated

__all__ = ["validated"]  # a fixture


@pytest.fixture(scope="module")
def text(validated: Loaded) -> str:
    return write_report(validated.path).read_text(encoding="utf-8")


def rows_of(text: str) -> list[list[str]]:
    """What each row of the front's table sorts by."""
    table = text.partition('<table class="sortable">')[2].partition("</table>")[0]
    body = table.partition("<tbody>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    strings = [html.unescape(re.findall(r'<code class="cut">(.*?)</code>', r)[0]) for r in rows]
    values = [re.findall(r'data-v="([^"]*)"', row) for row in rows]
    return [[*v, s] for v, s in zip(values, strings, strict=True)]


def test_the_table_holds_the_whole_front(validated: Loaded, text: str) -> None:
    rows = rows_of(text)
    assert len(rows) == len(validated.front)
    measured = {v["id"]: v["measured_ms"] for v in document(validated)["networks"]}
    for row, c in zip(rows, validated.front, strict=True):
        assert row[0] == str(c.id) and row[-1] == c.block_args
        assert float(row[1]) == c.latency_ms and float(row[2]) == 100 * c.top1
        assert row[3] == (str(measured[c.id]) if c.id in measured else "")
        assert float(row[4]) == c.macs / 1e6
    assert f"phonenas export-network {validated.path}:0 --out network.onnx" in text


def test_further_objectives_are_columns_and_a_plot(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", n=40)
    path = run.path / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for i, row in enumerate(content["front"]):
        row["values"] = {"energy": 1.5 * i}
    path.write_text(json.dumps(undigested(content)), encoding="utf-8")
    text = write_report(run.path).read_text(encoding="utf-8")
    assert '<th data-name="energy">' in text
    assert [float(r[-2]) for r in rows_of(text)] == [1.5 * i for i in range(len(run.front))]
    plots = json.loads(re.findall(r"const plots = (\{.*\});\n", text)[0])
    axes = plots["objectives"]["data"][0]["dimensions"]
    assert [a["label"] for a in axes] == ["latency, ms", "top-1, %", "energy"]


def test_two_objectives_need_no_parallel_axes(text: str) -> None:
    assert "objectives" not in json.loads(re.findall(r"const plots = (\{.*\});\n", text)[0])


def test_the_networks_to_measure_first_are_drawn(validated: Loaded, text: str) -> None:
    networks = document(validated, 3)["networks"]
    assert text.count("<svg") == len(networks) == 3
    assert "3 networks that validation would measure first" in text
    for v in networks:
        assert f"<h3>Network {v['id']}</h3>" in text
    assert "share of the MACs" in text  # this run has no model whose operators would tell times


def test_the_course_of_the_hypervolume(validated: Loaded, text: str) -> None:
    plots = json.loads(re.findall(r"const plots = (\{.*\});\n", text)[0])
    course = plots.get("course")
    log = validated.log()
    known = [g for g in log if g[2] == g[2]]
    assert (course is not None) == (len(known) > 1)


def test_a_front_without_a_network(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", n=40)
    path = run.path / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["front"] = []
    path.write_text(json.dumps(undigested(content)), encoding="utf-8")
    text = write_report(run.path).read_text(encoding="utf-8")
    assert "sortable" not in text.partition("</style>")[2].partition("<script")[0]
    assert "<svg" not in text


def test_plotly_is_packed_whole(text: str) -> None:
    from plotly.offline import get_plotlyjs

    assert len(text.encode()) < 2_000_000
    (packed,) = re.findall(r'<script type="text/plain" id="plotly">([^<]*)</script>', text)
    plain = zlib.decompress(base64.b85decode(packed.replace(",", "<")), wbits=-15).decode()
    assert plain == get_plotlyjs().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def page_of_a_browser(
    validated: Loaded, text: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[browser.Tab]:
    del text  # written by then
    profile = tmp_path_factory.mktemp("browser") / "profile"
    with browser.opened(validated.path / "report.html", profile) as tab:
        yield tab


SHOWN = """[...document.querySelectorAll('table.sortable tbody tr')].filter(r => !r.hidden)
  .map(r => Number(r.cells[COLUMN].dataset.v || NaN))"""


@pytest.mark.slow
@pytest.mark.browser
def test_sorting_filtering_and_saving(validated: Loaded, page_of_a_browser: browser.Tab) -> None:
    tab = page_of_a_browser
    front = list(validated.front)
    title = "document.querySelectorAll('table.sortable th button')[2]"
    tab.run(f"{title}.click()")
    tops = tab.run(SHOWN.replace("COLUMN", "2"))
    assert tops == sorted(100 * c.top1 for c in front)
    assert tab.run(f"{title}.parentElement.getAttribute('aria-sort')") == "ascending"
    tab.run(f"{title}.focus()")
    for kind in ("keyDown", "keyUp"):  # the Enter key, as a hand gives it
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        tab.call("Input.dispatchKeyEvent", type=kind, text="\r", **enter)
    assert tab.run(SHOWN.replace("COLUMN", "2")) == tops[::-1]

    hovers = tab.run("document.getElementById('front').data[1].customdata.map(row => row[4])")
    assert [h.replace("<br>", " ") for h in hovers] == [c.block_args for c in front]
    assert all("<br>" in h for h in hovers)

    middle = sorted(c.latency_ms for c in front)[len(front) // 2]
    field = "document.querySelector('input[type=search]')"
    tab.run(f"{field}.value = 'latency<{middle}  K5'; {field}.dispatchEvent(new Event('input'))")
    wanted = {c.id for c in front if c.latency_ms < middle and "k5" in c.block_args}
    assert set(tab.run(SHOWN.replace("COLUMN", "0"))) == wanted and 0 < len(wanted) < len(front)
    told = tab.run("document.querySelector('[role=status]').textContent")
    assert told == f"{len(wanted)} of {len(front)} networks"

    saved = tab.run(
        """new Promise(done => {
          const made = URL.createObjectURL;
          URL.createObjectURL = blob => { blob.text().then(done); return made(blob); };
          document.querySelector('[data-save]').click();
        })"""
    )
    lines = saved.splitlines()
    assert lines[0].startswith('"id","latency","top1"') and len(lines) == 1 + len(wanted)
    assert any(next(c for c in front if c.id in wanted).block_args in line for line in lines)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(
    validated: Loaded, text: str, width: int, scheme: str, tmp_path: Path
) -> None:
    """By axe-core: contrast, names, landmarks, what the keyboard reaches."""
    del text
    axe = importlib.resources.files("axe_core_python") / "axe.min.js"
    with browser.opened(validated.path / "report.html", tmp_path / "profile", width) as tab:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.call("Emulation.setEmulatedMedia", features=features)
        tab.run(axe.read_text(encoding="utf-8") + "; 1")
        found = tab.run(
            "axe.run({resultTypes: ['violations']}).then(r => r.violations.map(v => [v.id, "
            "v.nodes.map(n => n.html.slice(0, 200))]))"
        )
        assert found == []
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.of("Log.entryAdded") == [] and tab.of("Runtime.exceptionThrown") == []
        asked = [e["request"]["url"] for e in tab.of("Network.requestWillBeSent")]
        assert [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
        tab.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.slow
@pytest.mark.browser
def test_accessibility_faults_are_seen(tmp_path: Path) -> None:
    """The check above fails a page that has some."""
    path = tmp_path / "page.html"
    path.write_text(
        "<html><body><img src='x.png'><p style='color:#eee'>Pale words on white paper</p>",
        encoding="utf-8",
    )
    axe = importlib.resources.files("axe_core_python") / "axe.min.js"
    with browser.opened(path, tmp_path / "profile") as tab:
        tab.run(axe.read_text(encoding="utf-8") + "; 1")
        found = tab.run("axe.run().then(r => r.violations.map(v => v.id))")
    assert {"image-alt", "color-contrast"} <= set(found)
