"""`local`: this computer, by a pinned worker process that takes many models in one go."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..data.measurement import Conditions
from ..space.errors import DeviceError, DeviceUnavailable, InvalidArgument
from . import telemetry
from .device import Device, DeviceState, Job, Reading
from .runtimes import onnx_payload

__all__ = ["LocalDevice"]

log = logging.getLogger("phonenas")

PROVIDER = "CPUExecutionProvider"
OPTIMISATION = "all"
_START_S = 60.0
_MODEL_S = 30.0  # longest that one model may run, warm-up included
_GRACE_S = 30.0  # beyond that: loading a session, a busy computer
_LOCK_WAIT_S = 15.0


class LocalDevice(Device):
    """This computer. See `Device` for its lifetime.

    One process at a time measures: a second one waits a little, then is told so. The lock is
    also held by the worker, so a job that was killed does not overlap with its successor.

    Args:
        threads: Threads that compute, each on a core of its own.
    Raises:
        InvalidArgument: More threads than there are like cores.
    """

    name = "local"

    def __init__(self, threads: int = 1) -> None:
        self.processor = telemetry.processor()
        if threads > len(self.processor.strongest):
            raise InvalidArgument(
                f"local has {len(self.processor.strongest)} cores of its strongest class; "
                f"{threads} threads would share them"
            )
        self.threads = threads
        self._worker: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._conditions: Conditions | None = None
        self._cores: tuple[int, ...] = ()
        self._buffer = b""

    # -- lifetime -----------------------------------------------------------------------------

    def __enter__(self) -> LocalDevice:
        self._lock = _exclusive(Path(tempfile.gettempdir()) / f"phonenas-local-{_user()}.lock")
        try:
            self._cores = telemetry.idlest_cores(self.processor.strongest, self.threads)
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def _start(self) -> None:
        self._buffer = b""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        self._worker = subprocess.Popen(
            [sys.executable, str(Path(onnx_payload.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=(self._lock.fileno(),) if self._lock else (),
        )
        pinned = hasattr(os, "sched_setaffinity")
        self._ask(
            {
                "op": "hello",
                "cores": list(self._cores) if pinned else None,
                "threads": self.threads,
                "optimisation": OPTIMISATION,
                "provider": PROVIDER,
            }
        )
        hello = self._answer(_START_S)
        if "error" in hello:
            raise DeviceUnavailable(
                f"local cannot start ONNX Runtime: {hello['error']}. Install it:  "
                "pip install onnxruntime"
            )
        log.info("local: worker %d on cores %s", self._worker.pid, hello["cores"])
        self._conditions = Conditions(
            device=self.name,
            model=self.processor.model,
            fingerprint=self.processor.fingerprint,
            runtime=hello["runtime"],
            runtime_version=hello["version"],
            runtime_hash=hello["sha256"][:16],
            provider=PROVIDER,
            optimisation=OPTIMISATION,
            threads=self.threads,
            cores=self.processor.core_class if pinned else "unpinned",
            governor=self.processor.governor,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            if worker.stdin:
                with contextlib.suppress(BrokenPipeError):  # it ended before us
                    worker.stdin.close()
            try:
                worker.wait(timeout=2)
            except subprocess.TimeoutExpired:
                worker.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel
                    worker.wait(timeout=10)
            if worker.stdout:
                worker.stdout.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- asking the worker --------------------------------------------------------------------

    def _ask(self, request: dict[str, Any]) -> None:
        if self._worker is None or self._worker.stdin is None:
            raise DeviceUnavailable("local is not entered: use it as  with connect('local') as d:")
        try:
            self._worker.stdin.write(json.dumps(request).encode() + b"\n")
            self._worker.stdin.flush()
        except OSError as error:
            raise DeviceUnavailable(f"local's worker process ended: {error}") from error

    def _answer(self, limit_s: float) -> dict[str, Any]:
        worker = self._worker
        if worker is None or worker.stdout is None:
            raise DeviceUnavailable("local is not entered")
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise DeviceUnavailable(
                        f"local's worker process did not answer within {limit_s:.0f} s"
                    )
                chunk = os.read(worker.stdout.fileno(), 1 << 16)
                if not chunk:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        worker.wait(timeout=10)
                    raise DeviceUnavailable(
                        f"local's worker process ended with code {worker.returncode}"
                    )
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DeviceError(f"local's worker answered {line[:80]!r}, which is no JSON") from error
        if not isinstance(found, dict):
            raise DeviceError(f"local's worker answered {line[:80]!r}")
        return found

    # -- the contract -------------------------------------------------------------------------

    @property
    def conditions(self) -> Conditions:
        if self._conditions is None:
            raise DeviceUnavailable("local's conditions are known once it is entered")
        return self._conditions

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        self._ask(
            {
                "op": "run",
                "models": [str(j.model) for j in jobs],
                "runs": [j.runs for j in jobs],
                "sentinel": str(sentinel),
                "warmup_runs": warmup_runs,
                "warmup_s": warmup_s,
                "limit_s": _MODEL_S,
            }
        )
        for index in range(len(jobs)):
            found = self._answer(_MODEL_S + _GRACE_S)
            if found.get("index") != index:
                raise DeviceError(f"local's worker answered out of turn: {str(found)[:80]}")
            if "error" in found:
                yield Reading(error=str(found["error"]))
            else:
                yield Reading(
                    tuple(map(float, found["samples_ms"])),
                    tuple(map(float, found["sentinel_ms"])),
                    int(found["preempted"]),
                    str(found["provider"]),
                )
        if not self._answer(_GRACE_S).get("done"):
            raise DeviceError("local's worker did not end its answer")

    def circumstances(self) -> dict[str, Any]:
        return {"cores": list(self._cores), **telemetry.circumstances()}

    def state(self) -> DeviceState:
        try:
            runtime, state, detail = f"onnxruntime {version('onnxruntime')}", "ready", ""
        except PackageNotFoundError:
            runtime, state, detail = "none", "no runtime", "pip install onnxruntime"
        if not detail:
            detail = f"{PROVIDER}, {self.threads} thread, governor {self.processor.governor}"
        return DeviceState(
            self.name,
            "local",
            state,
            self.processor.model,
            len(self.processor.cores),
            runtime,
            detail,
        )


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


def _exclusive(path: Path) -> IO[bytes] | None:
    """Hold the lock file, or say who measures now."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: no lock, as before
        return None
    file = path.open("a+b")
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError:
            if time.monotonic() > deadline:
                file.close()
                raise DeviceUnavailable(
                    f"local is being measured by another process (it holds {path}). Two at once "
                    "would disturb each other: wait for it, then give the command again."
                ) from None
            time.sleep(0.1)
