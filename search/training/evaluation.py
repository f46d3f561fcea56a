"""evaluate(): top-1 and top-5 with the standard preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument, NotEnoughData

from .distributed import Processes
from .pipeline import Batches
from .resources import Resources, computing, pick_device, require_torch

if TYPE_CHECKING:
    from torch import nn

    from phonenas.data.images import ImageSet

__all__ = ["Evaluation", "count_hits", "evaluate", "set_weights"]


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of a network on some images.

    Args:
        top1, top5: Share of images whose class has the highest logit, or one of the five highest,
            in [0, 1]; with fewer than six classes top5 is 1. NaN if a logit is not a number.
        n: Images.
        logits: (n, classes), float32, in the order of the images; None unless requested.
    """

    top1: float
    top5: float
    n: int
    logits: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


def evaluate(
    network: Classifier | nn.Module,
    weights: Mapping[str, npt.NDArray[np.float32]] | None,
    images: ImageSet,
    *,
    batch: int = 256,
    resources: Resources | None = None,
    resolution_px: int | None = None,
    logits: bool = False,
) -> Evaluation:
    """Top-1 and top-5 of a network, in float32, by the standard preprocessing.

    Args:
        network: A network, or a module that takes (n, 3, px, px) and gives (n, classes). A module
            is evaluated in evaluation mode, on its own device if that of `resources` is "auto",
            and keeps its mode.
        weights: Arrays of `state_arrays`; None only for a module.
        images: To evaluate on; a label is the place of its class among the logits.
        batch: Images at once, ≥ 1.
        resources: Device, threads and loader processes; by default `Resources()`.
        resolution_px: Needed for a module; a network's own otherwise.
        logits: Keep them.
    Raises:
        InvalidArgument: Weights or classes that do not fit, or a value out of range.
        NotEnoughData: No images.
        MissingExtra: torch is not installed.
    """
    require_torch()
    import torch

    from phonenas.space.lowering.torch import to_torch

    resources = resources or Resources()
    if batch < 1:
        raise InvalidArgument(f"batch is 1 or more, got {batch}")
    if not len(images):
        raise NotEnoughData(f"{images.source} has no images to evaluate a network on")
    if isinstance(network, Classifier):
        if weights is None:
            raise InvalidArgument("evaluate: a network needs its weights")
        if network.classes != len(images.classes):
            raise InvalidArgument(
                f"the network has {network.classes} classes, and the images of "
                f"{images.source} are of {len(images.classes)}"
            )
        device = pick_device(resources.device)
        module = to_torch(network, seed=0)
        set_weights(module, weights)
        resolution_px = network.resolution_px if resolution_px is None else resolution_px
    else:
        module = network
        if resolution_px is None:
            raise InvalidArgument("evaluate: a module needs resolution_px")
        first = next(module.parameters(), None)
        here = torch.device("cpu") if first is None else first.device
        device = here if resources.device == "auto" else pick_device(resources.device)
        if weights is not None:
            set_weights(module, weights)
    module.to(device)
    batches = Batches(
        images,
        batch,
        resolution_px,
        augment=None,
        loaders=resources.loaders,
        processes=Processes(device=device),
    )
    modes = [(part, part.training) for part in module.modules()]
    with computing(resources.threads):
        module.eval()
        try:
            first_hits, five_hits, valid, parts = count_hits(module, batches, keep=logits)
        finally:
            for part, mode in modes:
                part.training = mode
    n = len(images)
    return Evaluation(
        first_hits / n if valid else float("nan"),
        five_hits / n if valid else float("nan"),
        n,
        np.concatenate(parts) if logits else None,
    )


def count_hits(
    module: nn.Module, batches: Batches, *, keep: bool = False
) -> tuple[int, int, bool, list[npt.NDArray[np.float32]]]:
    """Count hits over one pass of some batches, with a module in evaluation mode.

    Args:
        module: On the device of the batches; it takes (b, 3, px, px) and gives (b, classes).
        batches: Not augmented.
        keep: Keep the logits.
    Returns:
        Images whose class is the first, or among the first five; whether all logits are numbers;
        and the logits of each batch, (b, classes), float32.
    """
    import torch

    first = torch.zeros((), dtype=torch.int64, device=batches.device)
    five, valid = first.clone(), torch.ones_like(first, dtype=torch.bool)
    parts = []
    with torch.inference_mode():
        for x, y in batches.epoch(0):
            if not len(x):
                continue  # the last batch has no image for this process
            out = module(x).float()
            best = out.topk(min(5, out.shape[1]), dim=1).indices == y.unsqueeze(1)
            first += best[:, 0].sum()
            five += best.sum()
            valid &= torch.isfinite(out).all()
            if keep:
                parts.append(out.cpu().numpy())
    return int(first), int(five), bool(valid), parts


def set_weights(module: nn.Module, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy the arrays of `state_arrays` into a module of the same network.

    Raises:
        InvalidArgument: A name is missing or unknown, or a shape is another.
    """
    import torch

    own = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    other = sorted(set(own) ^ set(weights))
    if other:
        raise InvalidArgument(
            f"these weights are of another network: {other[0]} is in only one of the two"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if tuple(tensor.shape) != tuple(weights[name].shape):
                raise InvalidArgument(
                    f"these weights are of another network: {name} has shape "
                    f"{tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
                )
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(weights[name], np.float32)))
