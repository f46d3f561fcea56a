"""The store on a real PostgreSQL: the same questions as SQLite's, and a server's own troubles."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
from fakes import FakeDevice, TinySpace
from patience import PATIENCE_S
from servers import Postgres

from phonenas import data, devices
from phonenas.data import Round
from phonenas.data.measurement import Entry
from phonenas.data.store import database
from phonenas.devices.measuring import profiling
from phonenas.devices.measuring.events import Measured
from phonenas.space.errors import InvalidArgument, MissingExtra, StoreError
from phonenas.testing.store import HERE, fill
from tests.data.store.test_store import DatabaseContract, sql

pytest_plugins = ("servers",)
pytestmark = pytest.mark.postgres

AT = "2026-01-01T00:00:00+00:00"


class TestPostgres(DatabaseContract):
    @pytest.fixture
    def location(self, postgres_url: str) -> str:
        return postgres_url


def refused(location: str, *secrets: str) -> str:
    """What is said of a store that cannot be opened: one line, without a password."""
    with pytest.raises((InvalidArgument, StoreError)) as caught:
        data.MeasurementStore(location)
    told = str(caught.value)
    assert "\n" not in told
    for secret in secrets:
        assert secret not in told
    return told


def test_what_cannot_be_opened_says_why_and_keeps_the_password(postgres: Postgres) -> None:
    secret = postgres.password
    told = refused(postgres.url(password="wrong-one"), "wrong-one", secret)
    assert "cannot be opened" in told
    assert "password authentication failed" in told
    assert f"phonenas:***@127.0.0.1:{postgres.port}/postgres" in told
    assert 'database "nowhere" does not exist' in refused(postgres.url("nowhere"), secret)
    nobody = postgres.url().replace(str(postgres.port), str(servers.free_port()))
    assert "Connection refused" in refused(nobody, secret)
    query = f"postgresql://127.0.0.1:{postgres.port}/postgres?user=phonenas&password=wrong-one"
    assert "password authentication failed" in refused(query, "wrong-one")
    # A parameter that the driver does not know is quoted by it with all the others.
    assert refused(postgres.url() + "?nonsense=1", secret)
    with data.MeasurementStore(postgres.empty()) as store:
        assert secret not in store.location
        assert store.location.startswith("postgresql+psycopg://phonenas:***@127.0.0.1")


def test_shorter_names_of_the_same_database(postgres_url: str) -> None:
    for scheme in ("postgresql", "postgres"):
        with data.MeasurementStore(postgres_url.replace("postgresql+psycopg", scheme)) as store:
            assert store.conditions() == []


def test_without_its_driver_the_extra_is_named(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"needs psycopg.*psycopg\[binary\]") as caught:
        data.MeasurementStore(postgres.url())
    assert postgres.password not in str(caught.value)


def test_a_store_opened_without_create_makes_nothing(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        data.MeasurementStore(postgres_url, create=False)
    engine = sa.create_engine(postgres_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_an_account_that_may_only_read_reads(postgres: Postgres, postgres_url: str) -> None:
    with data.MeasurementStore(postgres_url) as store:
        fill(store, HERE, "a", 1.0)
    for statement in (
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN PASSWORD 'only-reads'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    ):
        sql(postgres_url, statement)
    location = postgres_url.replace(f"phonenas:{postgres.password}", "reader:only-reads")
    with data.MeasurementStore(location) as store:
        assert store.count(HERE) == 1
        with pytest.raises(StoreError, match="permission denied"):
            store.reject(HERE, [("a", "r")])
    sql(postgres_url, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM reader")


def test_a_restarted_server_is_found_again(postgres: Postgres, postgres_url: str) -> None:
    with data.MeasurementStore(postgres_url) as store:
        fill(store, HERE, "a", 1.0)
        postgres.restart()
        fill(store, HERE, "b", 1.0)  # a dead connection is noticed before it is used
        postgres.halt()
        with pytest.raises(StoreError, match="the same command goes on") as caught:
            fill(store, HERE, "c", 1.0)
        assert postgres.password not in str(caught.value)
        assert "\n" not in str(caught.value)
        postgres.restart()
        fill(store, HERE, "c", 1.0)
        assert store.count(HERE) == 3


def test_a_server_lost_in_mid_transaction_commits_nothing_of_it(
    postgres: Postgres, postgres_url: str
) -> None:
    with data.MeasurementStore(postgres_url) as store:
        fill(store, HERE, "a", 1.0)
        with pytest.raises(StoreError, match="cannot be written: .*terminating connection"):
            with store._database.writing() as connection:
                connection.exec_driver_sql("DELETE FROM round")
                postgres.restart()
                connection.exec_driver_sql("DELETE FROM measurement")
        assert len(store.measurements(HERE)[0].rounds) == 3


@pytest.mark.usefixtures("fast")
def test_a_job_goes_on_where_a_lost_server_left_it(
    postgres: Postgres, postgres_url: str, tiny: TinySpace
) -> None:
    subjects = profiling.Selection().subjects(tiny, 0, seed=0)[:8]
    committed = 0

    def halt(event: object) -> None:
        nonlocal committed
        if isinstance(event, Measured):
            committed += 1
            postgres.halt()

    with data.MeasurementStore(postgres_url) as store, FakeDevice() as device:
        with pytest.raises(StoreError, match="the same command goes on from there"):
            devices.measure(subjects, on=device, into=store, on_event=halt)
    assert committed == 1
    postgres.restart()
    with data.MeasurementStore(postgres_url) as store, FakeDevice() as device:
        digest = device.conditions.digest
        before = store.pending(device.conditions, "operator", [s.text for s in subjects])
        assert any(p.rounds for p in before.values())
        outcome = devices.measure(subjects, on=device, into=store)
        assert outcome.measured == len(subjects)
        found = store.measurements(device.conditions)
    assert {m.conditions.digest for m in found} == {digest}
    assert sorted(m.subject for m in found) == sorted(s.text for s in subjects)
    for m in found:  # what was in before was not taken again
        assert m.rounds[: len(before[m.subject].rounds)] == before[m.subject].rounds


def test_nobody_waits_for_ever_for_a_lock(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE_S", 1)
    with data.MeasurementStore(postgres_url) as store, data.MeasurementStore(postgres_url) as other:
        fill(store, HERE, "a", 1.0)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with other._database.writing(HERE.digest):
                held.set()
                done.wait(PATIENCE_S)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(PATIENCE_S)
        with pytest.raises(StoreError, match="lock timeout"):
            fill(store, HERE, "b", 1.0)
        assert thread.is_alive()  # it still had the lock
        done.set()
        thread.join(PATIENCE_S)
        fill(store, HERE, "b", 1.0)


def test_it_gives_what_a_file_gives(postgres_url: str, tmp_path: Path) -> None:
    """What a fit reads and an export writes does not tell where it was kept."""
    found = []
    for location in (str(tmp_path / "s.db"), postgres_url):
        with data.MeasurementStore(location) as store:
            for n in range(30):
                subject, kind = f"r1_k{n}", "operator" if n % 3 else "network"
                id = store.pending(HERE, kind, [subject])[subject].id
                store.add_rounds(
                    [
                        (id, i, Round((0.1 * n + 1 / 3, 2 / 3e3), (0.5, 1e-3), i, AT, {"°C": 41.5}))
                        for i in range(3)
                    ]
                )
                store.complete([id])
        with data.MeasurementStore(location, read_only=True) as store:
            out = tmp_path / f"{len(found)}.csv"
            assert data.export(store, out) == 30
            rows = store.measurements(HERE)
            # Each store numbers its own rounds.
            assert len({m.entry.store for m in rows}) == 1
            rows = [replace(m, entry=Entry()) for m in rows]
            found.append((store.conditions(), rows, out.read_bytes()))
    assert found[0] == found[1]
