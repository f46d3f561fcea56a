"""Ready phones, shipped with the package, through the commands that take a device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phonenas.data.measurement import Entry
from phonenas.latency_model import load, ready
from phonenas.space import get, zoo
from tests.cli.test_app import Run, run
from tests.latency_model.graphs.test_onnx_check import KINDS, conv

__all__ = ["run"]  # a fixture
PIXEL1 = "pixel1/tflite/cpu-1big/float32"
FOLDER = Path(ready.__file__).parent / "models"


def test_names() -> None:
    names = ready.names()
    assert {PIXEL1, "pixel4/tflite/cpu-1large/float32", "s10/tflite/gpu/float32"} <= set(names)
    assert "iphonexs/tflite/cpu-1large/int8" in names and len(names) == len(set(names))
    assert all(len(n.split("/")) == 4 for n in names)


def test_what_is_shipped_is_small_and_says_where_it_is_from() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert 0 < sum(f.stat().st_size for f in files) <= 4_000_000
    for file in files:
        document = json.loads(file.read_text())
        assert document["source"]["licence"] in ("MIT", "Apache-2.0"), file
        assert document["source"]["source"] and document["source"]["date"]
        assert document["conditions"]["origin"] == "public"
        assert document["examined"] == [] and document["operators"] == {}, "no measurement"
        assert document["measurements"] >= 30
        assert document["scores"]["model"]["n"] == document["measurements"]
        assert document["by_family"]


def test_the_paper_s_networks_on_the_paper_s_phone() -> None:
    """Published: 78, 77, 23.2 ms (Tan et al., 2019); MobileNetV2 75."""
    model = ready.load(PIXEL1)
    names = ("mnasnet-a1", "mnasnet-b1", "mnasnet-small", "mobilenet-v2")
    predicted = model.predict([zoo.network(n) for n in names])
    assert np.abs(predicted.ms / [78.0, 77.0, 23.2, 75.0] - 1).max() < 0.12


def test_devices_ready(run: Run) -> None:
    rows = run.json("devices", "--ready")
    assert [r["name"] for r in rows] == list(ready.names())
    first = next(r for r in rows if r["name"] == PIXEL1)
    assert first["model"] == "Pixel 1" and first["networks"] == 30 and 0 < first["mape"] < 0.2
    code, out, _ = run("devices", "--ready")
    assert code == 0 and PIXEL1 in out and "PUBLIC" in out


def test_predict(run: Run) -> None:
    words = ("predict", "mnasnet-a1", "resnet-50", "ssdlite:mnasnet-a1", "--device", PIXEL1)
    rows = run.json(*words, "--target", "80", "--explain")
    assert [r["network"] for r in rows] == ["mnasnet-a1", "resnet-50", "ssdlite:mnasnet-a1"]
    for r in rows:
        assert r["low_ms"] < r["latency_ms"] < r["high_ms"] and r["origin"] == "public"
        assert sum(o["ms"] for o in r["operators"]) == pytest.approx(r["latency_ms"])
    assert rows[0]["within_target"] > rows[2]["within_target"]
    assert rows[0]["covered"] and not rows[1]["covered"]
    code, out, _ = run(*words)
    assert code == 0 and "PUBLIC: " in out and "others published" in out


@pytest.mark.parametrize("phone", [PIXEL1, "s10/tflite/gpu/float32"])
def test_a_file_of_another_precision_is_refused(run: Run, tmp_path: Path, phone: str) -> None:
    for kind in KINDS:
        conv(tmp_path / f"{kind}.onnx", kind)
    (row,) = run.json("predict", "float32.onnx", "--device", phone)
    assert row["latency_ms"] > 0 and row["basis"] == "kernels"
    for kind in ("float16", "float64"):
        code, out, err = run("predict", f"{kind}.onnx", "--device", phone)
        assert code == 1 and out == "" and len(err.splitlines()) == 1
        assert f"computes in {kind}" in err and "measured in float32" in err
        assert "phonenas profile" not in err and "phonenas devices --ready" in err
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "float32.onnx").read_bytes()[:-40])
    code, out, _ = run("predict", "cut.onnx", "--device", phone)
    assert code != 0 and out == ""


def test_newer_measurements_are_told_once_and_only_where_there_are_some(
    run: Run, tmp_path: Path
) -> None:
    names = [n for n in zoo.names() if n.startswith(("mnasnet", "mobilenet-v2"))]
    networks = [zoo.network(n).scaled(w) for n in names for w in (0.5, 0.75, 1.0)]
    rows = [f'network,"{a}",{1 + a.macs / 1e7:.3f}\n' for a in networks]
    assert len(rows) >= 12
    (tmp_path / "t.csv").write_text("kind,subject,latency_ms\n" + "".join(rows))
    run.json("import", "csv", "t.csv", "--device", "bench")
    words = ("predict", "mnasnet-a1", "--device", "bench")
    path = Path(run.json("fit", "--device", "bench")["model"])
    code, _, err = run(*words)
    assert code == 0 and err == ""
    model = load(path)
    older = Entry(model.last.store, model.last.number - 1)
    replace(model, last=older).save(path)  # as if it was fitted before the last row came
    code, _, err = run(*words)
    assert (code, err.count("newer")) == (0, 1), err


def test_a_width_and_a_resolution(run: Run) -> None:
    words = ("predict", "mobilenet-v1", "--device", PIXEL1)
    whole = run.json(*words)[0]["latency_ms"]
    small = run.json(*words, "--width", "0.5", "--resolution", "128")[0]["latency_ms"]
    assert small < whole / 4


def test_search(run: Run, tmp_path: Path) -> None:
    words = ("search", "--device", PIXEL1, "--target", "75", "--out", "r", "--evaluations", "60")
    searched = run.json(*words, "--also", "latency:s10/tflite/gpu/float32", "--strategy", "random")
    assert searched["origin"] == "public" and searched["front"]
    assert all(c["latency_ms"] <= 75 for c in searched["front"])
    code, _, err = run("report", "r")
    assert code == 0, err
    page = next(tmp_path.glob("r/*.html")).read_text()
    assert "PUBLIC" in page
    assert "phonenas validate" not in page and "Nothing has been" not in page
    assert "○ is predicted, here and everywhere below" in page
    code, _, err = run("validate", "r", "--device", PIXEL1)
    assert code != 0 and "no device to measure" in err


@pytest.mark.parametrize("command", ["profile", "fit", "check"])
def test_what_cannot_be_measured_is_refused_in_one_line(run: Run, command: str) -> None:
    code, out, err = run(command, "--device", PIXEL1)
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert f"{PIXEL1} is a ready phone" in err and f"--device {PIXEL1}" in err


@pytest.mark.parametrize("name", ["pixel4", "pixel4/tflite"])
@pytest.mark.parametrize(
    "command", ["predict mnasnet-a1", "search --target 20 --out runs/x", "fit"]
)
def test_the_start_of_a_ready_name_leads_to_the_list(run: Run, command: str, name: str) -> None:
    code, out, err = run(*command.split(), "--device", name)
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "as pixel4/tflite/" in err and "phonenas devices --ready" in err


def test_the_list_of_ready_phones_says_what_its_names_and_columns_mean(run: Run) -> None:
    code, out, _ = run("devices", "--ready")
    assert code == 0
    head, row = out.splitlines()[:2]
    assert head.split() == ["name", "phone", "networks", "MAPE", "acc10", "Spearman"]
    assert row.split()[0] == "iphone7/tflite/cpu-1large/float32" and "iPhone 7" in row
    notes = out[out.index("\n\n") :]
    for word in ("PHONE/RUNTIME/UNIT/PRECISION", "PUBLIC", "(MAPE)", "(acc10)", "(Spearman)"):
        assert word in notes
    sources = [line for line in notes.splitlines() if line.startswith("measured by ")]
    assert len(sources) == 2 and sources[0].endswith(": iphone7, iphonexs, pixel4, s10")
    assert "phonenas devices --ready iphone7\n" in notes
    assert "phonenas search --device iphone7/tflite/cpu-1large/float32 --space mnasnet" in notes


def test_ready_phones_by_the_beginning_of_their_names(run: Run) -> None:
    found = run.json("devices", "--ready", "pixel4/tflite/gpu")
    assert [p["name"] for p in found] == ["pixel4/tflite/gpu/float32"]
    code, out, _ = run("devices", "--ready", "pixel4")
    assert code == 0 and "iphone" not in out and "those of one phone" not in out
    assert all(line.startswith("pixel4/") for line in out[: out.index("\n\n")].splitlines()[1:])
    code, out, err = run("devices", "--ready", "pixl4")
    assert code == 2 and out == "" and "Did you mean 'pixel4'?" in err
    code, _, err = run("devices", "pixel4")
    assert code == 2 and "phonenas devices --ready pixel4" in err


def test_a_ready_phone_that_is_no_source_is_told(run: Run) -> None:
    code, _, err = run("fit", "--device", "new", "--like", "pixel4/tflite")
    assert code == 2 and "phonenas devices --ready" in err


def test_the_constant_is_not_measured(run: Run) -> None:
    (row,) = run.json("predict", "mobilenet-v2", "--device", PIXEL1, "--explain")
    assert [o["measured"] for o in row["operators"] if o["key"] == "(constant)"] == [False]


def test_the_nearest_name_is_offered(run: Run) -> None:
    code, _, err = run("predict", "mnasnet-a1", "--device", "pixel1/tflite/cpu-1bg/float32")
    assert code == 2 and PIXEL1 in err and "phonenas devices --ready" in err


def test_a_population_is_predicted_as_its_networks_are() -> None:
    mnas, model = get("mnasnet"), ready.load(PIXEL1)
    genomes = mnas.sample(np.random.default_rng(0), 10)
    predicted = model.predict([mnas.decode(g) for g in genomes])
    assert model.on(mnas)(genomes) == pytest.approx(predicted.ms)
