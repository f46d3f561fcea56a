"""train() and evaluate(): exact resumption, what goes wrong, and how it is told."""

from __future__ import annotations

import errno
import json
import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import undigested
from patience import PATIENCE_S, wait_for

from phonenas.data import documents, files
from phonenas.data.images.image_set import ImageSet
from phonenas.search.cluster.workers import Needs
from phonenas.search.training.recipe import Recipe, recipe
from phonenas.search.training.result import Began, Epoch, Trained
from phonenas.space import Architecture
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    SettingsChanged,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from phonenas.search.training import folder, weights  # noqa: E402
from phonenas.search.training.evaluation import evaluate, set_weights  # noqa: E402
from phonenas.search.training.job import TrainingJob  # noqa: E402
from phonenas.search.training.resources import Resources, pick_device  # noqa: E402
from phonenas.search.training.step import TrainingStep  # noqa: E402
from phonenas.search.training.trainer import run_job, train  # noqa: E402
from phonenas.space.lowering.torch import state_arrays, to_torch  # noqa: E402

TINY = Architecture.parse("stemstride1 r1_k3_s22_e2_i8_o8_se0.25 r1_k3_s22_e2_i8_o16 head32 res16")


CPU = Resources("cpu", threads=1)


def pictures(n: int, seed: int = 0, classes: int = 3) -> ImageSet:
    """Images whose class is the place of a bright square, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    pixels = rng.integers(0, 90, (n, 16, 16, 3)).astype(np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 1:7, 5 * label : 5 * label + 5] += 150
    return ImageSet.of(pixels, labels, [f"c{i}" for i in range(classes)])


IMAGES, HELD = pictures(48), pictures(12, seed=1)
QUICK = recipe("small", epochs=3, batch=12, augment="none", learning_rate=0.5, dropout=0.2)


def equal(a: Trained, b: Trained) -> bool:
    return list(a.weights) == list(b.weights) and all(
        np.array_equal(a.weights[k], b.weights[k]) for k in a.weights
    )


_OF_JOB = ("seed", "evaluate_each", "checkpoint_s", "pause_after")


def fit(**more: Any) -> Trained:
    how = {k: more.pop(k) for k in _OF_JOB if k in more}
    job = TrainingJob(IMAGES, HELD, more.pop("recipe", QUICK), **how)
    return run_job(TINY, job, **{"resources": CPU, **more})


# -- what it gives --------------------------------------------------------------------------------


def test_a_training_learns_and_tells_its_curve() -> None:
    events: list[Any] = []
    found = train(
        TINY,
        IMAGES,
        HELD,
        recipe=QUICK.changed(epochs=12, warmup_epochs=1.0),
        resources=CPU,
        on_event=events.append,
    )
    assert found.top1 > 0.8 and found.top5 == 1.0
    assert (found.images, found.images_held, found.steps) == (48, 12, 48)
    assert found.network == replace(TINY, classes=3) and found.classes == ("c0", "c1", "c2")
    assert [e for e in events if isinstance(e, Epoch)] == list(found.curve)
    assert isinstance(events[0], Began) and events[0].steps == 48
    assert [e.epoch for e in found.curve] == list(range(1, 13))
    assert found.curve[-1].loss < 0.9 * found.curve[0].loss
    assert (found.curve[-1].top1, found.diverged) == (found.top1, "")
    again = evaluate(found.network, found.weights, HELD, resources=CPU, logits=True)
    assert (again.top1, again.top5, again.n) == (found.top1, found.top5, 12)
    assert again.logits is not None and again.logits.shape == (12, 3)
    assert float(np.mean(again.logits.argmax(1) == HELD.labels)) == again.top1


@pytest.mark.parametrize("name", ["paper", "proxy", "small"])
def test_each_recipe_equals_itself_and_leaves_chance_and_threads_alone(name: str) -> None:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    short = recipe(name, epochs=2, batch=16, augment="none")
    a = fit(recipe=short)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert equal(a, fit(recipe=short))
    assert not equal(a, fit(recipe=short, seed=1))
    assert torch.get_num_threads() == threads


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    found = fit(recipe=QUICK.changed(batch=4096))
    assert found.steps == 3
    whole = Recipe(**{**QUICK.settings, "batch": 48})
    assert equal(found, fit(recipe=whole))


def test_bfloat16_on_a_cpu_keeps_float32_weights() -> None:
    found = fit(recipe=QUICK.changed(precision="bfloat16"))
    assert found.diverged == "" and {w.dtype for w in found.weights.values()} == {
        np.dtype(np.float32)
    }
    assert not equal(found, fit())
    with pytest.raises(InvalidArgument, match="float16 is for GPUs"):
        fit(recipe=QUICK.changed(precision="float16"))


def test_without_held_out_images_there_is_no_accuracy() -> None:
    found = train(TINY, IMAGES, recipe=QUICK, resources=CPU)
    assert math.isnan(found.top1) and found.images_held == 0 and found.diverged == ""
    assert equal(found, fit())  # judging takes no part in the training
    assert found.to_dict()["top1"] is None
    last = fit(evaluate_each=0)
    assert [math.isnan(e.top1) for e in last.curve] == [True, True, False]


def test_the_average_is_what_is_judged_and_given() -> None:
    averaged, plain = QUICK.changed(average=0.9), QUICK
    a, b = fit(recipe=averaged), fit(recipe=plain)
    assert not equal(a, b)
    assert evaluate(a.network, a.weights, HELD, resources=CPU).top1 == a.top1
    one = next(k for k in a.weights if k.endswith("running_var"))
    assert not np.array_equal(a.weights[one], b.weights[one])


# -- the step against a bare one ------------------------------------------------------------------


def test_a_step_equals_a_bare_one() -> None:
    from phonenas.search.training.distributed import Processes

    small = QUICK.changed(dropout=0.0)
    mine = to_torch(replace(TINY, classes=3), dropout=0.0, seed=0)
    bare = to_torch(replace(TINY, classes=3), dropout=0.0, seed=0)
    for m in bare.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = small.norm_momentum
    ours = TrainingStep(small, mine, Processes(0, 1, torch.device("cpu")))
    normed = [p for n, p in bare.named_parameters() if "_bn." in n]
    rest = [p for n, p in bare.named_parameters() if "_bn." not in n]
    optimizer = torch.optim.SGD(
        [{"params": rest, "weight_decay": 5e-4}, {"params": normed}],
        0.1,
        momentum=0.9,
        nesterov=True,
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.randn(6, 3, 16, 16, generator=generator)
        y = torch.randint(0, 3, (6,), generator=generator)
        loss = ours.step(x, y, 0.1)
        bare.train()
        wanted = torch.nn.functional.cross_entropy(bare(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        wanted.backward()
        optimizer.step()
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for a, b in zip(mine.state_dict().values(), bare.state_dict().values(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6)


# -- stopped and taken up -------------------------------------------------------------------------


class Break(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The training ends with an exception in the middle of a step."""
    real = TrainingStep.backward

    def backward(self: TrainingStep, *args: Any, **more: Any) -> Any:
        found = real(self, *args, **more)
        if self.updates == step:
            raise Break
        return found

    monkeypatch.setattr(TrainingStep, "backward", backward)


