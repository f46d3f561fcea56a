"""TfliteFile: a network in a TFLite file; and its graph, read with bounds on all that it says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument, MissingExtra, UnknownName, UnsupportedFormat, install, reading
from .file_inputs import NOT_GIVEN, Given, Input, Shape, linked
from .network_file import NetworkFile
from .precision import of_layers

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TfliteFile", "TfliteGraph", "TfliteNode", "TfliteTensor", "constants_of", "read_tflite"]

_MOST_BYTES = 2 << 30  # what one such file can hold
_MOST_PARTS = 20_000
_MOST_SIDES = 8
_MOST_VALUES = 64
_IDENTIFIER = b"TFL3"
_REDUCED = b"reduced_precision_support"  # of the metadata; see TFLite's XNNPACK delegate
_HALF = "it asks for arithmetic of 16 bits, which XNNPACK has on some processors, else of 32 bits"
_NUMPY = {"BOOL": "bool", "STRING": "str"}
# Operations with weights: where the feature map stands among their inputs, and the weights.
_WEIGHTED = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"), (0, 1)),
    "TRANSPOSE_CONV": (2, 1),
    "CONV_3D": (0, 1),
}


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor: `sides` has a 0 where a side is free; `values` of small constants of integers."""

    name: str
    kind: str  # as the schema calls it: FLOAT32, INT8, ...
    sides: Shape
    constant: bool
    values: tuple[int, ...] = ()

    @property
    def dtype(self) -> str:
        """numpy's name of its type."""
        return _NUMPY.get(self.kind, self.kind.lower())


