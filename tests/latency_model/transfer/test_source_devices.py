"""A new device from a source device, on the command line: profile --like, then fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeDevice, TinySpace

from phonenas import data, devices
from phonenas.devices.simulated import SimulatedPhone
from phonenas.latency_model import LatencyModel
from phonenas.latency_model.transfer.source_devices import choose_for, fit_like, source_of
from phonenas.space import Architecture, Operator
from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.spaces.accel_nasbench import AccelNASBench
from tests.cli.test_app import Run, run

__all__ = ["run"]

SPACE = ("--space", "accel-nasbench", "--resolution", "32", "--quiet")


class Slower(FakeDevice):
    """1.7 times as slow, and slower still with heavy models."""

    name = "new"

    @staticmethod
    def true_ms(model: Path) -> float:
        return 1.7 * (0.2 + model.stat().st_size * 2.4e-6)


@pytest.fixture
def both(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The commands, with a source device and a new device; the minimum is lowered for speed."""

    def connect(name: str, *, threads: int = 1, precision: str | None = None) -> FakeDevice:
        if name not in ("fake", "new"):
            raise UnknownName(f"no device is called {name!r}")
        return FakeDevice() if name == "fake" else Slower()

    monkeypatch.setattr(devices, "connect", connect)
    monkeypatch.setattr("phonenas.latency_model.transfer.source_devices._OWN", 60)
    return run


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_new_device_from_a_few_measurements(both: Run, tmp_path: Path) -> None:
    both.json("profile", "--device", "fake", "--networks", "20", *SPACE)
    found = both.json(
        "profile", "--device", "new", "--like", "fake", "--measurements", "24", *SPACE
    )
    assert found["measured"] == 24
    assert (
        both.json("profile", "--device", "new", "--like", "fake", "--measurements", "24", *SPACE)[
            "measured"
        ]
        == 0
    )  # the same choice again

    report = both.json("fit", "--device", "new")
    assert report["operators"] + report["networks"] == 24
    relative = report["relative"]
    assert relative["device"] == "fake" and 1.6 < relative["factor"] < 2.1
    assert relative["expected_mape"] < 0.05 and relative["good_enough"]
    assert report["lookup_table"] is None

    # What it expects of its error is what the device then says.
    fresh = both.json(
        "profile", "--device", "new", "--operators", "1", "--networks", "12", "--seed", "5", *SPACE
    )
    assert fresh["measured"] >= 12
    with data.MeasurementStore(tmp_path / "phonenas.db") as store:
        (conditions,) = store.conditions("new")
        taken = store.measurements(conditions, "network")[-12:]
    rows = both.json(
        "predict", *(m.subject for m in taken), "--resolution", "32", "--device", "new", "--quiet"
    )
    off = [abs(r["latency_ms"] / m.latency_ms - 1) for r, m in zip(rows, taken, strict=True)]
    assert sum(off) / len(off) < max(2.5 * relative["expected_mape"], 0.02)
    inside = [r["low_ms"] <= m.latency_ms <= r["high_ms"] for r, m in zip(rows, taken, strict=True)]
    assert sum(inside) >= 10


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_source_that_cannot_be_used_is_an_error(both: Run) -> None:
    words = ("profile", "--device", "new", "--like")
    code, _, err = both(*words, "fake", *SPACE)
    assert code != 0 and "holds no measurement of 'fake'" in err
    both.json("profile", "--device", "fake", "--networks", "3", *SPACE)
    code, _, err = both(*words, "fake", *SPACE)
    assert code == 2 and "3 whole networks measured" in err and "phonenas profile" in err
    both.json("profile", "--device", "fake", "--networks", "12", *SPACE)
    code, _, err = both("profile", "--device", "fake", "--like", "fake", *SPACE)
    assert code == 2 and "not its own source device" in err
    for wrong in (("--measurements", "4"), ("--measurements", "100000"), ("--operators", "5")):
        code, _, err = both(*words, "fake", *wrong, *SPACE)
        assert code == 2 and "Traceback" not in err, wrong
    code, _, err = both("fit", "--device", "fake", "--like", "fake")
    assert code == 2 and "own source device" in err


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_few_operators_of_a_space(both: Run) -> None:
    found = both.json(
        "profile", "--device", "fake", "--operators", "40", "--networks", "15", *SPACE
    )
    assert found["measured"] == 55
    report = both.json("fit", "--device", "fake")
    assert report["operators"] == 40 and report["relative"] is None
    (row,) = both.json(
        "predict", "mnasnet-small", "--resolution", "32", "--device", "fake", "--quiet"
    )
    assert row["covered"] is False


def test_the_source_device_is_remembered(tmp_path: Path) -> None:
    conditions = FakeDevice().conditions
    with data.MeasurementStore(tmp_path / "s.db") as store:
        assert store.relative(conditions) is None
        store.set_relative(conditions, "big", "0123456789ab")
        store.set_relative(conditions, "bigger", "ba9876543210")
        assert store.relative(conditions) == ("bigger", "ba9876543210")
        json.dumps(store.relative(conditions))


