"""A checkpoint on disk: written and read whole, refused where it is damaged or of another run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonenas.data.arrays import arrays_digest
from phonenas.data.documents import digest_of
from phonenas.search.checkpoint import (
    Checkpoint,
    of_this_run,
    read_checkpoint,
    run_digest,
    write_checkpoint,
)
from phonenas.search.evaluations import Evaluations, Generation
from phonenas.space.errors import StoreError, UnsupportedFormat

COLUMNS = ["latency_ms", "top1", "top1_error", "outside", "chance", "energy"]
SETTINGS = {"space": "tiny", "seed": 3, "columns": COLUMNS}
NAN = float("nan")


def evaluations(**changes: Any) -> Evaluations:
    values: dict[str, Any] = {
        "genomes": np.array([[0, 1], [1, 0], [1, 1]], np.int8),
        "latency_ms": np.array([5.0, 6.0, 7.5]),
        "top1": np.array([0.5, NAN, 1.0]),
        "top1_error": np.array([0.01, NAN, 0.0]),
        "outside": np.array([False, True, True]),
        "further": {"chance": np.array([0.0, 0.5, 1.0]), "energy": np.array([-2.0, 1.0, 3.0])},
        "failed": {1: "it diverged"},
    }
    return Evaluations(**{**values, **changes})


CHECKPOINT = Checkpoint(
    {"order": np.array([2, 0, 1]), "round": 4, "chance": {"word": "x"}},
    evaluations(),
    repeats=2,
    seconds=1.5,
    log=(Generation(2, 1, 0.25, 5.0, 0.5, 1.0), Generation(3, 2, NAN, 4.125, 0.5, 1.5)),
    stale=1,
)


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the arrays and the plain content of a file, which gets new digests."""
    with np.load(path) as file:
        arrays = dict(file)
    plain = json.loads(str(arrays.pop("plain")))
    del plain["digest"]
    change(arrays, plain)
    if "arrays" in plain:
        plain["arrays"] = arrays_digest(arrays)
        plain["digest"] = digest_of(plain)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, plain=np.array(json.dumps(plain)))
    path.write_bytes(buffer.getvalue())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, SETTINGS) is None
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    found = read_checkpoint(tmp_path, SETTINGS)
    assert found is not None
    assert found.state["order"].tolist() == [2, 0, 1]
    assert (found.state["round"], found.state["chance"]) == (4, {"word": "x"})
    assert sorted(found.state) == ["chance", "order", "round"]
    assert (found.repeats, found.seconds, found.stale) == (2, 1.5, 1)
    assert found.log[0] == (2, 1, 0.25, 5.0, 0.5, 1.0) and found.log[1].fastest_ms == 4.125
    assert np.isnan(found.log[1].hypervolume) and len(found.log) == 2
    known = found.evaluations
    assert known.genomes.tolist() == [[0, 1], [1, 0], [1, 1]] and known.genomes.dtype == np.int8
    assert known.columns == tuple(COLUMNS)
    assert known.to_array().tolist()[0] == [5.0, 0.5, 0.01, 0.0, 0.0, -2.0]
    assert dict(known.failed) == {1: "it diverged"}
    assert (tmp_path / "log.csv").read_text().splitlines() == [
        "evaluations,repeats,hypervolume,fastest_ms,best_top1,seconds",
        "2,1,0.25,5,0.5,1",
        "3,2,nan,4.125,0.5,1.5",
    ]


def test_an_empty_run_has_a_checkpoint_too(tmp_path: Path) -> None:
    none = Evaluations.of_array(np.empty((0, 2), np.int8), np.empty((0, 4)))
    write_checkpoint(tmp_path, {"seed": 1}, Checkpoint({}, none))
    found = read_checkpoint(tmp_path, {"seed": 1})
    assert found is not None and len(found.evaluations) == 0 and found.log == ()
    assert (found.repeats, found.seconds, found.stale) == (0, 0.0, 0)
    assert found.state == {}


