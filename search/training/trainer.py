"""train(): a network and images in, trained weights and their accuracy out.

torch is imported when it runs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument, SettingsChanged, UnsupportedFormat

from .folder import Stopped, TrainingFolder, load
from .job import TrainingJob
from .recipe import Recipe
from .resources import Resources, computing, require_torch
from .result import Began, Epoch, Event, Stepped, Trained
from .schedule import Schedule

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

    from .distributed import Processes

__all__ = ["Began", "Epoch", "Event", "Stepped", "Trained", "run_job", "train"]

log = logging.getLogger("phonenas")

_CHECK_STEPS = 50  # how often the loss is looked at; each look makes a GPU wait
_EVENT_S = 0.5
_EVALUATED = 256  # images at once
_BOUND = 100.0  # a mean loss of so many times that of pure guessing means that it no longer learns
_NAN = float("nan")


def train(
    network: Classifier,
    images: ImageSet,
    test: ImageSet | None = None,
    *,
    recipe: Recipe,
    seed: int = 0,
    into: str | Path | None = None,
    resources: Resources | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Trained:
    """Train a network from its first weights: `run_job` of the `TrainingJob` of these values.

    Args:
        network, into, resources, on_event: As for `run_job`.
        images, test, recipe, seed: As for `TrainingJob`.
    Raises:
        PhonenasError: As `TrainingJob` and `run_job`.
    """
    job = TrainingJob(images, test, recipe, seed)
    return run_job(network, job, into=into, resources=resources, on_event=on_event)


def run_job(
    network: Classifier,
    job: TrainingJob,
    *,
    into: str | Path | None = None,
    resources: Resources | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Trained:
    """Train a network from its first weights, or from those of `job.start`.

    On a CPU equal arguments and threads give exactly equal weights, whether the training was
    stopped and resumed or not (with several processes, except BatchNorm's statistics, whose
    averaging rounds with each checkpoint). A training that diverges is not an error:
    `Trained.diverged` says so, and its accuracy is NaN. Started by torchrun, several processes
    train one network together (see `distributed`); each returns the same accuracy.

    Args:
        network: The network; its classes become those of the images.
        job: Images, recipe and seed.
        into: Folder for checkpoints, curve and result; a training stopped in it goes on, one that
            is finished is read. None: nothing is kept.
        resources: Device, threads and loader processes; by default `Resources()`.
        on_event: Called with `Began`, `Stepped` and `Epoch`.
    Raises:
        MissingExtra: torch or safetensors is not installed.
        InvalidArgument: The recipe, the images and the device do not go together.
        InvalidImage: A file that is not an image, where the set was opened with broken="stop".
        SettingsChanged: The folder holds a training with other settings; both are named.
        UnsupportedFormat: The folder's checkpoint is damaged; the message says what to do.
        StoreError: The folder cannot be written; the older checkpoint stays whole. Or another
            process works in it.
        WorkersUnavailable: The processes of torchrun do not find each other.
    """
    require_torch()
    import torch

    from .distributed import together

    resources = resources or Resources()
    network = network.with_classes(len(job.images.classes))
    with computing(resources.threads), together(resources.device) as processes:
        cuda = [processes.device] if processes.device.type == "cuda" else []
        # The caller's random state stays as it was.
        with torch.random.fork_rng(devices=cuda):
            run = _Run(network, job, processes, resources.loaders, on_event)
            try:
                run.open(into)
                return _until(run.to_end(), job.pause_after)
            finally:
                run.close()


class _Run:
    """One training. Lifetime: made, `open`, `to_end` once, then `close`."""

    def __init__(
        self,
        network: Classifier,
        job: TrainingJob,
        processes: Processes,
        loaders: int,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        from .pipeline import Batches
        from .step import resolved_precision

        self.network, self.job, self.processes = network, job, processes
        self._send = on_event if on_event and processes.first else lambda event: None
        recipe, world = job.recipe, processes.world
        self.batch = recipe.batch
        if self.batch > len(job.images):
            self.batch = len(job.images) - len(job.images) % world
        if self.batch < 2 * world:
            raise InvalidArgument(
                f"a batch of {self.batch} images leaves fewer than two to each of "
                f"{world} processes, which BatchNorm cannot normalise"
            )
        px = network.resolution_px
        self.batches = Batches(
            job.images,
            self.batch,
            px,
            augment=None if recipe.augment == "none" else recipe.augment,
            seed=job.seed,
            loaders=loaders,
            shuffle=True,
            processes=processes,
        )
        self.test_batches = None
        if job.test is not None:
            self.test_batches = Batches(
                job.test, _EVALUATED * world, px, augment=None, loaders=loaders, processes=processes
            )
        self.per_epoch = len(self.batches)
        self.schedule = Schedule(recipe, self.per_epoch, self.batch)
        self.precision = resolved_precision(recipe.precision, processes.device)
        self.folder: TrainingFolder | None = None
        self.into: str | Path | None = None
        self.curve: list[Epoch] = []
        self.earlier_s, self.began_s = 0.0, time.monotonic()
        self.evaluating_s, self.evaluations = 0.0, 0
        self.resumed, self.event_s = 0, self.began_s

    @property
    def seconds(self) -> float:
        return self.earlier_s + time.monotonic() - self.began_s

    def open(self, into: str | Path | None) -> None:
        self.into = into
        if into is not None and self.processes.first:
            settings = {**self.job.settings(self.network), "precision": self.precision}
            self.folder = TrainingFolder(into, settings, self.job.checkpoint_s)

    def close(self) -> None:
        for batches in (self.batches, self.test_batches):
            if batches is not None:
                batches.close()
        if self.folder is not None:
            self.folder.close()

    def to_end(self) -> Trained:
        import torch

        from phonenas.space.lowering.torch import to_torch

        from .step import TrainingStep
        from .teacher import TeacherModel

        job = self.job
        finished = self.folder.finished() if self.folder is not None else None
        if self.processes.agreed(finished is not None):
            return load(self.into or "") if finished is None else finished
        if job.start is None:
            module = to_torch(self.network, dropout=job.recipe.dropout, seed=job.seed)
        else:
            module = job.start.module(self.network)
        taught = None
        if job.teacher is not None:
            classes, device = self.network.classes, self.processes.device
            taught = TeacherModel(job.teacher, classes, device, torch.get_num_threads())
        self.training_step = TrainingStep(job.recipe, module, self.processes, job.seed, taught)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.processes.device)
        self.loss_count = 0
        self._resume()
        self._send(
            Began(
                len(job.images),
                job.test_images,
                self.schedule.steps,
                job.recipe.epochs,
                self.batch,
                self.resumed,
                str(self.processes.device),
                self.precision,
                job.start is not None,
            )
        )
        diverged, step = "", self.training_step
        steps = self.per_epoch * (job.pause_after or job.recipe.epochs)
        while step.updates < steps and not diverged:
            diverged = self._epoch()
        if self.curve and not diverged:
            diverged = self._invalid_weights()
        if step.updates < self.schedule.steps and not diverged:
            if self.into is not None and step.updates > self.resumed:
                self._save()
            return self._trained("")
        return self._finish(diverged)

    def _resume(self) -> None:
        import torch

        step = self.training_step
        stopped = self.folder.stopped() if self.folder is not None else None
        if stopped is not None:
            try:
                step.restore(stopped.tensors, stopped.scaler, stopped.step)
            except (KeyError, RuntimeError, ValueError) as error:
                raise UnsupportedFormat(
                    f"the checkpoint in {self.into} does not fit: {error}. Remove it to train from "
                    "the start."
                ) from error
            self.curve, self.earlier_s = list(stopped.curve), stopped.seconds
            self.loss_sum.fill_(stopped.loss_sum)
            self.loss_count = stopped.loss_count
        if self.into is not None and self.processes.world > 1:
            counts = torch.tensor([step.updates, self.loss_count], dtype=torch.int64)
            counts = counts.to(self.processes.device)
            self.processes.from_first([counts, self.loss_sum, *step.tensors().values()])
            step.updates, self.loss_count = int(counts[0]), int(counts[1])
        self.resumed = step.updates
        if self.resumed:
            log.info("the training goes on from step %d", self.resumed)

    def _epoch(self) -> str:
        """The rest of the present epoch; "" or why the training is to end."""
        step = self.training_step
        number, done = divmod(step.updates, self.per_epoch)
        step.module.train()
        alone = self.processes.world == 1
        rate = 0.0
        for x, y in self.batches.epoch(number, start_step=done):
            rate = self.schedule(step.updates)
            self.loss_sum += step.step(x, y, rate)
            self.loss_count += 1
            done += 1
            over = done == self.per_epoch
            look = over or step.updates % _CHECK_STEPS == 0
            if look and (why := self._diverged()):
                return why
            now = time.monotonic()
            if self.processes.first and now - self.event_s >= _EVENT_S:
                self.event_s = now
                self._send_progress(number)
            # Several processes ask each other only now and then: each question makes them wait.
            if self.into is not None and not over and (alone or look):
                due = self.folder is not None and self.folder.due()
                if self.processes.agreed(due):
                    self._save()
        self._end_epoch(number + 1, rate)
        return ""

    def _send_progress(self, number: int) -> None:
        updates, total = self.training_step.updates, self.schedule.steps
        new = updates - self.resumed
        taken_s = max(time.monotonic() - self.began_s - self.evaluating_s, 1e-9)
        left_s = (total - updates) * taken_s / new
        if self.evaluations:
            epochs = self.job.recipe.epochs
            ahead = math.ceil((epochs - number) / max(1, self.job.evaluate_each or epochs))
            left_s += ahead * self.evaluating_s / self.evaluations
        self._send(Stepped(updates, total, number + 1, new * self.batch / taken_s, left_s))

    def _mean_loss(self) -> float:
        total = self.processes.sum(self.loss_sum.clone()) / self.processes.world
        return float(total) / self.loss_count

    def _diverged(self) -> str:
        loss, steps = self._mean_loss(), self.training_step.updates
        if not math.isfinite(loss):
            return f"the loss was not a number within {steps} steps"
        bound = _BOUND * math.log(max(2, self.network.classes))
        if loss > bound:
            return f"the mean loss was {loss:.3g} within {steps} steps, above {bound:.3g}"
        return ""

    def _invalid_weights(self) -> str:
        import torch

        tensors = self.training_step.evaluated.state_dict().values()
        valid = all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
        return "" if valid else "the weights were not numbers at the end"

    def _end_epoch(self, number: int, rate: float) -> None:
        step = self.training_step
        step.share_statistics()
        loss = self._mean_loss()
        self.loss_sum.zero_()
        self.loss_count = 0
        last = number == self.job.recipe.epochs
        due = last or number == self.job.pause_after
        due = due or bool(self.job.evaluate_each and number % self.job.evaluate_each == 0)
        top1, top5 = self._evaluate() if due else (_NAN, _NAN)
        epoch = Epoch(number, step.updates, rate, loss, top1, top5, self.seconds)
        self.curve.append(epoch)
        self._send(epoch)
        if self.into is not None and not last:
            due = self.folder is not None and self.folder.due(epoch_over=True)
            if self.processes.agreed(due):
                self._save()
            if self.folder is not None:
                self.folder.write_curve(self.curve)

    def _evaluate(self) -> tuple[float, float]:
        """Top-1 and top-5 over the test images, each process evaluating its share; NaN without."""
        import torch

        from .evaluation import count_hits

        if self.test_batches is None:
            return _NAN, _NAN
        began = time.monotonic()
        first, five, valid, _ = count_hits(self.training_step.evaluated.eval(), self.test_batches)
        counts = torch.tensor([first, five, not valid], device=self.processes.device)
        first, five, invalid = self.processes.sum(counts).tolist()
        self.evaluating_s += time.monotonic() - began
        self.evaluations += 1
        n = self.job.test_images
        return (_NAN, _NAN) if invalid else (first / n, five / n)

    def _save(self) -> None:
        step = self.training_step
        step.share_statistics()
        loss_sum = self.processes.sum(self.loss_sum.clone()) / self.processes.world
        if self.folder is not None:
            self.folder.save(
                Stopped(
                    step.tensors(),
                    step.updates,
                    tuple(self.curve),
                    self.seconds,
                    step.scaler_state(),
                    float(loss_sum),
                    self.loss_count,
                )
            )

    def _finish(self, diverged: str) -> Trained:
        trained = self._trained(diverged)
        if trained.diverged:
            log.warning("the training of %s diverged: %s", self.network, trained.diverged)
        if self.folder is not None:
            self.folder.finish(trained)
        return trained

    def _trained(self, diverged: str) -> Trained:
        from phonenas.space.lowering.torch import state_arrays

        job = self.job
        top1, top5 = (self.curve[-1].top1, self.curve[-1].top5) if self.curve else (_NAN, _NAN)
        if not diverged and job.test is not None and top1 != top1:
            diverged = "the outputs were not numbers at the end"
        return Trained(
            self.network,
            {} if diverged else state_arrays(self.training_step.evaluated),
            _NAN if diverged else top1,
            _NAN if diverged else top5,
            job.test_images,
            tuple(self.curve),
            self.seconds,
            diverged,
            len(job.images),
            job.images.classes,
            self.training_step.updates,
            self.resumed,
            {**job.recipe.settings, "precision": self.precision},
        )


def _until(trained: Trained, pause_after: int | None) -> Trained:
    """A training as it was after some epochs, where it went further before.

    Raises:
        SettingsChanged: It was not evaluated then.
    """
    if pause_after is None or len(trained.curve) <= pause_after:
        return trained
    then = trained.curve[pause_after - 1]
    if then.top1 != then.top1 and trained.images_held:
        raise SettingsChanged(
            f"this training went past epoch {pause_after} without an evaluation there. Train in "
            "another folder."
        )
    return replace(
        trained,
        weights={},
        top1=then.top1,
        top5=then.top5,
        curve=trained.curve[:pause_after],
        diverged="",
        seconds=then.seconds,
        steps=then.step,
    )
