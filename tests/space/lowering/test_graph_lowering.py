"""Graphs of the zoo in their three forms: equal outputs, and the kernels of a runtime."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from phonenas.latency_model.graphs.onnx_cut import cut
from phonenas.space import zoo
from phonenas.space.errors import InvalidArgument
from phonenas.space.graph import NetworkGraph
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.weights_file import shapes
from phonenas.space.zoo.graph_builder import GraphBuilder

# One of each sort of node; the others are slow.
FEW = ("squeezenet-1.1", "regnet-y-200mf", "dla-46-c", "preresnet-10")


def small(name: str) -> NetworkGraph:
    return zoo.graph(name, resolution=96 if name == "inception-v3" else 64, classes=7)


def each_sort() -> NetworkGraph:
    """Every kind of node, and padding that no form has by itself."""
    g = GraphBuilder(19)
    g.gating = ("swish", "clip")
    x = g.conv(-1, 8, 3, 2, act="hard_swish", bias=True)
    x = g.gate(g.depthwise(x, 5, 1, "relu6"), 4)
    x = g.concat([g.pool(x, 3, 2, ceil=True), g.pool(x, 3, 2, kind="average_pool", ceil=True)])
    y = g.conv(g.shuffle(x, 4), 16, (1, 7), groups=2, act="swish")
    y = g.add(y, g.pad(g.slice(x, 3, 9), 16), x, act="relu")
    y = g.add(g.resize(g.conv(y, 16, 3, 2, act="none"), 2), g.crop(g.resize(y, 2), 6))
    y = g.act(g.norm(g.act(y, "sigmoid"), "relu"), "hard_sigmoid")
    y = g.pool(y, 3, 2, 1, kind="average_pool", ceil=True)
    g.linear(g.act(g.linear(y, 12), "relu"), 7)
    return g.built("each-sort", classes=7)


def outputs(network: NetworkGraph, seed: int = 3) -> dict[str, np.ndarray]:
    """What the three forms give for one image, with one set of weights."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    torch = pytest.importorskip("torch")
    import onnxruntime

    from phonenas.space.lowering.tflite import to_tflite
    from phonenas.space.lowering.torch import state_arrays, to_torch

    module = to_torch(network, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, values in module.state_dict().items():
        if re.search(r"_bn\.|batch_norm\.|bias$", name) and values.is_floating_point():
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    weights = state_arrays(module)
    assert {k: v.shape for k, v in weights.items()} == shapes(network)
    px = network.resolution_px
    image = np.random.default_rng(seed).standard_normal((1, 3, px, px)).astype(np.float32)
    with torch.no_grad():
        found = {"torch": module(torch.from_numpy(image)).numpy()}
    onnx_bytes = to_onnx(network, weights=weights).SerializeToString()
    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    found["onnx"] = session.run(None, {"input": image})[0]
    model = interpreter.Interpreter(model_content=to_tflite(network, weights=weights))
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1).copy())
    model.invoke()
    found["tflite"] = model.get_tensor(model.get_output_details()[0]["index"])
    return found


def alike(network: NetworkGraph, tolerance: float = 1e-4) -> None:
    found = outputs(network)
    scale = np.abs(found["torch"]).max()
    assert scale > 0 and found["torch"].shape == (1, 7)
    for form in ("onnx", "tflite"):
        np.testing.assert_allclose(found[form] / scale, found["torch"] / scale, atol=tolerance)


@pytest.mark.parametrize("name", FEW)
def test_the_forms_of_a_network_compute_the_same(name: str) -> None:
    alike(small(name))


def test_the_forms_of_every_sort_of_node_compute_the_same() -> None:
    alike(each_sort())


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in zoo.graph_names() if n not in FEW])
def test_the_forms_of_the_other_networks_compute_the_same(name: str) -> None:
    alike(small(name), 2e-3)  # deep ones amplify rounding
    assert Counter(small(name).kernels("onnx")) == Counter(cut(to_onnx(small(name))).kernels)


@pytest.mark.parametrize("name", FEW)
def test_kernels_are_those_that_the_onnx_form_is_cut_into(name: str) -> None:
    assert Counter(small(name).kernels("onnx")) == Counter(cut(to_onnx(small(name))).kernels)


def test_kernels_of_blocks_are_those_that_their_onnx_form_is_cut_into() -> None:
    for text in ("mnasnet-a1", "mobilenet-v2"):
        network = zoo.network(text, resolution=64)
        assert Counter(zoo.kernels(network, "onnx")) == Counter(cut(to_onnx(network)).kernels)
    pooled = zoo.find("r1_k3_s11_e1_i16_o8_pool r2_k3_s22_e3_i8_o24_pool", resolution=64)
    assert Counter(zoo.kernels(pooled, "onnx")) == Counter(cut(to_onnx(pooled)).kernels)


def test_what_a_runtime_folds() -> None:
    g = GraphBuilder(8)
    x = g.act(g.conv(-1, 4, 3, act="hard_swish"), "relu")
    g.conv(g.norm(g.conv(x, 4, act="none", normalised=False)), 5, act="swish")
    network = g.built("x")
    fused = {
        runtime: [(k.kind, *k.fused) for k in network.kernels(runtime)]  # type: ignore[arg-type]
        for runtime in ("tflite", "onnx")
    }
    assert fused["tflite"] == [
        ("conv",),
        ("activation", "hard_swish"),
        ("activation", "relu"),
        ("conv", "relu"),
        ("conv",),
        ("activation", "swish"),
    ]
    assert fused["onnx"] == [
        ("conv", "hard_swish"),
        ("activation", "relu"),
        ("conv", "relu"),
        ("conv",),
        ("activation", "swish"),
    ]


def test_weights_that_do_not_fit_are_named() -> None:
    network = small("squeezenet-1.1")
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes(network).items()}
    with pytest.raises(InvalidArgument, match=r"the weights lack 0\.conv\.weight"):
        to_onnx(network, weights={k: v for k, v in weights.items() if k != "0.conv.weight"})
    weights["0.conv.bias"] = np.zeros(3, np.float32)
    with pytest.raises(InvalidArgument, match=r"0\.conv\.bias is \(3,\), it should be \(64,\)"):
        to_onnx(network, weights=weights)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda g: g.pool(g.conv(-1, 4, 3, 2), 11, 2, 0), "8 px cannot be taken"),
        (lambda g: g.conv(g.conv(-1, 4), 6, groups=4), "4 groups do not divide 4→6"),
        (lambda g: g.add(g.conv(-1, 4), g.conv(-1, 5)), "8×8×4, 8×8×5"),
        (lambda g: g.concat([g.conv(-1, 4), g.conv(-1, 4, 3, 2)]), "8×8×4, 4×4×4"),
        (lambda g: g.slice(g.conv(-1, 4), 2, 3), "no channels 2 to 5 of 4"),
        (lambda g: g.shuffle(g.conv(-1, 4), 3), "3 groups do not divide 4 channels"),
        (lambda g: g.act(-1, "gelu"), "no activation is called 'gelu'"),
    ],
)
def test_what_does_not_fit_is_told(build, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        build(GraphBuilder(8))
