"""The command that trains the best networks of a run in full, and measures them: promote."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, SettingsChanged
from phonenas.space.precision import FLOAT32, PRECISIONS

from .options import ModelFile, Output, Precision, TrainingOptions, WorkerCount, command
from .output import command_line, files_lines, origin_note, shown_db, table
from .stores import find_model, measurable, open_store, stored_model
from .validate import searched_in

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet
    from phonenas.latency_model import LatencyModel
    from phonenas.search.promotion.promote import Event
    from phonenas.search.promotion.result import Promoted, PromotedNetwork
    from phonenas.search.run_folder import Loaded
    from phonenas.search.training.export.quantised import Quantisation
    from phonenas.search.training.recipe import Recipe

    from .progress import Bars

__all__ = ["QuantisationOptions", "promote", "read_parts"]

_SHORT = 44


@dataclass(frozen=True)
class QuantisationOptions:
    """The options that write a trained network in another precision, too."""

    quantise: Annotated[
        str | None,
        typer.Option(help="int8 or another: write each format in that, too, evaluate both files."),
    ] = None
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that --quantise int8 calibrates on, as --data; default: those trained on.",
        ),
    ] = None
    finetune: Annotated[
        str | None,
        typer.Option(
            help="Fine-tune for int8: auto (where it loses over a point), always or never; "
            "default: auto with --finetune-epochs, else never."
        ),
    ] = None
    finetune_epochs: Annotated[
        int | None, typer.Option(help="Of the fine-tuning; default: a tenth of the training's.")
    ] = None

    def checked(self, output: Output, precision: str | None) -> bool:
        """Whether a fine-tuning is asked for; refuses what does not apply, before images are read.

        Args:
            output: Of the command.
            precision: In which files are written besides float32; None: in none.
        """
        from phonenas.search.training.finetuning.settings import checked_request

        if precision is None:
            output.refuse("calibrate", "is of --quantise: give that, too")
        return checked_request(self.finetune, self.finetune_epochs, precision)

    def read(
        self, precision: str | None, images: ImageSet, options: TrainingOptions, recipe: Recipe
    ) -> tuple[ImageSet, Quantisation | None]:
        """What is left to train on, and how what was trained is quantised.

        Args:
            precision: As for `checked`.
            images: All to train on.
            options: Of the training.
            recipe: Of the training.
        """
        from phonenas.search.training.export.quantised import quantisation
        from phonenas.search.training.finetuning.settings import checked_request, fine_tuning

        when, epochs, tuning = self.finetune, self.finetune_epochs, None
        if checked_request(when, epochs, precision):
            images, tuning = fine_tuning(when, epochs, images, recipe, options.seed)
        broken, folder = options.broken, self.calibrate
        return images, quantisation(precision, images, folder, broken=broken, finetune=tuning)

    @contextmanager
    def naming_held_out(self, asked: bool, whole: ImageSet, recipe: Recipe, seed: int) -> Any:
        """Of trainings whose images changed by `--finetune` alone, the error says so.

        Args:
            asked: Whether a fine-tuning is.
            whole: All to train on, before a tenth is held out.
            recipe, seed: Of the training.
        """
        from phonenas.search.training.finetuning.settings import fine_tuning

        try:
            yield
        except SettingsChanged as error:
            try:
                other = whole if asked else fine_tuning("always", 1, whole, recipe, seed)[0]
            except InvalidArgument:  # too few images to hold any out: that is not the cause
                raise error from None
            if f"images was {other.digest!r}" not in str(error):
                raise
            cause = (
                "That training had all training images, of which --finetune and --finetune-epochs "
                "hold a tenth out: leave both out, or train again."
                if asked
                else "That training was for --finetune, which holds a tenth of the training images "
                "out: give it again."
            )
            raise SettingsChanged(f"{error} {cause}") from error


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


@command
def promote(
    output: Output,
    db: str,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a search.")],
    options: TrainingOptions,
    top: Annotated[int, typer.Option(help="Number of networks, the best first.")] = 15,
    device: Annotated[
        str | None,
        typer.Option(help="Measure them there, as `phonenas devices` lists it, after training."),
    ] = None,
    workers: WorkerCount = None,
    torch_device: Annotated[
        str, typer.Option(help="Where to train: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Measure again what the store has.")] = (
        False
    ),
    quantisation: QuantisationOptions = QuantisationOptions(),
    precision: Precision = None,
    model: ModelFile = None,
) -> None:
    """Train the best networks of a run in full, and write the front again."""
    from phonenas import devices as d
    from phonenas import search as s
    from phonenas.search.cluster.device_workers import device_on
    from phonenas.search.cluster.workers import workers_from
    from phonenas.search.exported_file import refuse_unstable
    from phonenas.search.promotion.promote import LatencySource
    from phonenas.search.promotion.promote import promote as promoted
    from phonenas.search.training.export.export import ExportSettings
    from phonenas.search.training.job import TrainingJob
    from phonenas.search.training.recipe import recipe
    from phonenas.search.training.resources import Resources
    from phonenas.search.training.teacher import Teacher

    from .progress import Bars

    loaded = searched_in(s.load(run), precision)
    run, of_run = loaded.path, loaded.precision
    if device is None:
        output.refuse("again", "measures again, and no device is named: give --device, too")
    small = quantisation.quantise
    small = small or (of_run if of_run != FLOAT32 and of_run in PRECISIONS else None)
    tuning = quantisation.checked(output, small)
    fitted = _model(output, loaded, db, model, device)
    if fitted is not None and device is not None:
        measurable(fitted)
    chosen = recipe(options.recipe, epochs=options.epochs, batch=options.batch)
    teacher = Teacher.named(options.teacher)
    if options.ray is None and workers in (None, 1):
        output.refuse(
            "gpus",
            "is the number of GPUs that each training reserves on a worker: give --workers or "
            "--ray, too",
        )
    with ExitStack() as stack:
        store = phone = None
        # As many threads as when the latencies were predicted.
        pinned = int(loaded.model.get("conditions", {}).get("threads", 1))
        if device is not None:
            store = stack.enter_context(open_store(db))
            here = options.ray is None
            phone = d.connect(device, threads=pinned, precision=of_run) if here else None
        images, test, part = read_parts(options)
        stack.enter_context(quantisation.naming_held_out(tuning, images, chosen, options.seed))
        images, how = quantisation.read(small, images, options, chosen)
        exports = ExportSettings(quantise=how)
        team = stack.enter_context(workers_from(workers, options.ray))
        if device is not None and options.ray:
            phone = device_on(team, device, threads=pinned, precision=of_run)
        bars = stack.enter_context(Bars(output.quiet))
        result = promoted(
            loaded,
            TrainingJob(images, test, chosen, options.seed, teacher=teacher),
            top=top,
            latency=LatencySource(fitted, phone, store, remeasure=again),
            workers=team,
            resources=Resources(
                torch_device, options.threads, options.loaders, options.gpus or 0.0
            ),
            exports=exports,
            on_event=_showing(bars, workers or 1),
        )
    output.print(result.to_dict(), lambda: _text(result, run, part, db))
    if all(n.top1 is None for n in result.networks):
        raise typer.Exit(1)  # each was given up, and says why
    if device is None:
        return
    networks = ""
    if unmeasured := [f"network {n.id}: {n.unmeasured}" for n in result.networks if n.unmeasured]:
        networks = (
            f"{len(unmeasured)} of {len(result.trained)} networks gave no stable measurement "
            f"({'; '.join(unmeasured)})"
        )
    refuse_unstable([(f"network {n.id}", n.file) for n in result.trained], networks)


def _model(
    output: Output, run: Loaded, db: str, model: Path | None, device: str | None
) -> LatencyModel | None:
    """The latency model that predicts networks with other classes; None where it is not needed."""
    own = str(run.settings["device"])
    if model is None and device is None and not stored_model(db, own, run.precision).exists():
        return None
    try:
        return find_model(db, own, model, True, run.precision)
    except PhonenasError as error:
        if device is not None or model is not None:
            raise
        output.note(f"no latency is predicted for the classes of these images: {error}")
        return None


def _showing(bars: Bars, at_a_time: int) -> Callable[[Event], None]:
    """What shows the events: those of the trainings, then those of the device."""
    from phonenas.search.promotion.promote import Began, Finished, Training

    shown: int | None = None

    def show(event: Event) -> None:
        nonlocal shown
        if isinstance(event, Began):
            bars.line(began_words(event, at_a_time))
        elif isinstance(event, Training):
            if event.id != shown:
                shown = event.id
                bars.line(f"network {event.id}:")
            bars.training(event.event)
        elif isinstance(event, Finished):
            what = f"top-1 ● {event.top1:.1%}" if event.top1 is not None else event.failed
            bars.line(f"network {event.id}: {what} ({event.done} of {event.networks})")
        else:
            bars.profiling(event)

    return show


def began_words(event: Any, at_a_time: int) -> str:
    """How many trainings are ahead, and about how long they take."""
    from .progress import duration

    left = event.networks - event.done - event.again
    words = f"{event.networks} network{'s' * (event.networks != 1)}, "
    words += f"{event.done + event.again} trained already"
    words += f", {event.again} of them to export again" if event.again else ""
    if not left:
        return words
    epochs = f"{event.epochs} epoch{'s' * (event.epochs != 1)}"
    words += f"; {left} to train for {epochs} on {event.images:,} images"
    if event.seconds is None:
        return words
    together = min(at_a_time, left)
    seconds = event.seconds / together
    days = f"{seconds / 86400:.1f} days" if seconds > 2 * 86400 else duration(seconds)
    where = "" if at_a_time == 1 else f", {together} at a time"
    return f"{words}: about {days} at the speed of this computer{where}. Ctrl-C keeps what is done."


def _text(result: Promoted, run: Path, part: str, db: str) -> str:
    from phonenas.latency_model import ready
    from phonenas.search.run_document import estimate_of, settings_of

    sign = "●" if result.conditions is None else result.conditions.mark
    header = ["id", "network", "top-1 estimated", "top-1 trained"]
    small = result.precision != FLOAT32 and any(n.in_precision for n in result.trained)
    header += [f"in {result.precision}"] if small else []
    header += ["predicted", result.origin or "measured", "target", "front"]
    trained = result.trained
    lines = [table(header, [_row(n, sign, small) for n in result.networks]), ""]
    if trained:
        tau = ""
        if result.kendall_tau is not None:
            tau = (
                f"; Kendall τ between estimated and trained top-1 {result.kendall_tau:+z.2f} "
                f"(n = {len(result.shipping)})"
            )
        lines.append(
            f"{len(result.front)} on the front, of {len(trained)} trained; ± is one standard error "
            f"of top-1 on {trained[0].images:,} {part} images{tau}"
        )
    if (settings := settings_of(run)) is not None:
        lines.append(f"estimated: {estimate_of(settings).scale}")
    lines += [f"network {x.id} was given up: {x.failed}" for x in result.networks if x.failed]
    lines += [f"network {x.id}: {x.export_failed}" for x in trained if x.export_failed]
    lines += [f"network {x.id}: {q}" for x in trained for q in x.quantised]
    tuned = [(x, x.finetuned) for x in trained if x.finetuned is not None]
    lines += [f"network {x.id}: {line}" for x, found in tuned for line in found.lines(x.quantised)]
    if trained and result.precision != FLOAT32:
        lines.append(_ships(result, part))
    lines += [f"network {x.id} is not measured: {x.unmeasured}" for x in trained if x.unmeasured]
    files = files_lines([(str(x.id), x.file) for x in trained if x.file], sign, "id")
    lines += ["", *files, ""] if files else []
    if any(not x.predicted_as_trained for x in trained):
        lines.append("predicted latencies are of the networks with the classes of the search")
    if result.score is not None and result.verdict is not None:
        s = result.score
        lines.append(
            f"latency, predicted against {result.origin}: mean error {s.mape:.1%}, bias "
            f"{s.bias:+z.1%}, {s.coverage90:.0%} inside the 90 % interval (n = {s.n}"
            + (f" of {len(trained)} trained)" if s.n < len(trained) else ")")
        )
        lines.append(f"verdict: {result.verdict.text}")
    else:
        device = f"--device {shlex.quote(result.device)} --db {shlex.quote(shown_db(db))}"
        lines.append(f"no latency was measured; the same command with {device} measures it")
    if trained:
        several = [d["device"] for d in (settings or {}).get("devices", ())]
        for other in (d for d in several if d != (settings or {})["device"]):
            words = ("validate", str(run), "--device", other)
            if other not in ready.names():
                lines.append(f"measure them on {other}, too:  {command_line(*words, db=db)}")
        kinds = ("onnx", "tflite")
        files = [n.files[f] for n in trained for f in n.files if f.partition(" ")[0] in kinds]
        names = sorted({Path(f).name for f in files})
        lines.append(
            f"files: {run / 'promoted'}/ID/{', '.join(names) or 'weights.safetensors'}; all "
            f"numbers: {run}/promoted.json"
        )
    return "\n".join(lines) + ("" if result.conditions is None else origin_note(result.conditions))


def _ships(result: Promoted, part: str) -> str:
    """What the front of a run in another precision than float32 is of."""
    of, files = result.precision, {n.id: n.quantised_file for n in result.shipping}
    there = {id_: q for id_, q in files.items() if q is not None and q.precision == of}
    if not there:
        return f"no file is in {of}: the front has the top-1 of float32"
    not_run = ", ".join(str(id_) for id_, q in there.items() if q.not_run)
    images = max(q.images for q in there.values())
    changed = f"of float32, since no runtime of this computer runs {of}"
    if images:
        changed = f"with its change in {of} on {images:,} {part} images"
        changed += f" (of float32, since not evaluated in {of}: {not_run})" if not_run else ""
    lacking = ", ".join(str(n.id) for n in result.trained if not n.in_precision)
    return (
        f"the front is of the files in {of}, which ship: their latency, and the trained top-1 "
        f"{changed}" + (f"; without a file in {of}, and not on it: {lacking}" if lacking else "")
    )


def _row(n: PromotedNetwork, sign: str, small: bool) -> list[str]:
    from phonenas.search.validation.validate import SAID

    trained = "failed" if n.top1 is None else f"● {n.top1:.1%} ±{n.top1_error or 0:.1%}"
    top1, error = n.shipped
    shipped = f"● {top1:.1%} ±{error:.1%}" if n.top1 is not None and n.in_precision else "–"
    return [
        str(n.id),
        n.block_args if len(n.block_args) <= _SHORT else n.block_args[: _SHORT - 1] + "…",
        f"○ {n.top1_estimated:.1%}",
        trained,
        *([shipped] if small else []),
        f"○ {n.predicted_ms:.2f} ms",
        "–" if n.measured_ms is None else f"{sign} {n.measured_ms:.2f} ms ±{n.spread or 0:.1%}",
        "" if n.verdict is None else SAID[n.verdict],
        "front" if n.on_front else "",
    ]
