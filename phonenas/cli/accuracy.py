"""Commands about accuracy: estimate networks, fit a surrogate to results, evaluate the estimate."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import Incomplete, InvalidArgument, NotEnoughData
from phonenas.space.naming import counted

from .options import NETWORK, EstimatorOptions, Output, OwnResolution, Unit, Width, command
from .output import command_line, table

if TYPE_CHECKING:
    from phonenas.search import Budget
    from phonenas.search.accuracy import AccuracyEstimator, SuccessiveHalving
    from phonenas.search.accuracy.estimator import Accuracy
    from phonenas.search.accuracy.quantisation.change import AccuracyChange, Change
    from phonenas.search.training.export.quantised import QuantisedModel
    from phonenas.space import SearchSpace

    from .progress import Bars

__all__ = [
    "accuracy",
    "as_begun",
    "change_in_int8",
    "estimating",
    "estimating_in",
    "fit_accuracy",
    "measured_changes",
    "top1",
    "training_plan",
]

_TRUST = 1.645  # the lower end of the 90 % interval
_DRAWN = 200  # networks by chance, whose mean size a plan rests on
_MANY = 1_000_000  # networks, of which rounding takes no share


@contextlib.contextmanager
def estimating(
    output: Output, options: EstimatorOptions, space: SearchSpace | None, inherit: bool = False
) -> Iterator[AccuracyEstimator]:
    """The estimator that a command's options choose; its workers end with the context.

    Its seed is 0, whatever the seed of the search, so that runs can share what they trained.

    Args:
        output: Of the command.
        options: Which estimator, and how it works.
        space: Whose networks are estimated, where one is named.
        inherit: Whether trainings begin from the weights of others.
    Raises:
        PhonenasError: As `search.accuracy.estimator`, or the images cannot be read.
    """
    from phonenas.search.accuracy.estimator import Request
    from phonenas.search.accuracy.registry import estimator, takes_images
    from phonenas.search.cluster.workers import workers_from
    from phonenas.search.training.resources import Resources

    if options.gpus is not None and options.ray is None and options.workers in (None, 1):
        raise InvalidArgument(
            "--gpus is the number of GPUs that each training reserves on a worker: give "
            "--workers or --ray, too. In this process a GPU is used where there is one."
        )
    images = None
    if options.data is None:
        output.refuse("broken", "is about the images of --data: give --data, too")
    elif not takes_images(options.accuracy):
        raise InvalidArgument(f"--accuracy {options.accuracy} uses no images: leave --data out")
    else:
        from phonenas.data.images import read_images

        images = read_images(options.data, broken=options.broken)
    with workers_from(options.workers, options.ray) as workers:
        request = Request(
            space=space,
            images=images,
            trained=options.trained,
            workers=workers,
            resources=Resources(loaders=options.loaders, gpus=options.gpus or 0.0),
            hold_out=options.held_out,
            epochs=options.epochs,
            unit=options.unit,
            inherit=inherit,
        )
        cache, again = options.accuracy_cache, options.again
        chosen = estimator(options.accuracy, request, cache=cache, again=again)
        if options.accuracy_cache is None and not chosen.slow:
            output.refuse("again", f"is about a cache, and {options.accuracy} needs none")
        yield chosen


def as_begun(
    out: Path, options: EstimatorOptions, trust: float | None
) -> tuple[EstimatorOptions, float]:
    """Estimator and trust; a run of before there were others goes on with those that it had."""
    from phonenas.search.run_document import settings_of

    begun = settings_of(out)
    if begun is None:
        return options, _TRUST if trust is None else trust
    if options.accuracy == EstimatorOptions.accuracy and "estimator" not in begun:
        options = replace(options, accuracy="surrogate")
    return options, float(begun.get("trust", 0.0)) if trust is None else trust


def change_in_int8(
    output: Output, precisions: Sequence[str], runs: Sequence[str]
) -> AccuracyChange:
    """What int8 changes of top-1: what is published, corrected by what some runs measured.

    Raises:
        InvalidArgument: --quantised, of a search without int8.
        NotEnoughData: As `measured_changes`.
    """
    from phonenas.search.accuracy.quantisation.change import published_change
    from phonenas.search.accuracy.quantisation.quantised import INTEGERS

    if not {*precisions} & {*INTEGERS}:
        output.refuse("quantised", f"is of int8, and the search is in {' or '.join(precisions)}")
    # int8-dynamic is taken to lose what int8 does, not the other way round.
    own = ("int8",) if "int8" in precisions else INTEGERS
    return published_change().with_measured(measured_changes(output, runs, own))


def estimating_in(
    output: Output,
    estimator: AccuracyEstimator,
    precisions: Sequence[str],
    change: AccuracyChange,
    out: Path,
) -> AccuracyEstimator:
    """An estimator of float32 for a search in one precision or over several.

    Raises:
        InvalidArgument: --quantised, of an estimator without top-1, or of a run that was begun
            before top-1 in int8 was another than in float32, and that goes on so; or several
            precisions and an estimator without top-1.
    """
    from phonenas.search.accuracy.quantisation.quantised import InPrecisions, in_precision
    from phonenas.search.run_document import settings_of

    if len(precisions) > 1:
        return InPrecisions(estimator, change)
    small = in_precision(estimator, precisions[0], change)
    if small is estimator:
        quantity = f"{estimator.name} gives none ({estimator.quantity})"
        output.refuse("quantised", f"corrects a top-1, and {quantity}")
        return estimator
    begun = settings_of(out)
    if begun is not None and "quantisation" not in begun:
        so = f"{out} was begun with float32's top-1"
        output.refuse("quantised", f"corrects top-1 in int8, and {so}: give another --out")
        output.note(f"{so}, and goes on with it. For top-1 in int8 give another --out.")
        return estimator
    return small


def measured_changes(
    output: Output, runs: Sequence[str], precisions: Sequence[str] = ("int8",)
) -> list[Change]:
    """What precisions of 8 bits changed of the top-1 of the networks that were promoted in some
    runs, each run and file once; of a run over precisions, of those in the runs of each.

    Raises:
        NotEnoughData: Nothing of a run is in one of them that has an error in float32.
    """
    from phonenas.search.accuracy.quantisation.change import Change
    from phonenas.search.promotion.result import read_promoted
    from phonenas.search.run_folder import load

    changes: dict[str, QuantisedModel] = {}
    for run in {Path(text).resolve(): text for text in runs}.values():
        loaded = load(run)
        names = loaded.precision.split(" or ")
        parts = [loaded.path / p for p in reversed(names) if len(names) > 1]
        folders = [p for p in parts if (p / "run.json").exists()] or [loaded.path]
        promoted = [found for folder in folders if (found := read_promoted(folder))]
        every = [q for p in promoted for n in p.trained if (q := n.quantised_file)]
        files = [q for q in every if q.precision in precisions and not q.not_run]
        if faultless := [q for q in files if q.float_top1 >= 1]:
            what = counted(len(faultless), "network")
            output.note(f"{what} of {run} without an error in float32: left out")
        known = {q.sha256: q for q in files if q.float_top1 < 1}
        if not known:
            words = ("promote", str(folders[0]), "--quantise", precisions[-1], "--data", "IMAGES")
            raise NotEnoughData(
                f"no network of {run} is quantised to {' or '.join(precisions)} that makes "
                "errors in float32. Do that first:  " + command_line(*words)
            )
        changes |= known
    return [Change(q.float_top1, q.change, q.change_error) for q in changes.values()]


def training_plan(halving: SuccessiveHalving, rules: Budget, space: SearchSpace) -> str:
    """About how many networks will be trained for how long, and how long that takes."""
    import numpy as np

    from .progress import duration

    drawn = space.sample(np.random.default_rng(0), _DRAWN)
    epoch_s = halving.epoch_s([space.decode(row) for row in drawn])
    first = min(rules.evaluations, space.size)
    if rules.training_s is not None and epoch_s:
        most = rules.training_s / (epoch_s * halving.epochs_in_all(_MANY) / _MANY)
        first = min(first, max(1, int(most)))
    epochs, full = halving.epochs_in_all(first), first * halving.epochs
    counts = halving.networks(first)
    words = [
        f"{counted(counts[0], 'network')} for {counted(halving.rungs[0], 'epoch')}",
        *(f"{n:,} of them to {e}" for n, e in zip(counts[1:], halving.rungs[1:], strict=True)),
    ]
    took = [f", {duration(epoch_s * n)}" if epoch_s else "" for n in (epochs, full)]
    last = "; on this computer, by a few steps that were timed" * bool(epoch_s)
    return (
        f"plan: {', '.join(words)}: about {epochs:,} epochs of training{took[0]}; each network in "
        f"full {full:,}{took[1]}{last}"
    )


@command
def accuracy(
    output: Output,
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK...", help=NETWORK)],
    options: EstimatorOptions,
    space: Annotated[
        str | None,
        typer.Option(
            help="Space of the networks that zero_cost and supernet compare with: {spaces}."
        ),
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
) -> None:
    """Estimate how accurate networks will be, with the standard error and the cost."""
    from phonenas import space as spaces

    from .networks import classifier, find
    from .progress import Bars

    # The others decode, train or compare networks of blocks.
    read = classifier if options.accuracy.partition(":")[0] == "imagenet" else find
    found = [read(text, width, resolution) for text in networks]
    if space is None and options.accuracy.partition(":")[0] == "zero_cost":
        space = "mnasnet"  # at the networks' own resolution
    named = None if space is None else spaces.get(space, found[0].resolution_px)
    if options.accuracy_cache is None:
        output.refuse("again", "is about a cache: give --accuracy-cache, too")
    with Bars(output.quiet) as bars, estimating(output, options, named) as estimator:
        estimates = _gathered(estimator, found, bars)
        name, note, schedule = estimator.name, estimator.note, estimator.schedule
        quantity = estimator.quantity
    rows: list[dict[str, Any]] = [
        {
            "asked": networks[i],
            "network": str(network),
            "estimator": name,
            "scale": note,
            "quantity": quantity,
            "schedule": schedule,
            "top1": float(estimates.top1[i]) if estimates.well[i] else None,
            "standard_error": float(estimates.standard_error[i]) if estimates.well[i] else None,
            "outside": bool(estimates.outside[i]),
            "failed": estimates.failed[i] if estimates.failed else "",
            "cost_s": float(f"{estimates.seconds[i]:.3g}") if estimates.seconds else None,
        }
        for i, network in enumerate(found)
    ]

    def text() -> str:
        shown = [
            [
                given if len(given) <= 40 else f"{given[:39]}…",
                "–" if r["failed"] else f"{r['top1']:.2%} ±{r['standard_error']:.2%}",
                "" if r["cost_s"] is None else f"{r['cost_s']:.3g} s",
                r["failed"] or ("extrapolated" if r["outside"] else ""),
            ]
            for given, r in zip(networks, rows, strict=True)
        ]
        return (
            table(["network", f"{quantity}*" if note else quantity, "cost", ""], shown)
            + f"\n\nestimated by {name}, ± one standard error"
            + (f"; * {note}" if note else "")
        )

    output.print(rows, text)
    if failed := [f"{r['asked']}: {r['failed']}" for r in rows if r["failed"]]:
        raise Incomplete(
            f"{len(failed)} of {counted(len(rows), 'network')} have no accuracy: "
            + "; ".join(failed)
        )


def _gathered(estimator: AccuracyEstimator, networks: Sequence[Any], bars: Bars) -> Accuracy:
    """The estimates of all networks, with the progress shown."""
    from phonenas.search.accuracy.estimator import Accuracy

    done: dict[int, Accuracy] = {}
    began = time.monotonic()

    def take(i: int, one: Accuracy) -> None:
        done[i] = one
        bars.estimating(len(done), len(networks), (time.monotonic() - began) / len(done))

    if estimator.slow:
        bars.estimating(0, len(networks), 0.0)
    estimator.estimate_each(networks, take)
    return Accuracy.joined(done[i] for i in range(len(networks)))


@command
def fit_accuracy(
    output: Output,
    results: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help=".csv or .parquet of trained networks, a run's promoted.json, or an accuracy.db.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of the surrogate.")] = Path(
        "accuracy_surrogate.json"
    ),
    target: Annotated[
        str | None, typer.Option(help="Column of top-1; top1 or val_top1 by default.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Space whose decisions the columns are. {spaces}.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of block strings; network or block_args by default.")
    ] = None,
    unit: Unit = None,
    resolution: OwnResolution = None,
) -> None:
    """Fit the accuracy surrogate to networks that were trained."""
    from phonenas.data.files import refuse_other
    from phonenas.search.accuracy.surrogate.fit import fit_results, write
    from phonenas.space import get

    if resolution is not None and space is None:
        raise InvalidArgument("--resolution goes with --space: block strings have their own")
    named = None
    if space is not None:
        named = get(space) if resolution is None else get(space, resolution)
    refuse_other(out, "phonenas accuracy surrogate")
    content = fit_results(results, target=target, space=named, column=column, unit=unit)
    write(content, out)
    score, source = content["score"], content["source"]
    shipped, macs = score.get("shipped"), score["macs"]
    if left_out := source.get("left_out"):
        output.note(
            f"{left_out:,} networks of {results} began with weights of others and are left out"
        )
    result = {
        "path": str(out),
        "rows": source["rows"],
        "networks": source.get("networks", source["rows"]),
        "version": content["version"],
        "score": score,
    }

    def text() -> str:
        def row(name: str, scores: dict[str, Any]) -> list[str]:
            rmse = scores.get("rmse_points")
            return [
                name,
                f"{scores['kendall_tau']:.3f}",
                f"{scores['spearman']:.3f}",
                "" if rmse is None else f"{rmse:.2f} points",
            ]

        rows = [row("this fit", score)]
        rows += [] if shipped is None else [row("as shipped", shipped)]
        rows.append(row("MACs", macs))
        return (
            f"{result['networks']:,} networks of {source['rows']:,} rows; {score['n']:,} predicted "
            "by a surrogate that was not fitted on them:\n\n"
            + table(["", "Kendall tau", "Spearman", "RMSE"], rows)
            + f"\n\nwritten to {out}; search with it:  phonenas search --accuracy "
            f"{shlex.quote(f'surrogate:{out}')} --target MS --out RUN"
        )

    output.print(result, text)


@command
def top1(
    output: Output,
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE...",
            help="CSV of published figures: timm's results-imagenet.csv, or one with the columns "
            "model, family, top1.",
        ),
    ],
    short: Annotated[Path, typer.Option(help="The Accel-NASBench table (16 epochs).")],
) -> None:
    """Estimate published ImageNet top-1, each family left out of the fit in turn."""
    from phonenas.search.benchmarks.imagenet import BASELINES, benchmark

    scores = benchmark(tables, short)

    def figures(row: dict[str, Any]) -> list[str]:
        inside, order = row["coverage90"], row["middle_spearman"]
        middle = row["middle_mean_error_points"]
        return [
            str(row["n"]),
            f"{row['mean_error_points']:.2f}",
            f"{row['bias_points']:+z.2f}",
            "–" if inside is None else f"{inside:.0%}",
            str(row["middle_n"]),
            "–" if middle is None else f"{middle:.2f}",
            "–" if order is None else f"{order:.3f}",
        ]

    def text() -> str:
        header = ["n", "mean error", "bias", "inside 90 %", "n", "mean error", "Spearman"]
        lines = [[r["estimator"], r["families"], *figures(r)] for r in scores["scores"]]
        families = [[r["family"], *figures(r)] for r in scores["families"]]
        return "\n".join(
            [
                "Top-1 on ImageNet in points, each family left out of the fit in turn; on the "
                "right the networks of 250 to 700 M MACs",
                table(["", "families", *header], lines),
                "",
                table(["left out", *header], families),
                "",
                "Spearman of the first row: 90 % interval {:.3f} to {:.3f}".format(
                    *scores["middle_interval"]
                ),
                "published figures lie {points:.2f} points about network and recipe "
                "({figures} of {networks} networks): an exact estimate would reach {spearman:.3f} "
                "({low:.3f} to {high:.3f})".format(**scores["noise"]),
                "the method and its hyperparameters were chosen on the families of 'chosen on'",
                *(f"{name}: a line in the {what}" for name, what in BASELINES.items()),
            ]
        )

    output.print(scores, text)
