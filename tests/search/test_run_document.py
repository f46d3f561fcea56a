"""run.json: what a search never writes is refused, whatever its digest says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import TinySpace, undigested

from phonenas import search
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Surrogate
from phonenas.search.run_document import DOCUMENT, read_run
from phonenas.space.errors import StoreError, UnsupportedFormat


@pytest.fixture(scope="module")
def document(fitted: LatencyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    search.search(
        TinySpace(resolution=32),
        latency=fitted,
        accuracy=Surrogate(),
        strategy=search.get("random", seed=0),
        evaluations=40,
        into=folder,
    )
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def settings(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["settings"].update(values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.update(run="0123456789ab"), "its settings are not those that it was begun wi"),
        (settings(seed=7), "its settings are not those that it was begun with"),
        (settings(columns=["latency_ms", "top1"]), "settings.columns: latency_ms, top1"),
        (lambda c: c["front"].reverse(), "front: its ids are not 0, 1, 2"),
        (lambda c: c["front"][0].update(low_ms=1e6), "front: an interval ends before it begins"),
        (lambda c: c["front"][0].update(top1=1.5), "front"),
        (lambda c: c.update(seconds="x"), "seconds"),
        (lambda c: c["settings"].pop("target_ms"), "target_ms"),
    ],
)
def test_what_no_search_writes_is_damage(
    document: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    content = json.loads(json.dumps({k: v for k, v in document.items() if k != "digest"}))
    DOCUMENT.write(tmp_path / "run.json", content)
    assert len(content["front"]) > 1 and read_run(tmp_path)["settings"] == content["settings"]
    change(content)
    DOCUMENT.write(tmp_path / "run.json", content)
    with pytest.raises(UnsupportedFormat, match=f"is damaged: .*{why}"):
        read_run(tmp_path)


def test_a_run_of_the_first_version_has_no_digest(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="run.json is gone"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(undigested(document)))
    assert read_run(tmp_path)["version"] == 1
