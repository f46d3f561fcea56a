"""Detectors: their counts, their text, their three forms, and what the commands make of them."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from fakes import FakeDevice
from typer.testing import CliRunner

from phonenas import devices, space
from phonenas.cli import app
from phonenas.cli.networks import cut_other, find
from phonenas.cli.networks import other as named
from phonenas.space import Architecture, Kernel, Operator, zoo
from phonenas.space.detection.anchors import anchors, decoded, encoded
from phonenas.space.detection.onnx import ssdlite_to_onnx
from phonenas.space.detection.ssdlite import SSDLite
from phonenas.space.detection.torch import ssdlite_to_torch
from phonenas.space.errors import (
    InvalidArchitecture,
    InvalidArgument,
    NotEnoughData,
    PhonenasError,
    UncoveredOperator,
    UnknownName,
)
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.torch import state_arrays, to_torch
from phonenas.space.lowering.write import write_onnx, write_tflite

torch = pytest.importorskip("torch", reason="torch is an optional extra: phonenas[torch]")

Array = npt.NDArray[np.float32]
SMALL = SSDLite(zoo.network("mnasnet-small"), classes=5, resolution_px=64)


def transferred(name: str, classes: int = 91, px: int = 320, width: float = 1.0) -> SSDLite:
    return SSDLite(zoo.network(name), classes, px).scaled(width)


# -- counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detector", "params", "macs"),
    [
        (transferred("mnasnet-a1"), 4_912_181, 837_565_504),
        (transferred("mnasnet-b1"), 5_378_983, 832_237_504),
        (transferred("mnasnet-small"), 2_908_047, 283_359_104),
        (transferred("mobilenet-v2"), 4_500_543, 804_397_504),
        (transferred("mobilenet-v2", classes=81), 4_337_013, 788_830_144),
        (transferred("mnasnet-a1", width=0.5), 1_690_173, 290_344_096),
    ],
    ids=lambda v: v.key[:24] if isinstance(v, SSDLite) else "",
)
def test_counts_to_the_unit(detector: SSDLite, params: int, macs: int) -> None:
    assert (detector.params, detector.macs) == (params, macs)


def folded_params(detector: SSDLite) -> int:
    """With BatchNorm folded: a bias instead of a scale and a shift."""
    convolutions = [c for o in detector.operators() for c in o.convolutions]
    return detector.params - sum(c.out_channels for c in convolutions if c.normalised)


# Name, width, classes; parameters in millions and multiply-adds in billions as printed, at 320 px.
PUBLISHED = [
    ("mnasnet-a1", 1.0, 91, 4.9, None),  # MnasNet prints 0.8 beside it: see below
    ("mnasnet-a1", 1.0, 91, 4.88, 0.84),  # this and the next two MobileNetV3's paper
    ("mnasnet-a1", 0.5, 91, 1.68, 0.29),
    ("mnasnet-a1", 0.35, 91, 1.02, 0.18),
    ("mobilenet-v2", 1.0, 81, 4.3, 0.80),
]


@pytest.mark.parametrize(("name", "width", "classes", "params", "macs"), PUBLISHED)
def test_counts_are_within_two_percent_of_the_published(
    name: str, width: float, classes: int, params: float, macs: float | None
) -> None:
    detector = transferred(name, classes, 320, width)
    assert detector.params / 1e6 == pytest.approx(params, rel=0.02)
    assert folded_params(detector) / 1e6 == pytest.approx(params, rel=0.02)
    if macs is not None:
        assert detector.macs / 1e9 == pytest.approx(macs, rel=0.02)


def test_the_papers_one_digit() -> None:
    """MnasNet's own table prints one digit of A1's multiply-adds; they round to it."""
    assert f"{transferred('mnasnet-a1').macs / 1e9:.1f}" == "0.8"


def test_counts_are_those_of_the_released_file() -> None:
    """OpenVINO's model zoo counted TensorFlow's released ssdlite_mobilenet_v2, BatchNorm folded.

    It prints 4.475 M parameters and 1.525 G operations, two for a multiply-add, at 300 px.
    """
    released = transferred("mobilenet-v2", px=300)
    assert folded_params(released) / 1e6 == pytest.approx(4.475, abs=0.0005)
    assert 2 * released.macs / 1e9 == pytest.approx(1.525, rel=0.02)


def test_maps_stand_at_strides_16_to_512() -> None:
    a1 = transferred("mnasnet-a1")
    assert a1.map_sides == (20, 10, 5, 3, 2, 1)
    assert [-(-320 // stride) for stride in (16, 32, 64, 128, 256, 512)] == list(a1.map_sides)
    assert a1.boxes == 3 * 400 + 6 * (100 + 25 + 9 + 4 + 1) == len(a1.anchors())
    channels = [layer.in_channels for layer in a1.predictors["class_logits"]]
    assert channels == [672, 1280, 512, 256, 256, 128]
    assert [layer.out_channels for layer in a1.predictors["box_codes"]] == [12, *[24] * 5]


def test_the_finest_map_is_the_layers_input_where_it_has_no_expansion() -> None:
    """As with MobileNetV1, whose layers have none."""
    plain = Architecture.parse(
        "r1_k3_s22_e1_i8_o16 r1_k3_s22_e1_i16_o24 r2_k3_s22_e1_i24_o32 r1_k3_s22_conv_i32_o48"
    )
    for backbone in (
        plain,
        replace(plain, blocks=(*plain.blocks[:3], replace(plain.blocks[3], expansion=1))),
    ):
        detector = SSDLite(backbone, resolution_px=64)
        assert not detector.tap_expanded
        assert detector.predictors["box_codes"][0].in_channels == 32
        assert detector.map_sides == (4, 2, 1, 1, 1, 1)


# -- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnasnet", "mnasnet-flat", "proxylessnas", "accel-nasbench"])
def test_text_and_value_are_inverse(name: str) -> None:
    rng = np.random.default_rng(4)
    drawn = space.get(name)
    for genome in drawn.sample(rng, 5):
        width = float(rng.choice([1, 0.35, 0.7, 1 / 3, 1.4]))
        px, classes = int(rng.integers(32, 640)), int(rng.integers(2, 400))
        detector = SSDLite(drawn.decode(genome), classes, px).scaled(width)
        assert SSDLite.parse(str(detector)) == detector
        assert hash(SSDLite.parse(str(detector))) == hash(detector)
        assert detector.backbone.resolution_px == px


def test_a_detector_by_its_words() -> None:
    a1 = transferred("mnasnet-a1")
    assert named("ssdlite:mnasnet-a1") == named(f" {a1} ") == a1
    assert str(a1).startswith("ssdlite classes91 res320 r1_k3_s11_e1_i32_o16_noskip ")
    assert SSDLite.parse(f"ssdlite {zoo.network('mnasnet-a1')}") == a1
    half = named("ssdlite:mnasnet-a1", 0.5, 256)
    assert half is not None and half == a1.scaled(0.5).with_resolution(256)
    assert half.width == 0.5 and half.backbone.head_channels == 640
    assert [o.out_channels for o in list(half.trunk.values())[-4:]] == [256, 128, 128, 64]
    for other in ("mnasnet-a1", "runs/x:3", "ssdlites", "r1_k3_s11_e1_i32_o16"):
        assert named(other) is None


def test_what_the_backbone_was_for_does_not_matter() -> None:
    body = zoo.network("mnasnet-a1", resolution=96)
    assert SSDLite(replace(body, classes=7)) == SSDLite(body) == transferred("mnasnet-a1")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("ssdlite:mnasnet-a9", UnknownName, "Did you mean 'mnasnet-a1'"),
        ("ssdlite:ssdlite:mnasnet-a1", InvalidArgument, "a detector already"),
        ("ssdlite", InvalidArchitecture, "holds no block"),
        ("ssdlite res320 res96 r1_k3_s11_e1_i32_o16", InvalidArchitecture, "res is given once"),
        ("ssdlite res32.5 r1_k3_s11_e1_i32_o16", InvalidArchitecture, "as in res320"),
        ("ssdlite r1_k3_s11_e1_i32_o16", InvalidArgument, "backbone ends at stride 2"),
        ("ssdlite classes1 MNASNET", InvalidArgument, "2 to 10,000 classes"),
        ("ssdlite width0 MNASNET", InvalidArgument, "a width multiplier lies in"),
        ("ssdlite res31 MNASNET", InvalidArgument, "a resolution of 31 px cannot be taken"),
        ("ssdlite head900000 MNASNET", InvalidArchitecture, "is the limit"),
        ("ssdlite klasses3 MNASNET", InvalidArchitecture, "token 'klasses3' is unknown"),
        ("ssdlite:runs/none:3", PhonenasError, "there is no run in runs/none"),
        ("ssdlite:absent.json", UnknownName, "there is no file absent.json"),
    ],
)
def test_bad_words_are_named(text: str, error: type[Exception], says: str) -> None:
    text = text.replace("MNASNET", str(zoo.network("mnasnet-a1")))
    with pytest.raises(error) as told:
        named(text)
    assert says in str(told.value)


def test_backbones_that_end_at_another_stride_are_refused() -> None:
    deeper = Architecture.parse(f"{zoo.network('mobilenet-v2')} r1_k3_s22_e6_i320_o320")
    with pytest.raises(InvalidArgument, match="strides 16 and 32.*ends at stride 64"):
        SSDLite(deeper)


def test_where_a_network_that_classifies_is_needed_a_detector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"block_args": str(SMALL)}))
    assert named(str(path)) == SMALL
    for words in ("ssdlite:mnasnet-a1", "ssdlite:runs/x:3", str(SMALL), str(path)):
        with pytest.raises(InvalidArgument, match="is a detector"):
            find(words)


# -- anchors -----------------------------------------------------------------------------------


def test_anchors_are_the_published_ones() -> None:
    found = anchors((20, 10, 5, 3, 2, 1))
    assert found.shape == (2034, 4)
    # Centres of the first place, then of the one to its right, three anchors each.
    assert found[:6, :2] == pytest.approx(np.repeat([[0.025, 0.025], [0.025, 0.075]], 3, axis=0))
    # One small square, one wide, one tall; scales 0.2, 0.35, ... 0.95 from map to map.
    root = 2**0.5
    sizes = [[0.1, 0.1], [0.2 / root, 0.2 * root], [0.2 * root, 0.2 / root]]
    assert found[:3, 2:] == pytest.approx(np.array(sizes), rel=1e-6)
    second = found[1200:1206, 2:]
    assert second[0] == pytest.approx([0.35, 0.35])
    assert second[3] == pytest.approx([0.35 / 3**0.5, 0.35 * 3**0.5])
    assert second[5] == pytest.approx([(0.35 * 0.5) ** 0.5] * 2)
    assert found[-1] == pytest.approx([0.5, 0.5, 0.95**0.5, 0.95**0.5])
    with pytest.raises(InvalidArgument, match="two or more maps"):
        anchors([3])


def test_boxes_and_codes_are_inverse() -> None:
    rng = np.random.default_rng(0)
    at = anchors((4, 2, 1, 1, 1, 1))
    boxes = np.column_stack([rng.uniform(0, 1, (len(at), 2)), rng.uniform(0.01, 1, (len(at), 2))])
    assert decoded(encoded(boxes, at), at) == pytest.approx(boxes)
    # A tenth of a side to the right is a code of 1; twice as high is 5 · ln 2.
    (cy, cx, h, w) = at[7].astype(float)
    code = encoded([cy, cx + w / 10, 2 * h, w], at[7])
    assert code == pytest.approx([0, 1, 5 * np.log(2), 0], abs=1e-6)
    assert np.isfinite(decoded([0, 0, 1e6, 1e6], at[7])).all()


# -- forms -------------------------------------------------------------------------------------


def lively(module: Any, seed: int = 0) -> Any:
    """BatchNorm does something, in every channel something else; predictors speak up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            kind = key.rpartition(".")[2]
            if kind == "running_var" or (kind == "weight" and "_bn" in key):
                value.uniform_(0.5, 1.5, generator=generator)
            elif kind in ("running_mean", "bias"):
                value.normal_(0, 0.3, generator=generator)
            elif kind == "weight" and not key[0].isdigit():
                fan_in = value[0].numel()
                value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return module.eval()


