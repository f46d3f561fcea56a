"""Marks before numbers, and the line that explains them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import FakeDevice

from phonenas.cli.output import legend, origin_note
from phonenas.data import Conditions


def of(origin: str) -> Conditions:
    return replace(FakeDevice().conditions, origin=origin)  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", ["simulated", "emulated", "imported"])
def test_what_no_device_measured_here_has_a_mark_of_its_own(origin: str) -> None:
    assert of(origin).mark == "◌"
    assert origin in legend("◌") and "measured" not in legend("◌")
    assert origin_note(of(origin)).startswith(f"\n{origin.upper()}: fake (fake phone); no device ")


def test_measured_numbers_are_marked_as_measured() -> None:
    assert of("measured").mark == "●" and origin_note(of("measured")) == ""
    assert legend("● 3.1 ms, ○ 3.2 ms") == "\n○ predicted, ● measured"
    assert legend("3.1 ms") == ""
