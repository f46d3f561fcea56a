"""Cached: the answers of a slow estimator, kept in a file and never computed twice.

One SQLite file, with a row for each network and estimator::

    accuracy(estimator, network, top1, standard_error, outside, failed, cost_s, at)

`estimator` is the digest: with another seed, other images or another recipe it has rows of its own;
where networks inherit weights, the digest of the source follows behind a "+".
Each network is committed when its answer comes: a process that is killed within a
generation loses what was not done, and no more. Several processes may share a file.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from phonenas.data.store import Contents, Database
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, StoreError

from .estimator import Accuracy, AccuracyEstimator

__all__ = ["Cached", "kept", "kept_rows"]

_SLOW_S = 0.01  # a network: what is slower is worth a file
VERSION = 1
_APPLICATION = 0x70684163  # "phAc", in the header of a file of ours
_AT_ONCE = 500  # networks looked up by one statement
_ROWS = sa.Table(
    "accuracy",
    sa.MetaData(),
    sa.Column("estimator", sa.Text, primary_key=True),
    sa.Column("network", sa.Text, primary_key=True),
    sa.Column("top1", sa.REAL),
    sa.Column("standard_error", sa.REAL),
    sa.Column("outside", sa.Integer, nullable=False),
    sa.Column("failed", sa.Text, nullable=False),
    sa.Column("cost_s", sa.REAL, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)


def _version_in(connection: sa.Connection) -> str | None:
    application, version = (
        connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        for name in ("application_id", "user_version")
    )
    return str(version) if application == _APPLICATION else None


def _stamp(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION}")
    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


_CONTENTS = Contents(
    "cache of accuracies",
    _ROWS.metadata,
    VERSION,
    _version_in,
    _stamp,
    "Name another file",
    "Name another file, or leave the option out.",
)


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
    """An estimator whose answers are kept; known networks are not estimated again.

    Its name, digest, cost and answers are those of the estimator within. A network that failed is
    kept too, with its reason.

    Lifetime: an existing file is checked now; a new one is made with the first answer. It is open
    only while networks are estimated.

    Args:
        estimator: Who estimates.
        path: The file; its folder is made.
        again: Estimate once more each network that failed.
    Attributes:
        known, asked: How many answers came from the file, and how many from the estimator.
        on_asked: Called after each new answer with how many are done, of how many, and their mean
            time in seconds.
    Raises:
        UnsupportedFormat: The file is damaged, foreign, or of a newer version.
        StoreError: It cannot be read.
    """

    def __init__(
        self, estimator: AccuracyEstimator, path: str | Path, *, again: bool = False
    ) -> None:
        self.estimator, self.path, self.again = estimator, Path(path), again
        self.name, self.note, self.slow = estimator.name, estimator.note, estimator.slow
        self.quantity, self.schedule = estimator.quantity, estimator.schedule
        self.shipped, self.options = estimator.shipped, estimator.options
        self.epochs, self.ancestry = estimator.epochs, estimator.ancestry
        self.known = self.asked = 0
        self.on_asked: Callable[[int, int, float], None] | None = None
        self._retried: set[str] = set()
        if self.path.exists():
            with _opened(self.path):
                pass

    @property
    def digest(self) -> str:
        return self.estimator.digest

    @property
    def cost_s(self) -> float:
        return self.estimator.cost_s

    def digest_of(self, network: str) -> str:
        return self.estimator.digest_of(network)

    def after(self, epochs: int, folder: Path | None = None) -> Cached:
        """As the estimator's, kept in the same file."""
        return Cached(self.estimator.after(epochs, folder), self.path, again=self.again)

    def epoch_s(self, architectures: Sequence[Architecture]) -> float:
        return self.estimator.epoch_s(architectures)

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        """As the estimator's; `seconds` are what each took when it was estimated.

        Raises:
            StoreError: The file cannot be written (full disk, locked for a minute).
            PhonenasError: As the estimator's.
        """
        return self.gathered(architectures)

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        rows: dict[str, list[int]] = {}
        for row, architecture in enumerate(architectures):
            rows.setdefault(str(architecture), []).append(row)
        if not rows:
            return

        def hand_over(text: str, answer: Accuracy) -> None:
            for row in rows[text]:
                on_result(row, answer)

        with _opened(self.path) as file:
            known = self._known(file, list(rows))
            if self.again:
                failed = {t for t, a in known.items() if a.failed} - self._retried
                self._retried |= failed
                known = {t: a for t, a in known.items() if t not in failed}
            self.known += len(known)
            for text, answer in known.items():
                hand_over(text, answer)
            missing = [text for text in rows if text not in known]
            if missing:
                networks = [architectures[rows[text][0]] for text in missing]
                self.estimator.estimate_each(networks, self._keeper(file, missing, hand_over))

    def _known(self, file: Database, networks: list[str]) -> dict[str, Accuracy]:
        """The answers that the file has, by network."""
        of: dict[str, list[str]] = {}
        for network in networks:
            of.setdefault(self.digest_of(network), []).append(network)
        return {n: a for digest, some in of.items() for n, a in _read(file, digest, some).items()}

    def _keeper(
        self, file: Database, missing: list[str], hand_over: Callable[[str, Accuracy], None]
    ) -> Callable[[int, Accuracy], None]:
        """What takes each new answer: keeps it, hands it over and counts it."""
        began = latest = time.monotonic()
        done = 0

        def take(row: int, answer: Accuracy) -> None:
            nonlocal latest, done
            if not answer.seconds:
                answer = replace(answer, seconds=(time.monotonic() - latest,))
            self.asked += 1
            _write(file, self.digest_of(missing[row]), missing[row], answer)
            hand_over(missing[row], answer)
            latest = time.monotonic()
            done += 1
            if self.on_asked is not None:
                self.on_asked(done, len(missing), (latest - began) / done)

        return take


