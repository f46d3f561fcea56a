"""Outputs that a user names: no file of phonenas of another kind is lost, no password is shown."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from phonenas.cli.stores import fitted_path
from phonenas.data import MeasurementStore
from phonenas.data.export import export
from phonenas.data.files import refuse_other
from phonenas.space.errors import StoreError

MODEL = '{"format":"phonenas-latency-model","version":3'  # damaged, as after a full disk


@pytest.mark.fault(
    "fit --out names a file that is no latency model, or the model that a run keeps.",
    "`is there already (phonenas-run), and is not overwritten`; `is the latency model of "
    "the run in this folder, and is not overwritten`",
    "Choose another --out.",
)
def test_fit_replaces_models_alone(tmp_path: Path) -> None:
    db, out = str(tmp_path / "s.db"), tmp_path / "model.json"
    texts = [json.dumps({"format": "phonenas-run"}, indent=1), "notes of mine", "{}", '{"format":']
    for text in texts:
        out.write_text(text)
        with pytest.raises(StoreError, match="is there already .* and is not overwritten"):
            fitted_path(db, "fake", out)
        assert out.read_text() == text
    out.write_text(texts[0])
    with pytest.raises(StoreError) as caught:
        fitted_path(db, "fake", out)
    assert "(phonenas-run)" in str(caught.value)
    for text in ("", MODEL):
        out.write_text(text)
        assert fitted_path(db, "fake", out) == out
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(StoreError, match="is the latency model of the run in this folder"):
        fitted_path(db, "fake", out)
    assert fitted_path(db, "fake", None) == tmp_path / "s.fake.model.json"


def test_no_output_replaces_another_file_of_phonenas(tmp_path: Path) -> None:
    MeasurementStore(tmp_path / "s.db").close()
    (tmp_path / "run.json").write_text(json.dumps({"format": "phonenas-run"}, indent=1))
    (tmp_path / "checkpoint.npz").write_bytes(b"PK")
    for name in ("s.db", "run.json", "checkpoint.npz"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(StoreError, match="is not overwritten"):
            refuse_other(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    (tmp_path / "networks.csv").write_text("a,b\n")
    refuse_other(tmp_path / "networks.csv")  # an older output of the user's
    refuse_other(tmp_path / "new" / "networks.csv")
    refuse_other(tmp_path / "run.json", "phonenas-run")
    (tmp_path / "table.csv").write_bytes((tmp_path / "s.db").read_bytes())
    with MeasurementStore(tmp_path / "s.db") as store:
        with pytest.raises(StoreError, match="table.csv is there already"):
            export(store, tmp_path / "table.csv")


@pytest.mark.parametrize("words", [["--db", "{}"], ["--db={}"]])
def test_an_unexpected_error_prints_the_command_without_its_password(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("what nobody expects")

    url = "postgresql://lab:hush@host/x?sslpassword=hush"
    module = importlib.import_module("phonenas.cli.app")
    monkeypatch.setattr(module, "app", broken)
    monkeypatch.setattr(sys, "argv", ["phonenas", "fit", *(w.format(url) for w in words)])
    with pytest.raises(SystemExit):
        module.main()
    err = capsys.readouterr().err
    assert "lab:***@host" in err and "hush" not in err
