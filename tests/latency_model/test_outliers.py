"""One wrong row is named and left out; a table in seconds is doubted; honest rows stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDevice

from phonenas import space
from phonenas.data import Measurement, Round
from phonenas.data.measurement import Entry
from phonenas.devices.simulated import SimulatedPhone
from phonenas.latency_model import load
from phonenas.latency_model.fitting import fit_measurements
from phonenas.latency_model.outliers import by_speed, doubtful_unit, fitted, odd_networks
from phonenas.space import Operator

PHONE = SimulatedPhone(seed=1)
CONDITIONS = replace(FakeDevice().conditions, device="pixel 6", origin="measured")


def operators(n: int) -> list[Operator]:
    """Drawn from a space at 64 px, so that caches, odd channels and strides are among them."""
    every = space.get("mnasnet", 64).operators()
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))[:n]]


def table(n: int, factor: float = 1.0, rows: int = 0) -> dict[Operator, float]:
    rng = np.random.default_rng(1)
    ms = {o: PHONE.truth_ms(o) * float(np.exp(rng.normal(0, 0.012))) for o in operators(n)}
    for o in list(ms)[:rows]:
        ms[o] *= factor
    return ms


@pytest.mark.slow
@pytest.mark.parametrize("factor", [100.0, 0.1])
def test_one_wrong_row_is_named_and_the_fit_is_as_without_it(factor: float) -> None:
    wrong = table(60, factor, 1)
    bad = next(iter(wrong))
    regressor, odd = fitted(wrong)
    assert [o.subject for o in odd] == [bad.key]
    assert odd[0].ratio == pytest.approx(factor, rel=0.4)
    assert bad not in regressor.observed
    # Operators that are in no table are predicted as if the row had never been there.
    others = [o for o in operators(120)[60:] if regressor.reaches(o)]
    truth = np.array([PHONE.truth_ms(o) for o in others])
    assert np.mean(np.abs(regressor.predict_ms(others) / truth - 1)) < 0.06


@pytest.mark.slow
def test_honest_rows_stay() -> None:
    regressor, odd = fitted(table(60))
    assert odd == [] and len(regressor.observed) == 60


@pytest.mark.slow
def test_so_many_odd_rows_are_the_device() -> None:
    """A third of the rows at thrice the time is no error of measuring: nothing is left out."""
    regressor, odd = fitted(table(60, 3.0, 20))
    assert odd == [] and len(regressor.observed) == 60


def test_a_network_unlike_its_sum_is_odd() -> None:
    sums = np.linspace(4, 9, 12)
    ms = sums * np.exp(np.random.default_rng(0).normal(0, 0.02, 12))
    assert odd_networks([str(i) for i in range(12)], ms, sums) == []
    ms[3] *= 3
    (odd,) = odd_networks([str(i) for i in range(12)], ms, sums)
    assert odd.subject == "3" and odd.ratio == pytest.approx(3, rel=0.1)


def measured(factor: float) -> list[Measurement]:
    """The operators of twelve networks, the first of them wrong, and these, the first of them too.

    Both stand at the beginning of what is given.
    """
    mnas, rng = space.get("mnasnet", 64), np.random.default_rng(2)
    networks = [mnas.decode(g) for g in mnas.sample(rng, 12)]
    times = {str(a): PHONE.truth_ms(a) for a in networks}
    alone = {
        o.key: PHONE.truth_ms(o) for a in networks for o in a.operators() if o.kind == "mbconv"
    }
    rest = {o.key: PHONE.truth_ms(o) for a in networks for o in a.operators()}
    for one in (times, alone):
        one[next(iter(one))] *= factor
    every = {**alone, **{k: ms for k, ms in rest.items() if k not in alone}}
    rows = [("network", n, ms) for n, ms in times.items()]
    rows += [("operator", n, ms) for n, ms in every.items()]
    rows.insert(0, rows.pop(12))
    return [
        Measurement(kind, n, CONDITIONS, (Round((ms,)),) * 3)  # type: ignore[arg-type]
        for kind, n, ms in rows
    ]


@pytest.mark.slow
def test_a_fit_names_what_it_leaves_out_with_the_command(tmp_path: Path) -> None:
    rows = measured(10.0)
    operator, network = rows[0].subject, rows[1].subject
    model = fit_measurements(CONDITIONS, rows)
    assert {o.subject: o.kind for o in model.outliers} == {operator: "operator", network: "network"}
    assert Operator.parse(operator) not in model.table
    assert model.scores["model"].n == 11 and model.scores["model"].mape < 0.1
    told = {o.subject: o.told(CONDITIONS) for o in model.outliers}
    again = f"phonenas profile --device 'pixel 6' --operator {operator} --again"
    assert told[operator].endswith(again)
    assert told[network].endswith(f"--network '{network}' --again")
    assert all(6 < o.ratio < 16 for o in model.outliers)
    assert load(model.save(tmp_path / "m.json")).outliers == model.outliers


def test_a_table_in_seconds_is_doubted_with_the_ratio() -> None:
    ms = [("operator", o.key, t) for o, t in table(30).items()]
    assert doubtful_unit(ms) == ""  # type: ignore[arg-type]
    seconds = [(kind, key, t / 1000) for kind, key, t in ms]
    told = doubtful_unit(seconds)  # type: ignore[arg-type]
    assert told.startswith("DOUBTFUL: are these times in ms?") and "as seconds would be" in told
    ratio = float(told.split("they are ")[1].split(" times")[0])
    assert 1e-5 < ratio < 1e-2
    micro = [(kind, key, t * 1000) for kind, key, t in ms]
    assert "microseconds" in doubtful_unit(micro)  # type: ignore[arg-type]
    mnas = space.get("mnasnet", 64)
    whole = mnas.decode(mnas.sample(np.random.default_rng(0), 1)[0])
    assert doubtful_unit([("network", str(whole), PHONE.truth_ms(whole))]) == ""
    assert doubtful_unit([("network", str(whole), PHONE.truth_ms(whole) / 1000)])
    assert doubtful_unit([("onnx", "own.onnx#0123", 1.0)]) == ""


def _of(kind: str, subject: str, number: int, sentinel_ms: float) -> Measurement:
    sentinel = (sentinel_ms,) if sentinel_ms else ()
    rounds = (Round((1.0,), sentinel), Round((1.0,), sentinel))
    entry = Entry("s", number)
    return Measurement(kind, subject, CONDITIONS, rounds, entry=entry)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["operator", "kernel"])
@pytest.mark.parametrize("whole", ["network", "onnx"])
def test_networks_older_than_their_parts_and_of_another_speed_are_left_out(
    part: str, whole: str
) -> None:
    parts = [_of(part, f"o{i}", 10 + i, 0.5) for i in range(9)]  # the middle one is the 14th
    networks = [
        _of(whole, "slower", 5, 0.53),
        _of(whole, "faster", 13, 0.47),
        _of(whole, "alike", 5, 0.52),
        _of(whole, "later", 15, 0.7),
        _of(whole, "among", 14, 0.7),
        _of(whole, "unknown", 5, 0.0),
    ]
    kept, old = by_speed([*parts, *networks])
    assert [m.subject for m in old] == ["slower", "faster"]
    assert [m.subject for m in kept[9:]] == ["alike", "later", "among", "unknown"]
    assert kept[:9] == parts
    # Where nothing tells the speed, or there are no parts, all are kept.
    for rows in (networks, [_of(part, "o", 90, 0.0), *networks]):
        assert by_speed(rows) == (rows, [])
