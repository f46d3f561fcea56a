"""Evaluator: top-1 of a network with weights that were trained for many networks, on cached images.

In a supernet BatchNorm's statistics are those of no single network. So a network's are reset and
computed from some batches of training images, with equal weights, before its top-1 is measured on
the held-out ones. Both kinds of images are kept as normalised tensors: an evaluation is forward
passes alone.

Source: Yu and Huang, Universally Slimmable Networks, ICCV 2019, section 3.3 (calibration of
statistics after training); Guo et al., Single Path One-Shot NAS, 2019, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Architecture
from phonenas.space.errors import NotEnoughData

from ...training.evaluation import set_weights
from ...training.resources import computing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phonenas.data.images import ImageSet

__all__ = ["Evaluator", "Evaluation", "cached"]

BATCH = 128  # images at once
_CACHE_BYTES = 1 << 30  # of held-out images kept as tensors: 1,780 at 224 px, 87,000 at 32 px

Batch = tuple["Tensor", "Tensor"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One network's results on the held-out images.

    Args:
        top1: Share of images classified correctly, in [0, 1]; NaN if a logit is not finite.
        probability: Mean probability that the network gives to the right class, in [0, 1]; NaN
            likewise. It follows top-1 with less noise, since each image counts by how clear it is.
        loss: Mean cross-entropy on them, ≥ 0, in nats.
        images: How many these are.
    """

    top1: float
    probability: float
    loss: float
    images: int


class Evaluator:
    """Evaluates networks on the same images, one after the other, each with its own statistics.

    Args:
        calibration: Training images for the statistics, at least one.
        held: Images to measure top-1 on, at least one. Beyond a gigabyte of tensors a part is
            used, the same share of every class.
        resolution_px: Side of the input image.
        classes: Outputs of each network.
        device: As torch calls it.
        threads: Of the CPU; the last digits of answers depend on it.
    Raises:
        NotEnoughData: No images.
    """

    def __init__(
        self,
        calibration: ImageSet,
        held: ImageSet,
        resolution_px: int,
        classes: int,
        *,
        device: Any = "cpu",
        threads: int = 1,
    ) -> None:
        from phonenas.data.images import held_out

        if not len(calibration) or not len(held):
            raise NotEnoughData(
                f"a supernet needs images to calibrate and to evaluate with; there are "
                f"{len(calibration)} and {len(held)}"
            )
        most = max(1, _CACHE_BYTES // (12 * resolution_px**2))
        if len(held) > most:
            held = held_out(held, most / len(held), 0)[1]
        self.resolution_px, self.classes = resolution_px, classes
        self.device, self.threads = device, threads
        self.images = len(held)
        with computing(threads):
            self._calibration = cached(calibration, resolution_px)
            self._held = cached(held, resolution_px)

    def fitted(self, network: Architecture) -> Architecture:
        """The network at the resolution and with the classes of these images."""
        return replace(network, resolution_px=self.resolution_px, classes=self.classes)

    def calibrated(
        self, network: Architecture, weights: Mapping[str, npt.NDArray[np.float32]]
    ) -> nn.Module:
        """A network with these weights and the statistics of the calibration images.

        Args:
            network: Its resolution and classes are replaced by those of the images.
            weights: By the names of `to_torch`'s state; statistics among them are replaced.
        Returns:
            The module of `to_torch`, in evaluation mode, on the device.
        """
        import torch
        from torch import nn

        from phonenas.space.lowering.torch import to_torch

        module = to_torch(self.fitted(network), dropout=0.0, seed=0)
        set_weights(module, weights)
        module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        before = [m.momentum for m in norms]
        with computing(self.threads), torch.inference_mode():
            for m in norms:
                m.reset_running_stats()
                m.momentum = None  # for torch the plain mean over batches
            for x, _ in self._calibration:
                module(x.to(self.device))
        for m, momentum in zip(norms, before, strict=True):
            m.momentum = momentum
        return module.eval()

    def evaluate(
        self, network: Architecture, weights: Mapping[str, npt.NDArray[np.float32]]
    ) -> Evaluation:
        """Calibrate a network and measure its top-1."""
        import torch
        from torch.nn import functional

        module = self.calibrated(network, weights)
        right, loss, probability = 0, 0.0, 0.0
        with computing(self.threads), torch.inference_mode():
            for x, y in self._held:
                y = y.to(self.device)
                logits = module(x.to(self.device))
                right += int((logits.argmax(1) == y).sum())
                losses = functional.cross_entropy(logits, y, reduction="none")
                loss += float(losses.sum())
                probability += float(torch.exp(-losses).sum())
        n = self.images
        nan = float("nan")
        sound = np.isfinite(loss)
        return Evaluation(
            right / n if sound else nan, probability / n if sound else nan, loss / n, n
        )


def cached(images: ImageSet, resolution_px: int) -> list[Batch]:
    """Normalised batches of an image set, in order, kept; channels last, as CPUs like them too."""
    import torch

    from ...training.pipeline import Batches

    batches = Batches(images, BATCH, resolution_px, augment=None)
    return [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches.epoch(0)]
