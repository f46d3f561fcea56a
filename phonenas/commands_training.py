"""The command that trains a network: train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    AsJson,
    BrokenImages,
    OwnResolution,
    Quiet,
    Ray,
    Seed,
    Verbose,
    Width,
    print_result,
    table,
)
from .space.errors import InvalidArgument, PhonenasError, TaskFailed, UnknownName

if TYPE_CHECKING:
    from .data.images import ImageSet
    from .search.training.export import Exported
    from .search.training.trained import Trained

__all__ = ["read_parts", "train"]

_FORMATS = ("onnx", "tflite")


def train(
    network: Annotated[str, typer.Argument(help="Zoo name, block string, runs/x:3 or .json file.")],
    data: Annotated[
        Path, typer.Option("--data", help="Images: DIR/train/CLASS/*.jpg, a .npz or idx files.")
    ],
    recipe: Annotated[str, typer.Option(help="paper, proxy or small.")] = "paper",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images a step, over all processes, instead of the recipe's.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="For 256 images of batch, at its height, instead of the recipe's."),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="Judge by this share of the training images, 0 to 1, and leave the test images alone."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; a training stopped in it goes on.")
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="onnx, tflite or none; checked against torch. With --out ONNX, and TFLite where its extra is."
        ),
    ] = None,
    width: Width = 1.0,
    resolution: OwnResolution = None,
    seed: Seed = 0,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16 or auto; auto mixes on a GPU."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU that compute.")] = None,
    loaders: Annotated[
        int, typer.Option(help="Processes that decode image files; 0 for none.")
    ] = 0,
    broken: BrokenImages = "stop",
    ray: Ray = None,
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs that it holds on the cluster: 1, or a share; with --ray."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on your images. Several GPUs: torchrun -m phonenas train ..."""
    from .progress_training import TrainingBar, following
    from .search.networks import find
    from .search.training.distributed import rank_and_world
    from .search.training.evaluation import require_torch
    from .search.training.recipe import recipe as recipe_named
    from .search.training.trainer import train as run
    from .search.training_task import train_on
    from .search.workers import Needs, workers_from

    # What is asked amiss is told before images are read.
    found = find(network, width, resolution)
    chosen = recipe_named(
        recipe, epochs=epochs, batch=batch, learning_rate=learning_rate, precision=precision
    )
    formats = _checked_formats(export, out)
    if gpus is not None and ray is None:
        raise InvalidArgument("--gpus is what a training holds on a cluster: give --ray, too")
    require_torch()
    rank, world = rank_and_world()
    if ray is not None and world > 1:
        raise InvalidArgument("torchrun trains here with all its processes: leave --ray out")
    first = rank == 0
    over = out is not None and (out / "result.json").exists()
    images, held, part = read_parts(data, held_out, seed, broken)
    with TrainingBar(quiet or not first) as bar, _torch_told():
        if ray is None:
            trained = run(
                found, images, held, recipe=chosen, seed=seed, into=out, device=device,
                threads=threads, workers=loaders, on_event=bar.show,
            )  # fmt: skip
        else:
            with workers_from(None, ray) as team, following(out, bar, chosen.epochs):
                trained = train_on(
                    team, found, images, held, recipe=chosen, seed=seed, into=out, device=device,
                    threads=threads, loaders=loaders, needs=Needs(threads or 1, gpus or 0.0),
                )  # fmt: skip
    if not first:
        return
    exported = _exported(trained, out, held, formats, chosen.digest)
    result = _as_json(trained, out, part, exported)
    print_result(result, as_json, lambda: _as_text(network, trained, out, part, exported, over))
    if trained.diverged:
        raise typer.Exit(1)


@contextmanager
def _torch_told() -> Iterator[None]:
    """What torch raises, as one of our errors: mostly that memory does not suffice."""
    try:
        yield
    except PhonenasError:
        raise
    except (RuntimeError, MemoryError) as error:
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise TaskFailed(
            f"the training could not go on: {told}. If the memory does not suffice, give a "
            "smaller --batch or --resolution, with another --out."
        ) from error


