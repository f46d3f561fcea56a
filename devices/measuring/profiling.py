"""profile(): a space's operators and some whole networks, measured on a device into a store.

Accepted rounds are committed with their batch, every few seconds, and what is in the store is not
measured again: a job that stops, by Ctrl-C, SIGKILL or a lost device, continues with the same call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phonenas.data.files import TemporaryFolder
from phonenas.data.measurement import WHOLE, Conditions, Measurement, taken_as
from phonenas.data.store import MeasurementStore
from phonenas.space import Architecture, Kernel, Operator, SearchSpace
from phonenas.space.detection.ssdlite import SSDLite
from phonenas.space.errors import InvalidArgument
from phonenas.space.graph import NetworkGraph
from phonenas.space.kernels.lifted import LiftedKernel
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.ort_file import OrtFile
from phonenas.space.tflite_file import TfliteFile

from ..device import Device
from ..transports.lock import exclusive
from .events import Event, OnEvent, Subject, Warned
from .job import MeasuringJob
from .protocol import Protocol, Verdict, at_speed, verdict, verdict_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Outcome", "Selection", "joined", "measure", "profile"]

#: Of the table of an `Outcome`.
COLUMNS = ("kind", "subject", "latency_ms", "spread", "rounds", "series", "at", "origin")


@dataclass(frozen=True)
class Outcome:
    """What a measuring job did.

    Args:
        measured: Number of subjects measured now.
        reused: Number of subjects that the store already held.
        rejected: Number of readings that were rejected and repeated.
        unstable: Subjects given up, with the reason; they are not in the store.
        doubtful: Subjects of several rounds whose error bar is wide, with the reason.
        seconds: Wall time.
        busy_s: Of it, seconds of computing on the device, warm-up and sentinel included; 0 if the
            runtime does not report them.
        conditions: Of the measurements.
        verdict: Whether the whole is stable.
        results: Measurement by subject text.
        slowdown: Time of the sentinel in this job over that beside earlier measurements in the
            store; None if either is missing.
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
    slowdown: float | None = None

    def __repr__(self) -> str:
        given_up = f", {len(self.unstable)} given up" if self.unstable else ""
        return (
            f"Outcome({self.measured} measured, {self.reused} in the store already{given_up}, on "
            f"{self.conditions.device}; {self.verdict.text})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a measurement: kind, subject, latency_ms, spread (its error bar, relative; NaN
        for a single round), rounds, series, at (of the last round), origin."""
        import pandas as pd

        rows = [
            (
                m.kind,
                m.subject,
                m.latency_ms,
                m.spread,
                len(m.rounds),
                m.series,
                m.rounds[-1].at,
                m.conditions.origin,
            )
            for m in self.results.values()
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class Selection:
    """What `profile` measures beside random networks of a space; no subject twice.

    Args:
        only: Of the space's operators these alone; None for all.
        named: Networks measured whole, and their operators.
        wholes: Networks measured whole, without their operators.
        operators: Further operators.
        kernels: Single launches of a runtime.
        files: Networks by their files, random ones, and detectors, measured whole.
    """

    only: Sequence[Operator] | None = None
    named: Sequence[Architecture] = ()
    wholes: Sequence[Architecture] = ()
    operators: Sequence[Operator] = ()
    kernels: Sequence[Kernel | LiftedKernel] = ()
    files: Sequence[OnnxFile | OrtFile | TfliteFile | RandomCNN | SSDLite | NetworkGraph] = ()

    def subjects(self, space: SearchSpace | None, networks: int, seed: int) -> list[Subject]:
        """All of them, with every operator of a space and some random distinct networks of it.

        Args:
            space: None for this selection alone.
            networks: How many networks to draw, ≥ 0; fewer where the space has fewer.
            seed: Of the draw, ≥ 0.
        """
        rng = np.random.default_rng(seed)
        drawn: dict[str, Architecture] = {str(a): a for a in self.named}
        for _ in range(100):
            if space is None or len(drawn) >= networks + len(self.named):
                break
            for genome in space.sample(rng, networks):
                architecture = space.decode(genome)
                if len(drawn) < networks + len(self.named):
                    drawn.setdefault(str(architecture), architecture)
        every = self.only if self.only is not None else space.operators() if space else ()
        operators = [*every, *(o for a in self.named for o in a.operators()), *self.operators]
        return [
            *(Subject("operator", o) for o in dict.fromkeys(operators)),
            *(
                Subject("network", a)
                for a in {**drawn, **{str(a): a for a in self.wholes}}.values()
            ),
            *(Subject("kernel", k) for k in {k.key: k for k in self.kernels}.values()),
            *(Subject("onnx", f) for f in {f.key: f for f in self.files}.values()),
        ]


def profile(
    space: SearchSpace | None,
    *,
    on: Device,
    into: MeasurementStore,
    networks: int = 20,
    more: Selection = Selection(),
    protocol: Protocol | None = None,
    again: bool = False,
    on_event: OnEvent | None = None,
) -> Outcome:
    """Measure every operator of a space, and random whole networks to test the sum against.

    Args:
        space: Whose operators; its networks are drawn uniformly. None for `more` alone.
        on: An entered device.
        into: The store; what it already holds under the same conditions is not repeated.
        networks: Random networks to measure whole, ≥ 0; a calibrated model needs 10.
        more: Further subjects, and which of the space's operators.
        protocol: How, `Protocol()` by default; `QUICK` for a first look. The mode "sustained"
            measures whole networks only.
        again: Remeasure what is complete, as a new series, and what was given up.
        on_event: Called with the events of `devices.measuring.events`.
    Raises:
        InvalidArgument: networks < 0.
        UnstableDevice: The sentinel's time did not become stable; accepted rounds stay stored.
        DeviceUnavailable, StoreError: As their names say; the same call continues from there.
    """
    if networks < 0:
        raise InvalidArgument(f"networks: 0 or more, got {networks}")
    protocol = protocol or Protocol()
    subjects = more.subjects(space, networks, protocol.seed)
    if protocol.mode == "sustained":
        subjects = [s for s in subjects if s.kind in WHOLE]
    return measure(subjects, on=on, into=into, protocol=protocol, again=again, on_event=on_event)


def measure(
    subjects: Sequence[Subject],
    *,
    on: Device,
    into: MeasurementStore,
    protocol: Protocol | None = None,
    purpose: str = "profile",
    again: bool = False,
    on_event: OnEvent | None = None,
) -> Outcome:
    """Measure subjects; see `profile` for arguments and errors.

    One process at a time measures a device into a store: of a simulated device, too, two would
    take the same rounds.

    Args:
        purpose: Stored with each measurement: "profile", or "validation", which also tries again
            what was given up.
    """
    place = into.location if "://" in into.location else Path(into.location).resolve()
    with exclusive(on.name, f"{place} {on.conditions.digest}"):
        return _measured(subjects, on, into, protocol or Protocol(), purpose, again, on_event)


def _measured(
    subjects: Sequence[Subject],
    on: Device,
    into: MeasurementStore,
    protocol: Protocol,
    purpose: str,
    again: bool,
    on_event: OnEvent | None,
) -> Outcome:
    """`measure`, once nobody else can."""
    started = on.now_s()
    tell = on_event or _ignore
    by_precision = _by_precision(subjects, on.conditions)
    if len(by_precision) > 1:
        more = [
            _measured(s, on, into, protocol, purpose, again, on_event)
            for s in by_precision.values()
        ]
        return reduce(joined, more)
    (precision, *_) = (*by_precision, on.conditions.precision)
    if by_precision and on.conditions.precision not in ("float32", precision):
        it = f"{subjects[0].text} computes in {precision}"
        tell(
            Warned(f"{it}, and devices.toml says {on.conditions.precision}: stored as {precision}")
        )
    job = MeasuringJob(on, into, protocol, purpose, tell, precision)
    job.plan(subjects, again, retry=again or purpose == "validation")
    with TemporaryFolder() as folder:
        job.run(folder)
    wanted = {s.text for s in subjects}
    results = {m.subject: m for m in into.measurements(job.conditions) if m.subject in wanted}
    several = {text: m for text, m in results.items() if len(m.rounds) > 1}
    verdicts = {text: verdict_of(m, protocol) for text, m in several.items()}
    return Outcome(
        measured=len(job.progress.finished),
        reused=job.progress.reused,
        rejected=job.progress.rejected,
        unstable=job.progress.unstable,
        doubtful={text: v.text for text, v in verdicts.items() if not v.stable},
        seconds=on.now_s() - started,
        busy_s=job.busy_s,
        conditions=job.conditions,
        verdict=at_speed(
            verdict(list(results.values()), job.progress.rejected, protocol),
            job.slowdown,
            limit=protocol.drift_limit if on.phone and not again else None,
        ),
        results=results,
        slowdown=job.slowdown,
    )


def _by_precision(subjects: Sequence[Subject], on: Conditions) -> dict[str, list[Subject]]:
    """Subjects by what they compute in: files by their own precision, all else by the device's."""
    groups: dict[str, list[Subject]] = {}
    device, files = on.precision, taken_as(on.precision, on.runtime)
    for s in subjects:
        own = getattr(s.model, "precision", device)
        groups.setdefault(device if own in files else own, []).append(s)
    # The device's own comes last: the outcome's conditions are its.
    return dict(sorted(groups.items(), key=lambda item: item[0] == device))


def joined(first: Outcome, second: Outcome) -> Outcome:
    """Two jobs on one device as one: stable where both are; conditions are those of the second."""
    verdicts = [o.verdict for o in (first, second) if o.results] or [second.verdict]
    texts = dict.fromkeys(v.text for v in verdicts)
    return replace(
        second,
        verdict=Verdict(all(v.stable for v in verdicts), "; ".join(texts)),
        measured=first.measured + second.measured,
        reused=first.reused + second.reused,
        rejected=first.rejected + second.rejected,
        unstable={**first.unstable, **second.unstable},
        doubtful={**first.doubtful, **second.doubtful},
        seconds=first.seconds + second.seconds,
        busy_s=first.busy_s + second.busy_s,
        results={**first.results, **second.results},
    )


def _ignore(event: Event) -> None:
    pass
