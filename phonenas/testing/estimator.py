"""What every accuracy estimator must do; and trainings that are only simulated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from phonenas.search.accuracy import Accuracy, AccuracyEstimator
from phonenas.space import Architecture, SearchSpace, get

__all__ = ["EstimatorContract", "SimulatedTraining"]

_LAG, _LAG_SPREAD, _LAG_POWER = 0.12, 0.3, 0.15  # of an average network; relative; by MACs
_SPEED, _SPEED_SPREAD = 0.6, 0.25  # exponent of the curve; relative
_MACS, _IMAGES, _SEED_NOISE = 50e6, 1000, 0.01


class SimulatedTraining(AccuracyEstimator):
    """Learning curves made from accuracies that are known, at no cost.

    The error falls by a power of the epochs, to the known one after the last. How far a network
    lies behind after the first, and the power, differ from network to network, and larger ones
    lie farther behind. Each reading has the noise of 1,000 images and that of a seed, 0.01 after
    one epoch and falling with the root of the epochs. One epoch takes one second. The draws follow
    from the seed and the network's text.

    Args:
        top1: Of a network after all epochs, in [0, 1].
        epochs: Of the whole training, ≥ 2.
        seed: Of all draws.
        slow: Whether its answers are worth a file.
        broken: Networks, as text, that diverge after the first epoch.
    """

    name = "simulated"

    def __init__(
        self,
        top1: Callable[[Architecture], float],
        epochs: int = 9,
        seed: int = 0,
        slow: bool = False,
        broken: Sequence[str] = (),
    ) -> None:
        self.top1, self.epochs, self.seed, self.slow = top1, epochs, seed, slow
        self.broken = frozenset(broken)
        self.read_at = epochs
        self.trained: dict[str, int] = {}  # epochs of each network so far, of all that pause
        self.schedule = f"{epochs} simulated epochs"

    @property
    def digest(self) -> str:
        parts = f"simulated {self.epochs} {self.read_at} {self.seed}"
        return hashlib.sha256(parts.encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        return 0.0

    def after(self, epochs: int, folder: Path | None = None) -> SimulatedTraining:
        """As the class says; nothing is kept in the folder."""
        one = copy(self)
        one.read_at = epochs
        return one

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        rows = [self._read(architecture) for architecture in architectures]
        top1, error, seconds, failed = zip(*rows, strict=True) if rows else ((), (), (), ())
        columns = (np.array(top1, np.float64), np.array(error, np.float64))
        return Accuracy(*columns, np.zeros(len(rows), bool), failed, seconds)

    def _read(self, network: Architecture) -> tuple[float, float, float, str]:
        """Top-1, its standard error, seconds and why it failed."""
        text = str(network)
        draws = np.random.default_rng([self.seed, *hashlib.sha256(text.encode()).digest()[:8]])
        one, two, *noise = draws.standard_normal(2 + self.epochs)
        lag = _LAG * (network.macs / _MACS) ** _LAG_POWER * np.exp(_LAG_SPREAD * one)
        speed = _SPEED * np.exp(_SPEED_SPREAD * two)
        last = self.epochs**-speed
        left = (self.read_at**-speed - last) / (1 - last)
        share = float(np.clip(self.top1(network) - lag * left, 0.01, 0.99))
        error = float(np.sqrt(share * (1 - share) / _IMAGES + _SEED_NOISE**2 / self.read_at))
        seconds = float(max(0, self.read_at - self.trained.get(text, 0)))
        self.trained[text] = max(self.read_at, self.trained.get(text, 0))
        if text in self.broken and self.read_at > 1:
            return np.nan, np.nan, seconds, "it diverged"
        top1 = float(np.clip(share + error * noise[self.read_at - 1], 0.0, 1.0))
        return top1, error, seconds, ""


class EstimatorContract:
    """An estimator gives top-1 with its standard error, the same in whatever order it is asked.

    Give `estimator`, and `again` where it is not made without arguments. Slow ones also give few
    and small `networks`.
    """

    #: How far two answers for one network may lie apart, for sums taken in another order.
    tolerance = 1e-9

    @pytest.fixture
    def estimator(self) -> AccuracyEstimator:
        """The estimator under test."""
        raise NotImplementedError

    def again(self, estimator: AccuracyEstimator) -> AccuracyEstimator:
        """Another one, made with equal settings."""
        return type(estimator)()

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Whose genomes are asked for."""
        return get("mnasnet")

    @pytest.fixture
    def networks(self, space: SearchSpace) -> list[Architecture]:
        """Different networks of the space, 4 or more."""
        return [space.decode(g) for g in space.sample(np.random.default_rng(0), 40)]

    def same(self, one: Accuracy, other: Accuracy) -> None:
        """Assert that two answers are one."""
        for a, b in ((one.top1, other.top1), (one.standard_error, other.standard_error)):
            assert np.allclose(a, b, rtol=0, atol=self.tolerance, equal_nan=True)
        assert np.array_equal(one.outside, other.outside)
        assert one.failed == other.failed

    def test_top1_is_a_share_with_its_standard_error(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        accuracy = estimator.estimate(networks)
        assert len(accuracy) == len(networks)
        well = accuracy.well
        assert ((accuracy.top1[well] >= 0) & (accuracy.top1[well] <= 1)).all()
        assert (accuracy.standard_error[well] > 0).all()
        assert accuracy.outside.dtype == bool and accuracy.top1.dtype == np.float64

    def test_a_failure_has_a_reason_and_no_number(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        accuracy = estimator.estimate(networks)
        assert len(accuracy.failed) in (0, len(networks))
        reasons = accuracy.failed or ("",) * len(networks)
        for top1, error, why in zip(accuracy.top1, accuracy.standard_error, reasons, strict=True):
            assert np.isnan(top1) == np.isnan(error) == bool(why)

    def test_an_empty_list_gives_an_empty_result(
        self, estimator: AccuracyEstimator, space: SearchSpace
    ) -> None:
        none = space.sample(np.random.default_rng(0), 0)
        for accuracy in (estimator.estimate([]), estimator.on(space)(none), estimator.gathered([])):
            assert len(accuracy) == 0 and accuracy.failed == ()
        estimator.estimate_each([], lambda place, accuracy: pytest.fail("no network, but a result"))

    def test_an_estimate_does_not_depend_on_order_or_other_networks(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        accuracy = estimator.estimate(networks)
        backwards = estimator.estimate(networks[::-1])
        self.same(backwards.take(range(len(networks))[::-1]), accuracy)
        for place in (0, len(networks) - 1):
            self.same(estimator.estimate([networks[place]]), accuracy.take([place]))
        twice = estimator.estimate([networks[0], networks[1], networks[0]])
        self.same(twice, accuracy.take([0, 1, 0]))

    def test_estimate_each_reports_each_network_once_with_the_same_numbers(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        seen: dict[int, Accuracy] = {}

        def take(place: int, accuracy: Accuracy) -> None:
            assert place not in seen and len(accuracy) == 1
            assert len(accuracy.seconds) == 1 and accuracy.seconds[0] >= 0
            seen[place] = accuracy

        estimator.estimate_each(networks, take)
        assert sorted(seen) == list(range(len(networks)))
        self.same(
            Accuracy.joined(seen[i] for i in range(len(networks))), estimator.estimate(networks)
        )

    def test_genomes_and_networks_give_the_same_estimates(
        self, estimator: AccuracyEstimator, space: SearchSpace, networks: list[Architecture]
    ) -> None:
        genomes = np.array([space.encode(a) for a in networks])
        self.same(estimator.on(space)(genomes), estimator.estimate(networks))

    def test_equal_estimators_have_equal_digests_and_answers(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        other = self.again(estimator)
        assert estimator.digest == other.digest
        assert estimator.cost_s >= 0
        few = networks[:4]
        self.same(other.estimate(few), estimator.estimate(few))
