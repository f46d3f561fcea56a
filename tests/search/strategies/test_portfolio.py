"""The models behind `surrogate`: what they learn, whom they trust, and that names do not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phonenas import search
from phonenas.search.benchmarks.table import Table, walk
from phonenas.search.benchmarks.table_space import TableSpace
from phonenas.search.pareto import hypervolume
from phonenas.search.strategies.gene_process import GeneProcess, one_hot
from phonenas.search.strategies.portfolio import Mixture, Portfolio
from phonenas.search.strategies.surrogate_assisted import (
    chebyshev_improvement,
    expected_improvement,
)

COUNTS = np.array([3, 2, 4, 5])


def drawn(n: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(0, c, n) for c in COUNTS]).astype(np.int8)


def worth(genomes: Any) -> Any:
    """A sum, and a pair of genes that matter together alone."""
    pair = (genomes[:, 1] == 1) & (genomes[:, 2] == 2)
    return np.array([0.0, 2.0, 1.0])[genomes[:, 0]] + 3.0 * pair


@pytest.mark.parametrize("per_option", [False, True])
def test_slopes_are_those_of_differences(per_option: bool) -> None:
    process, genomes = GeneProcess(COUNTS, per_option=per_option), drawn(40)
    rng = np.random.default_rng(1)
    target = worth(genomes) + rng.normal(0, 0.1, 40)
    target = (target - target.mean()) / target.std()
    p = process.hyperparameters + rng.normal(0, 0.5, len(process.hyperparameters))
    hot = one_hot(genomes, COUNTS)
    for i, step in enumerate(1e-5 * np.eye(len(p))):
        rise = process._misfit(p + step, hot, target)[0] - process._misfit(p - step, hot, target)[0]
        assert process._misfit(p, hot, target)[1][i] == pytest.approx(rise / 2e-5, abs=1e-6)


def test_a_process_learns_sums_and_pairs_and_knows_what_it_does_not_know() -> None:
    process, known, new = GeneProcess(COUNTS, per_option=False), drawn(80), drawn(200, 5)
    process.learn(one_hot(known, COUNTS), worth(known), steps=20)
    expected, deviation = process.predict(one_hot(new, COUNTS))
    assert np.corrcoef(expected, worth(new))[0, 1] > 0.98
    few = GeneProcess(COUNTS, per_option=False)
    few.learn(one_hot(known[:8], COUNTS), worth(known[:8]))
    assert few.predict(one_hot(new, COUNTS))[1].mean() > 3 * deviation.mean()


def test_leaving_one_out_is_a_prediction_without_it() -> None:
    genomes, process = drawn(30), GeneProcess(COUNTS, per_option=True)
    y = worth(genomes) + np.random.default_rng(2).normal(0, 0.2, 30)
    y = (y - y.mean()) / y.std()
    process.learn(one_hot(genomes, COUNTS), y)
    expected, deviation = process.leave_one_out(y)
    others = GeneProcess(COUNTS, per_option=True)
    rest = y[1:]
    others.learn(one_hot(genomes[1:], COUNTS), rest)
    # The same but for the mean and the spread that rows are scaled by.
    alone = others.predict(one_hot(genomes[:1], COUNTS))
    assert expected[0] == pytest.approx(alone[0][0], abs=0.05)
    assert deviation[0] == pytest.approx(alone[1][0], rel=0.05)


def renumbered(genomes: Any, seed: int) -> Any:
    """Options numbered anew."""
    rng, codes = np.random.default_rng(seed), genomes.copy()
    for i, count in enumerate(COUNTS):
        codes[:, i] = rng.permutation(count)[genomes[:, i]]
    return codes


def test_numbers_of_options_change_no_prediction() -> None:
    genomes = drawn(60)
    y, told = worth(genomes) + genomes[:, 3] ** 2, []
    for codes in (genomes, renumbered(genomes, 1), renumbered(genomes, 2)):
        portfolio, hot = Portfolio(COUNTS), one_hot(codes, COUNTS)
        portfolio.learn(hot[:25], y[:25], optimise=True)
        told.append(portfolio.predict(hot[25:]).mean())
    assert told[1] == pytest.approx(told[0], abs=0.02)
    assert told[2] == pytest.approx(told[0], abs=0.02)


@pytest.mark.parametrize("bent", [False, True], ids=["sum", "product"])
def test_the_scale_that_fits_is_trusted(bent: bool) -> None:
    genomes, portfolio = drawn(120), Portfolio(COUNTS)
    each = np.random.default_rng(3).normal(0, 0.5, (4, 5))
    y = each[range(4), genomes].sum(axis=1)
    y = np.exp(2.5 * y) if bent else y
    portfolio.learn(one_hot(genomes[:80], COUNTS), y[:80], optimise=True)
    trust = portfolio.weights.reshape(3, 2).sum(axis=1)
    assert trust[0] < 0.01 if bent else trust[0] > 0.9
    expected = portfolio.predict(one_hot(genomes[80:], COUNTS)).mean()
    ranks = [np.argsort(np.argsort(v)) for v in (expected, y[80:])]
    assert np.corrcoef(*ranks)[0, 1] > 0.97


def test_errors_ahead_take_trust_away() -> None:
    genomes, portfolio = drawn(100), Portfolio(COUNTS)
    y, hot = worth(genomes), one_hot(genomes, COUNTS)
    portfolio.learn(hot, y, optimise=True)
    before = portfolio.weights.copy()
    best = int(before.argmax())
    bad = np.full((50, len(before)), 0.01)
    bad[:, best] = 1.0
    portfolio.restore(portfolio.hyperparameters, bad)
    portfolio.learn(hot, y, optimise=False)
    assert portfolio.weights[best] < 0.1 < before[best]


@pytest.mark.parametrize(
    "y",
    [np.full(60, 3.0), np.r_[np.zeros(59), 1.0], np.repeat([0.0, 1.0, 5.0], 20)],
    ids=["constant", "one other", "ties"],
)
def test_values_that_hardly_change_are_borne(y: Any) -> None:
    portfolio, genomes = Portfolio(COUNTS), drawn(60)
    hot = one_hot(genomes, COUNTS)
    portfolio.learn(hot, y, optimise=True)
    portfolio.observe(hot[:5], y[:5] + 7.0)
    portfolio.learn(hot, y, optimise=False)
    mixture = portfolio.predict(hot)
    assert np.isfinite(mixture.values).all() and mixture.shares.sum() == pytest.approx(1)
    assert np.isfinite(portfolio.at_most(hot, 0.5)).all()


def test_the_chance_to_stay_below_a_bound_is_learned() -> None:
    portfolio, genomes = Portfolio(COUNTS), drawn(100)
    over = np.where(genomes[:, 3] >= 3, 10.0, -0.2)  # failures stand far above all others
    portfolio.learn(one_hot(genomes, COUNTS), over, optimise=True)
    chance = portfolio.at_most(one_hot(drawn(100, 9), COUNTS), 0.0)
    fails = drawn(100, 9)[:, 3] >= 3
    assert chance[~fails].min() > 0.8 and chance[fails].max() < 0.2


def normal(mean: float, deviation: float) -> Mixture:
    nodes = np.linspace(-4, 4, 801)
    shares = np.exp(-(nodes**2) / 2)
    return Mixture(mean + deviation * nodes[None], shares / shares.sum())


def test_expected_gain_is_that_of_draws() -> None:
    rng = np.random.default_rng(0)
    front, corner = np.array([[0.2, 0.7], [0.4, 0.5], [0.7, 0.1], [0.8, 0.9]]), np.ones(2)
    before = hypervolume(front, (-9.0, -9.0), (1.0, 1.0))
    for e, d in (((0.3, 0.4), (0.1, 0.2)), ((0.75, 0.3), (0.05, 0.3))):
        got = expected_improvement(normal(e[0], d[0]), normal(e[1], d[1]), front, corner)[0]
        gains = [
            100 * (hypervolume(np.concatenate([front, y[None]]), (-9, -9), (1, 1)) - before)
            for y in rng.normal(e, d, (4000, 2))
        ]
        assert got == pytest.approx(np.mean(gains), rel=0.1)
    certain = expected_improvement(normal(0.3, 0.0), normal(0.4, 0.0), front, corner)[0]
    after = hypervolume(np.concatenate([front, [[0.3, 0.4]]]), (-9, -9), (1, 1))
    assert certain == pytest.approx(100 * (after - before))


def test_gain_of_a_weighted_greatest_loss() -> None:
    """Front (0.5, 0.5, 0.5), corner 1: the bar is the front's own, and half of it is left."""
    front, corner, weights = np.full((1, 3), 0.5), np.ones(3), np.full(3, 1 / 3)
    drawn = np.array([[[0.5, 0.5, 0.5]], [[0.0, 0.0, 0.0]], [[0.0, 0.0, 1.1]]])
    gain = chebyshev_improvement(drawn, front, corner, weights)
    # Ranges of 0.5; each loss falls by one range: 1/3 of the greatest and 0.05 of the sum.
    assert gain == pytest.approx([0, 1 / 3 + 0.05, 0])


