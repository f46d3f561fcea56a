"""Database: how a store's SQLite file or PostgreSQL database is opened, read and written.

It knows nothing of measurements. Transactions are of two kinds: `reading` sees one moment of the
whole database and waits for nobody; `writing` is done by one at a time on SQLite, and on
PostgreSQL by one at a time for each `key`. What a driver raises leaves in our words, on one line,
and without a password.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool

from ..space.errors import InvalidArgument, MissingExtra, StoreError, UnsupportedFormat
from . import schema

__all__ = ["Database", "shown"]

_FULL_BYTES = 1 << 20
_PATIENCE_S = 60
_CONNECT_S = 10
# A connection that went dead without a word is noticed in about a minute.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
# "phonenas" in ASCII: the lock that those hold who make the tables.
_TABLES_KEY = 0x70686F6E656E6173


def shown(location: str | Path) -> str:
    """A store's location as it may be printed: no password in it.

    >>> shown("postgresql+psycopg://lab:secret@db.lab/phones?sslpassword=alike")
    'postgresql+psycopg://lab:***@db.lab/phones?sslpassword=***'
    >>> shown("phonenas.db")
    'phonenas.db'
    """
    text = str(location)
    if "://" not in text:
        return text
    # By hand, since what cannot be parsed as a URL is told too: up to the last @, so that a
    # password which holds one, as it should not, is hidden whole.
    text = re.sub(r"(://[^:@]*):.*@", r"\1:***@", text, count=1, flags=re.DOTALL)
    return re.sub(r"([?&][^=&]*password[^=&]*=)[^&]*", r"\1***", text, flags=re.IGNORECASE)


class Database:
    """Lifetime: open it, `close` it; threads of one process may share one.

    Args:
        location: A path, or a URL (`postgresql+psycopg://user@host/name`, `sqlite:///path`).
        create: Whether a database without tables is given the store's; otherwise that is an error.
        read_only: Never write. So is a file opened that this account cannot write, or whose folder
            it cannot: a store on a read-only medium is read as it lies. Nobody may write to it
            meanwhile from elsewhere, for there the two cannot see each other.
    Raises:
        InvalidArgument: No URL of a database that can hold a store.
        MissingExtra: PostgreSQL's driver is not installed.
        StoreError: It cannot be opened; is not there with `create` False.
        UnsupportedFormat: It is damaged, no store of phonenas, or of a newer version.
    Attributes:
        location: Where it is, as it may be printed.
        sqlite: Whether it is an SQLite file.
        read_only: Whether it can only be read.
    """

    def __init__(
        self, location: str | Path, *, create: bool = True, read_only: bool = False
    ) -> None:
        self.location = shown(location)
        self.read_only = read_only
        self.path: Path | None = None  # of an SQLite file
        self._secrets: list[str] = []
        url = self._url(str(location))
        self.sqlite = url.get_backend_name() == "sqlite"
        # SQLite takes one writer at a time; threads queue here, where each gets its turn.
        self._turn = threading.Lock() if self.sqlite else nullcontext()
        if self.sqlite and url.database not in (None, "", ":memory:"):
            url = self._file(Path(str(url.database)), url, create)
        self._engine = self._made(url)
        self._reading: Mapping[str, Any] = (
            {schema.READS: True}
            if self.sqlite
            else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        try:
            self._open(create)
        except BaseException:
            self._engine.dispose()
            raise

    # -- opening ------------------------------------------------------------------------------

    def _url(self, location: str) -> sa.URL:
        if "://" not in location:
            return sa.URL.create("sqlite", database=location)
        try:
            url = sa.make_url(location)
            name = url.get_backend_name()
        except (exc.ArgumentError, ValueError):
            # What these say may quote the password.
            url, name = None, ""
        if name == "postgres":
            name = "postgresql"
        if url is None or name not in ("postgresql", "sqlite"):
            raise self._amiss("it is a URL of neither PostgreSQL nor SQLite")
        driver = url.drivername.partition("+")[2]
        if driver not in ("", "psycopg" if name == "postgresql" else "pysqlite"):
            raise self._amiss(f"the driver {driver} is not known here")
        if "@" in (url.host or ""):
            raise self._amiss("in a password write @ as %40, : as %3A and / as %2F")
        told = [url.password, *(v for k, v in url.query.items() if "password" in k.lower())]
        for secret in (s for s in told if isinstance(s, str) and s):
            self._secrets += {secret, quote(secret, safe=""), unquote(secret)}
        return url.set(drivername="postgresql+psycopg" if name == "postgresql" else "sqlite")

    def _amiss(self, why: str) -> InvalidArgument:
        return InvalidArgument(
            f"no store can be opened at {self.location!r}: {why}. Give a path, or a URL such as "
            "postgresql+psycopg://user@host/lab (pip install 'phonenas[postgres]')."
        )

    def _file(self, path: Path, url: sa.URL, create: bool) -> sa.URL:
        """The URL of an SQLite file, by which it is opened as it can be."""
        self.path = path
        there = path.exists()
        if not there and (self.read_only or not create):
            raise StoreError(
                f"there is no store at {path}. Make one with phonenas profile, or name yours "
                "with --db."
            )
        if not path.parent.is_dir():
            raise StoreError(f"the store {path} cannot be made: no folder {path.parent}")
        self.read_only = self.read_only or (there and not schema.is_writable(path))
        if self.read_only:
            uri, query = schema.read_only_uri(path)
            return url.set(database=uri, query=query)
        return url.set(database=str(path))

    def _made(self, url: sa.URL) -> sa.Engine:
        if not self.sqlite:
            arguments = {"connect_timeout": _CONNECT_S, **_KEEPALIVE}
            given = {k: v for k, v in arguments.items() if k not in url.query}
            try:
                engine = sa.create_engine(
                    url, connect_args=given, pool_pre_ping=True, pool_timeout=_PATIENCE_S
                )
            except ImportError as error:
                raise MissingExtra(
                    f"the store {self.location} needs psycopg, which is not installed or lacks "
                    "PostgreSQL's library. Install both:  pip install 'phonenas[postgres]'"
                ) from error
            sa.event.listen(engine, "connect", self._prepare_postgresql)
            return engine
        in_memory = self.path is None
        pool: dict[str, Any] = (
            {} if in_memory else {"poolclass": QueuePool, "pool_timeout": _PATIENCE_S}
        )
        engine = sa.create_engine(url, **pool)
        prepare = schema.prepare_sqlite_to_read if self.read_only else schema.prepare_sqlite
        sa.event.listen(engine, "connect", prepare)
        sa.event.listen(engine, "begin", schema.begin_sqlite)
        return engine

    @staticmethod
    def _prepare_postgresql(connection: Any, record: Any) -> None:
        """Let no one wait for ever for a lock that somebody forgot."""
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{_PATIENCE_S}s'")
        connection.commit()

    def _open(self, create: bool) -> None:
        with self._told("opened"), self._transaction(self._reading) as connection:
            if self.sqlite:
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if verdict != "ok":
                    raise self._damaged(str(verdict))
            there = self._is_made(connection)
        if there:
            return
        if self.read_only or not create:
            raise StoreError(
                f"there is no store at {self.location}. Make one with phonenas profile, or name "
                "yours with --db."
            )
        with self._turn, self._told("made"), self._transaction({}) as connection:
            self.only_one(connection, _TABLES_KEY)
            # Another process may have made them meanwhile.
            if not self._is_made(connection):
                schema.METADATA.create_all(connection)
                connection.execute(
                    schema.META.insert().values(name="version", value=str(schema.VERSION))
                )

    def _is_made(self, connection: sa.Connection) -> bool:
        """Whether the tables stand; False if there is none at all, an error if others do."""
        inspector = sa.inspect(connection)
        tables = set(inspector.get_table_names())
        if not tables:
            return False
        columns = {c["name"] for c in inspector.get_columns("meta")} if "meta" in tables else set()
        if not columns >= {"name", "value"}:
            raise UnsupportedFormat(
                f"{self.location} is a database, but no store of phonenas (it holds "
                f"{', '.join(sorted(tables)[:3])}). Name another with --db."
            )
        meta = schema.META
        found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "version")).scalar()
        if found != str(schema.VERSION):
            raise UnsupportedFormat(
                f"the store {self.location} has version {found}; this phonenas reads version "
                f"{schema.VERSION}. Use the phonenas that wrote it, or start another with --db."
            )
        if lacking := set(schema.METADATA.tables) - tables:
            raise self._damaged(f"it lacks the table {min(lacking)}")
        return True

    def close(self) -> None:
        """Release the file or the connections."""
        self._engine.dispose()

    # -- transactions -------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the whole database."""
        with self._told("read"), self._transaction(self._reading) as connection:
            yield connection

    @contextmanager
    def writing(self, key: str | None = None) -> Iterator[sa.Connection]:
        """A transaction that is committed as one, or not at all.

        Args:
            key: Hexadecimal digits, at most 15; of those who write under one key, each waits for
                the one before, so that what it looks up stays true while it writes.
        """
        if self.read_only:
            raise StoreError(
                f"the store {self.location} can only be read. Name another with --db, or make it "
                "and its folder writable."
            )
        with self._turn, self._told("written"), self._transaction({}) as connection:
            if key is not None:
                self.only_one(connection, int(key, 16))
            yield connection

    @contextmanager
    def _transaction(self, options: Mapping[str, Any]) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            connection.execution_options(**options)
            with connection.begin():
                yield connection

    def only_one(self, connection: sa.Connection, key: int) -> None:
        """Wait until nobody else writes under this key; it is ours until the transaction ends."""
        if not self.sqlite:  # there the transaction itself is the only one
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def insert_new(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
    ) -> None:
        """Insert the rows whose unique columns do not stand yet; leave the others as they are."""
        insert = sqlite.insert if self.sqlite else postgresql.insert
        if rows:
            connection.execute(insert(table).on_conflict_do_nothing(), rows)

    # -- errors -------------------------------------------------------------------------------

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Foreign errors leave in our words."""
        try:
            yield
        except (exc.DBAPIError, exc.TimeoutError) as error:
            # A TimeoutError is one of threads that got no connection in time.
            cause = error.orig if isinstance(error, exc.DBAPIError) else error.args[0]
            told = self._one_line(str(cause)) + self._full_disk()
            if "malformed" in told or "not a database" in told:
                raise self._damaged(told) from error
            if doing in ("opened", "made"):
                check = "Check the server, the address, the account and its password, or name"
                raise StoreError(
                    f"the store {self.location} cannot be {doing}: {told}. "
                    f"{'Name' if self.sqlite else check} another with --db."
                ) from error
            raise StoreError(
                f"the store {self.location} cannot be {doing}: {told}. What was committed before "
                "is safe; the same command goes on from there."
            ) from error

    @contextmanager
    def sound(self) -> Iterator[None]:
        """Rows that cannot be read as what they should be: the database is damaged."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"a row cannot be read ({error})") from error

    def _damaged(self, how: str) -> UnsupportedFormat:
        return UnsupportedFormat(
            f"the store {self.location} is damaged: {how}. Restore a copy, or start another with "
            "--db."
        )

    def _one_line(self, text: str) -> str:
        text = " ".join(text.split()).rstrip(".")
        for secret in self._secrets:
            # A short one is looked for as a word, lest single letters be starred out.
            exact = re.escape(secret)
            text = re.sub(exact if len(secret) > 3 else rf"\b{exact}\b", "***", text)
        return text

    def _full_disk(self) -> str:
        """SQLite calls a full disk an I/O error as often as not; say which it is."""
        if self.path is None:
            return ""
        folder = self.path.absolute().parent
        full = folder.is_dir() and shutil.disk_usage(folder).free < _FULL_BYTES
        return " (the disk is full)" if full else ""
