"""Rounds as rows of a store, and back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest

from phonenas.data import Round
from phonenas.data.measurement import Startup
from phonenas.data.store.rows import columns_of, conditions_of, round_of
from phonenas.data.store.schema import STORE
from phonenas.data.store.store import Pending, Progress
from phonenas.testing.store import HERE

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


def test_a_devices_startup_is_known_by_its_letters() -> None:
    name = "".join(("start", "up"))  # as a name that was read, another object
    taken = Round((1.0,), telemetry={name: "cold"})
    columns = columns_of(taken)
    assert back(columns) == taken and "device:startup" in columns["circumstances"]


@pytest.mark.parametrize("digest", ["0" * 12, "f" * 12])
def test_conditions_of_another_digest_are_damage(digest: str) -> None:
    fields = json.dumps(HERE.to_dict())
    assert conditions_of(fields, HERE.digest) == HERE
    with pytest.raises(ValueError, match=f"the conditions {digest} have the digest"):
        conditions_of(fields, digest)


@pytest.mark.parametrize("column", ["samples_ms", "sentinel_ms"])
def test_a_round_of_more_than_a_million_times_is_damage(column: str) -> None:
    times = f"[{'1,' * 1_000_000}1]"
    with pytest.raises(ValueError, match="1000000"):
        back({**columns_of(Round((1.0,))), column: times})


def test_what_a_store_gives_does_not_change() -> None:
    for given, name in (
        (Pending(1, (), False), "id"),
        (Progress("phone", "0", 0, 0, 0, ""), "device"),
        (STORE, "version"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(given, name, 2)
