"""Networks predicted whole from the operators of others: the protocol, its errors, and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from phonenas import cli
from phonenas.latency_model.benchmarks import networks as networks_room
from phonenas.latency_model.benchmarks.networks import networks, read_networks
from phonenas.space.errors import NotEnoughData, PhonenasError, UnknownName, UnsupportedFormat

SHARED = Path(__file__).parents[4] / "shared" / "data"
MOBILE = [
    "efficientnet_edge*",
    "fbnet*",
    "fdmobilenet*",
    "ghostnet",
    "mnasnet*",
    "mobilenet*",
    "proxyless*",
    "spnasnet",
]
DEVICE = "toy|gpu|float"


def published(name: str) -> pd.DataFrame:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: published tables are not shipped")
    return pd.read_csv(path)


def tables(count: int = 24) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Toy networks of padded depthwise blocks, each with a gate that has no row of its own."""
    rng = np.random.default_rng(0)
    rows, wholes = [], []
    for i in range(count):
        name, node, total = f"{'abcdef'[i % 6]}net_{i}", 0, 0.0

        def add(operation: str, kernel: str, macs: float, name: str = name, **shape: Any) -> float:
            us = (8 + macs / 2e5) * float(np.exp(rng.normal(0, 0.02)))
            told = {k: "-" if v is None else str(v) for k, v in shape.items()}
            rows.append((name, operation, str(told), us, kernel))
            return us

        for _ in range(int(rng.integers(4, 12))):
            c, d = (int(v) for v in rng.choice([16, 24, 40, 64, 96], 2))
            px = int(rng.choice([7, 14, 28, 56]))
            total += add(
                "DEPTHWISE_CONV_2D",
                f"depthwise_convolution_{node + 1}_linked_:_relu_{node + 2}",
                9 * c * px * px,
                Input_shape=px + 2,
                Input_channel=c,
                Output_shape=px,
                Stride=1,
                Kernel=3,
                Filter=1,
                Group=1,
            )
            gate = 10 + c * px * px / 1e4  # node + 3
            winograd = c >= 40 and d >= 40 and px >= 28
            code = "convolution_winograd_4x4_6x6" if winograd else "convolution_2d"
            total += gate + add(
                "CONV_2D",
                f"{code}_{node + 4}",
                9 * c * d * px * px * (0.4 if winograd else 1),
                Input_shape=px,
                Input_channel=c,
                Output_shape=px,
                Stride=1,
                Kernel=3,
                Filter=d,
                Group=1,
            )
            node += 5
        total += add(
            "FULLY_CONNECTED",
            f"fully_connected_{node}",
            1e5,
            Input_shape=None,
            Input_channel=96,
            Output_shape=None,
            Filter=int(rng.choice([10, 100, 1000])),
        )
        wholes.append((name, 300 + total))
    operators = pd.DataFrame(
        rows, columns=["model", "operation", "feature", DEVICE, "toy|gpu|kernel"]
    )
    return operators, pd.DataFrame(wholes, columns=["model", f"{DEVICE}|mean"])


def examined(operators: pd.DataFrame, whole: pd.DataFrame, **more: Any) -> dict[str, Any]:
    return networks(operators, whole, **{"device": DEVICE, "test": ["anet*"], **more})


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return examined(*tables())


def test_networks_are_predicted_beside_baselines(found: dict[str, Any]) -> None:
    assert (found["n_train"], found["n_test"], found["left_out"]) == (20, 4, 0)
    assert found["operator_mape"] < 0.1
    assert found["score"]["mape"] < 0.06
    assert found["score"]["mape"] < min(found["raw_sum"]["mape"], found["macs"]["mape"])
    assert set(found["score"]) == set(found["raw_sum"]) == set(found["booster"])
    for row in found["rows"]:
        assert row["low_ms"] < row["predicted_ms"] < row["high_ms"]
    assert json.loads(json.dumps(found)) == found


def test_nothing_measured_of_an_examined_network_teaches(found: dict[str, Any]) -> None:
    """Other times, and other code, of the examined networks leave their predictions as they are."""
    operators, whole = tables()
    mine = operators["model"].str.startswith("anet")
    operators.loc[mine, DEVICE] *= 7
    operators.loc[mine, "toy|gpu|kernel"] = operators.loc[mine, "toy|gpu|kernel"].str.replace(
        "convolution_winograd_4x4_6x6", "convolution_2d"
    )
    whole.loc[whole["model"].str.startswith("anet"), f"{DEVICE}|mean"] *= 3
    again = examined(operators, whole)
    for one, two in zip(found["rows"], again["rows"], strict=True):
        assert [one[k] for k in ("predicted_ms", "low_ms", "high_ms")] == [
            two[k] for k in ("predicted_ms", "low_ms", "high_ms")
        ]
    assert again["score"]["mape"] > 0.5


