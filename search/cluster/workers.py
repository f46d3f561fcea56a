"""Workers of this computer: one process, or several at a time by the standard library's pool."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from phonenas.space.errors import InvalidArgument, PhonenasError, TaskFailed, WorkersUnavailable

from .base import (
    TRIES,
    Attempt,
    Calls,
    Needs,
    OnResult,
    Task,
    Workers,
    attempt,
    error_text,
    name_of,
    shared_arguments,
    task_failure,
)
from .ray_workers import RayWorkers

__all__ = ["Needs", "Processes", "Serial", "Task", "Workers", "workers_from"]

log = logging.getLogger("phonenas")

_LIMIT_S = 30 * 86_400.0
_WAIT_S, _END_S = 1.0, 10.0


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
        on_result: OnResult | None = None,
    ) -> list[Any]:
        name = name_of(task)
        results = []
        for item, given in enumerate(arguments):
            try:
                result = task(*given)
            except PhonenasError:
                raise
            except Exception as error:
                raise task_failure(name, item, len(arguments), error_text(error)) from error
            results.append(result)
            if on_result is not None:
                on_result(item, result)
        return results


class Processes(Workers):
    """Several processes of this computer. Each is started with the first call that it gets.

    A process that dies (a crash, SIGKILL, too little memory) is replaced, and its call is begun
    again, three times at most. The processes end with `close`, with an error or Ctrl-C that leaves
    `map`, and when this process is gone. What a task prints goes to stderr.

    Python starts each process with the main module, so a script of your own starts workers below
    `if __name__ == "__main__":`.

    Args:
        count: Calls at a time, ≥ 1, whatever number of CPUs they need.
        limit_s: How long one call may run, in seconds, > 0; 30 days by default.
    Raises:
        InvalidArgument: A number outside its range.
    """

    def __init__(self, count: int, *, limit_s: float = _LIMIT_S) -> None:
        if count < 1:
            raise InvalidArgument(f"workers: 1 or more, got {count}")
        if not limit_s > 0:
            raise InvalidArgument(f"a call may run for more than 0 s, got {limit_s:g}")
        self.count, self.limit_s = count, limit_s
        self.idle: list[_Process] = []

    def close(self) -> None:
        while self.idle:
            self.idle.pop().end()

    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: OnResult | None = None,
    ) -> list[Any]:
        name, needs = name_of(task), needs or Needs()
        if not arguments:
            return []
        gpus = _visible_gpus() if needs.gpus else []
        if needs.resources or needs.gpus > len(gpus):
            has = f"{len(gpus)} GPUs" if needs.gpus else "no named resources"
            raise WorkersUnavailable(
                f"{name} needs {needs}, and this computer has {has}. Leave --gpus out to train on "
                "processors, or give a Ray cluster that has it:  --ray ADDRESS"
            )
        return _Map(self, task, arguments, _Gpus(gpus, needs.gpus), on_result).run()


def workers_from(count: int | None = None, ray_address: str | None = None) -> Workers:
    """The workers that `--workers N` and `--ray ADDRESS` ask for.

    Args:
        count: How many tasks run at a time, ≥ 1; None for one, or on a cluster for as many as
            its nodes can run.
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
    if ray_address is not None:
        return RayWorkers(ray_address, count=count)
    return Serial() if count in (None, 1) else Processes(int(count or 1))


@dataclass(frozen=True)
class _Shared:
    """Stands for an argument that several calls are given: each process gets it once."""

    key: int


@dataclass(frozen=True)
class _Running:
    process: _Process
    gpus: tuple[str, ...]
    deadline_s: float


