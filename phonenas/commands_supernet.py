"""The command that trains a supernet, and reads networks with its weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import SPACES, AsJson, BrokenImages, Quiet, Ray, Seed, Verbose, print_result, table
from .space.errors import InvalidArgument

if TYPE_CHECKING:
    from .search.accuracy.supernet_training import SupernetEpoch

__all__ = ["supernet"]


def supernet(
    data: Annotated[
        Path, typer.Option("--data", help="Images: a folder with train/CLASS/..., .npz or idx.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the supernet.")],
    space: Annotated[str | None, typer.Option("--space", help=f"To train: {SPACES}")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images; 30.")] = None,
    resolution: Annotated[int, typer.Option(help="Side of the input image, in pixels.")] = 32,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step; 64.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="At its height, for 256 images of batch; 0.008."),
    ] = None,
    random: Annotated[int, typer.Option(min=1, help="Random networks a step.")] = 2,
    sandwich: Annotated[
        bool, typer.Option(help="The largest and the smallest network join each step.")
    ] = True,
    distil: Annotated[
        bool, typer.Option("--distil", help="The others learn from the largest's answers.")
    ] = False,
    seed: Seed = 0,
    held_out: Annotated[
        float, typer.Option("--held-out", help="Share of the training images to read on.")
    ] = 0.1,
    threads: Annotated[int, typer.Option(min=1, help="Of the CPU.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    loaders: Annotated[int, typer.Option(min=0, help="Processes that read image files.")] = 0,
    read: Annotated[
        list[str] | None,
        typer.Option("--read", help="Also read this network of the space; repeatable."),
    ] = None,
    broken: BrokenImages = "stop",
    ray: Ray = None,
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs that it holds on the cluster: 1, or a share; with --ray."),
    ] = None,
    networks: Annotated[int, typer.Option(min=0, max=20, help="Random networks to show.")] = 5,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train weights that all networks of a space share, and read networks with them.

    A stopped training goes on with the same command. Without --space the folder's supernet is read.
    """
    from . import space as spaces
    from .data.images import read_images
    from .progress import duration
    from .search.accuracy.supernet_training import RECIPE, train_supernet

    def told(event: SupernetEpoch) -> None:
        left = event.seconds * (event.epochs - event.epoch) / event.epoch
        print(
            f"epoch {event.epoch} of {event.epochs}: loss {event.loss:.3f}, "
            f"{duration(left)} left",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        if event.epoch == event.epochs:
            print(
                "reading the largest, the smallest and random networks", file=sys.stderr, flush=True
            )

    if gpus is not None and ray is None:
        raise InvalidArgument("--gpus is what a training holds on a cluster: give --ray, too")
    found: dict[str, Any]
    if space is None:
        if epochs is not None or batch is not None or learning_rate is not None:
            raise InvalidArgument(
                "to train a supernet, name its space:  --space mnasnet (or another)"
            )
        from .search.accuracy.supernet_folder import document_of

        found = document_of(out)
        images = read_images(data, broken=broken) if read else None
    else:
        images = read_images(data, broken=broken)
        changes = {"epochs": epochs, "batch": batch, "learning_rate": learning_rate}
        how: dict[str, Any] = {
            "recipe": RECIPE.changed(**changes), "hold_out": held_out, "random": random,
            "sandwich": sandwich, "distil": distil, "seed": seed, "threads": threads,
            "device": device, "loaders": loaders,
        }  # fmt: skip
        named = spaces.get(space, resolution)
        if ray is None:
            telling = None if quiet else told
            found = train_supernet(named, images, into=out, on_event=telling, **how)
        else:
            from .search.training_task import supernet_on
            from .search.workers import Needs, workers_from

            with workers_from(None, ray) as team:
                if not quiet:
                    print("training on the cluster, until it is done", file=sys.stderr, flush=True)
                needs = Needs(threads, gpus or 0.0)
                found = supernet_on(team, named, images, into=out, needs=needs, **how)
    rows = [{"name": "largest", **found["largest"]}, {"name": "smallest", **found["smallest"]}]
    rows += [{"name": f"random {i + 1}", **row} for i, row in enumerate(found["random"][:networks])]
    if read:
        assert images is not None
        rows += _read(read, out, images, threads, device)
    result = {"folder": str(out), **{k: v for k, v in found.items() if k != "random"}}
    result["networks"] = rows

    def text() -> str:
        settings = found["settings"]
        epochs = settings["recipe"]["epochs"]
        lines = [
            [
                r["name"], f"{r['macs'] / 1e6:,.1f} M", f"{r['top1']:.1%}", f"○ {r['estimate']:.1%}",
                f"{r['standard_error']:.1%}" if "standard_error" in r else "",
            ]
            for r in rows
        ]  # fmt: skip
        return (
            f"{settings['space']} at {settings['resolution_px']} px: {found['parameters']:,} shared "
            f"weights, {epochs} epoch{'s' * (epochs != 1)} on {found['images']:,} images in "
            f"{duration(found['seconds'])}\n"
            f"top-1 on {found['images_held']:,} images held out of the training images, "
            f"{found['read_s']:.1f} s a network; random networks spread by {found['spread']:.1%}\n\n"
            + table(["network", "MACs", "counted", "top-1", "error"], lines)
        )

    print_result(result, as_json, text)


def _read(
    names: list[str], out: Path, images: Any, threads: int, device: str
) -> list[dict[str, Any]]:
    from .search.accuracy.supernet import Supernet
    from .search.networks import find

    net = Supernet(out, images, threads=threads, device=device)
    found = [find(name) for name in names]
    told = net.estimate(found)
    rows: list[dict[str, Any]] = []
    for i, (name, network) in enumerate(zip(names, found, strict=True)):
        if told.failed and told.failed[i]:
            raise InvalidArgument(f"{name}: {told.failed[i]}")
        rows.append(
            {
                "name": name,
                "network": str(network),
                "macs": net.reader.fitted(network).macs,
                "top1": net.read(network).top1,
                "estimate": float(told.top1[i]),
                "standard_error": float(told.standard_error[i]),
            }
        )
    return rows
