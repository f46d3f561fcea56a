"""Precisions: those that phonenas writes, by name; and what a file computes in, read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from phonenas.space import Operator
from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.lowering.write import write_tflite
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.ort_file import OrtFile
from phonenas.space.precision import PRECISIONS, checked_precision, weight_bytes
from phonenas.space.tflite_file import TfliteFile, TfliteGraph, TfliteNode, TfliteTensor


def test_each_has_a_name_and_a_size() -> None:
    sizes = {"float32": 4, "float16": 2, "int8": 1, "int8-dynamic": 1, "float16-weights": 2}
    assert {name: weight_bytes(name) for name in PRECISIONS} == sizes
    assert all(name == p.name and p.about for name, p in PRECISIONS.items())
    assert weight_bytes("float64") == 4


def test_a_wrong_name_gets_the_nearest() -> None:
    assert checked_precision("int8-dynamic") == "int8-dynamic"
    with pytest.raises(UnknownName, match="--precision: no precision is called 'fp16'. Known: "):
        checked_precision("fp16")
    with pytest.raises(UnknownName, match="Did you mean 'float16'"):
        checked_precision("flaot16", "devices.toml: precision")


def test_one_that_is_not_possible_there_is_refused_as_that() -> None:
    for name in ("int4", "bfloat16", "float32+int8"):
        with pytest.raises(InvalidArgument, match="--precision .* is not possible here"):
            checked_precision(name)
    with pytest.raises(InvalidArgument, match="float16 is not possible here; it is float32 or int"):
        checked_precision("float16", among=("float32", "int8"))


# -- ONNX ---------------------------------------------------------------------------------------


def net(path: Path) -> Path:
    """Two convolutions and a classifier, in floats."""
    rng = np.random.default_rng(0)
    weights = {"a": (8, 3, 3, 3), "b": (8, 8, 3, 3), "c": (8, 10)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["p"], "first", pads=[1] * 4),
            helper.make_node("Relu", ["p"], ["q"]),
            helper.make_node("Conv", ["q", "b"], ["r"], "second", pads=[1] * 4),
            helper.make_node("GlobalAveragePool", ["r"], ["s"]),
            helper.make_node("Flatten", ["s"], ["t"]),
            helper.make_node("MatMul", ["t", "c"], ["y"], "last"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), name)
            for name, shape in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.left = [np.random.default_rng(i).random((1, 3, 8, 8), np.float32) for i in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return {"x": self.left.pop()} if self.left else None


def calibrated(tmp_path: Path, **more: Any) -> Path:
    path = tmp_path / "int8.onnx"
    quantization.quantize_static(net(tmp_path / "f.onnx"), path, Images(), **more)
    return path


def test_what_onnxruntime_quantises_is_int8(tmp_path: Path) -> None:
    found = OnnxFile.at(calibrated(tmp_path, per_channel=True))
    assert (found.precision, found.odd, found.notes) == ("int8", "", ())
    operations = calibrated(tmp_path, quant_format=quantization.QuantFormat.QOperator)
    assert OnnxFile.at(operations).precision == "int8"
    assert OnnxFile.at(net(tmp_path / "f.onnx")).precision == "float32"


def test_ranges_found_at_run_time_are_int8_dynamic(tmp_path: Path) -> None:
    path = tmp_path / "d.onnx"
    quantization.quantize_dynamic(net(tmp_path / "f.onnx"), path, op_types_to_quantize=["MatMul"])
    found = OnnxFile.at(path)
    assert found.precision == "float32+int8-dynamic"
    assert found.odd == (
        "1 of its 3 layers with weights computes in int8-dynamic: MatMulInteger last_quant"
    )
    quantization.quantize_dynamic(net(tmp_path / "f.onnx"), path)
    assert OnnxFile.at(path).precision == "int8-dynamic"


def test_a_file_that_mixes_names_what_it_mixes(tmp_path: Path) -> None:
    path = calibrated(tmp_path, nodes_to_exclude=["last"])
    found = OnnxFile.at(path)
    assert found.precision == "float32+int8"
    assert found.odd == "1 of its 3 layers with weights computes in float32: MatMul last"
    assert found.notes == (found.odd,)


def test_float_weights_between_quantised_maps_are_int8(tmp_path: Path) -> None:
    """The runtime quantises them as it loads the file: it saves the layer as a QLinearConv."""
    path = calibrated(tmp_path, nodes_to_exclude=["second"])
    assert "b" in {t.name for t in onnx.load(path).graph.initializer}  # its weights, in floats
    assert OnnxFile.at(path).precision == "int8"
    assert OrtFile.at(as_ort(path)).precision == "int8"


def changed(path: Path, change: Any) -> Path:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return path


def test_stored_float16_that_is_made_float32_is_float16_weights(tmp_path: Path) -> None:
    def halve(graph: Any, name: str, cast: bool = True) -> None:
        (tensor,) = [t for t in graph.initializer if t.name == name]
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}16"))
        if cast:
            to = helper.make_node("Cast", [f"{name}16"], [name], to=TensorProto.FLOAT)
            graph.node.insert(0, to)

    def all_of_them(graph: Any) -> None:
        for name in "abc":
            halve(graph, name)

    path = changed(net(tmp_path / "h.onnx"), all_of_them)
    assert OnnxFile.at(path).precision == "float16-weights"
    path = changed(net(tmp_path / "one.onnx"), lambda graph: halve(graph, "c"))
    assert OnnxFile.at(path).precision == "float16-weights+float32"
    assert OnnxFile.at(path).odd.endswith("computes in float16-weights: MatMul last")


def test_quantised_weights_of_a_float_map_are_weights_alone(tmp_path: Path) -> None:
    """Nothing computes in integers there: each is made a float first."""

    def only_weights(graph: Any) -> None:
        for name in "abc":
            (tensor,) = [t for t in graph.initializer if t.name == name]
            bytes_ = np.ones(tuple(tensor.dims), np.int8)
            tensor.CopyFrom(numpy_helper.from_array(bytes_, f"{name}8"))
            graph.initializer.append(numpy_helper.from_array(np.float32(0.1), f"{name}s"))
            node = helper.make_node("DequantizeLinear", [f"{name}8", f"{name}s"], [name])
            graph.node.insert(0, node)

    path = changed(net(tmp_path / "w.onnx"), only_weights)
    assert OnnxFile.at(path).precision == "int8-weights"


def test_a_quantised_input_makes_no_network_of_integers(tmp_path: Path) -> None:
    def camera(graph: Any) -> None:
        graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        graph.initializer.append(numpy_helper.from_array(np.float32(1 / 255), "scale"))
        graph.node.insert(0, helper.make_node("DequantizeLinear", ["x", "scale"], ["f"]))
        graph.node[1].input[0] = "f"

    assert OnnxFile.at(changed(net(tmp_path / "u.onnx"), camera)).precision == "float32"


def test_trained_for_integers_with_float_weights_is_int8(tmp_path: Path) -> None:
    """As training for integers leaves them: floats between a pair of nodes, weights too."""

    def pairs(graph: Any) -> None:
        graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
        graph.initializer.append(numpy_helper.from_array(np.int8(0), "z"))
        for node in [n for n in graph.node if n.op_type in ("Conv", "MatMul")]:
            for at, name in enumerate(node.input):
                made = [
                    helper.make_node("QuantizeLinear", [name, "scale", "z"], [f"{node.name}{at}q"]),
                    helper.make_node(
                        "DequantizeLinear",
                        [f"{node.name}{at}q", "scale", "z"],
                        [f"{node.name}{at}d"],
                    ),
                ]
                node.input[at] = f"{node.name}{at}d"
                place = list(graph.node).index(node)
                graph.node.insert(place, made[0])
                graph.node.insert(place + 1, made[1])

    path = changed(net(tmp_path / "t.onnx"), pairs)
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert OnnxFile.at(path).precision == "int8"


def test_a_layer_without_weights_counts_by_what_quantises_it(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.uint8(0), "z")
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
            helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
            helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2]),
            helper.make_node("QuantizeLinear", ["c", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["d", "s", "z"], ["y"]),
        ],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 7, 7))],
        [scale, zero],
    )
    onnx.save(helper.make_model(graph), tmp_path / "pool.onnx")
    assert OnnxFile.at(tmp_path / "pool.onnx").precision == "int8"


def as_ort(path: Path) -> Path:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".ort"))
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return path.with_suffix(".ort")


def test_an_ort_file_says_the_same(tmp_path: Path) -> None:
    assert OrtFile.at(as_ort(net(tmp_path / "f.onnx"))).precision == "float32"
    assert OrtFile.at(as_ort(calibrated(tmp_path))).precision == "int8"
    mixed = OrtFile.at(as_ort(calibrated(tmp_path, nodes_to_exclude=["last"])))
    assert mixed.precision == "float32+int8" and mixed.odd.endswith("float32: MatMul last")
    dynamic = tmp_path / "d.onnx"
    quantization.quantize_dynamic(net(tmp_path / "f.onnx"), dynamic)
    assert OrtFile.at(as_ort(dynamic)).precision == "int8-dynamic"


# -- TFLite -------------------------------------------------------------------------------------


def layer(given: str, *through: str, op: str = "CONV_2D") -> tuple[str, str]:
    """Of a graph of one layer: its map of `given`, its weights stored and changed as `through`."""
    tensors = [TfliteTensor("map", given, (1, 8, 8, 3), False)]
    tensors += [TfliteTensor(f"w{i}", k, (8, 3, 3, 3), i == 0) for i, k in enumerate(through)]
    places = range(1, len(through))
    nodes = [TfliteNode("DEQUANTIZE", (i,), (i + 1,)) for i in places]
    out = len(tensors)
    tensors.append(TfliteTensor("out", given, (1, 8, 8, 8), False))
    own = (-1, out - 1, 0) if op == "TRANSPOSE_CONV" else (0, out - 1, -1)
    nodes.append(TfliteNode(op, own, (out,)))
    return TfliteGraph(tuple(tensors), tuple(nodes), (0,), (out,)).computed


@pytest.mark.parametrize(
    ("precision", "given", "through"),
    [
        ("float32", "FLOAT32", ["FLOAT32"]),
        ("float16", "FLOAT16", ["FLOAT16"]),
        ("float16-weights", "FLOAT32", ["FLOAT16", "FLOAT32"]),
        ("int8", "INT8", ["INT8"]),
        ("int8", "UINT8", ["UINT8"]),
        ("int8-dynamic", "FLOAT32", ["INT8"]),
        ("int8-weights", "FLOAT32", ["INT8", "FLOAT32"]),
        ("int16", "INT16", ["INT8"]),
        ("int4", "INT8", ["INT4"]),
    ],
)
def test_a_tflite_layer_by_its_weights_and_its_map(
    precision: str, given: str, through: list[str]
) -> None:
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        assert layer(given, *through, op=op) == (precision, "")


def test_a_tflite_file_that_asks_for_16_bits_is_float16(tmp_path: Path) -> None:
    small = Operator("conv", 8, 8, 8, kernel=3)
    for precision in ("float16", "float16-weights", "int8", "float32"):
        path = write_tflite(small, tmp_path / f"{precision}.tflite", "litert", precision)
        file = TfliteFile.at(path)
        assert file.precision == precision
        assert any("16 bits" in note for note in file.notes) is (precision == "float16")


def test_a_tflite_layer_without_weights_by_its_map() -> None:
    def pooled(kind: str) -> str:
        maps = tuple(TfliteTensor(n, kind, (1, 8, 8, 3), False) for n in "ab")
        node = TfliteNode("MAX_POOL_2D", (0,), (1,))
        return TfliteGraph(maps, (node,), (0,), (1,)).computed[0]

    assert [pooled(k) for k in ("FLOAT32", "INT8", "UINT8", "INT32")] == [
        *("float32", "int8", "int8", "float32")
    ]


def test_a_tflite_file_that_mixes_names_what_it_mixes() -> None:
    kinds = [("INT8", "INT8"), ("INT8", "INT8"), ("FLOAT32", "FLOAT32")]
    tensors, nodes = [TfliteTensor("x", "INT8", (1, 8, 8, 3), False)], []
    for i, (given, weights) in enumerate(kinds):
        tensors += [
            TfliteTensor(f"m{i}", given, (1, 8, 8, 8), False),
            TfliteTensor(f"w{i}", weights, (8, 3, 3, 8), True),
            TfliteTensor(f"o{i}", given, (1, 8, 8, 8), False),
        ]
        nodes.append(TfliteNode("CONV_2D", (3 * i + 1, 3 * i + 2), (3 * i + 3,)))
    graph = TfliteGraph(tuple(tensors), tuple(nodes), (0,), (9,))
    assert graph.computed == (
        "float32+int8",
        "1 of its 3 layers with weights computes in float32: CONV_2D o2",
    )
