"""Drift between old and new measurements, and whether a model still holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import data, latency_model, space
from phonenas.cli.stores import refit_lines
from phonenas.data import Measurement, Round
from phonenas.data.measurement import Entry
from phonenas.latency_model import LatencyModel
from phonenas.latency_model.drift import Drift, between, over_time, upkeep
from phonenas.latency_model.fitting import fit_measurements
from phonenas.latency_model.lookup_table import LookupTable
from phonenas.space import Operator
from phonenas.space.errors import InvalidArgument
from tests.cli.test_app import Run, run
from tests.latency_model.test_model import HERE, made_up

__all__ = ["run"]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
LATER = "2031-01-01T00:00:00+00:00"


def again(m: Measurement, factor: float, at: str = LATER) -> Measurement:
    ms = m.latency_ms * factor
    later = Entry("", m.entry.number + 1)
    return Measurement(
        m.kind, m.subject, m.conditions, (Round((ms,), at=at),), m.series + 1, entry=later
    )


@cache
def all_operators() -> list[Measurement]:
    return [m for m in made_up(10)[0] if m.kind == "operator"]


def operators(n: int) -> list[Measurement]:
    return all_operators()[:n]


# -- drift -------------------------------------------------------------------------------------


def test_a_common_change_is_told_with_its_interval() -> None:
    old = operators(55)
    rng = np.random.default_rng(0)
    new = [again(m, 1.08 * rng.lognormal(0, 0.02)) for m in old]
    (found,) = between(old, new)
    assert found.kind == "operator" and found.subjects == 55
    assert found.low < 1.08 < found.high and found.high / found.low < 1.03
    assert found.changed and not found.moved
    assert ": the median time changed by +" in str(found)


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [
        (
            "2026-03-01T08:00:59+00:00",
            "2026-03-04T09:30:00+00:00",
            "2026-03-01 and again on 2026-03-04",
        ),
        (
            "2026-03-01T08:00:59+00:00",
            "2026-03-01T09:30:00+00:00",
            "2026-03-01 08:00 and again on 2026-03-01 09:30",
        ),
    ],
)
def test_a_change_is_told_with_one_sign_and_two_different_dates(
    since: str, until: str, told: str
) -> None:
    change = Drift("network", 5, 0.98, 0.94, 0.994, 0.02, (), since, until)
    assert str(change) == (
        f"5 networks measured on {told}: the median time changed by -2.0% (90 %: -6.0% to -0.6%)"
    )


def test_noise_is_no_change() -> None:
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        old = operators(25)
        (found,) = between(old, [again(m, rng.lognormal(0, 0.05)) for m in old])
        alarms += found.changed
    # Real at 90 % and beyond 2 %: at most one in ten, by chance alone.
    assert alarms <= 20


def test_what_moved_by_itself_is_named() -> None:
    old = operators(40)
    rng = np.random.default_rng(1)
    new = [again(m, (2.0 if i == 7 else 1.0) * rng.lognormal(0, 0.01)) for i, m in enumerate(old)]
    (found,) = between(old, new)
    assert [m.subject for m in found.moved] == [old[7].subject]
    assert found.moved[0].ratio == pytest.approx(2.0, rel=0.05)
    assert not found.changed and old[7].subject in str(found)


def test_one_subject_has_no_interval() -> None:
    old = operators(1)
    (found,) = between(old, [again(old[0], 1.5)])
    assert found.to_dict()["low"] is None and found.to_dict()["high"] is None
    assert not found.changed  # one may be chance
    json.dumps(found.to_dict(), allow_nan=False)


def test_over_time_takes_the_two_latest_series_of_each() -> None:
    a, b = operators(2)
    series = [a, again(a, 3.0), again(again(a, 3.0), 1.1), b]
    (found,) = over_time(series)
    assert found.subjects == 1 and found.ratio == pytest.approx(1.1, rel=1e-3)
    assert over_time([a, b]) == [] == between([a], [b])


# -- upkeep ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return fit_measurements(HERE, made_up(40, noise=0.01)[0])


def fresh(n: int, factor: float = 1.0) -> list[Measurement]:
    return [again(m, factor) for m in made_up(n, noise=0.01, seed=99)[0] if m.kind == "network"]


def test_a_model_that_holds_is_left_alone(model: LatencyModel) -> None:
    found = upkeep(model, fresh(8))
    assert found.newer == found.networks == 8 and found.inside >= 7
    assert abs(found.bias) < 0.02 and found.reasons == ()


def test_what_the_model_was_fitted_on_is_not_newer() -> None:
    measurements, _ = made_up(20)
    found = upkeep(fit_measurements(HERE, measurements), measurements)
    assert (found.newer, found.networks, found.reasons) == (0, 0, ())
    assert found.to_dict()["bias"] is None


def test_networks_off_their_promise_ask_for_a_fit(model: LatencyModel) -> None:
    found = upkeep(model, fresh(8, 1.2))
    assert found.inside == 0 and found.bias == pytest.approx(1 / 1.2 - 1, abs=0.02)
    assert "0 of 8 newer networks lie in their 90 % interval" in found.reasons[0]
    assert "too low on 8 newer networks" in found.reasons[1]
    slightly = upkeep(model, fresh(12, 1.03))
    assert any("too low" in r for r in slightly.reasons)


def test_drifted_operators_ask_for_a_fit(model: LatencyModel) -> None:
    newer = [again(m, 1.1) for m in operators(20)]
    found = upkeep(model, newer)
    assert found.drift is not None and found.drift.ratio == pytest.approx(1.1, rel=0.01)
    assert any("20 operators measured on" in r for r in found.reasons)
    json.dumps(found.to_dict(), allow_nan=False)


def beside(m: Measurement, ms: float | None) -> Measurement:
    """With the sentinel's time beside each of its samples."""
    rounds = tuple(
        replace(r, sentinel_ms=() if ms is None else (ms,) * len(r.samples_ms)) for r in m.rounds
    )
    return replace(m, rounds=rounds)


