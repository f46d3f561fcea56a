"""RayWorkers: tasks on the nodes of a Ray cluster.

Ray carries a task to a node that has what it needs, begins it again where a worker or a node died
under it, and brings its result back. Limits, the order of errors and their texts are decided here.
What no node can do is an error after a while. Every wait ends within a second, so that Ctrl-C acts.

Ray is an optional extra and slow to import: it is imported when workers are made.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from phonenas.space.errors import InvalidArgument, MissingExtra, WorkersUnavailable, install

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
)

__all__ = ["RayWorkers"]

log = logging.getLogger("phonenas")

_ANSWER_S = 60.0  # for a node to say what is installed there
_LISTENS_S = 5.0
_LESS = " (without --gpus, trainings are done on processors)"
_WAIT_S, _LOOK_S, _GET_S = 1.0, 2.0, 60.0
_OWN = ("memory", "object_store_memory", "node:", "accelerator_type:")  # resources that Ray adds


class RayWorkers(Workers):
    """Workers on a Ray cluster. Connected by entering or by the first `map`.

    Where this process is connected to Ray already, that connection is used and left open.

    Args:
        address: "auto" for the cluster that this computer is a node of, or HOST:PORT of its head.
        count: Calls at a time, ≥ 1; no limit but the nodes' by default.
        patience_s: How long no node may have what a call needs before that is an error.
    Raises:
        InvalidArgument: count < 1, or an address of another form.
        MissingExtra: Ray is not installed.
    """

    def __init__(self, address: str, *, count: int | None = None, patience_s: float = 60.0) -> None:
        if count is not None and count < 1:
            raise InvalidArgument(f"workers: 1 or more, got {count}")
        _check_address(address)
        self.address, self.count, self.patience_s = address, count, patience_s
        self.ray = _import_ray()
        self._started = self._connected = False
        self._known: set[str] = set()
        self._stdout: Any = None

    # -- lifetime -----------------------------------------------------------------------------

    def __enter__(self) -> RayWorkers:
        self.start()
        return self

    def start(self) -> None:
        """Connect to the cluster, unless that is done.

        Raises:
            WorkersUnavailable: There is no cluster at the address, or one that differs from here.
        """
        if self._started:
            return
        try:
            if not self.ray.is_initialized():
                _check_there(self.address)
                self._connected = True  # a connection that fails half-way must be ended too
                with _quiet_start():
                    self._connect()
                self._stdout, sys.stdout = sys.stdout, _MainThreadOnly(sys.stdout)
            self._started = True
            self.nodes()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        try:
            self.ray.init(address=self.address, log_to_driver=False, configure_logging=False)
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            raise WorkersUnavailable(
                f"Ray cannot be reached at {self.address}: {type(error).__name__}: {first} Is its "
                "head there (ray status), and this computer one of its nodes?  "
                "ray start --address HOST:PORT"
            ) from error

    def close(self) -> None:
        connected, self._connected = self._connected, False
        self._started = False
        self._known.clear()
        if connected:
            # Ray keeps repeated messages back, and writes them to stdout here, in this thread.
            with contextlib.redirect_stdout(sys.stderr):
                self.ray.shutdown()
        if isinstance(sys.stdout, _MainThreadOnly) and self._stdout is not None:
            sys.stdout = self._stdout
        self._stdout = None

    # -- work ---------------------------------------------------------------------------------

    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: OnResult | None = None,
    ) -> list[Any]:
        name_of(task)
        if not arguments:
            return []
        self.start()
        return _Map(self, task, arguments, needs or Needs(), on_result).run()

    def nodes(self) -> list[Mapping[str, float]]:
        """What each node that is alive has in all, by resource.

        Raises:
            WorkersUnavailable: The cluster does not answer, or a node that joined has other
                versions than are installed here.
        """
        alive = [n for n in self.ray.nodes() if n["Alive"]]
        addresses = {n["NodeID"]: n["NodeManagerAddress"] for n in alive}
        new = {node: where for node, where in addresses.items() if node not in self._known}
        if new:
            self._compare(new)
        self._known |= set(new)
        return [n["Resources"] for n in alive]

    def _compare(self, nodes: Mapping[str, str]) -> None:
        """Check that nodes have installed what is installed here."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        tell = _teller()
        remote = self.ray.remote(tell)
        asked = {}
        for node in nodes:
            there_alone = NodeAffinitySchedulingStrategy(node, soft=False)
            call = remote.options(num_cpus=0, max_retries=0, scheduling_strategy=there_alone)
            asked[call.remote()] = node
        answered, silent = self.ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        for ref in silent:
            log.warning(
                "node %s of the Ray cluster did not say within %d s which versions are installed "
                "there; tasks may fail on it. Look at it:  ray status",
                nodes[asked[ref]],
                _ANSWER_S,
            )
        here = tell()
        for ref in answered:
            try:
                there = self.ray.get(ref, timeout=_ANSWER_S)
            except self.ray.exceptions.RayError as error:
                where = nodes[asked[ref]]
                log.warning("node %s left the Ray cluster: %s", where, error_text(error))
                continue
            unlike = [k for k in here if here[k] and there[k] != here[k]]
            if unlike:
                pairs = "; ".join(f"{k} {there[k] or 'not installed'} / {here[k]}" for k in unlike)
                raise WorkersUnavailable(
                    f"node {nodes[asked[ref]]} of the Ray cluster differs from this computer: "
                    f"{pairs} (there / here). Install the same there, in the Python that runs Ray."
                )


