"""Devices of a Ray cluster: each on the node that it is connected to, used from here.

A node names its devices when it joins, as resources:
`ray start --address HOST:PORT --resources '{"device:pixel6": 1}'`. That node's own devices.toml
says how each is reached. The job runs here, with its rules and its store, as for a device of this
computer.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from phonenas.data.files import TemporaryFolder
from phonenas.data.measurement import Conditions, Startup
from phonenas.devices import Device, DeviceState, Job, Reading, connect
from phonenas.space.errors import (
    DeviceError,
    DeviceUnavailable,
    InvalidArgument,
    PhonenasError,
    UnknownName,
)
from phonenas.space.lowering.write import Measurable
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.ort_file import OrtFile
from phonenas.space.precision import FLOAT32
from phonenas.space.tflite_file import TfliteFile

from .base import Attempt, Workers, attempt, error_text
from .ray_workers import RayWorkers

__all__ = ["DeviceOnNode", "device_on", "resource_of"]

log = logging.getLogger("phonenas")

_FREE_S, _LEAVE_S = 60.0, 60.0  # for the node to lend it; to end what runs there
_ANSWER_S, _RUN_S = 300.0, 3600.0  # beyond the device's own limits: they should never be reached
_WAIT_S = 1.0
_ROOM_BYTES = 512 << 20  # of models on the node


def resource_of(device: str) -> str:
    """What a node that holds a device calls it among its resources."""
    return f"device:{device}"


def device_on(
    workers: Workers, name: str, *, threads: int | None = None, precision: str | None = None
) -> Device:
    """A device by its name, wherever it is.

    Args:
        workers: On a Ray cluster a node of it may hold the device; else it is one of this
            computer, as it is where no node holds it.
        name, threads, precision: As for `devices.connect`.
    Returns:
        To be entered and used like any device, by `profile`, `measure`, `validate` or a pool.
    Raises:
        UnknownName: No device bears this name, here or among the nodes' resources.
        WorkersUnavailable: The cluster cannot be reached.
    """
    if not isinstance(workers, RayWorkers):
        return connect(name, threads=threads, precision=precision)
    workers.start()
    if any(resource_of(name) in node for node in workers.nodes()):
        return DeviceOnNode(workers, name, threads=threads, precision=precision)
    try:
        return connect(name, threads=threads, precision=precision)
    except UnknownName as error:
        raise UnknownName(
            f"{error} No node of the Ray cluster holds it either; one that does says so:  "
            f"ray start --address HOST:PORT --resources '{{\"{resource_of(name)}\": 1}}'"
        ) from error


class DeviceOnNode(Device):
    """A device on the node of a Ray cluster that holds it. Lifetime: as for every device.

    A node lends it to one job at a time. When the node, or the process there, is lost, so is the
    device: `DeviceUnavailable`, after which it may be entered again.

    Args:
        workers: Started, on a cluster.
        name, threads, precision: As for `devices.connect`, on that node.
    """

    def __init__(
        self,
        workers: RayWorkers,
        name: str,
        *,
        threads: int | None = None,
        precision: str | None = None,
    ) -> None:
        import ray

        self._ray: Any = ray
        self.name, self._workers, self._settings = name, workers, (threads, precision)
        self._holder: Any = None
        self._own_clock: bool | None = None  # not known yet
        self._conditions: Conditions | None = None
        self._entered = False
        self._there: dict[tuple[str, int, int], int] = {}  # models on the node, the oldest first

    # -- lifetime -----------------------------------------------------------------------------

    def __enter__(self) -> DeviceOnNode:
        try:
            self._conditions, self.phone = self._ask("enter")
        except BaseException:
            self._release()
            raise
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._holder is not None:
            try:
                self._ask("leave", limit_s=_LEAVE_S)
            except PhonenasError as failure:
                log.warning("%s was not left properly: %s", self.name, failure)
        self._release()

    def _release(self) -> None:
        """Give it back to its node."""
        self._entered = False
        self._there.clear()
        if not self._own_clock:  # its own clock would start at 0 in another process
            self._drop()

    def _drop(self) -> None:
        self._entered = False
        holder, self._holder = self._holder, None
        self._there.clear()
        if holder is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(holder)

    def _ask(self, verb: str, *given: Any, limit_s: float = _ANSWER_S) -> Any:
        """Call a method of the holder, or of the device, on the node.

        Raises:
            DeviceUnavailable: The node or the process on it is lost, or does not answer.
            PhonenasError: What the device itself raised there.
        """
        if self._holder is None:
            self._hold()
        return self._answer(self._holder.ask.remote(verb, *given), limit_s, self._silent)

    def _hold(self) -> None:
        """Have the node connect to it; its resource is ours until `_drop`."""
        holder = self._ray.remote(_Holder).options(
            num_cpus=0, resources={resource_of(self.name): 1}, max_restarts=0
        )
        self._holder = holder.remote(self.name, *self._settings)
        try:
            facts = self._answer(self._holder.ask.remote("facts"), _FREE_S, self._not_lent)
        except BaseException as error:
            self._drop()
            if isinstance(error, PhonenasError) and not isinstance(error, DeviceUnavailable):
                raise type(error)(f"on the node that holds {self.name}: {error}") from error
            raise
        self.wait_below_c, self._own_clock = facts

    def _answer(self, ref: Any, limit_s: float, silent: Any) -> Any:
        deadline = time.monotonic() + limit_s
        try:
            while not self._ray.wait([ref], timeout=_WAIT_S)[0]:
                if time.monotonic() > deadline:
                    raise DeviceUnavailable(silent())
            tried: Attempt = self._ray.get(ref, timeout=_ANSWER_S)
        except self._ray.exceptions.RayError as lost:
            self._drop()
            raise DeviceUnavailable(
                f"{self.name} was lost with the node that holds it, or with the process there: "
                f"{error_text(lost).rstrip('.')}. Look at the cluster (ray status) and at the "
                "cable; the same command goes on from there."
            ) from lost
        except DeviceUnavailable:
            self._drop()
            raise
        if tried.error is not None:
            raise tried.error
        if tried.text:
            failure = DeviceError(f"{self.name}, on the node that holds it: {tried.text}")
            failure.add_note(f"There:\n{tried.trace}")
            raise failure
        return tried.result

    def _silent(self) -> str:
        return (
            f"the node that holds {self.name} did not answer in time. See whether it is alive (ray "
            "status) and what runs on it, then give the same command again."
        )

    def _not_lent(self) -> str:
        nodes = self._workers.nodes()
        if any(resource_of(self.name) in node for node in nodes):
            return (
                f"{self.name} is in use: its node lends it to one job at a time. Wait for the "
                "other job, then give the command again."
            )
        return (
            f"no node of the Ray cluster holds {self.name} any more. Let its node join again, then "
            "give the same command again:  ray start --address HOST:PORT --resources "
            f"'{{\"{resource_of(self.name)}\": 1}}'"
        )

    # -- the contract -------------------------------------------------------------------------

    @property
    def conditions(self) -> Conditions:
        if self._conditions is None:
            raise DeviceUnavailable(f"{self.name}'s conditions are known once it is entered")
        return self._conditions

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self._ask("may_be"))

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        content = b""
        if isinstance(model, OnnxFile | OrtFile | TfliteFile):
            if model.inputs is not None:
                raise InvalidArgument("--input: a device of another computer has random inputs")
            with TemporaryFolder() as folder:
                content = model.write(folder / "given.onnx").read_bytes()
        ending, written = self._ask("lower", model, content, precision)
        path = stem.with_name(stem.name + ending)
        path.write_bytes(written)
        return path

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        if not self._entered:
            raise DeviceUnavailable(f"{self.name} is not entered, or was lost: enter it again")
        return self._readings(jobs, sentinel, warmup_runs, warmup_s)

    def _readings(
        self, jobs: Sequence[Job], sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        files = [_identity(path) for path in (sentinel, *(job.model for job in jobs))]
        paths = dict(zip(files, (sentinel, *(job.model for job in jobs)), strict=True))
        there = dict(self._there)
        fresh = {f: p.read_bytes() for f, p in paths.items() if f not in there}
        for file in paths:  # the latest used last
            there[file] = there.pop(file, 0) or max(1, len(fresh[file]))
        forgotten = []
        for file in list(there)[: -len(paths)]:
            if sum(there.values()) > _ROOM_BYTES:
                del there[file]
                forgotten.append(file)
        wanted = [(file, job.runs) for file, job in zip(files[1:], jobs, strict=True)]
        readings, lost = self._ask(
            "run", fresh, forgotten, wanted, files[0], warmup_runs, warmup_s, limit_s=_RUN_S
        )
        self._there = there  # only now: what did not arrive is sent again
        yield from readings
        if lost is not None:
            raise lost

    def startup(self, model: Path) -> Startup | None:
        file = _identity(model)
        startup: Startup | None = self._ask("startup", file, model.read_bytes())
        return startup

    def refresh(self) -> None:
        self._ask("refresh")

    def telemetry(self) -> dict[str, Any]:
        return dict(self._ask("telemetry"))

    def state(self) -> DeviceState:
        state: DeviceState = self._ask("state")
        return replace(state, detail=f"on a node of the Ray cluster; {state.detail}")

    def now_s(self) -> float:
        if self._own_clock is None:
            self._hold()
        return float(self._ask("now_s")) if self._own_clock else time.monotonic()

    def pause(self, seconds: float) -> None:
        if self._own_clock:
            self._ask("pause", seconds)
        else:
            time.sleep(seconds)


class _Holder:
    """On the node, as an actor: the device itself, and the models that were sent for it."""

    def __init__(self, name: str, threads: int | None, precision: str | None) -> None:
        self.name, self.threads, self.precision = name, threads, precision
        self.device: Device | None = None
        self.folder: TemporaryFolder | None = None
        self.files: dict[Any, Path] = {}
        self.written = 0

    def ask(self, verb: str, *given: Any) -> Attempt:
        """Do one of the methods below, or one of the device's own."""
        return attempt(self.call, False, verb, *given)

    def call(self, verb: str, *given: Any) -> Any:
        return getattr(self if hasattr(_Holder, verb) else self.there(), verb)(*given)

    def facts(self) -> tuple[float | None, bool]:
        """Its own limit of temperature, and whether its clock is one of its own."""
        if self.device is None:
            self.device = connect(self.name, threads=self.threads, precision=self.precision)
        return self.device.wait_below_c, type(self.device).now_s is not Device.now_s

    def there(self) -> Device:
        self.facts()
        assert self.device is not None
        return self.device

    def may_be(self) -> tuple[str, ...]:
        """What its networks may be written in."""
        return self.there().precisions

    def enter(self) -> tuple[Conditions, bool]:
        """Its conditions, and whether a phone's limits apply."""
        self.there().__enter__()
        return self.there().conditions, self.there().phone

    def leave(self) -> None:
        self.there().__exit__(None, None, None)
        if self.folder is not None:
            self.folder.close()
        self.folder = None
        self.files.clear()

    def lower(self, model: Measurable, content: bytes, precision: str) -> tuple[str, bytes]:
        with TemporaryFolder() as folder:
            if isinstance(model, OnnxFile | OrtFile | TfliteFile):
                model = replace(model, path=folder / "given.onnx")
                model.path.write_bytes(content)
            stem = folder / "model"
            more = () if precision == FLOAT32 else (precision,)
            path = self.there().lower(model, stem, *more)
            return path.name[len(stem.name) :], path.read_bytes()

    def startup(self, file: Any, content: bytes) -> Startup | None:
        with TemporaryFolder() as folder:
            path = folder / f"startup{Path(file[0]).suffix}"
            path.write_bytes(content)
            return self.there().startup(path)

    def run(
        self,
        fresh: Mapping[Any, bytes],
        forgotten: Sequence[Any],
        wanted: Sequence[tuple[Any, int]],
        sentinel: Any,
        warmup_runs: int,
        warmup_s: float,
    ) -> tuple[list[Reading], PhonenasError | None]:
        """The readings, and the error that ended them early."""
        for file in (*forgotten, *fresh):  # one that is sent again may have come only in part
            if (old := self.files.pop(file, None)) is not None:
                old.unlink(missing_ok=True)
        for file, content in fresh.items():
            self.written += 1
            self.folder = self.folder or TemporaryFolder()
            path = self.folder.path / f"{self.written}{Path(file[0]).suffix}"
            path.write_bytes(content)
            self.files[file] = path
        readings: list[Reading] = []
        try:
            for reading in self.there().run_ms(
                [Job(self.files[file], runs) for file, runs in wanted],
                sentinel=self.files[sentinel],
                warmup_runs=warmup_runs,
                warmup_s=warmup_s,
            ):
                readings.append(reading)
        except (DeviceUnavailable, DeviceError) as error:
            return readings, error
        return readings, None


def _identity(path: Path) -> tuple[str, int, int]:
    """A key that differs from that of a file which had the same path before."""
    facts = path.stat()
    return str(path), facts.st_mtime_ns, facts.st_size
