"""A new device from a ready phone and a few networks; its truth is outside what the model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phonenas import space
from phonenas.data import Conditions, Measurement, MeasurementStore, Round
from phonenas.latency_model import LatencyModel, load, ready
from phonenas.latency_model.fitting import fit_measurements
from phonenas.latency_model.transfer.ready_source import choose_networks, fit_from_ready
from phonenas.latency_model.transfer.source_devices import choose_for, fit_like, source_of
from phonenas.space import Architecture, Kernel, zoo
from phonenas.space.errors import InvalidArgument, NotEnoughData

SOURCE = "pixel4/tflite/cpu-1large/float32"
MINE = Conditions(
    "mine",
    "Phone",
    "x",
    "onnxruntime",
    "1.32",
    "",
    "cpu",
    "all",
    1,
    "all",
    "none",
    "float32",
    "steady",
    "measured",
)


def kernel_ms(k: Kernel) -> float:
    """The slower of arithmetic and memory, blocks of channels, a cliff, slow depthwise layers."""
    rate = 4e5 if k.depthwise else 9e6 * min(k.in_channels, 64) / (min(k.in_channels, 64) + 24)
    blocks = -(-k.out_channels // 16) * 16 / k.out_channels
    moved = k.reads + k.writes
    cliff = 1.5 if moved > 700_000 else 1.0
    return max(blocks * k.macs / rate, cliff * (moved + k.params) / 1.2e6) + 0.04


def truth(networks: list[Architecture]) -> np.ndarray:
    return np.array([0.1 + sum(map(kernel_ms, zoo.kernels(n))) for n in networks])


def measured(networks: list[Architecture], factor: float = 1.0) -> list[Measurement]:
    noise = np.random.default_rng(1).normal(1, 0.01, len(networks))
    ms = factor * truth(networks) * noise
    return [
        Measurement("network", str(n), MINE, (Round((t,)),))
        for n, t in zip(networks, ms, strict=True)
    ]


def keep(store: MeasurementStore, measurements: list[Measurement]) -> None:
    for m in measurements:
        id = store.pending(MINE, "network", [m.subject])[m.subject].id
        store.add_rounds([(id, 0, m.rounds[0])])
        store.complete([id])


@pytest.fixture(scope="module")
def source() -> LatencyModel:
    return ready.load(SOURCE)


@pytest.fixture(scope="module")
def chosen() -> list[Architecture]:
    mnas = space.get("mnasnet")
    return [mnas.decode(g) for g in mnas.sample(np.random.default_rng(5), 20)]


@pytest.fixture(scope="module")
def others() -> list[Architecture]:
    mnas = space.get("mnasnet")
    return [mnas.decode(g) for g in mnas.sample(np.random.default_rng(99), 40)]


def error(ms: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(ms / true - 1).mean())


def test_twenty_networks_make_a_ready_phone_ones_own(
    source: LatencyModel, chosen: list[Architecture], others: list[Architecture]
) -> None:
    fitted = fit_from_ready(source, MINE, measured(chosen))
    true, model = truth(others), fitted.model
    predicted, by_source = model.predict(others), source.predict(others).ms
    factor = np.median(truth(chosen) / source.predict(chosen).ms)
    mine = error(predicted.ms, true)
    assert mine < 0.07 and mine < 0.75 * error(factor * by_source, true) < error(by_source, true)
    inside = (predicted.low_ms < true) & (true < predicted.high_ms)
    assert 0.8 <= inside.mean() <= 1 and (predicted.high_ms / predicted.low_ms).mean() < 1.5
    assert fitted.source == SOURCE and fitted.networks == 20 and fitted.operators == 0
    assert model.device == "mine" and model.conditions == MINE and not model.by_operators
    scores = model.scores
    assert scores["model"].n == 20 and scores["model"].mape < scores["relative"].mape
    # What the zoo has and the space has not: the ready phone knows it.
    zoo_nets = [zoo.edge_network(n) for n in ("resnet18_wd2", "squeezenet_v1_1", "peleenet")]
    whole = np.array([sum(map(kernel_ms, zoo.kernels(n))) for n in zoo_nets])
    known = model.predict(zoo_nets).ms
    assert error(known, whole) < error(factor * source.predict(zoo_nets).ms, whole)


@pytest.mark.slow
@pytest.mark.slow
def test_a_phone_of_another_kind_is_hardly_worse_than_by_its_twenty_alone(
    source: LatencyModel, chosen: list[Architecture], others: list[Architecture]
) -> None:
    # Its depthwise layers, cache and memory are not the source's: there is little to take over.
    ms = measured(chosen)
    alone = fit_measurements(MINE, ms).predict(others).ms
    mine = fit_from_ready(source, MINE, ms).model.predict(others).ms
    assert error(mine, truth(others)) < 1.2 * error(alone, truth(others)) < 0.05


def test_a_device_ten_times_as_slow(source: LatencyModel, chosen: list[Architecture]) -> None:
    one, ten = (fit_from_ready(source, MINE, measured(chosen, f)) for f in (1.0, 10.0))
    assert ten.factor == pytest.approx(10 * one.factor)
    assert ten.model.predict(chosen).ms == pytest.approx(10 * one.model.predict(chosen).ms)


def test_a_wrong_network_is_named_and_left_out(
    source: LatencyModel, chosen: list[Architecture]
) -> None:
    ms = measured(chosen)
    wrong = replace(ms[4], rounds=(Round((5 * ms[4].latency_ms,)),))
    model = fit_from_ready(source, MINE, [*ms[:4], wrong, *ms[5:]]).model
    assert [o.subject for o in model.outliers] == [ms[4].subject]
    assert model.measurements == 19 and 4 < model.outliers[0].ratio < 6


@pytest.mark.slow
def test_networks_are_chosen_before_anything_is_measured(source: LatencyModel) -> None:
    mnas = space.get("mnasnet")
    ten = choose_networks(source, mnas, 10)
    assert len(set(ten)) == 10 == len(ten)
    more = choose_networks(source, mnas, 12, ten[:5])
    assert len(more) == 7 and not set(more) & set(ten[:5])
    with pytest.raises(InvalidArgument, match="5 to 1000 networks, got 4"):
        choose_networks(source, mnas, 4)


def test_too_few_networks(source: LatencyModel, chosen: list[Architecture]) -> None:
    with pytest.raises(NotEnoughData, match=f"--like {SOURCE} --measurements 20"):
        fit_from_ready(source, MINE, measured(chosen[:4]))


@pytest.mark.slow
def test_the_store_remembers_the_ready_phone(
    tmp_path: Path, source: LatencyModel, others: list[Architecture]
) -> None:
    with MeasurementStore(tmp_path / "s.db", create=True) as store:
        keep(store, measured(others[:1]))
        operators, networks = choose_for(store, MINE, SOURCE, space.get("mnasnet"), 8)
        assert operators == [] and len(networks) == 7  # one is measured
        keep(store, measured(networks))
        now = store.measurements(MINE)
        remembered = source_of(store, MINE, now)
        assert remembered is not None and remembered.device == SOURCE
        model = fit_like(remembered, MINE, now).model
    again = load(model.save(tmp_path / "mine.model.json"))
    assert again.predict(others).ms == pytest.approx(model.predict(others).ms, rel=0.01)
    assert again.digest == load(tmp_path / "mine.model.json").digest
