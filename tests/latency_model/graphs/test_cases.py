"""The small files of `../shared/cases`: kinds that people bring, each with its right answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from phonenas import cli, devices
from phonenas.cli.networks import kernels_in, network_file
from phonenas.data.store import MeasurementStore
from phonenas.latency_model.graphs.onnx_cut import cut
from phonenas.space import Kernel
from phonenas.space.errors import InvalidArgument, UncoveredOperator, UnsupportedFormat
from phonenas.space.file_inputs import NOT_GIVEN, Given, GivenArray
from phonenas.space.lowering.write import write_onnx
from phonenas.space.onnx_file import OnnxFile

MAKE = Path(__file__).parents[4] / "shared" / "cases" / "make.py"
Run = Callable[..., tuple[int, str, str]]
PLAIN = ["conv+relu", "global_pool"]
MACS = 16 * 3 * 3 * 3 * 64 * 64


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not MAKE.is_file():
        pytest.skip("../shared/cases is not beside this checkout")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKE), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["phonenas", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def names(path: Path, given: Given = NOT_GIVEN) -> list[str]:
    return [
        "+".join([k.kind, *(f for f in k.fused if k.kind != "node" or f == k.fused[0])])
        for k in cut(path, given).kernels
    ]


CUTS: dict[str, list[str]] = {
    "plain": PLAIN,
    "weights_beside": PLAIN,
    "no_batch": PLAIN,
    "denormal": PLAIN,
    "newest_ir": PLAIN,
    "float16": PLAIN,
    "uint8_nhwc": ["node+cast", "move+transpose", *PLAIN],
    "two_inputs": [*PLAIN, "concat"],
    "function": ["conv+relu", "activation+relu", "global_pool"],
    "gelu": ["conv+relu", "node+gelu", "global_pool"],
    "bilinear": ["conv+relu", "node+resize", "global_pool"],
    "nearest": ["conv+relu", "resize", "global_pool"],
    "transposed": ["conv+relu", "node+convtranspose", "global_pool"],
    "reduce_max": ["conv+relu", "node+reducemax", "global_pool"],
    "power": ["conv+relu", "node+pow", "global_pool"],
    "int8_qdq": [
        "node+quantizelinear",
        "node+conv",
        "node+globalaveragepool",
        "node+dequantizelinear",
    ],
}


@pytest.mark.parametrize("name", CUTS)
def test_each_is_taken_apart(name: str, cases: Path) -> None:
    path = cases / f"{name}.onnx"
    assert names(path) == CUTS[name]
    network = cut(path)
    px = 160 if name == "nearest" else 64
    up = 16 * 8 * 4 * 64 * 64 if name == "transposed" else 0
    assert network.macs == MACS * px * px // 64**2 + up
    assert not any("batch" in note for note in network.notes)


@pytest.mark.parametrize("name", CUTS)
def test_each_kernel_runs_alone(name: str, cases: Path, tmp_path: Path) -> None:
    for number, kernel in enumerate(kernels_in([str(cases / f"{name}.onnx")])):
        path = write_onnx(kernel, tmp_path / f"{number}.onnx")
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if name == "int8_qdq":  # the weights are integers, as in the file
        kinds = {t.data_type for t in onnx.load(tmp_path / "1.onnx").graph.initializer}
        assert onnx.TensorProto.INT8 in kinds


def test_precisions(cases: Path) -> None:
    found = {n: OnnxFile.at(cases / f"{n}.onnx").precision for n in CUTS}
    assert {n: p for n, p in found.items() if p != "float32"} == {
        "float16": "float16",
        "int8_qdq": "int8",
    }
    kernels = kernels_in([str(cases / "float16.onnx")])
    assert {getattr(k, "precision", "float32") for k in kernels} == {"float16"}
    kernels = kernels_in([str(cases / "int8_qdq.onnx")])
    assert {getattr(k, "precision", "float32") for k in kernels} == {"int8"}


def test_free_sides_are_set_and_said(cases: Path, tmp_path: Path) -> None:
    path = cases / "free_sides.onnx"
    with pytest.raises(
        InvalidArgument, match=r"free sides \(H, W\).*--resolution 224  or  --shape"
    ):
        cut(path)
    for given in (Given(resolution_px=64), Given(shapes=(("x", (1, 3, 64, 64)),))):
        network = cut(path, given)
        assert network.kernels == cut(cases / "plain.onnx").kernels
        assert "input x is set to 1,3,64,64" in network.notes
        file = OnnxFile.at(path, given=given)
        written = write_onnx(file, tmp_path / f"{given.resolution_px}.onnx")
        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == [1, 3, 64, 64]
    larger = OnnxFile.at(path, given=Given(resolution_px=96))
    assert larger.key != file.key


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Given(resolution_px=32), "--resolution does not apply to .*x .1, 3, 64, 64"),
        (Given(shapes=(("x", (1, 3, 32, 32)),)), "--shape x=1,3,32,32 does not fit"),
        (Given(shapes=(("x", (1, 3, 64)),)), "--shape x=1,3,64 does not fit"),
        (Given(shapes=(("y", (1, 3)),)), "no input y; its inputs: x"),
        (
            Given(file=Path("a.npz"), arrays=(("y", GivenArray("float32", (1,))),)),
            "it holds y; the inputs of .*are x",
        ),
        (
            Given(file=Path("a.npz"), arrays=(("x", GivenArray("float64", (1, 3, 64, 64))),)),
            "x is float64, and .* takes float32",
        ),
        (
            Given(file=Path("a.npz"), arrays=(("x", GivenArray("float32", (1, 3, 8, 8))),)),
            "x of 1,3,8,8 does not fit",
        ),
    ],
)
def test_what_does_not_apply_is_refused(given: Given, words: str, cases: Path) -> None:
    for read in (cut, network_file):
        with pytest.raises(InvalidArgument, match=words):
            read(cases / "plain.onnx" if read is cut else str(cases / "plain.onnx"), given)


def test_options_that_cannot_apply_end_with_2(cases: Path, run: Run) -> None:
    plain = str(cases / "plain.onnx")
    for words in (("--width", "0.5"), ("--resolution", "32"), ("--shape", "x=1,3,32,32")):
        code, out, err = run("show", plain, *words)
        assert (code, out) == (2, "") and words[0] in err and err.count("\n") == 1
    assert run("show", "mnasnet-a1", "--shape", "x=1,3,32,32")[0] == 2


def test_weights_beside_a_file_go_with_it(cases: Path, tmp_path: Path) -> None:
    written = write_onnx(OnnxFile.at(cases / "weights_beside.onnx"), tmp_path / "one.onnx")
    one = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    two = onnxruntime.InferenceSession(
        cases / "weights_beside.onnx", providers=["CPUExecutionProvider"]
    )
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)}
    assert np.array_equal(one.run(None, x)[0], two.run(None, x)[0])


def damaged(cases: Path, tmp_path: Path, **said: str) -> Path:
    model = onnx.load(cases / "weights_beside.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = said.get(entry.key, entry.value)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    data = (cases / "weights_beside.onnx.data").read_bytes()
    (tmp_path / "weights_beside.onnx.data").write_bytes(data)
    (tmp_path.parent / "outside.data").write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"location": "gone.data"}, "that file is not there"),
        ({"location": "../outside.data"}, "outside the model's own folder"),
        ({"location": "/etc/hostname"}, "outside the model's own folder"),
        ({"location": ""}, "outside the model's own folder"),
        ({"offset": "4096"}, "cut short"),
        ({"length": "4"}, "cut short"),
        ({"offset": "-1"}, "cut short"),
        ({"offset": "many"}, "no number"),
    ],
)
def test_weights_elsewhere_or_gone(
    said: dict[str, str], words: str, cases: Path, tmp_path: Path
) -> None:
    path = damaged(cases, tmp_path, **said)
    with pytest.raises(UnsupportedFormat, match=words):
        cut(path)
    with pytest.raises(UnsupportedFormat, match=words):
        OnnxFile.at(path)


def test_a_link_that_leads_out_is_not_followed(cases: Path, tmp_path: Path) -> None:
    path = damaged(cases, tmp_path)
    data = tmp_path / "weights_beside.onnx.data"
    data.unlink()
    data.symlink_to(tmp_path.parent / "outside.data")
    with pytest.raises(UnsupportedFormat, match="outside the model's own folder"):
        cut(path)
    # A download cache has both as links into one folder of its own.
    data.unlink()
    cache = tmp_path / "blobs"
    cache.mkdir()
    (tmp_path.parent / "outside.data").rename(cache / "data")
    path.rename(cache / "model")
    (tmp_path / "snapshot").mkdir()
    linked = tmp_path / "snapshot" / "model.onnx"
    linked.symlink_to(cache / "model")
    (tmp_path / "snapshot" / "weights_beside.onnx.data").symlink_to(cache / "data")
    assert names(linked) == PLAIN


def test_a_branch_on_data_is_named(cases: Path, run: Run) -> None:
    path = cases / "branch.onnx"
    with pytest.raises(UncoveredOperator, match="'choice' of type If"):
        cut(path)
    code, out, err = run("show", str(path))
    assert (code, out) == (1, "") and "'choice' of type If" in err and err.count("\n") == 1
    assert any("depends on the data" in n for n in network_file(str(path)).notes)


def test_two_files_of_other_weights_are_two_subjects(cases: Path) -> None:
    keys = [OnnxFile.at(cases / f"{n}.onnx").key.split("#")[1] for n in ("plain", "denormal")]
    assert keys[0] != keys[1]


def measured(paths: list[str], tmp_path: Path, given: Given = NOT_GIVEN) -> dict[str, Any]:
    files = [network_file(p, given) for p in paths]
    protocol = devices.Protocol(network_rounds=1, network_runs=3, warmup_runs=1, warmup_s=0.0)
    with devices.connect("local") as phone, MeasurementStore(tmp_path / "s.db") as store:
        outcome = devices.profile(
            None,
            on=phone,
            into=store,
            networks=0,
            more=devices.Selection(files=files),
            protocol=protocol,
        )
    return {t.split("#")[0]: m.conditions.precision for t, m in outcome.results.items()}


@pytest.mark.slow
def test_each_is_measured_in_its_own_precision(cases: Path, tmp_path: Path) -> None:
    given = {"free_sides": Given(resolution_px=64)}
    for name in (*CUTS, "branch", "free_sides"):
        folder = tmp_path / name
        folder.mkdir()
        precision = measured([str(cases / f"{name}.onnx")], folder, given.get(name, Given()))
        own = {"float16": "float16", "int8_qdq": "int8"}.get(name, "float32")
        assert precision.get(f"{name}.onnx", own) == own


def test_a_file_runs_on_the_inputs_that_are_given(cases: Path, tmp_path: Path) -> None:
    from phonenas.devices.runtimes.engine_onnxruntime import Engine

    values = {
        "x": np.full((1, 3, 64, 64), 2, np.float32),
        "e": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1),
    }
    np.savez(tmp_path / "two.npz", **values)
    held = tuple((n, GivenArray(str(a.dtype), a.shape)) for n, a in values.items())
    given = Given(file=tmp_path / "two.npz", arrays=held, digest="d")
    file = OnnxFile.at(cases / "two_inputs.onnx", given=given)
    assert file.key != OnnxFile.at(cases / "two_inputs.onnx").key
    path = write_onnx(file, tmp_path / "model.onnx")
    model = Engine({"provider": "CPUExecutionProvider"}).load(str(path))
    assert model.run()[0][0, -4:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["UINT8", "INT32", "INT64", "BOOL", "DOUBLE", "STRING"])
def test_inputs_of_any_type_are_made_up(kind: str, tmp_path: Path) -> None:
    from phonenas.devices.runtimes.engine_onnxruntime import Engine

    made = onnx.helper.make_tensor_value_info
    element = onnx.TensorProto.DataType.Value(kind)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [made("x", element, (2, 3))],
        [made("y", element, (2, 3))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "x.onnx")
    loaded = Engine({"provider": "CPUExecutionProvider"}).load(str(tmp_path / "x.onnx"))
    assert np.asarray(loaded.run()[0]).shape == (2, 3)


def test_a_format_newer_than_the_runtime_is_told(tmp_path: Path, cases: Path) -> None:
    from phonenas.devices.runtimes.engine_onnxruntime import Engine

    model = onnx.load(cases / "plain.onnx")
    model.ir_version = 99
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"ONNX IR version 99, and onnxruntime .* reads up to"):
        Engine({"provider": "CPUExecutionProvider"}).load(str(tmp_path / "x.onnx"))


def test_show_says_what_was_set(cases: Path, run: Run) -> None:
    _, out, _ = run("show", str(cases / "free_sides.onnx"), "--resolution", "64", "--json")
    shown = json.loads(out)
    assert shown["macs"] == MACS
    assert shown["notes"] == ["batch N is taken as 1", "input x is set to 1,3,64,64"]
    shown = json.loads(run("show", str(cases / "int8_qdq.onnx"), "--json")[1])
    assert shown["precision"] == "int8"
    assert all(Kernel.parse(o["key"]).kind == "node" for o in shown["operators"])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (None, "there is no file"),
        (b"no zip", "not an .npz file"),
        ({"y": np.zeros(3)}, "it holds y; the inputs of"),
        ({"x": np.zeros((1, 3, 64, 64), "i8")}, "x is int64, and"),
        ({"x": np.zeros((1, 3, 8, 8), "f4")}, "x of 1,3,8,8 does not fit"),
    ],
)
def test_an_input_file_of_other_arrays_is_one_line(
    arrays: Any, words: str, cases: Path, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "given.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    elif arrays is not None:
        np.savez(path, **arrays)
    code, out, err = run("show", str(cases / "plain.onnx"), "--input", str(path))
    assert code in (1, 2) and out == "" and words in err and err.count("\n") == 1


def ort_file(cases: Path, name: str, tmp_path: Path) -> Path:
    """As ONNX Runtime's converter writes it."""
    options, path = onnxruntime.SessionOptions(), tmp_path / f"{name}.ort"
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        cases / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
    )
    return path