@pytest.mark.parametrize("name", ["small", "paper"])
def test_stopped_at_any_step_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(folder, "_SHARE", 0)  # a checkpoint at every step
    short = recipe(name, epochs=3, batch=12, augment="small")
    whole = fit(recipe=short)
    for step in (2, 4, 7):
        with monkeypatch.context() as patch, pytest.raises(Break):
            stop_at(patch, step)
            fit(recipe=short, into=tmp_path / name, checkpoint_s=0)
    found = fit(recipe=short, into=tmp_path / name, checkpoint_s=0)
    assert found.resumed_from == 7
    assert equal(found, whole)
    assert [(e.loss, e.top1) for e in found.curve] == [(e.loss, e.top1) for e in whole.curve]
    files = sorted(p.name for p in (tmp_path / name).iterdir())
    assert files == ["curve.csv", "result.json", "weights.safetensors"]
    rows = (tmp_path / name / "curve.csv").read_text().splitlines()
    assert rows[0] == "epoch,step,learning_rate,loss,top1,top5,seconds" and len(rows) == 4


def test_a_training_that_paused_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    each = fit()
    for pause, resumed in ((1, 0), (1, 4), (2, 4)):
        paused = fit(into=tmp_path, evaluate_each=0, pause_after=pause)
        assert paused.top1 == each.curve[pause - 1].top1
        assert (paused.steps, paused.resumed_from) == (4 * pause, resumed)
        assert not (tmp_path / "result.json").exists()
    last = fit(into=tmp_path, evaluate_each=0, pause_after=3)
    assert last.resumed_from == 8
    assert equal(last, each)
    assert fit(into=tmp_path, evaluate_each=0).top1 == each.top1
    # What went further is read as it was then.
    assert fit(into=tmp_path, evaluate_each=0, pause_after=1).top1 == each.curve[0].top1
    assert fit(pause_after=2, evaluate_each=0).top1 == each.curve[1].top1
    with pytest.raises(InvalidArgument, match="1 to 3 epochs"):
        fit(pause_after=4)


