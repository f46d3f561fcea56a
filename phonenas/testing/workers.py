"""The contract of workers as a test class, and workers for tests."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from phonenas.search.cluster.base import (
    Needs,
    OnResult,
    Task,
    Workers,
    error_text,
    name_of,
    task_failure,
)
from phonenas.space.errors import InvalidArgument, PhonenasError, TaskFailed

__all__ = ["LastFirst", "WorkersContract"]


class LastFirst(Workers):
    """A fake: this process does the last call first, so that results come in another order.

    Attributes:
        calls: The arguments of each call, as they were done.
        needs: What the latest `map` asked for.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.needs: Needs | None = None

    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: OnResult | None = None,
    ) -> list[Any]:
        name, self.needs = name_of(task), needs
        results: list[Any] = [None] * len(arguments)
        first: Exception | None = None
        for item in reversed(range(len(arguments))):
            self.calls.append(arguments[item])
            try:
                results[item] = task(*arguments[item])
            except PhonenasError as error:
                first = error
                continue
            except Exception as error:  # noqa: BLE001 - raised below, if it is the first
                first = task_failure(name, item, len(arguments), error_text(error))
                continue
            if on_result is not None:
                on_result(item, results[item])
        if first is not None:
            raise first
        return results


def add(a: float, b: float) -> float:
    """A task: the sum."""
    return a + b


def refuse(number: int, refused: tuple[int, ...]) -> int:
    """A task: the number, or an error of phonenas for some."""
    if number in refused:
        raise InvalidArgument(f"{number} is refused")
    return number


def divide(a: int, b: int) -> float:
    """A task: the quotient, or a foreign error."""
    return a / b


def total(values: Any, factor: int) -> int:
    """A task: a multiple of the sum of an array."""
    return int(values.sum()) * factor


class WorkersContract:
    """Workers give results in order, and the first error in order, as one process does.

    Give `workers`; they are closed by the test class.
    """

    @pytest.fixture
    def workers(self) -> Workers:
        """The workers under test, with room for two calls or more, or for one at a time."""
        raise NotImplementedError

    def test_results_are_in_the_order_of_their_arguments(self, workers: Workers) -> None:
        results: dict[int, Any] = {}
        returned = workers.map(
            add, [(n, 0.5) for n in range(9)], on_result=lambda i, r: results.update({i: r})
        )
        assert returned == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]
        assert results == dict(enumerate(returned))

    def test_nothing_to_do_gives_nothing(self, workers: Workers) -> None:
        assert workers.map(add, []) == []

    def test_an_argument_shared_by_all_calls_reaches_each(self, workers: Workers) -> None:
        images = np.arange(40_000).reshape(200, 200)
        totals = workers.map(total, [(images, n) for n in range(4)])
        assert totals == [0, 799_980_000, 1_599_960_000, 2_399_940_000]

    def test_the_first_error_of_phonenas_in_order_is_raised_unchanged(
        self, workers: Workers
    ) -> None:
        with pytest.raises(InvalidArgument, match=r"^2 is refused$") as caught:
            workers.map(refuse, [(n, (2, 3, 6)) for n in range(8)])
        assert type(caught.value) is InvalidArgument

    def test_results_before_an_error_reach_on_result(self, workers: Workers) -> None:
        results: list[int] = []
        with pytest.raises(InvalidArgument):
            workers.map(
                refuse, [(n, (3,)) for n in range(5)], on_result=lambda i, r: results.append(r)
            )
        assert {0, 1, 2} <= set(results) <= {0, 1, 2, 4}

    def test_another_error_names_the_task_and_the_call(self, workers: Workers) -> None:
        with pytest.raises(TaskFailed, match=r"divide failed in call 2 of 3: ZeroDivisionError"):
            workers.map(divide, [(1, 1), (1, 0), (1, 2)])

    def test_workers_can_be_used_after_an_error(self, workers: Workers) -> None:
        with pytest.raises(PhonenasError):
            workers.map(divide, [(1, 0)])
        assert workers.map(divide, [(1, 2)]) == [0.5]

    def test_an_error_in_on_result_reaches_the_caller(self, workers: Workers) -> None:
        def full(item: int, result: Any) -> None:
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space left"):
            workers.map(add, [(1, 1), (2, 2)], on_result=full)

    def test_a_task_must_be_a_function_of_a_module(self, workers: Workers) -> None:
        def inner() -> int:
            return 1

        for bad in (inner, lambda: 1, functools.partial(add, 1), [1].count):
            with pytest.raises(InvalidArgument, match="function of a module"):
                workers.map(bad, [()])
