"""Commands that search, and that hold what was found against the device: search, validate, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .commands_accuracy import (
    AccuracyCache,
    AccuracyWords,
    Again,
    Data,
    Epochs,
    Gpus,
    HeldOut,
    Loaders,
    Unit,
    WorkerCount,
    estimating,
)  # fmt: skip
from .console import (
    DEFAULT_DB,
    AsJson,
    BrokenImages,
    Db,
    DeviceName,
    ModelFile,
    Quiet,
    Ray,
    Resolution,
    Seed,
    Space,
    Threads,
    Verbose,
    find_model,
    measurable,
    open_store,
    origin_note,
    print_result,
    refit_lines,
    shown_db,
    table,
    uncalibrated_note,
)  # fmt: skip
from .space.errors import InvalidArgument, NotEnoughData

if TYPE_CHECKING:
    from .devices.plan import Event
    from .latency_model import LatencyModel
    from .search.rounds import Ranked, Round, RoundBegan
    from .search.validation import Validated

__all__ = ["report", "search", "validate"]


def search(
    out: Annotated[Path, typer.Option("--out", help="Run folder; a stopped run in it goes on.")],
    device: DeviceName = "local",
    space: Space = "mnasnet",
    strategy: Annotated[
        str, typer.Option(help="nsga2, weighted, rl, surrogate or random.")
    ] = "nsga2",
    target: Annotated[
        str | None, typer.Option(help="Milliseconds, or a network whose measured latency it is.")
    ] = None,
    evaluations: Annotated[int, typer.Option(help="Distinct networks to judge.")] = 8000,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Further objective, minimised: macs, params, peak_activation (bytes) or latency:DEVICE."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="Bound on any of these, as macs<=300e6; macs<=~300e6 only weighs."),
    ] = None,
    chance: Annotated[
        float | None, typer.Option(help="Least probability to meet the target, 0 to 1.")
    ] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="The target weighs; it does not bind.")
    ] = False,
    accuracy: AccuracyWords = "surrogate",
    data: Data = None,
    workers: WorkerCount = None,
    ray: Ray = None,
    gpus: Gpus = None,
    hold_out: HeldOut = None,
    epochs: Epochs = None,
    loaders: Loaders = 0,
    broken: BrokenImages = "stop",
    unit: Unit = None,
    accuracy_cache: AccuracyCache = None,
    again: Again = False,
    resolution: Resolution = None,
    seed: Seed = 0,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Search offline for networks that are accurate and fast."""
    from . import search as s
    from . import space as spaces
    from .progress import Bars
    from .search.judge import told_reasons

    chosen = spaces.get(space, resolution)
    how = s.get(strategy, seed, soft=soft)
    target_ms = None
    number = _number(target)
    if number is not None:
        target_ms = s.check_target(number)
    told = find_model(db, device, model, quiet)
    if target is not None and number is None:
        target_ms = _measured_ms(target, told, db, chosen.resolution_px)

    def model_of(other: str) -> LatencyModel:
        return find_model(db, other, None, quiet)

    further = [s.objectives.named(name, model_of) for name in also or ()]
    limits = [s.parse_limit(text, model_of) for text in limit or ()]
    options = {
        "accuracy": accuracy, "data": data, "held-out": hold_out, "epochs": epochs,
        "broken": None if broken == "stop" else broken, "unit": unit, "gpus": gpus, "workers": workers,
        "ray": ray, "accuracy-cache": accuracy_cache,
    }  # fmt: skip
    asked = {name: str(value) for name, value in options.items() if value is not None}
    with Bars(quiet) as bars, estimating(
        accuracy, space=chosen, data=data, workers=workers, ray=ray, gpus=gpus, hold_out=hold_out,
        epochs=epochs, broken=broken, unit=unit, cache=accuracy_cache,
        again=again, loaders=loaders,
    ) as judged_by:  # fmt: skip
        note = judged_by.note
        found = s.search(
            chosen, latency=told, accuracy=judged_by, strategy=how,
            target_ms=target_ms, target=target or "", evaluations=evaluations, into=out,
            soft=soft, chance=chance, also=further, limits=limits, again=again, on_event=bars.searching,
            asked={} if accuracy == "surrogate" else asked,
        )  # fmt: skip
    front = found.front
    failed = sum(found.failed.values())
    keys = (
        "id", "block_args", "top1", "top1_error", "outside", "latency_ms", "low_ms", "high_ms",
        "covered", "macs", "params", "reward", "values",
    )  # fmt: skip
    result = {
        "strategy": found.strategy,
        "evaluations": found.evaluations,
        "seconds": round(found.seconds, 3),
        "hypervolume": front.hypervolume,
        "target_ms": front.target_ms,
        "resumed_from": found.resumed_from,
        "origin": told.conditions.origin,
        "accuracy": judged_by.name,
        "failed": dict(found.failed),
        "front": [{k: c.to_dict()[k] for k in keys} for c in front],
    }

    def text() -> str:
        shown = front.candidates
        more = [n for n in (shown[0].values if shown else ()) if n not in ("macs", "params")]
        if len(shown) > 15:
            shown = tuple(shown[round(i * (len(shown) - 1) / 14)] for i in range(15))
        rows = [
            [
                str(c.id), f"○ {c.latency_ms:.2f} ms", f"{c.low_ms:.2f} to {c.high_ms:.2f}",
                f"{c.top1:.1%} ±{c.top1_error:.1%}" + (" outside" if c.outside else ""),
                f"{c.macs / 1e6:.0f} M", f"{c.params / 1e6:.2f} M",
                "" if c.reward is None else f"{c.reward:.4f}", *(f"{c.values[n]:.0%}" if n == "chance" else _short(c.values[n]) for n in more),
            ]
            for c in shown
        ]  # fmt: skip
        header = [
            "id",
            "predicted",
            "90 % interval",
            "top-1*" if note else "top-1",
            "MACs",
            "parameters",
            "reward",
            *more,
        ]
        aim = f", target {front.target_ms:.3f} ms" if front.target_ms else ""
        return (
            f"{found.evaluations:,} networks judged in {found.seconds:.1f} s by {found.strategy}"
            f"{aim}: {len(front)} on the front, hypervolume {front.hypervolume:.4f}"
            + (f", resumed from {found.resumed_from:,}" if found.resumed_from else "")
            + f"\n\n{table(header, rows)}"
            + (
                f"\n({len(rows)} of {len(front)}, evenly; all are in {out / 'run.json'})"
                if len(front) > len(rows)
                else ""
            )
            + "\n\n"
            + (
                f"{failed:,} of {found.evaluations:,} networks gave no accuracy: "
                f"{told_reasons(found.failed)}\n"
                if failed
                else ""
            )
            + (f"* {note}\n" if note else "")
            + f"written to {out}"
            + (
                f"; measure the best:  phonenas validate {out} --device {device} --db {shown_db(db)}"
                if told.conditions.origin != "imported"
                else ""
            )
            + uncalibrated_note(told)
            + origin_note(told.conditions)
        )

    print_result(result, as_json, text)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _measured_ms(text: str, model: LatencyModel, db: str, resolution: int) -> float:
    """Measured latency of a named network, under the model's own conditions."""
    from .search.networks import find

    network = find(text, 1.0, resolution)
    with open_store(db) as store:
        for m in store.measurements(model.conditions, "network"):
            if m.subject == str(network):
                return m.latency_ms
    raise NotEnoughData(
        f"--target {text}: this network is not measured on {model.device}. Measure it:  "
        f"phonenas profile --device {model.device} --network '{network}' --db {shown_db(db)}"
    )