def test_a_graph_is_read_with_what_has_no_row() -> None:
    read = read_networks(tables()[0], DEVICE)["anet_0"]
    depthwise, conv = read.kernels[:2]
    assert depthwise.depthwise
    assert depthwise.in_px == depthwise.out_px  # padding is not counted
    assert (depthwise.fused, conv.fused) == (("relu",), ())
    assert set(read.variants) <= {
        "depthwise_convolution",
        "convolution_2d",
        "convolution_winograd_4x4_6x6",
        "fully_connected",
    }
    # A padding before each depthwise is folded; the gate behind it is one more launch.
    assert len(read.hidden) == sum(k.depthwise for k in read.kernels)
    assert {(k.kind, k.in_channels, k.in_px) for k in read.hidden} == {
        ("mul", k.in_channels, k.in_px) for k in read.kernels if k.kind == "conv" and k.groups == 1
    }


def test_networks_without_a_time_are_left_out_and_counted() -> None:
    operators, whole = tables()
    found = examined(operators, whole[whole["model"] != "bnet_1"])
    assert (found["n_train"], found["left_out"]) == (19, 1)
    assert found["left_out_networks"] == ["bnet_1"]


def test_what_is_amiss_is_named() -> None:
    operators, whole = tables(12)
    with pytest.raises(UnknownName, match="no network matches 'resnet\\*'"):
        examined(operators, whole, test=["resnet*"])
    with pytest.raises(UnknownName, match="no column 'pixel9'"):
        examined(operators, whole, device="pixel9")
    with pytest.raises(UnknownName, match="no column 'model'"):
        examined(operators, whole.drop(columns="model"))
    with pytest.raises(UnknownName, match="no column 'feature'"):
        examined(operators.drop(columns="feature"), whole)
    with pytest.raises(NotEnoughData, match="12 networks to predict and 0 to fit on"):
        examined(operators, whole, test=["*"])
    for column, cell in (
        ("operation", "SORCERY"),
        ("feature", "__import__('os')"),
        ("feature", "{}"),
    ):
        odd = operators.copy()
        odd.loc[0, column] = cell
        with pytest.raises(UnsupportedFormat, match="operators, row 1 "):
            examined(odd, whole)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    value = dict.fromkeys(("spearman", "kendall_tau", "mape", "acc10", "coverage90"), 0.5)
    names = ("score", "raw_sum", "macs", "booster", "measured_sum")

    def answer(operators: Any, whole: Any, **more: Any) -> dict[str, Any]:
        asked.append(more)
        about = {"n_train": 3, "n_test": 2, "left_out": 1, "left_out_networks": ["cnet_4"]}
        about["method"] = "sums of kernels"
        return about | {"operator_mape": 0.1} | dict.fromkeys(names, value)

    monkeypatch.setattr(networks_room, "networks", answer)
    operators, whole = tables(6)
    operators.to_csv(tmp_path / "o.csv", index=False)
    whole.to_csv(tmp_path / "n.csv", index=False)
    words = ["benchmark", "networks", str(tmp_path / "o.csv"), str(tmp_path / "n.csv")]
    words += ["--device", DEVICE, "--test", "anet*", "--test", "bnet*"]
    run = CliRunner().invoke(cli.app, words)
    assert run.exit_code == 0, run.output
    assert asked == [{"device": DEVICE, "test": ["anet*", "bnet*"]}]
    assert "2 networks from 3 others" in run.output
    assert "method: sums of kernels" in run.output
    assert (
        "50% inside their 90 % interval; 1 networks without a time left out: cnet_4" in run.output
    )
    run = CliRunner().invoke(cli.app, [*words, "--json"])
    assert json.loads(run.output)["score"]["mape"] == 0.5


@pytest.mark.parametrize("name", ["tflite", "torch"])
def test_published_tables_are_read(name: str) -> None:
    operators = published(f"edge_{name}_cnn_ops_gpu.csv")
    read = read_networks(operators, "pixel4|gpu|float")
    assert sum(len(n.kernels) for n in read.values()) == len(operators)
    if name == "tflite":
        gates = {n: len(read[n].hidden) for n in ("resnet18", "seresnet18", "mnasnet_a1")}
        assert gates == {"resnet18": 0, "seresnet18": 8, "mnasnet_a1": 8}


@pytest.mark.slow
def test_published_mobile_networks_from_all_others() -> None:
    operators = published("edge_tflite_cnn_ops_gpu.csv")
    whole = published("edge_tflite_cnn_e2e.csv")
    try:
        found = networks(operators, whole, device="pixel4|gpu|float", test=MOBILE)
    except PhonenasError as error:  # pragma: no cover
        pytest.fail(str(error))
    assert (found["n_train"], found["n_test"]) == (60, 42)
    assert found["score"]["mape"] < 0.055
    assert found["score"]["spearman"] > 0.985
    assert found["score"]["mape"] < found["booster"]["mape"]
