"""Cached: what a slow estimator said, kept in a file and never asked for twice.

One SQLite file, with a row for each network and estimator::

    accuracy(estimator, network, top1, standard_error, outside, failed, cost_s, at)

`estimator` is the digest, so that what was asked otherwise (another seed, other images, another
recipe) is another row. Each network is committed as it comes: a process that is killed in the midst
of a generation loses what was not done, and no more. Several processes may share a file.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ...space import Architecture
from ...space.errors import InvalidArgument, StoreError, UnsupportedFormat
from .estimator import Accuracy, AccuracyEstimator

__all__ = ["Cached", "kept", "kept_rows"]

_SLOW_S = 0.01  # a network: what is slower is worth a file
VERSION = 1
_APPLICATION = 0x70684163  # "phAc", in the header of a file of ours
_WAIT_S = 30.0  # for another process that writes
_AT_ONCE = 500  # networks looked up by one statement
_TABLE = """
CREATE TABLE accuracy (
    estimator TEXT NOT NULL,
    network TEXT NOT NULL,
    top1 REAL,
    standard_error REAL,
    outside INTEGER NOT NULL,
    failed TEXT NOT NULL,
    cost_s REAL NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (estimator, network)
) WITHOUT ROWID
"""
# What another process found in the meantime stays, unless that failed and this is no failure,
# or it is what was asked again.
_PUT = """
INSERT INTO accuracy VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (estimator, network) DO UPDATE SET
    top1 = excluded.top1, standard_error = excluded.standard_error, outside = excluded.outside,
    failed = excluded.failed, cost_s = excluded.cost_s, at = excluded.at
