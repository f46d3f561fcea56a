"""What every search strategy must do."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from phonenas.search.strategies.base import Strategy
from phonenas.space import SearchSpace, get

__all__ = ["StrategyContract"]


class StrategyContract:
    """A strategy asks within the space, learns, and resumes to the bit."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Where it looks."""
        return get("mnasnet")

    def make(self, seed: int) -> Strategy:
        """A new strategy under test."""
        raise NotImplementedError

    def evaluate(
        self, space: SearchSpace, genomes: Any, objectives: int = 2, bound: float = 0.8
    ) -> tuple[Any, Any]:
        """Made-up, deterministic evaluations of (n, genes).

        Returns:
            Two losses in conflict, and with three objectives one below 0: (n, objectives); and by
            how much the first loss is above the bound, (n,).
        """
        share = genomes / (space.option_counts - 1).clip(1)
        first = share[:, ::2].mean(axis=1)
        second = 1 - share.mean(axis=1) + 0.1 * share[:, 0]
        losses = np.column_stack([first, second, -genomes[:, 1].astype(float)])
        return losses[:, :objectives], first - bound

    def walk(self, strategy: Strategy, space: SearchSpace, turns: int, *how: Any) -> list[Any]:
        """The genomes that a strategy asks for in some turns; `how` is given to `evaluate`."""
        asked = []
        for _ in range(turns):
            genomes = strategy.ask(50)
            space.check(genomes)
            strategy.tell(genomes, *self.evaluate(space, genomes, *how))
            asked.append(genomes)
        return asked

    def test_it_asks_for_1_to_n_genomes_of_the_space(self, space: SearchSpace) -> None:
        strategy = self.make(0)
        strategy.start(space)
        for genomes in self.walk(strategy, space, 5):
            assert 1 <= len(genomes) <= 50
            space.check(genomes)

    def test_equal_seeds_ask_for_equal_genomes_and_others_differ(self, space: SearchSpace) -> None:
        walks = []
        for seed in (3, 3, 4):
            strategy = self.make(seed)
            strategy.start(space)
            walks.append(np.concatenate(self.walk(strategy, space, 6)))
        assert np.array_equal(walks[0], walks[1])
        assert not np.array_equal(walks[0], walks[2])

    @pytest.mark.parametrize("target", [None, 0.6])
    @pytest.mark.parametrize(("objectives", "bound"), [(2, 0.8), (2, 0.5), (3, 0.5)])
    def test_state_resumes_to_the_bit(
        self, space: SearchSpace, target: float | None, objectives: int, bound: float
    ) -> None:
        unbroken = self.make(9)
        unbroken.start(space, target, objectives)
        before = self.walk(unbroken, space, 6, objectives, bound)
        state = unbroken.state()
        plain = json.dumps({k: v for k, v in state.items() if not isinstance(v, np.ndarray)})
        arrays = {k: v.copy() for k, v in state.items() if isinstance(v, np.ndarray)}
        after = self.walk(unbroken, space, 4, objectives, bound)
        resumed = self.make(9)
        resumed.start(space, target, objectives)
        resumed.restore({**json.loads(plain), **arrays}, np.concatenate(before))
        again = self.walk(resumed, space, 4, objectives, bound)
        assert np.array_equal(np.concatenate(again), np.concatenate(after))

    def test_it_accepts_a_target_and_fewer_results_than_it_asked_for(
        self, space: SearchSpace
    ) -> None:
        strategy = self.make(6)
        strategy.start(space, 0.6)
        for _ in range(6):
            genomes = strategy.ask(50)
            few = genomes[: max(1, len(genomes) // 2)]
            strategy.tell(few, *self.evaluate(space, few))
            space.check(genomes)

    def test_three_objectives_and_limits_are_deterministic(self, space: SearchSpace) -> None:
        asked = []
        for _ in range(2):
            strategy = self.make(8)
            strategy.start(space, None, 3)
            asked.append(np.concatenate(self.walk(strategy, space, 8, 3, 0.4)))
        assert np.array_equal(asked[0], asked[1])

    def test_a_smaller_n_gives_the_first_of_the_same_genomes(self, space: SearchSpace) -> None:
        asked = []
        for room in (50, 3):
            strategy = self.make(7)
            strategy.start(space)
            self.walk(strategy, space, 5)
            asked.append(strategy.ask(room))
        assert np.array_equal(asked[0][:3], asked[1])

    def test_settings_are_json_and_name_it(self) -> None:
        settings = self.make(1).settings
        assert json.loads(json.dumps(settings))["strategy"] == self.make(1).name
