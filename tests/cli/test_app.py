"""The command line: its JSON, its words, its exit codes."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import check_document
from fakes import FakeDevice, TinySpace
from patience import PATIENCE_S

from phonenas import cli, devices, space
from phonenas.space.errors import UnknownName


class Run:
    """Calls the command line in this process; keeps exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["phonenas", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *words: str) -> Any:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        document = json.loads(out)
        check_document(words, document)
        return document


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHONENAS_DB", raising=False)

    def connect(name: str, *, threads: int = 1, precision: str | None = None) -> FakeDevice:
        if name != "fake":
            raise UnknownName(f"no device is called {name!r}. Known: fake.")
        device = FakeDevice()
        device.precision = precision or device.precision
        return device

    monkeypatch.setattr(devices, "connect", connect)
    return Run(capsys, monkeypatch)


PROFILE = (
    "profile",
    "--device",
    "fake",
    "--space",
    "accel-nasbench",
    "--resolution",
    "32",
    "--networks",
    "24",
    "--network",
    "mnasnet-small",
    "--quiet",
)
ONE = ("profile", "--device", "fake", "--network", "mnasnet-small", "--resolution", "32", "--quiet")
SEARCH = (
    "search",
    "--device",
    "fake",
    "--space",
    "accel-nasbench",
    "--resolution",
    "32",
    "--accuracy",
    "surrogate",
    "--evaluations",
    "400",
    "--quiet",
)


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_the_three_jobs_end_to_end(run: Run, tmp_path: Path) -> None:
    profiled = run.json(*PROFILE)
    assert set(profiled) >= {"measured", "reused", "rejected", "seconds", "conditions"}
    assert profiled["measured"] > 190 and profiled["reused"] == 0
    assert profiled["conditions"]["provider"] == "CPU"
    assert run.json(*PROFILE)["measured"] == 0

    fitted = run.json("fit", "--device", "fake")
    assert set(fitted) >= {"device", "operators", "networks", "score", "lookup_table", "macs"}
    assert fitted["networks"] == 25
    for part in ("score", "lookup_table", "macs"):
        assert set(fitted[part]) == {
            "n",
            "mape",
            "bias",
            "acc5",
            "acc10",
            "rmse_ms",
            "rmspe",
            "spearman",
            "kendall_tau",
            "coverage90",
            "informative",
            "reason",
        }
    assert fitted["score"]["mape"] < fitted["macs"]["mape"]

    (row,) = run.json(
        "predict", "mnasnet-small", "--resolution", "32", "--device", "fake", "--explain"
    )
    assert set(row) >= {"network", "latency_ms", "low_ms", "high_ms", "interval", "covered"}
    assert row["low_ms"] < row["latency_ms"] < row["high_ms"] and row["covered"]
    assert sum(o["ms"] for o in row["operators"]) == pytest.approx(row["latency_ms"])

    searched = run.json(*SEARCH, "--target", "mnasnet-small", "--out", "r")
    assert set(searched) >= {"strategy", "evaluations", "seconds", "hypervolume", "front"}
    assert searched["evaluations"] == 400 and searched["strategy"] == "nsga2"
    assert set(searched["front"][0]) >= {
        "id",
        "block_args",
        "top1",
        "latency_ms",
        "low_ms",
        "high_ms",
        "macs",
        "params",
        "reward",
    }
    assert all(c["latency_ms"] <= searched["target_ms"] for c in searched["front"])
    again = run.json(*SEARCH, "--target", "mnasnet-small", "--out", "r")
    assert again["front"] == searched["front"] and again["resumed_from"] == 400

    # A run's candidate, its block string and a file of it are one network.
    shown = [run.json("show", text) for text in ("r:0", searched["front"][0]["block_args"])]
    (tmp_path / "n.json").write_text(json.dumps(shown[0]))
    shown.append(run.json("show", "n.json"))
    assert len({s["block_args"] for s in shown}) == 1

    validated = run.json("validate", "r", "--device", "fake", "--top", "3", "--quiet")
    assert set(validated) >= {"networks", "score"}
    assert len(validated["networks"]) == 3 and "refit" in validated["upkeep"]
    assert set(validated["networks"][0]) >= {
        "id",
        "predicted_ms",
        "low_ms",
        "high_ms",
        "measured_ms",
        "error",
        "meets_target",
    }
    page = Path(run.json("report", "r"))
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert run.json("export", "all.csv")["measurements"] > 200

    # The same in words: units, marks, and the command to run next.
    code, out, _ = run("fit", "--device", "fake")
    assert code == 0 and "MACs baseline" in out
    code, out, _ = run(*SEARCH, "--target", "mnasnet-small", "--out", "r2")
    assert code == 0 and "phonenas validate r2" in out and "○" in out
    code, out, _ = run("validate", "r2", "--device", "fake", "--quiet")
    assert code == 0 and "●" in out and "inside their interval" in out
    code, out, _ = run("predict", "mnasnet-small", "--resolution", "32", "--device", "fake")
    assert code == 0 and "90 % interval" in out


