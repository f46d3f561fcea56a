"""TFLite files cut into kernels, shown and measured; damaged ones are refused by name."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from phonenas import cli
from phonenas.cli.networks import any_network, kernels_in, network_file
from phonenas.devices.runtimes.engine_litert import Engine
from phonenas.latency_model.graphs.onnx_cut import cut
from phonenas.latency_model.graphs.tflite_cut import _KernelBuilder, cut_tflite
from phonenas.space import Kernel, zoo
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    UncoveredOperator,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.space.file_inputs import Given
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.tflite import to_tflite
from phonenas.space.lowering.write import write_onnx, write_tflite
from phonenas.space.tflite_file import (
    TfliteFile,
    TfliteGraph,
    TfliteNode,
    TfliteTensor,
    read_tflite,
)


@pytest.mark.parametrize("name", ["mnasnet-a1", "mobilenet-v3-large", "resnet-18"])
def test_a_network_is_cut_alike_in_both_formats(name: str, tmp_path: Path) -> None:
    network = zoo.find_graph(name, 1.0, 64) or zoo.find(name, 1.0, 64)
    path = tmp_path / "x.tflite"
    path.write_bytes(to_tflite(network))
    found, other = cut_tflite(path), cut(to_onnx(network))
    assert found.macs == other.macs
    assert found.precision == "float32"

    def convolutions(n: Any) -> list[Any]:
        kernels = [k for k in n.kernels if k.macs]
        return sorted(
            (k.macs, k.in_channels, k.out_channels, k.out_px, k.kernel, k.stride, k.groups)
            for k in kernels
        )

    assert convolutions(found) == convolutions(other)


# -- files made by hand ----------------------------------------------------------------------


def made(
    path: Path,
    *,
    kind: str = "FLOAT32",
    shape: tuple[int, ...] = (1, 8, 8, 4),
    signature: tuple[int, ...] | None = None,
    op: str = "RELU",
    custom: str = "",
) -> Path:
    """A file of one node that reads one input and gives a tensor of the same shape."""
    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.customCode = custom or None
    code.version = 1
    model.operatorCodes = [code]
    model.buffers = [schema.BufferT()]
    tensors = []
    for name in ("x", "y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, list(shape)
        tensor.type = getattr(schema.TensorType, kind)
        tensor.buffer = 0
        if signature is not None:
            tensor.shapeSignature = list(signature)
        tensors.append(tensor)
    graph = schema.SubGraphT()
    graph.tensors = tensors
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0], [1]
    graph.operators, graph.inputs, graph.outputs = [node], [0], [1]
    model.subgraphs = [graph]
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_files_without_kernels_or_at_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="computes nothing from its input"):
        cut_tflite(made(tmp_path / "x.tflite", op="RESHAPE"))
    free = made(tmp_path / "y.tflite", shape=(1, 1, 1, 4), signature=(-1, -1, -1, 4))
    with pytest.raises(UnsupportedFormat, match="was made for x=1,1,1,4"):
        cut_tflite(free, Given(resolution_px=8))
    assert len(cut_tflite(free, Given(resolution_px=1)).kernels) == 1
    found = cut_tflite(made(tmp_path / "z.tflite", op="WHERE", kind="BOOL"))
    assert found.notes == ("its time depends on the input: WHERE",)


def test_free_sides_are_set(tmp_path: Path) -> None:
    path = made(tmp_path / "x.tflite", shape=(1, 1, 1, 4), signature=(-1, -1, -1, 4))
    with pytest.raises(InvalidArgument, match=r"x \(\?, \?, \?, 4\) has free sides"):
        TfliteFile.at(path)
    file = TfliteFile.at(path, given=Given(resolution_px=8))
    assert file.shapes == (("x", (1, 8, 8, 4)),)
    written = write_tflite(file, tmp_path / "m.tflite", "litert")
    model = Engine({"provider": "builtin"}).load(str(written))
    model.run()
    assert model._interpreter.get_input_details()[0]["shape"].tolist() == [1, 8, 8, 4]


@pytest.mark.parametrize("kind", ["UINT8", "INT8", "INT32", "BOOL"])
def test_inputs_of_any_type_run(kind: str, tmp_path: Path) -> None:
    op = "LOGICAL_NOT" if kind == "BOOL" else "CAST"
    path = made(tmp_path / "x.tflite", kind=kind, op=op)
    assert read_tflite(path).given[0].dtype == kind.lower()
    model = Engine({"provider": "builtin"}).load(str(path))
    model.run()


def test_an_operation_of_no_known_kind_is_a_kernel_of_its_own(tmp_path: Path) -> None:
    (kernel,) = cut_tflite(made(tmp_path / "x.tflite", op="CUSTOM", custom="My Op")).kernels
    assert (kernel.kind, kernel.fused[0]) == ("node", "my_op")
    assert (kernel.reads, kernel.writes) == (256, 256)
    with pytest.raises(PhonenasError, match="WHILE does work that depends"):
        cut_tflite(made(tmp_path / "y.tflite", op="WHILE"))


def test_it_is_for_other_runtimes(tmp_path: Path) -> None:
    path = made(tmp_path / "x.tflite")
    with pytest.raises(InvalidArgument, match="measured with litert or benchmark_model"):
        write_onnx(network_file(str(path)), tmp_path / "x.onnx")
    with pytest.raises(InvalidArgument, match="profile --network"):
        kernels_in([str(path)])


def test_what_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no file"):
        read_tflite(tmp_path / "none.tflite")
    (tmp_path / "a.tflite").write_bytes(b"hello, I am no file")
    with pytest.raises(UnsupportedFormat, match="is not a TFLite file"):
        read_tflite(tmp_path / "a.tflite")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    content = bytearray(made(tmp_path / "x.tflite").read_bytes())
    random = np.random.default_rng(0)
    for _ in range(300):
        other = content.copy()
        for at in random.integers(8, len(content), 1 + int(random.integers(4))):
            other[at] = random.integers(256)
        (tmp_path / "y.tflite").write_bytes(other[: int(random.integers(9, len(content) + 1))])
        with contextlib.suppress(PhonenasError):
            cut_tflite(tmp_path / "y.tflite")


def test_a_ready_phone_predicts_it(tmp_path: Path) -> None:
    from phonenas.latency_model.ready import load, phones

    ready = load(next(p.name for p in phones() if p.name.endswith("float32")))
    path = tmp_path / "x.tflite"
    path.write_bytes(to_tflite(zoo.network("mnasnet-a1")))
    network = any_network(str(path), path, ready)
    known = ready.predict([zoo.network("mnasnet-a1"), network])
    assert known.ms[1] == pytest.approx(known.ms[0], rel=0.05)


def test_show_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(to_tflite(zoo.network("mnasnet-a1", resolution=32)))
    monkeypatch.setattr(sys, "argv", ["phonenas", "show", str(path), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    shown = json.loads(capsys.readouterr().out)
    assert shown["precision"] == "float32" and shown["macs"] > 1_000_000


RECORDED = Path(__file__).parents[2] / "recorded"


@pytest.mark.parametrize(
    ("name", "ran"),
    [("tflite_2025_am62_xnnpack_partly", "XNNPACK"), ("tflite_2022_logcat_nnapi_partly", "")],
)
def test_a_delegate_may_leave_nodes_of_a_file_of_others(name: str, ran: str) -> None:
    from phonenas.devices.runtimes.benchmark_model import BenchmarkModel
    from phonenas.devices.settings import DeviceSettings

    text = (RECORDED / f"{name}.txt").read_text(encoding="utf-8")
    settings = DeviceSettings("pixel", "adb", "1", runtime="benchmark_model", binary="b")
    runtime = BenchmarkModel(settings)
    assert runtime._reading(0, text, "", 1).error
    reading = runtime._reading(0, text, "", 1, True)
    if ran:
        assert reading.samples_ms and reading.provider.startswith("XNNPACK, ")
    else:  # another delegate than was asked for
        assert "asked for XNNPACK" in reading.error


def test_inputs_go_with_their_model_and_are_removed_with_it(tmp_path: Path) -> None:
    from phonenas.devices.measuring.models import Models

    class Lite:
        def lower(self, model: TfliteFile, stem: Path) -> Path:
            return model.write(stem.with_suffix(".tflite"))

    class Subject:
        model = TfliteFile.at(
            made(tmp_path / "x.tflite", shape=(1, 1, 1, 4), signature=(-1, -1, -1, 4)),
            given=Given(resolution_px=8),
        )

    folder = tmp_path / "job"
    folder.mkdir()
    subjects: dict[str, Any] = {"a": Subject()}
    models = Models(Lite(), subjects, folder, "float32")  # type: ignore[arg-type]
    path = models.file("a")
    assert np.load(path.with_suffix(".npz"))["x"].shape == (1, 8, 8, 4)
    subjects.clear()
    models.tidy()
    assert list(folder.iterdir()) == []


# -- nodes, one at a time ---------------------------------------------------------------------

MAP = (1, 8, 8, 4)


def const(*sides: int, values: tuple[int, ...] = (), kind: str = "FLOAT32") -> TfliteTensor:
    return TfliteTensor("", kind, sides, True, values)


def kernels(
    op: str, given: list[Any], out: tuple[int, ...], kind: str = "FLOAT32", **options: Any
) -> list[Kernel]:
    """The kernels of one node on maps, by their shapes, and constants."""
    tensors = [
        t if isinstance(t, TfliteTensor) else TfliteTensor(f"m{i}", kind, t, False)
        for i, t in enumerate(given)
    ]
    tensors.append(TfliteTensor("out", kind, out, False))
    at = len(given)
    node = TfliteNode(op, tuple(range(at)), (at,), options)
    maps = tuple(i for i, t in enumerate(tensors[:-1]) if not t.constant)
    graph = TfliteGraph(tuple(tensors), (node,), maps, (at,))
    return [s.kernel for s in _KernelBuilder(graph, "x").steps()]


CONV = const(16, 3, 3, 4)
TWO = {"strideH": 2, "strideW": 2}
WINDOW = {"filterHeight": 2, "filterWidth": 2}
WHOLE = {"filterHeight": 8, "filterWidth": 8}


@pytest.mark.parametrize(
    ("op", "given", "out", "options", "expected"),
    [
        (
            "CONV_2D",
            [MAP, CONV, const(16)],
            (1, 4, 4, 16),
            {**TWO, "fusedActivationFunction": 3},
            Kernel("conv", 4, 16, (8, 8), (4, 4), (3, 3), (2, 2), fused=("relu6",)),
        ),
        (
            "CONV_2D",
            [MAP, const(16, 3, 5, 2)],
            (1, 8, 8, 16),
            {"fusedActivationFunction": 1},
            Kernel("conv", 4, 16, (8, 8), (8, 8), (3, 5), groups=2, fused=("relu",)),
        ),
        (
            "DEPTHWISE_CONV_2D",
            [MAP, const(1, 3, 3, 4)],
            (1, 8, 8, 4),
            {},
            Kernel("conv", 4, 4, (8, 8), (8, 8), (3, 3), groups=4),
        ),
        ("FULLY_CONNECTED", [(1, 64), const(10, 64)], (1, 10), {}, Kernel("linear", 64, 10)),
        (
            "FULLY_CONNECTED",
            [(1, 7, 64), const(10, 64)],
            (1, 7, 10),
            {"fusedActivationFunction": 4},
            Kernel("linear", 64, 10, (7, 1), (7, 1), fused=("tanh",)),
        ),
        ("AVERAGE_POOL_2D", [MAP], (1, 1, 1, 4), WHOLE, Kernel("global_pool", 4, 4, (8, 8))),
        (
            "AVERAGE_POOL_2D",
            [MAP],
            (1, 4, 4, 4),
            {**WINDOW, **TWO},
            Kernel("average_pool", 4, 4, (8, 8), (4, 4), (2, 2), (2, 2)),
        ),
        (
            "MAX_POOL_2D",
            [MAP],
            (1, 1, 1, 4),
            WHOLE,
            Kernel("max_pool", 4, 4, (8, 8), (1, 1), (8, 8)),
        ),
        ("MEAN", [MAP, const(2, values=(1, 2))], (1, 4), {}, Kernel("global_pool", 4, 4, (8, 8))),
        ("MEAN", [MAP, const(2, values=(-2, -3))], (1, 4), {}, Kernel("global_pool", 4, 4, (8, 8))),
        ("ADD", [MAP, MAP], MAP, {}, Kernel("add", 4, 4, (8, 8), (8, 8), operands=2)),
        ("SUB", [MAP, const(4)], MAP, {}, Kernel("add", 4, 4, (8, 8), (8, 8))),
        ("DIV", [MAP, (1, 1, 1, 4)], MAP, {}, Kernel("mul", 4, 4, (8, 8), (8, 8))),
        ("MUL", [MAP, MAP], MAP, {}, Kernel("mul", 4, 4, (8, 8), (8, 8), operands=2)),
        (
            "LOGISTIC",
            [MAP],
            MAP,
            {},
            Kernel("activation", 4, 4, (8, 8), (8, 8), fused=("sigmoid",)),
        ),
        (
            "CONCATENATION",
            [MAP, MAP, MAP],
            (1, 8, 8, 12),
            {},
            Kernel("concat", 12, 12, (8, 8), (8, 8), operands=3),
        ),
        (
            "PAD",
            [MAP, const(4, 2)],
            (1, 10, 9, 4),
            {},
            Kernel("move", 4, 4, (8, 8), (10, 9), fused=("pad",)),
        ),
        (
            "TRANSPOSE",
            [(1, 8, 6, 4), const(4, values=(0, 3, 1, 2))],
            (1, 4, 8, 6),
            {},
            Kernel("move", 4, 6, (8, 6), (4, 8), fused=("transpose",)),
        ),
        (
            "STRIDED_SLICE",
            [MAP, const(4), const(4), const(4)],
            (1, 8, 8, 2),
            {},
            Kernel("move", 4, 2, (8, 8), (8, 8), fused=("slice",)),
        ),
        ("SOFTMAX", [(1, 10)], (1, 10), {}, Kernel("softmax", 10, 10)),
        (
            "RESIZE_NEAREST_NEIGHBOR",
            [MAP, const(2)],
            (1, 16, 16, 4),
            {},
            Kernel("resize", 4, 4, (8, 8), (16, 16)),
        ),
    ],
)
def test_a_node_as_a_kernel(
    op: str, given: list[Any], out: tuple[int, ...], options: dict[str, Any], expected: Kernel
) -> None:
    assert kernels(op, given, out, **options) == [expected]


@pytest.mark.parametrize(
    ("op", "given", "out", "options", "reads", "writes", "window"),
    [
        # 8·8·4 and 16·3·3·4 numbers read; 3·3·4 products for each that is written.
        ("CONV_2D", [MAP, CONV], (1, 8, 8, 16), {"dilationWFactor": 2}, 832, 1024, 36),
        ("CONV_2D", [MAP, CONV], (1, 8, 8, 16), {"fusedActivationFunction": 5}, 832, 1024, 36),
        ("CONV_2D", [MAP, (16, 3, 3, 4)], (1, 8, 8, 16), {}, 832, 1024, 36),
        ("CONV_2D", [(2, 8, 8, 4), CONV], (2, 8, 8, 16), {}, 1088, 2048, 36),
        ("DEPTHWISE_CONV_2D", [MAP, const(1, 3, 3, 4)], MAP, {"dilationHFactor": 2}, 292, 256, 9),
        ("FULLY_CONNECTED", [(1, 64), (10, 64)], (1, 10), {}, 704, 10, 64),
        ("BATCH_MATMUL", [(1, 5, 64), (1, 64, 7)], (1, 5, 7), {}, 768, 35, 64),
        # Each of the 4·4·4 numbers read takes part in 2·2·8 products.
        (
            "TRANSPOSE_CONV",
            [const(4), const(8, 2, 2, 4), (1, 4, 4, 4)],
            (*MAP[:3], 8),
            {},
            196,
            512,
            4,
        ),
        ("MEAN", [MAP, const(1, values=(3,))], (1, 8, 8), {}, 257, 64, 1),
        ("ADD", [(1, 1, 1, 4), (1, 8, 8, 1)], MAP, {}, 68, 256, 1),
        ("TRANSPOSE", [MAP, const(4)], (1, 4, 8, 8), {}, 260, 256, 1),
        ("CUMSUM", [MAP, const(1)], MAP, {}, 257, 256, 1),
    ],
)
def test_what_no_kind_stands_for_is_a_kernel_of_the_files_own(
    op: str,
    given: list[Any],
    out: tuple[int, ...],
    options: dict[str, Any],
    reads: int,
    writes: int,
    window: int,
) -> None:
    (kernel,) = kernels(op, given, out, **options)
    assert (kernel.kind, kernel.in_channels, kernel.out_channels) == ("node", reads, writes)
    assert kernel.kernel == (1, window)
    assert kernel.fused[0] == op.lower() and kernel.fused[1][0] == "d"
    # Another option is another kernel.
    (other,) = kernels(op, given, out, **{**options, "more": 1})
    assert other.fused[0] == kernel.fused[0] and other != kernel


@pytest.mark.parametrize(
    ("kind", "numbers"), [("INT32", 256), ("INT64", 512), ("FLOAT16", 128), ("INT8", 64)]
)
def test_a_kernel_of_its_own_counts_words_of_32_bits(kind: str, numbers: int) -> None:
    (kernel,) = kernels("CUMSUM", [MAP], MAP, kind)
    assert (kernel.in_channels, kernel.out_channels) == (numbers, numbers)


def test_integers_beside_the_maps_are_no_network_of_their_type() -> None:
    assert kernels("ADD", [MAP, MAP], MAP, "INT32")[0].kind == "node"
    for kind in ("INT8", "UINT8", "FLOAT16"):
        assert kernels("ADD", [MAP, MAP], MAP, kind)[0].kind == "add"


def test_what_only_renames_is_no_kernel() -> None:
    assert kernels("RESHAPE", [MAP, const(2)], (1, 256)) == []
    assert kernels("SHAPE", [MAP], (4,), "INT32") == []
    assert kernels("TRANSPOSE", [(1, 1, 1, 4), const(4, values=(0, 3, 1, 2))], (1, 4, 1, 1)) == []


@pytest.mark.parametrize("op", ["IF", "WHILE", "CALL_ONCE"])
def test_what_runs_by_its_data_is_named(op: str) -> None:
    with pytest.raises(UncoveredOperator, match=f"node 0 of type {op} does work that depends"):
        kernels(op, [MAP], MAP)


def test_padding_goes_into_the_convolution_behind_it_and_constants_are_computed_once() -> None:
    tensors = (
        TfliteTensor("x", "FLOAT32", MAP, False),
        const(4, 2, kind="INT32"),
        TfliteTensor("padded", "FLOAT32", (1, 10, 10, 4), False),
        const(16, 3, 3, 4, kind="FLOAT16"),
        TfliteTensor("wide", "FLOAT32", (16, 3, 3, 4), False),
        TfliteTensor("y", "FLOAT32", (1, 8, 8, 16), False),
    )
    wide = TfliteNode("DEQUANTIZE", (3,), (4,))
    conv = TfliteNode("CONV_2D", (2, 4, -1), (5,))
    for op, expected in (
        ("PAD", [Kernel("conv", 4, 16, (8, 8), (8, 8), (3, 3))]),
        (
            "PADV2",  # by another value than 0
            [
                Kernel("move", 4, 4, (8, 8), (10, 10), fused=("pad",)),
                Kernel("conv", 4, 16, (10, 10), (8, 8), (3, 3)),
            ],
        ),
    ):
        nodes = (TfliteNode(op, (0, 1), (2,)), wide, conv)
        found = _KernelBuilder(TfliteGraph(tensors, nodes, (0,), (5,)), "x").steps()
        assert [s.kernel for s in found] == expected
        assert found[-1].output == "y"


def test_a_split_reads_its_map_once() -> None:
    half = TfliteTensor("a", "FLOAT32", (1, 8, 8, 2), False)
    tensors = (const(1, kind="INT32"), TfliteTensor("x", "FLOAT32", MAP, False), half, half)
    nodes = (TfliteNode("SPLIT", (0, 1), (2, 3)),)
    (step,) = _KernelBuilder(TfliteGraph(tensors, nodes, (1,), (2, 3)), "x").steps()
    assert step.kernel == Kernel("move", 4, 4, (8, 8), (8, 8), fused=("split",))
    assert (step.inputs, step.node, step.output) == (("x",), "0 SPLIT", "a")
