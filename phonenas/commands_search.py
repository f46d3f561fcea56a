"""Commands that search, and that hold what was found against the device: search, validate, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    DEFAULT_DB,
    AsJson,
    Db,
    DeviceName,
    ModelFile,
    Quiet,
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
    from .latency_model import LatencyModel

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
    resolution: Resolution = 224,
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

    chosen = spaces.get(space, resolution)
    how = s.get(strategy, seed)
    target_ms = None
    number = _number(target)
    if number is not None:
        target_ms = s.check_target(number)
    told = find_model(db, device, model, quiet)
    if target is not None and number is None:
        target_ms = _measured_ms(target, told, db, resolution)
    with Bars(quiet) as bars:
        found = s.search(
            chosen, latency=told, accuracy=s.accuracy.Surrogate(), strategy=how,
            target_ms=target_ms, target=target or "", evaluations=evaluations, into=out,
            on_event=bars.searching,
        )  # fmt: skip
    front = found.front
    keys = (
        "id", "block_args", "top1", "top1_error", "outside", "latency_ms", "low_ms", "high_ms",
        "covered", "macs", "params", "reward",
    )  # fmt: skip
    result = {
        "strategy": found.strategy,
        "evaluations": found.evaluations,
        "seconds": round(found.seconds, 3),
        "hypervolume": front.hypervolume,
        "target_ms": front.target_ms,
        "resumed_from": found.resumed_from,
        "origin": told.conditions.origin,
        "front": [{k: c.to_dict()[k] for k in keys} for c in front],
    }

    def text() -> str:
        shown = front.candidates
        if len(shown) > 15:
            shown = tuple(shown[round(i * (len(shown) - 1) / 14)] for i in range(15))
        rows = [
            [
                str(c.id), f"○ {c.latency_ms:.2f} ms", f"{c.low_ms:.2f} to {c.high_ms:.2f}",
                f"{c.top1:.1%} ±{c.top1_error:.1%}" + (" outside" if c.outside else ""),
                f"{c.macs / 1e6:.0f} M", f"{c.params / 1e6:.2f} M",
                "" if c.reward is None else f"{c.reward:.4f}",
            ]
            for c in shown
        ]  # fmt: skip
        header = ["id", "predicted", "90 % interval", "top-1*", "MACs", "parameters", "reward"]
        aim = f", target {front.target_ms:.3f} ms" if front.target_ms else ""
        return (
            f"{found.evaluations:,} networks judged in {found.seconds:.1f} s by {found.strategy}"
            f"{aim}: {len(front)} on the front, hypervolume {front.hypervolume:.4f}"
            + (f", resumed from {found.resumed_from:,}" if found.resumed_from else "")
            + f"\n\n{table(header, rows)}\n\n* after a 16-epoch schedule: it ranks networks, it "
            f"does not promise ImageNet accuracy\nwritten to {out}"
            + (
                f"; measure the best:  phonenas validate {out} --device {device} --db {shown_db(db)}"
                if told.conditions.origin != "imported"
                else ""
            )
            + uncalibrated_note(told)
            + origin_note(told.conditions)
        )

    print_result(result, as_json, text)


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
    top: Annotated[int, typer.Option(help="How many of the best.")] = 5,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    threads: Threads = None,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure the best networks of a run whole, beside what was promised."""
    from . import devices as d
    from . import search as s
    from .data import Conditions
    from .data.files import write_atomic
    from .latency_model.upkeep import upkeep
    from .progress import Bars
    from .search.validation import document

    loaded = s.load(run)
    if loaded.settings["device"] != device:
        raise InvalidArgument(
            f"{run} was searched for {loaded.settings['device']}, not for {device}"
        )
    told = find_model(db, device, model, quiet=True)
    measurable(told)
    promised_under = Conditions.from_dict(loaded.model["conditions"])
    with d.connect(device, threads=threads) as phone, open_store(db) as store, Bars(quiet) as bars:
        found = s.validate(
            loaded.front,
            on=phone,
            into=store,
            top=top,
            again=again,
            expected=promised_under,
            on_event=bars.profiling,
        )
        text_of = document(found, loaded, told, phone.conditions)
        held = upkeep(told, store.measurements(phone.conditions))
    write_atomic(run / "validation.json", json.dumps(text_of, indent=1) + "\n")
    loaded.with_measured({v.candidate.id: v.measured_ms for v in found.networks})
    result = {
        "networks": [v.to_dict() for v in found.networks],
        "score": found.score.to_dict(),
        "target_ms": found.target_ms,
        "reused": found.reused,
        "verdict": text_of["verdict"],
        "upkeep": held.to_dict(),
        "origin": told.conditions.origin,
    }

    def text() -> str:
        inside = sum(v.inside for v in found.networks)
        mark = "●" if told.conditions.origin == "measured" else "◌"
        meets = sum(bool(v.meets_target) for v in found.networks)
        rows = [
            [
                str(v.candidate.id), f"○ {v.predicted_ms:.2f} ms", f"{v.low_ms:.2f} to {v.high_ms:.2f}",
                f"{mark} {v.measured_ms:.2f} ms", f"±{v.spread:.1%}", f"{v.error:+.1%}",
                "inside" if v.inside else "OUTSIDE",
                {True: "meets it", False: "misses it", None: ""}[v.meets_target],
            ]
            for v in found.networks
        ]  # fmt: skip
        header = [
            "id",
            "promised",
            "90 % interval",
            told.conditions.origin,
            "rounds",
            "error",
            "interval",
            "target",
        ]
        aim = f"; {meets} meet the target of {found.target_ms:.3f} ms" if found.target_ms else ""
        return (
            f"{table(header, rows)}\n\n{inside} of {len(found.networks)} inside their interval{aim}; "
            f"mean error {found.score.mape:.1%}"
            + (f"; {found.reused} were in the store already" if found.reused else "")
            + f"\nverdict: {found.verdict.text}"
            + "".join(f"\n{line}" for line in refit_lines(held, device, db))
            + origin_note(told.conditions)
        )

    print_result(result, as_json, text)


def report(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder of a search.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; default DIR/report.html.")
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as one self-contained page that opens offline."""
    from .report import write_report

    path = write_report(run, out)
    print_result(str(path), as_json, lambda: str(path))