class _Map(Calls):
    """The calls of one `map`.

    Args:
        workers: Whose processes do them.
        task, arguments, on_result: As for `Processes.map`.
        gpus: The computer's GPUs.
    """

    def __init__(
        self,
        workers: Processes,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        gpus: _Gpus,
        on_result: OnResult | None,
    ) -> None:
        super().__init__(name_of(task), len(arguments), on_result)
        self.workers, self.task, self.gpus = workers, task, gpus
        self.token = object()  # tells this map from others
        self.shared = shared_arguments(arguments)
        self.arguments = [
            tuple(_Shared(id(a)) if id(a) in self.shared else a for a in given)
            for given in arguments
        ]
        self.held: dict[Future[Attempt], _Running] = {}
        self.tries = Counter[int]()

    def hand_out(self) -> None:
        while self.waiting and len(self.running) < self.workers.count:
            gpus = self.gpus.lend()
            if gpus is None:
                return
            process = self._process(",".join(gpus))
            item = self.waiting.popleft()
            self.tries[item] += 1
            future = process.pool.submit(_call, self.task, self.arguments[item])
            deadline_s = time.monotonic() + self.workers.limit_s
            self.running[future] = item
            self.held[future] = _Running(process, gpus, deadline_s)

    def _process(self, gpus: str) -> _Process:
        """An idle process that sees these GPUs, or a new one; it has the shared arguments."""
        idle = self.workers.idle
        for dead in [p for p in idle if not p.process.is_alive()]:
            idle.remove(dead)
            dead.kill()
        process: _Process
        if fitting := [p for p in idle if p.gpus == gpus]:
            process = fitting[0]
            idle.remove(process)
        else:
            if idle and len(idle) + len(self.running) >= self.workers.count:
                idle.pop(0).end()
            process = _Process(gpus)
        if process.served is not self.token:
            process.served = self.token
            process.received = process.pool.submit(_receive, self.shared)
        return process

    def take(self) -> None:
        ready, _ = wait(self.running, timeout=_WAIT_S, return_when=FIRST_COMPLETED)
        for future in sorted(ready, key=self.running.__getitem__):
            if future not in self.running:  # it comes after a call that failed just now
                continue
            item, process = self.running.pop(future), self._release(future)
            try:
                process.received.result()
                tried = future.result()
            except BrokenProcessPool:
                self._lost(item, process)
                continue
            except Exception as error:  # noqa: BLE001 - raised while pickling, not by the task
                sent = "its arguments or its result could not be sent between processes"
                tried = Attempt(text=f"{sent} ({error_text(error)})")
            self.workers.idle.append(process)
            self.done(item, tried)
        now = time.monotonic()
        for future in [f for f in self.running if now > self.held[f].deadline_s]:
            if future not in self.running:  # it comes after a call that failed just now
                continue
            self.cancel([future])
            item, limit_h = self.running.pop(future), self.workers.limit_s / 3600
            text = f"{self.name}: call {item + 1} of {self.calls} was ended after {limit_h:.3g} h"
            self.failed(item, TaskFailed(f"{text}. Give it less to do, or a longer limit."))

    def cancel(self, running: Sequence[Future[Attempt]]) -> None:
        for future in running:
            self._release(future).kill()

    def _release(self, future: Future[Attempt]) -> _Process:
        """The process of a call that has ended; its GPUs are free."""
        one = self.held.pop(future)
        self.gpus.take_back(one.gpus)
        return one.process

    def _lost(self, item: int, process: _Process) -> None:
        reason = process.exit_reason()
        if not process.started:
            raise WorkersUnavailable(
                f"a process of --workers did not start: {reason}. Its own text is above. In a "
                'script of your own, start workers below  if __name__ == "__main__":'
            )
        if self.tries[item] < TRIES:
            log.info("%s: call %d is begun again: %s", self.name, item + 1, reason)
            self.waiting.appendleft(item)
        else:
            self.died(item, reason)


class _Gpus:
    """The GPUs of this computer, lent by shares.

    Args:
        names: As `CUDA_VISIBLE_DEVICES` has them.
        share: Which share of one each call holds, or how many, ≥ 0.
    """

    def __init__(self, names: Sequence[str], share: float) -> None:
        self.each, self.count = min(share, 1.0), max(1, int(share))
        self._free = dict.fromkeys(names, 1.0)

    def lend(self) -> tuple[str, ...] | None:
        """Those of one call; None while others hold them."""
        if not self.each:
            return ()
        names = tuple(n for n, free in self._free.items() if free >= self.each - 1e-9)
        if len(names) < self.count:
            return None
        for name in names[: self.count]:
            self._free[name] -= self.each
        return names[: self.count]

    def take_back(self, names: Sequence[str]) -> None:
        """Those of a call that ended."""
        for name in names:
            self._free[name] += self.each


class _Process:
    """A pool of one process, so that its death concerns one call and no other.

    Args:
        gpus: What it sees of CUDA's devices, as `CUDA_VISIBLE_DEVICES` has it: fixed for its life.
    """

    def __init__(self, gpus: str) -> None:
        self.gpus = gpus
        self.served: object = None  # token of the map whose shared arguments it received
        self.received: Future[None]
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, initializer=_set_up, initargs=(gpus,))
        before = set(multiprocessing.active_children())
        self._first = self.pool.submit(os.getpid)
        (self.process,) = set(multiprocessing.active_children()) - before

    @property
    def started(self) -> bool:
        """Whether it ever answered."""
        return self._first.done() and self._first.exception() is None

    def exit_reason(self) -> str:
        """How it ended, for messages."""
        self.pool.shutdown(wait=True)
        code = self.process.exitcode
        if code is None:
            return "its process was lost"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"its process ended with {how}"

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.join(_END_S)
        self.pool.shutdown(wait=True, cancel_futures=True)

    def end(self) -> None:
        """End it once it is idle, or some seconds later by force."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.process.join(_END_S)
        self.kill()


def _set_up(gpus: str) -> None:
    """In a new process, before its first call."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent acts
    os.dup2(2, 1)  # stdout is for the results of the command
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _visible_gpus() -> list[str]:
    """CUDA's devices that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu.strip() for gpu in listed.split(",") if gpu.strip()]
    try:
        import torch
    except ImportError:
        return []
    return [str(number) for number in range(torch.cuda.device_count())]


_shared: dict[int, Any] = {}  # in a worker's process: the shared arguments of the latest map


def _receive(values: dict[int, Any]) -> None:
    """Keep the arguments that several calls of a map are given."""
    _shared.clear()
    _shared.update(values)


def _call(task: Task, given: tuple[Any, ...]) -> Attempt:
    """One call, in its process."""
    return attempt(task, False, *(_shared[a.key] if isinstance(a, _Shared) else a for a in given))
