"""The command serve: what its page shows, to whom it answers, and that it writes nothing."""

from __future__ import annotations

import contextlib
import http.client
import importlib.resources
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from documents import check_document
from fakes import undigested
from patience import PATIENCE_S, wait_for

from phonenas.cli.live.serve import _Jobs
from phonenas.cli.live.server import LiveServer
from phonenas.cli.live.state import RunState, StoreState
from phonenas.data import Conditions, MeasurementStore, Round
from phonenas.data.files import lock_folder
from phonenas.latency_model import ready
from phonenas.search.checkpoint import Checkpoint, write_checkpoint
from phonenas.search.device_view import of_device
from phonenas.search.evaluations import Generation
from phonenas.search.run_folder import Loaded, load
from tests.cli.test_app import Run, run
from tests.report.test_plots import document, made_run
from tests.search.test_devices import BIG, LITTLE, SPACE, both, searched

__all__ = ["run"]  # a fixture


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return made_run(tmp_path_factory.mktemp("live") / "run", n=120)


def under_way(finished: Loaded, folder: Path, n: int) -> None:
    """The run as it was after n networks, in 4 s; 0: before its first checkpoint."""
    folder.mkdir(exist_ok=True)
    content = json.loads((finished.path / "run.json").read_text(encoding="utf-8"))
    content = {k: v for k, v in content.items() if k not in ("front", "seconds", "hypervolume")}
    content = undigested({**content, "complete": False})
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    if n:
        evaluated = finished.evaluations().take(range(n))
        log = (Generation(n, 0, 0.25, 1.0, 0.7, 4.0),)
        write_checkpoint(folder, finished.settings, Checkpoint({}, evaluated, 0, 4.0, log))


def best_of(finished: Loaded, n: int) -> list[Any]:
    """Latency and top-1 in per cent of the front of the first n, by comparing each with each."""
    e, target_ms = finished.evaluations(), finished.front.target_ms or 0.0
    rows = [i for i in range(n) if e.latency_ms[i] <= target_ms]
    keep = [
        i
        for i in rows
        if not any(
            e.latency_ms[j] <= e.latency_ms[i] and e.top1[j] >= e.top1[i] and i != j for j in rows
        )
    ]
    points = sorted((float(e.latency_ms[i]), 100 * float(e.top1[i])) for i in keep)
    return [[pytest.approx(ms, abs=1e-4), pytest.approx(top1, abs=1e-3)] for ms, top1 in points]


