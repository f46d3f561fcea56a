"""The tables of a store, and how SQLite is opened."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from phonenas import data
from phonenas.data.store import schema

OLD = Path(__file__).with_name("version1.sql")  # what phonenas 0.1 wrote


def tables(path: Path) -> dict[str, str]:
    """The definitions in a file, by name."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != "
            "'sqlite_sequence'"
        ).fetchall()
    return {name: " ".join(sql.replace('"', "").split()) for name, sql in rows}


def test_a_store_has_the_tables_of_version_1_and_numbers_no_round_twice(tmp_path: Path) -> None:
    text = OLD.read_text(encoding="utf-8")
    expected = {
        m[1]: " ".join(m[0].rstrip(";").split())
        for m in re.finditer(r"^CREATE (?:TABLE|INDEX) (\w+).*?;$", text, flags=re.M | re.S)
    }
    assert sorted(expected) == [
        "conditions",
        "ix_conditions_device",
        "measurement",
        "meta",
        "rejection",
        "round",
    ]
    expected["round"] = (
        expected["round"]
        .replace("id INTEGER NOT NULL,", "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,", 1)
        .replace("PRIMARY KEY (id), ", "", 1)
    )
    data.MeasurementStore(tmp_path / "new.db").close()
    assert tables(tmp_path / "new.db") == expected
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(text)
    data.MeasurementStore(tmp_path / "old.db").close()
    assert tables(tmp_path / "old.db") == expected


def test_a_file_that_is_only_read_is_opened_with_its_log_or_as_one_that_never_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a b.db"
    data.MeasurementStore(path).close()
    uri = f"file://{tmp_path}/a%20b.db"
    plain = (uri, {"mode": "ro", "uri": "true"})
    assert schema.read_only_uri(path) == plain

    def refused(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refused)  # as on a read-only medium
    lasting = (uri, {"mode": "ro", "uri": "true", "immutable": "1"})
    assert schema.read_only_uri(path) == lasting
    log = tmp_path / "a b.db-wal"
    log.write_bytes(b"")
    assert schema.read_only_uri(path) == lasting
    log.write_bytes(b"what a writer has not moved yet")
    assert schema.read_only_uri(path) == plain

    def damaged(*_: Any, **__: Any) -> Any:
        raise sqlite3.DatabaseError("file is not a database")

    log.unlink()
    monkeypatch.setattr(sqlite3, "connect", damaged)
    assert schema.read_only_uri(path) == plain


def test_how_connections_are_set_up(tmp_path: Path) -> None:
    def asked(connection: sqlite3.Connection, *names: str) -> list[Any]:
        return [connection.execute(f"PRAGMA {n}").fetchone()[0] for n in names]

    names = ("journal_mode", "busy_timeout", "foreign_keys", "synchronous", "query_only")
    for log, journal in ((False, "delete"), (True, "wal")):
        with closing(sqlite3.connect(tmp_path / f"{log}.db")) as connection:
            schema.prepare_sqlite(connection, log)
            assert asked(connection, *names) == [journal, 60_000, 1, 1, 0]
            assert connection.isolation_level is None
    with closing(sqlite3.connect(tmp_path / "r.db")) as connection:
        schema.prepare_sqlite_to_read(connection)
        assert asked(connection, "busy_timeout", "query_only") == [60_000, 1]
        assert connection.isolation_level is None


class Connection:
    """Stands for one of sqlite3, whose log cannot be begun so many times."""

    isolation_level: str | None = ""

    def __init__(self, times: int, error: str = "database is locked") -> None:
        self.times, self.error, self.done = times, error, list[str]()

    def cursor(self) -> Connection:
        return self

    def execute(self, statement: str) -> None:
        if "WAL" in statement and self.times > 0:
            self.times -= 1
            raise sqlite3.OperationalError(self.error)
        self.done.append(statement)

    def close(self) -> None:
        self.done.append("close")


def test_a_log_is_waited_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(schema.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(schema.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    busy = Connection(times=500)
    schema.prepare_sqlite(busy, log=True)
    assert clock[0] == pytest.approx(105.0)  # a hundredth of a second between two attempts
    assert busy.done.count("PRAGMA journal_mode = WAL") == 1
    assert busy.done[-3:] == ["PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON", "close"]
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        schema.prepare_sqlite(Connection(1, "disk I/O error"), log=True)
    clock[0] = 100.0
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        schema.prepare_sqlite(Connection(times=10_000), log=True)
    assert clock[0] == pytest.approx(160.0, abs=0.1)
    unasked = Connection(times=1)
    schema.prepare_sqlite(unasked, log=False)
    assert "PRAGMA journal_mode = WAL" not in unasked.done


@pytest.mark.parametrize(
    ("writable", "expected"),
    [({"s.db", "folder"}, True), ({"s.db"}, False), ({"folder"}, False), (set(), False)],
)
def test_a_file_and_its_folder_must_be_writable(
    writable: set[str], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "s.db"
    monkeypatch.setattr(os, "access", lambda p, mode: mode == os.W_OK and Path(p).name in writable)
    assert schema.is_writable(path) is expected