def image(px: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((1, 3, px, px), np.float32)


def run_onnx(model: onnx.ModelProto, x: Array) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(a) for a in session.run(["class_logits", "box_codes"], {"input": x})]


def run_torch(module: Any, x: Array) -> list[Array]:
    with torch.no_grad():
        return [a.numpy() for a in module(torch.from_numpy(x))]


def assert_alike(found: list[Array], expected: list[Array]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(b).max() > 1e-2
        assert np.abs(a - b).max() / np.abs(b).max() <= 1e-4


PLAIN = (
    "r1_k3_s22_e1_i8_o16 r1_k3_s22_e3_i16_o24_se0.25 r1_k3_s22_e6_i24_o32_pool "
    "r2_k5_s22_conv_i32_o48"
)
DETECTORS = [
    SMALL,
    transferred("mnasnet-a1", px=96),
    transferred("mobilenet-v2", classes=21, px=75, width=0.35),
    SSDLite(Architecture.parse(PLAIN), 3, 51),
]


@pytest.mark.parametrize(
    "detector", DETECTORS, ids=lambda d: f"{d.backbone.blocks[0]}_{d.resolution_px}"
)
def test_torch_and_onnx_compute_alike(detector: SSDLite) -> None:
    module, x = lively(ssdlite_to_torch(detector, seed=1)), image(detector.resolution_px)
    model = ssdlite_to_onnx(detector, weights=state_arrays(module))
    onnx.checker.check_model(model, full_check=True)
    expected = run_torch(module, x)
    assert expected[0].shape == (1, detector.boxes, detector.classes)
    assert expected[1].shape == (1, detector.boxes, 4)
    assert_alike(run_onnx(model, x), expected)


@pytest.mark.parametrize("detector", DETECTORS[:3], ids=lambda d: str(d.resolution_px))
def test_tflite_and_onnx_compute_alike(detector: SSDLite, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is an optional extra: phonenas[litert]")
    from ai_edge_litert.interpreter import Interpreter

    from phonenas.devices.runtimes.engine_litert import Engine
    from phonenas.space.detection.tflite import ssdlite_to_tflite

    weights = state_arrays(lively(ssdlite_to_torch(detector, seed=2)))
    model = ssdlite_to_tflite(detector, weights=weights)
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    x = image(detector.resolution_px)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    assert [o["name"] for o in outputs] == ["class_logits", "box_codes"]
    found = [interpreter.get_tensor(o["index"]) for o in outputs]
    assert_alike(found, run_onnx(ssdlite_to_onnx(detector, weights=weights), x))
    (tmp_path / "d.tflite").write_bytes(model)
    # All of it in XNNPACK: nothing falls back to slow kernels.
    assert Engine({}).load(str(tmp_path / "d.tflite")).provider == "XNNPACK"
    assert write_tflite(detector, tmp_path / "e", "litert").stat().st_size == len(model)
    with pytest.raises(InvalidArgument, match="litert cannot be given"):
        write_tflite(Kernel("softmax", 8, 8), tmp_path / "f", "litert")


def test_rows_stand_in_the_order_of_the_anchors() -> None:
    """One predictor's bias is told apart by anchor and class; the maps one behind the other."""
    module = ssdlite_to_torch(SMALL, seed=0).eval()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if ".predict." in key:
                value.zero_()
        module.get_submodule("classes2.predict").bias.copy_(torch.arange(6 * 5.0))
    logits, codes = run_torch(module, image(64))
    assert not codes.any()
    first, places = 3 * 4**2, 2**2
    rows = logits[0, first : first + 6 * places].reshape(places, 6, 5)
    assert (rows == np.arange(30.0).reshape(6, 5)).all()
    assert not logits[0, :first].any() and not logits[0, first + 6 * places :].any()


def test_maps_are_those_of_the_network_that_classifies() -> None:
    """With its weights: the backbone's layers compute what they computed there."""
    body = zoo.network("mnasnet-small", resolution=64)
    learned = lively(to_torch(body, seed=3))
    weights = state_arrays(learned)
    module = ssdlite_to_torch(SMALL, weights=weights, seed=0).eval()
    x = torch.from_numpy(image(64))
    with torch.no_grad():
        maps = module.maps(x)
        tap = SMALL.tap
        before = learned[:tap](x)
        layer = learned[tap]
        expanded = torch.relu(layer.expand_bn(layer.expand(before)))
        head = learned[len(learned) - 1]
        features = torch.relu(head.features_bn(head.features(learned[: len(learned) - 1](x))))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (layer.in_channels, layer.in_px, layer.in_px) for layer in SMALL.predictors["box_codes"]
    ]
    assert torch.equal(maps[0], expanded) and torch.equal(maps[1], features)
    own = state_arrays(module)
    assert {k for k in own if k in weights} == {k for k in weights if "classifier" not in k}
    assert all((own[k] == weights[k]).all() for k in own if k in weights)


def test_weights_of_another_network_are_refused() -> None:
    other = state_arrays(to_torch(zoo.network("mnasnet-small", 0.5), seed=0))
    with pytest.raises(InvalidArgument, match="of another network"):
        ssdlite_to_torch(SMALL, weights=other)
    own = state_arrays(ssdlite_to_torch(SMALL, seed=0))
    del own["extra2.depthwise.weight"]
    with pytest.raises(InvalidArgument, match="lack extra2.depthwise.weight"):
        ssdlite_to_onnx(SMALL, weights=own)


def test_every_weight_is_taught() -> None:
    module = ssdlite_to_torch(SMALL, seed=0)
    assert state_arrays(module).keys() == state_arrays(ssdlite_to_torch(SMALL, seed=0)).keys()
    logits, codes = module(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    per_map = module.eval().per_map(torch.zeros(2, 3, 64, 64))
    assert [tuple(a.shape) for a, _ in per_map] == [
        (2, n * px**2, 5) for n, px in zip(SMALL.anchors_per_place, SMALL.map_sides, strict=True)
    ]
    (logits.square().mean() + codes.square().mean()).backward()
    params = dict(module.named_parameters())
    assert sum(p.numel() for p in params.values()) == SMALL.params
    # A bias before its own BatchNorm would have none; here each of them reaches the outputs.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in params.values())


def test_equal_seeds_give_equal_weights() -> None:
    one, two, three = (state_arrays(ssdlite_to_torch(SMALL, seed=s)) for s in (5, 5, 6))
    assert all((one[k] == two[k]).all() for k in one)
    assert any((one[k] != three[k]).any() for k in one)
    assert ssdlite_to_onnx(SMALL) == ssdlite_to_onnx(SMALL) != ssdlite_to_onnx(SMALL, seed=1)


def test_networks_that_classify_are_built_as_before() -> None:
    body = zoo.network("mnasnet-small", resolution=64)
    model = to_onnx(body)
    assert [o.name for o in model.graph.output] == ["output"]
    assert model.graph.node[-1].output[0] == "output"


# -- cut, measured, predicted --------------------------------------------------------------------


def test_a_detector_is_cut_into_the_kernels_that_it_counts() -> None:
    network = cut_other(transferred("mobilenet-v2", px=96))
    assert network.macs == transferred("mobilenet-v2", px=96).macs
    assert {k.kind for k in network.kernels} == {"conv", "add", "move", "concat"}
    assert sum(k.kind == "concat" for k in network.kernels) == 2


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fast: None) -> Any:
    """Runs a command on the fake device in an empty folder; its JSON, or its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHONENAS_DB", raising=False)
    monkeypatch.setattr(devices, "connect", lambda name, **settings: FakeDevice())

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"])
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    return run


WORDS = ("ssdlite:mnasnet-small", "--resolution", "96")


@pytest.mark.slow
def test_the_commands_show_measure_and_predict_it(fake: Any, tmp_path: Path) -> None:
    shown = fake("show", *WORDS)
    own = named("ssdlite:mnasnet-small", resolution=96)
    assert own is not None
    assert (shown["params"], shown["macs"], shown["resolution_px"]) == (own.params, own.macs, 96)
    assert sum(o["macs"] for o in shown["operators"]) == own.macs
    assert shown["block_args"] == str(own)
    (tmp_path / "d.json").write_text(json.dumps(shown))
    assert fake("show", "d.json")["params"] == own.params

    asked = ("profile", "--device", "fake", "--quick", "--quiet", "--networks", "0")
    measured = fake(*asked, "--network", *WORDS)
    assert measured["measured"] == 1
    (ms,) = measured["networks"].values()
    assert list(measured["networks"]) == [str(own)]
    write_onnx(own, tmp_path / "m.onnx")
    assert ms == pytest.approx(FakeDevice.true_ms(tmp_path / "m.onnx"), rel=0.05)
    assert fake(*asked, "--network", str(own))["reused"] == 1

    with pytest.raises(NotEnoughData, match="too few kernels"):
        fake("predict", *WORDS, "--device", "fake")
    fake(*asked, "--kernels-of", *WORDS)
    (row,) = fake("predict", *WORDS, "--device", "fake", "--explain")
    (plain,) = fake("predict", "m.onnx", "--device", "fake")
    with pytest.raises(InvalidArgument, match="--resolution does not apply to m.onnx"):
        fake("predict", *WORDS, "m.onnx", "--device", "fake")
    assert row["network"] == "ssdlite:mnasnet-small" and plain["network"] == "m.onnx"
    assert row["latency_ms"] == pytest.approx(plain["latency_ms"])
    assert 0 < row["low_ms"] < row["latency_ms"] < row["high_ms"]
    assert row["covered"] and not row["calibrated"]
    assert sum(o["share"] for o in row["operators"]) == pytest.approx(1)
    assert all(o["measured"] for o in row["operators"])
    # At three times the side its maps lie beyond what was measured, and the advice measures it.
    with pytest.raises(UncoveredOperator) as told:
        fake("predict", "ssdlite:mnasnet-a1", "--resolution", "640", "--device", "fake")
    advice = shlex.split(str(told.value).partition("--kernels-of ")[2])
    assert len(advice) == 1
    assert named(advice[0]) == named("ssdlite:mnasnet-a1", resolution=640)


def test_keys_of_layers_are_distinct() -> None:
    a1 = transferred("mnasnet-a1")
    keys = [o.key for o in a1.operators()]
    heads = [k for k, o in zip(keys, a1.operators(), strict=True) if not isinstance(o, Operator)]
    assert len(set(heads)) == len(heads) == 1 + 4 + 12
    assert "extra1_10x10x1280_512" in heads and "classes1_20x20x672_273" in heads
    with pytest.raises(InvalidArgument):
        Kernel.parse(heads[0])