def test_the_front_of_a_run_is_of_networks_trained_as_long(
    finished: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way(finished, tmp_path / "run", 80)
    known = finished.evaluations().take(range(80))
    longest = int(np.argmax(known.latency_ms <= (finished.front.target_ms or 0)))
    epochs = np.where(np.arange(80) == longest, 9.0, 1.0)
    halved = replace(known, further={"epochs": epochs})
    stopped = Checkpoint({}, halved, 0, 4.0, (Generation(80, 0, 0.25, 1.0, 0.7, 4.0),))
    monkeypatch.setattr("phonenas.search.checkpoint.read_checkpoint", lambda *a, **k: stopped)
    state = RunState(tmp_path / "run").read()
    assert [at[0] for at in state["plots"][0]["front"]] == [
        pytest.approx(known.latency_ms[longest], abs=1e-4)
    ]


def test_what_a_front_leaves_out_is_told(tmp_path: Path) -> None:
    made = made_run(tmp_path / "run", n=600, trust=3.0)
    known, target_ms = made.evaluations(), made.front.target_ms or 0.0
    lower = known.top1 - 3.0 * known.top1_error
    front: list[int] = []
    plain: list[int] = []
    for row in np.argsort(known.latency_ms):
        others = (known.top1 if known.outside[row] else lower)[front]
        if known.latency_ms[row] <= target_ms:
            front += [row] * bool((lower[row] > others).all())
            plain += [row] * bool((lower[row] > lower[plain]).all())
    left = int(known.outside[list({*plain} - {*front})].sum())
    assert left > 0
    state = RunState(made.path).read()
    told = f"{len(front)}, {left} extrapolated left out"
    assert dict(state["facts"])["on the front"] == told
    assert [at[0] for at in state["plots"][0]["front"]] == [
        pytest.approx(known.latency_ms[row], abs=1e-4) for row in front
    ]


def test_a_run_as_it_grows(finished: Loaded, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    state = RunState(folder)
    assert state.read()["state"] == "not begun"
    under_way(finished, folder, 0)
    first = state.read()
    assert (first["state"], first["share"], first["plots"]) == ("stopped", 0.0, [])
    budget = finished.settings["evaluations"]
    for n in (40, 80):
        under_way(finished, folder, n)
        with lock_folder(folder):
            seen = state.read()
        assert seen["state"] == "at work" and "process " in seen["who"]
        facts = dict(seen["facts"])
        assert facts["evaluated"] == f"{n} of {budget:,}" and facts["hypervolume"] == "0.2500"
        assert facts["rate"] == f"{n / 4:,.3g} a second"
        assert facts["left"] == {40: "about 8 s", 80: "about 2 s"}[n]  # of 120, n in 4 s
        assert seen["share"] == n / budget
        assert seen["plots"][0]["front"] == best_of(finished, n)
        assert len(seen["plots"][0]["cloud"]) == n
        assert facts["on the front"] == str(len(seen["plots"][0]["front"]))
    seen = state.read()
    assert seen["state"] == "stopped" and not {"rate", "left"} & set(dict(seen["facts"]))
    (folder / "run.json").write_text("{", encoding="utf-8")
    assert "damaged" in state.read()["told"] and state.read()["state"] == "unreadable"


def test_a_finished_run_and_its_trainings(finished: Loaded) -> None:
    seen = RunState(finished.path).read()
    assert seen["state"] == "finished" and seen["share"] == 1.0
    assert seen["plots"][0]["front"] == [
        [pytest.approx(c.latency_ms, abs=1e-4), pytest.approx(100 * c.top1, abs=1e-3)]
        for c in finished.front
    ]
    assert seen["plots"][0]["target"] == finished.front.target_ms
    for name, lines in (("0", 4), ("12", 2), ("3", 3)):
        (finished.path / "promoted" / name).mkdir(parents=True)
        (finished.path / "promoted" / name / "curve.csv").write_text("epoch\n" * lines)
    (finished.path / "promoted" / "0" / "promoted.json").write_text("{}")
    facts = dict(RunState(finished.path).read()["facts"])
    assert facts["trained in full"] == "1 of 3 begun" and facts["network 12"] == "1 epoch"
    # By their number; of one that has ended no epochs are counted.
    assert [k for k in facts if k.startswith("network ")] == ["network 3", "network 12"]


def test_a_share_is_of_the_budget_until_the_run_has_ended(tmp_path: Path) -> None:
    # A space may have fewer networks than a search may evaluate.
    few = made_run(tmp_path / "few", n=60, evaluations=200)
    seen = RunState(few.path).read()
    assert (seen["state"], seen["share"]) == ("finished", 1.0)
    assert dict(seen["facts"])["evaluated"] == "60 of 200"
    under_way(few, tmp_path / "on", 50)
    assert RunState(tmp_path / "on").read()["share"] == 0.25
    # A last generation may be larger than what was left.
    more = made_run(tmp_path / "more", n=60, evaluations=20)
    under_way(more, tmp_path / "beyond", 60)
    with lock_folder(tmp_path / "beyond"):
        seen = RunState(tmp_path / "beyond").read()
    assert seen["share"] == 1.0 and dict(seen["facts"])["left"] == "about 0 s"


def test_networks_without_an_accuracy_are_counted(
    finished: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way(finished, tmp_path / "run", 80)
    state = RunState(tmp_path / "run")
    assert "without top-1" not in dict(state.read()["facts"])
    known = finished.evaluations().take(range(80))
    top1 = np.where(np.arange(80) % 20, known.top1, np.nan)
    broken = replace(known, top1=top1, failed=dict.fromkeys(range(0, 80, 20), "it diverged"))
    stopped = Checkpoint({}, broken, 0, 4.0, (Generation(80, 0, 0.25, 1.0, 0.7, 4.0),))
    monkeypatch.setattr("phonenas.search.checkpoint.read_checkpoint", lambda *a, **k: stopped)
    seen = RunState(tmp_path / "run").read()
    facts = dict(seen["facts"])
    assert facts["without top-1"] == "4" and facts["evaluated"].startswith("80 of ")
    assert len(seen["plots"][0]["cloud"]) == 76


@pytest.mark.parametrize("n", [8, 120])
def test_the_table_is_of_networks_evenly_over_the_front(tmp_path: Path, n: int) -> None:
    made = made_run(tmp_path / "run", n=n, target_ms=None)
    front = [[f"{c.latency_ms:.2f} ms", f"{100 * c.top1:.1f} %"] for c in made.front]
    assert (len(front) > 12) == (n == 120) and len(front) > 3
    seen = RunState(made.path).read()["rows"]
    assert seen["head"] == ["latency", "top-1"]
    if len(front) <= 12:
        assert (seen["title"], seen["rows"]) == ("The front as predicted", front)
        return
    assert seen["title"] == f"The front as predicted, 12 of {len(front)}, evenly spaced"
    at = [front.index(row) for row in seen["rows"]]
    assert len(at) == 12 and (at[0], at[-1]) == (0, len(front) - 1)
    steps = np.diff(at)
    assert steps.min() >= 1 and steps.max() - steps.min() <= 1


def put(folder: Path, validation: dict[str, Any]) -> list[Any]:
    """Write it, and give latency and top-1 in per cent of its networks, by latency."""
    folder.mkdir(exist_ok=True)
    path = folder / "validation.json"
    path.write_text(json.dumps(undigested(validation)), encoding="utf-8")
    points = [[v["measured_ms"], 100 * v["top1"]] for v in validation["networks"]]
    return [pytest.approx(p, abs=1e-3) for p in sorted(points)]


def test_a_validation_is_shown_as_soon_as_it_is_there(tmp_path: Path) -> None:
    made = made_run(tmp_path / "run", n=120)
    state = RunState(made.path)
    seen = state.read()
    assert seen["plots"][0]["measured"] == [] and "measured" not in dict(seen["facts"])
    for top, count in ((1, "1 network"), (3, "3 networks")):
        points = put(made.path, document(made, top))
        seen = state.read()
        assert seen["plots"][0]["measured"] == points and len(points) == top
        assert dict(seen["facts"])["measured"] == count


def test_of_several_devices_each_has_its_own_numbers(tmp_path: Path) -> None:
    models = (ready.load(BIG), ready.load(LITTLE))
    searched(models, both(models, (20.0, 15.0)), evaluations=60, into=tmp_path / "r")
    made = load(tmp_path / "r", SPACE)
    state = RunState(made.path)
    seen = state.read()
    assert [p["device"] for p in seen["plots"]] == [BIG, LITTLE]
    assert [p["target"] for p in seen["plots"]] == [20.0, 15.0]
    columns = [sorted(c.values[f"latency:{d}"] for c in made.front) for d in (BIG, LITTLE)]
    for plot, column in zip(seen["plots"], columns, strict=True):
        assert [at[0] for at in plot["front"]] == pytest.approx(column, abs=1e-4)
        assert plot["measured"] == []
    texts = {tuple(f"{c.values[f'latency:{d}']:.2f} ms" for d in (BIG, LITTLE)) for c in made.front}
    assert {tuple(row[:2]) for row in seen["rows"]["rows"]} <= texts
    # Each is measured on its own; the second one's validation is in a folder of its own.
    other = put(made.path / "device2", document(of_device(made, LITTLE), 2))
    seen = state.read()
    assert [p["measured"] for p in seen["plots"]] == [[], other]
    own = put(made.path, document(made, 3))
    seen = state.read()
    assert [p["measured"] for p in seen["plots"]] == [own, other]
    facts = dict(seen["facts"])
    assert facts[f"measured on {BIG}"] == "3 networks"
    assert facts[f"measured on {LITTLE}"] == "2 networks"
    own = put(made.path / "device2", document(of_device(made, LITTLE), 1))
    assert state.read()["plots"][1]["measured"] == own


@pytest.mark.parametrize(
    ("words", "names"),
    [((), ["phonenas.db"]), (("r",), ["r"]), (("r", "x", "--db", "lab.db"), ["r", "x", "lab.db"])],
)
def test_which_jobs_are_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], names: list[str]
) -> None:
    """Of runs no store is shown that was not named, and nothing else where no run is named."""
    shown: list[str] = []

    def once(server: LiveServer, poll_interval: float = 0.5) -> None:
        shown.extend(job["name"] for job in json.loads(server.state())["jobs"])
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveServer, "serve_forever", once)
    code, _, err = run("serve", *words)
    assert code == 130 and err == "The page has ended; the jobs have not.\n"
    assert [Path(name).name for name in shown] == names


