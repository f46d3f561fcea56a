"""The ONNX and torch forms of a network compute the same."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from patience import PATIENCE_S

from phonenas import space
from phonenas.space import Architecture, Operator
from phonenas.space.errors import InvalidArgument, MissingExtra
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.torch import BN_EPSILON, BN_MOMENTUM, state_arrays, to_torch
from tests.space.lowering.makes import FEW, MAKES

torch = pytest.importorskip("torch", reason="torch is an optional extra: phonenas[torch]")

Array = npt.NDArray[np.float32]
TOLERANCE = 1e-4  # of the largest output; float32 sums in another order


def lively(subject: Architecture | Operator, seed: int = 0) -> torch.nn.Module:
    """A module whose BatchNorm does something, in every channel something else."""
    module = to_torch(subject, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            kind = key.rpartition(".")[2]
            if kind == "running_var" or (kind == "weight" and "_bn" in key):
                value.uniform_(0.5, 1.5, generator=generator)
            elif kind in ("running_mean", "bias"):
                value.normal_(0, 0.3, generator=generator)
    return module


def image(subject: Architecture | Operator, seed: int = 0) -> Array:
    first = subject.operators()[0] if isinstance(subject, Architecture) else subject
    shape = (1, first.in_channels, first.in_px, first.in_px)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def run_torch(module: torch.nn.Module, x: Array) -> Array:
    with torch.no_grad():
        found: Array = module(torch.from_numpy(x)).numpy()
    return found


def run_onnx(model: onnx.ModelProto, x: Array) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["output"], {"input": x})
    return np.asarray(found)


def outputs(subject: Architecture | Operator, seed: int = 0) -> tuple[Array, Array]:
    """What torch and what ONNX give for the same weights and image, both checked for form."""
    module, x = lively(subject, seed), image(subject, seed)
    model = to_onnx(subject, weights=state_arrays(module))
    onnx.checker.check_model(model, full_check=True)
    expected, found = run_torch(module, x), run_onnx(model, x)
    assert found.shape == expected.shape
    return expected, found


def assert_alike(subject: Architecture | Operator, seed: int = 0) -> Array:
    expected, found = outputs(subject, seed)
    assert np.abs(expected).max() > 1e-3
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE, f"{subject}: relative error {error:.1e}"
    return expected


# -- parity ------------------------------------------------------------------------------------


@cache
def at_64(name: str) -> space.SearchSpace:
    return space.get(name, 64)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
@pytest.mark.parametrize("name", space.names())
def test_random_networks_compute_alike(name: str, seed: int) -> None:
    genome = at_64(name).sample(np.random.default_rng(seed), 1)[0]
    assert_alike(at_64(name).decode(genome), seed)


def test_a_network_at_224_px_computes_alike() -> None:
    mnasnet = space.get("mnasnet", 224)
    assert_alike(mnasnet.decode(mnasnet.sample(np.random.default_rng(9), 1)[0]))


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in space.zoo.names()]
)
def test_zoo_networks_compute_alike(name: str) -> None:
    assert_alike(space.zoo.network(name, resolution=96))


def test_odd_maps_round_up_alike() -> None:
    assert_alike(space.zoo.network("mnasnet-small", resolution=75))


BLOCKS = [
    Operator(kind, cin, cout, px, kernel, stride, expansion, se, skip)  # type: ignore[arg-type]
    for kind, expansion in (("conv", 1), ("dsconv", 1), ("mbconv", 3), ("mbconv", 6))
    for kernel in (3, 5)
    for stride, px in ((1, 7), (2, 8), (2, 7))
    for se in (0, 3)
    for skip in ("none", "identity", "pool")
    for cin, cout in ((8, 8), (8, 12), (12, 8))
    if skip != "identity" or (stride == 1 and cin == cout)
]
EDGES = [
    Operator("stem", 3, 16, 32, kernel=3, stride=2),
    Operator("stem", 3, 16, 33, kernel=3, stride=2),
    Operator("head", 12, 10, 4, features=32),
    Operator("head", 12, 1, 1, features=8),
    Operator("mbconv", 4, 4, 1, kernel=5, expansion=2, se_channels=1, skip="pool"),
    Operator("dsconv", 4, 4, 5, kernel=1, skip="identity"),
    Operator("conv", 4, 4, 2, kernel=7, stride=2, skip="pool"),
]


def test_operators_of_the_field_compute_alike() -> None:
    seen = [assert_alike(operator, seed) for seed, operator in enumerate(MAKES)]
    assert len(seen) == 72


def test_an_activation_is_that_of_its_name() -> None:
    """Each by its formula, on what the convolution gives; a gate likewise."""
    formulas = {
        "": lambda y: np.maximum(y, 0),
        "_relu6": lambda y: np.clip(y, 0, 6),
        "_hswish": lambda y: y * np.clip(y + 3, 0, 6) / 6,
        "_swish": lambda y: y / (1 + np.exp(-y)),
    }
    for act, formula in formulas.items():
        operator = Operator.parse(f"stem_k3_s1{act}_8x8x3_4")
        module, x = lively(operator), 9 * image(operator)
        bare = module[0].conv_bn(module[0].conv(torch.from_numpy(x))).detach().numpy()
        assert bare.min() < -4 and bare.max() > 7
        found = run_onnx(to_onnx(operator, weights=state_arrays(module)), x)
        np.testing.assert_allclose(found, formula(bare), atol=1e-4)


def test_a_hard_gate_is_one() -> None:
    operator = Operator.parse("dsconv_k1_s1_hse1_1x1x1_1")
    arrays = {k: np.ones_like(v) for k, v in state_arrays(to_torch(operator)).items()}
    for key in arrays:
        arrays[key] *= 0 if key.endswith(("running_mean", "bias")) else 1
    arrays["0.se_expand.bias"] += 1
    x = np.full((1, 1, 1, 1), 0.5, np.float32)
    # Depthwise 0.5, squeezed 0.5, gate (0.5 + 1 + 3) / 6; each BatchNorm divides by its deviation.
    deviation = (1 + 1e-3) ** 0.5
    depth = 0.5 / deviation
    found = run_onnx(to_onnx(operator, weights=arrays), x)
    assert found.item() == pytest.approx(depth * (depth + 4) / 6 / deviation, rel=1e-5)


@pytest.mark.parametrize(
    "operators",
    [[*EDGES, *BLOCKS[::5]], pytest.param(BLOCKS, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_single_operators_of_every_make_compute_alike(operators: list[Operator]) -> None:
    for seed, operator in enumerate(operators):
        found = assert_alike(operator, seed)
        if operator.kind != "head":
            px = operator.out_px
            assert found.shape == (1, operator.out_channels, px, px)


# -- the tests above would notice --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["conv", "dsconv", "mbconv"])
def test_squeeze_and_skips_change_the_output(kind: str) -> None:
    """A form that leaves one of them out is not alike by chance."""
    make = {"in_channels": 8, "out_channels": 8, "in_px": 7, "kernel": 3}
    found = {
        # type: ignore[arg-type]
        (se, skip): outputs(Operator(kind, **make, se_channels=se, skip=skip))
        for se in (0, 3)
        for skip in ("none", "identity", "pool")
    }
    for one, two in ((a, b) for a in found for b in found if a < b):
        for form in (0, 1):
            a, b = found[one][form], found[two][form]
            assert np.abs(a - b).max() > 100 * TOLERANCE * np.abs(a).max(), (one, two, form)


@pytest.mark.parametrize("kind", ["running_mean", "running_var", "_bn.weight", "bias"])
def test_every_statistic_reaches_the_output(kind: str) -> None:
    operator = Operator("mbconv", 8, 8, 7, 3, 1, 3, 3, "pool")
    arrays, x = state_arrays(lively(operator)), image(operator)
    before = run_onnx(to_onnx(operator, weights=arrays), x)
    touched = [key for key in arrays if key.endswith(kind)]
    assert touched
    for key in touched:
        after = run_onnx(to_onnx(operator, weights={**arrays, key: arrays[key] + 0.5}), x)
        assert np.abs(after - before).max() > 10 * TOLERANCE * np.abs(before).max(), key


def test_average_pooling_leaves_the_border_out() -> None:
    """On a map of ones the mean is one at the border too."""
    operator = Operator("dsconv", 4, 6, 5, kernel=3, stride=2, skip="pool")
    module = to_torch(operator, seed=0).eval()
    with torch.no_grad():
        module[0].project.weight.zero_()
    ones = np.ones((1, 4, 5, 5), np.float32)
    for found in (
        run_torch(module, ones),
        run_onnx(to_onnx(operator, weights=state_arrays(module)), ones),
    ):
        np.testing.assert_allclose(found[:, :4], 1, rtol=1e-6)
        np.testing.assert_array_equal(found[:, 4:], 0)


# -- the ONNX form -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", space.names())
def test_node_names_are_unique_and_start_with_their_operator(name: str) -> None:
    network = at_64(name).decode(at_64(name).sample(np.random.default_rng(1), 1)[0])
    model = to_onnx(network, seed=1)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    order = [int(n.partition(".")[0]) for n in names]
    assert order == sorted(order)
    assert set(order) == set(range(len(network.operators())))
    weights = [i.name for i in model.graph.initializer]
    assert len(set(weights)) == len(weights)
    (given,), (taken,) = model.graph.input, model.graph.output
    assert (given.name, taken.name) == ("input", "output")
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == [1, 3, 64, 64]
    assert [d.dim_value for d in taken.type.tensor_type.shape.dim] == [1, network.classes]


def test_onnx_forms_without_weights_are_equal_for_equal_seeds() -> None:
    operator = BLOCKS[-1]
    one, two, other = (to_onnx(operator, seed=s).SerializeToString() for s in (0, 0, 1))
    assert one == two
    assert one != other
    assert np.isfinite(run_onnx(to_onnx(operator), image(operator))).all()


def test_weights_that_lack_an_array_or_have_another_shape() -> None:
    operator = Operator("mbconv", 8, 8, 7, 3, 1, 3)
    arrays = state_arrays(to_torch(operator))
    less = {k: v for k, v in arrays.items() if k != "0.project_bn.running_var"}
    with pytest.raises(InvalidArgument, match=r"0\.project_bn\.running_var"):
        to_onnx(operator, weights=less)
    with pytest.raises(InvalidArgument, match=r"0\.expand\.weight"):
        to_onnx(operator, weights={**arrays, "0.expand.weight": np.zeros((3, 3), np.float32)})


# -- the torch form ----------------------------------------------------------------------------


def some_networks() -> list[Architecture]:
    found = [space.zoo.network(name, resolution=64) for name in (*FEW, "mnasnet-b1")]
    for name in space.names():
        found.append(at_64(name).decode(at_64(name).sample(np.random.default_rng(5), 1)[0]))
    return found


def test_parameters_are_as_many_as_counted() -> None:
    for network in [*some_networks(), *MAKES]:
        assert sum(p.numel() for p in to_torch(network).parameters()) == network.params


def test_keys_and_shapes_follow_the_convolutions() -> None:
    network = space.zoo.network("mnasnet-a1", resolution=64)
    expected: dict[str, tuple[int, ...]] = {}
    for i, operator in enumerate(network.operators()):
        for c in operator.convolutions:
            name, out = f"{i}.{c.name}", (c.out_channels,)
            expected[f"{name}.weight"] = c.weight_shape
            if c.normalised:
                for what in ("weight", "bias", "running_mean", "running_var"):
                    expected[f"{name}_bn.{what}"] = out
            else:
                expected[f"{name}.bias"] = out
    last = f"{len(network.operators()) - 1}.classifier.weight"
    expected[last] = expected[last][:2]
    arrays = state_arrays(to_torch(network, seed=0))
    assert {k: v.shape for k, v in arrays.items()} == expected
    assert {v.dtype for v in arrays.values()} == {np.dtype(np.float32)}


def test_training_gives_a_gradient_to_every_parameter() -> None:
    # Every make of layer in one network, on maps that do not shrink to one pixel too early.
    network = Architecture.parse(
        "r2_k3_s11_conv_i8_o8_se0.25_pool r2_k5_s22_e1_i8_o16_se0.25 r2_k3_s11_e3_i16_o24_pool "
        "r2_k3_s22_e6_i24_o16_se0.25_noskip r1_a3_k5_s11_m40_i16_o16_hsem0.25_hswish "
        "r1_k3_s11_fused_e2_i16_o16_swish r1_a0_k0_s11_e2_i16_o16_relu6 "
        "r1_k3_s11_edge_e2_i16_o16 head32 hidden16 hswish classes10 res32"
    )
    module = to_torch(network, seed=0)
    assert module.training
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    module(images).pow(2).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_training_moves_statistics_and_drops_features() -> None:
    module, x = to_torch(BLOCKS[0], seed=0), torch.from_numpy(image(BLOCKS[0]))
    module(x)
    mean = state_arrays(module)["0.conv_bn.running_mean"]
    np.testing.assert_allclose(
        mean, BN_MOMENTUM * module[0].conv(x).mean((0, 2, 3)).detach().numpy(), rtol=1e-4
    )
    head = Operator("head", 12, 10, 4, features=64)
    for dropout, differ in ((0.5, True), (0.0, False)):
        module = to_torch(head, dropout=dropout, seed=0)
        x = torch.from_numpy(image(head)).repeat(2, 1, 1, 1)
        rows = module(x)
        assert (not torch.equal(rows[0], rows[1])) == differ
        assert torch.equal(*module.eval()(x))


def test_batch_norm_has_the_official_constants() -> None:
    found = {
        (m.momentum, m.eps)
        for m in to_torch(space.zoo.network("mnasnet-a1")).modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    }
    assert found == {(BN_MOMENTUM, BN_EPSILON)} == {(0.01, 1e-3)}


def test_first_weights_are_as_in_the_official_code() -> None:
    arrays = state_arrays(to_torch(space.zoo.network("mnasnet-b1"), seed=0))
    expected = {
        "0.conv.weight": (2 / (9 * 32)) ** 0.5,
        "2.expand.weight": (2 / 48) ** 0.5,
        "5.depthwise.weight": (2 / 25) ** 0.5,
        "15.project.weight": (2 / 192) ** 0.5,
        "18.classifier.weight": 1 / 1000**0.5 / 3**0.5,  # uniform
    }
    for key, std in expected.items():
        assert arrays[key].std() == pytest.approx(std, rel=0.06), key
        assert abs(arrays[key].mean()) < 0.1 * std, key
    assert np.abs(arrays["18.classifier.weight"]).max() <= 1 / 1000**0.5
    assert not arrays["18.classifier.bias"].any()
    squeeze = state_arrays(to_torch(Operator("dsconv", 8, 8, 7, 3, se_channels=2), seed=0))
    assert not squeeze["0.se_expand.bias"].any()


def test_a_seed_settles_the_weights_and_leaves_global_chance_alone() -> None:
    network = space.zoo.network("mnasnet-small", resolution=64)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, other = (state_arrays(to_torch(network, seed=s)) for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key])
    assert any((array != other[key]).any() for key, array in one.items())
    free = [state_arrays(to_torch(network)) for _ in range(2)]
    assert any((array != free[1][key]).any() for key, array in free[0].items())


def test_arrays_are_copies() -> None:
    module = to_torch(BLOCKS[0], seed=0)
    arrays = state_arrays(module)
    kept = arrays["0.conv.weight"].copy()
    with torch.no_grad():
        module[0].conv.weight.zero_()
    np.testing.assert_array_equal(arrays["0.conv.weight"], kept)


@pytest.mark.parametrize("dropout", [-0.1, 1, 1.5, float("nan")])
def test_dropouts_that_are_none(dropout: float) -> None:
    with pytest.raises(InvalidArgument, match="dropout"):
        to_torch(BLOCKS[0], dropout=dropout)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install torch safetensors pillow"):
        to_torch(BLOCKS[0])


def test_the_space_imports_no_torch() -> None:
    code = "import sys, phonenas.space.lowering.torch; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, timeout=PATIENCE_S).returncode == 0
    )
