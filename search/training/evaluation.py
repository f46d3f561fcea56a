"""evaluate(): top-1 and top-5 with the standard preprocessing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...space import Architecture
from ...space.errors import InvalidArgument, MissingExtra, NotEnoughData

if TYPE_CHECKING:
    from torch import nn

    from ...data.image_set import ImageSet
    from .pipeline import Batches

__all__ = [
    "Evaluation",
    "computing",
    "count_hits",
    "evaluate",
    "load_weights",
    "pick_device",
    "require_torch",
]


@dataclass(frozen=True)
class Evaluation:
    """How a network names images.

    Args:
        top1, top5: Share of images whose class has the highest logit, or one of the five highest,
            in [0, 1]; with fewer than six classes top5 is 1. NaN if a logit is no number.
        n: Images.
        logits: (n, classes), float32, in the order of the images; None unless asked for.
    """

    top1: float
    top5: float
    n: int
    logits: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


def evaluate(
    network: Architecture | nn.Module,
    weights: Mapping[str, npt.NDArray[np.float32]] | None,
    images: ImageSet,
    *,
    batch: int = 256,
    device: str = "auto",
    threads: int | None = None,
    workers: int = 0,
    resolution_px: int | None = None,
    logits: bool = False,
) -> Evaluation:
    """Top-1 and top-5 of a network, in float32, by the standard preprocessing.

    Args:
        network: A network, or a module that takes (n, 3, px, px) and gives (n, classes); a module
            is judged in evaluation mode, where it is if device is "auto", and left as it was.
        weights: Arrays of `state_arrays`; None only for a module.
        images: To judge by; their labels are the classes' places.
        batch: Images at once, ≥ 1.
        device: "auto" (a GPU where there is one), or as torch calls it.
        threads: Of the CPU, for this time; None leaves torch's number.
        workers: Processes that decode files.
        resolution_px: Needed for a module; a network's own otherwise.
        logits: Keep them.
    Raises:
        InvalidArgument: Weights or classes that do not fit, or a value out of range.
        NotEnoughData: No images.
        MissingExtra: torch is not installed.
    """
    require_torch()
    import torch

    from ...space.to_torch import to_torch

    if batch < 1:
        raise InvalidArgument(f"batch is 1 or more, got {batch}")
    if not len(images):
        raise NotEnoughData(f"{images.source} has no images to judge a network by")
    if isinstance(network, Architecture):
        if weights is None:
            raise InvalidArgument("evaluate: a network needs its weights")
        if network.classes != len(images.classes):
            raise InvalidArgument(
                f"the network tells {network.classes} classes apart, and the images of "
                f"{images.source} are of {len(images.classes)}"
            )
        chosen = pick_device(device)
        module = to_torch(network, seed=0)
        load_weights(module, weights)
        module.to(chosen)
        resolution_px = network.resolution_px if resolution_px is None else resolution_px
    else:
        module = network
        if resolution_px is None:
            raise InvalidArgument("evaluate: a module needs resolution_px")
        first = next(module.parameters(), None)
        here = torch.device("cpu") if first is None else first.device
        chosen = here if device == "auto" else pick_device(device)
        if weights is not None:
            load_weights(module, weights)
        module.to(chosen)
    from .pipeline import Batches

    batches = Batches(images, batch, resolution_px, augment=None, workers=workers, device=chosen)
    training = [(part, part.training) for part in module.modules()]
    with computing(threads):
        module.eval()
        try:
            first_hits, five_hits, sound, kept = count_hits(module, batches, keep=logits)
        finally:
            for part, was in training:
                part.training = was
    n = len(images)
    return Evaluation(
        first_hits / n if sound else float("nan"),
        five_hits / n if sound else float("nan"),
        n,
        np.concatenate(kept) if logits else None,
    )


def count_hits(
    module: nn.Module, batches: Batches, *, keep: bool = False
) -> tuple[int, int, bool, list[npt.NDArray[np.float32]]]:
    """Go once through the first epoch of some batches with a module in evaluation mode.

    Args:
        module: On the device of the batches.
        batches: Not augmented.
        keep: Keep the logits.
    Returns:
        Images whose class is the first, or among the first five; whether all logits are numbers;
        and the logits, a part each batch.
    """
    import torch

    first = torch.zeros((), dtype=torch.int64, device=batches.device)
    five, sound = first.clone(), torch.ones_like(first, dtype=torch.bool)
    kept = []
    with torch.inference_mode():
        for x, y in batches.epoch(0):
            if not len(x):
                continue  # of the last batch nothing was left for this process
            out = module(x).float()
            best = out.topk(min(5, out.shape[1]), dim=1).indices == y.unsqueeze(1)
            first += best[:, 0].sum()
            five += best.sum()
            sound &= torch.isfinite(out).all()
            if keep:
                kept.append(out.cpu().numpy())
    return int(first), int(five), bool(sound), kept


def load_weights(module: nn.Module, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Put the arrays of `state_arrays` into a module of the same network.

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


def require_torch() -> None:
    """Tell of a missing extra before any work.

    Raises:
        MissingExtra: torch or safetensors is not installed.
    """
    try:
        import safetensors
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"training needs torch and safetensors, and {error.name} cannot be imported here. "
            "Install them:  pip install 'phonenas[torch]'"
        ) from error
    del safetensors


def pick_device(name: str) -> Any:
    """A torch device by name.

    Args:
        name: "auto" (the first GPU where there is one, else the CPU), "cpu", "cuda", "cuda:1".
    Raises:
        InvalidArgument: No such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidArgument(f"device is auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidArgument(f"device is auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidArgument(
                f"device {name} was asked for, and torch sees {count} GPUs here. Use --device cpu, "
                "or install a torch that is built for this GPU."
            )
    return device


@contextlib.contextmanager
def computing(threads: int | None) -> Iterator[None]:
    """torch with so many threads of the CPU for a while; the number before is restored.

    Raises:
        InvalidArgument: Fewer than one.
    """
    if threads is None:
        yield
        return
    if threads < 1:
        raise InvalidArgument(f"threads: 1 or more, got {threads}")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
