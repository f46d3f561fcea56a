"""What a file computes in, and whether a runtime loads it: asked before anything is predicted."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes import FakeDevice
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from phonenas import data, devices
from phonenas.cli import app
from phonenas.latency_model.graphs import onnx_check
from phonenas.latency_model.graphs.onnx_check import check_loads, same_precision
from phonenas.space.errors import PrecisionDiffers, UnsupportedFormat
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.onnx_file import OnnxFile

KINDS = {
    "float32": (TensorProto.FLOAT, "f4"),
    "float16": (TensorProto.FLOAT16, "f2"),
    "float64": (TensorProto.DOUBLE, "f8"),
}


def conv(path: Path, precision: str, opset: int = 17, pads: int = 1, op: str = "Relu") -> Path:
    kind, dtype = KINDS[precision]
    weights = np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(dtype)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[pads] * 4),
            helper.make_node(op, ["c"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", kind, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("y", kind, (1, 16, 30 + 2 * pads, 30 + 2 * pads))],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def quantised(path: Path) -> Path:
    """As ONNX Runtime writes it: weights of 8 bits, and a map between Q and DQ."""
    model = onnx.load(conv(path, "float32"))
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.int8(0), "z")
    weights = numpy_helper.to_array(model.graph.initializer[0])
    bytes_ = numpy_helper.from_array(np.rint(weights * 10).clip(-127, 127).astype("i1"), "w8")
    del model.graph.initializer[:]
    model.graph.initializer.extend([scale, zero, bytes_])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"]),
        *model.graph.node,
    ]
    nodes[3].input[0] = "d"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    return path


def test_a_file_says_what_it_computes_in(tmp_path: Path) -> None:
    for name in KINDS:
        assert OnnxFile.at(conv(tmp_path / f"{name}.onnx", name)).precision == name
    assert OnnxFile.at(quantised(tmp_path / "int8.onnx")).precision == "int8"
    bfloat = onnx.load(conv(tmp_path / "b.onnx", "float32"))
    bfloat.graph.initializer[0].data_type = TensorProto.BFLOAT16
    bfloat.graph.initializer[0].raw_data = bytes(16 * 27 * 2)
    onnx.save(bfloat, tmp_path / "b.onnx")
    assert OnnxFile.at(tmp_path / "b.onnx").precision == "bfloat16"
    # A camera's bytes at the input make no network of integers.
    camera = onnx.load(conv(tmp_path / "u.onnx", "float32"))
    camera.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    camera.graph.node.insert(0, helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT))
    camera.graph.node[1].input[0] = "f"
    onnx.save(camera, tmp_path / "u.onnx")
    assert OnnxFile.at(tmp_path / "u.onnx").precision == "float32"
    (tmp_path / "no.onnx").write_bytes(b"\x0a\x02no" * 3)
    assert OnnxFile.at(tmp_path / "no.onnx").precision == "float32"  # an empty graph


@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_another_precision_is_refused_with_the_command(tmp_path: Path, precision: str) -> None:
    path = conv(tmp_path / "my net.onnx", precision)
    conditions = replace(FakeDevice().conditions, device="pixel 6")
    with pytest.raises(PrecisionDiffers) as told:
        same_precision(str(path), OnnxFile.at(path).precision, conditions)
    assert f"computes in {precision}" in str(told.value) and "float32" in str(told.value)
    assert f"profile --device 'pixel 6' --network '{path}'" in str(told.value)
    same_precision(str(path), OnnxFile.at(path).precision, replace(conditions, precision=precision))
    with pytest.raises(PrecisionDiffers, match="int8"):
        other = quantised(tmp_path / "q.onnx")
        same_precision(str(other), OnnxFile.at(other).precision, conditions)


def test_a_file_that_mixes_precisions_is_refused_with_its_odd_layer() -> None:
    conditions = FakeDevice().conditions
    odd = "1 of its 3 layers with weights computes in float32: MatMul last"
    with pytest.raises(PrecisionDiffers) as told:
        same_precision("m.onnx", "float32+int8", conditions, odd)
    assert str(told.value) == (
        f"m.onnx mixes float32 and int8 ({odd}): no model predicts such a file. "
        "Measure the file:  phonenas profile --device fake --network m.onnx"
    )


def test_float_arithmetic_of_16_bits_takes_files_of_floats() -> None:
    half = replace(FakeDevice().conditions, precision="float16")
    delegate = replace(half, runtime="benchmark_model")
    for own in ("float32", "float16-weights", "float16"):
        same_precision("m.tflite", own, delegate)
    for own, conditions in (("int8", delegate), ("float32", half), ("float16-weights", half)):
        with pytest.raises(PrecisionDiffers, match=f"computes in {own}"):
            same_precision("m.tflite", own, conditions)


def test_what_no_runtime_loads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = conv(tmp_path / "good.onnx", "float32")
    wrong = onnx.load(good)
    wrong.graph.node[0].input[0] = "r"  # nobody makes it
    onnx.save(wrong, tmp_path / "wrong.onnx")
    wide = onnx.load(good)
    wide.graph.node[0].attribute.append(helper.make_attribute("strides", [1, 1, 1]))
    onnx.save(wide, tmp_path / "wide.onnx")
    for runtime, library in (("onnxruntime", "onnxruntime"), ("tflite", "onnx.checker")):
        check_loads(good, runtime)
        for name in ("wrong", "wide"):
            with pytest.raises(UnsupportedFormat, match=f"{library} does not load it: "):
                check_loads(tmp_path / f"{name}.onnx", runtime)

    def never(*words: Any, **more: Any) -> Any:
        raise subprocess.TimeoutExpired("x", more["timeout"])

    monkeypatch.setattr(onnx_check.subprocess, "run", never)
    with pytest.raises(UnsupportedFormat, match=r"within 60 s"):
        check_loads(good, "onnxruntime")


def test_the_check_has_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may hold next to nothing cannot load the library: that is told."""
    monkeypatch.setattr(onnx_check, "_MEMORY_BYTES", 64 << 20)
    with pytest.raises(UnsupportedFormat, match="does not load it"):
        check_loads(conv(tmp_path / "good.onnx", "float32"), "onnxruntime")