def validate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder of a search.")],
    device: DeviceName = "local",
    top: Annotated[int, typer.Option(help="How many of the best, each round.")] = 5,
    rounds: Annotated[
        int,
        typer.Option(help="After each the model is fitted again, and the front ranked anew by it."),
    ] = 1,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    threads: Threads = None,
    ray: Ray = None,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure the best networks of a run whole, beside what was promised."""
    from . import search as s
    from .commands_devices import reached
    from .latency_model.upkeep import upkeep
    from .progress import Bars
    from .search.limits import parse_limit
    from .search.objectives import named
    from .search.rounds import Ranked, RoundBegan

    loaded = s.load(run)
    if loaded.settings["device"] != device:
        raise InvalidArgument(
            f"{run} was searched for {loaded.settings['device']}, not for {device}"
        )
    told = find_model(db, device, model, quiet=True)
    measurable(told)

    def model_of(name: str) -> LatencyModel:
        return find_model(db, name, None, quiet=True)

    asked = loaded.settings if rounds > 1 else {}
    also = [named(text.split(" (")[0], model_of) for text in asked.get("also", ())]
    limits = [parse_limit(text.split(" (")[0], model_of) for text in asked.get("limits", ())]
    with (
        reached([device], threads, ray) as (known,),
        known as phone,
        open_store(db) as store,
        Bars(quiet) as bars,
    ):

        def show(event: Event | RoundBegan | Ranked) -> None:
            if not isinstance(event, RoundBegan | Ranked):
                bars.profiling(event)
            elif rounds > 1 and not quiet:
                print(event, file=sys.stderr)

        found = s.validate_rounds(
            loaded, latency=told, on=phone, into=store, top=top, rounds=rounds, also=also,
            limits=limits, again=again, on_event=show,
        )  # fmt: skip
        held = upkeep(told, store.measurements(phone.conditions))
    last = found.rounds[-1].validation
    result: dict[str, Any] = {
        "networks": [v.to_dict() for v in last.networks],
        "score": last.score.to_dict(),
        "target_ms": last.target_ms,
        "reused": sum(r.validation.reused for r in found.rounds),
        "verdict": {"stable": last.verdict.stable, "text": last.verdict.text},
        "upkeep": held.to_dict(),
        "origin": told.conditions.origin,
    }
    if rounds > 1:
        result |= {
            "networks": [b.to_dict() for b in found.best],
            "score": found.score.to_dict(),
            "rounds": [r.to_dict() for r in found.rounds],
            "stopped": found.stopped,
        }
    mark = "●" if told.conditions.origin == "measured" else "◌"
    header = ["id", "promised", "90 % interval", told.conditions.origin, "rounds", "error",
              "interval", "target"]  # fmt: skip

    def row(name: str, v: Validated) -> list[str]:
        return [
            name, f"○ {v.predicted_ms:.2f} ms", f"{v.low_ms:.2f} to {v.high_ms:.2f}",
            f"{mark} {v.measured_ms:.2f} ms", f"±{v.spread:.1%}", f"{v.error:+.1%}",
            "inside" if v.inside else "OUTSIDE",
            {True: "meets it", False: "misses it", None: ""}[v.meets_target],
        ]  # fmt: skip

    def told_by_round(r: Round) -> str:
        networks = r.validation.networks
        inside = sum(v.inside for v in networks)
        aim = ""
        if r.front.target_ms is not None:
            expected = f" ({r.expected:.1f} expected)" if rounds > 1 else ""
            aim = f"; {r.meet} meet the target of {r.front.target_ms:.3f} ms{expected}"
        reused = r.validation.reused
        return (
            f"{inside} of {len(networks)} inside their interval{aim}; mean error "
            f"{r.validation.score.mape:.1%}"
            + (f", {r.validation.score.bias:+.1%} in the middle" if rounds > 1 else "")
            + (f"; {reused} were in the store already" if reused else "")
        )

    def text() -> str:
        if rounds == 1:
            rows = [row(str(v.candidate.id), v) for v in last.networks]
            lines = [table(header, rows), "", told_by_round(found.rounds[0])]
        else:
            lines = [table(header, [row(b.name, b.validated) for b in found.best]), ""]
            meet = sum(b.validated.meets_target is not False for b in found.best)
            measured = sum(len(r.validation.networks) for r in found.rounds)
            aim = f"; {meet} of them meet the target" if last.target_ms is not None else ""
            lines.append(f"the best {len(found.best)} of {measured} that were measured{aim}")
            if len(found.rounds) > 1:
                lines.append(f"the last round's model: {found.rounds[-1].folder / 'model.json'}")
            for r in found.rounds:
                lines += [] if r.ranked is None else [str(r.ranked)]
                lines.append(f"round {r.number}: {told_by_round(r)}")
            lines += [f"no further round: {found.stopped}"] if found.stopped else []
        lines += [f"verdict: {last.verdict.text}", *refit_lines(held, device, db)]
        return "\n".join(lines) + origin_note(told.conditions)

    print_result(result, as_json, text)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="HTML file; default report.html, or comparison.html of several, in the first RUN.",
        ),
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a run, or several compared, as one self-contained page that opens offline."""
    if len(runs) == 1:
        from .report import write_report

        path = write_report(runs[0], out)
        print_result(str(path), as_json, lambda: str(path))
        return
    from . import report_comparison as ink

    path, found = ink.write_comparison(runs, out)
    print_result(ink.as_json(found, path), as_json, lambda: ink.as_text(found, path))
