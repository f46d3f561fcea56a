"""RayWorkers: tasks on the processors of this computer or of a Ray cluster.

Ray carries a task to a node that has what it needs and its result back; what it may do with
them is decided here. Nothing of a map is left to Ray's own retries: a call whose worker or node
died is begun anew from here, a bounded number of times, and told of.

Ray is an optional extra and heavy: it is imported when workers are started.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..space.errors import InvalidArgument, MissingExtra, WorkersUnavailable
from .ray_map import RayMap
from .workers import Needs, Repeated, Task, Workers, name_of

__all__ = ["RayWorkers"]

log = logging.getLogger("phonenas")

_STORE_BYTES = 200 * 2**20  # of shared memory for arguments; beyond it Ray writes to its folder
_LONGEST_FOLDER = (
    40  # Ray puts sockets some 60 characters below it, and a socket's path ends at 107
)
_ANSWER_S = 60.0  # for a node to say what is installed there
_LISTENS_S = 5.0
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0"}  # nothing is sent to anybody
_TOKEN, _MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"


class RayWorkers(Workers):
    """Workers on Ray. Lifetime: as for all workers; started by entering or by the first `map`.

    Where this process is connected to Ray already, that connection is used and left open.

    Args:
        address: Of an existing cluster: "auto" for the one that this computer is a node of, or
            HOST:PORT of its head. None starts one on this computer, which ends with `close`.
        count: Calls at a time, ≥ 1. On this computer, where a call counts as one processor
            whatever it needs, the number of processors by default; on a cluster no limit but its
            nodes'.
        patience_s: How long nobody may have what a call needs before that is an error; on this
            computer, where no node will join, it is one at once.
        on_event: Takes a `Repeated` for each call that is begun anew.
    Raises:
        InvalidArgument: count < 1, or an address of another form.
        MissingExtra: Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        count: int | None = None,
        patience_s: float = 60.0,
        on_event: Callable[[Repeated], None] | None = None,
    ) -> None:
        if count is not None and count < 1:
            raise InvalidArgument(f"workers: 1 or more, got {count}")
        if address is not None:
            _check_address(address)
        self.address, self.on_event = address, on_event
        self.count = count or (_processors() if address is None else None)
        self.patience_s = 0.0 if address is None else patience_s
        self._ray = _import_ray()
        self._started = self._connected = False
        self._folder: Path | None = None
        self._before: dict[str, str | None] = {}
        self._known: set[str] = set()

    # -- lifetime -----------------------------------------------------------------------------

    def __enter__(self) -> RayWorkers:
        self.start()
        return self

    def start(self) -> None:
        """Start Ray or connect to it, unless that is done.

        Raises:
            WorkersUnavailable: There is no cluster at the address, or not one like this here.
        """
        if self._started:
            return
        if not self._ray.is_initialized():
            try:
                with _quiet_start():
                    self._init()
            except BaseException:
                self.close()
                raise
        self._started = True
        try:
            self.nodes()
        except BaseException:
            self.close()
            raise

    def _init(self) -> None:
        silent = {"log_to_driver": False, "configure_logging": False}
        _hush(self._ray)
        self._connected = True  # what it started in part must be ended too
        if self.address is None:
            self._folder = Path(tempfile.mkdtemp(prefix="phonenas-", dir=_short_folder()))
            # Ray listens to the network, so whoever asks must know a token: one of our own, lest
            # Ray leave one in the user's home.
            self._before = {name: os.environ.get(name) for name in (_TOKEN, _MODE)}
            os.environ.setdefault(_TOKEN, secrets.token_hex(32))
            _forget_token()
            told = {"num_cpus": self.count, "include_dashboard": False, "address": "local"}
            told |= {"object_store_memory": _STORE_BYTES, "_temp_dir": str(self._folder)}
        else:
            _check_there(self.address)
            told = {"address": self.address}
        try:
            self._ray.init(**silent, **told)
        except Exception as error:
            what = "be started here" if self.address is None else f"be reached at {self.address}"
            first = str(error).strip().split("\n")[0]
            raise WorkersUnavailable(
                f"Ray cannot {what}: {type(error).__name__}: {first} "
                + (
                    "See that there is memory and room in the folder for temporary files."
                    if self.address is None
                    else "Is its head there (ray status), and this computer one of its nodes?  "
                    "ray start --address HOST:PORT"
                )
            ) from error

    def close(self) -> None:
        connected, self._connected = self._connected, False
        self._started = False
        self._known.clear()
        if connected:
            self._ray.shutdown()
        if self._before:
            _restore(self._before)
            self._before = {}
            _forget_token()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # -- work ---------------------------------------------------------------------------------

    def map(
        self,
        task: Task,
        arguments: Sequence[tuple[Any, ...]],
        *,
        needs: Needs | None = None,
        on_result: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        name = name_of(task)
        if not arguments:
            return []
        self.start()
        return RayMap(self, name, task, arguments, self.held(needs or Needs()), on_result).run()

    def held(self, needs: Needs) -> Needs:
        """What a call holds here: on one computer `count` says how many run, so each is one CPU."""
        if self.address is not None or needs.cpus <= 1:
            return needs
        return Needs(1.0, needs.gpus, needs.resources)

    def nodes(self) -> list[Mapping[str, float]]:
        """What each node that is alive has in all, by resource.

        Raises:
            WorkersUnavailable: The cluster does not answer.
            SettingsChanged: A node that joined has other versions than are installed here.
        """
        alive = [n for n in self._ray.nodes() if n["Alive"]]
        new = {
            n["NodeID"]: n["NodeManagerAddress"] for n in alive if n["NodeID"] not in self._known
        }
        if new and self.address is not None:
            self._compare(new)
        self._known |= set(new)
        return [n["Resources"] for n in alive]

    def _compare(self, nodes: Mapping[str, str]) -> None:
        """That nodes have installed what is installed here."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        tell = _teller()
        ask = self._ray.remote(tell)
        asked = {}
        for id in nodes:
            there_alone = NodeAffinitySchedulingStrategy(id, soft=False)
            call = ask.options(num_cpus=0, max_retries=0, scheduling_strategy=there_alone)
            asked[call.remote()] = id
        answered, silent = self._ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        for ref in silent:
            log.warning("node %s does not say what is installed there", nodes[asked[ref]])
        here = tell()
        for ref in answered:
            try:
                there = self._ray.get(ref, timeout=_ANSWER_S)
            except self._ray.exceptions.RayError as error:  # it left again
                log.info("node %s: %s", nodes[asked[ref]], error)
                continue
            unlike = [k for k in here if here[k] and there[k] != here[k]]
            if unlike:
                told = "; ".join(f"{k} {there[k] or 'not installed'} / {here[k]}" for k in unlike)
                raise WorkersUnavailable(
                    f"node {nodes[asked[ref]]} of the Ray cluster differs from this computer: "
                    f"{told} (there / here). Install the same there, in the Python that runs Ray."
                )


def _teller() -> Callable[[], dict[str, str]]:
    """A function that travels whole, so that it can say on a node that phonenas is not there."""

    def tell() -> dict[str, str]:
        import importlib
        import importlib.metadata

        found = {}
        try:
            found["phonenas"] = str(importlib.import_module("phonenas").__version__)
        except ImportError:
            found["phonenas"] = ""
        try:  # builds for other processors and GPUs are one version
            found["torch"] = importlib.metadata.version("torch").partition("+")[0]
        except ImportError:
            found["torch"] = ""
        return found

    return tell


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra(
            "several workers run on Ray, and Ray cannot be imported here. Install it:  "
            "pip install 'phonenas[cluster]', or leave --workers and --ray out"
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
    """That somebody listens: Ray itself would try for minutes."""
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


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _forget_token() -> None:
    """Ray keeps in this process how it was to be asked; the next cluster may be asked otherwise."""
    with contextlib.suppress(ImportError, AttributeError):
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _hush(ray: Any) -> None:
    """Ray tells of lost nodes and workers on stdout, where results go; they are told of here."""
    with contextlib.suppress(AttributeError):
        ray._private.worker._worker_logs_enabled = False


def _processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _short_folder() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _LONGEST_FOLDER - len("/phonenas-12345678") else "/tmp"


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Ray's settings and silence while it starts; afterwards SIGTERM does what it did before."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    words = logging.getLogger("ray")
    level = words.level
    words.setLevel(logging.ERROR)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        words.setLevel(level)
        _restore(before)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