def test_the_digest_is_of_what_was_chosen() -> None:
    assert run_digest({"a": 1, "b": 2}) == run_digest({"b": 2, "a": 1}) == "d8497d9d8277"
    for derived in ("target", "columns", "estimator", "scale", "asked"):
        assert run_digest({"a": 1, "b": 2, derived: "x"}) == "d8497d9d8277"
    for budget in (1, 300):
        assert run_digest({"a": 1, "b": 2, "evaluations": budget}) == "d8497d9d8277"
    assert run_digest({"a": 1, "b": 3}) != "d8497d9d8277"
    assert run_digest({"a": 1, "b": 2, "other": "x"}) != "d8497d9d8277"


def test_a_file_of_another_run_is_refused_with_both_digests(tmp_path: Path) -> None:
    path, own = tmp_path / "x.json", run_digest(SETTINGS)
    of_this_run(path, own, SETTINGS, "Remove it.")
    of_this_run(path, None, SETTINGS, "Remove it.")  # phonenas 0.1 wrote none
    budget = {"a": 1, "b": 2, "evaluations": 300}
    for digest in ("d8497d9d8277", "aadc942fdfe5"):  # and of files from when it held the budget
        of_this_run(path, digest, budget, "Remove it.")
    others: list[Any] = ["abcdef012345", "", "0" * 60, 1.5, False, [own], {"run": own}]
    for other in others:
        with pytest.raises(UnsupportedFormat) as told:
            of_this_run(path, other, SETTINGS, "Remove it.")
        assert str(told.value) == (
            f"{path} is of another run (settings {str(other)[:40]}) than the run.json of its "
            f"folder (settings {own}). Remove it."
        )
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    with pytest.raises(UnsupportedFormat, match="is of another run.* with another --out"):
        read_checkpoint(tmp_path, {**SETTINGS, "seed": 4})


def test_a_changed_byte_is_damage(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    path = tmp_path / "checkpoint.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedFormat, match="is damaged .*Remove it to start this run again"):
        read_checkpoint(tmp_path, SETTINGS)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="checkpoint.npz cannot be read: Is a directory"):
        read_checkpoint(tmp_path, SETTINGS)


def rewrite(path: Path, arrays_too: bool) -> None:
    """Change a number, and leave one of the two digests as it was."""
    with np.load(path) as file:
        arrays = dict(file)
    if arrays_too:
        arrays["log"] = arrays["log"] + 1
    else:
        plain = json.loads(str(arrays["plain"]))
        arrays["plain"] = np.array(json.dumps({**plain, "repeats": 7}))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("arrays_too", [True, False])
@pytest.mark.parametrize("digested", [True, False])
def test_either_digest_tells(tmp_path: Path, arrays_too: bool, digested: bool) -> None:
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    rewrite(tmp_path / "checkpoint.npz", arrays_too)
    with pytest.raises(UnsupportedFormat, match="its digest is another"):
        read_checkpoint(tmp_path, SETTINGS, digested=digested)


@pytest.mark.parametrize("name", ["arrays", "digest"])
@pytest.mark.parametrize("other", ["", "0" * 64, "g" * 64])
def test_a_digest_is_the_same_or_another(tmp_path: Path, name: str, other: str) -> None:
    """Whether it comes before or after the right one in the alphabet."""
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    path = tmp_path / "checkpoint.npz"
    with np.load(path) as file:
        arrays = dict(file)
    plain = json.loads(str(arrays.pop("plain")))
    plain |= {name: other}
    if name == "arrays":
        del plain["digest"]
        plain["digest"] = digest_of(plain)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, plain=np.array(json.dumps(plain)))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UnsupportedFormat, match="its digest is another"):
        read_checkpoint(tmp_path, SETTINGS)


