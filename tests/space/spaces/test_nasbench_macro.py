"""NAS-Bench-Macro's space: counts as published, and what the language of networks gained for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phonenas import space
from phonenas.latency_model.units.regressor import features
from phonenas.space import AdditiveTable, Architecture, Block, NASBenchMacro, Operator
from phonenas.space.errors import InvalidArchitecture, InvalidArgument, NotInSpace
from phonenas.testing import SpaceContract

TABLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "nasbench_macro.csv"
# Genes, parameters, FLOPs: rows of xiusu/NAS-Bench-Macro (Apache-2.0).
PUBLISHED = [
    ("00000000", 387_882, 7_713_280),
    ("11111111", 1_588_874, 53_246_464),
    ("22222222", 2_932_586, 105_660_928),
    ("02200012", 1_760_170, 51_880_448),
    ("20122210", 1_567_402, 65_405_440),
    ("20010010", 917_098, 30_769_664),
    ("01110120", 1_500_970, 42_711_552),
    ("11011020", 1_462_090, 45_085_184),
    ("20210020", 1_421_546, 47_092_224),
    ("12022211", 1_986_826, 76_816_896),
    ("21000211", 1_528_874, 46_612_992),
    ("20112020", 1_595_178, 55_681_536),
]
SHORTCUT = Operator("proj", 4, 6, 8, kernel=1, stride=2)


def decoded(genes: str) -> Architecture:
    return NASBenchMacro().decode([int(g) for g in genes])


class TestNASBenchMacro(SpaceContract):
    @pytest.fixture
    def space(self):
        return NASBenchMacro()


@pytest.mark.parametrize(("genes", "params", "flops"), PUBLISHED)
def test_counts_are_the_published_ones(genes, params, flops):
    network = decoded(genes)
    assert (network.params, network.macs) == (params, flops)


@pytest.mark.skipif(not TABLE.is_file(), reason="shared/data does not lie beside the checkout")
def test_counts_are_those_of_all_rows_of_the_table():
    import pandas as pd

    macro, frame = NASBenchMacro(), pd.read_csv(TABLE)
    genomes = frame[list(macro.decisions)].to_numpy(np.int8)
    assert len(frame) == macro.size == 6561
    assert (AdditiveTable(macro, lambda o: o.params)(genomes) == frame["params"]).all()
    assert (AdditiveTable(macro, lambda o: o.macs)(genomes) == frame["flops"]).all()
    assert len(set(macro.keys(genomes))) == 3969


def test_it_is_found_by_name_at_its_own_resolution():
    found = space.get("nasbench-macro")
    assert isinstance(found, NASBenchMacro)
    assert found.resolution_px == 32
    assert space.get("nasbench-macro", 64).resolution_px == 64
    assert space.get("mnasnet").resolution_px == 224
    with pytest.raises(InvalidArgument, match="strides multiply to 8"):
        space.get("nasbench-macro", 7)


def test_identities_may_change_places_within_a_stage_only():
    assert decoded("00010100") == decoded("00001100")
    assert decoded("00010010") == decoded("00010001")
    assert decoded("00100000") != decoded("00010000")


def test_text_is_the_network_and_shows_what_is_new():
    network = decoded("02000100")
    text = str(network)
    assert text == (
        "r1_k1_s22_proj_i32_o64 r1_k5_s11_e6_i64_o64 r1_k1_s22_proj_i64_o128 "
        "r1_k3_s22_e3_i128_o256 classes10 stemstride1 res32"
    )
    assert Architecture.parse(text) == network
    assert network.operators()[0].key == "stem_k3_s1_32x32x3_32"
    assert network.operators()[1].key == "proj_k1_s2_32x32x32_64"
    assert network.total_stride == 8
    assert network in NASBenchMacro()
    with pytest.raises(NotInSpace, match="starts with"):
        NASBenchMacro().encode(replace(network, stem_stride=2))


def test_operators_of_the_new_kind_are_read_back():
    for operator in NASBenchMacro().operators():
        assert Operator.parse(operator.key) == operator
    skipped = Operator("proj", 8, 8, 7, kernel=3, skip="identity", se_channels=2)
    assert Operator.parse(skipped.key) == skipped
    assert SHORTCUT.convolutions[0].activation == "none"
    assert SHORTCUT.macs == 4 * 6 * 16
    assert SHORTCUT.params == 4 * 6 + 2 * 6
    # The trees of a latency model tell it from a regular convolution.
    assert features(SHORTCUT) != features(replace(SHORTCUT, kind="conv"))


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidArchitecture, match="only a regular convolution"):
        Architecture((Block(1, 3, 1, 6, 8, 8, linear=True),), 8, resolution_px=32)
    with pytest.raises(InvalidArchitecture, match="stride is 1 or 2, got 4"):
        Architecture.parse("r1_k3_s11_e6_i8_o8 stemstride4")
    with pytest.raises(InvalidArchitecture, match="given twice"):
        Architecture.parse("r1_k3_s11_e6_proj_conv_i8_o8")
    with pytest.raises(InvalidArchitecture, match="one of e<expansion> and conv"):
        Architecture.parse("r1_k3_s11_e6_proj_i8_o8")


@pytest.mark.parametrize("px", [7, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "se", "skip"),
    [(1, 2, 0, "none"), (1, 1, 2, "identity"), (3, 2, 0, "pool"), (5, 1, 0, "none")],
)
def test_a_projection_computes_the_same_in_onnx_and_torch(px, kernel, stride, se, skip):
    ort = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    from phonenas.space.lowering.onnx import to_onnx
    from phonenas.space.lowering.torch import state_arrays, to_torch

    out = 4 if skip == "identity" else 6
    operator = Operator("proj", 4, out, px, kernel, stride, se_channels=se, skip=skip)
    module = to_torch(operator, seed=0).eval()
    x = np.random.default_rng(0).standard_normal((1, 4, px, px)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    assert (expected < 0).any(), "nothing is cut off at zero"
    model = to_onnx(operator, weights=state_arrays(module)).SerializeToString()
    found = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_a_projection_computes_the_same_in_tflite():
    pytest.importorskip("ai_edge_litert")
    ort = pytest.importorskip("onnxruntime")
    from ai_edge_litert.interpreter import Interpreter

    from phonenas.space.lowering.onnx import to_onnx
    from phonenas.space.lowering.tflite import to_tflite

    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(
        to_onnx(SHORTCUT, seed=1).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"input": x})[0]
    interpreter = Interpreter(model_content=to_tflite(SHORTCUT, seed=1), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)