def test_an_ort_file_is_measured_whole(cases: Path, run: Run, tmp_path: Path) -> None:
    from phonenas.devices.runtimes.engine_onnxruntime import Engine

    path = ort_file(cases, "free_sides", tmp_path)
    with pytest.raises(InvalidArgument, match=r"free sides \(H, W\)"):
        network_file(str(path))
    file = network_file(str(path), Given(resolution_px=64))
    assert file.shapes == (("x", (1, 3, 64, 64)),)
    written = write_onnx(file, tmp_path / "1.onnx")
    model = Engine({"provider": "CPUExecutionProvider"}).load(str(written))
    assert model.run()[0].shape == (1, 16, 1, 1)
    found = {n: network_file(str(ort_file(cases, n, tmp_path))) for n in ("plain", "int8_qdq")}
    assert {n: f.precision for n, f in found.items()} == {"plain": "float32", "int8_qdq": "int8"}
    # Saved for this processor: where it has no kernels for float16, the weights are made float32.
    half = network_file(str(ort_file(cases, "float16", tmp_path)))
    assert half.precision.startswith("float16")
    code, out, err = run("show", str(path))
    assert (code, out) == (1, "") and "is measured whole:  phonenas profile --network" in err
    content = path.read_bytes()
    for damaged in (b"hello, no such file", content[:200], content[:8] + bytes(len(content))):
        path.write_bytes(damaged)
        with pytest.raises(UnsupportedFormat):
            network_file(str(path))
