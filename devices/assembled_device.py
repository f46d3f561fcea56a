"""A device made of a transport, which reaches it, and a runtime, which measures on it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phonenas.data.files import Lock, TemporaryFolder
from phonenas.data.measurement import Conditions, Startup
from phonenas.space.errors import DeviceUnavailable, InvalidArgument, PhonenasError
from phonenas.space.lowering.write import Measurable
from phonenas.space.precision import FLOAT32

from .device import Device, DeviceState, Job, Reading
from .measuring.protocol import SENTINEL
from .node_times import Trace
from .runtimes.runtime import Runtime, runs_natively
from .settings import DeviceSettings
from .system.snapshot import SNAPSHOT, Snapshot, parse_snapshot
from .transports.base import SWEEP_S, Transport
from .transports.lock import exclusive

__all__ = ["AssembledDevice"]

log = logging.getLogger("phonenas")

_SNAPSHOT_S = 30.0
_TICKS_S = 100  # of /proc/stat, whatever the kernel's own
_WATCH_S = 0.2  # how long the cores are watched before the idlest are chosen
_FIXED = ("cmd", "power", "set-fixed-performance-mode-enabled")


class AssembledDevice(Device):
    """Any transport with any runtime that can run there. See `Device` for its lifetime.

    Args:
        settings: Its table of devices.toml.
        transport: Reaches it.
        runtime: Measures on it.
    """

    def __init__(self, settings: DeviceSettings, transport: Transport, runtime: Runtime) -> None:
        self.name = settings.name
        self.settings, self.transport, self.runtime = settings, transport, runtime
        self.wait_below_c, self.energy = settings.wait_below_c, settings.energy
        self.cores: tuple[int, ...] = ()
        self._locks: list[Lock] = []
        self._conditions: Conditions | None = None
        self._entered = False
        self._fixed = False

    # -- lifetime -----------------------------------------------------------------------------

    def __enter__(self) -> AssembledDevice:
        try:
            self._hold(self.place)
            self.transport.open()
            self._start()
        except BaseException:
            self._end()
            raise
        self._entered = True
        return self

    def _hold(self, place: str) -> None:
        """Lock one way to the device, so that no other process measures it meanwhile."""
        self._locks.append(exclusive(self.name, place))
        self.transport.keep_open = tuple(lock.fileno() for lock in self._locks)

    def _start(self) -> None:
        before = self._snapshot()
        if serial := before.hardware_serial:  # the same phone may be reached another way, too
            self._hold(f"hardware {serial}")
        time.sleep(_WATCH_S)
        seen = self._snapshot()
        self.cores = self._choose(before, seen)
        self.phone = self._is_phone(seen)
        self._fix_performance(seen)
        with TemporaryFolder() as folder:
            sentinel = self.lower(SENTINEL, folder / "sentinel")
            identity = self.runtime.start(self.transport, self.cores, sentinel)
        log.info("%s: %s on cores %s", self.name, identity.runtime, self.cores or "unpinned")
        emulated = seen.emulated or not runs_natively(identity.machine, seen.machine)
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
            origin="emulated" if emulated else "measured",
        )

    def _is_phone(self, seen: Snapshot) -> bool:
        """By the settings, else the transport, else the system; never by what it failed to say."""
        if self.settings.phone is not None:
            return self.settings.phone
        return self.transport.kind == "adb" or seen.android

    def _snapshot(self) -> Snapshot:
        answer = self.transport.run(["sh", "-c", SNAPSHOT], limit_s=_SNAPSHOT_S)
        return parse_snapshot(answer.output)

    def _choose(self, before: Snapshot, seen: Snapshot) -> tuple[int, ...]:
        """Core numbers to compute on: the idlest of the class asked for."""
        wanted, threads = self.settings.cores, self.settings.threads
        known = seen.capacities
        if wanted == "all":
            return ()
        if not seen.can_pin:
            if wanted == "big":  # the default
                return ()
            raise InvalidArgument(
                f"{self.name}: cores = {list(wanted) if isinstance(wanted, tuple) else wanted!r}: "
                "no program can be bound to cores there, for it has no taskset that works. Install "
                "it (util-linux), or leave cores out"
            )
        if isinstance(wanted, tuple):
            if missing := set(wanted) - set(known):
                raise InvalidArgument(
                    f"{self.name}: core {min(missing)} cannot be used; it has "
                    f"{', '.join(map(str, sorted(known)))}"
                )
            return tuple(sorted(wanted))
        if threads > len(known):
            raise InvalidArgument(
                f"{self.name} has {len(known)} cores; {threads} threads would share them"
            )
        if wanted == "little":
            return tuple(sorted(sorted(known, key=lambda c: (known[c], -c))[:threads]))
        return seen.strongest(threads, before)

    def _fix_performance(self, seen: Snapshot) -> None:
        """Ask Android to hold its clocks where they can stay; not every phone can."""
        if not seen.android:
            return
        wanted = self.settings.fixed_performance
        # Switched off at the end whatever its answer: the answer may be lost. And switched off
        # where it is not wanted: an earlier job may have been killed.
        self._fixed = wanted
        answer = self.transport.run([*_FIXED, "true" if wanted else "false"], limit_s=_SNAPSHOT_S)
        self._fixed = wanted and answer.code == 0 and "rror" not in answer.output + answer.errors
        if wanted and not self._fixed:
            log.info("%s: no fixed-performance mode (%s)", self.name, answer.last_line)

    def __exit__(self, *error: object) -> None:
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
        while self._locks:
            self._locks.pop().close()

    # -- the contract -------------------------------------------------------------------------

    @property
    def place(self) -> str:
        return f"{self.transport.kind} {self.transport.address}"

    @property
    def conditions(self) -> Conditions:
        if self._conditions is None:
            raise DeviceUnavailable(f"{self.name}'s conditions are known once it is entered")
        return self._conditions

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.runtime.precisions

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        if precision == FLOAT32:  # others' runtimes may know no other
            return self.runtime.lower(model, stem)
        return self.runtime.lower(model, stem, precision)

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

    def startup(self, model: Path) -> Startup | None:
        return self.runtime.startup(model)

    def trace(self, model: Path, runs: int = 21) -> Trace:
        return self.runtime.trace(model, runs)

    def refresh(self) -> None:
        self.runtime.refresh()

    def telemetry(self) -> dict[str, Any]:
        seen = self._snapshot()
        values = {"cores": list(self.cores), **seen.telemetry()}
        others = set(seen.busy) - set(self.cores)
        if self.cores and others:
            # Builds models meanwhile, and is no other program.
            own_s = time.process_time() if self.transport.kind == "local" else 0.0
            values["elsewhere_s"] = sum(seen.busy[c] for c in others) / _TICKS_S - own_s
        return values

    def state(self) -> DeviceState:
        state, detail = self.transport.state()
        model, cores = "", 0
        if state == "ready":
            try:
                seen = self._look()
                model, cores = seen.model, len(seen.capacities)
                unknown = self._is_phone(seen) and seen.temperature_c is None
                detail = seen.summary + ("; temperature unknown" if unknown else "")
                detail = "; ".join([detail, *seen.unread])
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
        """A snapshot, without a lock or a worker."""
        if self._entered:
            return self._snapshot()
        self.transport.open()
        try:
            return self._snapshot()
        finally:
            self.transport.close()
