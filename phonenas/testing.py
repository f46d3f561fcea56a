"""The contracts as test classes: for us, and for whoever owns another phone or writes a strategy.

Subclass one, give its fixture, and pytest asks your class the same questions as ours::

    class TestMyDevice(DeviceContract):
        @pytest.fixture
        def device(self):
            return MyDevice("10.0.0.7")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .devices import Device, Job
from .devices.simulated import SimulatedPhone
from .devices.timing import SENTINEL
from .search.accuracy import Accuracy, AccuracyEstimator
from .search.strategy import Strategy
from .space import Architecture, MnasNet, SearchSpace
from .space.errors import DeviceUnavailable

__all__ = [
    "DeviceContract",
    "EstimatorContract",
    "SimulatedPhone",
    "SpaceContract",
    "StrategyContract",
]


class DeviceContract:
    """A device runs model files, tells what it is, and says no in our words."""

    @pytest.fixture
    def device(self) -> Device:
        """The device under test, not yet entered."""
        raise NotImplementedError

    @pytest.fixture
    def sentinel(self, device: Device, tmp_path: Path) -> Path:
        return device.lower(SENTINEL, tmp_path / "sentinel")

    #: Whether each sample is one inference; a program that prints statistics gives one a model.
    every_inference = True

    def run(self, device: Device, jobs: list[Job], sentinel: Path) -> list[Any]:
        return list(device.run_ms(jobs, sentinel=sentinel, warmup_runs=2, warmup_s=0.0))

    def test_readings_come_in_order_and_are_times(self, device: Device, sentinel: Path) -> None:
        with device:
            readings = self.run(device, [Job(sentinel, 4), Job(sentinel, 7)], sentinel)
        assert [r.error for r in readings] == ["", ""]
        assert [len(r.samples_ms) for r in readings] == ([4, 7] if self.every_inference else [1, 1])
        for r in readings:
            assert len(r.sentinel_ms) == len(r.samples_ms)
            assert all(0 < t < 60_000 for t in r.samples_ms + r.sentinel_ms)
            assert r.provider == device.conditions.provider

    def test_a_file_that_is_no_model_is_an_error_and_the_next_one_runs(
        self, device: Device, sentinel: Path
    ) -> None:
        broken = sentinel.with_name(f"broken{sentinel.suffix}")
        broken.write_bytes(b"no model")
        with device:
            bad, good = self.run(device, [Job(broken, 3), Job(sentinel, 3)], sentinel)
        assert bad.error
        assert not bad.samples_ms
        assert not good.error
        assert len(good.samples_ms) == (3 if self.every_inference else 1)

    def test_conditions_are_equal_from_one_connection_to_the_next(self, device: Device) -> None:
        with device:
            first = device.conditions
        with device:
            assert device.conditions == first
        assert first.device == device.name
        assert all(v not in ("", None) for v in first.to_dict().values())
        assert device.fingerprint == first.fingerprint

    def test_circumstances_are_json(self, device: Device) -> None:
        with device:
            assert isinstance(json.loads(json.dumps(device.circumstances())), dict)

    def test_state_can_be_told_without_entering(self, device: Device) -> None:
        state = device.state()
        assert state.name == device.name
        assert state.cores > 0

    def test_it_may_be_left_twice_and_entered_again(self, device: Device, sentinel: Path) -> None:
        with device:
            device.__exit__(None, None, None)  # as after a loss
            device.__enter__()
            (reading,) = self.run(device, [Job(sentinel, 2)], sentinel)
            assert not reading.error
            device.__exit__(None, None, None)

    def test_its_clock_goes_on_while_it_pauses(self, device: Device) -> None:
        before = device.now_s()
        device.pause(0.02)
        assert device.now_s() - before >= 0.02

    def test_it_refuses_to_run_outside_its_context(self, device: Device, sentinel: Path) -> None:
        with pytest.raises(DeviceUnavailable):
            self.run(device, [Job(sentinel, 1)], sentinel)
        with device:
            pass
        with pytest.raises(DeviceUnavailable):
            self.run(device, [Job(sentinel, 1)], sentinel)


class SpaceContract:
    """A space samples, mutates, decodes and encodes consistently."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError

    def test_decode_and_encode_are_inverse(self, space: SearchSpace) -> None:
        for genome in space.sample(np.random.default_rng(0), 20):
            network = space.decode(genome)
            assert space.decode(space.encode(network)) == network
            assert network in space

    def test_a_mutant_stays_and_differs(self, space: SearchSpace) -> None:
        rng = np.random.default_rng(1)
        before = space.sample(rng, 200)
        after = space.check(space.mutate(before, rng))
        assert not (space.identities(before) == space.identities(after)).all(axis=1).any()

    def test_networks_are_equal_when_identities_are(self, space: SearchSpace) -> None:
        genomes = space.sample(np.random.default_rng(2), 300)
        networks = [space.decode(g).operators() for g in genomes]
        assert len(set(networks)) == len(set(space.keys(genomes)))

    def test_operators_are_complete(self, space: SearchSpace) -> None:
        known = set(space.operators())
        for genome in space.sample(np.random.default_rng(3), 50):
            assert set(space.decode(genome).operators()) <= known


