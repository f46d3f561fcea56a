"""Plots: the points of a run and its validation, and their ink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas.data import Conditions
from phonenas.latency_model.metrics import score
from phonenas.report.plots import (
    calibration_figure,
    calibration_points,
    front_figure,
    front_points,
    operator_figure,
    operator_points,
)
from phonenas.search.candidate_selection import select_candidates
from phonenas.search.evaluations import Evaluations
from phonenas.search.pareto import Candidate, ParetoFront, non_dominated
from phonenas.search.run_folder import Checkpoint, Loaded, RunFolder, load
from phonenas.search.validation.validate import Validated
from phonenas.space import AdditiveTable, Architecture, get

TARGET_MS = 8.4
OPEN, FILLED = "circle-open", (None, "circle")


def made_run(
    folder: Path,
    *,
    n: int = 600,
    target_ms: float | None = TARGET_MS,
    target: str = "mobilenet-v2",
    population: int = 100,
    **more: Any,
) -> Loaded:
    """A finished run of random networks, as a search would leave it; `more` are settings."""
    space, rng = get("mnasnet"), np.random.default_rng(3)
    genomes = space.sample(rng, n)
    counts = AdditiveTable(space, lambda o: (o.macs, o.params))(genomes)
    latency = 0.9 + counts[:, 0] / 4.2e7 * rng.uniform(0.9, 1.1, n)
    top1 = 0.52 + 0.045 * np.log2(counts[:, 0] / 1e8) + rng.normal(0, 0.008, n)
    numbers = np.column_stack([latency, top1, np.full(n, 0.006), rng.random(n) < 0.2])
    within = np.flatnonzero(latency <= (target_ms or np.inf))
    rows = within[non_dominated(np.column_stack([latency, 1 - top1])[within])]
    candidates = tuple(
        Candidate(
            i,
            str(space.decode(genomes[r])),
            float(top1[r]),
            0.006,
            bool(numbers[r, 3]),
            float(latency[r]),
            float(latency[r] / 1.07),
            float(latency[r] * 1.07),
            True,
            int(counts[r, 0]),
            int(counts[r, 1]),
            float(top1[r]) if target_ms else None,
        )
        for i, r in enumerate(rows)
    )
    settings = {
        "space": "mnasnet",
        "resolution_px": 224,
        "latency_model": "0123456789ab",
        "device": "local",
        "accuracy": "surrogate-1-00c0ffee",
        "target_ms": target_ms,
        "target": target if target_ms else "",
        "evaluations": n,
        "strategy": "nsga2",
        "seed": 7,
        "population": population,
        **more,
    }
    run = RunFolder(folder, settings)
    done = Checkpoint({}, Evaluations.of_array(genomes, numbers), seconds=2.5)
    run.save(done)
    run.finish(ParetoFront(candidates, target_ms, target, 0.61), space, done)
    return load(folder)


def document(run: Loaded, top: int = 5) -> dict[str, Any]:
    """The validation of such a run, as `phonenas validate` writes it."""
    rng, networks = np.random.default_rng(5), []
    for c, off in zip(
        select_candidates(run.front, top), (0.97, 1.02, 1.05, 0.99, 1.09), strict=False
    ):
        measured = c.latency_ms * off
        inside = c.low_ms <= measured <= c.high_ms
        meets = None if run.front.target_ms is None else measured <= run.front.target_ms
        validated = Validated(
            c,
            c.latency_ms,
            c.low_ms,
            c.high_ms,
            measured,
            0.012,
            c.latency_ms / measured - 1,
            inside,
            meets,
            13,
        )
        operators = Architecture.parse(c.block_args).operators()
        shares = np.array([o.macs for o in operators], float)
        shares *= (c.latency_ms - 0.4) / shares.sum()
        networks.append(
            validated.to_dict()
            | {"top1_error": c.top1_error, "outside": c.outside, "macs": c.macs}
            | {"params": c.params, "constant_ms": 0.4}
            | {
                "operators": [
                    {
                        "label": o.label,
                        "in_px": o.in_px,
                        "key": o.key,
                        "ms": float(ms),
                        "measured": o.kernel != 5,
                    }
                    for o, ms in zip(operators, shares, strict=True)
                ]
            }
        )
    truth = rng.uniform(4, 22, 60)
    told = truth * rng.normal(1, 0.035, 60)
    examined = np.column_stack([told, told / 1.07, told * 1.07, truth]).tolist()
    scores = {
        "model": score(told, truth, told / 1.07, told * 1.07),
        "lookup_table": score(told * 0.87, truth),
        "macs": score(truth * rng.normal(1, 0.12, 60), truth),
    }
    names = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
    columns = [[v[name] for v in networks] for name in names]
    conditions = Conditions(
        "local",
        "Test Processor 3000",
        "abc123",
        "onnxruntime",
        "1.29.0",
        "f" * 64,
        "CPUExecutionProvider",
        "all",
        1,
        "any",
        "none",
    )
    return {
        "format": "phonenas-validation",
        "version": 1,
        "device": "local",
        "target_ms": run.front.target_ms,
        "target": run.front.target,
        "verdict": {"stable": True, "text": "stable: rounds of 5 networks stand ±1.2% apart"},
        "rejected": 12,
        "at": "2026-03-02T10:11:12+00:00",
        "conditions": conditions.to_dict(),
        "networks": networks,
        "score": score(*columns).to_dict(),
        "model": {
            "operators": 2500,
            "networks": 60,
            "date": "2026-03-01T08:00:00+00:00",
            "scores": {name: s.to_dict() for name, s in scores.items()},
            "examined": [[f"network {i}", *row] for i, row in enumerate(examined)],
        },
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return made_run(tmp_path_factory.mktemp("runs") / "run")


def test_front_points(run: Loaded) -> None:
    validation = document(run)
    points = front_points(run, validation)
    of = {k: [p for p in points if p.kind == k] for k in ("evaluated", "front", "validated")}
    near = run.evaluations().to_array()
    near = near[near[:, 0] <= 3 * TARGET_MS]
    assert [(p.latency_ms, p.top1) for p in of["evaluated"]] == [
        tuple(r[:2]) for r in near.tolist()
    ]
    assert [p.id for p in of["front"]] == [c.id for c in run.front]
    first, candidate = of["front"][0], run.front.candidates[0]
    assert (first.low_ms, first.latency_ms, first.high_ms) == (
        candidate.low_ms,
        candidate.latency_ms,
        candidate.high_ms,
    )
    assert [(p.id, p.latency_ms, p.meets_target) for p in of["validated"]] == [
        (v["id"], v["measured_ms"], v["meets_target"]) for v in validation["networks"]
    ]
    assert {p.kind for p in front_points(run)} == {"evaluated", "front"}


def test_points_after_other_epochs_are_left_out(
    run: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = run.evaluations()
    epochs = np.where(np.arange(len(evaluated)) % 3, 1.0, 9.0)
    halved = replace(evaluated, further={**evaluated.further, "epochs": epochs})
    monkeypatch.setattr(Loaded, "evaluations", lambda self: halved)
    shown = {p.top1 for p in front_points(run) if p.kind == "evaluated"}
    assert shown and shown <= set(evaluated.top1[epochs == 9].tolist())


def test_front_points_are_few_and_equal_each_time(tmp_path: Path) -> None:
    run = made_run(tmp_path / "large", n=5000, target_ms=12.0)
    points = front_points(run)
    evaluated = [p for p in points if p.kind == "evaluated"]
    assert len(evaluated) == 2000
    assert len({(p.latency_ms, p.top1) for p in evaluated}) == 2000
    assert max(p.latency_ms for p in evaluated) <= 36
    assert points == front_points(run)


def test_front_figure_marks_what_is_predicted_and_what_is_measured(run: Loaded) -> None:
    points = front_points(run, document(run))
    figure = front_figure(points, TARGET_MS, len(run.evaluations()))
    evaluated, front, measured, target = figure.data
    assert (evaluated.marker.symbol, front.marker.symbol) == (OPEN, OPEN)
    assert measured.marker.symbol in FILLED
    assert front.marker.color != measured.marker.color
    assert front.error_x.arrayminus[0] == pytest.approx(
        run.front.candidates[0].latency_ms - run.front.candidates[0].low_ms
    )
    assert set(target.x) == {TARGET_MS} and "8.40 ms" in target.name
    title = figure.layout.title.text
    assert f"{len(run.front)} networks on the front, 5 of them measured" in title
    assert "of 600 evaluated" in title
    assert "ms" in figure.layout.xaxis.title.text and "%" in figure.layout.yaxis.title.text


def test_front_figure_without_target_and_without_validation(tmp_path: Path) -> None:
    run = made_run(tmp_path / "free", n=200, target_ms=None)
    figure = front_figure(front_points(run), None, 200)
    assert len(figure.data) == 2
    assert "none of them validated yet" in figure.layout.title.text
    assert front_points(run, document(run))[-1].meets_target is None


def test_calibration_points_and_figure(run: Loaded) -> None:
    validation = document(run)
    points = calibration_points(validation)
    assert [p.kind for p in points] == ["examined"] * 60 + ["validated"] * 5
    row = validation["model"]["examined"][0]
    assert [points[0].network, points[0].predicted_ms, points[0].measured_ms] == [*row[:2], row[4]]
    assert [p.inside for p in points[60:]] == [v["inside"] for v in validation["networks"]]
    figure = calibration_figure(points)
    line, examined, validated = figure.data
    assert list(line.x) == list(line.y)
    assert line.x[0] <= min(p.low_ms for p in points)
    assert list(validated.x) == [p.measured_ms for p in points[60:]]
    assert list(examined.y) == [p.predicted_ms for p in points[:60]]
    assert "65 whole networks: 60 of the model's score, 5 validated" in figure.layout.title.text
    assert "● measured, ms" in figure.layout.xaxis.title.text
    assert "○ predicted" in figure.layout.yaxis.title.text


def test_calibration_without_the_model_that_promised(run: Loaded) -> None:
    validation = document(run) | {"model": None}
    points = calibration_points(validation)
    assert {p.kind for p in points} == {"validated"}
    assert len(calibration_figure(points).data) == 2


def test_operator_points_add_up_to_the_prediction(run: Loaded) -> None:
    validation = document(run)
    points = operator_points(validation)
    for v in validation["networks"]:
        own = [p for p in points if p.id == v["id"]]
        assert sum(p.ms for p in own) == pytest.approx(v["predicted_ms"])
        assert [own[0].group, own[-2].group, own[-1].group] == ["stem", "head", "constant share"]
        assert {p.group for p in own[1:-2]} == {f"block at {px} px" for px in (112, 56, 28, 14, 7)}
    assert points[0].operator == "stem_k3_s2 at 224 px"


def test_operator_figure(run: Loaded) -> None:
    validation = document(run, top=3)
    points = operator_points(validation)
    measured = {v["id"]: v["measured_ms"] for v in validation["networks"]}
    figure = operator_figure(points, measured)
    assert [t.name for t in figure.data] == [
        "stem",
        "block at 112 px",
        "block at 56 px",
        "block at 28 px",
        "block at 14 px",
        "block at 7 px",
        "head",
        "constant share",
        "whole, measured",
    ]
    bars = figure.data[:-1]
    assert len({b.marker.color for b in bars}) == len(bars)
    assert sum(len(b.x) for b in bars) == len(points)
    assert list(figure.data[-1].x) == list(measured.values())
    assert figure.data[-1].marker.symbol in FILLED
    assert figure.data[-1].marker.color not in {b.marker.color for b in bars}
    filled_in = [s for b in bars for s in b.marker.pattern.shape]
    assert filled_in.count("/") == sum(not p.measured for p in points) > 0
    one = operator_figure([replace(points[0], id=0)], {0: 9.0})
    assert one.layout.title.text.endswith("1 network")
