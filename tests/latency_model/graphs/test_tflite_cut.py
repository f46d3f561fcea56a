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
from phonenas.latency_model.graphs.tflite_cut import cut_tflite
from phonenas.space import zoo
from phonenas.space.errors import InvalidArgument, PhonenasError, UnknownName, UnsupportedFormat
from phonenas.space.file_inputs import Given
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.tflite import to_tflite
from phonenas.space.lowering.write import write_onnx, write_tflite
from phonenas.space.tflite_file import TfliteFile, read_tflite


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
    with pytest.raises(PhonenasError, match="WHILE runs what the data say"):
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
    models = Models(Lite(), subjects, folder)  # type: ignore[arg-type]
    path = models.file("a")
    assert np.load(path.with_suffix(".npz"))["x"].shape == (1, 8, 8, 4)
    subjects.clear()
    models.tidy()
    assert list(folder.iterdir()) == []
