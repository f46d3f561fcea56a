"""A TFLite network as the kernels that its runtime launches.

Maps are (1, height, width, channels) there. Activations stand in the options of the node before
them; XNNPACK and the GPU delegate fold padding with zeros into the convolution behind it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from phonenas.space import Kernel
from phonenas.space.errors import InvalidArgument, UncoveredOperator, UnsupportedFormat, reading
from phonenas.space.file_inputs import NOT_GIVEN, Given, Shape
from phonenas.space.tflite_file import TfliteFile, TfliteGraph, TfliteNode, read_tflite

from .onnx_cut import OnnxNetwork
from .onnx_layout import Step

__all__ = ["cut_tflite"]

_FUSED = {0: (), 1: ("relu",), 2: ("clip",), 3: ("relu6",), 4: ("tanh",)}
_ACTIVATIONS = {
    "RELU": "relu",
    "RELU6": "relu6",
    "RELU_N1_TO_1": "clip",
    "LOGISTIC": "sigmoid",
    "TANH": "tanh",
    "HARD_SWISH": "hard_swish",
    "PRELU": "prelu",
    "LEAKY_RELU": "leaky_relu",
    "ELU": "elu",
}
_NAMES_ONLY = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_BY_DATA = ("IF", "WHILE", "CALL_ONCE")
_SIZED_BY_DATA = ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "WHERE", "UNIQUE")
_DETECTION = "TFLite_Detection_PostProcess"
_BITS = {"FLOAT64": 64, "INT64": 64, "FLOAT16": 16, "INT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8}


class _Own(Exception):
    """No kind of kernel stands for a node."""


def cut_tflite(path: Path, given: Given = NOT_GIVEN) -> OnnxNetwork:
    """Cut a TFLite file into its kernels.

    Raises:
        UnknownName, InvalidArgument, MissingExtra: As `read_tflite`; or a side stays free.
        UnsupportedFormat: Damaged; or an input is set to another size than the file was made for.
        UncoveredOperator: A node does work that depends on the input values; it is named.
    """
    graph, file = read_tflite(path), TfliteFile.at(path, given=given)
    for name, shape in file.shapes:
        at = next(i for i in graph.inputs if graph.tensors[i].name == name)
        made_for = tuple(n or 1 for n in graph.tensors[at].sides)
        if shape != made_for:
            raise UnsupportedFormat(
                f"{path} was made for {name}={','.join(map(str, made_for))}; at another size it "
                "can only be measured whole:  phonenas profile --network FILE --shape ..."
            )
    with reading(str(path), "Convert the network again."):
        steps = _KernelBuilder(graph, str(path)).steps()
    if not steps:
        raise UnsupportedFormat(f"{path} computes nothing from its input")
    notes = file.notes
    sized = [n.op for n in graph.nodes if n.op in (*_SIZED_BY_DATA, _DETECTION)]
    if sized:
        notes += (f"its time depends on the input: {sized[0]}",)
    return OnnxNetwork(file.name, file.digest, tuple(steps), notes, file.precision, odd=file.odd)


class _KernelBuilder:
    """Goes through the nodes in order."""

    def __init__(self, graph: TfliteGraph, name: str) -> None:
        self.graph, self.name = graph, name
        self.constants = {i for i, t in enumerate(graph.tensors) if t.constant}
        self.padded: dict[int, int] = {}  # a convolution's padded input → before the padding
        self.users: dict[int, list[TfliteNode]] = {}
        for node in graph.nodes:
            for at in node.inputs:
                self.users.setdefault(at, []).append(node)

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        for number, node in enumerate(self.graph.nodes):
            if node.op in _BY_DATA:
                raise UncoveredOperator(
                    f"{self.name}: node {number} of type {node.op} does work that depends "
                    "on the input values, so that its latency cannot be predicted. Measure the "
                    f"network whole:  phonenas profile --network {self.name}"
                )
            known = all(at in self.constants for at in node.inputs if at >= 0)
            if node.op in ("SHAPE", "RANK") or (known and node.inputs):
                self.constants.update(node.outputs)  # computed once, as it is loaded
                continue
            if node.op in _NAMES_ONLY:
                continue
            make = _MAKERS.get(node.op) or (_activation if node.op in _ACTIVATIONS else None)
            try:
                if make is None or not self.common(node):
                    raise _Own
                kernel = make(self, node)
            except (_Own, InvalidArgument):
                kernel = self.own(node)
            if kernel is None:
                continue
            maps = tuple(self.tensor(at).name or str(at) for at in self.maps(node))
            out = self.tensor(node.outputs[0]).name or str(node.outputs[0])
            steps.append(Step(kernel, f"{number} {node.op}", maps, out))
        return steps

    def tensor(self, at: int) -> Any:
        return self.graph.tensors[at]

    def maps(self, node: TfliteNode) -> list[int]:
        return [at for at in node.inputs if at >= 0 and at not in self.constants]

    def common(self, node: TfliteNode) -> bool:
        """Whether it is on maps of one image, in the type that the network computes in."""
        kinds = {self.tensor(at).kind for at in (*self.maps(node), node.outputs[0])}
        return kinds <= {"FLOAT32", "FLOAT16"} or kinds in ({"INT8"}, {"UINT8"})

    def shape(self, at: int) -> Shape:
        return tuple(n or 1 for n in self.tensor(at).sides)

    def chw(self, at: int) -> tuple[int, tuple[int, int]]:
        """Channels and size of a map; rows of features count as pixels."""
        shape = self.shape(at)
        if len(shape) == 4:
            return shape[3], (shape[0] * shape[1], shape[2])
        return (shape[-1] if shape else 1), (max(1, math.prod(shape[:-1])), 1)

    def plain(self, kind: Any, node: TfliteNode, **more: Any) -> Kernel:
        """A kernel from the first map that a node reads to what it gives."""
        (c, px), (oc, opx) = self.chw(self.maps(node)[0]), self.chw(node.outputs[0])
        given: dict[str, Any] = {"in_px": px, "out_px": opx, **more}
        return Kernel(kind, given.pop("in_channels", c), given.pop("out_channels", oc), **given)

    def numbers(self, at: int) -> int:
        tensor = self.tensor(at)
        return -(-math.prod(self.shape(at)) * _BITS.get(tensor.kind, 32) // 32)

    def own(self, node: TfliteNode) -> Kernel:
        """A kernel of the file's own, named by a digest of all that it says of itself."""
        tensors = [(self.tensor(at).kind, self.shape(at)) for at in node.inputs if at >= 0]
        given = [(self.tensor(at).kind, self.shape(at)) for at in node.outputs]
        text = repr((node.op, tensors, given, sorted(node.options.items())))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        writes = max(1, sum(map(self.numbers, node.outputs)))
        window = max(1, round(self.macs(node) / writes))
        name = re.sub(r"[^a-z0-9]+", "_", node.op.lower()).strip("_") or "node"
        reads = max(1, sum(self.numbers(at) for at in node.inputs if at >= 0))
        return Kernel("node", reads, writes, kernel=(1, window), fused=(name, f"d{digest}"))

    def macs(self, node: TfliteNode) -> int:
        shapes = [self.shape(at) for at in node.inputs if at >= 0]
        out = math.prod(self.shape(node.outputs[0]))
        if node.op == "TRANSPOSE_CONV" and len(shapes) > 2:
            return math.prod(shapes[2]) * math.prod(shapes[1][:3])
        if node.op in ("BATCH_MATMUL", "FULLY_CONNECTED"):
            return out * shapes[0][-1]
        if node.op == "CONV_2D":
            return out * math.prod(shapes[1][1:])
        if node.op == "DEPTHWISE_CONV_2D":
            return out * math.prod(shapes[1][1:3])
        return 0


