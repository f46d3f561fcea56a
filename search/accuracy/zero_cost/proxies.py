"""Zero-cost proxies: what an untrained network tells of the trained one.

A proxy is one number of a network with its first weights, from a few passes over a batch. Unit and
scale are its own; only the order counts, and more is better.

| proxy | asks | looks at |
|---|---|---|
| `naswot` | how differently do ReLUs switch from image to image? | images |
| `sensitivity` | how far do features move when the input moves a little? | noise |
| `grad_norm` | how long are the gradients of the loss? | images, labels |
| `synflow` | how much flows through all paths of weights? | ones |
| `zen` | how rich are the functions that it can be, by width and depth? | noise |
| `swap` | how many different patterns over the images do activations have? | images |
| `zico` | how steady are gradients from part to part of the batch? | images, labels |
| `expressivity` | over how many directions do features spread, in each block? | noise |
| `progressivity` | does that rise from block to block? | noise |
| `trainability` | do gradients keep their length through each block? | noise |
| `macs`, `params` | how large is it? baselines | nothing |

The three before the last are AZ-NAS's; its fourth is the number of multiply-adds. Each docstring
names its source and what is done otherwise than there. Weights begin as in `space.to_torch`;
dropout is off; BatchNorm uses the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.space import Architecture
from phonenas.space.lowering.torch import activations, to_torch

from .proxy_inputs import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["PROXIES", "Proxy", "seed_of"]

_NOISE_IMAGES = 8
_MIX = 0.01  # the share of other noise that is added
_SPREAD_IMAGES = 32  # of noise, over which features spread
_PATTERN = 64  # images at most, a bit of a pattern each
_PARTS = 4  # of a batch, over which gradients vary


def seed_of(network: Architecture, seed: int) -> int:
    """A seed of the network's own, in [0, 2^63): equal networks have equal ones."""
    keys = " ".join(o.key for o in network.operators())
    return int.from_bytes(hashlib.sha256(f"{seed} {keys}".encode()).digest()[:8], "big") >> 1


def _naswot(network: Architecture, batch: Batch, seed: int) -> float:
    """log|K|: whether the network tells images apart before it has learned anything.

    Each image gives a code: 1 for each number that a ReLU (or an activation like it) lets through,
    over all of them behind BatchNorm. K_ij is in how many places the codes of images i and j agree.

    Source: Mellor et al., Neural Architecture Search without Training, ICML 2021, eq. 2.
    """
    import torch

    built = to_torch(network, dropout=0.0, seed=seed)
    n = len(batch.images)
    agree = torch.zeros((n, n), dtype=torch.float64)

    def count(module: Any, given: Any, out: Tensor) -> None:
        code = (out > 0).flatten(1).float()
        both = code @ code.T  # whole numbers below 2^24: exact in float32
        ones = both.diagonal()
        agree.add_((code.shape[1] - ones[:, None] - ones[None] + 2 * both).double())

    for convolution, norm in _norms(built):
        if convolution.activation != "none":
            norm.register_forward_hook(count)
    with torch.no_grad():
        built(batch.images)
    return float(torch.linalg.slogdet(agree)[1])


def _grad_norm(network: Architecture, batch: Batch, seed: int) -> float:
    """Sum over convolutions and classifier of the gradient's Euclidean norm, cross-entropy loss.

    Source: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, `grad_norm`.
    """
    import torch
    from torch.nn import functional

    built = to_torch(network, dropout=0.0, seed=seed)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    weights = [m.weight for m in built.modules() if isinstance(m, kinds)]
    loss = functional.cross_entropy(built(batch.images), batch.labels)
    return sum(float(g.norm()) for g in torch.autograd.grad(loss, weights))


def _synflow(network: Architecture, batch: Batch, seed: int) -> float:
    """log Σ θ · ∂R/∂θ, with R the sum of outputs for an input of ones and all weights positive.

    BatchNorm is left out, and the sums are kept in float64: they reach 1e30. The logarithm keeps
    their order.

    Source: Tanaka et al., Pruning neural networks without any data by iteratively conserving
    synaptic flow, NeurIPS 2020, eq. 1; as a proxy: Abdelfattah et al., ICLR 2021.
    """
    import torch

    built = to_torch(network, dropout=0.0, seed=seed).double().eval()
    for layer in built.children():
        for name, module in list(layer.named_children()):
            if isinstance(module, torch.nn.BatchNorm2d):
                setattr(layer, name, torch.nn.Identity())
    with torch.no_grad():
        for weight in built.parameters():
            weight.abs_()
    px = network.resolution_px
    built(torch.ones((1, 3, px, px), dtype=torch.float64)).sum().backward()
    flows = [float((w.detach() * w.grad).sum()) for w in built.parameters() if w.grad is not None]
    return log(sum(flows))


