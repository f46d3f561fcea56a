"""The TFLite form of a network computes what the ONNX form does, and all of it in XNNPACK."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from patience import PATIENCE_S

from phonenas import space
from phonenas.devices.runtimes.engine_litert import Engine
from phonenas.space import Architecture, Operator
from phonenas.space.errors import InvalidArgument, MissingExtra
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.tflite import to_tflite
from tests.space.lowering.makes import FEW, MAKES

pytest.importorskip("ai_edge_litert", reason="LiteRT is an optional extra: phonenas[litert]")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Array = npt.NDArray[np.float32]
TOLERANCE = 1e-4  # of the largest output; float32 sums in another order
XNNPACK, REFERENCE = OpResolverType.BUILTIN, OpResolverType.BUILTIN_REF


def lively(subject: Architecture | Operator, seed: int = 0) -> dict[str, Array]:
    """Weights whose BatchNorm does something, in every channel something else.

    Activations keep their size from layer to layer. Where they grow to thousands, squeeze gates
    magnify rounding until even the ONNX form is 3e-4 from a float64 one, and nothing is shown.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for i, operator in enumerate(operators_of(subject)):
        for c in operator.convolutions:
            name, out = f"{i}.{c.name}", c.out_channels
            gain = (2 if c.activation == "relu" else 1) / (4 if c.name.startswith("se_") else 1)
            deviation = (gain / np.prod(c.weight_shape[1:])) ** 0.5
            found[f"{name}.weight"] = rng.normal(0, deviation, c.weight_shape)
            if c.normalised:
                found[f"{name}_bn.weight"] = rng.uniform(0.5, 1.5, out)
                found[f"{name}_bn.bias"] = rng.normal(0, 0.3, out)
                found[f"{name}_bn.running_mean"] = rng.normal(0, 0.3, out)
                found[f"{name}_bn.running_var"] = rng.uniform(0.5, 1.5, out)
            else:
                found[f"{name}.bias"] = rng.normal(0, 0.3, out)
    return {key: value.astype(np.float32) for key, value in found.items()}


def operators_of(subject: Architecture | Operator) -> tuple[Operator, ...]:
    return subject.operators() if isinstance(subject, Architecture) else (subject,)


def image(subject: Architecture | Operator, seed: int = 0) -> Array:
    """An input as ONNX has it, (1, channels, px, px)."""
    first = operators_of(subject)[0]
    shape = (1, first.in_channels, first.in_px, first.in_px)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def run_onnx(subject: Architecture | Operator, x: Array, **more: Any) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = to_onnx(subject, **more).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": x})
    return np.asarray(found)


