"""The report: one file that holds all it shows, honest about what was not measured."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import servers
from fakes import undigested
from patience import PATIENCE_S

from phonenas.cli.progress import Bars
from phonenas.report import read_validation, write_report
from phonenas.search.evaluations import Generation
from phonenas.search.loop import Evaluated
from phonenas.search.run_folder import Loaded, RunFolder
from phonenas.space.errors import UnknownName, UnsupportedFormat
from tests.report.test_plots import document, made_run

EVIL = "<script>alert(1)</script>"
LOADS = {"src", "href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """Text, tags and what would be loaded, scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.within = tag
        self.loads += [f"{tag} {k}={v}" for k, v in attrs if k in LOADS]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts.append(data)
        elif self.within != "style":
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def put(run: Loaded, validation: dict[str, Any]) -> None:
    (run.path / "validation.json").write_text(json.dumps(undigested(validation)), encoding="utf-8")


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    run = made_run(tmp_path_factory.mktemp("runs") / "pixel")
    put(run, document(run))
    return run


@pytest.fixture(scope="module")
def page(validated: Loaded) -> Page:
    return Page(write_report(validated.path).read_text(encoding="utf-8"))


def test_one_file_that_loads_nothing(validated: Loaded, page: Page) -> None:
    assert {p.name for p in validated.path.iterdir()} == {
        "run.json",
        "checkpoint.npz",
        "evaluations.parquet",
        "log.csv",
        "validation.json",
        "report.html",
    }
    assert page.loads == []
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    text = (validated.path / "report.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in text
    assert page.tags.count("script") == 2


def test_headline_gives_the_best_as_measured(validated: Loaded, page: Page) -> None:
    networks = document(validated)["networks"]
    good = [v for v in networks if v["meets_target"]]
    best = max(good, key=lambda v: v["top1"])
    assert 0 < len(good) < len(networks)
    assert "Networks for local" in page.text
    assert "The target is 8.40 ms , given as mobilenet-v2" in page.text
    assert f"the most accurate is network {best['id']}" in page.text
    assert f"○ {best['predicted_ms']:.2f} ms" in page.text
    assert f"measured ● {best['measured_ms']:.2f} ms" in page.text
    assert f"{len(good)} of 5 validated meet the target as measured" in page.text
    inside = sum(v["inside"] for v in networks)
    assert f"{inside} of 5 measured inside their 90 % interval" in page.text


def test_tables_hold_every_number(validated: Loaded, page: Page) -> None:
    found = document(validated)
    for v in found["networks"]:
        assert v["block_args"] in page.text
        assert f"● {v['measured_ms']:.2f} ± 1.2%" in page.text
        assert f"○ {v['predicted_ms']:.2f} ({v['low_ms']:.2f} to {v['high_ms']:.2f})" in page.text
    for name, values in found["model"]["scores"].items():
        assert f"{values['mape']:.1%}" in page.text, name
    for words in (
        "raw lookup-table sum",
        "MACs baseline",
        "Spearman",
        "Kendall",
        "within ±5 %",
        *map(str, found["conditions"].values()),
        found["verdict"]["text"],
        "rejected readings 12",
        "2500 operators and 60 networks",
        "16-epoch schedule of Accel-NASBench, not full training",
        "does not predict ImageNet accuracy",
        "extrapolation",
        "version",
        "phonenas search --device local --space mnasnet --resolution 224 --strategy nsga2 "
        "--target mobilenet-v2 --evaluations 600 --seed 7 --out",
    ):
        assert words in page.text, words


def test_the_same_search_again_names_the_model_of_the_run(tmp_path: Path) -> None:
    run = made_run(tmp_path / "r")
    (run.path / "model.json").unlink(missing_ok=True)
    out = tmp_path / "page.html"
    assert " --model " not in Page(write_report(run.path, out).read_text(encoding="utf-8")).text
    (run.path / "model.json").write_text("{}")
    text = Page(write_report(run.path, out).read_text(encoding="utf-8")).text
    assert f"--out {run.path} --model {run.path / 'model.json'}" in text


def test_the_same_search_again_has_the_settings_of_its_strategy(tmp_path: Path) -> None:
    for population, said in ((100, 0), (40, 1)):
        run = made_run(tmp_path / str(population), population=population)
        text = Page(write_report(run.path).read_text(encoding="utf-8")).text
        assert text.count("--set population=40") == said and text.count("--set") == said
        assert f"population {population}" in text


def test_the_same_search_again_has_its_rules_and_says_what_it_started_from(tmp_path: Path) -> None:
    run = made_run(tmp_path / "r", patience=50, time_s=90.5, start_from="3 networks (0123456789ab)")
    text = Page(write_report(run.path).read_text(encoding="utf-8")).text
    assert "--seed 7 --patience 50 --time 90.500000s --out" in text
    assert "with the same model, from the same 3 networks (0123456789ab) (--start-from):" in text


def test_before_validation_it_says_what_is_missing(tmp_path: Path) -> None:
    run = made_run(tmp_path / "my run", target_ms=None)
    out = write_report(run.path, tmp_path / "elsewhere" / "page.html")
    page = Page(out.read_text(encoding="utf-8"))
    assert out == tmp_path / "elsewhere" / "page.html" and not (run.path / "report.html").exists()
    assert page.text.count(f"phonenas validate '{run.path}' --device local") == 1
    assert "No target was set" in page.text and "Nothing has been measured yet" in page.text
    assert '"front":' in page.scripts[-1] and '"calibration":' not in page.scripts[-1]


def test_none_meets_the_target(validated: Loaded, tmp_path: Path) -> None:
    run = made_run(tmp_path / "slow")
    found = document(run)
    for v in found["networks"]:
        v |= {"meets_target": False}
    put(run, found)
    text = Page(write_report(run.path).read_text(encoding="utf-8")).text
    fastest = min(found["networks"], key=lambda v: v["measured_ms"])
    assert "None of the 5 validated networks meets it" in text
    assert f"The fastest is network {fastest['id']}" in text
    assert "0 of 5 validated meet the target" in text


def test_text_of_the_data_is_text_in_the_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "evil", target=EVIL)
    found = document(run)
    found |= {"device": EVIL, "at": EVIL, "verdict": {"text": EVIL}}
    found["conditions"] |= {"model": EVIL, EVIL: EVIL}
    found["networks"][0] |= {"block_args": EVIL}
    text = (run.path / "run.json").read_text(encoding="utf-8")
    own = run.front.candidates[found["networks"][0]["id"]].block_args
    changed = undigested(json.loads(text.replace(own, EVIL)))
    (run.path / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    found["networks"][0]["operators"][3] |= {"label": EVIL}
    found["model"] |= {"date": EVIL}
    put(run, found)
    text = write_report(run.path).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2
    assert EVIL not in text
    assert html.escape(EVIL) in text


def test_little_is_enough(tmp_path: Path) -> None:
    run = made_run(tmp_path / "bare")
    found = document(run, top=1)
    keys = (
        "id",
        "block_args",
        "top1",
        "predicted_ms",
        "low_ms",
        "high_ms",
        "measured_ms",
        "spread",
        "error",
    )
    bare = {"format": "phonenas-validation", "version": 1}
    put(run, bare | {"networks": [{k: found["networks"][0][k] for k in keys}], "new": [1]})
    page = Page(write_report(run.path).read_text(encoding="utf-8"))
    assert "no verdict was given" in page.text and "has no times by operator" in page.text
    put(run, bare | {"networks": []})
    assert "phonenas validate" in write_report(run.path).read_text(encoding="utf-8")


@pytest.mark.fault(
    "A run's validation.json is damaged, newer, or another file.",
    "`is damaged`; `has version …; this phonenas reads versions 1 to 2`; `is not a validation`",
    "Validate again: the store holds the measurements.",
)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": "phonenas-validation", "version": 3}', "has version 3.*reads versions 1 to 2"),
        ('{"format": "phonenas-validation", "version": 2}', "its digest is another"),
        ('{"format": "other", "version": 1}', "is not a validation"),
        ("[1]", "is not a validation"),
        (
            '{"format": "phonenas-validation", "version": 1, "networks": [], "verdict": "good"}',
            "is damaged",
        ),
        ('{"format": "phonenas-', "is damaged"),
        (
            '{"format": "phonenas-validation", "version": 1}',
            "is damaged: .*missing required field networks",
        ),
        ('{"format": "phonenas-validation", "version": 1, "networks": [{"id": 1}]}', "is damaged"),
        (
            '{"format": "phonenas-validation", "version": 1, "networks": [], "model": {"examined": '
            '[["x", 1]]}}',
            "is damaged",
        ),
    ],
)
def test_what_it_cannot_read_is_refused(tmp_path: Path, content: str, words: str) -> None:
    run = made_run(tmp_path / "run", n=50, target_ms=None)
    (run.path / "validation.json").write_text(content, encoding="utf-8")
    with pytest.raises(UnsupportedFormat, match=words) as caught:
        write_report(run.path)
    assert "phonenas validate" in str(caught.value)
    assert not (run.path / "report.html").exists()


