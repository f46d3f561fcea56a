"""The commands that train: one network, or a supernet, whose weights all networks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, TaskFailed, UnknownName

from .options import (
    DEFAULT_DB,
    NETWORK,
    BrokenImages,
    Db,
    Output,
    OwnResolution,
    Ray,
    Seed,
    TrainingOptions,
    Width,
    command,
)
from .output import files_lines, table
from .promote import QuantisationOptions, read_parts

if TYPE_CHECKING:
    from phonenas.search.accuracy.supernet.train import SupernetEpoch
    from phonenas.search.exported_file import FileLatency
    from phonenas.search.training.export.export import Exported
    from phonenas.search.training.result import Trained

__all__ = ["supernet", "train"]

_FORMATS = ("onnx", "tflite")
# Options that change nothing where no supernet is trained.
_TRAINING = (
    "epochs batch learning_rate resolution random sandwich distil seed held_out loaders ray gpus"
)
# Options that change nothing where no network is evaluated either.
_EVALUATING = "data broken threads device"


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
    small: QuantisationOptions = QuantisationOptions(),  # noqa: B008
    width: Width = 1.0,
    resolution: OwnResolution = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16 or auto; auto mixes on a GPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    measure_on: Annotated[
        str | None,
        typer.Option(
            help="Then measure the exported file on this device, beside the same architecture with "
            "random weights."
        ),
    ] = None,
    db: Db = DEFAULT_DB,
) -> None:
    """Train a network on your images. Several GPUs: torchrun -m phonenas train ..."""
    from phonenas.search.cluster.workers import workers_from
    from phonenas.search.exported_file import refuse_unstable
    from phonenas.search.training.distributed import rank_and_world
    from phonenas.search.training.finetuning.finetune import fine_tuned
    from phonenas.search.training.job import TrainingJob
    from phonenas.search.training.recipe import recipe
    from phonenas.search.training.resources import Resources, require_torch
    from phonenas.search.training.task import train_on
    from phonenas.search.training.teacher import Teacher
    from phonenas.search.training.trainer import run_job

    from .networks import classifier
    from .progress import Bars, following
    from .timing import entered_once, file_latency

    # Invalid arguments are found before the images are read.
    architecture = classifier(network, width, resolution)
    chosen = recipe(
        options.recipe,
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=learning_rate,
        precision=precision,
    )
    formats, teacher = _checked_formats(export, out), Teacher.named(options.teacher)
    tuning = small.checked(output, small.quantise)
    if small.quantise is not None and formats == ():
        raise InvalidArgument("--quantise writes files: give --out, and an --export")
    if measure_on is None:
        output.refuse("db", "is where measurements go: give --measure-on, too")
    elif formats == ():
        raise InvalidArgument(
            "--measure-on measures the exported file: give --out, and an --export"
        )
    if options.ray is None:
        output.refuse("gpus", "is the share of a cluster's GPUs: give --ray, too")
    require_torch()
    rank, world = rank_and_world()
    if tuning and (world > 1 or options.ray is not None):
        raise InvalidArgument(
            "a network is fine-tuned for int8 by the command itself, in one process: leave "
            "torchrun and --ray out, or --finetune"
        )
    if options.ray is not None and world > 1:
        raise InvalidArgument("torchrun trains here with all its processes: leave --ray out")
    phone = None if measure_on is None or rank > 0 else entered_once(measure_on)
    over = out is not None and (out / "result.json").exists()
    images, test, part = read_parts(options)
    cause = small.naming_held_out(tuning, images, chosen, options.seed)
    images, quantise = small.read(small.quantise, images, options, chosen)
    if quantise is not None:
        quantise.refuse_untunable(architecture)
    job = TrainingJob(images, test, chosen, options.seed, teacher=teacher)
    resources = Resources(device, options.threads, options.loaders, options.gpus or 0.0)
    with Bars(output.quiet or rank > 0) as bars, _torch_errors(), cause:
        if options.ray is None:
            trained = run_job(
                architecture, job, into=out, resources=resources, on_event=bars.training
            )
            if quantise is not None:
                trained = fine_tuned(
                    *(trained, job, quantise), into=out, resources=resources, on_event=bars.training
                )
        else:
            with workers_from(None, options.ray) as team, following(out, bars, chosen.epochs):
                trained = train_on(team, architecture, job, into=out, resources=resources)
    if rank > 0:
        return
    exported = None
    if not trained.diverged and out is not None and formats != ():
        from phonenas.search.training.export import export as exporting

        settings = exporting.ExportSettings(formats, quantise)
        exported = exporting.export(trained, out, test, recipe=chosen.digest, settings=settings)
    file = None
    if exported is not None and phone is not None:
        file = file_latency(output, exported, phone, db)
    result = _as_json(trained, out, part, exported)
    result |= {} if file is None else {"file": asdict(file)}
    output.print(result, lambda: _as_text(network, trained, out, part, exported, over, file))
    if trained.diverged:
        raise typer.Exit(1)
    refuse_unstable([(network, file)])


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


def _checked_formats(export: list[str] | None, out: Path | None) -> tuple[str, ...] | None:
    """The formats to write; None for those that `export` writes by default."""
    if not export:
        return () if out is None else None
    if export == ["none"]:
        return ()
    formats = tuple(dict.fromkeys(export))
    if unknown := [f for f in formats if f not in _FORMATS]:
        known = ", ".join(_FORMATS)
        raise UnknownName(f"no format is called {unknown[0]!r}. Known: {known}; or none.")
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
        keys = ("difference", "allowed", "differing", "top1", "sha256")
        result["export"] = [
            {"format": f.name, **{k: getattr(f, k) for k in keys}} for f in exported.models
        ]
        at = exported.weights.parent
        result["quantised"] = [{**asdict(q), "path": str(at / q.file)} for q in exported.quantised]
        if exported.finetuned is not None:
            result["finetuned"] = asdict(exported.finetuned)
    return result


def _files(trained: Trained, out: Path | None, exported: Exported | None) -> dict[str, str]:
    if out is None:
        return {}
    names = {"result": "result.json", "curve": "curve.csv"}
    names |= {} if trained.diverged else {"weights": "weights.safetensors"}
    paths = {kind: str(out / name) for kind, name in names.items()}
    if exported is not None:
        paths |= {kind: str(path) for kind, path in exported.files.items()}
    return paths


def _as_text(
    name: str,
    trained: Trained,
    out: Path | None,
    part: str,
    exported: Exported | None,
    over: bool,
    file: FileLatency | None,
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
    lines += [f"{kind}: {path}" for kind, path in _files(trained, out, exported).items()]
    for name_, why in ({} if exported is None else exported.left_out).items():
        lines.append(f"{name_}: left out, {why}")
    for form in () if exported is None else exported.models:
        lines.append(
            f"{form.name} beside torch: logits differ by {form.difference:.1e} at most (allowed: "
            f"{form.allowed:.1e}), {form.differing} decisions differ by rounding; top-1 "
            f"{form.top1:.2%}"
        )
    lines += [] if exported is None else map(str, exported.quantised)
    if exported is not None and exported.finetuned is not None:
        lines += exported.finetuned.lines(exported.quantised)
    if file is not None:
        lines += ["", *files_lines([(name, file)], "●", "network")]
    if out is None:
        lines.append("nothing was kept; --out DIR keeps the weights")
    return "\n".join(lines).rstrip()


@command
def supernet(
    output: Output,
    out: Annotated[Path, typer.Option(help="Folder of the supernet.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images: a folder with train/CLASS/..., .npz or idx; with --space or --read."
        ),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space to train. {spaces}.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images; 30.")] = None,
    resolution: Annotated[int, typer.Option(help="Side of the input image, in pixels.")] = 32,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step; 64.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Largest learning rate, for 256 images a step; 0.008.")
    ] = None,
    random: Annotated[int, typer.Option(min=1, help="Random networks a step.")] = 2,
    sandwich: Annotated[
        bool, typer.Option(help="Train the largest and the smallest network in each step.")
    ] = True,
    distil: Annotated[
        bool, typer.Option("--distil", help="Train the others on the outputs of the largest.")
    ] = False,
    seed: Seed = 0,
    held_out: Annotated[
        float, typer.Option(help="Share of the training images to evaluate networks on.")
    ] = 0.1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the CPU.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    loaders: Annotated[int, typer.Option(min=0, help="Processes that read image files.")] = 0,
    read: Annotated[
        list[str] | None, typer.Option(help="Also evaluate this network of the space; repeatable.")
    ] = None,
    broken: BrokenImages = "stop",
    ray: Ray = None,
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs that it holds on the cluster: 1, or a share; with --ray."),
    ] = None,
    networks: Annotated[int, typer.Option(min=0, max=20, help="Random networks to show.")] = 5,
) -> None:
    """Train weights that all networks of a space share, and evaluate networks with them.

    A stopped training continues with the same command. Without --space nothing is trained: the
    supernet in the folder is used.
    """
    from phonenas import space as spaces
    from phonenas.data.images import read_images
    from phonenas.search.accuracy.supernet.train import RECIPE, Sharing, train_supernet
    from phonenas.search.training.resources import Resources

    from .progress import duration

    def show(event: SupernetEpoch) -> None:
        left = event.seconds * (event.epochs - event.epoch) / event.epoch
        output.note(
            f"epoch {event.epoch} of {event.epochs}: loss {event.loss:.3f}, {duration(left)} left"
        )
        if event.epoch == event.epochs:
            output.note("evaluating the largest, the smallest and random networks")

    if gpus is not None and ray is None:
        raise InvalidArgument("--gpus is the share of a cluster's GPUs: give --ray, too")
    if data is None and (space or read):
        raise InvalidArgument("--data is needed with --space and with --read: name the images")
    document: dict[str, Any]
    if space is None:
        output.refuse(_TRAINING, "acts on a training. To train a supernet, name its space: --space")
        if not read:
            output.refuse(
                _EVALUATING, "acts only where networks are evaluated: give --space or --read"
            )
        from phonenas.search.accuracy.supernet.folder import document_of

        document = document_of(out)
        images = None if data is None else read_images(data, broken=broken)
    else:
        assert data is not None
        images = read_images(data, broken=broken)
        changes = {"epochs": epochs, "batch": batch, "learning_rate": learning_rate}
        how: dict[str, Any] = {
            "recipe": RECIPE.changed(**changes),
            "sharing": Sharing(held_out, random, sandwich, distil),
            "seed": seed,
            "resources": Resources(device, threads, loaders, gpus or 0.0),
        }
        named = spaces.get(space, resolution)
        if ray is None:
            document = train_supernet(named, images, into=out, on_event=show, **how)
        else:
            from phonenas.search.accuracy.supernet.task import supernet_on
            from phonenas.search.cluster.workers import workers_from

            with workers_from(None, ray) as team:
                output.note("training on the cluster, until it is done")
                document = supernet_on(team, named, images, into=out, **how)
    rows = [
        {"name": "largest", **document["largest"]},
        {"name": "smallest", **document["smallest"]},
    ]
    rows += [
        {"name": f"random {i + 1}", **row} for i, row in enumerate(document["random"][:networks])
    ]
    if read:
        assert images is not None
        rows += _read(read, out, images, threads, device)
    result = {"folder": str(out), **{k: v for k, v in document.items() if k != "random"}}
    result["networks"] = rows

    def text() -> str:
        settings = document["settings"]
        epochs = settings["recipe"]["epochs"]
        lines = [
            [
                r["name"],
                f"{r['macs'] / 1e6:,.1f} M",
                f"{r['top1']:.1%}",
                f"○ {r['estimate']:.1%}",
                f"{r['standard_error']:.1%}" if "standard_error" in r else "",
            ]
            for r in rows
        ]
        return (
            f"{settings['space']} at {settings['resolution_px']} px: {document['parameters']:,} "
            f"shared "
            f"weights, {epochs} epoch{'s' * (epochs != 1)} on {document['images']:,} images in "
            f"{duration(document['seconds'])}\n"
            f"top-1 on {document['images_held']:,} images held out of the training images, "
            f"{document['read_s']:.1f} s a network; random networks spread by "
            f"{document['spread']:.1%}\n\n"
            + table(["network", "MACs", "with shared weights", "estimate", "standard error"], lines)
        )

    output.print(result, text)


def _read(
    names: list[str], out: Path, images: Any, threads: int, device: str
) -> list[dict[str, Any]]:
    from phonenas.search.accuracy.supernet.supernet import Supernet

    from .networks import find

    net = Supernet(out, images, threads=threads, device=device)
    architectures = [find(name) for name in names]
    estimates = net.estimate(architectures)
    rows: list[dict[str, Any]] = []
    for i, (name, network) in enumerate(zip(names, architectures, strict=True)):
        if estimates.failed and estimates.failed[i]:
            raise InvalidArgument(f"{name}: {estimates.failed[i]}")
        rows.append(
            {
                "name": name,
                "network": str(network),
                "macs": net.evaluator.fitted(network).macs,
                "top1": net.evaluate(network).top1,
                "estimate": float(estimates.top1[i]),
                "standard_error": float(estimates.standard_error[i]),
            }
        )
    return rows
