"""What a measurement with its error bar says of a target."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phonenas import data, search
from phonenas.data import Measurement, Round
from phonenas.devices.measuring.profiling import Outcome
from phonenas.devices.measuring.protocol import Protocol, Verdict
from phonenas.search.pareto import Candidate, ParetoFront
from phonenas.search.validation import validate as validation
from phonenas.search.validation.rounds import Round as ValidationRound
from phonenas.search.validation.rounds import _best
from phonenas.search.validation.validate import counted, target_verdict
from phonenas.testing import FakeDevice

TARGET_MS = 20.0


@pytest.mark.parametrize(
    ("measured_ms", "spread", "said"),
    [
        (19.0, 0.02, "meets"),  # 18.62 to 19.38
        (20.0, 0.0, "meets"),
        (20.001, 0.0, "misses"),
        (20.9, 0.02, "misses"),  # from 20.48 on
        (20.5, 0.03, "unclear"),  # 19.89 to 21.12
        (20.1, 0.03, "unclear"),
        (19.9, 0.03, "unclear"),
        (19.7, 0.03, "likely"),  # 19.11 to 20.29: half way to its upper end
        (19.5, 0.03, "likely"),
        (19.41, 0.02, "meets"),  # up to 19.80
        (10.0, math.nan, "unclear"),  # a single round has no error bar
        (10.0, None, "unclear"),
        (10.0, 1.5, "likely"),
    ],
)
def test_the_error_bar_counts(measured_ms: float, spread: float | None, said: str) -> None:
    assert target_verdict(measured_ms, spread, TARGET_MS) == said
    assert target_verdict(measured_ms, spread, None) is None


def test_a_true_value_at_the_edge_of_likely_lies_below_in_three_of_four_cases() -> None:
    # Of a normal whose 90 % interval is ±1.6449 standard deviations wide.
    share = 0.5 * (1 + math.erf(0.41 * 1.6449 / math.sqrt(2)))
    assert share == pytest.approx(0.75, abs=0.005)
    assert target_verdict(20.0 / (1 + 0.42 * 0.05), 0.05, TARGET_MS) == "likely"
    assert target_verdict(20.0 / (1 + 0.40 * 0.05), 0.05, TARGET_MS) == "unclear"


def test_they_are_counted_in_words() -> None:
    said = ["meets", "misses", "meets", "likely", "unclear", "misses"]
    assert counted(said, 26.2) == "2 meet the target of 26.200 ms, 1 likely, 1 unclear, 2 miss it"
    assert counted(["meets"], 7.5) == "1 meet the target of 7.500 ms"


# -- a validation of measurements that are written down here ------------------------------------

ROUNDS = {  # measured: 19.0 ±0.7 %, 19.7 ±3.7 %, 20.0 ±3.7 %, 20.9 ±0.7 %
    "calm": (18.9, 18.95, 19.0, 19.05, 19.1),
    "wide": (18.2, 18.9, 19.7, 20.5, 21.2),
    "at": (18.5, 19.2, 20.0, 20.8, 21.5),
    "over": (20.8, 20.85, 20.9, 20.95, 21.0),
}


def candidate(id: int, name: str, top1: float, low_ms: float, high_ms: float) -> Candidate:
    return Candidate(
        id=id,
        block_args=name,
        top1=top1,
        top1_error=0.0,
        outside=False,
        latency_ms=19.5,
        low_ms=low_ms,
        high_ms=high_ms,
        covered=True,
        macs=1,
        params=1,
        reward=top1,
        measured_ms=None,
    )


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> search.Validation:
    device = FakeDevice()
    front = ParetoFront(
        (
            candidate(1, "calm", 0.70, 18.0, 21.0),
            candidate(2, "wide", 0.75, 18.0, 19.0),
            candidate(3, "at", 0.80, 20.5, 22.0),
            candidate(4, "over", 0.85, 20.0, 21.5),
        ),
        TARGET_MS,
        "20",
        0.0,
    )
    results = {
        name: Measurement("network", name, device.conditions, tuple(Round((t,)) for t in ms))
        for name, ms in ROUNDS.items()
    }
    verdict = Verdict(True, "stable")

    def measured(*_: Any, **how: Any) -> Outcome:
        assert how["protocol"] == Protocol(network_rounds=12, startups=3)
        return Outcome(4, 0, 0, {}, {}, 1.0, 1.0, device.conditions, verdict, results)

    class Named:
        def __init__(self, kind: str, model: str) -> None:
            self.text = model

    monkeypatch.setattr(validation, "measure", measured)
    monkeypatch.setattr(validation, "Subject", Named)
    monkeypatch.setattr(Candidate, "architecture", property(lambda self: self.block_args))
    monkeypatch.setattr(validation, "select_candidates", lambda front, *_: list(front))
    with data.MeasurementStore(tmp_path / "s.db") as store, device:
        return search.validate(front, on=device, into=store, top=4)


def test_validation_says_what_the_rounds_allow(validated: search.Validation) -> None:
    said = {v.candidate.block_args: v for v in validated.networks}
    assert {name: v.verdict for name, v in said.items()} == {
        "calm": "meets",
        "wide": "unclear",
        "at": "unclear",
        "over": "misses",
    }
    assert {name: v.meets_target for name, v in said.items()} == {
        "calm": True,
        "wide": True,
        "at": True,
        "over": False,
    }
    assert {name: v.inside for name, v in said.items()} == {
        "calm": True,
        "wide": False,
        "at": False,
        "over": True,
    }
    assert said["calm"].spread == pytest.approx(0.0047, abs=5e-4)
    assert [v.to_dict()["verdict"] for v in validated.networks] == [
        "meets",
        "unclear",
        "unclear",
        "misses",
    ]
    assert "1 meet the target of 20.000 ms, 2 unclear, 1 miss it" in repr(validated)
    assert "inside  target: meets it" in str(validated)
    assert "OUTSIDE  target: unclear" in str(validated)


def test_the_surest_come_first(validated: search.Validation, tmp_path: Path) -> None:
    front = ParetoFront((), TARGET_MS, "20", 0.0)
    one = ValidationRound(1, tmp_path, front, validated, None, None)
    spec = search.Spec(search.Target(TARGET_MS, "20"))
    run: Any = SimpleNamespace(front=front, spec=spec, settings={"device": "fake"})
    names = [b.validated.candidate.block_args for b in _best([one], run, 4)]
    assert names == ["calm", "at", "wide", "over"]
    likely = replace(
        validated, networks=tuple(replace(v, verdict="likely") for v in validated.networks[1:2])
    )
    both = replace(validated, networks=(validated.networks[0], *likely.networks))
    names = [
        b.validated.candidate.block_args for b in _best([replace(one, validation=both)], run, 4)
    ]
    assert names == ["wide", "calm"]  # both keep the target; the better reward decides
