"""ShortTraining: each network is trained for a few epochs, as MnasNet evaluated its candidates.

The same share of the training images of every class is held out; top-1 is the share of these that
the trained network classifies correctly. Test images are never used. The numbers lie below those of
a full training; they serve to rank networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument, PhonenasError

from ..cluster.workers import Serial, Workers
from ..training.job import TrainingJob
from ..training.recipe import PROXY, Recipe
from ..training.recipe import recipe as recipe_named
from ..training.resources import Resources, pick_device, require_torch
from ..training.task import network_failure
from ..training.throughput import seconds_per_mac
from .estimator import Accuracy, AccuracyEstimator, Request
from .inheritance.ancestry import Ancestry
from .inheritance.training import Place, trained_at

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = ["SEED_NOISE", "ShortTraining", "binomial_error", "train_briefly"]

SEED_NOISE = 0.010
"""Standard deviation of top-1 between seeds: 5 networks of nasbench-macro with 3 seeds each, three
epochs of 1,500 images at 16 px, evaluated on the same 1,000 held-out images. Other recipes and
images have their own: `repeats` estimates it."""
_WEIGHT = 4  # trainings that SEED_NOISE counts as, beside a network's own repeats


class ShortTraining(AccuracyEstimator):
    """Top-1 on held-out training images after a few epochs.

    A network's answer depends neither on other networks nor on the workers: its weights, the order
    of its images and their augmentation follow from `seed` and its text.

    `standard_error` combines two parts: the binomial one of the held-out images, and that of the
    seed. With several `repeats` the latter comes from a network's own trainings, and from
    SEED_NOISE as if four further trainings had shown it; with one, from SEED_NOISE alone. The
    held-out images are the same for all networks, so the error of a difference between networks is
    smaller.

    Args:
        images: Training images; a share of them is held out.
        recipe: How to train, or its name: `proxy`, the paper's five epochs, or `small`.
        hold_out: Share of the images held out, in (0, 1).
        seed: Of the hold-out and of every training.
        repeats: Trainings of each network, with different seeds, whose mean is the answer; ≥ 1.
        resolution_px: Side of the input image, instead of each network's own.
        workers: Who trains; this process by default.
        resources: Of each training; one thread by default. The last digits of answers depend on
            the number of threads.
    Raises:
        InvalidArgument: A value outside its range.
        UnknownName: No recipe of that name.
    Source: Tan et al., MnasNet, CVPR 2019, section 5: 5 epochs each, 50K training images held out.
    """

    name, form = "training", "training[:RECIPE]"
    takes = ("images", "workers", "hold_out", "epochs", "gpus", "loaders", "inherit")
    needs_images = True
    slow = True

    def __init__(
        self,
        images: ImageSet,
        *,
        recipe: Recipe | str = PROXY,
        hold_out: float = 0.1,
        seed: int = 0,
        repeats: int = 1,
        resolution_px: int | None = None,
        workers: Workers | None = None,
        resources: Resources | None = None,
    ) -> None:
        from phonenas.data.images import held_out

        if repeats < 1:
            raise InvalidArgument(f"repeats of a short training: 1 or more, got {repeats}")
        require_torch()
        resources = resources or Resources()
        self.recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
        self.images, self.hold_out, self.seed, self.repeats = images, hold_out, seed, repeats
        self.resolution_px = resolution_px
        self.workers = workers or Serial()
        # A worker sees no GPU unless it is lent one. The device is part of the digest, for two
        # kinds of processor do not give the same answer.
        if isinstance(self.workers, Serial):
            device = str(pick_device(resources.device))
        else:
            device = "cuda" if resources.gpus > 0 and resources.device != "cpu" else "cpu"
        self.resources = replace(resources, device=device, threads=resources.threads or 1)
        self._train, self._held = held_out(images, hold_out, seed)
        self._seconds: list[float] = []
        self.epochs = self.recipe.epochs
        self._pause: int | None = None
        self._folder: Path | None = None
        self.schedule = f"{self.recipe.epochs} epochs of these images"
        self.note = (
            f"top-1 on {len(self._held):,} held-out training images after {self.recipe.epochs} "
            f"epoch{'s' * (self.recipe.epochs != 1)} ({self.recipe.name}) on {len(self._train):,}"
        )

    def after(self, epochs: int, folder: Path | None = None) -> ShortTraining:
        """The same trainings, whose top-1 is read after the first epochs of their schedule.

        Each training has a folder of its own within `folder`, named after the network's text and
        the repeat, with its checkpoint and curve. It goes on there where its worker sees the
        folder; else it begins from nothing, with the same answer.

        Raises:
            InvalidArgument: Not 1 to the epochs of the recipe.
        """
        if not 1 <= epochs <= self.recipe.epochs:
            raise InvalidArgument(
                f"the trainings take {self.recipe.epochs} epochs: they pause after 1 to "
                f"{self.recipe.epochs}, got {epochs}"
            )
        one = copy(self)
        one.__dict__.pop("digest", None)
        one._pause = None if epochs == self.recipe.epochs else epochs
        one._folder = None if folder is None else folder.resolve()
        one._seconds = []
        return one

    def inheriting(self) -> ShortTraining:
        """The same trainings, but that each begins from the weights of the nearest network that a
        search trained before its generation: see `inheritance`. One search at a time uses it.

        Raises:
            InvalidArgument: It has an image size of its own.
        """
        if self.resolution_px is not None:
            raise InvalidArgument(
                "networks that inherit weights are trained at their own resolution: leave "
                "resolution_px out"
            )
        one = copy(self)
        one.__dict__.pop("digest", None)
        one.ancestry, one._seconds = Ancestry(len(self.images.classes)), []
        one.schedule += ", from inherited weights"
        one.note += ", each from the weights of the nearest network trained before"
        return one

    def epoch_s(self, architectures: Sequence[Architecture]) -> float:
        """Mean time of an epoch, in seconds, all repeats, by some steps on this computer; 0 where
        the trainings run on a GPU that it has not."""
        import torch

        if self.resources.device == "cuda" and not torch.cuda.is_available():
            return 0.0
        networks = sorted((self._resized(a) for a in architectures), key=lambda a: a.macs)
        per_mac_s = seconds_per_mac(networks[len(networks) // 2], self.recipe, self.resources)
        macs = sum(a.macs for a in networks) / len(networks)
        return per_mac_s * macs * len(self._train) * self.repeats

    @classmethod
    def make(cls, request: Request) -> ShortTraining:
        assert request.images is not None
        one = cls(
            request.images,
            recipe=recipe_named(request.argument or "proxy", epochs=request.epochs),
            hold_out=0.1 if request.hold_out is None else request.hold_out,
            seed=request.seed,
            workers=request.workers,
            resources=request.resources,
        )
        return one.inheriting() if request.inherit else one

    @cached_property
    def digest(self) -> str:
        parts = (
            "short training 1",
            self.recipe.digest,
            self.images.digest,
            self.hold_out,
            self.seed,
            self.repeats,
            self.resolution_px,
            self.resources.threads,
            self.resources.device,
            *(() if self._pause is None else (f"paused after {self._pause}",)),
            *(() if self.ancestry is None else ("inherited weights 2",)),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def digest_of(self, network: str) -> str:
        source = None if self.ancestry is None else self.ancestry.source(network)
        return self.digest if source is None else f"{self.digest}+{source.digest}"

    @property
    def cost_s(self) -> float:
        """Mean time of the networks trained so far, all repeats; 0 before the first."""
        return float(np.mean(self._seconds)) if self._seconds else 0.0

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return self.gathered(architectures)

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        """Train n networks, side by side where the workers are several."""
        texts = [str(self._resized(a)) for a in architectures]
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            rows.setdefault(text, []).append(row)
        calls = [(text, repeat) for text in rows for repeat in range(self.repeats)]
        trained: dict[str, dict[int, dict[str, Any]]] = {text: {} for text in rows}

        def take(call: int, result: dict[str, Any]) -> None:
            text, repeat = calls[call]
            trained[text][repeat] = result
            if len(trained[text]) == self.repeats:
                one = self._joined([trained[text][r] for r in range(self.repeats)])
                for row in rows[text]:
                    on_result(row, one)

        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        common = (self.recipe.settings, self._train, self._held, self.resources)
        self.workers.map(
            train_briefly,
            [
                (text, seed_of(self.seed, text, repeat), *common, self._place(*call))
                for call in calls
                for text, repeat in [call]
            ],
            needs=self.resources.needs,
            on_result=take,
        )

    def _place(self, text: str, repeat: int) -> Place:
        """Where one training is kept, from where it begins, and when it pauses."""
        if self._folder is None:
            return Place(self._pause)
        folder = self._in(text, repeat)
        if self.ancestry is None:
            return Place(self._pause, folder)
        source, start = self.ancestry.source(text), None
        if source is not None:
            start = (self._in(source.network, repeat), source.epochs, source.digest)
        return Place(self._pause, folder, True, start)

    def _in(self, text: str, repeat: int) -> str:
        name = hashlib.sha256(f"{self.recipe.digest} {repeat} {text}".encode()).hexdigest()[:16]
        assert self._folder is not None
        return str(self._folder / name)

    def _resized(self, network: Architecture) -> Architecture:
        if self.resolution_px is None:
            return network
        return network.with_resolution(self.resolution_px)

    def _joined(self, repeats: list[dict[str, Any]]) -> Accuracy:
        """One network's answer from its trainings, in the order of their seeds."""
        seconds = sum(float(r["seconds"]) for r in repeats)
        self._seconds.append(seconds)
        reasons = [str(r["failed"]) for r in repeats if r["failed"]]
        if reasons:
            more = f" ({len(reasons)} of {self.repeats} seeds)" if self.repeats > 1 else ""
            return Accuracy.failure(reasons[0] + more, seconds=seconds)
        values = np.array([float(r["top1"]) for r in repeats])
        top1 = float(values.mean())
        squares = float(((values - top1) ** 2).sum())
        variance = (_WEIGHT * SEED_NOISE**2 + squares) / (_WEIGHT + len(values) - 1)
        error = sqrt(binomial_error(top1, len(self._held)) ** 2 + variance / len(values))
        return Accuracy(np.array([top1]), np.array([error]), np.array([False]), seconds=(seconds,))


