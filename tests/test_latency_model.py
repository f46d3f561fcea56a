"""Lookup table, curve, calibration, intervals: honest on networks that were not used to fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TinySpace

from phonenas import data, latency_model, space
from phonenas.data import Conditions, Measurement, Round
from phonenas.latency_model import LatencyModel
from phonenas.latency_model.calibration import LATER_JOB, MINIMUM, calibrate
from phonenas.latency_model.fitting import choose_conditions, fit_measurements
from phonenas.latency_model.model_file import document
from phonenas.space.errors import NotEnoughData, UncoveredOperator, UnsupportedFormat

HERE = Conditions("lab", "m", "f", "ort", "1.0", "abc", "CPU", "all", 1, "big", "none")


def alone_ms(operator: space.Operator) -> float:
    return 0.01 + operator.macs / 3e7 + operator.params / 1e8


def made_up(
    n: int, noise: float = 0.02, drop: tuple[space.Operator, ...] = (), seed: int = 0
) -> tuple[list[Measurement], list[space.Architecture]]:
    """Measurements of a device whose networks take 0.9 of their sum plus 0.1 ms."""
    mnas = TinySpace(resolution=64)
    rng = np.random.default_rng(seed)
    networks = list({str(a): a for a in map(mnas.decode, mnas.sample(rng, 4 * n))}.values())[:n]

    def taken(kind: str, subject: str, ms: float) -> Measurement:
        return Measurement(kind, subject, HERE, (Round((ms,)), Round((ms * 1.001,))))  # type: ignore[arg-type]

    found = [taken("operator", o.key, alone_ms(o)) for o in mnas.operators() if o not in drop]
    for a in networks:
        whole = 0.9 * sum(map(alone_ms, a.operators())) + 0.1
        found.append(taken("network", str(a), whole * rng.normal(1, noise)))
    return found, networks


def test_calibration_finds_what_the_sum_lacks() -> None:
    measurements, _ = made_up(60, noise=0.005)
    model = fit_measurements(HERE, measurements)
    ours, raw, macs = (model.scores[k] for k in ("model", "lookup_table", "macs"))
    assert ours.n == raw.n == macs.n == 60
    assert ours.mape < 0.01 < raw.mape
    assert abs(ours.bias) < 0.003
    assert ours.mape < macs.mape
    assert ours.spearman > 0.99
    assert np.isnan(raw.coverage90)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_intervals_cover_about_nine_in_ten_of_new_networks(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Made-up networks know no later job: without its share the interval must be just right.
    monkeypatch.setattr("phonenas.latency_model.calibration.LATER_JOB", 0.0)
    inside = []
    for seed in range(6):
        measurements, _ = made_up(40, noise=noise, seed=seed)
        model = fit_measurements(HERE, measurements)
        fresh, networks = made_up(150, noise=noise, seed=100 + seed)
        measured = [m.latency_ms for m in fresh if m.kind == "network"]
        told = model.predict(networks)
        inside.append(np.mean((told.low_ms <= measured) & (measured <= told.high_ms)))
    assert 0.83 < np.mean(inside) < 0.98


def test_no_examined_network_taught_the_model_that_predicts_it() -> None:
    measurements, _ = made_up(30, noise=0.01)
    honest = fit_measurements(HERE, measurements)
    name = honest.examined[4].network
    spoiled = [
        Measurement(m.kind, m.subject, HERE, (Round((m.latency_ms * 3,)),))
        if m.subject == name
        else m
        for m in measurements
    ]
    told = {e.network: e for e in fit_measurements(HERE, spoiled).examined}
    # Tripling one network's time moves its own prediction by nothing at all.
    assert told[name].predicted_ms == pytest.approx(honest.examined[4].predicted_ms, rel=1e-9)
    assert told[name].measured_ms == pytest.approx(3 * honest.examined[4].measured_ms, rel=1e-3)


def test_holes_are_filled_by_the_curve_and_said() -> None:
    mnas = TinySpace(resolution=64)
    hole = next(o for o in mnas.operators() if o.kind == "mbconv" and o.expansion == 4)
    full, networks = made_up(40, noise=0.005)
    holed, _ = made_up(40, noise=0.005, drop=(hole,))
    a = next(n for n in networks if hole in n.operators())
    b = next(n for n in networks if hole not in n.operators())
    model, whole = fit_measurements(HERE, holed), fit_measurements(HERE, full)
    told = model.predict([a, b])
    assert told.covered.tolist() == [False, True]
    assert told.ms[0] == pytest.approx(whole.latency_ms([a])[0], rel=0.15)
    width = (told.high_ms / told.ms)[0]
    assert width > (told.high_ms / told.ms)[1]
    marked = {e.operator: e.measured for e in model.explain(a)}
    assert marked[hole] is False
    assert sum(not m for m in marked.values()) == 1


def test_what_is_beyond_is_an_error_never_a_zero(fitted: LatencyModel) -> None:
    with pytest.raises(UncoveredOperator, match="phonenas profile --device fake") as caught:
        fitted.latency_ms([space.zoo.network("mnasnet-a1")])
    assert "It covers" in str(caught.value)
    with pytest.raises(UncoveredOperator):
        fitted.on(space.MnasNet())


def test_population_and_network_agree(fitted: LatencyModel, tiny: TinySpace) -> None:
    genomes = tiny.sample(np.random.default_rng(5), 60)
    told = fitted.predict([tiny.decode(g) for g in genomes])
    assert np.allclose(fitted.on(tiny)(genomes), told.ms, rtol=1e-9)
    low, high, covered = fitted.intervals(tiny)(genomes)
    assert np.allclose(low, told.low_ms) and np.allclose(high, told.high_ms)
    assert (covered == told.covered).all()


def test_explained_milliseconds_add_up(fitted: LatencyModel, tiny: TinySpace) -> None:
    network = tiny.decode(tiny.sample(np.random.default_rng(6), 1)[0])
    shares = fitted.explain(network)
    assert sum(e.ms for e in shares) == pytest.approx(float(fitted.latency_ms([network])[0]))
    assert [e.operator for e in shares[:-1]] == list(network.operators())
    assert shares[-1].operator is None


def test_the_interval_widens_beyond_the_measured_range(fitted: LatencyModel) -> None:
    calibration = fitted.calibration
    middle = (calibration.low_ms + calibration.high_ms) / 2
    half = calibration.half_widths(
        np.array([middle, calibration.high_ms * 2, calibration.low_ms / 2])
    )
    assert half[0] == pytest.approx(np.hypot(calibration.half_width, LATER_JOB))
    assert half[1] == pytest.approx(np.hypot(4 * calibration.half_width, LATER_JOB))
    assert half[2] == pytest.approx(half[1])


def test_saved_and_loaded_is_the_same(
    fitted: LatencyModel, tiny: TinySpace, tmp_path: Path
) -> None:
    path = fitted.save(tmp_path / "m.json")
    again = latency_model.load(path)
    genomes = tiny.sample(np.random.default_rng(7), 30)
    assert np.allclose(again.on(tiny)(genomes), fitted.on(tiny)(genomes), rtol=1e-5)
    assert again.scores["model"].to_dict() == fitted.scores["model"].to_dict()
    assert again.digest == latency_model.load(path).digest
    assert again.save(tmp_path / "n.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, "has version 99; this phonenas reads version 2"),
        ({"format": "something"}, "no latency model of phonenas"),
        ({"operators": {"nonsense": [1, 1]}}, "damaged"),
        ({"calibration": {}}, "damaged"),
        ({"conditions": {}}, "damaged"),
        ({"operators": {"conv_k3_s1_14x14x8_8": [-1.0, 0.1]}}, "no positive number"),
    ],
)
def test_foreign_and_damaged_files_are_refused(
    fitted: LatencyModel, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({**document(fitted), **change}))
    with pytest.raises(UnsupportedFormat, match=words):
        latency_model.load(path)
    path.write_text("{")
    with pytest.raises(UnsupportedFormat, match="no latency model"):
        latency_model.load(path)
    with pytest.raises(NotEnoughData, match="phonenas fit"):
        latency_model.load(tmp_path / "absent.json")


def test_a_model_over_other_features_is_refused(fitted: LatencyModel, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    found = document(fitted)
    older = {**found["calibration"], "features": ["ms", "operators"], "coefficients": [1, 0]}
    path.write_text(json.dumps({**found, "calibration": older}))
    with pytest.raises(UnsupportedFormat, match="calibrated over ms, operators; this phonenas"):
        latency_model.load(path)
    short = {**found["calibration"], "coefficients": [1.0]}
    path.write_text(json.dumps({**found, "calibration": short}))
    with pytest.raises(UnsupportedFormat, match="damaged"):
        latency_model.load(path)


def test_validated_networks_teach_and_do_not_examine() -> None:
    measurements, _ = made_up(30, noise=0.01)
    chosen = [m for m in measurements if m.kind == "network"][:8]
    names = {m.subject for m in chosen}
    mixed = [replace(m, purpose="validation") if m.subject in names else m for m in measurements]
    model = fit_measurements(HERE, mixed)
    assert model.scores["model"].n == model.scores["macs"].n == 22
    assert not names & {e.network for e in model.examined}
    assert model.calibration.networks == 30


def test_too_little_data_is_said() -> None:
    measurements, _ = made_up(MINIMUM - 1)
    with pytest.raises(NotEnoughData, match="9 whole networks do not calibrate"):
        fit_measurements(HERE, measurements)
    with pytest.raises(NotEnoughData, match="no operator of lab is measured"):
        fit_measurements(HERE, [m for m in measurements if m.kind == "network"])
    with pytest.raises(NotEnoughData):
        calibrate(np.ones((3, 4)), np.ones(3))


def test_of_several_conditions_the_latest_is_fitted_and_simulated_never(tmp_path: Path) -> None:
    other = replace(HERE, runtime_version="2.0")
    simulated = replace(HERE, origin="simulated")
    with data.MeasurementStore(tmp_path / "s.db") as store:
        for day, conditions in enumerate((HERE, other, simulated)):
            p = store.pending(conditions, "operator", ["a"])["a"]
            store.add_rounds([(p.id, 0, Round((1.0,), at=f"2026-01-0{day + 1}"))])
            store.complete([p.id])
        assert choose_conditions(store, "lab") == (other, [HERE])
        assert choose_conditions(store, "lab", HERE.digest[:6]) == (HERE, [other])
        with pytest.raises(NotEnoughData, match="no measurement of 'pixel'"):
            choose_conditions(store, "pixel")


def test_fitting_is_deterministic() -> None:
    measurements, _ = made_up(25)
    assert (
        fit_measurements(HERE, measurements).digest == fit_measurements(HERE, measurements).digest
    )


def test_operators_have_intervals_that_hold_in_a_later_job() -> None:
    rng = np.random.default_rng(4)
    first, _ = made_up(30, noise=0.01)
    noisy = [
        Measurement(m.kind, m.subject, HERE, (Round((m.latency_ms * rng.lognormal(0, 0.05),)),))
        if m.kind == "operator"
        else m
        for m in first
    ]
    model = fit_measurements(HERE, noisy)
    operators = list(model.table.ms)
    told = model.operators(operators)
    later = np.array([alone_ms(o) * rng.lognormal(0, 0.05) for o in operators])
    assert told.covered.all() and np.allclose(told.ms, list(model.table.ms.values()))
    assert 0.82 < np.mean((told.low_ms <= later) & (later <= told.high_ms)) <= 1.0
    # They are not so wide as to say nothing.
    assert np.median(told.high_ms / told.low_ms) < 1.7
