"""An exported model beside torch: both get the same images, and their logits are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Classifier

from ..evaluation import set_weights
from ..pipeline import Batches
from ..resources import computing, require_torch
from .formats import Logits, Runner

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = [
    "ExportedModel",
    "compared",
    "evenly",
    "float32_error",
    "inputs_of",
    "logit_differences",
    "logits_of",
    "mismatch_reason",
]

_BATCH = 16
# Times torch's own error. Where batch statistics lag behind the weights, logits reach tens of
# thousands, and one of 2,000 images was more than 4 times as far from torch as torch from float64.
_TIMES = 16.0


@dataclass(frozen=True)
class ExportedModel:
    """One exported model beside torch.

    Args:
        name: "onnx" or "tflite".
        path: Of its file.
        difference: Largest absolute difference of a logit from torch's.
        allowed: By how much the logits of that image may differ, > 0.
        differing: Images for which it names another class than torch does.
        ties: Of those, where torch's two best logits are as close as the tolerance.
        top1: Share of the images named correctly, in [0, 1].
        sha256: Of its file as it was written, 64 hexadecimal digits.
    """

    name: str
    path: Path
    difference: float
    allowed: float
    differing: int
    ties: int
    top1: float
    sha256: str = ""


def logits_of(
    network: Classifier,
    weights: Mapping[str, Any],
    images: ImageSet,
    runners: Mapping[str, Runner],
    threads: int,
) -> dict[str, Logits]:
    """Logits (n, classes) of "torch" and of each model, by format, for the same n inputs."""
    logits: dict[str, list[Logits]] = {name: [] for name in ("torch", *runners)}
    for inputs, rows in _torch_logits(network, weights, images, threads):
        logits["torch"].append(rows)
        for name, run in runners.items():
            logits[name].append(np.stack([run(image[None]) for image in inputs]))
    return {name: np.concatenate(parts) for name, parts in logits.items()}


def _torch_logits(
    network: Classifier,
    weights: Mapping[str, Any],
    images: ImageSet,
    threads: int,
    *,
    exact: bool = False,
) -> Iterator[tuple[Logits, npt.NDArray[Any]]]:
    """Inputs (b, 3, px, px) and torch's logits (b, classes), in float64 if `exact`."""
    require_torch()
    import torch

    from phonenas.space.lowering.torch import to_torch

    module = to_torch(network, seed=0)
    set_weights(module, weights)
    module.eval()
    if exact:
        module.double()
    batches = Batches(images, _BATCH, network.resolution_px, augment=None)
    with computing(threads):
        for inputs, _ in batches.epoch(0):
            with torch.inference_mode():
                logits = module(inputs.double() if exact else inputs).numpy()
            yield np.ascontiguousarray(inputs.numpy()), logits


def evenly(images: ImageSet, most: int) -> ImageSet:
    """At most so many of the images, evenly spaced."""
    if len(images) <= most:
        return images
    return images.subset(np.linspace(0, len(images) - 1, most).round().astype(np.int64))


def inputs_of(images: ImageSet, resolution_px: int) -> Iterator[Logits]:
    """Images as a network takes them, each (1, 3, px, px)."""
    for inputs, _ in Batches(images, _BATCH, resolution_px, augment=None).epoch(0):
        for image in inputs.numpy():
            yield np.ascontiguousarray(image[None])


def float32_error(
    network: Classifier, weights: Mapping[str, Any], images: ImageSet, torch: Logits, threads: int
) -> npt.NDArray[np.float64]:
    """How far logits may differ from torch's, (n, classes), by the error of float32: (n,)."""
    rows = [row for _, row in _torch_logits(network, weights, images, threads, exact=True)]
    exact = np.concatenate(rows)
    largest = np.abs(exact).max(axis=1)
    relative = (np.abs(torch - exact).max(axis=1) / np.maximum(largest, 1e-30)).max()
    error: npt.NDArray[np.float64] = _TIMES * relative * largest
    return error


def logit_differences(torch: Logits, other: Logits) -> npt.NDArray[np.float64]:
    """Largest absolute difference of a logit, both (n, classes), for each image, (n,)."""
    differences: npt.NDArray[np.float64] = np.abs(torch - other).max(axis=1).astype(np.float64)
    return differences


def compared(
    path: Path,
    torch: Logits,
    other: Logits,
    labels: npt.NDArray[np.int64],
    allowed: npt.NDArray[np.float64],
) -> ExportedModel:
    """A model beside torch.

    Args:
        path: Of its file, whose ending names its format.
        torch, other: Logits of torch and of the model, (n, classes).
        labels: (n,).
        allowed: By how much the logits of each image may differ, (n,); two best ones as close as
            that are a tie.
    """
    by_torch, by_other = torch.argmax(1), other.argmax(1)
    best_two = np.sort(torch, axis=1)[:, -2:]
    close = best_two[:, -1] - best_two[:, 0] <= allowed
    differing = by_torch != by_other
    differences = logit_differences(torch, other)
    worst = int(differences.argmax())
    return ExportedModel(
        path.suffix[1:],
        path,
        float(differences[worst]),
        float(allowed[worst]),
        int(differing.sum()),
        int((differing & close).sum()),
        float(np.mean(by_other == labels)),
    )


def mismatch_reason(
    model: ExportedModel, torch: Logits, other: Logits, allowed: npt.NDArray[np.float64]
) -> str:
    """Why a model must not be written, "" if nothing is wrong; arrays as for `compared`."""
    # A difference that is not a number is beyond, too.
    beyond = int((~(logit_differences(torch, other) <= allowed)).sum())
    decided = model.differing - model.ties
    if not beyond and not decided:
        return ""
    return (
        f"{model.path} was not written: on {beyond} of {len(torch)} images its logits differ from "
        f"torch's by more than {allowed.min():.2g} (at worst by {model.difference:.3g}, where the "
        f"largest logit is {float(np.abs(torch).max()):.3g}), and on {decided} it names another "
        f"class"
    )
