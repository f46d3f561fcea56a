"""weights: the numbers that a lowering writes down, given or random, BatchNorm folded in.

Every lowering for inference takes its numbers here, so that two forms of one subject with the
same weights, or the same seed, compute the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from ..graph import Node
from ..operator import Convolution

__all__ = [
    "BATCH_NORM_EPS",
    "BATCH_NORM_MOMENTUM",
    "Arrays",
    "folded",
    "scale_and_shift",
    "sequence",
]

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01  # torch's word for what TensorFlow calls a decay of 0.99
# A prime, so that the repeating sequence never falls in step with a channel count.
_SEQUENCE = 65_537

Arrays = Mapping[str, npt.NDArray[np.float32]]


def folded(
    weights: Arrays | None, seed: int, prefix: str, convolution: Convolution | Node
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight and bias of one convolution.

    Args:
        weights: Arrays by the names that `to_torch` modules use in their state; None takes the
            values from a short random sequence that repeats.
        seed: Of the random values.
        prefix: Place of the operator in the network and a dot, as in `3.`.
        convolution: One of the operator's; or a node of a graph that has a weight.
    Returns:
        Weight (out, in / groups, k, k) and bias (out,), with BatchNorm folded in.
    Raises:
        InvalidArgument: Weights lack an array, or one has another shape; it is named.
    """
    shape = convolution.weight_shape
    out = (convolution.out_channels,)
    if weights is None:
        fan_in = shape[1] * shape[2] * shape[3]
        scaled = sequence(seed) * np.float32((2 / fan_in) ** 0.5)
        biased = convolution.bias or convolution.normalised
        return np.resize(scaled, shape), np.resize(scaled if biased else np.float32(0), out)
    name = f"{prefix}{convolution.name}"
    weight = _array(weights, f"{name}.weight", shape)
    own = _array(weights, f"{name}.bias", out) if convolution.bias else np.zeros(out, np.float32)
    if not convolution.normalised:
        return weight, own
    scale, shift = scale_and_shift(weights, f"{name}_bn", out[0])
    bias = shift + scale * own
    return (weight * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


def scale_and_shift(
    weights: Arrays | None, name: str, channels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What a BatchNorm does: a factor and a summand for each channel, each (channels,).

    Args:
        weights: As for `folded`; None gives factors of 1 and summands of 0.1.
        name: Of the BatchNorm.
        channels: Of the map.
    Raises:
        InvalidArgument: As for `folded`.
    """
    out = (channels,)
    if weights is None:
        return np.ones(out), np.full(out, 0.1)
    variance = _array(weights, f"{name}.running_var", out).astype(np.float64)
    scale = _array(weights, f"{name}.weight", out) / np.sqrt(variance + BATCH_NORM_EPS)
    mean = _array(weights, f"{name}.running_mean", out)
    return scale, _array(weights, f"{name}.bias", out) - scale * mean


@lru_cache(maxsize=4)
def sequence(seed: int) -> npt.NDArray[np.float32]:
    """65,537 normal values, the same for the same seed; repeated to fill any array."""
    return np.random.default_rng(seed).standard_normal(_SEQUENCE, np.float32)


def _array(weights: Arrays, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if name not in weights:
        raise InvalidArgument(f"the weights lack {name}, {shape}")
    array = np.asarray(weights[name], np.float32)
    if array.size != int(np.prod(shape)):
        raise InvalidArgument(f"the weights' {name} is {array.shape}, it should be {shape}")
    return array.reshape(shape)
