"""The regressor over operators: accurate from few, with right standard errors, quick to save."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from phonenas import space
from phonenas.devices.simulated.roofline import Roofline
from phonenas.latency_model.units import regressor as room
from phonenas.latency_model.units.parts import KINDS, Parts, parts_of
from phonenas.latency_model.units.regressor import (
    OperatorRegressor,
    TransferRegressor,
    regressor_from_dict,
)
from phonenas.space import Operator
from phonenas.space.errors import NotEnoughData, UnsupportedFormat


@cache
def operators() -> tuple[Operator, ...]:
    return space.get("mnasnet", 224).operators()


@cache
def truth() -> dict[Operator, float]:
    """What a made-up phone takes, each operator off by some 2 %."""
    phone, rng = Roofline(seed=3), np.random.default_rng(0)
    return {o: phone.time_ms(phone.costs(o)) * rng.normal(1, 0.02) for o in operators()}


@cache
def fitted(count: int) -> OperatorRegressor:
    drawn = np.random.default_rng(count).permutation(len(operators()))[:count]
    return OperatorRegressor.fit({operators()[i]: truth()[operators()[i]] for i in drawn})


def unseen(count: int) -> list[Operator]:
    drawn = np.random.default_rng(count).permutation(len(operators()))
    return [operators()[i] for i in drawn[count:]]


def test_parts_add_up_to_the_operator() -> None:
    for o in operators()[::97]:
        parts = parts_of(o)
        weighed = [
            p for p in parts if KINDS[p.kind] in ("pointwise", "depthwise", "dense", "classifier")
        ]
        assert sum(p.macs for p in weighed) == o.macs
        assert KINDS[parts[-1].kind] == "edges"
        assert (KINDS.index("squeeze") in [p.kind for p in parts]) == (o.se_channels > 0)
    held = Parts(operators()).holds
    assert held.shape[0] == len(operators()) > 2 * held.shape[1]
    assert held.sum() == sum(len(parts_of(o)) for o in operators())


@pytest.mark.slow
def test_sixty_operators_predict_the_others() -> None:
    asked = unseen(60)
    ms = np.array([truth()[o] for o in asked])
    off = np.abs(fitted(60).predict_ms(asked) / ms - 1)
    assert off.mean() < 0.08
    assert 0.4 < fitted(60).mape / off.mean() < 2.5
    more = unseen(200)
    better = fitted(200).predict_ms(more) / [truth()[o] for o in more] - 1
    assert np.abs(better).mean() < off.mean()


@pytest.mark.slow
def test_standard_errors_hold_nine_in_ten_and_grow_with_distance() -> None:
    inside = []
    for count in (60, 200):
        asked, regressor = unseen(count), fitted(count)
        off = np.abs(regressor.predict_ms(asked) / [truth()[o] for o in asked] - 1)
        inside.append(np.mean(off < 1.645 * regressor.standard_error(asked)))
    assert 0.82 < np.mean(inside) < 0.99
    near = [o for o in operators() if o.kind == "mbconv" and o.in_px == 14]
    far = [Operator("mbconv", 640, 640, 14, kernel=3, expansion=6)]
    assert fitted(200).standard_error(far)[0] > 1.5 * np.median(fitted(200).standard_error(near))
    assert fitted(200).standard_error([]).shape == fitted(200).predict_ms([]).shape == (0,)


def test_errors_of_similar_operators_are_correlated() -> None:
    regressor, some = fitted(60), unseen(60)[:80]
    errors = regressor.errors(some)
    d = regressor.standard_error(some) * regressor.predict_ms(some)
    assert np.allclose(np.sqrt(np.diag(errors)), d, rtol=1e-6)
    assert np.linalg.eigvalsh(errors).min() > -1e-9
    mnas = space.get("mnasnet", 224)
    networks = [mnas.decode(g).operators() for g in mnas.sample(np.random.default_rng(0), 30)]
    correlation = regressor.error_correlation(networks, {})
    assert 0 <= correlation < 1
    assert regressor.error_correlation(networks, truth()) == 0
    # The share gives back the doubt of the sum that the covariance gives.
    expected, exact = [], []
    for network in networks:
        d = regressor.standard_error(network) * regressor.predict_ms(network)
        expected.append(np.sqrt(correlation * d.sum() ** 2 + (1 - correlation) * (d**2).sum()))
        exact.append(np.sqrt(regressor.errors(network).sum()))
    assert 0.7 < np.mean(expected) / np.mean(exact) < 1.4


def test_order_of_measuring_changes_nothing() -> None:
    some = dict(list(truth().items())[::100])
    again = dict(reversed(some.items()))
    asked = unseen(60)[:20]
    one, two = OperatorRegressor.fit(some), OperatorRegressor.fit(again)
    assert np.array_equal(one.predict_ms(asked), two.predict_ms(asked))


def test_a_saved_regressor_predicts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MANY", 100)
    monkeypatch.setattr(room, "_CAPACITY", 80)
    monkeypatch.setattr(room, "_SHARES", (0.5,))
    drawn = dict(list(truth().items())[::20])
    asked = unseen(60)[:50]
    for regressor in (fitted(60), OperatorRegressor.fit(drawn)):
        again = regressor_from_dict(json.loads(json.dumps(regressor.to_dict())))
        assert np.allclose(again.predict_ms(asked), regressor.predict_ms(asked), rtol=1e-9)
        assert np.allclose(again.standard_error(asked), regressor.standard_error(asked), rtol=1e-6)
        assert [again.reaches(o) for o in asked] == [regressor.reaches(o) for o in asked]
        assert again.mape == regressor.mape
    assert len(drawn) > 100 and regressor.trees[0] == 0.5


def test_slim_trees_predict_the_same() -> None:
    rows = np.array([room.features(o) for o in operators()[::10]])
    grown = room._train(rows, np.log([truth()[o] for o in operators()[::10]]))
    text = grown.model_to_string()
    slim = room._slim(text)
    import lightgbm

    assert len(slim) < 0.7 * len(text)
    kept = lightgbm.Booster(model_str=slim)
    assert np.array_equal(kept.predict(rows), grown.predict(rows))


def test_reach_ends_where_nothing_similar_was_measured() -> None:
    regressor = fitted(200)
    assert np.mean([regressor.reaches(o) for o in unseen(200)]) > 0.97
    assert not regressor.reaches(Operator("mbconv", 64, 64, 14, kernel=7, expansion=6))
    assert not regressor.reaches(Operator("mbconv", 4000, 4000, 14, kernel=3, expansion=6))
    assert not regressor.reaches(Operator("stem", 3, 32, 1024, kernel=3, stride=2))


def test_damaged_and_foreign_curves_are_refused() -> None:
    kept = fitted(60).to_dict()
    with pytest.raises(UnsupportedFormat, match="fit it again"):
        regressor_from_dict({**kept, "form": 1})
    with pytest.raises(UnsupportedFormat, match="fit it again"):
        regressor_from_dict({**kept, "features": ["px"]})
    for wrong in ([-1.0, *kept["ms"][1:]], kept["ms"][1:], [float("nan"), *kept["ms"][1:]]):
        with pytest.raises(
            ValueError, match=r"ms\[0\]: expected number > 0|59 times of 60 operators"
        ):
            regressor_from_dict({**kept, "ms": wrong})
    with pytest.raises(NotEnoughData, match="it takes 20"):
        OperatorRegressor.fit(dict(list(truth().items())[:19]))
    transferred = TransferRegressor(
        {o: (t, 0.1) for o, t in list(truth().items())[:5]}, "pixel4"
    ).to_dict()
    assert regressor_from_dict(transferred).mape == pytest.approx(0.08, abs=0.001)
    with pytest.raises(ValueError, match="told: expected table of length >= 1"):
        regressor_from_dict({**transferred, "told": {}})