def seed_of(seed: int, network: str, repeat: int) -> int:
    """The seed of one training, in [0, 2^31): of the estimator's seed and the network's text."""
    digest = hashlib.sha256(f"{seed} {repeat} {network}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def binomial_error(top1: float, images: int) -> float:
    """Standard error of a share that was counted on so many images, > 0.

    One right and one wrong answer are added, so that the error of a share of 0 or 1 is not 0.
    """
    share = (top1 * images + 1) / (images + 2)
    return sqrt(share * (1 - share) / (images + 2))


def train_briefly(
    network: str,
    seed: int,
    settings: dict[str, Any],
    images: ImageSet,
    held: ImageSet,
    resources: Resources,
    place: Place = Place(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """The task of one training: plain values in, plain values out.

    Args:
        network: Block string; its classes become those of the images.
        seed: Of the training.
        settings: Of a `Recipe`.
        images, held: To train on, and to evaluate on.
        resources: Of the training.
        place: When it pauses, where it is kept and goes on, and whose weights it begins with.
    Returns:
        `top1` (None where it failed), `seconds`, and `failed`, the reason or "".
    Raises:
        PhonenasError: What concerns every network: images that cannot be read, no torch, a GPU
            that failed, weights to inherit that are gone.
    """
    import time

    began = time.perf_counter()
    job = TrainingJob(
        images, held, Recipe(**settings), seed, evaluate_each=0, pause_after=place.pause_after
    )
    try:
        trained = trained_at(Architecture.parse(network), job, place, resources)
    except PhonenasError:
        raise
    except (RuntimeError, MemoryError) as error:
        reason = network_failure(error)
        return {"top1": None, "seconds": time.perf_counter() - began, "failed": reason}
    failed = trained.diverged
    if not failed and not np.isfinite(trained.top1):
        failed = "its top-1 is not a number"
    seconds = time.perf_counter() - began
    return {"top1": None if failed else trained.top1, "seconds": seconds, "failed": failed}
