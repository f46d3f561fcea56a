"""Commands about accuracy: what an estimator says of networks, and a surrogate of one's own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    SPACES,
    AsJson,
    BrokenImages,
    OwnResolution,
    Quiet,
    Ray,
    Verbose,
    Width,
    print_result,
    table,
)  # fmt: skip
from .space.errors import InvalidArgument

if TYPE_CHECKING:
    from .progress import Bars
    from .search.accuracy import AccuracyEstimator
    from .search.accuracy.estimator import Accuracy
    from .space import Architecture, SearchSpace

__all__ = [
    "AccuracyCache", "Again", "Epochs", "Loaders", "AccuracyWords", "Data", "Gpus", "HeldOut", "Unit", "WorkerCount", "accuracy",
    "estimating", "fit_accuracy",
]  # fmt: skip

# Told without importing them: the help comes up at once.
AccuracyWords = Annotated[
    str,
    typer.Option(
        "--accuracy",
        help="surrogate[:FILE], zero_cost[:PROXY], training[:RECIPE], supernet:FOLDER, table:FILE or additive.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Images: folders, an .npz file, or idx files. Its training part."),
]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", min=1, help="How many networks are trained at a time.")
]
Gpus = Annotated[
    float | None,
    typer.Option("--gpus", min=0.0, help="Share of a GPU that each training on workers holds."),
]
AccuracyCache = Annotated[
    Path | None, typer.Option("--accuracy-cache", help="File that keeps accuracies, for many runs.")
]
HeldOut = Annotated[
    float | None,
    typer.Option("--held-out", help="Share of the images that judge what is trained; 0.1."),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Of each short training, instead of its recipe's.", min=1),
]
Loaders = Annotated[
    int, typer.Option("--loaders", min=0, help="Processes that decode image files, a training.")
]
Again = Annotated[
    bool, typer.Option("--again", help="Ask anew for what failed, as the cache has it.")
]
Unit = Annotated[str | None, typer.Option("--unit", help="Of a table's top-1: share or percent.")]


@contextlib.contextmanager
def estimating(
    words: str,
    *,
    space: SearchSpace | None = None,
    data: Path | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    hold_out: float | None = None,
    epochs: int | None = None,
    broken: str = "stop",
    unit: str | None = None,
    cache: Path | None = None,
    again: bool = False,
    loaders: int = 0,
) -> Iterator[AccuracyEstimator]:
    """The estimator that a command's options ask for; its workers end with the context.

    Its seed is 0, whatever the seed of the search: so runs can share what they trained.

    Raises:
        PhonenasError: As `search.accuracy.choose.estimator`, or the images cannot be read.
    """
    from .search.accuracy.choose import estimator, takes_images
    from .search.workers import workers_from

    if gpus is not None and ray is None and workers in (None, 1):
        raise InvalidArgument(
            "--gpus is what each training holds of the workers' GPUs: give --workers or --ray, too. In "
            "this process a GPU is used where there is one."
        )
    images = None
    if data is not None:
        if not takes_images(words):
            raise InvalidArgument(f"--accuracy {words} looks at no images: leave --data out")
        from .data.images import read_images

        images = read_images(data, broken=broken)
    with workers_from(workers, ray) as who:
        yield estimator(
            words, space=space, images=images, workers=who, gpus=gpus, hold_out=hold_out,
            epochs=epochs, unit=unit, cache=cache, again=again, loaders=loaders,
        )  # fmt: skip


def accuracy(
    networks: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="As for phonenas show.")
    ],
    words: AccuracyWords = "surrogate",
    data: Data = None,
    workers: WorkerCount = None,
    ray: Ray = None,
    gpus: Gpus = None,
    hold_out: HeldOut = None,
    epochs: Epochs = None,
    loaders: Loaders = 0,
    broken: BrokenImages = "stop",
    unit: Unit = None,
    cache: AccuracyCache = None,
    again: Again = False,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", help=f"Whose networks zero_cost and supernet compare with: {SPACES}"
        ),
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say how accurate networks will be, with the doubt and the cost."""
    from . import space as spaces
    from .progress import Bars
    from .search.networks import find

    asked = [find(text, width, resolution) for text in networks]
    if space is None and words.partition(":")[0] == "zero_cost":
        space = "mnasnet"  # at the networks' own resolution
    named = None if space is None else spaces.get(space, asked[0].resolution_px)
    with Bars(quiet) as bars, estimating(
        words, space=named, data=data, workers=workers, ray=ray, gpus=gpus, hold_out=hold_out,
        epochs=epochs, broken=broken, unit=unit, cache=cache, again=again, loaders=loaders,
    ) as estimator:  # fmt: skip
        told = _gathered(estimator, asked, bars)
        name, note = estimator.name, estimator.note
    rows: list[dict[str, Any]] = [
        {
            "asked": networks[i],
            "network": str(network),
            "estimator": name,
            "scale": note,
            "top1": float(told.top1[i]) if told.well[i] else None,
            "standard_error": float(told.standard_error[i]) if told.well[i] else None,
            "outside": bool(told.outside[i]),
            "failed": told.failed[i] if told.failed else "",
            "cost_s": float(f"{told.seconds[i]:.3g}") if told.seconds else None,
        }
        for i, network in enumerate(asked)
    ]

    def text() -> str:
        shown = [
            [
                given if len(given) <= 40 else f"{given[:39]}…",
                "–" if r["failed"] else f"{r['top1']:.2%} ±{r['standard_error']:.2%}",
                "" if r["cost_s"] is None else f"{r['cost_s']:.3g} s",
                r["failed"] or ("outside" if r["outside"] else ""),
            ]
            for given, r in zip(networks, rows, strict=True)
        ]
        return (
            table(["network", "top-1*" if note else "top-1", "cost", ""], shown)
            + f"\n\nby {name}"
            + (f"; * {note}" if note else "")
        )

    print_result(rows, as_json, text)


