"""Traces that a run keeps, and the section of its report on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from phonenas import devices
from phonenas.devices.node_times import NodeTime
from phonenas.report import write_report
from phonenas.report.node_trace import TracedNode, TracedPart
from phonenas.report.traces import FILE, KeptTrace, keep_trace, read_traces
from phonenas.search.run_folder import load
from phonenas.space.errors import UnsupportedFormat
from tests.cli.test_app import Run
from tests.report.test_node_trace import NETWORK, Profiled, run
from tests.report.test_plots import made_run

__all__ = ["run"]


def kept(network: str = "net<work>", nodes: int = 3, origin: str = "measured") -> KeptTrace:
    """`nodes` nodes of 1, 2, ... ms; the first two belong to the two parts, the others to none."""
    ran = tuple(
        TracedNode(
            NodeTime(f"node{i}", "Conv", "CPU", float(i), 0.0, float(i)), (f"Conv {i}",), part
        )
        for i, part in zip(range(1, nodes + 1), [0, 1, *[None] * nodes], strict=False)
    )
    parts = (TracedPart("conv_a", 3.0, 1.0), TracedPart("conv_b", 1.0, 2.0))
    parts += (TracedPart("add", 0.0, None),)
    where = ("local", "float32", origin)
    return KeptTrace(network, *where, 5, "median", 8.0, 10.0, ran, parts)


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_the_report_has_the_runtimes_shares_beside_the_models(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    assert "Where the time goes" not in page_of(run.path)
    keep_trace(run, kept())
    text = page_of(run.path)
    assert "Where the time goes" in text and "net&lt;work&gt;</code> on local" in text
    assert "● 8.000 ms a run, ● 10.000 ms under the profiler: ● 6.000 ms in 3 nodes" in text
    assert "4.000 ms between them or taken by other programs (medians of 5 runs)" in text
    rows = [
        ("conv_a", "○ 3.000", "75.0%", "● 1.000", "16.7%"),
        ("conv_b", "○ 1.000", "25.0%", "● 2.000", "33.3%"),
        ("add", "○ 0.000", "0.0%", "in another part", "–"),
        ("1 node of no part", "–", "–", "● 3.000", "50.0%"),
        ("node3", "Conv", "CPU", "● 3.000", "50.0%", "Conv 3"),
    ]
    for first, *others in rows:
        assert f"<th>{first}</th>" + "".join(f"<td>{c}</td>" for c in others) in text


def test_many_nodes_are_summed_and_nothing_is_lost(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    keep_trace(run, replace(kept(nodes=40), parts=(), nodes=unplaced(40)))
    text = page_of(run.path)
    assert "<th>28 further nodes</th><td>–</td><td>–</td><td>● 406.000</td><td>49.5%</td>" in text
    assert "<th>node29</th>" in text and "<th>node28</th>" not in text


def unplaced(count: int) -> tuple[TracedNode, ...]:
    return tuple(replace(n, part=None) for n in kept(nodes=count).nodes)


def test_a_simulated_one_is_no_measured_one(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    keep_trace(run, kept(origin="simulated"))
    section = page_of(run.path).partition("Where the time goes")[2].partition("<h3>")[2]
    assert "◌ 8.000 ms a run" in section and "● 8.000" not in section


def test_one_of_the_same_network_device_and_precision_takes_its_place(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    int8 = replace(kept(), precision="int8")
    for trace in (kept(), kept("other"), replace(kept(), runs=7), int8):
        keep_trace(run, trace)
    assert [(t.network, t.precision, t.runs) for t in read_traces(run)] == [
        ("other", "float32", 5),
        ("net<work>", "float32", 7),
        ("net<work>", "int8", 5),
    ]
    for number in range(50):
        keep_trace(run, kept(f"n{number}"))
    assert [t.network for t in read_traces(run)] == [f"n{number}" for number in range(50)]


@pytest.mark.fault(
    "traces.json in a run's folder was changed, or is of another run.",
    "`traces.json is damaged: it was changed since phonenas wrote it`, or `is of another run`",
    "Remove it, or trace again; the report is written without it, and says so.",
)
def test_a_file_that_is_damaged_or_of_another_run(tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "other", seed=8)
    path = keep_trace(run, kept())
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("conv_a", "conv_c"), encoding="utf-8")
    with pytest.raises(UnsupportedFormat, match="was changed since phonenas wrote it"):
        read_traces(run)
    with pytest.raises(UnsupportedFormat, match="was changed since phonenas wrote it"):
        keep_trace(run, kept())  # what is damaged is not overwritten
    assert "was changed since phonenas wrote it" in page_of(run.path)
    path.write_text(text, encoding="utf-8")
    assert read_traces(run) == (kept(),)
    (other.path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(UnsupportedFormat, match="is of another run"):
        read_traces(other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"runs": 0}, "nodes and runs"),
        ({"nodes": ()}, "nodes and runs"),
        ({"parts": ()}, "a part that is not there"),
    ],
)
def test_what_is_no_trace_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(kept(), **change)  # type: ignore[arg-type]


def test_the_command_keeps_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "my run", device="fake")
    monkeypatch.setattr(devices, "connect", lambda name, threads=None: Profiled())
    words = ("trace", str(NETWORK), "--device", "fake", "--runs", "3")
    code, out, _ = run(*words, "--run", "my run")
    assert code == 0 and "\nThe run keeps it; show it:  phonenas report 'my run'\n" in out
    (found,) = read_traces(load(tmp_path / "my run"))
    assert found.network == str(NETWORK) and (found.plain_ms, found.profiled_ms) == (0.9, 1.0)
    assert [n.time.ms for n in found.nodes] == [0.3, 0.1]
    assert json.loads(run(*words, "--run", "my run", "--json")[1])["run"] == "my run"
    made_run(tmp_path / "other")
    code, out, err = run(*words, "--run", "other")
    assert code == 2 and "other is a run for local, and its report shows no trace of fake" in err
    assert not (tmp_path / "other" / FILE).exists()
    code, out, err = run(*words, "--run", "nowhere")
    assert code == 2 and "nowhere" in err and not Path("nowhere").exists()
