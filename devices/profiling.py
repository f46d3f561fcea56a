"""profile(): a space's operators and some whole networks, measured on a device into a store.

Accepted rounds are committed with their batch, every few seconds, and what is in the store is
not measured again, so a job that stops, by Ctrl-C, SIGKILL or a lost device, goes on with the same
call.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ..data.measurement import WHOLE, Conditions, Measurement, Mode
from ..data.store import MeasurementStore
from ..space import Architecture, Kernel, Operator, SearchSpace
from ..space.errors import InvalidArgument
from ..space.onnx_file import OnnxFile
from ..space.random_cnn import RandomCNN
from ..space.ssdlite import SSDLite
from .device import Device
from .job import MeasuringJob
from .plan import Event, OnEvent, Subject
from .timing import Protocol, Verdict, verdict, verdict_of

_OLD_S = 86_400.0
_LEAST_SUSTAIN_S, _MOST_SUSTAIN_S = 10.0, 3600.0

__all__ = ["Outcome", "measure", "profile", "subjects_of"]


@dataclass(frozen=True)
class Outcome:
    """What a measuring job did.

    Args:
        measured: Subjects measured now.
        reused: Subjects that the store already held.
        rejected: Readings that were not recorded and taken again.
        unstable: Subjects given up, with the reason; they are not in the store.
        doubtful: Subjects whose rounds agree only within the last, wider limit, with the spread.
        seconds: Wall time.
        busy_s: Of it, seconds of computing on the device, warm-up and sentinel included; 0 where
            the runtime does not tell.
        conditions: What they were measured under.
        verdict: Whether the whole is to be believed.
        results: Measurement by subject text.
    """

    measured: int
    reused: int
    rejected: int
    unstable: Mapping[str, str]
    doubtful: Mapping[str, str]
    seconds: float
    busy_s: float
    conditions: Conditions
    verdict: Verdict
    results: Mapping[str, Measurement]


def subjects_of(
    space: SearchSpace | None,
    networks: int,
    seed: int,
    named: Sequence[Architecture] = (),
    only: Sequence[Operator] | None = None,
) -> list[Subject]:
    """Every operator of a space, or only some, `networks` random distinct networks of it, and named ones."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, Architecture] = {str(a): a for a in named}
    for _ in range(100 if space is not None else 0):
        assert space is not None
        if len(drawn) >= networks + len(named):
            break
        for genome in space.sample(rng, networks):
            architecture = space.decode(genome)
            if len(drawn) < networks + len(named):
                drawn.setdefault(str(architecture), architecture)
    every = space.operators() if space is not None else ()
    operators = dict.fromkeys(every if only is None else only)
    for architecture in named:
        operators.update(dict.fromkeys(architecture.operators()))
    return [Subject("operator", o) for o in operators] + [
        Subject("network", a) for a in drawn.values()
    ]