def test_a_store_as_it_grows(tmp_path: Path) -> None:
    db = tmp_path / "phonenas.db"
    state = StoreState(str(db))
    assert state.read()["state"] == "not begun"
    words = ("pixel", "Pixel 1", "f", "onnxruntime", "1.22", "h", "CPU", "all")
    conditions = Conditions(*words, threads=1, cores="big", governor="none")
    with MeasurementStore(db) as store:
        assert state.read()["state"] == "empty"
        rows = store.pending(conditions, "operator", ["a", "b", "c", "d"])
        assert state.read()["share"] == 0.0
        other = store.pending(replace(conditions, device="other"), "operator", ["a"])
        store.add_rounds([(other["a"].id, 0, Round((1.0,), at="2026-01-01T00:00:00+00:00"))])
        store.complete([other["a"].id])
        store.add_rounds([(rows["a"].id, 0, Round((1.0,), at="2026-01-02T03:04:05+00:00"))])
        store.complete([rows["a"].id])
        store.discard(rows["b"].id, conditions, "b", "no")
        seen = state.read()
    assert dict(seen["facts"]) == {
        "device measured last": "pixel",
        "measured": "1 of 3",
        "last round": "2026-01-02 03:04:05 UTC",
    }
    assert seen["share"] == 1 / 3 and seen["state"] == "incomplete"
    assert [[r[0], *r[2:]] for r in seen["rows"]["rows"]] == [
        ["pixel", "1", "2", "1"],
        ["other", "1", "0", "0"],
    ]
    db.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert state.read()["state"] == "unreadable"


