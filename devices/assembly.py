"""A device put together from a transport, which reaches it, and a runtime, which measures there."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..data.measurement import Conditions
from ..space.errors import DeviceUnavailable, InvalidArgument, PhonenasError
from ..space.lowering import Measurable
from .device import Device, DeviceState, Job, Reading
from .lock import exclusive
from .runtimes.runtime import Runtime
from .settings import DeviceSettings
from .snapshot import SNAPSHOT, Snapshot, parse_snapshot
from .timing import SENTINEL
from .transport import SWEEP_S, Transport

__all__ = ["AssembledDevice"]

log = logging.getLogger("phonenas")

_SNAPSHOT_S = 30.0
_WATCH_S = 0.2  # how long the cores are watched before the idlest are chosen
_FIXED = ("cmd", "power", "set-fixed-performance-mode-enabled")


class AssembledDevice(Device):
    """Any transport with any runtime that can run there. See `Device` for its lifetime.

    Args:
        settings: What devices.toml says of it.
        transport: How it is reached.
        runtime: What measures there.
    """

    def __init__(self, settings: DeviceSettings, transport: Transport, runtime: Runtime) -> None:
        self.name = settings.name
        self.settings, self.transport, self.runtime = settings, transport, runtime
        self.wait_below_c = settings.wait_below_c
        self.cores: tuple[int, ...] = ()
        self._lock: IO[bytes] | None = None
        self._conditions: Conditions | None = None
        self._entered = False
        self._fixed = False

    # -- lifetime -----------------------------------------------------------------------------

    def __enter__(self) -> AssembledDevice:
        self._lock = exclusive(self.name, self.place)
        self.transport.keep_open = (self._lock.fileno(),) if self._lock else ()
        try:
            self.transport.open()
            self._start()
        except BaseException:
            self._end()
            raise
        self._entered = True
        return self

    def _start(self) -> None:
        first = self._snapshot()
        time.sleep(_WATCH_S)
        seen = self._snapshot()
        self.cores = self._choose(first, seen)
        self._fix_performance(seen)
        with tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
            sentinel = self.lower(SENTINEL, Path(folder) / "sentinel")
            identity = self.runtime.start(self.transport, self.cores, sentinel)
        log.info("%s: %s on cores %s", self.name, identity.runtime, self.cores or "as they come")
        self._conditions = Conditions(
            device=self.name,
            model=seen.model,
            fingerprint=seen.fingerprint,
            runtime=identity.runtime,
            runtime_version=identity.version,
            runtime_hash=identity.sha256[:16],
            provider=identity.provider,
            optimisation=identity.optimisation,
            threads=self.settings.threads,
            cores=seen.core_class(self.cores) if self.cores else "unpinned",
            governor=seen.governor,
            precision=self.settings.precision,
            statistic=identity.statistic,
            clocks="fixed-performance" if self._fixed else "governed",
        )

    def _snapshot(self) -> Snapshot:
        answer = self.transport.run(["sh", "-c", SNAPSHOT], limit_s=_SNAPSHOT_S)
        return parse_snapshot(answer.output)

    def _choose(self, first: Snapshot, seen: Snapshot) -> tuple[int, ...]:
        """Core numbers to compute on: of the class that was asked for, the idlest."""
        wanted, threads = self.settings.cores, self.settings.threads
        known = seen.capacities
        if wanted == "all" or not seen.can_pin:
            return ()
        if isinstance(wanted, tuple):
            if missing := set(wanted) - set(known):
                raise InvalidArgument(
                    f"{self.name}: it has no core {min(missing)} to lend; it lends "
                    f"{', '.join(map(str, sorted(known)))}"
                )
            return tuple(sorted(wanted))
        if threads > len(known):
            raise InvalidArgument(
                f"{self.name} lends {len(known)} cores; {threads} threads would share them"
            )
        if wanted == "little":
            return tuple(sorted(sorted(known, key=lambda c: (known[c], -c))[:threads]))
        return seen.strongest(threads, first)

    def _fix_performance(self, seen: Snapshot) -> None:
        """Ask Android to hold its clocks where they can stay; not every phone can."""
        if not seen.android:
            return
        wanted = self.settings.fixed_performance
        # Undone at the end whatever its answer: it may come too late to be heard. And switched off
        # where it is not wanted: a job before this one may have been cut off.
        self._fixed = wanted
        answer = self.transport.run([*_FIXED, "true" if wanted else "false"], limit_s=_SNAPSHOT_S)
        self._fixed = wanted and answer.code == 0 and "rror" not in answer.output + answer.errors
        if wanted and not self._fixed:
            log.info("%s: no fixed-performance mode (%s)", self.name, answer.last_words)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._entered = False
        with contextlib.suppress(PhonenasError):
            self.runtime.stop()
        if self._fixed:
            self._fixed = False
            with contextlib.suppress(PhonenasError):
                self.transport.run([*_FIXED, "false"], limit_s=SWEEP_S)
        self.transport.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- the contract -------------------------------------------------------------------------

    @property
    def place(self) -> str:
        return f"{self.transport.kind} {self.transport.address}"

    @property
    def conditions(self) -> Conditions:
        if self._conditions is None:
            raise DeviceUnavailable(f"{self.name}'s conditions are known once it is entered")
        return self._conditions

    def lower(self, model: Measurable, stem: Path) -> Path:
        return self.runtime.lower(model, stem)

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        if not self._entered:
            raise DeviceUnavailable(
                f"{self.name} is not entered: use it as  with connect({self.name!r}) as d:"
            )
        return self.runtime.run_ms(
            jobs, sentinel=sentinel, warmup_runs=warmup_runs, warmup_s=warmup_s
        )

    def circumstances(self) -> dict[str, Any]:
        return {"cores": list(self.cores), **self._snapshot().circumstances()}

    def state(self) -> DeviceState:
        state, detail = self.transport.state()
        model, cores = "", 0
        if state == "ready":
            try:
                seen = self._look()
                model, cores = seen.model, len(seen.capacities)
                detail = seen.summary
            except PhonenasError as error:
                state, detail = "not usable", str(error)
        return DeviceState(
            self.name,
            self.transport.kind,
            state,
            model,
            cores,
            self.runtime.described(self.transport),
            detail,
        )

    def _look(self) -> Snapshot:
        """A snapshot without a lock or a worker."""
        if self._entered:
            return self._snapshot()
        self.transport.open()
        try:
            return self._snapshot()
        finally:
            self.transport.close()
