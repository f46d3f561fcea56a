"""What a network computes in, by name: the precisions that networks are written and searched in.

A precision is read from the file that is measured (`onnx_file`, `ort_file`, `tflite_file`), never
taken from a setting. It is part of all conditions: times, models and runs of unlike precisions
never merge, and never lie under one name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .errors import InvalidArgument, UnknownName, nearest

__all__ = [
    "FLOAT32",
    "OF_FILES",
    "PRECISIONS",
    "Constant",
    "FileNode",
    "Precision",
    "checked_precision",
    "from_front",
    "in_front",
    "of_layers",
    "of_nodes",
    "weight_bytes",
]

FLOAT32 = "float32"


@dataclass(frozen=True)
class Precision:
    """A precision that networks are written in.

    Args:
        name: As it stands in conditions, in file names and after `--precision`.
        weight_bytes: Of one weight in the file, in bytes, > 0.
        weights: Type of the weights in the file.
        activations: Type of the feature maps that are computed with.
        about: What it is, for help and documents.
    """

    name: str
    weight_bytes: int
    weights: str
    activations: str
    about: str


#: Those that phonenas writes, by name.
PRECISIONS = {
    p.name: p
    for p in (
        Precision(FLOAT32, 4, FLOAT32, FLOAT32, "floats of 32 bits"),
        Precision("float16", 2, "float16", "float16", "floats of 16 bits, computed as such"),
        Precision(
            "int8",
            1,
            "int8",
            "int8",
            "weights and feature maps of 8 bits: one scale for each output channel's weights, "
            "calibrated ranges of the feature maps",
        ),
        Precision(
            "int8-dynamic",
            1,
            "int8",
            FLOAT32,
            "weights of 8 bits; the range of a feature map is found as it is computed",
        ),
        Precision(
            "float16-weights",
            2,
            "float16",
            FLOAT32,
            "weights of 16 bits, made 32 bits as they are loaded",
        ),
    )
}
#: Further ones that somebody else's file may have; such a file is measured whole, as it is.
OF_FILES = ("bfloat16", "float64", "int16", "int4", "int8-weights")
_JOINT = "+"


def checked_precision(
    name: str, what: str = "--precision", among: Collection[str] = tuple(PRECISIONS)
) -> str:
    """A precision's name, as it was given.

    >>> checked_precision("int8")
    'int8'

    Args:
        name: The name.
        what: Where it was given, for the message.
        among: Those that are possible there.
    Raises:
        UnknownName: No precision is called so; the message offers the nearest.
        InvalidArgument: There is one, which is not possible there.
    """
    if name in among:
        return name
    if name in PRECISIONS or name in OF_FILES or _JOINT in name:
        raise InvalidArgument(f"{what} {name} is not possible here; it is {' or '.join(among)}")
    raise UnknownName(f"{what}: no precision is called {name!r}. {nearest(name, among)}")


def weight_bytes(precision: str) -> int:
    """Bytes of one weight in a file, > 0; 4 of a precision that phonenas does not write.

    >>> weight_bytes("int8-dynamic"), weight_bytes("float16-weights")
    (1, 2)
    """
    known = PRECISIONS.get(precision)
    return 4 if known is None else known.weight_bytes


def in_front(precision: str, text: str) -> str:
    """A network's text behind its precision, where that is not float32.

    >>> in_front("int8", "r1_k3_s11_e1_i32_o16"), in_front("float32", "r1_k3_s11_e1_i32_o16")
    ('int8 r1_k3_s11_e1_i32_o16', 'r1_k3_s11_e1_i32_o16')
    """
    return text if precision == FLOAT32 else f"{precision} {text}"


def from_front(text: str) -> tuple[str, str]:
    """The precision and the network of a text that `in_front` gave.

    >>> from_front("int8 r1_k3_s11_e1_i32_o16"), from_front("r1_k3_s11_e1_i32_o16")
    (('int8', 'r1_k3_s11_e1_i32_o16'), ('float32', 'r1_k3_s11_e1_i32_o16'))
    """
    first, _, rest = text.partition(" ")
    return (first, rest) if first in PRECISIONS else (FLOAT32, text)


class FileNode(NamedTuple):
    """A node of a file in ONNX's operations.

    Args:
        op: Its operation, without the domain.
        name: As the file calls it; "" for none.
        inputs, outputs: Names of tensors.
        to: Of a Cast, the type that it makes, as numpy calls it.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    to: str = ""


class Constant(NamedTuple):
    """A stored tensor: its type, as numpy calls it, and how many numbers it has."""

    kind: str
    numbers: int


_QUANTISE, _DEQUANTISE, _DYNAMIC = "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"
# Operations with weights, by where these stand.
_WEIGHTED = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv"), (1,)),
    **dict.fromkeys(("Gemm", "FusedGemm", "LSTM", "GRU", "RNN"), (1,)),
    **dict.fromkeys(("MatMul", "FusedMatMul"), (1, 0)),
}
_INTEGER = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QAttention")
_QLINEAR = ("QLinearConv", "QLinearMatMul", "QGemm")
# What hands on the numbers that it gets.
_SAME = {"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Relu"}
_SAME |= {"Clip", "Pad"}
_MOST_STEPS = 16
_OF_KINDS = {"uint8": "int8", "uint4": "int4", "uint16": "int16"}


