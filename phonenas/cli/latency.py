"""Commands of the latency model: fit it, check that it still holds, and predict with it."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space import Architecture, Operator
from phonenas.space.errors import InvalidArgument, NotEnoughData, PhonenasError, SettingsChanged
from phonenas.space.naming import counted
from phonenas.space.precision import FLOAT32, checked_precision

from .options import (
    NETWORK,
    DeviceName,
    InputFile,
    ModelFile,
    Output,
    OwnResolution,
    Precision,
    Shapes,
    Threads,
    Width,
    command,
)
from .output import (
    basis,
    command_line,
    completed,
    origin_note,
    predicted_row,
    rejection_table,
    rejections,
    score_table,
    table,
    uncalibrated_note,
)
from .stores import (
    find_model,
    fitted_path,
    former_kernels,
    known_device,
    measurable,
    open_store,
    precision_words,
    profile_words,
    refit_lines,
    refuse_ready,
)

if TYPE_CHECKING:
    from phonenas.data import Conditions
    from phonenas.latency_model import LatencyModel
    from phonenas.latency_model.drift import Drift
    from phonenas.latency_model.transfer.relative import TransferModel

__all__ = ["check", "fit", "predict"]


@command
def fit(
    output: Output,
    db: str,
    device: DeviceName = "local",
    conditions: Annotated[
        str | None, typer.Option(help="Digest of the conditions to use, if the store has several.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="Source device or ready phone: adapt its model to the few measurements there are."
        ),
    ] = None,
    precision: Precision = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the model; default: beside the store.")
    ] = None,
) -> None:
    """Fit the latency model, and score it on whole networks that it was not fitted on."""
    from phonenas.devices import usual_precision
    from phonenas.latency_model.drift import between, over_time
    from phonenas.latency_model.fitting import (
        choose_conditions,
        fit_any,
        networks_uncovered,
        with_kernels,
    )
    from phonenas.latency_model.kernel_fitting import networks_left_out
    from phonenas.latency_model.outliers import by_speed, doubtful_unit
    from phonenas.latency_model.transfer.source_devices import fit_like, source_of

    refuse_ready(device)
    if precision is not None:
        checked_precision(precision)
    if "://" not in db and not Path(db).exists():
        known_device(device)  # as below
    with open_store(db) as store:
        if not store.conditions(device):
            known_device(device)  # an unknown device is the likelier mistake
        usual = usual_precision(device)
        chosen, left_out = choose_conditions(store, device, conditions, precision, usual=usual)
        path = fitted_path(db, device, out, chosen.precision)
        now = store.measurements(chosen)
        kinds = {m.kind for m in now}
        if alone := "kernel" in kinds and "operator" not in kinds:
            output.refuse("like", "needs operators, and only kernels are measured")
        source = None if alone else source_of(store, chosen, now, like)
        transferred = None if source is None else fit_like(source, chosen, now)
        try:
            model = with_kernels(transferred.model, now) if transferred else fit_any(chosen, now)
        except NotEnoughData as error:
            operators = [Operator.parse(m.subject) for m in now if m.kind == "operator"]
            if words := profile_words(device, operators, chosen):  # not every operator of mnasnet
                error.args = (str(error).replace("phonenas profile", command_line(*words)),)
            raise
        drift = over_time(store.measurements(chosen, all_series=True))
        # In another precision other times are no drift.
        same = [c for c in left_out if c.precision == chosen.precision]
        others = [
            (other, between(store.measurements(other), now) if other in same else [])
            for other in left_out
        ]
    for other, found in others if not output.quiet else []:
        apart = "; ".join(chosen.differences(other))
        print(
            f"left out, measured under other conditions ({other.digest}): {apart}"
            + "".join(f"; {one}" for one in found),
            file=sys.stderr,
        )
    kernels = model.part_of_kernels
    unused = networks_left_out(now) if kernels is not None else []
    if unused and not output.quiet:
        print(
            "left out of the model of kernels, since the store holds no file of them: "
            + ", ".join(unused),
            file=sys.stderr,
        )
    uncovered = [] if transferred else networks_uncovered(model, now)
    doubt = doubtful_unit([(m.kind, m.subject, m.latency_ms) for m in now])
    former = [m.subject for m in by_speed(now)[1]]
    model.save(path)
    scores = {k: s.to_dict() for k, s in model.scores.items()}
    result = {
        "device": device,
        "operators": len(model.table),
        "networks": len(model.examined),
        "score": scores.get("model"),
        "lookup_table": scores.get("lookup_table"),
        "macs": scores.get("macs"),
        "families": {name: s.to_dict() for name, s in model.by_family.items()},
        "calibrated": model.calibrated,
        "relative": None if transferred is None else transferred.to_dict(),
        "drift": [d.to_dict() for d in drift],
        "left_out": [
            {"conditions": other.digest, "drift": [d.to_dict() for d in found]}
            for other, found in others
        ],
        "conditions": model.conditions.to_dict(),
        "outliers": [o.to_dict() for o in model.outliers],
        "of_a_former_speed": former,
        "doubt": doubt,
        "model": str(path),
        "kernels": None if kernels is None else str(path),
        "networks_left_out": [*unused, *uncovered],
        "kernel_score": kernels.scores["model"].to_dict() if kernels and kernels.scores else None,
        "kernel_outliers": [o.to_dict() for o in kernels.outliers] if kernels else [],
    }
    notes = _of_kernels(kernels) if kernels is not model else []
    if former:
        again = command_line("profile", "--device", device, "--network", former[0], "--again")
        notes.append(
            f"left out of the fit: {len(former)} networks are older than what it rests on, and of "
            f"another speed of the device. Measure them again, as:  {again}"
        )
    if uncovered:
        missing = command_line("profile", "--device", device, "--network", uncovered[0])
        notes.append(
            f"left out of the fit: {counted(len(uncovered), 'network')} with operators that were "
            f"not measured and cannot be predicted. Measure them, as:  {missing}"
        )
    told = [
        *(kernels.outliers if kernels else ()),
        *(model.outliers if kernels is not model else ()),
    ]
    notes += [o.told(chosen) for o in told] + [t for t in (doubt, former_kernels(path)) if t]
    output.print(result, lambda: completed(_fitted(model, transferred, drift, path, notes), db))


def _of_kernels(model: LatencyModel | None) -> list[str]:
    """The score of a model of kernels as lines; none where no network was left out of a fit."""
    if model is None or not model.scores:
        return []
    n = model.calibration.networks
    title = f"\nkernels: {n} whole networks, each left out of the fit once"
    return [title, score_table({"model": model.scores["model"]}), ""]


def _fitted(
    model: LatencyModel,
    transferred: TransferModel | None,
    drift: list[Drift],
    path: Path,
    notes: list[str],
) -> str:
    n = len(model.examined)
    known = (
        f"{n} whole networks, each predicted by a model that was not fitted on it"
        if n
        else "no whole network"
    )
    parts = f"{counted(len(model.table), 'operator')}, " if model.by_operators else ""
    if model.part_of_kernels is model:
        parts = "a model of its kernels, "
    named = "" if model.conditions.precision == FLOAT32 else f" in {model.conditions.precision}"
    lines = [f"{model.device}{named}: {parts}{known}"]
    if model.scores:
        lines += ["", score_table(dict(model.scores))]
    if model.by_family:
        lines += ["", "by family, each left out whole:", score_table(dict(model.by_family))]
    if transferred is not None:
        lines += ["", str(transferred)]
    if drift:
        lines += ["", *(f"measured again: {d}" for d in drift)]
    lines += ["", *notes] if notes else []
    lines += ["", f"written to {path}"]
    return "\n".join(lines) + uncalibrated_note(model) + origin_note(model.conditions)


@command
def check(
    output: Output,
    db: str,
    device: DeviceName = "local",
    operators: Annotated[
        int, typer.Option(min=0, help="Number of operators to measure again.")
    ] = 20,
    networks: Annotated[
        int, typer.Option(min=0, help="Number of whole networks to measure again.")
    ] = 5,
    threads: Threads = None,
    precision: Precision = None,
    model: ModelFile = None,
) -> None:
    """Measure some of what the model was fitted on again, and say whether the model still holds."""
    from phonenas import devices as d
    from phonenas.latency_model.drift import TOLD, since, slowdown, upkeep

    from .progress import Bars

    if not operators + networks:
        raise InvalidArgument("--operators 0 --networks 0: nothing to measure")
    fitted = find_model(db, device, model, True, precision)
    measurable(fitted)
    if fitted.part_of_kernels is fitted:
        again = command_line("profile", "--device", device, "--kernels", "400", "--again", db=db)
        raise NotEnoughData(
            f"a check measures operators, and the model of {device} is fitted on kernels alone. "
            f"Measure its kernels again:  {again}"
        )
    with (
        open_store(db) as store,
        d.connect(device, threads=threads, precision=fitted.conditions.precision) as phone,
        Bars(output.quiet) as bars,
    ):
        bars.timed_by(phone.conditions)
        if phone.conditions != fitted.conditions:
            if threads not in (None, fitted.conditions.threads):
                _refuse_threads(fitted, phone.conditions, db)
            words = profile_words(fitted.device, fitted.table.ms, fitted.conditions)
            raise SettingsChanged(
                f"{device} has changed since its model was measured: "
                f"{'; '.join(fitted.conditions.differences(phone.conditions))} (then / now), so "
                "the model does not apply to it. Measure it again, and fit again"
                + (f":  {command_line(*words, db=db)}" if words else "")
            )
        chosen = [d.Subject("operator", o) for o in fitted.table.spread_out(operators)]
        chosen += [d.Subject("network", a) for a in fitted.spread_out(networks)]
        outcome = d.measure(chosen, on=phone, into=store, again=True, on_event=bars.profiling)
        drift = since(fitted, outcome.results.values())
        factor = slowdown(drift)
        state = upkeep(fitted, store.measurements(fitted.conditions))
        if factor is not None and abs(factor - 1) >= TOLD:
            reason = f"{device} takes {factor:.2f} times as long as when it was measured for it"
            state = replace(state, reasons=(reason, *state.reasons), outdated=True)
        rejected = rejections(store, [fitted.conditions])
    result: dict[str, Any] = {
        "device": device,
        "measured": outcome.measured,
        "measured_again": [one.to_dict() for one in drift],
        "slowdown": factor,
        **state.to_dict(),
        "rejections": rejected,
        "verdict": {"stable": outcome.verdict.stable, "text": outcome.verdict.text},
    }

    def text() -> str:
        lines = [str(one) for one in drift]
        refit = refit_lines(state, fitted, db, model) if state.reasons else []
        lines += refit or [f"the model of {fitted.until[:10]} holds"]
        lines.append(f"verdict: {outcome.verdict.text}")
        return "\n".join(lines) + rejection_table(rejected) + origin_note(fitted.conditions)

    output.print(result, text)


def _refuse_threads(model: LatencyModel, now: Conditions, db: str) -> None:
    """Refuse a check with other threads than the model's, where nothing else differs.

    Raises:
        SettingsChanged: So it is; the message names both commands that do work.
    """
    its, device = model.conditions.threads, model.device
    # The class of core can follow from the number of threads.
    if replace(now, threads=its, cores=model.conditions.cores) != model.conditions:
        return
    words = ["--device", device, "--threads", str(its), *precision_words(model.conditions)]
    own = command_line("check", *words, db=db)
    profile = profile_words(model.device, model.table.ms, model.conditions) or [
        "profile",
        "--device",
        device,
        *precision_words(model.conditions),
    ]
    words = [*profile, "--threads", str(now.threads)]
    raise SettingsChanged(
        f"the model of {device} is for {its} thread{'s' * (its != 1)}, and --threads "
        f"{now.threads} was given. Check it with its own:  {own} ; or measure for {now.threads} "
        f"and fit again:  {command_line(*words, db=db)}"
    )


@command
def predict(
    output: Output,
    db: str,
    network: Annotated[
        list[str],
        typer.Argument(
            metavar="NETWORK...",
            help=f"{NETWORK} An .onnx, .tflite or .pt2 file, module:Name of torch, ssdlite:NAME.",
        ),
    ],
    device: DeviceName = "local",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also list the time by operator.")
    ] = False,
    target: Annotated[
        float | None,
        typer.Option(help="Also print the probability that it takes at most this many ms."),
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    shape: Shapes = None,
    input_: InputFile = None,
    precision: Precision = None,
    model: ModelFile = None,
) -> None:
    """Predict the latency of networks that were never run."""
    from phonenas.latency_model import ready

    from .networks import any_network, file_precision, given_inputs, named
    from .timing import predictor

    given = given_inputs(output, network, shape, resolution, input_)
    found = {n: named(n, width, resolution) for n in network}  # a typo is told before all else
    of_blocks = [isinstance(n, Architecture) for n in found.values()]

    @cache
    def model_in(own: str | None) -> LatencyModel:
        kernels = not all(of_blocks)
        return predictor(db, device, model, output.quiet, kernels=kernels, precision=own)

    def model_of(name: str) -> LatencyModel:
        """Of the precision asked for; else of a file's own where there is one; else the usual."""
        if precision is None and model is None and device not in ready.names():
            own = file_precision(found[name], given)
            if own is not None:
                with suppress(NotEnoughData):
                    return model_in(own)
        return model_in(precision)

    result: list[dict[str, Any]] = []
    note, failed = "", list[PhonenasError]()
    for name in network:
        try:
            fitted = model_of(name)
            one = any_network(name, found[name], fitted, given)
            row = predicted_row(fitted, name, one, explain, target)
        except PhonenasError as error:
            failed.append(error)  # the others are predicted all the same
            continue
        result.append(row)
        note = note or origin_note(fitted.conditions)
    if any(of_blocks):
        note = uncalibrated_note(model_in(precision)) + note
    if failed and not result:
        raise failed[0]

    def text() -> str:
        rows = [
            [
                r["network"],
                f"○ {r['latency_ms']:.3f} ms",
                f"{r['low_ms']:.3f} to {r['high_ms']:.3f} ms",
                r["precision"],
                basis(r),
                *([f"{r['within_target']:.0%}"] if target is not None else []),
            ]
            for r in result
        ]
        header = ["network", "predicted", "90 % interval", "precision", "from"]
        shown = table(header + ([f"within {target:g} ms"] if target is not None else []), rows)
        for r in result if explain else []:
            lines = [
                [
                    o["key"],
                    f"{o['ms']:.4f}",
                    f"{o['share']:.1%}",
                    "measured" if o["measured"] else "predicted",
                ]
                for o in r["operators"]
            ]
            shown += f"\n\n{r['network']}\n" + table(["operator", "ms", "share", "alone"], lines)
        for r in result:
            shown += "".join(f"\n{r['network']}: {n}" for n in r["notes"])
        return shown + note

    output.print(result, text)
    for further in failed[1:]:
        print(completed(str(further), db, device, model, precision), file=sys.stderr)
    if failed:
        raise failed[0]
