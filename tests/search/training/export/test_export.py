"""Exported files: they compute what torch does, or they are not there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from phonenas.data.images import ImageSet
from phonenas.space import Architecture, zoo
from phonenas.space.errors import (
    ExportDiffers,
    InvalidArgument,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.tflite_file import TfliteFile

pytest.importorskip("torch", reason="torch is an optional extra: phonenas[torch]")
pytest.importorskip("safetensors", reason="safetensors comes with phonenas[torch]")

from phonenas.search.training import weights
from phonenas.search.training.evaluation import evaluate
from phonenas.search.training.export import check, formats
from phonenas.search.training.export.export import Check, Exported, ExportSettings, export
from phonenas.search.training.recipe import recipe
from phonenas.search.training.resources import Resources
from phonenas.search.training.result import Trained
from phonenas.search.training.trainer import train
from phonenas.search.training.weights import load_weights

CIFAR = Path(__file__).parents[5] / "shared" / "data" / "cifar10_12k.npz"
LITERT = importlib.util.find_spec("ai_edge_litert") is not None
CPU = Resources("cpu", threads=1)
NETWORKS = {
    "squeeze": "r1_k3_s22_e3_i8_o16_se0.25 r2_k5_s22_e6_i16_o24_se0.25 head64 classes10 res32",
    "pool skips, regular": "r2_k3_s22_conv_i8_o12_pool r2_k5_s22_e3_i12_o8_pool head48 classes10 "
    "res36",
    "odd maps": "r1_k3_s11_e1_i8_o8_noskip r2_k5_s22_e6_i8_o16 r1_k3_s22_e3_i16_o16_pool head32 "
    "classes10 res45",
    "a graph": "shufflenet-v2-x0.5 res32 classes10",
    "narrow": str(replace(zoo.find("mnasnet-small", 0.35, 32), classes=10)),
}


def coloured(n: int, px: int, classes: int = 10, seed: int = 0) -> ImageSet:
    """Images whose class shows in their colour and stripes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    hue = np.random.default_rng(99).integers(40, 216, (classes, 3))
    rows = np.sin(np.arange(px) * (1 + labels[:, None]) / 4) * 30
    pixels = hue[labels][:, None, None, :] + rows[:, :, None, None]
    pixels = pixels + rng.normal(0, 25, (n, px, px, 3))
    return ImageSet.of(
        np.clip(pixels, 0, 255).astype(np.uint8), labels, [f"c{i}" for i in range(classes)]
    )


def trained_on(text: str, px: int = 32, n: int = 40) -> Trained:
    how = recipe("small", epochs=2, batch=8, learning_rate=0.05)
    return train(zoo.parse(text), coloured(n, px), None, recipe=how, seed=1, resources=CPU)


@pytest.fixture(scope="module")
def squeeze() -> Trained:
    return trained_on(NETWORKS["squeeze"])


@pytest.fixture(scope="module")
def test_images() -> ImageSet:
    return coloured(24, 32, seed=5)


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    # Of 8 bits, without saturation on this computer; no other model is changed by it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": x[None]})[0] for x in images])


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_kind_of_network_leaves_as_it_was_trained(name: str, tmp_path: Path) -> None:
    from phonenas.search.training.pipeline import Batches

    test = coloured(12, 32, seed=7)
    trained = trained_on(NETWORKS[name], n=24)
    variances = [v for k, v in trained.weights.items() if k.endswith("running_var")]
    assert all(
        np.ptp(v) > 1e-3 for v in variances
    )  # BatchNorm does something, each channel another
    done = export(trained, tmp_path / "x", test)
    told = evaluate(trained.network, trained.weights, test, resources=CPU, logits=True)
    assert told.logits is not None
    assert done.images == len(test) and done.top1 == told.top1
    assert [f.name for f in done.models] == (["onnx", "tflite"] if LITERT else ["onnx"])
    assert 0 < done.difference <= 1e-4 and {m.differing for m in done.models} == {0}
    assert {f.top1 for f in done.models} == {told.top1}
    # Looked at from outside: the file on disk, given what evaluation sees.
    inputs = np.concatenate(
        [
            x.numpy()
            for x, _ in Batches(test, 5, trained.network.resolution_px, augment=None).epoch(0)
        ]
    )
    found = run_onnx(tmp_path / "x" / "network.onnx", inputs)
    np.testing.assert_allclose(found, told.logits, atol=1e-4)
    assert (found.argmax(1) == told.logits.argmax(1)).all()
    assert np.ptp(found, axis=0).max() > 0.01  # and it tells images apart
    network, weights = load_weights(tmp_path / "x" / "weights.safetensors")
    assert network == trained.network and set(weights) == set(trained.weights)
    assert all((weights[k] == v).all() for k, v in trained.weights.items())