def _sensitivity(network: Architecture, batch: Batch, seed: int) -> float:
    """log of how far the last map moves when 0.01 of other noise is added to noise.

    It is the first term of the Zen-score (see `zen`), with the skips left in. The second, which
    adds log σ for each BatchNorm, grows with every layer and channel and mostly counts size.

    Source: Lin et al., Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition, ICCV 2021,
    algorithm 1, step 4.
    """
    return _moved(network, seed)[0]


def _zen(network: Architecture, batch: Batch, seed: int) -> float:
    """Zen-score: log of how far the last map moves, plus log σ of what enters each BatchNorm.

    Weights are standard normal and skips are removed, as there. Distances are summed
    absolutely, as in its code.

    Source: Lin et al., Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition, ICCV 2021,
    algorithm 1.
    """
    blocks = tuple(replace(b, skip="none") for b in network.blocks)
    return sum(_moved(replace(network, blocks=blocks), seed))


def _moved(network: Architecture, seed: int) -> tuple[float, float]:
    """log of the features' distance, and the sum of log σ over BatchNorms."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    built = to_torch(network, dropout=0.0, seed=seed)
    scales: list[float] = []

    def scale(module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
        scales.append(0.5 * log(float(given[0].var((0, 2, 3)).mean())))

    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.normal_(generator=chance)
        px = network.resolution_px
        shape = (_NOISE_IMAGES, 3, px, px)
        noise, other = (torch.randn(shape, generator=chance) for _ in range(2))
        hooks = [norm.register_forward_hook(scale) for _, norm in _norms(built)]
        here = _features(built, noise)
        for hook in hooks:
            hook.remove()
        there = _features(built, noise + _MIX * other)
        distance = float((here - there).abs().sum((1, 2, 3)).mean())
    return log(distance), sum(scales)


def _features(built: nn.Module, images: Tensor) -> Tensor:
    """The last map before pooling, (n, features, px, px)."""
    *layers, head = built.children()
    for layer in layers:
        images = layer(images)
    y: Tensor = head.get_submodule("features_bn")(head.get_submodule("features")(images))
    return activations()[head.operator.activation](y)  # type: ignore[union-attr, index]


def _norms(built: nn.Module) -> list[tuple[Any, nn.Module]]:
    """Each normalised convolution's description with its BatchNorm, in network order."""
    return [
        (c, layer.get_submodule(f"{c.name}_bn"))
        for layer in built.children()
        for c in layer.operator.convolutions  # type: ignore[union-attr]
        if c.normalised
    ]


def _swap(network: Architecture, batch: Batch, seed: int) -> float:
    """log of the number of different activation patterns over the images.

    The pattern of a number that an activation behind BatchNorm gives is for which images it is
    above 0. Of more than 64 images the first 64 count.

    Source: Peng et al., SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS, ICLR 2024,
    definition 4, without the regularisation by size.
    """
    import torch

    built = to_torch(network, dropout=0.0, seed=seed)
    images = batch.images[:_PATTERN]
    seen = np.empty(0, np.uint64)

    def gather(module: Any, given: Any, out: Tensor) -> None:
        nonlocal seen
        bits = np.zeros((_PATTERN, out[0].numel()), np.bool_)
        bits[: len(out)] = (out > 0).flatten(1).numpy()
        patterns = np.ascontiguousarray(np.packbits(bits, axis=0).T).view(np.uint64)
        seen = np.union1d(seen, patterns)

    for convolution, norm in _norms(built):
        if convolution.activation != "none":
            norm.register_forward_hook(gather)
    with torch.no_grad():
        built(images)
    return log(len(seen))


