"""MeasurementStore: every measurement, in one SQLite file or a database by its URL.

Rounds are committed as they are accepted; a measurement counts once all its rounds are in. What is asked for once stands once: subject, conditions and series are unique, so a job
that was killed and started again neither loses nor doubles anything.

File format, version 1: tables `meta` (version), `conditions`, `measurement`, `round`,
`rejection`. A newer version is refused, both versions named.
"""

from __future__ import annotations

import json
import shutil
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
from . import schema
from .measurement import Conditions, Measurement, Round, SubjectKind
from .schema import CONDITIONS, MEASUREMENT, META, METADATA, REJECTION, ROUND, VERSION

__all__ = ["MeasurementStore", "Pending"]

# Sentinel readings after which the reference speed of a device stands for good.
_SETTLED_SAMPLES = 2000
_FULL_BYTES = 1 << 20


@dataclass(frozen=True)
class Pending:
    """A measurement under way: its row, the rounds that are in, and why it was given up."""

    id: int
    rounds: tuple[Round, ...]
    complete: bool
    given_up: str = ""


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
            sa.event.listen(self._engine, "connect", schema.prepare_sqlite)
            sa.event.listen(self._engine, "begin", schema.begin_sqlite)
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
            METADATA.create_all(connection)
            connection.execute(META.insert().values(name="version", value=str(VERSION)))
            return
        found = connection.execute(sa.select(META.c.value).where(META.c.name == "version")).scalar()
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
            told = str(error.orig) + self._full_disk()
            if "malformed" in told or "not a database" in told:
                raise UnsupportedFormat(
                    f"the store {self.location} is damaged ({told}). Restore a copy, or start "
                    "another with --db."
                ) from error
            raise StoreError(
                f"the store {self.location} cannot be read or written: {told}. What was "
                "committed before is safe; the same command goes on from there."
            ) from error

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Rows that cannot be read as what they should be: the file is damaged."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise UnsupportedFormat(
                f"the store {self.location} is damaged: a row cannot be read ({error}). Restore a "
                "copy, or start another with --db."
            ) from error

    def _full_disk(self) -> str:
        """SQLite calls a full disk an I/O error as often as not; say which it is."""
        if not self.sqlite:
            return ""
        folder = Path(self.location).absolute().parent
        full = folder.is_dir() and shutil.disk_usage(folder).free < _FULL_BYTES
        return " (the disk is full)" if full else ""

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

        With `again` a new series is begun for the subjects whose last one is complete; if one
        was begun before and not finished, that one is gone on with.
        """
        digest = conditions.digest
        with self._begin() as connection:
            if not connection.execute(
                sa.select(CONDITIONS.c.digest).where(CONDITIONS.c.digest == digest)
            ).first():
                connection.execute(
                    CONDITIONS.insert().values(
                        digest=digest,
                        device=conditions.device,
                        origin=conditions.origin,
                        fields=json.dumps(conditions.to_dict(), sort_keys=True),
                    )
                )
            latest = self._latest(connection, digest, kind)
            rows = [latest[s] for s in subjects if s in latest]
            begun = max((r.series for r in rows if r.series and not r.complete), default=None)
            fresh = []
            for subject in subjects:
                row = latest.get(subject)
                outdated = row is not None and row.complete and row.series != begun
                if row is None or (again and outdated):
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
                connection.execute(MEASUREMENT.insert(), fresh)
                latest = self._latest(connection, digest, kind)
            wanted = {latest[s].id: s for s in subjects}
            rounds = self._rounds(connection, MEASUREMENT.c.conditions == digest)
            return {
                subject: Pending(
                    id,
                    tuple(rounds.get(id, ())),
                    bool(latest[subject].complete),
                    latest[subject].given_up or "",
                )
                for id, subject in wanted.items()
            }

    def _latest(self, connection: sa.Connection, digest: str, kind: str) -> dict[str, Any]:
        rows = connection.execute(
            sa.select(MEASUREMENT)
            .where(MEASUREMENT.c.conditions == digest, MEASUREMENT.c.kind == kind)
            .order_by(MEASUREMENT.c.series)
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
                    sa.select(ROUND.c.measurement, ROUND.c.number).where(
                        ROUND.c.measurement.in_({r[0] for r in rounds})
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
                connection.execute(ROUND.insert(), rows)

    def complete(self, ids: list[int]) -> None:
        """Let these measurements count."""
        with self._begin() as connection:
            for id in ids:
                connection.execute(
                    MEASUREMENT.update()
                    .where(MEASUREMENT.c.id == id)
                    .values(complete=True, given_up=None)
                )

    def discard(self, id: int, conditions: Conditions, subject: str, reason: str) -> None:
        """Forget the rounds of a measurement that did not settle; keep the reason."""
        row = {**_rejection(subject, reason), "conditions": conditions.digest}
        with self._begin() as connection:
            connection.execute(ROUND.delete().where(ROUND.c.measurement == id))
            connection.execute(
                MEASUREMENT.update()
                .where(MEASUREMENT.c.id == id)
                .values(complete=False, given_up=reason)
            )
            connection.execute(REJECTION.insert(), [row])

    def reject(self, conditions: Conditions, reasons: list[tuple[str, str]]) -> None:
        """Note readings that were not recorded, each (subject, reason)."""
        rows = [{**_rejection(s, r), "conditions": conditions.digest} for s, r in reasons]
        if rows:
            with self._begin() as connection:
                connection.execute(REJECTION.insert(), rows)

    # -- reading ------------------------------------------------------------------------------

    def conditions(self, device: str | None = None) -> list[Conditions]:
        """All conditions that hold complete measurements, the latest measured last."""
        query = (
            sa.select(CONDITIONS.c.fields, sa.func.max(ROUND.c.at).label("last"))
            .join(MEASUREMENT, MEASUREMENT.c.conditions == CONDITIONS.c.digest)
            .join(ROUND, ROUND.c.measurement == MEASUREMENT.c.id)
            .where(MEASUREMENT.c.complete)
            .group_by(CONDITIONS.c.digest, CONDITIONS.c.fields)
            .order_by(sa.text("last"))
        )
        if device is not None:
            query = query.where(CONDITIONS.c.device == device)
        with self._begin() as connection, self._sound():
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
        where = (MEASUREMENT.c.conditions == conditions.digest) & MEASUREMENT.c.complete
        if kind is not None:
            where &= MEASUREMENT.c.kind == kind
        with self._begin() as connection, self._sound():
            rows = connection.execute(
                sa.select(MEASUREMENT).where(where).order_by(MEASUREMENT.c.id)
            ).all()
            rounds = self._rounds(connection, where)
            reference_ms = self._reference(connection, conditions)
            all_taken = [
                Measurement(
                    row.kind,
                    row.subject,
                    conditions,
                    tuple(rounds[row.id]),
                    row.series,
                    row.purpose,
                    reference_ms,
                )
                for row in rows
            ]
        found: dict[Any, Measurement] = {}
        for taken, row in zip(all_taken, rows, strict=True):
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
            sa.select(CONDITIONS.c.reference_ms).where(CONDITIONS.c.digest == conditions.digest)
        ).scalar()
        return None if found is None else float(found)

    def reference_settled(self, conditions: Conditions) -> bool:
        """Whether the reference rests on enough readings, and so stands for good."""
        query = sa.select(CONDITIONS.c.reference_samples).where(
            CONDITIONS.c.digest == conditions.digest
        )
        with self._begin() as connection:
            return (connection.execute(query).scalar() or 0) >= _SETTLED_SAMPLES

    def set_reference(self, conditions: Conditions, reference_ms: float, samples: int) -> float:
        """Set the reference, unless a settled one stands; returns the one that holds now.

        Once it rests on 2,000 sentinel readings it never changes, so that all of a device's
        numbers speak of one speed; a first small job does not fix it.
        """
        unsettled = CONDITIONS.c.reference_samples.is_(None) | (
            CONDITIONS.c.reference_samples < _SETTLED_SAMPLES
        )
        with self._begin() as connection:
            connection.execute(
                CONDITIONS.update()
                .where((CONDITIONS.c.digest == conditions.digest) & unsettled)
                .values(reference_ms=reference_ms, reference_samples=samples)
            )
            return float(self._reference(connection, conditions) or reference_ms)

    def _rounds(self, connection: sa.Connection, where: Any) -> dict[int, list[Round]]:
        rows = connection.execute(
            sa.select(ROUND)
            .join(MEASUREMENT, MEASUREMENT.c.id == ROUND.c.measurement)
            .where(where)
            .order_by(ROUND.c.measurement, ROUND.c.number)
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
            sa.select(REJECTION)
            .where(REJECTION.c.conditions == conditions.digest)
            .order_by(REJECTION.c.id)
        )
        with self._begin() as connection:
            return [(r.subject, r.reason, r.at) for r in connection.execute(query)]

    def count(self, conditions: Conditions) -> int:
        """Number of subjects that are measured under these conditions."""
        query = sa.select(sa.func.count(MEASUREMENT.c.subject.distinct())).where(
            (MEASUREMENT.c.conditions == conditions.digest) & MEASUREMENT.c.complete
        )
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())


def _rejection(subject: str, reason: str) -> dict[str, str]:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"subject": subject, "reason": reason, "at": at}
