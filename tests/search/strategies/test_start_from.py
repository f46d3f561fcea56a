"""A search that starts from known networks: evaluated first, counted, and part of its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Surrogate
from phonenas.search.strategies.start_from import StartFrom
from phonenas.space import Architecture, MnasNet, SearchSpace
from phonenas.space.errors import InvalidArgument, NotInSpace, SettingsChanged
from phonenas.testing import StrategyContract


def drawn(space: SearchSpace, count: int) -> list[Architecture]:
    return [space.decode(g) for g in space.sample(np.random.default_rng(5), count)]


TINY = TinySpace(resolution=32)


class TestStartFrom(StrategyContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return TINY

    def make(self, seed: int) -> search.Strategy:
        return StartFrom(search.get("nsga2", seed), drawn(TINY, 23))


def go(
    fitted: LatencyModel, surrogate: Surrogate, strategy: search.Strategy, n: int, into: Path
) -> search.Searched:
    return search.search(
        TINY, latency=fitted, accuracy=surrogate, strategy=strategy, evaluations=n, into=into
    )


STRATEGIES = [
    *("nsga2", "random", "weighted"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("rl", "surrogate")),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("first", [12, 40])
def test_known_networks_come_first_and_the_search_goes_on_from_them(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path, strategy: str, first: int
) -> None:
    if strategy == "rl":
        pytest.importorskip("torch")
    known = drawn(TINY, 31)
    distinct = list(dict.fromkeys(map(str, known)))
    made = StartFrom(search.get(strategy, seed=2), [*known, known[3]])
    assert len(made.networks) == len(distinct) == 30
    found = go(fitted, surrogate, made, 80, tmp_path / "whole")
    assert (found.strategy, found.evaluations) == (strategy, 80)
    evaluated = search.load(tmp_path / "whole", TINY).to_frame()
    assert list(evaluated.network[: len(distinct)]) == distinct
    assert evaluated.network.nunique() == 80
    expected = fitted.latency_ms(known[:5])
    assert evaluated.latency_ms[:5].to_numpy() == pytest.approx(expected)
    if first < len(distinct):
        with pytest.raises(InvalidArgument, match="starts from 30 networks and evaluates 12"):
            go(fitted, surrogate, made, first, tmp_path / "r")
        return
    go(fitted, surrogate, StartFrom(search.get(strategy, seed=2), known), first, tmp_path / "r")
    again = StartFrom(search.get(strategy, seed=2), known)
    assert go(fitted, surrogate, again, 80, tmp_path / "r").front == found.front


@pytest.mark.fault(
    "A search is to start from a network that its space does not hold.",
    "`the search cannot start from`",
    "Leave it out, or search a space that holds it.",
)
def test_a_network_outside_the_space_is_refused_by_name(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    known = [*drawn(TINY, 2), MnasNet(32).example()]
    strategy = StartFrom(search.get("random"), known)
    with pytest.raises(NotInSpace) as refused:
        go(fitted, surrogate, strategy, 20, tmp_path / "r")
    assert f"the search cannot start from '{MnasNet(32).example()}'" in str(refused.value)
    assert not (tmp_path / "r" / "run.json").exists()


def test_other_networks_are_another_search(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    known = drawn(TINY, 3)
    go(fitted, surrogate, StartFrom(search.get("random"), known), 20, tmp_path / "r")
    other: Any
    for other in (search.get("random"), StartFrom(search.get("random"), known[::-1])):
        with pytest.raises(SettingsChanged, match=r"start_from was '3 networks \([0-9a-f]{12}\)'"):
            go(fitted, surrogate, other, 40, tmp_path / "r")
    with pytest.raises(InvalidArgument, match="from one known network or more, got none"):
        StartFrom(search.get("random"), [])
