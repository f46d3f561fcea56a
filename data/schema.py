"""The store's tables, version 1, and how SQLite is opened."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

__all__ = [
    "CONDITIONS",
    "MEASUREMENT",
    "META",
    "METADATA",
    "REJECTION",
    "ROUND",
    "VERSION",
    "begin_sqlite",
    "prepare_sqlite",
]

VERSION = 1
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
    sa.Column("reference_ms", sa.Float),
    sa.Column("reference_samples", sa.Integer),
)
MEASUREMENT = sa.Table(
    "measurement",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conditions", sa.ForeignKey("conditions.digest"), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("series", sa.Integer, nullable=False, default=0),
    sa.Column("purpose", sa.String(20), nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False, default=False),
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


def prepare_sqlite(connection: Any, record: Any) -> None:
    """Set up a new connection: waiting for locks, write-ahead log, foreign keys."""
    # The driver's own transaction handling is switched off, so that BEGIN IMMEDIATE below
    # takes the write lock at once and two writers wait instead of failing half-way.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def begin_sqlite(connection: sa.Connection) -> None:
    """Take the write lock with the transaction."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