WHERE accuracy.failed != ''
"""


def kept(
    estimator: AccuracyEstimator, path: str | Path, *, again: bool = False
) -> AccuracyEstimator:
    """The estimator with a cache, if it is slow and has none."""
    slow = estimator.slow or estimator.cost_s >= _SLOW_S
    return (
        Cached(estimator, path, again=again)
        if slow and not isinstance(estimator, Cached)
        else estimator
    )


class Cached(AccuracyEstimator):
    """An estimator whose answers are kept; what is known is not asked again.

    Its name, digest, cost and answers are those of the estimator within. A network that failed is
    kept too, with its reason.

    Lifetime: the file is looked at now and made with the first answer; it is open only while
    networks are judged.

    Args:
        estimator: Whom to ask.
        path: The file; its folder is made.
        again: Ask anew, once, for each network that failed.
    Attributes:
        known, asked: How many answers came from the file, and how many from the estimator.
    Raises:
        UnsupportedFormat: The file is damaged, foreign, or of a newer version.
        StoreError: It cannot be read.
    """

    def __init__(
        self, estimator: AccuracyEstimator, path: str | Path, *, again: bool = False
    ) -> None:
        self.estimator, self.path, self.again = estimator, Path(path), again
        self.name, self.note, self.slow = estimator.name, estimator.note, estimator.slow
        self.known = self.asked = 0
        self.on_asked: Callable[[int, int, float], None] | None = None
        self._asked_again: set[str] = set()
        if self.path.exists():
            with self._open():
                pass

    @property
    def digest(self) -> str:
        return self.estimator.digest

    @property
    def cost_s(self) -> float:
        return self.estimator.cost_s

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        """As the estimator's; `seconds` are what each took when it was judged.

        Raises:
            StoreError: The file cannot be written (full disk, locked for half a minute).
            PhonenasError: As the estimator's.
        """
        texts = [str(a) for a in architectures]
        found: dict[str, Accuracy] = {}
        new: dict[str, Architecture] = dict(zip(texts, architectures, strict=True))

        def keep(text: str, told: Accuracy) -> None:
            found[text] = told

        self._judge(new, keep)
        return Accuracy.joined(found[text] for text in texts)

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        places: dict[str, list[int]] = {}
        for place, architecture in enumerate(architectures):
            places.setdefault(str(architecture), []).append(place)

        def hand_over(text: str, told: Accuracy) -> None:
            for place in places[text]:
                on_result(place, told)

        self._judge({text: architectures[at[0]] for text, at in places.items()}, hand_over)

    def _judge(
        self, networks: dict[str, Architecture], on_result: Callable[[str, Accuracy], None]
    ) -> None:
        if not networks:
            return
        digest = self.digest
        with self._open() as file:
            known = self._read(file, digest, list(networks))
            if self.again:
                failed = {t for t, a in known.items() if a.failed} - self._asked_again
                self._asked_again |= failed
                known = {t: a for t, a in known.items() if t not in failed}
            self.known += len(known)
            for text, told in known.items():
                on_result(text, told)
            missing = [text for text in networks if text not in known]
            began = first = time.monotonic()
            done = 0

            def take(place: int, told: Accuracy) -> None:
                nonlocal began, done
                if not told.seconds:
                    told = replace(told, seconds=(time.monotonic() - began,))
                self.asked += 1
                with self._refusing():
                    self._write(file, digest, missing[place], told)
                on_result(missing[place], told)
                began = time.monotonic()
                done += 1
                if self.on_asked is not None:
                    self.on_asked(done, len(missing), (began - first) / done)

            if missing:
                self.estimator.estimate_each([networks[t] for t in missing], take)

    # -- the file -----------------------------------------------------------------------------

    def _read(self, file: sqlite3.Connection, digest: str, texts: list[str]) -> dict[str, Accuracy]:
        found: dict[str, Accuracy] = {}
        with self._refusing():
            for start in range(0, len(texts), _AT_ONCE):
                some = texts[start : start + _AT_ONCE]
                rows = file.execute(
                    "SELECT network, top1, standard_error, outside, failed, cost_s FROM accuracy "
                    f"WHERE estimator = ? AND network IN ({','.join('?' * len(some))})",
                    [digest, *some],
                ).fetchall()
                for text, top1, error, outside, failed, cost_s in rows:
                    found[text] = Accuracy(
                        np.array([np.nan if top1 is None else top1], np.float64),
                        np.array([np.nan if error is None else error], np.float64),
                        np.array([bool(outside)]),
                        (failed,),
                        (cost_s,),
                    )
        return found

    def _write(self, file: sqlite3.Connection, digest: str, text: str, told: Accuracy) -> None:
        well = bool(told.well[0])
        file.execute(
            _PUT,
            (
                digest,
                text,
                float(told.top1[0]) if well else None,
                float(told.standard_error[0]) if well else None,
                int(told.outside[0]),
                told.failed[0] if told.failed else "",
                float(told.seconds[0]),
                datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return _opened(self.path)

    def _refusing(self) -> AbstractContextManager[None]:
        return _refusing(self.path)


def kept_rows(
    path: Path, digest: str | None = None
) -> list[tuple[str, float | None, float | None, str]]:
    """Network, top-1, its error and why it failed, of all that a cache holds of one estimator.

    Args:
        path: The file.
        digest: Of the estimator; None where there is but one.
    Raises:
        InvalidArgument: No such file or estimator, or several to choose from; they are listed.
        UnsupportedFormat, StoreError: As `Cached`.
    """
    if not path.exists():
        raise InvalidArgument(f"there is no file {path}")
    with _opened(path) as file, _refusing(path):
        held = file.execute(
            "SELECT estimator, count(*) FROM accuracy GROUP BY estimator ORDER BY 2 DESC, 1"
        ).fetchall()
        rows = file.execute(
            "SELECT network, top1, standard_error, failed FROM accuracy WHERE estimator = ? "
            "ORDER BY network",
            [digest or (held[0][0] if held else "")],
        ).fetchall()
    if (digest is None and len(held) > 1) or (digest is not None and not rows):
        found = ", ".join(f"{name} ({count:,} networks)" for name, count in held) or "none"
        raise InvalidArgument(f"{path} holds the answers of {found}: name one with --target")
    return [(str(n), top1, error, str(failed)) for n, top1, error, failed in rows]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with _refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each statement is a transaction of its own.
        file = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    with closing(file):
        with _refusing(path):
            _prepare(file, path)
        yield file


def _prepare(file: sqlite3.Connection, path: Path) -> None:
    """See that the file is ours, and make it ours if it is new."""
    # The tables before the header: another process may make the file between the two.
    tables = file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application, version = (
        int(file.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("application_id", "user_version")
    )
    if (application, version) == (_APPLICATION, VERSION):
        file.execute("PRAGMA synchronous = NORMAL")
        return
    if application == _APPLICATION:
        raise UnsupportedFormat(
            f"{path} is a cache of version {version}; this phonenas reads version {VERSION}. "
            "Update phonenas, or name another file."
        )
    if application or tables:
        raise UnsupportedFormat(
            f"{path} is a database, and no cache of accuracies. Name another file."
        )
    # Readers and the one writer do not wait for each other. It is a thing of the file, and the
    # lock that it takes heeds no timeout.
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            file.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
    file.execute("BEGIN IMMEDIATE")
    try:
        if not file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            file.execute(_TABLE)
            file.execute(f"PRAGMA application_id = {_APPLICATION}")
            file.execute(f"PRAGMA user_version = {VERSION}")
        file.execute("COMMIT")
    except BaseException:
        file.execute("ROLLBACK")
        raise
    file.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What SQLite says, in our words."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"the cache {path} cannot be used: {error}. What was kept before is whole. Free "
            "the disk, end what holds it, or name another file."
        ) from error
    except (sqlite3.Error, InvalidArgument, TypeError, ValueError) as error:
        if isinstance(error, UnsupportedFormat):
            raise
        raise UnsupportedFormat(
            f"{path} is no cache of accuracies, or damaged: {error}. Remove it, or name "
            "another file."
        ) from error
