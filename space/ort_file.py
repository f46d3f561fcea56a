"""OrtFile: a network in ONNX Runtime's own format, which is measured whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InvalidArgument, UnknownName, UnsupportedFormat, reading
from .file_inputs import NOT_GIVEN, Given, Input, linked
from .network_file import NetworkFile
from .onnx_file import kind_of, text_of
from .precision import Constant, FileNode, of_nodes

__all__ = ["OrtFile"]

_IDENTIFIER = b"ORTM"
_MOST_BYTES = 4 << 30
_MOST_PARTS = 100_000


@dataclass(frozen=True)
class OrtFile(NetworkFile):
    """A network in an ORT file, as a subject to measure; arguments as of `NetworkFile`.

    Args:
        kinds: Type of each input, as numpy calls it.
    """

    kinds: tuple[tuple[str, str], ...] = ()

    @classmethod
    def at(cls, path: Path, macs: int = 0, given: Given = NOT_GIVEN) -> OrtFile:
        """The file at a path, with what a user says of its inputs.

        Raises:
            UnknownName, InvalidArgument: No such file, it cannot be read, or a side stays free.
            UnsupportedFormat: It is no such file, or damaged.
        """
        try:
            if not 8 < path.stat().st_size < _MOST_BYTES:
                raise UnsupportedFormat(f"{path} holds {path.stat().st_size:,} bytes: no ORT file")
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise UnknownName(f"there is no file {path}") from error
        except OSError as error:
            raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
        if content[4:8] != _IDENTIFIER:
            raise UnsupportedFormat(f"{path} is not an ORT file: it does not say {_IDENTIFIER!r}")
        with reading(str(path), "Convert the network again."):
            inputs, computed = _graph(content)
        file = cls.given(path, (path,), inputs, given, macs, computed)
        return replace(file, kinds=tuple((i.name, i.dtype) for i in inputs))

    def write(self, path: Path) -> Path:
        """Link it at a path; shapes that are set go beside it, as an .npz file of inputs."""
        return linked(self.path, path, self.inputs, dict(self.shapes), dict(self.kinds))


def _graph(content: bytes) -> tuple[list[Input], tuple[str, str]]:
    """Its inputs, and what it computes in: as `of_nodes`."""
    from onnx import helper
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py import fbs
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import (
        InferenceSession,
        TensorTypeAndShape,
    )

    assert fbs is not None
    graph = InferenceSession.InferenceSession.GetRootAs(content, 0).Model().Graph()
    counts = (
        graph.NodeArgsLength(),
        graph.NodesLength(),
        graph.InitializersLength(),
        graph.InputsLength(),
    )
    if max(counts) > _MOST_PARTS:
        raise ValueError(f"over {_MOST_PARTS:,} nodes or tensors")
    constants: dict[str, Constant] = {}
    for i in range(counts[2]):
        tensor = graph.Initializers(i)
        sides = [int(tensor.Dims(j)) for j in range(min(16, tensor.DimsLength()))]
        constants[text_of(tensor.Name())] = Constant(kind_of(tensor.DataType()), math.prod(sides))
    wanted = [n for i in range(counts[3]) if (n := text_of(graph.Inputs(i))) not in constants]
    found: dict[str, Input] = {}
    kinds = []
    for i in range(counts[0]):
        value = graph.NodeArgs(i)
        name = text_of(value.Name())
        if name not in wanted or value.Type() is None:
            continue
        kind = TensorTypeAndShape.TensorTypeAndShape()
        kind.Init(value.Type().Value().Bytes, value.Type().Value().Pos)
        kinds.append(kind_of(kind.ElemType()))
        dtype = str(helper.tensor_dtype_to_np_dtype(kind.ElemType()))
        found[name] = Input(name, dtype, _sides(kind.Shape()))
    if len(found) != len(wanted):
        raise ValueError("an input without a type")
    nodes = [_node(graph.Nodes(i)) for i in range(counts[1])]
    return [found[n] for n in wanted], of_nodes(nodes, constants, kinds)


def _node(node: Any) -> FileNode:
    if max(node.InputsLength(), node.OutputsLength(), node.AttributesLength()) > _MOST_PARTS:
        raise ValueError(f"a node of over {_MOST_PARTS:,} tensors")
    inputs = tuple(text_of(node.Inputs(i)) for i in range(node.InputsLength()))
    outputs = tuple(text_of(node.Outputs(i)) for i in range(node.OutputsLength()))
    op, to = text_of(node.OpType()), ""
    for i in range(node.AttributesLength() if op == "Cast" else 0):
        if text_of(node.Attributes(i).Name()) == "to":
            to = kind_of(node.Attributes(i).I())
    return FileNode(op, text_of(node.Name()), inputs, outputs, to)


def _sides(shape: Any) -> tuple[int | str, ...] | None:
    if shape is None:
        return None
    sides: list[int | str] = []
    for j in range(min(shape.DimLength(), 16)):
        value = shape.Dim(j).Value()
        size = 0 if value is None else value.DimValue()
        name = b"" if value is None else value.DimParam() or b""
        sides.append(int(size) if size > 0 else name.decode("utf-8", "replace") or "?")
    return tuple(sides)
