"""Fine-tuning for int8: its arithmetic is the file's, and the better file is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from phonenas.data.images import ImageSet, held_out
from phonenas.space import zoo
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnsupportedFormat
from phonenas.space.lowering.calibration import calibrated
from phonenas.space.lowering.onnx import to_onnx
from phonenas.space.lowering.torch import state_arrays, to_torch

pytest.importorskip("torch", reason="torch is an optional extra: phonenas[torch]")
pytest.importorskip("safetensors", reason="safetensors comes with phonenas[torch]")

import torch

from phonenas.search.training.export.export import ExportSettings, Quantisation, export
from phonenas.search.training.finetuning import finetune
from phonenas.search.training.finetuning.fake_quantisation import (
    FakeQuantised,
    fake_quantised,
    weight_scales,
)
from phonenas.search.training.finetuning.finetune import fine_tuned
from phonenas.search.training.finetuning.settings import (
    FineTuning,
    checked_request,
    fine_tuning,
    refuse_untunable,
    tuned_by,
)
from phonenas.search.training.finetuning.start import QuantisedStart
from phonenas.search.training.job import TrainingJob
from phonenas.search.training.recipe import PAPER, recipe
from phonenas.search.training.resources import Resources
from phonenas.search.training.result import Epoch, Trained
from phonenas.search.training.trainer import run_job
from phonenas.search.training.weights import load_weights

CPU = Resources("cpu", threads=1)
SQUEEZE = "stemstride1 r1_k3_s22_e3_i8_o16_se0.25 r2_k3_s22_e2_i16_o24_pool head32 classes4 res16"


def coloured(n: int, seed: int) -> ImageSet:
    """Images of 16 px of four classes by colour, with much noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    hue = np.random.default_rng(9).integers(70, 186, (4, 3))
    pixels = hue[labels][:, None, None, :] + rng.normal(0, 60, (n, 16, 16, 3))
    return ImageSet.of(np.clip(pixels, 0, 255).astype(np.uint8), labels, list("abcd"))


IMAGES, HELD, TEST = coloured(64, 0), coloured(40, 1), coloured(20, 2)
HOW = recipe("small", epochs=2, batch=16)
JOB = TrainingJob(IMAGES, TEST, HOW)


