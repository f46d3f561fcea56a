"""Operators and networks in int8 and float16: whole in 8-bit kernels, two forms alike."""

from __future__ import annotations

import logging
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from patience import PATIENCE_S

from phonenas import space
from phonenas.devices.runtimes.engine_litert import Engine
from phonenas.space import Architecture, Operator, SSDLite, zoo
from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.lowering.calibration import calibrated, normal_images
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.tflite import to_tflite
from phonenas.space.lowering.write import write_network, write_onnx, write_tflite
from tests.space.lowering.makes import MAKES

pytest.importorskip("ai_edge_litert", reason="LiteRT is an optional extra: phonenas[litert]")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

Array = npt.NDArray[Any]
NETWORK = Architecture.parse("r1_k5_s22_e3_i8_o16_se0.25 r1_k3_s11_e3_i16_o16 classes10 res16")


def by_onnx(model: onnx.ModelProto, x: Array) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # On x86 without VNNI pairs of products saturate unless it is said: weights become unsigned.
    options.add_session_config_entry("session.x64quantprecision", "1")
    content = model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": x})
    return np.asarray(found)


def by_tflite(model: bytes, x: Array) -> Array:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["name"], taken["name"]) == ("input", "output")
    interpreter.set_tensor(given["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    found: Array = interpreter.get_tensor(taken["index"])
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found


def what_runs(model: bytes, folder: Path) -> str:
    (folder / "m.tflite").write_bytes(model)
    return Engine({}).load(str(folder / "m.tflite")).provider


def within_a_step(subject: Operator | Architecture, seed: int, folder: Path) -> float:
    """The share of outputs that differ by one quantisation step at most; it runs in XNNPACK."""
    ranges = calibrated(subject, seed=seed)
    first = subject.operators()[0] if isinstance(subject, Architecture) else subject
    shape = (1, first.in_channels, first.in_px, first.in_px)
    x: Array = np.random.default_rng(seed + 9).standard_normal(shape, np.float32)
    model = to_tflite(subject, seed=seed, precision="int8", ranges=ranges)
    assert what_runs(model, folder) == "XNNPACK", str(subject)
    given = x
    if first.kind != "stem":
        low, high = ranges["input"]
        levels = np.rint((x - low) / ((high - low) / 255)).clip(0, 255)
        x, given = levels.astype(np.uint8), (levels - 128).astype(np.int8)
    one = by_onnx(to_onnx(subject, seed=seed, precision="int8", ranges=ranges), x)
    two = by_tflite(model, given)
    if one.dtype == np.uint8:
        assert two.dtype == np.int8
        apart = np.abs(one.astype(int) - 128 - two)
    else:
        low, high = ranges["output"]
        apart = np.abs(one - two) / ((max(high, 0) - min(low, 0)) / 255)
    return float(np.mean(apart <= 1.001))


# -- two forms ---------------------------------------------------------------------------------

FEW = (
    "stem_k3_s2_16x16x3_8",
    "mbconv3_k5_s2_se4_pool_8x8x8_12",
    "conv_k3_s1_skip_7x7x8_8",
    "mbconvm5_k3_s1_hse3_hswish_skip_7x7x8_8",
    "fused4_k3_s2_swish_8x8x8_12",
    "head16_4x4x8_10",
)


@pytest.mark.parametrize("key", FEW)
def test_an_operator_runs_whole_in_8_bits_and_alike_in_both_forms(key: str, tmp_path: Path) -> None:
    # Of a small map: a step in what is added is more than one where the sum's steps are finer.
    assert within_a_step(Operator.parse(key), 0, tmp_path) >= 0.95


@pytest.mark.slow
def test_operators_of_every_make_run_whole_in_8_bits(tmp_path: Path) -> None:
    shares = [within_a_step(o, seed, tmp_path) for seed, o in enumerate(MAKES)]
    assert np.mean(shares) >= 0.99
    assert min(shares) >= 0.95


@pytest.mark.slow
def test_operators_of_mnasnet_run_whole_in_8_bits(tmp_path: Path) -> None:
    """`python -m tools.bench.precisions operators` asks it of all of them."""
    every = space.get("mnasnet", 224).operators()
    shares = [within_a_step(o, 0, tmp_path) for o in every[::40]]
    assert np.mean(shares) >= 0.99
    assert min(shares) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnasnet-a1", "mobilenet-v3-small", "efficientnet-lite0"])
def test_networks_run_whole_in_8_bits(name: str, tmp_path: Path) -> None:
    model = to_tflite(zoo.network(name, resolution=64), precision="int8")
    assert what_runs(model, tmp_path) == "XNNPACK"


def test_a_network_has_the_structure_that_quantize_static_makes(tmp_path: Path) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[Array] = normal_images(NETWORK)

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {"input": image}

    paths = [tmp_path / name for name in ("float.onnx", "ready.onnx", "static.onnx")]
    onnx.save(to_onnx(NETWORK), paths[0])
    quant_pre_process(str(paths[0]), str(paths[1]), skip_symbolic_shape=True)
    quantize_static(
        str(paths[1]),
        str(paths[2]),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    theirs, ours = onnx.load(paths[2]).graph, to_onnx(NETWORK, precision="int8").graph
    # Which of several equal scales is stored may differ: sets of nodes and inputs are compared.
    assert {(n.op_type, n.name) for n in ours.node} == {(n.op_type, n.name) for n in theirs.node}
    assert len(ours.node) == len(theirs.node)
    assert Counter(n.op_type for n in ours.node)["QuantizeLinear"] > 10
    weights = {i.name: i for i in theirs.initializer if i.name.endswith(".w_quantized")}
    assert len(weights) == 11  # a stem, blocks of five and three, a head of two
    for tensor in ours.initializer:
        if tensor.name in weights:
            found, expected = map(numpy_helper.to_array, (tensor, weights.pop(tensor.name)))
            np.testing.assert_array_equal(found, expected)
    assert not weights


def test_scales_are_the_same_in_both_forms() -> None:
    """Of MnasNet's feature maps: bytes run from 0 in ONNX, from −128 in TFLite."""
    ranges = calibrated(NETWORK, seed=1)
    graph = to_onnx(NETWORK, seed=1, precision="int8", ranges=ranges).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    pairs = {
        n.input[0]: (float(stored[n.input[1]]), int(stored[n.input[2]]))
        for n in graph.node
        if n.op_type == "QuantizeLinear"
    }
    model = schema.ModelT.InitFromPackedBuf(
        to_tflite(NETWORK, seed=1, precision="int8", ranges=ranges)
    )
    compared = 0
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode().removesuffix("_bytes")
        of_relu = pairs.get(f"{name}_relu") or pairs.get(name)
        if of_relu and tensor.type == schema.TensorType.INT8 and tensor.quantization is not None:
            assert (tensor.quantization.scale[0], tensor.quantization.zeroPoint[0] + 128) == of_relu
            compared += 1
    assert compared >= 12


def test_numbers_of_a_small_convolution() -> None:
    """1×1, two channels: weights to the unit, each channel by its own largest one."""
    operator = Operator("proj", 2, 2, 1)
    arrays = {
        "0.conv.weight": np.array([[1.27, -0.634], [0.0, 0.254]], np.float32),
        "0.conv_bn.weight": np.ones(2, np.float32),
        "0.conv_bn.bias": np.array([0.5, -0.25], np.float32),
        "0.conv_bn.running_mean": np.zeros(2, np.float32),
        "0.conv_bn.running_var": np.full(2, 1 - 1e-3, np.float32),  # and the eps: 1
    }
    ranges = {"input": (-1.0, 1.55), "output": (-1.28, 1.27)}
    content = to_tflite(operator, weights=arrays, precision="int8", ranges=ranges)
    model = schema.ModelT.InitFromPackedBuf(content)
    tensors = {t.name.decode(): t for t in model.subgraphs[0].tensors}
    stored = {n: model.buffers[t.buffer].data for n, t in tensors.items()}
    assert stored["0.conv.w"].view(np.int8).tolist() == [127, -63, 0, 127]
    np.testing.assert_allclose(tensors["0.conv.w"].quantization.scale, [0.01, 0.002], rtol=1e-5)
    # A bias is counted in steps of 0.01 · 0.01 and of 0.01 · 0.002.
    assert stored["0.conv.b"].view(np.int32).tolist() == [5000, -12500]
    assert tensors["input"].quantization.zeroPoint[0] == -28
    x = np.array([72, 22], np.int8).reshape(1, 2, 1, 1)  # 1 and 0.5
    # 1.27 − 0.315 + 0.5, which is beyond the range, and 0.127 − 0.25, in steps of 0.01
    assert by_tflite(content, x).ravel().tolist() == [127, -12]


# -- against float32 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "precision", "most"),
    [
        ("onnx", "int8", 0.1),
        ("onnx", "int8-dynamic", 0.1),
        ("onnx", "float16", 5e-3),
        ("tflite", "int8", 0.1),
        ("tflite", "float16", 5e-3),
        ("tflite", "float16-weights", 5e-3),
    ],
)
def test_a_network_computes_what_its_float_twin_does(
    form: str, precision: str, most: float
) -> None:
    make: Any = to_onnx if form == "onnx" else to_tflite
    run: Any = by_onnx if form == "onnx" else by_tflite
    whole, made = to_onnx(NETWORK, seed=2), make(NETWORK, seed=2, precision=precision)
    errors = []
    for x in normal_images(NETWORK, seed=4):
        exact = by_onnx(whole, x)
        errors.append(np.linalg.norm(run(made, x) - exact) / np.linalg.norm(exact))
    assert 1e-6 < np.mean(errors) < most


def test_weights_of_16_bits_run_whole_and_are_half_as_large(tmp_path: Path) -> None:
    whole = to_tflite(NETWORK)
    for precision in ("float16", "float16-weights"):
        model = to_tflite(NETWORK, precision=precision)
        assert what_runs(model, tmp_path) == "XNNPACK"
        assert len(model) < 0.75 * len(whole)
        marks = [m.name for m in schema.ModelT.InitFromPackedBuf(model).metadata or []]
        assert marks == ([b"reduced_precision_support"] if precision == "float16" else [])
    names = {t.data_type for t in to_onnx(NETWORK, precision="float16").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in names
    assert onnx.TensorProto.FLOAT not in names


def test_equal_arguments_give_equal_bytes() -> None:
    operator = Operator.parse("mbconv3_k3_s1_skip_7x7x8_8")
    for precision in ("int8", "float16"):
        one, two = (to_tflite(operator, precision=precision) for _ in range(2))
        assert one == two
    ranges = calibrated(operator)
    one, two = (to_onnx(operator, precision="int8", ranges=ranges).graph for _ in range(2))
    assert list(one.node) == list(two.node)


def test_images_decide_the_scales(tmp_path: Path) -> None:
    small = [0.1 * image for image in normal_images(NETWORK)]
    sizes = []
    for images in (None, small):
        path = write_network(
            NETWORK, "tflite", tmp_path / "n.tflite", precision="int8", images=images
        )
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
        entry = next(t for t in model.subgraphs[0].tensors if t.name == b"input_bytes")
        sizes.append(entry.quantization.scale[0])
    assert sizes[0] == pytest.approx(10 * sizes[1])


# -- errors ------------------------------------------------------------------------------------


def test_calibration_images_of_another_size_or_none(tmp_path: Path) -> None:
    wrong = np.zeros((1, 3, 40, 40), np.float32)
    cases: list[tuple[list[Array], str]] = [
        ([wrong], r"image 0 is 1×3×40×40, and the network takes 1×3×16×16"),
        ([], "no image was given to calibrate on"),
        ([np.full((1, 3, 16, 16), np.nan, np.float32)], "image 0 has values that are no numbers"),
    ]
    for images, message in cases:
        with pytest.raises(InvalidArgument, match=message):
            write_network(NETWORK, "onnx", tmp_path / "n.onnx", precision="int8", images=images)
    with pytest.raises(InvalidArgument, match="are of int8, and float16 was asked for"):
        write_network(NETWORK, "onnx", tmp_path / "n", precision="float16", images=[wrong])


def test_precisions_that_a_form_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no precision is called 'int9'"):
        to_onnx(NETWORK, precision="int9")
    with pytest.raises(InvalidArgument, match="int8-dynamic is not possible here"):
        to_tflite(NETWORK, precision="int8-dynamic")
    with pytest.raises(InvalidArgument, match="a torch file: int8 is not possible here"):
        write_network(NETWORK, "torch", tmp_path / "n", precision="int8")
    detector = SSDLite(zoo.network("mnasnet-small"), classes=4, resolution_px=96)
    for form in ("onnx", "tflite"):
        with pytest.raises(InvalidArgument, match="a detector: int8 is not possible here"):
            write_network(detector, form, tmp_path / "n", precision="int8")
    kernel = zoo.kernels(NETWORK)[0]
    with pytest.raises(InvalidArgument, match=r"kernel conv_k3x3.*: int8 is not possible here"):
        write_onnx(kernel, tmp_path / "n", "int8")


def test_ranges_that_lack_a_value() -> None:
    operator = Operator("mbconv", 4, 4, 4, 3, 1, 2)
    ranges = dict(calibrated(operator))
    del ranges["0.depthwise_relu"]
    for form in (to_onnx, to_tflite):
        with pytest.raises(InvalidArgument, match=r"ranges lack 0\.depthwise_relu"):
            form(operator, precision="int8", ranges=ranges)
    with pytest.raises(InvalidArgument, match="ranges are of int8, and float32 was asked for"):
        to_onnx(operator, ranges=ranges)


def test_a_device_writes_operators_in_a_precision(tmp_path: Path) -> None:
    operator = Operator.parse("mbconv3_k3_s1_skip_7x7x8_8")
    model = onnx.load(write_onnx(operator, tmp_path / "o.onnx", "int8"))
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    path = write_tflite(operator, tmp_path / "o.tflite", "litert", "int8")
    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs[0]
    kinds = [graph.tensors[t].type for t in (*graph.inputs, *graph.outputs)]
    assert kinds == [schema.TensorType.INT8] * 2


def test_the_process_is_left_as_it_was_by_two_at_once() -> None:
    """Devices are prepared in threads, and what the tools say is silenced for the process."""
    from phonenas.space.lowering.onnx_precision import _quiet

    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with _quiet():
            entered.set()
            left.wait(PATIENCE_S)

    level, filters = logging.getLogger().level, list(warnings.filters)
    thread = threading.Thread(target=other)
    with _quiet():
        thread.start()
        entered.wait(0.5)  # in vain, or the two overlap
    left.set()
    thread.join(PATIENCE_S)
    assert entered.is_set() and not thread.is_alive()
    assert (logging.getLogger().level, list(warnings.filters)) == (level, filters)
