"""What every accuracy estimator must do."""

from __future__ import annotations

import numpy as np
import pytest

from phonenas.search.accuracy import Accuracy, AccuracyEstimator
from phonenas.space import Architecture, SearchSpace, get

__all__ = ["EstimatorContract"]


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
