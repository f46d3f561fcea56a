"""Database: how a store's SQLite file or PostgreSQL database is opened, read and written.

It knows nothing of measurements. Transactions are of two kinds: `reading` sees one moment of the
whole database and waits for no lock; `writing` is done by one at a time on SQLite, and on
PostgreSQL by one at a time for each `key`. A driver's error becomes one of ours, on one line,
and without a password.
"""

from __future__ import annotations

import logging
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

from phonenas.space.errors import (
    InvalidArgument,
    MissingExtra,
    StoreError,
    UnsupportedFormat,
    install,
)
from phonenas.space.naming import without_password

from . import schema

__all__ = ["Database"]

log = logging.getLogger("phonenas")

# A password where a path is expected; a path that looks like this begins with / or ./
_CREDENTIALS = re.compile(
    r"^(?!\.?/|[A-Za-z]:[\\/])[^@]*:[^/@][^@]*@|(?:password|passwd|pwd)\w*=", re.I
)
_FULL_BYTES = 1 << 20
_PATIENCE_S = 60
_CONNECT_S = 10
# A connection that went dead without a word is noticed in about a minute.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
# "phonenas" in ASCII: the lock that those hold who make the tables.
_TABLES_KEY = 0x70686F6E656E6173


class Database:
    """Lifetime: open it, `close` it; threads of one process may share one.

    Args:
        location: A path, or a URL (`postgresql+psycopg://user@host/name`, `sqlite:///path`).
        create: Whether a database without tables is given the store's; otherwise that is an error.
        read_only: Never write. So is a file opened that this account cannot write, or whose folder
            it cannot: a store on a read-only medium is read as it is. No other computer may write
            to it meanwhile, since there the two cannot see each other.
        contents: Its tables and its words in messages; those of a store by default.
    Raises:
        InvalidArgument: An empty name, `:memory:`, or no URL of a database that can hold a store.
        MissingExtra: PostgreSQL's driver is not installed.
        StoreError: It cannot be opened; is not there with `create` False.
        UnsupportedFormat: It is damaged, no store of phonenas, or of a newer version.
    Attributes:
        location: Where it is, as it may be printed.
        sqlite: Whether it is an SQLite file.
        read_only: Whether it can only be read.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        create: bool = True,
        read_only: bool = False,
        contents: schema.Contents = schema.STORE,
    ) -> None:
        self.location = without_password(location)
        self._contents, self._called = contents, f"the {contents.noun} {self.location}"
        self.read_only = read_only
        self.path: Path | None = None  # of an SQLite file
        self._secrets: list[str] = []
        url = self._url(str(location))
        self.sqlite = url.get_backend_name() == "sqlite"
        # SQLite takes one writer at a time; threads queue here, where each gets its turn.
        self._turn = threading.Lock() if self.sqlite else nullcontext()
        if self.sqlite:
            if (url.database or "").strip() in ("", ":memory:"):
                raise InvalidArgument(
                    f"{self.location!r} is no lasting store: measurements would be lost when the "
                    "command ends. Give a file, as in  --db phonenas.db"
                )
            url = self._file(Path(str(url.database)), url, create)
        self._is_current = True  # whether its tables are of this version
        self._inode: tuple[int, int] | None = None  # of the file, once it is open
        self._checked = False  # until then nothing is written, for the file may be another's
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
            if _CREDENTIALS.search(location) and not Path(location).exists():
                raise self._invalid("it is no URL, and seems to hold a password")
            if location.startswith("file:"):
                raise self._invalid("of a URI of SQLite only the path is taken")
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
            raise self._invalid("it is a URL of neither PostgreSQL nor SQLite")
        driver = url.drivername.partition("+")[2]
        if driver not in ("", "psycopg" if name == "postgresql" else "pysqlite"):
            raise self._invalid(f"the driver {driver} is not known here")
        if name == "sqlite" and url.query:
            raise self._invalid("of a URL of SQLite only the path is taken")
        if "@" in (url.host or ""):
            raise self._invalid("in a password write @ as %40, : as %3A and / as %2F")
        secrets = [url.password, *(v for k, v in url.query.items() if "password" in k.lower())]
        for secret in (s for s in secrets if isinstance(s, str) and s):
            self._secrets += {secret, quote(secret, safe=""), unquote(secret)}
        return url.set(drivername="postgresql+psycopg" if name == "postgresql" else "sqlite")

    def _invalid(self, why: str) -> InvalidArgument:
        return InvalidArgument(
            f"no store can be opened at {self.location!r}: {why}. Give a path, or a URL such as "
            f"postgresql+psycopg://user@host/lab ({install('postgres')})."
        )

    def _file(self, path: Path, url: sa.URL, create: bool) -> sa.URL:
        """The URL of an SQLite file, by which it is opened as it can be."""
        self.path = path
        there = path.exists()
        if not there and (self.read_only or not create):
            raise StoreError(
                f"there is no {self._contents.noun} at {without_password(path)}. "
                f"{self._contents.make}"
            )
        if there and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise InvalidArgument(
                f"{self.location} is {kind}, and no {self._contents.noun}. {self._contents.other}."
            )
        if not path.parent.is_dir():
            raise StoreError(
                f"{self._called} cannot be made: no folder {without_password(path.parent)}"
            )
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
                    f"PostgreSQL's library. Install both:  {install('postgres')}"
                ) from error
            sa.event.listen(engine, "connect", self._prepare_postgresql)
            return engine
        engine = sa.create_engine(url, poolclass=QueuePool, pool_timeout=_PATIENCE_S)
        sa.event.listen(engine, "connect", self._prepare_sqlite)
        sa.event.listen(engine, "begin", schema.begin_sqlite)
        return engine

    def _prepare_sqlite(self, connection: Any, record: Any) -> None:
        if self.read_only:
            schema.prepare_sqlite_to_read(connection)
        else:
            schema.prepare_sqlite(connection, log=self._checked)

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
        self._checked = True
        self._inode = self._found()
        if self.path is not None:
            self._engine.dispose()  # the next connection may write
        if there:
            if not self.read_only and not self._is_current:
                self._modernise()
            return
        if self.read_only or not create:
            raise StoreError(
                f"there is no {self._contents.noun} at {self.location}. {self._contents.make}"
            )
        with self._turn, self._told("made"), self._transaction({}) as connection:
            self.only_one(connection, _TABLES_KEY)
            # Another process may have made them meanwhile.
            if not self._is_made(connection):
                self._contents.tables.create_all(connection)
                self._contents.stamp(connection)
        self._inode = self._found()

    def _modernise(self) -> None:
        """Bring the tables of the version before to this one."""
        assert self._contents.migrate is not None
        with self._turn, self._told("brought to a newer version"), self._transaction({}) as c:
            self.only_one(c, _TABLES_KEY)
            self._is_made(c)  # another process may have done it meanwhile
            if not self._is_current:
                self._contents.migrate(c)
                log.warning(
                    "%s has version %d now: older releases do not read it",
                    self._called,
                    self._contents.version,
                )

    def _is_made(self, connection: sa.Connection) -> bool:
        """Whether the tables exist; False if there is none at all, an error if there are others."""
        tables = set(sa.inspect(connection).get_table_names())
        if not tables:
            return False
        noun, version = self._contents.noun, self._contents.version
        known = self._contents.version_in(connection)
        if known is None:
            raise UnsupportedFormat(
                f"{self.location} is a database, but no {noun} of phonenas (it holds "
                f"{', '.join(sorted(tables)[:3])}). {self._contents.other}."
            )
        self._is_current = known == str(version)
        if not self._is_current and not (self._contents.migrate and known == str(version - 1)):
            raise UnsupportedFormat(
                f"{self._called} has version {known[:40]}; this phonenas reads version {version}. "
                f"Use the phonenas that wrote it, or {self._another}."
            )
        if lacking := set(self._contents.tables.tables) - tables:
            raise self._damaged(f"it lacks the table {min(lacking)}")
        return True

    @property
    def _another(self) -> str:
        """The advice to take another, in the midst of a sentence."""
        return self._contents.other[0].lower() + self._contents.other[1:]

    def close(self) -> None:
        """Release the file or the connections."""
        self._engine.dispose()

    # -- transactions -------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the whole database."""
        with self._told("read"), self._transaction(self._reading) as connection, self.sound():
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
                f"{self._called} can only be read. {self._contents.other}, or make it and its "
                "folder writable."
            )
        with self._turn, self._told("written"), self._transaction({}) as connection:
            if key is not None:
                self.only_one(connection, int(key, 16))
            yield connection

    @contextmanager
    def _transaction(self, options: Mapping[str, Any]) -> Iterator[sa.Connection]:
        self._still_there()
        with self._engine.connect() as connection:
            connection.execution_options(**options)
            with connection.begin():
                yield connection
        self._still_there()

    def _found(self) -> tuple[int, int] | None:
        """What tells the SQLite file from another at its path; None where there is none."""
        if self.path is None:
            return None
        try:
            about = self.path.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def _still_there(self) -> None:
        """Refuse to go on in a file that nobody finds again."""
        if self._inode is not None and (now := self._found()) != self._inode:
            how = "removed" if now is None else "replaced by another file"
            raise StoreError(
                f"{self._called} was {how} while it was in use, so what is measured now would be "
                "lost. Put it back, or give the same command again to begin a new one."
            )

    def only_one(self, connection: sa.Connection, key: int) -> None:
        """Wait until no other process writes under this key; hold it until the transaction ends."""
        if not self.sqlite:  # there the transaction itself is the only one
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def insert_new(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
    ) -> None:
        """Insert the rows whose unique columns are new; leave the others as they are."""
        insert = sqlite.insert if self.sqlite else postgresql.insert
        if rows:
            connection.execute(insert(table).on_conflict_do_nothing(), rows)

    # -- errors -------------------------------------------------------------------------------

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Turn a driver's errors into those of `phonenas.space.errors`."""
        try:
            yield
        except UnicodeDecodeError as error:  # in the names of its tables and columns
            raise self._damaged(str(error)) from error
        except (exc.DBAPIError, exc.TimeoutError) as error:
            # A TimeoutError is one of threads that got no connection in time.
            cause = error.orig if isinstance(error, exc.DBAPIError) else error.args[0]
            told = self._one_line(str(cause)) + self._full_disk()
            if "malformed" in told or "not a database" in told:
                raise self._damaged(told) from error
            if doing in ("opened", "made"):
                check = "Check the server, the address, the account and its password, or "
                advice = self._contents.other if self.sqlite else check + self._another
                raise StoreError(f"{self._called} cannot be {doing}: {told}. {advice}.") from error
            raise StoreError(
                f"{self._called} cannot be {doing}: {told}. What was committed before "
                "is safe; the same command goes on from there."
            ) from error

    @contextmanager
    def sound(self) -> Iterator[None]:
        """Rows that cannot be read as what they should be: the database is damaged."""
        try:
            yield
        except UnsupportedFormat:
            raise
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            words = " ".join(str(error).split())[:200]
            raise self._damaged(f"a row cannot be read ({words})") from error

    def _damaged(self, how: str) -> UnsupportedFormat:
        return UnsupportedFormat(
            f"{self._called} is damaged: {how}. Restore a copy, or {self._another}."
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
