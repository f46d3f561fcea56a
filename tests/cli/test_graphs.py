"""Networks that are not of blocks, through the commands that take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phonenas.data import MeasurementStore
from phonenas.space import zoo
from tests.cli.test_app import Run, run

__all__ = ["run"]  # a fixture


def test_show(run: Run) -> None:
    shown = run.json("show", "ghostnet_100", "--resolution", "96")
    assert shown["params"] == 5_182_508
    assert shown["block_args"] == "ghostnet res96"
    # Seven gates at 1×1 px, two products each, have no MACs in published counts.
    gates = sum(o["macs"] for o in shown["operators"] if "_1x1x" in o["key"])
    classifier = 960 * 1280 + 1280 * 1000
    every = sum(o["macs"] for o in shown["operators"])
    assert shown["macs"] == every - gates + classifier
    code, out, _ = run("show", "ghostnet")
    assert code == 0 and "The whole counts weights, biases and BatchNorm" in out
    halved = run.json("show", "mobilenet-v1 res128", "--width", "0.5")
    assert (halved["params"], halved["block_args"]) == (1_331_592, "mobilenet-v1 width0.5 res128")


def test_a_file_names_a_graph(run: Run, tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text(json.dumps({"block_args": "squeezenet-1.1 classes10"}))
    shown = run.json("show", "n.json")
    assert shown["block_args"] == "squeezenet-1.1 classes10"
    assert shown["params"] == 1_235_496 - 990 * 513


@pytest.mark.parametrize("form", ["onnx", "tflite", "safetensors"])
def test_export(run: Run, tmp_path: Path, form: str) -> None:
    file = f"n.{form}"
    code, _, err = run("export-network", "squeezenet-1.1", "--resolution", "64", "--out", file)
    assert code == 0, err
    assert 4 * 1_235_496 < (tmp_path / file).stat().st_size < 4 * 1_235_496 * 1.05


def test_measured_under_its_text(run: Run, tmp_path: Path) -> None:
    code, _, err = run(
        *("profile", "--device", "fake", "--network", "squeezenet-1.1", "--resolution", "64"),
        *("--db", "m.db", "--quiet"),
    )
    assert code == 0, err
    with MeasurementStore(tmp_path / "m.db") as store:
        stored = [m for c in store.conditions("fake") for m in store.measurements(c)]
    assert [(m.kind, m.subject) for m in stored] == [("onnx", "squeezenet-1.1 res64")]
    assert zoo.parse(stored[0].subject) == zoo.graph("squeezenet-1.1", 1.0, 64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "resnet-51"), "Did you mean 'resnet-50'"),
        (("show", "resnet-50", "--width", "0.5"), "resnet-50 has no width multipliers"),
        (("show", "resnet-50 wide"), "'wide' is not a setting"),
        (
            ("accuracy", "resnet-50", "--accuracy=surrogate"),
            "this command takes networks of blocks",
        ),
        (("show", "ssdlite:resnet-50"), "this command takes networks of blocks"),
    ],
)
def test_what_cannot_be_is_told(run: Run, words: tuple[str, ...], message: str) -> None:
    code, _, err = run(*words)
    assert code == 2 and message in err
