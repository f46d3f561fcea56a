"""The command that trains a supernet, and evaluates networks with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument

from .options import BrokenImages, Output, Ray, Seed, command
from .output import table

if TYPE_CHECKING:
    from phonenas.search.accuracy.supernet.train import SupernetEpoch

__all__ = ["supernet"]

# Options that change nothing where no supernet is trained.
_TRAINING = (
    "epochs batch learning_rate resolution random sandwich distil seed held_out loaders ray gpus"
)


# Options that change nothing where no network is evaluated either.
_IMAGES = "data broken threads device"


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
            output.refuse(_IMAGES, "acts only where networks are evaluated: give --space or --read")
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
