"""Any ONNX network cut into kernels as the runtime itself fuses them; odd graphs get a clear no."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from phonenas.latency_model.graphs.onnx_cut import OnnxNetwork, cut, to_measure
from phonenas.space import Kernel, get, zoo
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    UncoveredOperator,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.space.kernels.lifted import LiftedKernel
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.write import write_onnx
from phonenas.space.onnx_file import OnnxFile, elsewhere, graph_bytes, without_weights
from tests.space.kernels.test_kernel import optimised
from tests.space.lowering.makes import FEW

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = {
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_inception_v1",
    "light_inception_v2",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "light_vgg19",
    "light_zfnet512",
}
# Multiply-adds in billions, as their papers and the model zoo's tables have them.
GMACS = {
    "light_resnet50": 4.1,
    "light_vgg19": 19.6,
    "light_densenet121": 2.8,
    "light_squeezenet": 0.35,
}
# Runtime's node types, by the kinds of kernel that they are.
KINDS = {
    "Conv": "conv",
    "FusedConv": "conv",
    "Gemm": "linear",
    "FusedGemm": "linear",
    "MatMul": "linear",
    "MaxPool": "max_pool",
    "AveragePool": "average_pool",
    "GlobalAveragePool": "global_pool",
    "Add": "add",
    "Sum": "add",
    "Mul": "mul",
    "Relu": "activation",
    "Clip": "activation",
    "BatchNormalization": "batch_norm",
    "LRN": "lrn",
    "Softmax": "softmax",
    "Concat": "concat",
    "Transpose": "move",
    "QuickGelu": "activation",
    "Slice": "move",
    "Pad": "move",
}
FREE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}


def counts(network: OnnxNetwork) -> Counter[str]:
    return Counter(k.kind for k in network.kernels)


def runtime_counts(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    nodes = Counter(optimised(model, folder))
    # h-swish after a convolution is two nodes of the runtime, and belongs to that kernel.
    swish = nodes.pop("HardSigmoid", 0)
    nodes["Mul"] -= swish
    return Counter(KINDS[t] for t in nodes.elements() if t not in FREE)


# -- whole networks ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES))
def test_published_networks_are_cut_as_the_runtime_fuses_them(name: str, tmp_path: Path) -> None:
    network = cut(LIGHT / f"{name}.onnx")
    if name in GMACS:
        assert network.macs / 1e9 == pytest.approx(GMACS[name], rel=0.03)
    if name != "light_vgg19":  # half a gigabyte of constants, which only the runtime makes
        model = onnx.load(LIGHT / f"{name}.onnx")
        assert counts(network) == runtime_counts(model, tmp_path)
    else:
        expected = {"conv": 16, "max_pool": 5, "linear": 3, "softmax": 1}
        assert counts(network) == expected


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in zoo.names()]
)
def test_the_zoo_is_cut_as_the_runtime_fuses_it(name: str, tmp_path: Path) -> None:
    architecture = zoo.network(name, resolution=96)
    model = to_onnx(architecture)
    network = cut(model)
    assert counts(network) == runtime_counts(model, tmp_path)
    head = architecture.operators()[-1]
    hidden = (head.features or head.in_channels) * head.hidden  # a 1 × 1 convolution, no gate
    gates = sum(k.macs for k in network.kernels if k.out_px == (1, 1) and k.kind == "conv")
    assert network.macs - gates + hidden == pytest.approx(architecture.macs, rel=0.01)


@pytest.mark.parametrize(
    "number", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 8))]
)
def test_random_networks_are_cut_as_the_runtime_fuses_them(number: int, tmp_path: Path) -> None:
    random = RandomCNN(number)
    network = cut(random.to_onnx())
    assert network.macs == random.macs
    assert counts(network) == runtime_counts(random.to_onnx(), tmp_path)


def test_random_networks_of_the_space_are_cut_as_the_runtime_fuses_them(tmp_path: Path) -> None:
    mnas = get("mnasnet", 64)
    for genome in mnas.sample(np.random.default_rng(0), 3):
        model = to_onnx(mnas.decode(genome))
        assert counts(cut(model)) == runtime_counts(model, tmp_path)


def test_full_optimisation_folds_what_the_layout_says(tmp_path: Path) -> None:
    path = LIGHT / "light_resnet50.onnx"
    network = cut(path)
    kinds = Counter(optimised(onnx.load(path), tmp_path, "ALL"))
    if "ReorderOutput" not in kinds:
        pytest.skip("this computer's runtime lays no maps out in blocks")
    assert sum(s.folded for s in network.steps) == 32
    assert not kinds["Sum"]
    assert not kinds["Relu"]
    inner = [s for s in network.steps if s.kernel.kind == "conv"][1:-1]
    assert all(s.direct_in and s.direct_out for s in inner)


# -- graphs made by hand -------------------------------------------------------------------------

Body = Callable[["Maker"], str]


class Maker:
    """Builds a small graph; `x` is its input, (1, 16, 14, 14)."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [name], name=f"n{len(self.nodes)}", **attributes)
        )
        return name

    def constant(self, array: Any) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def conv(self, x: str, cin: int = 16, cout: int = 16, k: int = 1) -> str:
        weight = np.random.default_rng(len(self.tensors)).standard_normal((cout, cin, k, k))
        return self.node("Conv", x, self.constant(weight.astype(np.float32)), pads=[k // 2] * 4)

    def model(self, body: Body, shape: Any = (1, 16, 14, 14), opset: int = 14) -> onnx.ModelProto:
        out = body(self)
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [info("x", TensorProto.FLOAT, shape)],
            [info(out, TensorProto.FLOAT, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        return model


def kernels(body: Body, **more: Any) -> list[str]:
    return [
        k.kind + "".join(f"+{f}" for f in k.fused) for k in cut(Maker().model(body, **more)).kernels
    ]


def scalar(m: Maker, value: float) -> str:
    return m.constant(np.float32(value))


def channel(m: Maker) -> str:
    return m.constant(np.full((16, 1, 1), 2, np.float32))


def batch_norm(m: Maker, x: str) -> str:
    return m.node("BatchNormalization", x, *(m.constant(np.ones(16, np.float32)) for _ in range(4)))


def swish(m: Maker, x: str) -> str:
    return m.node("Mul", x, m.node("Sigmoid", x))


def hard_swish(m: Maker, x: str) -> str:
    return m.node("Mul", x, m.node("HardSigmoid", x, alpha=1 / 6))


def shuffled(m: Maker) -> str:
    x = m.node("Reshape", m.conv("x"), m.constant(np.array([1, 2, 8, 14, 14])))
    x = m.node("Transpose", x, perm=[0, 2, 1, 3, 4])
    return m.node("Reshape", x, m.constant(np.array([1, 16, 14, 14])))


def flattened(m: Maker) -> str:
    """A reshape to a size that is computed from the shape, as PyTorch exports it."""
    size = m.node("Gather", m.node("Shape", "x"), m.constant(np.int64(0)), axis=0)
    size = m.node("Unsqueeze", size, m.constant(np.array([0])))
    size = m.node("Concat", size, m.constant(np.array([-1])), axis=0)
    flat = m.node("Reshape", "x", size)
    return m.node("Gemm", flat, m.constant(np.ones((16 * 14 * 14, 4), np.float32)))


CUTS: dict[str, tuple[Body, list[str]]] = {
    "batch norm": (lambda m: m.node("Relu", batch_norm(m, m.conv("x"))), ["conv+relu"]),
    "batch norm alone": (lambda m: batch_norm(m, "x"), ["batch_norm"]),
    "scale and shift": (
        lambda m: m.node("Add", m.node("Mul", m.conv("x"), channel(m)), channel(m)),
        ["conv"],
    ),
    "clip": (lambda m: m.node("Clip", m.conv("x"), scalar(m, 0), scalar(m, 6)), ["conv+relu6"]),
    "swish": (lambda m: swish(m, m.conv("x")), ["conv", "activation+swish"]),
    "hard swish": (lambda m: hard_swish(m, m.conv("x")), ["conv+hard_swish"]),
    "residual": (lambda m: m.node("Add", m.conv("x"), "x"), ["conv", "add"]),
    "dropout": (lambda m: m.conv(m.node("Dropout", m.conv("x"))), ["conv", "conv"]),
    "padding": (
        lambda m: m.conv(m.node("Pad", "x", m.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))),
        ["conv"],
    ),
    "shuffle": (shuffled, ["conv", "move+shuffle"]),
    "shape arithmetic": (flattened, ["linear"]),
    "matmul and bias": (
        lambda m: m.node(
            "Add",
            m.node("MatMul", m.node("Flatten", "x"), m.constant(np.ones((3136, 4), np.float32))),
            m.constant(np.ones(4, np.float32)),
        ),
        ["linear"],
    ),
    "mean": (lambda m: m.node("ReduceMean", "x", axes=[2, 3]), ["global_pool"]),
    "gate": (
        lambda m: m.node("Mul", "x", m.node("Sigmoid", m.conv(m.node("GlobalAveragePool", "x")))),
        ["global_pool", "conv+sigmoid", "mul"],
    ),
    "twins": (
        lambda m: m.node("Add", m.node("Relu", "x"), m.node("Relu", "x")),
        ["activation+relu", "add"],
    ),
    "dead end": (lambda m: (m.node("Relu", "x"), m.conv("x"))[1], ["conv"]),
    "slice": (
        lambda m: m.node(
            "Slice",
            "x",
            m.constant(np.array([0])),
            m.constant(np.array([8])),
            m.constant(np.array([1])),
        ),
        ["move+slice"],
    ),
    "upsampling": (
        lambda m: m.node("Resize", "x", "", m.constant(np.array([1, 1, 2, 2], np.float32))),
        ["resize"],
    ),
}


@pytest.mark.parametrize("what", CUTS)
def test_small_graphs(what: str) -> None:
    body, expected = CUTS[what]
    assert kernels(body) == expected


def test_old_opsets_say_the_same() -> None:
    def body(m: Maker) -> str:
        return m.node("Clip", m.conv("x"), min=0.0, max=6.0)

    assert kernels(body, opset=7) == ["conv+relu6"]


def test_padding_counts_where_it_was_given() -> None:
    def body(m: Maker) -> str:
        return m.conv(m.node("Pad", "x", m.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))), k=3)

    assert cut(Maker().model(body)).kernels == (Kernel("conv", 16, 16, (14, 14), (16, 16), (3, 3)),)


def test_a_free_batch_is_one_and_said_so() -> None:
    network = cut(Maker().model(lambda m: m.conv("x"), shape=("N", 16, 14, 14)))
    assert network.notes == ("batch N is taken as 1",)
    assert network.macs == 16 * 16 * 14 * 14


REFUSED: dict[str, tuple[Body, Any, type[PhonenasError], str]] = {
    "free side": (lambda m: m.conv("x"), (1, 16, "H", 14), InvalidArgument, "a free side .H."),
    "free sides": (
        lambda m: m.conv("x"),
        (1, 16, "H", "W"),
        InvalidArgument,
        "--resolution 224  or  --shape x=1,16,224,224",
    ),
    "no shape": (lambda m: m.conv("x"), None, InvalidArgument, "no shape. Set it:  --shape x="),
    "does not run": (
        lambda m: m.node("Reshape", "x", m.node("NonZero", "x")),
        (1, 16, 14, 14),
        UnsupportedFormat,
        "does not run here.*--input FILE.npz",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_odd_graphs_get_a_clear_no(what: str) -> None:
    body, shape, error, words = REFUSED[what]
    with pytest.raises(error, match=words):
        cut(Maker().model(body, shape=shape))


# Nodes that no kind of kernel stands for: its type, numbers in and out, multiply-adds.
OWN: dict[str, tuple[Body, Any, tuple[str, int, int, int]]] = {
    "einsum": (
        lambda m: m.node("Einsum", "x", equation="abcd->ab"),
        (1, 16, 14, 14),
        ("einsum", 3136, 16, 0),
    ),
    "two maps multiplied": (
        lambda m: m.node("MatMul", "x", "x"),
        (1, 16, 14, 14),
        ("matmul", 3136, 3136, 3136 * 14),
    ),
    "spread window": (
        lambda m: m.node(
            "Conv", "x", m.constant(np.ones((16, 16, 3, 3), np.float32)), dilations=[2, 2]
        ),
        (1, 16, 14, 14),
        ("conv", 3136 + 2304, 1600, 1600 * 144),
    ),
    "linear resize": (
        lambda m: m.node(
            "Resize", "x", "", m.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear"
        ),
        (1, 16, 14, 14),
        ("resize", 3136 + 4, 4 * 3136, 0),
    ),
    "a batch": (lambda m: m.conv("x"), (8, 16, 14, 14), ("conv", 25088 + 256, 25088, 25088 * 16)),
    "a type of another domain": (
        lambda m: m.node("Gelu", "x", domain="com.microsoft"),
        (1, 16, 14, 14),
        ("com_microsoft_gelu", 3136, 3136, 0),
    ),
}


@pytest.mark.parametrize("what", OWN)
def test_a_node_of_no_known_kind_is_a_kernel_of_its_own(what: str) -> None:
    body, shape, (name, reads, writes, macs) = OWN[what]
    model = Maker().model(body, shape=shape)
    if what == "a type of another domain":
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    network = cut(model)
    (kernel,) = network.kernels
    assert (kernel.kind, kernel.fused[0]) == ("node", name)
    assert (kernel.reads, kernel.writes, kernel.macs) == (reads, writes, macs)
    assert Kernel.parse(kernel.key) == kernel
    (lifted,) = to_measure(network)
    assert isinstance(lifted, LiftedKernel) and lifted.key == kernel.key
    session = onnxruntime.InferenceSession(
        lifted.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert [tuple(i.shape) for i in session.get_inputs()] == [shape]


def test_a_kernel_of_its_own_is_named_by_what_it_computes_alone() -> None:
    def power(exponent: float, name: str) -> onnx.ModelProto:
        model = Maker().model(lambda m: m.node("Pow", m.node("Relu", "x"), scalar(m, exponent)))
        for node in model.graph.node:
            node.name = name + node.name
        return model

    keys = [cut(m).kernels[1].key for m in (power(2, "a"), power(2, "b"), power(3, "a"))]
    assert keys[0] == keys[1] != keys[2]


def _cast(m: Maker, number: str) -> str:
    return m.node("Cast", number, to=onnx.TensorProto.FLOAT)


def _scan(m: Maker) -> str:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["e", m.constant(np.full(14, 2.0, np.float32))], ["s"])],
        "body",
        [info("e", onnx.TensorProto.FLOAT, [16, 14, 14])],
        [info("s", onnx.TensorProto.FLOAT, [16, 14, 14])],
    )
    return m.node("Scan", "x", body=body, num_scan_inputs=1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # 1 · 16 · 14 · 14 numbers; 16 channels.
        (lambda m: m.node("Pow", "x", _cast(m, m.node("Size", "x"))), lambda x: x**3136),
        (
            lambda m: m.node("Pow", "x", _cast(m, m.node("Shape", "x", start=1, end=2))),
            lambda x: x**16,
        ),
        (_scan, lambda x: x + 2),  # its body reads a constant from around it
    ],
)
def test_a_kernel_of_its_own_takes_along_what_it_reads(
    body: Body, expected: Callable[[Any], Any]
) -> None:
    (lifted,) = to_measure(cut(Maker().model(body, opset=15)))
    assert isinstance(lifted, LiftedKernel)
    session = onnxruntime.InferenceSession(
        lifted.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    x = np.random.default_rng(0).uniform(0.9995, 1.0005, (1, 16, 14, 14))
    (found,) = session.run(None, {given.name: x.astype(np.float32)})
    assert found == pytest.approx(expected(x.astype(np.float32).astype(float)), rel=1e-3)


def test_constants_of_one_number_or_a_few_stand_in_their_nodes() -> None:
    def clip(m: Maker) -> str:
        low, high = (m.node("Constant", value_float=v) for v in (0.0, 6.0))
        return m.node("Clip", m.conv("x"), low, high)

    def pad(m: Maker) -> str:
        sides = m.node("Constant", value_ints=[0, 0, 1, 1, 0, 0, 1, 1])
        return m.conv(m.node("Pad", "x", sides), k=3)

    assert kernels(clip) == ["conv+relu6"]
    assert cut(Maker().model(pad)).kernels == (Kernel("conv", 16, 16, (14, 14), (16, 16), (3, 3)),)


def test_graphs_too_large_to_take_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedFormat, match="x is far too large"):
        cut(Maker().model(lambda m: m.node("Relu", "x"), shape=(1, 1, 1 << 16, 1 << 16)))
    monkeypatch.setattr("phonenas.latency_model.graphs.onnx_graph._MOST_NODES", 1)
    assert len(cut(Maker().model(lambda m: m.conv("x"))).kernels) == 1
    with pytest.raises(UnsupportedFormat, match="has 2 nodes; at most 1 can be cut"):
        cut(Maker().model(lambda m: m.conv(m.conv("x"))))


