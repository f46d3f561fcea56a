"""The store: whole, shared, versioned; unlike conditions never merge."""

from __future__ import annotations

import json
import math
import resource
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from phonenas import data
from phonenas.data import Conditions, Measurement, Round
from phonenas.data.files import write_atomic
from phonenas.data.measurement import spread
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    StoreError,
    UnsupportedFormat,
)

HERE = Conditions("phone", "m", "f", "ort", "1.0", "abc", "CPU", "all", 1, "big", "none")


def fill(store: data.MeasurementStore, conditions: Conditions, subject: str, ms: float) -> None:
    pending = store.pending(conditions, "operator", [subject])[subject]
    rounds = [(pending.id, n, Round((ms, ms * 1.01), (0.5, 0.5))) for n in range(3)]
    store.add_rounds(rounds)
    store.complete([pending.id])


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        pending = store.pending(HERE, "network", ["r1"])["r1"]
        rounds = [
            Round((1.5, 1.25), (0.5, 0.625), 3, "2026-01-01T00:00:00+00:00", {"load": 0.5}),
            Round((1.0, 2.0), (0.5, 0.5), 0, "2026-01-01T00:01:00+00:00"),
        ]
        store.add_rounds([(pending.id, n, r) for n, r in enumerate(rounds)])
        assert store.measurements(HERE) == []  # not before it is complete
        store.complete([pending.id])
    with data.MeasurementStore(tmp_path / "s.db") as store:
        (found,) = store.measurements(HERE)
        assert found.rounds == tuple(rounds)
        assert found.conditions == HERE
        assert store.conditions() == [HERE]
        assert store.conditions("other") == []
        assert found.latency_ms == pytest.approx(1.4375)  # no reference: as it came
        assert store.set_reference(HERE, 0.5, 5000) == 0.5
        assert store.reference_settled(HERE)
        assert store.set_reference(HERE, 0.9, 9000) == 0.5  # it stands for good
        (found,) = store.measurements(HERE)
        assert found.medians_ms == (1.25, 1.5)  # 1.25·0.5/0.625 is 1.0; median of 1.5 and 1.0
        assert found.raw_ms == pytest.approx(1.4375)


@pytest.mark.parametrize(
    "change",
    [
        {"runtime_version": "1.1"}, {"runtime_hash": "abd"}, {"threads": 2}, {"provider": "GPU"},
        {"optimisation": "extended"}, {"governor": "powersave"}, {"precision": "int8"},
        {"cores": "little"}, {"fingerprint": "g"}, {"origin": "simulated"}, {"mode": "sustained"},
    ],
)  # fmt: skip
def test_unlike_conditions_never_merge(tmp_path: Path, change: dict[str, object]) -> None:
    other = replace(HERE, **change)  # type: ignore[arg-type]
    with data.MeasurementStore(tmp_path / "s.db") as store:
        fill(store, HERE, "a", 1.0)
        fill(store, other, "a", 2.0)
        assert [m.latency_ms for m in store.measurements(HERE)] == [pytest.approx(1.005)]
        assert [m.latency_ms for m in store.measurements(other)] == [pytest.approx(2.01)]
        assert len(store.conditions("phone")) == 2
    ((name, value),) = change.items()
    assert HERE.differences(other) == [f"{name}: {HERE.to_dict()[name]} / {value}"]