def test_some_proposals_are_random_or_mutants_of_the_front_whatever_the_models_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, strategy = table(0), search.get("surrogate", 0)
    strategy.start(case.space)
    first = case.space.genomes[:20]
    best = np.full((20, 2), 0.9)
    best[7] = 0.1  # the front is one network
    strategy.tell(first, best, np.zeros(20))
    monkeypatch.setattr(strategy, "_learn", lambda: None)
    model = case.space.genomes[600:601]
    monkeypatch.setattr(strategy, "_proposed", lambda front, corner, n: model.repeat(n, axis=0))
    asked: list[Any] = []
    while len(asked) < 60:
        genomes = strategy.ask(1000)
        asked.extend(genomes)
        strategy.tell(genomes, np.full((len(genomes), 2), 0.9), np.zeros(len(genomes)))
    other = np.flatnonzero((np.array(asked) != model).any(axis=1))
    assert len(other) == 18  # of 60: one in five, and one in ten
    apart = (np.array(asked)[other] != first[7]).sum(axis=1)
    mutants = other % 10 == 7
    assert mutants.sum() == 6 and (apart[mutants] == 1).all()
    assert apart[~mutants].mean() > 2


def table(seed: int) -> Table:
    """1,024 genomes; options of each gene numbered and named by the seed."""
    rng = np.random.default_rng(0)
    codes = np.stack(np.meshgrid(*[range(4)] * 5, indexing="ij"), -1).reshape(-1, 5)
    cost = rng.uniform(0, 1, (5, 4))[range(5), codes].sum(axis=1)
    quality = cost / 3 + rng.normal(0, 0.3, (5, 4))[range(5), codes].sum(axis=1)
    quality += rng.normal(0, 0.1, len(codes))
    order = np.random.default_rng(seed)
    named = np.empty_like(codes, np.int8)
    for i in range(5):
        named[:, i] = order.permutation(4)[codes[:, i]]
    decisions = {f"g{i}": tuple(f"{order.integers(99)}{o}" for o in "abcd") for i in range(5)}
    return Table(TableSpace(decisions, named), np.column_stack([quality, cost]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "budget"), [("nsga2", 80), ("surrogate", 28), ("weighted", 80)])
def test_names_and_numbers_of_options_do_not_matter(name: str, budget: int) -> None:
    shares: list[list[float]] = [[], []]
    for seed in range(12):
        for i, case in enumerate((table(0), table(100 + seed))):
            rows = walk(search.get(name, seed), case, budget).rows
            shares[i].append(case.hypervolume(rows) / case.hypervolume())
    first, second = np.array(shares)
    error = float(np.hypot(first.std(ddof=1), second.std(ddof=1)) / 12**0.5)
    assert first.std() > 0  # the budget does not find all in each run
    assert abs(first.mean() - second.mean()) < 2 * error