@dataclass(frozen=True)
class TfliteNode:
    """A node: its operation, tensors by number (-1 for none) and options by name."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(hash=False, default_factory=dict)


@dataclass(frozen=True)
class TfliteGraph:
    """The first graph of a file, which is what runs.

    `half` says that floats may be computed in 16 bits, where the processor can.
    """

    tensors: tuple[TfliteTensor, ...]
    nodes: tuple[TfliteNode, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    half: bool = False

    @property
    def given(self) -> list[Input]:
        """Its inputs as a user sees them."""
        found = []
        for at in self.inputs:
            tensor = self.tensors[at]
            sides: tuple[int | str, ...] = tuple(n or "?" for n in tensor.sides)
            found.append(Input(tensor.name, tensor.dtype, sides))
        return found

    @property
    def computed(self) -> tuple[str, str]:
        """What it computes in, and which layers differ from most: as `of_layers`.

        Of a layer with weights the weights and the feature map decide. Integers with a map of
        floats are `int8-dynamic`; float16 made float32 as they are loaded are `float16-weights`,
        or `float16` where the file asks for arithmetic of 16 bits.
        """
        wide = {n.outputs[0]: n.inputs[0] for n in self.nodes if n.op in ("DEQUANTIZE", "DENSIFY")}
        layers = []
        for node in self.nodes:
            map_, weights = _WEIGHTED.get(node.op, (0, 0))
            if not weights or max(map_, weights) >= len(node.inputs):
                continue
            at, behind = node.inputs[weights], False
            for _ in range(2):  # sparse weights that are dequantised too
                if at in wide and not self.tensors[at].constant:
                    at, behind = wide[at], True
            if at >= 0 and self.tensors[at].constant:
                kind = self.tensors[at].kind
                given = self.tensors[node.inputs[map_]].kind if node.inputs[map_] >= 0 else ""
                name = self.tensors[node.outputs[0]].name if node.outputs[0] >= 0 else ""
                own = _computed(kind, given, behind)
                own = "float16" if self.half and own == "float16-weights" else own
                layers.append((own, f"{node.op} {name}".strip()))
        if layers:
            return of_layers(layers)
        kinds = Counter(self.tensors[at].kind for at in self.inputs)
        kinds.update(self.tensors[at].kind for n in self.nodes for at in n.outputs if at >= 0)
        numbers = [k for k, _ in kinds.most_common() if "FLOAT" in k or k in ("INT8", "UINT8")]
        kind = numbers[0] if numbers else "FLOAT32"
        return _computed(kind, kind, False), ""


def _computed(weights: str, given: str, behind: bool) -> str:
    """What a layer computes in.

    Args:
        weights: Type of its weights, as they are stored.
        given: Type of the feature map that it gets.
        behind: Whether the weights are made floats first.
    """
    weights = {"UINT8": "INT8"}.get(weights, weights)
    if weights == "INT8" and behind:
        return "int8-weights"
    if weights == "INT8" and given.startswith("FLOAT"):
        return "int8-dynamic"
    if weights == "INT8" and given == "INT16":
        return "int16"
    if weights == "FLOAT16" and given == "FLOAT32":
        return "float16-weights"
    return weights.lower()


@dataclass(frozen=True)
class TfliteFile(NetworkFile):
    """A network in a TFLite file, as a subject to measure; arguments as of `NetworkFile`.

    Args:
        partly: A delegate may leave some of its nodes to other kernels.
    """

    partly: bool = True

    @classmethod
    def at(cls, path: Path, macs: int = 0, given: Given = NOT_GIVEN) -> TfliteFile:
        """The file at a path, with what a user says of its inputs.

        Raises:
            UnknownName, InvalidArgument, UnsupportedFormat, MissingExtra: As `read_tflite`; or a
                side stays free.
        """
        graph = read_tflite(path)
        file = cls.given(path, (path,), graph.given, given, macs, graph.computed)
        return replace(file, notes=(*file.notes, _HALF)) if graph.half else file

    def write(self, path: Path) -> Path:
        """Link it at a path; shapes that are set go beside it, as an .npz file of inputs."""
        kinds = {i.name: i.dtype for i in read_tflite(self.path).given} if self.shapes else {}
        return linked(self.path, path, self.inputs, dict(self.shapes), kinds)


def read_tflite(path: Path) -> TfliteGraph:
    """The graph of a file.

    Raises:
        UnknownName, InvalidArgument: No such file, or it cannot be read.
        UnsupportedFormat: It is no TFLite file, damaged, or far too large.
        MissingExtra: ai-edge-litert is not installed.
    """
    try:
        size = path.stat().st_size
        if not 8 < size < _MOST_BYTES:
            raise UnsupportedFormat(f"{path} holds {size:,} bytes: no TFLite file")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    if content[4:8] != _IDENTIFIER:
        raise UnsupportedFormat(f"{path} is not a TFLite file: it does not say {_IDENTIFIER!r}")
    with reading(str(path), "Convert the network again."):
        return _graph(content, str(path))


def constants_of(path: Path) -> Iterator[npt.NDArray[Any]]:
    """The constants of the first graph of a file that `read_tflite` takes, each of one axis.

    Types that numpy has not, as int4, are left out.
    """
    import numpy as np

    model = _schema().Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    with reading(str(path), "Convert the network again."):
        for at in range(graph.TensorsLength()):
            tensor = graph.Tensors(at)
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            kind = _names("TensorType")[tensor.Type()].lower()
            if hasattr(data, "tobytes") and hasattr(np, kind):
                yield np.frombuffer(data.tobytes(), kind)


@cache
def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except (ImportError, OSError) as error:
        raise MissingExtra(
            "a TFLite file was given, and ai-edge-litert, which carries its schema, cannot be "
            f"imported here. Install it:  {install('litert')}"
        ) from error
    return schema_py_generated


@cache
def _names(of: str) -> dict[int, str]:
    kinds = vars(getattr(_schema(), of))
    return {v: k for k, v in kinds.items() if isinstance(v, int) and not k.startswith("_")}


def _graph(content: bytes, name: str) -> TfliteGraph:
    model = _schema().Model.GetRootAs(content, 0)
    if not model.SubgraphsLength():
        raise UnsupportedFormat(f"{name} holds no graph")
    graph = model.Subgraphs(0)
    counts = (
        graph.TensorsLength(),
        graph.OperatorsLength(),
        model.OperatorCodesLength(),
        graph.InputsLength() + graph.OutputsLength(),
    )
    if max(counts) > _MOST_PARTS or model.BuffersLength() > 4 * _MOST_PARTS:
        raise UnsupportedFormat(f"{name} has over {_MOST_PARTS:,} nodes or tensors")
    ops = [_op(model.OperatorCodes(i)) for i in range(counts[2])]
    tensors = tuple(_tensor(model, graph.Tensors(i)) for i in range(counts[0]))
    nodes = tuple(_node(graph.Operators(i), ops, len(tensors)) for i in range(counts[1]))
    inputs = _places(graph.InputsAsNumpy(), len(tensors))
    outputs = _places(graph.OutputsAsNumpy(), len(tensors))
    if not nodes or min((*inputs, *outputs), default=-1) < 0:
        raise UnsupportedFormat(f"{name} computes nothing from its input")
    return TfliteGraph(tensors, nodes, inputs, outputs, _half(model))


def _half(model: Any) -> bool:
    """Whether a file asks for arithmetic of 16 bits."""
    for i in range(min(model.MetadataLength(), _MOST_VALUES)):
        one = model.Metadata(i)
        if one.Name() == _REDUCED and one.Buffer() < model.BuffersLength():
            data = model.Buffers(one.Buffer()).DataAsNumpy()
            return hasattr(data, "tobytes") and data.tobytes()[:4] == b"fp16"
    return False


def _op(code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names("BuiltinOperator").get(number)
    if name is None:
        raise ValueError(f"an operation of number {number}")
    custom = (code.CustomCode() or b"").decode("utf-8", "replace")
    return re.sub(r"\W+", "_", custom)[:60] or "CUSTOM" if name == "CUSTOM" else name


def _places(numbers: Any, count: int) -> tuple[int, ...]:
    found = tuple(int(n) for n in numbers) if hasattr(numbers, "__len__") else ()
    if len(found) > _MOST_PARTS or not all(-1 <= n < count for n in found):
        raise ValueError("a tensor that is not there")
    return found


def _tensor(model: Any, tensor: Any) -> TfliteTensor:
    import numpy as np

    kind = _names("TensorType").get(tensor.Type())
    if kind is None:
        raise ValueError(f"a tensor of type {tensor.Type()}")
    shape, signature = tensor.ShapeAsNumpy(), tensor.ShapeSignatureAsNumpy()
    sides = [int(n) for n in shape] if hasattr(shape, "__len__") else []
    if hasattr(signature, "__len__") and len(signature) == len(sides):
        sides = [0 if int(s) < 0 else n for n, s in zip(sides, signature, strict=True)]
    if len(sides) > _MOST_SIDES or not all(0 <= n < 1 << 31 for n in sides):
        raise ValueError(f"a tensor of {sides[:_MOST_SIDES]}")
    buffer = model.Buffers(tensor.Buffer()) if tensor.Buffer() < model.BuffersLength() else None
    size = 0 if buffer is None else max(buffer.DataLength(), int(buffer.Size()))
    values: tuple[int, ...] = ()
    if buffer is not None and kind in ("INT32", "INT64") and 0 < size <= 8 * _MOST_VALUES:
        data = buffer.DataAsNumpy()
        if hasattr(data, "tobytes"):
            values = tuple(map(int, np.frombuffer(data.tobytes(), kind.lower())))
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    return TfliteTensor(name, kind, tuple(sides), size > 0, values)


def _node(node: Any, ops: list[str], tensors: int) -> TfliteNode:
    schema = _schema()
    op = ops[node.OpcodeIndex()]
    options: dict[str, Any] = {}
    kind = _names("BuiltinOptions").get(node.BuiltinOptionsType(), "NONE")
    table = node.BuiltinOptions()
    if kind != "NONE" and table is not None:
        reader = getattr(schema, kind)()
        reader.Init(table.Bytes, table.Pos)
        given = getattr(schema, f"{kind}T").InitFromObj(reader)
        options = {
            k: v for k, v in vars(given).items() if isinstance(v, int | float | bool | bytes)
        }
    outputs = _places(node.OutputsAsNumpy(), tensors)
    if not outputs:
        raise ValueError(f"{op} gives nothing")
    return TfliteNode(op, _places(node.InputsAsNumpy(), tensors), outputs, options)
