"""An exported model beside torch: the same images to both, and what their logits differ by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...space import Architecture
from .export_forms import Logits, Runner

if TYPE_CHECKING:
    from ...data.images import ImageSet

__all__ = ["Form", "answers", "compared", "left_open", "off", "problem"]

_BATCH = 16
# Times torch's own error. Where batch statistics lag behind the weights, logits reach tens of
# thousands, and one of 2,000 images was more than 4 times as far from torch as torch from float64.
_TIMES = 16.0


@dataclass(frozen=True)
class Form:
    """One exported model beside torch.

    Args:
        name: "onnx" or "tflite".
        path: Where it lies.
        difference: Largest absolute difference of a logit from torch's.
        allowed: By how much that image's logits may differ, > 0.
        differing: Images of which it makes another class than torch does.
        ties: Of those, where torch's two best logits are as close as the tolerance.
        top1: Share of the images named rightly, in [0, 1].
    """

    name: str
    path: Path
    difference: float
    allowed: float
    differing: int
    ties: int
    top1: float


def answers(
    network: Architecture,
    weights: Mapping[str, Any],
    images: ImageSet,
    runners: Mapping[str, Runner],
    threads: int,
) -> tuple[npt.NDArray[np.int64], dict[str, Logits]]:
    """Labels, (n,), and logits, (n, classes), of torch and of each form on the same inputs."""
    found: dict[str, list[Logits]] = {name: [] for name in ("torch", *runners)}
    for inputs, logits in _torch_answers(network, weights, images, threads):
        found["torch"].append(logits)
        for name, run in runners.items():
            found[name].append(np.stack([run(image[None]) for image in inputs]))
    return images.labels, {name: np.concatenate(rows) for name, rows in found.items()}


def _torch_answers(
    network: Architecture,
    weights: Mapping[str, Any],
    images: ImageSet,
    threads: int,
    *,
    exact: bool = False,
) -> Iterator[tuple[Logits, npt.NDArray[Any]]]:
    """Inputs (b, 3, px, px) and torch's logits (b, classes), in float64 if `exact`."""
    from ...space.to_torch import to_torch
    from .evaluation import computing, require_torch
    from .evaluation import load_weights as into_module

    require_torch()
    import torch

    from .pipeline import Batches

    module = to_torch(network, seed=0)
    into_module(module, weights)
    module.eval()
    if exact:
        module.double()
    batches = Batches(images, _BATCH, network.resolution_px, augment=None, seed=0, drop_last=False)
    with computing(threads):
        for inputs, _ in batches.epoch(0):
            with torch.inference_mode():
                logits = module(inputs.double() if exact else inputs).numpy()
            yield np.ascontiguousarray(inputs.numpy()), logits


def left_open(
    network: Architecture, weights: Mapping[str, Any], images: ImageSet, torch: Logits, threads: int
) -> npt.NDArray[np.float64]:
    """By how much float32 leaves the logits of each image open, (n,)."""
    rows = [row for _, row in _torch_answers(network, weights, images, threads, exact=True)]
    exact = np.concatenate(rows)
    largest = np.abs(exact).max(axis=1)
    relative = (np.abs(torch - exact).max(axis=1) / np.maximum(largest, 1e-30)).max()
    found: npt.NDArray[np.float64] = _TIMES * relative * largest
    return found


def off(torch: Logits, other: Logits) -> npt.NDArray[np.float64]:
    """Largest difference of a logit of each image, (n,)."""
    found: npt.NDArray[np.float64] = np.abs(torch - other).max(axis=1).astype(np.float64)
    return found


def compared(
    form: str,
    path: Path,
    torch: Logits,
    other: Logits,
    labels: npt.NDArray[np.int64],
    allowed: npt.NDArray[np.float64],
) -> Form:
    """A form beside torch.

    Args:
        form, path: Its name, and where it is to lie.
        torch, other: Logits of torch and of the form, (n, classes).
        labels: (n,).
        allowed: By how much the logits of each image may differ, (n,); two best ones as close as
            that are a tie.
    """
    decided, said = torch.argmax(1), other.argmax(1)
    two = np.sort(torch, axis=1)[:, -2:]
    close = two[:, -1] - two[:, 0] <= allowed
    differing = decided != said
    found = off(torch, other)
    worst = int(found.argmax())
    return Form(
        form,
        path,
        float(found[worst]),
        float(allowed[worst]),
        int(differing.sum()),
        int((differing & close).sum()),
        float(np.mean(said == labels)),
    )


def problem(
    held: Form, torch: Logits, other: Logits, allowed: npt.NDArray[np.float64]
) -> str:  # fmt: skip
    """What speaks against a form; "" if nothing does."""
    beyond = int((~(off(torch, other) <= allowed)).sum())  # what is no number is beyond, too
    decided = held.differing - held.ties
    if not beyond and not decided:
        return ""
    return (
        f"{held.path} was not written: on {beyond} of {len(torch)} images its logits differ from "
        f"torch's by more than {allowed.min():.2g} (at worst by {held.difference:.3g}, where the "
        f"largest logit is {float(np.abs(torch).max()):.3g}), and on {decided} it names another class"
    )