def test_a_folder_of_runs_stands_for_them_and_its_store(finished: Loaded, tmp_path: Path) -> None:
    jobs = _Jobs([tmp_path], [])
    assert [j["state"] for j in jobs.read()["jobs"]] == ["not begun"]
    under_way(finished, tmp_path / "b", 0)
    under_way(finished, tmp_path / "a", 0)
    MeasurementStore(tmp_path / "phonenas.db").close()
    names = [j["name"] for j in jobs.read()["jobs"]]
    assert names == [str(tmp_path / n) for n in ("a", "b", "phonenas.db")]


def test_nothing_is_written(finished: Loaded, tmp_path: Path) -> None:
    under_way(finished, tmp_path / "run", 20)
    MeasurementStore(tmp_path / "phonenas.db").close()

    def seen() -> dict[str, tuple[int, bytes]]:
        files = [p for p in tmp_path.rglob("*") if p.is_file()]
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    before = seen()
    assert len(_Jobs([tmp_path], []).read()["jobs"]) == 2
    after = seen()
    assert {name: after[name] for name in before} == before
    # SQLite's own, without which nobody reads a store that others write.
    own = {str(tmp_path / f"phonenas.db-{part}") for part in ("shm", "wal")}
    assert set(after) - set(before) <= own


@contextlib.contextmanager
def serving(read: Any) -> Iterator[LiveServer]:
    server = LiveServer(read)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


