"""Evaluations: named columns that keep their rows together; tables of what a run evaluated."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace, undigested

from phonenas import search
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Surrogate
from phonenas.search.evaluations import Evaluations
from phonenas.search.run_folder import Loaded
from phonenas.space.errors import InvalidArgument, UnsupportedFormat

TINY = TinySpace(resolution=32)


def three() -> Evaluations:
    return Evaluations(
        genomes=np.arange(6, dtype=np.int8).reshape(3, 2),
        latency_ms=np.array([1.0, 2.0, 3.0]),
        top1=np.array([0.5, np.nan, 0.7]),
        top1_error=np.array([0.01, np.nan, 0.02]),
        outside=np.array([False, False, True]),
        further={"energy": np.array([7.0, 8.0, 9.0])},
        units={"energy": "mJ"},
        failed={1: "diverged"},
    )


def test_rows_stay_together() -> None:
    taken = three().take([2, 1, 1])
    assert taken.genomes.tolist() == [[4, 5], [2, 3], [2, 3]]
    assert taken.latency_ms.tolist() == [3.0, 2.0, 2.0]
    assert taken.outside.tolist() == [True, False, False]
    assert taken.further["energy"].tolist() == [9.0, 8.0, 8.0]
    assert taken.failed == {1: "diverged", 2: "diverged"}
    assert taken.has_top1.tolist() == [True, False, False]


def test_parts_are_joined_in_order() -> None:
    joined = Evaluations.concat([three().take([0]), three(), three().take([1])])
    assert joined.latency_ms.tolist() == [1.0, 1.0, 2.0, 3.0, 2.0]
    assert joined.failed == {2: "diverged", 4: "diverged"}
    assert joined.units == {"energy": "mJ"}
    assert joined.columns == ("latency_ms", "top1", "top1_error", "outside", "energy")
    assert joined.to_array()[3].tolist() == [3.0, 0.7, 0.02, 1.0, 9.0]


def test_columns_of_unlike_lengths_and_failures_without_a_reason_are_refused() -> None:
    whole = three()
    numbers = whole.to_array()
    with pytest.raises(InvalidArgument, match="3 genomes with latency_ms, .* of another length"):
        Evaluations.of_array(whole.genomes, numbers[:2], whole.columns, {1: "diverged"})
    with pytest.raises(InvalidArgument, match="0 reasons for 1 networks without an accuracy"):
        Evaluations.of_array(whole.genomes, numbers, whole.columns)
    with pytest.raises(InvalidArgument, match=r"numbers \(3, 5\) for columns latency_ms"):
        Evaluations.of_array(whole.genomes, numbers)


@pytest.fixture(scope="module")
def run(fitted: LatencyModel, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    into = tmp_path_factory.mktemp("run") / "r"
    search.search(
        TINY,
        latency=fitted,
        accuracy=Surrogate(),
        strategy=search.NSGA2(seed=1, population=20),
        spec=search.Spec(
            search.Target(1000.0), [search.parse_limit("params<=1e9")], [search.PeakActivation()]
        ),
        evaluations=80,
        into=into,
    )
    return search.load(into, TINY)


COLUMNS = [
    "id",
    "network",
    "latency_ms",
    "low_ms",
    "high_ms",
    "top1",
    "top1_error",
    "outside",
    "macs",
    "params",
    "reward",
    "origin",
    "peak_activation",
]


def test_a_front_is_a_table_and_a_short_text(run: Loaded) -> None:
    front, frame = run.front, run.front.to_frame()
    assert list(frame.columns) == COLUMNS
    assert frame.network.tolist() == [c.block_args for c in front]
    assert frame.reward.tolist() == [c.reward for c in front]
    assert frame.peak_activation.tolist() == [c.values["peak_activation"] for c in front]
    assert re.fullmatch(
        rf"ParetoFront\({len(front)} networks, [\d.]+ to [\d.]+ ms, top-1 up to [\d.]+%, "
        r"target 1000.00 ms\)",
        repr(front),
    )


def test_all_that_was_evaluated_is_a_table(run: Loaded) -> None:
    frame, evaluated = run.to_frame(), run.evaluations()
    assert list(frame.columns) == [*COLUMNS, "failed"] and len(frame) == 80
    assert frame.network.tolist() == [str(TINY.decode(g)) for g in evaluated.genomes]
    assert frame.latency_ms.tolist() == evaluated.latency_ms.tolist()
    found = frame[frame.id.notna()].sort_values("id")
    pd.testing.assert_frame_equal(
        found[COLUMNS].reset_index(drop=True), run.front.to_frame(), check_dtype=False
    )
    assert frame.low_ms[frame.id.isna()].isna().all()
    network = TINY.decode(evaluated.genomes[5])
    assert (frame.macs[5], frame.params[5]) == (network.macs, network.params)


def test_networks_are_written_beside_the_genes(run: Loaded, tmp_path: Path) -> None:
    written = pd.read_parquet(run.write_networks(tmp_path / "n.parquet"))
    assert written.network.tolist() == run.to_frame().network.tolist()
    assert set(written.name) == {"", *(f"{run.path}:{c.id}" for c in run.front)}
    assert run.write_networks() == run.path / "networks.parquet"


def test_what_was_asked_is_kept_as_values(run: Loaded, tmp_path: Path) -> None:
    document = json.loads((run.path / "run.json").read_text())
    assert document["objectives"] == {
        "also": [{"name": "peak_activation", "unit": "bytes", "maximise": False}],
        "limits": [
            {
                "objective": {"name": "params", "unit": "", "maximise": False},
                "at_most": 1e9,
                "at_least": None,
                "soft": None,
            }
        ],
    }
    assert [o.name for o in run.spec.also] == ["peak_activation"]
    with pytest.raises(InvalidArgument, match="only for the networks of a finished run"):
        run.spec.also[0].on(TINY)
    copy = Path(shutil.copytree(run.path, tmp_path / "r"))
    document["objectives"]["also"][0]["colour"] = "red"
    (copy / "run.json").write_text(json.dumps(undigested(document)))
    with pytest.raises(UnsupportedFormat, match="run.json is damaged"):
        search.load(copy).spec  # noqa: B018  # it reads


def test_two_targets_are_refused(fitted: LatencyModel) -> None:
    with pytest.raises(InvalidArgument, match="two targets: target_ms=3 and 5 ms"):
        search.run(
            TINY,
            latency=fitted,
            accuracy=Surrogate(),
            strategy=search.RandomSearch(),
            target_ms=3.0,
            spec=search.Spec(search.Target(5.0)),
        )
