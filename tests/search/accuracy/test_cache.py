"""The cache of accuracies: nothing is asked twice, and nothing that was told is lost."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace
from patience import PATIENCE_S

from phonenas import search
from phonenas.cli.app import app
from phonenas.data.store import Database, schema
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import Accuracy, AccuracyEstimator, Cached, Surrogate
from phonenas.search.accuracy.cache import kept, kept_rows
from phonenas.search.accuracy.results import read_any
from phonenas.space import Architecture, SearchSpace
from phonenas.space.errors import (
    DeviceUnavailable,
    InvalidArgument,
    NotEnoughData,
    StoreError,
    UnsupportedFormat,
)
from phonenas.testing import EstimatorContract

SPACE = TinySpace(resolution=32)
NETWORKS = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(5), 12)]


class Trainer(AccuracyEstimator):
    """Slow, and out of memory for wide kernels as long as `small`."""

    name = "trainer"
    cost_s = 20.0  # type: ignore[assignment]

    def __init__(self, seed: int = 0, small: bool = True) -> None:
        self.seed, self.small = seed, small
        self.asked: list[str] = []
        self.stop_after = 10**9
        self._within = Surrogate()

    @property
    def digest(self) -> str:
        return f"trainer-{self.seed}"

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        parts = []
        for a in architectures:
            if len(self.asked) >= self.stop_after:
                raise DeviceUnavailable("the cluster went away")
            self.asked.append(str(a))
            bad = self.small and "_k5" in str(a)
            parts.append(Accuracy.failure("out of memory") if bad else self._within.estimate([a]))
        return Accuracy.joined(parts)


class TestCached(EstimatorContract):
    @pytest.fixture
    def estimator(self, tmp_path: Path) -> AccuracyEstimator:
        return Cached(Trainer(), tmp_path / "a.db")

    @pytest.fixture
    def space(self) -> SearchSpace:
        return SPACE

    def again(self, estimator: AccuracyEstimator) -> AccuracyEstimator:
        assert isinstance(estimator, Cached)
        return Cached(Trainer(), estimator.path)


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.db"
    first = Cached(Trainer(), path)
    assert not path.exists()  # made with the first answer
    told = first.estimate(NETWORKS)
    assert any(told.failed) and not all(told.failed)
    assert first.asked == len(set(map(str, NETWORKS))) and first.known == 0
    inner = Trainer()
    second = Cached(inner, path)
    again = second.estimate([*NETWORKS[::-1], NETWORKS[0]])
    assert inner.asked == [] and second.asked == 0
    order = [*range(len(NETWORKS))[::-1], 0]
    assert np.array_equal(again.top1, told.top1[order], equal_nan=True)  # to the bit
    assert np.array_equal(again.standard_error, told.standard_error[order], equal_nan=True)
    assert again.failed == told.take(order).failed
    assert again.seconds == told.take(order).seconds  # of when it was judged
    direct = Trainer().estimate(NETWORKS)
    assert np.array_equal(direct.top1, told.top1, equal_nan=True)


def test_another_estimator_shares_the_file_and_nothing_else(tmp_path: Path) -> None:
    Cached(Trainer(0), tmp_path / "a.db").estimate(NETWORKS[:3])
    other = Trainer(1)
    Cached(other, tmp_path / "a.db").estimate(NETWORKS[:3])
    assert len(other.asked) == 3
    with pytest.raises(
        InvalidArgument, match=r"trainer-0 \(3 networks\), trainer-1 \(3 networks\)"
    ):
        kept_rows(tmp_path / "a.db")
    assert len(kept_rows(tmp_path / "a.db", "trainer-1")) == 3
    with pytest.raises(InvalidArgument, match="trainer-0"):
        kept_rows(tmp_path / "a.db", "nobody")


def test_what_failed_is_asked_again_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    told = Cached(Trainer(), path).estimate(NETWORKS)
    failed = {str(a) for a, why in zip(NETWORKS, told.failed, strict=True) if why}
    larger = Trainer(small=False)
    assert Cached(larger, path).estimate(NETWORKS).failed == told.failed and not larger.asked
    retried = Cached(larger, path, again=True)
    assert retried.estimate(NETWORKS).failed == ()
    assert set(larger.asked) == failed
    assert Cached(Trainer(), path).estimate(NETWORKS).failed == ()
    # One that fails anew is not asked for a third time by the same estimator.
    path2, inner = tmp_path / "b.db", Trainer()
    still = Cached(inner, path2, again=True)
    still.estimate(NETWORKS)
    still.estimate(NETWORKS)
    still.estimate(NETWORKS)
    assert all(
        inner.asked.count(name) == (2 if name in failed else 1) for name in map(str, NETWORKS)
    )


def test_what_was_told_before_an_error_is_kept(tmp_path: Path) -> None:
    broken = Trainer()
    broken.stop_after = 4
    with pytest.raises(DeviceUnavailable, match="went away"):
        Cached(broken, tmp_path / "a.db").estimate(NETWORKS)
    rest = Trainer()
    Cached(rest, tmp_path / "a.db").estimate(NETWORKS)
    assert len(rest.asked) == len(set(map(str, NETWORKS))) - 4
    assert not set(rest.asked) & set(broken.asked)


KILLED = """
import sys, time
from tests.search.accuracy.test_cache import NETWORKS, SPACE, Trainer
from phonenas.search.accuracy import Cached
class Slow(Trainer):
    def estimate(self, architectures):
        if len(self.asked) == 5:
            print("five", flush=True)
            time.sleep(4321)
        return super().estimate(architectures)