def profile(
    space: SearchSpace | None,
    *,
    on: Device,
    into: MeasurementStore,
    networks: int = 20,
    named: Sequence[Architecture] = (),
    only: Sequence[Operator] | None = None,
    wholes: Sequence[Architecture] = (),
    operators: Sequence[Operator] = (),
    kernels: Sequence[Kernel] = (),
    files: Sequence[OnnxFile | RandomCNN | SSDLite] = (),
    quick: bool = False,
    again: bool = False,
    seed: int = 0,
    mode: Mode = "steady",
    sustain_s: float = 180.0,
    wait_below_c: float | None = None,
    on_event: OnEvent | None = None,
) -> Outcome:
    """Measure every operator of a space, and random whole networks to hold the sum against.

    Args:
        space: Whose operators; its networks are drawn uniformly. None for the named alone.
        on: An entered device.
        into: The store; what it already holds under the same conditions is not repeated.
        networks: Random networks to measure whole, ≥ 0; a calibrated model needs 10.
        named: Further networks, measured whole, and their operators.
        only: Of the space's operators these alone; all by default.
        wholes: Further networks, measured whole, without their operators.
        operators: Further operators.
        kernels: Single launches.
        files: Networks by their ONNX files, random ones, and detectors, measured whole.
        quick: One round of operators and two of networks: a first look, with wider errors.
        again: Measure anew what is complete, as a new series, and what was given up.
        seed: Of the drawn networks and the order.
        mode: "steady", or "sustained" for the speed after minutes of load; whole networks only.
        sustain_s: Seconds of load before those.
        wait_below_c: Wait for the device to be cooler than this before each batch, in °C.
        on_event: Called with the events of `plan`.
    Raises:
        InvalidArgument: networks or seed < 0.
        UnstableDevice: The sentinel would not settle; what was accepted stays in the store.
        DeviceUnavailable, StoreError: As their names say; the same call goes on from there.
    """
    if mode == "sustained" and not _LEAST_SUSTAIN_S <= sustain_s <= _MOST_SUSTAIN_S:
        raise InvalidArgument(
            f"sustained speed comes after {_LEAST_SUSTAIN_S:g} to {_MOST_SUSTAIN_S:g} s of load, not "
            f"after {sustain_s:g} s"
        )
    if mode == "sustained" and wait_below_c is not None:
        raise InvalidArgument("sustained speed is that of a warm device: leave --wait-below out")
    if networks < 0 or seed < 0:
        raise InvalidArgument(f"networks and seed: 0 or more, got {networks} and {seed}")
    protocol = replace(Protocol(), wait_below_c=wait_below_c)
    if quick:
        protocol = replace(protocol, operator_rounds=1, network_rounds=2)
    subjects = subjects_of(space, networks, seed, named, only)
    known = {s.text for s in subjects}
    subjects += [Subject("operator", o) for o in dict.fromkeys(operators) if o.key not in known]
    subjects += [Subject("network", a) for a in dict.fromkeys(wholes) if str(a) not in known]
    subjects += [Subject("kernel", k) for k in dict.fromkeys(kernels)]
    subjects += [Subject("onnx", f) for f in {f.key: f for f in files}.values()]
    if mode == "sustained":
        subjects = [s for s in subjects if s.kind in WHOLE]
        protocol = replace(protocol, sustain_s=sustain_s)
    return measure(
        subjects, on=on, into=into, protocol=protocol, again=again, seed=seed, mode=mode,
        on_event=on_event,
    )  # fmt: skip


def measure(
    subjects: Sequence[Subject],
    *,
    on: Device,
    into: MeasurementStore,
    protocol: Protocol | None = None,
    purpose: str = "profile",
    again: bool = False,
    seed: int = 0,
    mode: Mode = "steady",
    on_event: OnEvent | None = None,
) -> Outcome:
    """Measure subjects by the house's rules; see `profile` for arguments and errors."""
    _sweep()
    started = on.now_s()
    job = MeasuringJob(on, into, protocol or Protocol(), purpose, seed, on_event or _ignore, mode)
    job.plan(subjects, again, retry=again or purpose == "validation")
    with tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
        job.run(Path(folder))
    if mode == "steady":
        _settle_reference(into, job.conditions)
    wanted = {s.text for s in subjects}
    results = {m.subject: m for m in into.measurements(job.conditions) if m.subject in wanted}
    return Outcome(
        measured=len(job.ledger.finished),
        reused=job.ledger.reused,
        rejected=job.ledger.rejected,
        unstable=job.ledger.unstable,
        doubtful={
            text: found.text
            for text, m in results.items()
            if not (found := verdict_of(m, job.protocol)).stable
        },
        seconds=on.now_s() - started,
        busy_s=job.busy_s,
        conditions=job.conditions,
        verdict=verdict(list(results.values()), job.ledger.rejected, job.protocol.spread_limit),
        results=results,
    )


def _settle_reference(store: MeasurementStore, conditions: Conditions) -> None:
    """The sentinel's median over all that a device's first jobs saw, until that is enough."""
    if store.reference_settled(conditions):
        return
    times = [s for m in store.measurements(conditions) for r in m.rounds for s in r.sentinel_ms]
    if times:
        store.set_reference(conditions, median(times), len(times))


def _sweep() -> None:
    """Remove the models that jobs which were killed left here a day ago or earlier."""
    for folder in Path(tempfile.gettempdir()).glob("phonenas-????????"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            old = time.time() - about.st_mtime > _OLD_S
            if old and folder.is_dir() and not folder.is_symlink() and _ours(about):
                shutil.rmtree(folder, ignore_errors=True)


def _ours(about: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or about.st_uid == os.getuid()


def _ignore(event: Event) -> None:
    pass
