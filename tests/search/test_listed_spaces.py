"""A search confined to the networks of a table: every strategy, and the exact front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from phonenas import latency_model, search, space
from phonenas.latency_model import ready
from phonenas.search.accuracy.table import AccuracyTable
from phonenas.space import AdditiveTable, NASBenchMacro
from phonenas.space.errors import Infeasible

MACRO = NASBenchMacro()
NETWORKS = [MACRO.decode(g) for g in MACRO.sample(np.random.default_rng(3), 90)]
NETWORKS = list({n.operators(): n for n in NETWORKS}.values())[:80]
PHONE = "pixel4/tflite/cpu-1large/float32"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    top1 = np.random.default_rng(4).uniform(0.5, 0.9, len(NETWORKS))
    path = tmp_path / "t.csv"
    pd.DataFrame({"network": list(map(str, NETWORKS)), "top1": top1}).to_csv(path, index=False)
    return path


def go(table: Path, strategy: str, evaluations: int, **more: Any) -> search.Searched:
    if strategy == "rl":
        pytest.importorskip("torch")
    return search.search(
        space.get(f"table:{table}"),
        latency=latency_model.load(ready.file_of(PHONE)),
        accuracy=AccuracyTable(table),
        strategy=search.get(strategy, seed=1),
        evaluations=evaluations,
        **more,
    )


STRATEGIES = [
    *("nsga2", "random", "weighted"),
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("rl", "surrogate", "nsga3", "regularised")),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_enough_evaluations_the_front_is_that_of_the_table(
    table: Path, strategy: str, tmp_path: Path
) -> None:
    found = go(table, strategy, 500, into=tmp_path / "r")
    assert found.evaluations == len(NETWORKS) == 80
    top1 = pd.read_csv(table).top1.to_numpy()
    model = latency_model.load(ready.file_of(PHONE))
    ms = np.array([float(model.latency_ms([n])[0]) for n in NETWORKS])
    best = {
        str(network)
        for network, accurate, slow in zip(NETWORKS, top1, ms, strict=True)
        if not ((top1 >= accurate) & (ms <= slow) & ((top1 > accurate) | (ms < slow))).any()
    }
    assert {c.block_args for c in found.front} == best
    assert search.load(tmp_path / "r").space.size == 80


def test_a_target_that_one_listed_network_meets_is_reached(table: Path) -> None:
    model = latency_model.load(ready.file_of(PHONE))
    ms = sorted((float(model.latency_ms([n])[0]), str(n)) for n in NETWORKS)
    between = (ms[0][0] + ms[1][0]) / 2
    found = go(table, "random", 80, spec=search.Spec(search.Target(between)))
    assert [c.block_args for c in found.front] == [ms[0][1]]
    with pytest.raises(Infeasible, match="the fastest of 80 tried takes"):
        go(table, "random", 80, spec=search.Spec(search.Target(0.9 * ms[0][0])))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fewer_evaluations_stay_within_the_table_and_go_on(
    table: Path, strategy: str, tmp_path: Path
) -> None:
    known = {str(n) for n in NETWORKS}
    whole = go(table, strategy, 80, into=tmp_path / "whole")
    assert go(table, strategy, 31, into=tmp_path / "r").evaluations == 31
    assert set(search.load(tmp_path / "r").to_frame().network) <= known
    assert go(table, strategy, 80, into=tmp_path / "r").front == whole.front


def test_the_exact_front_is_that_of_the_rows(table: Path) -> None:
    listed = space.get(f"table:{table}")
    cost = AdditiveTable(listed, lambda o: float(o.macs))
    gain = AdditiveTable(listed, lambda o: float(o.params))
    front = search.exact_front(listed, cost, gain)
    pairs = {(float(n.macs), -float(n.params)) for n in NETWORKS}
    expected = [p for p in pairs if not any(q[0] <= p[0] and q[1] <= p[1] for q in pairs - {p})]
    assert sorted(zip(front.cost, -front.gain, strict=True)) == sorted(expected)
