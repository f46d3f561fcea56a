"""Text of files in a page: it is text, whatever it holds; and no control leads out of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser
import pytest
from fakes import undigested

from phonenas.report import write_report
from phonenas.report.comparison_page import write_comparison
from phonenas.search.promotion.result import FILE, Promoted, PromotedNetwork
from phonenas.search.run_folder import Loaded
from tests.report.test_plots import document, made_run
from tests.report.test_run import Page, with_rounds

EVIL = (
    '"\'></code></h1><script>pwned = 1</script></script><img src=x onerror="pwned = 1"> measured ● '
    '<a href="https://evil.example/">link</a> \\1 \\g<0> %{y} <!-- @body@ @script@'
)
# What a page needs as it is, to be read at all.
FIXED = {"format", "version", "complete", "block_args"}
# Of a plot's texts: what they may hold beside characters that are written as entities.
OURS = re.compile(r"<br>|<extra>[^<]*</extra>|<extra></extra>")


def evil(value: Any, change: Callable[[str], bool] = lambda key: True, key: str = "") -> Any:
    """Every text of a document replaced, those of `FIXED` aside; new keys beside each table."""
    if isinstance(value, dict):
        return {k: evil(v, change, k) for k, v in value.items()}
    if isinstance(value, list):
        return [evil(v, change, key) for v in value]
    return EVIL if isinstance(value, str) and key not in FIXED and change(key) else value


def spoil(run: Loaded) -> None:
    """Make every text of a run, of its validation and of its promotion hostile."""
    path = run.path / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # No digest of its settings or its content, nor a checkpoint: each would refuse the changes.
    content.pop("run", None)
    (run.path / "checkpoint.npz").unlink()
    content["settings"] |= {"also": ["macs"], "limits": ["macs<=1"], "asked": {"data": "x"}}
    content["settings"] |= {"scale": "x", "soft": True, "estimator": "x"}
    content["model"] = {"conditions": {"origin": "x", "device": "x"}, "scores": {}}
    content["libraries"][EVIL] = "x"
    content["front"][0]["measured_ms"] = 5.0
    path.write_text(json.dumps(undigested(evil(content))), encoding="utf-8")
    validation = with_rounds(run) | {"stopped": "x", "device": "x"}
    validation["unmeasured"] = [{"id": 1, "block_args": "x", "reason": "x"}]
    validation["conditions"] |= {"origin": "simulated", EVIL: "x"}
    (run.path / "validation.json").write_text(
        json.dumps(undigested(evil(validation))), encoding="utf-8"
    )
    networks = [
        PromotedNetwork(
            id=i,
            candidate="x",
            block_args=EVIL,
            top1_estimated=0.5,
            estimated_error=0.01,
            top1=0.6 + i / 100,
            predicted_ms=1.0 + i,
            low_ms=0.9,
            high_ms=9.9,
            predicted_as_trained=True,
            macs=1,
            params=1,
            failed=EVIL,
            unmeasured=EVIL,
        )
        for i in range(2)
    ]
    images = {"train": {"source": EVIL, "images": EVIL}, "test": {}}
    recipe = {"name": EVIL, "epochs": EVIL}
    promoted = Promoted(tuple(networks), 8.0, EVIL, EVIL, recipe, 0, images, EVIL)
    promoted.save(run.path)
    assert (run.path / FILE).exists()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A report and a comparison in which each text is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    names = ("<img src=x onerror=alert(1)>", "b'\"&<i>", "$(touch x) %{y}")
    runs = [made_run(folder / name, n=60) for name in names]
    for run in runs:
        spoil(run)
    return [write_report(runs[0].path), write_comparison([r.path for r in runs])[0]]


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [t for v in value.values() for t in texts(v)]
    if isinstance(value, list):
        return [t for v in value for t in texts(v)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("which", [0, 1])
def test_every_text_of_the_files_is_text(hostile: list[Path], which: int) -> None:
    text = hostile[which].read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2 and page.loads == []
    assert not {"a", "img", "form", "iframe", "object", "i"} & set(page.tags)
    assert "pwned = 1" in page.text  # as text
    assert page.handlers == []
    plots = re.search(r"const plots = (\{.*\});\n", page.scripts[-1])
    assert plots is not None
    drawn = texts(json.loads(plots[1]))
    assert any("&lt;" in t for t in drawn)  # the names of operators, or of runs
    assert not [t for t in drawn if "<" in OURS.sub("", t)]
    assert not [t for t in drawn if "&quot;" in t or "&#x27;" in t]  # a plot would show these


@pytest.mark.slow
def test_each_text_alone_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, a field at a time: none needs another to be hostile too."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", str)  # megabytes of the same
    run = made_run(tmp_path / "run", n=40)
    whole = with_rounds(run) | {"stopped": "x"}
    keys: set[str] = set()
    evil(whole, lambda key: bool(keys.add(key)))  # type: ignore[func-returns-value]
    assert {"text", "origin", "label", "stopped", "model"} <= keys
    for key in sorted(keys):
        spoiled = evil(whole, lambda k, only=key: k == only)  # type: ignore[misc]
        (run.path / "validation.json").write_text(json.dumps(undigested(spoiled)), encoding="utf-8")
        text = write_report(run.path).read_text(encoding="utf-8")
        assert "<script>pwned" not in text and "<img" not in text, key
        assert text.count("<script") == 2, key


def test_only_the_pages_own_scripts_may_run(hostile: list[Path]) -> None:
    text = hostile[0].read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'" and rules["form-action"] == "'none'"
    assert rules["base-uri"] == "'none'"
    hashes = rules["script-src"].split()
    assert len(hashes) == 2 and all(h.startswith("'sha256-") for h in hashes)


WATCH = """new Promise(done => {
  for (const b of document.querySelectorAll('.modebar-btn')) b.dispatchEvent(
    new MouseEvent('click', {bubbles: true, cancelable: true}));
  for (const s of document.querySelectorAll('summary')) s.click();
  setTimeout(() => done(1), 600);
})"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("which", [0, 1])
def test_no_control_leads_out_of_the_page(hostile: list[Path], which: int, tmp_path: Path) -> None:
    with browser.opened(hostile[which], tmp_path / "profile") as tab:
        drawn = tab.run("document.querySelectorAll('.js-plotly-plot').length")
        assert drawn >= 1
        titles = tab.run("[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
        assert len(titles) == 6 * drawn
        assert set(titles) == {
            "Download plot as a PNG",
            "Zoom",
            "Pan",
            "Zoom in",
            "Zoom out",
            "Reset axes",
        }
        assert tab.run("document.querySelectorAll('[href], [*|href], form, iframe').length") == 0
        servers = "[...document.querySelectorAll('.js-plotly-plot')].map(p => p._context."
        assert set(tab.run(servers + "plotlyServerURL)")) == {""}
        assert tab.run(WATCH) == 1
        # Nothing of the files ran, and nothing can be added that does.
        tab.run(
            "document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'pwned = 1'}))"
        )
        assert tab.run("typeof pwned") == "undefined"
        refused = [e["entry"]["text"] for e in tab.of("Log.entryAdded")]
        assert any("Content Security Policy" in text for text in refused)
        asked = [e["request"]["url"] for e in tab.of("Network.requestWillBeSent")]
        assert [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
        assert tab.run("windows") == [] and tab.of("Page.frameRequestedNavigation") == []
        assert tab.run("location.protocol") == "file:"


@pytest.mark.browser
def test_the_browser_would_see_what_leads_out(tmp_path: Path) -> None:
    """The test above sees a window that opens, and a script that runs."""
    page = tmp_path / "page.html"
    page.write_text(
        "<script>pwned = 1</script><a href='https://evil.example/'>x</a>"
        "<button class=modebar-btn onclick=\"window.open('http://127.0.0.1:9/x')\">x</button>",
        encoding="utf-8",
    )
    with browser.opened(page, tmp_path / "profile") as tab:
        assert tab.run("typeof pwned") == "number"
        assert tab.run("document.querySelectorAll('[href]').length") == 1
        tab.run(WATCH)
        assert tab.run("windows") == ["http://127.0.0.1:9/x"]
        tab.run("document.querySelector('a').click()")
        assert tab.of("Page.frameRequestedNavigation")


def test_a_report_without_anything_hostile_is_as_before(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", n=40)
    (run.path / "validation.json").write_text(
        json.dumps(undigested(document(run))), encoding="utf-8"
    )
    text = write_report(run.path).read_text(encoding="utf-8")
    assert "@body@" not in text and "@script@" not in text and "@hashes@" not in text
