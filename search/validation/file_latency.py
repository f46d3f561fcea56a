"""Exported files on a device: the subjects of a measuring job, and what it says of each file.

A latency model predicts an architecture, and what is measured beside it has random weights. What
ships is a file with trained weights, and its time may differ: where weights are denormal, which
some processors compute slowly, where many are 0, or where a tool folded or added nodes. So the file
itself is measured, in the same job as its architecture: both see the same state of the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phonenas.data import MeasurementStore
from phonenas.data.files import TemporaryFolder
from phonenas.devices import Device, Outcome, Subject
from phonenas.space import Architecture, Classifier
from phonenas.space.errors import PhonenasError
from phonenas.space.lowering.weight_values import weight_values
from phonenas.space.onnx_file import OnnxFile
from phonenas.space.tflite_file import TfliteFile

from ..exported_file import ExportedFile, FileLatency, file_sha256

__all__ = ["FileJob", "file_jobs", "subjects_of"]

_MORE_ZEROS = 0.01  # share of the weights


@dataclass(frozen=True)
class FileJob:
    """An exported file that is to be measured.

    Args:
        exported: The file in its forms.
        path, sha256: Of the form that the device takes; None and "" where it takes none.
        file: The same as a subject.
        beside: The architecture with random weights.
        unmeasured: Why the device takes none; else "".
        also: The same network's files in other precisions.
    """

    exported: ExportedFile
    beside: Subject
    path: Path | None = None
    sha256: str = ""
    file: Subject | None = None
    unmeasured: str = ""
    also: tuple[FileJob, ...] = ()

    def latency(self, outcome: Outcome, on: Device) -> FileLatency:
        """What a job that measured its subjects on a device says of the file."""
        also = tuple(job.latency(outcome, on) for job in self.also)
        return replace(self._alone(outcome, on), also=also)

    def _alone(self, outcome: Outcome, on: Device) -> FileLatency:
        if self.path is None or self.file is None:
            names = " or ".join(path.name for path in self.exported.paths)
            return FileLatency(file=names, unmeasured=self.unmeasured)
        name, sha256 = self.path.name, self.sha256
        changed = self.exported.sha256.get(name, sha256) != sha256
        whole, random = (outcome.results.get(s.text) for s in (self.file, self.beside))
        if whole is None:
            reason = outcome.unstable.get(self.file.text, "it gave no stable measurement")
            return FileLatency(file=name, sha256=sha256, changed=changed, unmeasured=reason)
        other = ""
        if whole.conditions.precision != on.conditions.precision:
            random, other = None, whole.conditions.precision  # which says nothing of the weights
        differs = None
        if random is not None and whole.spread == whole.spread and random.spread == random.spread:
            bars_ms = whole.latency_ms * whole.spread + random.latency_ms * random.spread
            differs = abs(whole.latency_ms - random.latency_ms) > bars_ms
        return FileLatency(
            file=name,
            sha256=sha256,
            changed=changed,
            measured_ms=whole.latency_ms,
            spread=_known(whole.spread),
            random_ms=None if random is None else random.latency_ms,
            random_spread=None if random is None else _known(random.spread),
            differs=differs,
            reason=_reason(self.path, self.exported.network, on) if differs else "",
            precision=other,
        )


def file_jobs(files: Sequence[ExportedFile], on: Device) -> list[FileJob]:
    """Each file in the first of its forms that the device takes.

    Args:
        files: Exported.
        on: An entered device.
    """
    return [_job(exported, on) for exported in files]


def _job(exported: ExportedFile, on: Device) -> FileJob:
    network = exported.network
    kind = "network" if isinstance(network, Architecture) else "onnx"
    beside = Subject(kind, network)  # type: ignore[arg-type]
    also = tuple(_job(other, on) for other in exported.also)
    refused = [] if exported.paths else ["no file was exported"]
    for path in exported.paths:
        model = TfliteFile if path.suffix == ".tflite" else OnnxFile
        try:
            sha256 = file_sha256(path)
            file = model.at(path, network.macs)
            with TemporaryFolder() as folder:
                on.lower(file, folder / "file")
        except (PhonenasError, OSError) as error:
            refused.append(str(error))
            continue
        return FileJob(exported, beside, path, sha256, Subject("onnx", file), also=also)
    return FileJob(exported, beside, unmeasured="; ".join(refused), also=also)


def subjects_of(jobs: Sequence[FileJob], on: Device, into: MeasurementStore) -> list[Subject]:
    """What is measured for these files; where one of a network is new, all of it is measured again.

    Args:
        jobs: The files.
        on: An entered device.
        into: The store: a time of another day would be of another state of the device.
    """
    subjects = []
    for job in jobs:
        files = [j.file for j in (job, *job.also) if j.file is not None]
        new = any(_is_new(file, on, into) for file in files)
        if job.file is not None:
            subjects.append(replace(job.beside, again=new))
        subjects += [replace(file, again=new) for file in files]
    return subjects


def _is_new(file: Subject, on: Device, into: MeasurementStore) -> bool:
    # A file is stored under its own precision.
    own = getattr(file.model, "precision", on.conditions.precision)
    known = into.measurements(replace(on.conditions, precision=own), "onnx")
    return file.text not in {m.subject for m in known}


def _known(spread: float) -> float | None:
    return spread if spread == spread else None


def _reason(path: Path, network: Classifier, on: Device) -> str:
    """What in a file may make its time another than that of the architecture."""
    try:
        with TemporaryFolder() as folder:
            own, random = weight_values(path), weight_values(on.lower(network, folder / "random"))
    except (PhonenasError, OSError) as error:
        return f"why cannot be told ({error})"
    told = []
    if own.denormal > random.denormal:
        told.append(
            f"{own.denormal:,} of its {own.numbers:,} weights are denormal numbers, which some "
            "processors compute slowly"
        )
    zero, random_zero = (v.zero / max(v.numbers, 1) for v in (own, random))
    if abs(zero - random_zero) > _MORE_ZEROS:
        told.append(f"{zero:.1%} of its weights are 0, and {random_zero:.1%} of the random ones")
    if own.nodes != random.nodes:
        told.append(
            f"it has {own.nodes} nodes, and the architecture as it is exported here "
            f"{random.nodes}: nodes were folded or added"
        )
    return "; ".join(told) or "its weights and its nodes show no reason"
