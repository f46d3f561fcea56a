"""An ONNX graph made ready to be cut: shapes known, constants and dead ends gone, twins merged.

What a runtime's first pass does, without the weights: nodes whose inputs are all constant are
computed once, at loading; what no output needs is dropped; two nodes that compute the same from
the same are one; identities and dropouts are names.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space.errors import PhonenasError, UncoveredOperator, UnsupportedFormat
from ..space.onnx_file import elsewhere

__all__ = ["Graph", "Node", "Shape", "read_graph"]

Shape = tuple[int, ...]
_MOST_NODES = 20_000
_MOST_NUMBERS = 1 << 31  # of one tensor
_TWIN_NUMBERS = 8  # a runtime compares constants up to this size by their content
_NAMES_ONLY = ("Identity", "Dropout")
_FLOATS = (1, 10, 11, 16)
_QUANTISED = ("QLinear", "ConvInteger", "MatMulInteger", "QGemm")
_SUBGRAPHS = ("Loop", "If", "Scan", "SequenceMap")


@dataclass(frozen=True)
class Node:
    """One node, its inputs by the names that hold after twins and identities are merged."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False, compare=False, default_factory=dict)


@dataclass
class Graph:
    """What is computed for each image.

    Args:
        name: Of the network.
        nodes: In an order in which they can run.
        shapes: Of each tensor.
        constants: Names of tensors that are known at loading.
        values: Of the small ones among them, such as bounds and axes.
        inputs, outputs: Of the whole.
        notes: What was assumed.
    """

    name: str
    nodes: list[Node]
    shapes: dict[str, Shape]
    constants: set[str]
    values: dict[str, npt.NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        self.users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                self.users.setdefault(name, []).append(node)

    def only_user(self, tensor: str) -> Node | None:
        """The one node that reads a tensor, if it is one and the tensor is no output."""
        users = self.users.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.outputs else None


def read_graph(graph: bytes, name: str, known: Container[str]) -> Graph:
    """A graph from a serialised model, whose large tensors may be emptied.

    Args:
        graph: As `graph_bytes` gives it.
        name: What errors call it.
        known: Types of nodes that can be taken apart; others may only compute constants.
    Raises:
        UnsupportedFormat: It is no model, or of a kind that has no fixed shapes; says which part
            and what to do.
        UncoveredOperator: It holds nodes that are never taken apart (loops, foreign domains).
    """
    import onnx

    try:
        model = onnx.ModelProto.FromString(graph)
        inputs, notes = _settle(model, name)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return _made(model, name, inputs, notes, known)
    except PhonenasError:
        raise
    except Exception as error:
        # Whatever a damaged file makes the library raise.
        raise UnsupportedFormat(f"{name} is no sound ONNX model: {str(error)[:200]}") from error


def _settle(model: Any, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check what is there, give the batch its size; names of the inputs, and what was assumed."""
    import onnx

    graph = model.graph
    if not graph.node or not graph.output:
        raise UnsupportedFormat(f"{name} holds no ONNX graph")
    if len(graph.node) > _MOST_NODES:
        raise UnsupportedFormat(
            f"{name} has {len(graph.node):,} nodes; up to {_MOST_NODES:,} are taken apart"
        )
    for node in graph.node:
        what = f"{name}: node {node.name or node.output[:1]!r} of type"
        if node.domain not in ("", "ai.onnx"):
            raise UncoveredOperator(
                f"{what} {node.domain}.{node.op_type} is of a runtime's own domain; export the "
                "network before it is optimised or quantised"
            )
        if node.op_type in _SUBGRAPHS or any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UncoveredOperator(
                f"{what} {node.op_type} runs as often as the data say: the network has no one latency"
            )
    held = {t.name: t for t in graph.initializer}
    outside = elsewhere(model)
    if outside is not None:
        raise UnsupportedFormat(
            f"{name}: {outside} lies in another file, which is not opened. Save the model in one "
            "file:  onnx.save(onnx.load(PATH), 'one.onnx')"
        )
    del graph.value_info[:]
    for out in graph.output:
        out.type.tensor_type.ClearField("shape")
    notes = []
    inputs = tuple(i.name for i in graph.input if i.name not in held)
    for given in graph.input:
        if given.name in held:
            continue
        tensor = given.type.tensor_type
        if tensor.elem_type not in _FLOATS:
            raise UnsupportedFormat(f"{name}: input {given.name} is no image of floating point")
        if not tensor.HasField("shape") or not tensor.shape.dim:
            raise UnsupportedFormat(f"{name}: input {given.name} has no shape. {_FIX}")
        batch, *rest = tensor.shape.dim
        if batch.dim_value <= 0:
            notes.append(f"batch {batch.dim_param or 'size'} is taken as 1")
            batch.dim_value = 1
        elif batch.dim_value != 1:
            raise UnsupportedFormat(
                f"{name}: input {given.name} is a batch of {batch.dim_value}; a phone looks at one "
                "image. Export the network for one"
            )
        free = next((d.dim_param or "?" for d in rest if d.dim_value <= 0), None)
        if free is not None:
            raise UnsupportedFormat(
                f"{name}: input {given.name} has a free side ({free}); its latency depends on it. {_FIX}"
            )
    # A large tensor without its numbers would be damaged; as an input it has a type and a shape.
    there = {given.name for given in graph.input}
    for tensor in graph.initializer:
        if tensor.name not in there:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    kept = [t for t in graph.initializer if _numbers(t.dims) <= 256 and _has_data(t)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return inputs, tuple(dict.fromkeys(notes))


_FIX = (
    "Fix the shape:  python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME "
    "--input_shape 1,3,224,224 IN.onnx OUT.onnx"
)


def _numbers(dims: Sequence[int]) -> int:
    return math.prod(dims)


def _has_data(tensor: Any) -> bool:
    return bool(
        tensor.raw_data or tensor.float_data or tensor.int64_data or tensor.int32_data
        or tensor.double_data or tensor.uint64_data
    )  # fmt: skip


def _made(
    model: Any, name: str, inputs: tuple[str, ...], notes: tuple[str, ...], known: Container[str]
) -> Graph:
    from onnx import helper, numpy_helper

    graph = model.graph
    shapes: dict[str, Shape] = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        tensor = info.type.tensor_type
        dims = tensor.shape.dim
        if tensor.HasField("shape") and all(d.dim_value > 0 for d in dims):
            shapes[info.name] = tuple(d.dim_value for d in dims)
            if _numbers(shapes[info.name]) > _MOST_NUMBERS:
                raise UnsupportedFormat(
                    f"{name}: {info.name} is far too large: {shapes[info.name]}"
                )
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constants = {i.name for i in graph.input} - set(inputs)
    alias: dict[str, str] = {"": ""}
    twins: dict[Any, str] = {}
    for tensor_name in sorted(constants):
        value = values.get(tensor_name)
        if value is not None and value.size <= _TWIN_NUMBERS:
            key = (str(value.dtype), value.shape, value.tobytes())
            alias[tensor_name] = twins.setdefault(key, tensor_name)
    nodes: list[Node] = []
    for raw in graph.node:
        read = [alias.get(i, i) for i in raw.input]
        unknown = next((i for i in read if i and i not in constants and i not in alias), None)
        if unknown is not None and unknown not in inputs:
            raise UnsupportedFormat(
                f"{name}: {raw.op_type} {raw.name} reads {unknown} before it is made"
            )
        attributes = {} if raw.op_type == "Constant" else {
            a.name: helper.get_attribute_value(a) for a in raw.attribute
        }  # fmt: skip
        fixed = raw.op_type in ("Constant", "Shape", "Size") or (
            bool(raw.input) and all(i in constants for i in read if i)
        )
        if raw.op_type in _NAMES_ONLY and read:
            alias[raw.output[0]] = read[0]
            for extra in raw.output[1:]:
                alias[extra] = extra
            continue
        signature = (
            raw.op_type,
            tuple(read),
            tuple(sorted(a.SerializeToString(deterministic=True) for a in raw.attribute)),
            len(raw.output),
        )
        if signature in twins and raw.op_type not in ("RandomNormal", "RandomUniform"):
            for mine, first in zip(raw.output, twins[signature].split("\0"), strict=True):
                alias[mine] = first
            continue
        twins[signature] = "\0".join(raw.output)
        for out in raw.output:
            alias[out] = out
        if fixed:
            constants.update(raw.output)
            if raw.op_type == "Constant":
                values.update(_constant(raw, numpy_helper))
            continue
        nodes.append(
            Node(raw.op_type, raw.name or raw.output[0], tuple(read), tuple(raw.output), attributes)
        )
    outputs = tuple(alias.get(o.name, o.name) for o in graph.output)
    needed = _needed(nodes, outputs)
    for node in needed:
        if node.op not in known:
            why = (
                "give the network in floating point; quantised ones are not taken apart"
                if node.op.startswith(_QUANTISED) or "Quantize" in node.op
                else f"measure the network whole:  phonenas profile --network {name}"
            )
            raise UncoveredOperator(
                f"{name}: node {node.name!r} of type {node.op} is no kernel that phonenas knows; {why}"
            )
        for out in node.outputs[:1]:
            if out not in shapes:
                raise UnsupportedFormat(
                    f"{name}: what {node.op} {node.name} gives has no fixed shape. Simplify the "
                    "model with shapes fixed (onnxsim, or onnxruntime.tools.make_dynamic_shape_fixed)"
                )
    if not needed:
        raise UnsupportedFormat(f"{name} computes nothing from its input")
    return Graph(name, needed, shapes, constants, values, inputs, outputs, notes)


def _constant(raw: Any, numpy_helper: Any) -> dict[str, npt.NDArray[Any]]:
    for a in raw.attribute:
        if a.name == "value" and _numbers(a.t.dims) <= 256 and _has_data(a.t):
            return {raw.output[0]: numpy_helper.to_array(a.t)}
        if a.name in ("value_float", "value_int"):
            return {raw.output[0]: np.asarray(a.f if a.name == "value_float" else a.i)}
        if a.name in ("value_floats", "value_ints"):
            return {raw.output[0]: np.asarray(a.floats if a.name == "value_floats" else a.ints)}
    return {}


def _needed(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]
