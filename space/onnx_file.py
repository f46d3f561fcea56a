"""OnnxFile: a network that somebody else wrote, by its file; its inputs and its precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .errors import UnsupportedFormat
from .file_inputs import NOT_GIVEN, Given, Input, Shape, link_or_copy, plain_file_name
from .network_file import NetworkFile, short_digest
from .onnx_bytes import beside, elsewhere, graph_bytes, parsed_onnx, whole_model, without_weights
from .precision import Constant, FileNode, of_nodes

__all__ = [
    "OnnxFile",
    "elsewhere",
    "graph_bytes",
    "inputs_of",
    "kind_of",
    "precision_of",
    "set_shapes",
    "text_of",
    "whole_model",
    "without_weights",
]

_BFLOAT16, _INT4 = 16, {21, 22}  # of TensorProto.DataType


class OnnxFile(NetworkFile):
    """A network in an ONNX file, as a subject to measure; arguments as of `NetworkFile`."""

    @classmethod
    def at(cls, path: Path, macs: int = 0, given: Given = NOT_GIVEN) -> OnnxFile:
        """The file at a path, with what a user says of its inputs.

        Raises:
            UnknownName, InvalidArgument: No such file, it cannot be read, or a side stays free.
            UnsupportedFormat: It is damaged or far too large, or weights lie outside its folder.
        """
        data = graph_bytes(path)
        inputs = inputs_of(parsed_onnx(data, str(path)))
        pieces = (path, *sorted(beside(path)))
        return cls.given(path, pieces, inputs, given, macs, precision_of(data, str(path)))

    @classmethod
    def of(cls, graph: bytes, path: Path, macs: int = 0) -> OnnxFile:
        """A graph without its weights, in hand: it says nothing of their values."""
        precision, odd = precision_of(graph, str(path))
        return cls(plain_file_name(path), short_digest(graph), path, macs, precision, odd)

    def write(self, path: Path) -> Path:
        """Write it in one file with its shapes set; a link where it is that already.

        The input file goes beside it, under its name and `.npz`.

        Raises:
            UnsupportedFormat: As `whole_model`.
        """
        if self.shapes or beside(self.path):
            whole = whole_model(self.path)
            if self.shapes:
                set_shapes(whole, dict(self.shapes))
            path.write_bytes(whole.SerializeToString())
        else:
            link_or_copy(self.path, path)
        if self.inputs is not None:
            link_or_copy(self.inputs, path.with_suffix(".npz"))
        return path


def precision_of(graph: bytes, name: str = "the model") -> tuple[str, str]:
    """What a network computes in, and which layers differ from most: see `of_nodes`.

    Args:
        graph: As `graph_bytes` gives it.
        name: What errors call it.
    Raises:
        UnsupportedFormat: It is no ONNX model.
    """
    model = parsed_onnx(graph, name)
    constants = {
        t.name: Constant(kind_of(t.data_type), math.prod(t.dims)) for t in model.graph.initializer
    }
    nodes = []
    for place, body in enumerate((model.graph, *model.functions)):
        own = f"{place}:" if place else ""  # a function's names are its own
        for node in body.node:
            op, outputs = text_of(node.op_type), tuple(own + text_of(o) for o in node.output if o)
            to = ""
            for a in node.attribute:
                if op == "Constant" and a.HasField("t"):
                    kind = Constant(kind_of(a.t.data_type), math.prod(a.t.dims))
                    constants.update(dict.fromkeys(outputs, kind))
                if op == "Cast" and text_of(a.name) == "to":
                    to = kind_of(a.i)
            if op != "Constant":
                inputs = tuple(own + text_of(i) for i in node.input)
                nodes.append(FileNode(op, text_of(node.name), inputs, outputs, to))
    given = [kind_of(i.type.tensor_type.elem_type) for i in model.graph.input]
    return of_nodes(nodes, constants, given)


def kind_of(number: int) -> str:
    """numpy's name of an element type; "" where there is none."""
    from onnx import helper

    if number in _INT4:
        return "int4"
    try:
        return str(helper.tensor_dtype_to_np_dtype(number)) if number != _BFLOAT16 else "bfloat16"
    except KeyError:
        return ""


def text_of(text: str | bytes | None) -> str:
    """A text of a file; a damaged one holds bytes that are none."""
    if text is None:
        return ""
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def inputs_of(model: Any) -> list[Input]:
    """The inputs of an `onnx.ModelProto`, those with a stored value left out."""
    from onnx import helper

    stored = {t.name for t in model.graph.initializer}
    stored |= {t.values.name for t in model.graph.sparse_initializer}
    found = []
    for given in model.graph.input:
        if given.name in stored:
            continue
        tensor = given.type.tensor_type
        if not given.type.HasField("tensor_type"):
            kind = given.type.WhichOneof("value") or "no type"
            raise UnsupportedFormat(
                f"input {given.name} is {kind.removesuffix('_type')}, and no tensor: it has no "
                "fixed shape"
            )
        try:
            dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except KeyError:
            dtype = f"type {tensor.elem_type}"
        sides = None
        if tensor.HasField("shape"):
            sides = tuple(
                d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim
            )
        found.append(Input(given.name, dtype, sides))
    return found


def set_shapes(model: Any, shapes: dict[str, Shape]) -> None:
    """Give inputs of an `onnx.ModelProto` their shapes; those of other tensors are forgotten."""
    del model.graph.value_info[:]
    for out in model.graph.output:
        if out.type.HasField("tensor_type"):
            out.type.tensor_type.ClearField("shape")
    for given in model.graph.input:
        if given.name in shapes:
            its = given.type.tensor_type.shape
            its.ClearField("dim")
            its.SetInParent()
            for side in shapes[given.name]:
                its.dim.add(dim_value=side)
