"""Several processes that train one network: two on this computer, by gloo."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S

from phonenas.search.training.distributed import Processes, rank_and_world, together
from phonenas.search.training.recipe import Recipe, recipe
from phonenas.space.errors import InvalidArgument, WorkersUnavailable

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from phonenas.search.training import folder  # noqa: E402
from phonenas.search.training.pipeline import Batches  # noqa: E402
from phonenas.search.training.schedule import Schedule  # noqa: E402
from phonenas.search.training.step import TrainingStep  # noqa: E402
from phonenas.space.lowering.torch import state_arrays, to_torch  # noqa: E402
from tests.search.training.test_trainer import HELD, IMAGES, TINY  # noqa: E402

SHORT = recipe("small", epochs=3, batch=12, augment="small", average=0.9)

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from tests.search.training.test_distributed import SHORT
from tests.search.training.test_trainer import HELD, IMAGES, TINY
from phonenas.search.training.resources import Resources
from phonenas.search.training.trainer import train

found = train(TINY, IMAGES, HELD, recipe=SHORT, into=sys.argv[1],
    resources=Resources("cpu", threads=1))
print(repr((found.top1, found.steps)))
"""


def torchrun(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return subprocess.run(
        [*command, *words], env=environment, capture_output=True, text=True, timeout=PATIENCE_S * 2
    )


def shards_alone(short: Recipe, world: int) -> dict[str, np.ndarray]:
    """The same in one process: each share forward by itself, gradients averaged by hand."""
    module = to_torch(replace(TINY, classes=3), dropout=short.dropout, seed=0)
    ours = TrainingStep(short, module, Processes(0, 1, torch.device("cpu")))
    module.train()
    batches = Batches(IMAGES, short.batch, 16, augment="small", seed=0)
    schedule = Schedule(short, len(batches))
    names = [n for n, _ in module.named_buffers() if "running" in n]
    for epoch in range(short.epochs):
        for x, y in batches.epoch(epoch):
            start = {n: b.clone() for n, b in module.named_buffers()}
            ends = []
            for rank in range(world):
                for n, b in module.named_buffers():
                    b.copy_(start[n])
                out = module(x[rank::world])
                loss = torch.nn.functional.cross_entropy(out, y[rank::world], label_smoothing=0.1)
                (loss / world).backward()
                ends.append({n: b.clone() for n, b in module.named_buffers()})
            # Statistics are linear: their mean at each step is that at the end.
            for n, b in module.named_buffers():
                if n in names:
                    b.copy_(sum(e[n] for e in ends) / world)
            ours.update(schedule(ours.updates))
    return state_arrays(ours.evaluated)


@pytest.mark.slow
def test_two_processes_equal_one_that_normalises_by_halves(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[2])))
    found = torchrun(environment, str(script), str(tmp_path / "two"))
    assert found.returncode == 0, found.stderr
    lines = found.stdout.split("\n")
    assert lines[0] == lines[1]  # both tell the same
    trained = folder.load(tmp_path / "two")
    wanted = shards_alone(SHORT, 2)
    # Sums come in another order, and 12 steps with momentum let that grow a little.
    for name, weights in trained.weights.items():
        assert weights == pytest.approx(wanted[name], rel=1e-3, abs=1e-5), name
    assert trained.images_held == len(HELD) and 0 <= trained.top1 <= 1


@pytest.mark.slow
def test_the_command_runs_under_torchrun_and_prints_once(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    np.savez(
        tmp_path / "set.npz",
        x_train=IMAGES.array(),
        y_train=IMAGES.labels,
        x_test=HELD.array(),
        y_test=HELD.labels,
    )
    words = [
        "-m",
        "phonenas",
        "train",
        str(TINY),
        "--data",
        str(tmp_path / "set.npz"),
        "--recipe",
        "small",
        "--epochs",
        "2",
        "--batch",
        "12",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    found = torchrun(environment, *words)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("12 test images") == 1
    assert (tmp_path / "out" / "weights.safetensors").is_file()
    assert "2 epochs, 8 steps on cpu" in found.stderr


def test_torchruns_variables_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert rank_and_world() == (1, 2)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(InvalidArgument, match="RANK 2 is not below WORLD_SIZE 2"):
        rank_and_world()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(WorkersUnavailable, match="does not find the others.*MASTER_ADDR"),
        together("cpu"),
    ):
        pass
    monkeypatch.setenv("LOCAL_RANK", "y")
    with pytest.raises(InvalidArgument, match="whole numbers"):
        rank_and_world()
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(InvalidArgument, match="whole numbers"):
        rank_and_world()
    for rank, world in ((0, 0), (1, 1), (-1, 2)):
        with pytest.raises(InvalidArgument, match=rf"rank lies in \[0, {world}\), got {rank}"):
            Processes(rank, world)
    alone = Processes()
    tensor = torch.ones(2)
    alone.mean([tensor])
    assert alone.first and alone.agreed(True) and torch.equal(alone.sum(tensor), torch.ones(2))
