"""Results print in a line, and are tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDevice, TinySpace

from phonenas import devices, latency_model, search
from phonenas.data import MeasurementStore
from phonenas.devices.measuring.pool import PoolOutcome
from phonenas.devices.node_times import NodeTime, Trace
from phonenas.latency_model import LatencyModel
from phonenas.report.comparison import compare
from phonenas.search.accuracy import Accuracy
from phonenas.search.evaluations import Evaluations
from phonenas.search.training.result import Epoch, Trained
from phonenas.space import AdditiveTable, Architecture
from phonenas.space.errors import DeviceUnavailable
from tests.report.test_plots import made_run

NETWORK = Architecture.parse("r1_k3_s22_e1_i8_o8 head32")


def test_a_measuring_job(profiled: Path, tmp_path: Path, tiny: TinySpace) -> None:
    db = tmp_path / "s.db"
    db.write_bytes(profiled.read_bytes())
    network = tiny.decode(tiny.sample(np.random.default_rng(0), 1)[0])
    subjects = [devices.Subject("network", network)]
    with MeasurementStore(db) as store, FakeDevice() as device:
        outcome = devices.measure(subjects, on=device, into=store)
    (measured,) = outcome.results.values()
    assert repr(outcome).startswith("Outcome(0 measured, 1 in the store already, on fake; ")
    assert repr(measured).startswith(f"Measurement({str(network)!r}, ") and "on fake)" in repr(
        measured
    )
    both = PoolOutcome({"a": outcome, "b": outcome}, {})
    frame = both.to_frame()
    assert frame.device.tolist() == ["a", "b"] and [*frame][1:] == [*outcome.to_frame()]
    none = PoolOutcome({}, {}).to_frame()
    assert len(none) == 0 and [*none] == [*frame]
    lost = replace(both, failures={"c": DeviceUnavailable("c is gone")})
    assert repr(lost) == (
        "PoolOutcome(a: 0 measured, 1 in the store already; b: 0 measured, 1 in the store already; "
        "c: DeviceUnavailable)"
    )


def test_a_model_and_its_predictions(fitted: LatencyModel, tiny: TinySpace) -> None:
    text = repr(fitted)
    assert text.startswith(
        f"LatencyModel(fake, float32, {len(fitted.table)} operators, 30 networks"
    )
    assert len(text) < 100
    predicted = fitted.predict([tiny.decode(g) for g in tiny.sample(np.random.default_rng(0), 2)])
    assert repr(predicted).startswith("Predicted(2, ") and repr(predicted).endswith(" ms)")
    ready = latency_model.ready.load("pixel1/tflite/cpu-1big/float32")
    assert repr(ready).startswith("LatencyModel(pixel1/tflite/cpu-1big/float32, float32, ")


def test_accuracies() -> None:
    known = Accuracy(
        np.array([0.7, np.nan]), np.array([0.01, np.nan]), np.zeros(2, bool), ("", "no")
    )
    assert repr(known) == "Accuracy(2 networks, 70.0% to 70.0%, 1 without one)"
    frame = known.to_frame()
    assert frame.top1[0] == 0.7 and frame.failed.tolist() == ["", "no"]
    assert frame.seconds.isna().all() and frame.outside.tolist() == [False, False]


def test_evaluations_and_an_exact_front() -> None:
    columns = (np.array([5.0, 6.0]), np.array([0.7, np.nan]), np.array([0.01, np.nan]))
    further = {"params": np.array([3.0, 4.0])}
    known = Evaluations(np.zeros((2, 3), np.int8), *columns, np.zeros(2), further, {}, {1: "no"})
    assert repr(known) == (
        "Evaluations(2 networks: latency_ms, top1, top1_error, outside, params, 1 without an "
        "accuracy)"
    )
    frame = known.to_frame()
    assert [*frame] == ["latency_ms", "top1", "top1_error", "outside", "params", "failed"]
    assert frame.params.tolist() == [3, 4] and frame.failed.tolist() == ["", "no"]
    tiny = TinySpace(resolution=32)
    front = search.exact_front(
        tiny, AdditiveTable(tiny, lambda o: o.macs), AdditiveTable(tiny, lambda o: o.params)
    )
    assert repr(front) == f"ExactFront({len(front)} network{'s' * (len(front) > 1)})"
    frame = front.to_frame()
    assert frame.cost.tolist() == front.cost.tolist() and frame.genome[0] == (*front.genomes[0],)


def test_a_search(
    fitted: LatencyModel, tiny: TinySpace, surrogate: search.accuracy.Surrogate
) -> None:
    found = search.search(
        tiny,
        latency=fitted,
        accuracy=surrogate,
        strategy=search.RandomSearch(seed=0),
        evaluations=20,
    )
    assert repr(found) == f"Searched(20 networks by random, {found.front!r})"
    assert found.to_frame().equals(found.front.to_frame())


def test_a_training() -> None:
    curve = (Epoch(1, 4, 0.1, 2.0, 0.3, 0.9, 1.0), Epoch(2, 8, 0.1, 1.0, 0.5, 0.9, 2.0))
    trained = Trained(NETWORK, {}, 0.5, 0.9, 10, curve, 2.0)
    assert repr(trained) == f"Trained(top-1 50.00%, 2 epochs, {NETWORK})"
    assert trained.to_frame().top1.tolist() == [0.3, 0.5]
    none = replace(trained, curve=()).to_frame()
    assert len(none) == 0 and [*none] == [*trained.to_frame()]
    diverged = replace(trained, top1=float("nan"), diverged="its loss is NaN")
    assert repr(diverged).startswith("Trained(diverged: its loss is NaN, ")


def test_a_trace() -> None:
    nodes = tuple(NodeTime(n, "Conv", "CPU", 0.5, 0.0, 0.5) for n in ("a", "b"))
    trace = Trace(nodes, 21, 1.2, 1.3, 1.25)
    assert repr(trace) == "Trace(2 nodes, 1.200 ms a run of 21)"
    assert trace.to_frame().name.tolist() == ["a", "b"]


def test_a_comparison_of_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made_run(tmp_path / name, n=30)
    compared = compare([tmp_path / "a", tmp_path / "b"])
    assert repr(compared) == "Comparison(2 runs, 1 scale)"
    frame = compared.to_frame()
    assert frame.name.tolist() == ["a", "b"] and frame.evaluations.tolist() == [30, 30]
    none = replace(compared, rows=()).to_frame()
    assert len(none) == 0 and [*none] == [*frame]


@pytest.mark.parametrize("name", ["Promoted", "Validation", "Rounds", "ParetoFront"])
def test_other_results_are_tables_too(name: str) -> None:
    found = getattr(search, name)
    assert callable(found.to_frame) and "__repr__" in vars(found)