def test_the_files_say_what_one_must_know(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path
) -> None:
    from safetensors import safe_open

    from phonenas.cli.networks import find
    from phonenas.latency_model.graphs.onnx_cut import cut

    done = export(squeeze, tmp_path, test_images, recipe="0123456789ab")
    model = onnx.load(str(tmp_path / "network.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert "BatchNormalization" not in {n.op_type for n in model.graph.node}
    props = {p.key: p.value for p in model.metadata_props}
    assert zoo.parse(props["network"]) == squeeze.network
    assert json.loads(props["classes"]) == [f"c{i}" for i in range(10)]
    assert json.loads(props["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(props["std"]) == [0.229, 0.224, 0.225]
    assert json.loads(props["crop_px"]) == 32 and json.loads(props["central_share"]) == 0.875
    with safe_open(tmp_path / "weights.safetensors", "numpy") as file:
        beside = json.loads(file.metadata()["phonenas"])
    about = beside["about"]
    assert zoo.parse(beside["network"]) == squeeze.network
    assert about["recipe_digest"] == "0123456789ab"
    assert about["recipe"]["epochs"] == 2 and about["classes"] == [f"c{i}" for i in range(10)]
    card = json.loads((tmp_path / "network.json").read_text())
    assert card["check"]["images"] == len(test_images) and card["check"]["top1"] == done.top1
    assert card["weights_sha256"] == props["weights_sha256"]
    # The card is a NETWORK of the command line, and the ONNX file one to measure and to predict.
    assert find(str(tmp_path / "network.json")) == squeeze.network
    # Its count holds the squeezes, too.
    assert cut(tmp_path / "network.onnx").macs == pytest.approx(squeeze.network.macs, rel=0.01)
    assert OnnxFile.at(tmp_path / "network.onnx").key.startswith("network.onnx#")
    assert set(done.files) == {"weights", "card"} | {f.name for f in done.models}


def test_channels_that_never_change_are_folded_too(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path
) -> None:
    weights = {k: v.copy() for k, v in squeeze.weights.items()}
    for name in [n for n in weights if n.endswith("running_var")]:
        stem = name.removesuffix("_bn.running_var")
        weights[f"{stem}.weight"][::3] = 0.0
        weights[f"{stem}_bn.running_mean"][::3] = 0.01
        weights[name][::3], weights[name][1::3] = 0.0, np.float32(1e-12) + weights[name][1::3]
    done = export(squeeze.network, tmp_path, test_images, weights=weights)
    assert {m.differing for m in done.models} == {0} and done.difference <= 1e-4


def test_a_model_that_computes_something_else_is_not_left_there(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(squeeze, tmp_path, test_images)
    honest = formats._onnx

    def wrong(network: Architecture, weights: Any, facts: Any) -> bytes:
        last = next(k for k in weights if k.endswith("classifier.bias"))
        return honest(
            network, {**weights, last: weights[last] + np.eye(10, dtype=np.float32)[3]}, facts
        )

    monkeypatch.setitem(formats.MAKERS, "onnx", wrong)
    with pytest.raises(
        ExportDiffers, match=r"network\.onnx was not written: on 24 of 24 images .*at worst by 1,"
    ):
        export(squeeze, tmp_path, test_images)
    assert not (tmp_path / "network.onnx").exists() and not (tmp_path / "network.json").exists()
    assert (tmp_path / "network.tflite").exists() == LITERT
    assert load_weights(tmp_path / "weights.safetensors")[0] == squeeze.network


def test_decisions_are_held_strictly_but_for_ties() -> None:
    torch = np.array([[1.0, 0.99997, 0], [2.0, 1, 0], [0, 3, 0]], np.float32)
    labels = np.array([0, 0, 1])

    def told(other: np.ndarray, tolerance: float = 1e-4) -> tuple[int, int, str]:
        allowed = np.full(3, tolerance)
        form = check.compared(Path("network.onnx"), torch, other, labels, allowed)
        return form.differing, form.ties, check.mismatch_reason(form, torch, other, allowed)

    assert told(torch.copy()) == (0, 0, "")
    tie = torch.copy()
    tie[0] = [0.99998, 0.99999, 0]
    assert told(tie) == (1, 1, "")
    far = torch.copy()
    far[1, 1] = 1.0002
    assert told(far)[:2] == (0, 0) and "on 1 of 3 images its logits differ" in told(far)[2]
    flipped = torch.copy()
    flipped[1] = [1.4, 1.6, 0]
    assert told(flipped)[:2] == (1, 0) and told(flipped)[2].endswith("on 1 it names another class")
    # Where a tolerance hides the difference, the decision still counts.
    assert "on 0 of 3 images" in told(flipped, 0.7)[2] and "on 1 it names" in told(flipped, 0.7)[2]
    lost = torch.copy()
    lost[2, 0] = np.nan
    assert "on 1 of 3 images" in told(lost)[2]


def test_large_logits_may_differ_by_what_float32_leaves_open(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = dict(squeeze.weights)
    for name in [k for k in weights if "classifier" in k]:
        weights[name] = weights[name] * np.float32(3e4)
    done = export(
        squeeze.network, tmp_path, test_images, weights=weights, settings=ExportSettings(("onnx",))
    )
    (form,) = done.models
    assert form.difference > 1e-4 and form.differing == form.ties
    honest = formats._onnx

    def wrong(network: Architecture, weights: Any, facts: Any) -> bytes:
        first = next(iter(weights))
        return honest(network, {**weights, first: weights[first] * np.float32(1.0001)}, facts)

    monkeypatch.setitem(formats.MAKERS, "onnx", wrong)
    with pytest.raises(ExportDiffers, match="where the largest logit is"):
        export(
            squeeze.network,
            tmp_path,
            test_images,
            weights=weights,
            settings=ExportSettings(("onnx",)),
        )


def test_images_are_bounded_and_evenly_taken(squeeze: Trained, tmp_path: Path) -> None:
    many = coloured(40, 32, seed=8)
    ten = ExportSettings(("onnx",), check=Check(most_images=10))
    done = export(squeeze, tmp_path, many, settings=ten)
    places = np.linspace(0, 39, 10).round().astype(int)
    assert done.images == 10
    top1 = evaluate(squeeze.network, squeeze.weights, many.subset(places), resources=CPU)
    assert done.top1 == top1.top1


def test_what_cannot_be_exported_is_told(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path
) -> None:
    bare, weights = squeeze.network, dict(squeeze.weights)
    name = next(iter(weights))
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (bare, {}, "none were given"),
        (squeeze, {"weights": weights}, "give no others"),
        (replace(squeeze, diverged="the loss was not a number"), {}, "diverged.*not a number"),
        (
            bare,
            {"weights": {k: v for k, v in weights.items() if k != name}},
            f"1 arrays are missing, as {name}",
        ),
        (bare, {"weights": {**weights, "extra": weights[name]}}, "not the network's, as extra"),
        (bare, {"weights": {**weights, name: weights[name][1:]}}, f"{name} is .* should be"),
        (
            bare,
            {"weights": {**weights, name: weights[name] * np.float32("nan")}},
            "not all numbers",
        ),
        (bare, {"weights": {**weights, name: weights[name].astype(np.float64)}}, "float64"),
    ]
    for trained, more, words in cases:
        with pytest.raises(InvalidArgument, match=words):
            export(trained, tmp_path / "x", test_images, **more)
    for wrong in ({"most_images": 0}, {"tolerance": 0.0}, {"threads": 0}):
        with pytest.raises(InvalidArgument, match="1 or more, tolerance: above 0; got"):
            Check(**wrong)
    with pytest.raises(InvalidArgument, match="10 classes.* are of 4"):
        export(squeeze, tmp_path / "x", coloured(8, 32, classes=4))
    with pytest.raises(UnknownName, match="'tfjs'. Known: onnx, tflite"):
        export(squeeze, tmp_path / "x", test_images, settings=ExportSettings(("tfjs",)))
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        export(squeeze, tmp_path / "file", test_images)


def test_without_the_extra_tflite_is_left_out_and_said(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ai_edge_litert" else found(name)
    )
    (tmp_path / "network.tflite").write_text("of other weights")
    done = export(squeeze, tmp_path, test_images)
    assert list(done.files) == ["weights", "card", "onnx"]
    assert "pip install ai-edge-litert" in done.left_out["tflite"]
    assert not (tmp_path / "network.tflite").exists()


def test_weights_that_are_damaged_or_anothers_are_refused(squeeze: Trained, tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = weights.save_weights(tmp_path / "w.safetensors", squeeze.network, squeeze.weights, {})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 4, 8, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnsupportedFormat, match="damaged"):
            load_weights(path)
    for at in rng.integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(flipped))
        try:
            _, arrays = load_weights(path)
        except UnsupportedFormat:
            continue
        # A letter of what stands beside the weights; the weights are whole.
        assert all((arrays[k] == v).all() for k, v in squeeze.weights.items())
    told = {"format": "phonenas-weights", "version": 1, "network": str(squeeze.network)}

    def file(**more: Any) -> bytes:
        return save({}, {"phonenas": json.dumps({**told, "about": {}, **more})})

    others: list[tuple[bytes, str]] = [
        (save({"a": np.ones(2, np.float32)}), "no trained weights of phonenas"),
        (save({}, {"phonenas": "[1"}), "damaged or no safetensors"),
        (file(format="phonenas-training"), "its format is 'phonenas-training'"),
        (file(version=2), "version 2; this phonenas reads version 1"),
        (file(), "damaged: [0-9]+ arrays are missing, as 0"),
        (file(network="r9"), "damaged"),
        (file(network=3), "damaged"),
        (file(about=3), "not a table"),
        (b"PK\x03\x04" + bytes(100), "no safetensors file"),
    ]
    for content, words in others:
        path.write_bytes(content)
        with pytest.raises(UnsupportedFormat, match=words):
            load_weights(path)
    with pytest.raises(UnknownName, match="no file"):
        load_weights(tmp_path / "none")
    with pytest.raises(StoreError, match="cannot be read"):
        load_weights(tmp_path)


def test_shapes_are_those_of_the_torch_form() -> None:
    from phonenas.space.lowering.torch import state_arrays, to_torch

    for text in NETWORKS.values():
        network = zoo.parse(text)
        state = state_arrays(to_torch(network, seed=0))
        assert {k: v.shape for k, v in state.items()} == weights.shapes(network)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.exists(), reason="shared/data does not lie beside the checkout")
def test_a_real_training_on_cifar_leaves_with_no_decision_changed(tmp_path: Path) -> None:
    from phonenas.data.images import read_images

    images, test = read_images(CIFAR), read_images(CIFAR, "test")
    network = replace(zoo.find("mnasnet-small", 1.0, 32), classes=10)
    trained = train(
        network,
        images.subset(np.arange(0, 10_000, 3)),
        test,
        recipe=recipe("small", epochs=4, learning_rate=0.05),
        seed=0,
        resources=CPU,
    )
    assert trained.top1 > 0.15  # guessing gives 0.1
    done: Exported = export(trained, tmp_path, test)
    assert (
        done.images == 2000
        and {m.differing for m in done.models} == {0}
        and done.difference <= 1e-4
    )
    assert done.top1 == trained.top1


# -- quantisation ------------------------------------------------------------------------------


def test_a_network_in_int8_beside_its_float_file(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path
) -> None:
    from phonenas.search.training.export.export import Quantisation
    from phonenas.search.training.pipeline import Batches

    how = Quantisation(coloured(20, 32), most_images=8)
    done = export(squeeze, tmp_path, test_images, settings=ExportSettings(quantise=how))
    assert [q.name for q in done.quantised] == [m.name for m in done.models]
    (inputs, _), *_ = Batches(test_images, 24, 32, augment=None).epoch(0)
    whole, small = (
        run_onnx(tmp_path / f"network{end}.onnx", inputs.numpy()).argmax(1) for end in ("", "_int8")
    )
    first = done.quantised[0]
    path = tmp_path / "network_int8.onnx"
    assert first.file == path.name
    assert first.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert first.float_top1 == np.mean(whole == test_images.labels) == done.top1
    assert first.agreeing == np.mean(whole == small) >= 0.9
    assert first.top1 == np.mean(small == test_images.labels)
    assert abs(first.change) <= 0.1
    differ = ((small == test_images.labels) != (whole == test_images.labels)).sum()
    # One image more than differ: none among 24 is no certainty.
    assert first.change_error == pytest.approx(((differ + 1) / 24**2 - first.change**2 / 24) ** 0.5)
    assert (first.images, first.calibrated_on) == (24, 8)
    for model in done.quantised:
        own = done.files[f"{model.name} int8"]
        assert own == tmp_path / model.file and model.size == own.stat().st_size
    ships = done.file_in("int8")
    assert [p.name for p in ships.paths] == [q.file for q in done.quantised]
    assert [p.name for p in ships.also[0].paths] == [m.path.name for m in done.models]
    assert done.file_in("float16").paths == done.file_in("float32").paths == ships.also[0].paths
    card = json.loads((tmp_path / "network.json").read_text())
    assert card["quantised"][0]["path"] == "network_int8.onnx"
    again = export(squeeze, tmp_path, test_images)
    assert not again.quantised
    assert not path.exists(), "an older int8 file beside newer weights"


@pytest.mark.parametrize("precision", ["float16", "int8-dynamic", "float16-weights"])
def test_a_network_in_another_precision_beside_its_float_file(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path, precision: str
) -> None:
    """Each format that has it; the other is told. What this computer cannot run is told, too."""
    from phonenas.search.training.export.export import Quantisation

    how = Quantisation(test_images, precision)
    done = export(squeeze, tmp_path, test_images, settings=ExportSettings(quantise=how))
    formats = [m.name for m in done.models]
    having = {"float16": ("onnx", "tflite"), "int8-dynamic": ("onnx",)}.get(precision, ("tflite",))
    assert [q.name for q in done.quantised] == [name for name in formats if name in having]
    lacking = [name for name in formats if name not in having]
    assert {k for k in done.left_out if precision in k} == {f"{n} {precision}" for n in lacking}
    for q in done.quantised:
        path = tmp_path / f"network_{precision}.{q.name}"
        assert done.files[f"{q.name} {precision}"] == path and path.stat().st_size == q.size
        assert q.size < 0.7 * q.float_size and q.calibrated_on == 0
        file = OnnxFile.at(path) if q.name == "onnx" else TfliteFile.at(path)
        assert file.precision == precision
        if q.not_run:
            assert (q.images, q.top1) == (0, q.float_top1) and "not evaluated here" in str(q)
        else:
            assert q.images == 24 and q.agreeing >= 0.9 and "calibrated" not in str(q)
    if "onnx" in having:  # ONNX Runtime runs both
        assert not done.quantised[0].not_run
    again = export(squeeze, tmp_path, test_images)
    assert not again.quantised and not list(tmp_path.glob("network_*"))


def test_a_file_that_does_not_run_here_is_written_and_told(
    squeeze: Trained, test_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phonenas.search.training.export import export as module
    from phonenas.search.training.export.export import Quantisation

    plain = module.RUNNERS["onnx"]

    failing: Exception = RuntimeError("no kernel of\nfloat16 here")

    def runner(model: bytes, threads: int) -> Any:
        if len(model) < 0.7 * len(whole):
            raise failing
        return plain(model, threads)

    first = export(squeeze, tmp_path, test_images, settings=ExportSettings(("onnx",)))
    whole = first.models[0].path.read_bytes()
    monkeypatch.setattr(module, "RUNNERS", {"onnx": runner})
    how = ExportSettings(("onnx",), Quantisation(test_images, "float16"))
    (q,) = export(squeeze, tmp_path, test_images, settings=how).quantised
    assert (q.not_run, q.images) == ("no kernel of float16 here", 0)
    assert q.top1 == q.float_top1 and (tmp_path / "network_float16.onnx").exists()
    assert "onnx in float16: not evaluated here (no kernel of float16 here)" in str(q)
    # Each runtime has kernels of int8, and too little memory is none of its files' faults.
    with pytest.raises(RuntimeError, match="no kernel"):
        in_8 = ExportSettings(("onnx",), Quantisation(test_images, most_images=4))
        export(squeeze, tmp_path, test_images, settings=in_8)
    failing = MemoryError()
    with pytest.raises(MemoryError):
        export(squeeze, tmp_path, test_images, settings=how)


def test_quantisation_without_images_or_to_another_precision() -> None:
    from phonenas.search.training.export.export import Quantisation

    with pytest.raises(InvalidArgument, match="--quantise float32 is not possible here"):
        Quantisation(coloured(4, 32), "float32")
    with pytest.raises(InvalidArgument, match="has no image to calibrate on"):
        Quantisation(coloured(4, 32).subset(np.array([], np.int64)))
    with pytest.raises(InvalidArgument, match="most_images: 1 or more, got 0"):
        Quantisation(coloured(4, 32), most_images=0)