def test_the_log_as_a_table_holds_whole_numbers_whole(tmp_path: Path) -> None:
    rows = (Generation(1234567, 20, 0.25, 1.5, 1.0, 2000001.0),)
    write_checkpoint(tmp_path, SETTINGS, replace(CHECKPOINT, log=rows))
    assert (tmp_path / "log.csv").read_text().splitlines()[1:] == ["1234567,20,0.25,1.5,1,2000001"]
    found = read_checkpoint(folder=tmp_path, settings=SETTINGS)
    assert found is not None and found.log == rows


def test_a_digest_may_lack_in_a_run_of_an_older_release_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)

    def older(arrays: dict[str, Any], plain: dict[str, Any]) -> None:
        del plain["arrays"], plain["run"], plain["stale"], arrays["log"]

    changed(tmp_path / "checkpoint.npz", older)
    with pytest.raises(UnsupportedFormat, match="its digest is another"):
        read_checkpoint(tmp_path, SETTINGS)
    found = read_checkpoint(tmp_path, SETTINGS, digested=False)
    assert found is not None and found.log == () and found.stale == 0
    assert found.repeats == 2


def number(column: str, row: int, value: float) -> Callable[[Any, Any], None]:
    def change(arrays: Any, plain: Any) -> None:
        arrays["numbers"][row, COLUMNS.index(column)] = value

    return change


def array(name: str, value: Any) -> Callable[[Any, Any], None]:
    def change(arrays: Any, plain: Any) -> None:
        arrays[name] = value(arrays[name])

    return change


def plain(name: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda arrays, plain: plain.update({name: value})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (array("genomes", lambda a: a.astype(np.int16)), r"genomes \(3, 2\) of int16"),
        (array("genomes", lambda a: a.astype(bool)), r"genomes \(3, 2\) of bool"),
        (array("genomes", lambda a: a[None]), r"genomes \(1, 3, 2\) of int8"),
        (array("genomes", lambda a: a[0]), r"genomes \(2,\) of int8"),
        (array("genomes", lambda a: a[:2]), "of another length"),
        (array("numbers", lambda a: a.astype(np.float32)), r"numbers \(3, 6\) of float32"),
        (array("numbers", lambda a: a.astype("U24")), r"numbers \(3, 6\) of <U24"),
        (array("numbers", lambda a: a[None]), r"numbers \(1, 3, 6\) of float64"),
        (array("numbers", lambda a: a[0]), r"numbers \(6,\) of float64"),
        (array("numbers", lambda a: a[:, :5]), r"numbers \(3, 5\) for columns latency_ms"),
        (array("log", lambda a: a.astype(np.float32)), r"log \(2, 6\) of float32"),
        (array("log", lambda a: a[0]), r"log \(6,\) of float64"),
        (array("log", lambda a: np.hstack([a, a])), "a log of 12 columns, or infinite"),
        (array("log", lambda a: a[:, :5]), "a log of 5 columns, or infinite"),
        (array("log", lambda a: a * np.inf), "a log of 6 columns, or infinite"),
        (lambda arrays, _: arrays.pop("numbers"), "numbers"),
        (number("latency_ms", 0, 0.0), "latency_ms holds a number out of range"),
        (number("latency_ms", 0, 1.1e9), "latency_ms holds a number out of range"),
        (number("latency_ms", 0, NAN), "latency_ms holds a number out of range"),
        (number("top1", 0, -0.01), "top1 holds a number out of range"),
        (number("top1", 0, 1.01), "top1 holds a number out of range"),
        (number("top1_error", 0, np.inf), "top1_error holds a number out of range"),
        (number("top1_error", 2, NAN), "top1_error holds a number out of range"),
        (number("chance", 2, 1.01), "chance holds a number out of range"),
        (number("chance", 2, -0.01), "chance holds a number out of range"),
        (number("energy", 1, NAN), "energy holds a number out of range"),
        (number("energy", 1, -np.inf), "energy holds a number out of range"),
        (plain("failed", {}), "0 reasons for 1 networks without an accuracy"),
        (plain("failed", {"x": "it diverged"}), "invalid literal for int"),
        (plain("repeats", -1), "repeats"),
        (plain("seconds", "x"), "seconds"),
        (plain("state", []), "state"),
    ],
)
def test_what_no_search_writes_is_damage(
    tmp_path: Path, change: Callable[[Any, Any], None], why: str
) -> None:
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    changed(tmp_path / "checkpoint.npz", change)
    with pytest.raises(UnsupportedFormat, match=f"is damaged .*{why}"):
        read_checkpoint(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        number("latency_ms", 0, 1e9),
        number("latency_ms", 0, 1e-9),
        number("top1", 0, 0.0),
        number("top1_error", 1, np.inf),  # of a network without an accuracy
        number("energy", 1, -1e300),
        array("log", lambda a: a * NAN),
    ],
)
def test_the_edges_of_what_a_search_writes(
    tmp_path: Path, change: Callable[[Any, Any], None]
) -> None:
    write_checkpoint(tmp_path, SETTINGS, CHECKPOINT)
    changed(tmp_path / "checkpoint.npz", change)
    assert read_checkpoint(tmp_path, SETTINGS) is not None