Cached(Slow(), sys.argv[1]).estimate(NETWORKS)
"""


@pytest.mark.slow
def test_a_kill_in_the_midst_loses_nothing_that_was_done(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    here = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], here])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.db")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "five\n"
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)
    process.stdout.close()
    rest = Trainer()
    told = Cached(rest, tmp_path / "a.db").estimate(NETWORKS)
    assert len(rest.asked) == len(set(map(str, NETWORKS))) - 5
    assert np.array_equal(told.top1, Trainer().estimate(NETWORKS).top1, equal_nan=True)


SIDE_BY_SIDE = """
import sys
from tests.search.accuracy.test_cache import NETWORKS, Trainer
from phonenas.search.accuracy import Cached
turn = int(sys.argv[2])
asked = NETWORKS[turn:] + NETWORKS[:turn]
for repeat in range(3):
    for a in asked:
        Cached(Trainer(repeat), sys.argv[1]).estimate([a])
print("done")
"""


@pytest.mark.slow
def test_processes_share_a_file(tmp_path: Path, environment: dict[str, str]) -> None:
    here = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], here])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SIDE_BY_SIDE, str(tmp_path / "a.db"), str(turn)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for turn in (0, 6)
    ]
    for process in running:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert out == "done\n", err
    with sqlite3.connect(tmp_path / "a.db") as file:
        rows = file.execute("SELECT count(*) FROM accuracy").fetchone()[0]
    file.close()
    assert rows == 3 * len(set(map(str, NETWORKS)))


def test_a_file_made_by_another_meanwhile_is_no_foreign_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    look = Database._is_made
    looked: list[bool] = []

    def raced(self: Database, connection: Any) -> bool:
        """Another process makes the file after the first look at it."""
        looked.append(look(self, connection))
        if len(looked) == 1:
            connection.rollback()
            monkeypatch.undo()
            Cached(Trainer(), path).estimate(NETWORKS[:1])
        return looked[0]

    monkeypatch.setattr(Database, "_is_made", raced)
    inner = Trainer()
    Cached(inner, path).estimate(NETWORKS)
    assert looked == [False]
    assert len(inner.asked) == len(set(map(str, NETWORKS))) - 1


OLD = """
CREATE TABLE accuracy (
    estimator TEXT NOT NULL, network TEXT NOT NULL, top1 REAL, standard_error REAL,
    outside INTEGER NOT NULL, failed TEXT NOT NULL, cost_s REAL NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (estimator, network)
) WITHOUT ROWID;
PRAGMA application_id = 1885880675;
PRAGMA user_version = 1;
"""


def test_a_file_of_version_0_1_is_read_and_written(tmp_path: Path) -> None:
    path, network = tmp_path / "a.db", str(NETWORKS[0])
    with sqlite3.connect(path) as file:
        file.executescript(OLD)
        values = ("trainer-0", network, 0.625, 0.01, 0, "", 20.0, "2026-01-02T03:04:05+00:00")
        file.execute("INSERT INTO accuracy VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    file.close()
    inner = Trainer()
    answer = Cached(inner, path).estimate(NETWORKS[:3])
    assert answer.top1[0] == 0.625 and answer.seconds[0] == 20.0
    assert network not in inner.asked
    with sqlite3.connect(path) as file:
        rows = file.execute("SELECT * FROM accuracy WHERE network = ?", [network]).fetchall()
        assert rows == [values]
        assert file.execute("SELECT count(*) FROM accuracy").fetchone() == (3,)
    file.close()


def test_a_new_file_has_the_format_that_is_documented(tmp_path: Path) -> None:
    Cached(Trainer(), tmp_path / "a.db").estimate(NETWORKS[:1])
    with sqlite3.connect(tmp_path / "a.db") as file:
        columns = [row[1] for row in file.execute("PRAGMA table_info(accuracy)")]
        assert file.execute("PRAGMA application_id").fetchone() == (0x70684163,)
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
    file.close()
    assert columns == [
        "estimator",
        "network",
        "top1",
        "standard_error",
        "outside",
        "failed",
        "cost_s",
        "at",
    ]


def text_file(path: Path) -> None:
    path.write_text("network,top1\n" * 100)


def torn(path: Path) -> None:
    whole = path.with_name("whole.db")
    Cached(Trainer(), whole).estimate(NETWORKS)
    path.write_bytes(b"\0" * 300 + whole.read_bytes()[300:5000])


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE measurement (id INTEGER)")
    file.close()


def newer(path: Path) -> None:
    Cached(Trainer(), path).estimate(NETWORKS[:1])
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 9")
    file.close()


@pytest.mark.fault(
    "The cache of accuracies is damaged, newer, or another database.",
    "`the cache of accuracies … is damaged`; `no cache of accuracies of phonenas`; `has "
    "version 9; this phonenas reads version 1`",
    "Restore a copy, or name another file.",
)
@pytest.mark.parametrize(
    ("make", "words"),
    [(text_file, "damaged"), (torn, "damaged"), (foreign, "no cache"), (newer, "version 9")],
)
def test_a_file_that_is_no_cache_is_refused(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "a.db")
    before = (tmp_path / "a.db").read_bytes()
    inner = Trainer()
    with pytest.raises(UnsupportedFormat, match=f"a.db.*{words}"):
        Cached(inner, tmp_path / "a.db").estimate(NETWORKS)
    assert inner.asked == []
    assert (tmp_path / "a.db").read_bytes() == before


def test_numbers_that_are_none_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Cached(Trainer(small=False), path).estimate(NETWORKS)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE accuracy SET top1 = 93.1")
    file.close()
    with pytest.raises(UnsupportedFormat, match=r"damaged.*93\.1"):
        Cached(Trainer(), path).estimate(NETWORKS)


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "wall").write_text("")
    inner = Trainer()
    with pytest.raises(StoreError, match="wall"):
        Cached(inner, tmp_path / "wall" / "a.db").estimate(NETWORKS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidArgument, match="is a folder, and no cache of accuracies"):
        Cached(inner, tmp_path / "folder").estimate(NETWORKS)
    assert inner.asked == []


def test_a_lock_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    Cached(Trainer(), path).estimate(NETWORKS[:1])
    monkeypatch.setattr(schema, "_BUSY_S", 0.2)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(StoreError, match="locked"):
        Cached(Trainer(), path).estimate(NETWORKS[:2])
    assert time.monotonic() - began >= 0.2
    holder.execute("ROLLBACK")
    holder.close()
    Cached(Trainer(), path).estimate(NETWORKS[:2])


def test_a_search_keeps_what_a_slow_estimator_said(fitted: LatencyModel, tmp_path: Path) -> None:
    def go(inner: AccuracyEstimator, into: str) -> search.Searched:
        return search.search(
            SPACE,
            latency=fitted,
            accuracy=inner,
            strategy=search.NSGA2(seed=3, population=20),
            evaluations=40,
            into=tmp_path / into,
        )

    broken = Trainer()
    broken.stop_after = 33
    with pytest.raises(DeviceUnavailable):
        go(broken, "r")
    rest = Trainer()
    found = go(rest, "r")
    assert found.evaluations == 40
    assert len(rest.asked) == 40 - 33  # not one of a generation was lost
    whole = go(Trainer(), "whole")
    assert found.front == whole.front and found.failed == whole.failed
    shared, inner = tmp_path / "shared.db", Trainer()
    assert isinstance(kept(inner, shared), Cached)
    cached = Cached(inner, shared)
    assert kept(cached, tmp_path / "other.db") is cached
    go(cached, "s")
    assert not (tmp_path / "s" / "accuracy.db").exists() and shared.exists()
    fast = Surrogate()
    assert kept(fast, shared) is fast


class Inheriting(Trainer):
    """A trainer of whose networks all but the first ones began with weights of others."""

    def __init__(self, first: int, networks: Sequence[Architecture]) -> None:
        super().__init__(small=False)
        self.first = {str(a) for a in networks[:first]}

    def digest_of(self, network: str) -> str:
        return self.digest if network in self.first else f"{self.digest}+{len(network)}"


@pytest.mark.parametrize("first", [0, 40, 60])
def test_a_fit_takes_only_networks_from_first_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: int
) -> None:
    path = tmp_path / "a.db"
    drawn = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(5), 75)]
    networks = list({str(a): a for a in drawn}.values())
    Cached(Inheriting(first, networks), path).estimate(networks)
    rest = len(networks) - first
    fit = ["fit-accuracy", str(path), "--out", str(tmp_path / "s.json")]
    if first < 50:
        with pytest.raises(NotEnoughData, match=f"{rest} (from|of) inherited"):
            app(fit, standalone_mode=False)
        return
    assert {str(a) for a in read_any(path).networks} == {str(a) for a in networks[:first]}
    app(fit, standalone_mode=False)
    assert f"{rest} networks of {path} began with weights of others" in capsys.readouterr().err
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["source"]["rows"] == first and content["source"]["left_out"] == rest
