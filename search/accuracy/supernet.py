"""Supernet: top-1 of a network with the weights that it inherits from a trained supernet.

Trained once (`supernet_training.train_supernet`, `phonenas supernet`), it judges any network of
its space in the time of some forward passes. Its numbers lie below those of a training of each
network's own; they rank networks.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import cos, hypot, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import space as spaces
from ...space import Architecture, Genomes, SearchSpace
from ...space.errors import UnsupportedFormat
from ..training.evaluation import pick_device, require_torch
from .estimator import Accuracy, AccuracyEstimator
from .reading import Reader, Reading
from .shared_weights import SharedWeights
from .supernet_folder import VERSION, check, document_of, parts_of, told
from .training import binomial_error

if TYPE_CHECKING:
    from torch import nn

    from ...data.images import ImageSet

__all__ = ["RANKING_TAU", "Supernet"]

RANKING_TAU = 0.75
"""Kendall's τ of the readings with published trainings, on 100 networks of nasbench-macro (ten
epochs of 9,000 images at 16 px, three random networks a step)."""


class Supernet(AccuracyEstimator):
    """Top-1 on the held-out images, with inherited weights and recalibrated BatchNorm.

    What is told is the mean probability that the network gives to the right class, moved by the
    mean distance that the top-1 of 22 networks had from it at the end of the training. Of two
    networks of a supernet the held-out images rarely decide by counting alone: on 100 networks of
    nasbench-macro, read on 1,000 images, the count ranked with τ 0.57, the probability with 0.75.

    Each network is read alone, so it gets the same answer in any company. Networks of its space at
    another resolution or with another number of classes are judged at the supernet's.

    `standard_error` joins the binomial doubt of the held-out images, which all networks share in
    part, and the doubt about the ranking. How far a supernet's order lies from that of networks trained on their own cannot be
    known without training these. It is taken from where it is known: of networks whose ranks agree
    by a Kendall τ, the part of a reading that is not due to the network's own accuracy has a
    standard deviation of `spread · cos(π τ / 2)`, if both are normal; τ is RANKING_TAU, `spread`
    that of the 20 random networks read at the end of the training.

    Args:
        folder: What `train_supernet` wrote.
        images: The training images that it was trained on.
        space: The space, where it is none that `space.get` knows.
        threads: Of torch on the CPU, ≥ 1; answers depend on it, a little.
        device: "auto", "cpu" or "cuda".
    Raises:
        UnknownName: There is no supernet in the folder.
        UnsupportedFormat: Its files are damaged, or of another version.
        SettingsChanged: It was trained on other images, or on another space.
        MissingExtra: torch or safetensors is not installed.
    """

    name = "supernet"
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
        from ..training import checkpoint

        self.folder, self.threads = Path(folder), threads
        self.document = document_of(self.folder)
        settings = self.document["settings"]
        self.space = space or spaces.get(settings["space"], int(settings["resolution_px"]))
        check(self.folder, settings, self.space, images)
        remedy = f"Train it anew:  phonenas supernet --space {settings['space']} --out FOLDER"
        kept = checkpoint.read(self.folder / "weights.safetensors", remedy)
        if kept is None:
            raise UnsupportedFormat(f"{self.folder} has no weights.safetensors. {remedy}")
        if kept.document.get("settings") != settings:
            raise UnsupportedFormat(
                f"{self.folder}: supernet.json and weights.safetensors are not of one training. {remedy}"
            )
        self._weights_crc = kept.document["crc32"]
        self.device = pick_device(device)
        arrays = {name: t.numpy() for name, t in kept.tensors.items()}
        self.shared = SharedWeights(self.space, len(images.classes), arrays=arrays)
        _, calibration, held = parts_of(images, settings)
        self.reader = Reader(
            calibration, held, self.space.resolution_px, len(images.classes),
            device=self.device, threads=threads,
        )  # fmt: skip
        self._seconds: list[float] = []
        self.note = (
            f"top-1 with inherited weights on {self.reader.images:,} held-out training images: "
            f"it ranks networks of {self.space.name}"
        )

    @cached_property
    def digest(self) -> str:
        told = (
            "supernet", VERSION, json.dumps(self.document["settings"], sort_keys=True),
            self._weights_crc, self.threads, self.device.type,
        )  # fmt: skip
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        """Mean time of the readings of this process; before the first, that of the training's."""
        return float(np.mean(self._seconds)) if self._seconds else float(self.document["read_s"])

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return Accuracy.joined(self._judged(a) for a in architectures)

    def _judged(self, network: Architecture) -> Accuracy:
        began = time.perf_counter()
        found = self.read(network)
        seconds = time.perf_counter() - began
        self._seconds.append(seconds)
        if not np.isfinite(found.top1):
            return Accuracy.failure(
                "with the supernet's weights its answers are no numbers", seconds=seconds
            )
        doubt = float(self.document["spread"]) * cos(pi * RANKING_TAU / 2)
        top1 = told(found.probability, float(self.document["offset"]))
        error = hypot(binomial_error(top1, found.images), doubt)
        return Accuracy(np.array([top1]), np.array([error]), np.array([False]), seconds=(seconds,))

    def read(self, network: Architecture) -> Reading:
        """What the held-out images say of one network.

        Raises:
            NotInSpace: The space cannot express it.
        """
        return self.reader.read(network, self.shared.weights_of(self._genome(network)))

    def module(self, network: Architecture) -> nn.Module:
        """The network as `to_torch` builds it, with inherited weights, in evaluation mode.

        At the supernet's resolution and with its classes.

        Raises:
            NotInSpace: The space cannot express it.
        """
        return self.reader.calibrated(network, self.shared.weights_of(self._genome(network)))

    def weights_of(self, network: Architecture) -> dict[str, Any]:
        """One network's weights, BatchNorm statistics included, by the names of `to_torch`'s state.

        A training may begin with them, and `to_onnx` takes them.

        Raises:
            NotInSpace: The space cannot express it.
        """
        from ...space.to_torch import state_arrays

        arrays = state_arrays(self.module(network))
        return {name: np.ascontiguousarray(a) for name, a in arrays.items()}

    def _genome(self, network: Architecture) -> Genomes:
        return self.space.encode(
            replace(network, resolution_px=self.space.resolution_px, classes=self.space.classes)
        )
