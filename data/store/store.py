"""MeasurementStore: every measurement, in one SQLite file or a database by its URL.

Rounds are committed as they are accepted; a measurement counts once all its rounds are in. What is
asked for once stands once: subject, conditions and series are unique, so a job that was killed and
started again neither loses nor doubles anything.

File format, version 2: tables `meta` (version, and which store it is), `conditions`, `measurement`,
`round`, `rejection`. What is newer follows from the order in which rounds were stored, never from a
clock. Version 1 is read, and brought to version 2 when it is opened to be written. A newer version
is refused, both versions named.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from phonenas.space.errors import InvalidArgument

from ..documents import Text, parsed, strict
from ..measurement import At, Conditions, Entry, Measurement, Round, SubjectKind
from .database import Database
from .rows import columns_of, conditions_of, measurement_row, round_of
from .schema import CONDITIONS, MEASUREMENT, META, REJECTION, ROUND, STORE_ID

__all__ = ["MeasurementStore", "Pending", "Progress"]


@dataclass(frozen=True)
class Pending:
    """A measurement under way: its row, the rounds that are in, and why it was given up."""

    id: int
    rounds: tuple[Round, ...]
    complete: bool
    given_up: str = ""


@dataclass(frozen=True)
class Progress:
    """How far the measuring of one device under its conditions is.

    Args:
        device, conditions: Its name, and the digest of the conditions.
        complete, given_up, open: Measurements, ≥ 0: whole; without a number; begun or planned.
        last: When the last round was taken, in UTC; "" before the first.
    """

    device: str
    conditions: str
    complete: int
    given_up: int
    open: int
    last: str


class MeasurementStore:
    """Lifetime: open it, use it as a context or `close` it.

    Threads of one process may share one store, several processes one location.

    Args:
        location: A path, or a database URL (`postgresql+psycopg://...`).
        create: Whether a store that is not there is made; otherwise that is an error.
        read_only: Never write; so is a file opened that cannot be written (see `Database`).
    Attributes:
        location: Where it is, as it may be printed: no password in it.
        read_only: Whether it can only be read.
    Raises:
        InvalidArgument, MissingExtra: The location cannot hold a store; its driver is missing.
        StoreError: It cannot be opened, read or written; is not there with `create` False.
        UnsupportedFormat: It is damaged, no store of phonenas, or of a newer version.
    """

    def __init__(
        self, location: str | Path, *, create: bool = True, read_only: bool = False
    ) -> None:
        self._database = Database(location, create=create, read_only=read_only)
        self.location = self._database.location
        self.read_only = self._database.read_only

    def close(self) -> None:
        """Release the file or the connections."""
        self._database.close()

    def __enter__(self) -> MeasurementStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def identity(self) -> str:
        """Twelve hexadecimal digits that tell it from other stores, its copies aside; "" in a
        store of version 1 that can only be read."""
        query = sa.select(META.c.value).where(META.c.name == STORE_ID)
        with self._database.reading() as connection:
            return str(connection.execute(query).scalar() or "")

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
        was begun before and not finished, that one is continued.
        """
        digest = conditions.digest
        with self._database.writing(digest) as connection:
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
            for subject in dict.fromkeys(subjects):
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
                self._database.insert_new(connection, MEASUREMENT, fresh)
                latest = self._latest(connection, digest, kind)
            if other := next((s for s in subjects if s not in latest), None):
                raise InvalidArgument(
                    f"{other!r} stands in the store {self.location} under these conditions, but "
                    f"not as a subject of the kind {kind!r}"
                )
            mine = (MEASUREMENT.c.conditions == digest) & (MEASUREMENT.c.kind == kind)
            with self._database.sound():
                rounds = self._rounds(connection, mine)
            return {
                subject: Pending(
                    latest[subject].id,
                    tuple(rounds.get(latest[subject].id, ())),
                    bool(latest[subject].complete),
                    latest[subject].given_up or "",
                )
                for subject in subjects
            }

    def _latest(self, connection: sa.Connection, digest: str, kind: str) -> dict[str, Any]:
        rows = connection.execute(
            sa.select(MEASUREMENT)
            .where(MEASUREMENT.c.conditions == digest, MEASUREMENT.c.kind == kind)
            .order_by(MEASUREMENT.c.series)
        )
        with self._database.sound():
            return {row.subject: row for row in map(measurement_row, rows)}

    def add_rounds(self, rounds: list[tuple[int, int, Round]]) -> None:
        """Commit accepted rounds, each (measurement id, its number, round), as one.

        A number that is already in (another process was faster) is left as it is.
        """
        rows = [
            {"measurement": id, "number": number, **columns_of(taken)}
            # In one order, so that two who add the same ones never wait for each other.
            for id, number, taken in sorted(rounds, key=lambda r: r[:2])
        ]
        with self._database.writing() as connection:
            self._database.insert_new(connection, ROUND, rows)

    def complete(self, ids: list[int]) -> None:
        """Let these measurements count."""
        with self._database.writing() as connection:
            for id in sorted(ids):  # one order, as above
                connection.execute(
                    MEASUREMENT.update()
                    .where(MEASUREMENT.c.id == id)
                    .values(complete=True, given_up=None)
                )

    def discard(self, id: int, conditions: Conditions, subject: str, reason: str) -> None:
        """Forget the rounds of a measurement that did not settle; keep the reason."""
        row = {**_rejection(subject, reason), "conditions": conditions.digest}
        with self._database.writing() as connection:
            connection.execute(ROUND.delete().where(ROUND.c.measurement == id))
            connection.execute(
                MEASUREMENT.update()
                .where(MEASUREMENT.c.id == id)
                .values(complete=False, given_up=reason)
            )
            connection.execute(REJECTION.insert(), [row])

    def reopen(self, rounds: list[tuple[int, int]]) -> None:
        """Delete rounds from a number on, each (id, number), so that they are measured again."""
        if rounds:
            with self._database.writing() as connection:
                for id, number in sorted(rounds):
                    later = (ROUND.c.measurement == id) & (ROUND.c.number >= number)
                    connection.execute(ROUND.delete().where(later))
                    connection.execute(
                        MEASUREMENT.update().where(MEASUREMENT.c.id == id).values(complete=False)
                    )

    def reject(self, conditions: Conditions, reasons: list[tuple[str, str]]) -> None:
        """Record readings that were refused, each (subject, reason)."""
        rows = [{**_rejection(s, r), "conditions": conditions.digest} for s, r in reasons]
        if rows:
            with self._database.writing() as connection:
                connection.execute(REJECTION.insert(), rows)

    def set_relative(self, conditions: Conditions, device: str, digest: str) -> None:
        """Remember the source device, and its conditions, that predict these measurements."""
        row = {"name": f"like {conditions.digest}", "value": json.dumps([device, digest])}
        with self._database.writing(conditions.digest) as connection:
            connection.execute(META.delete().where(META.c.name == row["name"]))
            connection.execute(META.insert(), [row])

    # -- reading ------------------------------------------------------------------------------

    def conditions(
        self, device: str | None = None, kind: SubjectKind | None = None
    ) -> list[Conditions]:
        """All conditions with complete measurements, of one kind or any, the latest last.

        The latest are those of the last round that was stored, whatever the clock said.
        """
        query = (
            sa.select(CONDITIONS.c.fields, CONDITIONS.c.digest)
            .join(MEASUREMENT, MEASUREMENT.c.conditions == CONDITIONS.c.digest)
            .join(ROUND, ROUND.c.measurement == MEASUREMENT.c.id)
            .where(MEASUREMENT.c.complete)
            .group_by(CONDITIONS.c.digest, CONDITIONS.c.fields)
            .order_by(sa.func.max(ROUND.c.id))
        )
        if device is not None:
            query = query.where(CONDITIONS.c.device == device)
        if kind is not None:
            query = query.where(MEASUREMENT.c.kind == kind)
        with self._database.reading() as connection:
            return [conditions_of(r.fields, r.digest) for r in connection.execute(query)]

    def latest(self, conditions: Conditions, kinds: Sequence[SubjectKind]) -> Entry:
        """The entry of the last complete measurement of these kinds; number 0 for none."""
        query = (
            sa.select(sa.func.max(ROUND.c.id))
            .join(MEASUREMENT, MEASUREMENT.c.id == ROUND.c.measurement)
            .where(MEASUREMENT.c.conditions == conditions.digest, MEASUREMENT.c.complete)
            .where(MEASUREMENT.c.kind.in_(kinds))
        )
        store = self.identity
        with self._database.reading() as connection:
            return Entry(store, connection.execute(query).scalar() or 0)

    def begun(self, conditions: Conditions, kind: SubjectKind) -> list[str]:
        """Subjects of a kind that were begun, are not complete and not given up, in order."""
        query = (
            sa.select(MEASUREMENT.c.subject)
            .where(MEASUREMENT.c.conditions == conditions.digest, MEASUREMENT.c.kind == kind)
            .where(~MEASUREMENT.c.complete, MEASUREMENT.c.given_up.is_(None))
            .order_by(MEASUREMENT.c.id)
        )
        with self._database.reading() as connection:
            return [str(r.subject) for r in connection.execute(query)]

    def measurements(
        self, conditions: Conditions, kind: SubjectKind | None = None, *, all_series: bool = False
    ) -> list[Measurement]:
        """Complete measurements under these conditions, the latest series of each subject.

        Ordered by their making. `all_series` gives the older ones too.
        """
        where = (MEASUREMENT.c.conditions == conditions.digest) & MEASUREMENT.c.complete
        if kind is not None:
            where &= MEASUREMENT.c.kind == kind
        store = self.identity
        with self._database.reading() as connection:
            rows = [
                measurement_row(row)
                for row in connection.execute(
                    sa.select(MEASUREMENT).where(where).order_by(MEASUREMENT.c.id)
                )
            ]
            rounds = self._rounds(connection, where)
            last = {
                row.measurement: row.last
                for row in connection.execute(
                    sa.select(ROUND.c.measurement, sa.func.max(ROUND.c.id).label("last"))
                    .join(MEASUREMENT, MEASUREMENT.c.id == ROUND.c.measurement)
                    .where(where)
                    .group_by(ROUND.c.measurement)
                )
            }
            all_taken = [
                Measurement(
                    row.kind,
                    row.subject,
                    conditions,
                    tuple(rounds[row.id]),
                    row.series,
                    row.purpose,
                    Entry(store, last[row.id]),
                )
                for row in rows
            ]
        latest: dict[Any, Measurement] = {}
        for taken, row in zip(all_taken, rows, strict=True):
            key = (row.subject, row.series) if all_series else row.subject
            if key not in latest or latest[key].series < row.series:
                latest[key] = taken
        return list(latest.values())

    def relative(self, conditions: Conditions) -> tuple[str, str] | None:
        """The device and the digest that `set_relative` was given, or None."""
        query = sa.select(META.c.value).where(META.c.name == f"like {conditions.digest}")
        with self._database.reading() as connection:
            text = connection.execute(query).scalar()
            if text is None:
                return None
            device, digest = strict(parsed(text), tuple[Text, Text])
            return device, digest

    def sentinel_ms(self, conditions: Conditions) -> float | None:
        """Usual time of the sentinel, in ms: the median over all measurements; None without any.

        It tells whether a device is in the state in which it was measured.
        """
        times = [m.sentinel_ms for m in self.measurements(conditions)]
        known = [ms for ms in times if ms is not None]
        return median(known) if known else None

    def _rounds(self, connection: sa.Connection, where: Any) -> dict[int, list[Round]]:
        rows = connection.execute(
            sa.select(ROUND)
            .join(MEASUREMENT, MEASUREMENT.c.id == ROUND.c.measurement)
            .where(where)
            .order_by(ROUND.c.measurement, ROUND.c.number)
        )
        by_measurement: dict[int, list[Round]] = {}
        for row in rows:
            by_measurement.setdefault(row.measurement, []).append(round_of(row))
        return by_measurement

    def rejections(self, conditions: Conditions) -> list[tuple[str, str, str]]:
        """What was not recorded and why: (subject, reason, when)."""
        query = (
            sa.select(REJECTION)
            .where(REJECTION.c.conditions == conditions.digest)
            .order_by(REJECTION.c.id)
        )
        with self._database.reading() as connection:
            rows = [(r.subject, r.reason, r.at) for r in connection.execute(query)]
            return strict(rows, list[tuple[Text, Text, At]])

    def count(self, conditions: Conditions) -> int:
        """Number of subjects that are measured under these conditions."""
        query = sa.select(sa.func.count(MEASUREMENT.c.subject.distinct())).where(
            (MEASUREMENT.c.conditions == conditions.digest) & MEASUREMENT.c.complete
        )
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def progress(self) -> list[Progress]:
        """How far the measuring under each conditions is, those of the last round first."""
        done = sa.func.sum(sa.case((MEASUREMENT.c.complete, 1), else_=0))
        given_up = sa.func.sum(sa.case((MEASUREMENT.c.given_up.is_not(None), 1), else_=0))
        latest = sa.select(MEASUREMENT.c.conditions, sa.func.max(ROUND.c.id).label("last"))
        latest = latest.join(ROUND, ROUND.c.measurement == MEASUREMENT.c.id)
        last = latest.group_by(MEASUREMENT.c.conditions).subquery()
        counts = (
            sa.select(
                MEASUREMENT.c.conditions,
                CONDITIONS.c.device,
                done.label("complete"),
                given_up.label("given_up"),
                sa.func.count().label("total"),
                last.c.last,
            )
            .join(CONDITIONS, CONDITIONS.c.digest == MEASUREMENT.c.conditions)
            .outerjoin(last, last.c.conditions == MEASUREMENT.c.conditions)
            .group_by(MEASUREMENT.c.conditions, CONDITIONS.c.device, last.c.last)
        )
        with self._database.reading() as connection:
            rows = connection.execute(counts).all()
            ends = [r.last for r in rows if r.last is not None]
            rounds = sa.select(ROUND.c.id, ROUND.c.at).where(ROUND.c.id.in_(ends))
            at = {r.id: str(r.at) for r in connection.execute(rounds)}
        rows = sorted(rows, key=lambda r: -(r.last or 0))
        return [
            Progress(
                *(r.device, r.conditions, int(r.complete), int(r.given_up)),
                open=int(r.total) - int(r.complete) - int(r.given_up),
                last=at.get(r.last, ""),
            )
            for r in rows
        ]


def _rejection(subject: str, reason: str) -> dict[str, str]:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"subject": subject, "reason": reason, "at": at}
