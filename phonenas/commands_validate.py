"""Commands that hold what a search found against the device, and tell it: validate, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    DEFAULT_DB,
    AsJson,
    Db,
    DeviceName,
    ModelFile,
    Quiet,
    Ray,
    Threads,
    Verbose,
    find_model,
    measurable,
    open_store,
    origin_note,
    print_result,
    refit_lines,
    table,
)  # fmt: skip
from .space.errors import InvalidArgument

if TYPE_CHECKING:
    from .devices.plan import Event
    from .latency_model import LatencyModel
    from .search.rounds import Ranked, Round, RoundBegan
    from .search.validation import Validated

__all__ = ["report", "validate"]


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
