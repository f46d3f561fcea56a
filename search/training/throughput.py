"""How long a training will take on this computer, estimated before it begins."""

from __future__ import annotations

import time

from phonenas.space import Classifier

from .recipe import Recipe
from .resources import Resources, computing, pick_device, require_torch

__all__ = ["seconds_per_mac", "total_s"]

_STEP_MACS = 4_000_000_000  # of one timed step, at most, unless two images have more
_MOST_BATCH = 256
_STEPS = 2
_FORWARD = 1 / 3  # share of a step that its forward pass takes, which an evaluation does alone


def seconds_per_mac(network: Classifier, recipe: Recipe, resources: Resources) -> float:
    """How long a step of training takes for each multiply-add of a network, in seconds.

    Two steps on black images are timed after one that is not, with a plain optimizer whose rate
    is 0. Reading and augmenting images is left out.

    Args:
        network: Neither the smallest nor the largest of those that are to be trained.
        recipe: For its batch.
        resources: Device and threads.
    Raises:
        MissingExtra: torch is not installed.
    """
    require_torch()
    import torch

    from phonenas.space.lowering.torch import to_torch

    batch = max(2, min(recipe.batch, _MOST_BATCH, _STEP_MACS // max(1, 3 * network.macs)))
    device = pick_device(resources.device)
    with computing(resources.threads):
        module = to_torch(network, dropout=0.0, seed=0).to(device)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
        px = network.resolution_px
        images = torch.zeros(batch, 3, px, px, device=device)
        taken = []
        for _ in range(1 + _STEPS):
            began = time.perf_counter()
            loss = module(images).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            float(loss.detach())  # waits for a GPU
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - began)
    return sum(taken[1:]) / (_STEPS * batch * network.macs)


def total_s(per_mac_s: float, macs: int, recipe: Recipe, images: int, test: int) -> float:
    """How long some trainings take in all, in seconds.

    Args:
        per_mac_s: What `seconds_per_mac` gave.
        macs: Multiply-adds of one image, summed over the networks.
        recipe: For its epochs; after each one the network is evaluated on the test images.
        images, test: Number of images to train on, and to test on.

    >>> round(total_s(1e-11, 300_000_000, Recipe("x", 10, 2, 0.1, warmup_epochs=0), 1000, 300))
    33
    """
    return per_mac_s * macs * recipe.epochs * (images + _FORWARD * test)
