"""Networks as files that nobody trained: each form computes the same function of a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phonenas.search.training import load_weights
from phonenas.space import Architecture, SSDLite, zoo
from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.lowering.torch import state_arrays, to_torch
from phonenas.space.lowering.write import write_network

NETWORK = Architecture.parse("r1_k3_s22_e1_i8_o16 r2_k5_s22_e3_i16_o24_se0.25 classes10 res32")


def test_onnx_and_tflite_compute_alike(tmp_path: Path) -> None:
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    import onnxruntime

    image = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    onnx = write_network(NETWORK, "onnx", tmp_path / "n.onnx", seed=3)
    (logits,) = onnxruntime.InferenceSession(onnx).run(None, {"input": image})
    tflite = write_network(NETWORK, "tflite", tmp_path / "n.tflite", seed=3)
    interpreter = interpreter_module.Interpreter(str(tflite))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1))
    interpreter.invoke()
    other = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.allclose(logits, other, rtol=1e-3, atol=1e-4 * np.abs(logits).max())
    write_network(NETWORK, "onnx", tmp_path / "m.onnx", seed=4)
    assert (tmp_path / "m.onnx").read_bytes() != onnx.read_bytes()


def test_torch_is_a_weights_file(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    path = write_network(NETWORK, "torch", tmp_path / "n.safetensors", seed=3)
    network, arrays = load_weights(path)
    assert network == NETWORK
    expected = state_arrays(to_torch(NETWORK, seed=3))
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


def test_detectors_have_two_forms(tmp_path: Path) -> None:
    detector = SSDLite(zoo.network("mnasnet-small"), classes=4, resolution_px=96)
    assert write_network(detector, "onnx", tmp_path / "d.onnx").stat().st_size > 1_000_000
    with pytest.raises(InvalidArgument, match="this network is a detector"):
        write_network(detector, "torch", tmp_path / "d.safetensors")


def test_another_form(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Known: onnx, tflite, torch"):
        write_network(NETWORK, "caffe", tmp_path / "n")
