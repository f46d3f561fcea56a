"""MeasurementStore: every measurement, in one SQLite file or a database by its URL.

A round is committed as soon as it is accepted; a measurement counts once all its rounds are
in. What is asked for once stands once: subject, conditions and series are unique, so a job
that was killed and started again neither loses nor doubles anything.

File format, version 1: tables `meta` (version), `conditions`, `measurement`, `round`,
`rejection`. A newer version is refused, both versions named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ..space.errors import InvalidArgument, StoreError, UnsupportedFormat
from .measurement import Conditions, Measurement, Round, SubjectKind

__all__ = ["MeasurementStore", "Pending"]

VERSION = 1
_BUSY_S = 60

_meta = sa.MetaData()
_META = sa.Table(
    "meta", _meta, sa.Column("name", sa.String(40), primary_key=True), sa.Column("value", sa.Text)
)
_CONDITIONS = sa.Table(
    "conditions",
    _meta,
    sa.Column("digest", sa.String(12), primary_key=True),
    sa.Column("device", sa.String(200), nullable=False, index=True),
    sa.Column("origin", sa.String(20), nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Column("reference_ms", sa.Float),
)
_MEASUREMENT = sa.Table(
    "measurement",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conditions", sa.ForeignKey("conditions.digest"), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("series", sa.Integer, nullable=False, default=0),
    sa.Column("purpose", sa.String(20), nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False, default=False),
    sa.UniqueConstraint("conditions", "subject", "series"),
)
_ROUND = sa.Table(
    "round",
    _meta,
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
_REJECTION = sa.Table(
    "rejection",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conditions", sa.ForeignKey("conditions.digest"), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
)


@dataclass(frozen=True)
class Pending:
    """A measurement under way: its row and the rounds that are in."""

    id: int
    rounds: tuple[Round, ...]
    complete: bool


class MeasurementStore:
    """Lifetime: open it, use it as a context or `close` it; several processes may share one.

    Args:
        location: A path, or a database URL (`postgresql+psycopg://...`).
        create: Whether a store that is not there is made; otherwise that is an error.
    Raises:
        StoreError: It cannot be opened, read or written; is not there with `create` False.
        UnsupportedFormat: It is damaged, no store of phonenas, or of a newer version.
    """

    def __init__(self, location: str | Path, *, create: bool = True) -> None:
        self.location = str(location)
        url = self.location
        if "://" not in url:
            path = Path(self.location)
            if not create and not path.exists():
                raise StoreError(
                    f"there is no store at {path}. Make one with phonenas profile, or name "
                    "yours with --db."
                )
            if not path.parent.is_dir():
                raise StoreError(f"the store {path} cannot be made: no folder {path.parent}")
            url = f"sqlite:///{path}"
        try:
            self._engine = sa.create_engine(url)
        except (exc.ArgumentError, exc.NoSuchModuleError, ImportError) as error:
            raise InvalidArgument(
                f"no store can be opened at {self.location!r}: {error}. Give a path, or a URL "
                "such as postgresql+psycopg://user@host/lab (pip install 'phonenas[postgres]')."
            ) from error
        self.sqlite = self._engine.dialect.name == "sqlite"
        if self.sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        try:
            with self._begin() as connection:
                self._open(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def _open(self, connection: sa.Connection) -> None:
        if self.sqlite:
            verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if verdict != "ok":
                raise UnsupportedFormat(
                    f"the store {self.location} is damaged ({verdict}). Restore a copy, or start "
                    "another with --db."
                )
        tables = set(sa.inspect(connection).get_table_names())
        if tables and "meta" not in tables:
            raise UnsupportedFormat(
                f"{self.location} is a database, but no store of phonenas (it holds "
                f"{', '.join(sorted(tables)[:3])}). Name another with --db."
            )
        if not tables:
            _meta.create_all(connection)
            connection.execute(_META.insert().values(name="version", value=str(VERSION)))
            return
        found = connection.execute(
            sa.select(_META.c.value).where(_META.c.name == "version")
        ).scalar()
        if found != str(VERSION):
            raise UnsupportedFormat(
                f"the store {self.location} has version {found}; this phonenas reads version "
                f"{VERSION}. Use the phonenas that wrote it, or start another with --db."
            )

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """A transaction; foreign errors leave in our words."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except exc.DBAPIError as error:
            told = str(error.orig)
            if "malformed" in told or "not a database" in told:
                raise UnsupportedFormat(
                    f"the store {self.location} is damaged ({told}). Restore a copy, or start "
                    "another with --db."
                ) from error
            raise StoreError(
                f"the store {self.location} cannot be read or written: {told}. What was "
                "committed before is safe; the same command goes on from there."
            ) from error

    def close(self) -> None:
        """Release the file or the connection."""
        self._engine.dispose()

    def __enter__(self) -> MeasurementStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------

    def pending(
        self,
        conditions: Conditions,
        kind: SubjectKind,
        subjects: list[str],
        *,
        purpose: str = "profile",
        again: bool = False,
    ) -> dict[str, Pending]:
        """The measurements under way or complete of these subjects, made where absent.

        With `again` a new series is begun for each subject whose last one is complete.
        """
        digest = conditions.digest
        with self._begin() as connection:
            if not connection.execute(
                sa.select(_CONDITIONS.c.digest).where(_CONDITIONS.c.digest == digest)
            ).first():
                connection.execute(
                    _CONDITIONS.insert().values(
                        digest=digest,
                        device=conditions.device,
                        origin=conditions.origin,
                        fields=json.dumps(conditions.to_dict(), sort_keys=True),
                    )
                )
            latest = self._latest(connection, digest, kind)
            fresh = []
            for subject in subjects:
                row = latest.get(subject)
                if row is None or (again and row.complete):
                    fresh.append(
                        {
                            "conditions": digest,
                            "kind": kind,
                            "subject": subject,
                            "series": 0 if row is None else row.series + 1,
                            "purpose": purpose,
                            "complete": False,
                        }
                    )
            if fresh:
                connection.execute(_MEASUREMENT.insert(), fresh)
                latest = self._latest(connection, digest, kind)
            wanted = {latest[s].id: s for s in subjects}
            rounds = self._rounds(connection, _MEASUREMENT.c.conditions == digest)
            return {
                subject: Pending(id, tuple(rounds.get(id, ())), bool(latest[subject].complete))
                for id, subject in wanted.items()
            }

    def _latest(self, connection: sa.Connection, digest: str, kind: str) -> dict[str, Any]:
        rows = connection.execute(
            sa.select(_MEASUREMENT)
            .where(_MEASUREMENT.c.conditions == digest, _MEASUREMENT.c.kind == kind)
            .order_by(_MEASUREMENT.c.series)
        )
        return {row.subject: row for row in rows}

    def add_rounds(self, rounds: list[tuple[int, int, Round]]) -> None:
        """Commit accepted rounds, each (measurement id, its number, round), as one.

        A number that is already in (another process was faster) is left as it is.
        """
        with self._begin() as connection:
            known = {
                (row.measurement, row.number)
                for row in connection.execute(
                    sa.select(_ROUND.c.measurement, _ROUND.c.number).where(
                        _ROUND.c.measurement.in_({r[0] for r in rounds})
                    )
                )
            }
            rows = [
                {
                    "measurement": id,
                    "number": number,
                    "samples_ms": json.dumps([round(s, 6) for s in taken.samples_ms]),
                    "sentinel_ms": json.dumps([round(s, 6) for s in taken.sentinel_ms]),
                    "preempted": taken.preempted,
                    "at": taken.at,
                    "circumstances": json.dumps(taken.circumstances, sort_keys=True),
                }
                for id, number, taken in rounds
                if (id, number) not in known
            ]
            if rows:
                connection.execute(_ROUND.insert(), rows)

    def complete(self, ids: list[int]) -> None:
        """Let these measurements count."""
        with self._begin() as connection:
            for id in ids:
                connection.execute(
                    _MEASUREMENT.update().where(_MEASUREMENT.c.id == id).values(complete=True)
                )

    def discard(self, id: int, conditions: Conditions, subject: str, reason: str) -> None:
        """Forget the rounds of a measurement that was never completed; keep the reason."""
        with self._begin() as connection:
            connection.execute(_ROUND.delete().where(_ROUND.c.measurement == id))
        self.reject(conditions, [(subject, reason)])

    def reject(self, conditions: Conditions, reasons: list[tuple[str, str]]) -> None:
        """Note readings that were not recorded, each (subject, reason)."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [
            {"conditions": conditions.digest, "subject": s, "reason": r, "at": at}
            for s, r in reasons
        ]
        if rows:
            with self._begin() as connection:
                connection.execute(_REJECTION.insert(), rows)

    # -- reading ------------------------------------------------------------------------------

    def conditions(self, device: str | None = None) -> list[Conditions]:
        """All conditions that hold complete measurements, the latest measured last."""
        query = (
            sa.select(_CONDITIONS.c.fields, sa.func.max(_ROUND.c.at).label("last"))
            .join(_MEASUREMENT, _MEASUREMENT.c.conditions == _CONDITIONS.c.digest)
            .join(_ROUND, _ROUND.c.measurement == _MEASUREMENT.c.id)
            .where(_MEASUREMENT.c.complete)
            .group_by(_CONDITIONS.c.digest, _CONDITIONS.c.fields)
            .order_by(sa.text("last"))
        )
        if device is not None:
            query = query.where(_CONDITIONS.c.device == device)
        with self._begin() as connection:
            return [Conditions.from_dict(json.loads(r.fields)) for r in connection.execute(query)]

    def measurements(
        self,
        conditions: Conditions,
        kind: SubjectKind | None = None,
        *,
        all_series: bool = False,
    ) -> list[Measurement]:
        """Complete measurements under these conditions, the latest series of each subject.

        Ordered by their making. `all_series` gives the older ones too.
        """
        where = (_MEASUREMENT.c.conditions == conditions.digest) & _MEASUREMENT.c.complete
        if kind is not None:
            where &= _MEASUREMENT.c.kind == kind
        with self._begin() as connection:
            rows = connection.execute(
                sa.select(_MEASUREMENT).where(where).order_by(_MEASUREMENT.c.id)
            ).all()
            rounds = self._rounds(connection, where)
            reference_ms = self._reference(connection, conditions)
        found: dict[Any, Measurement] = {}
        for row in rows:
            taken = Measurement(
                row.kind,
                row.subject,
                conditions,
                tuple(rounds[row.id]),
                row.series,
                row.purpose,
                reference_ms,
            )
            key = (row.subject, row.series) if all_series else row.subject
            if key not in found or found[key].series < row.series:
                found[key] = taken
        return list(found.values())

    def reference_ms(self, conditions: Conditions) -> float | None:
        """What the sentinel takes at the speed that statistics are stated at; None before it is set."""
        with self._begin() as connection:
            return self._reference(connection, conditions)

    def _reference(self, connection: sa.Connection, conditions: Conditions) -> float | None:
        found = connection.execute(
            sa.select(_CONDITIONS.c.reference_ms).where(_CONDITIONS.c.digest == conditions.digest)
        ).scalar()
        return None if found is None else float(found)

    def set_reference(self, conditions: Conditions, reference_ms: float) -> float:
        """Set the reference if there is none; returns the one that holds from now on.

        It never changes afterwards, so that all of a device's numbers speak of one speed.
        """
        with self._begin() as connection:
            connection.execute(
                _CONDITIONS.update()
                .where(
                    (_CONDITIONS.c.digest == conditions.digest)
                    & _CONDITIONS.c.reference_ms.is_(None)
                )
                .values(reference_ms=reference_ms)
            )
            return float(self._reference(connection, conditions) or reference_ms)

    def _rounds(self, connection: sa.Connection, where: Any) -> dict[int, list[Round]]:
        rows = connection.execute(
            sa.select(_ROUND)
            .join(_MEASUREMENT, _MEASUREMENT.c.id == _ROUND.c.measurement)
            .where(where)
            .order_by(_ROUND.c.measurement, _ROUND.c.number)
        )
        found: dict[int, list[Round]] = {}
        for row in rows:
            found.setdefault(row.measurement, []).append(
                Round(
                    tuple(json.loads(row.samples_ms)),
                    tuple(json.loads(row.sentinel_ms)),
                    row.preempted,
                    row.at,
                    json.loads(row.circumstances),
                )
            )
        return found

    def rejections(self, conditions: Conditions) -> list[tuple[str, str, str]]:
        """What was not recorded and why: (subject, reason, when)."""
        query = (
            sa.select(_REJECTION)
            .where(_REJECTION.c.conditions == conditions.digest)
            .order_by(_REJECTION.c.id)
        )
        with self._begin() as connection:
            return [(r.subject, r.reason, r.at) for r in connection.execute(query)]

    def count(self, conditions: Conditions) -> int:
        """Number of complete measurements under these conditions, all series."""
        query = (
            sa.select(sa.func.count())
            .select_from(_MEASUREMENT)
            .where((_MEASUREMENT.c.conditions == conditions.digest) & _MEASUREMENT.c.complete)
        )
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # The driver's own transaction handling is switched off, so that BEGIN IMMEDIATE below
    # takes the write lock at once and two writers wait instead of failing half-way.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
