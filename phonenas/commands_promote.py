"""Train the best networks of a run in full, and have the device measure them: promote."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    DEFAULT_DB,
    AsJson,
    BrokenImages,
    Db,
    ModelFile,
    Quiet,
    Ray,
    Seed,
    Verbose,
    find_model,
    measurable,
    model_path,
    open_store,
    print_result,
    shown_db,
    table,
)  # fmt: skip
from .space.errors import InvalidArgument, PhonenasError

if TYPE_CHECKING:
    from .latency_model import LatencyModel
    from .search.promoted import Promoted, PromotedNetwork
    from .search.promotion import Event
    from .search.run_folder import Loaded

__all__ = ["promote"]

_SHORT = 44
_ORIGINS = {"measured": "●", "simulated": "◌", "": "○"}


def promote(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a search.")],
    data: Annotated[
        Path,
        typer.Option("--data", help="Images: folders train/CLASS and val/CLASS, .npz or idx."),
    ],
    top: Annotated[int, typer.Option(help="How many of the best.")] = 15,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Measure them there after the last training."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="paper, proxy or small.")] = "paper",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    held_out: Annotated[
        float | None,
        typer.Option("--held-out", help="Judge by this share of the training images instead."),
    ] = None,
    broken: BrokenImages = "stop",
    workers: Annotated[int | None, typer.Option(help="Trainings at a time, by Ray.")] = None,
    ray: Ray = None,
    gpus: Annotated[
        float | None, typer.Option(help="Share of a GPU for each training; with workers.")
    ] = None,
    torch_device: Annotated[
        str, typer.Option("--torch-device", help="Where to train: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads of the CPU that compute, a training.")
    ] = None,
    loaders: Annotated[int, typer.Option(help="Processes that decode images, a training.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    seed: Seed = 0,
    model: ModelFile = None,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train the best networks of a run in full, and tell the front again."""
    from . import devices as d
    from . import search as s
    from .commands_training import read_parts
    from .search.device_workers import device_on
    from .search.promotion import promote as promoted
    from .search.training.recipe import recipe as recipe_of
    from .search.workers import Needs, workers_from

    loaded = s.load(run)
    told = _model(loaded, db, model, required=device is not None)
    if told is not None and device is not None:
        measurable(told)
    how = recipe_of(recipe, epochs=epochs, batch=batch)
    if gpus is not None and ray is None and workers in (None, 1):
        raise InvalidArgument(
            "--gpus is what each training holds of the workers' GPUs: give --workers or --ray, too"
        )
    with ExitStack() as stack:
        store = phone = None
        # As many threads as when the promises were made.
        pinned = int(loaded.model.get("conditions", {}).get("threads", 1))
        if device is not None:
            store = stack.enter_context(open_store(db))
            phone = None if ray else d.connect(device, threads=pinned)
        images, test, part = read_parts(data, held_out, seed, broken)
        team = stack.enter_context(workers_from(workers, ray))
        if device is not None and ray:
            phone = device_on(team, device, threads=pinned)
        telling = stack.enter_context(_Telling(quiet, workers or 1))
        found = promoted(
            loaded, images, test, recipe=how, top=top, on=phone, into=store, workers=team,
            needs=Needs(cpus=threads or 1, gpus=gpus or 0.0), latency=told, seed=seed,
            device=torch_device, threads=threads, loaders=loaders, again=again, on_event=telling,
        )  # fmt: skip
    print_result(found.to_dict(), as_json, lambda: _text(found, run, part, db))
    if all(n.top1 is None for n in found.networks):
        raise typer.Exit(1)  # each was given up, and says why


def _model(run: Loaded, db: str, model: Path | None, *, required: bool) -> LatencyModel | None:
    """The latency model at hand, which tells networks with other classes anew; it may be missing."""
    device = str(run.settings["device"])
    if model is None and not model_path(db, device).exists() and not required:
        return None
    try:
        return find_model(db, device, model, quiet=True)
    except PhonenasError:
        if required or model is not None:
            raise
        return None


