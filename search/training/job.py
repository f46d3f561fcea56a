"""One training, from its first or its next step to its end: what `train` runs.

torch is imported when it runs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...space import Architecture
from ...space.errors import InvalidArgument, UnsupportedFormat
from .evaluation import count_hits
from .folder import Stopped, TrainingFolder, load, settings_of
from .recipe import Recipe
from .schedule import Schedule
from .trained import Began, Epoch, Event, Stepped, Trained

if TYPE_CHECKING:
    from ...data.image_set import ImageSet
    from .distributed import Processes

__all__ = ["Job"]

log = logging.getLogger("phonenas")

_CHECK_STEPS = 50  # how often the loss is looked at; each look makes a GPU wait
_TELL_S = 0.5
_JUDGED = 256  # images at once
_BOUND = 100.0  # a mean loss of so many times that of pure guessing is no learning any more
_NAN = float("nan")
_AUGMENT: dict[str, Literal["imagenet", "small", "shift"] | None] = {
    "imagenet": "imagenet", "small": "small", "shift": "shift", "none": None,
}  # fmt: skip


class Job:
    """One training.

    Lifetime: made with what `train` was given, `run` once, then `close`.
    """

    def __init__(
        self,
        network: Architecture,
        images: ImageSet,
        held: ImageSet | None,
        recipe: Recipe,
        seed: int,
        processes: Processes,
        into: str | Path | None,
        checkpoint_s: float,
        workers: int,
        evaluate_each: int,
        tell: Callable[[Event], None],
    ) -> None:
        from .pipeline import Batches
        from .stepper import resolved_precision

        self.network, self.images, self.held, self.recipe = network, images, held, recipe
        self.processes, self.workers, self.evaluate_each = processes, workers, evaluate_each
        self.tell = tell if processes.first else lambda event: None
        world = processes.world
        self.batch = recipe.batch
        if self.batch > len(images):
            self.batch = len(images) - len(images) % world
        if self.batch < 2 * world:
            raise InvalidArgument(
                f"a batch of {self.batch} images leaves fewer than two to each of "
                f"{world} processes, which BatchNorm cannot normalise"
            )
        self.batches = Batches(
            images, self.batch, network.resolution_px,
            augment=_AUGMENT[recipe.augment], seed=seed,
            workers=workers, drop_last=True, shuffle=True, rank=processes.rank, world=world,
            device=processes.device,
        )  # fmt: skip
        self.judging = None
        if held is not None:
            self.judging = Batches(
                held, _JUDGED * world, network.resolution_px, augment=None, workers=workers,
                rank=processes.rank, world=world, device=processes.device,
            )  # fmt: skip
        self.per_epoch = len(images) // self.batch
        self.schedule = Schedule(recipe, self.per_epoch, self.batch)
        self.precision = resolved_precision(recipe.precision, processes.device)
        settings = settings_of(network, images, held, recipe, seed)
        settings["precision"] = self.precision
        self.folder = None
        if into is not None and processes.first:
            self.folder = TrainingFolder(into, settings, checkpoint_s)
        self.into, self.kept = into or "", into is not None
        self.seed = seed
        self.curve: list[Epoch] = []
        self.before_s, self.began_s = 0.0, time.monotonic()
        self.evaluating_s, self.evaluations = 0.0, 0
        self.resumed, self.told_s = 0, self.began_s

    @property
    def seconds(self) -> float:
        return self.before_s + time.monotonic() - self.began_s

    def close(self) -> None:
        for batches in (self.batches, self.judging):
            if batches is not None:
                batches.close()
        if self.folder is not None:
            self.folder.close()

    def run(self) -> Trained:
        import torch

        from ...space.to_torch import to_torch
        from .stepper import Stepper

        over = self.folder.finished() if self.folder is not None else None
        if self.processes.agreed(over is not None):
            return load(self.into) if over is None else over
        module = to_torch(self.network, dropout=self.recipe.dropout, seed=self.seed)
        self.stepper = Stepper(self.recipe, module, self.processes, self.seed)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.processes.device)
        self.loss_count = 0
        self._take_up()
        total = self.schedule.steps
        held = 0 if self.held is None else len(self.held)
        self.tell(
            Began(
                len(self.images), held, total, self.recipe.epochs, self.batch, self.resumed,
                str(self.processes.device), self.precision,
            )
        )  # fmt: skip
        diverged = ""
        while self.stepper.updates < total and not diverged:
            diverged = self._epoch()
        if self.curve and not diverged:
            diverged = self._unsound_weights()
        return self._finish(diverged)

    def _take_up(self) -> None:
        import torch

        stopped = self.folder.stopped() if self.folder is not None else None
        if stopped is not None:
            try:
                self.stepper.restore(stopped.tensors, stopped.scaler, stopped.step)
            except (KeyError, RuntimeError, ValueError) as error:
                raise UnsupportedFormat(
                    f"the checkpoint in {self.folder.path if self.folder else ''} does not fit: "
                    f"{error}. Remove it to train from the start."
                ) from error
            self.curve, self.before_s = list(stopped.curve), stopped.seconds
            self.loss_sum.fill_(stopped.loss_sum)
            self.loss_count = stopped.loss_count
        if self.kept and self.processes.world > 1:
            told = torch.tensor([self.stepper.updates, self.loss_count], dtype=torch.int64)
            told = told.to(self.processes.device)
            self.processes.from_first([told, self.loss_sum, *self.stepper.tensors().values()])
            self.stepper.updates, self.loss_count = int(told[0]), int(told[1])
        self.resumed = self.stepper.updates
        if self.resumed:
            log.info("the training goes on from step %d", self.resumed)

    def _epoch(self) -> str:
        """The rest of the present epoch; "" or why the training is to end."""
        stepper, first = self.stepper, self.processes.first
        number, done = divmod(stepper.updates, self.per_epoch)
        stepper.module.train()
        alone = self.processes.world == 1
        rate = 0.0
        for x, y in self.batches.epoch(number, start_step=done):
            rate = self.schedule(stepper.updates)
            self.loss_sum += stepper.step(x, y, rate)
            self.loss_count += 1
            done += 1
            over = done == self.per_epoch
            look = over or stepper.updates % _CHECK_STEPS == 0
            if look and (why := self._diverged()):
                return why
            now = time.monotonic()
            if first and now - self.told_s >= _TELL_S:
                self.told_s = now
                self._tell_step(number)
            # Several processes ask each other only now and then: each question makes them wait.
            if self.kept and not over and (alone or look):
                due = self.folder is not None and self.folder.due()
                if self.processes.agreed(due):
                    self._save()
        self._end_epoch(number + 1, rate)
        return ""

    def _tell_step(self, number: int) -> None:
        stepper, total = self.stepper, self.schedule.steps
        here = stepper.updates - self.resumed
        taken_s = max(time.monotonic() - self.began_s - self.evaluating_s, 1e-9)
        left_s = (total - stepper.updates) * taken_s / here
        if self.evaluations:
            looks = (self.recipe.epochs - number) / max(1, self.evaluate_each or self.recipe.epochs)
            left_s += math.ceil(looks) * self.evaluating_s / self.evaluations
        speed = here * self.batch / taken_s
        self.tell(Stepped(stepper.updates, total, number + 1, speed, left_s))

    def _diverged(self) -> str:
        told = self.processes.sum(self.loss_sum.clone()) / self.processes.world
        loss = float(told) / self.loss_count
        step = self.stepper.updates
        if not math.isfinite(loss):
            return f"the loss was no number within {step} steps"
        bound = _BOUND * math.log(max(2, self.network.classes))
        if loss > bound:
            return f"the mean loss was {loss:.3g} within {step} steps, above {bound:.3g}"
        return ""

    def _unsound_weights(self) -> str:
        import torch

        tensors = [t for t in self.stepper.judged.state_dict().values() if t.is_floating_point()]
        sound = all(bool(torch.isfinite(t).all()) for t in tensors)
        return "" if sound else "the weights were no numbers at the end"

    def _end_epoch(self, number: int, rate: float) -> None:
        self.stepper.share_statistics()
        loss = float(self.processes.sum(self.loss_sum.clone())) / self.processes.world
        loss /= self.loss_count
        self.loss_sum.zero_()
        self.loss_count = 0
        last = number == self.recipe.epochs
        asked = self.evaluate_each and number % self.evaluate_each == 0
        top1, top5 = self._evaluate() if self.held is not None and (last or asked) else (_NAN, _NAN)
        epoch = Epoch(number, self.stepper.updates, rate, loss, top1, top5, self.seconds)
        self.curve.append(epoch)
        self.tell(epoch)
        if self.kept and not last:
            due = self.folder is not None and self.folder.due(epoch_over=True)
            if self.processes.agreed(due):
                self._save()
            if self.folder is not None:
                self.folder.write_curve(self.curve)

    def _evaluate(self) -> tuple[float, float]:
        """Top-1 and top-5 over the held-out images, each process judging its share."""
        import torch

        assert self.held is not None and self.judging is not None
        began = time.monotonic()
        first, five, sound, _ = count_hits(self.stepper.judged.eval(), self.judging)
        told = torch.tensor([first, five, not sound], device=self.processes.device)
        first, five, unsound = self.processes.sum(told).tolist()
        self.evaluating_s += time.monotonic() - began
        self.evaluations += 1
        n = len(self.held)
        return (_NAN, _NAN) if unsound else (first / n, five / n)

    def _save(self) -> None:
        self.stepper.share_statistics()
        loss_sum = self.processes.sum(self.loss_sum.clone()) / self.processes.world
        if self.folder is not None:
            self.folder.save(
                Stopped(
                    self.stepper.tensors(), self.stepper.updates, tuple(self.curve), self.seconds,
                    self.stepper.scaler_state(), float(loss_sum), self.loss_count,
                )
            )  # fmt: skip

    def _finish(self, diverged: str) -> Trained:
        from ...space.to_torch import state_arrays

        top1, top5 = (self.curve[-1].top1, self.curve[-1].top5) if self.curve else (_NAN, _NAN)
        if not diverged and self.held is not None and top1 != top1:
            diverged = "the outputs were no numbers at the end"
        trained = Trained(
            self.network,
            {} if diverged else state_arrays(self.stepper.judged),
            _NAN if diverged else top1,
            _NAN if diverged else top5,
            0 if self.held is None else len(self.held),
            tuple(self.curve),
            self.seconds,
            diverged,
            len(self.images),
            self.images.classes,
            self.stepper.updates,
            self.resumed,
            {**self.recipe.settings, "precision": self.precision},
        )
        if diverged:
            log.warning("the training of %s diverged: %s", self.network, diverged)
        if self.folder is not None:
            self.folder.finish(trained)
        return trained
