"""What the commands do with kernels and ONNX files: measure them, and predict whole networks."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import model_path, open_store, shown_db
from .space.errors import InvalidArgument, NotEnoughData, UncoveredOperator

if TYPE_CHECKING:
    from .data import MeasurementStore
    from .data.measurement import Conditions
    from .devices import Device, Outcome
    from .latency_model.kernel_file import KernelFile
    from .latency_model.onnx_kernels import OnnxNetwork
    from .space import Kernel
    from .space.onnx_file import OnnxFile
    from .space.ssdlite import SSDLite

__all__ = [
    "cut_detector", "kernel_model", "kernels_of", "network_file", "predict_file", "profile_kernels",
    "save_kernel_model", "show_file",
]  # fmt: skip

_SOME_MACS = 500_000_000  # of a network that cannot be cut: only for an estimate of the time


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


def kernels_of(names: Sequence[str], resolution: int | None = None) -> list[Kernel]:
    """The distinct kernels of ONNX files, and of detectors by their words."""
    from .latency_model.onnx_kernels import cut
    from .search.networks import detector

    found: dict[Kernel, None] = {}
    for name in names:
        named = detector(name, resolution=resolution)
        network = cut(Path(name)) if named is None else cut_detector(named)
        found.update(dict.fromkeys(network.kernels))
    return list(found)


def cut_detector(detector: SSDLite) -> OnnxNetwork:
    """A detector as the kernels that a runtime launches."""
    from .latency_model.onnx_kernels import cut
    from .space.ssdlite_to_onnx import ssdlite_to_onnx

    return cut(ssdlite_to_onnx(detector))


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
    from .space import Kernel
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

    even = sample((n + 1) // 2, seed)
    first = measure(even, networks)
    taken = store.measurements(first.conditions, "kernel")
    known = kernel_times(taken)
    if again:
        # Those that were chosen where the model erred are measured anew too, no others chosen.
        keys = {k.key for k in even}
        chosen = [k for k in known if k.key not in keys][: n // 2]
    else:
        # What a stopped job had begun is finished before more is chosen.
        chosen = [Kernel.parse(t) for t in store.begun(first.conditions, "kernel")]
        chosen += finer(known, max(0, n - max(len(even), len(known)) - len(chosen)), seed)
    if not chosen:
        return first
    return _joined(first, measure(chosen, 0))


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
    from .latency_model.kernel_file import fit_kernel_file

    found = fit_kernel_file(store, conditions)
    return None if found is None else found.save(_path(db, conditions.device, model))


def kernel_model(db: str, device: str, model: Path | None = None) -> KernelFile:
    """The kernel model beside a device's latency model; fitted now where the store has grown.

    Raises:
        NotEnoughData: Neither is there, nor kernels to fit one on.
        UnsupportedFormat: The file is damaged or newer.
    """
    from .devices import connect
    from .latency_model.kernel_file import TEACHERS, fit_kernel_file, load_kernel_file

    path = _path(db, device, model)
    held = load_kernel_file(path) if path.exists() else None
    if model is None and ("://" in db or Path(db).exists()):
        with open_store(db) as store:
            if held is None:
                known = [c for c in store.conditions(device, "kernel") if c.mode == "steady"]
                held = fit_kernel_file(store, known[-1]) if known else None
            elif store.latest(held.conditions, TEACHERS) > held.until:
                held = fit_kernel_file(store, held.conditions) or held
            else:
                return held
            if held is not None and not store.read_only:
                held.save(path)
    if held is None:
        connect(device)  # an unknown device is the likelier mistake
        raise NotEnoughData(
            f"too few kernels of {device} are measured, which predict any ONNX network. Measure some:  "
            f"phonenas profile --device {device} --kernels 400 --db {shown_db(db)}"
        )
    return held


def show_file(path: str) -> dict[str, Any]:
    """What `phonenas show` tells of an ONNX file: its kernels in order."""
    from .latency_model.onnx_kernels import cut

    network = cut(Path(path))
    return {
        "name": path,
        "params": sum(k.params for k in network.kernels),
        "macs": network.macs,
        "operators": [{"key": k.key, "macs": k.macs, "params": k.params} for k in network.kernels],
        "notes": list(network.notes),
    }


def predict_file(
    path: str,
    held: KernelFile,
    explain: bool = False,
    target_ms: float | None = None,
    detector: SSDLite | None = None,
) -> dict[str, Any]:
    """A row of `phonenas predict` for an ONNX file; for a detector, if one is given, of that name."""
    from .latency_model.onnx_kernels import cut
    from .search.networks import detector as named

    network = cut(Path(path)) if detector is None else cut_detector(detector)
    model, conditions = held.model, held.conditions
    # A width or size of its own stands in its text, not always in the words that were typed.
    own = detector is not None and named(path) != detector
    told = model.predict(network, conditions.device, shlex.quote(str(detector) if own else path))
    row: dict[str, Any] = {
        "network": path,
        "latency_ms": told.ms,
        "low_ms": told.low_ms,
        "high_ms": told.high_ms,
        "interval": 0.9,
        "covered": told.covered,
        "calibrated": model.networks > 0,
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
