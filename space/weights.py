"""weights: the numbers that a lowering writes down, given or random, BatchNorm folded in.

Every lowering for inference takes its numbers here, so that two forms of one subject with the
same weights, or the same seed, compute the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument
from .operator import Convolution

__all__ = ["BATCH_NORM_EPS", "Arrays", "folded", "sequence"]

BATCH_NORM_EPS = 1e-3
# A prime, so that the repeating sequence never falls in step with a channel count.
_SEQUENCE = 65_537

Arrays = Mapping[str, npt.NDArray[np.float32]]


def folded(
    weights: Arrays | None, seed: int, prefix: str, convolution: Convolution
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight and bias of one convolution.

    Args:
        weights: Arrays by the names that `to_torch` modules use in their state; None takes the
            values from a short random sequence that repeats.
        seed: Of the random values.
        prefix: Place of the operator in the network and a dot, as in `3.`.
        convolution: One of the operator's.
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
        return np.resize(scaled, shape), np.resize(scaled, out)
    name = f"{prefix}{convolution.name}"
    found = _array(weights, f"{name}.weight", shape)
    if not convolution.normalised:
        return found, _array(weights, f"{name}.bias", out)
    scale = _array(weights, f"{name}_bn.weight", out).astype(np.float64)
    scale = scale / np.sqrt(
        _array(weights, f"{name}_bn.running_var", out).astype(np.float64) + BATCH_NORM_EPS
    )
    mean = _array(weights, f"{name}_bn.running_mean", out)
    bias = _array(weights, f"{name}_bn.bias", out) - scale * mean
    return (found * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


@lru_cache(maxsize=4)
def sequence(seed: int) -> npt.NDArray[np.float32]:
    """65,537 normal values, the same for the same seed; repeated to fill any array."""
    return np.random.default_rng(seed).standard_normal(_SEQUENCE, np.float32)


def _array(weights: Arrays, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if name not in weights:
        raise InvalidArgument(f"the weights lack {name}, {shape}")
    found = np.asarray(weights[name], np.float32)
    if found.size != int(np.prod(shape)):
        raise InvalidArgument(f"the weights' {name} is {found.shape}, it should be {shape}")
    return found.reshape(shape)
