"""Workers: results in order, the first error in order, nobody else's words."""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any

import numpy as np
import pytest
import standin_tasks as tasks

from phonenas.search.ray_map import _places
from phonenas.search.ray_workers import RayWorkers
from phonenas.search.workers import Needs, Serial, Workers, workers_from
from phonenas.space.errors import InvalidArgument, MissingExtra, PhonenasError, TaskFailed


class WorkersContract:
    """The same of every kind of workers."""

    @pytest.fixture
    def workers(self) -> Workers:
        raise NotImplementedError

    def test_results_stand_in_the_order_of_their_arguments(self, workers: Workers) -> None:
        told: dict[int, Any] = {}
        found = workers.map(
            tasks.add, [(n, 0.5) for n in range(9)], on_result=lambda i, r: told.update({i: r})
        )
        assert found == [n + 0.5 for n in range(9)]
        assert told == dict(enumerate(found))

    def test_nothing_to_do_gives_nothing(self, workers: Workers) -> None:
        assert workers.map(tasks.add, []) == []

    def test_what_all_are_given_arrives_with_each(self, workers: Workers) -> None:
        images = np.arange(40_000).reshape(200, 200)
        found = workers.map(tasks.total, [(images, n) for n in range(4)])
        assert [t for t, _ in found] == [int(images.sum()) * n for n in range(4)]

    def test_our_error_comes_as_it_was_raised_and_the_first_in_order(
        self, workers: Workers
    ) -> None:
        with pytest.raises(InvalidArgument, match=r"^2 is refused$") as caught:
            workers.map(tasks.refuse, [(n, (2, 3, 6)) for n in range(8)])
        assert type(caught.value) is InvalidArgument

    def test_what_was_done_before_an_error_is_told(self, workers: Workers) -> None:
        told: list[int] = []
        with pytest.raises(InvalidArgument):
            workers.map(
                tasks.refuse, [(n, (3,)) for n in range(5)], on_result=lambda i, r: told.append(r)
            )
        assert {0, 1, 2} <= set(told) <= {0, 1, 2, 4}

    def test_another_error_names_the_task_and_the_call(self, workers: Workers) -> None:
        with pytest.raises(TaskFailed, match=r"divide failed in call 2 of 3: ZeroDivisionError"):
            workers.map(tasks.divide, [(1, 1), (1, 0), (1, 2)])

    def test_they_go_on_after_an_error(self, workers: Workers) -> None:
        with pytest.raises(PhonenasError):
            workers.map(tasks.divide, [(1, 0)])
        assert workers.map(tasks.divide, [(1, 2)]) == [0.5]

    def test_an_error_where_results_are_taken_is_the_callers(self, workers: Workers) -> None:
        def full(item: int, result: Any) -> None:
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space left"):
            workers.map(tasks.add, [(1, 1), (2, 2)], on_result=full)

    def test_a_task_is_found_by_its_name(self, workers: Workers) -> None:
        def inner() -> int:
            return 1

        for bad in (inner, lambda: 1, functools.partial(tasks.add, 1), [1].count):
            with pytest.raises(InvalidArgument, match="function of a module"):
                workers.map(bad, [()])


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
    assert _places(needs, node) == places


def test_the_words_of_the_command_line_choose_workers() -> None:
    assert isinstance(workers_from(), Serial)
    assert isinstance(workers_from(1), Serial)
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
    with pytest.raises(MissingExtra, match=r"pip install 'phonenas\[cluster\]'"):
        workers_from(2)
