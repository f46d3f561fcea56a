"""The commands that make a latency model, and ask the device whether it still holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .commands_kernels import save_kernel_model
from .console import (
    DEFAULT_DB,
    AsJson,
    Db,
    DeviceName,
    ModelFile,
    Quiet,
    Threads,
    Verbose,
    find_model,
    measurable,
    model_path,
    open_store,
    origin_note,
    print_result,
    refit_lines,
    score_table,
    uncalibrated_note,
)
from .space.errors import InvalidArgument, SettingsChanged

if TYPE_CHECKING:
    from .latency_model import LatencyModel
    from .latency_model.drift import Drift
    from .latency_model.relatives import Told

__all__ = ["check", "fit"]


def fit(
    device: DeviceName = "local",
    conditions: Annotated[
        str | None, typer.Option(help="Digest of the conditions, if there are several.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Tell it from this device and the few measurements there are."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model is written.")] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fit the latency model, and score it on networks that it was not fitted on."""
    from .devices import connect
    from .latency_model.drift import between, over_time
    from .latency_model.fitting import choose_conditions, fit_measurements
    from .latency_model.relatives import relative_of, tell

    if "://" not in db and not Path(db).exists():
        connect(device)  # as below
    with open_store(db) as store:
        if not store.conditions(device):
            connect(device)  # an unknown device is the likelier mistake
        chosen, left_out = choose_conditions(store, device, conditions)
        now = store.measurements(chosen)
        kinds = {m.kind for m in now}
        kernels = save_kernel_model(store, chosen, db, out) if "kernel" in kinds else None
        if kernels is not None and "operator" not in kinds:
            # Kernels alone predict ONNX files; spaces need operators.
            alone = {"device": device, "kernels": str(kernels), "conditions": chosen.to_dict()}
            print_result(
                alone, as_json, lambda: f"{device}: a model of its kernels\n\nwritten to {kernels}"
            )
            return
        relative = relative_of(store, chosen, now, like)
        told = None if relative is None else tell(relative, chosen, now)
        model = fit_measurements(chosen, now) if told is None else told.model
        drift = over_time(store.measurements(chosen, all_series=True))
        others = [(other, between(store.measurements(other), now)) for other in left_out]
    for other, found in others if not quiet else []:
        apart = "; ".join(chosen.differences(other))
        print(
            f"left out, measured under other conditions ({other.digest}): {apart}"
            + "".join(f"; {one}" for one in found),
            file=sys.stderr,
        )
    path = model.save(out or model_path(db, device))
    scores = {k: s.to_dict() for k, s in model.scores.items()}
    result = {
        "device": device,
        "operators": len(model.table),
        "networks": len(model.examined),
        "score": scores.get("model"),
        "lookup_table": scores.get("lookup_table"),
        "macs": scores.get("macs"),
        "calibrated": model.calibrated,
        "relative": None if told is None else told.to_dict(),
        "drift": [d.to_dict() for d in drift],
        "left_out": [
            {"conditions": other.digest, "drift": [d.to_dict() for d in found]}
            for other, found in others
        ],
        "conditions": model.conditions.to_dict(),
        "model": str(path),
        "kernels": None if kernels is None else str(kernels),
    }
    print_result(result, as_json, lambda: _fitted(model, told, drift, path, kernels))


def _fitted(
    model: LatencyModel, told: Told | None, drift: list[Drift], path: Path, kernels: Path | None
) -> str:
    n = len(model.examined)
    known = (
        f"{n} whole networks, each predicted by a model that had not seen it"
        if n
        else "no whole network"
    )
    lines = [f"{model.device}: {len(model.table):,} operators, {known}"]
    if model.scores:
        lines += ["", score_table(dict(model.scores))]
    if told is not None:
        lines += ["", str(told)]
    if drift:
        lines += ["", *(f"measured again: {d}" for d in drift)]
    lines += ["", f"written to {path}" + (f", and its kernels to {kernels}" if kernels else "")]
    return "\n".join(lines) + uncalibrated_note(model) + origin_note(model.conditions)


def check(
    device: DeviceName = "local",
    operators: Annotated[int, typer.Option(min=0, help="Operators to measure again.")] = 20,
    networks: Annotated[int, typer.Option(min=0, help="Whole networks to measure again.")] = 5,
    threads: Threads = None,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure some of what taught the model again, and say whether the model still holds."""
    from . import devices as d
    from .latency_model.drift import over_time
    from .latency_model.upkeep import upkeep
    from .progress import Bars

    if not operators + networks:
        raise InvalidArgument("--operators 0 --networks 0: nothing to measure")
    told = find_model(db, device, model, quiet=True)
    measurable(told)
    with d.connect(device, threads=threads) as phone, open_store(db) as store, Bars(quiet) as bars:
        if phone.conditions != told.conditions:
            raise SettingsChanged(
                f"{device} is not as it was when its model was measured: "
                f"{'; '.join(told.conditions.differences(phone.conditions))} (then / now). What was "
                f"measured does not speak of it. Profile and fit anew:  phonenas profile --device {device}"
            )
        chosen = [d.Subject("operator", o) for o in told.table.spread_out(operators)]
        chosen += [d.Subject("network", a) for a in told.spread_out(networks)]
        outcome = d.measure(chosen, on=phone, into=store, again=True, on_event=bars.profiling)
        texts = {s.text for s in chosen}
        drift = over_time(
            m for m in store.measurements(told.conditions, all_series=True) if m.subject in texts
        )
        found = upkeep(told, store.measurements(told.conditions))
    result: dict[str, Any] = {
        "device": device,
        "measured": outcome.measured,
        "measured_again": [one.to_dict() for one in drift],
        **found.to_dict(),
        "verdict": {"stable": outcome.verdict.stable, "text": outcome.verdict.text},
    }

    def text() -> str:
        lines = [str(one) for one in drift]
        held = refit_lines(found, device, db) if found.reasons else []
        lines += held or [f"the model of {told.until[:10]} holds"]
        lines.append(f"verdict: {outcome.verdict.text}")
        return "\n".join(lines) + origin_note(told.conditions)

    print_result(result, as_json, text)
