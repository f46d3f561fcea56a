"""The store's tables, version 2, and how SQLite is opened."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

__all__ = [
    "CONDITIONS",
    "MEASUREMENT",
    "META",
    "METADATA",
    "READS",
    "REJECTION",
    "ROUND",
    "STORE",
    "STORE_ID",
    "VERSION",
    "Contents",
    "begin_sqlite",
    "is_writable",
    "prepare_sqlite",
    "prepare_sqlite_to_read",
    "read_only_uri",
]

VERSION = 2
STORE_ID = "store"  # the name in `meta` of the digits that tell one store from others
READS = "phonenas_reads"  # the execution option of a connection that only reads
_BUSY_S = 60

METADATA = sa.MetaData()
META = sa.Table(
    "meta",
    METADATA,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.Text),
)
CONDITIONS = sa.Table(
    "conditions",
    METADATA,
    sa.Column("digest", sa.String(12), primary_key=True),
    sa.Column("device", sa.String(200), nullable=False, index=True),
    sa.Column("origin", sa.String(20), nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Column("reference_ms", sa.Float),  # no longer used: older releases divided by it
    sa.Column("reference_samples", sa.Integer),
)
MEASUREMENT = sa.Table(
    "measurement",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conditions", sa.ForeignKey("conditions.digest"), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("series", sa.Integer, nullable=False),
    sa.Column("purpose", sa.String(20), nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("given_up", sa.Text),
    sa.UniqueConstraint("conditions", "subject", "series"),
)
ROUND = sa.Table(
    "round",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("measurement", sa.ForeignKey("measurement.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("samples_ms", sa.Text, nullable=False),
    sa.Column("sentinel_ms", sa.Text, nullable=False),
    sa.Column("preempted", sa.Integer, nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("circumstances", sa.Text, nullable=False),
    sa.UniqueConstraint("measurement", "number"),
    sqlite_autoincrement=True,  # no number is given twice: what is newer follows from them
)
REJECTION = sa.Table(
    "rejection",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conditions", sa.ForeignKey("conditions.digest"), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
)


@dataclass(frozen=True)
class Contents:
    """What a database of phonenas holds.

    Args:
        noun: What it is called in messages: "store".
        tables: Its tables.
        version: Of these.
        version_in: The version that a database with tables tells; None where it is another's.
        stamp: Writes the version into a new database.
        other: The advice to take another one, as a sentence without its full stop.
        make: How one is made, for messages.
        migrate: Brings a database of the version before to this one, within a transaction; None
            where there was none before.
    """

    noun: str
    tables: sa.MetaData
    version: int
    version_in: Callable[[sa.Connection], str | None]
    stamp: Callable[[sa.Connection], None]
    other: str
    make: str
    migrate: Callable[[sa.Connection], None] | None = None


def _version_in(connection: sa.Connection) -> str | None:
    inspector = sa.inspect(connection)
    if not inspector.has_table("meta"):
        return None
    if not {c["name"] for c in inspector.get_columns("meta")} >= {"name", "value"}:
        return None
    row = connection.execute(sa.select(META.c.value).where(META.c.name == "version")).scalar()
    return str(row)


def _stamp(connection: sa.Connection) -> None:
    connection.execute(META.insert().values(name="version", value=str(VERSION)))
    connection.execute(META.insert().values(name=STORE_ID, value=secrets.token_hex(6)))


def _migrate(connection: sa.Connection) -> None:
    """From version 1, in which SQLite gave the numbers of deleted rounds again."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("ALTER TABLE round RENAME TO round_of_1")
        ROUND.create(connection)
        names = ", ".join(c.name for c in ROUND.c)
        connection.exec_driver_sql(f"INSERT INTO round ({names}) SELECT {names} FROM round_of_1")
        connection.exec_driver_sql("DROP TABLE round_of_1")
    connection.execute(META.delete().where(META.c.name == "version"))
    _stamp(connection)


STORE = Contents(
    "store",
    METADATA,
    VERSION,
    _version_in,
    _stamp,
    "Name another with --db",
    "Make one with phonenas profile, or name yours with --db.",
    _migrate,
)


def prepare_sqlite(connection: Any, log: bool) -> None:
    """Set up a connection: waiting for locks, foreign keys, and with `log` a write-ahead log."""
    cursor = _own_transactions(connection)
    until = time.monotonic() + _BUSY_S
    while log:
        # The one lock that SQLite does not wait for by itself: others may open it just now.
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def prepare_sqlite_to_read(connection: Any) -> None:
    """Set up a new connection that never writes."""
    cursor = _own_transactions(connection)
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


def _own_transactions(connection: Any) -> Any:
    # The driver's own transaction handling is switched off, so that BEGIN IMMEDIATE below
    # takes the write lock at once and two writers wait instead of failing half-way.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
    return cursor


def begin_sqlite(connection: sa.Connection) -> None:
    """Take the write lock with the transaction; a reader needs none."""
    reads = connection.get_execution_options().get(READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def is_writable(path: Path) -> bool:
    """Whether this account can write an SQLite file: its log lies beside it."""
    return os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)


def read_only_uri(path: Path) -> tuple[str, dict[str, str]]:
    """How SQLite opens a file that it must not write: the name and the query of its URI.

    The log of a writer that is at work is read too. Where there is none and the folder takes none,
    as on a read-only medium, SQLite would refuse; there the file is declared immutable.
    """
    uri = path.absolute().as_uri()
    query = {"mode": "ro", "uri": "true"}
    log = Path(f"{path}-wal")
    if not (log.exists() and log.stat().st_size):
        try:
            with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            query["immutable"] = "1"
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            pass  # damaged, which may quote bytes of the file: the first transaction tells
    return uri, query