def test_spaces_and_networks_as_json(run: Run) -> None:
    described = run.json("space", "mnasnet")
    assert described["blocks"] == 7
    assert described["choices_per_block"] == [432] * 7
    assert described["size"] == 432**7
    assert described["operators"] == len(space.get("mnasnet").operators())
    network = run.json("show", "mnasnet-a1")
    assert (network["name"], network["params"]) == ("mnasnet-a1", 3_887_038)
    assert sum(o["macs"] for o in network["operators"]) == network["macs"]
    assert run.json("show", network["block_args"])["params"] == 3_887_038
    assert run.json("show", "mnasnet-a1", "--width", "0.5")["params"] == 2_082_006
    code, out, _ = run("show", "mobilenet-v2")
    assert code == 0 and "3,504,872" in out
    code, out, _ = run("space", "proxylessnas")
    assert code == 0 and "operators" in out
    assert described["genes"]["block3_kernel"] == [3, 5] and len(described["genes"]) == 42
    code, out, _ = run("space", "mnasnet", "--genes")
    assert code == 0 and ["block3_kernel", "3,", "5"] in [line.split() for line in out.splitlines()]


def test_devices_as_json(run: Run) -> None:
    (local,) = run.json("devices")
    assert set(local) == {"name", "kind", "state", "model", "cores", "runtime", "detail"}
    assert local["name"] == "local" and local["runtime"].startswith("onnxruntime")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("show", "mnasnet-a9"), 2, "Did you mean 'mnasnet-a1'"),
        (("show", "mnasnet_a8"), 2, "Did you mean 'mnasnet-a1'"),
        (("show", "r1_k3_s11_e1_i32_o16 r2_k4x_s22_e6_i16_o24"), 2, "token 'k4x'"),
        (("show", "mnasnet-a1", "--resolution", "31"), 2, "a resolution of 31 px cannot be taken"),
        (("show", "mnasnet-a1", "--resolution", "0"), 2, "resolution of 0 px"),
        (("show", "mnasnet-a1", "--width", "-1"), 2, "width multiplier"),
        (("show", "net.onnx"), 2, "there is no file net.onnx"),
        (("show", "absent.json"), 2, "there is no file absent.json"),
        (("show", "runs/none:3"), 2, "there is no run in runs/none"),
        (("show", "runs/none"), 2, "there is no run in runs/none"),
        (("space", "mnasnets"), 2, "Did you mean 'mnasnet'"),
        (("space", "mnasnet", "--resolution", "8"), 2, "cannot be taken"),
        (("profile", "--device", "pixel9"), 2, "no device is called 'pixel9'"),
        (("profile", "--device", "fake", "--networks", "-3"), 2, "networks: 0 or more"),
        (("profile", "--device", "fake", "--seed", "-1"), 2, "--seed"),
        (("search", "--device", "fake", "--seed", "-1", "--out", "r"), 2, "--seed"),
        (("show", "runs/my_run:3"), 2, "there is no run in runs/my_run"),
        (("profile", "--device", "fake", "--space", "x"), 2, "no search space"),
        (("profile", "--device", "fake", "--db", "no/such/folder/x.db"), 1, "no folder"),
        (("profile", "--device", "fake", "--network", "nonsense"), 2, "no network is called"),
        (("fit", "--device", "pixel9"), 2, "no device is called 'pixel9'"),
        (("fit", "--device", "fake"), 1, "there is no store at phonenas.db"),
        (("predict", "mnasnet-a1", "--device", "fake"), 1, "phonenas fit --device fake"),
        (("predict", "mnasnet-a1", "--device", "pixel9"), 2, "no device is called"),
        (("search", "--device", "fake", "--target", "0", "--out", "r"), 2, "above 0 ms"),
        (("search", "--device", "fake", "--target=-3", "--out", "r"), 2, "above 0 ms"),
        (("search", "--device", "fake", "--target", "nan", "--out", "r"), 2, "above 0 ms"),
        (
            ("search", "--device", "fake", "--strategy", "nsga", "--out", "r"),
            2,
            "Did you mean 'nsga3'",
        ),
        (("search", "--device", "fake", "--out", "r"), 1, "there is no latency model"),
        (("validate", "r", "--device", "fake"), 2, "there is no run in r"),
        (("report", "r"), 2, "there is no run in r"),
        (("export", "x.csv"), 1, "there is no store"),
        (("--no-such-option",), 2, "No such option"),
        (("search", "--device", "fake"), 2, "--out"),
        (("profile", "--networks", "many"), 2, "--networks"),
    ],
)
def test_bad_input_gets_one_clear_line(
    run: Run, words: tuple[str, ...], code: int, says: str
) -> None:
    got, out, err = run(*words)
    assert got == code, err
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    lines = [
        line for line in err.splitlines() if line and "sage:" not in line and "Try" not in line
    ]
    assert len(lines) == 1, err


