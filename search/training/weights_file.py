"""Trained weights in one file: safetensors, with the network that they belong to beside them.

The arrays bear the names of `to_torch`'s state, so that a torch module takes them as they are and
`to_onnx` and `to_tflite` too. The file's metadata is one text, "phonenas", a JSON table of

    format, version   "phonenas-weights", 1
    network           block string, resolution and number of classes included
    crc32             of the arrays' bytes: safetensors itself has no checksum
    about             names of the classes, recipe, top-1 and what else was told

Equal weights told alike give equal bytes. Nothing in such a file is run or unpickled when it is
read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.files import write_atomic
from ...space import Architecture
from ...space.errors import (
    InvalidArgument,
    MissingExtra,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)

__all__ = [
    "FORMAT",
    "VERSION",
    "checked",
    "load_weights",
    "save_weights",
    "shapes",
    "weights_about",
]

FORMAT, VERSION = "phonenas-weights", 1
_KEY = "phonenas"  # one key alone: safetensors writes several in any order
_MOST_HEADER_BYTES = 100_000_000  # as safetensors itself has it

Arrays = dict[str, npt.NDArray[np.float32]]


def shapes(network: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array in the state of `to_torch(network)`, in its order."""
    found: dict[str, tuple[int, ...]] = {}
    for i, operator in enumerate(network.operators()):
        for c in operator.convolutions:
            out = (c.out_channels,)
            whole = c.weight_shape
            found[f"{i}.{c.name}.weight"] = whole[:2] if c.name == "classifier" else whole
            if c.normalised:
                parts = ("weight", "bias", "running_mean", "running_var")
                found |= {f"{i}.{c.name}_bn.{part}": out for part in parts}
            else:
                found[f"{i}.{c.name}.bias"] = out
    return found


def save_weights(
    path: Path, network: Architecture, weights: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Write trained weights, whole or not at all.

    Args:
        path: Where, by custom `weights.safetensors`.
        network: Whose they are.
        weights: float32 arrays by the names of `to_torch`'s state.
        about: What else is to be known of them, ready for JSON.
    Raises:
        InvalidArgument: As `checked`.
        MissingExtra: safetensors is not installed.
        StoreError: The disk does not take it; an older file stays whole.
    """
    library, arrays = _library(), checked(network, weights)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "network": str(network),
        "crc32": _checksum(arrays),
        "about": dict(about),
    }
    text = json.dumps(metadata, allow_nan=False)
    content: bytes = library.numpy.save(arrays, {_KEY: text})
    return write_atomic(path, content)


def load_weights(path: str | Path) -> tuple[Architecture, Arrays]:
    """The network and its weights out of a file that `save_weights` wrote.

    Returns:
        The network, and float32 arrays by the names and with the shapes of `shapes`.
    Raises:
        UnknownName: There is no such file.
        UnsupportedFormat: It is damaged, another's, or of another version (both are named).
        MissingExtra: safetensors is not installed.
        StoreError: It cannot be read.
    """
    library, path = _library(), Path(path)
    # Read before it is taken apart: a mapped file that another process cuts short ends us.
    content = _bytes(path)
    metadata = _metadata(path, content)
    network, _ = _network(path, metadata)
    try:
        found = library.numpy.load(content)
    except (library.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {_ANEW}") from error
    wanted = shapes(network)
    wrong = _differences(wanted, found)
    if wrong:
        raise UnsupportedFormat(f"{path} is damaged: {wrong}. {_ANEW}")
    arrays: Arrays = {name: found[name] for name in wanted}
    if metadata.get("crc32") != _checksum(arrays):
        raise UnsupportedFormat(
            f"{path} is damaged: its checksum is not that of its bytes. {_ANEW}"
        )
    return network, arrays


def weights_about(path: str | Path) -> tuple[Architecture, dict[str, Any]]:
    """The network of such a file and what was told beside it, without reading the weights.

    Raises:
        UnknownName, UnsupportedFormat, StoreError: As `load_weights`.
    """
    path = Path(path)
    return _network(path, _metadata(path, _bytes(path, header_alone=True)))


def checked(network: Architecture, weights: Mapping[str, Any]) -> Arrays:
    """The arrays that a network has, contiguous, in its own order.

    Raises:
        InvalidArgument: One is missing, is not of this network, has another shape or type, or
            holds what is no number.
    """
    wanted = shapes(network)
    found = {k: np.asarray(v) for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    wrong = _differences(wanted, found)
    if wrong:
        raise InvalidArgument(f"these are no weights of '{network}': {wrong}")
    for name in wanted:
        if not np.isfinite(found[name]).all():
            raise InvalidArgument(
                f"the weights hold what is no number, in {name}: the training diverged. Train anew "
                "with a lower learning rate."
            )
    return {name: np.ascontiguousarray(found[name]) for name in wanted}


_ANEW = "Export the network anew."


def _differences(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]) -> str:
    """What keeps arrays from being those of a network; "" where nothing does."""
    missing = [n for n in wanted if n not in found]
    foreign = [n for n in found if n not in wanted]
    if missing or foreign:
        words = [f"{len(missing)} arrays are missing, as {missing[0]}"] if missing else []
        words += [f"{len(foreign)} are not the network's, as {foreign[0]}"] if foreign else []
        return "; ".join(words)
    for name, shape in wanted.items():
        if found[name].shape != shape:
            return f"{name} is {found[name].shape}, it should be {shape}"
        if found[name].dtype != np.float32:
            return f"{name} is {found[name].dtype}, it should be float32"
    return ""


def _checksum(arrays: Arrays) -> int:
    found = 0
    for name in sorted(arrays):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(
            np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data, found
        )
    return found


def _bytes(path: Path, *, header_alone: bool = False) -> bytes:
    try:
        if not header_alone:
            return path.read_bytes()
        with path.open("rb") as file:
            size = file.read(8)
            return size + file.read(min(int.from_bytes(size, "little"), _MOST_HEADER_BYTES))
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def _metadata(path: Path, content: bytes) -> dict[str, Any]:
    """What a safetensors file says of itself; of ours alone."""
    size = int.from_bytes(content[:8], "little")
    try:
        if not 0 < size <= min(_MOST_HEADER_BYTES, len(content) - 8):
            raise ValueError("its header is cut short")
        header = json.loads(content[8 : 8 + size])
        told = dict(header.get("__metadata__") or {})
        metadata = dict(json.loads(told.get(_KEY, "{}")))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UnsupportedFormat(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UnsupportedFormat(
            f"{path} holds no trained weights of phonenas: its format is "
            f"{metadata.get('format')!r}, not {FORMAT!r}"
        )
    if metadata.get("version") != VERSION:
        raise UnsupportedFormat(
            f"{path} has version {metadata.get('version')}; this phonenas reads version {VERSION}"
        )
    return metadata


def _network(path: Path, metadata: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    try:
        network = Architecture.parse(metadata["network"])
        about = metadata["about"]
        if not isinstance(about, dict):
            raise ValueError("what is told beside the weights is no table")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {_ANEW}") from error
    return network, about


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtra(
            "trained weights are kept as safetensors, which cannot be imported here. "
            "Install it:  pip install 'phonenas[torch]'"
        ) from error
    return safetensors
