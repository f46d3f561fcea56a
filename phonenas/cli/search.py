"""The command that searches: search."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName
from phonenas.space.naming import counted
from phonenas.space.precision import from_front

from .accuracy import as_begun, as_of_float32, estimating, measured_changes, training_plan
from .options import (
    DeviceName,
    EstimatorOptions,
    ModelFile,
    Output,
    Resolution,
    SearchedPrecision,
    Seed,
    Space,
    StrategySettings,
    command,
    settings_of,
)
from .output import ANY, command_line, origin_note, table, uncalibrated_note
from .stores import find_model, find_models, open_store, precision_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phonenas.latency_model import LatencyModel
    from phonenas.latency_model.peak_memory import PeakMemory
    from phonenas.report import Reference
    from phonenas.search import Budget, Candidate, Searched
    from phonenas.search.accuracy import AccuracyEstimator
    from phonenas.search.precisions import PrecisionModels

__all__ = ["search"]

_MOST_ROWS = 15


@command
def search(
    output: Output,
    db: str,
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder. A stopped run in it continues, or one with fewer evaluations."
        ),
    ],
    estimator: EstimatorOptions,
    device: DeviceName = "local",
    space: Space = "mnasnet",
    strategy: Annotated[str, typer.Option(help="{strategies}.")] = "nsga2",
    target: Annotated[
        str | None, typer.Option(help="Milliseconds, or a network whose measured latency it is.")
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
            help="Successive halving: each network is trained for a few epochs, and one in so many "
            "goes on for so many times as many, up to --epochs. Of --accuracy training.",
            min=2,
        ),
    ] = None,
    min_epochs: Annotated[
        int, typer.Option(help="With --halving: epochs of each network, before any goes on.", min=1)
    ] = 1,
    budget: Annotated[
        str | None,
        typer.Option(
            help="End before, after so much time of training, summed over workers: 8h, 90m."
        ),
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
            help="Standard errors deducted from each estimate before networks are compared: so a "
            "search keeps to what the estimator knows. 0: none.",
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
    model: ModelFile = None,
) -> None:
    """Search offline for networks that are accurate and fast."""
    from phonenas import search as s
    from phonenas import space as spaces
    from phonenas.report import gain_sentence, write_references
    from phonenas.search.accuracy.cache import kept
    from phonenas.search.accuracy.quantisation.change import published_change
    from phonenas.search.accuracy.quantisation.quantised import INTEGERS, InPrecisions, in_precision
    from phonenas.search.accuracy.successive_halving import SuccessiveHalving
    from phonenas.search.run_folder import load
    from phonenas.space.narrowed import PrecisionChoice

    from .networks import networks_to_start_from
    from .progress import Bars, seconds_of
    from .timing import DeviceTimes, known_beside, known_lines

    if (begun := as_begun(out, estimator, trust))[0] != estimator:
        output.note(
            f"{out} was begun with --accuracy surrogate, which ranks networks on the scale of 16 "
            "epochs, and goes on with it. For estimates of full schedules give another --out."
        )
    estimator, trust = begun
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
    if target is None:
        output.refuse("soft chance", "needs a target: give --target, too")
    target_ms = _number(target)
    if target_ms is not None:
        s.Target(target_ms, "", soft, chance)  # before a model is looked for
    every: PrecisionModels | None = None
    whole = searched
    if precision == ANY:
        output.refuse("model", "is of one precision, and --precision any takes several")
        output.refuse("halving budget", "goes with one precision: --precision any takes several")
        every = find_models(db, device, output.quiet)
        _refuse_one_precision([*(also or ()), *(limit or ())])
        searched, fitted = PrecisionChoice(searched, [*every.models]), every.first
    else:
        fitted = find_model(db, device, model, output.quiet, precision)
    of = ANY if every else fitted.conditions.precision
    if of not in (ANY, *INTEGERS):
        output.refuse("quantised", f"is of int8, and the model of {device} is in {of}")
    change = published_change().with_measured(measured_changes(quantised or ()))
    if target is not None and target_ms is None:
        target_ms = _measured_ms(target, fitted, db, searched.resolution_px)
    given = None if target_ms is None else s.Target(target_ms, target or "", soft, chance)

    def model_of(other: str) -> LatencyModel:
        return find_model(db, other, None, output.quiet, precision)

    @cache
    def memory_of() -> PeakMemory:
        found = _memory_of(fitted, db)
        output.note(str(found))
        return found

    further = [s.objectives.named(name, model_of, memory_of) for name in also or ()]
    limits = [s.parse_limit(text, model_of, memory_of) for text in limit or ()]
    with Bars(output.quiet) as bars, estimating(output, estimator, whole) as accuracy:
        if estimator.again:
            accuracy = kept(accuracy, out / "accuracy.db", again=True)
        if every is not None:
            accuracy = InPrecisions(accuracy, change)
        elif not as_of_float32(out):
            accuracy = in_precision(accuracy, of, change)
        bars.quantity = accuracy.quantity
        if estimator.accuracy != "surrogate":
            accuracy.options = estimator.changed()
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
            spec=s.Spec(target=given, also=further, limits=limits, trust=trust),
            evaluations=rules,
            into=out,
            on_event=bars.searching,
        )
        known: tuple[Reference, ...] = ()
        if not accuracy.slow and every is None:  # known networks are of one precision
            times = DeviceTimes.around(fitted, db)
            known = known_beside(found.front, searched, times, accuracy)
            write_references(out, load(out).settings, known, accuracy.note)
    front = found.front
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
        "origin": fitted.conditions.origin,
        "precision": (every or fitted).conditions.precision,
        "runs": {name: str(folder) for name, folder in found.runs.items()},
        "accuracy": accuracy.name,
        "quantity": accuracy.quantity,
        "schedule": accuracy.schedule,
        "extrapolated": sum(c.outside for c in front),
        "failed": dict(found.failed),
        "front": [{k: v for k, v in c.to_dict().items() if k != "measured_ms"} for c in front],
        "references": [asdict(r) for r in known],
        "gain": gain_sentence(front, known),
    }

    def text() -> str:
        lines = [*_lines(found, accuracy, out), *_ended(found, rules)]
        lines += [*known_lines(front, known, fitted.conditions.mark), f"written to {out}"]
        if found.kept is not None:
            lines.append(f"the run as it was before it went on is in {found.kept}")
        if fitted.conditions.origin not in ("imported", "public"):
            more = [] if model is None else ["--model", str(model)]
            for folder in [str(f) for f in found.runs.values()] or [str(out)]:
                words = ("validate", folder, "--device", device, *more)
                lines.append(f"measure the best:  {command_line(*words, db=db)}")
        return "\n".join(lines) + uncalibrated_note(fitted) + origin_note(fitted.conditions)

    output.print(result, text)


def _memory_of(model: LatencyModel, db: str) -> PeakMemory:
    """Memory of networks on the model's device, by what it was fitted on: so that a search goes on
    with the same numbers whatever is measured meanwhile.

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


