"""The command that measures the best networks of a run: validate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import Infeasible, PrecisionDiffers, UnstableDevice
from phonenas.space.precision import checked_precision

from .options import DeviceName, ModelFile, Output, Precision, Ray, Threads, command
from .output import figures_table, files_lines, origin_note, table
from .stores import find_model, measurable, open_store, refit_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phonenas.devices.measuring.events import Event
    from phonenas.search.constraints import Limit
    from phonenas.search.run_folder import Loaded
    from phonenas.search.validation.rounds import Ranked, Round, RoundBegan
    from phonenas.search.validation.validate import Validated

__all__ = ["searched_in", "validate"]


@command
def validate(
    output: Output,
    db: str,
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder of a search.")],
    device: DeviceName = "local",
    top: Annotated[int, typer.Option(help="Number of networks measured in each round.")] = 5,
    rounds: Annotated[
        int,
        typer.Option(
            help="Rounds; after each the model is fitted and all evaluated networks ranked again."
        ),
    ] = 1,
    again: Annotated[
        bool, typer.Option("--again", help="Measure again what the store has.")
    ] = False,
    threads: Threads = None,
    ray: Ray = None,
    precision: Precision = None,
    model: ModelFile = None,
) -> None:
    """Measure the best networks of a run on the device, beside the predictions.

    Of a network that was promoted the exported file is measured too.
    """
    from phonenas import search as s
    from phonenas.latency_model.calibration import DIVIDED
    from phonenas.latency_model.drift import upkeep
    from phonenas.latency_model.model import VERSION
    from phonenas.report import gain_sentence, measured_in, read_references
    from phonenas.search.device_view import of_device
    from phonenas.search.exported_file import refuse_unstable
    from phonenas.search.validation.rounds import Ranked, RoundBegan
    from phonenas.search.validation.validate import SAID, counted

    from .devices import reached
    from .progress import Bars

    whole = s.load(run)
    loaded = searched_in(of_device(whole, device), precision)
    run, of_run = loaded.path, loaded.precision
    fitted = find_model(db, device, model, True, of_run)
    measurable(fitted)
    if loaded.model.get("version", 2) < VERSION:
        output.note(
            f"{run} was searched with a model of an older release: {DIVIDED}. Its predictions are "
            "in part off for that alone: search again"
        )

    with (
        open_store(db) as store,
        reached([device], threads, ray, of_run) as (known,),
        known as phone,
        Bars(output.quiet) as bars,
    ):

        def show(event: Event | RoundBegan | Ranked) -> None:
            if not isinstance(event, RoundBegan | Ranked):
                bars.profiling(event)
            elif rounds > 1:
                output.note(str(event))

        bars.timed_by(phone.conditions)

        found = s.validate_rounds(
            loaded,
            latency=fitted,
            on=phone,
            into=store,
            top=top,
            rounds=rounds,
            again=again,
            on_event=show,
        )
        state = upkeep(fitted, store.measurements(phone.conditions))
    last = found.rounds[-1].validation
    result: dict[str, Any] = {
        "networks": [v.to_dict() for v in last.networks],
        "score": last.score.to_dict(),
        "target_ms": last.target_ms,
        "reused": sum(r.validation.reused for r in found.rounds),
        "unmeasured": [u.to_dict() for u in found.unmeasured],
        "verdict": {"stable": last.verdict.stable, "text": last.verdict.text},
        "upkeep": state.to_dict(),
        "origin": fitted.conditions.origin,
    }
    beside = read_references(whole)
    result["gain"] = gained = gain_sentence(whole.front, beside, measured_in(whole))
    result["references"] = [asdict(r) for r in beside]
    if rounds > 1:
        result |= {
            "networks": [b.to_dict() for b in found.best],
            "score": found.score.to_dict(),
            "rounds": [r.to_dict() for r in found.rounds],
            "stopped": found.stopped,
        }
    result["limits"] = kept = _memory_kept(loaded.spec.limits, result["networks"])
    sign = last.conditions.mark
    header = [
        "id",
        "predicted",
        "90 % interval",
        fitted.conditions.origin,
        "± (90 %)",
        "error",
        "interval",
        "target",
    ]

    unmeasured = [f"network {u.candidate.id}: {u.reason}" for u in found.unmeasured]
    if rounds > 1:
        unmeasured = [
            f"{r.folder}:{u.candidate.id}: {u.reason}"
            for r in found.rounds
            for u in r.validation.unmeasured
        ]

    def row(name: str, v: Validated) -> list[str]:
        return [
            name,
            f"○ {v.predicted_ms:.2f} ms",
            f"{v.low_ms:.2f} to {v.high_ms:.2f}",
            f"{sign} {v.measured_ms:.2f} ms",
            f"±{v.spread:.1%}",
            f"{v.error:+z.1%}",
            "inside" if v.inside else "OUTSIDE",
            "" if v.verdict is None else SAID[v.verdict],
        ]

    def figures(networks: list[tuple[str, Validated]]) -> list[str]:
        shown = figures_table([(name, v.figures) for name, v in networks], sign, "id")
        files = files_lines([(name, v.file) for name, v in networks if v.file], sign, "id")
        return [*([shown, ""] if shown else []), *([*files, ""] if files else [])]

    def summary(r: Round) -> str:
        networks = r.validation.networks
        inside = sum(v.inside for v in networks)
        against = ""
        if r.front.target_ms is not None:
            expected = f" ({r.expected:.1f} expected to meet it)" if rounds > 1 else ""
            verdicts = [v.verdict for v in networks]
            against = f"; {counted(verdicts, r.front.target_ms)}{expected}"
        reused = r.validation.reused
        return (
            f"{inside} of {len(networks)} inside their interval{against}; mean error "
            f"{r.validation.score.mape:.1%}"
            + (f", bias {r.validation.score.bias:+z.1%}" if rounds > 1 else "")
            + (f"; {reused} were in the store already" if reused else "")
            + (f"\n{r.validation.score.note}" if r.validation.score.note else "")
        )

    def text() -> str:
        if rounds == 1:
            rows = [row(str(v.candidate.id), v) for v in last.networks]
            lines = [
                table(header, rows),
                "",
                *figures([(str(v.candidate.id), v) for v in last.networks]),
            ]
            lines.append(summary(found.rounds[0]))
        else:
            lines = [table(header, [row(b.name, b.validated) for b in found.best]), ""]
            lines += figures([(b.name, b.validated) for b in found.best])
            measured = sum(len(r.validation.networks) for r in found.rounds)
            against = ""
            if last.target_ms is not None:
                of_them = [b.validated.verdict for b in found.best]
                against = f"; of them {counted(of_them, last.target_ms)}"
            lines.append(f"the best {len(found.best)} of {measured} that were measured{against}")
            if len(found.rounds) > 1:
                lines.append(f"the last round's model: {found.rounds[-1].folder / 'model.json'}")
            for r in found.rounds:
                lines += [] if r.ranked is None else [str(r.ranked)]
                lines.append(f"round {r.number}: {summary(r)}")
            lines += [f"no further round: {found.stopped}"] if found.stopped else []
        lines += [f"{k['limit']}: {k['kept']} of {k['of']} keep it as measured" for k in kept]
        lines += [f"not measured: {name}" for name in unmeasured]
        lines += [f"{gained}."] if gained and rounds == 1 else []
        lines += [f"verdict: {last.verdict.text}", *refit_lines(state, fitted, db, model)]
        return "\n".join(lines) + origin_note(fitted.conditions)

    output.print(result, text)
    if found.failed:
        raise UnstableDevice(f"{found.stopped} Earlier rounds are kept.")
    networks = ""
    if unmeasured:
        networks = (
            f"{len(unmeasured)} of {len(unmeasured) + found.score.n} networks gave no stable "
            f"measurement ({'; '.join(unmeasured)}; the others are in "
            f"{loaded.path / 'validation.json'})"
        )
    measured = [v for r in found.rounds for v in r.validation.networks]
    refuse_unstable([(f"network {v.candidate.id}", v.file) for v in measured], networks)


def searched_in(run: Loaded, precision: str | None) -> Loaded:
    """The run; of one over precisions the run of the precision that is named.

    Raises:
        PrecisionDiffers: Another one was asked for, or none of several.
        Infeasible: No network in that precision met the constraints.
    """
    if len(known := run.precision.split(" or ")) > 1:
        from phonenas.search.run_folder import load

        there = [p for p in known if (run.path / p / "run.json").exists()]
        if precision is not None and checked_precision(precision) in there:
            return load(run.path / precision)
        if precision in known:
            raise Infeasible(
                f"no network of {run.path} in {precision} met the constraints. It has some in "
                f"{' and '.join(there)}"
            )
        raise PrecisionDiffers(
            f"{run.path} was searched over {run.precision}, and what is measured and trained is of "
            f"one. Name it:  --precision {' or '.join(there)}"
        )
    if precision is not None and checked_precision(precision) != run.precision:
        raise PrecisionDiffers(
            f"{run.path} was searched in {run.precision}, not in {precision}. Search in that:  "
            f"phonenas search --precision {precision} --out RUN"
        )
    return run


def _memory_kept(
    limits: Sequence[Limit], networks: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """How many networks keep each limit on memory as measured; of those whose memory is known."""
    import numpy as np

    peaks = np.array([v["peak_bytes"] for v in networks if v.get("peak_bytes")], np.float64)
    return [
        {"limit": str(limit), "kept": int((limit.overstepped(peaks) <= 0).sum()), "of": len(peaks)}
        for limit in limits
        if limit.objective.name == "peak_memory" and len(peaks)
    ]
