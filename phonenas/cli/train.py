"""The command that trains a network: train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, TaskFailed, UnknownName

from .options import NETWORK, Output, OwnResolution, TrainingOptions, Width, command
from .output import table

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet
    from phonenas.search.training.export.export import Exported
    from phonenas.search.training.result import Trained

__all__ = ["read_parts", "train"]

_FORMATS = ("onnx", "tflite")


@command
def train(
    output: Output,
    network: Annotated[str, typer.Argument(metavar="NETWORK", help=NETWORK)],
    options: TrainingOptions,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Largest learning rate, for 256 images a step; default: the recipe's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; a stopped training in it continues.")
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="onnx, tflite or none, compared with torch; repeatable. With --out: ONNX, and "
            "TFLite where it is installed."
        ),
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16 or auto; auto mixes on a GPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a network on your images. Several GPUs: torchrun -m phonenas train ..."""
    from phonenas.search.cluster.workers import workers_from
    from phonenas.search.training.distributed import rank_and_world
    from phonenas.search.training.job import TrainingJob
    from phonenas.search.training.recipe import recipe
    from phonenas.search.training.resources import Resources, require_torch
    from phonenas.search.training.task import train_on
    from phonenas.search.training.trainer import run_job

    from .networks import classifier
    from .progress import Bars, following

    # Invalid arguments are found before the images are read.
    architecture = classifier(network, width, resolution)
    chosen = recipe(
        options.recipe,
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=learning_rate,
        precision=precision,
    )
    formats = _checked_formats(export, out)
    if options.ray is None:
        output.refuse("gpus", "is the share of a cluster's GPUs: give --ray, too")
    require_torch()
    rank, world = rank_and_world()
    if options.ray is not None and world > 1:
        raise InvalidArgument("torchrun trains here with all its processes: leave --ray out")
    over = out is not None and (out / "result.json").exists()
    images, test, part = read_parts(options)
    job = TrainingJob(images, test, chosen, options.seed)
    resources = Resources(device, options.threads, options.loaders, options.gpus or 0.0)
    with Bars(output.quiet or rank > 0) as bars, _torch_errors():
        if options.ray is None:
            trained = run_job(
                architecture, job, into=out, resources=resources, on_event=bars.training
            )
        else:
            with workers_from(None, options.ray) as team, following(out, bars, chosen.epochs):
                trained = train_on(team, architecture, job, into=out, resources=resources)
    if rank > 0:
        return
    exported = None
    if not trained.diverged and out is not None and formats != ():
        from phonenas.search.training.export import export as exporting

        exported = exporting.export(trained, out, test, formats=formats, recipe=chosen.digest)
    result = _as_json(trained, out, part, exported)
    output.print(result, lambda: _as_text(network, trained, out, part, exported, over))
    if trained.diverged:
        raise typer.Exit(1)


@contextmanager
def _torch_errors() -> Iterator[None]:
    """Raise what torch raises as an error of phonenas: mostly a lack of memory."""
    try:
        yield
    except PhonenasError:
        raise
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TaskFailed(
            f"the training failed: {reason}. If the memory does not suffice, give a smaller "
            "--batch or --resolution, with another --out."
        ) from error


def read_parts(options: TrainingOptions) -> tuple[ImageSet, ImageSet, str]:
    """The images to train on, those to evaluate on, and what the latter are called.

    Raises:
        InvalidArgument: No such images, or a share out of range.
    """
    from phonenas.data import images as sets

    whole = sets.read_images(options.data, "train", broken=options.broken)
    if options.held_out is not None:
        rest, held = sets.held_out(whole, options.held_out, options.seed)
        return rest, held, "held-out"
    try:
        return whole, sets.read_images(options.data, "test", broken=options.broken), "test"
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error} Or evaluate on a part of the training images:  --held-out 0.1"
        ) from error


def _checked_formats(export: list[str] | None, out: Path | None) -> tuple[str, ...] | None:
    """The formats to write; None for those that `export` writes by default."""
    if not export:
        return () if out is None else None
    if export == ["none"]:
        return ()
    formats = tuple(dict.fromkeys(export))
    for name in formats:
        if name not in _FORMATS:
            raise UnknownName(
                f"no format is called {name!r}. Known: {', '.join(_FORMATS)}; or none."
            )
    if formats and out is None:
        raise InvalidArgument("--export writes into the folder of --out: give one")
    return formats


def _as_json(
    trained: Trained, out: Path | None, part: str, exported: Exported | None
) -> dict[str, Any]:
    result = trained.to_dict()
    result |= {"part": part, "epochs": len(trained.curve), "out": None if out is None else str(out)}
    result["files"] = _files(trained, out, exported)
    if exported is not None:
        keys = ("difference", "allowed", "differing", "top1")
        result["export"] = [
            {"format": f.name, **{k: getattr(f, k) for k in keys}} for f in exported.models
        ]
    return result


def _files(trained: Trained, out: Path | None, exported: Exported | None) -> dict[str, str]:
    if out is None:
        return {}
    names = {"result": "result.json", "curve": "curve.csv"}
    if not trained.diverged:
        names["weights"] = "weights.safetensors"
    paths = {kind: str(out / name) for kind, name in names.items()}
    if exported is not None:
        paths |= {kind: str(path) for kind, path in exported.files.items()}
    return paths


def _as_text(
    name: str, trained: Trained, out: Path | None, part: str, exported: Exported | None, over: bool
) -> str:
    from .progress import duration

    if trained.diverged:
        return (
            f"{name} diverged: {trained.diverged}. Its top-1 is not an accuracy. A lower "
            "--learning-rate or --precision float32 may help, with another --out."
        )
    error = sqrt(trained.top1 * (1 - trained.top1) / max(trained.images_held, 1))
    header = ["network", "top-1", "top-5", "evaluated on", "trained on", "epochs", "steps", "time"]
    row = [
        name,
        f"● {trained.top1:.2%} ±{error:.2%}",
        f"● {trained.top5:.2%}",
        f"{trained.images_held:,} {part} images",
        f"{trained.images:,} images",
        str(len(trained.curve)),
        f"{trained.steps:,}",
        duration(trained.seconds),
    ]
    lines = [table(header, [row]), ""]
    if over:
        lines.append("it was trained already: nothing was done now")
    elif trained.resumed_from:
        lines.append(f"resumed at step {trained.resumed_from:,}")
    for kind, path in _files(trained, out, exported).items():
        lines.append(f"{kind}: {path}")
    for name_, why in ({} if exported is None else exported.left_out).items():
        lines.append(f"{name_}: left out, {why}")
    for form in () if exported is None else exported.models:
        lines.append(
            f"{form.name} beside torch: logits differ by {form.difference:.1e} at most (allowed: "
            f"{form.allowed:.1e}), {form.differing} decisions differ by rounding; top-1 "
            f"{form.top1:.2%}"
        )
    if out is None:
        lines.append("nothing was kept; --out DIR keeps the weights")
    return "\n".join(lines).rstrip()
