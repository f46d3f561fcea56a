"""RayMap: the calls of one `map` on Ray, from the first to the last result.

What ends a worker (a crash, SIGKILL, too little memory) or its node does not end the map: the
call is begun anew, at most three times. What nobody can do is told after a while instead of
waited for. Every wait ends within a second, so Ctrl-C is heard.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..space.errors import PhonenasError, TaskFailed, WorkersUnavailable
from .workers import Needs, Repeated, Task, failed, told

if TYPE_CHECKING:
    from .ray_workers import RayWorkers

__all__ = ["RayMap", "attempt", "short"]

log = logging.getLogger("phonenas")

_TRIES = 4
_LESS = " (without --gpus, trainings are done on processors)"
_WAIT_S, _LOOK_S, _GET_S = 1.0, 2.0, 60.0
_AHEAD = 2  # calls handed to Ray for each that can run: none idles while results are taken
_LONGEST = 300  # characters of what Ray says
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


class RayMap:
    """One map. Lifetime: made, `run` once.

    Args:
        workers: Started.
        name: Of the task, for messages.
        task, arguments, on_result: As for `Workers.map`.
        needs: What each call holds on its node.
    """

    def __init__(
        self,
        workers: RayWorkers,
        name: str,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        needs: Needs,
        on_result: Callable[[int, Any], None] | None,
    ) -> None:
        import ray

        self.ray: Any = ray
        self.workers, self.name, self.task = workers, name, task
        self.arguments, self.needs, self.on_result = arguments, needs, on_result
        self.results: dict[int, Any] = {}
        self.waiting = deque(range(len(arguments)))
        self.running: dict[Any, int] = {}  # by Ray's reference to the result
        self.tries = Counter[int]()
        self.error: PhonenasError | None = None  # of the first call that failed, so far
        self.limit = len(arguments)  # that call: none after it matters
        self.capacity = 0
        self.helpless_since: float | None = None
        self.looked_s = -math.inf
        self.call = self.ray.remote(attempt).options(
            name=name,
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            resources=dict(needs.resources),
            max_retries=0,
        )

    def run(self) -> list[Any]:
        """Do all of it; see `Workers.map`."""
        try:
            self.shared = self._share()
            while self.waiting or self.running:
                self._look()
                self._hand_out()
                self._take()
        except self.ray.exceptions.RayError as error:
            self._cluster_lost(error)
        finally:
            self._cancel(list(self.running))
        if self.error is not None:
            raise self.error
        return [self.results[item] for item in range(len(self.arguments))]

    # -- handing out --------------------------------------------------------------------------

    def _share(self) -> dict[int, Any]:
        """References to what several calls are given, by identity: it travels once."""
        found = {id(g): g for given in self.arguments for g in given if not isinstance(g, _PLAIN)}
        times = Counter(i for given in self.arguments for i in {id(g) for g in given})
        return {i: self.ray.put(thing) for i, thing in found.items() if times[i] > 1}

    def _hand_out(self) -> None:
        while self.waiting and len(self.running) < self.capacity:
            item = self.waiting.popleft()
            self.tries[item] += 1
            given = [self.shared.get(id(g), g) for g in self.arguments[item]]
            self.running[self.call.remote(self.task, not self.needs.gpus, *given)] = item

    def _look(self) -> None:
        """Every few seconds: how many calls the nodes can take, and whether any can."""
        now = time.monotonic()
        if now - self.looked_s < _LOOK_S:
            return
        self.looked_s = now
        nodes = self.workers.nodes()
        places = sum(_places(self.needs, node) for node in nodes)
        count = self.workers.count
        if count is not None:
            places = min(places, count)
        # A limit that the user gave on a cluster is one on what runs, so nothing is handed ahead.
        ahead = _AHEAD if self.workers.address is None or count is None else 1
        self.capacity = ahead * places
        if places:
            self.helpless_since = None
            return
        self.helpless_since = self.helpless_since or now
        if now - self.helpless_since >= self.workers.patience_s:
            raise WorkersUnavailable(
                f"{self.name} needs {self.needs} on one node, and none of {len(nodes)} has that: "
                f"{'; '.join(map(_told, nodes))}. Start a node that does (ray start --address "
                f"HOST:PORT --num-gpus N --resources JSON), or ask for less{_LESS if self.needs.gpus else ''}."
            )

    # -- taking back --------------------------------------------------------------------------

    def _take(self) -> None:
        if not self.running:
            time.sleep(_WAIT_S)
            return
        errors = self.ray.exceptions
        lost_on_the_way = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.GetTimeoutError,
        )
        ready, _ = self.ray.wait(list(self.running), timeout=_WAIT_S)
        for ref in ready:
            item = self.running.pop(ref)
            try:
                # A copy: writable as in one process, and nothing of Ray's store is held by it.
                result, error, words, trace = copy.deepcopy(self.ray.get(ref, timeout=_GET_S))
            except lost_on_the_way as lost:
                self._again(item, short(lost))
                continue
            except errors.RayTaskError as untold:  # before the task began, or after it ended
                result, error, words, trace = None, None, _untold(untold), ""
            if words:
                error = failed(self.name, item, len(self.arguments), words)
                if trace:
                    error.add_note(f"On its worker:\n{trace}")
            if error is not None:
                self._failed(item, error)
                continue
            self.results[item] = result
            if self.on_result is not None:
                self.on_result(item, result)

    def _again(self, item: int, reason: str) -> None:
        if item > self.limit:
            return
        if self.tries[item] < _TRIES:
            log.info("%s: call %d is begun anew: %s", self.name, item + 1, reason)
            self.waiting.appendleft(item)
            self.looked_s = -math.inf  # there may be fewer nodes now
            if self.workers.on_event is not None:
                self.workers.on_event(Repeated(item, self.tries[item], reason))
            return
        message = (
            f"{self.name}: call {item + 1} of {len(self.arguments)} took its worker down {_TRIES} "
            f"times, at last so: {reason}. Look at the memory that it needs, or at it alone with one "
            "worker (leave --workers and --ray out)."
        )
        self._failed(item, TaskFailed(message))

    def _failed(self, item: int, error: PhonenasError) -> None:
        """Keep the error of the first call: those before it may still fail, no later one counts."""
        if item >= self.limit:
            return
        self.error, self.limit = error, item
        self.waiting = deque(i for i in self.waiting if i < item)
        late = [ref for ref, i in self.running.items() if i > item]
        self._cancel(late)
        for ref in late:
            del self.running[ref]

    def _cancel(self, refs: Sequence[Any]) -> None:
        for ref in refs:
            try:
                self.ray.cancel(ref, force=True)
            except Exception as error:  # noqa: BLE001 - the rest must be ended all the same
                log.debug("a call cannot be cancelled: %s", error)

    def _cluster_lost(self, error: Exception) -> NoReturn:
        raise WorkersUnavailable(
            f"the Ray cluster does not go on with {self.name}: {short(error)}. Look at it (ray "
            "status), then give the same command again."
        ) from error


def attempt(task: Task, hide: bool, *given: Any) -> tuple[Any, PhonenasError | None, str, str]:
    """On the worker: the result; or what went wrong as a value, to which Ray adds nothing.

    Returns:
        The result, the error if it is one of phonenas's, the words of any other, and its trace.
    """
    if hide:  # who asked for no GPU gets none; Ray keeps other workers for those who did
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        return task(*given), None, "", ""
    except PhonenasError as error:
        return None, error, "", ""
    except Exception as error:  # noqa: BLE001 - told of where the map is
        return None, None, told(error), traceback.format_exc()


def _untold(error: Exception) -> str:
    """What kept a call from beginning, or its result from coming back: Ray's last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"it could not be brought to its worker and back ({lines[-1] if lines else 'no words'})"


def short(error: Exception) -> str:
    """An error on one line, and not all of a long one."""
    words = told(error)
    return words.rstrip(".") if len(words) <= _LONGEST else words[: _LONGEST - 2] + " …"


def _places(needs: Needs, node: Mapping[str, float]) -> int:
    """How many calls a node can take at a time."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, **needs.resources}
    wanted = {name: amount for name, amount in wanted.items() if amount} or {"CPU": 1.0}
    return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items())


def _told(node: Mapping[str, float]) -> str:
    """A node's resources, without those that Ray adds of its own."""
    own = ("memory", "object_store_memory", "node:", "accelerator_type:")
    shown = sorted((k, v) for k, v in node.items() if not k.startswith(own))
    return ", ".join(f"{k} {v:g}" for k, v in shown) or "nothing"
