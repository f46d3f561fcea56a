"""Workers: results in order, the first error in order, nobody else's words."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_tasks as tasks
from patience import PATIENCE_S, wait_for

from phonenas.search.cluster.ray_workers import RayWorkers
from phonenas.search.cluster.workers import Needs, Processes, Serial, Workers, workers_from
from phonenas.space.errors import InvalidArgument, MissingExtra, TaskFailed, WorkersUnavailable
from phonenas.testing.workers import LastFirst, WorkersContract

ROOT = Path(__file__).parents[3]
MARK = "PHONENAS_TEST_MARK"


class TestLastFirst(WorkersContract):
    @pytest.fixture
    def workers(self) -> Workers:
        return LastFirst()


class TestSerial(WorkersContract):
    @pytest.fixture
    def workers(self) -> Workers:
        return Serial()

    def test_calls_after_an_error_are_not_begun(self) -> None:
        told: list[int] = []
        with pytest.raises(InvalidArgument):
            Serial().map(
                tasks.refuse, [(n, (1,)) for n in range(4)], on_result=lambda i, r: told.append(i)
            )
        assert told == [0]

    def test_the_foreign_error_stays_visible_as_the_cause(self) -> None:
        with pytest.raises(TaskFailed) as caught:
            Serial().map(tasks.divide, [(1, 0)])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "wrong",
    [{"cpus": -1}, {"gpus": -0.5}, {"gpus": 1.5}, {"cpus": float("nan")}, {"resources": {"x": 0}}],
)
def test_needs_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Needs(**wrong)


def test_needs_say_what_they_are_and_travel() -> None:
    needs = Needs(2, 0.5, {"device:pixel6": 1})
    assert str(needs) == "CPU 2, GPU 0.5, device:pixel6 1"
    assert copy.deepcopy(Needs()) == Needs()
    assert hash(needs) == hash(Needs(2, 0.5))


@pytest.mark.parametrize(
    ("needs", "node", "places"),
    [
        (Needs(), {"CPU": 8.0}, 8),
        (Needs(2.5), {"CPU": 8.0}, 3),
        (Needs(1, 0.25), {"CPU": 8.0, "GPU": 1.0}, 4),
        (Needs(1, 1 / 3), {"CPU": 8.0, "GPU": 1.0}, 3),
        (Needs(1, 1), {"CPU": 8.0}, 0),
        (Needs(0, 0, {"device:a": 1}), {"CPU": 8.0, "device:a": 1.0}, 1),
        (Needs(0, 0, {"device:a": 1}), {"CPU": 8.0, "device:b": 1.0}, 0),
        (Needs(0), {"CPU": 3.0}, 3),
    ],
)
def test_places_on_a_node(needs: Needs, node: dict[str, float], places: int) -> None:
    assert needs.places(node) == places


def test_the_words_of_the_command_line_choose_workers() -> None:
    assert isinstance(workers_from(), Serial)
    assert isinstance(workers_from(1), Serial)
    assert isinstance(workers_from(2), Processes)
    for count in (0, -2):
        with pytest.raises(InvalidArgument, match="1 or more"):
            workers_from(count)


@pytest.mark.parametrize("address", ["", "host", "host:port", "http://host:1", "host:1 x", "a b:1"])
def test_an_address_is_auto_or_host_and_port(address: str) -> None:
    with pytest.raises(InvalidArgument, match="auto or the HOST:PORT"):
        RayWorkers(address)


def test_rays_client_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidArgument, match=r"ray start --address"):
        workers_from(None, "ray://head:10001")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install .*ray"):
        workers_from(2, "auto")
    assert isinstance(workers_from(2), Processes)  # does without


# -- processes of this computer -------------------------------------------------------------------


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with Processes(2) as workers:
            yield workers


class TestProcesses(WorkersContract):
    @pytest.fixture
    def workers(self, two: Processes) -> Workers:
        return two

    def test_one_count_is_one_call_whatever_it_needs(self, two: Processes, tmp_path: Path) -> None:
        given = [(str(tmp_path), n, 2, PATIENCE_S) for n in range(2)]
        assert two.map(tasks.meet, given, needs=Needs(cpus=64)) == [True, True]

    def test_processes_stay_for_the_next_map(self, two: Processes) -> None:
        first = {pid for pid, _ in two.map(tasks.process_and_gpus, [()] * 4)}
        second = {pid for pid, _ in two.map(tasks.process_and_gpus, [()] * 4)}
        assert os.getpid() not in first | second
        assert len(first | second) <= 2

    def test_shared_arguments_are_those_of_each_map(self, two: Processes) -> None:
        for value in (1, 2, 3):
            images = np.full((100, 100), value)
            results = two.map(tasks.total, [(images, n) for n in range(3)])
            assert [t for t, _ in results] == [0, 10_000 * value, 20_000 * value]

    def test_what_cannot_travel_names_the_task(self, two: Processes) -> None:
        with pytest.raises(TaskFailed, match=r"unportable failed in call 1 of 1: .*generator"):
            two.map(tasks.unportable, [(3,)])
        lock = (n for n in range(3))
        for calls in ([(lock, 1)], [(lock, 1), (lock, 2)]):
            with pytest.raises(TaskFailed, match=r"add failed in call 1 of .*generator"):
                two.map(tasks.add, calls)  # type: ignore[arg-type]

    def test_a_trace_from_the_worker_is_with_the_error(self, two: Processes) -> None:
        with pytest.raises(TaskFailed) as caught:
            two.map(tasks.divide, [(1, 0)])
        assert "standin_tasks.py" in "".join(caught.value.__notes__)

    def test_a_worker_that_is_killed_is_survived(
        self, two: Processes, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "phonenas")
        given = [(str(tmp_path), n, n % 2) for n in range(4)]
        assert two.map(tasks.die, given) == [0, 1, 2, 3]
        repeated = [r.getMessage() for r in caplog.records if "begun again" in r.getMessage()]
        assert sorted(text[:11] for text in repeated) == ["die: call 2", "die: call 4"]
        assert all("ended with signal SIGKILL" in text for text in repeated)

    @pytest.mark.slow
    def test_a_call_that_ends_each_worker_ends_in_an_error(
        self, two: Processes, tmp_path: Path
    ) -> None:
        with pytest.raises(TaskFailed, match=r"die: call 1 of 1 took its worker down 4 times"):
            two.map(tasks.die, [(str(tmp_path), 0, 99)])
        assert len(list(tmp_path.glob("*.pid"))) == 4
        assert two.map(tasks.add, [(1, 2)]) == [3]

    def test_a_call_is_bounded_in_time(self, tmp_path: Path) -> None:
        with (
            Processes(2, limit_s=2.0) as workers,
            pytest.raises(TaskFailed, match=r"sleep: call 1 of 2 was ended after 0\.000556 h"),
        ):
            workers.map(tasks.sleep, [(str(tmp_path), 0, 4321.0), (str(tmp_path), 1, 0.0)])

    @pytest.mark.slow
    def test_gpus_are_lent_by_shares_and_hidden_from_others(
        self, two: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
        half = Needs(1, 0.5)
        given = [(str(tmp_path), n, 2, PATIENCE_S) for n in range(2)]
        assert two.map(tasks.meet, given, needs=half) == [True, True]
        lent = two.map(tasks.process_and_gpus, [()] * 3, needs=half)
        assert {gpus for _, gpus in lent} == {"5"}
        without = two.map(tasks.process_and_gpus, [()] * 3)
        assert {gpus for _, gpus in without} == {""}
        assert not {pid for pid, _ in lent} & {pid for pid, _ in without}
        both = two.map(tasks.process_and_gpus, [()] * 3, needs=Needs(1, 2))
        assert {gpus for _, gpus in both} == {"5,7"}

    @pytest.mark.parametrize(
        ("needs", "has"),
        [(Needs(1, 1), "0 GPUs"), (Needs(0, 0, {"device:a": 1}), "no named resources")],
    )
    def test_what_this_computer_lacks_is_told(
        self, two: Processes, monkeypatch: pytest.MonkeyPatch, needs: Needs, has: str
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(WorkersUnavailable, match=f"this computer has {has}"):
            two.map(tasks.add, [(1, 2)], needs=needs)


def test_what_tasks_print_is_no_result_of_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    with Processes(1) as workers:
        workers.map(tasks.speak, [("by the way",)])
    out, err = capfd.readouterr()
    assert "by the way" not in out and "by the way" in err


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 2, "limit_s": 0.0}])
def test_numbers_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Processes(**wrong)


SCRIPT = """
import sys
import standin_tasks as tasks
from phonenas.search.workers import workers_from