@pytest.fixture(scope="module")
def before() -> tuple[list[Measurement], LatencyModel]:
    measured = [beside(m, 0.5) for m in made_up(40, noise=0.01)[0]]
    return measured, fit_measurements(HERE, measured)


def of_space(model: LatencyModel, name: str, px: int | None = None) -> LatencyModel:
    """The same model, fitted on all operators of a space."""
    operators = space.get(name, px).operators()
    table = LookupTable(dict.fromkeys(operators, 1.0), dict.fromkeys(operators, 0.01), "2026-01-01")
    return replace(model, times=replace(model.times, table=table))


@pytest.mark.parametrize(
    ("sentinel_ms", "factor", "outdated"),
    [
        (0.65, 1.3, True),
        pytest.param(0.35, 0.7, True, marks=pytest.mark.slow),
        pytest.param(0.53, 1.06, True, marks=pytest.mark.slow),
        (0.52, 1.3, False),  # the sentinel is as it was: the model is wrong, not the device
        (0.65, 1.04, False),  # what counts did not follow it
        (0.65, 0.7, False),
        (None, 1.3, False),
    ],
)
def test_networks_of_another_speed_ask_for_a_profile(
    model: LatencyModel,
    before: tuple[list[Measurement], LatencyModel],
    sentinel_ms: float | None,
    factor: float,
    outdated: bool,
) -> None:
    measured, fitted = before
    later = [beside(m, sentinel_ms) for m in fresh(8, factor)]
    found = upkeep(fitted, [*measured, *later])
    assert found.outdated is outdated
    reason = [r for r in found.reasons if r.startswith("the device has another speed")]
    assert len(reason) == outdated
    if outdated:
        times = re.search("newer networks take ([0-9.]+) times as long as predicted", reason[0])
        assert times and float(times[1]) == pytest.approx(factor, rel=0.02)
        assert f"the sentinel {(sentinel_ms or 0) / 0.5:.2f} times as long" in reason[0]
        lines = refit_lines(found, of_space(model, "mnasnet"), "s.db")
        command = "phonenas profile --device lab --space mnasnet --again --db s.db"
        assert lines[-2].endswith(f"with the other options of its profile:  {command}")
        assert lines[-1] == "then:  phonenas fit --device lab --db s.db"
        small = refit_lines(found, of_space(model, "mnasnet", 192), "s.db")
        assert "--space mnasnet --resolution 192 --again" in small[-2]
        part = of_space(model, "mnasnet")
        table = LookupTable(dict(list(part.table.ms.items())[:200]), {}, "2026-01-01")
        few = replace(part, times=replace(part.times, table=table))
        assert "--space mnasnet --operators 200 --again" in refit_lines(found, few, "s.db")[-2]
        lone = LookupTable({Operator("conv", 9, 7, 11, kernel=3): 1.0}, {}, "2026-01-01")
        alien = replace(model, times=replace(model.times, table=lone))
        unknown = refit_lines(found, alien, "s.db")
        assert unknown[-2].endswith("again: give the command of its profile, with --again")