def read_parts(
    data: Path, held_out: float | None, seed: int, broken: str
) -> tuple[ImageSet, ImageSet, str]:
    """Images to train on and to judge by, and what the latter are called.

    Args:
        data: As `data.read_images`.
        held_out: Share of the training images to judge by; None for the test images.
        seed: Of the choice of these.
        broken: "stop" or "skip".
    Raises:
        InvalidArgument: No such images, or a word or share out of range.
    """
    from .data import images as sets

    whole = sets.read_images(data, "train", broken=broken)
    if held_out is not None:
        rest, held = sets.held_out(whole, held_out, seed)
        return rest, held, "held-out"
    try:
        return whole, sets.read_images(data, "test", broken=broken), "test"
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error} Or judge by a part of the training images:  --held-out 0.1"
        ) from error


def _checked_formats(export: list[str] | None, out: Path | None) -> tuple[str, ...] | None:
    """What to write; None for what `export` writes by default."""
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


def _exported(
    trained: Trained,
    out: Path | None,
    held: ImageSet,
    formats: tuple[str, ...] | None,
    digest: str,
) -> Exported | None:
    if trained.diverged or out is None or formats == ():
        return None
    from .search.training.export import export

    return export(trained, out, held, formats=formats, recipe=digest)


def _as_json(
    trained: Trained, out: Path | None, part: str, exported: Exported | None
) -> dict[str, Any]:
    result = trained.to_dict()
    result |= {"part": part, "epochs": len(trained.curve), "out": None if out is None else str(out)}
    result["files"] = _files(trained, out, exported)
    if exported is not None:
        result["export"] = [
            {
                "format": f.name, "difference": f.difference, "allowed": f.allowed,
                "differing": f.differing, "top1": f.top1,
            }
            for f in exported.forms
        ]  # fmt: skip
    return result


def _files(trained: Trained, out: Path | None, exported: Exported | None) -> dict[str, str]:
    if out is None:
        return {}
    names = {"result": "result.json", "curve": "curve.csv"}
    if not trained.diverged:
        names["weights"] = "weights.safetensors"
    found = {kind: str(out / name) for kind, name in names.items()}
    if exported is not None:
        found |= {kind: str(path) for kind, path in exported.files.items()}
    return found


def _as_text(
    name: str,
    trained: Trained,
    out: Path | None,
    part: str,
    exported: Exported | None,
    over: bool,
) -> str:
    from .progress import duration

    if trained.diverged:
        return (
            f"{name} diverged: {trained.diverged}. This is no accuracy; a lower --learning-rate "
            "or --precision float32 may help, with another --out."
        )
    error = sqrt(trained.top1 * (1 - trained.top1) / max(trained.images_held, 1))
    header = ["network", "top-1", "top-5", "on", "trained on", "epochs", "steps", "time"]
    row = [
        name, f"● {trained.top1:.2%} ±{error:.2%}", f"● {trained.top5:.2%}",
        f"{trained.images_held:,} {part} images", f"{trained.images:,} images",
        str(len(trained.curve)), f"{trained.steps:,}", duration(trained.seconds),
    ]  # fmt: skip
    lines = [table(header, [row]), ""]
    if over:
        lines.append("it was trained already, and nothing was done now")
    elif trained.resumed_from:
        lines.append(f"taken up at step {trained.resumed_from:,}")
    for kind, path in _files(trained, out, exported).items():
        lines.append(f"{kind}: {path}")
    for name_, why in ({} if exported is None else exported.left_out).items():
        lines.append(f"{name_}: left out, {why}")
    for form in () if exported is None else exported.forms:
        lines.append(
            f"{form.name} beside torch: logits differ by {form.difference:.1e} at most "
            f"(allowed: {form.allowed:.1e}), "
            f"{form.differing} decisions by other rounding; top-1 {form.top1:.2%}"
        )
    if out is None:
        lines.append("nothing was kept; --out DIR keeps the weights")
    return "\n".join(lines).rstrip()
