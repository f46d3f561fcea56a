"""ShortTraining: each network trained for a few epochs, as MnasNet judged its candidates.

A part of the training images is held out, alike in every class; top-1 is the share of these that
the trained network names rightly. Test images are never seen. The numbers lie below those of a
full training, and rank networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from ...space import Architecture
from ...space.errors import InvalidArgument, PhonenasError
from ..training.evaluation import pick_device, require_torch
from ..training.recipe import PROXY, Recipe
from ..training.recipe import recipe as recipe_named
from ..training_task import of_one_network
from ..workers import Needs, Serial, Workers
from .estimator import Accuracy, AccuracyEstimator

if TYPE_CHECKING:
    from ...data.images import ImageSet

__all__ = ["SEED_NOISE", "ShortTraining", "binomial_error", "train_briefly"]

SEED_NOISE = 0.010
"""Standard deviation of top-1 between seeds: 5 networks of nasbench-macro with 3 seeds each, three
epochs of 1,500 images at 16 px, read on the same 1,000 held-out images. Other recipes and images
have their own: `repeats` learns it."""
_WEIGHT = 4  # trainings that SEED_NOISE counts as, beside a network's own repeats


class ShortTraining(AccuracyEstimator):
    """Top-1 on held-out training images after a few epochs.

    The same network gets the same answer in any company and on any workers: its weights, its
    images' order and what is random in them follow from `seed` and its text.

    `standard_error` joins two doubts: the binomial one of the held-out images, and that of the
    seed. With several `repeats` a network's own spread tells the latter, with SEED_NOISE as if
    four further trainings had shown it; with one, SEED_NOISE stands alone. The held-out images
    are the same for all networks, so differences between networks are less doubtful than this.

    Args:
        images: Training images of the user's; a share of them is held out.
        recipe: How to train, or its name: `proxy`, the paper's five epochs, or `small`.
        hold_out: Share of the images held out, in (0, 1).
        seed: Of the hold-out and of every training.
        repeats: Trainings of each network, with different seeds; their mean is told. ≥ 1.
        resolution_px: Side of the input image, instead of each network's own.
        workers: Who trains; this process by default.
        threads: Of torch in each training, ≥ 1. Answers depend on it, a little.
        device: "cpu", "cuda" or "auto", as `train` takes it.
        gpus: Share of a GPU that one training holds on the workers, ≥ 0.
        loaders: Processes that read the images of each training, ≥ 0.
    Raises:
        InvalidArgument: A value outside its range.
        UnknownName: No recipe of that name.
    Source: Tan et al., MnasNet, CVPR 2019, section 5: 5 epochs each, 50K training images held out.
    """

    name = "training"
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
        threads: int = 1,
        device: str = "auto",
        gpus: float = 0.0,
        loaders: int = 0,
    ) -> None:
        from ...data.images import held_out

        for name, value in (("repeats", repeats), ("threads", threads)):
            if value < 1:
                raise InvalidArgument(f"{name} of a short training: 1 or more, got {value}")
        require_torch()
        self.recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
        self.images, self.hold_out, self.seed, self.repeats = images, hold_out, seed, repeats
        self.resolution_px, self.threads = resolution_px, threads
        self.gpus, self.loaders = gpus, loaders
        self.workers = workers or Serial()
        # What a worker sees: no GPU unless it is lent one. Known beforehand, for two kinds of
        # processor do not give the same answer.
        if isinstance(self.workers, Serial):
            self.device = str(pick_device(device))
        else:
            self.device = "cuda" if gpus > 0 and device != "cpu" else "cpu"
        self._train, self._held = held_out(images, hold_out, seed)
        self._seconds: list[float] = []
        self.note = (
            f"top-1 on {len(self._held):,} held-out training images after {self.recipe.epochs} "
            f"epoch{'s' * (self.recipe.epochs != 1)} ({self.recipe.name}) on {len(self._train):,}"
        )

    @cached_property
    def digest(self) -> str:
        told = (
            "short training 1", self.recipe.digest, self.images.digest, self.hold_out, self.seed,
            self.repeats, self.resolution_px, self.threads, self.device,
        )  # fmt: skip
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

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
        places: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(text, []).append(place)
        calls = [(text, repeat) for text in places for repeat in range(self.repeats)]
        told: dict[str, list[dict[str, Any]]] = {text: [] for text in places}

        def take(call: int, result: dict[str, Any]) -> None:
            text = calls[call][0]
            told[text].append({**result, "repeat": calls[call][1]})
            if len(told[text]) == self.repeats:
                one = self._joined(sorted(told[text], key=lambda r: int(r["repeat"])))
                for place in places[text]:
                    on_result(place, one)

        self.workers.map(
            train_briefly,
            [
                (
                    text, self.recipe.settings, self._train, self._held,
                    seed_of(self.seed, text, repeat), self.threads, self.device, self.loaders,
                )
                for text, repeat in calls
            ],
            needs=Needs(cpus=float(max(self.threads, 1)), gpus=self.gpus),
            on_result=take,
        )  # fmt: skip

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
        found = np.array([float(r["top1"]) for r in repeats])
        top1 = float(found.mean())
        spread = float(((found - top1) ** 2).sum())
        variance = (_WEIGHT * SEED_NOISE**2 + spread) / (_WEIGHT + len(found) - 1)
        error = sqrt(binomial_error(top1, len(self._held)) ** 2 + variance / len(found))
        return Accuracy(np.array([top1]), np.array([error]), np.array([False]), seconds=(seconds,))


def seed_of(seed: int, network: str, repeat: int) -> int:
    """The seed of one training, in [0, 2^31): of the estimator's seed and the network's text."""
    told = hashlib.sha256(f"{seed} {repeat} {network}".encode()).digest()
    return int.from_bytes(told[:4], "big") >> 1


def binomial_error(top1: float, images: int) -> float:
    """Standard error of a share that was counted on so many images, > 0.

    One right and one wrong answer are added, so that a share of 0 or 1 is not without doubt.
    """
    share = (top1 * images + 1) / (images + 2)
    return sqrt(share * (1 - share) / (images + 2))


def train_briefly(
    network: str,
    settings: dict[str, Any],
    images: ImageSet,
    held: ImageSet,
    seed: int,
    threads: int,
    device: str,
    loaders: int,
) -> dict[str, Any]:
    """The task of one training: plain values in, plain values out.

    Args:
        network: Block string; its classes become those of the images.
        settings: Of a `Recipe`.
        images, held: To train on, and to judge by.
        seed, threads, device, loaders: As for `train`.
    Returns:
        `top1` (None where it failed), `seconds`, and `failed`, the reason or "".
    Raises:
        PhonenasError: What concerns every network: images that cannot be read, no torch, a GPU
            that failed.
    """
    import time

    from ..training.trainer import train

    began = time.perf_counter()
    try:
        found = train(
            Architecture.parse(network), images, held, recipe=Recipe(**settings), seed=seed,
            threads=threads, device=device, workers=loaders, evaluate_each=0,
        )  # fmt: skip
    except PhonenasError:
        raise
    except (RuntimeError, MemoryError) as error:
        reason = of_one_network(error)
        return {"top1": None, "seconds": time.perf_counter() - began, "failed": reason}
    failed = found.diverged
    if not failed and not np.isfinite(found.top1):
        failed = "its top-1 is no number"
    seconds = time.perf_counter() - began
    return {"top1": None if failed else found.top1, "seconds": seconds, "failed": failed}
