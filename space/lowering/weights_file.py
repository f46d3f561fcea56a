"""weights_file: a network and its weights as one safetensors file.

The arrays bear the names of `to_torch`'s state, so that a torch module takes them as they are and
`to_onnx` and `to_tflite` too. The file's metadata is one text, "phonenas", a JSON table of

    format, version   "phonenas-weights", 1
    network           block string, resolution and number of classes included
    crc32             of the arrays' bytes: safetensors itself has no checksum
    about             for trained weights: names of the classes, recipe, top-1 and so on

Equal weights with equal metadata give equal bytes. Reading such a file runs and unpickles nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..architecture import Architecture
from ..errors import InvalidArgument, MissingExtra, install
from ..graph import NetworkGraph

__all__ = [
    "FORMAT",
    "METADATA_KEY",
    "VERSION",
    "Arrays",
    "checked",
    "checksum",
    "differences",
    "safetensors_or_extra",
    "shapes",
    "weights_bytes",
]

FORMAT, VERSION = "phonenas-weights", 1
METADATA_KEY = "phonenas"  # one key alone: safetensors writes several in any order

Arrays = dict[str, npt.NDArray[np.float32]]
_NORM = ("weight", "bias", "running_mean", "running_var")


def shapes(network: Architecture | NetworkGraph) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array in the state of `to_torch(network)`, in its order."""
    names: dict[str, tuple[int, ...]] = {}
    if isinstance(network, NetworkGraph):
        for i, node in enumerate(network.nodes):
            if node.weighted:
                whole = node.weight_shape
                names[f"{i}.{node.op}.weight"] = whole[:2] if node.op == "linear" else whole
                if node.bias:
                    names[f"{i}.{node.op}.bias"] = whole[:1]
            if node.normalised or node.op == "batch_norm":
                name = f"{i}.conv_bn" if node.normalised else f"{i}.batch_norm"
                names |= {f"{name}.{part}": (node.channels,) for part in _NORM}
        return names
    for i, operator in enumerate(network.operators()):
        for c in operator.convolutions:
            out = (c.out_channels,)
            whole = c.weight_shape
            names[f"{i}.{c.name}.weight"] = whole[:2] if c.name == "classifier" else whole
            if c.normalised:
                names |= {f"{i}.{c.name}_bn.{part}": out for part in _NORM}
            elif c.bias:
                names[f"{i}.{c.name}.bias"] = out
    return names


def weights_bytes(
    network: Architecture | NetworkGraph, weights: Mapping[str, Any], about: Mapping[str, Any]
) -> bytes:
    """The content of a weights file.

    Args:
        network: Whose weights they are.
        weights: float32 arrays by the names of `to_torch`'s state.
        about: Further facts about them, ready for JSON.
    Raises:
        InvalidArgument: As `checked`.
        MissingExtra: safetensors is not installed.
    """
    library, arrays = safetensors_or_extra(), checked(network, weights)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "network": str(network),
        "crc32": checksum(arrays),
        "about": dict(about),
    }
    text = json.dumps(metadata, allow_nan=False)
    content: bytes = library.numpy.save(arrays, {METADATA_KEY: text})
    return content


def checked(network: Architecture | NetworkGraph, weights: Mapping[str, Any]) -> Arrays:
    """The arrays of a network, contiguous, in its own order.

    Raises:
        InvalidArgument: One is missing, does not belong to this network, has another shape or
            type, or holds NaN or infinity.
    """
    wanted = shapes(network)
    arrays = {k: np.asarray(v) for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    wrong = differences(wanted, arrays)
    if wrong:
        raise InvalidArgument(f"these are not the weights of '{network}': {wrong}")
    for name in wanted:
        if not np.isfinite(arrays[name]).all():
            raise InvalidArgument(
                f"the weights {name} are not all numbers: the training diverged. Train "
                "again with a lower learning rate."
            )
    return {name: np.ascontiguousarray(arrays[name]) for name in wanted}


def differences(wanted: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]) -> str:
    """How arrays differ from `wanted`, a shape by name, and float32; "" where they do not."""
    missing = [n for n in wanted if n not in arrays]
    foreign = [n for n in arrays if n not in wanted]
    if missing or foreign:
        words = [f"{len(missing)} arrays are missing, as {missing[0]}"] if missing else []
        words += [f"{len(foreign)} are not the network's, as {foreign[0]}"] if foreign else []
        return "; ".join(words)
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            return f"{name} is {arrays[name].shape}, it should be {shape}"
        if arrays[name].dtype != np.float32:
            return f"{name} is {arrays[name].dtype}, it should be float32"
    return ""


def checksum(arrays: Arrays) -> int:
    """CRC-32 of the names and bytes of all arrays, in the order of their names."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data, crc)
    return crc


def safetensors_or_extra() -> Any:
    """The library, or MissingExtra where it is not installed."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtra(
            "weights are kept as safetensors, which cannot be imported here. "
            f"Install it:  {install('torch')}"
        ) from error
    return safetensors
