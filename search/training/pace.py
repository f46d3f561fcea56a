"""About how long a training takes here, told before it begins."""

from __future__ import annotations

import time

from ...space import Architecture
from .recipe import Recipe

__all__ = ["about_s", "seconds_per_mac"]

_WORK = 4_000_000_000  # multiply-adds of one timed step, at most, but for two images
_MOST_BATCH = 256
_STEPS = 2
_FORWARD = 1 / 3  # of a step is the way there, which is all that an evaluation does


def seconds_per_mac(
    network: Architecture, recipe: Recipe, *, device: str = "auto", threads: int | None = None
) -> float:
    """How long a step of training takes for each multiply-add of a network, in seconds.

    Two steps on black images are timed after one that is not, with a plain optimizer whose rate
    is 0. Reading and augmenting images is left out.

    Args:
        network: Neither the smallest nor the largest of those that are to be trained.
        recipe: For its batch.
        device, threads: As for `train`.
    Raises:
        MissingExtra: torch is not installed.
    """
    from .evaluation import computing, pick_device, require_torch

    require_torch()
    import torch

    from ...space.to_torch import to_torch

    batch = max(2, min(recipe.batch, _MOST_BATCH, _WORK // max(1, 3 * network.macs)))
    chosen = pick_device(device)
    with computing(threads):
        module = to_torch(network, dropout=0.0, seed=0).to(chosen)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
        px = network.resolution_px
        images = torch.zeros(batch, 3, px, px, device=chosen)
        taken = []
        for _ in range(1 + _STEPS):
            began = time.perf_counter()
            loss = module(images).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            float(loss.detach())  # waits for a GPU
            if chosen.type == "cuda":
                torch.cuda.synchronize(chosen)
            taken.append(time.perf_counter() - began)
    return sum(taken[1:]) / (_STEPS * batch * network.macs)


def about_s(pace: float, macs: int, recipe: Recipe, images: int, held: int) -> float:
    """Seconds that trainings take in all.

    Args:
        pace: Of `seconds_per_mac`.
        macs: Multiply-adds of one image, summed over the networks.
        recipe: For its epochs; after each one the held-out images are judged.
        images, held: To train on, and to judge by.

    >>> round(about_s(1e-11, 300_000_000, Recipe("x", 10, 2, 0.1, warmup_epochs=0), 1000, 300))
    33
    """
    return pace * macs * recipe.epochs * (images + _FORWARD * held)
