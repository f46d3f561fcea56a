"""Several devices on the command line: searched at once, validated one by one, on one page."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phonenas import data, latency_model
from phonenas.cli import stores
from phonenas.cli.live.state import RunState
from phonenas.cli.search import _by_device, _weights
from phonenas.devices.measuring import profiling
from phonenas.devices.simulated import SimulatedPhone
from phonenas.latency_model.fitting import fit_measurements
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument
from tests.cli.test_app import Run, run
from tests.cli.test_precisions import SPACE, fill

__all__ = ["run"]

pytestmark = pytest.mark.usefixtures("fast")
TOML = """\
[big]
transport = "simulated"
address = "3"
[little]
transport = "simulated"
address = "4"
cores = "little"
"""
PHONES = {
    "big": SimulatedPhone("big", seed=3),
    "little": SimulatedPhone("little", seed=4, cores="little"),
}
SEARCH: tuple[str, ...] = (
    "search",
    "--db",
    "s.db",
    "--device",
    "big",
    "--device",
    "little",
    "--evaluations",
    "36",
)
SEARCH += ("--space", "tests.cli.test_precisions:OneBlock", "--quiet")


def test_a_value_is_of_one_device_or_of_all() -> None:
    two = ["a", "b"]
    assert _by_device("--target", None, two) == {}
    assert _by_device("--target", ["8"], two) == {"a": "8", "b": "8"}
    assert _by_device("--target", ["b=20", "8"], two) == {"a": "8", "b": "20"}
    assert _by_device("--target", ["a=mobilenet-v2"], two) == {"a": "mobilenet-v2"}
    for given, words in (
        (["8", "9"], "--target is given twice: 8 and 9. Name the device of each"),
        (["a=8", "a=9"], "--target of a is given twice: 8 and 9"),
        (["c=8"], "c=8: a device of this search, =, and a value, as --target a=8; .* a and b"),
        (["a="], "a device of this search"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            _by_device("--target", given, two)
    with pytest.raises(InvalidArgument, match="each device once; given twice: a"):
        _by_device("--target", [], ["a", "b", "a"])


def test_weights_are_numbers() -> None:
    assert _weights(None, ["a", "b"]) == []
    assert _weights(["b=3"], ["a", "b"]) == [1.0, 3.0]
    with pytest.raises(InvalidArgument, match="DEVICE=NUMBER"):
        _weights(["b=much"], ["a", "b"])


def test_a_models_file_is_of_the_device_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "device_of", lambda path: path.stem)
    monkeypatch.setattr(stores, "find_model", lambda db, device, file, *_: (device, file))
    little = Path("little.json")
    found = stores.models_of("s.db", ["big", "little", "big"], [little], True, None)
    assert list(found.items()) == [("big", ("big", None)), ("little", ("little", little))]
    with pytest.raises(InvalidArgument, match="one file for each of big at most"):
        stores.models_of("s.db", ["big"], [Path("big.json"), little], True, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    (folder / "devices.toml").write_text(TOML)
    subjects = profiling.Selection().subjects(SPACE, 20, seed=0)
    with data.MeasurementStore(folder / "s.db") as store:
        for name, phone in PHONES.items():
            fill(store, phone, subjects)
            known = store.measurements(phone.conditions)
            model = fit_measurements(phone.conditions, known)
            model.save(latency_model.model_path(str(folder / "s.db"), name, "float32"))
    return folder


@pytest.fixture
def there(made: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.undo()  # the devices are those of devices.toml
    monkeypatch.chdir(tmp_path)
    run.monkeypatch = monkeypatch
    monkeypatch.setenv("PHONENAS_DEVICES", str(tmp_path / "devices.toml"))


def truth_ms(device: str, network: str) -> float:
    return PHONES[device].truth_ms(Architecture.parse(network))


@pytest.mark.slow
def test_one_front_for_two_phones_validated_on_both(run: Run, there: None) -> None:
    drawn = SPACE.sample(np.random.default_rng(1), 9)
    networks = [str(SPACE.decode(row)) for row in drawn]
    ms = {d: sorted(truth_ms(d, n) for n in networks)[6] for d in ("big", "little")}
    targets = [f"--target={d}={t:.3f}" for d, t in ms.items()]
    found = run.json(*SEARCH, *targets, "--out", "r")
    assert [d["device"] for d in found["devices"]] == ["big", "little"]
    assert found["across"] == "worst"
    assert (found["origin"], found["precision"]) == ("simulated", "float32")
    assert {(d["origin"], d["precision"]) for d in found["devices"]} == {("simulated", "float32")}
    for c in found["front"]:
        for d, target in ms.items():
            assert c["values"][f"latency:{d}"] <= round(target, 3)
            truth = truth_ms(d, c["block_args"])
            assert c["values"][f"latency:{d}"] == pytest.approx(truth, rel=0.1)
    code, out, _ = run("show", "r", "--csv", "r.csv", "--parquet", "r.parquet")
    assert code == 0 and "big, 90 %" in out and "little, 90 %" in out
    rows = list(csv.DictReader(Path("r.csv").read_text().splitlines()))
    assert float(rows[0]["low:little"]) < float(rows[0]["latency:little"])
    assert "latency:big" in pd.read_parquet("r.parquet")

    at = ("--db", "s.db", "--quiet")
    first = run.json("validate", "r", "--device", "big", "--top", "3", *at)
    other = run.json("validate", "r", "--device", "little", "--top", "3", *at)
    chosen = [[v["id"] for v in r["networks"]] for r in (first, other)]
    assert chosen[0] == chosen[1]
    for device, result in (("big", first), ("little", other)):
        assert result["target_ms"] == pytest.approx(ms[device], abs=1e-3)
        for v in result["networks"]:
            assert v["measured_ms"] == pytest.approx(truth_ms(device, v["block_args"]), rel=0.05)
            assert v["verdict"] in ("meets", "likely", "unclear", "misses")
    again = run.json("validate", "r", "--device", "little", "--top", "3", "--rounds", "2", *at)
    assert [r["folder"] for r in again["rounds"]] == ["r/device2", "r/device2/round2"]
    values = {c["block_args"]: c["values"]["latency:big"] for c in found["front"]}
    for v in again["networks"]:
        # The reward of the worst of both: predicted on the one, measured on the other.
        ratio = max(values[v["block_args"]] / ms["big"], v["measured_ms"] / ms["little"])
        assert v["reward"] == pytest.approx(v["top1"] * ratio**-0.07, abs=1e-4)
    state = RunState(Path("r")).read()
    assert [p["device"] for p in state["plots"]] == ["big", "little"]
    for plot, device, told in zip(state["plots"], ("big", "little"), (first, other), strict=True):
        assert plot["target"] == pytest.approx(ms[device], abs=1e-3)
        shown = sorted(c["values"][f"latency:{device}"] for c in found["front"])
        assert [at[0] for at in plot["front"]] == pytest.approx(shown, abs=1e-4)
        measured = {round(v["measured_ms"], 4) for v in told["networks"]}
        assert measured <= {at[0] for at in plot["measured"]}
    facts = dict(state["facts"])
    assert facts["measured on big"] == "3 networks" and "networks" in facts["measured on little"]
    assert state["rows"]["head"][:2] == ["latency on big", "latency on little"]
    assert json.loads(Path("r/device2/round2/run.json").read_text())["settings"]["device"] == (
        "little"
    )
    page = Path(run.json("report", "r")).read_text()
    for words in ("Networks for big and little", "Validated networks on little", "on every device"):
        assert words in page
    assert 'id="front-device2"' in page and "latency:little" in page
    # The part of one device is of it alone; a round of one device goes on to the other.
    part = Path(run.json("report", "r/device2")).read_text()
    assert "Networks for little" in part and 'id="front-device2"' not in part
    twice = run.json("validate", "r", "--device", "big", "--top", "3", "--rounds", "2", *at)
    assert twice["rounds"][1]["folder"] == "r/round2"
    onward = run.json("validate", "r/round2", "--device", "little", "--top", "2", *at)
    for v in onward["networks"]:
        assert v["measured_ms"] == pytest.approx(truth_ms("little", v["block_args"]), rel=0.05)
    for name in ("model.json", "model2.json"):
        code, _, err = run("fit", "--device", "little", "--db", "s.db", "--out", f"r/{name}")
        assert code == 1 and "is not overwritten" in err
    code, _, err = run("validate", "r", "--device", "pixel6", *at)
    assert code == 2 and "r was searched for big and little, not for pixel6" in err
    # The same command is the same run; more evaluations than networks change nothing.
    assert run.json(*SEARCH, *targets, "--out", "r")["front"] == found["front"]
    shutil.move("s.little.model.json", "gone")
    code, _, err = run(*SEARCH, *targets, "--out", "r")
    assert code == 1 and "there is no latency model of little" in err
    models = ("--model", "r/model.json", "--model", "r/model2.json")
    assert run.json(*SEARCH, *targets, *models, "--out", "r")["front"] == found["front"]
    # The file of a device that has a limit alone is given in the same way.
    alone = ("search", "--device", "big", "--db", "s.db", "--quiet", *SEARCH[-5:-1])
    limit = f"--limit=latency:little<={ms['little']:.3f}"
    limited = run.json(*alone, limit, "--model", "gone", "--out", "alone")
    assert all(c["values"]["latency:little"] <= ms["little"] + 1e-3 for c in limited["front"])
    code, _, err = run(*alone, "--model", "gone", "--out", "other")
    assert code == 2 and "gone is a model of little, not of big" in err


STUDY = """
out = "all"
device = ["big", "little"]
space = "tests.cli.test_precisions:OneBlock"
db = "s.db"
[profile]
networks = 20
[fit]
[search]
target = {big = 9, little = 40}
evaluations = 36
[validate]
top = 2
[report]
"""


@pytest.mark.slow
def test_a_study_of_both(run: Run, there: None) -> None:
    Path("study.toml").write_text(STUDY)
    done = run.json("run", "--quiet")["steps"]
    assert [s["step"].split()[0] for s in done] == [
        "profile",
        "fit",
        "fit",
        "search",
        *("validate", "validate", "report"),
    ]
    searched, *validated = (s["result"] for s in done[3:6])
    assert [d["target_ms"] for d in searched["devices"]] == [9, 40]
    for result, device in zip(validated, ("big", "little"), strict=True):
        for v in result["networks"]:
            assert v["measured_ms"] == pytest.approx(truth_ms(device, v["block_args"]), rel=0.05)
    assert "Validated networks on little" in Path(done[-1]["made"]).read_text()
    assert all(s["before"] for s in run.json("run")["steps"])
    # A phone whose table changed is profiled again, and the models are fitted on all that is known
    # now: they are not those of the run, which is left.
    toml = Path("devices.toml")
    toml.write_text(toml.read_text() + "wait_below_c = 90\n")
    code, _, err = run("run", "--quiet")
    assert code == 2 and "step 4 of 7, search nsga2-9-40-seed0: " in err
    assert "give the study another --out" in err and "model2.json" in err


@pytest.mark.slow
def test_what_cannot_be_is_told_in_a_line(run: Run, there: None) -> None:
    space = ("--space", "tests.cli.test_precisions:OneBlock")
    for more, words in (
        (("--target", "big=8"), "little: no target, but the other devices have one"),
        (("--target", "8", "--across", "sum"), "across devices: worst, mean, each"),
        (("--across", "mean"), "--across mean compares latencies with targets"),
        (("--target", "8", "--across", "each", "--weight", "big=2"), "act only with across mean"),
    ):
        code, _, err = run(*SEARCH, *more, "--out", "x")
        assert code == 2 and words in err and len(err.splitlines()) == 1, err
    alone = ("search", "--device", "big", *space, "--db", "s.db", "--out", "x")
    code, _, err = run(*alone, "--across", "mean")
    assert code == 2 and "--across acts only with several --device" in err
    code, _, err = run(
        "search",
        "--device",
        "big",
        "--device",
        "little",
        "--db",
        "s.db",
        "--out",
        "x",
        "--space",
        "mnasnet",
        "--target",
        "20",
    )
    assert code == 1 and "big" in err and not Path("x").exists()