def ran(nodes: list[Any], inputs: dict[str, np.ndarray], constants: list[Any]) -> np.ndarray:
    """What ONNX Runtime makes of nodes whose last value is "y", in float32."""
    infos = [helper.make_tensor_value_info(k, 1, v.shape) for k, v in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", infos, [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run(None, inputs)[0]
    return result


def test_a_value_is_rounded_as_onnx_runtime_rounds_it() -> None:
    """To the bit: on halves of a step, beyond both ends, and on ordinary values."""
    rng = np.random.default_rng(0)
    pair = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    for _ in range(12):
        scale, zero_point = np.float32(rng.uniform(1e-3, 0.1)), int(rng.integers(0, 256))
        x = rng.normal(0, 90 * scale, 50_000).astype(np.float32)
        x[:600] = (np.arange(600) - 300.5).astype(np.float32) * scale
        given = [
            helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("z", TensorProto.UINT8, [], [zero_point]),
        ]
        expected = ran(pair, {"x": x}, given)
        own = fake_quantised(torch.from_numpy(x), torch.tensor(scale), zero_point, 0, 255)
        np.testing.assert_array_equal(own.numpy(), expected)
        assert expected.min() == -zero_point * scale  # some were clipped
    weight = rng.normal(0, [[0.3], [2.0], [0.0]], (3, 500)).astype(np.float32)
    scales = weight_scales(torch.from_numpy(weight), per_channel=True)
    numbers = [float(np.float32(np.abs(row).max() / np.float64(127)) or 1) for row in weight]
    assert scales.flatten().tolist() == numbers and numbers[2] == 1
    for node in pair:
        node.attribute.append(helper.make_attribute("axis", 0))
    given = [
        helper.make_tensor("s", TensorProto.FLOAT, [3], numbers),
        helper.make_tensor("z", TensorProto.INT8, [3], [0, 0, 0]),
    ]
    own = fake_quantised(torch.from_numpy(weight), scales, 0, -127, 127)
    np.testing.assert_array_equal(own.numpy(), ran(pair, {"x": weight}, given))
    assert weight_scales(torch.tensor([[-2.54, 1.0]]), per_channel=False) == pytest.approx(0.02)


def test_the_gradient_passes_where_nothing_is_clipped() -> None:
    # Stored: 0 to 255, 10 stands for 0, so that -5 to 122.5 has a form.
    x = torch.tensor([-6.0, -5.2, -5.0, 0.3, 122.5, 122.8, 140.0], requires_grad=True)
    y = fake_quantised(x, torch.tensor(0.5), 10, 0, 255)
    assert y.tolist() == [-5, -5, -5, 0.5, 122.5, 122.5, 122.5]
    (3 * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 3, 3, 3, 3, 0, 0]
    # -5.2 is stored as 0 by rounding alone: -5.2 / 0.5 + 10 = -0.4.


def statistics(network: Any, seed: int = 1) -> dict[str, np.ndarray]:
    """Weights of a network whose BatchNorm has seen some images."""
    module = to_torch(network, seed=seed)
    px, generator = network.resolution_px, torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "_bn." in name:
                value += 0.3 * torch.randn(value.shape, generator=generator)
        for _ in range(30):
            module(torch.randn(16, 3, px, px, generator=generator))
    return state_arrays(module)


class BesideItsFile:
    """An int8 file and the fake one of it: all values of the file, node by node, and all steps."""

    def __init__(self, network: Any, weights: dict[str, np.ndarray]) -> None:
        px, rng = network.resolution_px, np.random.default_rng(3)
        self.images = [rng.standard_normal((1, 3, px, px), np.float32) for _ in range(8)]
        self.ranges = calibrated(network, self.images[:6], weights=weights)
        fake = QuantisedStart(weights, self.ranges).module(network).eval()
        assert isinstance(fake, FakeQuantised)
        self.fake = fake
        self.model = to_onnx(network, weights=weights, precision="int8", ranges=self.ranges)
        self.constants = {i.name: numpy_helper.to_array(i) for i in self.model.graph.initializer}
        whole = onnx.ModelProto.FromString(self.model.SerializeToString())
        self.output = whole.graph.output[0].name
        del whole.graph.output[:]
        self.names = [node.output[0] for node in whole.graph.node]
        whole.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in self.names)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(
            whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def of_file(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Every value of the file, what is in 8 bits as the number that it stands for."""
        values = dict(zip(self.names, self.session.run(None, {"input": image}), strict=True))
        for node in self.model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in values:
                values[node.input[0]] = values[node.output[0]]
        return {"input": image, **values}

    def compare_nodes(self) -> None:
        """Each step on what the file's node reads. Roundings and biases are equal to the bit, sums
        as far as float32 adds: far below the rounding of one weight."""
        file = self.of_file(self.images[7])
        steps = dict(self.fake._steps)
        kinds: set[str] = set()
        with torch.no_grad():
            tensors = {name: torch.from_numpy(value.copy()) for name, value in file.items()}
            for node in self.model.graph.node:
                (name,) = node.output
                if node.op_type == "DequantizeLinear":
                    continue
                own, expected = steps[name](tensors).numpy(), file[name]
                kinds.add(node.op_type)
                if node.op_type == "QuantizeLinear":
                    np.testing.assert_array_equal(own, expected, err_msg=name)
                    continue
                size = np.abs(expected).max() + 1e-30
                np.testing.assert_allclose(own / size, expected / size, atol=5e-6, err_msg=name)
                if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
                    nothing = {node.input[0]: torch.zeros_like(tensors[node.input[0]])}
                    bias = steps[name](nothing).numpy()
                    stored = file[node.input[2]].reshape(1, -1, *[1] * (bias.ndim - 2))
                    np.testing.assert_array_equal(
                        bias, np.broadcast_to(stored, bias.shape), err_msg=name
                    )
        assert kinds >= {"QuantizeLinear", "Conv"}

    def logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the file and of the fake one, (8, classes), in steps."""
        low, high = self.ranges["output"]
        step = (max(high, 0) - min(low, 0)) / 255
        of_file = np.concatenate([self.of_file(i)[self.output] for i in self.images]) / step
        with torch.no_grad():
            own = self.fake(torch.from_numpy(np.concatenate(self.images))).numpy() / step
        return of_file, own


@pytest.mark.parametrize(
    ("network", "most", "mean"),
    [
        (SQUEEZE, 2.5, 0.3),
        pytest.param("mobilenet-v3-small", 1.5, 0.1, marks=pytest.mark.slow),
        pytest.param("graph shufflenet-v2-x0.5", 1.5, 0.1, marks=pytest.mark.slow),
        pytest.param("graph resnet-18", 7, 1.3, marks=pytest.mark.slow),
        pytest.param("graph bn-inception", 6, 1.2, marks=pytest.mark.slow),
        pytest.param("graph squeezenet-1.1", 2.5, 0.3, marks=pytest.mark.slow),
    ],
)
def test_the_network_computes_what_its_file_computes(
    network: str, most: float, mean: float
) -> None:
    """Sums of float32 round otherwise in torch, so that a value on a border falls to either side:
    then logits differ by some steps, of the 255 that they span. Node by node nothing differs."""
    kind, _, name = network.partition(" ")
    if kind == "graph":
        one: Any = zoo.graph(name, resolution=64).with_classes(10)
    elif "_" in network:
        one = zoo.parse(network)
    else:
        one = zoo.network(network, resolution=32).with_classes(10)
    weights = statistics(one)
    both = BesideItsFile(one, weights)
    both.compare_nodes()
    of_file, own = both.logits()
    assert np.ptp(of_file) > 100
    apart = np.abs(own - of_file)
    assert apart.max() <= most and apart.mean() <= mean
    # The state is that of the network, so that files, averages and processes take it.
    fake = both.fake
    assert {k: v.shape for k, v in state_arrays(fake).items()} == {
        k: v.shape for k, v in weights.items()
    }
    fake.train()
    fake(torch.randn(2, 3, one.resolution_px, one.resolution_px)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fake.parameters())
    for name, value in state_arrays(fake).items():  # BatchNorm's statistics stay
        np.testing.assert_array_equal(value, weights[name])


def test_a_channel_of_weights_near_0_has_the_scale_of_the_file() -> None:
    """Its bias does not fit into 32 bits with the scale of such weights: ONNX Runtime raises it."""
    weights = statistics(zoo.parse(SQUEEZE))
    weights["0.conv_bn.weight"][0], weights["0.conv_bn.bias"][0] = 1e-7, 1.5
    both = BesideItsFile(zoo.parse(SQUEEZE), weights)
    both.compare_nodes()
    (stem,) = (n for n in both.model.graph.node if n.name == "0.conv")
    steps, px = dict(both.fake._steps), both.images[0].shape[-1]
    y = steps[stem.output[0]]({stem.input[0]: torch.zeros(1, 3, px, px)})
    assert y[0, 0, 0, 0].item() == pytest.approx(1.5, abs=1e-3)
    y[0, 0, 0, 0].backward()
    grad = both.fake.get_parameter("0.conv_bn.bias").grad
    assert grad is not None and grad[0] == 1 and not grad[1:].any()
    # The scale of each channel, to the bit.
    weight, bias = both.fake.folded("0.conv")
    of_weight, of_input = (
        both.constants[next(n.input[1] for n in both.model.graph.node if n.output[0] == i)]
        for i in (stem.input[1], stem.input[0])
    )
    scales = weight_scales(weight, True, bias, torch.from_numpy(of_input.copy()))
    np.testing.assert_array_equal(scales.flatten().numpy(), of_weight)
    assert (weight_scales(weight, True).flatten().numpy() < of_weight).tolist()[:2] == [True, False]
    # One scale for all channels: the largest bias is to fit.
    biases = torch.tensor([2.0, -4.0])
    one = weight_scales(torch.tensor([[127e-10], [0.0]]), False, biases, torch.tensor(1.0))
    assert one.item() == pytest.approx(1.0001 * 4 / (2**31 - 1), rel=1e-6)


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    dense = zoo.graph("densenet-121", resolution=32)
    with pytest.raises(InvalidArgument, match="densenet-121 has a BatchNorm that is part of no"):
        refuse_untunable(dense)
    refuse_untunable(zoo.parse(SQUEEZE))
    model = to_onnx(zoo.parse(SQUEEZE), precision="int8")
    for node in model.graph.node:
        node.op_type = "Softplus" if node.op_type == "Sigmoid" else node.op_type
    with pytest.raises(InvalidArgument, match="1.se_expand_sigmoid, a Softplus, has no fine-tun"):
        FakeQuantised(to_torch(zoo.parse(SQUEEZE), seed=0), model)
    with pytest.raises(InvalidArgument, match="fine-tuning is for int8, not for float16"):
        Quantisation(IMAGES, "float16", finetune=FineTuning(HELD, 1))


@pytest.mark.parametrize(
    ("when", "epochs", "precision", "message"),
    [
        ("sometimes", None, "int8", "--finetune is one of auto, always, never"),
        (None, -1, "int8", "--finetune-epochs: from 0 to 10,000, got -1"),
        ("auto", 0, "int8", "--finetune auto needs one or more --finetune-epochs, got 0"),
        ("never", 2, "int8", "--finetune never does no epochs"),
        ("never", None, None, "fine-tuning is for int8 files: give --quantise int8, too"),
        (None, 0, None, "fine-tuning is for int8 files: give --quantise int8, too"),
        ("never", None, "float16", "fine-tuning is for int8, and float16 was asked for"),
        ("always", None, None, "fine-tuning is for int8 files: give --quantise int8, too"),
        (None, 3, "int8-dynamic", "fine-tuning is for int8, and int8-dynamic was asked for"),
    ],
)
def test_what_is_asked_amiss_is_told(
    when: str | None, epochs: int | None, precision: str | None, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        checked_request(when, epochs, precision)


def test_when_a_fine_tuning_is_asked_for() -> None:
    asked = {(None, 2): True, ("auto", None): True, ("always", 3): True}
    asked |= {(None, None): False, (None, 0): False, ("never", None): False, ("never", 0): False}
    assert {how: checked_request(*how, "int8") for how in asked} == asked
    assert not checked_request(None, None, None)
    rest, how = fine_tuning(None, 2, IMAGES, HOW, 0)
    assert (len(rest), len(how.held), how.epochs, how.when) == (58, 6, 2, "auto")
    assert fine_tuning("always", None, IMAGES, PAPER, 0)[1].epochs == 35
    assert fine_tuning("always", None, IMAGES, HOW, 0)[1].epochs == 1
    with pytest.raises(InvalidArgument, match="has no image to compare int8 files on"):
        FineTuning(HELD.subset(np.array([], np.int64)), 1)
    how_long = tuned_by(PAPER, 35)
    assert (how_long.epochs, how_long.learning_rate, how_long.schedule) == (35, 0.00016, "cosine")
    assert (how_long.dropout, how_long.average, how_long.warmup_epochs) == (0, 0, 0)
    assert how_long.precision == "float32" and how_long.weight_decay == PAPER.weight_decay


@pytest.fixture(scope="module")
def trained() -> Trained:
    return run_job(zoo.parse(SQUEEZE), JOB, resources=CPU)


def named_right(share: float) -> np.ndarray:
    """Of 10,000 images."""
    return np.arange(10_000) < round(share * 10_000)


def test_what_was_found_is_read(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And calibrated and evaluated again only with other settings, or where it is damaged."""
    values: list[float] = []
    monkeypatch.setattr(finetune, "_right", lambda *args: named_right(values.pop(0)))

    def done(share: float | None, **more: Any) -> Any:
        values[:] = [] if share is None else [0.7, share, 0.65]
        how = quantised(when="auto", **more)
        return fine_tuned(trained, JOB, how, into=tmp_path, resources=CPU).tuned

    first = done(0.695)
    assert done(None) == first and (first.found.epochs, first.calibrated_on) == (0, 16)
    other = done(0.6, epochs=2)
    again = done(None, epochs=2)
    assert again.found == other.found and other.found.after_top1 == 0.65
    # 0.6 ± 0.1 of 10,000 images, and one more: sqrt((0.1 · 0.9 + 0.0001) / 10000).
    assert other.found.before_error == pytest.approx(0.00300167, rel=1e-4)
    for name, value in other.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    (tmp_path / "finetuned/result.json").unlink()
    assert done(0.6, epochs=2).found == other.found  # of what is gone nothing is believed
    path = tmp_path / "finetuned.json"
    path.write_text(path.read_text().replace('"calibrated_on": 16', '"calibrated_on": 17'))
    with pytest.raises(UnsupportedFormat, match="finetuned.json is damaged.*Remove it"):
        done(None, epochs=2)


def quantised(**more: Any) -> Quantisation:
    how = {"held": HELD, "epochs": 1, "when": "always", **more}
    return Quantisation(IMAGES, most_images=16, finetune=FineTuning(**how))


def test_by_the_held_out_images_it_is_decided(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a float32 file, of int8 after training, of the fine-tuned one: what each names right."""
    asked: list[tuple[bool, ImageSet]] = []

    def answers(*values: float) -> Callable[..., Any]:
        left = list(values)

        def right(network: Any, weights: Any, ranges: Any, images: ImageSet, threads: int) -> Any:
            asked.append((ranges is not None, images))
            return named_right(left.pop(0))

        return right

    monkeypatch.setattr(finetune, "_right", answers(0.70, 0.69))
    found = fine_tuned(trained, JOB, quantised(when="auto"), resources=CPU).tuned
    assert found is not None and (found.found.epochs, found.found.kept) == (0, False)
    assert not found.weights and str(found.found) == (
        "not fine-tuned: on 40 held-out images, by which this was decided, int8 after training "
        "changes top-1 by -1.00% ±0.10%, a loss of no more than 1%"
    )
    for before, after, kept in ((0.6875, 0.6876, True), (0.60, 0.60, False), (0.6, 0.5, False)):
        monkeypatch.setattr(finetune, "_right", answers(0.70, before, after))
        found = fine_tuned(trained, JOB, quantised(when="auto"), resources=CPU).tuned
        assert found is not None
        assert (found.found.epochs, found.found.kept, found.found.after_top1) == (1, kept, after)
    monkeypatch.setattr(finetune, "_right", answers(0.70, 0.72, 0.74))
    found = fine_tuned(trained, JOB, quantised(), resources=CPU).tuned
    assert found is not None and found.found.kept and len(found.found.digest) == 16
    assert {small for small, _ in asked} == {True, False}
    assert all(images is HELD for _, images in asked)
    assert any((found.weights[k] != trained.weights[k]).any() for k in trained.weights)
    moving = [k for k in trained.weights if k.endswith(("running_mean", "running_var"))]
    assert moving and all((found.weights[k] == trained.weights[k]).all() for k in moving)


def test_it_is_not_decided_by_images_of_the_training_or_the_test(trained: Trained) -> None:
    for held in (IMAGES, TEST):
        with pytest.raises(InvalidArgument, match="not compared on the images that the network"):
            fine_tuned(trained, JOB, quantised(held=held), resources=CPU)
    lost = replace(trained, diverged="the loss was not a number")
    assert fine_tuned(lost, JOB, quantised(), resources=CPU) is lost
    assert fine_tuned(trained, JOB, Quantisation(IMAGES), resources=CPU) is trained


@pytest.mark.slow
def test_what_int8_loses_comes_back() -> None:
    """Of a feature map with one scale for all channels, one of which is 1,024 times as large as
    before, and is read with weights as much smaller: in float32 the same network."""
    images, held = coloured(480, 0), coloured(200, 1)
    job = TrainingJob(images, None, recipe("small", epochs=6, batch=16))
    network = zoo.parse(
        "stemstride1 r1_k3_s22_e3_i8_o16 r2_k3_s22_e3_i16_o24 head32 classes4 res16"
    )
    trained = run_job(network, job, resources=CPU)
    weights = {name: value.copy() for name, value in trained.weights.items()}
    for place in (1, 2, 3):
        for name in ("weight", "bias"):
            weights[f"{place}.depthwise_bn.{name}"][0] *= 1024
        weights[f"{place}.project.weight"][:, 0] /= 1024
    how = Quantisation(images, most_images=64, finetune=FineTuning(held, 3, "auto"))
    tuned = fine_tuned(replace(trained, weights=weights), job, how, resources=CPU).tuned
    assert tuned is not None and tuned.found.after_top1 is not None
    found = tuned.found
    assert found.float_top1 > 0.6 and found.before_top1 < found.float_top1 - 0.3
    assert found.kept and found.after_top1 > found.before_top1 + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("better", [True, False])
def test_the_files_are_of_the_weights_that_are_kept(
    better: bool, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [0.7, 0.6, 0.65 if better else 0.55]
    monkeypatch.setattr(finetune, "_right", lambda *args: named_right(answers.pop(0)))
    how = quantised()
    tuned = fine_tuned(trained, JOB, how, into=tmp_path, resources=CPU)
    done = export(tuned, tmp_path, TEST, settings=ExportSettings(("onnx",), how))
    (q,), found = done.quantised, done.finetuned
    assert found is not None and found.kept == better and tuned.tuned is not None
    (other,) = found.not_kept
    path = tmp_path / "network_int8.onnx"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == q.sha256 != other.sha256
    told = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert told.get("fine_tuning") == (found.digest if better else None)
    # From outside: the file of those weights and ranges, whatever else it says of itself.
    weights = tuned.tuned.weights if better else trained.weights
    made = to_onnx(trained.network, weights=weights, precision="int8", ranges=tuned.tuned.ranges)
    assert onnx.load(path).graph == made.graph
    assert done.files.get("weights int8") == (
        tmp_path / "weights_int8.safetensors" if better else None
    )
    if better:
        content = (tmp_path / "weights_int8.safetensors").read_bytes()
        assert told["weights_sha256"] == hashlib.sha256(content).hexdigest()
        network, kept = load_weights(tmp_path / "weights_int8.safetensors")
        assert network == trained.network
        np.testing.assert_array_equal(kept["0.conv.weight"], weights["0.conv.weight"])
    card = json.loads((tmp_path / "network.json").read_text())
    assert card["finetuned"]["digest"] == found.digest
    assert card["finetuned"]["not_kept"][0]["sha256"] == other.sha256
    first, last = found.lines(done.quantised)
    assert "by which this was decided, int8 after training changes top-1 by -10.00% ±0.30%" in first
    assert f"int8 after training {(other if better else q).top1:.2%} ±" in last
    assert f"fine-tuned {(q if better else other).top1:.2%} ±" in last
    # An export without it leaves nothing of it behind.
    export(trained, tmp_path, TEST, settings=ExportSettings(("onnx",)))
    assert not list(tmp_path.glob("*int8*"))


@pytest.mark.slow
def test_a_fine_tuning_that_was_stopped_goes_on(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends with the same weights; a finished one is read; with other settings it is refused."""
    job, how = replace(JOB, checkpoint_s=0.0), quantised(epochs=3)
    whole = fine_tuned(trained, job, how, into=tmp_path / "whole", resources=CPU).tuned

    def stop(event: Any) -> None:
        if isinstance(event, Epoch) and event.epoch == 2:
            raise KeyboardInterrupt

    # A checkpoint after each step, however short that is.
    from phonenas.search.training.folder import TrainingFolder

    monkeypatch.setattr(TrainingFolder, "due", lambda self, *, epoch_over=False: True)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(trained, job, how, into=tmp_path / "cut", resources=CPU, on_event=stop)
    assert (tmp_path / "cut/finetuned/checkpoint.safetensors").exists()
    resumed: list[Any] = []
    again = fine_tuned(
        trained, job, how, into=tmp_path / "cut", resources=CPU, on_event=resumed.append
    ).tuned
    assert whole is not None and again is not None and resumed[0].resumed_from > 0
    assert again.found == whole.found
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    silent: list[Any] = []
    read = fine_tuned(
        trained, job, how, into=tmp_path / "cut", resources=CPU, on_event=silent.append
    ).tuned
    assert not silent and read is not None and read.found == whole.found
    with pytest.raises(SettingsChanged, match="epochs was 3 and is now 2.*remove .*finetuned to"):
        fine_tuned(trained, job, quantised(epochs=2), into=tmp_path / "cut", resources=CPU)
    other = replace(trained, weights={k: v + np.float32(1e-3) for k, v in trained.weights.items()})
    with pytest.raises(SettingsChanged, match="from weights was"):
        fine_tuned(other, job, how, into=tmp_path / "cut", resources=CPU)


def test_what_is_held_out_is_of_no_other_part() -> None:
    rest, how = fine_tuning("always", 1, IMAGES, HOW, 5)
    expected = held_out(IMAGES, 0.1, 5)
    assert (rest.digest, how.held.digest) == (expected[0].digest, expected[1].digest)
    assert len(rest) + len(how.held) == len(IMAGES)
