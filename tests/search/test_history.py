"""What a search knows of all networks so far: how much the latest of them added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.search.evaluations import Evaluations
from phonenas.search.history import History
from phonenas.search.objectives import Function

ALSO = [Function(name, lambda _: 0.0) for name in ("a", "b", "c")]


def evaluated(tiny: TinySpace, n: int, seed: int = 0) -> Evaluations:
    """Networks with random numbers, some without an accuracy, all different."""
    rng = np.random.default_rng(seed)
    genomes = tiny.sample(rng, 4 * n)
    _, first = np.unique(np.array(tiny.keys(genomes)), return_index=True)
    genomes = genomes[np.sort(first)[:n]]
    assert len(genomes) == n
    top1 = rng.uniform(0.3, 0.7, n)
    top1[::17] = np.nan
    further = {o.name: rng.uniform(1, 9, n) for o in ALSO}
    failed = dict.fromkeys(range(0, n, 17), "diverged")
    zero = np.zeros(n)
    ms = rng.uniform(5, 20, n)
    return Evaluations(genomes, ms, top1, zero + 0.01, zero > 0, further, failed=failed)


def history(tiny: TinySpace) -> History:
    return History(tiny, search.Spec(search.Target(18.0), also=ALSO), "phone", "measured")


def test_what_the_latest_added_does_not_depend_on_when_it_was_asked(tiny: TinySpace) -> None:
    known = evaluated(tiny, 60)
    often = history(tiny)
    for end in range(10, 61, 10):
        often.remember(known.take(range(end - 10, end)))
        once = history(tiny)
        once.remember(known.take(range(end)))
        assert often.grown(15) == once.grown(15)
        # A longer share asks for fewer of the first ones than before.
        assert often.grown(25) == once.grown(25) >= once.grown(15)
    losses = often.spec.losses(known.take(np.flatnonzero(known.has_top1)))
    assert losses.shape[1] == 5 and 0 < often.grown(15) < 1
    again = replace(evaluated(tiny, 60, seed=1), genomes=known.genomes)
    often.update(again)  # other numbers of the same networks
    once = history(tiny)
    once.remember(again)
    assert often.grown(15) == once.grown(15)


def test_what_leaves_the_front_as_it_was_added_nothing(
    tiny: TinySpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One volume is computed of a front: in many dimensions that takes long."""
    known = evaluated(tiny, 30)
    whole = history(tiny)
    whole.remember(known)
    assert whole.grown(30) == whole.grown(31) == 1.0  # none before them
    worst = {"latency_ms": np.full(30, 19.0), "top1": np.full(30, 0.1), "failed": {}}
    others = evaluated(tiny, 60).take(range(30, 60))
    whole.remember(Evaluations(**{**vars(others), **worst}))

    computed = []

    def volume(_: Any, losses: Any, *__: Any) -> float:
        computed.append(len(losses))
        return 0.25

    monkeypatch.setattr(search.Spec, "volume", volume)
    assert whole.grown(30) == whole.grown(20) == 0.0 and whole.volume() == 0.25
    assert len(computed) == 1


def test_where_nothing_dominates_a_sampled_point_all_may_come_yet(tiny: TinySpace) -> None:
    known = evaluated(tiny, 30)
    none = {"top1": np.where(known.has_top1, 0.0, np.nan)}
    whole = history(tiny)
    whole.remember(Evaluations(**{**vars(known), **none}))
    assert whole.volume() == 0.0 and whole.grown(10) == 1.0


def rows_of(tiny: TinySpace, *rows: tuple[float, float, float, bool]) -> Evaluations:
    """Networks with these ms, top-1, errors, and whether top-1 is an extrapolation."""
    ms, top1, error, outside = map(np.array, zip(*rows, strict=True))
    genomes = evaluated(tiny, len(rows)).genomes
    return Evaluations(genomes, ms, top1, error, outside)


