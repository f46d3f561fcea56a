"""The contracts that phonenas ships, asked of what this package adds."""

from __future__ import annotations

import pytest
from phonenas_example.space import SmallSpace
from phonenas_example.strategy import HillClimbing
from phonenas_example.transport import LowPriority

from phonenas.devices.transports.base import Transport
from phonenas.search.strategies.base import Strategy
from phonenas.space import SearchSpace
from phonenas.testing import SpaceContract, StrategyContract, TransportContract


class TestHillClimbing(StrategyContract):
    def make(self, seed: int) -> Strategy:
        return HillClimbing(seed)


class TestSmallSpace(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return SmallSpace()


class TestLowPriority(TransportContract):
    @pytest.fixture
    def transport(self) -> Transport:
        return LowPriority("background", "5")