def _ended(found: Searched, budget: Budget) -> list[str]:
    """Why a search ended before it had evaluated all networks, and how it goes on."""
    from .progress import duration

    if found.evaluations >= budget.evaluations:
        return []
    why, more = "no further network was found in the space", ""
    if found.ended == "patience" and budget.patience is not None:
        why = f"the last {counted(budget.patience, 'network')} added 0.1 % or less to the "
        why, more = f"{why}hypervolume", "--patience"
    elif found.ended == "time" and budget.time_s is not None:
        why, more = f"{duration(budget.time_s)} are over", "--time"
    elif found.ended == "training" and budget.training_s is not None:
        why, more = f"{duration(budget.training_s)} of training are over", "--budget"
    elif found.ended:  # by a rule of an earlier command, and this one's is spent already
        why, more = f"its {found.ended} was over before", "--time, --budget or --evaluations"
    goes_on = f"; the same command with more {more}, or without, goes on" if more else ""
    return [f"ended before {counted(budget.evaluations, 'evaluation')}: {why}{goes_on}"]


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


def _lines(found: Searched, accuracy: AccuracyEstimator, out: Path) -> list[str]:
    from phonenas.search.history import summarise_reasons

    front, note = found.front, accuracy.note
    shown = front.candidates
    more = [n for n in (shown[0].values if shown else ()) if n not in ("macs", "params")]
    if len(shown) > _MOST_ROWS:
        last = _MOST_ROWS - 1
        shown = tuple(shown[round(i * (len(shown) - 1) / last)] for i in range(_MOST_ROWS))
    header = [
        "id",
        "predicted",
        "90 % interval",
        f"{accuracy.quantity}{'*' * bool(note)}",
        "",
        "MACs",
    ]
    chosen = {c.id: from_front(c.block_args)[0] for c in shown} if found.runs else {}
    header += ["parameters", "reward", *more, *(["precision"] if chosen else [])]
    against = f", target {front.target_ms:.3f} ms" if front.target_ms else ""
    resumed = f", resumed from {found.resumed_from:,}" if found.resumed_from else ""
    lines = [
        f"{counted(found.evaluations, 'network')} evaluated in {found.seconds:.1f} s by "
        f"{found.strategy}"
        f"{against}: {len(front)} on the front, hypervolume {front.hypervolume:.4f}{resumed}",
        "",
        table(header, [[*_row(c, more), *([chosen[c.id]] if chosen else [])] for c in shown]),
    ]
    if found.rungs:
        (least, _), *more_epochs = found.rungs.items()
        further = [f", {n:,} of them for {e}" for e, n in more_epochs]
        lines[0] += f"; trained for {counted(least, 'epoch')}{''.join(further)}"
    if len(front) > len(shown):
        rest = command_line("show", str(out))
        lines.append(f"({len(shown)} of {len(front)}, evenly spaced; the best by reward:  {rest})")
    lines.append("")
    if failed := sum(found.failed.values()):
        lines.append(
            f"{failed:,} of {counted(found.evaluations, 'network')} have no accuracy: "
            f"{summarise_reasons(found.failed)}"
        )
    if outside := sum(c.outside for c in front):
        lines.append(f"{outside} of {len(front)} networks on the front are extrapolated")
    return [*lines, f"* {note}"] if note else lines


def _row(c: Candidate, more: list[str]) -> list[str]:
    return [
        str(c.id),
        f"○ {c.latency_ms:.2f} ms",
        f"{c.low_ms:.2f} to {c.high_ms:.2f}",
        f"○ {c.top1:.1%} ±{c.top1_error:.1%}",
        "extrapolated" if c.outside else "",
        f"{c.macs / 1e6:.0f} M",
        f"{c.params / 1e6:.2f} M",
        "" if c.reward is None else f"{c.reward:.4f}",
        *(f"{c.values[n]:.0%}" if n == "chance" else _short(c.values[n]) for n in more),
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _measured_ms(text: str, model: LatencyModel, db: str, resolution: int) -> float:
    """Measured latency of a named network, under the model's own conditions; predicted on a phone
    that is not here."""
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
