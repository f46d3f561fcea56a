"""Exit codes: a subject without a number ends a command with 1; no foreign error reaches a user."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import cli
from phonenas.latency_model import LatencyModel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["phonenas", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.mark.fault(
    "One of several networks cannot be predicted.",
    "`fake has no …, beyond what it can be predicted from`",
    "The others are printed; do what the error says of that one.",
)
def test_what_was_predicted_is_printed_and_what_was_not_is_named(
    run: Any, fitted: LatencyModel, tiny: TinySpace, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "m.json")
    known = str(tiny.decode(tiny.sample(np.random.default_rng(0), 1)[0]))
    other = "r1_k3_s22_e1_i32_o16 r1_k7_s22_e6_i16_o900 res300"
    words = ("predict", "--device", "fake", "--model", "m.json", "--db", "none.db", "--quiet")
    code, out, err = run(*words, known, other, "--json")
    assert code == 1
    assert [row["network"] for row in json.loads(out)] == [known]
    assert err.startswith("UncoveredOperator: fake has no ") and other in err
    assert len(err.splitlines()) == 1
    assert run(*words, known)[0] == 0
    code, out, err = run(*words, other)
    assert (code, out) == (1, "") and err.startswith("UncoveredOperator: ")


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("show", "mobilenet-v9"), "UnknownName", 2),
        (("fit", "--db", ""), "InvalidArgument", 2),
        (("profile", "--networks", "99999"), "InvalidArgument", 2),
        (("predict", "mnasnet-a1", "--db", "none.db"), "NotEnoughData", 1),
        (("show", "r1_k3"), "InvalidArchitecture", 2),
        (("run", "none.toml"), "UnknownName", 2),
    ],
)
def test_with_json_an_error_is_the_document(
    run: Any, words: tuple[str, ...], code: str, exit_code: int
) -> None:
    status, out, err = run(*words, "--json")
    (told,) = json.loads(out).values()
    assert (told["code"], told["exit_code"], status) == (code, exit_code, exit_code)
    assert err == f"{code}: {told['message']}\n"
    assert run(*words)[1] == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--networks", "٣"), "'٣' is not a number"),
        (("--networks", "1_0"), "is not a number"),
        (("--networks", "9" * 400), "is not a number"),
        (("--sustain", "nan", "--mode", "sustained"), "is not a number"),
        (("--sustain", "inf", "--mode", "sustained"), "is not a number"),
        (("--networks", "10000001"), "--networks: at most 10,000, got"),
        (("--kernels", "1000001"), "--kernels: at most 100,000, got"),
        (("--threads", "99999"), "--threads: at most 1,024, got"),
        (("--seed", "99999999999999999999"), "--seed: at most 9,223,372,036,854,775,807, got"),
    ],
)
def test_numbers_beyond_any_use_are_invalid(run: Any, words: tuple[str, ...], message: str) -> None:
    code, out, err = run("profile", "--device", "nowhere", *words)
    assert (code, out) == (2, "") and message in err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OverflowError("too large"),
        RecursionError("deep"),
        ValueError("a\nb"),
        KeyError(1),
    ],
)
def test_a_foreign_error_is_one_line(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*words: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules["phonenas.cli.app"], "app", fail)
    code, out, err = run("show", "x")
    assert (code, out) == (1, "")
    assert err.startswith(f"Unexpected: {type(error).__name__}: ") and len(err.splitlines()) == 1
    assert "While running: phonenas show x." in err and "--verbose" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nonesuch",), "No such command"),
        (("show", "--nonesuch"), "No such option"),
        (("show",), "Missing argument"),
        (("search", "--out", "x", "--evaluations", "many"), "--evaluations"),
        (("profile", "--networks", "nan"), "is not a number"),
    ],
)
def test_words_that_are_no_command(run: Any, words: tuple[str, ...], says: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and "Usage: phonenas" in err and says in err
    code, out, err = run(*words, "--json")
    told = json.loads(out)["error"]
    assert (code, told["code"], told["exit_code"]) == (2, "InvalidUsage", 2)
    assert says in told["message"] and err == f"InvalidUsage: {told['message']}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyError(1), "Unexpected"), (PermissionError(13, "denied", "x"), "StoreError")],
)
def test_with_json_a_foreign_error_has_a_listed_code(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fail(*words: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr("phonenas.space.get", fail)
    status, out, err = run("space", "mnasnet", "--json")
    told = json.loads(out)["error"]
    assert (status, told["code"], told["exit_code"]) == (1, code, 1)
    assert err.startswith(f"{code}: {told['message']}") and len(err.splitlines()) == 1
    assert f"`{code}`" in (ROOT / "docs/faults.md").read_text(encoding="utf-8")


def test_a_name_with_a_line_break_is_told_on_one_line(run: Any) -> None:
    code, _, err = run("show", "a\nb.onnx")
    assert code == 2 and len(err.splitlines()) == 1 and "a\\nb.onnx" in err


@pytest.mark.fault(
    "A row of a store holds a time of 1e308 ms, a text, `true`, 400 digits or nothing.",
    "`is damaged: a row cannot be read`",
    "Restore a copy of the store, or name another with --db.",
)
def test_a_store_that_was_changed_is_named(run: Any, profiled: Path, tmp_path: Path) -> None:
    for number, change in enumerate(
        (
            "UPDATE round SET samples_ms = '[1e308]', sentinel_ms = '[]'",
            "UPDATE round SET samples_ms = '[true]', sentinel_ms = '[]'",
            f"UPDATE round SET samples_ms = '[{'9' * 400}]', sentinel_ms = '[]'",
            "UPDATE round SET samples_ms = '[NaN]', sentinel_ms = '[]'",
            "UPDATE round SET samples_ms = '[-1.0]', sentinel_ms = '[]'",
            "UPDATE round SET samples_ms = '[\"1\"]', sentinel_ms = '[]'",
            "UPDATE round SET samples_ms = '[]', sentinel_ms = '[]'",
            "UPDATE round SET sentinel_ms = '[0]', samples_ms = '[1.0]'",
            "UPDATE round SET preempted = 'many'",
            "UPDATE round SET at = 'yesterday'",
            "UPDATE round SET circumstances = '[]'",
            "UPDATE measurement SET kind = 'shoe'",
            "UPDATE measurement SET series = -1",
            "UPDATE conditions SET fields = replace(fields, '\"threads\": 1', '\"threads\": 2')",
        )
    ):
        db = tmp_path / f"{number}.db"
        db.write_bytes(profiled.read_bytes())
        with sqlite3.connect(db) as connection:
            connection.execute(change)
        connection.close()
        code, out, err = run("export", "x.csv", "--db", str(db))
        assert (code, out) == (1, ""), change
        assert err.startswith(f"UnsupportedFormat: the store {db} is damaged: a row cannot"), err
        assert len(err.splitlines()) == 1 and len(err) < 600