def test_a_network_beyond_the_model_is_left_out_and_named(model: LatencyModel) -> None:
    far = Measurement(
        "network", str(space.zoo.network("mnasnet-a1")), HERE, (Round((9.0,)),), entry=Entry("", 1)
    )
    found = upkeep(model, [far])
    assert (found.newer, found.networks) == (1, 0)
    assert found.uncovered == (far.subject,) == tuple(found.to_dict()["uncovered"])
    assert upkeep(model, fresh(3)).uncovered == ()
    (line, _) = refit_lines(found, model, "s.db")
    assert "1 newer networks hold operators that the model cannot predict" in line
    assert far.subject[:40] in line


# -- the probability to meet a target ----------------------------------------------------------


def test_the_chance_to_meet_a_target_is_right_over_many(model: LatencyModel) -> None:
    networks = made_up(300, noise=0.03, seed=5)[1]
    fitted = fit_measurements(HERE, made_up(60, noise=0.03, seed=6)[0])
    measured = [m.latency_ms for m in made_up(300, noise=0.03, seed=5)[0] if m.kind == "network"]
    predicted = fitted.predict(networks)
    rng = np.random.default_rng(0)
    chance, met = [], []
    for i, ms in enumerate(measured):
        target = float(predicted.ms[i] * rng.uniform(0.93, 1.07))
        chance.append(predicted.within(target)[i])
        met.append(ms <= target)
    order = np.argsort(chance)
    for part in np.array_split(order, 4):
        assert np.mean(np.take(chance, part)) == pytest.approx(
            np.mean(np.take(met, part)), abs=0.12
        )


def test_the_chance_agrees_with_the_interval(model: LatencyModel) -> None:
    (network,) = made_up(1)[1]
    predicted = model.predict([network])
    assert predicted.within(float(predicted.high_ms[0]))[0] == pytest.approx(0.95, abs=1e-3)
    assert predicted.within(float(predicted.ms[0]))[0] == pytest.approx(0.5)
    assert predicted.within(float(predicted.low_ms[0]))[0] == pytest.approx(0.05, abs=1e-3)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgument):
            predicted.within(bad)


# -- imported tables ---------------------------------------------------------------------------


@pytest.mark.slow
def test_an_imported_table_is_fitted_and_says_that_it_is_not_calibrated() -> None:
    theirs = replace(HERE, origin="imported")
    mine = [replace(m, conditions=theirs) for m in made_up(3)[0]]
    model = fit_measurements(theirs, mine)
    assert not model.calibrated and len(model.examined) == 3
    predicted = model.predict([space.Architecture.parse(model.examined[0].network)])
    alone = model.explain(space.Architecture.parse(model.examined[0].network))
    assert predicted.ms[0] == pytest.approx(sum(e.alone_ms for e in alone))
    assert predicted.high_ms[0] / predicted.ms[0] > 1.75
    bare = fit_measurements(theirs, [m for m in mine if m.kind == "operator"])
    assert bare.scores == {} and bare.examined == ()
    full = fit_measurements(theirs, [replace(m, conditions=theirs) for m in made_up(12)[0]])
    assert full.calibrated and full.scores["model"].n == 12


