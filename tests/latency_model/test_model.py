"""Lookup table, regressor, calibration, intervals: right on networks that were not used to fit."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace, undigested

from phonenas import data, latency_model, search, space
from phonenas.data import Conditions, Measurement, Round
from phonenas.latency_model import LatencyModel, model_path, outliers, ready
from phonenas.latency_model.calibration import Calibration, calibrate
from phonenas.latency_model.fitting import choose_conditions, fit_measurements, networks_uncovered
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    UncoveredOperator,
    UnsupportedFormat,
)
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture
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
        # type: ignore[arg-type]
        return Measurement(kind, subject, HERE, (Round((ms,)), Round((ms * 1.001,))))

    found = [taken("operator", o.key, alone_ms(o)) for o in mnas.operators() if o not in drop]
    for a in networks:
        whole = 0.9 * sum(map(alone_ms, a.operators())) + 0.1
        found.append(taken("network", str(a), whole * rng.normal(1, noise)))
    return found, networks


def odd_ms(operator: space.Operator) -> float:
    """What no model here assumes: channels in blocks of 32, and a cliff where the cache ends."""
    blocks = -(-operator.out_channels // 32) * 32 / operator.out_channels
    map_numbers = operator.in_channels * operator.in_px**2
    cliff = 1.6 if map_numbers > 12_000 or operator.params > 200_000 else 1.0
    return (0.01 + blocks * operator.macs / 3e7 + operator.params / 1e8) * cliff


def odd_whole_ms(network: space.Architecture) -> float:
    """Where two operators of one map size meet, the second runs fused, for 0.7 of its time."""
    operators = network.operators()
    fused = [b.in_px == a.in_px == a.out_px for a, b in pairwise(operators)]
    times = [
        odd_ms(o) * (0.7 if f else 1.0) for o, f in zip(operators, [False, *fused], strict=True)
    ]
    return 0.2 + sum(times)


def test_a_phone_that_breaks_every_assumption_is_predicted_and_covered() -> None:
    tiny, rng = TinySpace(resolution=64), np.random.default_rng(8)
    drawn = list({str(a): a for a in map(tiny.decode, tiny.sample(rng, 400))}.values())
    fresh, known = drawn[:80], drawn[80:125]
    # Every fifth operator was never measured, so the regressor must meet cliff and blocks.
    missing = set(tiny.operators()[2::5])
    found = [
        Measurement("operator", o.key, HERE, (Round((odd_ms(o) * rng.normal(1, 0.01),)),))
        for o in tiny.operators()
        if o not in missing
    ]
    found += [
        Measurement("network", str(a), HERE, (Round((odd_whole_ms(a) * rng.normal(1, 0.01),)),))
        for a in known
    ]
    model = fit_measurements(HERE, found)
    truth = np.array([odd_whole_ms(a) * rng.normal(1, 0.01) for a in fresh])
    predicted = model.predict(fresh)
    mape = np.abs(predicted.ms / truth - 1).mean()
    assert not predicted.covered.all()
    assert mape < 0.02
    assert mape < 0.25 * model.scores["lookup_table"].mape
    assert mape < model.scores["macs"].mape
    assert 0.5 < model.scores["model"].mape / mape < 2
    assert np.mean((predicted.low_ms <= truth) & (truth <= predicted.high_ms)) >= 0.85


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


def test_a_scaled_model_predicts_all_networks_slower(fitted: LatencyModel, tiny: TinySpace) -> None:
    networks = [tiny.decode(g) for g in tiny.sample(np.random.default_rng(9), 20)]
    slower, predicted = fitted.scaled(1.04), fitted.predict(networks)
    assert slower.latency_ms(networks) == pytest.approx(1.04 * predicted.ms)
    assert slower.predict(networks).high_ms == pytest.approx(1.04 * predicted.high_ms)
    bias = slower.scores["model"].bias - fitted.scores["model"].bias
    assert bias == pytest.approx(0.04, abs=0.005)
    # The model that it was made from is as it was.
    assert fitted.predict(networks).ms == pytest.approx(predicted.ms, rel=1e-12)
    assert slower.digest != fitted.digest


def test_an_operators_interval_holds_a_later_jobs_four_percent(fitted: LatencyModel) -> None:
    predicted = fitted.operators(list(fitted.table.ms)[:10])
    exact = replace(
        fitted.times,
        regressor=None,
        table=replace(fitted.table, spread=dict.fromkeys(fitted.table.ms, 0.0)),
    )
    alone = exact.predict(list(fitted.table.ms)[:10])
    assert alone.high_ms / alone.ms == pytest.approx(np.full(10, 1.04))
    assert alone.ms / alone.low_ms == pytest.approx(np.full(10, 1.04))
    assert (predicted.high_ms >= alone.high_ms).all()


def test_a_whole_networks_interval_holds_a_later_jobs_four_percent() -> None:
    def widths(own: float) -> list[float]:
        calibration = Calibration((1.0,) + (0.0,) * 6, 0.0, own, 1.0, 100.0, networks=20)
        return [float(w) for w in calibration.half_widths(np.array([1.0, 20.0, 100.0]))]

    assert widths(0.0) == pytest.approx([0.04] * 3)
    assert widths(0.03) == pytest.approx([0.05] * 3)  # √(0.03² + 0.04²)


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
        predicted = model.predict(networks)
        inside.append(np.mean((predicted.low_ms <= measured) & (measured <= predicted.high_ms)))
    assert 0.83 < np.mean(inside) < 0.98


def test_a_ready_model_is_scaled_in_all_that_it_predicts() -> None:
    model = ready.load("pixel4/tflite/cpu-1large/float32")
    slower, mnas = model.scaled(1.3), space.MnasNet()
    genomes = mnas.sample(np.random.default_rng(2), 20)
    networks = [mnas.decode(g) for g in genomes]
    before, after = model.predict(networks), slower.predict(networks)
    for name in ("ms", "low_ms", "high_ms"):
        assert np.allclose(getattr(after, name), 1.3 * getattr(before, name), rtol=1e-9)
    assert np.allclose(slower.on(mnas)(genomes), after.ms, rtol=1e-7)
    low, high, _ = slower.intervals(mnas)(genomes)
    assert np.allclose(low, after.low_ms) and np.allclose(high, after.high_ms)


def test_each_network_of_the_score_is_predicted_by_a_model_not_fitted_on_it() -> None:
    measurements, _ = made_up(30, noise=0.01)
    honest = fit_measurements(HERE, measurements)
    name = honest.examined[4].network
    spoiled = [
        Measurement(m.kind, m.subject, HERE, (Round((m.latency_ms * 1.5,)),))
        if m.subject == name
        else m
        for m in measurements
    ]
    by_name = {e.network: e for e in fit_measurements(HERE, spoiled).examined}
    # Half as much again for one network moves its own prediction by nothing at all.
    assert by_name[name].predicted_ms == pytest.approx(honest.examined[4].predicted_ms, rel=1e-9)
    assert by_name[name].measured_ms == pytest.approx(
        1.5 * honest.examined[4].measured_ms, rel=1e-3
    )


def test_unmeasured_operators_are_predicted_and_marked() -> None:
    mnas = TinySpace(resolution=64)
    missing_one = next(o for o in mnas.operators() if o.kind == "mbconv" and o.expansion == 4)
    full, networks = made_up(40, noise=0.005)
    partial, _ = made_up(40, noise=0.005, drop=(missing_one,))
    a = next(n for n in networks if missing_one in n.operators())
    b = next(n for n in networks if missing_one not in n.operators())
    model, whole = fit_measurements(HERE, partial), fit_measurements(HERE, full)
    predicted = model.predict([a, b])
    assert predicted.covered.tolist() == [False, True]
    assert predicted.ms[0] == pytest.approx(whole.latency_ms([a])[0], rel=0.15)
    width = (predicted.high_ms / predicted.ms)[0]
    assert width > (predicted.high_ms / predicted.ms)[1]
    marked = {e.operator: e.measured for e in model.explain(a)}
    assert marked[missing_one] is False
    assert {o for o, measured in marked.items() if not measured} == {missing_one, None}


def test_a_network_that_cannot_be_computed_takes_no_part_in_the_fit(
    run: Run, tmp_path: Path
) -> None:
    measurements, networks = made_up(12, noise=0.01)
    far = Measurement("network", str(space.zoo.network("mnasnet-a1")), HERE, (Round((9.0,)),))
    model = fit_measurements(HERE, [*measurements, far])
    without = fit_measurements(HERE, measurements)
    assert networks_uncovered(model, [*measurements, far]) == [far.subject]
    assert len(model.examined) == 12
    assert model.latency_ms(networks).tolist() == without.latency_ms(networks).tolist()
    # Where too few are left, the fit names what is missing.
    few = [m for m in measurements if m.kind == "operator" or m.subject == str(networks[0])]
    with pytest.raises(UncoveredOperator, match="Measure what is missing"):
        fit_measurements(HERE, [*few, far])
    with data.MeasurementStore(tmp_path / "s.db") as store:
        for m in (*measurements, far):
            id = store.pending(HERE, m.kind, [m.subject])[m.subject].id
            store.add_rounds([(id, i, r) for i, r in enumerate(m.rounds)])
            store.complete([id])
    code, out, err = run("fit", "--device", "lab", "--db", str(tmp_path / "s.db"), "--json")
    assert code == 0 and json.loads(out)["networks_left_out"] == [far.subject], err
    code, out, err = run("fit", "--device", "lab", "--db", str(tmp_path / "s.db"))
    assert "1 network with operators that were not measured and cannot be predicted" in out
    told = next(line for line in out.splitlines() if "cannot be predicted" in line)
    assert shlex.split(told.split("as:  ")[1])[-1] == far.subject


def test_what_is_beyond_is_an_error_never_a_zero(fitted: LatencyModel) -> None:
    with pytest.raises(UncoveredOperator, match="phonenas profile --device fake") as caught:
        fitted.latency_ms([space.zoo.network("mnasnet-a1")])
    assert "It covers" in str(caught.value)
    with pytest.raises(UncoveredOperator):
        fitted.on(space.get("mnasnet"))


def test_population_and_network_agree(fitted: LatencyModel, tiny: TinySpace) -> None:
    genomes = tiny.sample(np.random.default_rng(5), 60)
    predicted = fitted.predict([tiny.decode(g) for g in genomes])
    assert np.allclose(fitted.on(tiny)(genomes), predicted.ms, rtol=1e-9)
    low, high, covered = fitted.intervals(tiny)(genomes)
    assert np.allclose(low, predicted.low_ms) and np.allclose(high, predicted.high_ms)
    assert (covered == predicted.covered).all()


def test_the_exact_front_is_found_on_a_model(fitted: LatencyModel, tiny: TinySpace) -> None:
    gain = space.AdditiveTable(tiny, lambda o: float(o.params))
    front = search.exact_front(tiny, fitted.on(tiny), gain)
    genomes = tiny.sample(np.random.default_rng(8), 200)
    ms, params = fitted.predict([tiny.decode(g) for g in genomes]).ms, gain(genomes)
    assert len(front.cost) > 1
    for one_ms, one_params in zip(ms, params, strict=True):
        assert ((front.cost <= one_ms + 1e-9) & (front.gain >= one_params)).any()


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
    assert half[0] == pytest.approx(np.hypot(calibration.half_width, 0.04))
    assert half[1] == pytest.approx(np.hypot(4 * calibration.half_width, 0.04))
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


@pytest.mark.fault(
    "The file of a latency model is damaged, newer, or another file.",
    "`is damaged`; `is not a latency model`",
    "Fit it again.",
)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"version": 2},
            r"reads versions 3 to 4 \(its times were divided by the sentinel's, and are now ",
        ),
        ({"version": 99}, "has version 99; this phonenas reads versions 3 to 4"),
        ({"format": "something"}, "not a latency model of phonenas"),
        ({"operators": {"nonsense": [1, 1]}}, "damaged"),
        ({"calibration": {}}, "damaged"),
        ({"conditions": {}}, "damaged"),
        ({"version": 4}, "its digest is another"),
        ({"operators": {"conv_k3_s1_14x14x8_8": [-1.0, 0.1]}}, "expected number > 0"),
    ],
)
def test_foreign_and_damaged_files_are_refused(
    fitted: LatencyModel, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({**undigested(fitted.to_dict(), version=3), **change}))
    with pytest.raises(UnsupportedFormat, match=words):
        latency_model.load(path)
    path.write_text("{")
    with pytest.raises(UnsupportedFormat, match="not a latency model"):
        latency_model.load(path)
    with pytest.raises(NotEnoughData, match="phonenas fit"):
        latency_model.load(tmp_path / "absent.json")


def test_a_file_of_an_earlier_phonenas_loads(fitted: LatencyModel, tmp_path: Path) -> None:
    """Its keys are those of version 0.1, which this file spells out."""
    values = fitted.to_dict()
    del values["last"]  # the first files of this version had no entry of the store
    assert list(values) == [
        "format",
        "version",
        "conditions",
        "date",
        "until",
        "measurements",
        "alike",
        "operators",
        "calibration",
        "scores",
        "examined",
        "regressor",
    ]
    assert (values["format"], values["version"]) == ("phonenas-latency-model", 4)
    assert "holes" in values["calibration"]
    assert {"strengths", "widening", "taught", "share", "trees"} <= set(values["regressor"])
    del values["calibration"]["holes"]  # as the first files of this version had it
    path = tmp_path / "old.json"
    path.write_text(json.dumps(undigested(values, version=3)))
    assert latency_model.load(path).calibration.uncovered == 0.0


def test_a_model_over_other_features_is_refused(fitted: LatencyModel, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    found = undigested(fitted.to_dict(), version=3)
    older = {**found["calibration"], "features": ["ms", "operators"], "coefficients": [1, 0]}
    path.write_text(json.dumps({**found, "calibration": older}))
    with pytest.raises(UnsupportedFormat, match="calibrated over ms, operators; this phonenas"):
        latency_model.load(path)
    short = {**found["calibration"], "coefficients": [1.0]}
    path.write_text(json.dumps({**found, "calibration": short}))
    with pytest.raises(UnsupportedFormat, match="damaged"):
        latency_model.load(path)


def test_validated_networks_are_fitted_on_and_not_scored() -> None:
    measurements, _ = made_up(30, noise=0.01)
    chosen = [m for m in measurements if m.kind == "network"][:8]
    names = {m.subject for m in chosen}
    mixed = [replace(m, purpose="validation") if m.subject in names else m for m in measurements]
    model = fit_measurements(HERE, mixed)
    assert model.scores["model"].n == model.scores["macs"].n == 22
    assert not names & {e.network for e in model.examined}
    assert model.calibration.networks == 30


def test_too_little_data_is_an_error() -> None:
    measurements, _ = made_up(9)
    with pytest.raises(NotEnoughData, match=r"9 whole network\(s\) do not calibrate"):
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


def stored(store: data.MeasurementStore, kind: Any, *conditions: Conditions) -> None:
    for one in conditions:
        p = store.pending(one, kind, ["a"])["a"]
        store.add_rounds([(p.id, 0, Round((1.0,)))])
        store.complete([p.id])


def test_of_several_precisions_one_is_fitted(tmp_path: Path) -> None:
    half, whole = (replace(HERE, precision=p) for p in ("float16", "int8"))
    with data.MeasurementStore(tmp_path / "s.db") as store:
        stored(store, "operator", half)
        assert choose_conditions(store, "lab") == (half, [])  # the only one
        stored(store, "operator", HERE, whole)
        assert choose_conditions(store, "lab") == (HERE, [half, whole])  # though int8 is later
        assert choose_conditions(store, "lab", None, "int8") == (whole, [half, HERE])
        assert choose_conditions(store, "lab", whole.digest)[0] == whole
        assert choose_conditions(store, "lab", usual="float16") == (half, [HERE, whole])
        with pytest.raises(NotEnoughData, match="'lab' in int8-dynamic; it holds float16, fl"):
            choose_conditions(store, "lab", None, "int8-dynamic")
    with data.MeasurementStore(tmp_path / "two.db") as store:
        stored(store, "operator", half, whole)
        with pytest.raises(InvalidArgument, match="measured in float16 and int8, .* Name it:  pho"):
            choose_conditions(store, "lab")
    with data.MeasurementStore(tmp_path / "file.db") as store:
        stored(store, "operator", half)
        stored(store, "onnx", HERE, whole)  # files alone make no model
        assert choose_conditions(store, "lab")[0] == half


def test_no_two_models_lie_at_one_place() -> None:
    names = ("sim", "sim.model", "sim.int8", "sim.model.int8", "sim.model.int8-dynamic")
    kinds = ("float32", "int8", "int8-dynamic", "a/b", "model", "x.json")
    every = [model_path("s.db", d, p) for d in names for p in kinds]
    assert len(set(every)) == len(every)
    assert all(p.parent == Path() for p in every)


def test_the_origin_nearest_to_a_measurement_is_fitted(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        for day, origin in enumerate(("measured", "imported", "emulated", "simulated")[::-1]):
            conditions = replace(HERE, device="old", origin=origin)  # type: ignore[arg-type]
            # The better the origin, the earlier it was measured.
            p = store.pending(conditions, "operator", ["a"])["a"]
            store.add_rounds([(p.id, 0, Round((1.0,), at=f"2026-01-{9 - day:02}"))])
            store.complete([p.id])
            assert choose_conditions(store, "old") == (conditions, [])


def test_predicting_changes_neither_the_times_nor_the_answers() -> None:
    missing = tuple(TinySpace(resolution=64).operators()[3:9])
    measurements, networks = made_up(25, drop=missing)
    times = fit_measurements(HERE, measurements).times
    before = dict(vars(times))
    one_by_one = [times.row(o) for o in missing]
    together, predicted = times.ms(missing), times.predict(missing)
    times.rows(networks)
    assert vars(times) == before
    assert [row[0] for row in one_by_one] == pytest.approx(together.tolist(), rel=1e-9)
    assert predicted.ms == pytest.approx(together, rel=1e-9) and not predicted.covered.any()
    # Another model, which measured them, has its own times of them.
    measured = replace(times, table=fit_measurements(HERE, made_up(25)[0]).table)
    assert measured.ms(missing).tolist() == pytest.approx([alone_ms(o) for o in missing], rel=0.01)
    assert measured.predict(missing).covered.all()


def test_fitting_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phonenas.latency_model.fitting.fitted", outliers.fitted)
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
    predicted = model.operators(operators)
    later = np.array([alone_ms(o) * rng.lognormal(0, 0.05) for o in operators])
    assert predicted.covered.all() and np.allclose(predicted.ms, list(model.table.ms.values()))
    assert 0.82 < np.mean((predicted.low_ms <= later) & (later <= predicted.high_ms)) <= 1.0
    # They are not so wide as to say nothing.
    assert np.median(predicted.high_ms / predicted.low_ms) < 1.7


def test_networks_that_all_take_the_same_make_a_score_that_is_not_informative() -> None:
    found, _ = made_up(24)
    same = [
        replace(m, rounds=(Round((5.0,)), Round((5.0,)))) if m.kind == "network" else m
        for m in found
    ]
    model = fit_measurements(HERE, same)
    told = model.scores["model"]
    assert not told.informative and "nothing to predict" in told.reason
    assert fit_measurements(HERE, found).scores["model"].informative


def test_a_prediction_below_zero_is_refused_wherever_it_is_made(
    fitted: LatencyModel, tiny: TinySpace
) -> None:
    """A line that was fitted on slow networks may lead below 0; no network takes less than 0 ms."""
    network = tiny.decode(tiny.sample(np.random.default_rng(0), 1)[0])
    below = replace(fitted, calibration=replace(fitted.calibration, constant=-1e3))
    for ask in (
        lambda: below.predict([network]),
        lambda: below.latency_ms([network]),
        lambda: below.on(tiny)(tiny.encode(network)[None]),
        lambda: below.intervals(tiny)(tiny.encode(network)[None]),
    ):
        with pytest.raises(UncoveredOperator, match=r"predicts -\d+ ms.*fit again"):
            ask()


def test_an_operator_of_one_round_is_as_sure_as_a_job_accepts() -> None:
    """One round says nothing of its scatter, and without a regressor nothing else does."""
    few = [m for m in made_up(12)[0] if m.kind == "operator"][:15]
    table = latency_model.model.LookupTable.of([replace(m, rounds=m.rounds[:1]) for m in few])
    alone = latency_model.OperatorTimes(conditions=HERE, table=table, regressor=None)
    p = alone.predict(list(table.ms))
    assert (p.high_ms / p.ms - 1 > 0.2).all()


def test_a_network_that_the_others_put_below_0_does_not_end_the_fit(tmp_path: Path) -> None:
    """Without the small one the line is the sum less 1 ms; with it the model predicts it."""
    tiny = TinySpace(resolution=224)
    rng = np.random.default_rng(1)
    large = list({str(a): a for a in map(tiny.decode, tiny.sample(rng, 60))}.values())[:13]
    small = space.zoo.network("mnasnet-small").scaled(0.35).with_resolution(32)
    networks = [*large, small]
    sums = {str(a): sum(map(alone_ms, a.operators())) for a in networks}
    cut_ms = 0.4 * min(sums[str(a)] for a in large)
    times = {str(a): sums[str(a)] - (cut_ms if a is not small else 0.0) for a in networks}
    operators = {o for a in networks for o in a.operators()}
    found = [Measurement("operator", o.key, HERE, (Round((alone_ms(o),)),)) for o in operators]
    found += [Measurement("network", name, HERE, (Round((ms,)),)) for name, ms in times.items()]
    model = fit_measurements(HERE, found)
    assert not model.outliers and model.scores["model"].n == 14
    (row,) = (e for e in model.examined if e.network == str(small))
    assert row.predicted_ms == pytest.approx(sums[str(small)])
    assert row.high_ms / row.predicted_ms > 1.7 and np.isfinite(row.high_ms)
    assert latency_model.load(model.save(tmp_path / "m.json")).examined == model.examined


def test_models_of_other_devices_are_no_precisions(tmp_path: Path) -> None:
    """A device may be called like the model file of another."""
    from phonenas.latency_model import model_path, precisions_there

    db = str(tmp_path / "s.db")
    for device, precision in (
        ("pixel6", "int8"),
        ("pixel6.model", "float32"),
        ("pixel6.x", "int8"),
    ):
        model_path(db, device, precision).write_text("{}")
    assert precisions_there(db, "pixel6") == {"int8": model_path(db, "pixel6", "int8")}