def _zico(network: Architecture, batch: Batch, seed: int) -> float:
    """Sum over convolutions and classifier of log Σ |g|'s mean / g's deviation, over the weights.

    g is a weight's gradient of the cross-entropy loss; mean and deviation are over four parts of
    the batch (of two batches there). The deviation is that of g with its sign, as in its code.
    Weights whose gradient is the same in all parts are left out.

    Source: Li et al., ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients, ICLR
    2023, eq. 14.
    """
    import torch
    from torch.nn import functional

    built = to_torch(network, dropout=0.0, seed=seed)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    weights = [m.weight for m in built.modules() if isinstance(m, kinds)]
    parts = []
    for images, labels in zip(
        batch.images.tensor_split(_PARTS), batch.labels.tensor_split(_PARTS), strict=True
    ):
        loss = functional.cross_entropy(built(images), labels)
        parts.append(torch.autograd.grad(loss, weights))
    score = 0.0
    for gradients in zip(*parts, strict=True):
        each = torch.stack(gradients)
        deviation = each.std(0, correction=0)
        moved = deviation > 0
        if bool(moved.any()):
            score += log(float((each.abs().mean(0)[moved] / deviation[moved]).sum()))
    return score


def _expressivity(network: Architecture, batch: Batch, seed: int) -> float:
    """Sum over stem and blocks of the entropy of their features' principal components.

    Source: Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR
    2024, section 3.2, expressivity; with the skips left in.
    """
    return sum(_entropies(network, seed))


def _progressivity(network: Architecture, batch: Batch, seed: int) -> float:
    """The least rise of that entropy from one block to the next.

    Source: AZ-NAS (see `expressivity`), progressivity.
    """
    return min(b - a for a, b in pairwise(_entropies(network, seed)))


@lru_cache(maxsize=4)
def _entropies(network: Architecture, seed: int) -> tuple[float, ...]:
    """Entropy of the shares of the features' variance by principal component: of the stem, then of
    each block."""
    import torch

    built, maps = _with_noise(network, seed)
    entropies = []
    with torch.no_grad():
        *layers, _ = built.children()
        for layer in layers:
            maps = layer(maps)
            features = maps.transpose(0, 1).flatten(1).double()
            spread = torch.linalg.eigvalsh(torch.cov(features)).clamp(min=0)
            entropies.append(float(torch.special.entr(spread / spread.sum()).sum()))
    return tuple(entropies)


def _trainability(network: Architecture, batch: Batch, seed: int) -> float:
    """Mean over blocks of 2 - σ - 1/σ, with σ the spectral norm of the block's Jacobian.

    The Jacobian, from channels to channels, is estimated by one draw of random signs at the block's
    output. Where the input's map is larger, the places that became one are further channels.

    Source: AZ-NAS (see `expressivity`), trainability.
    """
    import torch
    from torch.nn import functional

    built, maps = _with_noise(network, seed)
    chance = torch.Generator().manual_seed(seed)
    stem, *blocks, _ = built.children()
    maps = stem(maps).detach()
    scores = []
    for block in blocks:
        maps.requires_grad_()
        out = block(maps)
        signs = torch.randint(0, 2, out.shape, generator=chance).float() * 2 - 1
        (back,) = torch.autograd.grad(out, maps, signs)
        px, stride = out.shape[2], -(-back.shape[2] // out.shape[2])
        border = stride * px - back.shape[2]
        back = functional.pixel_unshuffle(functional.pad(back, (0, border, 0, border)), stride)
        places = out.shape[0] * px**2
        a, b = (t.transpose(0, 1).flatten(1) for t in (back, signs))
        norm = float(torch.linalg.matrix_norm(a @ b.T / places, 2))
        scores.append(2 - norm - 1 / (norm + 1e-6))
        maps = out.detach()
    return sum(scores) / len(scores)


def _with_noise(network: Architecture, seed: int) -> tuple[nn.Module, Tensor]:
    """A network with normal weights of variance 2 / inputs, and noise for it."""
    import torch

    built = to_torch(network, dropout=0.0, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, torch.nn.Conv2d):
                inputs = module.weight[0].numel()
                module.weight.normal_(0.0, (2 / inputs) ** 0.5, generator=chance)
    px = network.resolution_px
    return built, torch.randn((_SPREAD_IMAGES, 3, px, px), generator=chance)


def _macs(network: Architecture, batch: Batch, seed: int) -> float:
    """log of the multiply-adds."""
    return log(network.macs)


def _params(network: Architecture, batch: Batch, seed: int) -> float:
    """log of the trainable parameters."""
    return log(network.params)


Proxy = Callable[[Architecture, Batch, int], float]
PROXIES: dict[str, Proxy] = {
    "naswot": _naswot,
    "sensitivity": _sensitivity,
    "grad_norm": _grad_norm,
    "synflow": _synflow,
    "zen": _zen,
    "swap": _swap,
    "zico": _zico,
    "expressivity": _expressivity,
    "progressivity": _progressivity,
    "trainability": _trainability,
    "macs": _macs,
    "params": _params,
}