def _fused(node: TfliteNode) -> tuple[str, ...]:
    number = int(node.options.get("fusedActivationFunction", 0))
    if number not in _FUSED:
        raise _Own
    return _FUSED[number]


def _step(node: TfliteNode) -> tuple[int, int]:
    return int(node.options.get("strideH", 1)), int(node.options.get("strideW", 1))


def _conv(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    source, weight = c.padded.get(node.inputs[0], node.inputs[0]), c.shape(node.inputs[1])
    spread = max(int(node.options.get(f"dilation{x}Factor", 1)) for x in "WH")
    if c.shape(source)[0] != 1 or spread > 1 or node.inputs[1] not in c.constants:
        raise _Own
    channels, px = c.chw(source)
    each = channels if node.op.startswith("DEPTHWISE") else weight[3]
    groups = channels if node.op.startswith("DEPTHWISE") else channels // each
    kernel = (weight[1], weight[2])
    return c.plain(
        "conv",
        node,
        in_channels=channels,
        in_px=px,
        kernel=kernel,
        stride=_step(node),
        groups=groups,
        fused=_fused(node),
    )


def _linear(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    if node.inputs[1] not in c.constants:
        raise _Own
    out, inside = c.shape(node.inputs[1])
    rows = max(1, math.prod(c.shape(node.outputs[0])) // out)
    return Kernel("linear", inside, out, (rows, 1), (rows, 1), fused=_fused(node))


def _pool(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    kind = "max_pool" if node.op.startswith("MAX") else "average_pool"
    window = (int(node.options["filterHeight"]), int(node.options["filterWidth"]))
    (_, px), (_, opx) = c.chw(node.inputs[0]), c.chw(node.outputs[0])
    if kind == "average_pool" and window == px and opx == (1, 1):
        return c.plain("global_pool", node)
    return c.plain(kind, node, kernel=window, stride=_step(node))


def _mean(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    axes, rank = c.tensor(node.inputs[1]).values, len(c.shape(node.inputs[0]))
    if rank != 4 or sorted(a % rank for a in axes) != [1, 2]:
        raise _Own
    channels, px = c.chw(node.inputs[0])
    return Kernel("global_pool", channels, channels, px)


def _binary(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    whole = c.shape(node.outputs[0])
    full = [m for m in c.maps(node) if c.shape(m) == whole]
    if not full:
        raise _Own
    channels, px = c.chw(node.outputs[0])
    kind: Any = "mul" if node.op in ("MUL", "DIV") else "add"
    return Kernel(kind, channels, channels, px, px, operands=len(full), fused=_fused(node))


def _activation(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    return c.plain("activation", node, fused=(_ACTIVATIONS[node.op],))


def _concat(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    channels, px = c.chw(node.outputs[0])
    return Kernel("concat", channels, channels, px, px, operands=max(2, len(c.maps(node))))


def _pad(c: _KernelBuilder, node: TfliteNode) -> Kernel | None:
    before, after = c.shape(node.inputs[0]), c.shape(node.outputs[0])
    users = c.users.get(node.outputs[0], [])
    convolved = bool(users) and all("CONV_2D" in u.op for u in users)
    if convolved and node.op == "PAD" and len(after) == 4 and before[3] == after[3]:
        c.padded[node.outputs[0]] = node.inputs[0]
        return None
    return c.plain("move", node, fused=("pad",))


def _move(name: str) -> Callable[[_KernelBuilder, TfliteNode], Kernel | None]:
    def make(c: _KernelBuilder, node: TfliteNode) -> Kernel:
        return c.plain("move", node, fused=(name,))

    return make


def _transpose(c: _KernelBuilder, node: TfliteNode) -> Kernel | None:
    shape, perm = c.shape(node.inputs[0]), c.tensor(node.inputs[1]).values
    if len(perm) != len(shape):
        raise _Own
    moved = [p for p in perm if shape[p] > 1]
    if moved == sorted(moved):
        return None  # only sides of 1 move
    return c.plain("move", node, fused=("transpose",))


def _softmax(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    return c.plain("softmax", node)


def _resize(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    return c.plain("resize", node)


def _split(c: _KernelBuilder, node: TfliteNode) -> Kernel:
    (map_,) = c.maps(node)
    channels, px = c.chw(map_)
    return replace(c.plain("move", node, fused=("split",)), out_channels=channels, out_px=px)


_MAKERS: dict[str, Callable[[_KernelBuilder, TfliteNode], Kernel | None]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _linear,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "CONCATENATION": _concat,
    "PAD": _pad,
    "PADV2": _pad,
    "TRANSPOSE": _transpose,
    "SLICE": _move("slice"),
    "STRIDED_SLICE": _move("slice"),
    "SPLIT": _split,
    "SOFTMAX": _softmax,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), _binary),
}
