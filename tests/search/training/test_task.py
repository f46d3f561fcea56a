"""A training as a task for workers: what comes of it here, wherever its folder is seen."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas.cli import progress
from phonenas.cli.progress import Bars, following
from phonenas.data.images.image_set import ImageSet
from phonenas.search.cluster.workers import Needs, Serial, Task
from phonenas.search.training.folder import TrainingFolder, load
from phonenas.search.training.job import TrainingJob
from phonenas.search.training.recipe import recipe
from phonenas.search.training.resources import Resources
from phonenas.search.training.result import Epoch
from phonenas.search.training.task import network_failure, train_on
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, SettingsChanged, TaskFailed

pytest.importorskip("torch")
pytest.importorskip("safetensors")

TINY = Architecture.parse("stemstride1 r1_k3_s22_e2_i8_o8 head16 res16")
QUICK = recipe("small", epochs=3, batch=12)
_CHANCE = np.random.default_rng(0)
LABELS = np.arange(48) % 3
PIXELS = _CHANCE.integers(0, 100, (48, 16, 16, 3)) + 50 * LABELS[:, None, None, None]
IMAGES = ImageSet.of(PIXELS.astype(np.uint8)[:36], LABELS[:36])
HELD = ImageSet.of(PIXELS.astype(np.uint8)[36:], LABELS[36:])


class Elsewhere(Serial):
    """A node that has a disk of its own: what it is told to write to lies in another place."""

    def __init__(self, disk: Path) -> None:
        self.disk, self.needs, self.calls = disk, Needs(), 0

    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs = Needs(),  # noqa: B008 - as in the contract
        on_result: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        self.needs, self.calls = needs, self.calls + 1
        there = [(a[0], str(self.disk), *a[2:]) for a in arguments]
        return super().map(task, there, needs=needs, on_result=on_result)


def go(workers: Serial, into: Path | None, **more: Any) -> Any:
    job = TrainingJob(IMAGES, HELD, more.get("recipe", QUICK), more.get("seed", 1))
    resources = Resources(more.get("device", "cpu"), 1, gpus=more.get("gpus", 0.0))
    return train_on(workers, TINY, job, into=into, resources=resources)


def test_the_result_comes_home_from_a_disk_that_is_not_seen_here(tmp_path: Path) -> None:
    node = Elsewhere(tmp_path / "there")
    found = go(node, tmp_path / "here", gpus=0.5)
    assert node.needs.gpus == 0.5 and found.top1 == found.top1 and not found.diverged
    kept = load(tmp_path / "here")
    assert kept == found and kept.curve == load(tmp_path / "there").curve
    for name, array in found.weights.items():
        np.testing.assert_array_equal(kept.weights[name], array)
    # It is the folder that a training here would have left: taken for the same, nothing is done.
    assert go(node, tmp_path / "here") == found and node.calls == 1
    assert go(Serial(), None).weights.keys() == found.weights.keys()


def test_the_same_as_without_workers_where_the_folder_is_seen(tmp_path: Path) -> None:
    here, alone = go(Serial(), tmp_path), go(Serial(), None)
    assert [e.loss for e in here.curve] == [e.loss for e in alone.curve]
    assert load(tmp_path) == here
    for name, array in alone.weights.items():
        np.testing.assert_array_equal(here.weights[name], array)


def test_other_settings_are_told_before_any_work(tmp_path: Path) -> None:
    node = Elsewhere(tmp_path / "there")
    go(node, tmp_path / "here")
    with pytest.raises(SettingsChanged, match="seed was 1 and is now 2"):
        go(node, tmp_path / "here", seed=2)
    with pytest.raises(SettingsChanged, match="precision was 'float32' and is now 'bfloat16'"):
        go(node, tmp_path / "here", recipe=QUICK.changed(precision="bfloat16"))
    assert node.calls == 1


def test_what_torch_cannot_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from phonenas.search.training import trainer

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(trainer, "run_job", full)
    with pytest.raises(TaskFailed, match=r"RuntimeError: CUDA out of memory\. If the memory"):
        go(Serial(), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_epochs_elsewhere_are_told_as_their_curve_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_POLL_S", 0.01)
    rows = [Epoch(n, 4 * n, 0.1, 2.0 / n, 0.25 * n, float("nan"), 1.0) for n in (1, 2, 3)]
    folder, out = TrainingFolder(tmp_path, {}), io.StringIO()
    folder.write_curve(rows[:1])  # of an earlier call: not told again
    monkeypatch.setattr(Bars, "line", lambda bar, text: print(text, file=bar.stream))
    with Bars(stream=out) as bar, following(tmp_path, bar, 3):
        assert "3 epochs" in out.getvalue() and str(tmp_path / "curve.csv") in out.getvalue()
        for _ in range(500):
            folder.write_curve(rows)
            if "epoch 3" in out.getvalue():
                break
            over = progress.threading.Event()
            over.wait(0.02)
    folder.close()
    assert "epoch 3: loss 0.6667, top-1 ● 75.00%" in out.getvalue()
    assert "epoch 1:" not in out.getvalue()
    with Bars(quiet=True, stream=out) as bar, following(None, bar, 3):
        pass


def test_only_what_is_a_networks_own_is_held_against_it() -> None:
    for words in ("CUDA out of memory. Tried to allocate 2 GiB", "not enough memory: you tried"):
        assert network_failure(RuntimeError(words)).startswith(words[:10])
    assert network_failure(MemoryError()) == "MemoryError"
    assert "CUDA error: out of memory" in network_failure(RuntimeError("CUDA error: out of memory"))
    for words in (
        "CUDA error: device-side assert triggered",
        "cuDNN error: CUDNN_STATUS_EXECUTION",
    ):
        with pytest.raises(TaskFailed, match="the GPU failed.*what is finished is kept"):
            network_failure(RuntimeError(words))


def test_a_device_that_is_not_there_is_no_networks_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="torch sees"):
        go(Serial(), tmp_path, device="cuda:77")
