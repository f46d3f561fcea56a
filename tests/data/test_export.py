"""Exports: no cell is a formula to a spreadsheet, and each text comes back as it was."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fakes import FakeDevice

from phonenas.data import MeasurementStore, Round, export
from phonenas.data.export import as_written, harmless, to_csv
from phonenas.data.importers.source import Source, rows

FORMULAS = (
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''-x",
    "-",
)
PLAIN = ("mnasnet-a1", "a=b", "1e5", "'quoted'", "", "ä", "[1, 2]", "a\nb", '"x"', " =1")


@pytest.mark.parametrize("text", FORMULAS + PLAIN)
def test_a_text_comes_back(text: str) -> None:
    cell = harmless(text)
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert as_written(cell) == text
    assert (cell == text) == (text in PLAIN)


def test_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"=name": list(FORMULAS[:3]), "x": [-1.5, 2.0, -3e-5], "n": [-1, 0, 1]})
    frame["mixed"] = [None, -2.5, "=2"]
    text = to_csv(frame)
    header, *body = csv.reader(io.StringIO(text))
    assert header == ["'=name", "x", "n", "mixed"]
    assert body[0] == ["'=1+1", "-1.5", "-1", ""]
    assert body[1][3] == "-2.5" and body[2][3] == "'=2" and float(body[2][1]) == -3e-5


def test_a_store_whose_texts_are_formulas(tmp_path: Path) -> None:
    evil = replace(FakeDevice().conditions, model="=1+1", governor="@x", cores="-1", runtime="+r")
    with MeasurementStore(tmp_path / "s.db") as store:
        (pending,) = store.pending(evil, "operator", ["=HYPERLINK(1)"]).values()
        store.add_rounds([(pending.id, 0, Round((1.25, 1.5, 1.75)))])
        store.complete([pending.id])
        assert export(store, tmp_path / "m.csv") == 1
        assert export(store, tmp_path / "m.parquet") == 1
    path = tmp_path / "m.csv"
    with path.open(newline="") as file:
        (cells,) = csv.DictReader(file)
    assert cells["subject"] == "'=HYPERLINK(1)" and cells["model"] == "'=1+1"
    assert not [c for c in cells.values() if c[:1] in "=+-@\t\r" and c]
    _, (row,) = rows(Source.open(path), ["subject"])
    asked = {"subject": "=HYPERLINK(1)", "model": "=1+1", "governor": "@x", "cores": "-1"}
    assert {name: row[name] for name in asked} == asked and row["latency_ms"] == "1.5"
    assert pd.read_parquet(tmp_path / "m.parquet").subject[0] == "=HYPERLINK(1)"
