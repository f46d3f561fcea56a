"""What the controller learns on the MnasNet space, and what each of its parts adds.

No network is proposed twice: where it draws the same again, others that differ in a gene or a few
are evaluated instead.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from phonenas.search.accuracy import Surrogate
from phonenas.search.strategies.controller import Controller, Hyperparameters
from phonenas.search.strategies.reward import HARD, SOFT, rewards_of
from phonenas.space import AdditiveTable, get

pytest.importorskip("torch")

LAST = 500  # networks that are looked at
SEEDS = (0, 1)


class World:
    """The space with a latency from a made-up roofline, and a target that a fifth meets."""

    def __init__(self) -> None:
        self.space = get("mnasnet")
        self.latency = AdditiveTable(self.space, lambda o: 0.01 + (o.macs + o.params) / 4e7)
        self.top1 = Surrogate().on(self.space)
        self.blind = self.losses(self.space.sample(np.random.default_rng(9), 10_000))
        self.target = float(np.quantile(self.blind[:, 1], 0.2))

    def losses(self, genomes: Any) -> Any:
        return np.column_stack([1 - self.top1(genomes).top1, self.latency(genomes)])


world = cache(World)


@cache
def late(networks: int, seed: int, **part: Any) -> tuple[float, float]:
    """Mean reward of the last 500 of so many networks; entropy of what it would draw next, nats."""
    import torch

    exponents = part.pop("exponents", HARD)
    here, strategy = world(), Controller(seed, Hyperparameters(**part), exponents)
    strategy.start(here.space, here.target)
    told: list[Any] = []
    while (seen := sum(map(len, told))) < networks:
        genomes = strategy.ask(networks - seen)
        losses = here.losses(genomes)
        strategy.tell(genomes, losses, losses[:, 1] / here.target - 1)
        told.append(losses)
    rewards = rewards_of(np.concatenate(told)[-LAST:], here.target, strategy.exponents)
    strategy._places = np.full(100, 0.5)
    with torch.no_grad():
        left = strategy._log_shares(strategy._draw(strategy._places))[1].sum(dim=1).mean()
    return float(rewards.mean()), float(left)


def mean(**part: Any) -> tuple[float, float]:
    rewards, left = zip(*(late(2000, seed, **part) for seed in SEEDS), strict=True)
    return float(np.mean(rewards)), float(np.mean(left))


def level(exponents: tuple[float, float]) -> float:
    return float(np.quantile(rewards_of(world().blind, world().target, exponents), 0.95))


@pytest.mark.slow
def test_its_last_500_networks_are_above_the_95th_percentile_of_random_ones() -> None:
    assert late(1200, 1)[0] > level(HARD)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "exponents"), [(0, HARD), (1, HARD), (2, HARD), (0, SOFT), (1, SOFT)]
)
def test_and_so_with_any_seed_and_reward(seed: int, exponents: tuple[float, float]) -> None:
    assert late(2000, seed, exponents=exponents)[0] > level(exponents)


@pytest.mark.slow
def test_without_clipping_it_settles_sooner() -> None:
    (_, open_), (_, left) = mean(), mean(clip=None)
    assert left < 0.75 * open_


@pytest.mark.slow
def test_without_entropy_it_settles_sooner() -> None:
    (_, open_), (_, left) = mean(), mean(entropy=0.0)
    assert left < 0.75 * open_


@pytest.mark.slow
def test_without_a_baseline_it_hardly_learns() -> None:
    (whole, open_), (without, left) = mean(), mean(baseline=0)
    assert without < whole - 0.05
    assert left > open_  # every network is praised: the choices stay open
