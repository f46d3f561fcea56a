"""Supernet: top-1 of a network with the weights that it inherits from a trained supernet.

Trained once (`train_supernet`, `phonenas supernet`), it estimates any network of its space in the
time of some forward passes. Its numbers lie below those of networks trained on their own; they
serve to rank networks.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import cos, hypot, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas import space as spaces
from phonenas.space import Architecture, Genomes, SearchSpace
from phonenas.space.errors import UnsupportedFormat

from ...training.resources import pick_device, require_torch
from ..distributed import distributed
from ..estimator import Accuracy, AccuracyEstimator, Request
from ..short_training import binomial_error
from .evaluation import Evaluation, Evaluator
from .folder import VERSION, check, document_of, parts_of, top1_of
from .shared_weights import SharedWeights

if TYPE_CHECKING:
    from torch import nn

    from phonenas.data.images import ImageSet

__all__ = ["RANKING_TAU", "Supernet"]

RANKING_TAU = 0.75
"""Kendall's τ of its estimates with published trainings, on 100 networks of nasbench-macro (ten
epochs of 9,000 images at 16 px, three random networks a step)."""


class Supernet(AccuracyEstimator):
    """Top-1 on the held-out images, with inherited weights and recalibrated BatchNorm.

    The estimate is the mean probability that the network gives to the right class, plus the mean
    difference of top-1 from it over 22 networks at the end of the training. Counted top-1 alone
    ranks networks of a supernet worse: with 100 networks of nasbench-macro and 1,000 images τ was
    0.57 by the count and 0.75 by the probability.

    Each network is evaluated alone, so its answer does not depend on others. Networks of its space
    with another resolution or another number of classes are evaluated with the supernet's.

    `standard_error` combines the binomial one of the held-out images, which all networks share in
    part, and one of the ranking. How far a supernet's order lies from that of networks trained on
    their own cannot be known without training these; it is taken from a space where it is known. Of
    networks whose ranks agree by a Kendall τ, the part of an estimate that is not due to the
    network's own accuracy has a standard deviation of `spread · cos(π τ / 2)`, if both are normal;
    τ is RANKING_TAU, `spread` that of the 20 random networks at the end of the training.

    Args:
        folder: Written by `train_supernet`.
        images: The training images that it was trained on.
        space: The space, where it is none that `space.get` knows.
        threads: Of torch on the CPU, ≥ 1; the last digits of answers depend on it.
        device: "auto", "cpu" or "cuda".
    Raises:
        UnknownName: There is no supernet in the folder.
        UnsupportedFormat: Its files are damaged, or of another version.
        SettingsChanged: It was trained on other images, or on another space.
        MissingExtra: torch or safetensors is not installed.
    """

    name, form = "supernet", "supernet:FOLDER"
    takes, needs_images = ("images", "workers"), True
    slow = True

    def __init__(
        self,
        folder: str | Path,
        images: ImageSet,
        *,
        space: SearchSpace | None = None,
        threads: int = 1,
        device: str = "auto",
    ) -> None:
        require_torch()
        from ...training.weights import load_checkpoint

        self.folder, self.threads = Path(folder), threads
        self.document = document_of(self.folder)
        settings = self.document["settings"]
        self.space = space or spaces.get(settings["space"], int(settings["resolution_px"]))
        check(self.folder, settings, self.space, images)
        named = shlex.quote(settings["space"])
        remedy = f"Train another:  phonenas supernet --space {named} --data DIR --out FOLDER"
        kept = load_checkpoint(self.folder / "weights.safetensors", remedy)
        if kept is None:
            raise UnsupportedFormat(f"{self.folder} has no weights.safetensors. {remedy}")
        if kept.document.get("settings") != settings:
            raise UnsupportedFormat(
                f"{self.folder}: supernet.json and weights.safetensors are not of one training. "
                f"{remedy}"
            )
        self._weights_crc = kept.document["crc32"]
        self.device = pick_device(device)
        arrays = {name: t.numpy() for name, t in kept.tensors.items()}
        self.shared = SharedWeights(self.space, len(images.classes), arrays=arrays)
        _, calibration, held = parts_of(images, settings)
        self.evaluator = Evaluator(
            calibration,
            held,
            self.space.resolution_px,
            len(images.classes),
            device=self.device,
            threads=threads,
        )
        self._seconds: list[float] = []
        self.quantity = "mean probability"
        self.note = (
            "mean probability of the right class, with inherited weights, on "
            f"{self.evaluator.images:,} held-out training images: no top-1, but it ranks networks "
            f"of {self.space.name}"
        )

    @classmethod
    def make(cls, request: Request) -> AccuracyEstimator:
        given = {
            "folder": str(Path(request.argument).resolve()),
            "images": request.images,
            "space": request.space,
            # A worker sees no GPU unless it is lent one, so all of them compute on the CPU.
            "device": request.resources.device if request.workers is None else "cpu",
        }
        return distributed(cls, given, request.workers)

    @cached_property
    def digest(self) -> str:
        parts = (
            "supernet",
            VERSION,
            json.dumps(self.document["settings"], sort_keys=True),
            self._weights_crc,
            self.threads,
            self.device.type,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        """Mean time of this process's evaluations; before the first, that of the training's."""
        return float(np.mean(self._seconds)) if self._seconds else float(self.document["read_s"])

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return Accuracy.joined(self._estimated(a) for a in architectures)

    def _estimated(self, network: Architecture) -> Accuracy:
        began = time.perf_counter()
        result = self.evaluate(network)
        seconds = time.perf_counter() - began
        self._seconds.append(seconds)
        if not np.isfinite(result.top1):
            return Accuracy.failure(
                "with the supernet's weights its outputs are not finite numbers", seconds=seconds
            )
        ranking_error = float(self.document["spread"]) * cos(pi * RANKING_TAU / 2)
        top1 = top1_of(result.probability, float(self.document["offset"]))
        error = hypot(binomial_error(top1, result.images), ranking_error)
        return Accuracy(np.array([top1]), np.array([error]), np.array([False]), seconds=(seconds,))

    def evaluate(self, network: Architecture) -> Evaluation:
        """One network's results on the held-out images.

        Raises:
            NotInSpace: The space cannot express it.
        """
        return self.evaluator.evaluate(network, self.shared.weights_of(self._genome(network)))

    def module(self, network: Architecture) -> nn.Module:
        """The network as `to_torch` builds it, with inherited weights, in evaluation mode.

        At the supernet's resolution and with its classes.

        Raises:
            NotInSpace: The space cannot express it.
        """
        return self.evaluator.calibrated(network, self.shared.weights_of(self._genome(network)))

    def weights_of(self, network: Architecture) -> dict[str, Any]:
        """One network's weights, BatchNorm statistics included, by the names of `to_torch`'s state.

        A training may begin with them, and `to_onnx` takes them.

        Raises:
            NotInSpace: The space cannot express it.
        """
        from phonenas.space.lowering.torch import state_arrays

        arrays = state_arrays(self.module(network))
        return {name: np.ascontiguousarray(a) for name, a in arrays.items()}

    def _genome(self, network: Architecture) -> Genomes:
        return self.space.encode(
            replace(network, resolution_px=self.space.resolution_px, classes=self.space.classes)
        )
