"""A supernet's training as a task for workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas import space as spaces
from phonenas.data.images.image_set import ImageSet
from phonenas.search.accuracy.supernet.folder import document_of
from phonenas.search.accuracy.supernet.task import supernet_on
from phonenas.search.accuracy.supernet.train import RECIPE, Sharing
from phonenas.search.cluster.workers import Serial, Task
from phonenas.search.training.resources import Resources
from phonenas.space.errors import SettingsChanged, StoreError

pytest.importorskip("torch")
pytest.importorskip("safetensors")

LABELS = np.arange(36) % 3
PIXELS = np.random.default_rng(0).integers(0, 100, (36, 16, 16, 3))
IMAGES = ImageSet.of((PIXELS + 50 * LABELS[:, None, None, None]).astype(np.uint8), LABELS)


@pytest.mark.slow
def test_a_supernet_is_trained_where_its_folder_is_seen(tmp_path: Path) -> None:
    space = spaces.get("nasbench-macro", 8)
    how: dict[str, Any] = {
        "recipe": RECIPE.changed(epochs=1, batch=12),
        "sharing": Sharing(random=1),
        "resources": Resources("cpu"),
    }
    found = supernet_on(Serial(), space, IMAGES, into=tmp_path / "net", **how)
    assert found["settings"]["recipe"]["epochs"] == 1 and found == document_of(tmp_path / "net")
    assert not list((tmp_path / "net").glob(".seen-*"))
    with pytest.raises(SettingsChanged, match="random"):
        supernet_on(
            Serial(), space, IMAGES, into=tmp_path / "net", **{**how, "sharing": Sharing(random=2)}
        )

    class Blind(Serial):
        def map(self, task: Task, arguments: Sequence[tuple[Any, ...]], **more: Any) -> list[Any]:
            (a,) = arguments
            return super().map(task, [(*a[:2], str(tmp_path / "other"), *a[3:])], **more)

    with pytest.raises(StoreError, match="other of the computer that asks"):
        supernet_on(Blind(), space, IMAGES, into=tmp_path / "mine", **how)
    assert not (tmp_path / "other").exists() and not list((tmp_path / "mine").iterdir())
