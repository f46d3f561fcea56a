"""Precisions by name: those that phonenas writes, and those that a file may have."""

from __future__ import annotations

import pytest

from phonenas.space.errors import InvalidArgument, UnknownName
from phonenas.space.precision import PRECISIONS, checked_precision, mixed, weight_bytes


def test_each_has_a_name_and_a_size() -> None:
    sizes = {"float32": 4, "float16": 2, "int8": 1, "int8-dynamic": 1, "float16-weights": 2}
    assert {name: weight_bytes(name) for name in PRECISIONS} == sizes
    assert all(name == p.name and p.about for name, p in PRECISIONS.items())
    assert weight_bytes("float64") == 4


def test_a_wrong_name_gets_the_nearest() -> None:
    assert checked_precision("int8-dynamic") == "int8-dynamic"
    with pytest.raises(UnknownName, match="--precision: no precision is called 'fp16'. Known: "):
        checked_precision("fp16")
    with pytest.raises(UnknownName, match="Did you mean 'float16'"):
        checked_precision("flaot16", "devices.toml: precision")


def test_one_that_is_not_possible_there_is_refused_as_that() -> None:
    for name in ("int4", "bfloat16", "float32+int8"):
        with pytest.raises(InvalidArgument, match="--precision .* is not possible here"):
            checked_precision(name)
    with pytest.raises(InvalidArgument, match="float16 is not possible here; it is float32 or int"):
        checked_precision("float16", among=("float32", "int8"))


def test_what_is_mixed_is_named_by_all_in_it() -> None:
    assert mixed(["int8", "float32", "int8"]) == "float32+int8"
    assert mixed(["int8"]) == "int8"