@pytest.mark.fault(
    "validation.json is that of another run.",
    "`names networks that the front of this run does not hold`",
    "Validate again.",
)
def test_a_validation_of_another_run_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    found = document(run)
    found["networks"][0]["id"] = 999
    put(run, found)
    with pytest.raises(UnsupportedFormat, match="does not hold"):
        write_report(run.path)


def with_rounds(run: Loaded) -> dict[str, Any]:
    """A validation in two rounds, as `phonenas validate --rounds 2` merges them."""
    found = document(run)
    v = found["networks"][0]
    rounds = [
        {
            "round": 1,
            "folder": str(run.path),
            "networks": found["networks"],
            "front": 40,
            "score": {"mape": 0.061},
            "expected_to_meet": 3.7,
            "meet": 2,
            "changed": None,
        },
        {
            "round": 2,
            "folder": f"{run.path}/round2",
            "networks": [v],
            "front": 38,
            "score": {"mape": 0.017},
            "expected_to_meet": 0.9,
            "meet": 1,
            "changed": {"number": 2, "shift": 0.034, "stayed": 30, "joined": 8, "left": 10},
        },
    ]
    best = [{**v, "id": 4, "round": 2, "name": f"{run.path}/round2:4", "reward": 0.7}]
    return {**found, "rounds": rounds, "best": best, "stopped": ""}


