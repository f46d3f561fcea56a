"""What a validation writes of what was measured, and what it keeps of an earlier one."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phonenas import data
from phonenas.data import Conditions
from phonenas.devices.measuring.protocol import Verdict
from phonenas.latency_model.metrics import Score
from phonenas.search.pareto import Candidate, ParetoFront
from phonenas.search.validation.validate import (
    Unmeasured,
    Validated,
    Validation,
    counted,
    score_of,
    target_verdict,
    unmeasured_words,
    validate,
)
from phonenas.search.validation.validation_file import DOCUMENT, document, earlier
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnsupportedFormat
from phonenas.testing import FakeDevice

HERE = FakeDevice().conditions
TARGET_MS = 20.0
A1 = "r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24"


def candidate(id: int, ms: float) -> Candidate:
    return Candidate(
        id,
        f"{A1} r{id + 1}_k3_s22_e6_i24_o40",
        0.7 + id / 100,
        0.01,
        id == 2,
        ms,
        0.9 * ms,
        1.1 * ms,
        True,
        300 + id,
        40 + id,
        0.5,
    )


FRONT = ParetoFront(tuple(candidate(i, 18.0 + i) for i in range(4)), TARGET_MS, "mobilenet-v2", 0.5)
SETTINGS = {"device": "fake", "seed": 0}
RUN: Any = SimpleNamespace(settings=SETTINGS, front=FRONT, model={"networks": 12})


def validated(id: int, measured_ms: float, spread: float = 0.02) -> Validated:
    c = candidate(id, 18.0 + id)
    return Validated(
        c.with_measured(measured_ms),
        c.latency_ms,
        c.low_ms,
        c.high_ms,
        measured_ms,
        spread,
        c.latency_ms / measured_ms - 1,
        True,
        measured_ms <= TARGET_MS,
        12,
        target_verdict(measured_ms, spread, TARGET_MS),
    )


def validation(*networks: Validated, unmeasured: tuple[Unmeasured, ...] = ()) -> Validation:
    return Validation(
        networks,
        score_of([v.to_dict() for v in networks]),
        TARGET_MS,
        Verdict(True, "stable: all of them"),
        HERE,
        reused=1,
        rejected=7,
        seconds=3.0,
        unmeasured=unmeasured,
    )


LACKING = Unmeasured(candidate(3, 21.0), "3 times: out of memory")
FIRST = validation(validated(0, 18.5), validated(1, 21.0), unmeasured=(LACKING,))


def test_a_document_holds_all_that_a_report_says() -> None:
    made = document(FIRST, RUN, HERE)
    assert (made["format"], made["version"]) == ("phonenas-validation", 2)
    assert (made["device"], made["target_ms"], made["target"]) == ("fake", 20.0, "mobilenet-v2")
    assert made["verdict"] == {"stable": True, "text": "stable: all of them"}
    assert (made["rejected"], made["reused"], made["model"]) == (7, 1, {"networks": 12})
    assert made["conditions"] == HERE.to_dict()
    assert [n["id"] for n in made["networks"]] == [0, 1]
    row = made["networks"][1]
    assert {k: row[k] for k in ("predicted_ms", "measured_ms", "verdict", "meets_target")} == {
        "predicted_ms": 19.0,
        "measured_ms": 21.0,
        "verdict": "misses",
        "meets_target": False,
    }
    assert (row["top1"], row["top1_error"], row["outside"]) == (0.71, 0.01, False)
    assert (row["macs"], row["params"], row["operators"], row["constant_ms"]) == (301, 41, [], 0)
    assert row["at"] == made["at"] and made["at"].endswith("+00:00")
    assert [(u["id"], u["predicted_ms"], u["reason"]) for u in made["unmeasured"]] == [
        (3, 21.0, "3 times: out of memory")
    ]
    assert made["score"]["n"] == 2
    assert made["score"]["mape"] == pytest.approx((0.5 / 18.5 + 2 / 21) / 2)
    assert not {"rounds", "best", "stopped"} & set(made)


def test_what_an_earlier_one_measured_stays_until_it_is_measured_again() -> None:
    before = {**document(FIRST, RUN, HERE), "rounds": [], "stopped": "done", "other": 1}
    one = validation(validated(3, 20.9), validated(1, 19.5))
    made = document(one, RUN, HERE, before=before)
    assert [(n["id"], n["measured_ms"]) for n in made["networks"]] == [
        (0, 18.5),
        (1, 19.5),
        (3, 20.9),
    ]
    assert made["unmeasured"] == []
    assert made["score"]["n"] == 3
    assert (made["rounds"], made["stopped"]) == ([], "done")
    assert "other" not in made and "best" not in made
    # What was measured before and lacks now keeps its number; a reason is the latest.
    later = validation(validated(1, 19.5), unmeasured=(Unmeasured(candidate(3, 21.0), "again"),))
    kept = document(later, RUN, HERE, before=document(FIRST, RUN, HERE))
    assert [n["id"] for n in kept["networks"]] == [0, 1]
    assert [(u["id"], u["reason"]) for u in kept["unmeasured"]] == [(3, "again")]
    none = document(validation(validated(0, 18.0)), RUN, HERE, before=before)
    assert [(u["id"], u["reason"]) for u in none["unmeasured"]] == [(3, "3 times: out of memory")]


class _Model:
    """Where the milliseconds of a network go."""

    def explain(self, architecture: Any) -> list[Any]:
        operator = SimpleNamespace(label="conv_k3_s2", in_px=32, key="conv_k3_s2_32x32x3_8")
        return [
            SimpleNamespace(operator=None, ms=0.25, measured=True),
            SimpleNamespace(operator=None, ms=0.5, measured=True),
            SimpleNamespace(operator=operator, ms=17.25, measured=False),
        ]


def test_where_the_time_goes_is_written_too() -> None:
    model: Any = _Model()
    (row,) = document(validation(validated(0, 18.5)), RUN, HERE, latency=model)["networks"]
    assert row["constant_ms"] == 0.75
    assert row["operators"] == [
        {
            "label": "conv_k3_s2",
            "in_px": 32,
            "key": "conv_k3_s2_32x32x3_8",
            "ms": 17.25,
            "measured": False,
        }
    ]


# -- an earlier document ------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    DOCUMENT.write(tmp_path / "validation.json", document(FIRST, RUN, HERE))
    return tmp_path / "validation.json"


def changed(path: Path, **values: Any) -> Path:
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "digest"}
    DOCUMENT.write(path, {**content, **values})
    return path


def test_the_earlier_document_of_the_same_predictions(path: Path) -> None:
    found = earlier(path, RUN, HERE)
    assert [v["id"] for v in found["networks"]] == [0, 1]
    assert [u["id"] for u in found["unmeasured"]] == [3]
    assert earlier(path.with_name("none.json"), RUN, HERE) == {}
    assert earlier(path, RUN, replace(HERE, governor="powersave")) == {}


def test_what_the_front_does_not_hold_or_predicted_otherwise_is_left_out(path: Path) -> None:
    content = json.loads(path.read_text())
    first, second = content["networks"]
    (lacking,) = content["unmeasured"]
    other = {**second, "block_args": first["block_args"]}
    changed(path, networks=[first, other], unmeasured=[lacking, {**lacking, "id": 9}])
    found = earlier(path, RUN, HERE)
    assert [v["id"] for v in found["networks"]] == [0]
    assert [u["id"] for u in found["unmeasured"]] == [3]
    slower = [{**first, "predicted_ms": 18.001}, second]
    changed(path, networks=slower, unmeasured=[{**lacking, "predicted_ms": 1.0}])
    found = earlier(path, RUN, HERE)
    assert [v["id"] for v in found["networks"]] == [1] and found["unmeasured"] == []
    # One that holds no such list, as of an older release, holds none.
    content = {k: v for k, v in content.items() if k not in ("unmeasured", "digest")}
    DOCUMENT.write(path, content)
    assert earlier(path, RUN, HERE)["unmeasured"] == []


def test_one_of_another_run_or_damaged_is_refused(path: Path) -> None:
    another: Any = SimpleNamespace(settings={**SETTINGS, "seed": 1}, front=FRONT, model={})
    with pytest.raises(UnsupportedFormat, match="of another run .*the store holds what was measu"):
        earlier(path, another, HERE)
    row = json.loads(path.read_text())["networks"][0]
    for bad in ({**row, "measured_ms": 0.0}, {k: v for k, v in row.items() if k != "id"}):
        with pytest.raises(UnsupportedFormat, match="is damaged: networks"):
            earlier(changed(path, networks=[bad]), RUN, HERE)
    with pytest.raises(UnsupportedFormat, match="is damaged"):
        earlier(changed(path, networks=[], conditions={"device": "x"}), RUN, HERE)


# -- words and scores ---------------------------------------------------------------------------


def test_the_score_counts_the_noise_of_the_measurements() -> None:
    rows = [validated(i, 18.0 + i, spread=0.2).to_dict() for i in range(4)]
    told = score_of(rows).reason  # ±20 % at 90 % is a standard error of 12.2 %
    assert "no more than their noise of ±12.2%" in told
    assert score_of([{**r, "spread": None} for r in rows]).informative
    assert score_of([{**r, "spread": math.nan} for r in rows]).informative
    mixed = [{**r, "spread": s} for r, s in zip(rows, (0.2, 0.2, 0.4, None), strict=True)]
    assert "±12.2%" in score_of(mixed).reason
    assert isinstance(score_of(rows), Score) and score_of(rows).coverage90 == 1.0


def test_nobody_changes_what_was_measured() -> None:
    for value in (FIRST, LACKING, FIRST.networks[0], FIRST.verdict):
        with pytest.raises(FrozenInstanceError):
            value.reason = "another"  # type: ignore[union-attr,misc]


def test_what_is_not_measured_is_named() -> None:
    two = [LACKING, Unmeasured(candidate(2, 20.0), "it never settled")]
    assert unmeasured_words(two, 5) == (
        "2 of 5 networks gave no stable measurement (network 3: 3 times: out of memory; network 2: "
        "it never settled)"
    )
    assert counted([None, "meets"], 20.0) == "1 meet the target of 20.000 ms"


def test_a_validation_in_words_and_as_a_frame() -> None:
    text = repr(FIRST)
    assert text == (
        "Validation(2 networks measured, 2 inside their interval, 1 meet the target of 20.000 ms, "
        "1 miss it, mean error 6.1%, 1 not measured)"
    )
    bare = replace(FIRST, target_ms=None, unmeasured=())
    assert repr(bare) == (
        "Validation(2 networks measured, 2 inside their interval, mean error 6.1%)"
    )
    lines = str(FIRST).splitlines()
    assert lines[0].startswith("   0  ○ 18.00 ms (16.20 to 19.80)  ● 18.50 ms ±2.0%  -2.7%, inside")
    assert lines[2] == "   3  not measured: 3 times: out of memory" and len(lines) == 3
    simulated = replace(FIRST, conditions=replace(HERE, origin="simulated"))
    assert "no device was measured" in str(simulated).splitlines()[-1]
    frame = FIRST.to_frame()
    assert frame["measured_ms"].tolist()[:2] == [18.5, 21.0] and len(frame) == 3
    assert frame["network"].tolist()[2] == candidate(3, 21.0).block_args
    assert frame["reason"].tolist() == ["", "", "3 times: out of memory"]
    assert set(frame["origin"]) == {"measured"}


def test_what_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store, FakeDevice() as device:
        with pytest.raises(InvalidArgument, match="top: 1 or more, got 0"):
            validate(FRONT, on=device, into=store, top=0)
        other: Conditions = replace(HERE, governor="powersave")
        with pytest.raises(SettingsChanged, match="governor: powersave / none .then / now"):
            validate(FRONT, on=device, into=store, expected=other)
        assert device.readings == 0
