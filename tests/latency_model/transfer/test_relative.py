"""A new device from a source device and a few measurements; its expected error is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import space
from phonenas.data import Conditions, Measurement, Round
from phonenas.devices.simulated.roofline import Roofline
from phonenas.latency_model import LatencyModel
from phonenas.latency_model.calibration import FEATURES, Calibration
from phonenas.latency_model.fitting import fit_measurements
from phonenas.latency_model.lookup_table import LookupTable
from phonenas.latency_model.model import OperatorTimes
from phonenas.latency_model.transfer.relative import TransferModel, fit_transfer
from phonenas.latency_model.transfer.source_devices import choose_measurements, split
from phonenas.latency_model.units.regressor import OperatorRegressor, TransferRegressor
from phonenas.space import Architecture, Operator
from phonenas.space.errors import InvalidArgument, NotEnoughData, UncoveredOperator

OLD = Conditions("old", "m", "f", "ort", "1.0", "abc", "CPU", "all", 1, "big", "none")
NEW = replace(OLD, device="new")
SPACE = TinySpace(resolution=96)


@cache
def source() -> LatencyModel:
    """A phone measured in full: the whole is 0.9 of the sum and 0.4 ms."""
    phone = Roofline(seed=1)
    ms = {o: phone.time_ms(phone.costs(o)) for o in SPACE.operators()}
    c = Calibration((0.92, *(0.0 for _ in FEATURES[1:])), 0.4, 0.02, 0.5, 20.0, 20)
    table = LookupTable(ms, dict.fromkeys(ms, 0.01), "2026-01-01")
    times = OperatorTimes(conditions=OLD, table=table, regressor=None)
    return LatencyModel(times=times, calibration=c)


class Other:
    """A phone with other cores and fewer of them: small maps and memory weigh otherwise."""

    def __init__(self, noise: float = 0.01, seed: int = 0) -> None:
        self.phone, self.rng, self.noise = (
            Roofline(seed=2, cores="little"),
            np.random.default_rng(seed),
            noise,
        )

    def ms(self, model: Operator | Architecture) -> float:
        return self.phone.time_ms(self.phone.costs(model)) * self.rng.normal(1, self.noise)

    def measure(
        self, operators: Sequence[Operator], networks: Sequence[Architecture]
    ) -> list[Measurement]:
        found = [Measurement("operator", o.key, NEW, (Round((self.ms(o),)),)) for o in operators]
        return found + [
            Measurement("network", str(a), NEW, (Round((self.ms(a),)),)) for a in networks
        ]


def fresh(count: int) -> list[Architecture]:
    return [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(99), count)]


@cache
def fitted(count: int) -> TransferModel:
    measured = Other().measure(*choose_measurements(source(), SPACE, count))
    return fit_transfer(source(), NEW, measured, SPACE)


@pytest.mark.parametrize("count", [10, 24])
def test_a_few_measurements_predict_a_new_phone(count: int) -> None:
    found, networks = fitted(count), fresh(60)
    truth = np.array([Other(0.0).ms(a) for a in networks])
    predicted = found.model.predict(networks)
    off = np.abs(predicted.ms / truth - 1)
    known = source().latency_ms(networks)
    scaled = known * np.median(truth / known)
    assert off.mean() < 0.05
    assert off.mean() < np.abs(scaled / truth - 1).mean()
    # The expected error is right to a factor, and rather too high.
    assert 0.5 * off.mean() < found.expected_mape < 0.1
    assert np.mean((predicted.low_ms <= truth) & (truth <= predicted.high_ms)) > 0.85
    assert 1 < found.factor < 10
    assert (found.operators, found.networks) == split(count)


def test_more_measurements_lower_the_expected_error() -> None:
    assert fitted(24).expected_mape < fitted(10).expected_mape


def test_what_was_not_measured_has_an_error_and_is_not_covered() -> None:
    model = fitted(24).model
    network = fresh(1)[0]
    assert not model.predict([network]).covered[0]
    unseen = [o for o in SPACE.operators() if o not in model.table]
    regressor = model.regressor
    assert regressor is not None and all(regressor.reaches(o) for o in unseen)
    off = np.abs(regressor.predict_ms(unseen) / [Other(0.0).ms(o) for o in unseen] - 1)
    half_widths = 1.645 * regressor.standard_error(unseen)  # type: ignore[attr-defined]
    assert np.mean(off < half_widths) > 0.75
    assert model.scores["model"].n == len(model.examined) == split(24)[1]
    assert "relative" in model.scores


def test_the_choice_repeats_nothing_and_is_the_same_each_time() -> None:
    operators, networks = choose_measurements(source(), SPACE, 20)
    assert (len(set(operators)), len({str(a) for a in networks})) == split(20)
    assert (operators, networks) == choose_measurements(source(), SPACE, 20)
    assert set(operators) <= set(SPACE.operators())


def test_operators_alone_are_enough_to_fit() -> None:
    operators, _ = choose_measurements(source(), SPACE, 20)
    found = fit_transfer(source(), NEW, Other().measure(operators, ()), SPACE)
    assert found.networks == 0 and found.model.scores == {}
    # Nothing shows how its networks differ from their sums: the expected error is larger.
    assert found.expected_mape > fitted(24).expected_mape


@pytest.mark.slow
def test_a_source_measured_in_part_gives_what_it_predicts_too() -> None:
    named, phone = space.get("accel-nasbench"), Roofline(seed=1)
    networks = [named.decode(g) for g in named.sample(np.random.default_rng(5), 12)]
    part = list(dict.fromkeys(o for a in networks for o in a.operators()))
    measured = [
        Measurement(kind, subject, OLD, (Round((phone.time_ms(phone.costs(model)),)),))
        for kind, subject, model in (
            *(("operator", o.key, o) for o in part),
            *(("network", str(a), a) for a in networks),
        )
    ]
    whole = fit_measurements(OLD, measured)
    assert isinstance(whole.regressor, OperatorRegressor)
    others = [o for o in named.operators() if o not in whole.table]
    lacking = [o for o in others if whole.regressor.reaches(o)]
    assert len(lacking) > 3
    found = fit_transfer(whole, NEW, Other().measure(part[:8], networks[:8])).model.regressor
    assert isinstance(found, TransferRegressor)
    assert all(found.reaches(o) for o in [*part, *lacking])
    # The source's own error is part of theirs.
    assert (found.standard_error(lacking) >= whole.regressor.standard_error(lacking)).all()


@pytest.mark.parametrize("alike", [0.0, 0.3])
def test_what_the_source_predicts_itself_has_its_error_in_networks_too(alike: float) -> None:
    """The source measured two in five, and is off by 30 % in the rest, as it says."""
    whole, rng = source(), np.random.default_rng(4)
    ms = whole.table.ms
    kept = {o: t for o, t in ms.items() if rng.random() < 0.4}
    common, own = rng.normal(), dict(zip(ms, rng.normal(size=len(ms)), strict=True))
    told = {}
    for o in (o for o in ms if o not in kept):
        off = 0.3 * (alike**0.5 * common + (1 - alike) ** 0.5 * own[o])
        told[o] = (ms[o] * max(1 + off, 0.1), 0.3)
    table = LookupTable(kept, dict.fromkeys(kept, 0.01), "2026-01-01")
    times = OperatorTimes(
        conditions=OLD,
        table=table,
        regressor=TransferRegressor(told, "older"),
        error_correlation=alike,
    )
    measured = Other().measure(*choose_measurements(whole, SPACE, 24))
    found = fit_transfer(replace(whole, times=times), NEW, measured, SPACE)
    networks = fresh(60)
    truth = np.array([Other(0.0).ms(a) for a in networks])
    p = found.model.predict(networks)
    assert np.abs(p.ms / truth - 1).mean() < found.expected_mape < 0.1
    assert np.mean((p.low_ms <= truth) & (truth <= p.high_ms)) > 0.85
    assert found.expected_mape > 1.5 * fitted(24).expected_mape


def test_a_phone_unlike_its_source_expects_a_large_error() -> None:
    rng = np.random.default_rng(0)
    operators, networks = choose_measurements(source(), SPACE, 20)
    wild = [
        replace(m, rounds=(Round((m.latency_ms * float(np.exp(rng.normal(0, 0.5))),)),))
        for m in Other().measure(operators, networks)
    ]
    assert fit_transfer(source(), NEW, wild, SPACE).expected_mape > 2 * fitted(24).expected_mape


def test_too_few_and_uncovered_are_named() -> None:
    operators, _ = choose_measurements(source(), SPACE, 10)
    with pytest.raises(NotEnoughData, match=r"--like old --measurements 30"):
        fit_transfer(source(), NEW, Other().measure(operators[:4], ()), SPACE)
    with pytest.raises(NotEnoughData, match="name the space"):
        fit_transfer(source(), NEW, Other().measure(operators, ()))
    for count in (4, 10_000):
        with pytest.raises(InvalidArgument, match="like old"):
            choose_measurements(source(), SPACE, count)
    with pytest.raises(UncoveredOperator):
        choose_measurements(source(), TinySpace(resolution=64), 10)