def test_rounds_are_shown(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    found = with_rounds(run)
    put(run, found)
    text = Page(write_report(run.path).read_text(encoding="utf-8")).text
    for words in (
        "round 1 the search's own – 5 3.7 2 of 5 6.1%",
        "round 2 8 joined, 10 left +3.4% 1 0.9 1 of 1 1.7%",
        f"{run.path}/round2:4",
        f"phonenas report {run.path}/round2",
    ):
        assert words in text, words
    assert "No further round" not in text
    put(run, found | {"stopped": EVIL})
    page = write_report(run.path).read_text(encoding="utf-8")
    assert EVIL not in page and "No further round" in page
    put(run, found | {"rounds": [{"round": 1}]})
    with pytest.raises(UnsupportedFormat, match="damaged: .*networks.*phonenas validate"):
        write_report(run.path)


def test_what_is_damaged_beside_the_run_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = made_run(tmp_path / "run")
    put(run, document(run))
    made_run(run.path / "round2")
    write_report(run.path)
    assert caplog.messages == []
    made_run(run.path / "round3")
    damaged = [
        run.path / "model.json",
        run.path / "round2" / "run.json",
        run.path / "round2" / "validation.json",
        run.path / "round3" / "model.json",
    ]
    for path in damaged:
        path.write_text(f'{{"format": "{EVIL}', encoding="utf-8")
    (run.path / "checkpoint.npz").unlink()
    page = write_report(run.path).read_text(encoding="utf-8")
    text = Page(page).text
    assert len(caplog.messages) == 5
    for path, message in zip(damaged, caplog.messages, strict=False):
        assert str(path) in message and str(path) in text
    assert caplog.messages[4].startswith(f"{run.path / 'checkpoint.npz'} is missing")
    assert "neither drawn nor counted" in text
    assert EVIL not in page


def test_a_simulated_origin_is_marked(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    found = document(run)
    put(run, found | {"conditions": found["conditions"] | {"origin": "imported"}})
    page = Page(write_report(run.path).read_text(encoding="utf-8"))
    assert "IMPORTED. No device was measured for the times on this page." in page.text
    assert "●" not in page.text and "◌" in page.text
    shown = page.text.replace("No device was measured for the times", "")
    assert not re.findall(r"\bmeasured\b", shown)


def test_the_log_is_shown(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    assert "How it went" not in write_report(run.path).read_text(encoding="utf-8")
    stopped = RunFolder(run.path, run.settings).checkpoint()
    assert stopped is not None
    log = [(20.0 * i, 3.0, 0.01 * i, 5.25, 0.613, 0.1 * i) for i in range(1, 31)]
    log[0] = (20.0, 3.0, float("nan"), 5.25, 0.613, 0.1)
    rows = tuple(Generation(*row) for row in log)  # type: ignore[arg-type]
    RunFolder(run.path, run.settings).save(replace(stopped, log=rows, repeats=3))
    text = Page(write_report(run.path).read_text(encoding="utf-8")).text
    assert "How it went" in text and "11 of 30 generations" in text
    assert "20 3 – ○ 5.25 ○ 61.3% 0.1" in text
    assert "600 3 0.3000 ○ 5.25 ○ 61.3% 3.0" in text


def test_progress_of_a_search_tells_what_is_left() -> None:
    told = io.StringIO()
    with Bars(stream=told) as bars:
        bars.searching(Evaluated(100, 1000, 0, 5.25, 0.613, 0.1234567, 8.0))
        bars._line_s -= 11  # as if ten seconds had passed
        bars.searching(Evaluated(400, 1000, 1234, 4.5, 0.62, None, 11.0))
        bars._line_s -= 11
        bars.searching(Evaluated(1000, 1000, 1500, 4.5, 0.63, 0.2, 17.0))
        bars._line_s -= 11
        bars.searching(Evaluated(50, 500, 0, 4.5, 0.63, 0.2, 1.0))  # the next search
    first, second, last, other = told.getvalue().splitlines()
    assert first == (
        "searching: 100 of 1,000 networks, hypervolume 0.1235; fastest ○ 5.25 ms, "
        "best top-1 ○ 61.3%"
    )
    assert "400 of 1,000 networks, 1,234 known already, 6 s left" in second
    assert "hypervolume" not in second and "left" not in last and "left" not in other


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        write_report(tmp_path / "none")
    assert read_validation(tmp_path) is None


@pytest.mark.browser
def test_a_browser_draws_it(validated: Loaded, page: Page, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        servers.missing("chromium is not installed")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,2000",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (validated.path / "report.html").resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    # plotly.js itself holds these words as strings; what was drawn stands before it.
    dom = done.stdout.split("<noscript>")[1].split("<script")[0]
    for plot in ("front", "calibration", "operators"):
        assert f'id="{plot}" class="plot js-plotly-plot"' in dom
    assert len(re.findall(r'class="main-svg"', dom)) >= 3
    assert len(re.findall(r'class="trace scatter', dom)) == 4 + 3 + 1
    assert len(re.findall(r'class="trace bars"', dom)) == 8
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Uncaught" in line]
    assert console == []
