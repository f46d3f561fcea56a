"""Distillation: what a teacher gives, what is learned from it, and what cannot teach."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from phonenas.data.images import ImageSet
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnsupportedFormat

pytest.importorskip("torch", reason="torch is an optional extra: phonenas[torch]")

import torch

from phonenas.search.training.evaluation import evaluate
from phonenas.search.training.job import TrainingJob
from phonenas.search.training.recipe import recipe
from phonenas.search.training.resources import Resources
from phonenas.search.training.teacher import Teacher, TeacherModel
from phonenas.search.training.trainer import run_job
from phonenas.space.lowering.write import write_network

NETWORK = Architecture.parse("r1_k3_s11_e1_i16_o8 r1_k3_s22_e3_i8_o16 classes4 res32")
CPU = Resources("cpu", threads=1)
MODULE = '''
import torch


class Always(torch.nn.Module):
    """Says class 2 of any image, by its logits 0, 0, 6, 0."""

    def forward(self, x):
        return torch.tensor([[0.0, 0.0, 6.0, 0.0]]).repeat(len(x), 1)


class Five(torch.nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 5)


def broken():
    raise RuntimeError("no weights here")
'''


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with teachers."""
    (tmp_path / "my_teachers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_teachers", raising=False)
    return "my_teachers"


def images(n: int = 16) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    return ImageSet.of(pixels, np.arange(n) % 4, list("abcd"))


def job(teacher: Teacher | None, epochs: int = 1) -> TrainingJob:
    how = recipe("small", epochs=epochs, batch=8)
    return TrainingJob(images(), images(8), how, teacher=teacher)


def test_the_loss_is_the_divergence_of_both_outputs(modules: str) -> None:
    """At T = 2 the teacher's shares are those of the logits 0, 0, 3, 0."""
    model = TeacherModel(Teacher(f"{modules}:Always"), 4, torch.device("cpu"))
    loss = model.loss(torch.zeros(3, 3, 32, 32), torch.zeros(3, 4))
    share = np.exp([0, 0, 3, 0]) / np.exp([0, 0, 3, 0]).sum()
    assert float(loss) == pytest.approx(4 * float((share * np.log(share * 4)).sum()), rel=1e-5)
    same = torch.tensor([[0.0, 0.0, 6.0, 0.0]])
    assert float(model.loss(torch.zeros(1, 3, 32, 32), same)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("px", [32, 48])
def test_a_file_gives_its_logits_for_images_of_any_side(px: int, tmp_path: Path) -> None:
    path = write_network(NETWORK, "onnx", tmp_path / "t.onnx", seed=3)
    model = TeacherModel(Teacher(str(path)), 4, torch.device("cpu"))
    x = torch.randn(5, 3, px, px, generator=torch.Generator().manual_seed(0))
    found = model(x)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    if px != 32:
        x = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
    own = [session.run(None, {name: image[None].numpy()})[0][0] for image in x]
    assert found.shape == (5, 4) and np.allclose(found.numpy(), np.stack(own), atol=1e-5)


@pytest.mark.slow
def test_what_was_taught_is_learned(modules: str) -> None:
    """A teacher that counts alone and always says class 2: so says the network in the end."""
    alone = Teacher(f"{modules}:Always", weight=1.0)
    done = run_job(NETWORK, job(alone, epochs=30), resources=CPU)
    labels = ImageSet.of(
        np.stack([images(8).image(i) for i in range(8)]), np.full(8, 2), list("abcd")
    )
    assert evaluate(NETWORK, done.weights, labels, resources=CPU).top1 == 1.0


def test_a_training_goes_on_with_the_same_teacher_alone(modules: str, tmp_path: Path) -> None:
    run_job(NETWORK, job(Teacher(f"{modules}:Always")), into=tmp_path / "t", resources=CPU)
    with pytest.raises(SettingsChanged, match="teacher"):
        run_job(NETWORK, job(None), into=tmp_path / "t", resources=CPU)
    assert "teacher" not in job(None).settings(NETWORK)  # as before there were teachers


def test_what_cannot_teach(modules: str, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    for source, words in (
        ("gone.onnx", "the teacher gone.onnx is no file"),
        ("resnet-50", "an .onnx file or module:Name of a torch module, got 'resnet-50'"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            Teacher(source)
    for wrong in ({"weight": 0.0}, {"weight": 1.5}, {"temperature": 0.0}):
        with pytest.raises(InvalidArgument, match=r"weight lies in \(0, 1\]"):
            Teacher(f"{modules}:Always", **wrong)
    with pytest.raises(InvalidArgument, match="gives 1×5 for one image, and the network.*4 class"):
        TeacherModel(Teacher(f"{modules}:Five"), 4, cpu)
    with pytest.raises(InvalidArgument, match="no weights here"):
        TeacherModel(Teacher(f"{modules}:broken"), 4, cpu)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UnsupportedFormat, match=r"bad.onnx cannot be loaded"):
        TeacherModel(Teacher(str(tmp_path / "bad.onnx")), 4, cpu)
