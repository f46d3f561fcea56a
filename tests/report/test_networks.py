"""Networks side by side: what error bars tell apart, which scales compare, and the page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import pytest

from phonenas.data.measurement import Conditions, Measurement, Round
from phonenas.report.networks import (
    Compared,
    NetworkRow,
    Timing,
    Top1,
    alike,
    measured_timing,
    ratio_of,
    scored,
    top1_gain,
)
from phonenas.report.networks_page import networks_page
from phonenas.report.networks_text import as_json, reasons, sentences
from tests.report.test_hostile import EVIL, OURS, texts
from tests.report.test_run import Page

AT, LATER = "2026-11-30T10:00:00+00:00", "2026-11-30T12:00:00+00:00"


def predicted(ms: float, half: float = 0.08, **more: Any) -> Timing:
    ends = {"predicted_ms": ms, "low_ms": ms / (1 + half), "high_ms": ms * (1 + half)}
    return Timing("local", "float32", **{**ends, "basis": "kernels", "covered": True, **more})


def measured(ms: float, spread: float | None = 0.02, at: str = AT, **more: Any) -> Timing:
    return Timing("local", "float32", measured_ms=ms, spread=spread, at=at, **more)


def row(name: str, *timings: Timing, macs: int = 300_000_000, **more: Any) -> NetworkRow:
    return NetworkRow(name, "text", macs, 4_000_000, 224, 1000, timings=timings, **more)


def both(ms: float, guess: float, half: float = 0.08, **more: Any) -> Timing:
    return replace(predicted(guess, half), measured_ms=ms, spread=0.02, at=AT, **more)


@pytest.mark.parametrize(
    ("first", "other", "sign", "basis"),
    [
        # Two errors of 8 % each: 1.08^√2 = 1.115.
        (predicted(10.0), predicted(11.0), 0, "predicted"),
        (predicted(10.0), predicted(11.3), 1, "predicted"),
        (predicted(11.3), predicted(10.0), -1, "predicted"),
        # Two of 2 %: 1.028.
        (measured(10.0), measured(10.2), 0, "measured"),
        (measured(10.0), measured(10.4), 1, "measured"),
        # Two jobs, with 4 % between them: 1.05.
        (measured(10.0), measured(10.4, at=LATER), 0, "measured"),
        (measured(10.0), measured(10.6, at=LATER), 1, "measured"),
        # One round says nothing of its error: 10 %.
        (measured(10.0, None), measured(11.0, None), 0, "measured"),
        # Predictions of one model compare, although one network was measured.
        (both(20.0, 10.0), predicted(11.3), 1, "predicted"),
        (measured(10.0), predicted(10.9), 1, "mixed"),
        (measured(10.0), predicted(10.7), 0, "mixed"),
    ],
)
def test_what_error_bars_tell_apart(first: Timing, other: Timing, sign: int, basis: str) -> None:
    ratio = ratio_of(first, other)
    assert ratio is not None and (ratio.sign, ratio.basis) == (sign, basis)
    assert ratio.low < ratio.times < ratio.high
    assert ratio.verdict == {-1: "faster", 0: "not told apart", 1: "slower"}[sign]


def test_the_ratio_and_its_interval() -> None:
    ratio = ratio_of(measured(10.0, 0.03), measured(20.0, 0.04))
    assert ratio is not None
    half = math.hypot(math.log(1.03), math.log(1.04))
    assert (ratio.times, ratio.high) == pytest.approx((2.0, 2.0 * math.exp(half)))
    assert ratio_of(Timing("local"), measured(1.0)) is None
    assert ratio_of(measured(1.0), Timing("local", reason="none")) is None


def test_two_scales_of_top1_are_not_compared() -> None:
    published = Top1.published(75.0, "a paper")
    assert published.error == pytest.approx(math.sqrt(0.75 * 0.25 / 50_000))
    short = Top1(0.65, 0.003, "surrogate-1", "surrogate")
    a, b = row("a", published=published), row("b", published=Top1.published(74.0, "another"))
    gain = top1_gain(a, b)
    assert gain is not None and gain[0] == pytest.approx(0.01) and gain[2] == "published"
    assert top1_gain(a, row("c", estimated=short)) is None
    other = replace(short, schedule="surrogate-2")
    assert top1_gain(row("c", estimated=short), row("d", estimated=other)) is None
    both_ways = top1_gain(row("c", estimated=short, published=published), row("d", estimated=short))
    assert both_ways is not None and both_ways[2] == "estimated"
    full = Top1(0.74, 0.006, "full schedule", "imagenet")
    mixed = top1_gain(a, row("e", estimated=full))
    assert mixed is not None and mixed[2] == "mixed" and mixed[0] == pytest.approx(0.01)


def compared(**names: Any) -> Compared:
    rows = [
        row("first", both(10.0, 10.5), published=Top1.published(75.0, "a paper")),
        row("same macs", both(15.0, 14.7), macs=310_000_000),
        row("fitted", both(9.0, 9.0, fitted_on=True), macs=900_000_000),
        row("guess", predicted(30.0), macs=1_000_000_000),
        NetworkRow("nope", timings=(Timing("local", reason="no network is called 'nope'"),)),
    ]
    return Compared(tuple(rows), ("local",), ("",), "16 epochs")


def test_equal_macs_and_other_latency() -> None:
    (pair,) = alike(compared(), 0)
    assert (pair.faster, pair.slower) == ("first", "same macs")
    assert pair.macs == (300_000_000, 310_000_000) and pair.ratio.times == pytest.approx(1.5)
    near = [row("a", predicted(10.0)), row("b", predicted(10.5))]
    assert alike(Compared(tuple(near), ("local",)), 0) == []


def test_the_score_counts_only_what_no_model_was_fitted_on() -> None:
    score = scored(compared(), 0)
    assert score is not None and score.n == 2
    assert score.mape == pytest.approx((0.05 + 0.02) / 2)
    said = " ".join(sentences(compared(), 0))
    assert "2 networks measured that the model was not fitted on: mean error 3.5%" in said
    assert "1 network of these was measured for the fit of the model, so no score of" in said
    assert "same macs takes 1.50 times as long as first" in said
    assert scored(Compared((row("a", predicted(1.0)),), ("local",)), 0) is None


def test_documents_hold_what_tables_show() -> None:
    json.dumps(document := as_json(compared()), allow_nan=False)
    last, second = document["networks"][-1], document["networks"][1]
    assert last["failed"] and last["timings"][0]["reason"] == "no network is called 'nope'"
    assert second["timings"][0]["against_the_first"]["verdict"] == "slower"
    assert document["devices"][0]["score"]["n"] == 2
    frame = compared().to_frame()
    assert frame.network.tolist() == ["first", "same macs", "fitted", "guess", "nope"]
    assert frame.than_the_first.fillna("").tolist() == ["", "slower", "faster", "slower", ""]
    assert frame.error[0] == pytest.approx(0.05) and frame.fitted_on[2]
    assert repr(compared()) == "Compared(5 networks: first, same macs, fitted, …; local)"


def test_a_reason_of_all_is_told_once() -> None:
    rows = [row(n, Timing("a", reason="no model"), predicted(1.0)) for n in ("x", "y")]
    assert reasons(Compared(tuple(rows), ("a", "b"))) == ["every network on a: no model"]


def test_a_measurement_as_a_timing() -> None:
    own: Mapping[str, Any] = {
        **dict.fromkeys(("device", "model", "fingerprint", "runtime", "runtime_version"), "x"),
        **dict.fromkeys(("runtime_hash", "provider", "optimisation", "cores", "governor"), "x"),
    }
    conditions = Conditions(threads=1, origin="simulated", **own)
    m = Measurement("network", "text", conditions, (Round((2.0,), at=AT),))
    timing = Timing(**measured_timing(m))
    assert (timing.measured_ms, timing.spread, timing.at) == (2.0, None, AT)
    assert timing.origin == "simulated"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page in which each text is hostile."""
    own = {"basis": EVIL, "precision": EVIL, "origin": EVIL, "notes": (EVIL,)}
    of_files = [
        row(
            EVIL + str(i),
            replace(both(10.0 + 3 * i, 11.0), **own),
            Timing(EVIL, reason=EVIL),
            published=Top1.published(75.0, EVIL),
            estimated=Top1(0.6, 0.01, EVIL, EVIL, True),
            no_estimate=EVIL,
        )
        for i in range(3)
    ]
    page = networks_page(Compared(tuple(of_files), (EVIL, EVIL + "2"), (EVIL, ""), EVIL))
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page, encoding="utf-8")
    return path


