"""NSGA-III: its directions, many objectives, and exact resume."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import latency_model, search
from phonenas.latency_model import LatencyModel, ready
from phonenas.search.accuracy import Surrogate
from phonenas.search.accuracy.imagenet.imagenet import ImageNet
from phonenas.search.strategies.pymoo_nsga3 import directions
from phonenas.space import SearchSpace, get
from phonenas.space.errors import InvalidArgument
from phonenas.testing import StrategyContract

TINY = TinySpace(resolution=32)


class TestNSGA3(StrategyContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return TINY

    def make(self, seed: int) -> search.Strategy:
        return search.NSGA3(seed=seed)


@pytest.mark.parametrize(
    ("objectives", "most", "count"),
    [(2, 100, 100), (3, 100, 91), (5, 210, 210), (8, 160, 156), (4, 4, 4)],
)
def test_directions_are_those_of_das_and_dennis(objectives: int, most: int, count: int) -> None:
    """Deb and Jain have 91 of 3 objectives, 210 of 5, and two layers, 120 and 36, of 8."""
    found = directions(objectives, most)
    assert found.shape == (count, objectives) and len(np.unique(found.round(9), axis=0)) == count
    assert (found >= 0).all() and found.sum(axis=1) == pytest.approx(1)
    inside = (found > 1e-9).all(axis=1).any()
    assert inside or most == 4  # each direction of a corner alone


def five(space: SearchSpace, genomes: Any) -> Any:
    """Five losses in conflict, (n, 5): each of some genes; the last is against all others."""
    share = genomes / (space.option_counts - 1).clip(1)
    some = [share[:, i::4].mean(axis=1) for i in range(4)]
    return np.column_stack([*some, 1 - share.mean(axis=1)])


def walk(strategy: search.Strategy, space: SearchSpace, networks: int) -> Any:
    asked = np.empty((0, len(space.decisions)), np.int8)
    while len(asked) < networks:
        genomes = strategy.ask(50)
        losses = five(space, genomes)
        strategy.tell(genomes, losses, losses[:, 0] - 0.9)
        asked = np.concatenate([asked, genomes])
    return asked


def test_five_objectives_resume_to_the_bit() -> None:
    space = get("mnasnet")
    whole = search.NSGA3(seed=3)
    whole.start(space, None, 5)
    before = walk(whole, space, 300)
    state = whole.state()
    arrays = {k: v.copy() for k, v in state.items() if isinstance(v, np.ndarray)}
    plain = json.loads(json.dumps({k: v for k, v in state.items() if k not in arrays}))
    after = walk(whole, space, 100)
    resumed = search.NSGA3(seed=3)
    resumed.start(space, None, 5)
    resumed.restore({**plain, **arrays}, before)
    assert np.array_equal(walk(resumed, space, 100), after)


@pytest.mark.slow
def test_with_four_objectives_it_finds_more_than_chance() -> None:
    """By the hypervolume of two seeds, which differ by 0.02."""
    space = get("mnasnet")
    model = latency_model.load(ready.file_of("pixel4/tflite/cpu-1large/float32"))
    box = [0.15, 0.0, 0.0, 0.0], [0.45, 100.0, 1.5e9, 1.5e7]
    volumes: dict[str, list[float]] = {"nsga3": [], "random": []}
    for name, seed in itertools.product(volumes, (0, 1)):
        front = search.run(
            space,
            latency=model,
            accuracy=ImageNet(),
            strategy=search.get(name, seed),
            spec=search.Spec(also=[search.Macs(), search.Params()]),
            evaluations=1500,
        )
        losses = [[1 - c.top1, c.latency_ms, c.macs, c.params] for c in front]
        volumes[name].append(search.hypervolume(np.array(losses), *box))
    assert min(volumes["nsga3"]) > 1.02 * max(volumes["random"])


def test_a_search_of_four_objectives_goes_on_to_the_same_front(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    def go(evaluations: int, into: str) -> search.Searched:
        return search.search(
            TINY,
            latency=fitted,
            accuracy=surrogate,
            strategy=search.get("nsga3", 2, given={"population": "40"}),
            spec=search.Spec(also=[search.Macs(), search.Params()]),
            evaluations=evaluations,
            into=tmp_path / into,
        )

    whole = go(90, "whole")
    go(37, "r")
    assert go(90, "r").front == whole.front
    assert search.load(tmp_path / "r", TINY).settings["population"] == 40


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="4 or more, got 3"):
        search.NSGA3(population=3)