def _gathered(
    estimator: AccuracyEstimator, networks: Sequence[Architecture], bars: Bars
) -> Accuracy:
    """What an estimator says, told on the way."""
    from .search.accuracy.estimator import Accuracy

    found: dict[int, Accuracy] = {}
    began = time.monotonic()

    def take(i: int, one: Accuracy) -> None:
        found[i] = one
        bars.estimating(len(found), len(networks), (time.monotonic() - began) / len(found))

    if estimator.slow:
        bars.estimating(0, len(networks), 0.0)
    estimator.estimate_each(networks, take)
    return Accuracy.joined(found[i] for i in range(len(networks)))


def fit_accuracy(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help=".csv or .parquet of trained networks, a run's promoted.json, or an accuracy.db.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the surrogate is written.")] = Path(
        "accuracy_surrogate.json"
    ),
    target: Annotated[
        str | None, typer.Option(help="Column of top-1; top1 or val_top1 by default.")
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help=f"Whose decisions the columns are: {SPACES}")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of block strings; network or block_args by default.")
    ] = None,
    unit: Unit = None,
    resolution: OwnResolution = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fit the accuracy surrogate to networks that were trained."""
    from .search.accuracy.fit_surrogate import fit_results, write
    from .space import get

    if resolution is not None and space is None:
        raise InvalidArgument("--resolution is that of a --space; block strings have their own")
    named = None
    if space is not None:
        named = get(space) if resolution is None else get(space, resolution)
    content = fit_results(results, target=target, space=named, column=column, unit=unit)
    write(content, out)
    score, source = content["score"], content["source"]
    shipped, macs = score.get("shipped"), score["macs"]
    result = {
        "path": str(out),
        "rows": source["rows"],
        "networks": source.get("networks", source["rows"]),
        "version": content["version"],
        "score": score,
    }

    def text() -> str:
        def row(name: str, of: dict[str, Any]) -> list[str]:
            rmse = of.get("rmse_points")
            return [
                name, f"{of['kendall_tau']:.3f}", f"{of['spearman']:.3f}",
                "" if rmse is None else f"{rmse:.2f} points",
            ]  # fmt: skip

        rows = [row("this fit", score)]
        rows += [] if shipped is None else [row("as shipped", shipped)]
        rows.append(row("MACs", macs))
        return (
            f"{result['networks']:,} networks of {source['rows']:,} rows; {score['n']:,} predicted by what "
            "they did not teach:\n\n"
            + table(["", "Kendall tau", "Spearman", "RMSE"], rows)
            + f"\n\nwritten to {out}; search with it:  phonenas search --accuracy surrogate:{out} ..."
        )

    print_result(result, as_json, text)
