"""Kernel: its key, its prior, and its ONNX form as the runtime really runs it."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes import FakeDevice
from hypothesis import given, settings
from hypothesis import strategies as st

from phonenas import data, devices
from phonenas.space import Kernel
from phonenas.space.errors import InvalidArgument
from phonenas.space.kernels.onnx import kernel_to_onnx
from phonenas.space.kernels.prior import near, sample
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.onnx_file import OnnxFile

CONV = Kernel("conv", 16, 32, (14, 14), (14, 14), (3, 3))
# A kernel, and what ONNX Runtime makes of its model at the level that is alike on all computers.
FORMS = {
    CONV: ["Conv"],
    Kernel("conv", 16, 32, (14, 14), (7, 7), (3, 3), (2, 2), fused=("relu",)): ["FusedConv"],
    Kernel("conv", 16, 32, (14, 14), (14, 14), fused=("relu6",)): ["FusedConv"],
    Kernel("conv", 16, 16, (14, 14), (12, 12), (3, 3), groups=16): ["Conv"],
    Kernel("conv", 16, 32, (14, 14), (14, 14), groups=4, fused=("sigmoid",)): ["FusedConv"],
    Kernel("linear", 64, 10): ["Gemm"],
    Kernel("linear", 64, 10, fused=("relu",)): ["FusedGemm"],
    Kernel("linear", 4096, 1024, fused=("relu",)): ["FusedGemm"],
    Kernel("max_pool", 16, 16, (15, 15), (7, 7), (3, 3), (2, 2)): ["MaxPool"],
    Kernel("average_pool", 16, 16, (14, 14), (7, 7), (2, 2), (2, 2)): ["AveragePool"],
    Kernel("global_pool", 16, 16, (14, 14)): ["GlobalAveragePool"],
    Kernel("add", 16, 16, (14, 14), (14, 14), operands=2): ["Add"],
    Kernel("add", 16, 16, (14, 14), (14, 14), operands=3): ["Sum"],
    Kernel("add", 16, 16, (14, 14), (14, 14)): ["Add"],
    Kernel("mul", 16, 16, (14, 14), (14, 14)): ["Mul"],
    Kernel("activation", 16, 16, (14, 14), (14, 14), fused=("relu",)): ["Relu"],
    Kernel("activation", 16, 16, (14, 14), (14, 14), fused=("swish",)): ["QuickGelu"],
    Kernel("batch_norm", 16, 16, (14, 14), (14, 14)): ["BatchNormalization"],
    Kernel("lrn", 16, 16, (14, 14), (14, 14), (5, 1)): ["LRN"],
    Kernel("softmax", 1000, 1000): ["Softmax"],
    Kernel("concat", 48, 48, (14, 14), (14, 14), operands=3): ["Concat"],
    Kernel("move", 16, 8, (14, 14), (14, 14), fused=("slice",)): ["Slice"],
    Kernel("move", 16, 16, (14, 14), (16, 16), fused=("pad",)): ["Pad"],
    Kernel("resize", 16, 16, (7, 7), (14, 14)): ["Resize"],
}


def optimised(model: onnx.ModelProto, folder: Path, level: str = "EXTENDED") -> list[str]:
    """Node types of a model as ONNX Runtime rewrites it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
    )
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node]


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    feeds = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in session.get_inputs()}
    return np.asarray(session.run(None, feeds)[0])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_parse_is_the_inverse_of_key(seed: int) -> None:
    for kernel in sample(20, seed):
        assert Kernel.parse(kernel.key) == kernel
        relative = near(kernel, np.random.default_rng(seed))
        assert Kernel.parse(relative.key) == relative


