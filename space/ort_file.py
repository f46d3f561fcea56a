"""OrtFile: a network in ONNX Runtime's own format, which is measured whole."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InvalidArgument, UnknownName, UnsupportedFormat, reading
from .file_inputs import NOT_GIVEN, Given, Input, linked
from .network_file import NetworkFile

__all__ = ["OrtFile"]

_IDENTIFIER = b"ORTM"
_MOST_BYTES = 4 << 30
_MOST_PARTS = 100_000
_PRECISIONS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}  # TensorProto.DataType
_QUANTISED = ("QLinear", "Quantize", "Dequantize", "ConvInteger", "MatMulInteger")


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
            inputs, precision = _graph(content)
        file = cls.given(path, (path,), inputs, given, macs, precision)
        return replace(file, kinds=tuple((i.name, i.dtype) for i in inputs))

    def write(self, path: Path) -> Path:
        """Link it at a path; shapes that are set go beside it, as an .npz file of inputs."""
        return linked(self.path, path, self.inputs, dict(self.shapes), dict(self.kinds))


def _graph(content: bytes) -> tuple[list[Input], str]:
    """Its inputs, and what it computes in: the type of most weights."""
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
    stored = [graph.Initializers(i) for i in range(counts[2])]
    numbers: Counter[int] = Counter()
    for tensor in stored:
        numbers[tensor.DataType()] += math.prod(
            int(tensor.Dims(j)) for j in range(min(16, tensor.DimsLength()))
        )
    names = {tensor.Name() for tensor in stored}
    wanted = [n for i in range(counts[3]) if (n := graph.Inputs(i)) not in names]
    found: dict[bytes, Input] = {}
    for i in range(counts[0]):
        value = graph.NodeArgs(i)
        if value.Name() not in wanted or value.Type() is None:
            continue
        kind = TensorTypeAndShape.TensorTypeAndShape()
        kind.Init(value.Type().Value().Bytes, value.Type().Value().Pos)
        numbers[kind.ElemType()] += 0
        dtype = str(helper.tensor_dtype_to_np_dtype(kind.ElemType()))
        name = value.Name().decode("utf-8", "replace")
        found[value.Name()] = Input(name, dtype, _sides(kind.Shape()))
    if len(found) != len(wanted):
        raise ValueError("an input without a type")
    ops = [(graph.Nodes(i).OpType() or b"").decode("utf-8", "replace") for i in range(counts[1])]
    known = {k: n for k, n in numbers.items() if k in _PRECISIONS}
    precision = _PRECISIONS[max(known, key=lambda k: known[k])] if known else "float32"
    if any(op.startswith(_QUANTISED) for op in ops):
        precision = "int8"
    return [found[n] for n in wanted], precision


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