def test_columns_of_every_search_are_the_four(tmp_path: Path) -> None:
    bare = evaluations(further={})
    write_checkpoint(tmp_path, {"seed": 1}, Checkpoint({}, bare))
    found = read_checkpoint(tmp_path, {"seed": 1})
    assert found is not None
    assert found.evaluations.columns == ("latency_ms", "top1", "top1_error", "outside")
    # The least name of several that are wrong is told.
    changed(tmp_path / "checkpoint.npz", array("numbers", lambda a: a - 100))
    with pytest.raises(UnsupportedFormat, match=r"damaged \(latency_ms holds"):
        read_checkpoint(tmp_path, {"seed": 1})


def test_a_log_that_does_not_end_with_the_last_generation_is_damage(tmp_path: Path) -> None:
    done = replace(CHECKPOINT, before_last=True)
    write_checkpoint(tmp_path, SETTINGS, done)
    found = read_checkpoint(tmp_path, SETTINGS)
    assert found is not None and found.before_last and len(found.to_go_on().evaluations) == 2
    for rows in ([], [2.0, 2.0], [4.0, 3.0], [-1.0, 3.0], [NAN, 3.0], [2.0, NAN]):
        log = tuple(Generation(n, 1, NAN, 1.0, 0.5, 1.0) for n in rows)
        write_checkpoint(tmp_path, SETTINGS, replace(done, log=log))
        with pytest.raises(UnsupportedFormat, match="does not end with its last generation"):
            read_checkpoint(tmp_path, SETTINGS)


def test_a_finished_run_goes_on_from_before_its_last_generation() -> None:
    rows = [Generation(n, r, NAN, 1.0, 0.5, 1.0) for n, r in ((1.0, 0.0), (2.0, 1.0), (3.0, 5.0))]
    done = replace(CHECKPOINT, repeats=5, log=tuple(rows), before_last=True)
    before = done.to_go_on()
    assert before.evaluations.genomes.tolist() == [[0, 1], [1, 0]]
    assert (before.repeats, before.log, before.before_last) == (1, tuple(rows[:2]), False)
    assert before.state is done.state and before.stale == 1
    first = replace(done, log=(rows[2],)).to_go_on()
    assert (len(first.evaluations), first.repeats, first.log) == (0, 0, ())
    assert before.to_go_on() is before


@pytest.mark.parametrize("counts", [[0.0, 3.0], [0.0, 0.0, 3.0], [3.0], [3.0, 3.0]])
def test_a_generation_may_bring_nothing(tmp_path: Path, counts: list[float]) -> None:
    log = tuple(Generation(n, 1, NAN, 1.0, 0.5, 1.0) for n in counts)
    write_checkpoint(tmp_path, SETTINGS, replace(CHECKPOINT, log=log, before_last=True))
    found = read_checkpoint(tmp_path, SETTINGS)
    assert found is not None and [g.evaluations for g in found.log] == counts
