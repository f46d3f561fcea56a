"""The curve over operators: good with few, honest about its doubt, small and quick to keep."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from phonenas import space
from phonenas.devices.roofline import Roofline
from phonenas.latency_model import regressor as room
from phonenas.latency_model.curve import RelativeCurve, curve_from_dict
from phonenas.latency_model.parts import KINDS, Parts, parts_of
from phonenas.latency_model.regressor import MINIMUM, OperatorRegressor
from phonenas.space import Operator
from phonenas.space.errors import NotEnoughData, UnsupportedFormat


@cache
def operators() -> tuple[Operator, ...]:
    return space.MnasNet(resolution=224).operators()


@cache
def truth() -> dict[Operator, float]:
    """What a made-up phone takes, each operator off by some 2 %."""
    phone, rng = Roofline(seed=3), np.random.default_rng(0)
    return {o: phone.time_ms(phone.costs(o)) * rng.normal(1, 0.02) for o in operators()}


@cache
def taught(count: int) -> OperatorRegressor:
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
def test_sixty_operators_tell_the_others() -> None:
    asked = unseen(60)
    ms = np.array([truth()[o] for o in asked])
    off = np.abs(taught(60).predict_ms(asked) / ms - 1)
    assert off.mean() < 0.08
    assert 0.4 < taught(60).mape / off.mean() < 2.5
    more = unseen(200)
    better = taught(200).predict_ms(more) / [truth()[o] for o in more] - 1
    assert np.abs(better).mean() < off.mean()


def test_doubt_holds_nine_in_ten_and_grows_with_distance() -> None:
    inside = []
    for count in (60, 200):
        asked, curve = unseen(count), taught(count)
        off = np.abs(curve.predict_ms(asked) / [truth()[o] for o in asked] - 1)
        inside.append(np.mean(off < 1.645 * curve.doubt(asked)))
    assert 0.82 < np.mean(inside) < 0.99
    near = [o for o in operators() if o.kind == "mbconv" and o.in_px == 14]
    far = [Operator("mbconv", 640, 640, 14, kernel=3, expansion=6)]
    assert taught(200).doubt(far)[0] > 1.5 * np.median(taught(200).doubt(near))
    assert taught(200).doubt([]).shape == taught(200).predict_ms([]).shape == (0,)


def test_errors_of_like_operators_are_alike() -> None:
    curve, some = taught(60), unseen(60)[:80]
    errors = curve.errors(some)
    d = curve.doubt(some) * curve.predict_ms(some)
    assert np.allclose(np.sqrt(np.diag(errors)), d, rtol=1e-6)
    assert np.linalg.eigvalsh(errors).min() > -1e-9
    mnas = space.MnasNet(resolution=224)
    networks = [mnas.decode(g).operators() for g in mnas.sample(np.random.default_rng(0), 30)]
    alike = curve.alike(networks, {})
    assert 0 <= alike < 1
    assert curve.alike(networks, truth()) == 0
    # The share gives back the doubt of the sum that the covariance gives.
    told, exact = [], []
    for network in networks:
        d = curve.doubt(network) * curve.predict_ms(network)
        told.append(np.sqrt(alike * d.sum() ** 2 + (1 - alike) * (d**2).sum()))
        exact.append(np.sqrt(curve.errors(network).sum()))
    assert 0.7 < np.mean(told) / np.mean(exact) < 1.4


def test_order_of_measuring_changes_nothing() -> None:
    some = dict(list(truth().items())[::100])
    again = dict(reversed(some.items()))
    asked = unseen(60)[:20]
    one, two = OperatorRegressor.fit(some), OperatorRegressor.fit(again)
    assert np.array_equal(one.predict_ms(asked), two.predict_ms(asked))


def test_a_kept_curve_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MANY", 100)
    monkeypatch.setattr(room, "_CAPACITY", 80)
    monkeypatch.setattr(room, "_SHARES", (0.5,))
    drawn = dict(list(truth().items())[::20])
    asked = unseen(60)[:50]
    for curve in (taught(60), OperatorRegressor.fit(drawn)):
        again = curve_from_dict(json.loads(json.dumps(curve.to_dict())))
        assert np.allclose(again.predict_ms(asked), curve.predict_ms(asked), rtol=1e-9)
        assert np.allclose(again.doubt(asked), curve.doubt(asked), rtol=1e-6)
        assert [again.reaches(o) for o in asked] == [curve.reaches(o) for o in asked]
        assert again.mape == curve.mape
    assert len(drawn) > 100 and curve.share == 0.5


def test_slim_trees_predict_the_same() -> None:
    rows = np.array([room.features(o) for o in operators()[::10]])
    grown = room._train(rows, np.log([truth()[o] for o in operators()[::10]]))
    text = grown.model_to_string()
    slim = room._slim(text)
    import lightgbm

    assert len(slim) < 0.7 * len(text)
    kept = lightgbm.Booster(model_str=slim)
    assert np.array_equal(kept.predict(rows), grown.predict(rows))


def test_reach_ends_where_nothing_alike_was_measured() -> None:
    curve = taught(200)
    assert np.mean([curve.reaches(o) for o in unseen(200)]) > 0.97
    assert not curve.reaches(Operator("mbconv", 64, 64, 14, kernel=7, expansion=6))
    assert not curve.reaches(Operator("mbconv", 4000, 4000, 14, kernel=3, expansion=6))
    assert not curve.reaches(Operator("stem", 3, 32, 1024, kernel=3, stride=2))


def test_damaged_and_foreign_curves_are_refused() -> None:
    kept = taught(60).to_dict()
    with pytest.raises(UnsupportedFormat, match="fit it anew"):
        curve_from_dict({**kept, "form": 1})
    with pytest.raises(UnsupportedFormat, match="fit it anew"):
        curve_from_dict({**kept, "features": ["px"]})
    for wrong in ([-1.0, *kept["ms"][1:]], kept["ms"][1:], [float("nan"), *kept["ms"][1:]]):
        with pytest.raises(ValueError, match="no positive number"):
            curve_from_dict({**kept, "ms": wrong})
    with pytest.raises(NotEnoughData, match=f"it takes {MINIMUM}"):
        OperatorRegressor.fit(dict(list(truth().items())[: MINIMUM - 1]))
    told = RelativeCurve({o: (t, 0.1) for o, t in list(truth().items())[:5]}, "pixel4").to_dict()
    assert curve_from_dict(told).mape == pytest.approx(0.08, abs=0.001)
    with pytest.raises(ValueError, match="no positive number"):
        curve_from_dict({**told, "told": {}})
