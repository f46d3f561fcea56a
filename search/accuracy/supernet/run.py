"""Run: the training of a supernet under way: weights, optimizer, paths and progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument, NotEnoughData

from ...training.recipe import Recipe
from ...training.resources import pick_device
from ...training.schedule import Schedule
from .evaluation import Evaluator
from .folder import DOCUMENT, parts_of, top1_of
from .paths import Paths, extremes
from .shared_weights import SharedWeights

if TYPE_CHECKING:
    from torch import Tensor

    from phonenas.data.images import ImageSet

    from .evaluation import Evaluation

__all__ = ["Run", "SupernetEpoch"]

_BETA = 0.99  # of the squares: a weight that few networks use sees few steps
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # the optimizer's state of a tensor
_CLIP = 5.0  # length that the gradient of a step is cut to
_KEEP_S = 300.0  # a checkpoint at least as often
_PROBED = 20  # random networks that are evaluated at the end


@dataclass(frozen=True)
class SupernetEpoch:
    """Event: an epoch of a supernet's training was done.

    Args:
        epoch, epochs: Done, from 1, and in all.
        step: Updates done.
        learning_rate: Of the last update.
        loss: Mean over the epoch's steps and networks.
        seconds: Since the training began, stops left out.
    """

    epoch: int
    epochs: int
    step: int
    learning_rate: float
    loss: float
    seconds: float


class Run:
    """A training under way.

    Args:
        space, images, recipe, loaders: As for `train_supernet`.
        settings: The others, as the folder keeps them.
    Raises:
        NotEnoughData: Fewer images than a batch.
    """

    def __init__(
        self,
        space: SearchSpace,
        images: ImageSet,
        recipe: Recipe,
        settings: dict[str, Any],
        loaders: int,
    ) -> None:
        import torch

        from ...training.pipeline import Batches

        self.space, self.recipe, self.settings = space, recipe, settings
        seed = int(settings["seed"])
        train, self._calibration, self._held = parts_of(images, settings)
        if len(train) < recipe.batch:
            raise NotEnoughData(
                f"{images.source}: {len(train)} images are left to train on, fewer than the batch "
                f"of {recipe.batch}. Give more images or a smaller --batch."
            )
        self.device = pick_device(str(settings["device"]))
        self.shared = SharedWeights(space, len(images.classes), seed=seed, device=str(self.device))
        self.paths = Paths(
            space, random=int(settings["random"]), sandwich=bool(settings["sandwich"]), seed=seed
        )
        self.batches = Batches(
            train,
            recipe.batch,
            space.resolution_px,
            augment=None if recipe.augment == "none" else recipe.augment,
            seed=seed,
            loaders=loaders,
            shuffle=True,
        )
        self.images, self.source = len(train), images.source
        self.steps_per_epoch = len(train) // recipe.batch
        self.rate = Schedule(recipe, self.steps_per_epoch)
        named = self.shared.tensors.items()
        decays = [t for name, t in named if "_bn." not in name]
        groups = [
            {"params": decays, "weight_decay": recipe.weight_decay},
            {"params": [t for name, t in named if "_bn." in name], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, 0.0, betas=(recipe.momentum, _BETA), foreach=True
        )
        for t in self.shared.tensors.values():
            # From the start, so that a checkpoint always holds the same names. Each tensor counts
            # its own steps: those in which a network used it.
            self.optimizer.state[t] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(t),
                "exp_avg_sq": torch.zeros_like(t),
            }
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.curve: list[dict[str, Any]] = []

    # -- steps --------------------------------------------------------------------------------

    def epochs(self, folder: Path) -> Iterator[SupernetEpoch]:
        """Train to the end; keeps checkpoints on the way."""
        saved_s = since_s = time.monotonic()
        while self.step < self.recipe.epochs * self.steps_per_epoch:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            for x, y in self.batches.epoch(epoch, start_step=start):
                self.losses.append(self.update(x.to(self.device), y.to(self.device)))
                self.seconds, since_s = self.seconds + time.monotonic() - since_s, time.monotonic()
                if since_s - saved_s > _KEEP_S:
                    self.keep(folder)
                    saved_s = since_s
            event = SupernetEpoch(
                epoch + 1,
                self.recipe.epochs,
                self.step,
                self.rate(self.step - 1),
                float(np.mean(self.losses)),
                self.seconds,
            )
            self.curve.append(asdict(event))
            self.losses = []
            self.keep(folder)
            saved_s = time.monotonic()
            yield event
            since_s = time.monotonic()

    def update(self, x: Tensor, y: Tensor) -> float:
        """One step on one batch; the mean loss of its networks."""
        import torch
        from torch.nn import functional

        genomes = self.paths.next()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        half = self.device.type == "cuda" and self.recipe.precision != "float32"
        total, teacher = 0.0, None
        for number, genome in enumerate(genomes):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                logits = self.shared.forward(genome, x)
            logits = logits.float()
            if teacher is not None:
                loss = functional.cross_entropy(logits, teacher)
            else:
                loss = functional.cross_entropy(
                    logits, y, label_smoothing=self.recipe.label_smoothing
                )
            if number == 0 and self.settings["distil"]:
                teacher = logits.detach().softmax(1)
            torch.autograd.backward(loss / len(genomes))
            total += float(loss.detach())
        if not np.isfinite(total):
            raise InvalidArgument(
                f"the supernet's loss is not a finite number at step {self.step + 1} with a "
                f"learning rate of {self.rate(self.step):.3g}. Give another folder and a smaller "
                "--learning-rate."
            )
        torch.nn.utils.clip_grad_norm_(self.shared.tensors.values(), _CLIP, foreach=True)
        self.optimizer.step()
        self.step += 1
        return total / len(genomes)

    # -- keeping ------------------------------------------------------------------------------

    def keep(self, folder: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        from ...training.weights import save_checkpoint

        tensors = dict(self.shared.tensors)
        for name, t in self.shared.tensors.items():
            tensors |= {f"{kind}/{name}": self.optimizer.state[t][kind] for kind in _MOMENTS}
        document = {
            "settings": self.settings,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "curve": self.curve,
            "paths": self.paths.state(),
        }
        save_checkpoint(folder / "checkpoint.safetensors", tensors, document)

    def restore(self, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        import torch

        with torch.no_grad():
            for name, t in self.shared.tensors.items():
                t.copy_(tensors[name])
                for kind in _MOMENTS:
                    self.optimizer.state[t][kind].copy_(tensors[f"{kind}/{name}"])
        self.step, self.seconds = int(document["step"]), float(document["seconds"])
        self.losses, self.curve = list(document["losses"]), list(document["curve"])
        self.paths.restore(document["paths"])

    # -- the end ------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """The content of `supernet.json`, with the results of some networks."""
        evaluator = Evaluator(
            self._calibration,
            self._held,
            self.space.resolution_px,
            self.shared.classes,
            device=self.device,
            threads=int(self.settings["threads"]),
        )
        largest, smallest = extremes(self.space)
        rng = np.random.default_rng(int(self.settings["seed"]))
        began = time.monotonic()
        random = [self._evaluated(evaluator, g) for g in self.space.sample(rng, _PROBED)]
        read_s = (time.monotonic() - began) / _PROBED
        ends = [self._evaluated(evaluator, g) for g in (largest, smallest)]
        offset = float(np.mean([r["top1"] - r["probability"] for r in [*random, *ends]]))
        for row in [*random, *ends]:
            row["estimate"] = top1_of(row["probability"], offset)
        return {
            "format": DOCUMENT.format,
            "version": DOCUMENT.version,
            "settings": self.settings,
            "source": self.source,
            "images": self.images,
            "images_held": evaluator.images,
            "parameters": self.shared.size,
            "steps": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "read_s": read_s,
            "offset": offset,
            "spread": float(np.std([r["estimate"] for r in random], ddof=1)),
            "largest": ends[0],
            "smallest": ends[1],
            "random": random,
        }

    def _evaluated(self, evaluator: Evaluator, genome: Genomes) -> dict[str, Any]:
        network = self.space.decode(genome)
        result: Evaluation = evaluator.evaluate(network, self.shared.weights_of(genome))
        if not np.isfinite(result.top1):
            raise InvalidArgument(
                "the supernet's weights give no finite numbers. Give another folder and a smaller "
                "--learning-rate."
            )
        return {
            "network": str(network),
            "macs": network.macs,
            "top1": result.top1,
            "probability": result.probability,
        }