class StrategyContract:
    """A strategy asks within the space, learns, and resumes to the bit."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Where it looks."""
        return MnasNet()

    def make(self, seed: int) -> Strategy:
        """A new strategy under test."""
        raise NotImplementedError

    def judge(self, space: SearchSpace, genomes: Any) -> tuple[Any, Any]:
        """A made-up, deterministic judgement: two losses in conflict, and a limit."""
        share = genomes / (space.option_counts - 1).clip(1)
        first = share[:, ::2].mean(axis=1)
        second = 1 - share.mean(axis=1) + 0.1 * share[:, 0]
        return np.column_stack([first, second]), first - 0.8

    def walk(self, strategy: Strategy, space: SearchSpace, turns: int) -> list[Any]:
        asked = []
        for _ in range(turns):
            genomes = strategy.ask(50)
            strategy.tell(genomes, *self.judge(space, genomes))
            asked.append(genomes)
        return asked

    def test_it_asks_within_the_space_and_no_more_than_allowed(self, space: SearchSpace) -> None:
        strategy = self.make(0)
        strategy.start(space)
        for genomes in self.walk(strategy, space, 5):
            assert 1 <= len(genomes) <= 50
            space.check(genomes)

    def test_equal_seeds_are_equal_and_others_differ(self, space: SearchSpace) -> None:
        walks = []
        for seed in (3, 3, 4):
            strategy = self.make(seed)
            strategy.start(space)
            walks.append(np.concatenate(self.walk(strategy, space, 6)))
        assert np.array_equal(walks[0], walks[1])
        assert not np.array_equal(walks[0], walks[2])

    def test_state_resumes_to_the_bit(self, space: SearchSpace) -> None:
        unbroken = self.make(5)
        unbroken.start(space)
        before = self.walk(unbroken, space, 4)
        state = unbroken.state()
        plain = json.dumps({k: v for k, v in state.items() if not isinstance(v, np.ndarray)})
        kept = {k: v.copy() for k, v in state.items() if isinstance(v, np.ndarray)}
        after = np.concatenate(self.walk(unbroken, space, 4))
        resumed = self.make(5)
        resumed.start(space)
        resumed.restore({**json.loads(plain), **kept}, np.concatenate(before))
        assert np.array_equal(np.concatenate(self.walk(resumed, space, 4)), after)

    @pytest.mark.parametrize("target", [None, 0.6])
    @pytest.mark.parametrize("objectives", [2, 3])
    def test_state_resumes_to_the_bit_with_all_that_may_be_asked(
        self, space: SearchSpace, target: float | None, objectives: int
    ) -> None:
        def walk(strategy: Strategy, turns: int) -> Any:
            asked = []
            for _ in range(turns):
                genomes = strategy.ask(50)
                losses, _ = self.judge(space, genomes)
                third = -genomes[:, 1].astype(float)
                losses = np.column_stack([losses, third])[:, :objectives]
                strategy.tell(genomes, losses, losses[:, 0] - 0.5)
                asked.append(genomes)
            return np.concatenate(asked)

        unbroken = self.make(9)
        unbroken.start(space, target, objectives)
        before = walk(unbroken, 6)
        state = unbroken.state()
        plain = json.dumps({k: v for k, v in state.items() if not isinstance(v, np.ndarray)})
        kept = {k: v.copy() for k, v in state.items() if isinstance(v, np.ndarray)}
        after = walk(unbroken, 4)
        resumed = self.make(9)
        resumed.start(space, target, objectives)
        resumed.restore({**json.loads(plain), **kept}, before)
        assert np.array_equal(walk(resumed, 4), after)

    def test_a_target_may_be_given_and_fewer_told_than_asked(self, space: SearchSpace) -> None:
        strategy = self.make(6)
        strategy.start(space, 0.6)
        for _ in range(6):
            genomes = strategy.ask(50)
            told = genomes[: max(1, len(genomes) // 2)]
            strategy.tell(told, *self.judge(space, told))
            space.check(genomes)

    def test_more_objectives_and_limits(self, space: SearchSpace) -> None:
        def judged(genomes: Any) -> tuple[Any, Any]:
            losses, _ = self.judge(space, genomes)
            third = -genomes[:, 1].astype(float)  # of a sign that costs do not have
            return np.column_stack([losses, third]), losses[:, 0] - 0.4

        asked = []
        for _ in range(2):
            strategy = self.make(8)
            strategy.start(space, None, 3)
            turns = []
            for _ in range(8):
                genomes = strategy.ask(50)
                space.check(genomes)
                strategy.tell(genomes, *judged(genomes))
                turns.append(genomes)
            asked.append(np.concatenate(turns))
        assert np.array_equal(asked[0], asked[1])

    def test_a_smaller_room_only_cuts_off(self, space: SearchSpace) -> None:
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


class EstimatorContract:
    """An estimator gives shares with their doubt, the same ones whoever asks and however.

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
        return MnasNet()

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

    def test_shares_with_their_doubt(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        told = estimator.estimate(networks)
        assert len(told) == len(networks)
        well = told.well
        assert ((told.top1[well] >= 0) & (told.top1[well] <= 1)).all()
        assert (told.standard_error[well] > 0).all()
        assert told.outside.dtype == bool and told.top1.dtype == np.float64

    def test_a_failure_has_a_reason_and_no_number(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        told = estimator.estimate(networks)
        assert len(told.failed) in (0, len(networks))
        reasons = told.failed or ("",) * len(networks)
        for top1, error, why in zip(told.top1, told.standard_error, reasons, strict=True):
            assert np.isnan(top1) == np.isnan(error) == bool(why)

    def test_no_networks_are_no_trouble(
        self, estimator: AccuracyEstimator, space: SearchSpace
    ) -> None:
        none = space.sample(np.random.default_rng(0), 0)
        for told in (estimator.estimate([]), estimator.on(space)(none), estimator.gathered([])):
            assert len(told) == 0 and told.failed == ()
        estimator.estimate_each([], lambda place, told: pytest.fail("there was nothing to tell"))

    def test_neither_company_nor_order_matters(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        told = estimator.estimate(networks)
        backwards = estimator.estimate(networks[::-1])
        self.same(backwards.take(range(len(networks))[::-1]), told)
        for place in (0, len(networks) - 1):
            self.same(estimator.estimate([networks[place]]), told.take([place]))
        twice = estimator.estimate([networks[0], networks[1], networks[0]])
        self.same(twice, told.take([0, 1, 0]))

    def test_each_is_told_once_and_alike(
        self, estimator: AccuracyEstimator, networks: list[Architecture]
    ) -> None:
        seen: dict[int, Accuracy] = {}

        def take(place: int, told: Accuracy) -> None:
            assert place not in seen and len(told) == 1
            assert len(told.seconds) == 1 and told.seconds[0] >= 0
            seen[place] = told

        estimator.estimate_each(networks, take)
        assert sorted(seen) == list(range(len(networks)))
        self.same(
            Accuracy.joined(seen[i] for i in range(len(networks))), estimator.estimate(networks)
        )

    def test_by_genome_and_by_network_alike(
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