@pytest.mark.fault(
    "A store is damaged, or of a newer version.",
    "`is damaged`; `has version 3; this phonenas reads version 2`",
    "Restore it from a copy; take a newer phonenas.",
)
def test_damaged_and_newer_stores(run: Run, tmp_path: Path) -> None:
    (tmp_path / "phonenas.db").write_bytes(b"SQLite format 3\x00" + b"\x00\xff" * 4000)
    code, _, err = run("fit", "--device", "fake")
    assert code == 1 and "is damaged" in err and "Traceback" not in err
    (tmp_path / "phonenas.db").unlink()
    assert run("profile", "--device", "fake", "--networks", "-1")[0] == 2
    connection = sqlite3.connect(tmp_path / "phonenas.db")
    connection.execute("UPDATE meta SET value = '3' WHERE name = 'version'")
    connection.commit()
    connection.close()
    code, _, err = run("fit", "--device", "fake")
    assert code == 1 and "has version 3; this phonenas reads version 2" in err


def test_a_target_network_that_was_not_measured(
    run: Run, profiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phonenas import space as spaces

    monkeypatch.setattr(spaces, "get", lambda name, resolution: TinySpace(resolution))
    shutil.copy(profiled, "phonenas.db")
    assert run("fit", "--device", "fake")[0] == 0
    code, _, err = run(*SEARCH, "--target", "mnasnet-a1", "--out", "r")
    assert code == 1 and "--network 'r1_k3_s11_e1_i32_o16_noskip" in err
    code, _, err = run(*SEARCH, "--target", "0.000001", "--out", "r")
    assert code == 1 and "Infeasible" in err and "the fastest of" in err
    code, _, err = run(*SEARCH, "--target", "300", "--out", "s")
    assert code == 0
    code, _, err = run(*SEARCH, "--target", "400", "--out", "s")
    assert code == 2 and "target_ms was 300.0 and is now 400.0" in err
    code, _, err = run("validate", "s", "--device", "other")
    assert code == 2


@pytest.mark.fault(
    "The disk of the store is full.",
    "`database or disk is full`; `the same command goes on from there`",
    "Make room.",
)
@pytest.mark.usefixtures("fast")
def test_a_disk_that_fills_while_profiling(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from phonenas.data.store import schema

    plain = schema.prepare_sqlite

    def small(connection: Any, **more: Any) -> None:
        plain(connection, **more)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {max(pages, 13)}")

    monkeypatch.setattr(schema, "prepare_sqlite", small)
    code, _, err = run(*ONE)
    assert code == 1
    assert "full" in err and "the same command goes on" in err and "Traceback" not in err
    monkeypatch.setattr(schema, "prepare_sqlite", plain)
    assert run.json(*ONE)["measured"] > 0


@pytest.mark.fault(
    "Ctrl-C.",
    "`Stopped. What was finished is kept; the same command goes on from there.`; exit code 130",
    "Nothing.",
)
def test_ctrl_c_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*a: object, **k: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "profile", stop)
    code, out, err = run(*PROFILE)
    assert code == 130 and out == ""
    assert err == "Stopped. What was finished is kept; the same command goes on from there.\n"


def test_the_program_itself(environment: dict[str, str], tmp_path: Path) -> None:
    def program(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "phonenas", *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    done = program("--help")
    assert done.returncode == 0
    for command in (
        "devices",
        "space",
        "show",
        "profile",
        "fit",
        "predict",
        "search",
        "validate",
        "report",
        "export",
    ):
        assert command in done.stdout
    assert program("show", "nothing").returncode == 2
    assert program("show", "mnasnet-b1", "--json").stdout.startswith("{")


def test_import_pulls_in_nothing_heavy(environment: dict[str, str]) -> None:
    heavy = (
        "numpy",
        "pandas",
        "torch",
        "onnx",
        "lightgbm",
        "pymoo",
        "sqlalchemy",
        "plotly",
        "rich",
    )
    code = f"import phonenas, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "[]\n", done