def _ratio(operator: Operator) -> float:
    """Time in int8 by that in float32: by kind, by channels that fill no 16 bytes, by chance."""
    kind = operator.key.partition("_")[0].rstrip("0123456789")
    ratio = {"stem": 1.7, "dsconv": 1.1, "mbconv": 0.7, "head": 0.5}.get(kind, 0.9)
    for channels in (operator.in_channels, operator.out_channels):
        ratio *= 1.0 if channels % 16 == 0 else 1.15
    return ratio * (1.25 if operator.se_channels else 1.0) * (0.97 + 0.06 * (len(kind) % 2))


def _int8_ms(network: Architecture, phone: SimulatedPhone) -> float:
    """A network in int8: its operators, 3 % less for what is warm, and a time of its own."""
    return 0.3 + 0.97 * sum(_ratio(o) * phone.truth_ms(o) for o in network.operators())


def _fill(
    store: data.MeasurementStore,
    rng: np.random.Generator,
    kind: Any,
    conditions: data.Conditions,
    ms: dict[str, float],
) -> None:
    """Three rounds of each subject, whose times scatter by a percent."""
    pending = store.pending(conditions, kind, list(ms))
    store.add_rounds(
        [
            (p.id, n, data.Round((ms[text] * float(rng.normal(1, 0.01)),)))
            for text, p in pending.items()
            for n in range(3)
        ]
    )
    store.complete([p.id for p in pending.values()])


@pytest.mark.slow
def test_the_device_itself_is_a_source_in_another_precision(tmp_path: Path) -> None:
    """15 operators and 15 networks in int8, of a phone whose float32 table is complete."""
    space, phone = AccelNASBench(), SimulatedPhone("sim")
    small = SimulatedPhone("sim")
    small.precision = "int8"
    rng = np.random.default_rng(3)
    networks = [space.decode(g) for g in space.sample(rng, 60)]

    def fill(kind: Any, conditions: data.Conditions, ms: dict[str, float]) -> None:
        _fill(store, rng, kind, conditions, ms)

    with data.MeasurementStore(tmp_path / "s.db", create=True) as store:
        fill("operator", phone.conditions, {o.key: phone.truth_ms(o) for o in space.operators()})
        fill("network", phone.conditions, {str(a): phone.truth_ms(a) for a in networks[:20]})
        operators, wholes = choose_for(store, small.conditions, "sim", space, 30)
        assert (len(operators), len(wholes)) == (15, 15)
        with pytest.raises(InvalidArgument, match="31 networks are not among 30"):
            choose_for(store, small.conditions, "sim", space, 30, 31)
        fill(
            "operator", small.conditions, {o.key: _ratio(o) * phone.truth_ms(o) for o in operators}
        )
        fill("network", small.conditions, {str(a): _int8_ms(a, phone) for a in wholes})
        few = store.measurements(small.conditions)
        source = source_of(store, small.conditions, few)
        assert source is not None and source.conditions == phone.conditions
        own = [m for m in few if m.kind == "operator"]
        # Without a remembered source it is the same one, and none for a full table of its own.
        bare = replace(small.conditions, governor="other")
        assert source_of(store, bare, few) is None
    found = fit_like(source, small.conditions, few)
    assert "fitted from sim in float32, 15 operators and 15 networks" in str(found)
    assert len(own) == 15 and found.to_dict()["precision"] == "float32"
    held_out = [a for a in networks[20:] if a not in wholes]
    truth = np.array([_int8_ms(a, phone) for a in held_out])
    error = np.abs(found.model.predict(held_out).ms / truth - 1).mean()
    by_float = source.latency_ms(held_out)
    one_factor = np.abs(by_float * np.median(truth / by_float) / truth - 1).mean()
    assert error < 0.05 and error < 0.6 * one_factor


@pytest.mark.slow
def test_float32_is_the_source_of_a_few_measurements_in_int8_that_name_none(tmp_path: Path) -> None:
    """From 50 operators and 10 networks on, it is not: int8 has a model of its own."""
    space, phone, small = TinySpace(resolution=32), SimulatedPhone("sim"), SimulatedPhone("sim")
    small.precision = "int8"
    rng = np.random.default_rng(5)
    networks = [space.decode(g) for g in space.sample(rng, 12)]
    operators = sorted(space.operators(), key=lambda o: o.key)
    assert len(operators) >= 54
    with data.MeasurementStore(tmp_path / "s.db", create=True) as store:
        _fill(
            store, rng, "operator", phone.conditions, {o.key: phone.truth_ms(o) for o in operators}
        )
        _fill(
            store, rng, "network", phone.conditions, {str(a): phone.truth_ms(a) for a in networks}
        )

        def source(count: int, wholes: int) -> LatencyModel | None:
            of = {o.key: _ratio(o) * phone.truth_ms(o) for o in operators[:count]}
            _fill(store, rng, "operator", small.conditions, of)
            of = {str(a): _int8_ms(a, phone) for a in networks[:wholes]}
            _fill(store, rng, "network", small.conditions, of)
            return source_of(store, small.conditions, store.measurements(small.conditions))

        assert store.relative(small.conditions) is None
        for count, wholes in ((15, 0), (15, 9), (18, 10)):
            found = source(count, wholes)
            assert found is not None and found.conditions == phone.conditions
        assert source(50, 10) is None