def ask(
    server: LiveServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def test_who_gets_an_answer() -> None:
    with serving(lambda: {"jobs": []}) as server:
        token = f"?token={server.token}"
        assert len(server.token) >= 32 and server.url.endswith(token)
        assert server.server_address[0] == "127.0.0.1"
        status, text, headers = ask(server, f"/state{token}")
        assert (status, json.loads(text)) == (200, {"jobs": []})
        assert (
            headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
        )
        status, page, headers = ask(server, f"/{token}")
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        assert server.token not in page and not re.search("https?://(?!www.w3.org/2000/svg)", page)
        for path in ("/", "/state", "/state?token=", f"/state{token[:-1]}", f"/?token=%ff{token}"):
            assert ask(server, path)[0] == 403, path
        assert ask(server, f"/other{token}")[0] == 404
        assert ask(server, f"/../../etc/passwd{token}")[0] == 404
        for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
            assert ask(server, f"/state{token}", Host=host)[0] == 421, host
        local = f"localhost:{server.server_port}"
        assert ask(server, f"/state{token}", Host=local)[0] == 200
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            assert ask(server, f"/state{token}", method)[0] == 501, method


def test_connections_have_a_limit() -> None:
    with serving(lambda: {}) as server, contextlib.ExitStack() as stack:
        place = ("127.0.0.1", server.server_port)
        for _ in range(16):  # say nothing, and are not closed yet
            stack.enter_context(socket.create_connection(place, PATIENCE_S))
        wait_for("all are taken", lambda: server._free._value == 0)
        more = stack.enter_context(socket.create_connection(place, PATIENCE_S))
        assert more.recv(10) == b""


def test_many_askers_read_the_files_once() -> None:
    calls: list[int] = []
    asked = threading.Semaphore(0)

    def read() -> dict[str, int]:
        calls.append(1)
        for _ in range(8):  # reading takes until all have asked
            assert asked.acquire(timeout=PATIENCE_S)
        return {"n": len(calls)}

    server = LiveServer(read)
    answers: list[bytes] = []

    def ask_once() -> None:
        asked.release()
        answers.append(server.state())

    with contextlib.closing(server.socket):
        threads = [threading.Thread(target=ask_once) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert answers == [b'{"n": 1}'] * 8 and len(calls) == 1


def test_a_slow_reading_gives_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phonenas.cli.live.server._WAIT_S", 0.01)
    with LiveServer(dict) as server, server._lock:
        with pytest.raises(TimeoutError, match="still being read"):
            server.state()
        server._state = b'{"n": 0}'
        assert server.state() == b'{"n": 0}'


def test_an_error_is_told_and_hides_no_other_job(
    finished: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise KeyError("no\nsuch")

    monkeypatch.setattr(StoreState, "read", fail)
    jobs = _Jobs([finished.path], ["postgresql://lab:secret@db/x"])
    run, store = jobs.read()["jobs"]
    assert run["state"] == "finished" and store["state"] == "unreadable"
    assert store["told"].startswith("KeyError: ") and "secret" not in json.dumps(store)
    with serving(lambda: fail(0)) as server:
        status, text, _ = ask(server, f"/state?token={server.token}")
    assert status == 500 and text.startswith("KeyError: ")


def test_who_works_there(finished: Loaded, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    under_way(finished, folder, 40)
    note, state = folder / ".phonenas-owner", RunState(folder)
    with lock_folder(folder):
        own = json.loads(note.read_text(encoding="utf-8"))
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "at work", f"process {own['pid']} on "),
        ({"pid": 2**22 + 1}, "stopped", ""),
        ({"host": "elsewhere"}, "not known", "begun on elsewhere; whether it still works is not"),
        *([({"began": "1"}, "stopped", "")] if own["began"] else []),  # another has its number
    ]
    for change, word, who in cases:
        note.write_text(json.dumps({**own, **change}), encoding="utf-8")
        seen = state.read()
        assert (
            seen["state"] == word and seen["who"].startswith(who) and bool(who or not seen["who"])
        )
    note.write_text("", encoding="utf-8")
    assert state.read()["state"] == "stopped"


def test_a_curve_that_is_a_pipe_is_not_waited_for(finished: Loaded, tmp_path: Path) -> None:
    under_way(finished, tmp_path, 40)
    (tmp_path / "promoted" / "3").mkdir(parents=True)
    os.mkfifo(tmp_path / "promoted" / "3" / "curve.csv")
    assert dict(RunState(tmp_path).read()["facts"])["network 3"] == "0 epochs"


def test_what_is_asked_amiss(run: Run) -> None:
    Path("file").write_text("x")
    code, _, err = run("serve", "file")
    assert code == 2 and "file is a file; RUN is a folder" in err
    with LiveServer(dict) as other:
        code, _, err = run("serve", "--port", str(other.server_port))
        assert code == 2 and f"--port {other.server_port} cannot be used" in err


@pytest.mark.slow
def test_the_command_prints_its_address_and_ends_by_ctrl_c(
    finished: Loaded, environment: dict[str, str]
) -> None:
    words = [sys.executable, "-m", "phonenas", "serve", str(finished.path), "--json"]
    job = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert job.stdout is not None
        told = json.loads("".join(iter(job.stdout.readline, "}\n")) + "}")
        check_document(("serve",), told)
        url = told["url"]
        host, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
        connection.request("GET", f"/state?{path.partition('?')[2]}")
        state = json.loads(connection.getresponse().read())
        assert [j["state"] for j in state["jobs"]] == ["finished"]
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=PATIENCE_S)
        assert job.returncode == 130 and err == "The page has ended; the jobs have not.\n"
    finally:
        job.kill()
        job.communicate()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_grows_and_is_accessible(
    finished: Loaded, tmp_path: Path, width: int, scheme: str
) -> None:
    folder = tmp_path / "runs <b>&amp; more"
    under_way(finished, folder, 40)
    rounds = [Round((1.0, 1.1), at="2026-01-02T03:04:05+00:00")]
    words = ("<i>pixel", "Pixel 1", "f", "onnxruntime", "1.22", "h", "CPU", "all")
    conditions = Conditions(*words, threads=1, cores="big", governor="none")
    with MeasurementStore(tmp_path / "phonenas.db") as store:
        rows = store.pending(conditions, "operator", ["a", "b", "c", "d"])
        store.add_rounds([(rows["a"].id, 0, rounds[0])])
        store.complete([rows["a"].id])
    axe = importlib.resources.files("axe_core_python") / "axe.min.js"
    jobs = _Jobs([folder], [str(tmp_path / "phonenas.db")])
    with (
        serving(jobs.read) as server,
        browser.opened(server.url, tmp_path / "profile", width) as tab,
    ):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.call("Emulation.setEmulatedMedia", features=features)

        def points(kind: str) -> int:
            return int(tab.run(f"document.querySelectorAll('circle.{kind}[r]').length"))

        marks = 1  # of the legend
        assert points("cloud") == 40 + marks
        assert points("front") == len(best_of(finished, 40)) + marks
        under_way(finished, folder, 100)
        wait_for("the page grows", lambda: points("cloud") == 100 + marks)
        assert points("front") == len(best_of(finished, 100)) + marks
        assert tab.run("document.querySelectorAll('h2')[0].textContent") == str(folder)
        assert tab.run("[...document.querySelectorAll('progress')].map(p => p.value)") == [
            pytest.approx(100 / finished.settings["evaluations"]),
            0.25,
        ]
        assert "<i>pixel" in tab.run("document.body.textContent")

        tab.run(axe.read_text(encoding="utf-8") + "; 1")
        found = tab.run(
            "axe.run({resultTypes: ['violations']}).then(r => r.violations.map(v => [v.id, "
            "v.nodes.map(n => n.html.slice(0, 200))]))"
        )
        assert found == []
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.of("Log.entryAdded") == [] and tab.of("Runtime.exceptionThrown") == []
        asked = [e["request"]["url"] for e in tab.of("Network.requestWillBeSent")]
        own = f"http://127.0.0.1:{server.server_port}/"
        assert len(asked) > 2 and [u for u in asked if not u.startswith((own, "data:"))] == []
        tab.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000

        server.shutdown()
        server.server_close()
        wait_for(
            "the page says that nobody answers",
            lambda: "No answer" in tab.run("document.getElementById('now').textContent"),
        )
        assert points("cloud") == 100 + marks  # what it showed stays
