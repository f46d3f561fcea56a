"""The store: whole, shared, versioned; unlike conditions never merge.

`DatabaseContract` is asked of SQLite here and of PostgreSQL in `test_postgres.py`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from patience import PATIENCE_S

from phonenas import data
from phonenas.data import Conditions, Round
from phonenas.data.files import write_atomic
from phonenas.data.measurement import SubjectKind
from phonenas.space.errors import InvalidArgument, NotEnoughData, StoreError, UnsupportedFormat
from phonenas.space.naming import without_password
from phonenas.testing import StoreContract
from phonenas.testing.store import HERE, fill


def sql(location: str, statement: str) -> None:
    """Do to a database what the store would not."""
    engine = sa.create_engine(location if "://" in location else f"sqlite:///{location}")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def at_once(work: Callable[[int], None], n: int = 8) -> None:
    """Let n threads do it in the same moment; what one raises is raised."""
    barrier = threading.Barrier(n)

    def go(i: int) -> None:
        barrier.wait(10)
        work(i)

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(go, range(n)))


_WRITER = """
import sys
from phonenas import data
from phonenas.data import Conditions, Round
c = Conditions(**{fields!r})
name = sys.argv[1]
with data.MeasurementStore({location!r}) as store:
    print("open", flush=True)
    sys.stdin.readline()
    for i in range(60):
        subjects = [f"{{name}}-{{i}}", f"both-{{i}}"]
        if name == "one":
            subjects.reverse()
        found = store.pending(c, "operator", subjects)
        ids = [found[s].id for s in subjects]
        store.add_rounds([(id, n, Round((1.0 + i,))) for id in ids for n in range(2)])
        store.complete(ids)