@pytest.mark.usefixtures("fast")
def test_files_are_stored_under_their_own_precision(tmp_path: Path) -> None:
    files = [OnnxFile.at(conv(tmp_path / f"{n}.onnx", n)) for n in ("float16", "float32")]
    files.append(OnnxFile.at(quantised(tmp_path / "int8.onnx")))
    told: list[Any] = []
    with data.MeasurementStore(tmp_path / "s.db") as store, FakeDevice() as device:
        more = devices.Selection(files=files)
        done = devices.profile(
            None, on=device, into=store, networks=0, more=more, on_event=told.append
        )
        by_precision = {
            c.precision: [m.subject for m in store.measurements(c)]
            for c in store.conditions("fake")
        }
    assert done.measured == 3 and len(done.results) == 3
    assert by_precision == {f.precision: [f.key] for f in files}
    assert {m.conditions.precision for m in done.results.values()} == {"float16", "float32", "int8"}
    assert not [e for e in told if isinstance(e, devices.measuring.events.Warned)]


@pytest.mark.usefixtures("fast")
def test_a_setting_that_contradicts_the_file_is_told(tmp_path: Path) -> None:
    class Half(FakeDevice):
        conditions = replace(FakeDevice().conditions, precision="float16")

    told: list[Any] = []
    files = [OnnxFile.at(quantised(tmp_path / "int8.onnx"))]
    with data.MeasurementStore(tmp_path / "s.db") as store, Half() as device:
        more = devices.Selection(files=files)
        devices.profile(None, on=device, into=store, networks=0, more=more, on_event=told.append)
        assert [c.precision for c in store.conditions("fake")] == ["int8"]
    (reason,) = {e.reason for e in told if hasattr(e, "reason") and "devices.toml" in e.reason}
    assert "computes in int8" in reason and "says float16" in reason


def test_show_prints_the_precision(tmp_path: Path) -> None:
    path = conv(tmp_path / "half.onnx", "float16")
    done = CliRunner().invoke(app, ["show", str(path), "--json"])
    assert json.loads(done.stdout)["precision"] == "float16"
    assert "precision float16" in CliRunner().invoke(app, ["show", str(path)]).stdout
    small = tmp_path / "small.onnx"
    small.write_bytes(RandomCNN(3, small=True).to_onnx().SerializeToString())
    done = CliRunner().invoke(app, ["show", str(small), "--json"])
    assert json.loads(done.stdout)["precision"] == "float32"
