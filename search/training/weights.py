"""Tensors in one file, whole or absent: trained weights, and the checkpoints of trainings.

Both are safetensors files, as `phonenas.space.lowering.weights_file` describes them. A checkpoint
has the format "phonenas-training", and any JSON beside its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.data.files import write_atomic
from phonenas.space import Classifier, zoo
from phonenas.space.errors import StoreError, UnknownName, UnsupportedFormat
from phonenas.space.lowering.weights_file import (
    FORMAT,
    METADATA_KEY,
    VERSION,
    Arrays,
    checksum,
    differences,
    safetensors_or_extra,
    shapes,
    weights_bytes,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]

_CHECKPOINT = "phonenas-training"
_NOUNS = {FORMAT: "trained weights", _CHECKPOINT: "checkpoint of a training"}
_MOST_HEADER_BYTES = 100_000_000  # as safetensors itself has it
_EXPORT_AGAIN = "Export the network again."


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, on the CPU, and what was written beside them."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document, whole or not at all.

    Args:
        path: A .safetensors file.
        tensors: On any device, in any memory layout; 1:1 copies are written.
        document: What JSON takes.
    Raises:
        StoreError: The disk does not take it; the older file stays whole.
    """
    from safetensors.torch import save

    # A copy of each: two names may share one memory, which safetensors refuses, and the kept
    # ones must not change while they are written.
    plain = {
        name: t.detach().to("cpu", copy=True).contiguous() for name, t in sorted(tensors.items())
    }
    header = {"format": _CHECKPOINT, "version": VERSION, "crc32": _checksum(plain), **document}
    write_atomic(path, save(plain, metadata={METADATA_KEY: json.dumps(header)}))


def load_checkpoint(path: Path, remedy: str) -> Checkpoint | None:
    """What `save_checkpoint` wrote; None if there is no such file.

    Args:
        path: The file.
        remedy: What the user should do if it is damaged, a sentence.
    Raises:
        UnsupportedFormat: It is damaged, of another kind or of another version.
        StoreError: It cannot be read.
    """
    from safetensors.torch import load

    if not path.exists():
        return None
    content = _bytes(path)
    document = _document(path, content, _CHECKPOINT, remedy)
    try:
        tensors = load(content)
    except (safetensors_or_extra().SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {remedy}") from error
    if _checksum(tensors) != document.get("crc32"):
        raise UnsupportedFormat(
            f"{path} is damaged: its checksum is not that of its bytes. {remedy}"
        )
    return Checkpoint(tensors, document)


def save_weights(
    path: Path, network: Classifier, weights: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Write trained weights, whole or not at all.

    Args:
        path: Usually `weights.safetensors`.
        network: The network that they belong to.
        weights: float32 arrays by the names of `to_torch`'s state.
        about: What else to know about them, ready for JSON.
    Raises:
        InvalidArgument: As `checked`.
        MissingExtra: safetensors is not installed.
        StoreError: The disk does not take it; an older file stays whole.
    """
    return write_atomic(path, weights_bytes(network, weights, about))


def load_weights(path: str | Path) -> tuple[Classifier, Arrays]:
    """The network and its weights out of a file that `save_weights` wrote.

    Returns:
        The network, and float32 arrays by the names and with the shapes of `shapes`.
    Raises:
        UnknownName: There is no such file.
        UnsupportedFormat: It is damaged, another's, or of another version (both are named).
        MissingExtra: safetensors is not installed.
        StoreError: It cannot be read.
    """
    library, path = safetensors_or_extra(), Path(path)
    content = _bytes(path)
    document = _document(path, content, FORMAT, _EXPORT_AGAIN)
    try:
        network = zoo.parse(document["network"])
        if not isinstance(document["about"], dict):
            raise ValueError("its key 'about' is not a table")
        arrays: Arrays = library.numpy.load(content)
    except (library.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {_EXPORT_AGAIN}") from error
    wanted = shapes(network)
    wrong = differences(wanted, arrays)
    if not wrong and document.get("crc32") != checksum(arrays):
        wrong = "its checksum is not that of its bytes"
    if wrong:
        raise UnsupportedFormat(f"{path} is damaged: {wrong}. {_EXPORT_AGAIN}")
    return network, {name: arrays[name] for name in wanted}


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """As `checksum`, of tensors on the CPU: numpy has not all of torch's types, but their bytes."""
    import torch

    content: dict[str, Any] = {}
    for name, t in tensors.items():
        content[name] = np.zeros(0, np.uint8)
        if t.numel():
            content[name] = t.reshape(-1).view(torch.uint8).numpy()
    return checksum(content)


def _bytes(path: Path) -> bytes:
    """Read before it is parsed: a mapped file that another process truncates ends this one."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def _document(path: Path, content: bytes, kind: str, remedy: str) -> dict[str, Any]:
    """The JSON in a safetensors file, its format and version checked."""
    size = int.from_bytes(content[:8], "little")
    try:
        if not 0 < size <= min(_MOST_HEADER_BYTES, len(content) - 8):
            raise ValueError("its header is cut short")
        header = json.loads(content[8 : 8 + size])
        metadata = dict(header.get("__metadata__") or {})
        document = dict(json.loads(metadata.get(METADATA_KEY, "{}")))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UnsupportedFormat(
            f"{path} is damaged or no safetensors file: {error}. {remedy}"
        ) from error
    if document.get("format") != kind:
        raise UnsupportedFormat(
            f"{path} holds no {_NOUNS[kind]} of phonenas: its format is "
            f"{document.get('format')!r}, not {kind!r}. {remedy}"
        )
    if document.get("version") != VERSION:
        raise UnsupportedFormat(
            f"{path} has version {document.get('version')}; this phonenas reads version "
            f"{VERSION}. {remedy}"
        )
    return document