"""


class DatabaseContract(StoreContract):
    """What each database does with damage, foreign tables and other processes."""

    def test_a_store_is_made_once_whoever_comes_first(self, location: str) -> None:
        at_once(lambda i: data.MeasurementStore(location).close())
        with data.MeasurementStore(location, create=False) as store:
            fill(store, HERE, "a", 1.0)

    def test_stores_opened_side_by_side_make_each_subject_once(self, location: str) -> None:
        subjects = [f"s{n}" for n in range(40)]
        ids: dict[int, dict[str, int]] = {}

        def work(i: int) -> None:
            with data.MeasurementStore(location) as store:
                mixed = subjects[i:] + subjects[:i]
                rows = store.pending(HERE, "operator", mixed)
                ids[i] = {s: p.id for s, p in sorted(rows.items())}
                rounds = [(p.id, n, Round((1.0 + i,))) for p in rows.values() for n in range(2)]
                store.add_rounds(rounds)
                store.complete([p.id for p in rows.values()])

        at_once(work)
        assert all(rows == ids[0] for rows in ids.values())
        with data.MeasurementStore(location) as store:
            rows = store.measurements(HERE, all_series=True)
            assert {m.subject for m in rows} == set(subjects)
            assert [len(m.rounds) for m in rows] == [2] * 40

    def test_threads_share_one_store(self, location: str) -> None:
        with data.MeasurementStore(location) as store:

            def work(i: int) -> None:
                mine = replace(HERE, device=f"phone {i}")
                for n in range(10):
                    fill(store, mine, f"s{n}", 1.0 + i)
                    store.reject(mine, [(f"s{n}", "a reason")])
                    assert store.count(mine) == n + 1
                first_ms = [m.rounds[0].samples_ms[0] for m in store.measurements(mine)]
                assert first_ms == [1.0 + i] * 10

            at_once(work)
            assert len(store.conditions()) == 8

    def test_a_reader_sees_one_moment(self, location: str) -> None:
        """A measurement is found with all its rounds or not at all, whoever discards it."""
        stop = threading.Event()
        with data.MeasurementStore(location) as store:

            def work(i: int) -> None:
                if i:
                    while not stop.is_set():
                        assert [len(m.rounds) for m in store.measurements(HERE)] in ([], [3])
                    return
                try:
                    for _ in range(30):
                        fill(store, HERE, "a", 1.0)
                        id = store.pending(HERE, "operator", ["a"])["a"].id
                        store.discard(id, HERE, "a", "for the test")
                finally:
                    stop.set()

            at_once(work, 3)

    def test_two_processes_at_once_leave_it_whole(
        self, location: str, environment: dict[str, str]
    ) -> None:
        code = _WRITER.format(fields=HERE.to_dict(), location=location)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, name],
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for name in ("one", "two")
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers:  # both are open: now they start together
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            _, told = writer.communicate(timeout=PATIENCE_S)
            assert writer.returncode == 0, told
        with data.MeasurementStore(location) as store:
            found = store.measurements(HERE, all_series=True)
        assert len({m.subject for m in found}) == len(found) == 180
        assert all(len(m.rounds) == 2 for m in found)
        assert {m.series for m in found} == {0}

    def test_a_newer_store_is_refused_with_both_versions(self, location: str) -> None:
        data.MeasurementStore(location).close()
        sql(location, "UPDATE meta SET value = '7' WHERE name = 'version'")
        with pytest.raises(UnsupportedFormat, match="has version 7; this phonenas reads version 2"):
            data.MeasurementStore(location)

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE round SET samples_ms = '[1.0'",
            "UPDATE round SET samples_ms = '[0.0, 1.0]'",
            "UPDATE round SET samples_ms = '[]'",
            "UPDATE conditions SET fields = '{}'",
            "DELETE FROM round",
        ],
    )
    def test_rows_that_cannot_be_read_are_damage(self, location: str, damage: str) -> None:
        with data.MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
        sql(location, damage)
        with data.MeasurementStore(location) as store:
            with pytest.raises(UnsupportedFormat, match="is damaged"):
                store.conditions()
                store.measurements(HERE)
            if "samples" in damage:
                with pytest.raises(UnsupportedFormat, match="is damaged"):
                    store.pending(HERE, "operator", ["a"])

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("CREATE TABLE cookies (id INTEGER)", "no store of phonenas .it holds cookies"),
            ("CREATE TABLE meta (id INTEGER)", "no store of phonenas .it holds meta"),
        ],
    )
    def test_a_foreign_database_is_refused(self, location: str, statement: str, told: str) -> None:
        sql(location, statement)
        with pytest.raises(UnsupportedFormat, match=told):
            data.MeasurementStore(location)

    def test_a_store_that_lacks_a_table_is_damaged(self, location: str) -> None:
        data.MeasurementStore(location).close()
        sql(location, "DROP TABLE rejection")
        with pytest.raises(UnsupportedFormat, match="damaged: it lacks the table rejection"):
            data.MeasurementStore(location)

    def test_read_only_is_read_and_never_written(self, location: str) -> None:
        with pytest.raises(StoreError, match="there is no store at"):
            data.MeasurementStore(location, read_only=True)
        with data.MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
            assert not store.read_only
            with data.MeasurementStore(location, read_only=True) as reader:
                assert reader.read_only
                assert reader.count(HERE) == 1
                fill(store, HERE, "b", 1.0)
                assert reader.count(HERE) == 2  # it sees what a writer does meanwhile
                for write in (
                    lambda: fill(reader, HERE, "c", 1.0),
                    lambda: reader.reject(HERE, [("c", "r")]),
                    lambda: reader.complete([1]),
                ):
                    with pytest.raises(StoreError, match="can only be read. Name another"):
                        write()
            assert store.count(HERE) == 2


@pytest.mark.fault(
    "A store is named by an empty text, or as :memory:.",
    "`is no lasting store: measurements would be lost when the command ends`",
    "Give a file.",
)
@pytest.mark.parametrize("location", ["", "  ", ":memory:", "sqlite://", "sqlite:///:memory:"])
def test_a_store_that_would_be_lost_is_refused(location: str) -> None:
    with pytest.raises(
        InvalidArgument, match="is no lasting store: .* would be lost .* --db phonenas.db"
    ):
        data.MeasurementStore(location)


class TestSQLite(DatabaseContract):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "s.db")


KINDS: tuple[SubjectKind, ...] = ("operator", "network", "kernel", "onnx")


def put(
    store: data.MeasurementStore, conditions: Conditions, kind: SubjectKind, subject: str, ms: float
) -> int:
    """Store a measurement of two rounds; its row."""
    id = store.pending(conditions, kind, [subject])[subject].id
    store.add_rounds([(id, n, Round((ms,))) for n in range(2)])
    store.complete([id])
    return id


def test_every_question_is_of_one_device_and_kind_alone(tmp_path: Path) -> None:
    phones = [replace(HERE, device=f"phone {i}") for i in range(5)]
    with data.MeasurementStore(tmp_path / "s.db") as store:
        taken: dict[tuple[int, SubjectKind], tuple[float, int]] = {}
        for number, kind in enumerate([*KINDS, *reversed(KINDS)]):
            for i, phone in enumerate(phones):
                ms = 1.0 + i + number / 100
                put(store, phone, kind, f"{kind} {number}", ms)
                taken[i, kind] = (ms, store.latest(phone, KINDS).number)
        numbers = [number for _, number in taken.values()]
        assert len({*numbers}) == len(taken)
        for i, phone in enumerate(phones):
            assert store.count(phone) == 8
            assert len(store.measurements(phone)) == 8
            for kind in KINDS:
                first, last = store.measurements(phone, kind)
                assert {m.kind for m in (first, last)} == {kind}
                assert {m.conditions.device for m in (first, last)} == {f"phone {i}"}
                assert last.latency_ms == pytest.approx(taken[i, kind][0])
                assert store.latest(phone, [kind]) == last.entry
                assert last.entry.number == taken[i, kind][1] > first.entry.number
                pending = store.pending(phone, kind, [first.subject])[first.subject]
                assert pending.rounds == first.rounds and pending.complete
                for other in KINDS:  # a subject is of one kind
                    if other != kind:
                        with pytest.raises(InvalidArgument, match="but not as a subject of the k"):
                            store.pending(phone, other, [first.subject])
        # The source device of each.
        for i in (3, 0, 4, 1):
            store.set_relative(phones[i], f"source {i}", "0123456789ab")
        told = [store.relative(phone) for phone in phones]
        assert told == [None if i == 2 else (f"source {i}", "0123456789ab") for i in range(5)]


def test_progress_is_counted_for_each_device(tmp_path: Path) -> None:
    phones = [replace(HERE, device=f"phone {i}") for i in range(4)]
    with data.MeasurementStore(tmp_path / "s.db") as store:
        for i, phone in enumerate(phones):
            rows = store.pending(phone, "operator", [f"s{n}" for n in range(9)])
            if i == 2:
                continue  # planned alone
            at = f"2026-01-0{5 - i}T00:00:00+00:00"  # by its clock the latest is the earliest
            ids = [rows[f"s{n}"].id for n in range(i + 1)]
            store.add_rounds([(id, 0, Round((1.0,), at=at)) for id in ids])
            store.complete(ids)
            for n in (7, 8):
                store.discard(rows[f"s{n}"].id, phone, f"s{n}", "for the test")
        found = store.progress()
    assert [(p.device, p.complete, p.given_up, p.open, p.last[:10]) for p in found] == [
        ("phone 3", 4, 2, 3, "2026-01-02"),
        ("phone 1", 2, 2, 5, "2026-01-04"),
        ("phone 0", 1, 2, 6, "2026-01-05"),
        ("phone 2", 0, 0, 9, ""),
    ]
    assert [p.conditions for p in found] == [phones[i].digest for i in (3, 1, 0, 2)]


def test_rounds_are_stored_in_one_order_and_the_first_of_a_number_stays(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        rows = store.pending(HERE, "operator", ["a", "b"])
        given = [(s, n, Round((1.0 + n,))) for n in (2, 0, 1) for s in ("b", "a")]
        again = [("a", 1, Round((9.0,)))]
        store.add_rounds([(rows[s].id, n, r) for s, n, r in given + again])
        store.complete([rows[s].id for s in ("a", "b")])
        for m in store.measurements(HERE):
            assert [r.samples_ms for r in m.rounds] == [(1.0,), (2.0,), (3.0,)]
    connection = sqlite3.connect(tmp_path / "s.db")
    stored = connection.execute("SELECT measurement, number FROM round ORDER BY id").fetchall()
    connection.close()
    assert stored == sorted(stored)


def test_switches_are_given_by_name(tmp_path: Path) -> None:
    with data.MeasurementStore(location=tmp_path / "s.db", create=True) as store:
        store.pending(conditions=HERE, kind="operator", subjects=["a"], purpose="profile")
        assert store.measurements(conditions=HERE, kind="operator", all_series=True) == []
        for wrong in (
            lambda: data.MeasurementStore(tmp_path / "s.db", False),  # type: ignore[misc]
            lambda: store.pending(HERE, "operator", ["a"], "profile"),  # type: ignore[misc]
            lambda: store.measurements(HERE, None, True),  # type: ignore[misc]
        ):
            with pytest.raises(TypeError, match="positional"):
                wrong()


# -- SQLite alone ---------------------------------------------------------------------------------


@pytest.mark.fault("A store is damaged, or is no database.", "`is damaged`", "Restore a copy.")
def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with data.MeasurementStore(path) as store:
        made = store.pending(HERE, "operator", [f"subject number {i}" for i in range(200)])
        rounds = [(p.id, n, Round((1.0, 1.01))) for p in made.values() for n in range(3)]
        store.add_rounds(rounds)
        store.complete([p.id for p in made.values()])
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])
    with pytest.raises(UnsupportedFormat, match="damaged"):
        data.MeasurementStore(path)
    path.write_text("this is not a database, whatever its name says, and it is long enough" * 50)
    for read_only in (False, True):
        with pytest.raises(UnsupportedFormat, match="damaged"):
            data.MeasurementStore(path, read_only=read_only)


@pytest.mark.parametrize("read_only", [True, False])
def test_damage_that_is_no_text_is_told(tmp_path: Path, read_only: bool) -> None:
    """SQLite quotes the bytes of a damaged schema, and these need not be UTF-8."""
    path = tmp_path / "s.db"
    data.MeasurementStore(path).close()
    whole = path.read_bytes()
    assert whole.count(b"CREATE TABLE meta") == 1
    path.write_bytes(whole.replace(b"CREATE TABLE meta", b"CREATE TABL\x80 meta"))
    with pytest.raises(UnsupportedFormat, match="s.db is damaged: .*0x80.* Restore a copy"):
        data.MeasurementStore(path, read_only=read_only)


def test_a_file_is_made_once_whoever_comes_first(tmp_path: Path) -> None:
    """Often: the moment in which two opened a new file and one was refused is short."""
    for n in range(10):
        at_once(lambda i, n=n: data.MeasurementStore(tmp_path / f"{n}.db").close(), 6)


@pytest.mark.fault(
    "There is no store, or no folder for it.",
    "`there is no store at …`; `cannot be made: no folder …`",
    "As it says.",
)
def test_absent_stores_and_folders(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        data.MeasurementStore(tmp_path / "s.db", create=False)
    assert not (tmp_path / "s.db").exists()
    with pytest.raises(StoreError, match="no folder"):
        data.MeasurementStore(tmp_path / "deep" / "s.db")
    (tmp_path / "empty.db").touch()
    for how in ({"create": False}, {"read_only": True}):
        with pytest.raises(StoreError, match="there is no store at"):
            data.MeasurementStore(tmp_path / "empty.db", **how)
    with pytest.raises(InvalidArgument, match="is a folder, and no store"):
        data.MeasurementStore(tmp_path)


@pytest.mark.parametrize("name", ["a b?c=1#d%41.db", "ä 'quoted'.db", "x?mode=ro"])
def test_a_path_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    with data.MeasurementStore(tmp_path / name) as store:
        fill(store, HERE, "a", 1.0)
    assert (tmp_path / name).stat().st_size > 0
    with data.MeasurementStore(tmp_path / name, read_only=True) as store:
        assert store.count(HERE) == 1


def test_a_sqlite_url_is_a_path(tmp_path: Path) -> None:
    with data.MeasurementStore(f"sqlite:///{tmp_path}/s.db") as store:
        fill(store, HERE, "a", 1.0)
    assert sqlite3.connect(tmp_path / "s.db").close() is None
    with data.MeasurementStore(tmp_path / "s.db", create=False) as store:
        assert store.count(HERE) == 1


@pytest.mark.fault(
    "A store is named by a URL that is none of PostgreSQL or SQLite, with a password in it.",
    "`no store can be opened at …`: the password is not printed",
    "Give a path, or such a URL.",
)
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense://x/y", "neither PostgreSQL nor SQLite"),
        ("mysql://lab:secret@host/name", "neither PostgreSQL nor SQLite"),
        ("://lab:secret@host", "neither PostgreSQL nor SQLite"),
        ("postgresql://lab:secret@host:port/name", "."),
        ("postgresql+asyncpg://lab:secret@host/name", "the driver asyncpg is not known"),
        ("postgresql://lab:sec@ret@host/name", "write @ as %40"),
        ("postgresql://lab:s/ec:r@secret@host/name", "."),
        ("mysql://host/name?password=secret", "neither"),
    ],
)
def test_other_urls_are_refused_without_their_password(url: str, why: str) -> None:
    with pytest.raises((InvalidArgument, StoreError), match=why) as caught:
        data.MeasurementStore(url)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value).replace("secret", "ret")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("phonenas.db", "phonenas.db"),
        ("user:secret@folder/s.db", "user:***@folder/s.db"),  # it may be a URL cut short
        ("postgresql://lab@host/x", "postgresql://lab@host/x"),
        ("postgresql://lab:secret@host:5432/x", "postgresql://lab:***@host:5432/x"),
        ("postgresql://lab:s@e:c/ret@host/x", "postgresql://lab:***@host/x"),
        ("postgresql://:secret@host/x", "postgresql://:***@host/x"),
        ("postgresql:///x?user=a&password=secret", "postgresql:///x?user=a&password=***"),
        ("postgresql://h/x?sslpassword=secret&a=b", "postgresql://h/x?sslpassword=***&a=b"),
    ],
)
def test_a_location_is_shown_without_its_password(location: str, told: str) -> None:
    assert without_password(location) == told


def test_an_older_journal_is_read_and_then_modernised(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with data.MeasurementStore(path) as store:
        fill(store, HERE, "a", 1.0)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    with data.MeasurementStore(path, read_only=True) as store:
        assert store.count(HERE) == 1
    with data.MeasurementStore(path) as store:
        fill(store, HERE, "b", 1.0)


_READER = """
import errno, sys
from dataclasses import replace
from pathlib import Path
from phonenas import data
from phonenas.space.errors import StoreError
path = Path(sys.argv[1])
try:
    (path.parent / "new").touch()
