"""A store's own order: no clock says what is newer; old stores; stores that go while in use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from phonenas import data
from phonenas.data import Round
from phonenas.data.measurement import Entry, SubjectKind
from phonenas.latency_model.drift import upkeep
from phonenas.latency_model.fitting import fit_measurements
from phonenas.space.errors import InvalidArgument, StoreError, UnsupportedFormat
from phonenas.testing.store import HERE
from tests.latency_model.test_model import made_up

OLD = Path(__file__).with_name("version1.sql")  # what phonenas 0.1 wrote
FAR, NOW = "2099-01-01T00:00:00+00:00", "2026-03-02T10:00:00+00:00"


def put(
    store: data.MeasurementStore, subject: str, ms: float, at: str, kind: SubjectKind = "operator"
) -> None:
    pending = store.pending(HERE, kind, [subject], again=True)[subject]
    store.add_rounds([(pending.id, 0, Round((ms,), at=at))])
    store.complete([pending.id])


def test_a_clock_that_was_wrong_once_hides_nothing(tmp_path: Path) -> None:
    measured, _ = made_up(20)
    with data.MeasurementStore(tmp_path / "s.db") as store:
        for m in measured:
            put(store, m.subject, m.latency_ms, FAR, m.kind)
        kept = store.measurements(HERE)
        model = fit_measurements(HERE, kept)
        assert model.until == FAR and model.last == max(m.entry for m in kept)
        assert upkeep(model, store.measurements(HERE)).newer == 0
        slower = [m for m in measured if m.kind == "operator"][:20]
        for m in slower:
            put(store, m.subject, 1.2 * m.latency_ms, NOW)
        found = upkeep(model, store.measurements(HERE))
    assert found.newer == len(slower) and found.outdated
    assert found.drift is not None and found.drift.ratio == pytest.approx(1.2, rel=0.01)
    # The later of the two is the one that was stored later.
    assert (found.drift.since, found.drift.until) == (FAR, NOW)


def test_a_number_of_a_round_is_never_given_twice(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        put(store, "a", 1.0, NOW)
        put(store, "b", 1.0, NOW)
        (last,) = [m for m in store.measurements(HERE) if m.subject == "b"]
        pending = store.pending(HERE, "operator", ["b"])["b"]
        store.reopen([(pending.id, 0)])
        store.add_rounds([(pending.id, 0, Round((2.0,), at=NOW))])
        store.complete([pending.id])
        (again,) = [m for m in store.measurements(HERE) if m.subject == "b"]
    assert again.entry.after(last.entry) and again.entry.number == last.entry.number + 1


def test_what_another_store_holds_is_newer_than_any_model_of_this_one() -> None:
    mine, other = Entry("aaaa", 900), Entry("bbbb", 3)
    assert other.after(mine) and mine.after(other)
    assert Entry("aaaa", 901).after(mine) and not mine.after(mine)
    assert not Entry("", 5).after(mine) and Entry("", 901).after(mine)  # of an unknown store


def old_store(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(OLD.read_text(encoding="utf-8"))
    connection.close()
    return path


@pytest.mark.fault(
    "A store of version 1 is opened.",
    "that it has version 2 now, which older releases do not read; one that can only be read stays",
    "Nothing.",
)
def test_an_old_store_is_brought_to_this_version_with_all_that_it_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = old_store(tmp_path / "s.db")
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT * FROM round ORDER BY id").fetchall()
        assert connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone() == (
            "1",
        )
    connection.close()
    with data.MeasurementStore(path, read_only=True) as store:
        assert store.identity == ""
        as_it_was = [(m.subject, m.samples, m.entry.number) for m in measurements(store)]
    assert not caplog.records
    with data.MeasurementStore(path) as store:
        assert len(store.identity) == 12
        assert [(m.subject, m.samples, m.entry.number) for m in measurements(store)] == as_it_was
        assert as_it_was == [("stem_k3_s2@32x32x3->16", 3, 2), ("pool@8x8x16->10", 2, 3)]
    assert "has version 2 now: older releases do not read it" in caplog.text
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM round ORDER BY id").fetchall() == rows
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    caplog.clear()
    with data.MeasurementStore(path):
        assert not caplog.records  # once


def measurements(store: data.MeasurementStore) -> list[data.Measurement]:
    return [m for c in store.conditions() for m in store.measurements(c)]


def test_a_migration_that_fails_leaves_the_old_store(tmp_path: Path) -> None:
    path = old_store(tmp_path / "s.db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE round_of_1 (id INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="cannot be brought to a newer version"):
        data.MeasurementStore(path)
    with data.MeasurementStore(path, read_only=True) as store:
        assert len(measurements(store)) == 2


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    path = old_store(tmp_path / "s.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '0' WHERE name = 'version'")
    connection.close()
    with pytest.raises(UnsupportedFormat, match="has version 0; this phonenas reads version 2"):
        data.MeasurementStore(path)


# -- stores that go, and what is none ------------------------------------------------------------


@pytest.mark.fault(
    "The file of a store is removed or replaced while it is in use.",
    "`was removed while it was in use, so what is measured now would be lost`; `was replaced by "
    "another file`",
    "Put it back, or begin a new one with the same command.",
)
def test_a_store_that_is_removed_or_replaced_while_in_use_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with data.MeasurementStore(path) as store:
        put(store, "a", 1.0, NOW)
        path.rename(tmp_path / "away.db")
        with pytest.raises(StoreError, match="was removed while it was in use.*would be lost"):
            put(store, "b", 1.0, NOW)
        with pytest.raises(StoreError, match="was removed while it was in use"):
            store.conditions()
        path.write_bytes(b"")
        with pytest.raises(StoreError, match="was replaced by another file while it was in use"):
            store.add_rounds([])
        (tmp_path / "away.db").replace(path)
        put(store, "b", 1.0, NOW)
        assert len(store.measurements(HERE)) == 2


@pytest.mark.fault(
    "--db is empty, :memory:, a folder, no regular file, or no URL and holds a password.",
    "what is wrong with it, the password never; nothing is measured",
    "Name a file, or a URL.",
)
@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("", "is no lasting store"),
        (":memory:", "is no lasting store"),
        ("sqlite://", "is no lasting store"),
        ("sqlite:///:memory:", "is no lasting store"),
        ("file::memory:", "of a URI of SQLite only the path is taken"),
        ("sqlite:///file:x?mode=memory&uri=true", "of a URL of SQLite only the path is taken"),
        ("/", "is a folder"),
        (".", "is a folder"),
        ("/dev/null", "is no regular file"),
        ("postgresql:lab:secret@host/db", "seems to hold a password"),
        ("postgres//lab:secret@host/db", "seems to hold a password"),
        ("lab:secret@db.lab/phones", "seems to hold a password"),
        ("host=db.lab user=lab password=secret", "seems to hold a password"),
        ("host=db.lab user=lab password='se cret'", "seems to hold a password"),
    ],
)
def test_what_is_no_store_is_refused_without_its_password(
    location: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match=why) as caught:
        data.MeasurementStore(location)
    assert "cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