@given(
    text=st.text(max_size=60) | st.from_regex(r"[a-z]+_k\d+x\d+_s\d+x\d+_g\d+_.*", fullmatch=True)
)
def test_other_texts_are_no_keys(text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        assert Kernel.parse(text).key == text


@pytest.mark.parametrize("kernel", FORMS, ids=lambda k: k.key)
def test_the_runtime_runs_one_kernel(kernel: Kernel, tmp_path: Path) -> None:
    model = kernel_to_onnx(kernel)
    onnx.checker.check_model(model, full_check=True)
    assert optimised(model, tmp_path) == FORMS[kernel]
    got = run(model)
    assert got.size == kernel.writes
    assert np.isfinite(got).all()


def test_the_numbers_are_those_of_the_weights() -> None:
    model = kernel_to_onnx(CONV)
    weight, bias = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer)
    given = np.random.default_rng(0).standard_normal((1, 16, 14, 14)).astype(np.float32)
    padded = np.pad(given[0], ((0, 0), (1, 1), (1, 1)))
    here = (padded[:, 4:7, 5:8] * weight).sum(axis=(1, 2, 3)) + bias
    assert run(model)[0, :, 4, 5] == pytest.approx(here, rel=1e-3, abs=1e-4)


def test_a_matrix_of_millions_makes_no_large_file() -> None:
    assert kernel_to_onnx(Kernel("linear", 25088, 4096)).ByteSize() < 1 << 17


def test_every_kernel_of_the_prior_runs() -> None:
    small = [k for k in sample(150, seed=3) if k.macs < 2e7 and k.reads < 1e6][:60]
    rng = np.random.default_rng(0)
    for kernel in [*small, *(near(k, rng) for k in small)]:
        if kernel.macs < 5e7:
            assert run(kernel_to_onnx(kernel)).size == kernel.writes, kernel.key


def test_the_prior_holds_every_sort_and_no_giant() -> None:
    kernels = sample(400)
    assert len({k.key for k in kernels}) == 400
    kinds = Counter(k.kind for k in kernels)
    assert set(kinds) >= {"conv", "linear", "max_pool", "add", "mul", "lrn", "concat", "batch_norm"}
    assert max(k.macs for k in kernels) <= 4e9
    assert sum(k.depthwise for k in kernels) > 30
    assert [k.key for k in sample(40)] == [k.key for k in kernels[:40]]
    assert sample(40, seed=1) != kernels[:40]


def test_shapes_that_no_padding_joins_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="no padding"):
        kernel_to_onnx(Kernel("conv", 8, 8, (14, 14), (40, 40)))
    with pytest.raises(InvalidArgument, match="no ONNX form"):
        kernel_to_onnx(Kernel("move", 8, 8, (4, 4), (4, 4), fused=("turn",)))


def test_random_networks_follow_from_their_number() -> None:
    for number in (0, 3, 4, 5, 7):
        network = RandomCNN(number)
        assert RandomCNN.parse(network.key) == network
        assert network.to_onnx() == RandomCNN(number).to_onnx()
        assert 1e7 < network.macs < 1e10
        onnx.checker.check_model(network.to_onnx(), full_check=True)
    with pytest.raises(InvalidArgument, match="random-cnn-3"):
        RandomCNN.parse("random-cnn-x")


@pytest.mark.usefixtures("fast")
def test_kernels_and_files_are_measured_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    model = RandomCNN(8).to_onnx()
    path.write_bytes(model.SerializeToString())
    kernels = sample(12)
    files = [OnnxFile.at(path), RandomCNN(8)]
    with data.MeasurementStore(tmp_path / "k.db") as store, FakeDevice() as device:
        more = devices.Selection(kernels=kernels, files=files)
        outcome = devices.profile(None, on=device, into=store, networks=0, more=more)
        assert (outcome.measured, outcome.reused) == (14, 0)
        again = devices.profile(None, on=device, into=store, networks=0, more=more)
        assert (again.measured, again.reused) == (0, 14)
        found = store.measurements(device.conditions, "kernel")
        assert {m.subject for m in found} == {k.key for k in kernels}
        wholes = store.measurements(device.conditions, "onnx")
    assert {m.subject for m in wholes} == {f.key for f in files}
    expected = FakeDevice.true_ms(path)
    assert [m.latency_ms for m in wholes] == pytest.approx([expected] * 2, rel=0.02)
    assert all(len(m.rounds) == 10 for m in wholes)
    assert path.exists()
