"""phonenas compare: networks of every kind beside each other, on devices of every kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import TinySpace

from phonenas.data import MeasurementStore
from phonenas.latency_model import LatencyModel
from phonenas.space import zoo
from phonenas.space.lowering.onnx import to_onnx
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture
PIXEL1, PIXEL4 = "pixel1/tflite/cpu-1big/float32", "pixel4/tflite/cpu-1large/float32"
READY = ("--device", PIXEL1, "--device", PIXEL4)


def test_on_ready_phones(run: Run, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(to_onnx(zoo.network("mnasnet-small")).SerializeToString())
    blocks = str(zoo.network("mobilenet-v2"))
    names = ["mnasnet-a1", blocks, "resnet-50", "ssdlite:mnasnet-a1", "small.onnx", "nope"]
    found = run.json("compare", *names, *READY, "--csv", "rows.csv")
    assert [r["name"] for r in found["networks"]] == names
    a1, v2, resnet, detector, file, nope = found["networks"]
    assert (a1["macs"], a1["params"]) == (311_325_344, 3_887_038)
    # Published figures are those of the network, by its name or its blocks.
    assert a1["published"]["top1"] == 0.752 and v2["published"]["top1"] == 0.72
    assert resnet["published"]["top1"] == 0.7613 and resnet["params"] == 25_557_032
    assert detector["published"] is detector["estimated"] is None
    assert file["size_bytes"] == (tmp_path / "small.onnx").stat().st_size and file["stored"]
    assert file["macs"] == 68_339_184  # in a file the products of a gate count
    assert a1["estimated"]["top1"] == pytest.approx(
        run.json("accuracy", "mnasnet-a1")[0]["top1"], abs=1e-9
    )
    for row in found["networks"][:-1]:
        assert [t["device"] for t in row["timings"]] == [PIXEL1, PIXEL4]
        for t in row["timings"]:
            assert t["low_ms"] < t["predicted_ms"] < t["high_ms"] and t["origin"] == "public"
            assert t["precision"] == "float32" and t["measured_ms"] is None
    (predicted,) = run.json("predict", "resnet-50", "--device", PIXEL1)
    assert resnet["timings"][0]["predicted_ms"] == predicted["latency_ms"]
    assert resnet["timings"][0]["against_the_first"]["verdict"] == "slower"
    assert nope["failed"] and "no network is called 'nope'" in nope["timings"][0]["reason"]
    rows = pd.read_csv("rows.csv")
    assert len(rows) == 12 and list(rows["device"].unique()) == [PIXEL1, PIXEL4]


def test_the_table_and_the_page(run: Run, tmp_path: Path) -> None:
    code, out, err = run("compare", "mnasnet-a1", "resnet-18", "nope", *READY, "--out", "p.html")
    assert code == 0, err
    assert out.count("PUBLIC: ") == 2 and "nope: no network is called 'nope'" in out
    assert "75.2%" in out and "slower" in out and "written to p.html" in out
    assert "PUBLIC." in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_nothing_known_of_any(run: Run) -> None:
    code, out, err = run("compare", "nope", "nope2", "--device", PIXEL1)
    assert code == 1 and "nope" in out
    assert err.startswith("Incomplete: no latency of 2 networks is known")
    code, out, err = run("compare", "mnasnet-a1", "--device", "fake", "--db", "none.db")
    assert code == 1 and "there is no latency model of fake" in out
    assert "phonenas profile --device fake --space mnasnet --db none.db" in out
    assert err == "Incomplete: no latency of 1 network is known: see the reasons\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mnasnet-a1", "mnasnet-a1"), "given twice: mnasnet-a1"),
        (("mnasnet-a1", "--device", "nowhere"), "no device is called 'nowhere'"),
        (("mnasnet-a1", "--device", "pixel9/a/b/c"), "no ready phone is called 'pixel9/a/b/c'"),
        (("x.onnx", "--width", "2"), "--width does not apply to x.onnx"),
    ],
)
def test_refused(run: Run, words: tuple[str, ...], told: str) -> None:
    code, out, err = run("compare", *words)
    assert code in (1, 2) and out == "" and told in err and len(err.splitlines()) == 1


def test_an_output_replaces_no_other_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": "phonenas-run"}')
    code, _, err = run("compare", "mnasnet-a1", "--device", PIXEL1, "--out", "run.json")
    assert code == 1 and "is not overwritten" in err


def test_measured_beside_predicted(
    run: Run, fitted: LatencyModel, profiled: Path, tiny: TinySpace, tmp_path: Path
) -> None:
    shutil.copy(profiled, tmp_path / "phonenas.db")
    fitted.save(tmp_path / "phonenas.fake.model.json")
    with MeasurementStore(profiled) as store:
        (conditions,) = store.conditions("fake", "network")
        known = list(store.measurements(conditions, "network"))[:2]
    new = next(
        text
        for genome in tiny.sample(np.random.default_rng(9), 40)
        if (text := str(tiny.decode(genome))) not in {e.network for e in fitted.examined}
    )
    names = [*(m.subject for m in known), new, "resnet-18"]
    found = run.json("compare", *names, "--device", "fake")
    first, _, unmeasured, graph = found["networks"]
    timing = first["timings"][0]
    assert timing["measured_ms"] == known[0].latency_ms and timing["fitted_on"]
    assert timing["error"] == pytest.approx(timing["predicted_ms"] / known[0].latency_ms - 1)
    assert timing["basis"] == "operators"
    assert unmeasured["timings"][0]["measured_ms"] is None
    assert unmeasured["timings"][0]["predicted_ms"] > 0
    assert "--kernels 400" in graph["timings"][0]["reason"]
    assert found["devices"][0]["score"] is None  # the model was fitted on both
    code, out, _ = run("compare", *names, "--device", "fake")
    assert code == 0 and "2 networks of these were measured for the fit of the model" in out
    # As if they had been measured after the fit.
    from dataclasses import replace

    from phonenas.data.measurement import Entry

    older = replace(fitted, last=Entry(fitted.last.store, 0))
    older.save(tmp_path / "phonenas.fake.model.json")
    found = run.json("compare", *names, "--device", "fake", "--quiet")
    assert found["devices"][0]["score"]["n"] == 2