def kept_rows(
    path: Path, digest: str | None = None, *, inherited: bool = False
) -> list[tuple[str, float | None, float | None, str]]:
    """Network, top-1, its error and why it failed, of all that a cache holds of one estimator.

    Args:
        path: The file.
        digest: Of the estimator; None where there is but one.
        inherited: Whether also of networks that began with weights of others. They have more
            training behind them, each another one, so their top-1 is no one estimator's.
    Raises:
        InvalidArgument: No such file or estimator, or several to choose from; they are listed.
        UnsupportedFormat, StoreError: As `Cached`.
    """
    if not path.exists():
        raise InvalidArgument(f"there is no file {path}")
    c = _ROWS.c
    with _opened(path) as file, file.reading() as connection:
        of = [str(name) for name in connection.execute(sa.select(c.estimator)).scalars()]
        each = Counter(name.partition("+")[0] for name in of)
        counts = sorted(each.items(), key=lambda item: (-item[1], item[0]))
        chosen = digest or (counts[0][0] if counts else "")
        wanted = c.estimator == chosen
        if inherited:
            wanted |= c.estimator.startswith(f"{chosen}+", autoescape=True)
        rows = connection.execute(
            sa.select(c.network, c.top1, c.standard_error, c.failed)
            .where(wanted)
            .order_by(c.network)
        ).all()
    if (digest is None and len(counts) > 1) or (digest is not None and digest not in each):
        names = ", ".join(f"{name} ({n:,} networks)" for name, n in counts) or "none"
        raise InvalidArgument(f"{path} holds the answers of {names}: name one with --target")
    return [(str(n), top1, error, str(failed)) for n, top1, error, failed in rows]


@contextmanager
def _opened(path: Path) -> Iterator[Database]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the cache of accuracies {path} cannot be made: {error}. Name another file."
        ) from error
    file = Database(path, contents=_CONTENTS)
    try:
        yield file
    finally:
        file.close()


def _read(file: Database, digest: str, networks: list[str]) -> dict[str, Accuracy]:
    c = _ROWS.c
    answers: dict[str, Accuracy] = {}
    for start in range(0, len(networks), _AT_ONCE):
        chosen = sa.select(_ROWS).where(
            c.estimator == digest, c.network.in_(networks[start : start + _AT_ONCE])
        )
        with file.reading() as connection:
            for row in connection.execute(chosen):
                top1, error = (
                    np.array([np.nan if value is None else value], np.float64)
                    for value in (row.top1, row.standard_error)
                )
                outside = np.array([bool(row.outside)])
                answers[row.network] = Accuracy(top1, error, outside, (row.failed,), (row.cost_s,))
    return answers


def _write(file: Database, digest: str, network: str, answer: Accuracy) -> None:
    well = bool(answer.well[0])
    row: dict[str, Any] = {
        "estimator": digest,
        "network": network,
        "top1": float(answer.top1[0]) if well else None,
        "standard_error": float(answer.standard_error[0]) if well else None,
        "outside": int(answer.outside[0]),
        "failed": answer.failed[0] if answer.failed else "",
        "cost_s": float(answer.seconds[0]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # What another process wrote meanwhile stays, unless that failed.
    put = sqlite.insert(_ROWS).on_conflict_do_update(
        index_elements=["estimator", "network"],
        set_={name: row[name] for name in row if name not in ("estimator", "network")},
        where=_ROWS.c.failed != "",
    )
    with file.writing() as connection:
        connection.execute(put, row)