def run_tflite(model: bytes, x: Array, kernels: OpResolverType = XNNPACK) -> Array:
    """The output as ONNX has it, (1, channels, px, px) or (1, classes)."""
    interpreter = Interpreter(
        model_content=model, num_threads=1, experimental_op_resolver_type=kernels
    )
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["name"], taken["name"]) == ("input", "output")
    assert given["dtype"] == taken["dtype"] == np.float32
    interpreter.set_tensor(given["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    found: Array = interpreter.get_tensor(taken["index"])
    assert found.shape == tuple(taken["shape"])
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found


def relative_error(found: Array, expected: Array) -> float:
    """The largest difference over the largest output."""
    assert found.shape == expected.shape
    scale = float(np.abs(expected).max())
    assert scale > 1e-3
    return float(np.abs(found - expected).max()) / scale


def assert_alike(
    subject: Architecture | Operator,
    seed: int = 0,
    *,
    given: bool = True,
    kernels: tuple[OpResolverType, ...] = (XNNPACK,),
) -> None:
    """Both forms agree, with weights that are given, or with those that the seed gives."""
    numbers: dict[str, Any] = {"weights": lively(subject, seed)} if given else {"seed": seed}
    x = image(subject, seed)
    expected, model = run_onnx(subject, x, **numbers), to_tflite(subject, **numbers)
    for kernel in kernels:
        error = relative_error(run_tflite(model, x, kernel), expected)
        assert error <= TOLERANCE, f"{subject}, {kernel}: relative error {error:.1e}"


def parsed(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(model)


def kinds(model: bytes) -> list[str]:
    """Kinds of the nodes in order, as the schema calls them."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    found = parsed(model)
    codes = [names[c.builtinCode] for c in found.operatorCodes]
    return [codes[node.opcodeIndex] for node in found.subgraphs[0].operators]


# -- parity ------------------------------------------------------------------------------------


@cache
def at_64(name: str) -> space.SearchSpace:
    return space.get(name, 64)


def drawn(name: str, seed: int) -> Architecture:
    return at_64(name).decode(at_64(name).sample(np.random.default_rng(seed), 1)[0])


# One network of each space is examined quickly, more of them at length.
SEEDS = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", space.names())
def test_random_networks_compute_alike(name: str, seed: int) -> None:
    assert_alike(drawn(name, seed), seed)


@pytest.mark.parametrize("seed", SEEDS[:2])
@pytest.mark.parametrize("name", space.names())
def test_networks_without_weights_compute_alike_for_equal_seeds(name: str, seed: int) -> None:
    network = drawn(name, seed)
    assert_alike(network, seed, given=False)
    x = image(network)
    other = run_tflite(to_tflite(network, seed=seed + 1), x)
    assert relative_error(other, run_onnx(network, x, seed=seed)) > 0.1


def test_a_network_at_224_px_computes_alike() -> None:
    mnasnet = space.get("mnasnet", 224)
    assert_alike(mnasnet.decode(mnasnet.sample(np.random.default_rng(9), 1)[0]))


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in space.zoo.names()]
)
def test_zoo_networks_compute_alike(name: str) -> None:
    assert_alike(space.zoo.network(name, resolution=96))


@pytest.mark.parametrize("px", [75, 76, 77])
def test_odd_maps_round_up_alike(px: int) -> None:
    assert_alike(space.zoo.network("mnasnet-small", resolution=px))


def test_reference_kernels_compute_a_network_alike() -> None:
    assert_alike(drawn("mnasnet", 3), kernels=(REFERENCE,))


BLOCKS = [
    Operator(kind, cin, cout, px, kernel, stride, expansion, se, skip)  # type: ignore[arg-type]
    for kind, expansion in (("conv", 1), ("dsconv", 1), ("mbconv", 3), ("mbconv", 6))
    for kernel in (3, 5)
    for stride, px in ((1, 7), (1, 8), (2, 8), (2, 7))
    for se in (0, 3)
    for skip in ("none", "identity", "pool")
    for cin, cout in ((8, 8), (8, 12), (12, 8))
    if skip != "identity" or (stride == 1 and cin == cout)
]
# Padding is hardest where the kernel is larger than the map.
SMALL = [
    Operator(kind, 4, 4, px, kernel, stride, skip="pool")  # type: ignore[arg-type]
    for kind in ("conv", "dsconv")
    for px in (1, 2, 3, 4, 5, 6)
    for kernel in (1, 3, 5, 7)
    for stride in (1, 2)
]
SINGLES = [
    *BLOCKS,
    *SMALL,
    *(Operator("stem", 3, 16, px, kernel=3, stride=2) for px in (32, 33, 34)),
    Operator("head", 12, 10, 4, features=32),
    Operator("head", 12, 1, 1, features=8),
    Operator("mbconv", 4, 4, 1, kernel=5, expansion=2, se_channels=1, skip="pool"),
    Operator("dsconv", 4, 4, 5, kernel=1, skip="identity"),
    Operator("dsconv", 1, 2, 6, kernel=3, stride=2, skip="pool"),
    Operator("mbconv", 2, 1, 6, kernel=3, stride=2, expansion=2, skip="pool"),
]


def test_operators_of_the_field_compute_alike() -> None:
    for seed, operator in enumerate(MAKES):
        assert_alike(operator, seed, given=seed % 2 == 0)


@pytest.mark.slow
def test_single_operators_of_every_make_compute_alike() -> None:
    for seed, operator in enumerate(SINGLES):
        for given in (True, False):
            assert_alike(operator, seed, given=given, kernels=(XNNPACK, REFERENCE))


@pytest.mark.parametrize("px", [5, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_average_pooling_leaves_the_border_out(px: int, stride: int) -> None:
    """On a map of ones the mean is one at the border too."""
    operator = Operator("dsconv", 4, 6, px, kernel=3, stride=stride, skip="pool")
    weights = lively(operator)
    for key in ("0.project.weight", "0.project_bn.bias", "0.project_bn.running_mean"):
        weights[key][:] = 0
    found = run_tflite(to_tflite(operator, weights=weights), np.ones((1, 4, px, px), np.float32))
    np.testing.assert_allclose(found[:, :4], 1, rtol=1e-6)
    np.testing.assert_array_equal(found[:, 4:], 0)


# -- the tests above would notice --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["running_mean", "running_var", "_bn.weight", "bias", ".weight"])
def test_every_array_reaches_the_output(kind: str) -> None:
    operator = Operator("mbconv", 8, 8, 8, 3, 2, 3, 3, "pool")
    arrays, x = lively(operator), image(operator)
    before = run_tflite(to_tflite(operator, weights=arrays), x)
    touched = [key for key in arrays if key.endswith(kind)]
    assert touched
    for key in touched:
        after = run_tflite(to_tflite(operator, weights={**arrays, key: arrays[key] + 0.5}), x)
        assert np.abs(after - before).max() > 10 * TOLERANCE * np.abs(before).max(), key


def test_same_padding_on_even_maps_is_not_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from phonenas.space.lowering import tflite_nodes as room

    monkeypatch.setattr(room, "_same_is_symmetric", lambda kernel, stride, px: True)
    for operator in (
        Operator("stem", 3, 16, 32, kernel=3, stride=2),
        Operator("dsconv", 4, 4, 8, kernel=5, stride=2),
        Operator("dsconv", 4, 4, 8, kernel=1, stride=2, skip="pool"),
    ):
        with pytest.raises(AssertionError, match="relative error"):
            assert_alike(operator)


# -- the TFLite form ---------------------------------------------------------------------------


@pytest.mark.slow
def test_all_nodes_run_in_xnnpack(tmp_path: Path) -> None:
    engine = Engine({"provider": "XNNPACK"})
    networks = [drawn(name, seed) for name in space.names() for seed in range(3)]
    networks += [space.zoo.network(name, resolution=64) for name in FEW]
    for number, subject in enumerate([*networks, *SINGLES]):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(to_tflite(subject))
        assert engine.load(str(path)).provider == "XNNPACK", subject


@pytest.mark.parametrize("name", space.names())
def test_the_file_is_as_the_schema_wants_it(name: str) -> None:
    network = drawn(name, 1)
    model = to_tflite(network, seed=1)
    assert isinstance(model, bytes)
    assert model[4:8] == b"TFL3"
    found = parsed(model)
    assert found.version == 3
    codes = [c.builtinCode for c in found.operatorCodes]
    assert len(set(codes)) == len(codes)
    assert [c.deprecatedBuiltinCode for c in found.operatorCodes] == codes  # all below 127
    assert {c.version for c in found.operatorCodes} == {1}
    assert found.buffers[0].data is None
    (graph,) = found.subgraphs
    ((given,), (taken,)) = graph.inputs, graph.outputs
    assert list(graph.tensors[given].shape) == [1, 64, 64, 3]
    assert list(graph.tensors[taken].shape) == [1, network.classes]
    # Each buffer but the first is the constant of one tensor, and holds as much as its shape says.
    constants = [t for t in graph.tensors if t.buffer]
    assert sorted(t.buffer for t in constants) == list(range(1, len(found.buffers)))
    for tensor in constants:
        assert found.buffers[tensor.buffer].data.size == 4 * np.prod(tensor.shape), tensor.name


def test_constants_are_aligned() -> None:
    """A runtime maps the file and computes on them where they lie."""
    model = to_tflite(drawn("mnasnet", 1))
    start = np.frombuffer(model, np.uint8).__array_interface__["data"][0]
    read = schema.Model.GetRootAs(model)
    addresses = [
        read.Buffers(i).DataAsNumpy().__array_interface__["data"][0]
        for i in range(1, read.BuffersLength())
    ]
    assert len(addresses) > 50
    assert {(a - start) % 16 for a in addresses} == {0}


@pytest.mark.parametrize("name", space.names())
def test_tensor_names_are_unique_and_start_with_their_operator(name: str) -> None:
    network = drawn(name, 1)
    (graph,) = parsed(to_tflite(network)).subgraphs
    names = [t.name.decode() for t in graph.tensors]
    assert len(set(names)) == len(names)
    written = [names[node.outputs[0]] for node in graph.operators]
    assert written.pop() == "output"
    order = [int(n.partition(".")[0]) for n in written]
    assert order == sorted(order)
    assert set(order) == set(range(len(network.operators())))


@pytest.mark.slow
def test_shapes_are_those_that_the_runtime_finds() -> None:
    """Wrong ones would be mended in silence when the interpreter prepares the graph."""
    for operator in SINGLES:
        model = to_tflite(operator)
        # Without delegates: those hide what lies inside them.
        interpreter = Interpreter(model_content=model, experimental_op_resolver_type=REFERENCE)
        interpreter.allocate_tensors()
        found = {d["name"]: d["shape"].tolist() for d in interpreter.get_tensor_details()}
        for tensor in parsed(model).subgraphs[0].tensors:
            assert found[tensor.name.decode()] == list(tensor.shape), (operator, tensor.name)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        # The nodes are counted: a padding where none is needed would cost time.
        (Operator("stem", 3, 16, 33, 3, 2), "CONV_2D"),
        (Operator("stem", 3, 16, 32, 3, 2), "PAD CONV_2D"),
        (Operator("dsconv", 4, 6, 8, 5, 1), "DEPTHWISE_CONV_2D CONV_2D"),
        (Operator("dsconv", 4, 6, 7, 5, 2), "DEPTHWISE_CONV_2D CONV_2D"),
        (Operator("dsconv", 4, 6, 8, 1, 2), "DEPTHWISE_CONV_2D CONV_2D"),
        (Operator("mbconv", 4, 6, 8, 5, 2, 3), "CONV_2D PAD DEPTHWISE_CONV_2D CONV_2D"),
        (
            Operator("mbconv", 4, 4, 8, 3, 1, 3, 2, "identity"),
            "CONV_2D DEPTHWISE_CONV_2D MEAN CONV_2D CONV_2D LOGISTIC MUL CONV_2D ADD",
        ),
        (Operator("conv", 4, 6, 7, 3, 2, skip="pool"), "CONV_2D AVERAGE_POOL_2D PAD ADD"),
        (
            Operator("conv", 6, 4, 8, 3, 2, skip="pool"),
            "PAD CONV_2D PAD DEPTHWISE_CONV_2D MUL SLICE ADD",
        ),
        (Operator("head", 8, 10, 4, features=16), "CONV_2D MEAN FULLY_CONNECTED"),
    ],
    ids=lambda v: v.key if isinstance(v, Operator) else "",
)
def test_nodes_are_no_more_than_needed(operator: Operator, expected: str) -> None:
    assert kinds(to_tflite(operator)) == expected.split()


def test_activations_are_fused() -> None:
    network = space.zoo.network("mnasnet-a1", resolution=64)
    (graph,) = parsed(to_tflite(network)).subgraphs
    fused = Counter(
        getattr(node.builtinOptions, "fusedActivationFunction", None) for node in graph.operators
    )
    relus = [c for o in network.operators() for c in o.convolutions if c.activation == "relu"]
    assert fused[schema.ActivationFunctionType.RELU] == len(relus)


def test_equal_arguments_give_equal_bytes() -> None:
    for subject in (BLOCKS[-1], drawn("mnasnet", 0)):
        one, two, other = (to_tflite(subject, seed=s) for s in (0, 0, 1))
        assert one == two
        assert one != other
        weights = lively(subject)
        assert to_tflite(subject, weights=weights) == to_tflite(subject, weights=weights)


# -- errors ------------------------------------------------------------------------------------


def test_weights_that_lack_an_array_or_have_another_shape() -> None:
    operator = Operator("mbconv", 8, 8, 7, 3, 1, 3)
    arrays = lively(operator)
    less = {k: v for k, v in arrays.items() if k != "0.project_bn.running_var"}
    other = {**arrays, "0.expand.weight": np.zeros((3, 3), np.float32)}
    for wrong in (less, other, {}):
        with pytest.raises(InvalidArgument) as by_onnx:
            to_onnx(operator, weights=wrong)
        with pytest.raises(InvalidArgument) as by_tflite:
            to_tflite(operator, weights=wrong)
        assert str(by_tflite.value) == str(by_onnx.value)


def test_a_model_beyond_what_a_flatbuffer_holds() -> None:
    with pytest.raises(InvalidArgument, match=r"6e\+08 parameters take 2\.4 GB"):
        to_tflite(Operator("conv", 8192, 8192, 1, kernel=3))


@pytest.mark.parametrize("name", ["ai_edge_litert", "ai_edge_litert.schema_py_generated"])
def test_without_litert_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ai_edge_litert

    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(ai_edge_litert, "schema_py_generated", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install ai-edge-litert"):
        to_tflite(BLOCKS[0])


def test_the_room_imports_neither_litert_nor_onnx() -> None:
    code = (
        "import sys, phonenas.space.lowering.tflite; "
        "sys.exit(bool({'ai_edge_litert', 'flatbuffers', 'onnx'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, timeout=PATIENCE_S).returncode == 0
    )


def test_a_model_is_built_without_the_runtime() -> None:
    """The schema alone is enough: no interpreter, no TensorFlow."""
    code = (
        "import sys; from phonenas.space import Operator; "
        "from phonenas.space.lowering.tflite import to_tflite; "
        "to_tflite(Operator('stem', 3, 8, 8, 3, 2)); "
        "heavy = {'ai_edge_litert.interpreter', 'tensorflow', 'google.protobuf', 'onnx', 'torch'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    root = Path(__file__).parents[3]
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, timeout=PATIENCE_S).returncode == 0
    )
