"""Workers: many independent tasks, done here or on other processors, told in order.

What a task gives does not depend on where it ran: it is a function of its arguments alone,
which carry its seed and its number of threads. So whichever workers do the work, the results,
and the error if there is one, are those of one process.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any

from ..space.errors import InvalidArgument, PhonenasError, TaskFailed

__all__ = ["Needs", "Repeated", "Serial", "Task", "Workers", "workers_from"]

Task = Callable[..., Any]


@dataclass(frozen=True)
class Needs:
    """What one task holds while it runs; Serial has one of everything and does not look.

    Args:
        cpus: Processors, ≥ 0. They are counted, not pinned: a task sets its own threads.
        gpus: GPUs, ≥ 0: a share below 1, so that several tasks have one GPU together, or a
            whole number. A task with 0 sees none.
        resources: Named things of a node, as {"device:pixel6": 1}, each > 0.
    Raises:
        InvalidArgument: A number outside its range, or a GPU and a half.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, amount in {"CPU": self.cpus, "GPU": self.gpus, **self.resources}.items():
            least = "0 or more" if name in ("CPU", "GPU") else "above 0"
            if not math.isfinite(amount) or amount < 0 or (least == "above 0" and not amount):
                raise InvalidArgument(f"a task's share of {name} is {least}, got {amount:g}")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise InvalidArgument(
                f"a task takes a share of one GPU or whole ones, got {self.gpus:g}"
            )

    def __str__(self) -> str:
        wanted = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return ", ".join(f"{name} {amount:g}" for name, amount in wanted.items() if amount)


@dataclass(frozen=True)
class Repeated:
    """Event: a worker or its node died under a task, which is done anew elsewhere.

    Args:
        item: Which task, from 0.
        tries: How many times it was begun before.
        reason: What became of them.
    """

    item: int
    tries: int
    reason: str


class Workers(ABC):
    """Who does tasks. Lifetime: made, used as a context or `close`d; after that no process is left."""

    @abstractmethod
    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        """Do a task once for each tuple of arguments.

        Args:
            task: A function of a module, without side effects that matter: where its worker
                dies it is called again.
            arguments: One tuple for each call: plain values, arrays, sets of images. One and the
                same object in several tuples travels once. A task must not write into its
                arguments.
            needs: What each call holds; one CPU by default.
            on_result: Called here with the number of the call and its result as each is done, in
                any order, before the errors of later ones are raised.
        Returns:
            The results, in the order of `arguments`.
        Raises:
            PhonenasError: What the first call that failed raised, first in the order of
                `arguments`; no call after it is begun any more.
            TaskFailed: It raised another error, or its worker died under it again and again.
            WorkersUnavailable: There is nobody to do it.
            InvalidArgument: The task is no function of a module.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """End what was started; bounded in time."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Serial(Workers):
    """This process, one task after the other.

    >>> from math import hypot
    >>> Serial().map(hypot, [(3, 4), (6, 8)])
    [5.0, 10.0]
    """

    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        name = name_of(task)
        results = []
        for item, given in enumerate(arguments):
            try:
                result = task(*given)
            except PhonenasError:
                raise
            except Exception as error:
                raise failed(name, item, len(arguments), told(error)) from error
            results.append(result)
            if on_result is not None:
                on_result(item, result)
        return results


def workers_from(count: int | None = None, ray_address: str | None = None) -> Workers:
    """The workers that `--workers N` and `--ray ADDRESS` ask for.

    Args:
        count: How many tasks run at a time, ≥ 1; None for one, or on a cluster for as many as
            it can take.
        ray_address: Of a Ray cluster: "auto" for the one that this computer is a node of, or
            HOST:PORT of its head. None for this computer alone.
    Returns:
        Not started yet: enter it, or let the first `map` do so.
    Raises:
        InvalidArgument: count < 1, or no address.
        MissingExtra: Ray is needed and not installed.
    """
    if count is not None and count < 1:
        raise InvalidArgument(f"workers: 1 or more, got {count}")
    if ray_address is None and count in (None, 1):
        return Serial()
    from .ray_workers import RayWorkers

    return RayWorkers(ray_address, count=count)


def name_of(task: Task) -> str:
    """What a task is called in messages.

    Raises:
        InvalidArgument: Another process could not find it by its name.
    """
    name = getattr(task, "__qualname__", "")
    owner = getattr(task, "__self__", None)  # of a function written in C: its module
    if not name or "<" in name or not (owner is None or isinstance(owner, ModuleType)):
        raise InvalidArgument(f"a task is a function of a module, got {task!r}")
    return str(name)


def told(error: BaseException) -> str:
    """An error's kind and words, on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def failed(task: str, item: int, of: int, words: str) -> TaskFailed:
    """What becomes of an error that is none of phonenas's."""
    return TaskFailed(
        f"{task} failed in call {item + 1} of {of}: {words}. That is a fault of the task, not of "
        "its worker: look at it with one worker (leave --workers and --ray out)."
    )
