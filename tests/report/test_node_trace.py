"""A runtime's own profile of a network: its nodes, what they consist of, the model's parts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from phonenas import devices
from phonenas.devices.node_times import NodeTime, Trace
from phonenas.devices.runtimes import worker
from phonenas.devices.runtimes.engine_onnxruntime import Engine
from phonenas.latency_model.graphs.onnx_cut import cut
from phonenas.latency_model.predicted import Explained
from phonenas.report.node_trace import chrome_document, traced
from phonenas.space import Architecture
from phonenas.space.lowering.write import write_network
from phonenas.testing import FakeDevice
from tests.cli.test_app import Run

# A convolution whose skip the runtime adds within it, and a squeeze.
NETWORK = Architecture.parse("r2_k3_s11_e2_i16_o16_se0.25 classes4 res32")
SETTINGS = {"threads": 1, "optimisation": "all", "provider": "CPUExecutionProvider"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHONENAS_DB", raising=False)
    return Run(capsys, monkeypatch)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(NETWORK, "onnx", tmp_path_factory.mktemp("file") / "n.onnx")


@pytest.fixture(scope="module")
def profile(file: Path) -> Trace:
    """By onnxruntime itself, in this process."""
    made: Any = object.__new__(worker.Bench)
    made.engine, made.provider = Engine(SETTINGS), "CPUExecutionProvider"
    found = made.trace(str(file), 2, 5)
    nodes = tuple(NodeTime(*n[:3], *(us / 1e3 for us in n[3:])) for n in found["nodes"])
    whole = (found[name] / 1e3 for name in ("plain_us", "profiled_us", "shown_us"))
    return Trace(nodes, 5, *whole)


def test_every_node_of_the_file_is_in_one_that_ran(file: Path, profile: Trace) -> None:
    import onnx

    nodes, parts = traced(profile, cut(file).steps, ())
    held = [name for n in nodes for name in n.consists_of]
    whole = [f"{n.op_type} {n.name}" for n in onnx.load(file).graph.node]
    # What only changes a shape is no kernel.
    assert sorted([*held, "Flatten 3.flatten"]) == sorted(whole) and parts == []
    by_name = {n.time.name: n for n in nodes}
    first = next(n for n in nodes if "Conv 0.conv" in n.consists_of)
    assert first.consists_of == ("Conv 0.conv", "Relu 0.conv_relu")
    assert {n.time.provider for n in nodes} == {"CPUExecutionProvider"} and len(by_name) > 10
    # What the runtime added is of no node of the file.
    added = {n.time.op for n in nodes if not n.consists_of}
    assert added <= {"ReorderInput", "ReorderOutput", "Flatten"}


def test_the_run_that_is_shown_holds_its_nodes(profile: Trace) -> None:
    assert profile.nodes_ms < 3 * profile.profiled_ms and profile.plain_ms > 0
    last_ms = 0.0
    for n in profile.nodes:
        assert last_ms <= n.start_ms + 1e-9 and n.shown_ms >= 0
        last_ms = n.start_ms
        assert n.start_ms + n.shown_ms <= profile.shown_ms + 0.01


def test_a_models_parts_stand_beside_the_nodes(file: Path, profile: Trace) -> None:
    steps = cut(file).steps
    by_kernels = [Explained(s.kernel, 0.5, 0.5, 0.4, 0.6, True, s.node) for s in steps]
    nodes, parts = traced(profile, steps, by_kernels)
    assert len(parts) == len(steps) and {p.model_ms for p in parts} == {0.5}
    known = [p.profiled_ms for p in parts if p.profiled_ms is not None]
    mine = sum(n.time.ms for n in nodes if n.part is not None)
    assert sum(known) == pytest.approx(mine) and mine > 0.5 * profile.nodes_ms
    by_operators = [Explained(o, 0.2, 0.2, 0.1, 0.3, True) for o in NETWORK.operators()]
    by_operators.append(Explained(None, 0.05, 0.0, 0.0, 0.0, False))
    nodes, parts = traced(profile, steps, by_operators)
    assert [p.key for p in parts] == [*(o.key for o in NETWORK.operators()), "(constant)"]
    of_first = [n.time.ms for n in nodes if n.time.name.startswith("1.")]
    assert parts[1].profiled_ms == pytest.approx(sum(of_first)) and len(of_first) > 2
    assert parts[-1].profiled_ms is None
    document = chrome_document(profile, nodes, parts, "n on d")
    events = document["traceEvents"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert {e["ph"] for e in events} == {"M", "X"}
    slices = [e for e in events if e["ph"] == "X"]
    assert all(e["dur"] >= 0 and e["ts"] >= 0 and {"pid", "tid", "name"} <= set(e) for e in slices)
    of_model = [e for e in slices if e["tid"] == 2]
    assert len(of_model) == len(parts)
    for before, after in itertools.pairwise(of_model):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"])
    one = next(e for e in slices if e["name"] == nodes[0].time.name)
    assert one["args"]["consists of"] == "Conv 0.conv, Relu 0.conv_relu"
    assert one["dur"] == pytest.approx(1e3 * nodes[0].time.shown_ms)


class Profiled(FakeDevice):
    """Its profiler sees two nodes, one of them on another provider."""

    def trace(self, model: Path, runs: int = 21) -> Trace:
        nodes = (
            NodeTime("0.conv_relu_nchwc", "Conv", "NPU", 0.3, 0.1, 0.31),
            NodeTime("own", "Reorder", "CPU", 0.1, 0.5, 0.1),
        )
        return Trace(nodes, runs, 0.9, 1.0, 1.1)


def test_the_command_prints_and_writes_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "connect", lambda name, threads=None: Profiled())
    words = ("trace", str(NETWORK), "--device", "fake", "--runs", "3")
    code, out, _ = run(*words, "--out", "t.json")
    lines = out.splitlines()
    assert code == 0
    assert "● 0.300" in lines[1] and "75.0%" in lines[1] and "NPU" in lines[1]
    # What no node of its own computes is part of the one before it, as a delegate takes a graph.
    assert "Conv 0.conv, Relu 0.conv_relu, Conv 1.expand, " in lines[1]
    assert lines[1].endswith("GlobalAveragePool 3.pool")
    assert "● 0.900 ms a run, ● 1.000 ms under the profiler: ● 0.400 ms in 2 nodes" in out
    assert "0.600 ms between them or taken by other programs (medians of 3 runs" in out
    assert "no time by the model: " in out and "https://ui.perfetto.dev" in out
    written = json.loads((tmp_path / "t.json").read_text())
    assert [e["name"] for e in written["traceEvents"] if e["ph"] == "X"] == [
        "run",
        "0.conv_relu_nchwc",
        "own",
    ]
    found = run.json(*words)
    assert [n["provider"] for n in found["nodes"]] == ["NPU", "CPU"]
    assert found["nodes"][0]["consists_of"][:2] == ["Conv 0.conv", "Relu 0.conv_relu"]
    assert (found["runs"], found["plain_ms"], found["trace"]) == (3, 0.9, None)


def test_a_device_without_a_profiler_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "connect", lambda name, threads=None: FakeDevice())
    code, _, err = run("trace", str(NETWORK), "--device", "fake")
    assert code == 2 and "fake: this device gives no profile of single nodes" in err


def test_what_is_no_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="a time below 0"):
        NodeTime("n", "Conv", "CPU", -0.1, 0.0, 0.0)
    with pytest.raises(ValueError, match="nodes and runs"):
        Trace((), 3, 1.0, 1.0, 1.0)


@pytest.mark.slow
def test_this_computer_traces_a_network(run: Run, tmp_path: Path) -> None:
    """The worker, its process and onnxruntime as a user has them."""
    pytest.importorskip("onnxruntime")
    out = tmp_path / "t.json"
    found = run.json("trace", str(NETWORK), "--runs", "5", "--out", str(out))
    assert found["conditions"]["runtime"] == "onnxruntime" and found["runs"] == 5
    assert 0 < found["plain_ms"] < 1e3 and found["nodes_ms"] > 0
    assert {n["provider"] for n in found["nodes"]} == {"CPUExecutionProvider"}
    assert len(json.loads(out.read_text())["traceEvents"]) > 10


@pytest.mark.slow
def test_a_device_of_int8_traces_an_int8_file(run: Run) -> None:
    pytest.importorskip("onnxruntime")
    Path("devices.toml").write_text('[mine]\ntransport = "local"\nprecision = "int8"\n')
    found = run.json("trace", str(NETWORK), "--device", "mine", "--runs", "3")
    assert found["conditions"]["precision"] == "int8"
    assert any(n["op"].startswith("QLinear") for n in found["nodes"])
    write_network(NETWORK, "onnx", Path("n.onnx"))
    own = run.json("trace", "n.onnx", "--device", "mine", "--runs", "3")
    assert own["conditions"]["precision"] == "float32"
    assert not any(n["op"].startswith("QLinear") for n in own["nodes"])


def test_what_runs_in_a_loop_is_of_the_loop(tmp_path: Path) -> None:
    """ONNX Runtime tells the time of a Loop, and again that of each node in it."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    side = [64, 64]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "w"], ["m_out"], name="inner"),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, side),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, side),
        ],
    )
    constants = {"n": np.int64(20), "go": np.bool_(True), "w": np.eye(64, dtype=np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "go", "x"], ["y"], name="loop", body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, side)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, side)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, tmp_path / "loop.onnx")
    made: Any = object.__new__(worker.Bench)
    made.engine, made.provider = Engine(SETTINGS), "CPUExecutionProvider"
    found = made.trace(str(tmp_path / "loop.onnx"), 2, 5)
    assert [n[1] for n in found["nodes"]] == ["Loop"]