def test_a_pause_where_it_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    fit(into=tmp_path, evaluate_each=0)
    with pytest.raises(SettingsChanged, match="past epoch 2 without"):
        fit(into=tmp_path, evaluate_each=0, pause_after=2)


def test_a_finished_training_is_read_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(into=tmp_path / "t")
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        again = fit(into=tmp_path / "t")
    assert equal(first, again) and again == folder.load(tmp_path / "t")
    assert (again.top1, again.curve) == (first.top1, first.curve)
    with pytest.raises(UnknownName, match="no finished training"):
        folder.load(tmp_path / "other")


@pytest.mark.fault(
    "A training goes on in a folder that holds one with other settings.",
    "`holds a training with other settings: learning_rate was 0.5 and is now 0.25`",
    "Give the same settings, or another --out.",
)
def test_other_settings_are_refused_with_both_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_SHARE", 0)
    with monkeypatch.context() as patch, pytest.raises(Break):
        stop_at(patch, 5)
        fit(into=tmp_path)
    changed = QUICK.changed(learning_rate=0.25)
    with pytest.raises(SettingsChanged, match=r"learning_rate was 0\.5 and is now 0\.25"):
        fit(into=tmp_path, recipe=changed)
    with pytest.raises(SettingsChanged, match="seed was 0 and is now 3"):
        fit(into=tmp_path, seed=3)
    with pytest.raises(SettingsChanged, match="images was"):
        train(TINY, pictures(60), HELD, recipe=QUICK, into=tmp_path, resources=CPU)
    fit(into=tmp_path)
    with pytest.raises(SettingsChanged, match="learning_rate was 0.5"):
        fit(into=tmp_path, recipe=changed)