except OSError as error:
    assert error.errno == errno.EROFS, error
else:
    sys.exit("this is not a read-only medium")
with data.MeasurementStore(path) as store:
    assert store.read_only
    (conditions,) = store.conditions()
    print(len(store.measurements(conditions)))
    data.export(store, Path(sys.argv[2]))
    try:
        store.reject(conditions, [("a", "r")])
    except StoreError as error:
        print(error)
"""


def test_a_store_on_a_read_only_medium_is_read(tmp_path: Path, environment: dict[str, str]) -> None:
    """Root's permission bits bind nobody, so the folder is mounted read-only."""
    folder = tmp_path / "medium"
    folder.mkdir()
    with data.MeasurementStore(folder / "s.db") as store:
        fill(store, HERE, "a", 1.0)
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    isolation = ["unshare", "-rm", "sh", "-c", mount, str(folder)]
    if (
        not shutil.which("unshare")
        or subprocess.run([*isolation, "true"], capture_output=True, timeout=PATIENCE_S).returncode
    ):
        pytest.skip("no mount namespace is to be had here")
    done = subprocess.run(
        [*isolation, sys.executable, "-c", _READER, str(folder / "s.db"), str(tmp_path / "o.csv")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\n")
    assert "can only be read" in done.stdout
    assert len(pd.read_csv(tmp_path / "o.csv")) == 1
    store.close()
    assert [p.name for p in folder.iterdir()] == ["s.db"]


@pytest.mark.skipif(os.getuid() == 0, reason="permissions do not bind root")
def test_a_store_without_permission_to_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with data.MeasurementStore(path) as store:
        fill(store, HERE, "a", 1.0)
    path.chmod(0o444)
    with data.MeasurementStore(path) as store:
        assert store.read_only
        assert store.count(HERE) == 1


@pytest.mark.fault(
    "The disk of a store is full.",
    "`cannot be written: database or disk is full. What was committed before is safe`",
    "Make room, then give the same command again.",
)
def test_a_full_disk_is_told_and_what_was_there_is_safe(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "s.db") as store:
        fill(store, HERE, "before", 1.0)
        with store._database._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            # SQLite's own limit gives the very error of a full disk.
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match="full"):
            for i in range(2000):
                fill(store, HERE, f"{i:0200d}", 1.0)
        assert "before" in {m.subject for m in store.measurements(HERE)}


# -- rounds, files, exports -----------------------------------------------------------------------


@pytest.mark.parametrize("samples", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_a_round_refuses_what_is_no_time(samples: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument, match="samples above 0 ms"):
        Round(samples)


@pytest.mark.parametrize("at", ["", "yesterday", "02.03.2026", "2026", "2026-01-01" + "0" * 31])
def test_a_round_refuses_what_is_no_time_of_day(at: str) -> None:
    with pytest.raises(InvalidArgument, match="^at of a round"):
        Round((1.0,), at=at)


def test_a_round_refuses_a_count_below_zero() -> None:
    with pytest.raises(InvalidArgument, match="^preempted of a round"):
        Round((1.0,), preempted=-1)


def test_what_is_stored_can_be_read(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    telemetry = {
        "temperature_c": nan,
        "mhz": inf,
        "core": 3,
        "file": "t\udcffé.csv",
        "all_c": [41.5, -inf],
        "at": {"x": nan},
    }
    with data.MeasurementStore(tmp_path / "s.db") as store:
        pending = store.pending(HERE, "operator", ["a"])["a"]
        taken = Round((1e-7, 0.12345678), (2e-7, 1.0), at="2026-03", telemetry=telemetry)
        store.add_rounds([(pending.id, 0, taken)])
        store.complete([pending.id])
    with data.MeasurementStore(tmp_path / "s.db") as store:
        (stored,) = store.measurements(HERE)[0].rounds
    assert stored.samples_ms == (1e-7, 0.123457) and stored.sentinel_ms == (2e-7, 1.0)
    assert stored.telemetry == {
        "core": 3,
        "file": "t?é.csv",
        "all_c": [41.5, None],
        "at": {"x": None},
    }
    assert stored.at == "2026-03"


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