def test_every_text_is_text(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2 and page.loads == [] and page.handlers == []
    assert not {"a", "img", "form", "iframe", "object"} & set(page.tags)
    plots = re.search(r"const plots = (\{.*\});\n", page.scripts[-1])
    assert plots is not None
    drawn = texts(json.loads(plots[1]))
    assert any("&lt;" in t for t in drawn)
    assert not [t for t in drawn if "<" in OURS.sub("", t)]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and "default-src 'none'" in policy[1]


def test_the_page_shows_the_numbers() -> None:
    page = Page(networks_page(compared()))
    for words in (
        "5 networks compared",
        "Against first , the first, on local: 1 faster, 2 slower, 0 not told apart.",
        "nope: no network is called 'nope'",
        "● 15.00 ± 2.0%",
        "○ 14.70 (13.61 to 15.88)",
        "×1.50",
        "1 network of these",
        "+0.0% fitted on it",
    ):
        assert words in page.text, words


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_opens(tmp_path: Path, hostile: Path, width: int) -> None:
    plain = tmp_path / "plain.html"
    plain.write_text(networks_page(compared()), encoding="utf-8")
    for page in (plain, hostile):
        with browser.opened(page, tmp_path / f"{page.stem}{width}", width) as tab:
            assert tab.of("Log.entryAdded") == [] and tab.of("Runtime.exceptionThrown") == []
            assert tab.run("document.querySelectorAll('.plot svg').length") > 0
            assert tab.run("document.documentElement.scrollWidth") <= width
            assert tab.run("typeof pwned") == "undefined"
