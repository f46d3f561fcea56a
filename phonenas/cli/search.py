"""The command that searches: search."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName

from .accuracy import as_begun, change_in_int8, estimating, estimating_in, training_plan
from .options import (
    DeviceNames,
    EstimatorOptions,
    Output,
    Resolution,
    SearchedPrecision,
    Seed,
    Space,
    StrategySettings,
    command,
    settings_of,
)
from .output import ANY, command_line, origin_note, search_lines, uncalibrated_note
from .spaces import refuse_precision
from .stores import device_of, find_models, models_of, open_store, precision_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phonenas.latency_model import LatencyModel
    from phonenas.latency_model.peak_memory import PeakMemory
    from phonenas.report import Reference
    from phonenas.search.precisions import PrecisionModels

__all__ = ["milliseconds", "search", "targets_of"]


@command
def search(
    output: Output,
    db: str,
    out: Annotated[
        Path, typer.Option(help="Run folder. A stopped run in it, or a finished one, goes on.")
    ],
    estimator: EstimatorOptions,
    device: DeviceNames = None,
    space: Space = "mnasnet",
    strategy: Annotated[str, typer.Option(help="{strategies}.")] = "nsga2",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Milliseconds; or a network, whose measured latency is the target. With several "
            "devices: one for all, or DEVICE=TARGET; repeatable."
        ),
    ] = None,
    across: Annotated[
        str | None,
        typer.Option(
            help="Of several devices: worst (the largest latency / target), mean (their geometric "
            "mean) or each (every latency is an objective).",
            show_default="worst with targets, else each",
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Of a device in the mean: DEVICE=NUMBER, default 1; repeatable."),
    ] = None,
    evaluations: Annotated[
        int, typer.Option(help="Number of distinct networks; a finished run goes on with more.")
    ] = 8000,
    patience: Annotated[
        int | None,
        typer.Option(
            help="End before, if so many networks added 0.1 % or less to the hypervolume.", min=1
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="End before, after so much time: 90s, 30m, 1h30m.")
    ] = None,
    halving: Annotated[
        int | None,
        typer.Option(
            help="Successive halving by N, with --accuracy training: after a few epochs of each "
            "network the best 1/N go on to N times as many, and so on up to --epochs.",
            min=2,
        ),
    ] = None,
    min_epochs: Annotated[
        int, typer.Option(help="With --halving: epochs of each network, before any goes on.", min=1)
    ] = 1,
    inherit: Annotated[
        bool,
        typer.Option(
            "--inherit",
            help="Of --accuracy training: each begins from the weights of the nearest network.",
        ),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="End before, after so much time of training of all workers: 8h, 90m."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Known networks to begin with: a run (its front), or a CSV or Parquet table of "
            "networks. They are evaluated and count."
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Further objective, minimised: macs, params, peak_activation, peak_memory, "
            "file_size (bytes) or latency:DEVICE; repeatable."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Limit on any of these: macs<=300e6; macs<=~300e6 is a soft limit; repeatable."
        ),
    ] = None,
    chance: Annotated[
        float | None, typer.Option(help="Least probability to meet the target, 0 to 1.")
    ] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="A soft target: slower networks get a smaller reward.")
    ] = False,
    trust: Annotated[
        float | None,
        typer.Option(
            help="Standard errors deducted from each estimate, before networks are compared",
            min=0.0,
            show_default="1.645, the lower end of the 90 % interval",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            help="Narrows the space: GENE=VALUE, the options that stay (block3_kernel=5, or "
            "kernel=3,5 of all blocks); repeatable."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Narrows the space: GENE=VALUE, the options that go; repeatable."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Of rl: product, sum (MONAS) or limit (RNAS); as --set reward=NAME."),
    ] = None,
    set_: StrategySettings = None,
    quantised: Annotated[
        list[str] | None,
        typer.Option(
            help="In int8: a run whose promoted networks are quantised. What that changed of their "
            "top-1 corrects what is published; repeatable."
        ),
    ] = None,
    resolution: Resolution = None,
    seed: Seed = 0,
    precision: SearchedPrecision = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="Latency model file; default: the store's. Repeatable: one a device, also of "
            "latency:DEVICE."
        ),
    ] = None,
) -> None:
    """Search offline for networks that are accurate and fast, on one device or on several."""
    from phonenas import search as s
    from phonenas import space as spaces
    from phonenas.report import gain_sentence, measured_in, write_references
    from phonenas.search.accuracy.cache import kept
    from phonenas.search.accuracy.quantisation.quantised import INTEGERS
    from phonenas.search.accuracy.successive_halving import SuccessiveHalving
    from phonenas.search.constraints import devices_named
    from phonenas.search.run_document import trained_for
    from phonenas.search.run_folder import load
    from phonenas.space.narrowed import PrecisionChoice

    from .documents.runs import searched_on
    from .networks import networks_to_start_from
    from .progress import Bars, ended_lines, seconds_of
    from .timing import DeviceTimes, known_beside, known_lines

    if (begun := as_begun(out, estimator, trust))[0] != estimator:
        output.note(
            f"{out} was begun with --accuracy surrogate, which ranks networks on the scale of 16 "
            "epochs, and goes on with it. For estimates of full schedules give another --out."
        )
    estimator, trust = begun
    refuse_precision(space, [*(fix or ()), *(exclude or ())])
    searched = spaces.narrow(spaces.get(space, resolution), fix or (), exclude or ())
    rewards = [] if reward is None else [f"reward={reward}"]
    how = s.get(strategy, seed, soft=soft, given=settings_of([*(set_ or ()), *rewards]))
    if start_from is not None:
        how = s.StartFrom(how, networks_to_start_from(start_from, searched))
    rules = s.Budget(
        evaluations,
        patience,
        None if time is None else seconds_of(time, "--time"),
        None if budget is None else seconds_of(budget, "--budget"),
    )
    if halving is None:
        output.refuse("min_epochs", "goes with --halving: give it, too")
    names = device or ["local"]
    targets = targets_of(target, names, soft, chance)
    if not target:
        output.refuse("soft chance", "needs a target: give --target, too")
    if len(names) == 1:
        output.refuse("across weight", "acts only with several --device")
    elif precision == ANY:
        raise InvalidArgument(f"--precision {ANY} is of one device: give one --device alone")
    every: PrecisionModels | None = None
    whole = searched
    if precision == ANY:
        output.refuse("model", f"is of one precision, not --precision {ANY}: leave it out")
        output.refuse("budget", "counts trainings, which precisions share: give --time")
        every = find_models(db, names[0], output.quiet, out)
        _refuse_one_precision([*(also or ()), *(limit or ())])
        searched, of = PrecisionChoice(searched, [*every.models]), {names[0]: every.first}
    else:
        asked = [*names, *devices_named(also or (), limit or ())]
        of = models_of(db, asked, model or [], output.quiet, precision)
    models = [of[name] for name in names]
    fitted, goals = models[0], []
    precisions = [*every.models] if every else [fitted.conditions.precision]
    change = change_in_int8(output, precisions, quantised or ())
    for m in models:
        given = targets.get(m.device if len(models) > 1 else names[0])
        ms = milliseconds(given)
        if given is not None and ms is None:
            ms = _measured_ms(given, m, db, searched.resolution_px)
            if every is not None:
                output.note(f"the target is the latency of {given} in {precisions[0]}")
        goals.append(None if ms is None else s.Target(ms, given or "", soft, chance))
    devices = None
    if len(models) > 1:
        kinds = dict.fromkeys(m.conditions.precision for m in models)
        if len({p if p in INTEGERS else "" for p in kinds}) > 1:
            raise InvalidArgument(
                f"{' and '.join(names)} are in {' and '.join(kinds)}, and one top-1 is estimated "
                "for all: name models of one precision, with --precision or --model"
            )
        on = [s.OnDevice(s.Latency(m), t) for m, t in zip(models, goals, strict=True)]
        weights = _weights(weight, names)
        devices = s.Devices(on, across or ("mean" if weights else ""), weights)

    @cache
    def memory_of() -> PeakMemory:
        found = _memory_of(fitted, db)
        output.note(str(found))
        return found

    further = [s.objectives.named(name, of.__getitem__, memory_of) for name in also or ()]
    limits = [s.parse_limit(text, of.__getitem__, memory_of) for text in limit or ()]
    with Bars(output.quiet) as bars, estimating(output, estimator, whole, inherit) as accuracy:
        if estimator.again:
            accuracy = kept(accuracy, out / "accuracy.db", again=True)
        accuracy = estimating_in(output, accuracy, precisions, change, out)
        bars.quantity = accuracy.quantity
        if estimator.accuracy != "surrogate":
            accuracy.options = estimator.changed() | ({"inherit": ""} if inherit else {})
        if budget is not None and not accuracy.epochs:
            raise InvalidArgument(
                f"--budget is a time of training, and {accuracy.name} trains no network: give "
                "--time, or --accuracy training"
            )
        if halving is not None:
            accuracy = SuccessiveHalving(accuracy, halving, min_epochs)
            output.note(training_plan(accuracy, rules, searched))
        found = s.search(
            searched,
            latency=every or fitted,
            accuracy=accuracy,
            strategy=how,
            spec=s.Spec(goals[0], limits, further, trust, devices=devices),
            evaluations=rules,
            into=out,
            on_event=bars.searching,
        )
        known: tuple[Reference, ...] = ()
        if not accuracy.slow and every is None:  # known networks are of one precision
            times = [DeviceTimes.around(m, db) for m in models]
            known = known_beside(found.front, searched, times, accuracy)
            write_references(out, load(out).settings, known, accuracy.note)
    front = found.front
    gained = gain_sentence(front, known, measured_in(load(out)))
    result = {
        "strategy": found.strategy,
        "evaluations": found.evaluations,
        "seconds": round(found.seconds, 3),
        "hypervolume": front.hypervolume,
        "target_ms": front.target_ms,
        "resumed_from": found.resumed_from,
        "ended": found.ended or None,
        "rungs": [{"epochs": e, "networks": n} for e, n in found.rungs.items()],
        "trained_s": round(found.trained_s, 3),
        "kept": None if found.kept is None else str(found.kept),
        **searched_on(devices, [every] if every else models),
        "runs": {name: str(folder) for name, folder in found.runs.items()},
        "accuracy": accuracy.name,
        "quantity": accuracy.quantity,
        "schedule": trained_for(accuracy.schedule, front),
        "extrapolated": sum(c.outside for c in front),
        "left_out": front.left_out,
        "failed": dict(found.failed),
        "front": [{k: v for k, v in c.to_dict().items() if k != "measured_ms"} for c in front],
        "references": [asdict(r) for r in known],
        "gain": gained,
    }

    def text() -> str:
        lines = [*search_lines(found, accuracy, out, devices), *ended_lines(found, rules)]
        lines += [*known_lines(gained, known, fitted.conditions.mark), f"written to {out}"]
        if found.kept is not None:
            lines.append(f"the run as it was before it went on is in {found.kept}")
        for m in (n for n in models if n.conditions.origin not in ("imported", "public")):
            own = [p for p in model or () if device_of(p) == m.device]
            more = ["--model", str(own[0])] if own else []
            for folder in [str(f) for f in found.runs.values()] or [str(out)]:
                words = ("validate", folder, "--device", m.device, *more)
                lines.append(f"measure the best:  {command_line(*words, db=db)}")
        notes = dict.fromkeys(uncalibrated_note(m) + origin_note(m.conditions) for m in models)
        return "\n".join(lines) + "".join(notes)

    output.print(result, text)


def targets_of(
    texts: list[str] | None, devices: list[str], soft: bool, chance: float | None
) -> dict[str, str]:
    """What --target says of each device: a number that can be a target, or what names a network."""
    from phonenas.search import Target

    targets = _by_device("--target", texts, devices)
    for asked in targets.values():
        if (ms := milliseconds(asked)) is not None:
            Target(ms, "", soft, chance)
    return targets


def _by_device(option: str, texts: list[str] | None, devices: list[str]) -> dict[str, str]:
    """What an option says of each device: a value for all of them, or DEVICE=VALUE."""
    from .networks import is_run

    if twice := sorted({d for d in devices if devices.count(d) > 1}):
        raise InvalidArgument(f"each device once; given twice: {', '.join(twice)}")
    of: dict[str, str] = {}
    everywhere: list[str] = []
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator or is_run(text.rpartition(":")[0]):
            everywhere.append(text)
        elif name not in devices or not value:
            raise InvalidArgument(
                f"{option} {text}: a device of this search, =, and a value, as {option} "
                f"{devices[0]}=8; its devices are {' and '.join(devices)}"
            )
        elif name in of:
            raise InvalidArgument(f"{option} of {name} is given twice: {of[name]} and {value}")
        else:
            of[name] = value
    if len(everywhere) > 1:
        raise InvalidArgument(
            f"{option} is given twice: {' and '.join(everywhere)}. Name the device of each, as "
            f"{option} {devices[0]}={everywhere[0]}"
        )
    return {**dict.fromkeys(devices, everywhere[0]), **of} if everywhere else of


def _weights(texts: list[str] | None, devices: list[str]) -> list[float]:
    """The weight of each device in the mean; none where none was given."""
    given = _by_device("--weight", texts, devices)
    try:
        return [float(given.get(d, 1)) for d in devices] if given else []
    except ValueError as error:
        raise InvalidArgument(f"--weight takes DEVICE=NUMBER: {error}") from error


def _memory_of(model: LatencyModel, db: str) -> PeakMemory:
    """Memory of networks on the model's device, by what it was fitted on, and nothing later.

    Raises:
        NotEnoughData: It cannot be predicted there.
    """
    from phonenas.latency_model.peak_memory import fit_peak_memory

    if model.conditions.origin in ("public", "imported"):
        raise NotEnoughData(
            f"peak_memory cannot be predicted on {model.device}: its times were measured by "
            "others, who tell no memory. Limit peak_activation or params instead"
        )
    with open_store(db) as store:
        known = store.measurements(model.conditions, "network")
    return fit_peak_memory(model.conditions, [m for m in known if not m.entry.after(model.last)])


def _refuse_one_precision(quantities: Sequence[str]) -> None:
    """Refuse objectives and limits that no precision's size or time enters.

    Raises:
        InvalidArgument: One of these is asked for.
    """
    known = ("macs", "params")
    for text in quantities:
        if not text.startswith(known):
            raise InvalidArgument(
                f"{text.partition('<')[0]} is of one precision: with --precision any only "
                f"{' and '.join(known)} can be further objectives and limits"
            )


def milliseconds(text: str | None) -> float | None:
    """A target's time; None where it is no number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _measured_ms(text: str, model: LatencyModel, db: str, resolution: int) -> float:
    """Measured latency of a network under the model's conditions; predicted on a ready phone."""
    from .networks import find

    try:
        network = find(text, 1.0, resolution)
    except UnknownName as error:
        raise UnknownName(
            f"--target {text!r} is neither a number of milliseconds nor a network: {error}"
        ) from error
    if model.conditions.origin in ("public", "imported"):
        return float(model.latency_ms([network])[0])
    with open_store(db) as store:
        for m in store.measurements(model.conditions, "network"):
            if m.subject == str(network):
                return m.latency_ms
    raise NotEnoughData(
        f"--target {text}: this network is not measured on {model.device}. Measure it:  "
        + command_line(
            *("profile", "--device", model.device, "--network", str(network)),
            *precision_words(model.conditions),
            db=db,
        )
    )
