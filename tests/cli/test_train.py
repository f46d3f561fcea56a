"""`phonenas train`: what it reads, prints and keeps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from phonenas import devices
from phonenas.cli.progress import Bars
from phonenas.cli.train import train
from phonenas.data import MeasurementStore
from phonenas.search.training import trainer
from phonenas.search.training.result import Began, Epoch, Stepped
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    SettingsChanged,
    StoreError,
    TaskFailed,
    UnknownName,
    UnstableDevice,
)
from phonenas.testing import FakeDevice

pytest.importorskip("torch")
pytest.importorskip("safetensors")

NETWORK = "stemstride1 r1_k3_s22_e1_i8_o8 r1_k3_s22_e2_i8_o16 head32"
app = typer.Typer()
app.command()(train)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz of 16 px with 40 and 10 images of two classes: dark and bright."""
    rng = np.random.default_rng(0)
    y = np.arange(50) % 2
    x = (rng.integers(0, 100, (50, 16, 16, 3)) + 120 * y[:, None, None, None]).astype(np.uint8)
    path = tmp_path_factory.mktemp("images") / "set.npz"
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return path


def run(*words: str) -> str:
    done = CliRunner().invoke(app, [NETWORK, "--resolution", "16", "--device", "cpu", *words])
    if isinstance(done.exception, PhonenasError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_a_trained_network_is_quantised(images: Path, tmp_path: Path) -> None:
    words = ["--data", str(images), "--recipe", "small", "--epochs", "1", "--batch", "10"]
    words += ["--threads", "1", "--out", str(tmp_path / "t"), "--export", "onnx"]
    words += ["--quantise", "int8", "--calibrate", str(images)]
    (made,) = json.loads(run(*words, "--json"))["quantised"]
    assert made["path"] == str(tmp_path / "t" / "network_int8.onnx")
    assert (made["precision"], made["images"], made["calibrated_on"]) == ("int8", 10, 40)
    assert Path(made["path"]).stat().st_size == made["size"]
    assert "onnx in int8: top-1" in run(*words)  # nothing is trained again


@pytest.mark.slow
def test_a_trained_network_is_fine_tuned_for_int8(images: Path, tmp_path: Path) -> None:
    """A tenth of the training images is held out: none of these is trained on."""
    words = ["--data", str(images), "--recipe", "small", "--epochs", "2", "--batch", "9"]
    words += ["--threads", "1", "--out", str(tmp_path / "t"), "--export", "onnx"]
    words += ["--quantise", "int8", "--finetune", "always", "--finetune-epochs", "2"]
    first = json.loads(run(*words, "--json"))
    assert first["images"] == 36 and first["images_held"] == 10
    found, (kept,), (other,) = (
        first["finetuned"],
        first["quantised"],
        first["finetuned"]["not_kept"],
    )
    assert (found["epochs"], found["images"], found["failed"]) == (2, 4, "")
    assert found["kept"] == (found["after_top1"] > found["before_top1"])
    assert kept["images"] == other["images"] == 10 and kept["sha256"] != other["sha256"]
    digest = hashlib.sha256(Path(kept["path"]).read_bytes()).hexdigest()
    assert digest == kept["sha256"] and ("weights int8" in first["files"]) == found["kept"]
    own = json.loads((tmp_path / "t/finetuned/result.json").read_text())
    assert (own["result"]["images"], own["result"]["images_held"]) == (36, 4)
    assert own["result"]["recipe"]["learning_rate"] == pytest.approx(0.001)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "t/finetuned").iterdir()}
    again = json.loads(run(*words, "--json"))  # nothing is trained again
    assert again["finetuned"] == found and again["quantised"] == first["quantised"]
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "t/finetuned").iterdir()}
    text = run(*words)
    assert "fine-tuned for 2 epochs: on 4 held-out images, by which this was decided, int8" in text
    assert "onnx on 10 images: float32 " in text and ", int8 after training " in text
    with pytest.raises(SettingsChanged, match="epochs was 2 and is now 3.*to fine-tune again"):
        run(*words[:-1], "3")
    with pytest.raises(SettingsChanged, match="images was.*for --finetune, which holds a tenth"):
        run(*words[:-4])
    words[words.index(str(tmp_path / "t"))] = str(tmp_path / "all")
    run(*words[:-4])
    with pytest.raises(SettingsChanged, match="images was.*had all training images, of which --fi"):
        run(*words)
    with pytest.raises(SettingsChanged, match=r"batch was .*Give the same settings [^.]*\.$"):
        run(*words[:-4], "--batch", "8")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--quantise float32 --out {u}", "--quantise float32 is not possible here; it is float16"),
        ("--quantise float16 --calibrate {u} --out {u}", "--calibrate is of int8, and float16"),
        ("--calibrate {u} --out {u}", "--calibrate is of --quantise: give that, too"),
        ("--quantise int8 --calibrate {u}/no --out {u}", "no"),
        ("--quantise int8", "--quantise writes files: give --out, and an --export"),
        ("--quantise int8 --out {u} --export none", "--quantise writes files: give --out"),
        ("--finetune auto --out {u}", "fine-tuning is for int8 files: give --quantise int8, too"),
        ("--finetune never --out {u}", "fine-tuning is for int8 files: give --quantise int8, too"),
        ("--quantise float16 --finetune-epochs 2 --out {u}", "int8, and float16 was asked for"),
        ("--quantise int8 --finetune-epochs -1 --out {u}", "--finetune-epochs: from 0 to 10,000"),
        ("--quantise int8 --finetune on --out {u}", "--finetune is one of auto, always, never"),
        ("--quantise int8 --finetune auto --finetune-epochs 0 --out {u}", "one or more --finetune"),
        ("--quantise int8 --finetune auto --ray auto --out {u}", "leave torchrun and --ray out"),
        ("--quantise int8 --finetune auto", "--quantise writes files: give --out, and an --export"),
    ],
)
def test_a_quantisation_that_cannot_be(
    more: str, message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        run("--data", str(images), "--recipe", "small", *more.format(u=tmp_path / "u").split())


def test_train_prints_one_document_and_keeps_files(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "t"
    words = [
        "--data",
        str(images),
        "--recipe",
        "small",
        "--epochs",
        "4",
        "--batch",
        "10",
        "--threads",
        "1",
        "--out",
        str(out),
        "--json",
        "--export",
        "onnx",
    ]
    trained: dict[str, Any] = json.loads(run(*words))
    assert (trained["images"], trained["images_held"], trained["part"]) == (40, 10, "test")
    assert (trained["epochs"], trained["steps"], trained["diverged"]) == (4, 16, "")
    assert {"classes2", "res16"} <= set(trained["network"].split())
    assert 0 <= trained["top1"] <= 1 and trained["top5"] == 1
    assert trained["recipe"]["batch"] == 10 and trained["recipe"]["warmup_epochs"] < 1
    assert set(trained["files"]) == {"result", "curve", "weights", "card", "onnx"}
    assert all(Path(p).is_file() for p in trained["files"].values())
    assert trained["export"][0]["difference"] <= 1e-4 and trained["export"][0]["differing"] == 0
    again = json.loads(run(*words))
    assert again["top1"] == trained["top1"] and again["seconds"] == trained["seconds"]
    with pytest.raises(SettingsChanged, match="epochs was 4 and is now 5"):
        run(*words, "--epochs", "5")


class Even(FakeDevice):
    """Takes one time for all files."""

    @staticmethod
    def true_ms(model: Path) -> float:
        return 1.0


@pytest.mark.usefixtures("fast")
def test_the_exported_file_is_measured(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones: list[FakeDevice] = []

    def connect(name: str) -> FakeDevice:
        assert name == "fake"
        phones.append(Even())
        return phones[-1]

    monkeypatch.setattr(devices, "connect", connect)
    out, db = tmp_path / "t", str(tmp_path / "s.db")
    words = ["--data", str(images), "--recipe", "small", "--epochs", "1", "--batch", "10"]
    words += ["--out", str(out), "--export", "onnx", "--measure-on", "fake", "--db", db]
    found = json.loads(run(*words, "--json"))
    digest = hashlib.sha256((out / "network.onnx").read_bytes()).hexdigest()
    assert found["file"]["sha256"] == found["export"][0]["sha256"] == digest
    card = json.loads((out / "network.json").read_text())
    assert card["check"]["forms"][0]["sha256"] == digest
    with MeasurementStore(db) as store, FakeDevice() as phone:
        stored = {m.subject: m.latency_ms for m in store.measurements(phone.conditions)}
    name = f"network.onnx#{digest[:12]}"
    assert stored == {
        name: found["file"]["measured_ms"],
        found["network"]: found["file"]["random_ms"],
    }
    text = run(*words)
    assert digest[:12] in text and "agree" in text and "random weights" in text
    assert [p.readings for p in phones][1] == 12  # the second time the sentinel alone

    class Refusing(Even):
        @staticmethod
        def _is_no_model(path: Path) -> bool:
            return path.resolve().name == "network.onnx"

    monkeypatch.setattr(devices, "connect", lambda name: Refusing())
    text = run(*words[:-1], str(tmp_path / "other.db"))
    assert "the exported file is not measured: 3 times: no model" in text

    class Unsteady(Even):
        @staticmethod
        def true_ms(model: Path) -> float:
            if model.resolve().name != "network.onnx":
                return 1.0
            Unsteady.count += 1
            return float(np.random.default_rng(Unsteady.count).uniform(1, 80))

        count = 0

    monkeypatch.setattr(devices, "connect", lambda name: Unsteady())
    with pytest.raises(UnstableDevice, match="1 of 1 exported files gave no stable .*the limit is"):
        run(*words[:-1], str(tmp_path / "third.db"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--db", "s.db"], "--db is where measurements go: give --measure-on"),
        (["--measure-on", "fake"], "--measure-on measures the exported file: give --out"),
        (["--measure-on", "a/b/c/d", "--out", "o"], "a/b/c/d"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_training(
    words: list[str], said: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PhonenasError, match=said):
        run("--data", str(images), *words)
    assert not list(tmp_path.iterdir())


def test_train_prints_a_table(images: Path) -> None:
    words = ["--data", str(images), "--recipe", "proxy", "--epochs", "1", "--held-out", "0.25"]
    text = run(*words)
    assert "10 held-out images" in text and "30 images" in text and "top-5" in text
    assert "nothing was kept" in text


def test_a_training_that_fails_leaves_with_code_1(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        NETWORK,
        "--resolution",
        "16",
        "--device",
        "cpu",
        "--data",
        str(images),
        "--recipe",
        "small",
        "--epochs",
        "16",
        "--learning-rate",
        "100",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "Its top-1 is not an accuracy" in done.stdout

    def full(*args: Any, **more: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trainer, "run_job", full)
    with pytest.raises(TaskFailed, match=r"can't allocate memory.*a smaller --batch"):
        run(*words[3:])


def test_what_is_asked_amiss_is_refused_before_images_are_read(images: Path) -> None:
    at = ["--data", str(images)]
    with pytest.raises(UnknownName, match="no recipe is called 'papr'"):
        run(*at, "--recipe", "papr")
    with pytest.raises(UnknownName, match="no format is called 'pb'"):
        run("--data", "nowhere", "--export", "pb", "--out", "x")
    with pytest.raises(InvalidArgument, match="--export writes into the folder of --out"):
        run(*at, "--export", "onnx")
    with pytest.raises(InvalidArgument, match="give --ray, too"):
        run(*at, "--gpus", "1")
    with pytest.raises(InvalidArgument, match="--broken: stop or skip, got 'mend'"):
        run(*at, "--broken", "mend")
    with pytest.raises(InvalidArgument, match="precision is one of"):
        run(*at, "--precision", "int8")


def test_files_for_a_phone_come_out_unless_they_are_not_wanted(
    images: Path, tmp_path: Path
) -> None:
    words = [
        "--data",
        str(images),
        "--recipe",
        "proxy",
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "t"),
    ]
    text = run(*words, "--export", "none")
    assert "±" in text and not (tmp_path / "t" / "network.onnx").exists()
    text = run(*words)
    assert "it was trained already" in text and (tmp_path / "t" / "network.onnx").exists()
    assert "onnx beside torch: logits differ by" in text and "(allowed: " in text
    with pytest.raises(StoreError, match="holds a search"):
        (tmp_path / "run.json").touch()
        run(*words[:-1], str(tmp_path))


def test_a_set_without_test_images_is_told_of_holding_out(images: Path, tmp_path: Path) -> None:
    with np.load(images) as whole:
        np.savez(tmp_path / "half.npz", x_train=whole["x_train"], y_train=whole["y_train"])
    with pytest.raises(InvalidArgument, match="--held-out 0.1"):
        run("--data", str(tmp_path / "half.npz"))


def test_the_bar_tells_in_lines_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bar:
        bar.training(Began(1000, 100, 40, 4, 100, 10, "cpu", "float32"))
        bar._began_s -= 5
        bar.training(Stepped(15, 40, 2, 200.0, 125.0))
        bar.training(Stepped(16, 40, 2, 200.0, 120.0))
        bar.training(Epoch(4, 40, 0.1, 0.5, 0.75, 1.0, 9.0))
        bar.training(Began(900, 100, 9, 1, 100, 0, "cpu", "float32", fine_tuning=True))
    with Bars(quiet=True) as bar:
        bar.training(Began(1000, 100, 40, 4, 100, 0, "cpu", "float32"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "1,000 images in batches of 100, 4 epochs, 40 steps on cpu in float32, going on from "
        "step 10",
        "about 2 min 5 s to go at 200 images/s",
        "epoch 4: loss 0.5000, top-1 ● 75.00%",
        "fine-tuning for int8: 900 images in batches of 100, 1 epoch, 9 steps on cpu in float32",
    ]
