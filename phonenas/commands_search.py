"""The command that searches: search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Verbose,
    find_model,
    open_store,
    origin_note,
    print_result,
    shown_db,
    table,
    uncalibrated_note,
)  # fmt: skip
from .space.errors import NotEnoughData

if TYPE_CHECKING:
    from .latency_model import LatencyModel

__all__ = ["search"]


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