class _Map(Calls):
    """The calls of one `map` on Ray.

    Args:
        workers: Connected.
        task, arguments, needs, on_result: As for `Workers.map`.
    """

    def __init__(
        self,
        workers: RayWorkers,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        needs: Needs,
        on_result: OnResult | None,
    ) -> None:
        super().__init__(name_of(task), len(arguments), on_result)
        self.workers, self.ray, self.task = workers, workers.ray, task
        self.arguments, self.needs = arguments, needs
        self.capacity = 0
        self.helpless_since: float | None = None
        self.looked_s = -math.inf
        self.shared: dict[int, Any] = {}
        self.call = self.ray.remote(attempt).options(
            name=self.name,
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            resources=dict(needs.resources),
            max_retries=TRIES - 1,
        )

    def run(self) -> list[Any]:
        try:
            values = shared_arguments(self.arguments)
            self.shared = {identity: self.ray.put(value) for identity, value in values.items()}
            return super().run()
        except self.ray.exceptions.RayError as error:
            raise WorkersUnavailable(
                f"the Ray cluster does not go on with {self.name}: {_short(error)}. Look at it "
                "(ray status), then give the same command again."
            ) from error

    def hand_out(self) -> None:
        self._look()
        while self.waiting and len(self.running) < self.capacity:
            item = self.waiting.popleft()
            given = [self.shared.get(id(a), a) for a in self.arguments[item]]
            self.running[self.call.remote(self.task, not self.needs.gpus, *given)] = item

    def _look(self) -> None:
        """Every few seconds: how many calls the nodes can run, and whether any can."""
        now = time.monotonic()
        if now - self.looked_s < _LOOK_S:
            return
        self.looked_s = now
        nodes = self.workers.nodes()
        places = sum(map(self.needs.places, nodes))
        # Two for each place, so that no node waits while results are taken; but a limit that the
        # user gave is one on what runs.
        self.capacity = 2 * places if self.workers.count is None else self.workers.count
        if places:
            self.helpless_since = None
            return
        self.helpless_since = self.helpless_since or now
        if now - self.helpless_since >= self.workers.patience_s:
            raise WorkersUnavailable(
                f"{self.name} needs {self.needs} on one node, and none of {len(nodes)} has that: "
                f"{'; '.join(map(_resources, nodes))}. Start a node that does (ray start --address "
                f"HOST:PORT --num-gpus N --resources JSON), or ask for "
                f"less{_LESS if self.needs.gpus else ''}."
            )

    def take(self) -> None:
        if not self.running:
            time.sleep(_WAIT_S)
            return
        errors = self.ray.exceptions
        deaths = (
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
                tried = copy.deepcopy(self.ray.get(ref, timeout=_GET_S))
            except deaths as error:
                self.died(item, _short(error))
                continue
            except errors.RayTaskError as error:  # before the task began, or after it ended
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                last = lines[-1] if lines else "no reason given"
                tried = Attempt(
                    text=f"its arguments or its result could not be sent between processes ({last})"
                )
            self.done(item, tried)

    def cancel(self, running: Sequence[Any]) -> None:
        for ref in running:
            try:
                self.ray.cancel(ref, force=True)
            except Exception as error:  # noqa: BLE001 - the rest must be ended all the same
                log.debug("a call cannot be cancelled: %s", error)


def _short(error: Exception) -> str:
    return error_text(error).rstrip(".")


def _resources(node: Mapping[str, float]) -> str:
    """A node's resources, without those that Ray adds of its own."""
    given = sorted((k, v) for k, v in node.items() if not k.startswith(_OWN))
    return ", ".join(f"{k} {v:g}" for k, v in given) or "nothing"


def _teller() -> Callable[[], dict[str, str]]:
    """A function that travels whole, so that it runs on a node without phonenas, too."""

    def tell() -> dict[str, str]:
        import importlib.metadata

        versions = {}
        for package in ("phonenas", "torch"):
            try:  # builds of torch for other processors and GPUs are one version
                versions[package] = importlib.metadata.version(package).partition("+")[0]
            except ImportError:
                versions[package] = ""
        return versions

    return tell


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra(
            "--ray needs Ray, which cannot be imported here. Install it:  "
            f"{install('cluster')}, or leave --ray out; --workers does without Ray"
        ) from error
    return ray


def _check_address(address: str) -> None:
    if address.startswith("ray://"):
        raise InvalidArgument(
            f"--ray {address}: Ray's client is not used. Make this computer a node of the cluster, "
            "one without work if you like, and name it auto:  ray start --address HOST:6379 "
            "--num-cpus 0"
        )
    if address != "auto" and not re.fullmatch(
        r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address
    ):
        raise InvalidArgument(
            f"--ray takes auto or the HOST:PORT of a cluster's head, got {address!r}"
        )


def _check_there(address: str) -> None:
    """Check that the port answers: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_S).close()
    except (OSError, OverflowError, ValueError) as error:
        raise WorkersUnavailable(
            f"no Ray cluster can be reached at {address}: {error}. Start its head there (ray start "
            "--head --port 6379), or name the one that this computer is a node of:  --ray auto"
        ) from error


class _MainThreadOnly:
    """Stdout while Ray is connected: Ray's threads write to it when a node or a worker is lost.

    Stdout is for the results of the command, so what other threads than the main one write goes
    to stderr.
    """

    def __init__(self, stdout: Any) -> None:
        self._within = stdout

    def __getattr__(self, name: str) -> Any:
        main = threading.current_thread() is threading.main_thread()
        return getattr(self._within if main else sys.stderr, name)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Silence while Ray connects; afterwards SIGTERM does what it did before."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        logger.setLevel(level)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
