"""What the commands do with kernels and ONNX files: measure them, and predict whole networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import model_path, open_store, shown_db
from .space.errors import InvalidArgument, NotEnoughData, UncoveredOperator, UnsupportedFormat

if TYPE_CHECKING:
    from .data import MeasurementStore
    from .data.measurement import Conditions
    from .devices import Device, Outcome
    from .latency_model.kernel_latency import KernelLatencyModel
    from .space import Kernel
    from .space.onnx_file import OnnxFile

__all__ = [
    "kernel_model", "kernels_of", "network_file", "predict_file", "profile_kernels",
    "save_kernel_model",
]  # fmt: skip

_VERSION = 1
_SOME_MACS = 500_000_000  # of a network that cannot be cut: only for an estimate of the time
_MOST_BYTES = 16 << 20


def network_file(path: str) -> OnnxFile:
    """An ONNX file to measure whole; it need not be one whose kernels are known.

    Raises:
        UnknownName, InvalidArgument, UnsupportedFormat: As `cut`.
    """
    from .latency_model.onnx_kernels import cut
    from .space.onnx_file import OnnxFile

    try:
        macs = cut(Path(path)).macs
    except UncoveredOperator:
        macs = _SOME_MACS
    return OnnxFile.at(Path(path), macs)


def kernels_of(paths: Sequence[str]) -> list[Kernel]:
    """The distinct kernels of ONNX files."""
    from .latency_model.onnx_kernels import cut

    return list(dict.fromkeys(k for p in paths for k in cut(Path(p)).kernels))


def profile_kernels(
    phone: Device,
    store: MeasurementStore,
    n: int,
    networks: int,
    *,
    seed: int = 0,
    quick: bool = False,
    again: bool = False,
    on_event: Callable[[Any], None] | None = None,
    wait_below_c: float | None = None,
) -> Outcome:
    """Measure n kernels and some random networks: half of the kernels evenly, half where it errs.

    What the store holds counts, so a stopped job goes on with the same call.

    Args:
        phone: Entered.
        store: Where it goes.
        n: Kernels in all, ≥ 1.
        networks: Random networks, whole; 8 or more calibrate.
    """
    from . import devices as d
    from .latency_model.kernel_fitting import finer, kernel_times
    from .space.kernel_prior import sample
    from .space.random_cnn import RandomCNN

    if n < 1 or networks < 0:
        raise InvalidArgument(
            f"--kernels: 1 or more, got {n}; --networks 0 or more, got {networks}"
        )

    def measure(kernels: Sequence[Kernel], wholes: int) -> Outcome:
        return d.profile(
            None, on=phone, into=store, networks=0, kernels=kernels, quick=quick, again=again, seed=seed,
            files=[RandomCNN(i) for i in range(wholes)], on_event=on_event, wait_below_c=wait_below_c,
        )  # fmt: skip

    first = measure(sample((n + 1) // 2, seed), networks)
    known = kernel_times(store.measurements(first.conditions, "kernel"))
    more = n // 2 if again else n - max((n + 1) // 2, len(known))
    if more <= 0:
        return first
    return _joined(first, measure(finer(known, more, seed), 0))


def _joined(first: Outcome, second: Outcome) -> Outcome:
    return replace(
        second,
        measured=first.measured + second.measured,
        reused=first.reused + second.reused,
        rejected=first.rejected + second.rejected,
        unstable={**first.unstable, **second.unstable},
        doubtful={**first.doubtful, **second.doubtful},
        seconds=first.seconds + second.seconds,
        busy_s=first.busy_s + second.busy_s,
        results={**first.results, **second.results},
    )


# -- the model ----------------------------------------------------------------------------------


def _path(db: str, device: str, model: Path | None) -> Path:
    path = model or model_path(db, device)
    return path.with_name(path.name.removesuffix(".json").removesuffix(".model") + ".kernels.json")


def save_kernel_model(
    store: MeasurementStore, conditions: Conditions, db: str, model: Path | None = None
) -> Path | None:
    """Fit the kernel model where the store holds kernels, and write it; its path, or None."""
    from .data.files import write_atomic
    from .latency_model.kernel_fitting import fit_kernels

    measurements = store.measurements(conditions)
    try:
        fitted = fit_kernels(measurements)
    except NotEnoughData:
        return None
    path = _path(db, conditions.device, model)
    document = {
        "version": _VERSION,
        "conditions": conditions.to_dict(),
        "measurements": _relevant(measurements),
        "kernels": fitted.to_dict(),
    }
    write_atomic(path, json.dumps(document).encode())
    return path


def _relevant(measurements: Sequence[Any]) -> int:
    return sum(m.kind != "operator" for m in measurements)


def kernel_model(
    db: str, device: str, model: Path | None = None
) -> tuple[KernelLatencyModel, Conditions]:
    """The kernel model beside a device's latency model; fitted now where the store has grown.

    Raises:
        NotEnoughData: Neither is there, nor kernels to fit one on.
        UnsupportedFormat: The file is damaged or newer.
    """
    from .data.measurement import Conditions
    from .devices import connect
    from .latency_model.fitting import choose_conditions
    from .latency_model.kernel_latency import KernelLatencyModel

    path = _path(db, device, model)
    there = "://" in db or Path(db).exists()
    if there and model is None:
        with open_store(db) as store:
            if not store.conditions(device):
                connect(device)  # an unknown device is the likelier mistake
            chosen, _ = choose_conditions(store, device, None)
            held = _document(path) if path.exists() else {}
            count = _relevant(store.measurements(chosen))
            fresh = held.get("conditions") == chosen.to_dict() and held.get("measurements") == count
            if not fresh and not store.read_only:
                save_kernel_model(store, chosen, db)
    if not path.exists():
        connect(device)
        raise NotEnoughData(
            f"no kernels of {device} are measured, which predict any ONNX network. Measure some:  "
            f"phonenas profile --device {device} --kernels 400 --db {shown_db(db)}"
        )
    document = _document(path)
    try:
        conditions = Conditions.from_dict(document["conditions"])
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']}; this phonenas reads {_VERSION}")
        return KernelLatencyModel.from_dict(document["kernels"]), conditions
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnsupportedFormat):
            raise
        raise UnsupportedFormat(
            f"{path} is no kernel model: {error}. Delete it; it is fitted anew"
        ) from error


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("far too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no document")
        return found
    except ValueError as error:
        raise UnsupportedFormat(
            f"{path} is no kernel model: {error}. Delete it; it is fitted anew"
        ) from error


def predict_file(
    path: str,
    model: KernelLatencyModel,
    conditions: Conditions,
    explain: bool = False,
    target_ms: float | None = None,
) -> dict[str, Any]:
    """A row of `phonenas predict` for an ONNX file."""
    from .latency_model.onnx_kernels import cut

    network = cut(Path(path))
    told = model.predict(network, conditions.device, path)
    row: dict[str, Any] = {
        "network": path,
        "latency_ms": told.ms,
        "low_ms": told.low_ms,
        "high_ms": told.high_ms,
        "interval": 0.9,
        "covered": told.covered,
        "origin": conditions.origin,
        "notes": list(told.notes),
    }
    if target_ms is not None:
        row["within_target"] = told.within(target_ms)
    if explain:
        row["operators"] = [
            {
                "key": s.step.kernel.key,
                "node": s.step.node,
                "ms": s.ms,
                "alone_ms": s.alone_ms,
                "share": s.ms / told.ms,
                "measured": s.measured,
            }
            for s in model.explain(network)
        ]
    return row
