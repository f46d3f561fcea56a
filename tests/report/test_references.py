"""Known networks beside a front: which, what was gained over them, and where that is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from phonenas.report import measured_in, write_report
from phonenas.report.networks import Timing, Top1
from phonenas.report.references import (
    FILE,
    Reference,
    beside,
    gain_sentence,
    read_references,
    reference_rows,
    write_references,
)
from phonenas.search.pareto import Candidate, ParetoFront
from phonenas.space import Architecture, zoo
from phonenas.space.errors import UnsupportedFormat
from tests.report.test_plots import document, made_run
from tests.report.test_run import Page, put


def candidate(id: int, ms: float, top1: float, outside: bool = False) -> Candidate:
    text = str(zoo.network("mnasnet-a1"))
    return Candidate(id, text, top1, 0.006, outside, ms, ms / 1.07, ms * 1.07, True, 3, 4)


FRONT = ParetoFront(
    (candidate(0, 5.0, 0.62), candidate(1, 7.0, 0.65), candidate(2, 8.0, 0.66, True)), 8.0, "8", 0.6
)
MS = {"mnasnet-small": 2.0, "mnasnet-b1": 7.5, "mobilenet-v2": 7.2, "mnasnet-a1": 4.0}
TOP1 = {"mnasnet-small": 0.59, "mnasnet-b1": 0.64, "mobilenet-v2": 0.632, "mnasnet-a1": 0.647}
NETWORKS = {name: zoo.network(name) for name in [*MS, "single-path-nas"]}


def name_of(network: Architecture) -> str:
    return next(n for n, known in NETWORKS.items() if known == network)


def time_of(network: Architecture) -> Timing:
    ms = MS.get(name_of(network))
    if ms is None:
        return Timing("local", reason="not covered")
    if name_of(network) == "mobilenet-v2":
        return Timing("local", measured_ms=ms, spread=0.01)
    return Timing("local", predicted_ms=ms, low_ms=ms / 1.1, high_ms=ms * 1.1)


def top1_of(network: Architecture) -> Top1 | None:
    top1 = TOP1.get(name_of(network), 0.6)
    return Top1(top1, 0.008, "surrogate-1", "surrogate")


def known(front: ParetoFront = FRONT) -> tuple[Reference, ...]:
    return beside(front, NETWORKS.items(), time_of, top1_of)


def test_networks_of_like_size_with_a_latency() -> None:
    """2 ms is far from a front of 5 to 8, and single-path-nas has no time."""
    found = known()
    assert [r.name for r in found] == ["mnasnet-a1", "mobilenet-v2", "mnasnet-b1"]
    assert [r.measured for r in found] == [False, True, False]
    a1, v2, b1 = found
    assert (a1.candidate, a1.gain) == (None, None)  # none of the front is that fast
    assert (v2.candidate, b1.candidate) == (1, 1)
    assert v2.gain == pytest.approx(0.018) and v2.gain_error == pytest.approx(0.01)
    assert v2.bounds == pytest.approx((1.8 - 1.6449, 1.8 + 1.6449))
    assert (v2.low_ms, v2.high_ms) == pytest.approx((7.2 / 1.01, 7.2 * 1.01))
    assert beside(FRONT, NETWORKS.items(), time_of, lambda _: None) == ()
    assert beside(ParetoFront((), None, "", 0.0), NETWORKS.items(), time_of, top1_of) == ()


def test_the_sentence_is_about_the_target_else_the_most_accurate_within_it() -> None:
    assert gain_sentence(FRONT, known()) == (
        "Network 1: 1.0 points over mnasnet-b1 at its latency (predicted; 90 %: -0.6 to 2.6, "
        "so that it is not clear which is more accurate)"
    )
    named = replace(FRONT, target="mobilenet-v2")
    assert gain_sentence(named, known()) == (
        "Network 1: 1.8 points over mobilenet-v2 at its latency (predicted; 90 %: 0.2 to 3.4)"
    )
    tight = replace(FRONT, target_ms=7.3)
    assert "over mobilenet-v2 at its latency" in gain_sentence(tight, known())
    loose = tuple(
        replace(r, latency_ms=9.0, candidate=2, gain=-0.01, gain_error=0.01) for r in known()
    )
    assert gain_sentence(FRONT, loose).startswith("Network 2: 1.0 points below mnasnet-a1")
    assert "its top-1 is an extrapolation" in gain_sentence(FRONT, loose)
    assert gain_sentence(FRONT, ()) == ""


def test_measured_beside_measured() -> None:
    """The most accurate network of the front was not measured; another was, and is no slower."""
    rows = {"": [{"id": 0, "measured_ms": 5.2}, {"id": 1, "measured_ms": 7.4}]}
    named = replace(FRONT, target="mobilenet-v2")
    assert gain_sentence(named, known(), rows) == (
        "Network 0: 1.2 points below mobilenet-v2 at its latency (measured; 90 %: -2.8 to 0.4, "
        "so that it is not clear which is more accurate)"
    )
    assert "(predicted;" in gain_sentence(FRONT, known(), rows)  # mnasnet-b1 is not measured


def test_of_several_devices_it_is_measured_where_it_is_on_each() -> None:
    """Network 0 is no slower than the known network on both, network 1 on one of them alone."""
    several = [
        replace(c, values={"latency:local": c.latency_ms, "latency:b": 2 * c.latency_ms})
        for c in FRONT.candidates
    ]
    front = replace(FRONT, candidates=tuple(several), target="mobilenet-v2")
    (v2,) = [r for r in known() if r.name == "mobilenet-v2"]
    both = ("latency:local", "latency:b")
    r = replace(v2, latencies=dict(zip(both, (7.2, 14.4), strict=True)), measured_on=both)
    rows = {
        "latency:local": [{"id": 0, "measured_ms": 5.2}, {"id": 1, "measured_ms": 7.1}],
        "latency:b": [{"id": 0, "measured_ms": 10.0}, {"id": 1, "measured_ms": 14.5}],
    }
    assert gain_sentence(front, [r], rows) == (
        "Network 0: 1.2 points below mobilenet-v2 at its latency on each device (measured; 90 %: "
        "-2.8 to 0.4, so that it is not clear which is more accurate)"
    )
    one = {n: v for n, v in rows.items() if n == "latency:local"}
    predicted = "Network 1: 1.8 points over mobilenet-v2 at its latency on each device (predicted;"
    assert gain_sentence(front, [r], one).startswith(predicted)  # not validated on b
    here = replace(r, measured_on=("latency:local",))
    assert gain_sentence(front, [here], rows).startswith(predicted)


def test_a_table_for_a_terminal() -> None:
    a1, v2, _ = reference_rows(known(), "◌")
    assert a1[1:4] == ["○ 4.00 ms", "3.64 to 4.40", "○ 64.7% ±0.8%"] and a1[-1] == "none that fast"
    assert v2[1] == "◌ 7.20 ms" and v2[-1] == "+1.8 (+0.2 to +3.4), network 1"
    assert v2[-2] == "72.0%"  # Sandler et al., MobileNetV2


def test_each_time_of_several_devices_says_where_it_is_from() -> None:
    several = [
        replace(c, values={"latency:local": c.latency_ms, "latency:b": c.latency_ms})
        for c in FRONT.candidates
    ]
    front = replace(FRONT, candidates=tuple(several))

    def on_b(network: Architecture) -> Timing:
        if name_of(network) == "mnasnet-a1":
            return Timing("b", measured_ms=3.0, spread=0.01)
        return Timing("b", predicted_ms=6.0, low_ms=5.0, high_ms=7.0)

    found = beside(front, NETWORKS.items(), time_of, top1_of, {"latency:b": on_b})
    a1, v2, b1 = reference_rows(found)
    assert (a1[1], a1[3]) == ("○ 4.00 ms", "● 3.00 ms")
    assert (v2[1], v2[3]) == ("● 7.20 ms", "○ 6.00 ms")
    assert (b1[1], b1[3]) == ("○ 7.50 ms", "○ 6.00 ms")


def test_written_read_and_on_the_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    found = known(run.front)
    assert found and read_references(run) == ()
    write_references(run.path, run.settings, found, "16 epochs")
    assert read_references(run) == found
    put(run, document(run))
    page = Page(write_report(run.path).read_text(encoding="utf-8"))
    rows = document(run)["networks"]
    assert gain_sentence(run.front, found, {"": rows}) in page.text
    assert "at its latency (measured; 90 %" in page.text
    assert "Known networks beside it" in page.text and "known networks" in page.scripts[-1]
    assert all(r.name in page.text and f"{r.latency_ms:.2f}" in page.text for r in found)
    # What else prints the sentence finds the same measurements, unless they are damaged.
    there = measured_in(run)
    assert [(v["id"], v["measured_ms"]) for v in there[""]] == [
        (v["id"], v["measured_ms"]) for v in rows
    ]
    (run.path / "validation.json").write_text("{}")
    assert measured_in(run) == {}


@pytest.mark.fault(
    "references.json in a run's folder was changed, or is of another run.",
    "`references.json is damaged: it was changed since phonenas wrote it`, or `is of another run`",
    "Remove it, or search again; the report is written without it, and says so.",
)
def test_a_list_that_is_damaged_or_of_another_run(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    path = write_references(run.path, run.settings, known(), "")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("mobilenet-v2", "mobilenet-v9"), encoding="utf-8")
    with pytest.raises(UnsupportedFormat, match="was changed since phonenas wrote it"):
        read_references(run)
    page = Page(write_report(run.path).read_text(encoding="utf-8"))
    assert "was changed since phonenas wrote it" in page.text
    write_references(run.path, {**run.settings, "seed": 8}, known(), "")
    with pytest.raises(UnsupportedFormat, match="is of another run"):
        read_references(run)
    content = json.loads(text)
    assert content["references"][0]["gain"] is None and not math.isnan(content["version"])
    assert path.name == FILE
