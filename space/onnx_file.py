"""OnnxFile: a network that somebody else wrote, by its file; and its graph without the weights.

A file of 500 MB is weights, but for some kilobytes, and no time depends on their values. So the
file is walked field by field (protocol buffers, wire format), large tensors keep their name,
type and shape, and only what is left is parsed. Weights that lie in other files are never opened.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidArgument, UnknownName, UnsupportedFormat

__all__ = ["OnnxFile", "elsewhere", "graph_bytes", "without_weights"]

_LARGE_BYTES = 4096  # of a tensor: shapes and bounds are far smaller
_MOST_BYTES = 16 << 30
_MOST_LEFT_BYTES = 64 << 20
_PIECE_BYTES = 64  # that a piece costs beside its own bytes
_DIGEST = 12
# Numbers of the fields in onnx.proto that lead to tensors: graph; node → attribute → t; initializer.
_GRAPH, _NODE, _INITIALIZER, _SPARSE, _ATTRIBUTE, _TENSOR = 7, 1, 5, 15, 5, 5
_KEPT_OF_TENSOR = {1, 2, 8, 14}  # dims, data_type, name, data_location


@dataclass(frozen=True)
class OnnxFile:
    """A network in an ONNX file, as a subject to measure.

    Args:
        name: Of the file, without its folders.
        digest: Of the graph, weights left out: two files of one digest take the same time.
        path: Where it lies.
        macs: Multiply-adds of one image, to estimate how long measuring takes.
    """

    name: str
    digest: str
    path: Path
    macs: int = 0

    @classmethod
    def at(cls, path: Path, macs: int = 0) -> OnnxFile:
        """The file at a path.

        Raises:
            UnknownName, InvalidArgument: No such file, or it cannot be read.
            UnsupportedFormat: It is damaged or far too large.
        """
        return cls.of(graph_bytes(path), path, macs)

    @classmethod
    def of(cls, graph: bytes, path: Path, macs: int = 0) -> OnnxFile:
        """`at` with its graph in hand, as `graph_bytes` gives it."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:80]
        return cls(name, hashlib.sha256(graph).hexdigest()[:_DIGEST], path, macs)

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"{self.name}#{self.digest}"

    def __str__(self) -> str:
        return self.key


def graph_bytes(path: Path) -> bytes:
    """A serialised model without its large tensors, read from a file.

    Raises:
        UnknownName, InvalidArgument, UnsupportedFormat: As `OnnxFile.at`.
    """
    try:
        size = path.stat().st_size
        if not 0 < size <= _MOST_BYTES:
            raise UnsupportedFormat(f"{path} holds {size:,} bytes: no ONNX model to take apart")
        with path.open("rb") as file:
            # Closed with its last view: an error on its way up may still hold one.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return without_weights(memoryview(data), str(path))
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UnsupportedFormat):
            raise
        raise InvalidArgument(f"{path} cannot be read: {error}") from error


def elsewhere(model: Any) -> str | None:
    """Name of a tensor whose numbers lie in another file, wherever it stands in a model; or None.

    Args:
        model: An `onnx.ModelProto`.
    """
    bodies = [model.graph, *model.functions]
    while bodies:
        body = bodies.pop()
        tensors = list(getattr(body, "initializer", ()))
        sparse = list(getattr(body, "sparse_initializer", ()))
        for node in body.node:
            for a in node.attribute:
                tensors += [a.t, *a.tensors]
                sparse += [a.sparse_tensor, *a.sparse_tensors]
                bodies += [g for g in (a.g, *a.graphs) if g.node or g.initializer]
        tensors += [t for s in sparse for t in (s.values, s.indices)]
        found = next((t for t in tensors if t.data_location or t.external_data), None)
        if found is not None:
            return found.name or "a tensor without a name"
    return None


def without_weights(data: bytes | memoryview, name: str = "the model") -> bytes:
    """A serialised model without the numbers of its large tensors; their shapes stay.

    Raises:
        UnsupportedFormat: It is cut short or no such message; or too much is left.
    """
    view = memoryview(data)
    left = _Left(name)
    try:
        _rebuilt(view, (_GRAPH,), left, name)
    except (IndexError, RecursionError) as error:
        raise UnsupportedFormat(f"{name} is no ONNX model, or is cut short") from error
    return b"".join(left)


class _Left(list[bytes]):
    """What is left of a message; it may not grow without limit."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.size = name, 0

    def keep(self, part: memoryview) -> None:
        """Append a copy.

        Raises:
            UnsupportedFormat: More is left than any network of images has.
        """
        self.size += len(part) + _PIECE_BYTES
        if self.size > _MOST_LEFT_BYTES:
            raise UnsupportedFormat(
                f"{self.name}: more than {_MOST_LEFT_BYTES >> 20} MiB are left without its weights; no "
                "network of images is as large"
            )
        self.append(bytes(part))


def _rebuilt(view: memoryview, path: tuple[int, ...], left: _Left, name: str) -> None:
    """Append a message to `left`, large tensors at the end of field paths from here emptied."""
    for number, start, body, end in _fields(view):
        size = end - body
        if path == (_GRAPH,) and number == _GRAPH:
            _nested(view, start, body, end, (_NODE, _INITIALIZER), left, name)
        elif path == (_NODE, _INITIALIZER) and number == _SPARSE:
            raise UnsupportedFormat(f"{name} holds sparse weights, which are not taken apart")
        elif size > _LARGE_BYTES and path == (_NODE, _INITIALIZER) and number == _INITIALIZER:
            _emptied(view, start, body, end, left)
        elif size > _LARGE_BYTES and path == (_NODE, _INITIALIZER) and number == _NODE:
            _nested(view, start, body, end, (_ATTRIBUTE,), left, name)
        elif size > _LARGE_BYTES and path == (_ATTRIBUTE,) and number == _ATTRIBUTE:
            _nested(view, start, body, end, (_TENSOR,), left, name)
        elif size > _LARGE_BYTES and path == (_TENSOR,) and number == _TENSOR:
            _emptied(view, start, body, end, left)
        else:
            left.keep(view[start:end])


def _nested(
    view: memoryview, start: int, body: int, end: int, path: tuple[int, ...], left: _Left, name: str
) -> None:  # fmt: skip
    inner = _Left(name)
    inner.size = left.size
    _rebuilt(view[body:end], path, inner, name)
    left.size = inner.size
    _message(view[start], inner, left)


def _emptied(view: memoryview, start: int, body: int, end: int, left: list[bytes]) -> None:
    tensor = view[body:end]
    kept = [bytes(tensor[s:e]) for number, s, _, e in _fields(tensor) if number in _KEPT_OF_TENSOR]
    _message(view[start], kept, left)


def _message(tag: int, parts: list[bytes], left: list[bytes]) -> None:
    joined = b"".join(parts)
    size, length = len(joined), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    left.append(bytes([tag]) + bytes(length) + joined)


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Number, start, start of the content and end of each field of a message.

    Raises:
        IndexError: The message ends in the middle of a field, or holds an unknown kind of one.
    """
    at, whole = 0, len(view)
    while at < whole:
        start = at
        tag, at = _varint(view, at)
        kind = tag & 7
        body = at
        if kind == 0:
            _, at = _varint(view, at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            size, body = _varint(view, at)
            at = body + size
        else:
            raise IndexError(f"wire type {kind}")
        if at > whole or not tag >> 3:
            raise IndexError("cut short")
        yield tag >> 3, start, body, at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")
