"""The contract of workers: many independent tasks, done here or on other processors.

The result of a task does not depend on where it ran: it is a function of its arguments alone,
which carry its seed and its number of threads. So the results of all kinds of workers, and the
error if there is one, are those of one process.
"""

from __future__ import annotations

import math
import os
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any

from phonenas.space.errors import InvalidArgument, PhonenasError, TaskFailed

__all__ = [
    "TRIES",
    "Attempt",
    "Calls",
    "Needs",
    "OnResult",
    "Task",
    "Workers",
    "attempt",
    "error_text",
    "name_of",
    "shared_arguments",
    "task_failure",
]

Task = Callable[..., Any]
OnResult = Callable[[int, Any], None]
TRIES = 4  # times that a task is begun whose worker dies each time
_LONGEST = 300  # characters of a foreign error's text
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


@dataclass(frozen=True)
class Needs:
    """What one task holds while it runs; Serial does not check it.

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
        amounts = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return ", ".join(f"{name} {amount:g}" for name, amount in amounts.items() if amount)

    def places(self, node: Mapping[str, float]) -> int:
        """How many such tasks a node with these resources runs at a time, ≥ 0."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        amounts = {name: amount for name, amount in amounts.items() if amount} or {"CPU": 1.0}
        return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in amounts.items())


class Workers(ABC):
    """Lifetime: made, used as a context or `close`d; after that none of its processes is left."""

    @abstractmethod
    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: OnResult | None = None,
    ) -> list[Any]:
        """Do a task once for each tuple of arguments.

        Args:
            task: A function of a module, without side effects that matter: where its worker
                dies it is called again.
            arguments: One tuple for each call: plain values, arrays, sets of images. An object
                that stands in several tuples travels once. A task must not write into its
                arguments.
            needs: What each call holds; one CPU by default.
            on_result: Called in this process with the number of the call and its result when it
                is done, in any order, before the errors of later calls are raised.
        Returns:
            The results, in the order of `arguments`.
        Raises:
            PhonenasError: The error of the first call that failed, first in the order of
                `arguments`; the calls after it that have not begun do not begin.
            TaskFailed: It raised another error, or its worker died each time that it was begun.
            WorkersUnavailable: No worker can do it.
            InvalidArgument: The task is not a function of a module.
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


class Calls(ABC):
    """The calls of one `map`, from the first to the last result. Lifetime: made, `run` once.

    Args:
        name: Of the task, for messages.
        calls: How many there are.
        on_result: As for `Workers.map`.
    """

    def __init__(self, name: str, calls: int, on_result: OnResult | None) -> None:
        self.name, self.calls, self.on_result = name, calls, on_result
        self.results: dict[int, Any] = {}
        self.waiting = deque(range(calls))
        self.running: dict[Any, int] = {}  # the call's number by what its result will come from
        self.error: PhonenasError | None = None  # of the first call that failed, so far
        self.limit = calls  # the number of that call: none after it matters

    def run(self) -> list[Any]:
        """Do all calls; see `Workers.map`."""
        try:
            while self.waiting or self.running:
                self.hand_out()
                self.take()
        finally:
            self.cancel(list(self.running))
        if self.error is not None:
            raise self.error
        return [self.results[item] for item in range(self.calls)]

    @abstractmethod
    def hand_out(self) -> None:
        """Begin as many of the waiting calls as there is room for."""

    @abstractmethod
    def take(self) -> None:
        """Wait for results, a second at most, and take those that are there."""

    @abstractmethod
    def cancel(self, running: Sequence[Any]) -> None:
        """End these calls, keys of `running`, whatever they do."""

    def done(self, item: int, tried: Attempt) -> None:
        """Keep a call's result, or its error."""
        if tried.text:
            error = task_failure(self.name, item, self.calls, tried.text)
            if tried.trace:
                error.add_note(f"On its worker:\n{tried.trace}")
            self.failed(item, error)
        elif tried.error is not None:
            self.failed(item, tried.error)
        else:
            self.results[item] = tried.result
            if self.on_result is not None:
                self.on_result(item, tried.result)

    def died(self, item: int, reason: str) -> None:
        """The worker of a call died each time that it was begun."""
        self.failed(
            item,
            TaskFailed(
                f"{self.name}: call {item + 1} of {self.calls} took its worker down {TRIES} times; "
                f"the last time: {reason}. Look at the memory that it needs, or at it alone with "
                "one worker (leave --workers and --ray out)."
            ),
        )

    def failed(self, item: int, error: PhonenasError) -> None:
        """Keep the error of the first call: calls before it may still fail."""
        if item >= self.limit:
            return
        self.error, self.limit = error, item
        self.waiting = deque(i for i in self.waiting if i < item)
        late = [key for key, i in self.running.items() if i > item]
        self.cancel(late)
        for key in late:
            del self.running[key]


def name_of(task: Task) -> str:
    """The name of a task in messages.

    Raises:
        InvalidArgument: Another process could not find it by its name.
    """
    name = getattr(task, "__qualname__", "")
    owner = getattr(task, "__self__", None)  # of a function written in C: its module
    if not name or "<" in name or not (owner is None or isinstance(owner, ModuleType)):
        raise InvalidArgument(f"a task is a function of a module, got {task!r}")
    return str(name)


def shared_arguments(arguments: Sequence[tuple[Any, ...]]) -> dict[int, Any]:
    """The objects that stand in several tuples, by identity; plain values are left out."""
    objects = {id(a): a for given in arguments for a in given if not isinstance(a, _PLAIN)}
    times = Counter(i for given in arguments for i in {id(a) for a in given})
    return {i: thing for i, thing in objects.items() if times[i] > 1}


def error_text(error: BaseException) -> str:
    """An error's kind and message, on one line, cut where it is very long."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 2] + " …"


@dataclass(frozen=True)
class Attempt:
    """What came of one call, as a value that travels.

    Args:
        result: What the task returned.
        error: Its error, if that is one of phonenas.
        text: The text of any other error; "" where there is none.
        trace: The traceback of that one.
    """

    result: Any = None
    error: PhonenasError | None = None
    text: str = ""
    trace: str = ""


def attempt(task: Task, hide_gpus: bool, *given: Any) -> Attempt:
    """Call a task on its worker; its errors come back as values."""
    if hide_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        return Attempt(task(*given))
    except PhonenasError as error:
        return Attempt(error=error)
    except Exception as error:  # noqa: BLE001 - raised again where the map is
        return Attempt(text=error_text(error), trace=traceback.format_exc())


def task_failure(task: str, item: int, calls: int, text: str) -> TaskFailed:
    """The error for a task that raised a foreign one."""
    return TaskFailed(
        f"{task} failed in call {item + 1} of {calls}: {text}. That is a fault of the task, not of "
        "its worker: look at it with one worker (leave --workers and --ray out)."
    )
