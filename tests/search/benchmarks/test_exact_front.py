"""The exact front against every network of a small space, and the additive accuracy behind it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pytest

from phonenas import space
from phonenas.search.accuracy import AccuracyEstimator, Additive, Surrogate
from phonenas.search.benchmarks.exact_front import exact_front
from phonenas.space import AdditiveTable, SearchSpace
from phonenas.space.errors import InvalidArgument
from phonenas.testing import EstimatorContract


class Few(space.AccelNASBench):
    """46,656 genomes."""

    name = "few"

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        wide = ("block1", "block2", "block4")
        found = super().decisions
        return {n: o if n.startswith(wide) else o[:1] for n, o in found.items()}


class FewFilters(space.MnasNet):
    """Filters tie each block to the next; 6,561 genomes."""

    name = "few-filters"

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        found = super().decisions
        free = ("filters", "block2_op")
        return {n: o if n.endswith("filters") or n in free else o[-1:] for n, o in found.items()}


def tables(chosen: SearchSpace, seed: int) -> tuple[AdditiveTable, AdditiveTable]:
    rng = np.random.default_rng(seed)
    drawn = {o: rng.uniform(0.1, 1, 2) for o in chosen.operators()}
    return (
        AdditiveTable(chosen, lambda o: float(drawn[o][0])),
        AdditiveTable(chosen, lambda o: float(drawn[o][1]), 0.25),
    )


@pytest.mark.parametrize("made", [Few, FewFilters])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_the_front_of_all_genomes(made: type[SearchSpace], seed: int) -> None:
    chosen = made(64)
    cost, gain = tables(chosen, seed)
    every = np.array(list(product(*map(range, chosen.option_counts))), np.int8)
    c, g = cost(every), gain(every)
    order = np.lexsort((-g, c))
    best = np.maximum.accumulate(g[order])
    truth = order[np.concatenate([[True], best[1:] > best[:-1] + 1e-12])]
    found = exact_front(chosen, cost, gain)
    assert len(found) == len(truth) > 5
    assert np.allclose(found.cost, c[truth]) and np.allclose(found.gain, g[truth])
    assert np.allclose(cost(found.genomes), found.cost)
    assert np.allclose(gain(found.genomes), found.gain)


def test_no_sample_of_a_great_space_beats_it() -> None:
    chosen = space.get("mnasnet")
    cost, gain = tables(chosen, 3)
    front = exact_front(chosen, cost, gain)
    assert chosen.size > 1e18 and len(front) > 20
    drawn = chosen.sample(np.random.default_rng(0), 20_000)
    best = front.gain[np.searchsorted(front.cost, cost(drawn), side="right") - 1]
    assert (cost(drawn) >= front.cost[0]).all() and (best >= gain(drawn) - 1e-9).all()
    # Nor does any neighbour of a member.
    near = chosen.mutate(np.repeat(front.genomes, 20, axis=0), np.random.default_rng(1))
    at = np.searchsorted(front.cost, cost(near) + 1e-9, side="right") - 1
    assert (gain(near) <= front.gain[np.maximum(at, 0)] + 1e-9).all()


def test_a_step_bounds_what_is_lost() -> None:
    chosen = space.get("mnasnet")
    cost, gain = tables(chosen, 4)
    front, coarse = exact_front(chosen, cost, gain), exact_front(chosen, cost, gain, step=0.05)
    assert len(coarse) < len(front)
    reach = 0.05 * len(chosen.parts)
    at = np.searchsorted(coarse.cost, front.cost + reach, side="right") - 1
    assert (coarse.gain[at] >= front.gain - 1e-9).all()


def test_tables_of_another_space_are_refused() -> None:
    cost, gain = tables(Few(64), 0)
    with pytest.raises(InvalidArgument, match="same space"):
        exact_front(Few(64), cost, gain)
    own = cost.space
    with pytest.raises(InvalidArgument):
        exact_front(own, cost, AdditiveTable(own, lambda o: (1.0, 2.0)))


class TestAdditive(EstimatorContract):
    taught = Additive()  # it learns when first asked

    @pytest.fixture
    def estimator(self) -> AccuracyEstimator:
        return self.taught

    def test_it_ranks_as_its_teacher_does(self, estimator: Additive) -> None:
        from scipy.stats import kendalltau

        assert all(0.001 < d < 0.012 for d in estimator.distance.values())
        for name in ("mnasnet", "accel-nasbench"):
            chosen = space.get(name)
            genomes = chosen.sample(np.random.default_rng(11), 800)
            told, truth = estimator.on(chosen)(genomes), Surrogate().on(chosen)(genomes)
            assert kendalltau(told.top1, truth.top1).statistic > 0.85
            assert (told.standard_error >= truth.standard_error).all()

    def test_it_is_a_sum(self, estimator: Additive) -> None:
        chosen = space.get("mnasnet")
        genomes = chosen.sample(np.random.default_rng(12), 50)
        assert np.array_equal(estimator.table(chosen)(genomes), estimator.on(chosen)(genomes).top1)