def of_nodes(
    nodes: Sequence[FileNode], constants: Mapping[str, Constant], inputs: Collection[str] = ()
) -> tuple[str, str]:
    """What a graph of ONNX's operations computes in.

    Layers with weights decide: `int8` where the weights and the feature map are quantised (between
    QuantizeLinear and DequantizeLinear, or in a QLinear operation), or where stored float weights
    stand between quantised maps (ONNX Runtime quantises them as it loads the file);
    `int8-dynamic` where the map's range is found at run time (DynamicQuantizeLinear);
    `float16-weights` where a Cast makes stored float16 weights float32; else the type of the
    weights. Without such a layer: integers where something is quantised, else the type of most
    stored numbers, else that of the inputs.

    Args:
        nodes: In order.
        constants: Stored tensors by name.
        inputs: Types of the inputs, as numpy calls them.
    Returns:
        As `of_layers`.
    """
    makers = {out: node for node in nodes for out in node.outputs if out}
    integer = {n.inputs[0] for n in nodes if n.op == _QUANTISE and n.inputs}
    # A map that a runtime quantises at once, for all that the file says of it in between.
    integer |= {n.inputs[0] for n in nodes if n.op in ("Relu", "Clip") and integer & {*n.outputs}}
    layers: list[tuple[str, str]] = []
    for node in nodes:
        kind = _layer(node, makers, constants)
        if kind == FLOAT32 and integer & {*node.outputs} and _dequantised(node.inputs[0], makers):
            kind = "int8"
        if kind:
            layers.append((kind, f"{node.op} {node.name or (*node.outputs, '')[0]}".strip()))
    if layers:
        return of_layers(layers)
    ops = {node.op for node in nodes}
    if any(op == _QUANTISE or op.startswith("QLinear") for op in ops):
        return "int8", ""
    if _DYNAMIC in ops:
        return "int8-dynamic", ""
    numbers: Counter[str] = Counter(dict.fromkeys(inputs, 0))
    for constant in constants.values():
        numbers[constant.kind] += constant.numbers
    floats = {k: n for k, n in numbers.items() if "float" in k}
    return (max(floats, key=lambda k: floats[k]) if floats else FLOAT32), ""


def of_layers(layers: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """What a file computes in whose layers with weights compute in these.

    >>> of_layers([("int8", "Conv a"), ("int8", "Conv b"), ("float32", "Gemm c")])
    ('float32+int8', '1 of its 3 layers with weights computes in float32: Gemm c')

    Args:
        layers: Precision and name of each, at least one.
    Returns:
        The precision, which names all that are mixed, in alphabetic order; and the layers that
        differ from most, in words: "" for none.
    """
    numbers = Counter(kind for kind, _ in layers)
    if len(numbers) == 1:
        return layers[0][0], ""
    most = max(numbers, key=lambda k: numbers[k])
    told = []
    for kind, n in numbers.items():
        if kind != most:
            first = next(name for k, name in layers if k == kind)
            verb = "computes" if n == 1 else "compute"
            of = f"{n} of its {len(layers)} layers with weights {verb} in {kind}"
            told.append(f"{of}: {first}" + (", ..." if n > 1 else ""))
    return _JOINT.join(sorted(numbers)), "; ".join(told)


def _layer(
    node: FileNode, makers: Mapping[str, FileNode], constants: Mapping[str, Constant]
) -> str:
    """What a node with weights computes in; "" for a node without."""
    if node.op in _QLINEAR:
        return "int8"
    if node.op in _INTEGER:
        map_ = makers.get((*node.inputs, "")[0])
        return "int8-dynamic" if map_ is not None and map_.op == _DYNAMIC else "int8"
    if node.op.startswith("DynamicQuantize") and node.op != _DYNAMIC:
        return "int8-dynamic"
    if node.op == "MatMulNBits":
        return "int4"
    for at in _WEIGHTED.get(node.op, ()):
        if at >= len(node.inputs) or len(node.inputs) < 2:
            continue
        found = _weights(node.inputs[at], makers, constants)
        if found is None:
            continue
        kind, through = found
        if through == _DEQUANTISE:
            own = _OF_KINDS.get(kind, kind)
            if own != "int8":
                return own
            of = 1 - at if at < 2 else 0
            return "int8" if _dequantised(node.inputs[of], makers) else "int8-weights"
        if kind == "float16" and through == FLOAT32:
            return "float16-weights"
        kind = through or kind
        return kind if "float" in kind else ""
    return ""


def _weights(
    name: str, makers: Mapping[str, FileNode], constants: Mapping[str, Constant]
) -> tuple[str, str] | None:
    """Type of stored weights, and what makes numbers of them: DequantizeLinear, or the type of a
    Cast, or ""; None for what is computed."""
    through = ""
    for _ in range(_MOST_STEPS):
        if name in constants:
            return constants[name].kind, through
        node = makers.get(name)
        if node is None or not node.inputs:
            return None
        if node.op == _DEQUANTISE:
            through = _DEQUANTISE
        elif node.op == "Cast":
            through = through or node.to
        elif node.op == _QUANTISE:  # of floats, as training for integers leaves them
            zero = constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
            known = _weights(node.inputs[0], makers, constants)
            return None if known is None else (zero.kind if zero else "uint8", through)
        elif node.op not in _SAME:
            return None
        name = node.inputs[0]
    return None


def _dequantised(name: str, makers: Mapping[str, FileNode]) -> bool:
    """Whether a feature map comes out of integers."""
    for _ in range(_MOST_STEPS):
        node = makers.get(name)
        if node is None or not node.inputs:
            return False
        if node.op == _DEQUANTISE:
            return True
        if node.op not in _SAME:
            return False
        name = node.inputs[0]
    return False