def test_what_depends_on_the_data_is_told() -> None:
    network = cut(Maker().model(lambda m: m.node("Gather", "x", m.node("NonZero", "x"), axis=1)))
    assert [k.fused[0] for k in network.kernels] == ["nonzero", "gather"]
    assert network.notes == ("its time depends on the input: NonZero n0",)


def test_recurrent_layers_are_kernels() -> None:
    def body(m: Maker) -> str:
        x = m.node("Squeeze", "x", m.constant(np.array([0])))
        w = m.constant(np.ones((1, 32, 5), np.float32))
        r = m.constant(np.ones((1, 32, 8), np.float32))
        return m.node("LSTM", x, w, r, hidden_size=8)

    (kernel,) = cut(Maker().model(body, shape=(1, 7, 1, 5))).kernels
    assert kernel.fused[0] == "lstm"
    assert kernel.macs == 7 * 32 * (5 + 8)


def test_loops_get_a_clear_no() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    maker = Maker()
    condition = maker.constant(np.array(True))
    model = maker.model(lambda m: m.node("If", condition, then_branch=inner, else_branch=inner))
    with pytest.raises(UncoveredOperator, match="cannot be predicted"):
        cut(model)


# -- files ---------------------------------------------------------------------------------------


def test_weights_are_left_where_they_are(tmp_path: Path) -> None:
    maker = Maker()
    model = maker.model(lambda m: m.conv("x", 16, 16, 3))
    large = np.zeros((400, 16, 25, 25), np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(large, "c0"))
    path = tmp_path / "large.onnx"
    onnx.save(model, path)
    assert len(graph_bytes(path)) < 2000 < path.stat().st_size
    again = onnx.ModelProto.FromString(graph_bytes(path))
    assert list(again.graph.initializer[0].dims) == [400, 16, 25, 25]
    before = OnnxFile.at(path).digest
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(large + 1e-39, "c0"))
    onnx.save(model, path)
    assert OnnxFile.at(path).digest != before  # times depend on values where they are denormal


