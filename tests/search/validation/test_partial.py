"""A network that gives no stable measurement is named; the others are measured, shown and kept."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas import cli, data, devices, latency_model, search, space
from phonenas.devices.device import Job, Reading
from phonenas.devices.measuring import profiling
from phonenas.devices.measuring.protocol import Protocol
from phonenas.report import read_validation, write_report
from phonenas.search.accuracy import Surrogate
from phonenas.search.candidate_selection import select_candidates
from phonenas.search.run_folder import Loaded
from phonenas.search.validation import rounds
from phonenas.space.errors import UnstableDevice
from phonenas.testing import SimulatedPhone

pytestmark = pytest.mark.usefixtures("fast")
BLOCK = (
    '[[blocks]]\nop = "mbconv"\nexpansion = [3, 6]\nkernel = [3, 5]\nfilters = [8, 16, 24]\n'
    "layers = [1, 2]\nstride = 2\n"
)


class Failing(SimulatedPhone):
    """Some networks cannot be run."""

    refused: frozenset[str] = frozenset()
    all_networks = False

    def run_ms(self, jobs: Sequence[Job], **more: Any) -> Iterator[Reading]:
        for job, reading in zip(jobs, super().run_ms(jobs, **more), strict=True):
            text = job.model.read_text()
            bad = any(name in text for name in self.refused)
            if bad or (self.all_networks and text.count("_") > 7):
                yield Reading(error="out of memory")
            else:
                yield reading


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("partial")
    protocol = Protocol(apart_s=0.0)
    mine = folder / "mine.toml"
    mine.write_text("resolution = 32\n[stem]\nfilters = 8\n" + 2 * BLOCK, encoding="utf-8")
    small = space.get(str(mine))
    with data.MeasurementStore(folder / "s.db") as store, SimulatedPhone("sim") as phone:
        subjects = profiling.Selection().subjects(small, 20, seed=0)
        devices.measure(subjects, on=phone, into=store, protocol=protocol)
        model = latency_model.fit(store, "sim")
    model.save(folder / "s.sim.model.json")
    target = float(np.quantile(model.on(small)(small.sample(np.random.default_rng(0), 500)), 0.1))
    search.run(
        small,
        latency=model,
        accuracy=Surrogate(),
        strategy=search.NSGA2(seed=0),
        target_ms=target,
        evaluations=300,
        into=folder / "r",
    )
    (folder / "devices.toml").write_text('[sim]\ntransport = "simulated"\n', encoding="utf-8")
    return search.load(folder / "r")


def refusing(*names: str) -> Failing:
    phone = Failing("sim")
    phone.refused = frozenset(names)
    return phone


def go(run: Loaded, phone: Failing, tmp_path: Path, **more: Any) -> Any:
    model = latency_model.load(tmp_path / "s.sim.model.json")
    with data.MeasurementStore(tmp_path / "s.db") as store, phone:
        return search.validate_rounds(run, latency=model, on=phone, into=store, **more)


@pytest.fixture
def own(run: Loaded, tmp_path: Path) -> Loaded:
    """A copy of the run that a test may write into."""
    shutil.copytree(run.path.parent, tmp_path, dirs_exist_ok=True)
    return search.load(tmp_path / "r")


def test_one_of_five_gives_none(own: Loaded, tmp_path: Path) -> None:
    chosen = select_candidates(own.front, 5)
    lost = chosen[2]
    found = go(own, refusing(lost.block_args), tmp_path, rounds=1)
    (first,) = found.rounds
    measured = [v.candidate.id for v in first.validation.networks]
    assert measured == [c.id for c in chosen if c.id != lost.id]
    (lacking,) = first.validation.unmeasured
    assert lacking.candidate == lost and "out of memory" in lacking.reason
    assert first.validation.score.n == 4 and found.score.n == 4
    text = str(first.validation)
    assert f"{lost.id:>4}  not measured: " in text and "out of memory" in text
    assert "1 not measured" in repr(first.validation) and "1 not measured" in repr(found)
    frame = first.validation.to_frame()
    assert len(frame) == 5 and frame.reason.tolist()[:4] == [""] * 4
    assert "out of memory" in frame.reason.tolist()[4]

    kept = json.loads((own.path / "validation.json").read_text(encoding="utf-8"))
    assert [v["id"] for v in kept["networks"]] == sorted(measured)
    (row,) = kept["unmeasured"]
    assert (row["id"], row["block_args"]) == (lost.id, lost.block_args)
    assert "out of memory" in row["reason"]
    again = search.load(own.path)
    assert {c.id for c in again.front if c.measured_ms is not None} == set(measured)
    page = write_report(own.path).read_text(encoding="utf-8")
    assert f"Network {lost.id} gave no stable measurement: " in page and "out of memory" in page

    # The same call again measures that one alone; it then stands among the others.
    whole = go(own, refusing(), tmp_path, rounds=1).rounds[0].validation
    assert whole.reused == 4 and len(whole.networks) == 5 and whole.unmeasured == ()
    kept = json.loads((own.path / "validation.json").read_text(encoding="utf-8"))
    assert len(kept["networks"]) == 5 and kept["unmeasured"] == []


def test_what_is_not_measured_stays_named_by_a_later_call(own: Loaded, tmp_path: Path) -> None:
    five = select_candidates(own.front, 5)
    one = select_candidates(own.front, 1)
    lost = next(c for c in five if c not in one)
    go(own, refusing(lost.block_args), tmp_path, rounds=1)
    go(own, refusing(), tmp_path, rounds=1, top=1)
    kept = read_validation(own.path)
    assert kept is not None and [u["id"] for u in kept["unmeasured"]] == [lost.id]


def test_rounds_go_on_without_it(own: Loaded, tmp_path: Path) -> None:
    lost = select_candidates(own.front, 5)[0]
    found = go(own, refusing(lost.block_args), tmp_path, rounds=2)
    assert len(found.rounds) == 2 and len(found.rounds[0].validation.networks) == 4
    assert found.rounds[1].validation.networks
    assert [u.candidate.id for u in found.unmeasured] == [lost.id]  # asked for once
    assert lost.block_args not in {b.validated.candidate.block_args for b in found.best}
    kept = json.loads((own.path / "validation.json").read_text(encoding="utf-8"))
    assert [len(r["unmeasured"]) for r in kept["rounds"]] == [1, 0]


def test_a_round_without_any_keeps_the_one_before(
    own: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Failing("sim")

    def show(event: Any) -> None:
        phone.all_networks = phone.all_networks or getattr(event, "joined", None) is not None

    found = go(own, phone, tmp_path, rounds=3, on_event=show)
    assert len(found.rounds) == 1 and len(found.best) == 5
    assert re.match(r"round 2 gave no measurement: (\d) of \1 networks gave no ", found.stopped)
    assert found.failed
    kept = json.loads((own.path / "validation.json").read_text(encoding="utf-8"))
    assert len(kept["rounds"]) == 1 and "out of memory" in kept["stopped"]


@pytest.mark.fault(
    "A later round of a validation measures nothing.",
    "`round 2 gave no measurement: …`; `Earlier rounds are kept.`; exit code 1",
    "The same.",
)
def test_the_command_ends_with_1_where_a_round_gave_none(
    own: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    phone = Failing("sim")
    plain = rounds.rerank

    def then_fails(*values: Any) -> Any:
        phone.all_networks = True
        return plain(*values)

    monkeypatch.setattr(rounds, "rerank", then_fails)
    monkeypatch.setattr(devices, "connect", lambda *a, **k: phone)
    line = ["phonenas", "validate", "r", "--device", "sim", "--db", "s.db", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and "SIMULATED" in out
    assert len(set(re.findall(r"r:\d+", out))) == 5
    assert "UnstableDevice: round 2 gave no measurement: " in err and "rounds are kept" in err


@pytest.mark.fault(
    "No network of a validation gives a number.",
    "`5 of 5 networks gave no stable measurement (network …`",
    "The same.",
)
def test_none_at_all_is_an_error_that_names_each(own: Loaded, tmp_path: Path) -> None:
    phone = Failing("sim")
    phone.all_networks = True
    with pytest.raises(UnstableDevice, match="5 of 5 networks gave no stable") as caught:
        go(own, phone, tmp_path, rounds=1)
    for c in select_candidates(own.front, 5):
        assert f"network {c.id}: " in str(caught.value)
    assert not (own.path / "validation.json").exists()


@pytest.mark.slow
@pytest.mark.fault(
    "Some networks of a validation give no stable number.",
    "`not measured: …: 3 times: out of memory`, beside what was measured; "
    "`UnstableDevice: 1 of … networks gave no stable measurement`; exit code 1",
    "Close other programs, then give the same command again: it measures these alone.",
)
@pytest.mark.parametrize("count", ["1", "2"])
def test_the_command_shows_the_others_and_ends_with_1(
    own: Loaded,
    tmp_path: Path,
    count: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lost = select_candidates(own.front, 5)[1]
    monkeypatch.setattr(devices, "connect", lambda *a, **k: refusing(lost.block_args))

    def told(*words: str) -> tuple[Any, str, str]:
        line = ["phonenas", "validate", "r", "--device", "sim", "--db", "s.db", "--quiet"]
        monkeypatch.setattr(sys, "argv", [*line, "--rounds", count, *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    code, out, err = told()
    assert code == 1
    assert out.count("◌") >= 5 and "●" not in out  # a simulated phone
    assert "not measured: " in out and "out of memory" in out and "SIMULATED" in out
    assert err.startswith("UnstableDevice: 1 of ") and f"{lost.id}: 3 times" in err
    assert "r/validation.json" in err and "the same command again" in err
    code, out, err = told("--json")
    assert code == 1 and "out of memory" in err
    found = json.loads(out)
    assert [u["id"] for u in found["unmeasured"]] == [lost.id]
    assert len(found["networks"]) >= 4 and lost.id not in {
        v["id"] for v in found["networks"] if v.get("round", 1) == 1
    }


def test_a_simulated_validation_is_marked_in_python_too(own: Loaded, tmp_path: Path) -> None:
    found = go(own, refusing(), tmp_path, rounds=2)
    validation = found.rounds[0].validation
    for text in (str(validation), str(found)):
        assert "●" not in text and "◌" in text
        assert "SIMULATED: sim (simulated phone, no hardware); no device was measured" in text
    assert "simulated" in repr(validation) and "simulated" in repr(found)
    assert set(validation.to_frame().origin) == {"simulated"}
    assert set(found.to_frame().origin) == {"simulated"}


@pytest.mark.slow
def test_more_than_one_number_is_measured_kept_and_shown(
    own: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "connect", lambda *a, **k: SimulatedPhone("sim"))

    def command(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["phonenas", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    line = ["search", "--device", "sim", "--space", "mine.toml", "--accuracy", "surrogate"]
    line += ["--db", "s.db", "--evaluations", "200", "--out", "limited"]
    code, out, err = command(*line, "--limit", "peak_memory<=36.5e6", "--limit", "file_size<=5.5e6")
    assert code == 0, err
    assert "peak memory from 20 networks, each predicted by the others to" in err
    assert "peak_memory" in out and "file_size" in out
    code, out, err = command("validate", "limited", "--device", "sim", "--db", "s.db", "--json")
    assert code == 0, err
    shown = json.loads(out)
    (limit,) = shown["limits"]
    assert limit["limit"] == "peak_memory<=36500000" and limit["kept"] >= limit["of"] - 1 >= 1
    predicted = {c.id: c.values for c in search.load(tmp_path / "limited").front}
    for network in shown["networks"]:
        weights = space.Architecture.parse(network["block_args"]).params * 4
        assert network["file_bytes"] == weights  # of the simulated phone
        assert network["peak_bytes"] == 24 * 2**20 + network["model_bytes"]
        told = predicted[network["id"]]["peak_memory"]
        assert told == pytest.approx(network["peak_bytes"], rel=0.05)
        assert 0 < network["p50_ms"] <= network["p90_ms"] < 2 * network["p50_ms"]
        assert network["p50_ms"] == pytest.approx(network["measured_ms"], rel=0.05)
        assert 1.2 < network["first_ms"] / network["measured_ms"] < 4  # its clock rises
        assert network["load_ms"] > 29
    kept = read_validation(tmp_path / "limited")
    assert kept is not None
    assert {v["peak_bytes"] for v in kept["networks"]} == {
        v["peak_bytes"] for v in shown["networks"]
    }
    page = write_report(tmp_path / "limited").read_text(encoding="utf-8")
    for title in ("p90, ms", "load, ms", "first inference, ms", "peak memory, MB", "file, MB"):
        assert f"<th>{title}</th>" in page
    code, out, _ = command("validate", "limited", "--device", "sim", "--db", "s.db")
    assert code == 0
    assert re.search(r"id +p50 +p90 +load +first inference +peak memory +of the model +file\n", out)
    assert re.search(r"peak_memory<=36500000: \d of \d keep it as measured\n", out)
    code, _, err = command(*line[:-1], "other", "--limit", "p90_ms<=20")
    assert code == 2 and "p90_ms is measured and never predicted" in err.splitlines()[-1]