def test_a_round_cannot_stand_twice(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        pending = store.pending(HERE, "operator", ["a"])["a"]
        store.add_rounds([(pending.id, 0, Round((1.0,)))])
        store.add_rounds([(pending.id, 0, Round((9.0,))), (pending.id, 1, Round((2.0,)))])
        store.complete([pending.id])
        assert [r.samples_ms for r in store.measurements(HERE)[0].rounds] == [(1.0,), (2.0,)]


@pytest.mark.parametrize("samples", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_a_round_refuses_what_is_no_time(samples: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument, match="samples above 0 ms"):
        Round(samples)


def test_spread_forgives_one_round_in_three() -> None:
    assert spread((1.0, 1.0, 5.0)) == 0.0
    assert spread((1.0, 1.2, 5.0)) == pytest.approx(0.1 / 1.2)
    assert math.isnan(spread((1.0,)))  # one round says nothing
    m = Measurement("network", "n", HERE, tuple(Round((t,)) for t in (1.0, 1.1, 1.2, 9.0)))
    assert m.spread == pytest.approx(0.1 / 1.15)


_WRITER = """
import sys
from phonenas import data
from phonenas.data import Conditions, Round
c = Conditions(**{fields!r})
name = sys.argv[1]
with data.MeasurementStore({path!r}) as store:
    for i in range(60):
        for subject in (f"{{name}}-{{i}}", f"both-{{i}}"):
            p = store.pending(c, "operator", [subject])[subject]
            store.add_rounds([(p.id, n, Round((1.0 + i,))) for n in range(2)])
            store.complete([p.id])
"""


def test_two_processes_at_once_leave_it_whole(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "s.db"
    code = _WRITER.format(fields=HERE.to_dict(), path=str(path))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], env=environment, stderr=subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        _, told = writer.communicate(timeout=120)
        assert writer.returncode == 0, told.decode()
    with data.MeasurementStore(path) as store:
        found = store.measurements(HERE, all_series=True)
    assert len(found) == 180
    assert all(len(m.rounds) == 2 for m in found)
    assert {m.series for m in found} == {0}
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_newer_store_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    data.MeasurementStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = '7' WHERE name = 'version'")
    connection.commit()
    connection.close()
    with pytest.raises(UnsupportedFormat, match="has version 7; this phonenas reads version 1"):
        data.MeasurementStore(path)


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with data.MeasurementStore(path) as store:
        for i in range(200):
            fill(store, HERE, f"subject number {i}", 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])
    with pytest.raises(UnsupportedFormat, match="damaged"):
        data.MeasurementStore(path)
    path.write_text("this is no database, whatever its name says, and it is long enough" * 50)
    with pytest.raises(UnsupportedFormat, match="damaged"):
        data.MeasurementStore(path)


def test_a_first_small_job_does_not_fix_the_reference(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        fill(store, HERE, "a", 1.0)
        assert store.set_reference(HERE, 0.5, 10) == 0.5
        assert not store.reference_settled(HERE)
        assert store.set_reference(HERE, 0.6, 2000) == 0.6
        assert store.reference_settled(HERE)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE round SET samples_ms = '[1.0'",
        "UPDATE round SET samples_ms = '[0.0, 1.0]'",
        "UPDATE conditions SET fields = '{}'",
        "DELETE FROM round",
    ],
)
def test_rows_that_cannot_be_read_are_damage(tmp_path: Path, damage: str) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        fill(store, HERE, "a", 1.0)
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute(damage)
    connection.commit()
    connection.close()
    with data.MeasurementStore(tmp_path / "s.db") as store:
        with pytest.raises(UnsupportedFormat, match="is damaged"):
            store.conditions()
            store.measurements(HERE)


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE cookies (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(UnsupportedFormat, match="no store of phonenas"):
        data.MeasurementStore(path)


def test_absent_stores_and_folders(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        data.MeasurementStore(tmp_path / "s.db", create=False)
    assert not (tmp_path / "s.db").exists()
    with pytest.raises(StoreError, match="no folder"):
        data.MeasurementStore(tmp_path / "deep" / "s.db")
    with pytest.raises(InvalidArgument, match="no store can be opened"):
        data.MeasurementStore("nonsense://x/y")


def test_a_full_disk_is_told_and_what_was_there_is_safe(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        fill(store, HERE, "before", 1.0)
        with store._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            # SQLite's own limit gives the very error of a full disk.
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match="full"):
            for i in range(2000):
                fill(store, HERE, f"{i:0200d}", 1.0)
        assert "before" in {m.subject for m in store.measurements(HERE)}


def test_atomic_writes_keep_the_older_file_when_the_disk_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a" / "f.json"
    write_atomic(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            write_atomic(path, "n" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["f.json"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_export_holds_everything(tmp_path: Path, profiled: Path, suffix: str) -> None:
    out = tmp_path / f"m{suffix}"
    with data.MeasurementStore(profiled) as store:
        n = data.export(store, out)
        conditions = store.conditions()[0]
        found = store.measurements(conditions)
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert len(table) == n == len(found)
    row = table[table.subject == found[0].subject].iloc[0]
    assert row.latency_ms == pytest.approx(found[0].latency_ms, abs=1e-6)
    assert len(json.loads(row.samples_ms)) == len(found[0].rounds)
    assert (row.device, row.runtime_hash, row.provider) == ("fake", "h4sh", "CPU")


def test_export_refuses_what_it_cannot_write(tmp_path: Path, profiled: Path) -> None:
    with data.MeasurementStore(profiled) as store:
        with pytest.raises(InvalidArgument, match="csv or a .parquet"):
            data.export(store, tmp_path / "m.xlsx")
        with pytest.raises(NotEnoughData, match="holds no measurement of 'pixel'"):
            data.export(store, tmp_path / "m.csv", device="pixel")
