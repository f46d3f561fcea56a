"""Kernel models as files: versioned JSON, checked when read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..data.documents import Document
from ..data.files import write_atomic
from ..data.measurement import Conditions, SubjectKind
from ..data.store import MeasurementStore
from ..space.errors import NotEnoughData, UnsupportedFormat
from .kernel_fitting import fit_kernels
from .kernel_latency import KernelLatencyModel

__all__ = ["TEACHERS", "KernelFile", "fit_kernel_file", "load_kernel_file"]

FORMAT, VERSION = "phonenas-kernel-model", 1
_DOCUMENT = Document(FORMAT, VERSION, "kernel model")
TEACHERS: tuple[SubjectKind, ...] = ("kernel", "onnx", "network")  # kinds of subjects that teach it
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class KernelFile:
    """A kernel model with what it speaks of.

    Args:
        model: Of any ONNX network.
        conditions: What it was measured under.
        until: When the latest of what taught it was measured, ISO 8601.
    """

    model: KernelLatencyModel
    conditions: Conditions
    until: str

    def save(self, path: Path) -> Path:
        """Write it, atomically; `load_kernel_file` reads it."""
        found = {
            "format": FORMAT,
            "version": VERSION,
            "conditions": self.conditions.to_dict(),
            "until": self.until,
            "kernels": self.model.to_dict(),
        }
        return write_atomic(path, json.dumps(found, separators=(",", ":")) + "\n")


def fit_kernel_file(store: MeasurementStore, conditions: Conditions) -> KernelFile | None:
    """Fit on what a store holds under some conditions; None where it holds too few kernels."""
    try:
        model = fit_kernels(store.measurements(conditions))
    except NotEnoughData:
        return None
    return KernelFile(model, conditions, store.latest(conditions, TEACHERS))


def load_kernel_file(path: Path) -> KernelFile:
    """Read a file that `save` wrote.

    Raises:
        UnsupportedFormat: Not such a file, damaged, or of another version (both are named).
    """
    again = "Fit it anew:  phonenas fit"
    if path.exists() and path.stat().st_size > _MOST_BYTES:
        raise UnsupportedFormat(f"{path} is far too large for a kernel model. {again}")
    found = _DOCUMENT.read(path, again)
    if found is None:
        raise NotEnoughData(f"there is no kernel model at {path}. {again}")
    with _DOCUMENT.checking(path, again):
        return KernelFile(
            KernelLatencyModel.from_dict(found["kernels"]),
            Conditions.from_dict(found["conditions"]),
            str(found["until"]),
        )
