"""docs/faults.md is made from the tests, and what it quotes is told."""

from __future__ import annotations

import ast
import re

import pytest
from quoted import not_told

from tools import faults, house


@pytest.mark.slow
def test_the_page_is_that_of_the_tests() -> None:
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(), "python -m tools.faults"


def test_each_row_is_whole() -> None:
    rows = faults.faults()
    assert len(rows) >= 15
    for f in rows:
        assert f.happens and f.told and f.do and f.tests
    # What is no error and not printed, but logged or written, is not quoted.
    assert sum(bool(re.search(r"`[^`]+`", f.told)) for f in rows) > 0.75 * len(rows)


def test_every_error_has_its_code_on_the_page() -> None:
    """Each class of the package that is an error of phonenas, wherever it stands."""
    kinds, before = {"PhonenasError"}, 0
    classes = [
        node
        for path in house.package_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    while len(kinds) > before:
        before = len(kinds)
        kinds |= {c.name for c in classes if kinds & {ast.unparse(b) for b in c.bases}}
    page = faults.PAGE.read_text(encoding="utf-8").partition("## Codes")[2]
    on_page = re.findall(r"^\| `(\w+)` \| ([12]) \| (.+) \|$", page, re.M)
    assert {code for code, _, _ in on_page} == kinds - {"PhonenasError"} and len(kinds) > 20
    assert ("UnknownName", "2", "No such name; the message offers the nearest one.") in on_page
    assert ("StoreError", "1") in [(code, number) for code, number, _ in on_page]


@pytest.mark.parametrize("told", ["`a line of b`", "`one …`; `other`"])
def test_a_quotation_that_is_not_told_is_noticed(told: str) -> None:
    assert not_told(told, ["nothing of it"], every=True)
    assert not_told(told, ["a line of b; one of", "or the other"], every=True) == []


def test_of_several_cases_one_quotation_is_enough() -> None:
    assert not_told("`one …`; `other`", ["the other"], every=False) == []
    assert not_told("`one …`; `other`", ["none"], every=False) != []
