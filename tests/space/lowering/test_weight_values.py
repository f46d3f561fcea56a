"""What numbers the weights of a file are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from phonenas.space import Architecture
from phonenas.space.errors import PhonenasError, UnsupportedFormat
from phonenas.space.lowering.weight_values import WeightValues, weight_values
from phonenas.space.lowering.write import write_network

NETWORK = Architecture.parse("r1_k3_s11_e1_i16_o8 res32 classes4")


def test_of_an_onnx_file(tmp_path: Path) -> None:
    kinds = {
        "single": np.array([0, -0.0, 1e-39, -1e-45, 1.2e-38, 3], np.float32),
        "half": np.array([0, 6e-8, 6.2e-5, -1], np.float16),
        "double": np.array([1e-310, 1e-39], np.float64),
        "whole": np.array([0, 1, 2], np.int64),
        "constant": np.array([1e-40, 5], np.float32),
    }
    tensors = [onnx.numpy_helper.from_array(v, k) for k, v in kinds.items()]
    helper = onnx.helper
    nodes = [
        helper.make_node("Constant", [], ["constant"], value=tensors[-1]),
        helper.make_node("Identity", ["single"], ["y"]),
        helper.make_node("Identity", ["y"], ["z"]),
    ]
    out = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [6])
    graph = helper.make_graph(nodes, "g", [], [out], tensors[:-1])
    onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
    assert weight_values(tmp_path / "a.onnx") == WeightValues(6 + 4 + 2 + 2, 5, 3, 2)


def test_both_forms_of_a_network_hold_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="phonenas[litert] is not installed")
    write_network(NETWORK, "onnx", tmp_path / "a.onnx")
    write_network(NETWORK, "tflite", tmp_path / "a.tflite")
    one, other = weight_values(tmp_path / "a.onnx"), weight_values(tmp_path / "a.tflite")
    assert (one.numbers, one.denormal, one.zero) == (other.numbers, other.denormal, other.zero)
    assert NETWORK.params > one.numbers > 0.8 * NETWORK.params and one.denormal == 0


def test_denormal_weights_of_a_tflite_file(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="phonenas[litert] is not installed")
    path = write_network(NETWORK, "tflite", tmp_path / "a.tflite")
    from ai_edge_litert.interpreter import Interpreter

    known = Interpreter(str(path))
    index = next(t["index"] for t in known.get_tensor_details() if tuple(t["shape"]) == (4, 1280))
    weights = known.tensor(index)().tobytes()
    content = path.read_bytes()
    assert content.count(weights) == 1
    small = np.full(4 * 1280, 1e-40, np.float32)
    small[:80] = 0
    path.write_bytes(content.replace(weights, small.tobytes()))
    found = weight_values(path)
    assert (found.denormal, found.zero) == (4 * 1280 - 80, 80)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ort").write_bytes(b"")
    (tmp_path / "a.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(UnsupportedFormat, match=r"weights are read of \.onnx and \.tflite files"):
        weight_values(tmp_path / "a.ort")
    for name in ("a.onnx", "gone.onnx"):
        with pytest.raises(PhonenasError, match=name):
            weight_values(tmp_path / name)