def test_an_extrapolated_network_is_on_a_front_only_where_it_is_clearly_better(
    tiny: TinySpace,
) -> None:
    known = rows_of(
        tiny,
        (1.0, 0.50, 0.05, True),  # the fastest
        (1.1, 0.53, 0.05, True),  # 0.48 at least, and the fastest is taken to have 0.50
        (1.2, 0.57, 0.05, True),
        (2.0, 0.56, 0.01, False),
        (2.1, 0.605, 0.05, True),  # 0.555 at least, and the one before has 0.56
        (2.2, 0.565, 0.0105, False),  # which keeps this one's place
        (3.0, 0.70, 0.05, True),
    )
    rows, left_out = search.Spec(trust=1.0).front(known)
    assert (rows.tolist(), left_out) == ([0, 2, 3, 5, 6], 2)
    rows, left_out = search.Spec().front(known)
    assert (rows.tolist(), left_out) == ([0, 1, 2, 4, 6], 0)
    unknown = replace(known, outside=np.ones(7, bool))  # nothing to compare them with
    rows, left_out = search.Spec(trust=1.0).front(unknown)
    assert (rows.tolist(), left_out) == ([0, 1, 2, 3, 4, 6], 0)


def test_left_out_are_those_that_would_be_on_the_front_otherwise(tiny: TinySpace) -> None:
    known = rows_of(
        tiny,
        (1.0, 0.50, 0.01, False),
        (1.1, 0.53, 0.03, True),  # 0.50 at least: no better than the one before
        (1.2, 0.30, 0.05, True),  # worse than the first by any measure
        (2.0, 0.60, 0.01, False),
        (2.0, 0.58, 0.05, True),  # as fast as the one before, and worse
        (3.0, 0.70, 0.05, True),
        (3.0, 0.70, 0.05, True),  # the same again
    )
    rows, left_out = search.Spec(trust=1.0).front(known)
    assert (rows.tolist(), left_out) == ([0, 3, 5], 1)


def test_a_front_is_by_rising_cost_and_has_one_of_equal_networks(tiny: TinySpace) -> None:
    known = rows_of(
        tiny,
        (4.0, 0.75, 0.05, True),
        (3.0, 0.60, 0.01, False),
        (2.0, 0.58, 0.01, True),
        (2.0, 0.58, 0.01, False),  # as good as the one before, and known
        (1.0, 0.40, 0.01, False),
    )
    rows, _ = search.Spec(trust=1.0).front(known)
    assert rows.tolist() in ([4, 2, 1, 0], [4, 3, 1, 0])
    assert search.Spec().front(known)[0].tolist() == [4, 2, 1, 0]


@pytest.mark.parametrize("further", [0, 1, 2])
def test_what_is_not_on_a_front_is_beaten_by_what_is(tiny: TinySpace, further: int) -> None:
    spec, extrapolated = search.Spec(trust=1.5, also=ALSO[:further]), 0
    for seed in range(20):
        known = evaluated(tiny, 60, seed)
        known = known.take(np.flatnonzero(known.has_top1))
        rng = np.random.default_rng(seed)
        outside = rng.random(len(known)) < 0.5
        known = replace(known, outside=outside, top1_error=np.where(outside, 0.06, 0.01))
        front, _ = spec.front(known)
        assert np.argmin(known.latency_ms) in front
        assert len({*front.tolist()}) == len(front)
        extrapolated += int(outside[front].sum())
        costs = np.column_stack([known.latency_ms, *(known.further[o.name] for o in spec.also)])
        least = known.top1 - 1.5 * known.top1_error
        for b in range(len(known)):
            best = (known.top1 if outside[b] else least)[front]
            beaten = (best >= least[b]) & (costs[front] <= costs[b]).all(axis=1) & (front != b)
            assert beaten.any() == (b not in front)
    assert extrapolated > 0


def test_a_run_keeps_how_many_extrapolated_networks_its_front_leaves_out(tiny: TinySpace) -> None:
    known = rows_of(tiny, (1.0, 0.5, 0.05, True), (1.1, 0.53, 0.05, True), (2.0, 0.56, 0.0, False))
    of = History(tiny, search.Spec(trust=1.0), "phone", "measured")
    of.remember(known)

    def intervals(genomes: Any) -> Any:
        return np.ones(len(genomes)), np.ones(len(genomes)), np.ones(len(genomes), bool)

    front = of.front(intervals)
    assert [c.latency_ms for c in front] == [1.0, 2.0] and front.left_out == 1
