"""Rounds as rows of a store, and back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from phonenas.data import Round
from phonenas.data.measurement import Startup
from phonenas.data.store.rows import columns_of, round_of

STARTUP = Startup(30.5, 2.25, 90_000_000, 5_000_000, 4_000_000)


def back(columns: dict[str, Any], **other: Any) -> Round:
    return round_of(SimpleNamespace(**columns, **other))


@pytest.mark.parametrize("own", ["fast", 3, None, {"load": 1}, {"load_ms": 1.0}])
@pytest.mark.parametrize("startup", [None, STARTUP])
def test_what_a_device_itself_calls_startup_stays_its_own(own: Any, startup: Any) -> None:
    telemetry = {"startup": own, "load": 0.5}
    taken = Round((1.0,), (0.5,), 2, telemetry=telemetry, startup=startup)
    found = back(columns_of(taken))
    assert (found.telemetry, found.startup, found.preempted) == (telemetry, startup, 2)


def test_what_a_release_wrote_that_knew_no_startup() -> None:
    columns = columns_of(Round((1.0,), (0.5,), 0))
    for own in ("fast", {"boot_s": 3.5}, {"load_ms": 3.5, "governor": "fast"}):
        old = {**columns, "circumstances": json.dumps({"startup": own, "load": 0.5})}
        assert back(old).telemetry == {"startup": own, "load": 0.5} and back(old).startup is None
    with pytest.raises(ValueError, match="load_ms"):
        back({**columns, "circumstances": json.dumps({"startup": {"load_ms": "long"}})})
