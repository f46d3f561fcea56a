"""The graph of an ONNX file without its weights, and the file with all weights in one.

A file of 500 MB is weights, but for some kilobytes, and no shape depends on their values. So the
file is walked field by field (protocol buffers, wire format), large tensors keep their name,
type and shape, and only what is left is parsed. Weights may lie in other files of the model's own
folder, and nowhere else.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InvalidArgument, UnknownName, UnsupportedFormat

__all__ = ["beside", "elsewhere", "graph_bytes", "parsed_onnx", "whole_model", "without_weights"]

_LARGE_BYTES = 4096  # of a tensor: shapes and bounds are far smaller
_MOST_BYTES = 16 << 30
_MOST_LEFT_BYTES = 64 << 20
_PIECE_BYTES = 64  # that a piece costs beside its own bytes
# Numbers of the fields in onnx.proto that lead to tensors: graph; node → attribute → t;
# initializer.
_GRAPH, _NODE, _INITIALIZER, _SPARSE, _ATTRIBUTE, _TENSOR = 7, 1, 5, 15, 5, 5
_INT4 = {21, 22}
_KEPT_OF_TENSOR = {1, 2, 8, 14}  # dims, data_type, name, data_location
_MOST_WHOLE_BYTES = (2 << 30) - (1 << 20)  # of one message


def graph_bytes(path: Path) -> bytes:
    """A serialised model without its large tensors, read from a file.

    Small tensors in other files of its folder are read; they may be shapes.

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
        return _held(without_weights(memoryview(data), str(path)), path)
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UnsupportedFormat):
            raise
        raise InvalidArgument(f"{path} cannot be read: {error}") from error


def whole_model(path: Path) -> Any:
    """An `onnx.ModelProto` with the weights that lie beside it.

    Raises:
        UnsupportedFormat: They are more than one file may hold, or lie outside its folder.
    """
    import onnx

    others = beside(path)
    size = sum(p.stat().st_size for p in (path, *others))
    if others and size > _MOST_WHOLE_BYTES:
        raise UnsupportedFormat(
            f"{path} and its weights are {size / 1e9:.1f} GB; one ONNX file that is sent to a "
            "device holds 2 GB"
        )
    model = onnx.load(str(path), load_external_data=False)
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location:
            piece = _piece(tensor, path)
            _fill(tensor, piece.read())
    return model


class _Piece(NamedTuple):
    """Where the numbers of a tensor lie."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def _piece(tensor: Any, path: Path) -> _Piece:
    """Where the numbers of an external tensor lie.

    Raises:
        UnsupportedFormat: Outside the model's own folder, in a file that is not there or is too
            short, or the tensor says no such thing.
    """
    from onnx import helper

    said = {e.key: e.value for e in tensor.external_data}
    location = said.get("location", "")
    what = f"{path}: the numbers of {tensor.name or 'a tensor'} lie in {location!r}"
    # Download caches link a model and its data to one folder of theirs.
    folders = (path.parent.resolve(), path.resolve().parent)
    try:
        place = (path.parent / location).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise UnsupportedFormat(f"{what}, which is no path") from error
    if not location or not any(place.is_relative_to(f) for f in folders):
        raise UnsupportedFormat(
            f"{what}, outside the model's own folder, and it is not opened. Save both in one folder"
        )
    if not place.is_file():
        raise UnsupportedFormat(f"{what}, and that file is not there. Put it beside the model")
    try:
        bits = 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError as error:
        raise UnsupportedFormat(f"{what}, and have no type") from error
    bits = 4 if tensor.data_type in _INT4 else bits
    size = -(-math.prod(tensor.dims) * bits // 8)
    try:
        start, length = int(said.get("offset") or 0), int(said.get("length") or size)
    except ValueError as error:
        raise UnsupportedFormat(f"{what}, at a place that is no number") from error
    if start < 0 or length != size or start + length > place.stat().st_size:
        raise UnsupportedFormat(f"{what}, which does not hold its {size:,} bytes: it is cut short")
    return _Piece(place, start, size)


def beside(path: Path) -> set[Path]:
    """Other files that hold weights of a model.

    Raises:
        UnsupportedFormat: As `_piece`.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    bare = without_weights(memoryview(data), str(path))
    if b"location" not in bare:
        return set()
    external = (t for t in _tensors(parsed_onnx(bare, str(path))) if _external(t))
    return {_piece(t, path).path for t in external}


def _held(data: bytes, path: Path) -> bytes:
    """A graph without references to other files: small tensors read, large ones emptied."""
    if b"location" not in data:
        return data
    model = parsed_onnx(data, str(path))
    for tensor in _tensors(model):
        if _external(tensor):
            piece = _piece(tensor, path)
            _fill(tensor, piece.read() if piece.size <= _LARGE_BYTES else b"")
    return bytes(model.SerializeToString())


def _fill(tensor: Any, numbers: bytes) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    if numbers:
        tensor.raw_data = numbers


def _external(tensor: Any) -> bool:
    return bool(tensor.data_location or tensor.external_data)


def parsed_onnx(graph: bytes, name: str) -> Any:
    """An `onnx.ModelProto`.

    Raises:
        UnsupportedFormat: It is none.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.ModelProto.FromString(graph)
    except (DecodeError, RecursionError) as error:
        raise UnsupportedFormat(f"{name} is not a valid ONNX model: {str(error)[:200]}") from error


def elsewhere(model: Any) -> str | None:
    """Name of a tensor whose numbers lie in another file, anywhere in a model; or None.

    Args:
        model: An `onnx.ModelProto`.
    """
    external = next((t for t in _tensors(model) if _external(t)), None)
    return None if external is None else external.name or "a tensor without a name"


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor that a model stores, anywhere."""
    bodies = [model.graph, *model.functions]
    while bodies:
        body = bodies.pop()
        yield from getattr(body, "initializer", ())
        sparse = list(getattr(body, "sparse_initializer", ()))
        for node in body.node:
            for a in node.attribute:
                if a.HasField("t"):
                    yield a.t
                yield from a.tensors
                sparse += [a.sparse_tensor] if a.HasField("sparse_tensor") else []
                sparse += a.sparse_tensors
                bodies += [g for g in (a.g, *a.graphs) if g.node or g.initializer]
        for s in sparse:
            yield s.values
            yield s.indices


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
        raise UnsupportedFormat(f"{name} is not an ONNX model, or is cut short") from error
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
                f"{self.name} has more than {_MOST_LEFT_BYTES >> 20} MiB without its weights; no "
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
) -> None:
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