def main():
    with workers_from(2) as workers:
        workers.map(tasks.sleep, [(sys.argv[1], n, 4321.0) for n in range(8)])

GUARD
    main()
"""
GUARD = 'if __name__ == "__main__":'


def marked(mark: str) -> list[int]:
    """Processes that were started, by whatever steps, by one with this mark in its environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def script(folder: Path, guard: str, mark: str) -> subprocess.Popen[str]:
    path = folder / "program.py"
    path.write_text(SCRIPT.replace("GUARD", guard))
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, str(path), str(folder)],
        env={**os.environ, "PYTHONPATH": places, MARK: mark},
        start_new_session=True,
        # A test run that a shell started in the background ignores SIGINT, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stopped_program_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    program = script(tmp_path, GUARD, mark)
    try:
        wait_for(
            "two calls",
            lambda: len(list(tmp_path.glob("*.pid"))) >= 2 or program.poll() is not None,
        )
        assert program.poll() is None, program.communicate()
        if how == signal.SIGINT:
            os.killpg(program.pid, how)  # as a terminal does: to all in the foreground
        else:
            program.send_signal(how)
        program.communicate(timeout=PATIENCE_S)
        assert program.returncode != 0
        wait_for("the end of each process", lambda: not marked(mark))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_to_write(tmp_path: Path) -> None:
    program = script(tmp_path, "if True:", uuid.uuid4().hex)
    out, _ = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 1
    assert 'start workers below  if __name__ == "__main__":' in out
