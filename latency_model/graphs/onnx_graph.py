"""An ONNX graph made ready to be cut: shapes known, constants and unused nodes gone, twins merged.

What a runtime's first pass does, without the weights: functions are inlined; nodes whose inputs are
all constant are computed once, at loading; what no output needs is dropped; two nodes that compute
the same from the same are one; identities and dropouts are names.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import PhonenasError, UncoveredOperator, UnsupportedFormat
from phonenas.space.file_inputs import NOT_GIVEN, Given, Shape, settled
from phonenas.space.onnx_file import elsewhere, inputs_of, set_shapes

__all__ = ["Graph", "Node", "Shape", "read_graph"]

_MOST_NODES = 20_000
_MOST_NUMBERS = 1 << 31  # of one tensor
_TWIN_NUMBERS = 8  # a runtime compares constants up to this size by their content
_NAMES_ONLY = ("Identity", "Dropout")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial")
_BY_DATA = ("If", "Loop")
_SIZED_BY_DATA = ("NonMaxSuppression", "NonZero", "Unique", "Compress")
#: Shape and element type (of `onnx.TensorProto`) of each tensor that a run showed.
Observed = Mapping[str, tuple[Shape, int]]


@dataclass(frozen=True)
class Node:
    """One node, its inputs by the names that hold after twins and identities are merged."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False, compare=False, default_factory=dict)
    raw: Any = field(hash=False, compare=False, repr=False, default=None)


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
        types: Element type of each tensor, as `onnx.TensorProto` counts them.
        stored: Constants that the file stores, large ones without their numbers.
        computed: Nodes that compute constants, by what they give.
        model: The whole, without its large tensors.
    """

    name: str
    nodes: list[Node]
    shapes: dict[str, Shape]
    constants: set[str]
    values: dict[str, npt.NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    types: dict[str, int] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)
    computed: dict[str, Node] = field(default_factory=dict)
    model: Any = None

    def __post_init__(self) -> None:
        self.users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                self.users.setdefault(name, []).append(node)

    def only_user(self, tensor: str) -> Node | None:
        """The one node that reads a tensor, if it is one and the tensor is not an output."""
        users = self.users.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.outputs else None


def read_graph(
    graph: bytes,
    name: str,
    given: Given = NOT_GIVEN,
    observe: Callable[[dict[str, Shape]], Observed] | None = None,
) -> Graph:
    """A graph from a serialised model, whose large tensors may be emptied.

    Args:
        graph: As `graph_bytes` gives it.
        name: What errors call it.
        given: What the user says of its inputs.
        observe: Runs the model once at shapes of its inputs, where these do not tell all others.
    Raises:
        InvalidArgument: As `settled`.
        UnsupportedFormat: It is not a model, or of a kind that has no fixed shapes; says which part
            and what to do.
        UncoveredOperator: What runs depends on the data (`If`, `Loop`).
    """
    import onnx
    from onnx import inliner

    try:
        model = onnx.ModelProto.FromString(graph)
        _refuse(model, name)
        if model.functions:
            model = inliner.inline_local_functions(model)
            _refuse(model, name)
        shapes, notes = settled(inputs_of(model), given, name)
        set_shapes(model, shapes)
        stored = _bare(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return _made(model, name, shapes, notes, stored, observe)
    except PhonenasError:
        raise
    except Exception as error:
        # Whatever a damaged file makes the library raise.
        raise UnsupportedFormat(f"{name} is not a valid ONNX model: {str(error)[:200]}") from error


def _refuse(model: Any, name: str) -> None:
    """Refuse what is no graph, far too large, or runs by its data."""
    graph = model.graph
    if not graph.node or not graph.output:
        raise UnsupportedFormat(f"{name} holds no ONNX graph")
    if len(graph.node) > _MOST_NODES:
        raise UnsupportedFormat(
            f"{name} has {len(graph.node):,} nodes; at most {_MOST_NODES:,} can be cut into "
            f"kernels. Measure the network whole:  phonenas profile --network {shlex.quote(name)}"
        )
    for node in graph.node:
        if node.op_type in _BY_DATA and node.domain in ("", "ai.onnx"):
            raise UncoveredOperator(
                f"{name}: node {node.name or node.output[0]!r} of type {node.op_type} does "
                "work that depends on the input values, so that its latency cannot be predicted. "
                "Measure the network whole:  "
                f"phonenas profile --network {shlex.quote(name)}"
            )
    outside = elsewhere(model)
    if outside is not None:
        raise UnsupportedFormat(f"{name}: {outside} lies in another file, which is not opened")


def _bare(model: Any) -> dict[str, Any]:
    """Make large tensors inputs; what was stored, by name.

    A large tensor without its numbers would be damaged; as an input it has a type and a shape.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    stored = {t.name: TensorProto.FromString(t.SerializeToString()) for t in graph.initializer}
    there = {given.name for given in graph.input}
    for tensor in graph.initializer:
        if tensor.name not in there:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    kept = [t for t in graph.initializer if _numbers(t.dims) <= 256 and _has_data(t)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return stored


def _numbers(dims: Sequence[int]) -> int:
    return math.prod(dims)


def _has_data(tensor: Any) -> bool:
    kinds = ("raw", "float", "int64", "int32", "double", "uint64")
    return any(bool(getattr(tensor, f"{kind}_data")) for kind in kinds)


def _made(
    model: Any,
    name: str,
    given: dict[str, Shape],
    notes: tuple[str, ...],
    stored: dict[str, Any],
    observe: Callable[[dict[str, Shape]], Observed] | None,
) -> Graph:
    from onnx import helper, numpy_helper

    graph, inputs = model.graph, tuple(given)
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        tensor = info.type.tensor_type
        if not info.type.HasField("tensor_type"):
            continue
        types[info.name] = tensor.elem_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[info.name] = tuple(d.dim_value for d in tensor.shape.dim)
    for n, shape in shapes.items():
        if _numbers(shape) > _MOST_NUMBERS or min(shape, default=0) < 0:
            raise UnsupportedFormat(f"{name}: {n} is far too large: {shape}")
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
    computed: dict[str, Node] = {}
    for raw in graph.node:
        read = [alias.get(i, i) for i in raw.input]
        unknown = next((i for i in read if i and i not in constants and i not in alias), None)
        if unknown is not None and unknown not in inputs:
            raise UnsupportedFormat(
                f"{name}: {raw.op_type} {raw.name} reads {unknown} before it is made"
            )
        attributes = (
            {}
            if raw.op_type == "Constant"
            else {a.name: helper.get_attribute_value(a) for a in raw.attribute}
        )
        fixed = raw.op_type in ("Constant", "Shape", "Size") or (
            bool(raw.input)
            and all(i in constants for i in read if i)
            and raw.op_type not in _RANDOM
            and not any(a.HasField("g") for a in raw.attribute)
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
        if signature in twins and raw.op_type not in _RANDOM:
            for mine, first in zip(raw.output, twins[signature].split("\0"), strict=True):
                alias[mine] = first
            continue
        twins[signature] = "\0".join(raw.output)
        for out in raw.output:
            alias[out] = out
        op = raw.op_type if raw.domain in ("", "ai.onnx") else f"{raw.domain}.{raw.op_type}"
        node = Node(op, raw.name or raw.output[0], tuple(read), tuple(raw.output), attributes, raw)
        if fixed:
            constants.update(raw.output)
            computed.update(dict.fromkeys(raw.output, node))
            if raw.op_type == "Constant":
                values.update(_constant(raw, numpy_helper))
            continue
        nodes.append(node)
    outputs = tuple(alias.get(o.name, o.name) for o in graph.output)
    needed = _needed(nodes, outputs)
    if not needed:
        raise UnsupportedFormat(f"{name} computes nothing from its input")
    unknown = _unknown(needed, shapes, types)
    if unknown is not None and observe is not None:
        for n, (shape, kind) in observe(given).items():
            shapes[n], types[n] = shape, kind
        unknown = _unknown(needed, shapes, types)
    if unknown is not None:
        raise UnsupportedFormat(
            f"{name}: the output of {unknown.op} {unknown.name} has no fixed shape, or is not a "
            f"tensor. Measure the network whole:  phonenas profile --network {shlex.quote(name)}"
        )
    sized = [n for n in needed if n.op in _SIZED_BY_DATA]
    if sized:
        notes += (f"its time depends on the input: {sized[0].op} {sized[0].name}",)
    return Graph(
        name,
        needed,
        shapes,
        constants,
        values,
        inputs,
        outputs,
        notes,
        types,
        stored,
        computed,
        model,
    )


def _unknown(
    nodes: Sequence[Node], shapes: Mapping[str, Shape], types: Mapping[str, int]
) -> Node | None:
    """The first node that gives a tensor without a shape or a type."""
    for node in nodes:
        if any(o and (o not in shapes or not types.get(o)) for o in node.outputs):
            return node
    return None


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