def interrupted(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch, pytest.raises(Break):
        patch.setattr(folder, "_SHARE", 0)
        stop_at(patch, 5)
        fit(into=path, checkpoint_s=0)
    return path / "checkpoint.safetensors"


@pytest.mark.fault(
    "The checkpoint of a training is damaged or newer.",
    "`checkpoint.safetensors is damaged`",
    "Remove it to train from the start.",
)
def test_a_damaged_checkpoint_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = interrupted(tmp_path, monkeypatch)
    content = path.read_bytes()
    harmed: dict[str, Callable[[], bytes]] = {
        "cut": lambda: content[: len(content) // 2],
        "flipped": lambda: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "empty": lambda: b"",
        "text": lambda: b"no checkpoint at all" * 20,
        "version": lambda: content.replace(b'\\"version\\": 1', b'\\"version\\": 9'),
        "list": lambda: (2).to_bytes(8, "little") + b"[]",
    }
    for harm, make in harmed.items():
        path.write_bytes(make())
        words = "has version 9; this phonenas reads version 1" if harm == "version" else "damaged"
        with pytest.raises(UnsupportedFormat, match=words) as caught:
            fit(into=tmp_path)
        assert "Remove the file to train from the start" in str(caught.value)
    path.unlink()
    assert equal(fit(into=tmp_path), fit())


@pytest.mark.fault(
    "The disk is full while a training writes its checkpoint.",
    "`cannot be written: No space left on device`; `The older file, if there was one, is whole`",
    "Free the disk, then give the command again.",
)
def test_a_full_disk_is_told_and_the_older_checkpoint_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = interrupted(tmp_path, monkeypatch)
    before = path.read_bytes()
    monkeypatch.setattr(folder, "_SHARE", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StoreError, match="checkpoint.safetensors cannot be written"):
            fit(into=tmp_path, checkpoint_s=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        patch.setattr(Path, "write_bytes", full)
        fit(into=tmp_path, checkpoint_s=0)
    assert path.read_bytes() == before
    assert equal(fit(into=tmp_path), fit())


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    found = fit(into=tmp_path)
    written = (tmp_path / "result.json").read_text()
    whole = json.dumps(undigested(json.loads(written)))
    for text, words in (
        (written.replace('"images": 48', '"images": 49'), "its digest is another"),
        ("{", "damaged"),
        (whole.replace('"version": 1', '"version": 3'), "version 3; this phonenas reads version"),
        (whole.replace('"top1"', '"top"'), "damaged"),
        ("5".join(whole.rsplit(f'"{found.network}"', 1)), "damaged"),
        (whole.replace('"images": 48', '"images": 1e400'), "damaged"),
    ):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(UnsupportedFormat, match=words):
            fit(into=tmp_path)
    (tmp_path / "result.json").write_text(whole)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(UnsupportedFormat, match="weights.safetensors is gone"):
        fit(into=tmp_path)


@pytest.mark.fault(
    "Two trainings are given one folder.",
    "`another process …`",
    "Wait for it, or choose another --out.",
)
def test_one_training_at_a_time_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    other = folder.TrainingFolder(tmp_path / "t", {})
    with pytest.raises(StoreError, match="another process works in"):
        fit(into=tmp_path / "t")
    other.close()
    assert fit(into=tmp_path / "t").diverged == ""
    fit(into=tmp_path / "t")  # each leaves it to the next, also after an error
    for _ in range(2):
        with pytest.raises(SettingsChanged):
            fit(into=tmp_path / "t", seed=1)


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = interrupted(tmp_path, monkeypatch)
    kept = path.read_bytes()
    (tmp_path / ".checkpoint.safetensors.a1b2c3d4").write_bytes(b"half")
    (tmp_path / ".notes").write_text("the user's")
    whole = fit(into=tmp_path)
    path.write_bytes(kept)  # killed between the result and the end of the checkpoint
    assert equal(fit(into=tmp_path), whole)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [".notes", "curve.csv", "result.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("room", "file"), [(weights, "weights.safetensors"), (documents, "result.json")]
)
def test_stopped_right_after_a_last_file_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Any, file: str
) -> None:
    real = files.write_atomic

    def broken(path: Path, *args: Any) -> Path:
        found = real(path, *args)
        if path.name == file:
            raise Break
        return found

    interrupted(tmp_path, monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(Break):
        patch.setattr(room, "write_atomic", broken)
        fit(into=tmp_path)
    found = fit(into=tmp_path)
    assert equal(found, fit()) and found.resumed_from > 0
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_on_a_disk_without_locks_a_warning_says_so_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    other = tmp_path / ".checkpoint.safetensors.a1b2c3d4"  # perhaps of a process at work
    other.write_bytes(b"half")
    with caplog.at_level("WARNING", logger="phonenas"):
        assert fit(into=tmp_path).diverged == ""
    assert f"{tmp_path} is not locked" in caplog.text and "No locks available" in caplog.text
    assert other.exists()


def test_a_checkpoint_holds_tensors_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "a": shared,
        "b": shared,
        "t": shared.t(),
        "n": torch.tensor(7),
        "e": torch.empty(0),
        "h": torch.ones(2, dtype=torch.bfloat16),
        "u": torch.arange(5, dtype=torch.uint8),
        "l": torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last),
    }
    weights.save_checkpoint(path, tensors, {"step": 3, "names": ["ä"]})
    found = weights.load_checkpoint(path, "")
    assert found is not None and found.document["names"] == ["ä"]
    assert all(torch.equal(found.tensors[k], tensors[k]) for k in tensors)
    assert weights.load_checkpoint(tmp_path / "none", "") is None


# -- a training that cannot be --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_diverging_training_is_told_and_never_an_accuracy(tmp_path: Path) -> None:
    wild = QUICK.changed(learning_rate=100.0, weight_decay=1.0, warmup_epochs=0.0)
    found = fit(recipe=wild, into=tmp_path)
    assert found.diverged and math.isnan(found.top1) and math.isnan(found.top5)
    assert found.weights == {}
    again = fit(recipe=wild, into=tmp_path)
    assert again.diverged == found.diverged and math.isnan(again.top1)
    assert json.loads((tmp_path / "result.json").read_text())["result"]["top1"] is None


def test_a_loss_that_is_no_number_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainingStep.step

    def step(self: TrainingStep, *args: Any) -> Any:
        loss = real(self, *args)
        return loss * float("nan") if self.updates == 6 else loss

    monkeypatch.setattr(TrainingStep, "step", step)
    found = fit()
    assert found.diverged == "the loss was not a number within 8 steps" and math.isnan(found.top1)
    assert len(found.curve) == 1


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="has 1 images; a training needs two"):
        train(TINY, IMAGES.subset([0]), recipe=QUICK)
    with pytest.raises(InvalidArgument, match="different classes: c2 is not in both"):
        train(TINY, IMAGES, pictures(4, classes=2), recipe=QUICK)
    with pytest.raises(NotEnoughData, match="no images to test on"):
        train(TINY, IMAGES, HELD.subset([]), recipe=QUICK)
    for more, words in (
        ({"seed": -1}, r"seed: from 0 to below 2\^63, got -1"),
        ({"seed": 2**64}, "seed: from 0"),
        ({"checkpoint_s": -1.0}, "checkpoint_s"),
        ({"evaluate_each": -1}, "evaluate_each"),
        ({"resources": Resources("tpu")}, "device is auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"resources": Resources("cuda:99")}, "torch sees"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            fit(**more)
    for resources, words in (
        ({"threads": 0}, "threads: 1 or more, got 0"),
        ({"loaders": -1}, "loaders: 0 or more processes, got -1"),
        ({"gpus": 1.5}, "a share of one GPU or whole ones, got 1.5"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            Resources(**resources)
    assert Resources().needs == Needs(1, 0) and Resources(threads=3, gpus=0.5).needs == Needs(
        3, 0.5
    )
    assert pick_device("cpu").type == "cpu"


# -- evaluate -------------------------------------------------------------------------------------


def test_evaluate_refuses_what_does_not_fit_and_leaves_a_module_as_it_was() -> None:
    network = replace(TINY, classes=3)
    module = to_torch(network, seed=0)
    weights = state_arrays(module)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found = evaluate(module, None, HELD, resolution_px=16, batch=5, resources=Resources(threads=1))
    assert module.training and found.n == 12 and found.logits is None
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert evaluate(network, weights, HELD, resources=CPU) == found
    with pytest.raises(InvalidArgument, match="needs its weights"):
        evaluate(network, None, HELD)
    with pytest.raises(InvalidArgument, match="resolution_px"):
        evaluate(module, None, HELD)
    module[0].eval()  # frozen, as in fine-tuning
    modes = [part.training for part in module.modules()]
    evaluate(module, None, HELD, resolution_px=16, resources=CPU)
    assert [part.training for part in module.modules()] == modes and module.training
    with pytest.raises(InvalidArgument, match="batch is 1 or more"):
        evaluate(network, weights, HELD, batch=0)
    with pytest.raises(NotEnoughData, match="no images"):
        evaluate(network, weights, HELD.subset([]))
    with pytest.raises(InvalidArgument, match="classifier.weight has shape"):
        set_weights(to_torch(replace(TINY, classes=4), seed=0), weights)
    some = dict(list(weights.items())[1:])
    with pytest.raises(InvalidArgument, match="is in only one of the two"):
        set_weights(module, some)
    first = next(iter(weights))
    broken = {**weights, first: np.full_like(weights[first], np.nan)}
    assert math.isnan(evaluate(network, broken, HELD, resources=CPU).top1)


def test_top5_counts_the_five_highest() -> None:
    class Fixed(torch.nn.Module):
        """Logits that rank the classes 9, 8, ..., 0 for every image."""

        def forward(self, x: Any) -> Any:
            return torch.arange(10.0).repeat(len(x), 1)

    pixels = np.zeros((20, 16, 16, 3), np.uint8)
    images = ImageSet.of(pixels, np.arange(20) % 10)
    found = evaluate(Fixed(), None, images, resolution_px=16, resources=CPU)
    assert (found.top1, found.top5) == (0.1, 0.5)


# -- killed ---------------------------------------------------------------------------------------

PAPER = recipe("paper", epochs=16, batch=8, augment="small")
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.search.training.test_trainer import PAPER, TINY, pictures
from phonenas.search.training import folder
from phonenas.search.training.job import TrainingJob
from phonenas.search.training.resources import Resources
from phonenas.search.training.trainer import run_job

folder._SHARE = 0
job = TrainingJob(pictures(96), pictures(12, seed=1), PAPER, checkpoint_s=0.02)
found = run_job(TINY, job, into=sys.argv[2], resources=Resources("cpu", threads=1))
print(found.resumed_from)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_weights(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[2])]

    def run(into: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, str(into)], env=environment, stdout=subprocess.PIPE, text=True
        )

    whole = train(TINY, pictures(96), pictures(12, seed=1), recipe=PAPER, resources=CPU)
    rng = np.random.default_rng(0)
    killed = 0
    for _ in range(3):
        with run(tmp_path / "broken") as process:
            # Not the time that imports take: from the moment that it writes.
            known = newest(tmp_path / "broken")
            wait_for(
                "the first checkpoint",
                lambda known=known: (
                    newest(tmp_path / "broken") != known or process.poll() is not None
                ),
            )
            time.sleep(float(rng.uniform(0, 0.4)))
            process.send_signal(signal.SIGKILL)
            killed += process.wait(PATIENCE_S) == -signal.SIGKILL
    assert killed >= 2
    with run(tmp_path / "broken") as process:
        assert process.stdout is not None
        resumed = int(process.stdout.read())
        assert process.wait(PATIENCE_S) == 0
    assert resumed > 0
    broken = folder.load(tmp_path / "broken")
    assert equal(whole, broken)
    assert [(e.loss, e.top1) for e in whole.curve] == [(e.loss, e.top1) for e in broken.curve]


def newest(path: Path) -> int:
    file = path / "checkpoint.safetensors"
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
