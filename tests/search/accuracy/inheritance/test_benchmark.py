"""The benchmark of inherited weights scores on images that no search sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")


def file_of(folder: Path, test_seed: int) -> Path:
    """150 training images of each class, and 20 test images that are noise of another seed."""
    train, test = np.random.default_rng(0), np.random.default_rng(test_seed)
    path = folder / f"{test_seed}.npz"
    np.savez(
        path,
        x_train=train.integers(0, 256, (1500, 32, 32, 3)).astype(np.uint8),
        y_train=(np.arange(1500) % 10).astype(np.uint8),
        x_test=test.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8),
        y_test=(np.arange(20) % 10).astype(np.uint8),
    )
    return path


def test_the_truth_is_scored_on_test_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools.bench import inheritance

    used = []

    def trained(
        network: str, seed: int, settings: object, images: object, held: object, *_: object
    ):
        used.append((images, held))
        return {"top1": 0.5, "seconds": 1.0, "failed": ""}

    monkeypatch.setattr(inheritance.short_training, "train_briefly", trained)
    path = file_of(tmp_path, 1)
    bench = inheritance.Benchmark(tmp_path / "bench", path)
    genome = bench.space.sample(np.random.default_rng(0), 1)[0]
    assert bench.truth.estimate([bench.space.decode(genome)]).top1 == 0.5
    ((images, held),) = used
    assert held.digest == inheritance.test_images_of(path).digest and len(held) == 20
    assert len(images) == 1000
    # Top-1 on other test images is another answer.
    other = inheritance.Benchmark(tmp_path / "other", file_of(tmp_path, 2))
    assert other.images.digest == bench.images.digest
    assert other.truth.digest != bench.truth.digest