def test_a_model_without_scores_is_saved_and_read(tmp_path: Path) -> None:
    theirs = replace(HERE, origin="imported")
    operators_alone = [m for m in made_up(10)[0] if m.kind == "operator"]
    mine = [
        replace(m, conditions=theirs, entry=Entry("", i)) for i, m in enumerate(operators_alone)
    ]
    path = fit_measurements(theirs, mine).save(tmp_path / "m.json")
    read = latency_model.load(path)
    assert (
        not read.calibrated
        and read.scores == {}
        and read.until == mine[-1].at
        and read.last == ("", len(mine) - 1)
    )


# -- commands ----------------------------------------------------------------------------------


def test_check_holds_and_fit_tells_the_drift(
    run: Run, profiled: Path, tmp_path: Path, fast: None
) -> None:
    db = str(tmp_path / "s.db")
    (tmp_path / "s.db").write_bytes(profiled.read_bytes())
    fitted = run.json("fit", "--device", "fake", "--db", db)
    assert fitted["calibrated"] and fitted["drift"] == []
    found = run.json(
        "check", "--device", "fake", "--db", db, "--operators", "6", "--networks", "3", "--quiet"
    )
    assert found["measured"] == 9 and found["networks"] == 3
    assert {d["kind"]: d["subjects"] for d in found["measured_again"]} == {
        "operator": 6,
        "network": 3,
    }
    assert found["refit"] is False, found["reasons"]
    report = run.json("fit", "--device", "fake", "--db", db)
    assert {d["kind"]: d["subjects"] for d in report["drift"]} == {"operator": 6, "network": 3}
    assert (
        run("check", "--device", "fake", "--db", db, "--operators", "0", "--networks", "0")[0] == 2
    )


def test_predict_tells_the_chance(
    run: Run, profiled: Path, tmp_path: Path, tiny: TinySpace
) -> None:
    db = str(tmp_path / "s.db")
    (tmp_path / "s.db").write_bytes(profiled.read_bytes())
    run.json("fit", "--device", "fake", "--db", db)
    network = str(tiny.decode(tiny.sample(np.random.default_rng(0), 1)[0]))
    words = ("predict", network, "--resolution", "32", "--device", "fake", "--db", db)
    (told,) = run.json(*words)
    assert "within_target" not in told
    (told,) = run.json(*words, "--target", str(told["latency_ms"]))
    assert told["within_target"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data does not lie beside the checkout")
def test_an_imported_table_serves_a_search(run: Run, tmp_path: Path) -> None:
    table = SHARED / "proxylessnas_pixel1.yaml"
    db = str(tmp_path / "p.db")
    run.json("import", "proxylessnas", str(table), "--device", "pixel1", "--db", db)
    fitted = run.json("fit", "--device", "pixel1", "--db", db)
    assert fitted["calibrated"] is False and fitted["score"] is None
    code, out, err = run("predict", "mnasnet-b1", "--device", "pixel1", "--db", db)
    assert code == 0 and "UNCALIBRATED" in out and "IMPORTED" in out, err
    found = run.json(
        "search",
        "--device",
        "pixel1",
        "--space",
        "proxylessnas",
        "--target",
        "60",
        "--evaluations",
        "500",
        "--out",
        str(tmp_path / "r"),
        "--db",
        db,
        "--quiet",
    )
    assert found["origin"] == "imported"
    assert all(c["covered"] and c["latency_ms"] <= 60 for c in found["front"])
    page = Path(run.json("report", str(tmp_path / "r"))).read_text()
    assert "imported" in page.lower()


def test_the_store_is_not_touched_by_a_look(profiled: Path) -> None:
    with data.MeasurementStore(profiled) as store:
        assert over_time(store.measurements(store.conditions("fake")[0], all_series=True)) == []