def test_weights_outside_the_folder_are_never_opened(tmp_path: Path) -> None:
    model = Maker().model(lambda m: m.conv("x"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    path = tmp_path / "outside.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedFormat, match="outside the model's own folder"):
        cut(path)


@pytest.mark.parametrize("where", ["attribute", "sparse", "branch"])
def test_no_tensor_in_another_file_is_opened_wherever_it_stands(where: str, tmp_path: Path) -> None:
    far = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[4])
    far.data_location = TensorProto.EXTERNAL
    far.external_data.add(key="location", value="/etc/passwd")
    model = Maker().model(lambda m: m.node("Relu", m.conv("x")))
    node = onnx.NodeProto(op_type="Constant", output=["c"], name="hidden")
    if where == "attribute":
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(far)
    elif where == "sparse":
        held = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
        held.sparse_tensor.values.CopyFrom(far)
    else:
        inner = onnx.NodeProto(op_type="Constant", output=["d"])
        inner.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(far)
        node.op_type = "If"
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.node.append(inner)
    model.graph.node.insert(0, node)
    assert elsewhere(model) == "far"
    path = tmp_path / "hidden.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PhonenasError):
        cut(path)
    with pytest.raises(
        UnsupportedFormat, match="far lie in '/etc/passwd', outside the model's own folder"
    ):
        write_onnx(OnnxFile.at(path), tmp_path / "to-measure.onnx")
    assert not (tmp_path / "to-measure.onnx").exists()


@pytest.mark.fault(
    "An ONNX file is huge without its weights.",
    "`without its weights; no network of images is as large`",
    "Export the network again.",
)
def test_a_file_of_endless_small_parts_is_refused_early() -> None:
    model = Maker().model(lambda m: m.conv("x"))
    blob = (
        model.SerializeToString() + bytes([0x32, 1, 0x61]) * 1_100_000
    )  # doc_string, again and again
    with pytest.raises(UnsupportedFormat, match="more than 64 MiB"):
        without_weights(blob)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no file"):
        cut(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(UnsupportedFormat):
        cut(tmp_path / "empty.onnx")


@cache
def small_model() -> bytes:
    return Maker().model(lambda m: swish(m, m.node("Relu", m.conv("x")))).SerializeToString()


@given(blob=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused(blob: bytes) -> None:
    path = Path(tempfile.gettempdir()) / f"phonenas-test-{os.getpid()}.onnx"
    path.write_bytes(blob)
    try:
        with pytest.raises(PhonenasError):
            cut(path, run_once=False)
    finally:
        path.unlink()


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6
    ),
    cut_at=st.integers(1, 10_000),
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_models_are_cut_or_refused(
    changes: list[tuple[int, int]], cut_at: int, tmp_path: Path
) -> None:
    blob = bytearray(small_model())
    for at, value in changes:
        blob[at % len(blob)] = value
    if cut_at % 4 == 0:
        blob = blob[: cut_at % len(blob)]
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(blob))
    with contextlib.suppress(PhonenasError):
        assert cut(path, run_once=False).kernels