class _Telling:
    """Events in, bars and lines on stderr: those of the trainings first, then the device's."""

    def __init__(self, quiet: bool, at_a_time: int) -> None:
        from .progress import Bars
        from .progress_training import TrainingBar

        self.quiet, self.at_a_time = quiet, at_a_time
        self.trainings, self.device = TrainingBar(quiet), Bars(quiet)
        # Two bars at once would write over each other.
        self._stack = ExitStack()
        self._measuring = False
        self._id: int | None = None

    def __enter__(self) -> _Telling:
        self._stack.enter_context(self.trainings)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, event: Event) -> None:
        from .search.promotion import Began, Finished, Training

        if isinstance(event, Began):
            self._line(began_words(event, self.at_a_time))
        elif isinstance(event, Training):
            if event.id != self._id:
                self._id = event.id
                self._line(f"network {event.id}:")
            self.trainings.show(event.event)
        elif isinstance(event, Finished):
            what = f"top-1 ● {event.top1:.1%}" if event.top1 is not None else event.failed
            self._line(f"network {event.id}: {what} ({event.done} of {event.networks})")
        else:
            if not self._measuring:
                self._measuring = True
                self._stack.close()
                self._stack.enter_context(self.device)
            self.device.profiling(event)

    def _line(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def began_words(event: Any, at_a_time: int) -> str:
    """What is ahead, and about how long it takes."""
    from .progress import duration

    left = event.networks - event.done
    words = f"{event.networks} network{'s' * (event.networks != 1)}, {event.done} of them trained already"
    if not left:
        return words
    words += f"; {left} to train for {event.epochs} epoch{'s' * (event.epochs != 1)} on {event.images:,} images"
    if event.seconds is None:
        return words
    seconds = event.seconds / min(at_a_time, left)
    days = f"{seconds / 86400:.1f} days" if seconds > 2 * 86400 else duration(seconds)
    where = "" if at_a_time == 1 else f", {min(at_a_time, left)} at a time"
    return f"{words}: about {days} at this computer's speed{where}. Ctrl-C keeps what is done."


def _text(found: Promoted, run: Path, part: str, db: str) -> str:
    mark = _ORIGINS.get(found.origin, "◌")
    rows = [_row(n, mark) for n in found.networks]
    header = ["id", "network", "top-1 estimate", "top-1 trained", "predicted",
              found.origin or "measured", "target", "front"]  # fmt: skip
    trained = found.trained
    lines = [table(header, rows), ""]
    n = trained[0].images if trained else 0
    if trained:
        tau = "" if found.kendall_tau is None else (
            f"; Kendall τ between estimated and trained top-1 {found.kendall_tau:+.2f} "
            f"(n = {len(trained)})"
        )  # fmt: skip
        lines.append(
            f"{len(found.front)} on the front, of {len(trained)} trained; ± is one standard error "
            f"of top-1 on {n:,} {part} images{tau}"
        )
    lines += [f"network {x.id} was given up: {x.failed}" for x in found.networks if x.failed]
    lines += [f"network {x.id}: {x.export_failed}" for x in trained if x.export_failed]
    if any(not x.predicted_as_trained for x in trained):
        lines.append("predicted latencies are of the networks with the classes of the search")
    if found.score is not None and found.verdict is not None:
        s = found.score
        lines.append(
            f"latency, predicted against {found.origin}: mean error {s.mape:.1%}, bias {s.bias:+.1%}, "
            f"{s.coverage90:.0%} inside the 90 % interval (n = {s.n}"
            + (f" of {len(trained)} trained)" if s.n < len(trained) else ")")
        )
        lines.append(f"verdict: {found.verdict.text}")
    else:
        lines.append(
            f"no latency was measured; do so with the same command and --device "
            f"{shlex.quote(found.device)} --db {shown_db(db)}"
        )
    if trained:
        names = sorted(
            {Path(n.files[f]).name for n in trained for f in n.files if f in ("onnx", "tflite")}
        )
        lines.append(
            f"files: {run / 'promoted'}/ID/{', '.join(names) or 'weights.safetensors'}; all numbers: {run}/promoted.json"
        )
    return "\n".join(lines)


def _row(n: PromotedNetwork, mark: str) -> list[str]:
    trained = "failed" if n.top1 is None else f"● {n.top1:.1%} ±{n.top1_error or 0:.1%}"
    return [
        str(n.id),
        n.block_args if len(n.block_args) <= _SHORT else n.block_args[: _SHORT - 1] + "…",
        f"○ {n.top1_estimated:.1%}",
        trained,
        f"○ {n.predicted_ms:.2f} ms",
        "–" if n.measured_ms is None else f"{mark} {n.measured_ms:.2f} ms",
        {True: "meets it", False: "misses it", None: ""}[n.meets_target],
        "front" if n.on_front else "",
    ]
