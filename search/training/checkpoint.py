"""Tensors and a description in one file, whole or not there; nothing is pickled.

The file is a safetensors file. Its string metadata holds the description as JSON, with the format,
its version and a checksum of the tensors' bytes: safetensors itself has none.

torch and safetensors are imported by this room: it is imported where it is used.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...data.files import write_atomic
from ...space.errors import StoreError, UnsupportedFormat

__all__ = ["FORMAT", "VERSION", "Checkpoint", "read", "write"]

FORMAT, VERSION = "phonenas-training", 1


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, on the CPU, and what was written beside them."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


def write(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document, atomically.

    Args:
        path: A .safetensors file.
        tensors: On any device, in any memory layout; 1:1 copies are written.
        document: What JSON takes.
    Raises:
        StoreError: The disk does not take it; the older file stays whole.
    """
    # A copy of each: two names may share one memory, which safetensors refuses, and the kept
    # ones must not change while they are written.
    plain = {
        name: t.detach().to("cpu", copy=True).contiguous() for name, t in sorted(tensors.items())
    }
    header = {"format": FORMAT, "version": VERSION, "crc32": _checksum(plain), **document}
    content = safetensors.torch.save(plain, metadata={"phonenas": json.dumps(header)})
    write_atomic(path, content)


def read(path: Path, remedy: str) -> Checkpoint | None:
    """What `write` wrote; None if there is no such file.

    Args:
        path: The file.
        remedy: What the user should do if it is damaged, a sentence.
    Raises:
        UnsupportedFormat: It is damaged, of another kind or of another version.
        StoreError: It cannot be read.
    """
    if not path.exists():
        return None
    try:
        # Read before it is taken apart: a mapped file that another process cuts short ends us.
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        document = json.loads(header["__metadata__"]["phonenas"])
        if document["format"] != FORMAT:
            raise ValueError("another format")
        version = document["version"]
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UnsupportedFormat(f"{path} is damaged, or no file of a training. {remedy}") from error
    if version != VERSION:
        raise UnsupportedFormat(
            f"{path} has version {version}; this phonenas reads version {VERSION}. {remedy}"
        )
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedFormat(f"{path} is damaged: {error}. {remedy}") from error
    if _checksum(tensors) != document.get("crc32"):
        raise UnsupportedFormat(
            f"{path} is damaged: its checksum is not that of its bytes. {remedy}"
        )
    return Checkpoint(tensors, document)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        if tensors[name].numel():
            data = tensors[name].reshape(-1).view(torch.uint8).numpy()
            found = zlib.crc32(data.data, found)
    return found
