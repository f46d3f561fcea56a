"""DevicePool: several devices measured side by side into one store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phonenas.space.errors import DeviceUnavailable, InvalidArgument, PhonenasError, StoreError

from ..device import Device
from .events import Event, Measured
from .profiling import COLUMNS, Outcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DevicePool", "PoolOutcome"]

log = logging.getLogger("phonenas")

_LOOK_S = 0.5
_TRIES = 3  # in a row, between which nothing was measured


@dataclass(frozen=True)
class PoolOutcome:
    """The result of each device.

    Args:
        outcomes: By name, of the devices whose work is done.
        failures: By name, the error that ended the others; what they measured is in the store,
            and the same call continues from there.
    """

    outcomes: Mapping[str, Outcome]
    failures: Mapping[str, PhonenasError]

    def __repr__(self) -> str:
        lost = [f"{name}: {type(e).__name__}" for name, e in self.failures.items()]
        done = [
            f"{name}: {o.measured} measured, {o.reused} in the store already"
            for name, o in self.outcomes.items()
        ]
        return f"PoolOutcome({'; '.join(done + lost)})"

    def to_frame(self) -> pd.DataFrame:
        """One row a measurement of any device: `device`, then as `Outcome.to_frame`."""
        import pandas as pd

        frames = [o.to_frame().assign(device=name) for name, o in self.outcomes.items()]
        if not frames:
            return pd.DataFrame(columns=["device", *COLUMNS])
        return pd.concat(frames, ignore_index=True)[["device", *COLUMNS]]


class DevicePool:
    """Several devices at once, one worker thread each.

    A device that is lost for longer than its own job waits is tried again when another one has
    finished, or after a pause; it is given up after three tries in a row that measured nothing.
    Devices do not affect each other's numbers: each is measured as it would be alone, in the same
    random order.

    Args:
        devices: Not entered, of different names.
        pause_s: Seconds before a lost device is tried again.
    Raises:
        InvalidArgument: No device, or two of one name.
    """

    def __init__(self, devices: Sequence[Device], *, pause_s: float = 60.0) -> None:
        names = [d.name for d in devices]
        if not names or len(set(names)) != len(names):
            raise InvalidArgument(f"a device pool needs devices of different names, got {names}")
        self.devices = {d.name: d for d in devices}
        self.pause_s = pause_s
        self._places = {d.place: threading.Lock() for d in devices}
        self._stop = threading.Event()
        self._freed = threading.Event()

    def run(
        self,
        work: Callable[[Device, Callable[[Event], None]], Outcome],
        on_event: Callable[[str, Event], None] | None = None,
    ) -> PoolOutcome:
        """Do the same work with each device.

        Args:
            work: Takes an entered device and where its events go, as `devices.profile` does.
            on_event: Called with the device's name and the event, from its worker's thread.
        Raises:
            What `work` raises beyond `PhonenasError`, and `StoreError`, since all write into one
            store; once every worker has stopped.
        """
        outcomes: dict[str, Outcome] = {}
        failures: dict[str, PhonenasError] = {}
        with ThreadPoolExecutor(len(self.devices), thread_name_prefix="device") as pool:
            futures: dict[Future[Outcome], str] = {
                pool.submit(self._work, d, work, on_event): name for name, d in self.devices.items()
            }
            open_ = set(futures)
            try:
                while open_:
                    done, open_ = wait(open_, return_when=FIRST_COMPLETED)
                    for future in done:
                        name = futures[future]
                        try:
                            outcomes[name] = future.result()
                        except StoreError:
                            raise
                        except PhonenasError as error:
                            failures[name] = error
                        self._freed.set()  # lost devices are tried at once
            except BaseException:
                self._stop.set()
                self._freed.set()
                raise
        return PoolOutcome(outcomes, failures)

    @contextmanager
    def _alone(self, device: Device) -> Iterator[None]:
        """Two names of one device take turns."""
        place = self._places[device.place]
        while not place.acquire(timeout=_LOOK_S):
            if self._stop.is_set():
                raise _Stopped
        try:
            yield
        finally:
            place.release()

    def _work(
        self,
        device: Device,
        work: Callable[[Device, Callable[[Event], None]], Outcome],
        on_event: Callable[[str, Event], None] | None,
    ) -> Outcome:
        fruitless = 0
        done: int | None = None

        def tell(event: Event) -> None:
            nonlocal done, fruitless
            if self._stop.is_set():
                raise _Stopped
            if isinstance(event, Measured):
                if done is not None and event.done > done:
                    fruitless = 0
                done = event.done
            if on_event is not None:
                on_event(device.name, event)

        while True:
            try:
                with self._alone(device), device:
                    return work(device, tell)
            except DeviceUnavailable as error:
                fruitless += 1
                log.info("%s: %s", device.name, error)
                if fruitless == _TRIES:
                    raise
            self._freed.clear()
            self._freed.wait(self.pause_s)
            if self._stop.is_set():
                raise _Stopped


class _Stopped(Exception):
    """Another worker's error, or Ctrl-C, ends this one too."""
